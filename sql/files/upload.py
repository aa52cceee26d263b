"""A statement with files: checked, its files stored, run, and whatever no row took removed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sql.errors import InvalidInput, StorageUnavailable
from sql.files.placeholders import FileStatement, check_places, file_statement
from sql.files.references import UploadedFile, new_file
from sql.parameters import json_kind
from sql.request import parse_statements
from sql.results import StatementResult
from sql.services import Services, StatementContext
from sql.session import Session
from sql.storage_errors import storage_errors
from sql.system_tables import SYSTEM_NAMESPACES
from sql.write_targets import located, resolve_target
from storage.blobs import BlobError
from storage.catalog import TableDef
from storage.file_store import FileStore


def run_with_files(
    services: Services, store: FileStore, sql: str, context: StatementContext, uploads: Mapping[str, UploadedFile]
) -> list[StatementResult]:
    """Run a request that has brought files, by the name of their part. Raises SqlError; then no file is kept."""
    batch = parse_statements(sql, len(context.params), max_statements=services.limits.max_statements)
    statement = file_statement(batch, uploads.keys())
    if statement is None:
        return Session(services, batch, context).run()
    inner_context = Session(services, batch, context).context_of(statement.parsed)
    table = _table_of(services, statement, inner_context)
    check_places(statement, table)
    parsed, parts = statement.with_parameters(len(context.params) + 1)
    user = inner_context.identity.user if table.per_user else ""
    keys, texts = _store(store, services, table, user, [uploads[part] for part in parts])
    try:
        params = [*context.params, *texts]
        full = replace(context, params=params, kinds=tuple(map(json_kind, params)))
        return Session(services, [parsed], full).run()
    finally:
        store.release(keys)


def _table_of(services: Services, statement: FileStatement, context: StatementContext) -> TableDef:
    """The table that gets the files. Raises InvalidInput for tables that cannot have any."""
    ast = statement.write.ast
    target = ast.this.this if ast.this.key == "schema" else ast.this
    verb = ast.key
    if (target.db or context.namespace) in SYSTEM_NAMESPACES:
        raise located(InvalidInput, "System tables hold no files", target)
    with storage_errors(), services.snapshot(context) as view:
        table = resolve_target(target, view.catalog, services.system, context.identity.role, context.namespace, verb)
    if table.expires:
        message = f"STREAM tables hold no files (table '{table.full_name}'); use a USER or SHARED table"
        raise located(InvalidInput, message, target)
    return table


def _store(
    store: FileStore, services: Services, table: TableDef, user: str, uploads: Sequence[UploadedFile]
) -> tuple[list[tuple[int, int]], list[str]]:
    files = [(new_file(services.functions.snowflake_id(), upload), upload.staged) for upload in uploads]
    try:
        with storage_errors(table):
            return store.store(table, user, files)
    except BlobError as error:
        raise StorageUnavailable(f"The request's files could not be stored; nothing was changed. {error}") from error
