"""CREATE and DROP VECTOR INDEX, also as operations of ALTER TABLE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sql.diagnostics import shown
from sql.parser_cursor import Cursor
from sql.table_name import TableName
from storage.vector_definitions import VectorMetric

if TYPE_CHECKING:
    from sql.vectors.statements import CreateVectorIndex, DropVectorIndex

_METRICS = {
    "cosine": VectorMetric.COSINE,
    "l2": VectorMetric.L2,
    "dot": VectorMetric.DOT,
}


def parse_create_vector_index(cursor: Cursor) -> CreateVectorIndex:
    """CREATE VECTOR INDEX [IF NOT EXISTS] [name] ON t (column) [USING COSINE | L2 | DOT], after INDEX."""
    from sql.vectors.statements import CreateVectorIndex  # commands import what runs them

    if_not_exists = cursor.if_not_exists()
    name = None if cursor.at("on") else cursor.name("an index's name").lower()
    cursor.expect("on")
    table = cursor.table_name()
    columns = cursor.name_list()
    if len(columns) != 1:
        cursor.fail("A vector index is on one column.", cursor.peek(-1))
    return CreateVectorIndex(table, columns[0], _metric(cursor), name, if_not_exists)


def parse_drop_vector_index(cursor: Cursor) -> DropVectorIndex:
    """DROP VECTOR INDEX [IF EXISTS] [ns.]name [ON t], after INDEX."""
    from sql.vectors.statements import DropVectorIndex

    if_exists = cursor.if_exists()
    name = cursor.index_name()
    table = cursor.table_name() if cursor.accept("on") else None
    return DropVectorIndex(table, name=name, if_exists=if_exists)


def parse_alter_vector_index(cursor: Cursor, table: TableName) -> CreateVectorIndex | DropVectorIndex | None:
    """CREATE [VECTOR] INDEX column [USING …] or DROP [VECTOR] INDEX column of ALTER TABLE, if that is next."""
    verb = cursor.word()
    vector = cursor.word(1) == "vector"
    if verb not in ("create", "drop") or cursor.word(2 if vector else 1) != "index":
        return None
    from sql.vectors.statements import CreateVectorIndex, DropVectorIndex

    cursor.index += 3 if vector else 2
    if verb == "create":
        if_not_exists = cursor.if_not_exists()
        column = cursor.column_name()
        return CreateVectorIndex(table, column, _metric(cursor), if_not_exists=if_not_exists)
    if_exists = cursor.if_exists()
    return DropVectorIndex(table, cursor.column_name(), if_exists=if_exists)


def _metric(cursor: Cursor) -> VectorMetric:
    if not cursor.accept("using"):
        return VectorMetric.COSINE
    start = cursor.peek()
    name = cursor.name_or_string("COSINE, L2 or DOT")
    metric = _METRICS.get(name.lower())
    if metric is None:
        cursor.fail(f"{shown(name)} is not a distance of vector indexes: COSINE, L2, DOT.", start)
    return metric
