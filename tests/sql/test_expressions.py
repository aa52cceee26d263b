"""Compiled expressions give DuckDB's values and types, or decline; never anything else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import duckdb
import hypothesis.strategies as st
import pyarrow as pa
import pytest
import sqlglot
from hypothesis import given, settings

from sql.dialect import Headrace
from sql.duck_types import result_type, to_duck_column
from sql.expressions import NotCovered, compile_expression
from sql.generate import duck_value
from sql.generate import parameter_sql as parameter_text
from sql.wire import storage_values
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
)

COLUMNS: dict[str, ColumnType] = {
    "b": BOOLEAN, "b2": BOOLEAN, "i2": SMALLINT, "i4": INT, "i4b": INT, "i8": BIGINT, "i8b": BIGINT,
    "f4": FLOAT, "f8": DOUBLE, "f8b": DOUBLE, "s": TEXT, "s2": TEXT, "d": decimal(10, 2), "e": decimal(5, 3),
    "ts": TIMESTAMP, "dt": DATETIME, "da": DATE, "ti": TIME, "u": UUID, "y": BYTES, "j": JSON,
}  # fmt: skip
PARAMETERS = {1: BOOLEAN, 2: INT, 3: BIGINT, 4: DOUBLE, 5: TEXT, 6: decimal(10, 2), 7: TIMESTAMP, 8: DATE, 9: SMALLINT}


def _ints(bits: int) -> st.SearchStrategy[int]:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return st.sampled_from([0, 1, -1, 2, 3, 5, low, high, high - 1]) | st.integers(low, high)


_TEXTS = st.sampled_from(["", "a", "A", "ab", "abc", "b", "a_b", "a%b", "a\nb", "a.b", "\u00e9", "\u00c9a", "12"])
VALUES: dict[ColumnType, st.SearchStrategy[Any]] = {
    BOOLEAN: st.booleans(),
    SMALLINT: _ints(16),
    INT: _ints(32),
    BIGINT: _ints(64),
    FLOAT: st.sampled_from([0.0, -0.0, 1.5, 0.5, 3.0]) | st.floats(width=32, allow_nan=False, allow_infinity=False),
    DOUBLE: st.sampled_from([0.0, -0.0, 1.5, 0.1, 3.0]) | st.floats(allow_nan=False, allow_infinity=False),
    TEXT: _TEXTS | st.text(max_size=4).filter(lambda text: "\x00" not in text),
    decimal(10, 2): st.integers(-(10**10) + 1, 10**10 - 1).map(lambda n: Decimal(f"{n}E-2")),
    decimal(5, 3): st.integers(-(10**5) + 1, 10**5 - 1).map(lambda n: Decimal(f"{n}E-3")),
    TIMESTAMP: st.sampled_from([0, 1704067200000000]) | st.integers(-(10**17), 10**17),
    DATETIME: st.sampled_from([0, 1704067200000000]) | st.integers(-(10**17), 10**17),
    DATE: st.sampled_from([0, 19723]) | st.integers(-(10**6), 10**6),
    TIME: st.sampled_from([0, 3600000000]) | st.integers(0, 86_399_999_999),
    UUID: st.sampled_from([bytes(16), b"\xff" * 16]) | st.binary(min_size=16, max_size=16),
    BYTES: st.binary(max_size=3),
    JSON: st.just('{"a":1}'),
}

LITERALS: dict[str, list[str]] = {
    "int": ["0", "1", "2", "-1", "-5", "7", "32767", "-32768", "40000", "2147483647", "2147483648", "-2147483648",
            "9223372036854775807", "9223372036854775808", "$2", "$3", "$9", "NULL"],
    "num": ["1.5", "0.1", "-2.25", "0.125", "1e3", "1.50", "123456789.123", "$4", "$6"],
    "text": ["'a'", "'ab'", "''", "'A'", "'\u00e9'", "'12'", "$5", "NULL"],
    "bool": ["TRUE", "FALSE", "NULL", "$1"],
    "time": ["'2024-01-01'", "DATE '2024-01-01'", "TIMESTAMP '2024-01-01 00:00:00'", "'2024-01-01 00:00:00.5'",
             "'2024-01-01T00:00:00Z'", "$7", "$8", "'01:00:00'", "'00000000-0000-0000-0000-000000000000'"],
}  # fmt: skip
PATTERNS = ["'a%'", "'%b'", "'%a%'", "'a_b'", "'_'", "'%'", "''", "'a%b%'", "'A%'", "'[ab]%'", "'a.b'", "$5", "NULL"]
BY_FAMILY = {
    "int": ["i2", "i4", "i4b", "i8", "i8b"],
    "num": ["f4", "f8", "f8b", "d", "e"],
    "text": ["s", "s2"],
    "bool": ["b", "b2"],
    "time": ["ts", "dt", "da", "ti", "u", "y", "j"],
}


@st.composite
def expressions(draw: st.DrawFn, family: str | None = None, depth: int = 3) -> str:
    family = family or draw(st.sampled_from(sorted(BY_FAMILY)))
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(BY_FAMILY[family] * 2 + LITERALS[family]))

    def sub(kind: str) -> str:
        return draw(expressions(kind, depth - 1))

    general = ["coalesce", "case", "nullif", "paren", "if"]
    shape = draw(st.sampled_from(SHAPES[family] + general))
    match shape:
        case "coalesce":
            return f"COALESCE({sub(family)}, {sub(family)})"
        case "nullif":
            return f"NULLIF({sub(family)}, {sub(family)})"
        case "paren":
            return f"({sub(family)})"
        case "if":
            return f"IF({sub('bool')}, {sub(family)}, {sub(family)})"
        case "case":
            other = draw(st.sampled_from(["", f" ELSE {sub(family)}"]))
            return f"CASE WHEN {sub('bool')} THEN {sub(family)} WHEN {sub('bool')} THEN {sub(family)}{other} END"
        case "compare":
            kind = draw(st.sampled_from(sorted(BY_FAMILY)))
            operator = draw(
                st.sampled_from(["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"])
            )
            return f"({sub(kind)} {operator} {sub(kind)})"
        case "mixed":
            return f"({sub('int')} {draw(st.sampled_from(['=', '<']))} {sub(draw(st.sampled_from(['num', 'text'])))})"
        case "between":
            kind = draw(st.sampled_from(sorted(BY_FAMILY)))
            return f"({sub(kind)} {draw(st.sampled_from(['', 'NOT ']))}BETWEEN {sub(kind)} AND {sub(kind)})"
        case "in":
            kind = draw(st.sampled_from(sorted(BY_FAMILY)))
            options = ", ".join(draw(st.lists(expressions(kind, 0), min_size=1, max_size=6)))
            return f"({sub(kind)} {draw(st.sampled_from(['', 'NOT ']))}IN ({options}))"
        case "like":
            operator = draw(st.sampled_from(["LIKE", "NOT LIKE", "ILIKE"]))
            return f"({sub('text')} {operator} {draw(st.sampled_from(PATTERNS))})"
        case "is":
            kind = draw(st.sampled_from(sorted(BY_FAMILY)))
            return f"({sub(kind)} IS {draw(st.sampled_from(['', 'NOT ']))}NULL)"
        case "truth":
            return f"({sub('bool')} IS {draw(st.sampled_from(['TRUE', 'FALSE', 'NOT TRUE']))})"
        case "not":
            return f"(NOT {sub('bool')})"
        case "and" | "or":
            return f"({sub('bool')} {shape} {sub('bool')} {shape} {sub('bool')})"
        case "length":
            return f"LENGTH({sub('text')})"
        case "concat":
            return f"({sub('text')} || {sub(draw(st.sampled_from(['text', 'int'])))})"
        case "lower" | "upper" | "abs":
            return f"{shape.upper()}({sub(family)})"
        case "neg":
            return f"(- {sub(family)})"
        case "cast":
            return f"CAST({sub(draw(st.sampled_from(['int', 'num'])))} AS {draw(st.sampled_from(CASTS[family]))})"
        case _:
            return (
                f"({sub(draw(st.sampled_from(['int', 'num'])) if family == 'num' else family)} {shape} {sub(family)})"
            )


SHAPES = {
    "int": ["+", "-", "*", "/", "%", "neg", "abs", "length", "cast"],
    "num": ["+", "-", "*", "/", "neg", "abs", "cast"],
    "text": ["concat", "lower", "upper", "cast"],
    "bool": ["compare", "compare", "mixed", "between", "in", "like", "is", "truth", "not", "and", "or"],
    "time": ["coalesce"],
}
CASTS = {"int": ["SMALLINT", "INT", "BIGINT"], "num": ["DOUBLE", "FLOAT"], "text": ["VARCHAR"]}

CONNECTION = duckdb.connect(config={"threads": "1"})
CONNECTION.execute("SET TimeZone = 'UTC'")
CONNECTION.execute("SET integer_division = true")


def by_duckdb(text: str, table: Mapping[str, list[Any]], params: Sequence[Any]) -> tuple[ColumnType, list[Any]]:
    """Type and storage values of `text` over the rows of `table`, by DuckDB."""
    data = {
        name: to_duck_column(COLUMNS[name], pa.chunked_array([pa.array(values, arrow_type(COLUMNS[name]))]))
        for name, values in table.items()
    }
    sql = text
    used = {}
    for index, column_type in PARAMETERS.items():
        if f"${index}" in sql:
            sql = sql.replace(f"${index}", parameter_text(index, column_type))
            used[str(index)] = duck_value(column_type, params[index - 1])
    CONNECTION.register("t", pa.table(data))
    result = CONNECTION.sql(f"SELECT {sql} AS r, typeof({sql}) AS k FROM t", params=used).to_arrow_table()
    found = result_type(result["k"][0].as_py())
    column = result["r"]
    if found == UUID:
        return found, [
            None if text is None else bytes.fromhex(str(text).replace("-", "")) for text in column.to_pylist()
        ]
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    return found, storage_values(column.cast(arrow_type(found)), found)


def same(left: Any, right: Any) -> bool:
    """Equal values; zeros of either sign are one."""
    return left == right and type(left) is type(right)


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, dict[str, list[Any]], list[Any]]:
    text = draw(expressions())
    rows = draw(st.integers(1, 4))
    used = {"b", *re.findall(r"\w+", text)} & set(COLUMNS)
    table = {
        name: draw(st.lists(st.none() | VALUES[COLUMNS[name]], min_size=rows, max_size=rows)) for name in sorted(used)
    }
    params = [draw(st.none() | VALUES[kind]) if f"${index}" in text else None for index, kind in PARAMETERS.items()]
    return text, table, params


def check(text: str, table: Mapping[str, list[Any]], params: Sequence[Any]) -> str:
    """How the expression was answered; fails when it was answered otherwise than by DuckDB."""
    compiled = compile_expression(sqlglot.parse_one(text, dialect=Headrace), COLUMNS, PARAMETERS)
    if compiled is None:
        return "left to DuckDB"
    length = len(table["b"])
    arrays = {name: pa.array(table[name], arrow_type(COLUMNS[name])) for name in compiled.columns}
    try:
        found = compiled.evaluate(arrays, params, length)
    except NotCovered:
        return "not covered"
    assert found.type == arrow_type(compiled.type)
    found.validate(full=True)
    expected_type, expected = by_duckdb(text, table, params)
    assert compiled.type == expected_type, text
    values = storage_values(found, compiled.type)
    assert all(same(*pair) for pair in zip(values, expected, strict=True)), (text, values, expected)
    for index in range(length):
        row = {name: table[name][index] for name in table}
        assert same(compiled.evaluate_row(row, params), values[index]), text
    return "answered"


@settings(max_examples=400, deadline=None)
@given(cases())
def test_the_answer_is_duckdbs(case: tuple[str, dict[str, list[Any]], list[Any]]) -> None:
    check(*case)


def compiled(text: str, columns: Mapping[str, ColumnType] = COLUMNS) -> Any:
    return compile_expression(sqlglot.parse_one(text, dialect=Headrace), columns, PARAMETERS)


ORDINARY = [
    "i4 = 1", "i4 = $2", "i8 + 1", "i8 * 2 - i4 % 3", "s = 'x' AND i4 > 5 OR NOT b", "s LIKE 'a%'", "s NOT LIKE '%a'",
    "i4 BETWEEN 1 AND 10", "i4 NOT IN (1, 2, 3, 4, 5)", "ts >= '2024-01-01'", "da < DATE '2024-01-01'", "d > 1.5",
    "d = 1", "f8 / 2", "i4 / 2", "-i4", "ABS(i4)", "s || '-' || i4", "LOWER(s) = 'a'", "LENGTH(s) <= 10",
    "COALESCE(i4, 0) + 1", "NULLIF(s, '')", "CASE i4 WHEN 1 THEN 'a' ELSE 'b' END", "CAST(i4 AS BIGINT)",
    "u = '00000000-0000-0000-0000-000000000000'", "dt > '2024-01-01T00:00:00Z'", "b IS TRUE", "j IS NULL", "j",
    "i4 IS DISTINCT FROM i8", "i4 = i8", "f8 > 0.5", "f4 < 1", "i4 > '5'", "IF(b, 1, 2)",
]  # fmt: skip


@pytest.mark.parametrize("text", ORDINARY)
def test_everyday_expressions_are_answered(text: str) -> None:
    one = {"b": True, "i4": 7, "i8": 7, "f4": 0.5, "f8": 0.25, "s": "ab", "d": Decimal("1.00"), "ts": 0, "dt": 0,
           "da": 0, "u": bytes(16), "j": "{}"}  # fmt: skip
    table: dict[str, list[Any]] = {name: [value, None] for name, value in one.items()}
    assert check(text, table, [None, 7]) == "answered"


@pytest.mark.parametrize(
    "text",
    ["SUM(i4)", "i4 = (SELECT 1)", "s LIKE 'a' ESCAPE '!'", "j = '{}'", "d + 1", "ROUND(f8)", "unknown = 1", "t.i4 = 1",
     "s LIKE s2", "dt > '2024-01-01'", "i4 = 'x'", "d = f8", "$99 = 1", "NULL", "9223372036854775808 = 1",
     "CAST(s AS INT)", "TRY_CAST(s AS INT)", "i4 = ANY($2)", "INTERVAL 1 DAY", "RANDOM() < 1", "NOW()"],
)  # fmt: skip
def test_the_rest_is_left_to_duckdb(text: str) -> None:
    assert compiled(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("i4 + 1", 2**31 - 1), ("-i4", -(2**31)), ("ABS(i4)", -(2**31)), ("i4 % 0", 1), ("i4 / 0", 1), ("i4 * i4", 2**30)],
)
def test_what_fails_or_is_infinite_in_duckdb_is_not_covered(text: str, value: int) -> None:
    expression = compiled(text)
    with pytest.raises(NotCovered):
        expression.evaluate({"i4": pa.array([value], pa.int32())}, [], 1)
    with pytest.raises(NotCovered):
        expression.evaluate_row({"i4": value}, [])


def test_letters_beyond_ascii_are_not_covered() -> None:
    for text in ("LOWER(s)", "UPPER(s)", "s ILIKE 'a'"):
        with pytest.raises(NotCovered):
            compiled(text).evaluate({"s": pa.array(["\u00c9"])}, [], 1)
        with pytest.raises(NotCovered):
            compiled(text).evaluate_row({"s": "\u00c9"}, [])
    with pytest.raises(NotCovered):
        compiled("s LIKE $5").evaluate({"s": pa.array(["a"])}, [None, None, None, None, "a\\%"], 1)


def test_qualified_names_are_the_callers_keys() -> None:
    expression = compiled("t.n + excluded.n", {"t.n": INT, "excluded.n": INT})
    assert set(expression.columns) == {"t.n", "excluded.n"}
    chunked = pa.chunked_array([pa.array([1], pa.int32()), pa.array([None], pa.int32())])
    found = expression.evaluate({"t.n": chunked, "excluded.n": pa.array([5, 5], pa.int32())}, [], 2)
    assert found.to_pylist() == [6, None]
    assert expression.evaluate_row({"t.n": 1, "excluded.n": 5}, []) == 6


def test_constants_fill_all_rows() -> None:
    assert compiled("1 + 1").evaluate({}, [], 3).to_pylist() == [2, 2, 2]
    assert compiled("i4").evaluate({"i4": pa.chunked_array([], pa.int32())}, [], 0).to_pylist() == []


@pytest.mark.parametrize("column", ["f4", "f8"])
@pytest.mark.parametrize("zero", ["0.0", "-0.0"])
def test_both_zeros_are_in_a_list_with_one(column: str, zero: str) -> None:
    values = [0.0, -0.0, 1.0, 5.0, None]
    for text, expected in (
        (f"{column} IN ({zero}, 1.0, 2.0, 3.0)", [True, True, True, False, None]),
        (f"{column} IN ({zero}, 1.0, 2.0, NULL)", [True, True, True, None, None]),
    ):
        expression = compiled(text)
        found = expression.evaluate({column: pa.array(values, pa.float32() if column == "f4" else pa.float64())}, [], 5)
        assert found.to_pylist() == expected
        assert [expression.evaluate_row({column: value}, []) for value in values] == expected


def test_long_and_deep_expressions() -> None:
    many = " AND ".join(f"i4 <> {n}" for n in range(2000))
    expression = compiled(many)
    assert expression.evaluate({"i4": pa.array([5, 5000], pa.int32())}, [], 2).to_pylist() == [False, True]
    assert expression.evaluate_row({"i4": 5000}, []) is True
    options = compiled(f"i4 IN ({', '.join(map(str, range(5000)))}, NULL)")
    assert options.evaluate({"i4": pa.array([5, 5000, None], pa.int32())}, [], 3).to_pylist() == [True, None, None]
    assert options.evaluate_row({"i4": 5000}, []) is None
    assert compiled("-(" * 200 + "i4" + ")" * 200) is None
