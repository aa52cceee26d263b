"""Data definition: every CREATE, ALTER and DROP of namespaces and tables, carried out on a transaction.

The session runs these inside the writer, so that what a statement verifies about existing rows still holds when
its definition is committed; within BEGIN … COMMIT on the transaction's own state. Scans may touch every row of
the table, so a statement never runs on the event loop.
"""

from __future__ import annotations

from sql import alter_table, create_table, namespaces
from sql.errors import ExecutionError, PermissionDenied, TableNotFound
from sql.identity import Role
from sql.jobs.cleanup import stage_table_cleanup
from sql.results import StatementResult
from sql.rights import may_read, nearest, readable_tables
from sql.row_expressions import Evaluation
from sql.statements import (
    AlterNamespace,
    AlterTable,
    CreateNamespace,
    CreateTable,
    DropNamespace,
    DropTable,
)
from sql.table_name import TableName
from sql.writing import RowWriter, StatementContext
from storage.catalog import TableDef

DefinitionStatement = CreateTable | AlterTable | DropTable | CreateNamespace | AlterNamespace | DropNamespace


def run(
    statement: DefinitionStatement,
    txn: RowWriter,
    context: StatementContext,
    evaluation: Evaluation | None = None,
) -> StatementResult:
    """Carry out one statement. Without `evaluation`, CHECK conditions are limited to what `sql.expressions` covers."""
    if isinstance(statement, CreateTable):
        return create_table.run(statement, txn, context, evaluation)
    if isinstance(statement, AlterTable):
        table = require_table(statement.table, txn, context, "altered")
        return alter_table.run(statement, table, txn, context, evaluation)
    if isinstance(statement, DropTable):
        return _drop_table(statement, txn, context)
    return namespaces.run(statement, txn, context)


def _drop_table(statement: DropTable, txn: RowWriter, context: StatementContext) -> StatementResult:
    """DROP TABLE: admins any, everyone else what they created."""
    namespace = statement.table.namespace or context.namespace
    name = (namespace, statement.table.name)
    if statement.if_exists and txn.catalog.table(*name) is None and txn.catalog.view(*name) is None:
        return StatementResult(message=f"Table {namespace}.{statement.table.name} does not exist (skipped)")
    table = require_table(statement.table, txn, context, "dropped")
    identity = context.identity
    if not identity.role.is_admin and table.owner != identity.user:
        raise PermissionDenied(f"Permission denied: table {table.full_name} was created by another user")
    if identity.role is Role.USER:
        alter_table.check_may_alter(identity, table)
    txn.drop_table(table.table_id)
    job_id = stage_table_cleanup(txn, [table], identity.user)
    return StatementResult(message=f"Table {table.full_name} dropped successfully. Cleanup job: {job_id}")


def require_table(name: TableName, txn: RowWriter, context: StatementContext, verb: str) -> TableDef:
    """The table, if it exists and the caller may know of it."""
    namespace = name.namespace or context.namespace
    full_name = f"{namespace}.{name.name}"
    if namespace in create_table.SYSTEM_NAMESPACES:
        raise PermissionDenied(f"Permission denied: system table '{full_name}' cannot be {verb}")
    table = txn.catalog.table(namespace, name.name)
    role = context.identity.role
    if table is None and txn.catalog.view(namespace, name.name) is not None:
        raise ExecutionError(
            f"Invalid operation: '{full_name}' is a view, not a table, and cannot be {verb} as one; write DROP VIEW or "
            "CREATE OR REPLACE VIEW",
            line=name.line, column=name.column,
        )  # fmt: skip
    if table is None:
        known = [other.full_name for other in readable_tables(role, txn.catalog)]
        near = nearest(full_name, known)
        hint = f". Did you mean '{near}'?" if near else ""
        raise TableNotFound(f"Table not found: '{full_name}'{hint}", line=name.line, column=name.column)
    if not may_read(role, table):
        raise PermissionDenied(
            f"Permission denied: role {role.value} may not see table '{full_name}'", line=name.line, column=name.column
        )
    return table
