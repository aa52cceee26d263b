"""Bulk inserts: the rows of a file into one table, all or nothing, past the SQL parser.

The file's columns are a subset of the table's; the others get their defaults. Constraints are those of INSERT. The
rows are staged as Arrow columns and written by one work, so the key index is filled in key order.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from sqlglot import exp

from sql.checks import check_rows, compile_checks
from sql.defaults import ValueSources, default_array
from sql.ingest import read_body
from sql.rights import partition_of
from sql.row_expressions import Run
from sql.services import Services, StatementContext, running_write
from sql.storage_errors import storage_errors, translated
from sql.violations import check_not_null
from sql.write_targets import resolve_target
from storage.catalog import TableDef
from storage.errors import SchemaChanged, StorageError
from storage.transaction import Transaction


def insert_file(services: Services, table_name: str, file: Path, content_type: str, context: StatementContext) -> int:
    """Insert a file's rows into `table_name` of the context's namespace; the number of rows."""
    node = exp.Table(this=exp.to_identifier(table_name), db=exp.to_identifier(context.namespace))
    for _ in range(services.limits.conflict_retries):
        with storage_errors(), services.snapshot(context) as view:
            binding = services.binding(view, context)
            table = resolve_target(
                node, view.catalog, services.system, context.identity.role, context.namespace, "insert into"
            )
            checks = compile_checks(table, binding)
            run = Run(Transaction(view), (), context.identity, running_write(services, context))
            with file.open("rb") as body:
                pieces = []
                for given in read_body(body, content_type, table):
                    context.control.check()
                    pieces.append(_completed(given, table, run.sources))
                    check_not_null(table.columns, pieces[-1])
                    check_rows(checks, pieces[-1], run)
        if not pieces:
            return 0
        rows = pa.concat_tables(pieces)
        if not rows.num_rows:
            return 0
        partition = partition_of(table, context.identity)
        try:
            services.engine.commit_sync(
                lambda writer, t=table, p=partition, r=rows: writer.insert(writer.expect_schema(t), p, r),  # type: ignore[misc]
                weight=rows.num_rows,
            )
        except SchemaChanged:
            continue
        except StorageError as error:
            raise translated(error, table) from error
        count: int = rows.num_rows
        return count
    raise translated(SchemaChanged(f"table {table_name} keeps changing"))


def _completed(given: pa.Table, table: TableDef, sources: ValueSources) -> pa.Table:
    """All columns of the table: those of the file, and defaults or NULL for the others."""
    arrays = [
        given.column(column.name)
        if column.name in given.column_names
        else default_array(column, given.num_rows, sources)
        for column in table.columns
    ]
    return pa.Table.from_arrays(arrays, schema=table.arrow_schema)
