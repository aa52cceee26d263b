"""The INDEX_BUILD job: builds an index that is too large for its statement, or whose building was cut off."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from sql.errors import ExecutionError
from sql.jobs.errors import JobCancelled, JobInterrupted, JobSkipped
from sql.jobs.model import JobType
from sql.jobs.run import JobRun
from sql.violations import duplicate_violation
from storage.catalog import IndexDef, IndexState, TableDef
from storage.engine import StorageEngine
from storage.errors import DuplicateKey

if TYPE_CHECKING:
    from sql.jobs.service import JobService

log = logging.getLogger("headrace.indexes")


class _Parameters(msgspec.Struct, frozen=True):
    table_id: int
    index_id: int
    table: str = ""
    index: str = ""


def job_parameters(table: TableDef, index: IndexDef) -> dict[str, object]:
    """What a job has to know; the names are for people."""
    return {"table_id": table.table_id, "index_id": index.index_id, "table": table.full_name, "index": index.name}


def violation(error: DuplicateKey, table: TableDef) -> ExecutionError:
    """The error for rows that stand against a unique index."""
    reason = duplicate_violation(error, table).message
    return ExecutionError(f"{reason} of more than one row, so the index was not created")


def register(jobs: JobService, engine: StorageEngine) -> None:
    """Let jobs build indexes, one of a table at a time."""

    def run(job: JobRun) -> str:
        from storage.index_build import abandon_index, build_index  # a server at rest does without it

        wanted = msgspec.json.decode(job.job.parameters, type=_Parameters)
        table = engine.catalog.table_by_id(wanted.table_id)
        if table is None:
            raise JobSkipped(f"Table {wanted.table} was dropped")

        def progress(percent: float) -> None:
            job.progress(percent, f"building index {wanted.index} of {wanted.table}")

        try:
            rows = build_index(engine, wanted.table_id, wanted.index_id, progress, job.check)
        except DuplicateKey as error:
            abandon_index(engine, wanted.table_id, wanted.index_id)
            raise JobSkipped(violation(error, table).message) from None
        except JobInterrupted:
            raise
        except JobCancelled:
            abandon_index(engine, wanted.table_id, wanted.index_id)
            raise
        if rows is None:
            raise JobSkipped(f"Index {wanted.index} was dropped or is ready")
        return f"Index {wanted.index} on table {wanted.table} is ready: {rows:,} rows"

    jobs.register(JobType.INDEX_BUILD, run, lane=lambda job: str(_table_of(job.parameters)))


def _table_of(parameters: str) -> int:
    return msgspec.json.decode(parameters, type=_Parameters).table_id


def resume(jobs: JobService, engine: StorageEngine) -> None:
    """At start: a job for every index that was left unfinished without one. Raises StorageError."""
    for table in engine.catalog.tables():
        for index in table.indexes:
            if index.state is IndexState.READY:
                continue
            job = jobs.get(index.job) if index.job else None
            if job is None or job.status.finished:
                key = f"index-{table.table_id}-{index.index_id}"
                jobs.submit(JobType.INDEX_BUILD, job_parameters(table, index), actor=table.owner, idempotency_key=key)
                log.info("index %s of %s was left unfinished; a job builds it", index.name, table.full_name)
