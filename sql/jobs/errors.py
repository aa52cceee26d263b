"""What ends a run of a job before its time, and what statements about jobs answer.

Exception
├── JobSkipped      raised by a runner: there was nothing to do; the job ends as `skipped`
└── JobCancelled    raised by `JobRun.check`: the job was cancelled
    └── JobInterrupted    ... or the server stops; it runs again after the next start
SqlError
└── JobNotFound     JOB_NOT_FOUND 404
"""

from __future__ import annotations

from sql.errors import SqlError


class JobSkipped(Exception):
    """There was nothing to do. The message says why."""


class JobCancelled(Exception):
    """The job is to stop: somebody cancelled it."""


class JobInterrupted(JobCancelled):
    """The job is to stop because the server does. It goes on after the next start."""


class JobNotFound(SqlError):
    """There is no such job."""

    code = "JOB_NOT_FOUND"
    status = 404
