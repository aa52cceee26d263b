"""Statistics of cold batches: bounds of each column's values, and which batches a condition cannot be true in.

Bounds are kept for numbers, decimals (as text), text, bytes, dates, times, booleans and UUIDs; of JSON, FILE and
EMBEDDING columns only the NULLs are counted. Text and bytes compare as the query engine compares them (text by code
points, which is the order of its UTF-8); long ones are cut: the lower bound is a beginning of the least value, the
upper one is greater than every value that begins like the greatest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from storage.catalog import ColumnDef
from storage.cold_segments import ColumnStats, Value
from storage.layout import storage_value
from storage.types import Kind

LONGEST = 64
"""Characters (bytes) of text (bytes) that a bound keeps."""
_UNBOUNDED = frozenset({Kind.JSON, Kind.FILE, Kind.EMBEDDING})
_FAMILIES = (
    frozenset({Kind.SMALLINT, Kind.INT, Kind.BIGINT}),
    frozenset({Kind.FLOAT, Kind.DOUBLE}),
)
_LAST_CHARACTER = 0x10FFFF
_SURROGATES = 0xD800, 0xDFFF


class Bounds(NamedTuple):
    """What a condition says about a column: its value lies from `low` to `high` (None: open), and is one of `among`.

    Bounds are storage values and included; a condition that excludes one is given with it all the same.
    """

    low: object = None
    high: object = None
    among: Sequence[object] | None = None


def column_statistics(columns: Sequence[ColumnDef], arrays: Sequence[pa.Array]) -> dict[int, ColumnStats]:
    """The statistics of one batch, by column id."""
    return {column.column_id: _statistics(column, array) for column, array in zip(columns, arrays, strict=True)}


def _statistics(column: ColumnDef, array: pa.Array) -> ColumnStats:
    kind = column.type.kind
    if kind in _UNBOUNDED:
        return ColumnStats(array.null_count, bounded=False)
    if array.null_count == len(array):
        return ColumnStats(array.null_count, bounded=True)
    least = pc.min_max(array)
    low, high = (storage_value(least[name]) for name in ("min", "max"))
    if isinstance(low, Decimal) or isinstance(high, Decimal):
        return ColumnStats(array.null_count, True, str(low), str(high))
    if isinstance(low, (str, bytes)) and isinstance(high, (str, bytes)):
        upper = _cut_above(high)
        return ColumnStats(array.null_count, upper is not None, low[:LONGEST] if upper is not None else None, upper)
    assert isinstance(low, (bool, int, float))
    assert isinstance(high, (bool, int, float))
    return ColumnStats(array.null_count, True, low, high)


def _cut_above(value: str | bytes) -> str | bytes | None:
    """The value when it is short, else something greater than all values that begin like it; None if there is none."""
    if len(value) <= LONGEST:
        return value
    if isinstance(value, bytes):
        cut = value[:LONGEST].rstrip(b"\xff")
        return cut[:-1] + bytes([cut[-1] + 1]) if cut else None
    text = value[:LONGEST].rstrip(chr(_LAST_CHARACTER))
    if not text:
        return None
    following = ord(text[-1]) + 1
    if _SURROGATES[0] <= following <= _SURROGATES[1]:
        following = _SURROGATES[1] + 1
    return text[:-1] + chr(following)


def merged(columns: Sequence[ColumnDef], parts: Iterable[Mapping[int, ColumnStats]]) -> dict[int, ColumnStats]:
    """The statistics of several batches of the same columns together."""
    parts = list(parts)
    if len(parts) == 1:
        return dict(parts[0])
    return {
        column.column_id: _together(column, [part[column.column_id] for part in parts if column.column_id in part])
        for column in columns
    }


def _together(column: ColumnDef, parts: Sequence[ColumnStats]) -> ColumnStats:
    nulls = sum(part.null_count for part in parts)
    if not all(part.bounded for part in parts):
        return ColumnStats(nulls, bounded=False)
    lows = [part.low for part in parts if part.low is not None]
    highs = [part.high for part in parts if part.high is not None]
    if not lows or not highs:
        return ColumnStats(nulls, bounded=True)

    def order(value: Value) -> Any:
        return _value(column, value)

    return ColumnStats(nulls, True, min(lows, key=order), max(highs, key=order))


def excludes(stats: ColumnStats, written: ColumnDef, column: ColumnDef, bounds: Bounds) -> bool:
    """Whether no row of a batch can satisfy the bounds. `written` is the column as the batch has it."""
    if not stats.bounded or not _comparable(written, column):
        return False
    if stats.low is None or stats.high is None:
        return True  # all NULL: no comparison is true
    low, high = _value(written, stats.low), _value(written, stats.high)
    if bounds.low is not None and high < bounds.low:  # type: ignore[operator]
        return True
    if bounds.high is not None and low > bounds.high:  # type: ignore[operator]
        return True
    return bounds.among is not None and not any(
        low <= value <= high  # type: ignore[operator]
        for value in bounds.among
        if value is not None
    )


def _comparable(written: ColumnDef, column: ColumnDef) -> bool:
    """Whether stored bounds mean the same in the column's present type."""
    old, new = written.type.kind, column.type.kind
    return old is new or any(old in family and new in family for family in _FAMILIES)


def _value(column: ColumnDef, value: Value) -> object:
    return Decimal(value) if column.type.kind is Kind.DECIMAL and isinstance(value, str) else value
