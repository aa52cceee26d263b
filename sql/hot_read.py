"""Reads of one row by its key, or of a few by an index, without a query engine: values in, wire values out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sql.identity import Identity
from sql.index_access import EXACT
from sql.index_reads import key_ranges
from sql.plan import Constant, IndexAccess, ParameterRef, Path, QueryPlan
from sql.rendering import BigintMode, to_wire, wire_schema
from sql.results import ResultColumn, StatementResult
from sql.rights import partition_of
from sql.values import converter
from storage.catalog import TableDef
from storage.keys import encode_key
from storage.point_read import IndexReader, PointReader
from storage.snapshots import Snapshot
from storage.types import Kind

_LARGEST = 2**53 - 1
_AS_THEY_ARE = frozenset({Kind.BOOLEAN, Kind.SMALLINT, Kind.INT, Kind.TEXT, Kind.JSON, Kind.FILE,
                          Kind.TIMESTAMP, Kind.DATETIME, Kind.DATE, Kind.TIME})  # fmt: skip

FEW_ROWS = 16
"""Rows that the event loop reads by an index; a worker thread reads more."""

Render = Callable[[object], object]


class HotRead:
    """A query that gives plain columns of the one row with a given primary key."""

    __slots__ = ("_columns", "_operands", "_reader", "_renders", "_schema", "_types", "table")

    def __init__(self, plan: QueryPlan, table: TableDef, projection: Sequence[str], mode: BigintMode) -> None:
        assert plan.point_key is not None
        self.table = table
        self._columns = plan.columns
        self._schema = msgspec.json.encode(wire_schema(plan.columns))
        self._types = tuple(column.type for column in table.key_columns)
        self._operands = tuple(
            (operand.value, None, 0)
            if isinstance(operand, Constant)
            else (None, converter(column.type, f"${operand.index}"), operand.index - 1)
            for operand, column in zip(plan.point_key, table.key_columns, strict=True)
        )
        self._reader = PointReader(table, projection)
        self._renders = tuple(_render(column, mode) for column in plan.columns)

    def run(self, view: Snapshot, params: Sequence[object], identity: Identity) -> StatementResult:
        """Read the row. Raises InvalidParameter for a value that does not fit the key's type."""
        values = [value if convert is None else convert(params[index]) for value, convert, index in self._operands]
        rows: list[list[object]] = []
        if None not in values:
            key = encode_key(self._types, values)
            row = self._reader.read(view, partition_of(self.table, identity), key)
            if row is not None:
                for place, render in enumerate(self._renders):
                    if render is not None and row[place] is not None:
                        row[place] = render(row[place])
                rows.append(row)
        return StatementResult(
            columns=self._columns, row_count=len(rows), as_user=identity.user, rows=rows, schema_json=self._schema
        )


class HotIndexRead:
    """A query that gives plain columns of the rows with given values in the first columns of an index."""

    __slots__ = ("_access", "_columns", "_converters", "_reader", "_renders", "_schema", "_shown", "table")

    def __init__(
        self, plan: QueryPlan, table: TableDef, access: IndexAccess, projection: Sequence[str], mode: BigintMode
    ) -> None:
        self.table = table
        self._access = access
        self._columns = plan.columns
        self._schema = msgspec.json.encode(wire_schema(plan.columns))
        pinned = [table.by_name[name].type for name in access.columns]
        self._converters = tuple(
            (operand.index, converter(kind, f"${operand.index}"))
            for (operand,), kind in zip(access.equal, pinned, strict=False)
            if isinstance(operand, ParameterRef)
        )
        self._shown = len(projection)
        self._reader = IndexReader(table, access.index_id, [*projection, *(c.name for c in table.key_columns)])
        self._renders = tuple(_render(column, mode) for column in plan.columns)

    def run(self, view: Snapshot, params: Sequence[object], identity: Identity) -> StatementResult | None:
        """Read the rows, in the order of their keys. None when they are not few.

        Raises InvalidParameter for a value that does not fit its column's type.
        """
        values = {index: convert(params[index - 1]) for index, convert in self._converters}
        ranges = key_ranges(self.table, self._access, values)
        if ranges is None:
            return None
        rows: list[list[object]] = []
        for low, high in ranges:  # one, or none when a value is NULL
            found = self._reader.read(view, partition_of(self.table, identity), low, high, FEW_ROWS)
            if found is None:
                return None
            rows += found
        shown = self._shown
        if len(rows) > 1:
            rows.sort(key=lambda row: row[shown:])
        for row in rows:
            del row[shown:]
            for place, render in enumerate(self._renders):
                if render is not None and row[place] is not None:
                    row[place] = render(row[place])
        return StatementResult(
            columns=self._columns, row_count=len(rows), as_user=identity.user, rows=rows, schema_json=self._schema
        )


def hot_read(plan: QueryPlan, mode: BigintMode) -> HotRead | HotIndexRead | None:
    """The hot form of a plan, or None when it does more than read columns by key or by an index."""
    native = plan.native
    if native is None or plan.projection is None or plan.kinds_matter:
        return None
    if native.limit is not None or native.offset is not None:
        return None
    table = plan.scans[0].table
    if table is None or any(name not in table.by_name for name in plan.projection):
        return None
    if plan.path is Path.POINT and plan.point_key is not None and not plan.residual_filter:
        return HotRead(plan, table, plan.projection, mode)
    access = plan.exact_index
    if access is None or native.order is not None or native.descending or table.expires or not table.primary_key:
        return None
    if any(column.type.kind not in EXACT for column in table.key_columns):
        return None
    return HotIndexRead(plan, table, access, plan.projection, mode)


def _render(column: ResultColumn, mode: BigintMode) -> Render | None:
    """What makes a wire value of a storage value; None when it is one already."""
    kind = column.type.kind
    if kind in _AS_THEY_ARE:
        return None
    if kind is Kind.BIGINT and mode is not BigintMode.STRING:
        if mode is BigintMode.NUMBER:
            return None
        return lambda value: value if -_LARGEST <= value <= _LARGEST else str(value)  # type: ignore[operator]
    return lambda value: to_wire(value, column.type, mode, column.name)
