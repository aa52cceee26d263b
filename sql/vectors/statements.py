"""CREATE and DROP VECTOR INDEX, in their own form and in that of ALTER TABLE.

Each changes the table's definition in one commit of the writer. The index itself is built afterwards, in the
background: until it is there searches are exact, so nothing that a client sees depends on when that is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import msgspec

from sql.alter_table import check_may_alter
from sql.command import Command
from sql.ddl import require_table
from sql.errors import ExecutionError
from sql.results import StatementResult
from sql.storage_errors import storage_errors
from sql.table_name import TableName
from sql.vectors.jobs import request_build
from storage.catalog import TableDef, TableKind
from storage.types import Kind
from storage.vector_definitions import VectorIndexDef, VectorMetric
from storage.writer import WriteTransaction

if TYPE_CHECKING:
    from sql.services import Services, StatementContext


@dataclass(frozen=True, slots=True)
class CreateVectorIndex(Command):
    """CREATE VECTOR INDEX [IF NOT EXISTS] [name] ON t (column) [USING metric], or as part of ALTER TABLE."""

    impersonable: ClassVar[bool] = True

    table: TableName
    column: str
    metric: VectorMetric = VectorMetric.COSINE
    name: str | None = None
    if_not_exists: bool = False

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """Put the definition; the index is built in the background."""

        def define(writer: WriteTransaction) -> str:
            table = require_table(self.table, writer, context, "altered")
            check_may_alter(context.identity, table)
            message, index = _created(self, table, writer)
            if index is not None:
                request_build(services.jobs, writer, table, index, context.identity.user)
            return message

        with storage_errors():
            message = services.engine.commit_sync(define)
        services.vectors.watch()
        return StatementResult(message=message)


@dataclass(frozen=True, slots=True)
class DropVectorIndex(Command):
    """DROP VECTOR INDEX [IF EXISTS] name [ON t]; ALTER TABLE t DROP [VECTOR] INDEX column.

    One of `name` (in the namespace that `table` names, or of that table) and `column` is given.
    """

    impersonable: ClassVar[bool] = True

    table: TableName | None
    column: str | None = None
    name: TableName | None = None
    if_exists: bool = False

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """Take the definition away; files and memory follow in the background."""

        def define(writer: WriteTransaction) -> str:
            found = _found(self, writer, context)
            if found is None:
                return f"Vector index {self._shown(context)} does not exist (skipped)"
            table, index = found
            check_may_alter(context.identity, table)
            left = tuple(other for other in table.vector_indexes if other is not index)
            writer.put_table(msgspec.structs.replace(table, vector_indexes=left, updated_at=writer.now_us()))
            return f"Vector index disabled on {table.full_name}.{_column_of(table, index)}"

        with storage_errors():
            return StatementResult(message=services.engine.commit_sync(define))

    def _shown(self, context: StatementContext) -> str:
        if self.name is None:
            return f"on column '{self.column}'"
        return f"{self.name.namespace or context.namespace}.{self.name.name}"


def _created(
    statement: CreateVectorIndex, table: TableDef, writer: WriteTransaction
) -> tuple[str, VectorIndexDef | None]:
    """The message and, if it is new, the index."""
    column = table.by_name.get(statement.column)
    if column is None:
        raise ExecutionError(f"Not found: Column '{statement.column}' does not exist in table {table.full_name}")
    if column.type.kind is not Kind.EMBEDDING:
        raise ExecutionError(
            f"Invalid operation: Column '{column.name}' of {table.full_name} is {column.type}; "
            "a vector index is on an EMBEDDING column"
        )
    if table.kind is TableKind.STREAM:
        raise ExecutionError("Invalid operation: a vector index is on a USER or SHARED table, not on a STREAM table")
    name = statement.name or f"{table.name}_{column.name}_vector"
    existing = table.vector_index(column.name)
    if existing is not None:
        if statement.if_not_exists:
            return f"Vector index on {table.full_name}.{column.name} exists already (skipped)", None
        raise ExecutionError(
            f"Already exists: Column '{column.name}' of {table.full_name} has the vector index {existing.name} "
            f"({existing.metric.shown})"
        )
    if any(index.name == name for other in writer.catalog.tables(table.namespace) for index in other.vector_indexes):
        raise ExecutionError(f"Already exists: Namespace '{table.namespace}' has a vector index {name}")
    index = VectorIndexDef(table.next_index_id, name, column.column_id, statement.metric)
    changed = msgspec.structs.replace(
        table,
        vector_indexes=(*table.vector_indexes, index),
        next_index_id=table.next_index_id + 1,
        updated_at=writer.now_us(),
    )
    writer.put_table(changed)
    return f"Vector index enabled on {table.full_name}.{column.name} ({index.metric.shown})", index


def _found(
    statement: DropVectorIndex, writer: WriteTransaction, context: StatementContext
) -> tuple[TableDef, VectorIndexDef] | None:
    """The index that is meant, on a table that the caller may know of; None where IF EXISTS allows it."""
    if statement.table is not None:
        tables = [require_table(statement.table, writer, context, "altered")]
    else:
        assert statement.name is not None
        tables = list(writer.catalog.tables(statement.name.namespace or context.namespace))
    for table in tables:
        for index in table.vector_indexes:
            wanted = statement.name.name if statement.name is not None else None
            if index.name == wanted or (wanted is None and _column_of(table, index) == statement.column):
                return require_table(TableName(table.namespace, table.name), writer, context, "altered"), index
    if statement.if_exists:
        return None
    if statement.name is not None:
        shown = f"{statement.name.namespace or context.namespace}.{statement.name.name}"
        raise ExecutionError(f"Not found: Vector index '{shown}' does not exist")
    table = tables[0]
    if statement.column not in table.by_name:
        raise ExecutionError(f"Not found: Column '{statement.column}' does not exist in table {table.full_name}")
    raise ExecutionError(f"Not found: Column '{statement.column}' of {table.full_name} has no vector index")


def _column_of(table: TableDef, index: VectorIndexDef) -> str:
    column = table.by_id.get(index.column_id)
    return "" if column is None else column.name
