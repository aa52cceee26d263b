"""The engine's promises one by one: groups, keys, conflicts, schemas, snapshots, locking, closing."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from storage import StorageEngine, StorageOptions, Transaction, WriteTransaction
from storage.catalog import ColumnDef, SchemaVersion, UserDef
from storage.errors import (
    DuplicateKey,
    QueueFull,
    SchemaChanged,
    StorageClosed,
    StorageError,
    StorageFull,
    StorageLocked,
    WriteConflict,
)
from storage.submission import Submission
from storage.types import BIGINT, INT, TEXT
from tests.storage.conftest import QUIET
from tests.storage.helpers import (
    contents,
    create,
    key_of,
    keyed_table,
    keyless_table,
    plain_table,
    rows_of,
    seq_of,
)


class Gate:
    """Holds the writer so that works queue up behind it into one group."""

    def __init__(self, engine: StorageEngine) -> None:
        self._entered = threading.Event()
        self._leave = threading.Event()
        self.commit = engine.submit(self._work)
        assert self._entered.wait(10)

    def _work(self, wtxn: WriteTransaction) -> None:
        self._entered.set()
        assert self._leave.wait(10)

    def open(self) -> None:
        self._leave.set()
        self.commit.result(10)


def test_one_failing_work_fails_alone(engine: StorageEngine) -> None:
    table = create(engine)
    gate = Gate(engine)
    before = engine.stats().commits

    def fail_late(wtxn: WriteTransaction) -> None:
        wtxn.insert_row(table, "", (50, None, 0), key_of(table, 50))
        wtxn.delete(table, "", [seq_of(wtxn, table, "", 1)])
        wtxn.put_object("user", "eve", UserDef("eve", "user"))
        raise RuntimeError("changed my mind")

    first = engine.submit(lambda w: w.insert_row(table, "", (1, "a", 1), key_of(table, 1)))
    failing = engine.submit(fail_late)
    duplicate = engine.submit(lambda w: w.insert_row(table, "", (1, "b", 1), key_of(table, 1)))
    last = engine.submit(lambda w: w.insert_row(table, "", (2, "c", 1), key_of(table, 2)))
    gate.open()
    assert first.result(10) + 1 == last.result(10)
    with pytest.raises(RuntimeError, match="changed my mind"):
        failing.result(10)
    with pytest.raises(DuplicateKey) as caught:
        duplicate.result(10)
    assert (caught.value.columns, caught.value.values, caught.value.primary) == (("id",), (1,), True)
    assert engine.stats().commits == before + 1
    with engine.snapshot() as snapshot:
        assert contents(snapshot, table) == [(1, "a", 1), (2, "c", 1)]
        assert snapshot.get_object("user", "eve", UserDef) is None
    assert engine.check() == []


def test_a_row_that_does_not_fit_its_column_fails_alone(engine: StorageEngine) -> None:
    table = create(engine)
    gate = Gate(engine)
    works = [
        engine.submit(lambda w, i=i: w.insert_row(table, "", (i, None, "no number" if i == 1 else i), key_of(table, i)))
        for i in range(3)
    ]
    gate.open()
    works[0].result(10)
    with pytest.raises((pa.ArrowException, TypeError)):
        works[1].result(10)
    works[2].result(10)
    with engine.snapshot() as snapshot:
        assert contents(snapshot, table) == [(0, None, 0), (2, None, 2)]


def test_works_tried_one_by_one_do_not_share_an_error(engine: StorageEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first work of a group is committed on its own; that the disk is full for the last is not its fault."""
    table = create(engine)
    gate = Gate(engine)
    works = [
        engine.submit(lambda w, i=i: w.insert_row(table, "", (i, None, "no number" if i == 1 else i), key_of(table, i)))
        for i in range(3)
    ]
    attempt = engine._committer._attempt

    def full_for_the_last(group: list[Submission]) -> None:
        if group[0].commit is works[2] and len(group) == 1:
            raise StorageFull("no room")
        attempt(group)

    monkeypatch.setattr(engine._committer, "_attempt", full_for_the_last)
    gate.open()
    works[0].result(10)
    with pytest.raises((pa.ArrowException, TypeError)):
        works[1].result(10)
    with pytest.raises(StorageFull):
        works[2].result(10)
    with engine.snapshot() as snapshot:
        assert contents(snapshot, table) == [(0, None, 0)]


def test_a_caught_refusal_leaves_nothing_behind(engine: StorageEngine) -> None:
    table = create(engine, keyed_table)

    def work(wtxn: WriteTransaction) -> None:
        wtxn.insert_row(table, "u", (1, "a", 1), None)
        for row in [(2, "a", 1), (1, "b", 1)]:
            with pytest.raises(DuplicateKey):
                wtxn.insert_row(table, "u", row, None)
            with pytest.raises(DuplicateKey):
                wtxn.insert(table, "u", rows_of(table, [(7, "x", 1), row]))
        with pytest.raises(DuplicateKey) as caught:
            wtxn.insert(table, "u", rows_of(table, [(7, "x", 1), (8, "x", 1)]))
        assert (caught.value.row, caught.value.in_batch, caught.value.primary) == (1, True, False)

    engine.commit_sync(work)
    with engine.snapshot() as snapshot:
        assert contents(snapshot, table, "u") == [(1, "a", 1)]
    assert engine.check() == []


@pytest.mark.parametrize("weight", [1, 20_000])
def test_duplicates_in_bulk_name_the_row(engine: StorageEngine, weight: int) -> None:
    table = create(engine)
    engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, [(777, None, 0)])))
    rows = [(i, None, i) for i in range(1000)]
    with pytest.raises(DuplicateKey) as caught:
        engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, rows)), weight=weight)
    assert (caught.value.row, caught.value.values, caught.value.in_batch) == (777, (777,), False)
    rows[999] = (5, None, 5)
    rows[777] = (5000, None, 0)
    with pytest.raises(DuplicateKey) as caught:
        engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, rows)), weight=weight)
    assert (caught.value.row, caught.value.values, caught.value.in_batch) == (999, (5,), True)
    rows[999] = (6000, None, 5)
    first, last = engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, rows)), weight=weight)
    assert last - first == 999
    with engine.snapshot() as snapshot:
        assert snapshot.count(table, "") == 1001
    assert engine.check() == []


def test_keys_can_be_exchanged_in_one_statement(engine: StorageEngine) -> None:
    table = create(engine)
    engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, [(1, "one", 0), (2, "two", 0)])))

    def swap(wtxn: WriteTransaction) -> None:
        seqs = [seq_of(wtxn, table, "", 1), seq_of(wtxn, table, "", 2)]
        wtxn.replace(table, "", seqs, rows_of(table, [(2, "one", 0), (1, "two", 0)]))

    engine.commit_sync(swap)
    with engine.snapshot() as snapshot:
        assert contents(snapshot, table) == [(1, "two", 0), (2, "one", 0)]
    assert engine.check() == []


def test_64_works_of_one_group_count_on_one_row(engine: StorageEngine) -> None:
    table = create(engine)
    gate = Gate(engine)

    def increment(wtxn: WriteTransaction) -> None:
        (seq,) = wtxn.find(table, "", [key_of(table, 1)])
        if seq is None:
            wtxn.insert_row(table, "", (1, None, 1), None)
            return
        amount = wtxn.fetch(table, "", [seq], ["amount"]).column(0)[0].as_py()
        wtxn.replace(table, "", [seq], rows_of(table, [(1, None, amount + 1)]))

    works = [engine.submit(increment) for _ in range(64)]
    gate.open()
    for work in works:
        work.result(10)
    with engine.snapshot() as snapshot:
        assert contents(snapshot, table) == [(1, None, 64)]
    assert engine.check() == []


def test_rows_without_a_key_keep_their_row_id(engine: StorageEngine) -> None:
    table = create(engine, keyless_table)
    first, _ = engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, [(1, "a", 0), (1, "a", 0)])))
    engine.commit_sync(lambda w: w.replace(table, "", [first], rows_of(table, [(1, "b", 0)])))
    with engine.snapshot() as snapshot:
        rows = snapshot.scan(table, "", ["_row_id", "email"], with_seq=True).to_pylist()
        assert rows == [
            {"_seq": first + 1, "_row_id": first + 1, "email": "a"},
            {"_seq": first + 2, "_row_id": first, "email": "b"},
        ]
        txn = Transaction(snapshot)
        txn.delete(table, "", [first + 2])
    engine.commit_sync(lambda w: w.delete(table, "", [first + 2]))
    with pytest.raises(WriteConflict):
        engine.commit_sync(txn.apply)


def test_a_snapshot_stays_as_it_was(engine: StorageEngine) -> None:
    table = create(engine)
    engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, [(i, None, i) for i in range(3000)])))
    with engine.snapshot() as snapshot:
        before = snapshot.scan(table, "")
        copy = before.to_pylist()
        for round_number in range(5):
            engine.commit_sync(
                lambda w, n=round_number: w.replace(
                    table,
                    "",
                    w.find(table, "", [key_of(table, i) for i in range(3000)]),
                    rows_of(table, [(i, "new", n) for i in range(3000)]),
                )
            )
            engine.compact()
        assert before.to_pylist() == copy
        assert snapshot.scan(table, "").to_pylist() == copy
        assert snapshot.count(table, "") == 3000


def test_an_altered_or_dropped_table_refuses_old_plans(engine: StorageEngine) -> None:
    table = create(engine)
    engine.commit_sync(lambda w: w.insert_row(table, "", (1, None, 1), None))
    newer = msgspec.structs.replace(
        table, schema_version=2, history=(SchemaVersion(1, table.columns),), columns=table.columns[:2]
    )
    with engine.snapshot() as snapshot:
        txn = Transaction(snapshot)
        txn.insert(table, "", rows_of(table, [(2, None, 1)]))
    engine.commit_sync(lambda w: w.put_table(newer))
    for work in (txn.apply, lambda w: w.insert_row(table, "", (3, None, 1), None)):
        with pytest.raises(SchemaChanged, match="altered"):
            engine.commit_sync(work)
    engine.commit_sync(lambda w: w.drop_table(table.table_id))
    with pytest.raises(SchemaChanged, match="dropped"):
        engine.commit_sync(lambda w: w.insert_row(newer, "", (3, None), None))


def test_a_widened_column_reads_old_rows(engine: StorageEngine) -> None:
    def narrow(table_id: int) -> object:
        columns = (ColumnDef(1, "id", INT, nullable=False), ColumnDef(2, "name", TEXT))
        return msgspec.structs.replace(plain_table(table_id), columns=columns, next_column_id=3)

    table = create(engine, narrow)
    engine.commit_sync(lambda w: w.insert_row(table, "", (-5, "old"), None))
    wide = msgspec.structs.replace(
        table,
        schema_version=2,
        history=(SchemaVersion(1, table.columns),),
        columns=(ColumnDef(1, "id", BIGINT, nullable=False), table.columns[1]),
    )
    engine.commit_sync(lambda w: w.put_table(wide))
    engine.commit_sync(lambda w: w.insert_row(wide, "", (2**40, "new"), None))
    with engine.snapshot() as snapshot:
        assert contents(snapshot, wide) == [(-5, "old"), (2**40, "new")]
        assert snapshot.find(wide, "", [key_of(wide, -5)]) != [None]
    with pytest.raises(DuplicateKey):
        engine.commit_sync(lambda w: w.insert_row(wide, "", (-5, "again"), None))
    assert engine.check() == []


def test_a_dropped_table_is_reclaimed(engine: StorageEngine) -> None:
    table = create(engine)
    other = create(engine, keyed_table)
    engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, [(i, None, i) for i in range(9000)])))
    engine.commit_sync(lambda w: w.insert_row(other, "u", (1, "x", 1), None))
    with engine.snapshot() as before:
        engine.commit_sync(lambda w: w.drop_table(table.table_id))
        engine.compact()
        assert engine.check() == []
        assert before.count(table, "") == 9000
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        assert snapshot.catalog.table_by_id(table.table_id) is None
        assert reader.partitions(table.table_id) == []
        assert reader.txn.stat(reader.dbs.keys)["entries"] == 2
        assert contents(snapshot, other, "u") == [(1, "x", 1)]
    fresh = create(engine)
    assert fresh.table_id > other.table_id


def test_rows_and_definitions_in_one_transaction(engine: StorageEngine) -> None:
    table = create(engine)
    other = create(engine, keyed_table)
    with engine.snapshot() as snapshot:
        txn = Transaction(snapshot)
        txn.insert(table, "", rows_of(table, [(1, "old", 1)]))
        txn.insert(other, "u", rows_of(other, [(1, "gone", 1)]))
        newer = msgspec.structs.replace(
            table,
            schema_version=2,
            history=(SchemaVersion(1, table.columns),),
            columns=(*table.columns, ColumnDef(4, "note", TEXT)),
        )
        txn.put_table(newer)
        txn.drop_table(other.table_id)
        txn.insert(newer, "", rows_of(newer, [(2, "new", 2, "n")]))
        fresh = plain_table(txn.allocate_table_id(), "fresh")
        txn.put_table(fresh)
        txn.insert(fresh, "", rows_of(fresh, [(5, None, None)]))
        assert contents(txn, newer) == [(1, "old", 1, None), (2, "new", 2, "n")]
    engine.commit_sync(txn.apply)
    with engine.snapshot() as snapshot:
        assert contents(snapshot, newer) == [(1, "old", 1, None), (2, "new", 2, "n")]
        assert contents(snapshot, fresh) == [(5, None, None)]
        assert snapshot.catalog.table_by_id(other.table_id) is None
    engine.compact()
    assert engine.check() == []


def test_nothing_is_an_amount_of_rows_too(engine: StorageEngine) -> None:
    table = create(engine)
    empty = rows_of(table, [])

    def work(wtxn: WriteTransaction) -> tuple[int, int]:
        wtxn.replace(table, "", [], empty)
        wtxn.delete(table, "", [])
        return wtxn.insert(table, "", empty)

    before = engine.last_seq
    first, last = engine.commit_sync(work)
    assert first == last + 1
    assert engine.last_seq == before
    with engine.snapshot() as snapshot:
        assert snapshot.fetch(table, "", []).num_rows == 0
        assert snapshot.find(table, "", []) == []
        txn = Transaction(snapshot)
        txn.insert(table, "", empty)
    engine.commit_sync(txn.apply)
    assert engine.check() == []


def test_objects_of_any_kind(engine: StorageEngine) -> None:
    engine.commit_sync(lambda w: [w.put_object("user", n, UserDef(n, "user")) for n in ("b", "a", "x" * 600)])
    with engine.snapshot() as snapshot:
        assert [u.user_id for u in snapshot.list_objects("user", UserDef)] == ["a", "b", "x" * 600]
        txn = Transaction(snapshot)
        txn.put_object("user", "a", UserDef("a", "dba"))
        txn.delete_object("user", "b")
        assert [u.role for u in txn.list_objects("user", UserDef)] == ["dba", "user"]
        late = Transaction(snapshot)
        late.put_object("user", "a", UserDef("a", "service"))
    engine.commit_sync(txn.apply)
    with pytest.raises(WriteConflict, match="user a"):
        engine.commit_sync(late.apply)
    with engine.snapshot() as snapshot:
        user = snapshot.get_object("user", "a", UserDef)
        assert user is not None
        assert user.role == "dba"


def test_async_waiters(engine: StorageEngine) -> None:
    table = create(engine)

    async def one(i: int) -> int:
        return await engine.commit(lambda w: w.insert_row(table, "", (i % 40, None, i), None))

    async def all_of_them() -> list[int | BaseException]:
        return await asyncio.gather(*(one(i) for i in range(50)), return_exceptions=True)

    results = asyncio.run(all_of_them())
    assert sum(isinstance(result, DuplicateKey) for result in results) == 10
    seqs = [result for result in results if isinstance(result, int)]
    assert seqs == sorted(seqs)
    with engine.snapshot() as snapshot:
        assert snapshot.count(table, "") == 40


def test_figures_are_told_while_the_storage_is_being_reopened(engine: StorageEngine) -> None:
    before = engine.stats()
    assert engine._registry.pause(5)
    engine._environment.close()
    try:
        assert engine.stats().used_bytes == before.used_bytes > 0
    finally:
        engine._environment.open()
        engine._registry.resume()
    assert engine.stats().used_bytes == before.used_bytes


def test_a_full_queue_refuses(folder: Path) -> None:
    with StorageEngine.open(folder, msgspec.structs.replace(QUIET, queue_works=3)) as engine:
        gate = Gate(engine)
        waiting = [engine.submit(lambda w: w.now_us()) for _ in range(3)]
        with pytest.raises(QueueFull):
            engine.submit(lambda w: None)
        gate.open()
        assert all(commit.result(10) > 0 for commit in waiting)


def test_closing_commits_what_is_queued_and_refuses_the_rest(folder: Path) -> None:
    engine = StorageEngine.open(folder, QUIET)
    table = create(engine)
    gate = Gate(engine)
    commit = engine.submit(lambda w: w.insert_row(table, "", (1, None, 1), None))
    closer = threading.Thread(target=engine.close)
    closer.start()
    gate.open()
    closer.join(10)
    assert commit.result(0) > 0
    with pytest.raises(StorageClosed):
        engine.submit(lambda w: None)
    with pytest.raises(StorageClosed):
        engine.snapshot()
    with StorageEngine.open(folder, QUIET) as again, again.snapshot() as snapshot:
        assert contents(snapshot, table) == [(1, None, 1)]


def test_arrays_outlive_their_snapshot_and_the_engine(folder: Path) -> None:
    engine = StorageEngine.open(folder, QUIET)
    table = create(engine)
    engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, [(i, "x" * 50, i) for i in range(5000)])))
    with engine.snapshot() as snapshot:
        rows = snapshot.scan(table, "")
    column = rows.column("id")
    del rows
    engine.close()
    assert column.to_pylist() == list(range(5000))
    del column
    StorageEngine.open(folder, QUIET).close()


def test_a_second_opener_learns_who_holds_the_folder(folder: Path, engine: StorageEngine) -> None:
    with pytest.raises(StorageLocked, match=rf"held by process {os.getpid()} on .*, which opened it at 20"):
        StorageEngine.open(folder, QUIET)
    code = (
        "import sys; from storage import StorageEngine; from storage.errors import StorageLocked\n"
        f"try: StorageEngine.open({str(folder)!r})\nexcept StorageLocked as error: sys.exit(7)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 7


def test_another_process_can_check_a_served_folder(folder: Path, engine: StorageEngine) -> None:
    table = create(engine)
    engine.commit_sync(lambda w: w.insert_row(table, "", (1, None, 1), None))
    code = f"import sys; from storage.check import check; sys.exit(len(check({str(folder)!r})))"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_folder_and_files_are_private(folder: Path, engine: StorageEngine) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_seqs_survive_reopening(folder: Path) -> None:
    options = StorageOptions(map_start=64 << 20, merge=False)
    last = 0
    for i in range(3):
        with StorageEngine.open(folder, options) as engine:
            table = create(engine) if not i else engine.catalog.table("app", "plain")
            assert engine.last_seq >= last
            seq = engine.commit_sync(lambda w, i=i, t=table: w.insert_row(t, "", (i, None, i), None))
            assert seq > last
            last = seq
            engine.commit_sync(lambda w, s=seq, t=table: w.delete(t, "", [s]))
            assert engine.last_seq == last + 1


def test_readers_share_the_catalog_before_the_first_commit_too(folder: Path) -> None:
    with StorageEngine.open(folder, QUIET) as engine:
        create(engine)
    with StorageEngine.open(folder, QUIET) as engine, engine.snapshot() as one, engine.snapshot() as two:
        assert one.catalog is two.catalog is engine.catalog


def test_what_is_no_database_is_refused_in_words(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "data.mdb").write_bytes(b"not LMDB" * 2048)
    with pytest.raises(StorageError, match="cannot be opened"):
        StorageEngine.open(folder, QUIET)


def test_a_failed_statement_gives_its_share_of_the_buffer_back(engine: StorageEngine) -> None:
    table = create(engine)
    with engine.snapshot() as snapshot:
        transaction = Transaction(snapshot)
        mark = transaction.savepoint()
        transaction.insert_row(table, "", (1, "x" * 1000, 1), key_of(table, 1))
        assert transaction.staged_bytes > 1000
        transaction.rollback_to(mark)
        assert transaction.staged_bytes == transaction.staged_rows == 0


def test_timestamps_never_go_back(folder: Path) -> None:
    class Jumping:
        wall = 500

        def now_us(self) -> int:
            return self.wall

        def monotonic(self) -> float:
            return 0.0

    clock = Jumping()
    with StorageEngine.open(folder, QUIET, clock=clock) as engine:
        create(engine)
        stamps = []
        for clock.wall in (400, 600):
            work = lambda w: (w.put_object("k", "n", UserDef("n", "u")), w.now_us())[1]  # noqa: E731
            stamps.append(engine.commit_sync(work))
        assert stamps == [500, 600]
