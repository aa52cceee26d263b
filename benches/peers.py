"""What every system under load offers to the benches.

A peer is started in an empty folder, filled with the first `rows` rows of `notes`, and then says how `wrk`
asks it for one piece of work. `None` means that it does not offer that work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from benches.load import Load


class Peer(Protocol):
    """A system under load."""

    name: str
    syncs: str
    """Whether it syncs to disk before it acknowledges a write: "yes", "no", or "-" when it stores nothing."""

    def start(self, folder: Path) -> None:
        """Start on empty data in `folder`."""

    def stop(self) -> None:
        """End the server."""

    def pids(self) -> list[int]:
        """Processes that may sync."""

    def fill(self, first: int, count: int) -> None:
        """Add rows `first` to `first + count - 1` of `notes`, in any way."""

    def point_read(self, rows: int) -> Load | None:
        """Read one of `rows` rows by key, at random."""

    def insert(self, first: int) -> Load | None:
        """Insert one row a request: `first`, `first + 1`, ..."""

    def insert_batch(self, first: int, size: int, *, parameters: bool) -> Load | None:
        """Insert `size` rows a request in one statement, with parameters or with literal values."""

    def update(self, rows: int) -> Load | None:
        """Update one of `rows` rows by key, at random."""


class Unavailable(RuntimeError):
    """The peer is not installed here; the message says what is missing."""
