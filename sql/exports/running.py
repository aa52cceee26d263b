"""What EXPORT USER DATA and SHOW EXPORT do, the job between them, and finding an export for its download.

A user has one export a day: asking again names the one that there is, unless it failed or was cancelled. Somebody who
may act for a user exports for them: EXECUTE AS USER 'ann' (EXPORT USER DATA).
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sql.computed_results import result_of
from sql.errors import ExportNotFound, InvalidInput, PermissionDenied, Unsupported
from sql.exports.archive import Archive
from sql.exports.definitions import EXPORT_KIND, FORMATS, UNFINISHED, ExportDef, ExportSettings
from sql.identity import Identity
from sql.jobs.model import JobDef, JobStatus, JobType
from sql.jobs.run import JobRun
from sql.jobs.store import all_jobs
from sql.results import StatementResult
from sql.storage_errors import storage_errors
from sql.system_tables import SystemColumn
from storage.blobs import sync_folder
from storage.engine import StorageEngine
from storage.file_store import FileStore
from storage.types import TEXT, TIMESTAMP
from storage.writer import WriteTransaction

if TYPE_CHECKING:
    from sql.services import Services, StatementContext

_DAY = 86_400.0
_SHOWN = 20
_LEASE = 86_400.0
_HINT = "Use SHOW EXPORT to check status and get the download link."
_WS_PATH = "/v1/ws"

_COLUMNS = (
    SystemColumn("job_id", TEXT, nullable=False),
    SystemColumn("status", TEXT, nullable=False),
    SystemColumn("created_at", TIMESTAMP, nullable=False),
    SystemColumn("message", TEXT),
    SystemColumn("download_url", TEXT),
)

_PLAUSIBLE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What could be the id of an export; whatever else is asked for is refused before it is looked for."""


def start_export(formats: tuple[str, ...], context: StatementContext, services: Services) -> StatementResult:
    """EXPORT USER DATA: for everybody."""
    if services.exports is None:
        raise Unsupported("This server has no place for exports.")
    user, jobs = context.identity.user, services.jobs
    key = f"{JobType.USER_EXPORT}:{user}:{datetime.now(UTC):%Y-%m-%d}"
    known = jobs.keyed(key)
    again = known is not None and known.status in (JobStatus.FAILED, JobStatus.CANCELLED)
    job, created = jobs.submit_once(
        JobType.USER_EXPORT, {"user": user, "formats": formats}, actor=user, idempotency_key=key,
        window=0.0 if again else _DAY,
    )  # fmt: skip
    if not created:
        return StatementResult(message=f"User data export of today was started already. Job ID: {job.job_id}. {_HINT}")
    return StatementResult(message=f"User data export started. Job ID: {job.job_id}. {_HINT}")


def show_exports(context: StatementContext, services: Services) -> StatementResult:
    """SHOW EXPORT: the caller's own."""
    user = context.identity.user
    with storage_errors(), services.snapshot(context) as snapshot:
        mine = [j for j in all_jobs(snapshot) if j.job_type is JobType.USER_EXPORT and j.argument("user") == user]
        mine.sort(key=lambda job: (job.created_at, job.job_id), reverse=True)
        now = services.functions.now_us()
        there = {
            job.job_id
            for job in mine[:_SHOWN]
            if (found := snapshot.get_object(EXPORT_KIND, job.job_id, ExportDef)) is not None and found.expires_at > now
        }
    base = _base_url(context.ws_url)
    return result_of(_COLUMNS, (_row(job, job.job_id in there, base, services) for job in mine[:_SHOWN]))


def _row(job: JobDef, there: bool, base: str, services: Services) -> tuple[object, ...]:
    user = str(job.argument("user"))
    url = f"{base}/v1/exports/{quote(user, safe='')}/{job.job_id}" if there else None
    message = job.message
    if job.status is JobStatus.RUNNING and (latest := services.jobs.progress_of(job.job_id)) is not None:
        message = f"{latest.percent} % {latest.message}".rstrip()
    return job.job_id, job.status.value, job.created_at, message or None, url


def _base_url(ws_url: str) -> str:
    """Scheme, host and port under which the client of a request reaches the server, from its WebSocket's URL."""
    return "http" + ws_url.removeprefix("ws").removesuffix(_WS_PATH) if ws_url else ""


def run_export(run: JobRun, engine: StorageEngine, files: FileStore | None, settings: ExportSettings) -> str:
    """The work of an export job: one ZIP file of what a user has at one commit."""
    if files is None:
        return _export(run, engine, None, settings)
    with files.holding():
        return _export(run, engine, files, settings)


def _export(run: JobRun, engine: StorageEngine, files: FileStore | None, settings: ExportSettings) -> str:
    user = str(run.job.argument("user"))
    chosen = run.job.argument("formats")
    formats = tuple(form for form in FORMATS if isinstance(chosen, list) and form in chosen) or FORMATS
    job_id = run.job.job_id
    target = settings.path(job_id)
    settings.folder.mkdir(mode=0o700, exist_ok=True)
    staged = target.with_name(target.name + UNFINISHED)
    staged.unlink(missing_ok=True)
    with engine.snapshot(lease=_LEASE, purpose="export") as snapshot:
        tables = [t for t in snapshot.catalog.tables() if t.per_user and snapshot.count(t, user)]
        if not tables:
            return "No data found for this user in any table"
        try:
            with Archive(staged, snapshot, user, settings.max_bytes, run.check) as archive:
                for number, table in enumerate(tables):
                    run.progress(100 * number / len(tables), f"exports {table.full_name}")
                    archive.add_table(table, formats, None if files is None else files.blobs)
                archive.finish(job_id, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
    with staged.open("rb") as written:
        os.fsync(written.fileno())
    staged.replace(target)
    sync_folder(settings.folder)
    nbytes = target.stat().st_size

    def record(writer: WriteTransaction) -> None:
        now = writer.now_us()
        writer.put_object(
            EXPORT_KIND, job_id, ExportDef(job_id, user, nbytes, now, now + int(settings.retention * 1e6))
        )

    engine.commit_sync(record)
    rows = sum(entry.rows for entry in archive.tables)
    count = sum(len(entry.files) for entry in archive.tables)
    return f"Exported {rows} row(s) of {len(tables)} table(s) and {count} file(s): {nbytes} bytes"


def find_export(
    engine: StorageEngine, settings: ExportSettings | None, user: str, export_id: str, identity: Identity, now_us: int
) -> Path:
    """The file of an export, if the caller may have it. Raises InvalidInput, PermissionDenied, ExportNotFound."""
    if _PLAUSIBLE_ID.fullmatch(export_id) is None:
        raise InvalidInput("Invalid export id")
    if not user or len(user) > 256 or any(character in "/\\\0" for character in user) or user in {".", ".."}:
        raise InvalidInput("Invalid user id")
    if user != identity.user and not identity.role.is_admin:
        raise PermissionDenied("Permission denied: exports are for the users whose data they hold, dba and system")
    with storage_errors(), engine.snapshot(purpose="export") as snapshot:
        found = snapshot.get_object(EXPORT_KIND, export_id, ExportDef)
    if settings is None or found is None or found.user != user or found.expires_at <= now_us:
        raise ExportNotFound("Export not found")
    path = settings.path(export_id)
    if not path.is_file():
        raise ExportNotFound("Export not found")
    return path
