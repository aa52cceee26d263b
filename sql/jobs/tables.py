"""system.jobs and system.job_nodes: a job runs on the one node that there is."""

from __future__ import annotations

from sql.jobs.model import JobStatus
from sql.jobs.store import all_jobs
from sql.system_tables import SYSTEM, Rows, SystemColumn, SystemContext, SystemTable
from storage.types import BIGINT, INT, JSON, TEXT, TIMESTAMP
from storage.views import ReadView

_NODE = 1
_QUEUE = "default"

_JOB_COLUMNS = (
    SystemColumn("job_id", TEXT, nullable=False),
    SystemColumn("job_type", TEXT, nullable=False),
    SystemColumn("status", TEXT, nullable=False),
    SystemColumn("leader_status", TEXT),
    SystemColumn("parameters", JSON),
    SystemColumn("message", TEXT),
    SystemColumn("exception_trace", TEXT),
    SystemColumn("idempotency_key", TEXT),
    SystemColumn("queue", TEXT),
    SystemColumn("priority", INT),
    SystemColumn("retry_count", INT, nullable=False),
    SystemColumn("max_retries", INT, nullable=False),
    SystemColumn("memory_used", BIGINT),
    SystemColumn("cpu_used", BIGINT),
    SystemColumn("created_at", TIMESTAMP, nullable=False),
    SystemColumn("updated_at", TIMESTAMP, nullable=False),
    SystemColumn("started_at", TIMESTAMP),
    SystemColumn("finished_at", TIMESTAMP),
    SystemColumn("node_id", BIGINT, nullable=False),
    SystemColumn("leader_node_id", BIGINT),
    SystemColumn("progress", INT, nullable=False),
    SystemColumn("actor", TEXT),
)
"""The reference's columns, then ours."""


def _job_rows(view: ReadView, context: SystemContext) -> Rows:
    for job in all_jobs(view):
        percent, message = job.progress, job.message
        if job.status is JobStatus.RUNNING and (latest := context.job_progress(job.job_id)) is not None:
            percent, message = latest
        yield (
            job.job_id, job.job_type.value, job.status.value, job.status.value, job.parameters, message or None,
            job.exception_trace, job.idempotency_key, _QUEUE, job.priority, job.retry_count, job.max_retries, None,
            None, job.created_at, job.updated_at, job.started_at, job.finished_at, _NODE, _NODE, percent,
            job.actor or None,
        )  # fmt: skip


_NODE_COLUMNS = (
    SystemColumn("job_id", TEXT, nullable=False),
    SystemColumn("node_id", BIGINT, nullable=False),
    SystemColumn("status", TEXT, nullable=False),
    SystemColumn("error_message", TEXT),
    SystemColumn("created_at", TIMESTAMP, nullable=False),
    SystemColumn("started_at", TIMESTAMP),
    SystemColumn("finished_at", TIMESTAMP),
    SystemColumn("updated_at", TIMESTAMP, nullable=False),
)


def _node_rows(view: ReadView, context: SystemContext) -> Rows:
    for job in all_jobs(view):
        failed = job.message if job.status in (JobStatus.FAILED, JobStatus.RETRYING) else None
        yield (
            job.job_id, _NODE, job.status.value, failed, job.created_at, job.started_at, job.finished_at,
            job.updated_at,
        )  # fmt: skip


JOB_TABLES = (
    SystemTable(SYSTEM, "jobs", _JOB_COLUMNS, _job_rows, key=("job_id",)),
    SystemTable(SYSTEM, "job_nodes", _NODE_COLUMNS, _node_rows, key=("job_id", "node_id")),
)
