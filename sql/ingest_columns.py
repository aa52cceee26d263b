"""Columns of an ingested body to columns of a table: exact, or refused with the row and the column's name.

Each column is converted as a whole where Arrow does what `sql.values` does. Where that fails, the column is halved
until the pieces are small and those are converted value by value, which also finds the rows that are at fault: the
price of odd values is paid only around them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from sql.errors import InvalidInput, SqlError
from sql.values import DATE_RANGE, TIME_RANGE, TIMESTAMP_RANGE, converter, place_name
from storage.catalog import ColumnDef, TableDef
from storage.types import ColumnType, Kind, arrow_type

MAX_REPORTED = 10
"""How many bad rows an error names."""
_PIECE = 128


class BadRow(NamedTuple):
    """A row that cannot be taken: its position from 0 in the batch, and why."""

    row: int
    message: str


class BadRowsFound(Exception):
    """Some rows of a batch cannot be taken; at most MAX_REPORTED are listed, in order."""

    def __init__(self, rows: Iterable[BadRow]) -> None:
        super().__init__("bad rows")
        self.rows = sorted(rows)[:MAX_REPORTED]


class _UnsureError(Exception):
    """Arrow might read the values otherwise than `sql.values` does."""


def resolve_columns(names: Sequence[str], table: TableDef) -> list[ColumnDef]:
    """The table's columns of these names (in any case). Raises InvalidInput for unknown or repeated ones."""
    columns = []
    for name in names:
        column = table.by_name.get(name) or table.by_name.get(name.lower())
        if column is None:
            raise InvalidInput(f"The body has a column '{name[:100]}' that table {table.full_name} does not have")
        if column in columns:
            raise InvalidInput(f"The body has column '{column.name}' twice")
        columns.append(column)
    return columns


def convert_columns(arrays: Sequence[pa.Array], columns: Sequence[ColumnDef]) -> pa.Table:
    """A table of these columns with their storage Arrow types.

    Raises BadRowsFound, or InvalidInput for a source type that has no meaning for a column.
    """
    converted, bad = [], []
    for array, column in zip(arrays, columns, strict=True):
        try:
            converted.append(convert_column(array, column))
        except BadRowsFound as found:
            bad += found.rows
    if bad:
        raise BadRowsFound(bad)
    return pa.table(converted, names=[column.name for column in columns])


def convert_column(array: pa.Array, column: ColumnDef) -> pa.Array:
    """One column in its storage Arrow type. Raises as `convert_columns` does."""
    target = arrow_type(column.type)
    array = _plain(array)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), target)
    if not _is_source(array.type, column.type):
        raise InvalidInput(f"{place_name(column.name, column.type)} cannot be filled from Arrow type {array.type}")
    bad: list[BadRow] = []
    pieces: list[pa.Array] = []
    _convert_piece(array, 0, column, pieces, bad)
    if bad:
        raise BadRowsFound(bad)
    return pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces)


def _convert_piece(array: pa.Array, start: int, column: ColumnDef, pieces: list[pa.Array], bad: list[BadRow]) -> None:
    if len(bad) >= MAX_REPORTED:
        return
    try:
        pieces.append(_vectorised(array, column.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, _UnsureError):
        if len(array) <= _PIECE:
            pieces.append(_one_by_one(array, start, column, bad))
            return
        middle = len(array) // 2
        _convert_piece(array.slice(0, middle), start, column, pieces, bad)
        _convert_piece(array.slice(middle), start + middle, column, pieces, bad)


def _one_by_one(array: pa.Array, start: int, column: ColumnDef, bad: list[BadRow]) -> pa.Array:
    convert = converter(column.type, column.name, InvalidInput)
    if pa.types.is_temporal(array.type):
        return _temporals_one_by_one(array, start, column, bad)
    values = []
    for row, value in enumerate(array.to_pylist(), start):
        try:
            values.append(convert(value))
        except SqlError as error:
            bad.append(BadRow(row, error.message))
            values.append(None)
    return pa.array(values, arrow_type(column.type))


def _temporals_one_by_one(array: pa.Array, start: int, column: ColumnDef, bad: list[BadRow]) -> pa.Array:
    pieces = []
    for index in range(len(array)):
        try:
            pieces.append(_vectorised(array.slice(index, 1), column.type))
        except (pa.ArrowInvalid, _UnsureError):
            place = place_name(column.name, column.type)
            why = f"cannot hold this {array.type}: it is finer than the type or outside its range"
            bad.append(BadRow(start + index, f"{place} {why}"))
    return pa.concat_arrays(pieces) if pieces else pa.array([], arrow_type(column.type))


def _plain(array: pa.Array) -> pa.Array:
    """The array without dictionaries, runs, extension types, and large or view layouts."""
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if pa.types.is_run_end_encoded(array.type):
        array = pc.run_end_decode(array)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
        return array.cast(pa.string())
    if pa.types.is_large_binary(array.type) or pa.types.is_binary_view(array.type):
        return array.cast(pa.binary())
    if pa.types.is_float16(array.type):
        return array.cast(pa.float32())
    return array


def _is_source(source: pa.DataType, target: ColumnType) -> bool:
    """Whether values of an Arrow type can mean something in a column at all."""
    kind, types = target.kind, pa.types
    if types.is_string(source):
        return True
    if types.is_binary(source) or types.is_fixed_size_binary(source):
        return kind in (Kind.BYTES, Kind.UUID)
    if types.is_list(source) or types.is_large_list(source) or types.is_fixed_size_list(source):
        inner = source.value_type
        return kind in (Kind.EMBEDDING, Kind.BYTES) and (types.is_integer(inner) or types.is_floating(inner))
    if types.is_timestamp(source) or types.is_date64(source):
        return kind in (Kind.TIMESTAMP, Kind.DATETIME) or (types.is_date64(source) and kind is Kind.DATE)
    if types.is_date32(source):
        return kind in (Kind.DATE, Kind.TIMESTAMP, Kind.DATETIME)
    if types.is_time(source):
        return kind is Kind.TIME
    if types.is_decimal(source):
        # Arrow reads beyond its tables when a hostile schema has another scale.
        return bool(0 <= source.scale <= source.precision)
    return bool(types.is_integer(source) or types.is_floating(source) or types.is_boolean(source))


def _vectorised(array: pa.Array, target: ColumnType) -> pa.Array:
    """The converted array; raises ArrowInvalid or _UnsureError when single values have to be looked at."""
    return _VECTORISED[target.kind](array, target)


def _unsure(array: pa.Array, target: ColumnType) -> pa.Array:
    raise _UnsureError


def _integers(array: pa.Array, target: ColumnType) -> pa.Array:
    if pa.types.is_boolean(array.type):
        raise _UnsureError
    if pa.types.is_string(array.type) and pc.any(pc.match_substring(array, "x", ignore_case=True)).as_py():
        raise _UnsureError  # Arrow reads 0x1F.
    return array.cast(arrow_type(target))


def _booleans(array: pa.Array, target: ColumnType) -> pa.Array:
    if pa.types.is_boolean(array.type):
        return array
    return array.cast(pa.bool_()) if pa.types.is_string(array.type) else _unsure(array, target)


def _floats(array: pa.Array, target: ColumnType) -> pa.Array:
    if pa.types.is_boolean(array.type):
        raise _UnsureError
    numbers = array.cast(pa.float64(), safe=False).cast(arrow_type(target), safe=False)
    if not pc.all(pc.is_finite(numbers), min_count=0).as_py():
        raise _UnsureError
    return numbers


def _decimals(array: pa.Array, target: ColumnType) -> pa.Array:
    if pa.types.is_boolean(array.type) or pa.types.is_floating(array.type):
        raise _UnsureError
    if pa.types.is_integer(array.type):
        array = array.cast(pa.decimal128(20, 0))
    return array.cast(arrow_type(target))


def _texts(array: pa.Array, target: ColumnType) -> pa.Array:
    return array if pa.types.is_string(array.type) else _unsure(array, target)


_JSON_LINES = msgspec.json.Decoder(msgspec.Raw)


def _jsons(array: pa.Array, target: ColumnType) -> pa.Array:
    """All texts checked in one pass, one a line; a text with a line break has to be looked at alone."""
    texts = array.drop_null() if pa.types.is_string(array.type) else _unsure(array, target)
    if pc.any(pc.match_substring(texts, "\n")).as_py():
        raise _UnsureError
    try:
        lines = _JSON_LINES.decode_lines("\n".join(texts.to_pylist()))
    except (msgspec.DecodeError, RecursionError):
        raise _UnsureError from None
    return array if len(lines) == len(texts) else _unsure(array, target)


def _temporals(bounds: tuple[int, int], carrier: pa.DataType) -> Callable[[pa.Array, ColumnType], pa.Array]:
    low, high = bounds

    def convert(array: pa.Array, target: ColumnType) -> pa.Array:
        storage = arrow_type(target)
        if pa.types.is_string(array.type):
            moments = _temporal_texts(array, storage)
        elif pa.types.is_integer(array.type):
            moments = array.cast(carrier).view(storage)
        elif pa.types.is_temporal(array.type):
            moments = _temporal_cast(array, storage)
        else:
            raise _UnsureError
        ends = pc.min_max(moments.view(carrier)).as_py()
        if ends["min"] is not None and not low <= ends["min"] <= ends["max"] <= high:
            raise _UnsureError
        return moments

    return convert


def _temporal_texts(array: pa.Array, storage: pa.DataType) -> pa.Array:
    """ISO texts; those with an offset must all have one, which has to be Z where the type has no zone."""
    if pa.types.is_time(storage):
        raise _UnsureError
    if not pa.types.is_timestamp(storage):
        return array.cast(storage)
    if pc.all(pc.ends_with(array, "Z"), min_count=1).as_py():
        return array.cast(pa.timestamp("us", "UTC")).view(storage)
    try:
        return array.cast(pa.timestamp("us")).view(storage)
    except pa.ArrowInvalid:
        if storage.tz is None:
            raise
        return array.cast(storage)


def _temporal_cast(array: pa.Array, storage: pa.DataType) -> pa.Array:
    source = array.type
    if pa.types.is_timestamp(source) and source.tz not in (None, "UTC", "+00:00", "Etc/UTC") and storage.tz is None:
        raise _UnsureError
    return array.cast(storage)


def _binaries(array: pa.Array, target: ColumnType) -> pa.Array:
    if pa.types.is_binary(array.type) or pa.types.is_fixed_size_binary(array.type):
        return array.cast(arrow_type(target))
    return _unsure(array, target)


def _embeddings(array: pa.Array, target: ColumnType) -> pa.Array:
    if pa.types.is_string(array.type):
        raise _UnsureError
    lists = array.cast(arrow_type(target), safe=False)
    numbers = lists.flatten()
    if numbers.null_count or not pc.all(pc.is_finite(numbers), min_count=0).as_py():
        raise _UnsureError
    return lists


_VECTORISED: dict[Kind, Callable[[pa.Array, ColumnType], pa.Array]] = {
    Kind.BOOLEAN: _booleans,
    Kind.SMALLINT: _integers,
    Kind.INT: _integers,
    Kind.BIGINT: _integers,
    Kind.FLOAT: _floats,
    Kind.DOUBLE: _floats,
    Kind.DECIMAL: _decimals,
    Kind.TEXT: _texts,
    Kind.JSON: _jsons,
    Kind.FILE: _unsure,
    Kind.TIMESTAMP: _temporals(TIMESTAMP_RANGE, pa.int64()),
    Kind.DATETIME: _temporals(TIMESTAMP_RANGE, pa.int64()),
    Kind.DATE: _temporals(DATE_RANGE, pa.int32()),
    Kind.TIME: _temporals(TIME_RANGE, pa.int64()),
    Kind.BYTES: _binaries,
    Kind.UUID: _binaries,
    Kind.EMBEDDING: _embeddings,
}


def from_python(values: list[Any], column: ColumnDef) -> pa.Array:
    """Storage values as an array of the column's storage Arrow type."""
    return pa.array(values, arrow_type(column.type))
