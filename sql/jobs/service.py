"""The job engine: durable submission, a dispatcher, a thread for each job that runs.

A job is an object in the catalog (`sql.jobs.model`), so it is submitted by a commit, on its own or together with what
it follows from. The engine tells after each commit which objects changed; whatever submits a job, the dispatcher learns
of it that way, and after an error of the disk it reads all of them again. It starts what waits, the lowest priority
number first, at most `max_concurrent` at once and one of each *lane*: jobs of a lane would only be in each other's way.

A run ends as `completed`, `skipped`, `cancelled`, or it raised: then it is repeated after a pause, until its retries
are used up. When the server ends, whatever ran is queued again at the next start, so runners go on where they were or
do again what is done already.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from sql.errors import Overloaded
from sql.jobs import store
from sql.jobs.errors import JobCancelled, JobInterrupted, JobNotFound, JobSkipped
from sql.jobs.model import JOB_KIND, JobDef, JobStatus, JobType
from sql.jobs.run import JobRun, Progress
from sql.jobs.settings import JobSettings
from sql.storage_errors import storage_errors
from sql.writing import DefinitionWriter
from storage.engine import StorageEngine
from storage.errors import StorageClosed, StorageError
from storage.seams import SYSTEM_CLOCK, Clock
from storage.writer import WriteTransaction

log = logging.getLogger("headrace.jobs")

T = TypeVar("T")
Runner = Callable[[JobRun], str]
Lane = Callable[[JobDef], str]

_STORAGE_PAUSE = 0.5
"""Seconds until a change that the storage did not take is tried again."""


class _Kind(NamedTuple):
    runner: Runner
    lane: Lane | None


class _Running(NamedTuple):
    run: JobRun
    thread: threading.Thread
    lane: str | None


class JobService:
    """All jobs of one engine. Safe from any thread, except the writer's where it says so.

    Register runners, then `start`. Before that, and without it, jobs are stored and wait.
    """

    def __init__(self, engine: StorageEngine, settings: JobSettings | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self.settings = settings or JobSettings()
        self._engine = engine
        self._clock = clock
        self._kinds: dict[JobType, _Kind] = {}
        self._changed = threading.Condition()  # never held while the storage is asked for something
        self._names: set[str] = set()
        self._read_all = True
        self._generation = 0
        self._stopped = False
        self._statuses: dict[str, JobStatus] = {}
        self._waiting: dict[str, JobDef] = {}
        self._due: dict[str, float] = {}
        self._running: dict[str, _Running] = {}
        self._thread: threading.Thread | None = None
        self._tidied = clock.monotonic()
        engine.watch_objects(self._on_objects)

    # --- runners -------------------------------------------------------------------------------------------------

    def register(self, job_type: JobType, runner: Runner, *, lane: Lane | None = None) -> None:
        """Say what runs jobs of a type. `lane` names what at most one job, of whatever type, may work on at a time."""
        self._kinds[job_type] = _Kind(runner, lane)

    # --- submitting ----------------------------------------------------------------------------------------------

    def submit(
        self,
        job_type: JobType,
        parameters: Mapping[str, object],
        *,
        actor: str,
        idempotency_key: str | None = None,
        window: float = 0.0,
        priority: int | None = None,
    ) -> JobDef:
        """Queue a job; durable when it returns. See `submit_once`."""
        return self.submit_once(
            job_type, parameters, actor=actor, idempotency_key=idempotency_key, window=window, priority=priority
        ).job

    def submit_once(
        self,
        job_type: JobType,
        parameters: Mapping[str, object],
        *,
        actor: str,
        idempotency_key: str | None = None,
        window: float = 0.0,
        priority: int | None = None,
    ) -> store.Staged:
        """Queue a job, unless the key names one that has not finished, or finished within `window` seconds: then that.

        Raises Overloaded when too many wait, and what the storage raises as SqlError.
        """
        if len(self._waiting) >= self.settings.max_waiting:
            raise Overloaded(f"{self.settings.max_waiting:,} jobs wait already (jobs.max_waiting).")

        def work(wtxn: WriteTransaction) -> store.Staged:
            return store.stage(
                wtxn, job_type, parameters, actor=actor, idempotency_key=idempotency_key, window=window,
                priority=priority, max_retries=self.settings.max_retries,
            )  # fmt: skip

        with storage_errors():
            return self._engine.commit_sync(work)

    def submit_in(
        self,
        writer: DefinitionWriter,
        job_type: JobType,
        parameters: Mapping[str, object],
        *,
        actor: str,
        idempotency_key: str | None = None,
    ) -> JobDef:
        """Queue a job in the commit of a writer's work: it is there if and only if the commit is."""
        return store.stage(
            writer, job_type, parameters, actor=actor, idempotency_key=idempotency_key,
            max_retries=self.settings.max_retries,
        ).job  # fmt: skip

    # --- asking --------------------------------------------------------------------------------------------------

    def get(self, job_id: str) -> JobDef | None:
        """A job as it is stored."""
        with storage_errors(), self._engine.snapshot(purpose="job") as snapshot:
            return snapshot.get_object(JOB_KIND, job_id, JobDef)

    def keyed(self, idempotency_key: str) -> JobDef | None:
        """The job that a key named last."""
        with storage_errors(), self._engine.snapshot(purpose="job") as snapshot:
            return store.keyed(snapshot, idempotency_key)

    def wait(self, job_id: str, seconds: float) -> JobDef:
        """The job once it has finished and no run of it is left, or as it is after so many seconds.

        Raises JobNotFound.
        """
        until = self._clock.monotonic() + seconds
        while True:
            with self._changed:
                seen = self._generation
            job = self.get(job_id)
            if job is None:
                raise JobNotFound(f"There is no job '{job_id[:100]}'")
            left = until - self._clock.monotonic()
            if left <= 0 or (job.status.finished and job_id not in self._running):
                return job
            with self._changed:
                if self._generation == seen and (job_id in self._running or not job.status.finished):
                    self._changed.wait(left)

    def progress_of(self, job_id: str) -> Progress | None:
        """How far a job is that runs now."""
        running = self._running.get(job_id)
        return None if running is None else running.run.latest

    def figures(self) -> dict[str, int]:
        """Figures for system.stats: they follow the commits by a moment."""
        statuses = list(self._statuses.values())
        return {
            "jobs_running": len(self._running),
            "jobs_queued": len(self._waiting),
            "jobs_failed": statuses.count(JobStatus.FAILED),
            "total_jobs": len(statuses),
        }

    # --- cancelling ----------------------------------------------------------------------------------------------

    def cancel(self, job_id: str, actor: str = "") -> JobDef:
        """Cancel a job: it is `cancelled` when this returns, and a run of it stops at its next check.

        Raises JobNotFound when there is no such job, or it has finished.
        """
        with storage_errors():
            job = self._engine.commit_sync(store.cancel(job_id, actor))
        running = self._running.get(job_id)
        if running is not None:
            running.run.cancel()
        log.info("job %s: cancelled by %s", job_id, actor or "the server")
        return job

    # --- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Queue again what was cut off, and begin to run jobs. Raises StorageError."""
        with self._engine.snapshot(purpose="jobs") as snapshot:
            cut = any(not j.status.finished and j.status is not JobStatus.QUEUED for j in store.all_jobs(snapshot))
        if cut:
            count = self._engine.commit_sync(store.queue_interrupted)
            log.info("%d job(s) that had not finished are queued again", count)
        self._tidied = self._clock.monotonic() - self.settings.cleanup_interval
        self._thread = threading.Thread(target=self._dispatch, name="headrace-jobs", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let running jobs stop at their next check, and wait for that, but not for ever."""
        with self._changed:
            self._stopped = True
            running = list(self._running.values())
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        for one in running:
            one.run.interrupt()
        until = self._clock.monotonic() + self.settings.stop
        for one in running:
            one.thread.join(max(0.0, until - self._clock.monotonic()))
            if one.thread.is_alive():
                log.warning("job %s does not stop; it is queued again at the next start", one.run.job.job_id)

    # --- the dispatcher ------------------------------------------------------------------------------------------

    def _on_objects(self, objects: tuple[tuple[str, str], ...] | None) -> None:
        """On the writer's thread: objects that a commit changed; None: any may have changed."""
        names = None if objects is None else {name for kind, name in objects if kind == JOB_KIND}
        if names or names is None:
            with self._changed:
                self._read_all |= names is None
                self._names |= names or set()
                self._generation += 1
                self._changed.notify_all()

    def _dispatch(self) -> None:
        while True:
            with self._changed:
                if not self._stopped and not self._names and not self._read_all:
                    self._changed.wait(self._pause())
                if self._stopped:
                    return
                names, self._names = self._names, set()
                everything, self._read_all = self._read_all, False
            try:
                self._read(None if everything else names)
                self._tidy()
            except StorageClosed:
                return
            except Exception:
                log.exception("the list of jobs cannot be read; it is tried again")
                with self._changed:
                    self._read_all = True
                    if not self._stopped:
                        self._changed.wait(_STORAGE_PAUSE)
            self._start_due()

    def _pause(self) -> float:
        """Seconds until the next retry is due, or old jobs are looked for."""
        now = self._clock.monotonic()
        due = [time - now for name, time in self._due.items() if name not in self._running]
        return max(0.001, min([self._tidied + self.settings.cleanup_interval - now, *due]))

    def _read(self, names: set[str] | None) -> None:
        """Learn of jobs that changed, or of all."""
        if names is not None and not names:
            return
        with self._engine.snapshot(purpose="jobs") as snapshot:
            if names is None:
                jobs = {job.job_id: job for job in store.all_jobs(snapshot)}
                gone = self._statuses.keys() - jobs.keys()
            else:
                found = {name: snapshot.get_object(JOB_KIND, name, JobDef) for name in names}
                jobs = {name: job for name, job in found.items() if job is not None}
                gone = names - jobs.keys()
        now = self._clock.monotonic()
        with self._changed:
            for name in gone:
                for known in (self._statuses, self._waiting, self._due):
                    known.pop(name, None)
            for name, job in jobs.items():
                self._statuses[name] = job.status
                if job.status not in (JobStatus.QUEUED, JobStatus.RETRYING):
                    self._waiting.pop(name, None)
                    self._due.pop(name, None)
                    continue
                self._waiting[name] = job
                if job.status is JobStatus.RETRYING and name not in self._due:
                    self._due[name] = now + self.settings.retry_backoff * 2 ** max(job.retry_count - 1, 0)

    def _start_due(self) -> None:
        now = self._clock.monotonic()
        with self._changed:
            lanes = {running.lane for running in self._running.values()} - {None}
            for job in sorted(self._waiting.values(), key=lambda job: (job.priority, job.created_at, job.job_id)):
                if self._stopped or len(self._running) >= self.settings.max_concurrent:
                    return
                if job.job_id in self._running or self._due.get(job.job_id, now) > now:
                    continue
                kind = self._kinds.get(job.job_type)
                lane = None if kind is None or kind.lane is None else kind.lane(job)
                if lane in lanes:
                    continue
                lanes |= {lane} - {None}
                run = JobRun(job)
                thread = threading.Thread(
                    target=self._carry_out, args=(run, kind), name=f"headrace-job-{job.job_id}", daemon=True
                )
                self._running[job.job_id] = _Running(run, thread, lane)
                self._waiting.pop(job.job_id)
                self._due.pop(job.job_id, None)
                thread.start()

    # --- a run ---------------------------------------------------------------------------------------------------

    def _carry_out(self, run: JobRun, kind: _Kind | None) -> None:
        job_id = run.job.job_id
        done: JobDef | None = None
        try:
            begun = self._commit(store.begin(job_id))
            if begun is not None:
                run.job = begun
                done = self._commit(self._outcome(run, kind))
        except StorageClosed:
            log.warning("job %s: the storage closed; it is queued again at the next start", job_id)
        except Exception:
            log.exception("job %s: what became of it cannot be stored", job_id)
        finally:
            with self._changed:
                self._running.pop(job_id, None)
                if done is not None:
                    self._statuses[job_id] = done.status
                self._names.add(job_id)
                self._changed.notify_all()

    def _outcome(self, run: JobRun, kind: _Kind | None) -> Callable[[WriteTransaction], JobDef | None]:
        """Run it; what is to be stored of it."""
        job = run.job
        began = self._clock.monotonic()
        log.info("job %s (%s) begins%s", job.job_id, job.job_type, f", for {job.actor}" if job.actor else "")
        try:
            if kind is None:
                return store.end(job.job_id, JobStatus.FAILED, f"This server has no way to run {job.job_type}", 0)
            message = kind.runner(run)
        except JobSkipped as skipped:
            log.info("job %s skipped: %s", job.job_id, skipped)
            return store.end(job.job_id, JobStatus.SKIPPED, str(skipped), run.latest.percent)
        except JobInterrupted:
            log.info("job %s stops with the server at %d %%", job.job_id, run.latest.percent)
            return store.give_back(job.job_id)
        except JobCancelled:
            log.info("job %s stopped at %d %%", job.job_id, run.latest.percent)
            return store.end(job.job_id, JobStatus.CANCELLED, "Cancelled", run.latest.percent)
        except StorageClosed:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the job is to tell it
            trace = traceback.format_exc()
            used = f"{job.retry_count} of {job.max_retries} retries used"
            log.warning("job %s failed (%s): %s", job.job_id, used, error)
            return store.fail(job.job_id, f"{type(error).__name__}: {error}", trace, run.latest.percent)
        log.info("job %s completed in %.2f s: %s", job.job_id, self._clock.monotonic() - began, message)
        return store.end(job.job_id, JobStatus.COMPLETED, message, 100)

    def _commit(self, work: Callable[[WriteTransaction], T]) -> T:
        """Commit what became of a job, however long the storage takes to take it. Raises StorageClosed."""
        while True:
            try:
                return self._engine.commit_sync(work)
            except StorageClosed:
                raise
            except StorageError as error:
                log.warning("the state of a job waits for the storage: %s", error)
                with self._changed:
                    if self._stopped:
                        raise
                    self._changed.wait(_STORAGE_PAUSE)

    # --- old jobs ------------------------------------------------------------------------------------------------

    def _tidy(self) -> None:
        """Now and then: let a job remove jobs that finished long ago, or are too many."""
        now = self._clock.monotonic()
        if now < self._tidied + self.settings.cleanup_interval:
            return
        self._tidied = now
        if self.old_jobs() and JobType.JOB_CLEANUP in self._kinds:
            self.submit(JobType.JOB_CLEANUP, {}, actor="", idempotency_key="job_cleanup")

    def old_jobs(self) -> list[str]:
        """The finished jobs that are older than the settings keep them, or too many; the oldest first."""
        with self._engine.snapshot(purpose="old jobs") as snapshot:
            finished = sorted((j.finished_at or 0, j.job_id) for j in store.all_jobs(snapshot) if j.status.finished)
        before = self._clock.now_us() - int(self.settings.retention * 1e6)
        surplus = len(finished) - self.settings.max_finished
        return [name for place, (at, name) in enumerate(finished) if at < before or place < surplus]

    def remove(self, job_ids: list[str]) -> int:
        """Remove finished jobs; how many there were."""
        return self._commit(store.delete(job_ids))
