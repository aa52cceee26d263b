"""Keys and payloads of messages: every type and mode, against the conversion of single values."""

from __future__ import annotations

import asyncio
import datetime
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sql.topics.keys import message_keys, row_partitions
from sql.wire import BigintMode, to_wire
from storage import WriteTransaction
from storage.catalog import ColumnDef, NamespaceDef, TableDef, TableKind
from storage.errors import PublishFailed
from storage.layout import ROW_ID, layout_of
from storage.topic_definitions import Operation, PayloadMode
from storage.topic_partitioning import partition_of_key
from storage.topic_publishing import PublishedRows
from storage.types import (
    BIGINT,
    BOOLEAN,
    BYTES,
    DATE,
    DATETIME,
    DOUBLE,
    FLOAT,
    INT,
    JSON,
    SMALLINT,
    TEXT,
    TIME,
    TIMESTAMP,
    UUID,
    ColumnType,
    decimal,
    embedding,
)
from tests.sql.topics.topic_world import World, in_loop, world
from tests.storage.helpers import rows_of
from tests.storage.topic_world import change_topic

NAN, INFINITY = float("nan"), float("inf")
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
AN_ID = uuid.UUID("0188d0a4-1111-7222-8333-0123456789ab")

VALUES: dict[str, tuple[ColumnType, object, str]] = {
    "boolean": (BOOLEAN, True, "true"),
    "smallint": (SMALLINT, -7, "-7"),
    "int": (INT, 2**31 - 1, "2147483647"),
    "bigint": (BIGINT, 2**63 - 1, "9223372036854775807"),
    "text": (TEXT, 'a "b" é', 'a "b" é'),
    "float": (FLOAT, 0.1, "0.1"),
    "double": (DOUBLE, -1.5, "-1.5"),
    "timestamp": (TIMESTAMP, 1_800_000_000_000_001, "1800000000000001"),
    "datetime": (DATETIME, -1, "-1"),
    "date": (DATE, 20_000, "20000"),
    "time": (TIME, 86_399_999_999, "86399999999"),
    "bytes": (BYTES, b"\x00\xff", "[0,255]"),
    "uuid": (UUID, AN_ID.bytes, str(AN_ID)),
    "decimal": (decimal(10, 2), Decimal("-3.50"), "-3.50"),
}
"""Of each type that a key may have: a value and the key that it is."""


def make_table(
    columns: list[tuple[str, ColumnType]], key: tuple[int, ...], *, stream: bool = False, table_id: int = 1
) -> TableDef:
    defs = tuple(ColumnDef(n, name, kind) for n, (name, kind) in enumerate(columns, start=1))
    table = TableDef(table_id, "app", "items", TableKind.SHARED, defs, primary_key=key, next_column_id=len(defs) + 1)
    if stream:
        table = msgspec.structs.replace(table, kind=TableKind.STREAM, primary_key=(), declared_key=key, ttl_seconds=60)
    return table


def batch_of(table: TableDef, rows: list[tuple[object, ...]]) -> pa.RecordBatch:
    """Rows as the router gets them, without `_seq`."""
    arrays = rows_of(table, rows).combine_chunks().to_batches()[0]
    if table.primary_key:
        return arrays
    row_ids = pa.array(range(1_000, 1_000 + len(rows)), pa.int64())
    return pa.RecordBatch.from_arrays([row_ids, *arrays.columns], names=[ROW_ID, *arrays.schema.names])


@pytest.mark.parametrize("name", VALUES)
def test_a_key_of_one_column_is_its_value_as_text(name: str) -> None:
    kind, value, text = VALUES[name]
    table = make_table([("id", kind)], (1,))
    assert message_keys(table, batch_of(table, [(value,)])) == [text]


def test_a_key_of_several_columns_is_a_json_array_in_the_order_of_the_key() -> None:
    names = list(VALUES)
    columns = [(name, VALUES[name][0]) for name in names]
    key = tuple(range(len(names), 0, -1))
    table = make_table(columns, key)
    row = tuple(VALUES[name][1] for name in names)
    [text] = message_keys(table, batch_of(table, [row, row])[:1])
    expected = [to_wire(VALUES[name][1], VALUES[name][0], BigintMode.NUMBER) for name in reversed(names)]
    assert text is not None
    assert json.loads(text) == expected
    assert " " not in text.replace('a \\"b\\" é', "")


def test_a_table_without_a_key_has_none_and_its_row_id_decides() -> None:
    table = make_table([("n", INT)], ())
    batch = batch_of(table, [(n,) for n in range(50)])
    assert message_keys(table, batch) == [None] * 50
    found = row_partitions(table, PublishedRows(50, lambda: batch), 7)
    assert found.tolist() == [partition_of_key(str(1_000 + n), 7) for n in range(50)]


def test_nulls_in_a_declared_key() -> None:
    one = make_table([("id", TEXT)], (1,), stream=True)
    batch = batch_of(one, [("a",), (None,)])
    assert message_keys(one, batch) == ["a", None]
    found = row_partitions(one, PublishedRows(2, lambda: batch), 9)
    assert found.tolist() == [partition_of_key("a", 9), partition_of_key("1001", 9)]
    two = make_table([("a", TEXT), ("b", BOOLEAN)], (1, 2), stream=True)
    assert message_keys(two, batch_of(two, [(None, None), ("x", False)])) == ["[null,null]", '["x",false]']


@pytest.mark.parametrize("kind", [FLOAT, DOUBLE])
def test_what_is_no_number_is_a_key_too(kind: ColumnType) -> None:
    """A declared key is not enforced, so it may hold anything, and its row must be written all the same."""
    one = make_table([("id", kind)], (1,), stream=True)
    batch = batch_of(one, [(NAN,), (INFINITY,), (-INFINITY,), (1.5,), (None,)])
    assert message_keys(one, batch) == ["NaN", "Infinity", "-Infinity", "1.5", None]
    two = make_table([("id", kind), ("n", INT)], (1, 2), stream=True)
    assert message_keys(two, batch_of(two, [(NAN, 1)])) == ['["NaN",1]']


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=30), st.integers(2, 1024))
def test_rows_go_where_their_keys_go(ids: list[int], partitions: int) -> None:
    table = make_table([("id", BIGINT)], (1,))
    rows = PublishedRows(len(ids), lambda: batch_of(table, [(n,) for n in ids]))
    for count in (partitions, 3, partitions):
        found = row_partitions(table, rows, count)
        assert found.dtype == np.int64
        assert found.tolist() == [partition_of_key(str(n), count) for n in ids]


# --- payloads -----------------------------------------------------------------------------------------------------

FINITE32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
COLUMNS: list[tuple[str, ColumnType, st.SearchStrategy[Any]]] = [
    ("id", BIGINT, st.integers(-(2**63), 2**63 - 1)),
    ("flag", BOOLEAN, st.booleans()),
    ("small", SMALLINT, st.integers(-(2**15), 2**15 - 1)),
    ("n", INT, st.integers(-(2**31), 2**31 - 1)),
    ("name", TEXT, st.text(max_size=8)),
    ("f", FLOAT, st.floats(width=32)),
    ("d", DOUBLE, st.floats()),
    ("at", TIMESTAMP, st.integers(-(2**50), 2**50)),
    ("zoned", DATETIME, st.integers(-(2**50), 2**50)),
    ("day", DATE, st.integers(-(10**5), 10**5)),
    ("time", TIME, st.integers(0, 86_400_000_000 - 1)),
    ("doc", JSON, st.sampled_from(['{"a":[1,null]}', "3", '"x"'])),
    ("raw", BYTES, st.binary(max_size=5)),
    ("ident", UUID, st.binary(min_size=16, max_size=16)),
    ("money", decimal(12, 3), st.decimals(-(10**8), 10**8, places=3)),
    ("vector", embedding(2), st.lists(st.floats(width=32), min_size=2, max_size=2)),
]
ROWS = st.tuples(*(values if name == "id" else st.none() | values for name, _, values in COLUMNS))


def shown(value: object, kind: ColumnType, bigint: BigintMode) -> object:
    """What a payload shows of a value."""
    if isinstance(value, list):
        return [shown(number, FLOAT, bigint) for number in value]
    if isinstance(value, float) and not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return to_wire(value, kind, bigint)


def create(here: World, table: TableDef) -> TableDef:
    def work(wtxn: WriteTransaction) -> TableDef:
        wtxn.put_namespace(NamespaceDef("app"))
        made = msgspec.structs.replace(table, table_id=wtxn.allocate_table_id())
        wtxn.put_table(made)
        return made

    return here.engine.commit_sync(work)


def encode(table: TableDef, row: tuple[object, ...]) -> bytes:
    primary = layout_of(table).primary
    assert primary is not None
    return primary.encode((row[0],))


@given(
    st.lists(ROWS, min_size=1, max_size=4, unique_by=lambda row: row[0]), st.data(), st.sampled_from(list(BigintMode))
)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_payloads_show_each_value_as_sql_does(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]], data: st.DataObject, bigint: BigintMode
) -> None:
    """Every type, mode and operation; NaN and the infinities as strings."""
    changed = [(row[0], *data.draw(ROWS)[1:]) for row in rows]

    async def play() -> None:
        async with world(tmp_path_factory.mktemp("data"), bigint=bigint) as here:
            table = create(here, make_table([(name, kind) for name, kind, _ in COLUMNS], (1,)))
            for mode in PayloadMode:
                here.topic(mode.name.lower(), "items", mode)
            here.engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, rows)))
            keys = [encode(table, row) for row in rows]
            here.engine.commit_sync(
                lambda w: w.replace(table, "", w.find(table, "", keys), rows_of(table, changed))  # type: ignore[arg-type]
            )
            here.engine.commit_sync(lambda w: w.delete(table, "", w.find(table, "", keys)))  # type: ignore[arg-type]
            await compare(here, rows, changed, bigint)

    asyncio.run(play())


def as_json(row: tuple[Any, ...], bigint: BigintMode) -> dict[str, object]:
    shown_row = {
        name: shown(float(np.float32(value)) if kind is FLOAT and value is not None else value, kind, bigint)
        for (name, kind, _), value in zip(COLUMNS, row, strict=True)
    }
    return json.loads(json.dumps(shown_row))  # type: ignore[no-any-return]


async def compare(here: World, rows: list[tuple[Any, ...]], changed: list[tuple[Any, ...]], bigint: BigintMode) -> None:
    before, after = [as_json(row, bigint) for row in rows], [as_json(row, bigint) for row in changed]
    events = [*((Operation.INSERT, {}, new) for new in before),
              *((Operation.UPDATE, old, new) for old, new in zip(before, after, strict=True)),
              *((Operation.DELETE, old, {}) for old in after)]  # fmt: skip
    for mode in PayloadMode:
        messages = await here.messages(mode.name.lower())
        assert [message.operation for message in messages] == [operation for operation, _, _ in events]
        for message, (operation, old, new) in zip(messages, events, strict=True):
            row = new or old
            payload = json.loads(message.payload)
            assert message.key == str(rows[[r["id"] for r in before].index(row["id"])][0])
            assert list(payload)[: len(row)] == list(row) or mode is not PayloadMode.FULL
            if mode is PayloadMode.KEY:
                assert payload == {"id": row["id"]}
                continue
            assert payload.pop("_table") == "app.items"
            assert int(payload.pop("_seq")) >= int(payload.pop("_commit_seq")) > 0
            if mode is PayloadMode.FULL:
                assert payload == {**row, "_deleted": operation is Operation.DELETE}
                continue
            if operation is Operation.UPDATE:
                names = [name for name in row if old[name] != new[name]]
                old, new = ({name: side[name] for name in names} for side in (old, new))
            assert payload == {"key": {"id": row["id"]}, "old": old, "new": new}


@in_loop
async def test_chosen_columns_only(tmp_path: Path) -> None:
    """Also when the table has none of them any more."""
    async with world(tmp_path) as here:
        await here.run("CREATE NAMESPACE app")
        await here.run("CREATE SHARED TABLE app.items (id INT PRIMARY KEY, a INT, b INT)")
        topics = [here.topic(mode.name.lower(), "items", mode, columns=(2,)) for mode in PayloadMode]
        await here.run("INSERT INTO app.items VALUES (1, 2, 3)")
        await here.run("UPDATE app.items SET a = 5, b = 6 WHERE id = 1")
        marks = {"_deleted": False, "_table": "app.items"}
        full = await here.payloads("full")
        assert [{k: v for k, v in p.items() if k not in {"_seq", "_commit_seq"}} for p in full] == [
            {"a": 2, **marks},
            {"a": 5, **marks},
        ]
        assert [(p["old"], p["new"]) for p in await here.payloads("diff")] == [({}, {"a": 2}), ({"a": 2}, {"a": 5})]
        assert await here.payloads("key") == [{"id": 1}, {"id": 1}]
        for topic in topics:
            change_topic(here.engine, topic, sources=())
        await here.run("ALTER TABLE app.items DROP COLUMN a")
        assert [set(p) for p in await here.payloads("full")] == [{"_seq", "_commit_seq", "_deleted", "_table"}] * 2
        assert [(p["old"], p["new"]) for p in await here.payloads("diff")] == [({}, {}), ({}, {})]


@in_loop
async def test_an_altered_table_shows_the_columns_that_it_has_now(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.run("CREATE NAMESPACE app")
        await here.run("CREATE SHARED TABLE app.items (id INT PRIMARY KEY, a INT, b TEXT)")
        here.topic("t", "items")
        await here.run("INSERT INTO app.items VALUES (1, 2, 'x')")
        await here.run("ALTER TABLE app.items ADD COLUMN c INT DEFAULT 7")
        await here.run("ALTER TABLE app.items DROP COLUMN b")
        await here.run("INSERT INTO app.items VALUES (2, 3, 4)")
        shown_columns = [list(payload.items())[:3] for payload in await here.payloads("t")]
        assert shown_columns == [[("id", 1), ("a", 2), ("c", 7)], [("id", 2), ("a", 3), ("c", 4)]]


@in_loop
async def test_a_dropped_table_shows_its_last_columns(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.run("CREATE NAMESPACE app")
        await here.run("CREATE SHARED TABLE app.items (id INT PRIMARY KEY, a INT)")
        here.topic("t", "items", PayloadMode.DIFF)
        await here.run("INSERT INTO app.items VALUES (1, 2)")
        await here.run("UPDATE app.items SET a = 3 WHERE id = 1")
        expected = await here.messages("t")
        await here.run("DROP TABLE app.items")
        here.engine.compact()
        await here.run("CREATE SHARED TABLE app.items (id TEXT PRIMARY KEY)")
        assert await here.messages("t") == expected
        assert here.engine.check() == []


@in_loop
async def test_rows_without_a_key(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        table = create(here, make_table([("n", INT)], ()))
        here.topic("key", "items", PayloadMode.KEY, partitions=4)
        here.engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, [(n,) for n in range(20)])))
        messages = await here.messages("key")
        assert {message.key for message in messages} == {None}
        row_ids = [json.loads(message.payload)["_row_id"] for message in messages]
        assert len(set(row_ids)) == 20
        assert [m.partition for m in messages] == [partition_of_key(str(row_id), 4) for row_id in row_ids]


@in_loop
async def test_a_row_with_a_strange_key_holds_up_nobody(tmp_path: Path) -> None:
    """Neither the works that meet it in a commit, nor the consumers of its message."""
    async with world(tmp_path) as here:
        table = create(here, make_table([("id", DOUBLE)], (1,), stream=True))
        here.topic("t", "items", operations=(Operation.INSERT,), partitions=3)
        try:
            here.engine.commit_sync(lambda w: w.insert(table, "ann", rows_of(table, [(NAN,), (2.0,)])))
        except PublishFailed as error:
            pytest.fail(f"the write was refused: {error}")
        assert sorted(str(message.key) for message in await here.messages("t")) == ["2.0", "NaN"]
