"""Small tables and rows for the storage tests."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from storage import StorageEngine, TableDef, WriteTransaction
from storage.catalog import ColumnDef, NamespaceDef, TableKind, UniqueDef
from storage.layout import layout_of
from storage.types import BIGINT, TEXT
from storage.views import ReadView

COLUMNS = (
    ColumnDef(1, "id", BIGINT, nullable=False),
    ColumnDef(2, "email", TEXT),
    ColumnDef(3, "amount", BIGINT),
)
Row = tuple[int, str | None, int | None]


def keyed_table(table_id: int, name: str = "keyed") -> TableDef:
    """A USER table with a primary key and a UNIQUE column."""
    return TableDef(
        table_id,
        "app",
        name,
        TableKind.USER,
        COLUMNS,
        primary_key=(1,),
        uniques=(UniqueDef(1, "email", (2,)),),
        next_column_id=4,
        next_index_id=2,
    )


def plain_table(table_id: int, name: str = "plain") -> TableDef:
    """A SHARED table with a primary key and no other constraint."""
    return TableDef(table_id, "app", name, TableKind.SHARED, COLUMNS, primary_key=(1,), next_column_id=4)


def keyless_table(table_id: int, name: str = "keyless") -> TableDef:
    """A SHARED table with hidden row ids."""
    return TableDef(table_id, "app", name, TableKind.SHARED, COLUMNS, next_column_id=4)


def create(engine: StorageEngine, make: object = plain_table, name: str | None = None) -> TableDef:
    """Create the namespace and a table."""

    def work(wtxn: WriteTransaction) -> TableDef:
        if wtxn.catalog.namespace("app") is None:
            wtxn.put_namespace(NamespaceDef("app"))
        table_id = wtxn.allocate_table_id()
        table: TableDef = make(table_id, name) if name else make(table_id)  # type: ignore[operator]
        wtxn.put_table(table)
        return table

    return engine.commit_sync(work)


def rows_of(table: TableDef, rows: Sequence[Sequence[object]]) -> pa.Table:
    """Row tuples as an Arrow table of the table's columns."""
    columns = list(zip(*rows, strict=True)) if rows else [() for _ in table.columns]
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, table.arrow_schema, strict=True)],
        schema=table.arrow_schema,
    )


def key_of(table: TableDef, *values: object) -> bytes:
    """An encoded primary key."""
    primary = layout_of(table).primary
    assert primary is not None
    return primary.encode(values)


def seq_of(view: ReadView, table: TableDef, partition: str, *values: object) -> int:
    """The current `_seq` of a row that exists."""
    (seq,) = view.find(table, partition, [key_of(table, *values)])
    assert seq is not None
    return seq


def contents(view: ReadView, table: TableDef, partition: str = "") -> list[tuple[object, ...]]:
    """All rows, sorted."""
    found = [tuple(row.values()) for row in view.scan(table, partition).to_pylist()]
    return sorted(found, key=repr)
