"""Secondary indexes in storage: keys in order, building under writes, resuming, what a kill leaves."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import StorageEngine, StorageOptions
from storage.catalog import ColumnDef, IndexDef, IndexState, NamespaceDef, TableDef, TableKind
from storage.errors import DuplicateKey
from storage.index_build import BuildState, abandon_index, build_index, drop_index
from storage.key_columns import encode_marked_columns
from storage.keys import marked_encoder
from storage.types import BIGINT, BOOLEAN, BYTES, DATE, DOUBLE, INT, TEXT, TIMESTAMP, UUID, ColumnType, Kind, arrow_type
from storage.writer import WriteTransaction

OPTIONS = StorageOptions(map_start=64 << 20, merge=False)
DECIMAL = ColumnType(Kind.DECIMAL, precision=12, scale=2)
VALUES: dict[ColumnType, st.SearchStrategy[object]] = {
    BIGINT: st.integers(-(2**63), 2**63 - 1),
    INT: st.integers(-5, 5),
    DOUBLE: st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0),
    BOOLEAN: st.booleans(),
    TEXT: st.text(max_size=6) | st.sampled_from(["", "\x00", "\x01", "\x01\x02", "a\x00b"]),
    BYTES: st.binary(max_size=6),
    UUID: st.binary(min_size=16, max_size=16),
    DATE: st.integers(-1000, 1000),
    TIMESTAMP: st.integers(-(10**15), 10**15),
    DECIMAL: st.decimals(-1000, 1000, places=2),
}


def order_of(column_type: ColumnType, value: object) -> tuple[bool, object]:
    """What values sort by: NULL behind everything."""
    if value is None:
        return True, b""
    return False, value.encode() if isinstance(value, str) else value


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_keys_sort_as_their_values_with_null_last(data: st.DataObject) -> None:
    types = tuple(data.draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=3)))
    row = st.tuples(*(st.none() | VALUES[column_type] for column_type in types))
    rows = data.draw(st.lists(row, min_size=1, max_size=12))
    keys = [marked_encoder(types)(values) for values in rows]
    sorted_by_value = sorted(rows, key=lambda values: [order_of(t, v) for t, v in zip(types, values, strict=True)])
    sorted_by_key = [values for _, values in sorted(zip(keys, rows, strict=True), key=lambda pair: pair[0])]
    assert [tuple(map(str, values)) for values in sorted_by_key] == [
        tuple(map(str, values)) for values in sorted_by_value
    ]
    columns = [pa.array(column, arrow_type(t)) for column, t in zip(zip(*rows, strict=True), types, strict=True)]
    assert encode_marked_columns(types, columns) == keys


def test_decimals_of_a_key_compare_as_numbers() -> None:
    encode = marked_encoder((DECIMAL,))
    assert encode([Decimal("-1.50")]) < encode([Decimal("-1.49")]) < encode([Decimal("0.01")]) < encode([None])


def table_of(*indexes: IndexDef) -> TableDef:
    return TableDef(
        table_id=1, namespace="default", name="t", kind=TableKind.SHARED,
        columns=(ColumnDef(1, "id", BIGINT, nullable=False), ColumnDef(2, "a", BIGINT), ColumnDef(3, "b", TEXT)),
        primary_key=(1,), indexes=indexes, next_index_id=10,
    )  # fmt: skip


def put_table(engine: StorageEngine, table: TableDef) -> None:
    """Store the table's first definition, as table 1."""

    def work(wtxn: WriteTransaction) -> None:
        wtxn.put_namespace(NamespaceDef("default"))
        assert wtxn.allocate_table_id() == table.table_id
        wtxn.put_table(table)

    engine.commit_sync(work)


def rows_of(start: int, stop: int) -> pa.Table:
    ids = range(start, stop)
    return pa.table({
        "id": pa.array(ids, pa.int64()),
        "a": pa.array([None if i % 7 == 0 else i % 50 for i in ids], pa.int64()),
        "b": pa.array([f"row {i}" for i in ids], pa.string()),
    })  # fmt: skip


def define(engine: StorageEngine, index: IndexDef) -> TableDef:
    """Add an index to the table's definition, in the state `building`."""

    def work(wtxn: WriteTransaction) -> TableDef:
        table = wtxn.catalog.table_by_id(1)
        assert table is not None
        changed = msgspec.structs.replace(table, indexes=(*table.indexes, index))
        wtxn.put_table(changed)
        return changed

    return engine.commit_sync(work)


def filled(folder: Path, rows: int) -> StorageEngine:
    engine = StorageEngine.open(folder, OPTIONS)
    put_table(engine, table_of())
    table = engine.catalog.table_by_id(1)
    assert table is not None
    engine.commit_sync(lambda w: w.insert(table, "", rows_of(0, rows)), weight=rows)
    return engine


def entries(engine: StorageEngine, index_id: int) -> int:
    table = engine.catalog.table_by_id(1)
    assert table is not None
    with engine.snapshot() as snapshot:
        return len(snapshot.index_entries(table, "", index_id, None, None))


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.index_build.SLICE_ROWS", 500)


@pytest.mark.usefixtures("small_slices")
def test_writers_go_on_while_an_index_is_built(tmp_path: Path) -> None:
    engine = filled(tmp_path, 4_000)
    define(engine, IndexDef(1, "by_a", (2, 3)))
    define(engine, IndexDef(2, "by_b", (3,), unique=True))
    building = threading.Event()
    failures: list[BaseException] = []

    def write(seed: int) -> None:
        draw = random.Random(seed)
        table = engine.catalog.table_by_id(1)
        assert table is not None
        try:
            for turn in range(40):
                low = draw.randrange(seed * 2_000, seed * 2_000 + 1_900)

                def work(wtxn: WriteTransaction, low: int = low, turn: int = turn) -> None:
                    present = wtxn.catalog.table_by_id(1)
                    assert present is not None
                    rows = wtxn.scan(present, "", ["id", "b"], with_seq=True)
                    ids = rows.column("id").to_pylist()
                    seqs = dict(zip(ids, rows.column("_seq").to_pylist(), strict=True))
                    texts = dict(zip(ids, rows.column("b").to_pylist(), strict=True))
                    chosen = [i for i in range(low, low + 20) if i in seqs]
                    if turn % 3 == 0:
                        wtxn.delete(present, "", [seqs[i] for i in chosen])
                    elif chosen:
                        changed = pa.table({
                            "id": pa.array(chosen, pa.int64()),
                            "a": pa.array([turn] * len(chosen), pa.int64()),
                            "b": pa.array([texts[i] + ("!" if turn % 2 else "") for i in chosen]),
                        })  # fmt: skip
                        wtxn.replace(present, "", [seqs[i] for i in chosen], changed)
                    fresh = 100_000 + seed * 1_000 + turn
                    wtxn.insert_row(present, "", (fresh, turn, f"row {fresh}"), None)

                engine.commit_sync(work)
                if turn == 5:
                    building.set()
        except BaseException as error:  # noqa: BLE001  told to the test
            failures.append(error)
            building.set()

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    building.wait()
    for index_id in (1, 2):
        assert build_index(engine, 1, index_id) is not None
    for thread in threads:
        thread.join()
    assert failures == []
    table = engine.catalog.table_by_id(1)
    assert table is not None
    assert [index.state for index in table.indexes] == [IndexState.READY] * 2
    with engine.snapshot() as snapshot:
        rows = snapshot.count(table, "")
    assert entries(engine, 1) == entries(engine, 2) == rows
    assert engine.check() == []
    engine.close()


@pytest.mark.usefixtures("small_slices")
def test_a_build_goes_on_where_it_was(tmp_path: Path) -> None:
    engine = filled(tmp_path, 4_000)
    define(engine, IndexDef(1, "by_a", (2,)))
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked == 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        build_index(engine, 1, 1, check=stop)
    done = entries(engine, 1)
    assert 0 < done < 4_000
    engine.close()
    engine = StorageEngine.open(tmp_path, OPTIONS)
    with engine.snapshot() as snapshot:
        state = snapshot.get_object("_index_build", "0000000001.00001", BuildState)
    assert state is not None
    assert state.rows == done
    assert build_index(engine, 1, 1) == 4_000
    assert build_index(engine, 1, 1) is None
    assert entries(engine, 1) == 4_000
    assert engine.check() == []
    engine.close()


def test_duplicates_leave_nothing(tmp_path: Path) -> None:
    engine = filled(tmp_path, 300)
    define(engine, IndexDef(1, "one_a", (2,), unique=True))
    with pytest.raises(DuplicateKey) as raised:
        build_index(engine, 1, 1)
    assert raised.value.index == "one_a"
    assert raised.value.columns == ("a",)
    abandon_index(engine, 1, 1)
    engine.compact()
    table = engine.catalog.table_by_id(1)
    assert table is not None
    assert table.indexes == ()
    assert entries(engine, 1) == 0
    assert engine.check() == []
    engine.close()


def test_dropping_takes_the_entries_of_all_partitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.index_removal.SLICE_ENTRIES", 7)
    monkeypatch.setattr("storage.index_removal.SLICE_PARTITIONS", 3)
    engine = StorageEngine.open(tmp_path, OPTIONS)
    first, second = IndexDef(1, "x", (2,), state=IndexState.READY), IndexDef(2, "y", (3,), state=IndexState.READY)
    table = msgspec.structs.replace(table_of(first, second), kind=TableKind.USER)
    put_table(engine, table)
    users = [f"user {number}" for number in range(10)]
    for user in users:
        engine.commit_sync(lambda w, user=user: w.insert(table, user, rows_of(0, 5)))
    present = engine.catalog.table_by_id(1)
    assert present is not None
    engine.commit_sync(lambda w: drop_index(w, present, 1))
    engine.compact()
    with engine.snapshot() as snapshot:
        for user in users:
            assert snapshot.index_entries(table, user, 1, None, None) == []
            assert len(snapshot.index_entries(table, user, 2, None, None)) == 5
    assert engine.check() == []
    engine.close()


_CHILD = """
import sys
from pathlib import Path
import storage.index_build
from tests.storage.test_index_build import OPTIONS, IndexDef, build_index, define, filled
storage.index_build.SLICE_ROWS = 2_000
engine = filled(Path(sys.argv[1]), 16_000)
define(engine, IndexDef(1, "by_a", (2, 3)))
def told():
    print("slice", flush=True)
build_index(engine, 1, 1, check=told)
"""


@pytest.mark.parametrize("slices", [1, 3, 6])
def test_kill_9_during_a_build(tmp_path: Path, slices: int) -> None:
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    for _ in range(slices):
        assert child.stdout.readline() == b"slice\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    engine = StorageEngine.open(tmp_path, OPTIONS)
    assert engine.check() == []
    build_index(engine, 1, 1)
    assert entries(engine, 1) == 16_000
    assert engine.check() == []
    engine.close()


def test_flushed_rows_are_indexed_like_others(tmp_path: Path) -> None:
    engine = filled(tmp_path, 300)
    engine.cold.flush(1)
    define(engine, IndexDef(1, "by_b", (3,)))
    assert build_index(engine, 1, 1) == 300
    define(engine, IndexDef(2, "one_a", (2,), unique=True))
    with pytest.raises(DuplicateKey):
        build_index(engine, 1, 2)
    abandon_index(engine, 1, 2)
    table = engine.catalog.table_by_id(1)
    assert table is not None

    def change(wtxn: WriteTransaction) -> None:
        (first, second) = (seq for _, seq in wtxn.index_entries(table, "", 1, None, None, limit=2))
        wtxn.delete(table, "", [first])
        wtxn.replace(table, "", [second], rows_of(1, 2))

    engine.commit_sync(change)
    assert entries(engine, 1) == 299
    assert engine.check() == []
    engine.close()
