"""Rate limits: token buckets an address and a user, bans of addresses that keep breaking them, connection counts.

A bucket holds as many tokens as the limit allows a second and fills continuously. One that was left alone for a second
is full again, so forgetting it loses nothing: that is what bounds the memory. An address that breaks its limit
10 times is banned for `ban_duration_seconds`, after 20 times for twice as long, up to six times.
"""

from __future__ import annotations

import ipaddress
import itertools
import math
from functools import lru_cache

from server.config import RateLimitSection
from server.errors import TooManyRequests
from server.exchange import Exchange
from server.middleware.client_address import parse_address
from storage.seams import Clock

VIOLATIONS_PER_BAN = 10
LONGEST_BAN = 6


class TokenBuckets:
    """Token buckets by key, all of the same rate."""

    def __init__(self, rate: int, clock: Clock, max_entries: int) -> None:
        self._rate = float(rate)
        self._now = clock.monotonic
        self._max_entries = max_entries
        self._buckets: dict[str, list[float]] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str) -> bool:
        """Take a token; False if there is none. A rate of 0 is no limit."""
        if not self._rate:
            return True
        now = self._now()
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._max_entries:
                self._forget(now)
            self._buckets[key] = [self._rate - 1.0, now]
            return True
        tokens = min(self._rate, bucket[0] + (now - bucket[1]) * self._rate)
        bucket[1] = now
        if tokens < 1.0:
            bucket[0] = tokens
            return False
        bucket[0] = tokens - 1.0
        return True

    def _forget(self, now: float) -> None:
        """Drop the buckets that are full again; if that is not enough, the oldest tenth."""
        for key in [key for key, bucket in self._buckets.items() if now - bucket[1] >= 1.0]:
            del self._buckets[key]
        if len(self._buckets) >= self._max_entries:
            for key in list(self._buckets)[: self._max_entries // 10 + 1]:
                del self._buckets[key]


class Bans:
    """Violations and bans by address."""

    def __init__(self, duration: int, ttl: int, clock: Clock, max_entries: int) -> None:
        self._duration = duration
        self._ttl = ttl
        self._now = clock.monotonic
        self._max_entries = max_entries
        self._violations: dict[str, tuple[int, float]] = {}
        self._until: dict[str, float] = {}

    def remaining(self, address: str) -> int:
        """Seconds until the address may try again; 0 if it is not banned."""
        if not self._until:
            return 0
        until = self._until.get(address)
        if until is None:
            return 0
        left = until - self._now()
        if left <= 0:
            del self._until[address]
            return 0
        return math.ceil(left)

    def violation(self, address: str) -> None:
        """Count a broken limit; every tenth bans the address."""
        if not self._duration:
            return
        now = self._now()
        count, last = self._violations.pop(address, (0, now))
        count = 1 if now - last > self._ttl else count + 1
        self._violations[address] = (count, now)
        if count % VIOLATIONS_PER_BAN == 0:
            self._until[address] = now + self._duration * min(count // VIOLATIONS_PER_BAN, LONGEST_BAN)
        if len(self._violations) > self._max_entries:
            del self._violations[next(iter(self._violations))]
        if len(self._until) > self._max_entries:
            del self._until[next(iter(self._until))]


class RateLimits:
    """All limits of one server. Addresses of this machine are exempt from those that count addresses.

    `open` counts the connections of all addresses, exempt or not, and `open_peak` the most there were.
    """

    def __init__(self, config: RateLimitSection, clock: Clock) -> None:
        entries = config.cache_max_entries
        self._requests = TokenBuckets(config.max_requests_per_ip_per_sec, clock, entries)
        self._sign_ins = TokenBuckets(config.max_auth_requests_per_ip_per_sec, clock, entries)
        self._queries = TokenBuckets(config.max_queries_per_sec, clock, entries)
        self._bans = Bans(config.ban_duration_seconds, config.cache_ttl_seconds, clock, entries)
        self._protect = config.enable_connection_protection
        self._max_connections = config.max_connections_per_ip if self._protect else 0
        self._connections: dict[str, int] = {}
        self._open: set[int] = set()
        self._numbers = itertools.count(1)
        self.open_peak = 0

    def check_request(self, exchange: Exchange) -> None:
        """Count a request of an address; raises TooManyRequests."""
        if exchange.loopback or not self._protect:
            return
        address = limit_key(exchange.client)
        banned = self._bans.remaining(address)
        if banned:
            raise TooManyRequests("Your IP address is temporarily banned", code="IP_BANNED", retry_after=banned)
        if not self._requests.take(address):
            self._bans.violation(address)
            raise TooManyRequests("Too many requests from your IP address")

    def check_query(self, user: str) -> None:
        """Count an SQL or ingest request of a user; raises TooManyRequests."""
        if not self._queries.take(user):
            raise TooManyRequests("Too many queries per second. Please slow down.", sql_shape=True)

    def allow_sign_in(self, exchange: Exchange) -> bool:
        """Count a request to a sign-in route; False if the address has used up its limit."""
        return exchange.loopback or self._sign_ins.take(limit_key(exchange.client))

    @property
    def open(self) -> int:
        """Open connections."""
        return len(self._open)

    def opened(self) -> int:
        """Note a connection of any address; its number, which no other one gets."""
        number = next(self._numbers)
        self._open.add(number)
        self.open_peak = max(self.open_peak, self.open)
        return number

    def closed(self, number: int) -> None:
        """Note the end of a connection of any address."""
        self._open.discard(number)

    def is_open(self, number: int) -> bool:
        """Whether a connection is open still. Safe from any thread."""
        return number in self._open

    def connect(self, address: str) -> bool:
        """Count an open connection; False if the address has too many. Each call needs its `disconnect`."""
        key = limit_key(address)
        count = self._connections[key] = self._connections.get(key, 0) + 1
        return not self._max_connections or count <= self._max_connections

    def disconnect(self, address: str) -> None:
        """Count a closed connection."""
        key = limit_key(address)
        count = self._connections.get(key, 0) - 1
        if count > 0:
            self._connections[key] = count
        else:
            self._connections.pop(key, None)

    def connections(self, address: str) -> tuple[int, int]:
        """How many connections an address has, and how many it may have."""
        return self._connections.get(limit_key(address), 0), self._max_connections


@lru_cache(maxsize=4096)
def limit_key(address: str) -> str:
    """Return what a limit counts: an IPv4 address, or the /64 network that one IPv6 host may use freely."""
    parsed = parse_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and not parsed.is_loopback:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed) if parsed is not None else address
