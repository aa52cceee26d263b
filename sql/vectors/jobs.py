"""VECTOR_INDEX jobs: building a new index, with progress. The job is queued in the commit of the definition."""

from __future__ import annotations

import msgspec

from sql.jobs.errors import JobInterrupted
from sql.jobs.model import JobDef, JobType
from sql.jobs.run import JobRun
from sql.jobs.service import JobService
from sql.vectors.upkeep import Stopped, VectorUpkeep
from storage.catalog import TableDef
from storage.vector_definitions import VectorIndexDef
from storage.writer import WriteTransaction


class _Parameters(msgspec.Struct, frozen=True):
    """Which index; the names are for whoever reads system.jobs."""

    table_id: int
    index_id: int
    table: str = ""
    index: str = ""


def request_build(
    jobs: JobService, writer: WriteTransaction, table: TableDef, index: VectorIndexDef, actor: str
) -> None:
    """Queue the job in the commit of a writer's work."""
    parameters = _Parameters(table.table_id, index.index_id, table.full_name, index.name)
    jobs.submit_in(writer, JobType.VECTOR_INDEX, msgspec.structs.asdict(parameters), actor=actor)


def register(jobs: JobService, upkeep: VectorUpkeep) -> None:
    """Run such jobs, one for an index at a time. A run that is repeated goes on where it was."""

    def run(job: JobRun) -> str:
        wanted = msgspec.json.decode(job.job.parameters, type=_Parameters)
        try:
            return upkeep.build(wanted.table_id, wanted.index_id, job.progress, job.check)
        except Stopped:
            raise JobInterrupted(f"job {job.job.job_id} is to stop") from None

    def lane(job: JobDef) -> str:
        wanted = msgspec.json.decode(job.parameters, type=_Parameters)
        return f"vector index {wanted.table_id} {wanted.index_id}"

    jobs.register(JobType.VECTOR_INDEX, run, lane=lane)
