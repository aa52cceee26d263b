"""DuckDB's type names and our logical types: what a scan shows to DuckDB, and what a result column becomes.

Going in, a column keeps its meaning: UUIDs and JSON are Arrow extension types that DuckDB reads as UUID and
JSON (FILE columns too, so that `->` works on them); EMBEDDING(n) is FLOAT[n].

Coming out, a DuckDB type without a counterpart of ours becomes the nearest that holds every value:

======================================  ================================================
DuckDB                                  result column
======================================  ================================================
TINYINT, UTINYINT                       SmallInt
USMALLINT                               Int
UINTEGER                                BigInt
HUGEINT (SUM of integers)               BigInt, an error when a value does not fit
UBIGINT                                 Decimal(20, 0)
UHUGEINT                                Decimal(38, 0), an error when a value does not fit
TIMESTAMP_S, _MS, _NS                   Timestamp (nanoseconds are cut)
FLOAT[n], n <= 8192                     Embedding(n)
LIST, other ARRAY, STRUCT, MAP,         Json, by DuckDB's to_json
UNION, VARIANT
INTERVAL, ENUM, BIT, TIMETZ, BIGNUM,    Text, by DuckDB's cast to VARCHAR
GEOMETRY, NULL
======================================  ================================================
"""

from __future__ import annotations

import re

import pyarrow as pa

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
    Kind,
    arrow_type,
    decimal,
    embedding,
)

_PLAIN: dict[str, ColumnType] = {
    "BOOLEAN": BOOLEAN,
    "TINYINT": SMALLINT,
    "UTINYINT": SMALLINT,
    "SMALLINT": SMALLINT,
    "USMALLINT": INT,
    "INTEGER": INT,
    "UINTEGER": BIGINT,
    "BIGINT": BIGINT,
    "HUGEINT": BIGINT,
    "UBIGINT": decimal(20, 0),
    "UHUGEINT": decimal(38, 0),
    "FLOAT": FLOAT,
    "DOUBLE": DOUBLE,
    "VARCHAR": TEXT,
    "TIMESTAMP": TIMESTAMP,
    "TIMESTAMP_S": TIMESTAMP,
    "TIMESTAMP_MS": TIMESTAMP,
    "TIMESTAMP_NS": TIMESTAMP,
    "TIMESTAMP WITH TIME ZONE": DATETIME,
    "DATE": DATE,
    "TIME": TIME,
    "JSON": JSON,
    "BLOB": BYTES,
    "UUID": UUID,
    "INTEGER_LITERAL": BIGINT,
    "STRING_LITERAL": TEXT,
}
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)\Z")
_FLOATS = re.compile(r"FLOAT\[(\d+)\]\Z")
_AS_JSON = ("STRUCT", "MAP", "UNION", "VARIANT")
_MAX_EMBEDDING = 8192

_SQL_NAMES = {
    Kind.BOOLEAN: "BOOLEAN",
    Kind.SMALLINT: "SMALLINT",
    Kind.INT: "INTEGER",
    Kind.BIGINT: "BIGINT",
    Kind.FLOAT: "FLOAT",
    Kind.DOUBLE: "DOUBLE",
    Kind.TEXT: "VARCHAR",
    Kind.TIMESTAMP: "TIMESTAMP",
    Kind.DATETIME: "TIMESTAMPTZ",
    Kind.DATE: "DATE",
    Kind.TIME: "TIME",
    Kind.JSON: "JSON",
    Kind.FILE: "JSON",
    Kind.BYTES: "BLOB",
    Kind.UUID: "UUID",
}


def duck_name(column_type: ColumnType) -> str:
    """DuckDB's name of a logical type."""
    if column_type.kind is Kind.DECIMAL:
        return f"DECIMAL({column_type.precision},{column_type.scale})"
    if column_type.kind is Kind.EMBEDDING:
        return f"FLOAT[{column_type.dimension}]"
    return _SQL_NAMES[column_type.kind]


def result_type(duck: str) -> ColumnType:
    """The logical type of a result column of that DuckDB type."""
    if (plain := _PLAIN.get(duck)) is not None:
        return plain
    if match := _DECIMAL.match(duck):
        return decimal(int(match[1]), int(match[2]))
    if match := _FLOATS.match(duck):
        dimension = int(match[1])
        return embedding(dimension) if dimension <= _MAX_EMBEDDING else JSON
    return JSON if duck.endswith("]") or duck.startswith(_AS_JSON) else TEXT


def output_cast(duck: str) -> str | None:
    """How SQL brings a column of that type to its result type, the column being `{0}`.

    None when it needs no such step, or is converted in Arrow, as HUGEINT is.
    """
    if duck == "UHUGEINT":
        return "CAST({0} AS DECIMAL(38,0))"
    if duck == "UBIGINT":
        return "CAST({0} AS DECIMAL(20,0))"
    if duck in _PLAIN or _DECIMAL.match(duck) or (_FLOATS.match(duck) and result_type(duck) is not JSON):
        return None
    if result_type(duck) is JSON:
        return "CASE WHEN {0} IS NULL THEN NULL ELSE to_json({0}) END"
    return "CAST({0} AS VARCHAR)"


def parameter_type(duck: str) -> tuple[ColumnType, bool] | None:
    """The logical type that a parameter of that DuckDB type takes, and whether it is a list; None if unknown."""
    if duck.endswith("[]"):
        element = parameter_type(duck[:-2])
        return None if element is None or element[1] else (element[0], True)
    if duck in _PLAIN or _DECIMAL.match(duck) or _FLOATS.match(duck):
        return result_type(duck), False
    return None


_EXTENSIONS: dict[Kind, pa.DataType] = {Kind.UUID: pa.uuid(), Kind.JSON: pa.json_(), Kind.FILE: pa.json_()}


def to_duck_column(column_type: ColumnType, data: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same column with the Arrow type that DuckDB reads as the logical type; nothing is copied."""
    extension = _EXTENSIONS.get(column_type.kind)
    if extension is None:
        return data
    return pa.chunked_array([pa.ExtensionArray.from_storage(extension, chunk) for chunk in data.chunks], type=extension)


def duck_arrow_type(column_type: ColumnType) -> pa.DataType:
    """The Arrow type that DuckDB reads as the logical type."""
    return _EXTENSIONS.get(column_type.kind) or arrow_type(column_type)
