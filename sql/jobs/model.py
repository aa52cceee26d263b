"""What a job is: its type, its status, its definition as it is stored."""

from __future__ import annotations

import enum
import secrets
from typing import Final

import msgspec

JOB_KIND: Final = "job"
"""Object kind of `JobDef`, by job id."""

KEY_KIND: Final = "_job_key"
"""Object kind of `JobKey`, by a digest of the idempotency key."""


class JobType(enum.StrEnum):
    """What a job does."""

    FLUSH = "flush"
    COMPACT = "compact"
    CLEANUP = "cleanup"
    BACKUP = "backup"
    RESTORE = "restore"
    USER_EXPORT = "user_export"
    VECTOR_INDEX = "vector_index"
    INDEX_BUILD = "index_build"
    TOPIC_CLEANUP = "topic_cleanup"
    RETENTION = "retention"
    STREAM_EVICTION = "stream_eviction"
    USER_CLEANUP = "user_cleanup"
    JOB_CLEANUP = "job_cleanup"
    MANIFEST_EVICTION = "manifest_eviction"
    TOPIC_RETENTION = "topic_retention"

    @property
    def prefix(self) -> str:
        """The two letters that its ids begin with."""
        return _PREFIXES[self]

    @property
    def priority(self) -> int:
        """The priority of such a job unless its submitter names one: 1 comes first, 10 last."""
        return _PRIORITIES.get(self, 5)


_PREFIXES: Final = {
    JobType.FLUSH: "FL", JobType.COMPACT: "CO", JobType.CLEANUP: "CL", JobType.BACKUP: "BK", JobType.RESTORE: "RS",
    JobType.USER_EXPORT: "UE", JobType.VECTOR_INDEX: "VI", JobType.INDEX_BUILD: "IX", JobType.TOPIC_CLEANUP: "TC",
    JobType.RETENTION: "RT", JobType.STREAM_EVICTION: "SE", JobType.USER_CLEANUP: "UC", JobType.JOB_CLEANUP: "JC",
    JobType.MANIFEST_EVICTION: "ME", JobType.TOPIC_RETENTION: "TR",
}  # fmt: skip

_PRIORITIES: Final = {
    JobType.BACKUP: 3, JobType.RESTORE: 3, JobType.USER_EXPORT: 3, JobType.INDEX_BUILD: 3, JobType.VECTOR_INDEX: 4,
    JobType.FLUSH: 4, JobType.COMPACT: 6, JobType.CLEANUP: 7, JobType.TOPIC_CLEANUP: 7, JobType.JOB_CLEANUP: 8,
}  # fmt: skip
"""What somebody waits for comes before what gives space back."""


class JobStatus(enum.StrEnum):
    """Where a job stands."""

    NEW = "new"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self in _FINISHED


_FINISHED: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.SKIPPED})


class JobDef(msgspec.Struct, frozen=True):
    """A job as it is stored. Times are microseconds since the epoch; `parameters` is JSON text.

    `progress` is what was last stored, in percent; while the job runs, `JobService.progress_of` knows better.
    `retry_count` counts runs that failed, `interruptions` those that the end of the server cut off.
    """

    job_id: str
    job_type: JobType
    status: JobStatus
    parameters: str = "{}"
    message: str = ""
    exception_trace: str | None = None
    idempotency_key: str | None = None
    priority: int = 5
    retry_count: int = 0
    max_retries: int = 3
    progress: int = 0
    actor: str = ""
    created_at: int = 0
    updated_at: int = 0
    started_at: int | None = None
    finished_at: int | None = None
    interruptions: int = 0

    def argument(self, name: str) -> object:
        """One of the parameters, decoded; None when it is not there."""
        found: dict[str, object] = msgspec.json.decode(self.parameters)
        return found.get(name)


class JobKey(msgspec.Struct, frozen=True):
    """Which job an idempotency key named last."""

    job_id: str


def new_job_id(job_type: JobType, now_us: int) -> str:
    """An id that was never used: the prefix, the milliseconds of its making, and randomness, in hexadecimal."""
    return f"{job_type.prefix}-{now_us // 1000:011x}{secrets.token_hex(6)}"
