"""Logical column types and the Arrow types that store them.

Storage values (what a Python row tuple holds, and what `pyarrow.array(values, arrow_type(t))` takes):

=================  ======================  =========================================
kind               Arrow type              storage value
=================  ======================  =========================================
Boolean            bool                    bool
SmallInt/Int/...   int16 / int32 / int64   int
Float/Double       float32 / float64       float (never NaN or infinite)
Text, Json, File   string                  str
Timestamp          timestamp[us]           int, microseconds since the epoch
DateTime           timestamp[us, UTC]      int, microseconds since the epoch
Date               date32                  int, days since the epoch
Time               time64[us]              int, microseconds since midnight
Bytes              binary                  bytes
Uuid               fixed_size_binary(16)   bytes, 16, big-endian
Decimal(p, s)      decimal128(p, s)        decimal.Decimal with exactly s decimals
Embedding(n)       fixed_size_list<float>  list of n floats
=================  ======================  =========================================
"""

from __future__ import annotations

import enum

import msgspec
import pyarrow as pa


class Kind(enum.StrEnum):
    """The logical types, by the name that the wire format uses for them."""

    BOOLEAN = "Boolean"
    SMALLINT = "SmallInt"
    INT = "Int"
    BIGINT = "BigInt"
    FLOAT = "Float"
    DOUBLE = "Double"
    TEXT = "Text"
    TIMESTAMP = "Timestamp"
    DATETIME = "DateTime"
    DATE = "Date"
    TIME = "Time"
    JSON = "Json"
    BYTES = "Bytes"
    UUID = "Uuid"
    DECIMAL = "Decimal"
    EMBEDDING = "Embedding"
    FILE = "File"


class ColumnType(msgspec.Struct, frozen=True, omit_defaults=True):
    """A logical type with its parameters: precision and scale for Decimal, dimension for Embedding."""

    kind: Kind
    precision: int = 0
    scale: int = 0
    dimension: int = 0

    def wire_name(self) -> str | dict[str, object]:
        """The `data_type` of the wire format: a name, or an object for parametrised types."""
        if self.kind is Kind.DECIMAL:
            return {"Decimal": {"precision": self.precision, "scale": self.scale}}
        if self.kind is Kind.EMBEDDING:
            return {"Embedding": self.dimension}
        return self.kind.value

    def __str__(self) -> str:
        """The SQL spelling, as in DESCRIBE: `BIGINT`, `DECIMAL(38,10)`, `EMBEDDING(3)`."""
        if self.kind is Kind.DECIMAL:
            return f"DECIMAL({self.precision},{self.scale})"
        if self.kind is Kind.EMBEDDING:
            return f"EMBEDDING({self.dimension})"
        return self.kind.value.upper()


BOOLEAN = ColumnType(Kind.BOOLEAN)
SMALLINT = ColumnType(Kind.SMALLINT)
INT = ColumnType(Kind.INT)
BIGINT = ColumnType(Kind.BIGINT)
FLOAT = ColumnType(Kind.FLOAT)
DOUBLE = ColumnType(Kind.DOUBLE)
TEXT = ColumnType(Kind.TEXT)
TIMESTAMP = ColumnType(Kind.TIMESTAMP)
DATETIME = ColumnType(Kind.DATETIME)
DATE = ColumnType(Kind.DATE)
TIME = ColumnType(Kind.TIME)
JSON = ColumnType(Kind.JSON)
BYTES = ColumnType(Kind.BYTES)
UUID = ColumnType(Kind.UUID)
FILE = ColumnType(Kind.FILE)

_SIMPLE: dict[Kind, pa.DataType] = {
    Kind.BOOLEAN: pa.bool_(),
    Kind.SMALLINT: pa.int16(),
    Kind.INT: pa.int32(),
    Kind.BIGINT: pa.int64(),
    Kind.FLOAT: pa.float32(),
    Kind.DOUBLE: pa.float64(),
    Kind.TEXT: pa.string(),
    Kind.TIMESTAMP: pa.timestamp("us"),
    Kind.DATETIME: pa.timestamp("us", "UTC"),
    Kind.DATE: pa.date32(),
    Kind.TIME: pa.time64("us"),
    Kind.JSON: pa.string(),
    Kind.BYTES: pa.binary(),
    Kind.UUID: pa.binary(16),
    Kind.FILE: pa.string(),
}

KEY_KINDS = frozenset(Kind) - {Kind.JSON, Kind.FILE, Kind.EMBEDDING}
"""Kinds that a primary key or UNIQUE constraint may use."""


def decimal(precision: int, scale: int) -> ColumnType:
    """DECIMAL(precision, scale), 1 <= precision <= 38, 0 <= scale <= precision."""
    return ColumnType(Kind.DECIMAL, precision=precision, scale=scale)


def embedding(dimension: int) -> ColumnType:
    """EMBEDDING(dimension), 1 <= dimension <= 8192."""
    return ColumnType(Kind.EMBEDDING, dimension=dimension)


def arrow_type(column_type: ColumnType) -> pa.DataType:
    """The Arrow type that stores a logical type."""
    if column_type.kind is Kind.DECIMAL:
        return pa.decimal128(column_type.precision, column_type.scale)
    if column_type.kind is Kind.EMBEDDING:
        return pa.list_(pa.float32(), column_type.dimension)
    return _SIMPLE[column_type.kind]
