"""Reading the rows of a scan from a ReadView: the caller's partition, the key access, the order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sql.identity import Identity
from sql.index_reads import FEW, MOST_FETCHED, best_seqs, observe
from sql.plan import DELETED, HIDDEN_COLUMNS, Bound, ColumnRange, Constant, IndexAccess, KeyAccess, Operand, Scan
from sql.pruning import bounds_of
from sql.rights import partition_of
from sql.system_tables import EVERYTHING, Sought, SystemContext
from storage.catalog import TableDef
from storage.keys import encode_key, encode_prefix, prefix_end
from storage.views import ReadView


def value_of(operand: Operand, values: Mapping[int, object]) -> object:
    """The storage value of an operand."""
    return operand.value if isinstance(operand, Constant) else values[operand.index]


def read_scan(
    scan: Scan, view: ReadView, identity: Identity, values: Mapping[int, object], system: SystemContext
) -> pa.Table:
    """The rows of a scan, at least those that its key access allows, with the scan's columns."""
    if scan.system is not None:
        return scan.system.read(view, system, scan.columns, _sought(scan.key, values))
    assert scan.table is not None
    wanted = [name for name in scan.columns if name not in HIDDEN_COLUMNS]
    keys = [column.name for column in scan.table.key_columns] if scan.ordered else []
    stored = wanted + [name for name in keys if name not in wanted]
    partition = partition_of(scan.table, identity)
    rows = read_rows(scan.table, partition, view, stored, scan.key, values, scan.ranges, scan.indexes)
    if keys:
        rows = in_key_order(rows, keys)
    return select(rows, scan.columns)


def _sought(access: KeyAccess | None, values: Mapping[int, object]) -> Sought:
    """What a key access asks of a computed table."""
    if access is None:
        return EVERYTHING
    low, high = (None if bound is None else value_of(bound.operand, values) for bound in (access.low, access.high))
    return Sought(tuple(value_of(operand, values) for operand in access.prefix), low, high)


def select(rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The named columns of rows that have `_seq`; `_deleted` is false for each of them."""
    if DELETED in columns:
        deleted = pa.chunked_array([pa.repeat(pa.scalar(value=False), rows.num_rows)], type=pa.bool_())
        rows = rows.append_column(DELETED, deleted)
    return rows.select(list(columns))


def read_rows(
    table: TableDef,
    partition: str,
    view: ReadView,
    columns: Sequence[str],
    access: KeyAccess | None,
    values: Mapping[int, object],
    ranges: Sequence[ColumnRange] = (),
    indexes: Sequence[IndexAccess] = (),
) -> pa.Table:
    """Rows of a partition with `_seq` first; those that `access`, `ranges` or an index leaves out may be missing."""
    seqs = chosen_seqs(table, partition, view, access, values, indexes)
    if seqs is None:
        return view.scan(table, partition, columns, with_seq=True, bounds=bounds_of(ranges, table, values))
    return view.fetch(table, partition, seqs, columns, with_seq=True)


def chosen_seqs(
    table: TableDef,
    partition: str,
    view: ReadView,
    access: KeyAccess | None,
    values: Mapping[int, object],
    indexes: Sequence[IndexAccess] = (),
) -> list[int] | None:
    """The `_seq`s of the rows to fetch by key or by an index; None when a scan is better."""
    seqs = None if access is None else _matching(table, partition, view, access, values)
    if indexes and (seqs is None or len(seqs) > FEW):
        most = MOST_FETCHED if seqs is None else len(seqs) - 1
        best = best_seqs(table, partition, view, indexes, values, most)
        if best is not None:
            seqs = best[1]
            observe(table, best[0].name, len(seqs))
    return seqs


def _matching(
    table: TableDef, partition: str, view: ReadView, access: KeyAccess, values: Mapping[int, object]
) -> list[int] | None:
    """The `_seq`s that a key access leads to; None when a scan is better."""
    types = [column.type for column in table.key_columns]
    prefix = [value_of(operand, values) for operand in access.prefix]
    bounds = [bound for bound in (access.low, access.high) if bound is not None]
    if any(value is None for value in prefix) or any(value_of(b.operand, values) is None for b in bounds):
        return []
    if len(prefix) == len(types):
        return [seq for seq in view.find(table, partition, [encode_key(types, prefix)]) if seq is not None]
    depth = len(prefix)
    start = encode_prefix(types[:depth], prefix)

    def edge(bound: Bound | None) -> bytes:
        if bound is None:
            return start
        return encode_prefix(types[: depth + 1], [*prefix, value_of(bound.operand, values)])

    seqs = view.find_range(
        table, partition, edge(access.low) or None, prefix_end(edge(access.high)), limit=MOST_FETCHED + 1
    )
    return None if len(seqs) > MOST_FETCHED else seqs


def in_key_order(rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    """The rows by key; as they are when they stand so already."""
    if rows.num_rows < 2 or _ascending(rows, keys):
        return rows
    return rows.take(pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in keys]))


def _ascending(rows: pa.Table, keys: Sequence[str]) -> bool:
    """Whether rows are in the order of their keys, which differ."""
    undecided = np.ones(rows.num_rows - 1, dtype=bool)
    for name in keys:
        column = rows.column(name)
        before, after = column.slice(0, rows.num_rows - 1), column.slice(1)
        if pa.types.is_fixed_size_binary(column.type):
            before, after = before.cast(pa.binary()), after.cast(pa.binary())
        less = _as_numpy(pc.less(before, after))
        equal = _as_numpy(pc.equal(before, after))
        if bool((undecided & ~less & ~equal).any()):
            return False
        undecided &= equal
        if not undecided.any():
            return True
    return True


def _as_numpy(flags: pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    result: np.ndarray[tuple[int], np.dtype[np.bool_]] = flags.to_numpy()
    return result


def owned(rows: pa.Table) -> pa.Table:
    """The same rows in memory of their own, so that they outlive the snapshot."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return pa.ipc.open_stream(sink.getvalue()).read_all()
