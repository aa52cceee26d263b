"""Jobs in the catalog: everything that changes a stored job, each change inside a writer's work.

A work may run more than once before it commits, so nothing here remembers anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

import msgspec

from sql.jobs.errors import JobNotFound
from sql.jobs.model import JOB_KIND, KEY_KIND, JobDef, JobKey, JobStatus, JobType, new_job_id
from sql.writing import DefinitionWriter, time_of
from storage.views import ReadView
from storage.writer import WriteTransaction

T = TypeVar("T")

MAX_INTERRUPTIONS = 10
"""How often a job may be cut off by the end of the server: then it may be what ends it."""
MAX_TEXT = 16_000
"""Characters of a message or a trace that are kept."""


class Staged(NamedTuple):
    """A submitted job, and whether it is a new one or one that its key named already."""

    job: JobDef
    created: bool


def stage(
    txn: DefinitionWriter,
    job_type: JobType,
    parameters: Mapping[str, object],
    *,
    actor: str,
    idempotency_key: str | None = None,
    window: float = 0.0,
    priority: int | None = None,
    max_retries: int = 3,
) -> Staged:
    """Put a job into the commit of a work: it exists if and only if the commit does.

    A key that names a job which is not finished, or finished less than `window` seconds ago, answers with that job.
    """
    now = time_of(txn)
    if idempotency_key is not None:
        known = keyed(txn, idempotency_key)
        if known is not None and (not known.status.finished or now - (known.finished_at or 0) < window * 1e6):
            return Staged(known, created=False)
    job = JobDef(
        job_id=new_job_id(job_type, now), job_type=job_type, status=JobStatus.QUEUED,
        parameters=msgspec.json.encode(parameters, order="deterministic").decode(), idempotency_key=idempotency_key,
        priority=job_type.priority if priority is None else priority, max_retries=max_retries, actor=actor,
        created_at=now, updated_at=now,
    )  # fmt: skip
    txn.put_object(JOB_KIND, job.job_id, job)
    if idempotency_key is not None:
        txn.put_object(KEY_KIND, key_name(idempotency_key), JobKey(job.job_id))
    return Staged(job, created=True)


def keyed(view: ReadView, idempotency_key: str) -> JobDef | None:
    """The job that an idempotency key named last, if it is still there."""
    key = view.get_object(KEY_KIND, key_name(idempotency_key), JobKey)
    return None if key is None else view.get_object(JOB_KIND, key.job_id, JobDef)


def key_name(idempotency_key: str) -> str:
    """The object name of a key: keys may be longer than LMDB allows."""
    return hashlib.sha256(idempotency_key.encode()).hexdigest()


def all_jobs(view: ReadView) -> Iterable[JobDef]:
    """All stored jobs."""
    return view.list_objects(JOB_KIND, JobDef)


def begin(job_id: str) -> Callable[[WriteTransaction], JobDef | None]:
    """The job starts to run; None when it is gone or no longer waits."""

    def work(wtxn: WriteTransaction) -> JobDef | None:
        job = wtxn.get_object(JOB_KIND, job_id, JobDef)
        if job is None or job.status.finished:
            return None
        now = wtxn.now_us()
        return _put(wtxn, job, status=JobStatus.RUNNING, started_at=job.started_at or now, progress=0, now=now)

    return work


def end(job_id: str, status: JobStatus, message: str, progress: int) -> Callable[[WriteTransaction], JobDef | None]:
    """The job ran to its end. One that was cancelled meanwhile stays so, and tells what happened to it."""

    def work(wtxn: WriteTransaction) -> JobDef | None:
        job = wtxn.get_object(JOB_KIND, job_id, JobDef)
        if job is None:
            return None
        now = wtxn.now_us()
        text = message[:MAX_TEXT]
        if job.status.finished:
            late = f"{job.message}; it had come to its end before it could be stopped: {text}"
            return _put(wtxn, job, message=late if status is JobStatus.COMPLETED else job.message, now=now)
        done = 100 if status is JobStatus.COMPLETED else progress
        return _put(wtxn, job, status=status, message=text, progress=done, finished_at=now, now=now)

    return work


def fail(job_id: str, message: str, trace: str, progress: int) -> Callable[[WriteTransaction], JobDef | None]:
    """The run failed: it is to be repeated while retries are left, else the job has failed."""

    def work(wtxn: WriteTransaction) -> JobDef | None:
        job = wtxn.get_object(JOB_KIND, job_id, JobDef)
        if job is None or job.status.finished:
            return job
        now = wtxn.now_us()
        again = job.retry_count < job.max_retries
        return _put(
            wtxn, job, status=JobStatus.RETRYING if again else JobStatus.FAILED, message=message[:MAX_TEXT],
            exception_trace=trace[-MAX_TEXT:], retry_count=job.retry_count + again, progress=progress,
            finished_at=None if again else now, now=now,
        )  # fmt: skip

    return work


def give_back(job_id: str) -> Callable[[WriteTransaction], JobDef | None]:
    """The run was ended by an orderly stop of the server: the job waits for the next start."""

    def work(wtxn: WriteTransaction) -> JobDef | None:
        job = wtxn.get_object(JOB_KIND, job_id, JobDef)
        if job is None or job.status.finished:
            return job
        return _put(wtxn, job, status=JobStatus.QUEUED, message="Goes on after the next start", now=wtxn.now_us())

    return work


def cancel(job_id: str, actor: str) -> Callable[[WriteTransaction], JobDef]:
    """The job is not to run, or not to go on. Raises JobNotFound; a finished job stays as it is."""

    def work(wtxn: WriteTransaction) -> JobDef:
        job = wtxn.get_object(JOB_KIND, job_id, JobDef)
        if job is None:
            raise JobNotFound(f"There is no job '{job_id[:100]}'")
        if job.status.finished:
            raise JobNotFound(f"Job {job_id} is not running: it has ended as {job.status} already")
        now = wtxn.now_us()
        by = f"Cancelled by {actor}" if actor else "Cancelled"
        return _put(wtxn, job, status=JobStatus.CANCELLED, message=by, finished_at=now, now=now)

    return work


def queue_interrupted(wtxn: WriteTransaction) -> int:
    """At start: what ran when the server ended is queued again; how many. What ended it too often has failed."""
    count = 0
    for job in list(all_jobs(wtxn)):
        if job.status.finished or job.status is JobStatus.QUEUED:
            continue
        count += 1
        now = wtxn.now_us()
        cut = job.interruptions + (job.status is JobStatus.RUNNING)
        if cut > MAX_INTERRUPTIONS:
            message = f"Given up: the server ended {cut} times while it ran"
            _put(wtxn, job, status=JobStatus.FAILED, message=message, interruptions=cut, finished_at=now, now=now)
        else:
            message = job.message or "Queued again after a restart"
            _put(wtxn, job, status=JobStatus.QUEUED, message=message, interruptions=cut, now=now)
    return count


def delete(jobs: Iterable[str]) -> Callable[[WriteTransaction], int]:
    """Finished jobs go, with the keys that name them; how many."""

    def work(wtxn: WriteTransaction) -> int:
        count = 0
        for job_id in jobs:
            job = wtxn.get_object(JOB_KIND, job_id, JobDef)
            if job is None or not job.status.finished:
                continue
            wtxn.delete_object(JOB_KIND, job_id)
            count += 1
            if job.idempotency_key is not None:
                name = key_name(job.idempotency_key)
                key = wtxn.get_object(KEY_KIND, name, JobKey)
                if key is not None and key.job_id == job_id:
                    wtxn.delete_object(KEY_KIND, name)
        return count

    return work


def _put(wtxn: WriteTransaction, job: JobDef, *, now: int, **changes: object) -> JobDef:
    changed: JobDef = msgspec.structs.replace(job, updated_at=now, **changes)
    wtxn.put_object(JOB_KIND, job.job_id, changed)
    return changed
