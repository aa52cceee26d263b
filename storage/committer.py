"""The writer thread: takes groups of works, commits each group in one LMDB transaction with one sync, tells everyone.

What can go wrong with a group, and what follows
------------------------------------------------

- A work raises: it is undone alone, its submitter gets the exception, the others go on.
- Staged rows do not fit their columns (found only when the batch is built), or cannot be made messages of a topic: the
  works are run again one by one, so that only the culprit fails.
- The map is full: nothing was written. The map grows (readers are drained first) and the staged content is written
  again; at the limit the group fails with StorageFull.
- The disk is full: LMDB could not write pages; the meta page before stays in force. The group fails with StorageFull.
- Any other I/O error (and "no space" from a sync or for the meta page): nobody knows what the disk holds, and a second
  sync would not tell (the kernel may have dropped the dirty pages). The transaction is given up, everything that waits
  fails with StoragePoisoned at once, readers are drained, the environment is closed and opened again from the last
  durable meta page, however long that takes. Then it goes on.
- Telling the feed fails after the commit: the commit is durable, so its submitters hear that. The feed forgets its
  ring, and its readers find the commit in the log.

A work that needs a row of the cold tier which is not in the cache does not make everybody wait for a file: it is
undone, a loader reads the row group into the cache, and the work is queued again. Only when that happened to it
`cold_misses` times may it read files in its place.

A work may run more than once (the first run's effects are gone then), so it must not keep state outside.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import lmdb
import pyarrow as pa

from storage.environment import SMALLEST_MAP, Environment, Txn, code_of, free_bytes, full_sentence, is_full
from storage.errors import ColdMiss, PublishFailed, StorageClosed, StorageError, StorageFull, StoragePoisoned
from storage.expiry import newest_time
from storage.feed import newest_timestamp
from storage.options import StorageOptions
from storage.reading import Reader
from storage.seams import ForwardClock
from storage.snapshots import Committed, SnapshotRegistry
from storage.submission import Submission, WorkQueue, settle
from storage.topic_log import newest_message_time
from storage.topic_publishing import Router
from storage.writer import Counters, WriteTransaction

log = logging.getLogger("headrace.storage")

Published = Callable[[WriteTransaction, Committed], None]

_DAMAGED = (lmdb.PanicError, lmdb.CorruptedError, lmdb.PageNotFoundError)
"""Errors with LMDB's own codes after which only reopening helps."""


class Committer:
    """Owns the write side of the environment."""

    def __init__(
        self,
        environment: Environment,
        registry: SnapshotRegistry,
        queue: WorkQueue,
        counters: Counters,
        options: StorageOptions,
        clock: ForwardClock,
        state: Committed,
        on_commit: Published,
        on_reopen: Callable[[], None],
        router: Callable[[], Router],
    ) -> None:
        self._environment = environment
        self._registry = registry
        self._queue = queue
        self._counters = counters
        self._options = options
        self._clock = clock
        self._on_commit = on_commit
        self._on_reopen = on_reopen
        self._router = router
        self._next_seq = state.seq + 1
        clock.not_before(self._newest_timestamp())
        self._expected = 0
        self._stop = threading.Event()
        self.state = state
        self.commits = 0
        self.works = 0
        self.failed_works = 0
        self.reopened = 0
        self._thread = threading.Thread(target=self._run, name="headrace-writer", daemon=True)
        self._loaders: ThreadPoolExecutor | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self) -> None:
        """Wait until the thread has committed what is queued (the queue must be refusing already)."""
        self._stop.set()
        self._thread.join()
        if self._loaders is not None:
            self._loaders.shutdown()

    # --- the loop ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as error:
            log.critical("the writer has ended; nothing can be stored until a restart", exc_info=True)
            failure = StoragePoisoned(f"the writer has ended: {error}")
            self._queue.refuse(failure)
            waiting = self._queue.drain()
            self._fail(waiting, failure)
            settle(waiting)

    def _loop(self) -> None:
        options = self._options
        while True:
            group = self._queue.take(
                options.group_works,
                options.group_rows,
                options.direct_rows,
                expected=self._expected,
                wait_seconds=options.group_wait_us / 1e6,
            )
            if not group:
                return
            self._expected = len(group) + min(len(self._queue), options.group_works)
            self._commit_or_fail(group)
            settle(self._put_off(group))
            try:
                self._grow_ahead()
            except (lmdb.Error, OSError, StorageError) as error:
                log.error("the map could not grow ahead of need: %s", error)

    def _put_off(self, group: list[Submission]) -> list[Submission]:
        """Hand works that missed a cold row group to a loader; the others."""
        settled = []
        for submission in group:
            if not isinstance(submission.error, ColdMiss) or submission.settled:
                settled.append(submission)
                continue
            if self._loaders is None:
                self._loaders = ThreadPoolExecutor(2, thread_name_prefix="headrace-cold-loader")
            submission.misses += 1
            self._loaders.submit(self._load, submission, submission.error)
        return settled

    def _load(self, submission: Submission, miss: ColdMiss) -> None:
        submission.error = None
        try:
            miss.load()
            self._queue.put(submission)
        except Exception as error:  # noqa: BLE001 - whatever went wrong is told to the submitter
            submission.error = error
            self.failed_works += 1
            settle([submission])

    def _commit_or_fail(self, group: list[Submission]) -> None:
        """Commit a group; whatever goes wrong with it is told to its submitters, and to no others."""
        try:
            self._commit_group(group)
        except StorageError as error:
            log.error("a group of %d works failed: %s", len(group), error)
            self._fail(group, error)
        except Exception as error:
            log.exception("a group of %d works failed", len(group))
            self._fail(group, error)

    def _commit_group(self, group: list[Submission]) -> None:
        try:
            self._attempt(group)
        except (PublishFailed, pa.ArrowException, OverflowError, TypeError, ValueError) as error:
            if len(group) == 1:
                self._fail(group, error)
                return
            for submission in group:
                self._commit_or_fail([submission])
        except lmdb.Error as error:
            if code_of(error) < 0 and not isinstance(error, _DAMAGED):
                raise  # LMDB refused something; the environment is as it was
            self._disk_error(group, error)

    def _attempt(self, group: list[Submission]) -> None:
        """Run the works, write, commit, announce. Raises what concerns the whole group."""
        direct = group[0].exclusive or group[0].weight > self._options.direct_rows
        txn = self._environment.begin_write()
        try:
            wtxn = self._transaction(txn, direct)
            while True:
                try:
                    self._run_works(wtxn, group)
                    if wtxn.failed:
                        txn.abort()
                        return
                    break
                except lmdb.MapFullError:
                    txn.abort()
                    self._make_room(reserve=group[0].exclusive)
                    txn = self._environment.begin_write()
                    wtxn = self._transaction(txn, direct)
            if not wtxn.changed():
                txn.abort()
                self._count(group, 0)
                return
            while True:
                try:
                    wtxn.flush()
                    state = Committed(wtxn.next_seq - 1, wtxn.catalog)
                    txn_id = txn.id()
                    self._registry.publish(txn_id, state)
                    try:
                        self._environment.commit(txn)
                    except BaseException:
                        self._registry.withdraw(txn_id)
                        raise
                    break
                except lmdb.MapFullError:
                    txn.abort()
                    self._make_room(reserve=group[0].exclusive or not wtxn.stages_rows())
                    txn = self._environment.begin_write()
                    if direct:
                        wtxn = self._transaction(txn, direct)
                        self._run_works(wtxn, group)
                        if wtxn.failed:
                            txn.abort()
                            return
                    else:
                        wtxn.flusher.restart()
                        wtxn.bind(txn, self._reader(txn))
        except BaseException:
            _abort(txn)
            raise
        self._next_seq = wtxn.next_seq
        self.state = state
        self._count(group, 1)
        try:
            self._on_commit(wtxn, state)
        except Exception:
            log.exception("commit %d could not be announced; readers of the feed find it in the log", state.seq)
            self._on_reopen()

    def _transaction(self, txn: Txn, direct: bool) -> WriteTransaction:
        reader = self._reader(txn)
        now = self._clock.now_us()
        return WriteTransaction(
            txn, reader, self.state.catalog, self._next_seq, self._counters, now, self._router(), direct=direct
        )

    def _reader(self, txn: Txn) -> Reader:
        """A reader for the writer, which may not wait for cold files unless a group says so."""
        return Reader(txn, self._environment.dbs, self._registry.memory, self._registry.cold, waits=False)

    def _newest_timestamp(self) -> int:
        """The time of the newest stored commit, which later ones are not to fall behind, whatever the clock says."""
        txn = self._environment.begin_read()
        try:
            reader = self._reader(txn)
            # the log may have been truncated to nothing, and has no produced messages
            return max(newest_timestamp(reader), newest_time(reader), newest_message_time(reader))
        finally:
            txn.abort()

    def _run_works(self, wtxn: WriteTransaction, group: list[Submission]) -> None:
        """Run each work; one that raises fails alone (in direct mode it is the only one)."""
        for submission in group:
            wtxn.begin_work()
            submission.error = submission.result = None
            wtxn.reader.waits = submission.misses > self._options.cold_misses
            try:
                submission.result = submission.work(wtxn)
                wtxn.end_work()
            except lmdb.Error:
                raise
            except BaseException as error:  # noqa: BLE001 - a work may fail in any way; the writer must live on
                stopped = isinstance(error, StopIteration)  # which a future cannot carry
                submission.error = RuntimeError("a work raised StopIteration") if stopped else error
                if wtxn.direct:
                    wtxn.failed = True
                else:
                    wtxn.undo_work()
        if wtxn.failed and group[0].error is None:
            group[0].error = StorageError("a work of many rows cannot go on after a refused insert")
            group[0].result = None

    def _count(self, group: list[Submission], commits: int) -> None:
        put_off = sum(isinstance(submission.error, ColdMiss) for submission in group)
        failed = sum(submission.error is not None for submission in group) - put_off
        self.commits += commits
        self.failed_works += failed
        self.works += len(group) - failed - put_off

    # --- trouble -------------------------------------------------------------------------------------------------

    def _fail(self, group: list[Submission], error: BaseException) -> None:
        for submission in group:
            if submission.error is None or isinstance(submission.error, ColdMiss):
                submission.error, submission.result = error, None
                self.failed_works += 1

    def _make_room(self, *, reserve: bool) -> None:
        """Grow the map, with every reader drained. Raises StorageFull when it cannot."""
        environment = self._environment
        if not environment.can_grow(reserve=reserve):
            raise StorageFull(full_sentence(environment))
        try:
            if not self._registry.pause(self._options.drain_seconds):
                raise StorageFull("the map could not grow: a reader still uses its pages")
            environment.grow(reserve=reserve)
            log.info("the map has grown to %d bytes", environment.map_bytes)
        finally:
            self._registry.resume()

    def _grow_ahead(self) -> None:
        """Grow at 80 % when nobody reads, so that a full map is a rare event."""
        environment = self._environment
        if not self.commits % 4096:
            environment.env.reader_check()
        if self.commits % 64 or environment.used_bytes() < environment.map_bytes * 4 // 5:
            return
        if environment.can_grow() and self._registry.try_pause():
            try:
                environment.grow()
            finally:
                self._registry.resume()

    def _disk_error(self, group: list[Submission], error: lmdb.Error) -> None:
        failure: StorageError
        refusal: StorageError = StoragePoisoned("a commit met an I/O error; the storage is being reopened")
        if is_full(error, self._environment.folder):
            log.error("the disk is full: %s", error)
            refusal = failure = StorageFull(full_sentence(self._environment))
        elif code_of(error) == errno.ENOMEM:
            log.error("a commit ran out of memory: %s", error)
            failure = StoragePoisoned(f"a commit ran out of memory ({error}); it is not stored")
        else:
            log.error("a commit met an I/O error: %s", error)
            failure = StoragePoisoned(f"a commit met an I/O error ({error}); it is stored as a whole or not at all")
        self._fail(group, failure)
        if not (isinstance(error, lmdb.DiskError) and self._refused_pages()):
            self._reopen(group, refusal)

    def _refused_pages(self) -> bool:
        """Whether "no space" means that pages were refused before anything was synced; the environment is then whole.

        "No space" while there is room came from somewhere else, a sync maybe. After a failed write of the meta page
        LMDB itself refuses to go on.
        """
        if free_bytes(self._environment.folder) >= SMALLEST_MAP:
            return False
        try:
            self._environment.begin_write().abort()
        except lmdb.Error:
            return False
        return True

    def _reopen(self, group: list[Submission], refusal: StorageError) -> None:
        """Close the environment and open it from the last durable meta page. Refuses works until that worked.

        Everybody who waits is told first: opening may take as long as the disk is away.
        """
        if self._queue.refusal is None:
            self._queue.refuse(refusal)
        waiting = self._queue.drain()
        self._fail(waiting, refusal)
        settle([*group, *waiting])
        pause = 0.05
        while not self._registry.pause(self._options.drain_seconds):
            log.error("readers still use the pages of the poisoned environment")
            self._registry.away()
        while True:
            try:
                self._environment.close()
                self._environment.open()
                self._registry.reset()
                self.state = self._registry.newest()
                self._clock.not_before(self._newest_timestamp())
                break
            except (lmdb.Error, OSError, MemoryError, StorageError) as error:
                log.error("the storage cannot be reopened yet: %s", error)
                self._registry.away()
                if self._stop.wait(pause):
                    return
                pause = min(2 * pause, 5.0)
        self._next_seq = max(self._next_seq, self.state.seq + 1)
        self.reopened += 1
        self._registry.resume()
        self._on_reopen()
        if not isinstance(self._queue.refusal, StorageClosed):
            self._queue.refuse(None)
        log.warning("the storage was reopened at commit %d", self.state.seq)


def _abort(txn: Txn) -> None:
    try:
        txn.abort()
    except lmdb.Error as error:
        log.error("a failed transaction could not be aborted: %s", error)
