"""Scans that are decoded while they are read give what scans into a table give."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import StorageEngine, TableDef
from storage.catalog import ColumnDef, SchemaVersion
from storage.cold_statistics import Bounds
from storage.cold_streaming import ENCODED, RowStream
from storage.errors import SnapshotExpired, StorageCorrupt
from storage.snapshots import Snapshot
from storage.types import TEXT
from tests.storage.conftest import QUIET
from tests.storage.helpers import create, key_of, rows_of

Parts = list[tuple[list[tuple[str | None, int | None]], bool]]
"""Rows of each part (text and number), and whether it is flushed."""

_values = st.tuples(st.sampled_from([None, "", "a", "b", "ä"]), st.one_of(st.none(), st.integers(0, 9)))
_parts = st.lists(st.tuples(st.lists(_values, min_size=1, max_size=20), st.booleans()), min_size=1, max_size=5)


def fill(engine: StorageEngine, parts: Parts) -> TableDef:
    """A new table with these parts, ids from 0."""
    table = create(engine, name=f"t{engine.stats().last_seq}")
    first = 0
    for rows, flushed in parts:
        added = rows_of(table, [(first + place, *row) for place, row in enumerate(rows)])
        engine.commit_sync(lambda wtxn, added=added: wtxn.insert(table, "", added))  # type: ignore[misc]
        first += len(rows)
        if flushed:
            engine.cold.flush(table.table_id)
    return table


def streamed(
    snapshot: Snapshot, table: TableDef, columns: list[str], bounds: dict[str, Bounds] | None = None
) -> RowStream:
    """The stream of a table that has cold rows."""
    found = snapshot.stream(table, "", columns, bounds=bounds, encodable=["email"])
    assert isinstance(found, RowStream)
    return found


def read(stream: RowStream) -> list[dict[str, object]]:
    """The rows of a stream, whose batches must have its schema."""
    return pa.Table.from_batches(stream.batches(), stream.schema).to_pylist()  # type: ignore[no-any-return]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=_parts, data=st.data())
def test_a_stream_has_the_rows_of_the_scan(engine: StorageEngine, parts: Parts, data: st.DataObject) -> None:
    table = fill(engine, parts)
    count = sum(len(rows) for rows, _ in parts)
    gone = data.draw(st.sets(st.integers(0, count - 1), max_size=12))
    in_order = [flushed for rows, flushed in parts for _ in rows]
    cold = {number for number, flushed in enumerate(in_order) if flushed}
    keys = [key_of(table, number) for number in sorted(gone)]
    engine.commit_sync(lambda wtxn: wtxn.delete(table, "", [s for s in wtxn.find(table, "", keys) if s is not None]))
    columns = data.draw(st.permutations(["id", "email", "amount"]))[: data.draw(st.integers(1, 3))]
    with engine.snapshot() as snapshot, snapshot.pin():
        expected = snapshot.scan(table, "", columns, with_seq=True).to_pylist()
        found = snapshot.stream(table, "", columns, encodable=["email"])
        if isinstance(found, pa.Table):
            assert gone >= cold
            assert found.to_pylist() == expected
            return
        for _ in range(2):  # every reading is whole
            assert read(found) == expected
        for number in range(0, count, 7):  # some row groups are in the cache now
            snapshot.get_row(table, "", key_of(table, number))
        assert read(found) == expected


def test_text_stays_encoded_where_parquet_repeats_it(engine: StorageEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    table = fill(engine, [([("a", 1), ("b", 2)] * 50, True), ([(None, 3), ("c", 4)], False)])
    with engine.snapshot() as snapshot, snapshot.pin():
        assert streamed(snapshot, table, ["email"]).schema.field("email").type == ENCODED
        plain = snapshot.stream(table, "", ["email"])
        assert isinstance(plain, RowStream)
        assert plain.schema.field("email").type == pa.string()
        monkeypatch.setattr("storage.cold_parquet.SMALL_DICTIONARY", 8)
        assert streamed(snapshot, table, ["email"]).schema.field("email").type == pa.string()


def test_many_hot_rows_are_not_encoded_for_a_few_cold_ones(engine: StorageEngine) -> None:
    table = fill(engine, [([("a", 1)] * 5, True), ([("a", 2)] * 50, False)])
    with engine.snapshot() as snapshot, snapshot.pin():
        assert streamed(snapshot, table, ["email"]).schema.field("email").type == pa.string()


def test_columns_that_the_files_lack_are_constants(engine: StorageEngine) -> None:
    table = fill(engine, [([("a", 1)] * 5, True)])
    changed = msgspec.structs.replace(
        table,
        columns=(*table.columns, ColumnDef(4, "more", TEXT)),
        schema_version=2,
        history=(SchemaVersion(1, table.columns),),
        next_column_id=5,
    )
    engine.commit_sync(lambda wtxn: wtxn.put_table(changed))
    with engine.snapshot() as snapshot, snapshot.pin():
        stream = snapshot.stream(changed, "", ["email", "more"], encodable=["email", "more"])
        assert isinstance(stream, RowStream)
        assert stream.schema.field("more").type == pa.string()
        assert read(stream) == snapshot.scan(changed, "", ["email", "more"], with_seq=True).to_pylist()


def test_bounds_leave_files_out(engine: StorageEngine) -> None:
    table = fill(engine, [([("a", 1)] * 5, True), ([("b", 7)] * 5, True)])
    with engine.snapshot() as snapshot, snapshot.pin():
        stream = streamed(snapshot, table, ["email"], {"amount": Bounds(7, None)})
        assert [row["email"] for row in read(stream)] == ["b"] * 5
        assert snapshot.statistics.counts()[1:3] == (1, 1)


def test_what_ends_a_scan_ends_a_stream(folder: Path) -> None:
    with StorageEngine.open(folder, QUIET) as engine:
        table = fill(engine, [([("a", 1)] * 5, True), ([("b", 7)] * 5, True)])
        with engine.snapshot() as snapshot, snapshot.pin():
            stream = streamed(snapshot, table, ["amount"])
            batches = stream.batches()
            next(batches)
            snapshot.expire("the test says so")
            with pytest.raises(SnapshotExpired):
                list(batches)
    for file in (folder / "cold").rglob("*-2.parquet"):
        file.unlink()
    with (
        StorageEngine.open(folder, QUIET) as engine,
        engine.snapshot() as snapshot,
        snapshot.pin(),
        pytest.raises(StorageCorrupt, match=r"rows _seq .*is missing"),
    ):
        read(streamed(snapshot, table, ["amount"]))


def test_nothing_is_read_any_more_when_a_stream_was_left(engine: StorageEngine) -> None:
    """A part may lie in pages of the data file, which are gone when the snapshot is."""
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(number: int) -> int:
        if number:
            begun.set()
            assert go.wait(20)
            ended.set()
        return number

    read = engine.cold.reads.ahead(range(2), slow)
    assert next(read) == 0
    assert begun.wait(20)
    closing = threading.Thread(target=read.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    go.set()
    closing.join(20)
    assert ended.is_set()
