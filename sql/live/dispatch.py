"""The dispatcher: one task that follows the commits and hands each to those whom it concerns, in order.

Nobody gets a commit before the dispatcher has looked at it: first it sees to what the commit changed in the catalog and
in rights, then it claims the commit, then it hands it out. Whoever reads the feed for himself (a subscription that
catches up, a blocking query) goes no further than the claimed commit. Whoever has everything up to the claimed commit
may join: what the dispatcher still hands out of it is at or before his own position, and he skips it.

Queries that may take long do not run here. Each has a `Lane` of its own, woken by the dispatcher.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sql.live.changed_rows import ChangedRows
from sql.live.delivery import Delivery, Turn
from sql.live.errors import StaleBinding
from sql.live.evaluation import INLINE_ROWS, Evaluation, as_client_error
from sql.live.index import Listeners, LiveIndex
from sql.live.interface import LiveDelta
from sql.live.lane import Lane
from sql.live.replay import CommitReader
from sql.live.subscription import Subscription, SubscriptionState
from storage.changes import ChangeSet, TableChange
from storage.errors import LogTruncated
from storage.feed import ChangeFeed, FeedCursor

log = logging.getLogger("headrace.live")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 1.0
"""Seconds until the dispatcher tries again after an error, at first and at most: a storage may be away for long."""

_POLL = 64
"""Commits that are taken from the feed at once."""

CatalogChanged = Callable[[ChangeSet], Awaitable[None]]
Detached = Callable[[Subscription], None]


class Dispatcher:
    """Follows the feed while somebody listens; also the `Follower` of all queries that do not block.

    `catalog_changed` sees each commit that changed definitions before anybody gets its rows. `detached` is given
    subscriptions that have to catch up by themselves; `delivery` the deltas of the others.
    """

    def __init__(
        self,
        feed: ChangeFeed,
        evaluation: Evaluation,
        reader: CommitReader,
        delivery: Delivery,
        catalog_changed: CatalogChanged,
        detached: Detached,
        end: Callable[[Subscription, Exception], None],
    ) -> None:
        self.index = LiveIndex()
        self.position = self.claimed = feed.last_seq
        self._feed = feed
        self._cursor: FeedCursor = feed.subscribe(feed.last_seq)
        self._evaluation = evaluation
        self._reader = reader
        self._delivery = delivery
        self._catalog_changed = catalog_changed
        self._detached = detached
        self._end = end
        self._listening = False
        self._woken = False
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    # --- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to follow, on the running event loop."""
        if self._task is None:
            self._loop = asyncio.get_running_loop()
            self._task = self._loop.create_task(self._run(), name="headrace-live")
            self._cursor.on_commit(self._on_commit)

    def stop(self) -> None:
        """End the task."""
        self._cursor.close()
        if self._task is not None and self._loop is not None and not self._loop.is_closed():
            self._task.cancel()

    def listen(self, listening: bool) -> None:
        """Say whether there is any subscription. While there is none, commits cost nothing and are passed over."""
        begins = listening and not self._listening
        self._listening = listening  # first, so that no commit from here on goes unnoticed
        if begins and self.claimed == self.position:
            self.position = self.claimed = self._cursor.position = max(self._feed.last_seq, self.position)

    def _on_commit(self) -> None:
        """On the writer's thread: wake the task, once until it looks."""
        if self._listening and not self._woken and self._loop is not None:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:  # the loop was closed before the hub
                self._cursor.close()

    async def _run(self) -> None:
        pause = 0.0
        while True:
            await self._wake.wait()
            await asyncio.sleep(pause)  # also 0 lets those who wait for the commit itself be answered first
            self._wake.clear()
            self._woken = False
            try:
                await self._drain()
                pause = 0.0
            except Exception:
                log.exception("live queries met an error; who listens reads for himself what was polled")
                self._let_go(self._cursor.position)  # it was taken from the feed and would be lost otherwise
                pause = min(2 * pause + _FIRST_PAUSE, _LONGEST_PAUSE)
                self._wake.set()

    # --- members -------------------------------------------------------------------------------------------------

    def join(self, subscription: Subscription) -> bool:
        """Let a subscription that has caught up listen with the others; False when it has not."""
        query = subscription.query
        listeners = self.index.get(query)
        if listeners is None:
            if subscription.handed < self.claimed:
                return False
            listeners = Listeners(query, subscription.request.identity, self)
            if query.is_blocking:
                listeners.follower = Lane(listeners, self, self._evaluation, self._reader, self._delivery, self._failed)
            self.index.add(listeners)
        elif subscription.handed < listeners.follower.claimed:
            return False
        subscription.move(SubscriptionState.LIVE)
        if subscription.request.identity == listeners.identity:
            subscription.query = listeners.query  # one object less
        subscription.listeners = listeners
        listeners.subscriptions[subscription] = None
        return True

    def leave(self, subscription: Subscription) -> None:
        """Take a LIVE subscription from the others; its position is what it has."""
        listeners = subscription.listeners
        if listeners is not None:
            subscription.advance(listeners.position)
            subscription.listeners = None
            del listeners.subscriptions[subscription]
            if not listeners.subscriptions:
                self.index.remove(listeners)

    def _failed(self, listeners: Listeners, error: Exception) -> None:
        """A query failed: its own subscriptions catch up by themselves if that can help, or end."""
        subscriptions = tuple(listeners.subscriptions)
        if isinstance(error, (StaleBinding, LogTruncated)):
            for subscription in subscriptions:
                self._detached(subscription)
            return
        told = as_client_error(error)
        log.info("%d live subscriptions end: %s", len(subscriptions), told)
        for subscription in subscriptions:
            self._end(subscription, told)

    # --- commits -------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        turn = Turn()
        while self._listening:
            commits = self._cursor.poll_at_once(_POLL)
            if commits is None:
                commits = await self._poll_log()
            if not commits:
                return
            self._read_ahead(commits)
            for commit in commits:
                try:
                    await self._dispatch(commit, turn)
                except Exception:
                    log.exception("commit %s could not be dispatched; its listeners read it for themselves", commit)
                    self._let_go(commit.last_seq)
                await turn.pause()

    async def _poll_log(self) -> list[ChangeSet]:
        try:
            return await self._evaluation.run(lambda: self._cursor.poll(_POLL))
        except LogTruncated as error:
            log.error("live queries fell behind the log: %s", error)
            self._cursor.position = self._feed.last_seq
            self._let_go(self._cursor.position)
            return []

    def _let_go(self, seq: int) -> None:
        """Everybody who listens reads for himself what the dispatcher could not hand out up to `seq`."""
        seq = max(seq, self.position)
        self.claimed = seq
        for listeners in tuple(self.index.all()):
            for subscription in tuple(listeners.subscriptions):
                self._detached(subscription)
        self.position = seq

    def _read_ahead(self, commits: list[ChangeSet]) -> None:
        """Read what will be needed of several commits through one snapshot."""
        wanted: list[TableChange] = []
        rows = 0
        for commit in commits:
            for change in commit.tables:
                if change.reads_storage and self.index.partition(change.table.table_id, change.partition) is not None:
                    rows += change.added_count + change.removed_count
                    if rows > INLINE_ROWS:
                        break
                    wanted.append(change)
        if len(wanted) > 1:
            self._feed.read_rows_at_once(wanted)

    async def _dispatch(self, commit: ChangeSet, turn: Turn) -> None:
        """Hand a commit to everybody whom it concerns."""
        if commit.objects and commit.last_seq > self.position:
            await self._catalog_changed(commit)
        if commit.last_seq <= self.position:
            return  # passed over, while nobody listened
        self.claimed = commit.last_seq
        for change in commit.tables:
            if self.index.partition(change.table.table_id, change.partition) is not None:
                await self._dispatch_change(commit, change, turn)
        if commit.objects:
            for listeners in tuple(self.index.system()):
                await self._evaluate(listeners, commit, None, False, turn)
        self.position = commit.last_seq

    async def _dispatch_change(self, commit: ChangeSet, change: TableChange, turn: Turn) -> None:
        key = (change.table.table_id, change.partition)
        rows, at_once = await self._evaluation.rows(change)
        index = self.index.partition(*key)
        if index is None:
            return
        if not at_once:
            columns = index.columns
            await self._evaluation.run(lambda: [rows.values(column) for column in columns])
            index = self.index.partition(*key)
            if index is None:
                return
        for listeners in index.candidates(rows):
            await self._evaluate(listeners, commit, rows, at_once, turn)

    async def _evaluate(
        self, listeners: Listeners, commit: ChangeSet, rows: ChangedRows | None, at_once: bool, turn: Turn
    ) -> None:
        if not listeners.subscriptions:
            return  # they have gone meanwhile
        follower = listeners.follower
        if isinstance(follower, Lane):
            follower.wake(commit)
            return
        try:
            delta: LiveDelta | None = await self._evaluation.delta(listeners.query, commit, rows, at_once=at_once)
        except Exception as error:  # noqa: BLE001  one failing query must not stop the others
            self._failed(listeners, error)
            return
        if delta is not None:
            await self._delivery.to_listeners(listeners, delta, commit.timestamp_us, turn)
        await turn.pause()
