"""Bodies in four formats give the same typed tables; bad ones are refused with the place of what is wrong."""

from __future__ import annotations

import contextlib
import io
import json
import random
import struct
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from sql import ingest
from sql.errors import InvalidInput, SqlError, Unsupported
from sql.ingest import CONTENT_TYPES, read_body
from sql.ingest_columns import BadRowsFound, convert_column
from sql.rendering import BigintMode, arrow_chunks, ndjson_chunks
from sql.results import ResultColumn
from sql.values import from_json
from storage.catalog import ColumnDef, TableDef, TableKind
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
    arrow_type,
    decimal,
    embedding,
)

ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
NDJSON = "application/x-ndjson"
CSV = "text/csv"

TYPES: dict[str, ColumnType] = {
    "b": BOOLEAN, "i2": SMALLINT, "i4": INT, "i8": BIGINT, "f4": FLOAT, "f8": DOUBLE, "s": TEXT, "ts": TIMESTAMP,
    "dt": DATETIME, "da": DATE, "ti": TIME, "j": JSON, "y": BYTES, "u": UUID, "d": decimal(10, 2), "e": embedding(2),
}  # fmt: skip


def table_of(types: dict[str, ColumnType], **defaults: str) -> TableDef:
    columns = tuple(
        ColumnDef(index, name, kind, default=defaults.get(name)) for index, (name, kind) in enumerate(types.items(), 1)
    )
    return TableDef(1, "app", "t", TableKind.SHARED, columns)


TABLE = table_of(TYPES)
SMALL = table_of({"id": INT, "name": TEXT, "at": TIMESTAMP})


def read(body: bytes | str, content_type: str, table: TableDef = SMALL) -> pa.Table:
    data = body.encode() if isinstance(body, str) else body
    return pa.concat_tables(list(read_body(io.BytesIO(data), content_type, table)), promote_options="default")


def refused(body: bytes | str, content_type: str, table: TableDef = SMALL) -> str:
    with pytest.raises(InvalidInput) as caught:
        read(body, content_type, table)
    assert len(caught.value.message) < 4000
    return caught.value.message


def arrow_body(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def parquet_body(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


STORED: dict[str, st.SearchStrategy[Any]] = {
    "b": st.booleans(),
    "i2": st.integers(-(2**15), 2**15 - 1),
    "i4": st.integers(-(2**31), 2**31 - 1),
    "i8": st.integers(-(2**63), 2**63 - 1),
    "f4": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "f8": st.floats(allow_nan=False, allow_infinity=False),
    "s": st.text(max_size=6).filter(lambda text: "\r" not in text),
    "ts": st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999),
    "dt": st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999),
    "da": st.integers(-719_162, 2_932_896),
    "ti": st.integers(0, 86_399_999_999),
    "j": st.sampled_from(['{"a":1}', "[1,2]", '"x"', "1.50", "null"]),
    "y": st.binary(max_size=4),
    "u": st.binary(min_size=16, max_size=16),
    "d": st.integers(-(10**10) + 1, 10**10 - 1).map(lambda n: Decimal(f"{n}E-2")),
    "e": st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(1, 5))
    names = draw(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=6, unique=True))
    return pa.table(
        {
            name: pa.array(
                draw(st.lists(st.none() | STORED[name], min_size=rows, max_size=rows)), arrow_type(TYPES[name])
            )
            for name in names
        }
    )


def columns_of(table: pa.Table) -> list[ResultColumn]:
    return [ResultColumn(name, TYPES[name]) for name in table.schema.names]


def csv_body(table: pa.Table) -> bytes:
    """CSV as people write it: ISO times, hex bytes, texts always in quotes."""
    lines = [",".join(table.schema.names)]
    for row in table.to_pylist():
        fields = [csv_field(value) for value in row.values()]
        lines.append(",".join(fields))
    return ("\n".join(lines) + "\n").encode()


def csv_field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.hex() if len(value) == 16 else f"\\x{value.hex()}"
    if hasattr(value, "isoformat"):
        return value.isoformat()
    text = json.dumps(value) if isinstance(value, list) else str(value)
    return '"' + text.replace('"', '""') + '"' if isinstance(value, (str, list)) else text


@settings(deadline=None)
@given(tables(), st.sampled_from(BigintMode))
def test_every_format_gives_what_went_in(table: pa.Table, mode: BigintMode) -> None:
    columns = columns_of(table)
    assert read(b"".join(arrow_chunks(table.to_batches(), columns)), ARROW, TABLE).equals(table)
    assert read(parquet_body(table), PARQUET, TABLE).equals(table)
    lines = b"".join(ndjson_chunks(table.to_batches(), columns, mode))
    assert_same(read(lines, NDJSON, TABLE), table)
    table = table.drop_columns([name for name in ("y", "u") if name in table.schema.names])
    if len(table.schema.names) > 1:
        assert_same(read(csv_body(table), CSV, TABLE), table)


def assert_same(found: pa.Table, expected: pa.Table) -> None:
    """Equal by column, whatever their order; columns of NULLs may be left out."""
    for name in expected.schema.names:
        if name in found.schema.names:
            assert found[name].to_pylist() == expected[name].to_pylist()
            assert found[name].type == expected[name].type
        else:
            assert expected[name].null_count == len(expected)
    assert set(found.schema.names) <= set(expected.schema.names)


ODD: list[tuple[str, list[str], list[Any]]] = [
    ("i4", ["1", "+2", "3.0", '"4"', "null"], [1, None, 3, 4, None]),
    ("ts", ['"2024-01-01"', '"2024-01-01T00:00:00Z"', "0", "null"], [1704067200000000, 1704067200000000, 0, None]),
    ("dt", ['"2024-01-01T01:00:00+01:00"', '"2024-01-01"'], [1704067200000000, 1704067200000000]),
    ("d", ["1.5", '"1.50"', "2", "3.500", "1e1"], ["1.50", "1.50", "2.00", "3.50", "10.00"]),
    ("s", ['"x"', "5", "true", "1.50"], ["x", "5", "true", "1.50"]),
    ("j", ['{"a": [1, 2.50]}', '"[1]"', "[]", "5", "true", "null"], ['{"a":[1,2.50]}', "[1]", "[]", "5", "true", None]),
    ("e", ["[1, 2]", '"[0.5, 1]"', "null"], [[1.0, 2.0], [0.5, 1.0], None]),
    ("y", ["[0, 255]", '"\\\\x00ff"', "null"], [b"\x00\xff", b"\x00\xff", None]),
]


@pytest.mark.parametrize(("name", "written", "stored"), ODD, ids=[case[0] for case in ODD])
def test_ndjson_takes_every_form_that_a_parameter_may_have(name: str, written: list[str], stored: list[Any]) -> None:
    written, stored = zip(*((w, s) for w, s in zip(written, stored, strict=True) if w != "+2"), strict=True)
    body = "".join(f'{{"{name}": {text}}}\n' for text in written)
    column = read(body, NDJSON, TABLE)[name]
    expected = pa.array([Decimal(v) if name == "d" and v else v for v in stored], arrow_type(TYPES[name]))
    assert column.combine_chunks().equals(expected)


def test_a_missing_key_takes_the_default_and_null_is_null() -> None:
    table = table_of({"id": INT, "n": INT, "s": TEXT}, n="7")
    body = '{"id": 1}\n{"id": 2, "n": null}\n{"id": 3, "n": 4}\n{"id": 5}\n'
    parts = list(read_body(io.BytesIO(body.encode()), NDJSON, table))
    assert [part.to_pydict() for part in parts] == [{"id": [1]}, {"id": [2, 3], "n": [None, 4]}, {"id": [5]}]
    assert read('{"id": 1}\n{"id": 2}\n', NDJSON, table).to_pydict() == {"id": [1, 2]}
    assert "name no column" in refused("{}\n", NDJSON, table)


def test_names_fold_and_order_does_not_matter() -> None:
    assert read('{"NAME": "x", "Id": 1}\n', NDJSON).to_pydict() == {"id": [1], "name": ["x"]}
    assert read("NAME,ID\nx,1\n", CSV).to_pydict() == {"name": ["x"], "id": [1]}


def test_csv_null_and_empty_text() -> None:
    body = 'id,name\n1,\n2,""\n3,"a ""b""\nc"\n'
    assert read(body, CSV)["name"].to_pylist() == [None, "", 'a "b"\nc']
    assert read("\ufeffid,name\r\n1,x\r\n", "Text/CSV; charset=UTF-8").to_pydict() == {"id": [1], "name": ["x"]}


def test_empty_bodies() -> None:
    assert list(read_body(io.BytesIO(b""), NDJSON, SMALL)) == []
    assert list(read_body(io.BytesIO(b"id,name\n"), CSV, SMALL)) == []
    assert "no header" in refused(b"", CSV)
    assert list(read_body(io.BytesIO(b"\n\n"), NDJSON, SMALL)) == []


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        ('{"id": 1}\n\n{"id": "x"}\n{"id": 99999999999}\n', NDJSON,
         ["line 3: column 'id' (INT) cannot take 'x'", "line 4: column 'id' (INT) cannot hold 99999999999"]),
        ('{"id": 1}\n{"nope": 1}\n', NDJSON, ["line 2: table app.t has no column 'nope'"]),
        ('{"id": 1}\n{"id": 1\n', NDJSON, ["line 2: not a JSON object"]),
        ('[1]\n', NDJSON, ["line 1: not a JSON object"]),
        ('{"id": 1, "ID": 2}\n', NDJSON, ["line 1: column 'id' is there twice"]),
        ('{"name": "\\ud800"}\n', NDJSON, ["line 1"]),
        (b'{"name": "\xff"}\n', NDJSON, ["line 1"]),
        ("id,name\n1,x\nfoo,y\n", CSV, ["line 3: column 'id' (INT) cannot take 'foo'"]),
        ('id,name\n1,"x\ny"\nfoo,y\n', CSV, ["line 4: column 'id'"]),
        ("id,name\n1,x\n2\n", CSV, ["in line 3 has 1 fields instead of 2: '2'"]),
        ("id,nope\n1,x\n", CSV, ["column 'nope' that table app.t does not have"]),
        ("id,ID\n1,x\n", CSV, ["column 'id' twice"]),
        (b"id,name\n1,\xff\n", CSV, ["invalid UTF8"]),
        (b"\xff\n1\n", CSV, ["not valid text/csv"]),
        ("id,at\n1,20240101\n", CSV, ["line 2: column 'at' (TIMESTAMP) cannot take '20240101'"]),
        ("id\n0x1F\n", CSV, ["line 2: column 'id'"]),
    ],
)  # fmt: skip
def test_bad_text_is_named_by_line_and_column(body: str | bytes, content_type: str, words: list[str]) -> None:
    message = refused(body, content_type)
    assert all(word in message for word in words), message


def test_at_most_ten_bad_lines_are_named() -> None:
    message = refused("id\n" + "x\n" * 1000, CSV)
    assert (message.count("cannot take"), message.endswith("(and perhaps more)")) == (10, True)
    assert refused('{"id": "x"}\n' * 1000, NDJSON).count("cannot take") == 10
    message = refused("id\n" + "1\n" * 300 + "x\n" + "2\n" * 300, CSV)
    assert message == "Nothing was written, line 302: column 'id' (INT) cannot take 'x': not an integer"


def test_lines_count_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sql.ingest_ndjson.BLOCK_BYTES", 50)
    body = "".join(f'{{"id": {n}}}\n' for n in range(100))
    assert read(body, NDJSON)["id"].to_pylist() == list(range(100))
    assert "line 101:" in refused(body + '{"id": "x"}\n', NDJSON)
    assert read(body.rstrip("\n"), NDJSON)["id"].to_pylist() == list(range(100))


def test_binary_formats_name_the_row() -> None:
    table = pa.table({"id": pa.array([1, 2**40, 3])})
    for body, kind in ((arrow_body(table), ARROW), (parquet_body(table), PARQUET)):
        assert "row 2: column 'id' (INT) cannot hold 1099511627776" in refused(body, kind)
    nanoseconds = pa.table({"at": pa.array([0, 1], pa.timestamp("ns"))})
    assert "row 2: column 'at' (TIMESTAMP) cannot hold this timestamp[ns]" in refused(arrow_body(nanoseconds), ARROW)
    outside = pa.table({"at": pa.array([-(2**63)], pa.timestamp("us"))})
    assert "outside its range" in refused(arrow_body(outside), ARROW)
    structs = pa.table({"name": pa.array([{"x": 1}])})
    assert "cannot be filled from Arrow type struct" in refused(arrow_body(structs), ARROW)


SOURCES: list[tuple[ColumnType, pa.Array, list[Any]]] = [
    (TEXT, pa.array(["a", None]).dictionary_encode(), ["a", None]),
    (TEXT, pa.array(["a"], pa.large_string()), ["a"]),
    (TEXT, pa.array(["a"], pa.string_view()), ["a"]),
    (TEXT, pa.array([1]), ["1"]),
    (INT, pa.array([1.0, None]), [1, None]),
    (INT, pa.array([2**31 - 1], pa.uint64()), [2**31 - 1]),
    (INT, pa.nulls(2), [None, None]),
    (BIGINT, pa.array([Decimal("5.00")]), [5]),
    (DOUBLE, pa.array([2**60]), [2.0**60]),
    (FLOAT, pa.array([0.5], pa.float16()), [0.5]),
    (decimal(5, 2), pa.array([7], pa.int8()), [Decimal("7.00")]),
    (decimal(5, 2), pa.array([0.1]), [Decimal("0.10")]),
    (decimal(5, 2), pa.array([Decimal("1.500")]), [Decimal("1.50")]),
    (BOOLEAN, pa.array([1, 0]), [True, False]),
    (BOOLEAN, pa.array(["t", "FALSE"]), [True, False]),
    (JSON, pa.array(['{"a":\n1}', "[1]", None]), ['{"a":\n1}', "[1]", None]),
    (UUID, pa.array([b"0123456789abcdef"]), [b"0123456789abcdef"]),
    (UUID, pa.array(["30313233-3435-3637-3839-616263646566"]), [b"0123456789abcdef"]),
    (BYTES, pa.array([[0, 255]], pa.list_(pa.uint8())), [b"\x00\xff"]),
    (embedding(2), pa.array([[1, 2], None], pa.list_(pa.float64())), [[1.0, 2.0], None]),
    (embedding(2), pa.array([[1, 2]], pa.list_(pa.int64())), [[1.0, 2.0]]),
]


@pytest.mark.parametrize(("column_type", "source", "stored"), SOURCES, ids=range(len(SOURCES)))
def test_sources_of_columns(column_type: ColumnType, source: pa.Array, stored: list[Any]) -> None:
    found = convert_column(source, ColumnDef(1, "c", column_type))
    assert found.equals(pa.array(stored, arrow_type(column_type)))


TEMPORAL_SOURCES: list[tuple[ColumnType, pa.Array, int]] = [
    (TIMESTAMP, pa.array([1], pa.timestamp("s")), 1_000_000),
    (TIMESTAMP, pa.array([1000], pa.timestamp("ns", "UTC")), 1),
    (TIMESTAMP, pa.array([1]), 1),
    (TIMESTAMP, pa.array([1], pa.date32()), 86_400_000_000),
    (DATETIME, pa.array([5], pa.timestamp("us", "Europe/Paris")), 5),
    (DATETIME, pa.array([5], pa.timestamp("us")), 5),
    (DATETIME, pa.array(["1970-01-01T01:00:00+01:00"]), 0),
    (DATE, pa.array([86_400_000], pa.date64()), 1),
    (DATE, pa.array([1]), 1),
    (TIME, pa.array([1], pa.time32("s")), 1_000_000),
    (TIME, pa.array(["00:00:01"]), 1_000_000),
]


@pytest.mark.parametrize(("column_type", "source", "stored"), TEMPORAL_SOURCES, ids=range(len(TEMPORAL_SOURCES)))
def test_sources_of_times(column_type: ColumnType, source: pa.Array, stored: int) -> None:
    found = convert_column(source, ColumnDef(1, "c", column_type))
    assert found.equals(pa.array([stored], arrow_type(column_type)))


@settings(deadline=None)
@given(st.sampled_from(sorted(TYPES)), st.lists(
    st.sampled_from(["1", "1.5", "+1", "true", "t", "", "x", "2024-01-01", "2024-01-01T00:00:00Z", "[1,2]", "{}",
                     "00:00", "2024-01-01T00:00:00+01:00", "NaN", "1e3", "1e400", "99999999999", "\\x00", "0x1F", " 1",
                     "1,2"]),
    min_size=1, max_size=4,
))  # fmt: skip
def test_texts_are_converted_as_values_are(name: str, texts: list[str]) -> None:
    """The vectorised paths accept and give exactly what `sql.values` does."""
    expected: list[Any] = []
    for text in texts:
        try:
            expected.append(from_json(text, TYPES[name], "c"))
        except SqlError:
            expected.append(None)
    try:
        found = convert_column(pa.array(texts), ColumnDef(1, "c", TYPES[name]))
    except BadRowsFound as error:
        assert None in expected
        rows = [bad.row for bad in error.rows]
        assert rows == [index for index, value in enumerate(expected) if value is None]
        return
    assert found.equals(pa.array(expected, arrow_type(TYPES[name])))


def test_content_types() -> None:
    with pytest.raises(Unsupported, match=r"application/json.*use one of"):
        read("", "application/json; charset=utf-8")
    with pytest.raises(Unsupported, match="latin1"):
        read("", 'text/csv; charset="latin1"')


def test_a_body_that_cannot_seek() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *args: Any) -> int:
            raise io.UnsupportedOperation

    table = pa.table({"id": pa.array([1], pa.int32())})
    for body, kind in ((parquet_body(table), PARQUET), (b"id\n1\n", CSV), (arrow_body(table), ARROW)):
        parts = list(read_body(Pipe(body), kind, SMALL))
        assert pa.concat_tables(parts).equals(table)


@pytest.mark.parametrize("content_type", sorted(CONTENT_TYPES))
def test_damaged_bodies_are_refused_cleanly(content_type: str) -> None:
    table = pa.table({"id": pa.array(range(1000), pa.int32()), "name": pa.array([f"n{i}" for i in range(1000)])})
    columns = [ResultColumn("id", INT), ResultColumn("name", TEXT)]
    whole = {
        ARROW: arrow_body(table),
        PARQUET: parquet_body(table),
        "application/x-parquet": parquet_body(table, compression="zstd"),
        CSV: b"id,name\n" + b"".join(b"%d,n%d\n" % (i, i) for i in range(1000)),
    }.get(content_type, b"".join(ndjson_chunks(table.to_batches(), columns)))
    rng = random.Random(5)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        if rng.random() < 0.3:
            del damaged[rng.randrange(len(damaged)) :]
        with contextlib.suppress(SqlError):
            for part in read_body(io.BytesIO(bytes(damaged)), content_type, SMALL):
                part.validate(full=True)


def test_an_arrow_message_that_claims_to_be_huge() -> None:
    body = arrow_body(pa.table({"id": pa.array([1], pa.int32())}))
    refused(b"\xff\xff\xff\xff" + struct.pack("<i", 2**31 - 1) + body[8:], ARROW)
    refused(body[:40], ARROW)
    refused(b"ARROW1\x00\x00" + body, ARROW)
    text = arrow_body(pa.table({"name": ["x" * 1000]}))
    assert struct.pack("<ii", 0, 1000) in text
    refused(text.replace(struct.pack("<ii", 0, 1000), struct.pack("<ii", 0, 10**9)), ARROW)
    refused(text.replace(struct.pack("<ii", 0, 1000), struct.pack("<ii", -5, 1000)), ARROW)


def test_a_decimal_with_a_hostile_scale() -> None:
    table = pa.table({"n": pa.array([Decimal("1.5")], pa.decimal128(21, 2))})
    hostile = arrow_body(table).replace(struct.pack("<ii", 21, 2), struct.pack("<ii", 21, 10**6))
    assert hostile != arrow_body(table)
    assert "decimal128(21, 1000000)" in refused(hostile, ARROW, table_of({"n": decimal(10, 2)}))
    assert "decimal128(5, -2)" in refused(
        arrow_body(pa.table({"n": pa.array([Decimal(100)], pa.decimal128(5, -2))})), ARROW, table_of({"n": INT})
    )


def test_arrow_batches_that_unpack_to_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = io.BytesIO()
    table = pa.table({"id": pa.array([1] * 100_000, pa.int32()), "name": pa.array(["x"] * 100_000).dictionary_encode()})
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    assert read(sink.getvalue(), ARROW).num_rows == 100_000
    monkeypatch.setattr("sql.arrow_framing.MAX_UNPACKED_BYTES", 500_000)
    assert "unpacks to more than 500000 bytes" in refused(sink.getvalue(), ARROW)
    assert read(arrow_body(table), ARROW).num_rows == 100_000


def test_all_of_a_body_is_bounded() -> None:
    parts = read_body(io.BytesIO(b'{"id": 1}\n' * 1000), NDJSON, SMALL, max_bytes=1000)
    with pytest.raises(InvalidInput, match="more than 1000 bytes of values"):
        list(parts)


def test_long_lines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sql.ingest_ndjson.MAX_LINE_BYTES", 1000)
    monkeypatch.setattr("sql.ingest_ndjson.BLOCK_BYTES", 100)
    assert "Line 2 is longer than 1000 bytes" in refused('{"id": 1}\n{"name": "' + "x" * 5000, NDJSON)
    monkeypatch.setattr(ingest, "CSV_BLOCK_BYTES", 1000)
    assert "longer than 1000 bytes" in refused("id,name\n1,x\n2," + "x" * 5000 + "\n", CSV)
    monkeypatch.setattr(ingest, "MAX_HEADER_BYTES", 10)
    assert "header" in refused("x" * 100, CSV)


def test_large_row_groups_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "MAX_ROW_GROUP_BYTES", 1000)
    bomb = parquet_body(pa.table({"name": ["x" * 100_000]}), compression="zstd", use_dictionary=False)
    assert len(bomb) < 2000
    assert "Row group 1 holds more than 1000 bytes" in refused(bomb, PARQUET)


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ('id,name\n1,"x"', True), ('id,name\n1,"x"\n', True), ('id,name\n1,"x"\r\n', True), ('id,name\n1,""', True),
        ('id,name\n1,"a""b"', True), ('id,name\n1,"""', False), ('id,name\n1,"x\n"', True), ('id,name\n1,5"\n', True),
        ('id,name\n1,x', True), ('id,name\n1,"x', False), ('id,name\n1,"x\n', False), ('id,name\n1,"', False),
        ('id,name\n1,"a""', False), ('id,name\n1,"x\n2,y\n', False), ('id,name\n1,"x"\n\n', True),
    ],
)  # fmt: skip
def test_a_csv_body_that_ends_inside_quotes_is_refused(text: str, closed: bool) -> None:
    if closed:
        assert read(text, CSV).num_rows == 1
    else:
        assert "quote" in refused(text, CSV)
