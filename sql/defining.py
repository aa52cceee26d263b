"""Definitions as works for the writer: tables, namespaces, views and topics, each by the module that knows its kind."""

from __future__ import annotations

from collections.abc import Callable

from sql import ddl
from sql.results import StatementResult
from sql.row_expressions import Evaluation
from sql.services import Services, StatementContext, running_write
from sql.statements import (
    AlterNamespace,
    AlterTable,
    CreateNamespace,
    CreateTable,
    DropNamespace,
    DropTable,
    Statement,
)
from sql.storage_errors import storage_errors
from sql.topic_statements import TOPIC_DEFINITIONS
from sql.topics import definitions as topic_definitions
from sql.topics import sources as topic_sources
from sql.view_statements import CreateView, DropView
from sql.views import definitions as view_definitions
from storage.writer import WriteTransaction

TABLES = (CreateTable, AlterTable, DropTable, CreateNamespace, AlterNamespace, DropNamespace)
VIEWS = (CreateView, DropView)
DEFINITIONS = (*TABLES, *VIEWS, *TOPIC_DEFINITIONS)


def definition(
    statement: Statement, context: StatementContext, services: Services
) -> Callable[[WriteTransaction], StatementResult]:
    """What carries out one of `DEFINITIONS`. Raises SqlError and StorageError; then nothing of it is kept."""
    if isinstance(statement, TOPIC_DEFINITIONS):
        return lambda writer: topic_definitions.run(
            statement, writer, context, services.binding(writer, context), services.topics.settings
        )
    if isinstance(statement, DropView):
        return lambda writer: view_definitions.drop(statement, writer, context)
    if isinstance(statement, CreateView):
        return _create_view(statement, context, services)
    assert isinstance(statement, TABLES)
    return lambda writer: _define(statement, writer, context, services)


def _create_view(
    statement: CreateView, context: StatementContext, services: Services
) -> Callable[[WriteTransaction], StatementResult]:
    """A view's query is bound here; in the writer only again if a definition changed meanwhile."""
    with storage_errors(), services.snapshot(context) as view:
        prepared = view_definitions.prepare(statement, view, context, services.binding(view, context))

    def work(writer: WriteTransaction) -> StatementResult:
        present = prepared
        if writer.catalog.version != prepared.version:
            binding = services.binding(writer, context)
            present = view_definitions.prepare(statement, writer, context, binding)
        return view_definitions.create(present, writer)

    return work


def _define(
    statement: ddl.DefinitionStatement, writer: WriteTransaction, context: StatementContext, services: Services
) -> StatementResult:
    """A table or namespace; topics and views that read an altered table must still be right."""
    evaluation = Evaluation(services.binding(writer, context), running_write(services, context))
    result = ddl.run(statement, writer, context, evaluation)
    if isinstance(statement, AlterTable):
        altered = writer.catalog.table(statement.table.namespace or context.namespace, statement.table.name)
        if altered is not None:
            topic_sources.check_bound(altered, writer.catalog, services.binding(writer, context))
            view_definitions.refresh_views(altered, writer, services.binding(writer, context))
    return result
