"""Point reads without a query engine and without Arrow tables: key in, wire values out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sql.identity import Identity
from sql.plan import Constant, Path, QueryPlan
from sql.rendering import BigintMode, to_wire, wire_schema
from sql.results import ResultColumn, StatementResult
from sql.rights import partition_of
from sql.values import converter
from storage.catalog import TableDef
from storage.keys import encode_key
from storage.point_read import PointReader
from storage.snapshots import Snapshot
from storage.types import Kind

_LARGEST = 2**53 - 1
_AS_THEY_ARE = frozenset({Kind.BOOLEAN, Kind.SMALLINT, Kind.INT, Kind.TEXT, Kind.JSON, Kind.FILE,
                          Kind.TIMESTAMP, Kind.DATETIME, Kind.DATE, Kind.TIME})  # fmt: skip

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


def hot_read(plan: QueryPlan, mode: BigintMode) -> HotRead | None:
    """The hot form of a plan, or None when it does more than read columns by key."""
    if (
        plan.path is not Path.POINT
        or plan.point_key is None
        or plan.projection is None
        or plan.residual_filter
        or plan.kinds_matter
        or plan.native is None
        or plan.native.limit is not None
        or plan.native.offset is not None
    ):
        return None
    table = plan.scans[0].table
    if table is None or any(name not in table.by_name for name in plan.projection):
        return None
    return HotRead(plan, table, plan.projection, mode)


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
