"""The change feed: every commit once and in order, from any point, from memory or from the log."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from storage import StorageEngine, StorageOptions, TableDef, WriteTransaction
from storage.changes import ChangeSet
from storage.errors import LogTruncated
from storage.retention import log_bytes
from tests.storage.conftest import QUIET
from tests.storage.helpers import create, key_of, keyed_table, keyless_table, rows_of, seq_of

SMALL_RING = msgspec.structs.replace(QUIET, ring_commits=4, merge_fan_in=2)


@pytest.fixture
def engine(folder: Path) -> Iterator[StorageEngine]:
    """An engine whose ring is soon too short."""
    with StorageEngine.open(folder, SMALL_RING) as opened:
        yield opened


def shape(change: ChangeSet) -> list[tuple[str, list[int], list[tuple[int, int]]]]:
    """Per partition: added ids, and (id, by) of removed ones."""
    return [
        (
            t.partition,
            t.added().column("id").to_pylist(),
            [(row["id"], row["_by"]) for row in t.removed().to_pylist()],
        )
        for t in change.tables
    ]


def fill(engine: StorageEngine, table: TableDef) -> None:
    """Ten commits with inserts, a replacement and a delete each."""
    for i in range(10):

        def work(w: WriteTransaction, i: int = i) -> None:
            for user in ("ann", "bob"):
                w.insert(table, user, rows_of(table, [(10 * i + n, None, n) for n in range(3)]))
                if i:
                    old = seq_of(w, table, user, 10 * i - 10)
                    w.replace(table, user, [old], rows_of(table, [(10 * i - 10, f"new{i}", i)]))
                    w.delete(table, user, [seq_of(w, table, user, 10 * i - 9)])

        engine.commit_sync(work)


def test_every_commit_in_order_from_any_seq(engine: StorageEngine) -> None:
    table = create(engine, keyed_table)
    live = engine.feed.subscribe(engine.last_seq)
    seen = []
    lock_step = threading.Event()
    live.on_commit(lock_step.set)
    fill(engine, table)
    assert lock_step.wait(10)
    while changes := live.poll(3):
        seen += changes
    expected = [(c.first_seq, c.last_seq, c.timestamp_us, shape(c)) for c in seen]
    assert len(expected) == 10
    assert [c[0] for c in expected[1:]] == [c[1] + 1 for c in expected[:-1]]
    engine.compact()
    for start in range(1, engine.last_seq + 1):
        cursor = engine.feed.subscribe(start)
        got: list[ChangeSet] = []
        while changes := cursor.poll(random.Random(start).randint(1, 4)):
            got += changes
        wanted = [c for c in expected if c[1] > start]
        assert [(c.first_seq, c.last_seq, c.timestamp_us, shape(c)) for c in got] == wanted


def test_rows_of_a_change_without_a_key(engine: StorageEngine) -> None:
    table = create(engine, keyless_table)
    first, _ = engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, [(1, "a", 2)])))
    engine.commit_sync(lambda w: w.replace(table, "", [first], rows_of(table, [(1, "b", 3)])))
    *_, change = engine.feed.subscribe(0).poll()
    (part,) = change.tables
    assert part.added().to_pylist() == [{"_seq": first + 1, "_row_id": first, "id": 1, "email": "b", "amount": 3}]
    assert part.removed().to_pylist() == [
        {"_seq": first, "_row_id": first, "id": 1, "email": "a", "amount": 2, "_by": first + 1}
    ]
    assert (part.added_count, part.removed_count) == (1, 1)


def test_catalog_changes_are_named(engine: StorageEngine) -> None:
    create(engine, keyed_table)
    (change,) = engine.feed.subscribe(0).poll()
    assert sorted(change.objects) == [("namespace", "app"), ("table", "0000000001")]


def test_intermediate_versions_of_one_group_stand_in_the_change(engine: StorageEngine) -> None:
    table = create(engine, keyed_table)

    def work(w: WriteTransaction) -> None:
        w.insert_row(table, "u", (1, None, 0), None)
        for i in range(1, 3):
            w.replace(table, "u", [seq_of(w, table, "u", 1)], rows_of(table, [(1, None, i)]))

    engine.commit_sync(work)
    *_, change = engine.feed.subscribe(0).poll()
    (part,) = change.tables
    assert part.added().column("amount").to_pylist() == [0, 1, 2]
    assert part.removed().column("amount").to_pylist() == [0, 1]
    assert part.removed().column("_by").to_pylist() == part.added().column("_seq").to_pylist()[1:]


def test_a_waiting_reader_is_woken(engine: StorageEngine) -> None:
    table = create(engine, keyed_table)
    cursor = engine.feed.subscribe(engine.last_seq)
    assert cursor.poll() == []
    assert not cursor.wait(0)
    got: list[bool] = []
    waiter = threading.Thread(target=lambda: got.append(cursor.wait(30)))
    waiter.start()
    engine.commit_sync(lambda w: w.insert_row(table, "u", (1, None, 0), None))
    waiter.join(30)
    assert got == [True]
    assert len(cursor.poll()) == 1


def test_retention_truncates_the_log_and_purges_what_only_the_log_needed(folder: Path) -> None:
    class Manual:
        now = 1_000_000_000

        def now_us(self) -> int:
            return self.now

        def monotonic(self) -> float:
            return self.now / 1e6

    clock = Manual()
    options = msgspec.structs.replace(SMALL_RING, retention_seconds=100.0)
    with StorageEngine.open(folder, options, clock=clock) as engine:
        table = create(engine, keyed_table)
        fill(engine, table)
        engine.compact()
        middle = engine.last_seq
        with engine.snapshot() as snapshot, snapshot.reading() as reader:
            assert reader.txn.stat(reader.dbs.history)["entries"] > 0
        clock.now += 200_000_000
        engine.commit_sync(lambda w: w.insert_row(table, "ann", (1000, None, 0), None))
        engine.compact()
        assert engine.check() == []
        assert engine.stats().first_retained_seq == middle + 1
        with engine.snapshot() as snapshot, snapshot.reading() as reader:
            assert reader.txn.stat(reader.dbs.history)["entries"] == 0
            assert reader.txn.stat(reader.dbs.commits)["entries"] == 1
    with StorageEngine.open(folder, options, clock=clock) as engine:
        with pytest.raises(LogTruncated, match=f"begins after _seq {middle}"):
            engine.feed.subscribe(middle - 1).poll()
        (change,) = engine.feed.subscribe(middle).poll()
        assert shape(change) == [("ann", [1000], [])]


def test_the_log_is_bounded_by_bytes(folder: Path) -> None:
    options = msgspec.structs.replace(SMALL_RING, retention_bytes=64 * 1024)
    with StorageEngine.open(folder, options) as engine:
        table = create(engine, keyed_table)
        for i in range(300):
            engine.commit_sync(
                lambda w, i=i: (
                    w.insert_row(table, "u", (i, "x" * 400, 0), None),
                    w.delete(table, "u", [seq_of(w, table, "u", i)]),
                )
            )
            if i % 50 == 49:
                engine.compact()
        with engine.snapshot() as snapshot, snapshot.reading() as reader:
            assert log_bytes(reader) <= 3 * 64 * 1024
        assert engine.stats().first_retained_seq > 1
        assert engine.check() == []


def test_the_log_without_a_bound_stays_whole(folder: Path) -> None:
    options = msgspec.structs.replace(SMALL_RING, retention_bytes=0)
    with StorageEngine.open(folder, options) as engine:
        table = create(engine, keyed_table)
        begin = engine.last_seq
        for i in range(20):
            engine.commit_sync(lambda w, i=i: w.insert_row(table, "u", (i, f"x{i}", 0), None))
        engine.compact()
        assert engine.stats().first_retained_seq == 1
        (*_, last) = engine.feed.subscribe(begin).poll()
        assert last.last_seq == engine.last_seq


def test_a_dropped_table_leaves_the_log_readable(engine: StorageEngine) -> None:
    table = create(engine, keyed_table)
    other = create(engine, keyless_table)
    fill(engine, table)
    engine.commit_sync(lambda w: w.insert(other, "", rows_of(other, [(1, None, 1)])))
    engine.commit_sync(lambda w: w.drop_table(table.table_id))
    engine.compact()
    changes = engine.feed.subscribe(0).poll(1000)
    assert changes[-1].objects == [("table", f"{table.table_id:010d}")]
    assert {t.table.name for c in changes for t in c.tables} == {"keyless"}
    assert [key_of(table, 1)]


def test_a_reader_of_the_ring_survives_a_drop(folder: Path) -> None:
    with StorageEngine.open(folder, StorageOptions(map_start=64 << 20, merge=False)) as engine:
        table = create(engine, keyed_table)
        fill(engine, table)
        cursor = engine.feed.subscribe(0)
        changes = cursor.poll(1000)
        engine.commit_sync(lambda w: w.drop_table(table.table_id))
        engine.compact()
        assert changes[-1].tables[0].added().num_rows == 4
        assert changes[-1].tables[0].removed().num_rows == 0


def test_a_failing_callback_keeps_no_other_waiting(engine: StorageEngine) -> None:
    told: list[int] = []

    def fail() -> None:
        raise RuntimeError("a reader's own trouble")

    bad, good = engine.feed.subscribe(0), engine.feed.subscribe(0)
    bad.on_commit(fail)
    good.on_commit(lambda: told.append(engine.last_seq))
    create(engine)
    assert told == [engine.last_seq]
    assert len(good.poll()) == 1


def test_the_log_is_truncated_while_merging_never_pauses(folder: Path) -> None:
    options = StorageOptions(
        map_start=1 << 30, retention_seconds=0.0, merge_fan_in=2, maintenance_seconds=0.2, group_wait_us=0
    )
    with StorageEngine.open(folder, options) as engine:
        table = create(engine, keyed_table)
        limit = time.monotonic() + 10
        number = 0
        while engine.stats().first_retained_seq == 1:
            assert time.monotonic() < limit, "the log is never truncated"
            engine.commit_sync(lambda w, n=number: w.insert_row(table, "u", (n, None, 0), None))
            number += 1
