"""What the rows of changes cost: snapshots that are opened, memory that the ring keeps, commits that are skipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from storage import StorageEngine, TableDef, WriteTransaction
from storage.changes import CommitRecord, PartitionRecord, encode_commit, outline_commit
from storage.errors import LogTruncated, StorageCorrupt
from storage.feed import ChangeFeed
from tests.storage.conftest import QUIET
from tests.storage.helpers import create, plain_table, rows_of, seq_of

RING = msgspec.structs.replace(QUIET, ring_bytes=64 << 10)


@pytest.fixture
def engine(folder: Path) -> Iterator[StorageEngine]:
    """An engine with little memory for the ring."""
    with StorageEngine.open(folder, RING) as opened:
        yield opened


class Opened:
    """Counts the snapshots that a feed opens."""

    def __init__(self, feed: ChangeFeed) -> None:
        self.count = 0
        self._open, self._at_once = feed._open_snapshot, feed._open_at_once
        feed._open_snapshot, feed._open_at_once = self.open, self.at_once

    def open(self, purpose: str):
        self.count += 1
        return self._open(purpose)

    def at_once(self, purpose: str):
        self.count += 1
        return self._at_once(purpose)


def insert(engine: StorageEngine, table: TableDef, first: int, count: int = 1, text: str = "x") -> None:
    engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, [(first + i, text, 0) for i in range(count)])))


def update(engine: StorageEngine, table: TableDef, *keys: int, text: str = "y") -> None:
    def work(w: WriteTransaction) -> None:
        seqs = sorted((seq_of(w, table, "", key), key) for key in keys)
        w.replace(table, "", [seq for seq, _ in seqs], rows_of(table, [(key, text, 1) for _, key in seqs]))

    engine.commit_sync(work)


def test_added_rows_at_hand_open_no_snapshot(engine: StorageEngine) -> None:
    table = create(engine, plain_table)
    cursor = engine.feed.subscribe(engine.last_seq)
    insert(engine, table, 0, 3)
    opened = Opened(engine.feed)
    (change,) = cursor.poll_at_once() or []
    (part,) = change.tables
    assert not part.reads_storage
    assert part.added().column("id").to_pylist() == [0, 1, 2]
    assert part.removed().num_rows == 0
    assert part.removed().schema.names == ["_seq", "id", "email", "amount", "_by"]
    assert opened.count == 0


def test_many_changes_are_read_through_one_snapshot(engine: StorageEngine) -> None:
    table = create(engine, plain_table)
    insert(engine, table, 0, 5)
    cursor = engine.feed.subscribe(engine.last_seq)
    for key in range(5):
        update(engine, table, key)
    changes = [part for change in cursor.poll() for part in change.tables]
    opened = Opened(engine.feed)
    assert all(part.reads_storage for part in changes)
    assert engine.feed.read_rows_at_once(changes)
    assert not any(part.reads_storage for part in changes)
    engine.feed.read_rows(changes)
    assert [part.removed().column("id").to_pylist() for part in changes] == [[key] for key in range(5)]
    assert opened.count == 1


def test_rows_read_from_storage_count_against_the_ring(engine: StorageEngine) -> None:
    table = create(engine, plain_table)
    text = "x" * 2_000
    for key in range(24):
        insert(engine, table, key, text=text)
    start = engine.last_seq
    for key in range(24):
        update(engine, table, key, text="short")
    feed = engine.feed
    changes = [part for change in feed.subscribe(start).poll() for part in change.tables]
    before = len(feed._ring)
    assert sum(part.removed().num_rows for part in changes) == 24
    assert feed._size <= RING.ring_bytes
    assert len(feed._ring) < before
    assert feed._size == sum(entry.place.nbytes for entry in feed._ring)
    assert feed.after_at_once(start - 24, 10) is None
    assert len(feed.after(start - 24, 100)) == 48, "the log has what the ring let go"


def test_rows_of_a_large_change_are_kept_while_somebody_uses_them(engine: StorageEngine) -> None:
    table = create(engine, plain_table)
    cursor = engine.feed.subscribe(engine.last_seq)
    insert(engine, table, 0, 50, "x" * 1_000)
    opened = Opened(engine.feed)
    (change,) = cursor.poll()
    (part,) = change.tables
    rows = part.rows()
    assert part.rows().added is rows.added
    assert opened.count == 1
    assert engine.feed._size <= RING.ring_bytes // 8
    del rows
    assert part.reads_storage
    assert part.added().num_rows == 50
    assert opened.count == 2


def test_a_scan_skips_what_concerns_others(engine: StorageEngine) -> None:
    table, other = create(engine, plain_table), create(engine, plain_table, "other")
    start = engine.last_seq
    for key in range(10):
        insert(engine, other, key)
        if key % 3 == 0:
            insert(engine, table, key)
    wanted: list[int] = []
    end = start
    while end < engine.last_seq:
        part = engine.feed.scan(
            end, engine.last_seq, lambda outline: any(p.table_id == table.table_id for p in outline.partitions)
        )
        wanted += [row for change in part.commits for row in change.tables[0].added().column("id").to_pylist()]
        end = part.end
    assert wanted == [0, 3, 6, 9]
    middle = engine.feed.scan(start, start + 1, lambda outline: True)
    assert (len(middle.commits), middle.end) == (1, start + 1)


def test_a_scan_of_what_is_gone_says_so(folder: Path) -> None:
    options = msgspec.structs.replace(RING, retention_seconds=0.0)
    with StorageEngine.open(folder, options) as engine:
        table = create(engine, plain_table)
        insert(engine, table, 0)
        engine.compact()
        with pytest.raises(LogTruncated):
            engine.feed.scan(0, engine.last_seq, lambda outline: True)


def test_an_outline_is_the_record_without_rows() -> None:
    part = PartitionRecord(7, "ann", 2, (5, 9), b"\0" * 800, b"\1" * 800)
    stored = encode_commit(CommitRecord(9, 123, (part, part), (("user", "ann"),)))
    outline = outline_commit(5, stored)
    assert (outline.last_seq, outline.timestamp_us, outline.objects) == (9, 123, (("user", "ann"),))
    assert [(p.table_id, p.user) for p in outline.partitions] == [(7, "ann")] * 2
    with pytest.raises(StorageCorrupt):
        outline_commit(5, stored[:-1] + b"\2")
    with pytest.raises(StorageCorrupt):
        outline_commit(5, b"short")


def test_the_size_of_the_log_is_in_the_stats(engine: StorageEngine) -> None:
    table = create(engine, plain_table)
    before = engine.stats().log_bytes
    insert(engine, table, 0, 500, "x" * 500)
    update(engine, table, *range(500))
    engine.compact()
    assert engine.stats().log_bytes > before > 0
