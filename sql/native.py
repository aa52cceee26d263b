"""Running native plans: one table with pyarrow, no DuckDB."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from sql.errors import InvalidParameter, ResultTooLarge
from sql.expressions import CompiledExpression, NotCovered
from sql.identity import Identity
from sql.index_order import read_in_order
from sql.plan import NativePlan, QueryPlan
from sql.rights import partition_of
from sql.scanning import in_key_order, owned, read_rows, select, value_of
from storage.catalog import TableDef
from storage.views import ReadView

FIRST_ROWS = 5_000
"""LIMITs up to this are answered through the key index when there is no condition."""


def run_native(
    plan: QueryPlan, view: ReadView, identity: Identity, values: Mapping[int, object], max_rows: int | None
) -> pa.Table:
    """The result of a native plan, in memory of its own; raises NotCovered when only DuckDB knows it."""
    native, scan = plan.native, plan.scans[0]
    assert native is not None
    assert scan.table is not None
    partition = partition_of(scan.table, identity)
    if native.counts and native.condition is None:
        return _count(view.count(scan.table, partition))
    limit, offset = _bounds(native, values)
    if native.condition is None and limit is None and max_rows is not None:
        refuse_beyond(max_rows, view.count(scan.table, partition) - offset)
    if native.order is not None:
        return _in_index_order(native, scan.table, partition, view, values, limit, offset)
    first = _first_rows(native, scan.table, partition, view, limit, offset)
    if first is not None:
        return select(first, native.projection)
    reads = _columns(native, scan.table)
    rows = read_rows(scan.table, partition, view, reads, scan.key, values, scan.ranges, scan.indexes)
    copied = False
    if native.condition is not None:
        rows = rows.filter(_condition(native, rows, values))
        copied = True
    if native.counts:
        return _count(rows.num_rows)
    rows = _ordered(native, scan.table, rows).slice(offset, limit)
    refuse_beyond(max_rows, rows.num_rows)
    result = select(rows, native.projection)
    return result if copied else owned(result)


def _in_index_order(
    native: NativePlan,
    table: TableDef,
    partition: str,
    view: ReadView,
    values: Mapping[int, object],
    limit: int | None,
    offset: int,
) -> pa.Table:
    """The first rows in the order of an index. Raises NotCovered when the index is not the way."""
    assert native.order is not None
    if limit is None:
        raise NotCovered("there is no limit")
    keep = None if native.condition is None else lambda rows: rows.filter(_condition(native, rows, values))
    names = _columns(native, table)
    rows = read_in_order(native.order, table, partition, view, names, values, limit + offset, keep)
    return select(rows.slice(offset), native.projection)


def _count(rows: int) -> pa.Table:
    return pa.table({"count": pa.array([rows], pa.int64())})


def refuse_beyond(max_rows: int | None, rows: int) -> None:
    """Raise ResultTooLarge for more rows than the limit."""
    if max_rows is not None and rows > max_rows:
        raise ResultTooLarge(
            f"The result has more than {max_rows} rows (limits.max_result_rows). Add a LIMIT, or ask for the "
            "streaming formats: Accept: application/vnd.apache.arrow.stream or application/x-ndjson."
        )


def _bounds(native: NativePlan, values: Mapping[int, object]) -> tuple[int | None, int]:
    """LIMIT and OFFSET of this execution."""
    limit = None if native.limit is None else value_of(native.limit, values)
    offset = 0 if native.offset is None else value_of(native.offset, values)
    for word, value in (("LIMIT", limit), ("OFFSET", offset)):
        if isinstance(value, int) and value < 0:
            raise InvalidParameter(f"{word} must not be negative.")
    return (limit if isinstance(limit, int) else None), (offset if isinstance(offset, int) else 0)


def _first_rows(
    native: NativePlan, table: TableDef, partition: str, view: ReadView, limit: int | None, offset: int
) -> pa.Table | None:
    """The first rows by key, through the key index; None when that is not the way."""
    if native.condition is not None or limit is None or not table.primary_key or limit + offset > FIRST_ROWS:
        return None
    seqs = view.find_range(table, partition, None, None, limit=limit + offset, reverse=native.descending)
    names = [name for name in _columns(native, table) if name in native.projection]
    return view.fetch(table, partition, seqs[offset:], names, with_seq=True)


def _columns(native: NativePlan, table: TableDef) -> list[str]:
    """Stored columns that the plan reads: its outputs, its condition's, the key for the order."""
    condition = native.condition.columns if native.condition is not None else frozenset()
    wanted = set(native.projection) | {key.rpartition(".")[2] for key in condition}
    if not native.counts:
        wanted |= {column.name for column in table.key_columns}
    return [column.name for column in table.columns if column.name in wanted]


def _condition(native: NativePlan, rows: pa.Table, values: Mapping[int, object]) -> pa.Array:
    """Which rows the condition keeps."""
    assert native.condition is not None
    return matching(native.condition, rows, values)


def matching(condition: CompiledExpression, rows: pa.Table, values: Mapping[int, object]) -> pa.Array:
    """Which rows a condition keeps; NULL where it is neither true nor false. Raises NotCovered."""
    columns: dict[str, pa.ChunkedArray] = {}
    for key in condition.columns:
        name = key.rpartition(".")[2]
        if name not in rows.schema.names:
            raise NotCovered(f"the condition names {name}")
        columns[key] = rows.column(name)
    params = [values.get(index) for index in range(1, max(values, default=0) + 1)]
    return condition.evaluate(columns, params, rows.num_rows)


def _ordered(native: NativePlan, table: TableDef, rows: pa.Table) -> pa.Table:
    keys = [column.name for column in table.key_columns]
    if keys:
        rows = in_key_order(rows, keys)
    if native.descending:
        return rows.take(pa.array(np.arange(rows.num_rows - 1, -1, -1)))
    return rows
