"""Flush policies: a thread that queues flushes of tables whose policy asks for one.

`rows:N`: as soon as a look finds N rows that are not flushed. `interval:S`: when the last flush was queued at least S
seconds ago and a row is not flushed. Tables without a policy are flushed by STORAGE FLUSH only. A look is taken every
`check_interval` seconds, and when an interval ends; while nothing was committed since the last one it costs nothing.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
from dataclasses import dataclass
from typing import NamedTuple

from sql.jobs.service import JobService
from sql.storages.moving import flush_key, submit_flush
from storage.catalog import TableDef
from storage.engine import StorageEngine
from storage.errors import StorageClosed
from storage.seams import SYSTEM_CLOCK, Clock
from storage.table_changes import Changes

log = logging.getLogger("headrace.jobs")

SCHEDULER = "scheduler"
"""The actor of flushes that a policy asked for."""
_SHORTEST = 0.05
"""Seconds between two looks, at least."""


@dataclass(frozen=True, slots=True)
class FlushSettings:
    """Seconds between two looks."""

    check_interval: float = 60.0


class Policy(NamedTuple):
    """A flush policy; None where it does not say."""

    rows: int | None
    seconds: int | None


def policy_of(table: TableDef) -> Policy | None:
    """A table's policy, if it has one."""
    text = table.options.get("flush_policy")
    if not text or table.expires:
        return None
    parts = dict(part.split(":") for part in text.split(","))
    rows, seconds = parts.get("rows"), parts.get("interval")
    return Policy(None if rows is None else int(rows), None if seconds is None else int(seconds))


class _Counted(NamedTuple):
    """How many rows of a table were pending, and what had changed until then."""

    changes: Changes
    pending: int

    def bounds(self, now: Changes) -> bool:
        """Whether what was counted still bounds what is pending: nothing was flushed since."""
        return (now.epoch, now.moved) == (self.changes.epoch, self.changes.moved)

    def most(self, now: Changes) -> int:
        """The most rows that may be pending."""
        return self.pending + now.added - self.changes.added


class FlushScheduler:
    """Owns the thread.

    Counting what is pending costs in proportion to a table's partitions. So it is done once after each flush, and then
    when the rows that were added since may be enough.
    """

    def __init__(
        self,
        engine: StorageEngine,
        jobs: JobService,
        settings: FlushSettings | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.settings = settings or FlushSettings()
        self._engine = engine
        self._jobs = jobs
        self._clock = clock
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen = -1
        self._waiting = False
        self._counted: dict[int, _Counted] = {}

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="headrace-flush", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop it."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> float:
        """Queue what is due now; the seconds until the next look."""
        engine, now = self._engine, self._clock.now_us()
        pause = self.settings.check_interval
        if engine.last_seq == self._seen and not self._waiting:
            return pause
        self._seen, self._waiting = engine.last_seq, False
        counted, self._counted = self._counted, {}
        for table in list(engine.catalog.tables()):
            policy = policy_of(table)
            if policy is None or self._stopped.is_set():
                continue
            changes = engine.changes.of(table.table_id)
            last = counted.get(table.table_id)
            if last is None or not last.bounds(changes):
                last = self._count(table, changes)
            most, left = last.most(changes), self._left(table, policy, now)
            is_due = most >= (policy.rows or sys.maxsize) or left <= 0
            if most and is_due and last.changes != changes:  # it may be less: rows were superseded
                last = self._count(table, changes)
                most = last.pending
                is_due = most >= (policy.rows or sys.maxsize) or left <= 0
            self._counted[table.table_id] = last
            if not most:
                continue
            if is_due:
                submit_flush(self._jobs, table, SCHEDULER)
            elif policy.seconds is not None:
                self._waiting = True
                pause = min(pause, left)
        return max(pause, _SHORTEST)

    def _count(self, table: TableDef, changes: Changes) -> _Counted:
        """Look at the table; `changes` are of before."""
        with self._engine.snapshot(purpose="flush policies") as snapshot:
            return _Counted(changes, self._engine.cold.pending_rows(snapshot, table))

    def _left(self, table: TableDef, policy: Policy, now: int) -> float:
        """Seconds until the interval since the last flush, or the making of the table, is over."""
        if policy.seconds is None:
            return math.inf
        last = self._jobs.keyed(flush_key(table.table_id))
        began = table.created_at if last is None else last.created_at
        return (began - now) / 1e6 + policy.seconds

    def _run(self) -> None:
        pause = self.settings.check_interval
        while not self._stopped.wait(pause):
            try:
                pause = self.look()
            except StorageClosed:
                return
            except Exception:
                log.exception("flush policies could not be looked after; the next look follows")
                pause = self.settings.check_interval
