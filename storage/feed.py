"""The change feed: every commit in order, from any retained `_seq`, to any number of in-process readers.

The newest commits stand in a ring of bounded length and size. A cursor that is behind the ring reads the log instead,
from a snapshot, and comes back to the ring when it has caught up. So a slow reader costs the writer nothing and loses
nothing; only when it falls behind the retained log does it get LogTruncated, and then it must start from a snapshot.

A cursor's position is the last `_seq` that it was given. `poll` returns the commits whose last `_seq` is greater, whole
and in order: a cursor that starts inside a commit gets that commit again, and its reader knows the rows by their
`_seq`.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from storage.catalog import Catalog, TableDef
from storage.changes import (
    ChangeSet,
    CommitRecord,
    PartitionRecord,
    Resolved,
    TableChange,
    Written,
    decode_commit,
)
from storage.environment import LOG_TRUNCATED, read_number
from storage.errors import LogTruncated, StorageCorrupt
from storage.keys import parse_seq_key, seq_key
from storage.reading import Reader
from storage.snapshots import Snapshot
from storage.versions import resolve_change

log = logging.getLogger("headrace.storage")

OpenSnapshot = Callable[[str], Snapshot]


class _Entry(NamedTuple):
    """A commit in the ring, and the last `_seq` of the one before it."""

    previous_seq: int
    changes: ChangeSet


class ChangeFeed:
    """The ring, its readers and the log behind it."""

    def __init__(self, open_snapshot: OpenSnapshot, last_seq: int, ring_commits: int, ring_bytes: int) -> None:
        self._open_snapshot = open_snapshot
        self._lock = threading.Lock()
        self._published = threading.Condition(self._lock)
        self._ring: deque[_Entry] = deque()
        self._ring_commits = ring_commits
        self._ring_bytes = ring_bytes
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
        keep = nbytes <= self._ring_bytes // 8
        changes = self._change_set(first_seq, record, catalog, batches if keep else {}, nbytes if keep else 0)
        with self._lock:
            self._ring.append(_Entry(self._last_seq, changes))
            self._size += changes.nbytes
            while len(self._ring) > self._ring_commits or (self._size > self._ring_bytes and len(self._ring) > 1):
                self._size -= self._ring.popleft().changes.nbytes
            self._last_seq = record.last_seq
            self._published.notify_all()
        self._call_back()

    def reset(self, last_seq: int) -> None:
        """The storage was reopened: the ring may hold what is not stored."""
        with self._lock:
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
        with self._lock:
            if position >= self._last_seq:
                return []
            if self._ring and self._ring[0].previous_seq <= position:
                found: list[ChangeSet] = []
                for entry in reversed(self._ring):
                    if entry.changes.last_seq <= position:
                        break
                    found.append(entry.changes)
                return found[: -count - 1 : -1]
        return self._from_log(position, count)

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
            truncated = read_number(reader.txn, reader.dbs, LOG_TRUNCATED, 0)
            if position < truncated:
                raise LogTruncated(
                    f"the change log begins after _seq {truncated}; changes after _seq {position} were asked for"
                )
            found = []
            for first_seq, record in read_log(reader, position, count):
                found.append(self._change_set(first_seq, record, snapshot.catalog, {}, 0))
            return found

    def _change_set(
        self,
        first_seq: int,
        record: CommitRecord,
        catalog: Catalog,
        batches: Mapping[tuple[int, str], Written],
        nbytes: int,
    ) -> ChangeSet:
        tables = []
        for partition in record.partitions:
            table = catalog.table_by_id(partition.table_id)
            if table is not None:
                written = batches.get((partition.table_id, partition.user))
                tables.append(TableChange(table, partition, self._resolve, written))
        return ChangeSet(first_seq, record.last_seq, record.timestamp_us, tables, list(record.objects), nbytes)

    def _resolve(self, table: TableDef, record: PartitionRecord, batches: Written | None) -> Resolved:
        with self._open_snapshot("reading changed rows") as snapshot, snapshot.reading() as reader:
            present = snapshot.catalog.table_by_id(table.table_id)
            return resolve_change(reader, present or table, record, batches, dropped=present is None)


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
    cursor = reader.txn.cursor(db=reader.dbs.commits)
    found: list[tuple[int, CommitRecord]] = []
    wanted = seq_key(position + 1)
    more = cursor.set_range(wanted)
    if more and bytes(cursor.key()) != wanted:
        if not cursor.prev():
            more = cursor.first()
    elif not more:
        more = cursor.last()
    while more and len(found) < count:
        first_seq = parse_seq_key(bytes(cursor.key()))
        record = decode_commit(first_seq, cursor.value())
        if record.last_seq > position:
            found.append((first_seq, record))
        more = cursor.next()
    return found


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
