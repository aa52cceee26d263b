"""Result columns that are plain columns of a table: their types, and the flags that clients see."""

from __future__ import annotations

from sql.results import ResultColumn
from storage.catalog import TableDef


def table_column(table: TableDef, column: str, name: str | None = None) -> ResultColumn:
    """The result column for a table's column, under its own or another name."""
    definition = table.by_name[column]
    return ResultColumn(name or column, definition.type, column_flags(table, column))


def column_flags(table: TableDef, column: str) -> tuple[str, ...]:
    """`pk` for a column of the primary key, `nn` for NOT NULL, `uq` for one that is unique by itself.

    The primary key of a STREAM table is only declared: `pk` without `uq`.
    """
    definition = table.by_name[column]
    alone = (definition.column_id,)
    flags = []
    if definition.column_id in table.shown_key:
        flags.append("pk")
    if not definition.nullable:
        flags.append("nn")
    if table.primary_key == alone or any(unique.column_ids == alone for unique in table.uniques):
        flags.append("uq")
    return tuple(flags)
