"""Where live queries are evaluated: small changes on the event loop, everything else on a few threads of their own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sql.errors import SqlError, StorageUnavailable
from sql.live.changed_rows import ChangedRows
from sql.live.errors import LiveQueryFailed, MustBlock
from sql.live.interface import LiveDelta, LiveQuery
from sql.live.settings import LiveSettings
from sql.storage_errors import translated
from sql.workers import THREADS
from storage.changes import ChangeSet, TableChange
from storage.errors import LogTruncated, SnapshotExpired, StorageError, StoragePoisoned
from storage.feed import ChangeFeed

log = logging.getLogger("headrace.live")

INLINE_ROWS = 2_000
"""Row versions of a change up to which it is read and evaluated on the event loop."""
_RETRY_SECONDS = 0.05
"""Pause before the storage is asked again while it is being reopened."""

T = TypeVar("T")


class Evaluation:
    """Threads for reading the log and evaluating; what waits for them waits on the event loop, in turn."""

    def __init__(self, feed: ChangeFeed, settings: LiveSettings) -> None:
        self.feed = feed
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix=f"{THREADS}_live")
        self.blocking = asyncio.Semaphore(settings.blocking_workers)
        """Taken by queries that the query engine evaluates."""
        self.readers = asyncio.Semaphore(settings.log_readers)
        """Taken by subscriptions that read the log."""

    async def run(self, call: Callable[[], T]) -> T:
        """Run a call on a thread; again and again while the storage is being reopened."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await loop.run_in_executor(self._pool, call)
            except (StoragePoisoned, SnapshotExpired) as error:
                log.warning("a live query waits for the storage: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)

    def rows_at_once(self, change: TableChange) -> ChangedRows | None:
        """The rows of a small change, without waiting; None when a thread has to read them. Raises LogTruncated."""
        if change.added_count + change.removed_count > INLINE_ROWS or not self.feed.read_rows_at_once((change,)):
            return None
        return None if change.reads_storage else ChangedRows(change)

    async def rows(self, change: TableChange) -> tuple[ChangedRows, bool]:
        """The rows of a change, and whether they are few enough for the event loop. Raises LogTruncated."""
        rows = self.rows_at_once(change)
        if rows is not None:
            return rows, True
        return await self.run(lambda: ChangedRows(change)), False

    async def delta(
        self, query: LiveQuery, commit: ChangeSet, rows: ChangedRows | None, *, at_once: bool
    ) -> LiveDelta | None:
        """What a commit changes; on a thread unless `at_once`, or when it turns out to be needed. Raises SqlError."""
        if at_once and not query.is_blocking:
            try:
                return query.delta(commit, rows)
            except MustBlock:
                log.debug("a live query of table %s goes to a thread", query.table_id)
        return await self.run(lambda: query.delta(commit, rows, blocking=True))

    def close(self) -> None:
        """Start nothing more; what runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def rows_of(change: TableChange) -> ChangedRows:
    """The rows of a change; paired and decoded once for all who read the same slice of the log."""
    if change.place is not None:
        return ChangedRows(change)  # the ring is no place for what is derived
    rows = change.derived
    if not isinstance(rows, ChangedRows):
        rows = change.derived = ChangedRows(change)
    return rows


def evaluated(query: LiveQuery, commit: ChangeSet) -> LiveDelta | None:
    """What a commit changes, for threads. Raises LogTruncated, SqlError."""
    change = change_of(commit, query)
    if change is None:
        return query.delta(commit, None, blocking=True)
    rows = rows_of(change)
    equality = query.equality
    if equality is not None and equality.value not in rows.values(equality.column):
        return None
    return query.delta(commit, rows, blocking=True)


def change_of(commit: ChangeSet, query: LiveQuery) -> TableChange | None:
    """The part of a commit that concerns a query of a table."""
    for change in commit.tables:
        if change.table.table_id == query.table_id and change.partition == query.partition:
            return change
    return None


def concerns(commit: ChangeSet, query: LiveQuery) -> bool:
    """Whether a commit can change the answer of a query."""
    return bool(commit.objects) if query.table_id is None else change_of(commit, query) is not None


def as_client_error(error: Exception) -> SqlError:
    """What a client is told of whatever ended its query; logs what is not its doing."""
    if isinstance(error, SqlError):
        return error
    if isinstance(error, StorageError) and not isinstance(error, LogTruncated):
        return translated(error)
    if isinstance(error, LogTruncated):
        return StorageUnavailable("The change is no longer kept.")
    log.error("a live query failed", exc_info=error)
    return LiveQueryFailed("The live query failed inside the server; subscribe again.")
