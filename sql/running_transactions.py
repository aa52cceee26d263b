"""The BEGIN … COMMIT batches that run now, for system.transactions and system.sessions.

The session that runs a batch enters it here; others look on from their own threads, at single numbers that may be a
statement old. A batch that runs again after a conflict keeps its entry and gets a new transaction id.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from storage.transaction import Transaction


class RunningTransaction:
    """One batch. `request_id` names the request that it stands in, empty where there is none."""

    def __init__(self, user: str, request_id: str) -> None:
        self.user = user
        self.request_id = request_id
        self.transaction_id = ""
        self.committing = False
        self._started = self._touched = time.monotonic()
        self._staged: Transaction | None = None

    def begin(self, transaction_id: str, staged: Transaction) -> None:
        """Its statements run, over `staged`, from BEGIN on."""
        self.transaction_id, self._staged, self.committing = transaction_id, staged, False
        self.touch()

    def touch(self) -> None:
        """A statement begins."""
        self._touched = time.monotonic()

    def commits(self) -> None:
        """COMMIT was reached: the writer has it, or soon will."""
        self.committing = True
        self.touch()

    @property
    def state(self) -> str:
        """`open_read` while nothing is staged, `open_write`, `committing`."""
        return "committing" if self.committing else "open_write" if self.write_count else "open_read"

    @property
    def age_ms(self) -> int:
        """Time since BEGIN, in milliseconds."""
        return round((time.monotonic() - self._started) * 1000)

    @property
    def idle_ms(self) -> int:
        """Time since its latest statement began, in milliseconds."""
        return round((time.monotonic() - self._touched) * 1000)

    @property
    def write_count(self) -> int:
        """Rows that are staged."""
        return 0 if self._staged is None else self._staged.staged_rows

    @property
    def write_bytes(self) -> int:
        """What the staged rows take, in bytes."""
        return 0 if self._staged is None else self._staged.staged_bytes

    @property
    def touched_tables(self) -> int:
        """Tables with staged changes."""
        return 0 if self._staged is None else self._staged.touched_tables

    @property
    def snapshot_seq(self) -> int:
        """The commit that it reads."""
        return 0 if self._staged is None else self._staged.base_seq


class RunningTransactions:
    """All that run. Safe from any thread."""

    def __init__(self) -> None:
        self._running: dict[RunningTransaction, None] = {}

    def __len__(self) -> int:
        return len(self._running)

    @contextmanager
    def running(self, user: str, request_id: str) -> Iterator[RunningTransaction]:
        """A batch, for as long as the block runs."""
        entry = RunningTransaction(user, request_id)
        self._running[entry] = None
        try:
            yield entry
        finally:
            del self._running[entry]

    def all(self) -> list[RunningTransaction]:
        """Those that have begun, in the order of their BEGIN."""
        return [entry for entry in list(self._running) if entry.transaction_id]
