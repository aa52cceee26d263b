"""Row versions by `_seq`, live or superseded: from `rows`, or from `history` when merging moved them there."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from storage.batches import Seqs, seqs_of
from storage.catalog import TableDef
from storage.changes import PartitionRecord, Resolved, Written
from storage.errors import LogTruncated
from storage.keys import partition_key, row_key_prefix
from storage.layout import BY, ROW_ID, TableLayout, layout_of
from storage.reading import Reader


def change_columns(layout: TableLayout) -> tuple[str, ...]:
    """The columns of a change after `_seq`."""
    return (ROW_ID, *layout.names) if layout.has_row_id else layout.names


def read_versions(reader: Reader, layout: TableLayout, user: str, seqs: Seqs) -> pa.RecordBatch:
    """The versions with those `_seq`s (ascending); the result owns its memory and lacks those that are gone."""
    prefix = row_key_prefix(layout.table.table_id, partition_key(user))
    columns = change_columns(layout)
    schema = layout.projection(layout.table.schema_version, columns, with_seq=True).schema
    pieces: list[pa.RecordBatch] = []
    left = seqs
    for history in (False, True):
        missing: list[Seqs] = []
        place = 0
        while place < len(left):
            batch = reader.around(prefix, int(left[place]), history=history)
            if batch is None or batch.header.last_seq < left[place]:
                missing.append(left[place : place + 1])
                place += 1
                continue
            end = int(left.searchsorted(batch.header.last_seq, "right"))
            wanted = left[place:end]
            stored = seqs_of(batch.value, batch.header)
            places = np.minimum(stored.searchsorted(wanted), len(stored) - 1)
            there = stored[places] == wanted
            if there.any():
                plan = layout.projection(batch.header.schema_version, columns, with_seq=True, history=history)
                decoded = reader.decode(layout, batch, reader, history=history)
                rows = decoded.take(pa.array(places[there], pa.int64()))
                pieces.append(pa.RecordBatch.from_arrays(plan.arrays(rows), schema=schema))
            missing.append(wanted[~there])
            place = end
        left = np.concatenate(missing) if missing else left[:0]
        if not len(left):
            break
    if not pieces:
        return _empty(schema)
    joined = pieces[0] if len(pieces) == 1 else pa.concat_batches(pieces)
    found = joined.column(0).to_numpy()
    if len(found) > 1 and (found[1:] < found[:-1]).any():
        joined = joined.take(pa.array(found.argsort()))
    return joined


def resolve_change(
    reader: Reader,
    table: TableDef,
    record: PartitionRecord,
    batches: Written | None,
    *,
    dropped: bool,
) -> Resolved:
    """The rows of one partition's change, as `table` has its columns. Raises LogTruncated when some are gone."""
    layout = layout_of(table)
    if batches is None:
        spans = [np.arange(first, last + 1, dtype=np.int64) for first, last in record.ranges()]
        wanted = np.concatenate(spans) if spans else np.empty(0, dtype=np.int64)
        added = read_versions(reader, layout, record.user, wanted)
        _expect_all(added, len(wanted), table, dropped)
    else:
        added = _written_rows(layout, batches)
    old, by = record.superseded()
    if not len(old):
        return Resolved(added, _none_removed(layout))
    removed = read_versions(reader, layout, record.user, old)
    _expect_all(removed, len(old), table, dropped)
    if removed.num_rows != len(old):
        by = by[np.isin(old, removed.column(0).to_numpy())]
    arrays = [*removed.columns, pa.array(by, pa.int64())]
    return Resolved(added, pa.RecordBatch.from_arrays(arrays, schema=_removed_schema(removed.schema)))


def written_change(table: TableDef, batches: Written) -> Resolved:
    """The rows of a change that superseded none and whose batches are at hand, as `table` has its columns."""
    layout = layout_of(table)
    return Resolved(_written_rows(layout, batches), _none_removed(layout))


def _written_rows(layout: TableLayout, batches: Written) -> pa.RecordBatch:
    columns = change_columns(layout)
    pieces = [
        layout.projection(written.table.schema_version, columns, with_seq=True).batch(batch)
        for written, batch in batches
    ]
    if len(pieces) == 1:
        return pieces[0]
    schema = layout.projection(layout.table.schema_version, columns, with_seq=True).schema
    return pa.concat_batches(pieces) if pieces else _empty(schema)


def _none_removed(layout: TableLayout) -> pa.RecordBatch:
    """No superseded rows; made once for each layout, as most changes only add."""
    found: pa.RecordBatch | None = layout.__dict__.get("_none_removed")
    if found is None:
        schema = layout.projection(layout.table.schema_version, change_columns(layout), with_seq=True).schema
        found = layout.__dict__["_none_removed"] = _empty(_removed_schema(schema))
    return found


def _removed_schema(schema: pa.Schema) -> pa.Schema:
    return schema.append(pa.field(BY, pa.int64(), nullable=False))


def _expect_all(found: pa.RecordBatch, wanted: int, table: TableDef, dropped: bool) -> None:
    if found.num_rows != wanted and not dropped:
        raise LogTruncated(f"row versions of table {table.full_name} are no longer retained")


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
