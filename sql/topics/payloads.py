"""Payloads of messages: JSON text made of row versions when somebody reads them.

========  ==================================================================================================
mode      payload
========  ==================================================================================================
full      the columns of the row, then `_seq`, `_commit_seq`, `_deleted`, `_table`
key       the key columns (of a table without a primary key `_row_id`)
diff      `key`, `old` and `new` with the columns that changed, then `_seq`, `_commit_seq`, `_table`
========  ==================================================================================================

How values look: `sql.topics.shown_values`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from sql.topics.keys import key_columns, message_keys
from sql.topics.shown_values import shown_values
from sql.wire import BigintMode, to_wire, wire_values
from storage.catalog import Catalog, ColumnDef, TableDef
from storage.errors import StorageCorrupt
from storage.layout import ROW_ID, layout_of
from storage.reading import Reader
from storage.retention import dropped_definition
from storage.topic_definitions import Operation, PayloadMode
from storage.topic_runs import ProducedRun, RowRun, Seqs
from storage.types import BIGINT
from storage.versions import read_versions

_encode = msgspec.json.Encoder().encode

Row = dict[str, object]


class Rendered(NamedTuple):
    """Keys and payloads of the messages of a run."""

    keys: Sequence[str | None]
    payloads: Sequence[bytes]


class RunRenderer:
    """Renders runs over one state of the database."""

    def __init__(self, reader: Reader, catalog: Catalog, bigint: BigintMode) -> None:
        self._reader = reader
        self._catalog = catalog
        self._bigint = bigint

    def render(self, run: RowRun | ProducedRun) -> Rendered:
        """Keys and payloads. Raises StorageCorrupt when a row that it refers to is not stored."""
        if isinstance(run, ProducedRun):
            return Rendered(run.keys, run.payloads)
        table = self._table(run.table_id)
        seqs = run.event_seqs()
        is_delete = run.operation is Operation.DELETE
        rows = self._rows(table, run.user, run.old_seqs() if is_delete else seqs)
        keys = message_keys(table, rows)
        if run.payload is PayloadMode.KEY:
            return Rendered(keys, [_encode(row) for row in self._key_rows(table, rows)])
        columns = [column for column in table.columns if not run.columns or column.column_id in run.columns]
        shown = self._wire_rows(columns, rows)
        marks = self._marks(run, seqs)
        end: Row
        if run.payload is PayloadMode.FULL:
            end = {"_deleted": is_delete, "_table": table.full_name}
            return Rendered(keys, [_encode(row | mark | end) for row, mark in zip(shown, marks, strict=True)])
        before: list[Row] = [{}] * len(shown)
        if is_delete:
            before, shown = shown, before
        elif run.operation is Operation.UPDATE:
            before = self._wire_rows(columns, self._rows(table, run.user, run.old_seqs()))
        named = self._key_rows(table, rows)
        end = {"_table": table.full_name}
        payloads = [
            _encode({"key": key, **_difference(old, new), **mark, **end})
            for key, old, new, mark in zip(named, before, shown, marks, strict=True)
        ]
        return Rendered(keys, payloads)

    def _table(self, table_id: int) -> TableDef:
        """The table, or the one that was dropped, with its last definition."""
        table = self._catalog.table_by_id(table_id)
        if table is None:
            table = dropped_definition(self._reader, table_id)
        if table is None:
            raise StorageCorrupt(f"the table with id {table_id}, which messages refer to, is not known")
        return table

    def _rows(self, table: TableDef, user: str, seqs: Seqs) -> pa.RecordBatch:
        """Row versions in the order asked."""
        ascending = len(seqs) < 2 or bool((seqs[1:] > seqs[:-1]).all())
        order = None if ascending else np.argsort(seqs)
        rows = read_versions(self._reader, layout_of(table), user, seqs if order is None else seqs[order])
        if rows.num_rows != len(seqs):
            raise StorageCorrupt(f"row versions of table {table.full_name} that messages refer to are not stored")
        return rows if order is None else rows.take(pa.array(np.argsort(order)))

    def _wire_rows(self, columns: Sequence[ColumnDef], rows: pa.RecordBatch) -> list[Row]:
        if not columns:
            return [{} for _ in range(rows.num_rows)]
        names = [column.name for column in columns]
        values = [shown_values(rows.column(column.name), column, self._bigint) for column in columns]
        return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]

    def _key_rows(self, table: TableDef, rows: pa.RecordBatch) -> list[Row]:
        columns = key_columns(table)
        if columns:
            return self._wire_rows(columns, rows)
        row_ids = wire_values(rows.column(ROW_ID), BIGINT, self._bigint, ROW_ID)
        return [{ROW_ID: row_id} for row_id in row_ids]

    def _marks(self, run: RowRun, seqs: Seqs) -> list[Row]:
        commit = to_wire(run.commit_seq, BIGINT, self._bigint)
        return [{"_seq": to_wire(seq, BIGINT, self._bigint), "_commit_seq": commit} for seq in seqs.tolist()]


def _difference(old: Row, new: Row) -> dict[str, Row]:
    """What differs, before and after; of a row that is new or gone, all of it."""
    if not old or not new:
        return {"old": old, "new": new}
    changed = [name for name, value in new.items() if old[name] != value]
    return {"old": {name: old[name] for name in changed}, "new": {name: new[name] for name in changed}}
