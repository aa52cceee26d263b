"""StorageEngine: the facade of the storage room."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import lmdb

from storage.catalog import Catalog
from storage.cold_cache import RowGroupCache
from storage.cold_reading import ColdReads
from storage.cold_segments import NEXT_SEGMENT
from storage.cold_tier import ColdTier
from storage.committer import Committer
from storage.environment import CATALOG_VERSION, LOG_TRUNCATED, NEXT_TABLE_ID, Environment, read_number
from storage.errors import StorageClosed, StorageError
from storage.eviction import Evictor
from storage.feed import ChangeFeed
from storage.lock import FolderLock
from storage.merge import Merger
from storage.options import StorageOptions, StorageStats
from storage.retention import log_bytes
from storage.seams import SYSTEM_CLOCK, Clock, ForwardClock
from storage.snapshots import Committed, Snapshot, SnapshotRegistry
from storage.submission import Commit, Submission, WorkQueue
from storage.table_changes import TableChanges
from storage.topic_publishing import NoRouter, Router
from storage.topic_signals import TopicSignals
from storage.writer import Counters, WriteTransaction

if TYPE_CHECKING:
    from storage.check import Problem
    from storage.page_copy import PageCopy

T = TypeVar("T")

Work = Callable[[WriteTransaction], T]
ObjectWatcher = Callable[[tuple[tuple[str, str], ...] | None], None]
"""Gets the (kind, name) of the objects that a commit changed; None when any may have changed."""


class StorageEngine:
    """One open data folder. All methods are thread-safe."""

    def __init__(self, path: Path, options: StorageOptions, clock: Clock, lock: FolderLock) -> None:
        self.path = path
        self.options = options
        forward = ForwardClock(clock)
        self._clock = forward
        self._lock = lock
        self._environment = Environment(path, options)
        with self._environment.env.begin() as txn:
            next_table_id = read_number(txn, self._environment.dbs, NEXT_TABLE_ID, 1)
            catalog_version = read_number(txn, self._environment.dbs, CATALOG_VERSION, 0)
            truncated = read_number(txn, self._environment.dbs, LOG_TRUNCATED, 0)
            next_segment = read_number(txn, self._environment.dbs, NEXT_SEGMENT, 1)
        self._counters = Counters(catalog_version, next_table_id)
        self._cold_reads = ColdReads(
            RowGroupCache(path / "cache", options.cold_cache_bytes),
            lambda: self.cold.resolver,
            options.cold_scan_bytes,
        )
        self._registry = SnapshotRegistry(
            self._environment, forward, options.lease_seconds, self._counters.allocate_table_id, self._cold_reads
        )
        state = self._registry.newest()
        self._queue = WorkQueue(options.queue_works)
        self._state = state
        self._closed = False
        self._known_sizes = 0, 0
        self.router: Router = NoRouter()
        """Decides which changes become messages of topics; the SQL room sets its own before anything is written."""
        self.signals = TopicSignals()
        self.changes = TableChanges()
        """How much each table was changed, for those who look after tables."""
        self.files_left = threading.Event()
        """Set by a commit after which no row refers to some stored file any more (`storage.file_store`)."""
        self._object_watchers: list[ObjectWatcher] = []
        self._committer = Committer(
            self._environment,
            self._registry,
            self._queue,
            self._counters,
            options,
            forward,
            state,
            self._on_commit,
            self._on_reopen,
            lambda: self.router,
        )
        self.feed = ChangeFeed(
            lambda purpose: self.snapshot(purpose=purpose),
            lambda purpose: self.snapshot_at_once(purpose=purpose),
            state.seq,
            options.ring_commits,
            options.ring_bytes,
        )
        self._merger = Merger(self._registry, self.submit_exclusive, options, clock, truncated)
        self.cold = ColdTier(
            path / "cold", self._registry, self.submit_exclusive, self._merger, options, forward, next_segment
        )
        """The cold tier: flush, compaction, segments."""
        self.cold.tables_moved.append(self.changes.moved)
        self._merger.after_maintenance = self.cold.collect
        self._evictor = Evictor(self._registry, self.submit_exclusive, options, forward, lambda: self._state.catalog)
        self._committer.start()
        if options.merge:
            self._merger.start()
        if options.evict:
            self._evictor.start()

    @classmethod
    def open(
        cls, path: Path | str, options: StorageOptions | None = None, *, clock: Clock = SYSTEM_CLOCK
    ) -> StorageEngine:
        """Open (or create) a data folder.

        Raises StorageLocked when another process holds it, StorageError for whatever else keeps it from being opened.
        """
        folder = Path(path)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FolderLock(folder)
            try:
                return cls(folder, options or StorageOptions(), clock, lock)
            except BaseException:
                lock.release()
                raise
        except (lmdb.Error, OSError) as error:
            raise StorageError(f"the data folder {folder} cannot be opened: {error}") from error

    def close(self) -> None:
        """Commit what is queued, end all snapshots, join the threads, give the folder back."""
        if self._closed:
            return
        self._closed = True
        self._merger.stop()
        self._evictor.stop()
        self.feed.close()
        self._queue.refuse(StorageClosed("the storage is closed"))
        self._committer.join()
        self._registry.close(min(self.options.drain_seconds, 0.2))
        self._cold_reads.close()
        self._lock.release()

    def __enter__(self) -> StorageEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def catalog(self) -> Catalog:
        """The newest committed catalog."""
        return self._state.catalog

    @property
    def last_seq(self) -> int:
        """The last `_seq` of the newest commit."""
        return self._state.seq

    def snapshot(self, *, lease: float | None = None, purpose: str = "") -> Snapshot:
        """A snapshot of the newest commit; close it. `lease` in seconds, the configured one by default."""
        return self._registry.open(lease, purpose)

    def snapshot_at_once(self, *, purpose: str = "") -> Snapshot | None:
        """A snapshot without waiting, for the event loop; None while the storage holds readers back.

        Reading it raises ColdMiss where a file of the cold tier would have to be read: a worker thread may do that.
        """
        return self._registry.open_at_once(purpose)

    def submit(
        self, work: Work[T], *, weight: int = 1, on_done: Callable[[Commit[T]], None] | None = None
    ) -> Commit[T]:
        """Queue a work for the writer. `on_done` is called on the writer's thread and must not block.

        `weight` is about how many rows the work stages. A work may run more than once before it commits.
        """
        commit: Commit[T] = Commit(on_done)
        self._queue.put(Submission(work, weight, commit=commit))
        return commit

    async def commit(self, work: Work[T], *, weight: int = 1) -> T:
        """Run a work on the writer and wait until it is durable."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(Submission(work, weight, loop=loop, future=future))
        return await future

    def commit_sync(self, work: Work[T], *, weight: int = 1) -> T:
        """Like `commit`, for threads."""
        return self.submit(work, weight=weight).result()

    def submit_exclusive(self, work: Work[T]) -> Commit[T]:
        """Queue a work of the engine itself that runs alone and works on the LMDB transaction directly."""
        commit: Commit[T] = Commit()
        self._queue.put(Submission(work, 1, exclusive=True, commit=commit))
        return commit

    def compact(self) -> int:
        """One round of merging and retention over everything, now; how many merges. Blocks."""
        return self._merger.run_once()

    def evict(self) -> int:
        """End all rows of STREAM tables that have expired by now; how many. Blocks."""
        return self._evictor.run_once()

    def check(self) -> list[Problem]:
        """Check everything that the newest commit holds (see `storage.check`). Reads the whole database."""
        from storage.check import check_reader  # a server at rest does without it

        with self.snapshot(lease=86_400.0, purpose="check") as snapshot, snapshot.reading() as reader:
            return check_reader(reader)

    def copy_pages(self, *, lease: float, purpose: str) -> PageCopy:
        """The pages of the newest commit, to be copied while others write (see `storage.page_copy`). Close it."""
        from storage.page_copy import begin_copy  # a server at rest does without it

        copies: list[PageCopy] = []

        def begin(wtxn: WriteTransaction) -> None:
            while copies:  # of a run of this work that did not come to its end
                copies.pop().close()
            snapshot = self.snapshot(lease=lease, purpose=purpose)
            try:
                copies.append(begin_copy(self._environment, snapshot))
            except BaseException:
                snapshot.close()
                raise

        self.submit_exclusive(begin).result()
        return copies[0]

    def watch_objects(self, watcher: ObjectWatcher) -> None:
        """Have a callback told of catalog objects that change, on the writer's thread: it must not block or raise."""
        self._object_watchers.append(watcher)

    def reclaim(self, check: Callable[[], None]) -> frozenset[int]:
        """Give back at once what dropped tables and dropped or cleared topics took. Blocks.

        The ids of dropped tables whose rows stay for now, because messages of topics refer to them. `check` is called
        between bounded works, and may raise.
        """
        return self._merger.reclaim(check)

    def stats(self) -> StorageStats:
        """Figures about the engine."""
        committer = self._committer
        used_bytes, held_bytes = self._sizes()
        return StorageStats(
            last_seq=self.last_seq,
            queued_works=len(self._queue),
            open_snapshots=len(self._registry),
            oldest_snapshot_seconds=self._registry.oldest_seconds(),
            expired_snapshots=self._registry.expired_count,
            map_bytes=self._environment.map_bytes,
            used_bytes=used_bytes,
            commits=committer.commits,
            committed_works=committer.works,
            failed_works=committer.failed_works,
            merges=self._merger.merges,
            evicted_rows=self._evictor.rows,
            first_retained_seq=self._merger.truncated + 1,
            reopened=committer.reopened,
            log_bytes=held_bytes,
        )

    def _sizes(self) -> tuple[int, int]:
        """How far the file reaches, and what the retained log takes; as last known while readers are held back."""
        snapshot = self.snapshot_at_once(purpose="sizes")
        if snapshot is not None:
            with snapshot, snapshot.reading() as reader:  # with a reader open the environment stays open, too
                self._known_sizes = self._environment.used_bytes(), log_bytes(reader)
        return self._known_sizes

    # --- called by the writer ------------------------------------------------------------------------------------

    def _on_commit(self, wtxn: WriteTransaction, state: Committed) -> None:
        self._state = state
        if wtxn.files.leaves_files:
            self.files_left.set()
        flusher = wtxn.flusher
        if flusher.record is not None:
            batches = {key: done.batches for key, done in flusher.written.items()}
            nbytes = sum(done.nbytes for done in flusher.written.values())
            self.feed.publish(wtxn.first_seq, flusher.record, state.catalog, batches, nbytes)
            self._merger.notify(flusher.written)
            self.changes.note(flusher.written)
            record = flusher.record
            self._evictor.notify(flusher.written, record.objects, state.catalog, record.timestamp_us)
            if record.objects:
                for watcher in self._object_watchers:
                    watcher(record.objects)
        if wtxn.topic_news is not None:
            self._merger.notify_topics(wtxn.topic_news.nbytes)
            self.signals.publish(wtxn.topic_news)

    def _on_reopen(self) -> None:
        self._state = self._committer.state
        self.cold.reset()
        self.changes.reset()
        self.feed.reset(self._state.seq)
        self._evictor.list_again()
        for watcher in self._object_watchers:
            watcher(None)
