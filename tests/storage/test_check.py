"""Every kind of inconsistency, planted by hand, is found and named by the check."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import msgspec
import numpy as np
import pytest

from storage import StorageEngine, TableDef
from storage.batches import HEADER, encode_batch
from storage.catalog import NamespaceDef
from storage.changes import CommitRecord, PartitionRecord, encode_commit
from storage.check import check
from storage.dead import chunk_key, encode_dead, make_entries
from storage.environment import LOG_TRUNCATED, NAMES, NEXT_SEQ, NEXT_TABLE_ID, Databases, pack_number
from storage.errors import StorageCorrupt, StorageError
from storage.keys import index_key_prefix, object_key, partition_key, row_key, seq_key
from storage.layout import layout_of
from storage.merging import with_by
from storage.objects import NAMESPACE, TABLE, table_name
from storage.staging import build_batch
from tests.storage.conftest import QUIET
from tests.storage.helpers import create, key_of, keyed_table, rows_of, seq_of

USER = "ann"
LONG_USER = "x" * 200
PARTITION = partition_key(USER)


@pytest.fixture
def table(folder: Path) -> TableDef:
    """A closed folder with two batches of one partition, a dead row, a history batch and two indexes."""
    with StorageEngine.open(folder, QUIET) as engine:
        table = create(engine, keyed_table)
        engine.commit_sync(lambda w: w.insert(table, LONG_USER, rows_of(table, [(1, None, 1)])))
        for start in (0, 10):
            rows = rows_of(table, [(start + i, f"m{start + i}", i) for i in range(5)])
            engine.commit_sync(lambda w, rows=rows: w.insert(table, USER, rows))
        engine.commit_sync(lambda w: w.delete(table, USER, [seq_of(w, table, USER, 3)]))
        engine.commit_sync(
            lambda w: w.replace(table, USER, [seq_of(w, table, USER, 12)], rows_of(table, [(12, "new", 0)]))
        )
    assert check(folder) == []
    return table


@contextmanager
def damage(folder: Path) -> Iterator[tuple[lmdb.Transaction, Databases]]:
    """A write transaction behind the engine's back."""
    with lmdb.open(str(folder), map_size=64 << 20, max_dbs=20) as env:
        dbs = Databases(*(env.open_db(name.encode()) for name in NAMES))
        with env.begin(write=True) as txn:
            yield txn, dbs


def first_batch(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> tuple[bytes, bytes]:
    """Key and value of the first batch of the partition."""
    cursor = txn.cursor(db=dbs.rows)
    assert cursor.set_range(row_key(table.table_id, PARTITION, 0))
    return bytes(cursor.key()), bytes(cursor.value())


Plant = Callable[[lmdb.Transaction, Databases, TableDef], None]


def flip_payload(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    key, value = first_batch(txn, dbs, table)
    txn.put(key, value[:-9] + bytes([value[-9] ^ 1]) + value[-8:], db=dbs.rows)


def break_header(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    key, _ = first_batch(txn, dbs, table)
    txn.put(key, b"short", db=dbs.rows)


def unordered(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    key, _ = first_batch(txn, dbs, table)
    first = int.from_bytes(key[-8:], "big")
    rows = [(i, f"m{i}", i) for i in range(5)]
    seqs = [first, first + 2, first + 1, first + 3, first + 4]
    txn.put(key, encode_batch(build_batch(layout_of(table), seqs, [], rows), 1, first + 4), db=dbs.rows)


def wrong_first(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    key, value = first_batch(txn, dbs, table)
    txn.delete(key, db=dbs.rows)
    txn.put(key[:-8] + (int.from_bytes(key[-8:], "big") - 1).to_bytes(8, "big"), value, db=dbs.rows)


def overlap(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    key, _ = first_batch(txn, dbs, table)
    inside = int.from_bytes(key[-8:], "big") + 2
    batch = build_batch(layout_of(table), [inside], [], [(99, None, 0)])
    txn.put(key[:-8] + inside.to_bytes(8, "big"), encode_batch(batch, 1, inside), db=dbs.rows)


def unknown_version(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    key, _ = first_batch(txn, dbs, table)
    first = int.from_bytes(key[-8:], "big")
    rows = [(i, f"m{i}", i) for i in range(5)]
    batch = build_batch(layout_of(table), range(first, first + 5), [], rows)
    txn.put(key, encode_batch(batch, 7, first + 4), db=dbs.rows)


def dead_outside(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    key, _ = first_batch(txn, dbs, table)
    txn.put(chunk_key(key, 1), encode_dead(make_entries([77], [14])), db=dbs.dead)


def dead_twice(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    key, _ = first_batch(txn, dbs, table)
    txn.put(chunk_key(key, 1), encode_dead(make_entries([3], [14])), db=dbs.dead)


def dead_by_older(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    key, _ = first_batch(txn, dbs, table)
    txn.put(chunk_key(key, 1), encode_dead(make_entries([0], [1])), db=dbs.dead)


def dead_without_batch(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    txn.put(chunk_key(row_key(table.table_id, PARTITION, 1), 0), encode_dead(make_entries([0], [5])), db=dbs.dead)


def dead_gap(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    key, _ = first_batch(txn, dbs, table)
    txn.put(chunk_key(key, 5), encode_dead(make_entries([1], [13])), db=dbs.dead)


def dead_flipped(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    key, _ = first_batch(txn, dbs, table)
    value = bytes(txn.get(chunk_key(key, 0), db=dbs.dead))
    txn.put(chunk_key(key, 0), value[:-1] + bytes([value[-1] ^ 1]), db=dbs.dead)


def dead_forgotten(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    key, _ = first_batch(txn, dbs, table)
    txn.delete(chunk_key(key, 0), db=dbs.dead)


def key_missing(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    txn.delete(index_key_prefix(table.table_id, PARTITION, 0) + key_of(table, 1), db=dbs.keys)


def key_wrong(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    txn.put(index_key_prefix(table.table_id, PARTITION, 0) + key_of(table, 1), pack_number(2), db=dbs.keys)


def key_too_many(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    txn.put(index_key_prefix(table.table_id, PARTITION, 0) + key_of(table, 500), pack_number(3), db=dbs.keys)


def key_of_nothing(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    txn.put(index_key_prefix(table.table_id, PARTITION, 9) + b"x", pack_number(3), db=dbs.keys)


def stray_table(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    txn.put(index_key_prefix(4711, PARTITION, 0) + b"x", pack_number(3), db=dbs.keys)


def history_overlap(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    key, _ = first_batch(txn, dbs, table)
    first = int.from_bytes(key[-8:], "big")
    batch = with_by(build_batch(layout_of(table), [first], [], [(0, None, 0)]), np.array([first + 9]))
    txn.put(key, encode_batch(batch, 1, first), db=dbs.history)


def history_by_older(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    batch = with_by(build_batch(layout_of(table), [9], [], [(0, None, 0)]), np.array([5]))
    txn.put(row_key(table.table_id, PARTITION, 9), encode_batch(batch, 1, 9), db=dbs.history)


def commit_flipped(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    cursor = txn.cursor(db=dbs.commits)
    assert cursor.last()
    txn.put(bytes(cursor.key()), bytes(cursor.value())[:-1] + b"!", db=dbs.commits)


def commit_lost(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    cursor = txn.cursor(db=dbs.commits)
    assert cursor.last()
    cursor.delete()


def commit_overlap(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    txn.put(seq_key(4), encode_commit(CommitRecord(4, 0)), db=dbs.commits)


def commit_of_nothing(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    txn.put(NEXT_SEQ, pack_number(102), db=dbs.meta)
    record = PartitionRecord(table.table_id, USER, 1, (100, 101), b"", b"")
    txn.put(seq_key(100), encode_commit(CommitRecord(101, 0, (record,))), db=dbs.commits)


def commit_superseded_nothing(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    txn.put(NEXT_SEQ, pack_number(102), db=dbs.meta)
    old, by = np.array([3], "<i8").tobytes(), np.array([100], "<i8").tobytes()
    record = PartitionRecord(table.table_id, USER, 1, (), old, by)
    txn.put(seq_key(100), encode_commit(CommitRecord(101, 0, (record,))), db=dbs.commits)


def next_seq_low(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    txn.put(NEXT_SEQ, pack_number(5), db=dbs.meta)


def truncated_high(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    txn.put(LOG_TRUNCATED, pack_number(10_000), db=dbs.meta)


def next_table_id_low(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    txn.put(NEXT_TABLE_ID, pack_number(1), db=dbs.meta)


def format_unknown(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    txn.put(b"format", pack_number(99), db=dbs.meta)


def definition_broken(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    txn.put(object_key(NAMESPACE, "bad"), b"\xc1", db=dbs.catalog)


def definition_misnamed(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    txn.put(object_key(NAMESPACE, "one"), msgspec.msgpack.encode(NamespaceDef("other")), db=dbs.catalog)


def namespace_missing(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    txn.delete(object_key(NAMESPACE, "app"), db=dbs.catalog)


def table_twice(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    twin = msgspec.structs.replace(table, table_id=0)
    txn.put(object_key(TABLE, table_name(0)), msgspec.msgpack.encode(twin), db=dbs.catalog)


def partition_name_missing(txn: lmdb.Transaction, dbs: Databases, table: TableDef) -> None:
    txn.delete(b"partition\0" + partition_key(LONG_USER), db=dbs.meta)


@pytest.mark.parametrize(
    ("plant", "structure", "words"),
    [
        (flip_payload, "rows", "checksum"),
        (break_header, "rows", "shorter than its header"),
        (unordered, "rows", "does not ascend"),
        (wrong_first, "rows", "does not agree"),
        (overlap, "rows", "overlaps the batch before"),
        (unknown_version, "rows", "schema version 7"),
        (dead_outside, "dead", "outside a batch"),
        (dead_twice, "dead", "marked dead twice"),
        (dead_by_older, "dead", "older than itself"),
        (dead_without_batch, "dead", "does not exist"),
        (dead_gap, "dead", "missing"),
        (dead_flipped, "dead", "checksum"),
        (dead_forgotten, "commits", "not stored as dead"),
        (key_missing, "keys", "has no key"),
        (key_wrong, "keys", "points to _seq 2"),
        (key_too_many, "keys", "keys for"),
        (key_of_nothing, "keys", "index 9"),
        (stray_table, "keys", "belongs to no table"),
        (history_overlap, "history", "both in rows and in history"),
        (history_by_older, "history", "not newer"),
        (commit_flipped, "commits", "checksum"),
        (commit_lost, "commits", "no commit added"),
        (commit_overlap, "commits", "overlaps"),
        (commit_of_nothing, "commits", "of which 0 are stored"),
        (commit_superseded_nothing, "commits", "not stored as dead"),
        (next_seq_low, "rows", "not below next_seq"),
        (truncated_high, "meta", "not below next_seq"),
        (next_table_id_low, "catalog", "next_table_id is 1"),
        (format_unknown, "meta", "is 99"),
        (definition_broken, "catalog", "does not decode"),
        (definition_misnamed, "catalog", "not its own"),
        (namespace_missing, "catalog", "namespace that does not exist"),
        (table_twice, "catalog", "exists twice"),
        (partition_name_missing, "meta", "long partition is missing"),
    ],
)
def test_planted_damage_is_found(folder: Path, table: TableDef, plant: Plant, structure: str, words: str) -> None:
    with damage(folder) as (txn, dbs):
        plant(txn, dbs, table)
    problems = check(folder)
    assert any(problem.structure == structure and words in problem.message for problem in problems), problems


def test_a_flipped_bit_is_an_error_that_names_table_and_range(folder: Path, table: TableDef) -> None:
    with damage(folder) as (txn, dbs):
        flip_payload(txn, dbs, table)
    with StorageEngine.open(folder, QUIET) as engine, engine.snapshot() as snapshot:
        with pytest.raises(StorageCorrupt, match=r"table app\.keyed, rows _seq 3 to 7: the checksum does not match"):
            snapshot.scan(table, USER)
        assert snapshot.count(table, LONG_USER) == 1


def test_a_flipped_bit_in_dead_rows_is_an_error(folder: Path, table: TableDef) -> None:
    with damage(folder) as (txn, dbs):
        dead_flipped(txn, dbs, table)
    with (
        StorageEngine.open(folder, QUIET) as engine,
        engine.snapshot() as snapshot,
        pytest.raises(StorageCorrupt, match="checksum"),
    ):
        snapshot.scan(table, USER)


def test_check_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not a data folder"):
        check(tmp_path)


def test_header_is_32_bytes() -> None:
    assert HEADER.size == 32
