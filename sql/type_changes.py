"""Which changes of a column's type are instant: those whose old stored values read unchanged as the new type.

Batches keep the type that they were written with; a reader casts them to the table's current one. So a change is
instant when that cast is exact for every value. All others would have to rewrite the table, and are refused.
"""

from __future__ import annotations

import pyarrow as pa

from storage.layout import encode_initial
from storage.types import ColumnType, Kind, arrow_type

_DIGITS = {Kind.SMALLINT: 5, Kind.INT: 10, Kind.BIGINT: 19}
_WIDER = {
    Kind.SMALLINT: frozenset({Kind.INT, Kind.BIGINT, Kind.FLOAT, Kind.DOUBLE}),
    Kind.INT: frozenset({Kind.BIGINT, Kind.DOUBLE}),
    Kind.FLOAT: frozenset({Kind.DOUBLE}),
    Kind.JSON: frozenset({Kind.TEXT}),
}
_INTEGERS = frozenset(_DIGITS)
_FLOATS = frozenset({Kind.FLOAT, Kind.DOUBLE})


def is_widening(old: ColumnType, new: ColumnType) -> bool:
    """Whether every value of `old` is exactly a value of `new`."""
    if new.kind is Kind.DECIMAL:
        whole = new.precision - new.scale
        if old.kind is Kind.DECIMAL:
            return new.scale >= old.scale and whole >= old.precision - old.scale
        return old.kind in _DIGITS and whole >= _DIGITS[old.kind]
    return new.kind in _WIDER.get(old.kind, ())


def keeps_keys(old: ColumnType, new: ColumnType) -> bool:
    """Whether keys encoded from values of `old` are those of the same values as `new` (storage.keys)."""
    if old.kind is Kind.DECIMAL and new.kind is Kind.DECIMAL:
        return old.scale == new.scale
    return {old.kind, new.kind} <= _INTEGERS or {old.kind, new.kind} <= _FLOATS


def initial_of(column_type: ColumnType, value: object) -> bytes | None:
    """`ColumnDef.initial` for a storage value; None for NULL."""
    return None if value is None else encode_initial(pa.array([value], arrow_type(column_type)))


def convert_initial(initial: bytes | None, new: ColumnType) -> bytes | None:
    """`ColumnDef.initial` after its column's type was widened."""
    if initial is None:
        return None
    with pa.ipc.open_stream(initial) as reader:
        array = reader.read_all().column(0).combine_chunks()
    return encode_initial(array.cast(arrow_type(new)))
