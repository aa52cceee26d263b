"""Tokens that were verified already, so that the next request with one costs a look-up.

Keyed by the whole `Authorization` header, filled only after every check has passed, and bounded: the least recently
used entry goes first. An entry lives until the token expires or until its account or session changes: when `watched`
is true, the change feed calls `forget_*` for every commit that touches one, before the commit is acknowledged. While
nobody does that, the authenticator looks at the account again after every commit, which costs some microseconds.

A verification that was under way while a commit changed the account must not put its old finding back: it takes the
cache's `version` before it reads, and `put` refuses an entry whose version is not the newest.

Looking up happens on the event loop, forgetting on the thread of whoever publishes commits; the lock keeps the three
maps together. A look-up takes no lock: it is one dictionary access.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from sql.identity import Identity


@dataclass(slots=True)
class VerifiedToken:
    """What a checked token stands for; `expires_us` includes the leeway.

    `seq` is the last commit for which the account and the session were looked at.
    """

    identity: Identity
    family: str
    expires_us: int
    local_only: bool
    seq: int


class TokenCache:
    """The verified tokens of one server."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[bytes, VerifiedToken] = OrderedDict()
        self._by_user: dict[str, set[bytes]] = {}
        self._by_family: dict[str, set[bytes]] = {}
        self._lock = threading.Lock()
        self.version = 0
        self.watched = False

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> VerifiedToken | None:
        """The entry of a header, if there is one."""
        entry = self._entries.get(key)
        if entry is not None:
            try:
                self._entries.move_to_end(key)
            except KeyError:  # forgotten between the two lines, by another thread
                return None
        return entry

    def put(self, key: bytes, entry: VerifiedToken, version: int) -> None:
        """Remember an entry that was verified after `version` was read, unless something changed since."""
        if self._capacity <= 0:
            return
        with self._lock:
            if version != self.version:
                return
            self._remove(key)
            while len(self._entries) >= self._capacity:
                self._remove(next(iter(self._entries)))
            self._entries[key] = entry
            self._by_user.setdefault(entry.identity.user, set()).add(key)
            self._by_family.setdefault(entry.family, set()).add(key)

    def forget_user(self, user: str) -> None:
        """Forget every token of an account."""
        with self._lock:
            self.version += 1
            for key in list(self._by_user.get(user, ())):
                self._remove(key)

    def forget_family(self, family: str) -> None:
        """Forget every token of a session."""
        with self._lock:
            self.version += 1
            for key in list(self._by_family.get(family, ())):
                self._remove(key)

    def forget_all(self) -> None:
        """Forget everything."""
        with self._lock:
            self.version += 1
            self._entries.clear()
            self._by_user.clear()
            self._by_family.clear()

    def _remove(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        for index, name in ((self._by_user, entry.identity.user), (self._by_family, entry.family)):
            keys = index[name]
            keys.discard(key)
            if not keys:
                del index[name]
