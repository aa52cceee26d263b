"""The jobs behind BACKUP DATABASE and RESTORE DATABASE. One of them runs at a time."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sql.backup.layout import BackupError, Manifest, choose_point, read_manifest
from sql.backup.making import database_id, expect_target, make_backup
from sql.backup.restoring import UNFINISHED, restore
from sql.backup.swapping import announce, expect_swappable, staging_folder
from sql.errors import ExecutionError
from sql.jobs.errors import JobCancelled, JobInterrupted
from sql.jobs.model import JobType
from sql.jobs.run import JobRun
from sql.results import StatementResult
from sql.storage_errors import storage_errors
from sql.storages.rights import require_admin
from storage.engine import StorageEngine
from storage.file_store import FileStore

if TYPE_CHECKING:
    from sql.services import Services, StatementContext

_LONGEST = 4096


def start_backup(path: str, context: StatementContext, services: Services) -> StatementResult:
    """BACKUP DATABASE: for dba and system."""
    require_admin(context.identity, "back up the database")
    target = _path(path)
    try:
        with storage_errors():
            expect_target(target, services.engine.path, database_id(services.engine))
    except (BackupError, OSError) as error:
        raise ExecutionError(f"Invalid operation: {error}") from error
    job = services.jobs.submit(JobType.BACKUP, {"path": path}, actor=context.identity.user)
    return StatementResult(message=f"Database backup started to '{path}'. Job ID: {job.job_id}")


def start_restore(path: str, context: StatementContext, services: Services) -> StatementResult:
    """RESTORE DATABASE: for dba and system."""
    require_admin(context.identity, "restore the database")
    backup = _path(path)
    try:
        if not backup.is_absolute():
            raise BackupError(f"the path of a backup must be absolute, and '{path[:200]}' is not")
        if not backup.is_dir():
            raise BackupError(f"Backup directory '{path[:200]}' does not exist")
        point = read_manifest(backup, choose_point(backup, None)).point
        expect_swappable(services.engine.path)
    except (BackupError, OSError) as error:
        raise ExecutionError(f"Invalid operation: {error}") from error
    job = services.jobs.submit(JobType.RESTORE, {"path": path, "point": point}, actor=context.identity.user)
    return StatementResult(
        message=f"Database restore started from '{path}'. Job ID: {job.job_id}. "
        "Server restart required after completion."
    )


def _path(path: str) -> Path:
    if not path or len(path) > _LONGEST or "\0" in path:
        raise ExecutionError("Invalid operation: the path of a backup must have 1 to 4,096 characters")
    return Path(path)


def run_backup(run: JobRun, engine: StorageEngine, files: FileStore | None) -> str:
    """The work of a backup job."""
    target = Path(str(run.job.argument("path")))
    try:
        made = make_backup(engine, files, target, run.progress, run.check)
    except OSError as error:
        raise BackupError(f"the backup in '{target}' could not be written: {error.strerror or error}") from error
    manifest = made.manifest
    return (
        f"Restore point {manifest.point} of {manifest.total_bytes} bytes in '{target}': {manifest.new_bytes} bytes "
        f"copied, the rest was there"
    )


def run_restore(run: JobRun, engine: StorageEngine) -> str:
    """The work of a restore job: it restores beside the data folder, and leaves a note for the next start."""
    data = engine.path.absolute()
    expect_swappable(data)
    backup, point = Path(str(run.job.argument("path"))), str(run.job.argument("point"))
    staging = staging_folder(data, run.job.job_id)
    if not (staging / UNFINISHED).exists():
        shutil.rmtree(staging, ignore_errors=True)  # whole, of a run that was killed before its note; or not there
    try:
        manifest: Manifest = restore(backup, staging, point, run.progress, run.check)
    except JobInterrupted:
        raise
    except (JobCancelled, Exception):
        shutil.rmtree(staging, ignore_errors=True)
        raise
    former = f"{data.name}.before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    announce(data, staging, former)
    return (
        f"Restore point {manifest.point} is ready beside the data folder. The next start of the server puts it in "
        f"place and keeps the present data as '{former}'; what is written until then is only there"
    )
