"""STORAGE FLUSH and STORAGE COMPACT: jobs that move the rows of a table to cold files, and that merge those files.

One job of a kind is queued or runs for a table at a time, and a flush and a compaction of a table follow one another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sql.errors import ExecutionError
from sql.jobs.errors import JobSkipped
from sql.jobs.model import JobDef, JobType
from sql.jobs.run import JobRun
from sql.jobs.service import JobService
from sql.jobs.store import Staged
from sql.lake.jobs import publish
from sql.lake.publishing import LakePublisher
from sql.results import StatementResult
from sql.rights import may_read, resolve_table
from sql.storage_errors import storage_errors
from sql.storages.rights import require_service
from storage.catalog import TableDef
from storage.engine import StorageEngine
from storage.errors import SchemaChanged

if TYPE_CHECKING:
    from sql.services import Services, StatementContext
    from sql.storages.statements import StorageCompact, StorageFlush


def register(jobs: JobService, engine: StorageEngine, lake: LakePublisher) -> None:
    """Have these jobs run."""
    jobs.register(JobType.FLUSH, lambda run: _run_flush(run, engine, lake), lane=_lane)
    jobs.register(JobType.COMPACT, lambda run: _run_compaction(run, engine, lake), lane=_lane)


def submit_flush(jobs: JobService, table: TableDef, actor: str) -> Staged:
    """Queue a flush of a table, unless one is queued or runs."""
    return _submit(jobs, JobType.FLUSH, table, actor)


def flush_key(table_id: int) -> str:
    """The idempotency key of flushes of a table."""
    return f"{JobType.FLUSH}:{table_id}"


def flush(statement: StorageFlush, context: StatementContext, services: Services) -> StatementResult:
    """STORAGE FLUSH: for service, dba and system."""
    require_service(context.identity, "flush tables")
    jobs, cold, actor = services.jobs, services.engine.cold, context.identity.user
    if statement.table is not None:
        with storage_errors(), services.snapshot(context) as snapshot:
            table = _table(statement, context, services)
            pending = cold.pending_rows(snapshot, table) or services.lake.stale(table.table_id)
        if not pending:
            return StatementResult(message=f"Storage flush skipped: no pending writes for table '{table.full_name}'")
        job, created = submit_flush(jobs, table, actor)
        if not created:
            return StatementResult(
                message=f"Storage flush skipped: a flush is already queued or running for table '{table.full_name}'"
            )
        return StatementResult(message=f"Storage flush started for table '{table.full_name}'. Job ID: {job.job_id}")
    namespace, tables = _tables(statement, context, services)
    ids = []
    for table in tables:
        context.control.check()
        with storage_errors(), services.snapshot(context) as snapshot:
            pending = cold.pending_rows(snapshot, table) or services.lake.stale(table.table_id)
        if pending:
            job, created = submit_flush(jobs, table, actor)
            ids += [job.job_id] * created
    return StatementResult(message=_started("flush", namespace, ids))


def compact(statement: StorageCompact, context: StatementContext, services: Services) -> StatementResult:
    """STORAGE COMPACT: for service, dba and system."""
    require_service(context.identity, "compact tables")
    jobs, actor = services.jobs, context.identity.user
    if statement.table is not None:
        table = _table(statement, context, services)
        job, created = _submit(jobs, JobType.COMPACT, table, actor)
        if not created:
            return StatementResult(
                message="Storage compaction skipped: a compaction is already queued or running for table "
                f"'{table.full_name}'"
            )
        return StatementResult(
            message=f"Storage compaction started for table '{table.full_name}'. Job ID: {job.job_id}"
        )
    namespace, tables = _tables(statement, context, services)
    ids = []
    for table in tables:
        context.control.check()
        job, created = _submit(jobs, JobType.COMPACT, table, actor)
        ids += [job.job_id] * created
    return StatementResult(message=_started("compaction", namespace, ids))


def _started(what: str, namespace: str, ids: list[str]) -> str:
    return f"Storage {what} started for {len(ids)} table(s) in namespace '{namespace}'. Job IDs: [{', '.join(ids)}]"


def _table(statement: StorageFlush | StorageCompact, context: StatementContext, services: Services) -> TableDef:
    """The table that a statement names, if it has cold files. Raises SqlError."""
    name = statement.table
    assert name is not None
    namespace = name.namespace or context.namespace
    with storage_errors(), services.snapshot(context) as snapshot:
        table = resolve_table(
            snapshot.catalog, services.system, context.identity.role, namespace, name.name,
            line=name.line, column=name.column,
        )  # fmt: skip
    if not isinstance(table, TableDef):
        raise ExecutionError(f"Invalid operation: '{namespace}.{name.name}' is not a table with stored rows")
    if table.expires:
        raise ExecutionError(
            f"Invalid operation: STREAM table '{table.full_name}' has no cold files: its rows expire where they are"
        )
    return table


def _tables(
    statement: StorageFlush | StorageCompact, context: StatementContext, services: Services
) -> tuple[str, list[TableDef]]:
    """The namespace that ALL means, and its tables that have cold files and that the caller may read."""
    namespace = statement.namespace or context.namespace
    with storage_errors(), services.snapshot(context) as snapshot:
        if snapshot.catalog.namespace(namespace) is None:
            raise ExecutionError(f"Not found: Namespace '{namespace}' does not exist")
        tables = [
            table
            for table in snapshot.catalog.tables(namespace)
            if not table.expires and may_read(context.identity.role, table)
        ]
    return namespace, tables


def _submit(jobs: JobService, kind: JobType, table: TableDef, actor: str) -> Staged:
    parameters = {"table": table.full_name, "table_id": table.table_id}
    return jobs.submit_once(kind, parameters, actor=actor, idempotency_key=f"{kind}:{table.table_id}")


def _lane(job: JobDef) -> str:
    return f"table {job.argument('table_id')}"


def _run_flush(run: JobRun, engine: StorageEngine, lake: LakePublisher) -> str:
    name, table_id = _of(run)
    with _gone(name):
        done = None if run.job.argument("publish_only") else engine.cold.flush(table_id, run.progress, run.check)
        published = publish(run, engine, lake, table_id)
    if done is None or not done.rows:
        if published is not None:
            return f"Published {published.files} file(s) of {name} with {published.dead_rows} deleted row(s)"
        raise JobSkipped(f"Table {name} has no rows to move")
    return f"Moved {done.rows} row(s) of {name} into {done.segments} file(s) of {done.bytes} bytes"


def _run_compaction(run: JobRun, engine: StorageEngine, lake: LakePublisher) -> str:
    name, table_id = _of(run)
    with _gone(name):
        done = engine.cold.compact(table_id, run.progress, run.check)
        publish(run, engine, lake, table_id)
    if not done.segments_before:
        raise JobSkipped(f"Table {name} has no cold files")
    return (
        f"Compacted {done.segments_before} file(s) of {name} into {done.segments_after}; "
        f"{done.rows_removed} dead row(s) removed"
    )


@contextmanager
def _gone(name: str) -> Iterator[None]:
    """A table that was dropped meanwhile leaves nothing to do."""
    try:
        yield
    except SchemaChanged:
        raise JobSkipped(f"Table {name} was dropped") from None


def _of(run: JobRun) -> tuple[str, int]:
    table_id = run.job.argument("table_id")
    assert isinstance(table_id, int)
    return str(run.job.argument("table")), table_id
