"""The end of dropped accounts: after the grace period their rows of USER and STREAM tables go, and then their record.

DROP USER keeps both, so that a mistake can be mended: CREATE USER with the same name makes the account anew, and the
rows are its rows again. When `deletion_grace_period_days` are over, a USER_CLEANUP job deletes the rows, table by
table, as any DELETE would: topics and live queries hear of it, files go with their rows. Each commit of it deletes at
most `SLICE` rows, and only if the account is still the one that was dropped: made anew in the middle, it keeps what is
left. The record goes last, in one commit with its entry in the audit log. A job that was cut off finds the same
accounts again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from sql.audit import Origin, record
from sql.jobs.errors import JobSkipped
from sql.jobs.model import JobType
from sql.jobs.run import JobRun
from sql.jobs.service import JobService
from storage.catalog import USER_KIND, TableDef, UserDef
from storage.engine import StorageEngine
from storage.seams import SYSTEM_CLOCK, Clock
from storage.views import ReadView
from storage.writer import WriteTransaction

SLICE = 2_000
"""Most rows that one commit deletes."""
DAY_US = 86_400_000_000
KEY = "user_cleanup"


class UserCleanupSettings(msgspec.Struct, frozen=True):
    """How long dropped accounts can be made anew with their rows; a negative number: for ever."""

    grace_days: float = 30.0


class UserCleanup:
    """Looks for accounts whose time is over, and is the runner of the jobs that end them."""

    def __init__(
        self,
        engine: StorageEngine,
        jobs: JobService,
        settings: UserCleanupSettings | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.settings = settings or UserCleanupSettings()
        self._engine = engine
        self._jobs = jobs
        self._clock = clock
        jobs.register(JobType.USER_CLEANUP, self.run, lane=lambda job: KEY)

    def look(self) -> None:
        """Submit a job if an account is due and no job waits for it. Raises SqlError and StorageError."""
        if self._due():
            self._jobs.submit(JobType.USER_CLEANUP, {}, actor="", idempotency_key=KEY)

    def run(self, run: JobRun) -> str:
        """End every account that is due; how many there were, and their rows."""
        due = self._due()
        if not due:
            raise JobSkipped("No dropped account is old enough")
        accounts = rows = 0
        for number, account in enumerate(due):
            run.progress(100 * number / len(due), f"ends account '{account.user_id}'")
            ended, deleted = self._end(account, run)
            accounts += ended
            rows += deleted
        return f"Ended {accounts} dropped account(s) with {rows} row(s)"

    def _due(self) -> list[UserDef]:
        days = self.settings.grace_days
        if days < 0:
            return []
        bound = self._clock.now_us() - int(days * DAY_US)
        with self._engine.snapshot(purpose="dropped accounts") as view:
            users = view.list_objects(USER_KIND, UserDef)  # decoded one by one: there may be very many
            return [user for user in users if user.deleted_at is not None and user.deleted_at <= bound]

    def _end(self, account: UserDef, run: JobRun) -> tuple[bool, int]:
        """Whether the account is gone, and how many rows with it."""
        deleted = 0
        for table in [table for table in self._engine.catalog.tables() if table.per_user]:
            while True:
                run.check()
                with self._engine.snapshot(purpose="user cleanup") as view:
                    seqs = _rows_of(view, table, account.user_id)
                if not seqs:
                    break
                for start in range(0, len(seqs), SLICE):
                    run.check()
                    slice_ = seqs[start : start + SLICE]
                    count = self._engine.commit_sync(partial(_delete, account, table, slice_), weight=len(slice_))
                    if count is None:
                        return False, deleted
                    deleted += count
        return self._engine.commit_sync(partial(_forget, account, deleted)), deleted


def _rows_of(view: ReadView, table: TableDef, user: str) -> list[int]:
    """The `_seq`s of a user's rows; none when the table was dropped meanwhile."""
    current = view.catalog.table_by_id(table.table_id)
    if current is None or not view.count(current, user):
        return []
    seqs: list[int] = view.scan(current, user, ["_seq"]).column(0).to_pylist()
    return seqs


def _delete(account: UserDef, table: TableDef, seqs: Sequence[int], writer: WriteTransaction) -> int | None:
    """Delete those of the rows that are still there; None when the account is not the dropped one any more."""
    if not _is_dropped(account, writer):
        return None
    current = writer.catalog.table_by_id(table.table_id)
    if current is None:
        return 0
    alive = writer.live(current, account.user_id, seqs)
    left = [seq for seq, lives in zip(seqs, alive, strict=True) if lives]
    if left:
        writer.delete(current, account.user_id, left)
    return len(left)


def _forget(account: UserDef, rows: int, writer: WriteTransaction) -> bool:
    if not _is_dropped(account, writer):
        return False
    writer.delete_object(USER_KIND, account.user_id)
    record(writer, Origin(""), "USER_CLEANUP", account.user_id, {"rows": rows}, account.user_id)
    return True


def _is_dropped(account: UserDef, writer: WriteTransaction) -> bool:
    found = writer.get_object(USER_KIND, account.user_id, UserDef)
    return found is not None and found.deleted_at == account.deleted_at
