"""CREATE, ALTER and DROP NAMESPACE."""

from __future__ import annotations

import msgspec

from sql.errors import ExecutionError, PermissionDenied
from sql.jobs.cleanup import stage_table_cleanup
from sql.names import check_namespace_name
from sql.results import StatementResult
from sql.statements import AlterNamespace, CreateNamespace, DropNamespace
from sql.system_tables import SYSTEM_NAMESPACES
from sql.writing import DefinitionWriter, StatementContext, time_of
from storage.catalog import NamespaceDef
from storage.views import ReadView

DEFAULT_NAMESPACE = "default"


def run(
    statement: CreateNamespace | AlterNamespace | DropNamespace, txn: DefinitionWriter, context: StatementContext
) -> StatementResult:
    """Carry out one namespace statement; all three are for dba and system."""
    if not context.identity.role.is_admin:
        raise PermissionDenied("Permission denied: namespaces are managed by the roles dba and system")
    if isinstance(statement, CreateNamespace):
        return _create(statement, txn)
    if isinstance(statement, AlterNamespace):
        return _alter(statement, txn)
    return _drop(statement, txn, context)


def require_namespace(txn: ReadView, name: str) -> NamespaceDef:
    """The namespace, or the error that says how to create it."""
    namespace = txn.catalog.namespace(name)
    if namespace is None:
        raise ExecutionError(f"Namespace '{name}' does not exist. Create it first with CREATE NAMESPACE {name}")
    return namespace


def _create(statement: CreateNamespace, txn: DefinitionWriter) -> StatementResult:
    name = statement.name
    if txn.catalog.namespace(name) is not None:
        if statement.if_not_exists:
            return StatementResult(message=f"Namespace '{name}' already exists")
        raise ExecutionError(f"Already exists: Namespace '{name}' already exists")
    check_namespace_name(name)
    txn.put_namespace(NamespaceDef(name=name, created_at=time_of(txn)))
    return StatementResult(message=f"Namespace '{name}' created successfully")


def _alter(statement: AlterNamespace, txn: DefinitionWriter) -> StatementResult:
    namespace = txn.catalog.namespace(statement.name)
    if namespace is None:
        raise ExecutionError(f"Not found: Namespace '{statement.name}' does not exist")
    options = {**namespace.options, **statement.options}
    txn.put_namespace(msgspec.structs.replace(namespace, options=options))
    return StatementResult(message=f"Namespace '{statement.name}' altered successfully")


def _drop(statement: DropNamespace, txn: DefinitionWriter, context: StatementContext) -> StatementResult:
    name = statement.name
    if name in (DEFAULT_NAMESPACE, *SYSTEM_NAMESPACES):
        raise ExecutionError(f"Invalid operation: Namespace '{name}' cannot be dropped")
    if txn.catalog.namespace(name) is None:
        if statement.if_exists:
            return StatementResult(message=f"Namespace '{name}' does not exist")
        raise ExecutionError(f"Not found: Namespace '{name}' does not exist")
    tables = list(txn.catalog.tables(name))
    topics = list(txn.catalog.topics(name))
    views = list(txn.catalog.views(name))
    if statement.restrict and (tables or topics or views):
        held = [f"{len(tables)} table(s)"] if tables else []
        held += [f"{len(topics)} topic(s)"] if topics else []
        held += [f"{len(views)} view(s)"] if views else []
        raise ExecutionError(
            f"Invalid operation: Namespace '{name}' is not empty ({', '.join(held)}); "
            "drop them first or leave out RESTRICT"
        )
    for topic in topics:
        txn.drop_topic(topic.topic_id)
    for view in views:
        txn.drop_view(view.namespace, view.name)
    for table in tables:
        txn.drop_table(table.table_id)
    if tables:
        stage_table_cleanup(txn, tables, context.identity.user)
    txn.drop_namespace(name)
    return StatementResult(message=f"Namespace '{name}' dropped successfully")
