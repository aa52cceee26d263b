"""How much each table was changed since the engine was opened: for those who look after tables only when it is needed.

Looking at a table costs in proportion to its partitions, of which a USER table may have very many. So whoever looks
again and again remembers the changes that there were when it looked, and leaves tables alone that had none since.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class Changes(NamedTuple):
    """Rows added, rows superseded and moves of segments, each since the engine was opened; they only grow.

    In another `epoch` nothing is known: the storage was opened again.
    """

    epoch: int = 0
    added: int = 0
    superseded: int = 0
    moved: int = 0


class Written(Protocol):
    """What the writer says about a partition."""

    @property
    def added(self) -> list[int]:
        """The `_seq`s of added rows, as first and last of each run."""

    @property
    def old(self) -> list[int]:
        """Rows superseded."""


class TableChanges:
    """The changes of every table that had any. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nothing = Changes()
        self._of: dict[int, Changes] = {}

    def of(self, table_id: int) -> Changes:
        """The changes of a table."""
        with self._lock:
            return self._of.get(table_id, self._nothing)

    def note(self, written: Mapping[tuple[int, str], Written]) -> None:
        """A commit wrote rows."""
        with self._lock:
            for (table_id, _), done in written.items():
                found = self._of.get(table_id, self._nothing)
                added = found.added + _rows(done.added)
                self._of[table_id] = Changes(found.epoch, added, found.superseded + len(done.old), found.moved)

    def moved(self, table_id: int) -> None:
        """A commit moved rows of a table to other segments."""
        with self._lock:
            found = self._of.get(table_id, self._nothing)
            self._of[table_id] = found._replace(moved=found.moved + 1)

    def reset(self) -> None:
        """The storage was opened again: it may hold a commit that was never told of."""
        with self._lock:
            self._nothing = Changes(self._nothing.epoch + 1)
            self._of = {}


def _rows(pairs: Sequence[int]) -> int:
    return sum(pairs[1::2]) - sum(pairs[::2]) + len(pairs) // 2
