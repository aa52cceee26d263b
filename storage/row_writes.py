"""Changing one row by its primary key inside a work, as row tuples: the hot path of keyed writes.

The general way (`StagedView.fetch`, `replace`, `delete`) works on Arrow tables of any number of rows. These functions
do the same for one row of a table with a primary key and nothing else that refuses duplicates, without an Arrow array
in between.
"""

from __future__ import annotations

from typing import NamedTuple

from storage.catalog import TableDef
from storage.errors import StorageCorrupt
from storage.layout import layout_of
from storage.staging import Row, RowSegment
from storage.writer import WriteTransaction


class CurrentRow(NamedTuple):
    """The current version of a row, as storage values in column order."""

    seq: int
    row: Row


def takes_row_writes(table: TableDef) -> bool:
    """Whether these functions may be used for a table."""
    return bool(table.primary_key) and not table.refuses_duplicates


def read_row(writer: WriteTransaction, table: TableDef, partition: str, key: bytes) -> CurrentRow | None:
    """The row with that encoded primary key, staged or stored. Raises SchemaChanged."""
    layout = layout_of(table)
    staged = writer.staged_partition(table, partition)
    seq = writer.current_seq(staged.key_prefix + key)
    if seq is None:
        return None
    found = staged.locate(seq)
    if found is not None:
        segment, place = found
        if isinstance(segment, RowSegment) and segment.layout is layout:
            return CurrentRow(seq, segment.rows[place])
        plan = layout.projection(segment.layout.table.schema_version, None)
        return CurrentRow(seq, plan.row(segment.part([place]), 0))
    return CurrentRow(seq, writer.reader.row(layout, staged.row_prefix, seq, None, StorageCorrupt))


def replace_row(
    writer: WriteTransaction, table: TableDef, partition: str, key: bytes, old: CurrentRow, row: Row
) -> int:
    """Stage a new version of the row that `read_row` gave; the primary key stays. Returns its `_seq`."""
    layout = layout_of(table)
    staged = writer.staged_partition(table, partition)
    seq = writer.stage_row(layout, staged, row, staged.key_prefix + key)
    writer.supersede(staged, old.seq, seq)
    if layout.secondary:
        writer.move_entries(layout, staged, old.row, old.seq, row, seq)
    return seq


def delete_row(writer: WriteTransaction, table: TableDef, partition: str, key: bytes, old: CurrentRow) -> None:
    """Stage the end of the row that `read_row` gave."""
    layout = layout_of(table)
    staged = writer.staged_partition(table, partition)
    writer.supersede(staged, old.seq, writer.release_key(staged.key_prefix + key))
    if layout.secondary:
        writer.move_entries(layout, staged, old.row, old.seq, None, 0)
