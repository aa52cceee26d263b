"""Putting computed columns into a table's columns: the conversions that INSERT … SELECT and SET make by themselves.

Plain literals and parameters must fit their column exactly (`sql.values`). What a query computes is converted as SQL
does on assignment: numbers are rounded to the column's scale (a DOUBLE half to even, a DECIMAL half away from zero)
and must be in range, text is read as a literal of the column's type would be, times lose the part that the column
has not. Anything else needs a CAST.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sql.errors import ExecutionError
from sql.values import DATE_RANGE, TIMESTAMP_RANGE, converter
from storage.contiguous import one_array
from storage.types import ColumnType, Kind, arrow_type

INTEGERS = frozenset({Kind.SMALLINT, Kind.INT, Kind.BIGINT})
FLOATS = frozenset({Kind.FLOAT, Kind.DOUBLE})
NUMBERS = INTEGERS | FLOATS | {Kind.DECIMAL}
_TEXTS = frozenset({Kind.TEXT, Kind.JSON, Kind.FILE})
_AS_TEXT = INTEGERS | {Kind.BOOLEAN, Kind.DECIMAL, Kind.JSON, Kind.FILE}


def assign(values: pa.Array | pa.ChunkedArray, source: ColumnType, target: ColumnType, column: str) -> pa.Array:
    """A computed column as one array of the target's storage type; raises ExecutionError that names the column."""
    array = one_array(values)
    storage = arrow_type(target)
    if array.null_count == len(array):
        return pa.nulls(len(array), storage)
    if source == target:
        return _finite(array, target, column)
    if source.kind in NUMBERS and target.kind in NUMBERS:
        return _finite(_number(array, target, column), target, column)
    if source.kind in _TEXTS and target.kind is not Kind.TEXT:
        convert = converter(target, column, ExecutionError)
        return pa.array([convert(value) for value in array.to_pylist()], storage)
    if target.kind is Kind.TEXT and source.kind in _AS_TEXT:
        return array.cast(storage)
    if source.kind in _MOMENTS.get(target.kind, ()):
        return _finite(_cast(array, storage, target, column, safe=False), target, column)
    raise ExecutionError(f"column '{column}' is {target}, but the expression is {source}; write CAST(… AS {target})")


_MOMENTS: dict[Kind, frozenset[Kind]] = {
    Kind.TIMESTAMP: frozenset({Kind.DATETIME, Kind.DATE}),
    Kind.DATETIME: frozenset({Kind.TIMESTAMP, Kind.DATE}),
    Kind.DATE: frozenset({Kind.TIMESTAMP, Kind.DATETIME}),
    Kind.TIME: frozenset({Kind.TIMESTAMP, Kind.DATETIME}),
}


_TIME_RANGES = {Kind.TIMESTAMP: TIMESTAMP_RANGE, Kind.DATETIME: TIMESTAMP_RANGE, Kind.DATE: DATE_RANGE}


def _number(array: pa.Array, target: ColumnType, column: str) -> pa.Array:
    storage = arrow_type(target)
    if target.kind in FLOATS:
        return _cast(array, storage, target, column, safe=False)
    scale = target.scale if target.kind is Kind.DECIMAL else 0
    if pa.types.is_floating(array.type):
        if target.kind is Kind.DECIMAL:
            return _decimal_from_float(array, target, column)
        array = pc.round(array, 0, round_mode="half_to_even")
    elif pa.types.is_decimal(array.type) and array.type.scale > scale:
        array = pc.round(array, scale, round_mode="half_towards_infinity")
    if target.kind is Kind.DECIMAL:
        return _to_decimal(array, target, column)
    return _cast(array, storage, target, column, safe=True)


def _decimal_from_float(array: pa.Array, target: ColumnType, column: str) -> pa.Array:
    """Doubles by their shortest text, so that 0.1 is 0.1, rounded to the scale."""
    from decimal import ROUND_HALF_UP, Context, Decimal, DecimalException

    context = Context(prec=target.precision, rounding=ROUND_HALF_UP)
    unit = Decimal(1).scaleb(-target.scale)
    try:
        values = [
            None if value is None else Decimal(repr(value)).quantize(unit, context=context)
            for value in array.to_pylist()
        ]
        return pa.array(values, arrow_type(target))
    except (DecimalException, pa.ArrowInvalid):
        raise _out_of_range(array, target, column) from None


def _to_decimal(array: pa.Array, target: ColumnType, column: str) -> pa.Array:
    """Integers and decimals (already rounded) to the target, checked against its precision."""
    wide = pa.decimal256(76, target.scale)
    try:
        return array.cast(wide).cast(arrow_type(target))
    except pa.ArrowInvalid:
        raise _out_of_range(array, target, column) from None


def _cast(array: pa.Array, storage: pa.DataType, target: ColumnType, column: str, *, safe: bool) -> pa.Array:
    try:
        return array.cast(storage, safe=safe)
    except pa.ArrowInvalid:
        raise _out_of_range(array, target, column) from None


def _finite(array: pa.Array, target: ColumnType, column: str) -> pa.Array:
    """Columns hold no NaN and no infinity, neither of numbers nor of time."""
    if target.kind in FLOATS or target.kind is Kind.EMBEDDING:
        numbers = array if target.kind in FLOATS else array.flatten()
        finite: Any = pc.all(pc.is_finite(numbers), skip_nulls=True, min_count=0)
        if not finite.as_py():
            raise _out_of_range(array, target, column)
    elif target.kind in _TIME_RANGES:
        low, high = _TIME_RANGES[target.kind]
        bounds: Any = pc.min_max(array.view(pa.int32() if target.kind is Kind.DATE else pa.int64()))
        if len(array) > array.null_count and not (low <= bounds["min"].as_py() and bounds["max"].as_py() <= high):
            raise _out_of_range(array, target, column)
    return array


def _out_of_range(array: pa.Array, target: ColumnType, column: str) -> ExecutionError:
    """The error; it shows a value only when there is just one, as then it is surely the offending one."""
    shown = f" {array[0].as_py()}" if len(array) == 1 and target.kind not in _TIME_RANGES else ""
    return ExecutionError(f"column '{column}' ({target}) cannot hold the value{shown} that was computed for it")
