"""Rows of live queries as the wire has them: dicts of wire values, made row by row or column by column."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from sql.results import ResultColumn
from sql.wire import LARGEST_SAFE, BigintMode, Column, to_wire, wire_values
from storage.types import Kind

WireRow = dict[str, object]

Render = Callable[[object], object]

_AS_THEY_ARE = frozenset({Kind.BOOLEAN, Kind.SMALLINT, Kind.INT, Kind.TEXT, Kind.JSON, Kind.FILE,
                          Kind.TIMESTAMP, Kind.DATETIME, Kind.DATE, Kind.TIME})  # fmt: skip


def renderer(column: ResultColumn, mode: BigintMode) -> Render | None:
    """What makes a wire value of a storage value that is not NULL; None when it is one already.

    It raises ExecutionError naming the column for NaN and infinities.
    """
    kind = column.type.kind
    if kind in _AS_THEY_ARE or (kind is Kind.BIGINT and mode is BigintMode.NUMBER):
        return None
    if kind is Kind.BIGINT:
        return str if mode is BigintMode.STRING else _safe
    return lambda value: to_wire(value, column.type, mode, column.name)


def _safe(value: object) -> object:
    return value if -LARGEST_SAFE <= value <= LARGEST_SAFE else str(value)  # type: ignore[operator]


def wire_rows(columns: Sequence[ResultColumn], arrays: Sequence[Column], mode: BigintMode) -> list[WireRow]:
    """Rows of Arrow columns in the storage types of `columns`; raises ExecutionError as `sql.wire` does."""
    names = [column.name for column in columns]
    values = [wire_values(array, c.type, mode, c.name) for c, array in zip(columns, arrays, strict=True)]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def table_rows(table: pa.Table, columns: Sequence[ResultColumn], mode: BigintMode) -> list[WireRow]:
    """The rows of a snapshot's table."""
    return wire_rows(columns, table.columns, mode)
