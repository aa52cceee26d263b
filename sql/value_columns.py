"""Many values of one column at once: the everyday cases of `sql.values`, without Python code for each value.

`column_of` gives the Arrow column when all values are of the plain Python type that their column takes as it is, and
None for everything else (mixed types, values out of range, unusual spellings): then `sql.values.converter` decides,
value by value, and says what is wrong. It never takes a value that the converter would refuse or read otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from types import NoneType

import pyarrow as pa
import pyarrow.compute as pc

from sql.values import TIMESTAMP_RANGE
from storage.types import ColumnType, Kind, arrow_type

_TIMESTAMP = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d{1,6})?$"
_DATE = r"^\d{4}-\d{2}-\d{2}$"

_Values = Sequence[object]
_Types = set[type]


def column_of(values: _Values, column_type: ColumnType) -> pa.Array | None:
    """The column of storage values, or None when each value has to be looked at."""
    make = _MAKERS.get(column_type.kind)
    if make is None:
        return None
    types = set(map(type, values))
    types.discard(NoneType)
    try:
        return make(values, types, arrow_type(column_type))
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, ValueError):
        return None


def _integers(values: _Values, types: _Types, storage: pa.DataType) -> pa.Array | None:
    return pa.array(values, storage) if types <= {int} else None


def _booleans(values: _Values, types: _Types, storage: pa.DataType) -> pa.Array | None:
    return pa.array(values, storage) if types <= {bool} else None


def _texts(values: _Values, types: _Types, storage: pa.DataType) -> pa.Array | None:
    return pa.array(values, storage) if types <= {str} else None


def _doubles(values: _Values, types: _Types, storage: pa.DataType) -> pa.Array | None:
    if Decimal in types and types <= {int, Decimal}:
        values = [None if value is None else float(value) for value in values]  # type: ignore[arg-type]
    elif not types <= {int, float}:
        return None
    array = pa.array(values, storage)
    return array if pc.all(pc.is_finite(array)).as_py() is not False else None


def _timestamps(values: _Values, types: _Types, storage: pa.DataType) -> pa.Array | None:
    if types <= {int}:
        numbers = pa.array(values, pa.int64())
        low, high = pc.min_max(numbers).as_py().values()
        inside = low is None or (TIMESTAMP_RANGE[0] <= low and high <= TIMESTAMP_RANGE[1])
        return numbers.cast(storage) if inside else None
    return _spelled(values, types, _TIMESTAMP, storage)


def _dates(values: _Values, types: _Types, storage: pa.DataType) -> pa.Array | None:
    return _spelled(values, types, _DATE, storage)


def _spelled(values: _Values, types: _Types, pattern: str, storage: pa.DataType) -> pa.Array | None:
    """Texts that all look like `pattern`, which Arrow reads as we do."""
    if not types <= {str}:
        return None
    texts = pa.array(values, pa.string())
    plain = pc.all(pc.match_substring_regex(texts, pattern)).as_py()
    years = pc.any(pc.starts_with(texts, "0000")).as_py()
    return texts.cast(storage) if plain is not False and not years else None


_MAKERS: dict[Kind, Callable[[_Values, _Types, pa.DataType], pa.Array | None]] = {
    Kind.BOOLEAN: _booleans,
    Kind.SMALLINT: _integers,
    Kind.INT: _integers,
    Kind.BIGINT: _integers,
    Kind.DOUBLE: _doubles,
    Kind.TEXT: _texts,
    Kind.TIMESTAMP: _timestamps,
    Kind.DATE: _dates,
}
