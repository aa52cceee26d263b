"""Whose request it is, with and without proxies."""

from __future__ import annotations

import pytest

from server.middleware.client_address import ClientAddresses, is_loopback, parse_address

PROXIES = ClientAddresses(["10.0.0.0/8", "2001:db8::/32"])


def resolve(peer: str, forwarded: str | None = None, real_ip: str | None = None) -> tuple[str, bool]:
    headers = {}
    if forwarded is not None:
        headers[b"x-forwarded-for"] = forwarded.encode()
    if real_ip is not None:
        headers[b"x-real-ip"] = real_ip.encode()
    return PROXIES.resolve(peer, headers)


def test_without_forwarding_the_peer_counts() -> None:
    assert resolve("127.0.0.1") == ("127.0.0.1", True)
    assert resolve("::1") == ("::1", True)
    assert resolve("::ffff:127.0.0.1") == ("::ffff:127.0.0.1", True)
    assert resolve("203.0.113.9") == ("203.0.113.9", False)
    assert resolve("") == ("", False)


def test_strangers_are_not_believed() -> None:
    assert resolve("203.0.113.9", "198.51.100.1") == ("203.0.113.9", False)
    assert resolve("203.0.113.9", "127.0.0.1") == ("203.0.113.9", False)


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.2.3", "2001:db8::5"])
def test_trusted_proxies_are_believed(peer: str) -> None:
    assert resolve(peer, "198.51.100.1") == ("198.51.100.1", False)
    assert resolve(peer, real_ip="198.51.100.1") == ("198.51.100.1", False)
    assert resolve(peer, "[2001:db9::1]:443") == ("2001:db9::1", False)


def test_the_last_address_that_is_no_proxy_counts() -> None:
    assert resolve("10.0.0.1", "1.2.3.4, 198.51.100.1, 10.9.9.9") == ("198.51.100.1", False)


@pytest.mark.parametrize(
    "claim", ["127.0.0.1", "::1", "localhost", "198.51.100.1, 127.0.0.1", "0.0.0.0", "", "nonsense"]
)
def test_a_forwarded_claim_to_be_local_is_refused(claim: str) -> None:
    assert resolve("127.0.0.1", claim or " ") == ("127.0.0.1", False)


def test_parse_address() -> None:
    assert str(parse_address(" 198.51.100.1:8080 ")) == "198.51.100.1"
    assert str(parse_address("fe80::1%eth0")) == "fe80::1"
    assert parse_address("testclient") is None
    assert not is_loopback("128.0.0.1")
    assert is_loopback("127.8.8.8")
