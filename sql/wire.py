"""Values on their way out: storage values and Arrow columns to the values of the wire format.

===================  ========================================================================================
type                 wire value (NULL is null)
===================  ========================================================================================
Boolean, SmallInt,   as it is
Int, Text, Double
BigInt               a number or a string, by `BigintMode`
Float                the shortest number that reads back as the same 32-bit float
Timestamp, DateTime  microseconds since the epoch, a number in every mode
Date, Time           days since the epoch, microseconds since midnight
Json, File           string of JSON text
Bytes                array of numbers from 0 to 255
Uuid                 hyphenated string
Decimal(p, s)        string with exactly s decimals
Embedding(n)         array of n numbers, each as Float
===================  ========================================================================================

SQL rows, NDJSON, WebSocket rows and topic payloads all come through here.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sql.errors import ExecutionError
from storage.types import ColumnType, Kind
from storage.uuid_text import uuid_texts

Column: TypeAlias = pa.Array | pa.ChunkedArray

LARGEST_SAFE = 2**53 - 1
"""The largest integer that clients with 64-bit floats for numbers read exactly."""

_COUNTS = frozenset({Kind.TIMESTAMP, Kind.DATETIME, Kind.DATE, Kind.TIME})
_AS_STORED = frozenset({Kind.BOOLEAN, Kind.SMALLINT, Kind.INT, Kind.TEXT, Kind.JSON, Kind.FILE})


class BigintMode(enum.StrEnum):
    """How BigInt values are written: `[wire] bigint` of the configuration."""

    AUTO = "auto"
    """A number within ±(2^53-1), a string beyond."""
    STRING = "string"
    NUMBER = "number"


def uuid_text(value: bytes) -> str:
    """The hyphenated form of 16 bytes."""
    digits = value.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def to_wire(value: Any, column_type: ColumnType, mode: BigintMode = BigintMode.AUTO, column: str = "") -> object:
    """The wire value of one storage value. Raises ExecutionError naming `column` for NaN and infinities."""
    kind = column_type.kind
    if value is None or kind in _AS_STORED or kind in _COUNTS:
        return value
    if kind is Kind.BIGINT:
        return _bigint(value, mode)
    if kind is Kind.DOUBLE:
        return _finite(value, column, column_type)
    if kind is Kind.FLOAT:
        return _shortest(_finite(value, column, column_type))
    if kind is Kind.EMBEDDING:
        return [_shortest(_finite(number, column, column_type)) for number in value]
    if kind is Kind.DECIMAL:
        return _decimal_text(value)
    return uuid_text(value) if kind is Kind.UUID else list(value)


def wire_values(column: Column, column_type: ColumnType, mode: BigintMode, name: str) -> list[object]:
    """The wire values of a column of the type's storage Arrow type; `name` is for errors.

    Raises ExecutionError when a floating-point column holds NaN or an infinity.
    """
    kind = column_type.kind
    if kind in _AS_STORED:
        return _pylist(column)
    if kind in _COUNTS:
        return _counts(column, kind)
    if kind is Kind.BIGINT:
        return _bigints(column, mode)
    if kind in _FLOATING:
        _check_finite(column, column_type, name)
    return _CONVERSIONS[kind](column)


def storage_values(column: Column, column_type: ColumnType) -> list[object]:
    """The storage values (`storage.types`) of a column of the type's storage Arrow type."""
    return _counts(column, column_type.kind) if column_type.kind in _COUNTS else _pylist(column)


def _pylist(column: Column) -> list[object]:
    values: list[object] = column.to_pylist()
    return values


def _chunks(column: Column) -> list[pa.Array]:
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]


def _counts(column: Column, kind: Kind) -> list[object]:
    integers = pa.int32() if kind is Kind.DATE else pa.int64()
    values: list[object] = []
    for chunk in _chunks(column):
        values += chunk.view(integers).to_pylist()
    return values


def _bigint(value: int, mode: BigintMode) -> object:
    if mode is BigintMode.NUMBER or (mode is BigintMode.AUTO and -LARGEST_SAFE <= value <= LARGEST_SAFE):
        return value
    return str(value)


def _bigints(column: Column, mode: BigintMode) -> list[object]:
    if mode is BigintMode.STRING:
        return _pylist(column.cast(pa.string()))
    values: list[Any] = column.to_pylist()
    if mode is BigintMode.NUMBER or len(values) == 0:
        return values
    if len(values) > 64:
        bounds = pc.min_max(column).as_py()
        if bounds["min"] is None or -LARGEST_SAFE <= bounds["min"] <= bounds["max"] <= LARGEST_SAFE:
            return values
    return [v if v is None or -LARGEST_SAFE <= v <= LARGEST_SAFE else str(v) for v in values]


def _finite(value: float, column: str, column_type: ColumnType) -> float:
    if not math.isfinite(value):
        raise _not_finite(column, column_type)
    return value


def _not_finite(column: str, column_type: ColumnType) -> ExecutionError:
    return ExecutionError(f"column '{column}' ({column_type}) holds NaN or an infinity, which JSON cannot carry")


def _check_finite(column: Column, column_type: ColumnType, name: str) -> None:
    for chunk in _chunks(column):
        numbers = chunk.flatten() if column_type.kind is Kind.EMBEDDING else chunk
        if not pc.all(pc.is_finite(numbers), min_count=0).as_py():
            raise _not_finite(name, column_type)


def _shortest(value: float) -> float:
    """The double whose text is the shortest that reads back as this 32-bit float: 0.1, not 0.10000000149."""
    return float(str(np.float32(value)))


def _shortest_all(column: Column) -> pa.Array:
    return column.cast(pa.string()).cast(pa.float64())


def _embeddings(column: Column) -> list[object]:
    lists: list[object] = []
    for chunk in _chunks(column):
        wide = pa.FixedSizeListArray.from_arrays(
            _shortest_all(pc.fill_null(_all_numbers(chunk), 0.0)), chunk.type.list_size, mask=chunk.is_null()
        )
        lists += wide.to_pylist()
    return lists


def _all_numbers(lists: pa.Array) -> pa.Array:
    """The numbers of a fixed-size list array, those below NULL lists included."""
    size = lists.type.list_size
    return lists.values.slice(lists.offset * size, len(lists) * size)


def _decimal_text(value: Decimal) -> str:
    return f"{value:f}"


def _decimals(column: Column) -> list[object]:
    texts: list[Any] = column.cast(pa.string()).to_pylist()
    # Arrow writes small values with an exponent: 1E-10, 0E-10.
    return [_decimal_text(Decimal(text)) if text is not None and "E" in text else text for text in texts]


def _uuids(column: Column) -> list[object]:
    texts: list[object] = []
    for chunk in _chunks(column):
        texts += uuid_texts(chunk).to_pylist()
    return texts


def _byte_lists(column: Column) -> list[object]:
    return [None if value is None else list(value) for value in column.to_pylist()]


_FLOATING = frozenset({Kind.FLOAT, Kind.DOUBLE, Kind.EMBEDDING})
_CONVERSIONS: dict[Kind, Callable[[Column], list[object]]] = {
    Kind.DOUBLE: _pylist,
    Kind.FLOAT: lambda column: _pylist(_shortest_all(column)),
    Kind.EMBEDDING: _embeddings,
    Kind.DECIMAL: _decimals,
    Kind.BYTES: _byte_lists,
    Kind.UUID: _uuids,
}
