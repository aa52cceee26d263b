"""Token buckets, bans and connection counts."""

from __future__ import annotations

import pytest

from server.config import RateLimitSection
from server.errors import TooManyRequests
from server.exchange import Exchange
from server.middleware.rate_limit import RateLimits, TokenBuckets, limit_key
from tests.server.fakes import FakeClock


def exchange(client: str, *, loopback: bool = False) -> Exchange:
    made = Exchange({"headers": []}, None, None)  # type: ignore[arg-type]
    made.client, made.loopback = client, loopback
    return made


def test_a_bucket_holds_one_second_and_refills() -> None:
    clock = FakeClock()
    buckets = TokenBuckets(3, clock, 100)
    assert [buckets.take("a") for _ in range(4)] == [True, True, True, False]
    assert buckets.take("b")
    clock.seconds += 0.34
    assert [buckets.take("a") for _ in range(2)] == [True, False]
    clock.seconds += 100
    assert [buckets.take("a") for _ in range(4)] == [True, True, True, False]


def test_buckets_are_bounded_and_forgetting_full_ones_loses_nothing() -> None:
    clock = FakeClock()
    buckets = TokenBuckets(1, clock, 50)
    for number in range(500):
        buckets.take(f"user {number}")
    assert len(buckets) <= 50
    clock.seconds += 2
    buckets.take("new")
    buckets.take("newer")
    assert len(buckets) <= 50


def test_zero_is_no_limit() -> None:
    buckets = TokenBuckets(0, FakeClock(), 10)
    assert all(buckets.take("a") for _ in range(1000))


def limits(clock: FakeClock, **changes: object) -> RateLimits:
    return RateLimits(RateLimitSection(**changes), clock)  # type: ignore[arg-type]


def violate(checked: RateLimits, client: str) -> TooManyRequests:
    while True:
        try:
            checked.check_request(exchange(client))
        except TooManyRequests as error:
            return error


def test_ten_violations_ban_and_more_ban_longer() -> None:
    clock = FakeClock()
    checked = limits(clock, max_requests_per_ip_per_sec=5, ban_duration_seconds=300)
    for _ in range(10):
        error = violate(checked, "203.0.113.9")
        assert (error.code, error.headers["Retry-After"]) == ("RATE_LIMIT_EXCEEDED", "1")
    clock.seconds += 10
    error = violate(checked, "203.0.113.9")
    assert (error.code, error.fields, error.headers) == (
        "IP_BANNED",
        {"retry_after_seconds": 290},
        {"Retry-After": "290"},
    )
    checked.check_request(exchange("203.0.113.10"))
    clock.seconds += 290
    checked.check_request(exchange("203.0.113.9"))
    for _ in range(10):
        assert violate(checked, "203.0.113.9").code == "RATE_LIMIT_EXCEEDED"
    assert violate(checked, "203.0.113.9").headers["Retry-After"] == "600"


def test_loopback_is_exempt_from_limits_of_addresses_but_not_of_users() -> None:
    checked = limits(FakeClock(), max_requests_per_ip_per_sec=1, max_queries_per_sec=2)
    for _ in range(50):
        checked.check_request(exchange("127.0.0.1", loopback=True))
        assert checked.allow_sign_in(exchange("127.0.0.1", loopback=True))
    checked.check_query("alice")
    checked.check_query("alice")
    with pytest.raises(TooManyRequests, match="Too many queries per second"):
        checked.check_query("alice")
    checked.check_query("bob")


def test_protection_can_be_switched_off() -> None:
    checked = limits(
        FakeClock(), max_requests_per_ip_per_sec=1, max_connections_per_ip=1, enable_connection_protection=False
    )
    for _ in range(50):
        checked.check_request(exchange("203.0.113.9"))
        assert checked.connect("203.0.113.9")


def test_connections_are_counted() -> None:
    checked = limits(FakeClock(), max_connections_per_ip=2)
    assert [checked.connect("203.0.113.9") for _ in range(3)] == [True, True, False]
    assert checked.connections("203.0.113.9") == (3, 2)
    for _ in range(3):
        checked.disconnect("203.0.113.9")
    assert checked.connections("203.0.113.9") == (0, 2)
    assert checked.connect("203.0.113.9")


def test_sign_ins_of_an_address_are_limited() -> None:
    checked = limits(FakeClock(), max_auth_requests_per_ip_per_sec=2)
    assert [checked.allow_sign_in(exchange("203.0.113.9")) for _ in range(3)] == [True, True, False]


def test_an_ipv6_host_is_its_network() -> None:
    assert limit_key("2001:db8:1:2:3::1") == limit_key("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert limit_key("203.0.113.9") == "203.0.113.9"
    assert limit_key("::ffff:203.0.113.9") == "203.0.113.9"


def test_connections_of_all_addresses_are_counted_now_and_at_most() -> None:
    counted = limits(FakeClock())
    first, second = counted.opened(), counted.opened()
    counted.closed(first)
    assert (counted.is_open(first), counted.is_open(second)) == (False, True)
    assert (counted.open, counted.open_peak) == (1, 2)
