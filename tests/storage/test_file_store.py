"""Stored files against a model: a file is there as long as a row refers to it, whatever writes, fails and reopens."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from storage import StorageEngine, StorageOptions, TableDef, Transaction, WriteTransaction
from storage.blobs import BlobError, FolderBlobs, open_blobs, open_staged
from storage.catalog import ColumnDef, NamespaceDef, SchemaVersion, TableKind
from storage.errors import FileRefused, WriteConflict
from storage.file_records import FileKey, NewFile, every_record, path_of, read_record
from storage.file_store import FileStore
from storage.keys import encode_key
from storage.layout import layout_of
from storage.types import BIGINT, FILE

OPTIONS = StorageOptions(map_start=4 << 20, merge=False, evict=False, group_wait_us=0)
COLUMNS = (ColumnDef(1, "id", BIGINT, nullable=False), ColumnDef(2, "a", FILE), ColumnDef(3, "b", FILE))


def file_table(table_id: int, kind: TableKind = TableKind.USER) -> TableDef:
    return TableDef(table_id, "app", f"t{table_id}", kind, COLUMNS, primary_key=(1,), next_column_id=4)


def create(engine: StorageEngine, kind: TableKind = TableKind.USER) -> TableDef:
    def work(writer: WriteTransaction) -> TableDef:
        if writer.catalog.namespace("app") is None:
            writer.put_namespace(NamespaceDef("app"))
        table = file_table(writer.allocate_table_id(), kind)
        writer.put_table(table)
        return table

    return engine.commit_sync(work)


def new_file(file_id: int) -> NewFile:
    return NewFile(file_id, f"{file_id}-x.bin", 3, lambda folder: json.dumps({"id": str(file_id), "sub": folder}))


def store(files: FileStore, table: TableDef, user: str, *ids: int) -> tuple[list[FileKey], list[str]]:
    """Store files of three bytes each."""
    staged = []
    try:
        for _ in ids:
            handle = open_staged(Path("/tmp"))
            os.write(handle, b"abc")
            staged.append(handle)
        return files.store(table, user, list(zip(map(new_file, ids), staged, strict=True)))
    finally:
        for handle in staged:
            os.close(handle)


def key_of(number: int) -> bytes:
    return encode_key((BIGINT,), [number])


class Machine(RuleBasedStateMachine):
    """Rows of two users in one table, some of whose cells refer to files."""

    folder: Path

    @initialize()
    def begin(self) -> None:
        self.root = self.folder / f"run{len(list(self.folder.iterdir()))}"
        self.open()
        self.table = create(self.engine)
        self.rows: dict[tuple[str, int], tuple[str | None, str | None]] = {}
        self.next_id = 1

    def open(self) -> None:
        self.engine = StorageEngine.open(self.root, OPTIONS)
        self.files = FileStore(self.engine, FolderBlobs(self.root / "files"), per_folder=3)

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.engine.close()

    def upload(self, user: str) -> tuple[list[FileKey], str]:
        number = self.next_id
        self.next_id += 1
        keys, (text,) = store(self.files, self.table, user, number)
        return keys, text

    def write(self, user: str, number: int, a: str | None, b: str | None) -> None:
        """Insert or replace a row, as a tuple."""
        key = key_of(number)

        def work(writer: WriteTransaction) -> None:
            found = writer.get_row(self.table, user, key)
            if found is None:
                writer.insert_row(self.table, user, (number, a, b), key)
            else:
                writer.replace_row(self.table, user, found[0], (number, a, b), key)

        self.engine.commit_sync(work)
        self.rows[user, number] = a, b

    users = st.sampled_from(["u", "v"])
    numbers = st.integers(1, 3)

    @rule(user=users, number=numbers, both=st.booleans())
    def put_file(self, user: str, number: int, both: bool) -> None:
        keys, text = self.upload(user)
        _, b = self.rows.get((user, number), (None, None))
        self.write(user, number, text, text if both else b)
        self.files.release(keys)

    @rule(user=users, number=numbers)
    def put_null(self, user: str, number: int) -> None:
        _, b = self.rows.get((user, number), (None, None))
        self.write(user, number, None, b)

    @rule(user=users, number=numbers)
    def touch(self, user: str, number: int) -> None:
        """Write the row as it is."""
        self.write(user, number, *self.rows.get((user, number), (None, None)))

    @rule(user=users, number=numbers)
    def delete(self, user: str, number: int) -> None:
        def work(writer: WriteTransaction) -> None:
            found = writer.get_row(self.table, user, key_of(number))
            if found is not None:
                writer.delete(self.table, user, [found[0]])

        self.engine.commit_sync(work)
        self.rows.pop((user, number), None)

    @rule(user=users)
    def give_up(self, user: str) -> None:
        """An upload whose statement fails."""
        keys, text = self.upload(user)

        def work(writer: WriteTransaction) -> None:
            writer.insert_row(self.table, user, (99, text, None), key_of(99))
            raise WriteConflict("failed")

        with pytest.raises(WriteConflict):
            self.engine.commit_sync(work)
        self.files.release(keys)

    @rule(user=users)
    def break_off(self, user: str) -> None:
        """An upload that nobody ends before the next start."""
        self.upload(user)

    @rule(user=users, number=numbers, other=numbers, other_user=users)
    @precondition(lambda self: any(a for a, _ in self.rows.values()))
    def forge(self, user: str, number: int, other: int, other_user: str) -> None:
        text = self.rows.get((other_user, other), (None, None))[0]
        if text is None or self.rows.get((user, number), (None, None))[1] == text:
            return
        before = dict(self.rows)
        with pytest.raises(FileRefused):
            self.write(user, number, self.rows.get((user, number), (None, None))[0], text)
        assert self.rows == before

    @rule(user=users)
    def transaction(self, user: str) -> None:
        """Insert, update and delete in one, of which only the net effect counts."""
        if (user, 51) in self.rows:
            return
        keys, text = self.upload(user)
        with self.engine.snapshot() as snapshot:
            transaction = Transaction(snapshot)
            seq = transaction.insert_row(self.table, user, (50, text, None), None)
            seq = transaction.replace_row(self.table, user, seq, (50, None, text), None)
            transaction.delete(self.table, user, [seq])
            transaction.insert_row(self.table, user, (51, text, text), None)
            self.engine.commit_sync(transaction.apply)
        self.rows[user, 51] = text, text
        self.files.release(keys)

    @rule()
    def collect(self) -> None:
        self.files.collect()

    @rule()
    def merge(self) -> None:
        self.engine.compact()

    @rule()
    def reopen(self) -> None:
        self.engine.close()
        self.open()
        self.files.collect()
        self.exact()

    @invariant()
    def nothing_is_missing(self) -> None:
        if not hasattr(self, "rows"):
            return
        live = self.live()
        wanted = {text for cells in self.rows.values() for text in cells if text is not None}
        assert {record.text for _, record in live} == wanted
        assert {path_of(key, record) for key, record in live} <= set(self.files.blobs.list())
        assert self.engine.check() == []

    def live(self) -> list[Any]:
        with self.engine.snapshot() as snapshot, snapshot.reading() as reader:
            return [(key, record) for key, record in every_record(reader) if record.is_live(frozenset({2, 3}))]

    def exact(self) -> None:
        """After a start nothing is kept that no row refers to."""
        assert {path_of(key, record) for key, record in self.live()} == set(self.files.blobs.list())


def test_a_file_is_there_as_long_as_a_row_refers_to_it(tmp_path: Path) -> None:
    machine = type("Bound", (Machine,), {"folder": tmp_path})
    test = machine.TestCase  # type: ignore[attr-defined]
    test.settings = settings(
        max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
    )
    test().runTest()


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    with StorageEngine.open(tmp_path / "data", OPTIONS) as engine:
        yield engine, FileStore(engine, FolderBlobs(tmp_path / "data" / "files"), per_folder=2)


def insert(engine: StorageEngine, table: TableDef, user: str, number: int, a: str | None, b: str | None = None) -> None:
    engine.commit_sync(lambda writer: writer.insert_row(table, user, (number, a, b), key_of(number)))


def test_another_user_or_table_cannot_take_a_waiting_file(opened: Any) -> None:
    engine, files = opened
    table, other = create(engine), create(engine)
    keys, (text,) = store(files, table, "u", 1)
    for where, user in ((table, "v"), (other, "u"), (other, "v")):
        with pytest.raises(FileRefused):
            insert(engine, where, user, 1, text)
    insert(engine, table, "u", 1, text)
    with pytest.raises(FileRefused):
        insert(engine, table, "u", 2, text)
    files.release(keys)
    assert len(list(files.blobs.list())) == 1


def test_a_statement_that_is_late_finds_its_file_given_up(opened: Any) -> None:
    """A request that ended while its statement still ran: the row is refused, as its file is gone."""
    engine, files = opened
    table = create(engine)
    keys, (text,) = store(files, table, "u", 1)
    files.release(keys)
    with pytest.raises(FileRefused):
        insert(engine, table, "u", 1, text)
    assert list(files.blobs.list()) == []


def test_folders_fill_up_and_ids_are_taken_once(opened: Any) -> None:
    engine, files = opened
    table = create(engine)
    folders = []
    for number in range(1, 6):
        _, (text,) = store(files, table, "u", number)
        folders.append(json.loads(text)["sub"])
    assert folders == ["f0001", "f0001", "f0002", "f0002", "f0003"]
    with pytest.raises(ValueError, match="taken"):
        store(files, table, "u", 3)


def test_a_dropped_column_and_a_dropped_table_give_their_files_back(opened: Any) -> None:
    engine, files = opened
    table = create(engine)
    keys, (a, b, both) = store(files, table, "u", 1, 2, 3)
    insert(engine, table, "u", 1, a, b)
    insert(engine, table, "u", 2, both, both)
    files.release(keys)

    def drop_b(writer: WriteTransaction) -> TableDef:
        history = (*table.history, SchemaVersion(1, table.columns))
        changed = msgspec.structs.replace(table, columns=COLUMNS[:2], schema_version=2, history=history)
        writer.put_table(changed)
        return changed

    changed = engine.commit_sync(drop_b)
    assert engine.files_left.is_set()
    files.collect()
    assert len(list(files.blobs.list())) == 2
    assert engine.check() == []
    engine.commit_sync(lambda writer: writer.drop_table(changed.table_id))
    files.collect()
    assert list(files.blobs.list()) == []
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        assert list(every_record(reader)) == []
    assert engine.check() == []


def test_a_file_that_cannot_be_stored_leaves_nothing(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, files = opened
    table = create(engine)
    put = files.blobs.put

    def fail_second(staged: int, path: str) -> None:
        if "2-x" in path:
            raise BlobError("the disk is away")
        put(staged, path)

    monkeypatch.setattr(files.blobs, "put", fail_second)
    with pytest.raises(BlobError):
        store(files, table, "u", 1, 2)
    assert list(files.blobs.list()) == []
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        assert list(every_record(reader)) == []


def test_what_cannot_be_deleted_now_is_deleted_later(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, files = opened
    table = create(engine)
    keys, _ = store(files, table, "u", 1)
    with monkeypatch.context() as patch:
        patch.setattr(files.blobs, "delete", lambda path: (_ for _ in ()).throw(BlobError("away")))
        files.release(keys)
        assert files.stats().failed_removals == 1
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        record = read_record(reader, keys[0])
    assert record is not None
    assert record.dead
    assert engine.files_left.is_set()
    assert files.collect() == 1
    assert list(files.blobs.list()) == []


def test_a_bulk_insert_is_held_to_the_same(opened: Any) -> None:
    engine, _ = opened
    table = create(engine)
    count = 12_000
    ids = pa.array(range(count), pa.int64())
    good = pa.table([ids, pa.nulls(count, pa.string()), pa.nulls(count, pa.string())], schema=table.arrow_schema)
    engine.commit_sync(lambda writer: writer.insert(table, "u", good), weight=count)
    forged = pa.array([None] * (count - 1) + [json.dumps({"id": "1"})], pa.string())
    bad = pa.table([pa.array(range(count, 2 * count), pa.int64()), forged, good["b"]], schema=table.arrow_schema)
    with pytest.raises(FileRefused):
        engine.commit_sync(lambda writer: writer.insert(table, "u", bad), weight=count)
    with engine.snapshot() as snapshot:
        assert snapshot.count(table, "u") == count
    assert layout_of(table).names == ("id", "a", "b")


@pytest.mark.parametrize("uri", ["nowhere://x", "s3:", "http://x/y", "relative/path"])
def test_a_uri_that_names_no_place(uri: str, tmp_path: Path) -> None:
    with pytest.raises(BlobError):
        open_blobs(uri, tmp_path)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_blob_store_keeps_what_it_is_given(kind: str, tmp_path: Path) -> None:
    blobs = open_blobs("" if kind == "folder" else (tmp_path / "blobs").as_uri(), tmp_path / "blobs")
    handle = open_staged(tmp_path / "tmp")
    os.write(handle, b"0123456789")
    blobs.put(handle, "t1/f0001/1-a.bin")
    with pytest.raises(BlobError):
        blobs.put(handle, "t1/f0001/1-a.bin")
    os.close(handle)
    assert list(blobs.list()) == ["t1/f0001/1-a.bin"]
    reader = blobs.open("t1/f0001/1-a.bin")
    assert reader is not None
    assert (reader.size, bytes(reader.read_at(3, 4)), bytes(reader.read_at(8, 10))) == (10, b"3456", b"89")
    blobs.delete("t1/f0001/1-a.bin")
    assert bytes(reader.read_at(0, 2)) == b"01"
    reader.close()
    blobs.delete("t1/f0001/1-a.bin")
    assert blobs.open("t1/f0001/1-a.bin") is None
    assert list(blobs.list()) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_is_held_stays_until_nobody_holds_it(tmp_path: Path) -> None:
    """A backup or an export reads the files of its snapshot, though their rows may go meanwhile."""
    with StorageEngine.open(tmp_path / "data", OPTIONS) as engine:
        table = create(engine)
        blobs = FolderBlobs(tmp_path / "files")
        files = FileStore(engine, blobs)
        keys, (text,) = store(files, table, "u", 1)
        engine.commit_sync(lambda writer: writer.insert_row(table, "u", (1, text, None), key_of(1)))
        files.release(keys)
        with files.holding():
            with files.holding():
                engine.commit_sync(lambda writer: writer.delete(table, "u", [writer.get_row(table, "u", key_of(1))[0]]))  # type: ignore[index]
                assert files.collect() == 0
            given_up, _ = store(files, table, "u", 2)
            files.release(given_up)
            assert files.collect() == 0
            assert len(list(blobs.list())) == 2
        assert engine.files_left.is_set()
        assert files.collect() == 2
        assert list(blobs.list()) == []
