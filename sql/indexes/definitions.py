"""CREATE INDEX and DROP INDEX: the definition, who may, and how the index is built.

A table of up to BUILT_AT_ONCE rows is built by the statement itself. For a larger one a job does it; the statement
waits for it within its own time limit and then answers with the job's name. Either way the definition is committed
first, and writes keep the index from then on (`storage.index_build`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from sql.alter_table import check_may_alter
from sql.audit import record
from sql.ddl import require_table
from sql.errors import ExecutionError, Unsupported
from sql.identity import Role
from sql.indexes.building import job_parameters, violation
from sql.indexes.statements import CreateIndex, DropIndex
from sql.jobs.model import JobStatus, JobType
from sql.names import check_index_name
from sql.results import StatementResult
from sql.rights import may_read
from sql.services import Services, StatementContext
from sql.storage_errors import storage_errors
from sql.table_name import TableName
from storage.catalog import IndexDef, TableDef
from storage.errors import DuplicateKey
from storage.index_build import abandon_index, build_index
from storage.index_build import drop_index as drop_definition
from storage.types import KEY_KINDS
from storage.views import ReadView
from storage.writer import WriteTransaction

MAX_INDEXES: Final = 32
"""Most secondary indexes of one table."""
MAX_INDEX_COLUMNS: Final = 16
BUILT_AT_ONCE: Final = 100_000
"""Rows of a table whose index the statement builds itself."""
_ANSWER_SECONDS: Final = 1.0
"""What is left of the statement's time when it stops waiting for a job."""


class _Defined(NamedTuple):
    table: TableDef
    added: IndexDef | None
    """None when an index of that name was there."""


def create_index(statement: CreateIndex, context: StatementContext, services: Services) -> StatementResult:
    """Define an index and build it. Raises SqlError; then there is no such index."""
    engine = services.engine

    def define(wtxn: WriteTransaction) -> _Defined:
        table = require_table(statement.table, wtxn, context, "indexed")
        check_may_alter(context.identity, table)
        if _existing(statement, table, wtxn):
            return _Defined(table, None)
        index = _definition(statement, table, wtxn.now_us())
        if not _small(table, wtxn):
            parameters = job_parameters(table, index)
            job = services.jobs.submit_in(wtxn, JobType.INDEX_BUILD, parameters, actor=context.identity.user)
            index = msgspec.structs.replace(index, job=job.job_id)
        wtxn.put_table(
            msgspec.structs.replace(
                table, indexes=(*table.indexes, index), next_index_id=table.next_index_id + 1, updated_at=wtxn.now_us()
            )
        )
        details = {"table": table.full_name, "columns": list(statement.columns), "unique": statement.unique}
        target = f"{table.namespace}.{index.name}"
        record(wtxn, context, "CREATE_INDEX", target, details, context.subject)
        return _Defined(table, index)

    with storage_errors():
        table, index = engine.commit_sync(define)
    if index is None:
        return StatementResult(message=f"Index {statement.name} already exists on table {table.full_name} (skipped)")
    if index.job:
        return _await_job(index, table, context, services)
    with storage_errors(table):
        try:
            built = build_index(engine, table.table_id, index.index_id, check=context.control.check)
        except DuplicateKey as error:
            abandon_index(engine, table.table_id, index.index_id)
            raise violation(error, table) from None
        except BaseException:
            abandon_index(engine, table.table_id, index.index_id)
            raise
    if built is None:
        raise ExecutionError(f"Index {index.name} was dropped while it was being built")
    return StatementResult(message=f"Index {index.name} on table {table.full_name} created successfully")


def _await_job(index: IndexDef, table: TableDef, context: StatementContext, services: Services) -> StatementResult:
    """Wait for the job as long as the statement may."""
    job = services.jobs.wait(index.job, max(context.control.remaining - _ANSWER_SECONDS, 0.0))
    if job.status is JobStatus.COMPLETED:
        return StatementResult(message=f"Index {index.name} on table {table.full_name} created successfully")
    if job.status.finished:
        raise ExecutionError(job.message or f"Index {index.name} was not built: job {job.job_id} is {job.status}")
    return StatementResult(
        message=f"Index {index.name} on table {table.full_name} is being built by job {job.job_id}; queries use it "
        "when it is ready"
    )


def _existing(statement: CreateIndex, table: TableDef, view: ReadView) -> bool:
    """Whether an index of that name is there and may be. Names of indexes are unique in a namespace."""
    for other in view.catalog.tables(table.namespace):
        if other.index(statement.name) is None:
            continue
        if statement.if_not_exists and other.table_id == table.table_id:
            return True
        raise ExecutionError(
            f"Already exists: Index {table.namespace}.{statement.name} already exists"
            + ("" if other.table_id == table.table_id else ", on another table")
        )
    return False


def _definition(statement: CreateIndex, table: TableDef, now_us: int) -> IndexDef:
    """The definition, everything about it verified."""
    if table.expires:
        raise Unsupported(
            f"CREATE INDEX is not available for STREAM tables (table '{table.full_name}'): their rows end by themselves"
        )
    check_index_name(statement.name)
    if len(table.indexes) >= MAX_INDEXES:
        raise ExecutionError(f"Invalid operation: a table has at most {MAX_INDEXES} indexes")
    if len(statement.columns) > MAX_INDEX_COLUMNS:
        raise ExecutionError(
            f"Invalid operation: an index has at most {MAX_INDEX_COLUMNS} columns, not {len(statement.columns)}"
        )
    ids: list[int] = []
    for name in statement.columns:
        column = table.by_name.get(name)
        if column is None:
            raise ExecutionError(f"Not found: Column '{name}' does not exist in table {table.full_name}")
        if column.column_id in ids:
            raise ExecutionError(f"Invalid operation: an index names column '{name}' twice")
        if column.type.kind not in KEY_KINDS:
            raise ExecutionError(f"Invalid operation: column '{name}' of type {column.type} cannot be part of an index")
        ids.append(column.column_id)
    return IndexDef(table.next_index_id, statement.name, tuple(ids), statement.unique, created_at=now_us)


def _small(table: TableDef, view: ReadView) -> bool:
    """Whether the table has so few rows that the statement itself builds the index."""
    rows = 0
    for partition in view.partitions(table):
        rows += view.count(table, partition)
        if rows > BUILT_AT_ONCE:
            return False
    return True


def drop_index(statement: DropIndex, context: StatementContext, services: Services) -> StatementResult:
    """Drop an index by its name, which is unique in its namespace."""
    namespace = statement.name.namespace or (statement.table and statement.table.namespace) or context.namespace
    full_name = f"{namespace}.{statement.name.name}"

    def work(wtxn: WriteTransaction) -> TableDef | None:
        table = _table_of(statement, namespace, wtxn, context)
        if table is None:
            if statement.if_exists:
                return None
            raise ExecutionError(f"Not found: Index '{full_name}' does not exist")
        check_may_alter(context.identity, table)
        index = table.index(statement.name.name)
        assert index is not None
        record(wtxn, context, "DROP_INDEX", full_name, {"table": table.full_name}, context.subject)
        return drop_definition(wtxn, table, index.index_id)

    with storage_errors():
        table = services.engine.commit_sync(work)
    if table is None:
        return StatementResult(message=f"Index {full_name} does not exist (skipped)")
    return StatementResult(message=f"Index {statement.name.name} on table {table.full_name} dropped successfully")


def _table_of(
    statement: DropIndex, namespace: str, view: WriteTransaction, context: StatementContext
) -> TableDef | None:
    """The table that has the index, if there is one that the caller may know of."""
    role: Role = context.identity.role
    for table in view.catalog.tables(namespace):
        if table.index(statement.name.name) is not None and may_read(role, table):
            if statement.table is not None and not _names(statement.table, table, context):
                return None
            return table
    if statement.table is not None and not statement.if_exists:
        require_table(statement.table, view, context, "altered")
    return None


def _names(name: TableName, table: TableDef, context: StatementContext) -> bool:
    return (name.namespace or context.namespace, name.name) == (table.namespace, table.name)
