"""A job engine over a real storage engine, with runners that a test steers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sql.jobs.model import JobDef, JobStatus, JobType
from sql.jobs.run import JobRun
from sql.jobs.service import JobService
from sql.jobs.settings import JobSettings
from storage import StorageEngine, StorageOptions

QUICK = JobSettings(retry_backoff=0.001, stop=5.0)
LONG = 60.0
"""Seconds after which a test has failed: nothing waits for so long when all is well."""


class Gate:
    """A runner that stands until it is let go, and tells who is in it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = False
        self.inside: list[str] = []
        self.order: list[str] = []
        self.most = 0

    def __call__(self, run: JobRun) -> str:
        with self._changed:
            self.inside.append(run.job.job_id)
            self.order.append(run.job.job_id)
            self.most = max(self.most, len(self.inside))
            self._changed.notify_all()
        try:
            while True:
                with self._changed:
                    if self._open:
                        return "through"
                run.check()
                with self._changed:
                    if not self._open:
                        self._changed.wait(0.01)
        finally:
            with self._changed:
                self.inside.remove(run.job.job_id)
                self._changed.notify_all()

    def open(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def wait_inside(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.inside) >= count, LONG)


@contextmanager
def engine_at(folder: Path) -> Iterator[StorageEngine]:
    with StorageEngine.open(folder / "data", StorageOptions(map_start=64 << 20, merge=False)) as engine:
        yield engine


def finished(jobs: JobService, job: JobDef, status: JobStatus = JobStatus.COMPLETED) -> JobDef:
    """The job once it has ended, which it must have in that way."""
    ended = jobs.wait(job.job_id, LONG)
    assert ended.status is status, ended
    return ended


def flush(jobs: JobService, **parameters: object) -> JobDef:
    return jobs.submit(JobType.FLUSH, parameters, actor="root")
