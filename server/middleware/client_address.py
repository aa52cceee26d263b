"""Whose request it is: the peer's address, or what a trusted proxy says about it.

`X-Forwarded-For` and `X-Real-IP` are believed only from a peer that is loopback or inside
`security.trusted_proxy_ranges`. Of several forwarded addresses the last one that is not itself a trusted proxy counts:
what stands to the left of it, anybody can write. A forwarded address that claims to be this machine is refused: the
request keeps its peer's address but none of the privileges of loopback. A request is local (`loopback`) only if its
peer is, and no forwarding header says that somebody else stands behind it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address | None:
    """Parse an address as proxies write it (brackets, port and zone are cut off), or return None."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=4096)
def is_loopback(text: str) -> bool:
    """Whether an address is one of this machine's loopback addresses."""
    address = parse_address(text)
    return address is not None and address.is_loopback


class ClientAddresses:
    """Finds the client's address of a request."""

    def __init__(self, trusted_ranges: Iterable[str] = ()) -> None:
        self._trusted: tuple[Network, ...] = tuple(ipaddress.ip_network(text, strict=False) for text in trusted_ranges)

    def resolve(self, peer: str, headers: Mapping[bytes, bytes]) -> tuple[str, bool]:
        """Return the client's address and whether the request is local to this machine."""
        forwarded = headers.get(b"x-forwarded-for") or headers.get(b"x-real-ip")
        if forwarded is None:
            return peer, is_loopback(peer)
        if not self.is_trusted(peer):
            return peer, False
        for entry in reversed(forwarded.decode("latin-1").split(",")):
            address = parse_address(entry)
            if address is None or address.is_loopback or address.is_unspecified:
                return peer, False
            if not self._in_ranges(address):
                return str(address), False
        return peer, False

    def is_trusted(self, peer: str) -> bool:
        """Whether a peer may speak for others: it is loopback or inside the configured ranges."""
        address = parse_address(peer)
        return address is not None and (address.is_loopback or self._in_ranges(address))

    def _in_ranges(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)
