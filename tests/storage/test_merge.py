"""Background merging: what is chosen, what happens to rows that die meanwhile, and that it keeps up."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from storage import StorageEngine, StorageOptions, TableDef
from storage.keys import partition_key, row_key_prefix
from storage.layout import layout_of
from storage.merging import Candidate, Job, apply_job, build, candidates, choose
from tests.storage.conftest import QUIET
from tests.storage.helpers import contents, create, key_of, rows_of, seq_of

OPTIONS = StorageOptions()


def sizes(rows: list[int], dead: int = 0) -> list[Candidate]:
    """Candidates with those row counts."""
    return [Candidate(i.to_bytes(8, "big"), count, dead, count * 50) for i, count in enumerate(rows)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([1] * 15, []),
        ([1] * 16, [16]),
        ([1] * 100, [100]),
        ([60_000] + [1] * 20 + [60_000], [20]),
        ([16] * 15 + [1] * 16, [16]),
        ([16] * 15 + [1], [16]),
        ([256] * 16 + [3], [17]),
        ([4096] * 32, [16, 16]),
        ([60_000] * 40, []),
    ],
)
def test_what_is_chosen(rows: list[int], expected: list[int]) -> None:
    assert [len(run) for run in choose(sizes(rows), OPTIONS)] == expected


def test_dead_rows_make_a_batch_worth_rewriting() -> None:
    assert choose(sizes([60_000], dead=10_000), OPTIONS) == []
    assert len(choose(sizes([60_000], dead=20_000), OPTIONS)) == 1
    assert len(choose(sizes([5], dead=5), OPTIONS)) == 1
    assert choose(sizes([5], dead=4), OPTIONS) == []


def build_job(engine: StorageEngine, table: TableDef) -> Job:
    """The one merge that is due."""
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        partition = partition_key("")
        (run,) = choose(candidates(reader, row_key_prefix(table.table_id, partition)), QUIET)
        return build(reader, layout_of(table), partition, run, 0)


def insert_one_by_one(engine: StorageEngine, table: TableDef, count: int) -> None:
    """One batch a row."""
    for i in range(count):
        engine.commit_sync(lambda w, i=i: w.insert_row(table, "", (i, None, i), None))


def test_rows_that_die_between_building_and_applying_stay_dead(engine: StorageEngine) -> None:
    table = create(engine)
    insert_one_by_one(engine, table, 20)
    engine.commit_sync(lambda w: w.delete(table, "", [seq_of(w, table, "", 3)]))
    job = build_job(engine, table)
    engine.commit_sync(lambda w: w.delete(table, "", [seq_of(w, table, "", 5), seq_of(w, table, "", 19)]))
    engine.commit_sync(lambda w: w.replace(table, "", [seq_of(w, table, "", 7)], rows_of(table, [(7, "new", 7)])))
    expected = {i: None for i in range(20) if i not in (3, 5, 19)} | {7: "new"}
    assert engine.submit_exclusive(lambda w: apply_job(w, job)).result(10)
    with engine.snapshot() as snapshot:
        assert {row[0]: row[1] for row in contents(snapshot, table)} == expected
    assert engine.check() == []
    assert not engine.submit_exclusive(lambda w: apply_job(w, job)).result(10)
    assert engine.check() == []


def test_a_table_dropped_meanwhile(engine: StorageEngine) -> None:
    table = create(engine)
    insert_one_by_one(engine, table, 20)
    job = build_job(engine, table)
    engine.commit_sync(lambda w: w.drop_table(table.table_id))
    engine.compact()
    assert not engine.submit_exclusive(lambda w: apply_job(w, job)).result(10)
    assert engine.check() == []


def test_superseded_rows_stay_in_the_log_through_many_merges(engine: StorageEngine) -> None:
    table = create(engine)
    insert_one_by_one(engine, table, 40)
    for round_number in range(4):
        for key in range(round_number, 40, 3):
            engine.commit_sync(
                lambda w, k=key, n=round_number: w.replace(
                    table, "", [seq_of(w, table, "", k)], rows_of(table, [(k, f"r{n}", n)])
                )
            )
        engine.compact()
        assert engine.check() == []
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        assert reader.txn.stat(reader.dbs.rows)["entries"] < 40
    replica: dict[int, tuple[object, ...]] = {}
    cursor = engine.feed.subscribe(0)
    while changes := cursor.poll(7):
        for change in changes:
            for part in change.tables:
                for row in part.added().to_pylist():
                    replica[row["_seq"]] = (row["id"], row["email"], row["amount"])
                for row in part.removed().to_pylist():
                    assert replica.pop(row["_seq"]) == (row["id"], row["email"], row["amount"])
    with engine.snapshot() as snapshot:
        assert sorted(replica.values(), key=repr) == contents(snapshot, table)


def test_merging_keeps_up_with_one_row_commits(folder: Path) -> None:
    options = msgspec.structs.replace(QUIET, merge=True)
    with StorageEngine.open(folder, options) as engine:
        table = create(engine)
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                with engine.snapshot() as snapshot:
                    ids = snapshot.scan(table, "", ["id"]).column(0).to_pylist()
                    assert ids == list(range(len(ids)))

        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read)
            try:
                insert_one_by_one(engine, table, 1000)
            finally:
                done.set()
            reading.result(30)
        assert engine.stats().merges > 0
        engine.compact()
        with engine.snapshot() as snapshot, snapshot.reading() as stored:
            assert stored.txn.stat(stored.dbs.rows)["entries"] < 64
            assert snapshot.count(table, "") == 1000
            assert snapshot.find(table, "", [key_of(table, 999)]) != [None]
        assert engine.check() == []


def test_merging_starts_where_the_last_run_left_off(folder: Path) -> None:
    with StorageEngine.open(folder, QUIET) as engine:
        table = create(engine)
        insert_one_by_one(engine, table, 40)
    merged = threading.Event()
    options = msgspec.structs.replace(QUIET, merge=True)
    with StorageEngine.open(folder, options) as engine:
        while not merged.is_set():
            engine.commit_sync(lambda w: w.now_us())
            if engine.stats().merges:
                merged.set()
        with engine.snapshot() as snapshot:
            assert snapshot.count(table, "") == 40


def test_a_row_that_never_changes_does_not_make_merges_rewrite_all_history(engine: StorageEngine) -> None:
    table = create(engine)
    engine.commit_sync(lambda wtxn: wtxn.insert(table, "", rows_of(table, [(0, "cold", 0), (1, "hot", 0)])))
    rewritten = 0
    before: dict[bytes, int] = {}
    rows = rows_of(table, [(1, "hot", 1)])
    for _ in range(32):
        for _ in range(16):
            engine.commit_sync(lambda wtxn: wtxn.replace(table, "", [seq_of(wtxn, table, "", 1)], rows))
        engine.compact()
        with engine.snapshot() as snapshot, snapshot.reading() as reader:
            after = {batch.key: batch.header.rows for batch in reader.stored(b"", history=True)}
        rewritten += sum(count for key, count in after.items() if before.get(key) != count)
        before = after
    superseded = sum(before.values())
    assert superseded == 32 * 16
    assert len(before) <= superseded.bit_length()
    assert rewritten <= superseded * superseded.bit_length()
    assert engine.check() == []


def test_partitions_are_listed_a_slice_at_a_time(engine: StorageEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.merge.LISTED", 3)
    users = [f"u{number:02}" + "x" * (number * 20) for number in range(10)]  # keys hold long names cut
    table, other = create(engine, name="theirs"), create(engine, name="ours")
    for number in range(QUIET.merge_fan_in):
        for user in users:
            engine.commit_sync(lambda w, user=user, n=number: w.insert_row(table, user, (n, None, n), None))
    insert_one_by_one(engine, other, QUIET.merge_fan_in)
    assert engine.compact() == len(users) + 1
