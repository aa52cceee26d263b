"""A run of a job, as its runner sees it: it tells how far it is, and asks whether it is to go on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from sql.jobs.errors import JobCancelled, JobInterrupted
from sql.jobs.model import JobDef

log = logging.getLogger("headrace.jobs")

_LOGGED_STEP = 10
"""Percent between two lines in the log."""


class Progress(NamedTuple):
    """How far a running job is: percent, and what it says."""

    percent: int
    message: str


class JobRun:
    """One run. `job` is the job as it was when the run began. Use it from the runner's threads."""

    def __init__(self, job: JobDef) -> None:
        self.job = job
        self.latest = Progress(0, "")
        self._ended = threading.Event()
        self._reason: Callable[[str], JobCancelled] = JobCancelled
        self._logged = 0

    def progress(self, percent: float, message: str = "") -> None:
        """Say how far the job is (0 to 100), and in words what it does. Cheap: call it often."""
        bounded = int(min(max(percent, 0), 100))
        self.latest = Progress(bounded, message or self.latest.message)
        if bounded >= self._logged + _LOGGED_STEP:
            self._logged = bounded - bounded % _LOGGED_STEP
            log.info("job %s: %d %% %s", self.job.job_id, bounded, self.latest.message)

    def check(self) -> None:
        """Raise JobCancelled when the job is to stop. Call it between steps that leave everything whole."""
        if self._ended.is_set():
            raise self._reason(f"job {self.job.job_id} is to stop")

    def sleep(self, seconds: float) -> None:
        """Wait, but not for longer than the job may run. Raises JobCancelled."""
        self._ended.wait(seconds)
        self.check()

    def cancel(self) -> None:
        """Called by the service: somebody cancelled the job."""
        self._reason = JobCancelled
        self._ended.set()

    def interrupt(self) -> None:
        """Called by the service: the server stops."""
        if not self._ended.is_set():
            self._reason = JobInterrupted
            self._ended.set()
