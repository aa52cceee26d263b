"""BACKUP DATABASE and RESTORE DATABASE, and their parsers. The jobs that do the work are in `sql.backup.running`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sql.command import Command
from sql.parser_cursor import Cursor

if TYPE_CHECKING:
    from sql.results import StatementResult
    from sql.services import Services, StatementContext


@dataclass(frozen=True, slots=True)
class BackupDatabase(Command):
    """BACKUP DATABASE TO 'path'."""

    path: str

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """Start the job: for dba and system."""
        from sql.backup.running import start_backup

        return start_backup(self.path, context, services)


@dataclass(frozen=True, slots=True)
class RestoreDatabase(Command):
    """RESTORE DATABASE FROM 'path'."""

    path: str

    def run(self, context: StatementContext, services: Services) -> StatementResult:
        """Start the job: for dba and system."""
        from sql.backup.running import start_restore

        return start_restore(self.path, context, services)


def parse_backup(cursor: Cursor) -> BackupDatabase:
    """BACKUP DATABASE TO 'path', behind these two words."""
    cursor.expect("to")
    return BackupDatabase(cursor.string("the path of a folder in quotes"))


def parse_restore(cursor: Cursor) -> RestoreDatabase:
    """RESTORE DATABASE FROM 'path', behind these two words."""
    cursor.expect("from")
    return RestoreDatabase(cursor.string("the path of a backup in quotes"))
