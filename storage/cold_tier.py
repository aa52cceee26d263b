"""ColdTier: moves rows to Parquet, merges the files, deletes those that nothing needs (`engine.cold`).

Flush and compaction work in rounds. A round takes runs of batches (`storage.cold_planning`) up to a bound of bytes and
files, builds and writes their files, and swaps them in (`storage.cold_moving`). So memory is bounded however large a
table is and however many partitions it has, and whoever stops in between loses nothing. One flush or compaction of a
table runs at a time.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from storage.catalog import TableDef
from storage.cold_files import LocalStorages, delete_file, file_name, folder_of, sync_folders, taken, write_file
from storage.cold_moving import Built, Moved, build, encode, job_of, record_segments, swap
from storage.cold_planning import HotPartition, Run, cold_runs, compactable, hot_partitions, hot_runs
from storage.cold_reading import ColdReads
from storage.cold_segments import (
    NEXT_SEGMENT,
    OTHER_PREFIX,
    Segment,
    SegmentStatus,
    count_segments,
    delete_segment,
    partition_of_key,
    segment_items,
    segments_of,
)
from storage.errors import SchemaChanged, StorageError
from storage.keys import table_prefix
from storage.layout import layout_of
from storage.merge import Merger, kept_rows
from storage.options import StorageOptions
from storage.reading import Reader
from storage.seams import Clock
from storage.snapshots import Snapshot, SnapshotRegistry
from storage.storage_definitions import LOCAL, ColdPlace, StorageResolver
from storage.submission import SubmitExclusive
from storage.writer import WriteTransaction

log = logging.getLogger("headrace.cold")

ROUND_FILES = 256
"""Files that one round writes, at most."""
WRITERS = 8
"""Threads that encode and write files: most of the time of a small file is its sync."""
LEASE_SECONDS = 3_600.0
STORAGE_OPTION = "storage_id"

Progress = Callable[[float, str], None]
"""Called with percent done and a message."""
Check = Callable[[], None]
"""Called between bounded steps; raises to stop the work (what was moved stays moved)."""


class Flushed(NamedTuple):
    """What a flush moved: rows, files, bytes of the files."""

    rows: int
    segments: int
    bytes: int


class Compacted(NamedTuple):
    """What a compaction changed."""

    segments_before: int
    segments_after: int
    rows_removed: int


class _Round(NamedTuple):
    """What a round put into effect."""

    rows: int
    segments: int
    bytes: int
    applied: int
    source_rows: int


class ColdTier:
    """Thread-safe; the methods block."""

    def __init__(
        self,
        folder: Path,
        registry: SnapshotRegistry,
        submit: SubmitExclusive,
        merger: Merger,
        options: StorageOptions,
        clock: Clock,
        next_segment: int,
    ) -> None:
        self._registry = registry
        self._submit = submit
        self._merger = merger
        self._options = options
        self._clock = clock
        self._lock = threading.Lock()
        self._busy: dict[int, threading.Lock] = {}
        self._next_segment = next_segment
        self._active: set[int] = set()
        self._condemned: dict[int, int] = {}
        self.resolver: StorageResolver = LocalStorages(folder)
        """Opens storages; knows only `local` until the SQL room sets its own."""
        self.step: Callable[[str], None] = lambda _: None
        """Called after each step of a move (recorded, written, swapped), for tests that kill the process there."""
        self.tables_moved: list[Callable[[int], None]] = []
        """Called with a table id after each commit that changed a table's segments, on the thread that moved them."""

    @property
    def reads(self) -> ColdReads:
        """Reading and the cache of row groups, for figures about them."""
        return self._registry.cold

    def flush(self, table_id: int, progress: Progress | None = None, check: Check | None = None) -> Flushed:
        """Move all hot rows of a table; those written meanwhile stay hot.

        Raises StorageUnavailable when the table's storage cannot be written, SchemaChanged when the table is gone.
        """
        rows = segments = nbytes = 0
        with self._alone(table_id):
            with self._snapshot("planning a flush") as snapshot, snapshot.reading() as reader:
                through = snapshot.seq
                partitions = hot_partitions(reader, _table(snapshot, table_id).table_id)
            total = sum(found.nbytes for found in partitions) or 1
            done = 0
            for chosen in _slices(partitions, self._options):
                left = [found.partition for found in chosen]
                while left:
                    if check is not None:
                        check()
                    left, result = self._flush_round(table_id, left, through)
                    rows, segments, nbytes = rows + result.rows, segments + result.segments, nbytes + result.bytes
                done += sum(found.nbytes for found in chosen)
                if progress is not None:
                    progress(100.0 * done / total, f"{rows} rows in {segments} files")
        return Flushed(rows, segments, nbytes)

    def compact(self, table_id: int, progress: Progress | None = None, check: Check | None = None) -> Compacted:
        """Merge small segments; rewrite those with dead rows or of an older schema version."""
        with self._alone(table_id):
            with self._snapshot("planning a compaction") as snapshot, snapshot.reading() as reader:
                layout = layout_of(_table(snapshot, table_id))
                before = count_segments(reader, table_id)
                partitions = list(compactable(reader, layout))
            removed = done = 0
            for at in range(0, len(partitions), ROUND_FILES):
                left: dict[bytes, bytes | None] = dict.fromkeys(partitions[at : at + ROUND_FILES])
                while left:
                    if check is not None:
                        check()
                    before_round = len(left)
                    left, result = self._compact_round(table_id, left)
                    removed += result.source_rows - result.rows
                    done += before_round - len(left)
                    if progress is not None:
                        progress(100.0 * done / len(partitions), f"{done} of {len(partitions)} partitions")
            with self._snapshot("counting segments") as snapshot, snapshot.reading() as reader:
                after = count_segments(reader, table_id)
        return Compacted(before, after, removed)

    def pending_rows(self, view: Snapshot, table: TableDef) -> int:
        """How many live rows a flush would move, from headers alone."""
        prefix = table_prefix(table.table_id)
        with view.reading() as reader:
            hot = {batch.key: batch.header.rows for batch in reader.stored(prefix) if not batch.header.flags}
            dead = reader.dead_counts(prefix) if hot else {}
        return sum(hot.values()) - sum(count for key, count in dead.items() if key in hot)

    def segments(self, view: Snapshot, table_id: int | None = None) -> Iterator[Segment]:
        """The segments of a table, or all: committed ones, then those being written or waiting to be deleted."""
        with view.reading() as reader:
            found = [*segments_of(reader, table_id), *segments_of(reader, table_id, prefix=OTHER_PREFIX)]
        return iter(found)

    def collect(self) -> int:
        """Delete the files of tombstones that nobody reads any more, and what a crash left half written; how many."""
        with self._lock:  # before the snapshot: what is finished by now is seen as it ended
            active, known = set(self._active), self._next_segment
        with self._snapshot("collecting cold files") as snapshot, snapshot.reading() as reader:
            present = snapshot.txn_id
            before = self._clock.now_us() - int(self._options.cold_grace_seconds * 1e6)
            due = [
                (partition_of_key(key), segment)
                for key, segment in segment_items(reader, prefix=OTHER_PREFIX)
                if segment.segment_id not in active
                and segment.segment_id < known
                and (segment.status is SegmentStatus.IN_PROGRESS or segment.updated_at <= before)
            ]
        oldest = self._registry.oldest_txn()
        ready: list[tuple[bytes, Segment]] = []
        for partition, segment in due:
            if segment.status is SegmentStatus.TOMBSTONE:
                seen = self._condemned.setdefault(segment.segment_id, present)
                if oldest is not None and oldest < seen:
                    continue  # a snapshot from before the swap may read it
            ready.append((partition, segment))
        return sum(self._delete(ready[at : at + ROUND_FILES]) for at in range(0, len(ready), ROUND_FILES))

    def reset(self) -> None:
        """The environment was reopened: transaction ids may be used again."""
        self._condemned.clear()

    # --- rounds --------------------------------------------------------------------------------------------------

    def _flush_round(self, table_id: int, partitions: list[bytes], through: int) -> tuple[list[bytes], _Round]:
        """Move a bounded part of what some partitions have; the partitions that may have more."""
        with self._snapshot("naming partitions") as snapshot, snapshot.reading() as reader:
            users = [(table_id, reader.user_of(partition)) for partition in partitions]
        with self._merger.reserving(users):
            with self._snapshot("flushing") as snapshot, snapshot.reading() as reader:
                table = _table(snapshot, table_id)
                runs, left = self._bounded(
                    (partition, hot_runs(reader, table_id, partition, through, self._options))
                    for partition in partitions
                )
                built = self._build(snapshot, table, runs)
            result = self._move(table, built)
        if runs and not result.applied:
            raise SchemaChanged("the table changed while it was flushed")
        return left, result

    def _compact_round(
        self, table_id: int, partitions: Mapping[bytes, bytes | None]
    ) -> tuple[dict[bytes, bytes | None], _Round]:
        """Rewrite a bounded part of some partitions, each from a key on; those that may have more, and from where."""
        with self._snapshot("compacting") as snapshot, snapshot.reading() as reader:
            table = _table(snapshot, table_id)
            layout = layout_of(table)
            runs, left = self._bounded(
                (partition, cold_runs(reader, layout, partition, start, self._options))
                for partition, start in partitions.items()
            )
            last = {run.partition: run for run in runs}
            reached = {partition: _behind(reader, run) for partition, run in last.items()}
            built = self._build(snapshot, table, runs)
        result = self._move(table, built)
        return {partition: reached.get(partition, partitions[partition]) for partition in left}, result

    def _bounded(self, found: Iterable[tuple[bytes, Iterator[Run]]]) -> tuple[list[Run], list[bytes]]:
        """The runs of one round, and the partitions that have more, or were not looked at."""
        runs: list[Run] = []
        left: list[bytes] = []
        nbytes = 0
        full = False
        for partition, more in found:
            if full:
                left.append(partition)
                continue
            for run in more:
                full = nbytes + run.nbytes > self._options.cold_segment_bytes or len(runs) >= ROUND_FILES
                if runs and full:
                    left.append(partition)
                    break
                runs.append(run)
                nbytes += run.nbytes
        return runs, left

    def _build(self, snapshot: Snapshot, table: TableDef, runs: list[Run]) -> list[Built]:
        with snapshot.reading() as reader:
            kept_after = kept_rows(snapshot, reader)(table.table_id)
            return [build(reader, layout_of(table), run, kept_after) for run in runs]

    def _move(self, table: TableDef, built: list[Built]) -> _Round:
        """Write the files of what was built and swap them in."""
        if not built:
            return _Round(0, 0, 0, 0, 0)
        layout = layout_of(table)
        storage_id = table.options.get(STORAGE_OPTION) or LOCAL
        place = self.resolver.place(storage_id)
        pending = self._begin(table, storage_id, place, built)
        try:

            def write(number: int) -> Moved:
                segment = pending.get(number)
                if segment is None:
                    return Moved(built[number], None, [])
                written, outputs, encoded = encode(layout, built[number], segment)
                write_file(place, segment.path, encoded.data)
                return Moved(built[number], written, outputs)

            if len(built) == 1:
                moved = [write(0)]
            else:
                with ThreadPoolExecutor(WRITERS, thread_name_prefix="headrace-cold-writer") as pool:
                    moved = list(pool.map(write, range(len(built))))
            if pending:  # a place that nothing was ever written to has no folder
                sync_folders(place, (segment.path for segment in pending.values()))
            self.step("written")
            return self._swap(table.table_id, moved)
        finally:
            self._finished(pending.values())

    def _begin(self, table: TableDef, storage_id: str, place: ColdPlace, built: list[Built]) -> dict[int, Segment]:
        """Give the files their names and record that they are being written."""
        numbers = [number for number, one in enumerate(built) if one.groups]
        if not numbers:
            return {}
        now = self._clock.now_us()
        pending: dict[int, Segment] = {}
        left = numbers
        try:
            while left:
                named = {
                    number: Segment(
                        segment_id,
                        table.table_id,
                        built[number].run.user,
                        storage_id,
                        file_name(folder_of(place, table, built[number].run.user), segment_id),
                        SegmentStatus.IN_PROGRESS,
                        table.schema_version,
                        created_at=now,
                        updated_at=now,
                    )
                    for number, segment_id in zip(left, self._take_ids(len(left)), strict=True)
                }
                pending |= named
                there = taken(place, [segment.path for segment in named.values()])  # never write over somebody's file
                left = [number for number, segment in named.items() if segment.path in there]
                self._finished(pending.pop(number) for number in left)
            records = [(built[number].run.partition, segment) for number, segment in pending.items()]
            self._submit(record_segments(self._next_segment, NEXT_SEGMENT, records)).result()
            self.step("recorded")
        except BaseException:
            self._finished(pending.values())
            raise
        return pending

    def _take_ids(self, count: int) -> range:
        """Ids of new segments; they are active until `_finished`."""
        with self._lock:
            ids = range(self._next_segment, self._next_segment + count)
            self._next_segment += count
            self._active.update(ids)
        return ids

    def _finished(self, segments: Iterable[Segment]) -> None:
        """Whatever of these is still in progress is nobody's any more."""
        with self._lock:
            self._active.difference_update(segment.segment_id for segment in segments)

    def _swap(self, table_id: int, moved: list[Moved]) -> _Round:
        with self._merger.holding_history():
            with self._snapshot("moving to the cold tier") as snapshot, snapshot.reading() as reader:
                table = snapshot.catalog.table_by_id(table_id)
                if table is None:
                    raise SchemaChanged("the table was dropped meanwhile")
                kept_after = kept_rows(snapshot, reader)(table_id)
                jobs = [(job_of(reader, layout_of(table), one, kept_after), one) for one in moved]
            applied = self._submit(swap(jobs, table_id)).result()
        done = [one for one, took in zip(moved, applied, strict=True) if took]
        self.step("swapped")
        if done:
            for hook in self.tables_moved:
                hook(table_id)
        segments = [one.segment for one in done if one.segment is not None]
        return _Round(
            sum(segment.rows for segment in segments),
            len(segments),
            sum(segment.bytes for segment in segments),
            len(done),
            sum(one.built.run.rows for one in done),
        )

    def _delete(self, some: Sequence[tuple[bytes, Segment]]) -> int:
        """Delete files, then their records."""
        gone: list[tuple[bytes, Segment]] = []
        for partition, segment in some:
            try:
                delete_file(self.resolver, segment.storage_id, segment.path)
            except StorageError as error:
                log.warning("a file of the cold tier is left for later: %s", error)
                continue
            self.reads.forget(segment)
            gone.append((partition, segment))
        if gone:

            def work(wtxn: WriteTransaction) -> None:
                wtxn.flusher.touched = True
                for partition, segment in gone:
                    delete_segment(wtxn.txn, wtxn.reader, OTHER_PREFIX, partition, segment)

            self._submit(work).result()
        for _, segment in gone:
            self._condemned.pop(segment.segment_id, None)
        return len(gone)

    @contextlib.contextmanager
    def _alone(self, table_id: int) -> Iterator[None]:
        with self._lock:
            mine = self._busy.setdefault(table_id, threading.Lock())
        with mine:
            yield

    def _snapshot(self, purpose: str) -> Snapshot:
        return self._registry.open(LEASE_SECONDS, purpose)


def _table(snapshot: Snapshot, table_id: int) -> TableDef:
    table = snapshot.catalog.table_by_id(table_id)
    if table is None:
        raise SchemaChanged("the table was dropped meanwhile")
    return table


def _behind(reader: Reader, run: Run) -> bytes:
    """Where the batches behind a run begin. The run's new batches may begin behind its last old one."""
    key = run.keys[-1]
    value = reader.txn.get(key, db=reader.dbs.rows)
    assert value is not None
    return key[:-8] + (reader.header(key, value).last_seq + 1).to_bytes(8, "big")


def _slices(partitions: Sequence[HotPartition], options: StorageOptions) -> Iterator[list[HotPartition]]:
    """Partitions in groups of a bounded number and of bounded bytes (but for a single one)."""
    group: list[HotPartition] = []
    nbytes = 0
    for found in partitions:
        if group and (len(group) >= ROUND_FILES or nbytes + found.nbytes > options.cold_segment_bytes):
            yield group
            group, nbytes = [], 0
        group.append(found)
        nbytes += found.nbytes
    if group:
        yield group
