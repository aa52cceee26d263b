"""The statement cache: plans by text, namespace and role, as long as the catalog does not change.

Bounded by the number of plans and by the length of their texts (a plan takes some hundred bytes for each character);
the least recently used goes first. An entry is valid for one catalog version; an older one is a miss and is
overwritten. Safe from any thread: looking up is one or two dictionary calls under the GIL, and losing a race means
planning once more, never a wrong plan.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from typing import Generic, TypeVar

E = TypeVar("E")


CHARACTERS = 4 << 20
"""Characters of all texts in one cache."""


class PlanCache(Generic[E]):
    """At most `entries` plans, for texts of at most `characters` together."""

    def __init__(self, entries: int, characters: int = CHARACTERS) -> None:
        self._entries = max(1, entries)
        self._room = characters
        self._lock = threading.Lock()
        self._plans: OrderedDict[Hashable, tuple[int, E]] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._plans)

    def get(self, key: Hashable, version: int) -> E | None:
        """The plan for `key` that was made for catalog `version`, if there is one."""
        found = self._plans.get(key)
        if found is None or found[0] != version:
            self.misses += 1
            return None
        self.hits += 1
        with suppress(KeyError):  # another thread pushed it out meanwhile; the plan is valid all the same
            self._plans.move_to_end(key)
        return found[1]

    def put(self, key: Hashable, version: int, plan: E) -> None:
        """Keep a plan, pushing out the least recently used beyond the bounds."""
        with self._lock:
            if self._plans.pop(key, None) is None:
                self._room -= _length(key)
            self._plans[key] = (version, plan)
            while self._plans and (len(self._plans) > self._entries or self._room < 0):
                oldest, _ = self._plans.popitem(last=False)
                self._room += _length(oldest)


def _length(key: Hashable) -> int:
    return sum(len(part) for part in key if isinstance(part, str)) if isinstance(key, tuple) else 0
