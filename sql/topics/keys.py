"""Keys of messages about rows: the primary key as text, by column.

One column: its value as text, a string as it is, any other value as JSON writes it. Several columns: a JSON array of
their values. 64-bit integers are always written as numbers here, so that a key does not depend on the server's
settings. A row of a table without a primary key has none; its hidden row id decides about the partition then.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pyarrow as pa

from sql.assignment import INTEGERS
from sql.topics.shown_values import shown_values
from sql.wire import BigintMode
from storage.catalog import ColumnDef, TableDef
from storage.layout import ROW_ID
from storage.topic_partitioning import Partitions, partitions_of_keys
from storage.topic_publishing import PublishedRows
from storage.types import Kind

_encode = msgspec.json.Encoder().encode


def key_columns(table: TableDef) -> list[ColumnDef]:
    """The columns of the key that messages have: the primary key, of STREAM tables the declared one."""
    return [table.by_id[column_id] for column_id in table.shown_key]


def message_keys(table: TableDef, rows: pa.RecordBatch) -> list[str | None]:
    """The key of each row; None where there is none."""
    columns = key_columns(table)
    if not columns:
        return [None] * rows.num_rows
    if len(columns) == 1:
        return _texts(rows.column(columns[0].name), columns[0])
    values = [_wire(rows.column(column.name), column) for column in columns]
    return [_encode(key).decode() for key in zip(*values, strict=True)]


def row_partitions(table: TableDef, rows: PublishedRows, partitions: int) -> Partitions:
    """The partition of each row, in a topic of so many."""
    found = rows.derived.get(partitions)
    if found is None:
        texts = rows.derived.get("keys")
        if texts is None:
            texts = rows.derived["keys"] = _hashed_texts(table, rows.batch)
        found = rows.derived[partitions] = partitions_of_keys(texts, rows.count, partitions)
    partitioned: Partitions = found
    return partitioned


def _hashed_texts(table: TableDef, rows: pa.RecordBatch) -> Sequence[bytes]:
    keys = message_keys(table, rows)
    if None not in keys:
        return [key.encode() for key in keys if key is not None]
    row_ids = rows.column(ROW_ID).to_pylist()
    return [str(row_id).encode() if key is None else key.encode() for key, row_id in zip(keys, row_ids, strict=True)]


def _texts(values: pa.Array, column: ColumnDef) -> list[str | None]:
    kind = column.type.kind
    if kind is Kind.TEXT or kind in INTEGERS:
        texts: list[str | None] = values.cast(pa.string()).to_pylist()
        return texts
    wire = _wire(values, column)
    return [None if v is None else v if isinstance(v, str) else _encode(v).decode() for v in wire]


def _wire(values: pa.Array, column: ColumnDef) -> list[object]:
    return shown_values(values, column, BigintMode.NUMBER)
