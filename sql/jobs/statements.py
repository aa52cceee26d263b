"""KILL JOB, and its parser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sql.command import Command
from sql.errors import PermissionDenied
from sql.parser_cursor import Cursor

if TYPE_CHECKING:
    from sql.results import StatementResult
    from sql.services import Services, StatementContext


@dataclass(frozen=True, slots=True)
class KillJob(Command):
    """KILL JOB 'id'."""

    job_id: str

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """Cancel a job: for dba and system."""
        from sql.results import StatementResult

        if not context.identity.role.is_admin:
            raise PermissionDenied(
                f"Permission denied: jobs are ended with role dba or system, not {context.identity.role.value}"
            )
        job = services.jobs.cancel(self.job_id, context.identity.user)
        return StatementResult(message=f"Job {job.job_id} killed: cancelled")


def parse_kill_job(cursor: Cursor) -> KillJob:
    """KILL JOB 'id', behind these words."""
    return KillJob(cursor.string("a job's id in quotes, as system.jobs shows it"))
