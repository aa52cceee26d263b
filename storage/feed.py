"""The change feed: every commit in order, from any retained `_seq`, to any number of in-process readers.

The newest commits stand in a ring of bounded length and size. A cursor that is behind the ring reads the log instead,
from a snapshot, and comes back to the ring when it has caught up. So a slow reader costs the writer nothing and loses
nothing; only when it falls behind the retained log does it get LogTruncated, and then it must start from a snapshot.

A cursor's position is the last `_seq` that it was given. `poll` returns the commits whose last `_seq` is greater, whole
and in order: a cursor that starts inside a commit gets that commit again, and its reader knows the rows by their
`_seq`.

What the ring takes is bounded by `ring_bytes`: the rows of a change that were read from storage count too, and rows of
a large change are not kept at all once nobody uses them.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from storage.catalog import Catalog
from storage.changes import (
    ChangeSet,
    CommitOutline,
    CommitRecord,
    Resolved,
    RingPlace,
    TableChange,
    Written,
    decode_commit,
    outline_commit,
)
from storage.environment import LOG_TRUNCATED, read_number
from storage.errors import ColdMiss, LogTruncated, StorageCorrupt
from storage.keys import parse_seq_key, seq_key
from storage.reading import Reader
from storage.snapshots import Snapshot
from storage.versions import resolve_change, written_change

log = logging.getLogger("headrace.storage")

OpenSnapshot = Callable[[str], Snapshot]
OpenAtOnce = Callable[[str], Snapshot | None]

SCAN_COMMITS = 4_096
"""Commits that one scan of the log looks at."""
SCAN_ROWS = 10_000
"""Row versions after which a scan hands over what it has."""


class _Entry(NamedTuple):
    """A commit in the ring, the last `_seq` of the one before it, and what it takes."""

    previous_seq: int
    changes: ChangeSet
    place: RingPlace


class LogSlice(NamedTuple):
    """What a scan found: the commits that concern its caller among those up to `end`."""

    commits: list[ChangeSet]
    end: int


class ChangeFeed:
    """The ring, its readers and the log behind it."""

    def __init__(
        self,
        open_snapshot: OpenSnapshot,
        open_at_once: OpenAtOnce,
        last_seq: int,
        ring_commits: int,
        ring_bytes: int,
    ) -> None:
        self._open_snapshot = open_snapshot
        self._open_at_once = open_at_once
        self._catalog: Catalog | None = None
        self._lock = threading.Lock()
        self._published = threading.Condition(self._lock)
        self._ring: deque[_Entry] = deque()
        self._ring_commits = ring_commits
        self._ring_bytes = ring_bytes
        self._large = ring_bytes // 8
        self._size = 0
        self._last_seq = last_seq
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._closed = False

    @property
    def last_seq(self) -> int:
        """The last `_seq` of the newest published commit."""
        return self._last_seq

    def subscribe(self, from_seq: int) -> FeedCursor:
        """A cursor that gets every commit after `from_seq`."""
        return FeedCursor(self, from_seq)

    def publish(
        self,
        first_seq: int,
        record: CommitRecord,
        catalog: Catalog,
        batches: Mapping[tuple[int, str], Written],
        nbytes: int,
    ) -> None:
        """Called by the writer after each commit, in order. Small commits keep their rows in memory."""
        keep = nbytes <= self._large
        place = RingPlace(nbytes if keep else 0)
        changes = self._change_set(first_seq, record, catalog, batches if keep else {}, place)
        with self._lock:
            self._catalog = catalog
            self._ring.append(_Entry(self._last_seq, changes, place))
            self._size += place.nbytes
            self._trim()
            self._last_seq = record.last_seq
            self._published.notify_all()
        self._call_back()

    def _trim(self) -> None:
        """Let go of the oldest commits; with the lock held."""
        while len(self._ring) > self._ring_commits or (self._size > self._ring_bytes and len(self._ring) > 1):
            place = self._ring.popleft().place
            place.in_ring = False
            self._size -= place.nbytes

    def reset(self, last_seq: int) -> None:
        """The storage was reopened: the ring may hold what is not stored."""
        with self._lock:
            for entry in self._ring:
                entry.place.in_ring = False
            self._ring.clear()
            self._size = 0
            self._last_seq = last_seq
            self._published.notify_all()
        self._call_back()

    def close(self) -> None:
        """Wake everybody who waits."""
        with self._lock:
            self._closed = True
            self._published.notify_all()

    # --- for cursors ---------------------------------------------------------------------------------------------

    def after(self, position: int, count: int) -> list[ChangeSet]:
        """Up to `count` commits that end after `position`. Raises LogTruncated."""
        found = self.after_at_once(position, count)
        return self._from_log(position, count) if found is None else found

    def after_at_once(self, position: int, count: int) -> list[ChangeSet] | None:
        """As `after`, from memory; None when the log has to be read."""
        with self._lock:
            if position >= self._last_seq:
                return []
            if not self._ring or self._ring[0].previous_seq > position:
                return None
            found: list[ChangeSet] = []
            for entry in reversed(self._ring):
                if entry.changes.last_seq <= position:
                    break
                found.append(entry.changes)
            return found[: -count - 1 : -1]

    def committed_at(self, seq: int) -> int | None:
        """When the commit of a `_seq` was made (microseconds since the epoch); None if the log does not hold it."""
        with self._open_snapshot("reading the change log") as snapshot, snapshot.reading() as reader:
            for first_seq, value in _log_values(reader, seq - 1, 1):
                record = decode_commit(first_seq, value)
                return record.timestamp_us if first_seq <= seq <= record.last_seq else None
        return None

    def scan(self, position: int, until: int, concerns: Callable[[CommitOutline], bool]) -> LogSlice:
        """The commits after `position` up to `until` that concern the caller, from the log, a slice at a time.

        Rows are not read. A slice ends after SCAN_COMMITS commits, or when those found have SCAN_ROWS row versions; it
        is the last one when its `end` is not below `until`. Raises LogTruncated.
        """
        with self._open_snapshot("reading the change log") as snapshot, snapshot.reading() as reader:
            _expect_retained(reader, position)
            found: list[ChangeSet] = []
            end, rows = position, 0
            for first_seq, value in _log_values(reader, position, SCAN_COMMITS):
                outline = outline_commit(first_seq, value)
                if outline.last_seq > until or rows >= SCAN_ROWS:
                    break
                if outline.last_seq > position and concerns(outline):
                    record = decode_commit(first_seq, value)
                    found.append(self._change_set(first_seq, record, snapshot.catalog, {}, None))
                    rows += sum(change.added_count + change.removed_count for change in found[-1].tables)
                end = max(end, outline.last_seq)
            return LogSlice(found, end)

    def read_rows(self, changes: Iterable[TableChange]) -> None:
        """Read the rows of many changes through one snapshot. Those that are gone say so when they are asked for."""
        missing = [change for change in changes if change.reads_storage]
        if missing:
            with self._open_snapshot("reading changed rows") as snapshot:
                self._read_rows(missing, snapshot)

    def read_rows_at_once(self, changes: Iterable[TableChange]) -> bool:
        """As `read_rows`, for the event loop; False where that would wait."""
        missing = [change for change in changes if change.reads_storage]
        if missing:
            snapshot = self._open_at_once("reading changed rows")
            if snapshot is None:
                return False
            try:
                with snapshot:
                    self._read_rows(missing, snapshot)
            except ColdMiss:
                return False
        return True

    def _read_rows(self, changes: Iterable[TableChange], snapshot: Snapshot) -> None:
        with snapshot.reading() as reader:
            for change in changes:
                try:
                    self._read_change(change, reader, snapshot.catalog)
                except LogTruncated as error:
                    log.debug("rows of commit %s are gone: %s", change, error)

    def wait_beyond(self, position: int, timeout: float | None) -> bool:
        """Wait until a commit after `position` is there; False when the time is over or the feed closed."""
        with self._lock:
            self._published.wait_for(lambda: self._closed or self._last_seq > position, timeout)
            return self._last_seq > position

    def add_callback(self, key: int, callback: Callable[[], None]) -> None:
        """Call `callback` on the writer's thread after each commit; it must not block."""
        with self._lock:
            self._callbacks[key] = callback

    def remove_callback(self, key: int) -> None:
        """Call it no more."""
        with self._lock:
            self._callbacks.pop(key, None)

    def _call_back(self) -> None:
        """Tell those who asked for it; one who fails keeps the news from nobody else."""
        with self._lock:
            callbacks = list(self._callbacks.values())
        for callback in callbacks:
            try:
                callback()
            except Exception:
                log.exception("a reader of the change feed could not be told of a commit")

    def _from_log(self, position: int, count: int) -> list[ChangeSet]:
        with self._open_snapshot("reading the change log") as snapshot, snapshot.reading() as reader:
            _expect_retained(reader, position)
            return [
                self._change_set(first_seq, record, snapshot.catalog, {}, None)
                for first_seq, record in read_log(reader, position, count)
            ]

    def _change_set(
        self,
        first_seq: int,
        record: CommitRecord,
        catalog: Catalog,
        batches: Mapping[tuple[int, str], Written],
        place: RingPlace | None,
    ) -> ChangeSet:
        tables = []
        for partition in record.partitions:
            table = catalog.table_by_id(partition.table_id)
            if table is not None:
                written = batches.get((partition.table_id, partition.user))
                tables.append(TableChange(table, partition, self._resolve, written, place))
        return ChangeSet(first_seq, record.last_seq, record.timestamp_us, tables, list(record.objects))

    def _resolve(self, change: TableChange) -> Resolved:
        if not change.reads_storage:
            batches = change.batches  # another thread may take them away
            if batches is not None:
                present = self._catalog.table_by_id(change.table.table_id) if self._catalog is not None else None
                rows = written_change(present or change.table, batches)
                change.keep(rows)  # the same memory, mostly
                return rows
        with self._open_snapshot("reading changed rows") as snapshot, snapshot.reading() as reader:
            return self._read_change(change, reader, snapshot.catalog)

    def _read_change(self, change: TableChange, reader: Reader, catalog: Catalog) -> Resolved:
        present = catalog.table_by_id(change.table.table_id)
        batches = change.batches
        rows = resolve_change(reader, present or change.table, change.record, batches, dropped=present is None)
        place = change.place
        if place is None:
            change.keep(rows)
            return rows
        more = rows.removed.nbytes + (rows.added.nbytes if batches is None else 0)
        change.keep(rows, loosely=more > self._large)
        if more <= self._large:
            with self._lock:
                if place.in_ring:
                    place.nbytes += more
                    self._size += more
                    self._trim()
        return rows


class FeedCursor:
    """One reader's place in the feed. Use it from one thread at a time."""

    def __init__(self, feed: ChangeFeed, position: int) -> None:
        self._feed = feed
        self.position = position

    def poll(self, max_commits: int = 256) -> list[ChangeSet]:
        """The next commits, at most `max_commits`; empty when there is nothing new. Raises LogTruncated."""
        found = self._feed.after(self.position, max_commits)
        if found:
            self.position = found[-1].last_seq
        return found

    def poll_at_once(self, max_commits: int = 256) -> list[ChangeSet] | None:
        """As `poll`, from memory, for the event loop; None when `poll` would read the log."""
        found = self._feed.after_at_once(self.position, max_commits)
        if found:
            self.position = found[-1].last_seq
        return found

    def wait(self, timeout: float | None = None) -> bool:
        """Block until there is something to poll; False when the time is over or the engine closed."""
        return self._feed.wait_beyond(self.position, timeout)

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each commit, on the writer's thread: it must only wake somebody."""
        self._feed.add_callback(id(self), callback)

    def close(self) -> None:
        """Stop the callback."""
        self._feed.remove_callback(id(self))


def read_log(reader: Reader, position: int, count: int) -> list[tuple[int, CommitRecord]]:
    """Up to `count` commits that end after `position`: (first `_seq`, record)."""
    found: list[tuple[int, CommitRecord]] = []
    for first_seq, value in _log_values(reader, position, count + 1):
        record = decode_commit(first_seq, value)
        if record.last_seq > position and len(found) < count:
            found.append((first_seq, record))
    return found


def _log_values(reader: Reader, position: int, count: int) -> Iterator[tuple[int, memoryview]]:
    """Up to `count` stored commits from the one that `position` stands in: (first `_seq`, stored value)."""
    cursor = reader.txn.cursor(db=reader.dbs.commits)
    wanted = seq_key(position + 1)
    more = cursor.set_range(wanted)
    if more and bytes(cursor.key()) != wanted:
        if not cursor.prev():
            more = cursor.first()
    elif not more:
        more = cursor.last()
    while more and count > 0:
        yield parse_seq_key(bytes(cursor.key())), cursor.value()
        count -= 1
        more = cursor.next()


def _expect_retained(reader: Reader, position: int) -> None:
    truncated = read_number(reader.txn, reader.dbs, LOG_TRUNCATED, 0)
    if position < truncated:
        raise LogTruncated(
            f"the change log begins after _seq {truncated}; changes after _seq {position} were asked for"
        )


def newest_timestamp(reader: Reader) -> int:
    """When the newest commit of the log was made; 0 when there is none, or none that can be read."""
    cursor = reader.txn.cursor(db=reader.dbs.commits)
    if not cursor.last():
        return 0
    try:
        return decode_commit(parse_seq_key(bytes(cursor.key())), cursor.value()).timestamp_us
    except StorageCorrupt as error:
        log.error("the time of the newest commit is not known: %s", error)
        return 0
