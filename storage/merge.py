"""The background thread that merges small batches, keeps log and topics within retention, reclaims what was dropped.

It learns from the writer which partitions got batches or dead rows, plans and builds from snapshots (`storage.merging`,
`storage.retention`), and changes the database only through works that run alone in the writer, each one bounded.

What an earlier process left unmerged it finds at start in SHARED tables only. Partitions of users may be very many, and
to look at each is to read the whole database: there, a scan that meets many small batches tells (`storage.memory`), so
that what nobody reads costs nothing.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from storage.environment import LOG_TRUNCATED, read_number
from storage.errors import StorageClosed, StorageError, StorageFull, StoragePoisoned
from storage.index_removal import dropped_indexes, remove_entries
from storage.keys import TABLE_BYTES, partition_key, row_key_prefix, table_id_of
from storage.layout import layout_of
from storage.merging import Job, apply_job, build, candidates, choose
from storage.options import StorageOptions
from storage.reading import Reader
from storage.retention import purge_history, purgeable_history, reclaim_table, truncate_log, truncation_point
from storage.seams import Clock
from storage.snapshots import Snapshot, SnapshotRegistry
from storage.submission import SubmitExclusive
from storage.topic_retention import TopicJanitor, dropped_tables, floors
from storage.writer import WriteTransaction

log = logging.getLogger("headrace.storage")

SLICE_BYTES = 4 << 20
SLICE_JOBS = 64
PAUSE_SECONDS = 0.02
WORKING_SECONDS = 0.2
"""How often somebody who waits for a round of merging asks whether to go on waiting."""
TOPIC_BYTES = 32 << 20
"""Accounted bytes of new messages after which retention does not wait for its time."""
LISTED = 1_024
"""Partitions that are listed at a time."""
COUNTED = 65_536
"""Partitions whose batches are counted at a time."""
_Partition = tuple[int, str]


class Touched(Protocol):
    """What the writer says about a partition."""

    @property
    def batches(self) -> list[Any]:
        """Batches added."""

    @property
    def old(self) -> list[int]:
        """Rows superseded."""


class Merger:
    """Owns the thread and the list of partitions that may need work."""

    def __init__(
        self,
        registry: SnapshotRegistry,
        submit: SubmitExclusive,
        options: StorageOptions,
        clock: Clock,
        truncated: int = 0,
    ) -> None:
        self._registry = registry
        self._submit = submit
        self._options = options
        self._clock = clock
        self._lock = threading.Lock()
        self._working = threading.Lock()  # what is planned from a snapshot must find history as it was
        self._counts: dict[_Partition, int] = {}
        self._due: dict[_Partition, None] = {}
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._history_at = b""
        self._thread: threading.Thread | None = None
        self._janitor = TopicJanitor()
        self._reserved: set[_Partition] = set()
        self._passed: set[_Partition] = set()
        self.after_maintenance: Callable[[], object] = lambda: None
        """Called after each round of retention, with nothing held."""
        self._topic_bytes = 0
        self.merges = 0
        self.truncated = truncated

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="headrace-merger", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop it and wait for its present slice."""
        self._stopped.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def notify(self, written: Mapping[_Partition, Touched]) -> None:
        """The writer committed (called on its thread): count what each partition got."""
        fan_in = self._options.merge_fan_in
        with self._lock:
            for key, done in written.items():
                count = self._counts.get(key, 0) + len(done.batches) + len(done.old) // 64
                if count >= 2 * fan_in:
                    self._due[key] = None
                    count = 0
                self._counts[key] = count
            if len(self._counts) > COUNTED:
                self._due.update((key, None) for key, count in self._counts.items() if count >= fan_in)
                self._counts.clear()
            if self._due:
                self._wake.set()

    def notify_topics(self, nbytes: int) -> None:
        """The writer added messages (called on its thread): look after their retention when they are many."""
        self._topic_bytes += nbytes
        if self._topic_bytes >= TOPIC_BYTES:
            self._wake.set()

    @contextlib.contextmanager
    def reserving(self, partitions: Iterable[_Partition]) -> Iterator[None]:
        """Leave the batches of some partitions alone for the block: somebody is moving them to the cold tier."""
        chosen = set(partitions)
        with self._working:  # what is being merged now is applied first
            self._reserved |= chosen
        try:
            yield
        finally:
            with self._lock:
                self._reserved -= chosen
                self._due.update(dict.fromkeys(chosen & self._passed))
                self._passed -= chosen
                if self._due:
                    self._wake.set()

    @contextlib.contextmanager
    def holding_history(self) -> Iterator[None]:
        """Keep `history` as it is for the block."""
        with self._working:
            yield

    def run_once(self) -> int:
        """One round over everything: merge all partitions, then retention. How many merges. For tests and COMPACT."""
        with self._working:
            return self._round()

    def _round(self) -> int:
        before = self.merges
        self.maintain()
        for partitions in self._all_partitions():
            for partition in partitions:
                while self._merge([partition]):
                    pass
        self.maintain()
        return self.merges - before

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._guard(self.merge_shared)
        interval = self._options.maintenance_seconds
        maintained = self._clock.monotonic()
        while not self._stopped.is_set():
            self._wake.wait(interval)
            self._wake.clear()
            if self._stopped.is_set():
                return
            self._guard(self.merge_due)
            overdue = self._clock.monotonic() - maintained >= interval  # also when merging never leaves a pause
            if overdue or self._topic_bytes >= TOPIC_BYTES:
                self._topic_bytes = 0
                self._guard(self.maintain)
                maintained = self._clock.monotonic()
                self._guard(self.after_maintenance, contextlib.nullcontext())
            self._stopped.wait(PAUSE_SECONDS)

    def _guard(self, step: Callable[[], object], held: contextlib.AbstractContextManager[object] | None = None) -> None:
        try:
            with held or self._working:
                step()
        except StorageClosed:
            self._stopped.set()
        except (StoragePoisoned, StorageFull) as error:
            log.warning("background merging waits: %s", error)
            self._stopped.wait(1.0)
        except StorageError:
            log.exception("background merging met damage and left it alone")
        except Exception:
            log.exception("background merging failed")

    def merge_due(self) -> int:
        """Merge where the writer or a scan has said that it is worth it; how many merges."""
        with self._lock:
            due = list(self._due)
            self._due.clear()
        return self._merge([*due, *self._scattered()])

    def merge_shared(self) -> None:
        """At start: every SHARED table may have been left with small batches."""
        with self._snapshot("listing tables") as snapshot:
            due = [(table.table_id, "") for table in snapshot.catalog.tables() if not table.per_user]
        self._merge(due)

    def _scattered(self) -> list[_Partition]:
        """The partitions that scans have found full of small batches."""
        found = self._registry.memory.take_scattered()
        if not found:
            return []
        with self._snapshot("naming partitions") as snapshot, snapshot.reading() as reader:
            return [(table_id_of(prefix), reader.user_of(prefix[TABLE_BYTES:])) for prefix in found]

    def _all_partitions(self) -> Iterator[list[_Partition]]:
        """All partitions in slices, each listed when it is asked for: there may be one for each of many users."""
        with self._snapshot("listing tables") as snapshot:
            tables = [table.table_id for table in snapshot.catalog.tables()]
        for table_id in tables:
            after = b""
            while not self._stopped.is_set():
                with self._snapshot("listing partitions") as snapshot, snapshot.reading() as reader:
                    found = reader.partitions(table_id, after, LISTED)
                    users = [reader.user_of(partition) for partition in found]
                if not found:
                    break
                after = found[-1]
                yield [(table_id, user) for user in users]

    def _merge(self, due: Sequence[_Partition]) -> int:
        """Merge what is worth it in some partitions; how many merges were applied.

        The snapshot is closed before the writer is asked: the writer may have to wait for readers itself.
        """
        applied = 0
        left = deque(due)
        while left and not self._stopped.is_set():
            jobs = self._build(left)
            if not jobs:
                continue
            done = self._apply(jobs)
            applied += done
            if not done and left:
                left.popleft()
        return applied

    def _build(self, left: deque[_Partition]) -> list[Job]:
        """Build the next jobs, up to a slice; partitions that are finished leave the queue."""
        jobs: list[Job] = []
        size = 0
        with self._snapshot("merging") as snapshot, snapshot.reading() as reader:
            kept_after = kept_rows(snapshot, reader)
            while left and len(jobs) < SLICE_JOBS:
                table_id, user = left[0]
                if left[0] in self._reserved:
                    self._passed.add(left.popleft())
                    continue
                table = snapshot.catalog.table_by_id(table_id)
                partition = partition_key(user)
                runs = choose(candidates(reader, row_key_prefix(table_id, partition)), self._options) if table else []
                for run in runs:
                    assert table is not None
                    job = build(reader, layout_of(table), partition, run, kept_after(table_id))
                    jobs.append(job)
                    size += job.size
                    if size > SLICE_BYTES:
                        return jobs
                left.popleft()
        return jobs

    def _apply(self, jobs: list[Job]) -> int:
        def work(wtxn: WriteTransaction) -> int:
            return sum(apply_job(wtxn, job) for job in jobs)

        done = self._submit(work).result()
        self.merges += done
        return done

    # --- retention -----------------------------------------------------------------------------------------------

    def maintain(self) -> None:
        """Truncate the log and the topics, purge history, reclaim dropped tables.

        What topics keep of superseded rows stands in `history` beside what the log keeps; it is not the log's to give.
        """
        options = self._options
        self._janitor.run(self._snapshot, self._submit, self._clock.now_us(), self._stopped.is_set)
        before = self._clock.now_us() - int(options.retention_seconds * 1e6)
        while not self._stopped.is_set():
            with self._snapshot("retention") as snapshot, snapshot.reading() as reader:
                point = truncation_point(reader, before, self._retention_bytes() + self._janitor.nbytes)
                self.truncated = read_number(reader.txn, reader.dbs, LOG_TRUNCATED, 0)
            if point <= self.truncated:
                break
            self._submit(lambda wtxn, point=point: truncate_log(wtxn, point)).result()  # type: ignore[misc]
            self.truncated = point
            self._purge_history()
        self._purge_history()
        self._reclaim_tables(lambda: None)
        self._remove_indexes()

    def reclaim(self, check: Callable[[], None]) -> frozenset[int]:
        """Give back what topics and tables that were dropped or cleared took, at once.

        The ids of dropped tables whose rows have to stay, because messages refer to them. `check` may raise.
        """
        while not self._working.acquire(timeout=WORKING_SECONDS):
            check()
        try:
            check()
            self._janitor.run(self._snapshot, self._submit, self._clock.now_us(), self._stopped.is_set)
            return self._reclaim_tables(check)
        finally:
            self._working.release()

    def _reclaim_tables(self, check: Callable[[], None]) -> frozenset[int]:
        with self._snapshot("reclaiming") as snapshot, snapshot.reading() as reader:
            gone = dropped_tables(snapshot)
            kept = frozenset(floors(reader, snapshot.catalog, gone))
        for table_id in gone.keys() - kept:
            done = False
            while not done and not self._stopped.is_set():
                check()
                done = self._submit(lambda wtxn, table_id=table_id: reclaim_table(wtxn, table_id)).result()  # type: ignore[misc]
        return kept & gone.keys()

    def _remove_indexes(self) -> None:
        with self._snapshot("dropped indexes") as snapshot:
            dropped = dropped_indexes(snapshot)
        for one in dropped:
            if not self._stopped.is_set():
                remove_entries(self._submit, one)

    def _retention_bytes(self) -> int:
        """What the log may take: never more than a quarter of a limited data file."""
        options = self._options
        wanted = options.retention_bytes or sys.maxsize
        return min(wanted, options.max_bytes // 4) if options.max_bytes else wanted

    def _purge_history(self) -> None:
        with self._snapshot("purging history") as snapshot, snapshot.reading() as reader:
            needed = kept_rows(snapshot, reader)
            keys, following = purgeable_history(reader, snapshot.catalog, self._history_at, 256, needed)
        self._history_at = following or b""
        if keys:
            self._submit(lambda wtxn: purge_history(wtxn, keys)).result()

    def _snapshot(self, purpose: str) -> Snapshot:
        return self._registry.open(None, purpose)


def kept_rows(snapshot: Snapshot, reader: Reader) -> Callable[[int], int]:
    """For each table, which of its superseded rows are needed: by the log, or by messages that refer to them."""
    truncated = read_number(reader.txn, reader.dbs, LOG_TRUNCATED, 0)
    found = floors(reader, snapshot.catalog, dropped_tables(snapshot))
    return lambda table_id: min(truncated, found.get(table_id, truncated))
