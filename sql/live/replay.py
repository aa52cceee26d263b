"""Catching up: a subscription reads the feed for itself until it has what the others have, then joins them.

From memory while the feed has it there, from the log otherwise. Few read the log at a time, and each holds one slice of
it, so a thousand clients that come back at once take turns instead of memory. Commits that do not concern the query
move its position on without their rows being read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, Protocol

from sql.live.delivery import Delivery, Turn
from sql.live.errors import ResumeTooOld, SlowConsumer, StaleBinding
from sql.live.evaluation import Evaluation, as_client_error, change_of, concerns, evaluated
from sql.live.interface import LiveDelta, LiveQuery
from sql.live.subscription import Subscription, SubscriptionState
from storage.changes import ChangeSet, CommitOutline
from storage.errors import LogTruncated
from storage.feed import ChangeFeed, LogSlice

log = logging.getLogger("headrace.live")

_POLL = 256
_SHARED_SLICES = 4
_CHUNK_ROWS = 2_000
"""Row versions after which what was evaluated from the log is handed over."""

Evaluated = list[tuple[ChangeSet, LiveDelta | None]]


class _Shared(NamedTuple):
    """A slice of the log that was read for somebody and serves others: the commits of a partition after `start`."""

    place: tuple[int | None, str]
    start: int
    part: LogSlice


class CommitReader:
    """Reads the commits that concern one query. The last few slices of the log are shared while anybody reads it."""

    def __init__(self, feed: ChangeFeed, evaluation: Evaluation) -> None:
        self._feed = feed
        self._shared: deque[_Shared] = deque(maxlen=_SHARED_SLICES)
        self._evaluation = evaluation

    def at_once(self, query: LiveQuery, after: int, until: int) -> LogSlice | None:
        """Those after `after` up to `until`, some at a time, from memory; None when the log has to be read."""
        commits = self._feed.after_at_once(after, _POLL)
        if commits is None:
            return None
        end = after
        found = []
        for commit in commits:
            if commit.last_seq > until:
                break
            end = commit.last_seq
            if concerns(commit, query):
                found.append(commit)
        return LogSlice(found, end)

    def from_log(self, query: LiveQuery, after: int, until: int) -> LogSlice:
        """As `at_once`, from the log: for threads. Raises LogTruncated."""
        table_id, partition = query.table_id, query.partition
        place = (table_id, partition)
        for shared in tuple(self._shared):
            end = shared.part.end
            if shared.place == place and shared.start <= after < end <= until:
                return LogSlice([commit for commit in shared.part.commits if commit.last_seq > after], end)

        def wanted(outline: CommitOutline) -> bool:
            if table_id is None:
                return bool(outline.objects)
            return any(part.table_id == table_id and part.user == partition for part in outline.partitions)

        part = self._feed.scan(after, until, wanted)
        if part.end > after:
            self._shared.append(_Shared(place, after, part))
        return part

    def forget(self) -> None:
        """Let go of what was shared."""
        self._shared.clear()

    async def read(self, query: LiveQuery, after: int, until: int) -> LogSlice:
        """From memory or the log. Raises LogTruncated."""
        found = self.at_once(query, after, until)
        if found is None:
            async with self._evaluation.readers:
                found = await self._evaluation.run(lambda: self.from_log(query, after, until))
        return found


class Members(Protocol):
    """The dispatcher, as those see it who want to join."""

    @property
    def claimed(self) -> int:
        """Up to where commits may be handed over."""

    def join(self, subscription: Subscription) -> bool:
        """Let one join that has everything that was claimed."""


class Replays:
    """The subscriptions that catch up. `rebind` binds a query anew, `end` ends a subscription with an error."""

    def __init__(
        self,
        evaluation: Evaluation,
        reader: CommitReader,
        delivery: Delivery,
        members: Members,
        rebind: Callable[[Subscription], Awaitable[None]],
        end: Callable[[Subscription, Exception], None],
    ) -> None:
        self._evaluation = evaluation
        self._reader = reader
        self._delivery = delivery
        self._rebind = rebind
        self._end = end
        self._tasks: set[asyncio.Task[None]] = set()
        self._members = members
        self.started = 0
        """How many had something to catch up with."""

    def start(self, subscription: Subscription) -> None:
        """Let a subscription that is in REPLAY catch up and join; at once when it has nothing to catch up with."""
        if self._members.join(subscription):
            return
        self.started += 1
        task = asyncio.get_running_loop().create_task(self._run(subscription))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.rest()

    def rest(self) -> None:
        """Let go of slices of the log when nobody catches up."""
        if not self._tasks:
            self._reader.forget()

    def stop(self) -> None:
        """End all of them."""
        for task in tuple(self._tasks):
            task.cancel()

    async def _run(self, subscription: Subscription) -> None:
        turn = Turn()
        stale_at = -1
        try:
            while subscription.state is SubscriptionState.REPLAY and not self._members.join(subscription):
                try:
                    await self._advance(subscription, self._members.claimed, turn)
                except StaleBinding:
                    if stale_at == subscription.handed:
                        raise
                    stale_at = subscription.handed
                    await self._rebind(subscription)
        except LogTruncated as error:
            self._too_late(subscription, error)
        except Exception as error:  # noqa: BLE001  ends this subscription, nobody else's
            self._end(subscription, as_client_error(error))

    def _too_late(self, subscription: Subscription, error: LogTruncated) -> None:
        log.info("subscription %s is behind the log: %s", subscription.live_id, error)
        told = ResumeTooOld if subscription.resumed and not subscription.changes else SlowConsumer
        message = f"The changes after _seq {subscription.handed} are no longer kept; subscribe again."
        self._end(subscription, told(message))

    async def _advance(self, subscription: Subscription, until: int, turn: Turn) -> None:
        """One slice of commits."""
        after, query = subscription.handed, subscription.query
        part = self._reader.at_once(query, after, until)
        if part is None:
            async with self._evaluation.readers:
                await self._advance_by_log(subscription, until, turn)
            return
        for commit in part.commits:
            delta = await self._delta(query, commit)
            if not await self._hand_over(subscription, commit, delta, turn):
                return
            if subscription.query is not query:
                return  # bound anew meanwhile
        await self._arrive(subscription, after, part, turn)

    @staticmethod
    async def _arrive(subscription: Subscription, after: int, part: LogSlice, turn: Turn) -> None:
        """A slice was handed over."""
        if part.end <= after:
            raise RuntimeError(f"the change feed has no commit after {after}, but a newer one was announced")
        subscription.advance(part.end)
        await turn.pause()

    async def _delta(self, query: LiveQuery, commit: ChangeSet) -> LiveDelta | None:
        change = change_of(commit, query)
        if query.is_blocking:
            async with self._evaluation.blocking:
                return await self._evaluation.run(lambda: evaluated(query, commit))
        if change is None:
            return await self._evaluation.delta(query, commit, None, at_once=False)
        rows, at_once = await self._evaluation.rows(change)
        return await self._evaluation.delta(query, commit, rows, at_once=at_once)

    async def _advance_by_log(self, subscription: Subscription, until: int, turn: Turn) -> None:
        if subscription.state is not SubscriptionState.REPLAY:
            return  # ended while it waited for its turn
        after, query = subscription.handed, subscription.query
        part = await self._evaluation.run(lambda: self._reader.from_log(query, after, until))
        place = 0
        while place < len(part.commits):
            some = part.commits[place:]
            done = await self._evaluation.run(partial(self._evaluate_some, query, some))
            for commit, delta in done:
                if not await self._hand_over(subscription, commit, delta, turn):
                    return
            place += len(done)
            if subscription.query is not query:
                return
        await self._arrive(subscription, after, part, turn)

    def _evaluate_some(self, query: LiveQuery, commits: list[ChangeSet]) -> Evaluated:
        """On a thread: commits of a handy number of rows, or those before one that fails; then that one fails."""
        chosen: list[ChangeSet] = []
        rows = 0
        for commit in commits:
            change = change_of(commit, query)
            rows += 0 if change is None else change.added_count + change.removed_count
            if chosen and rows > _CHUNK_ROWS:
                break
            chosen.append(commit)
        self._evaluation.feed.read_rows([c for c in (change_of(commit, query) for commit in chosen) if c is not None])
        done: Evaluated = []
        for commit in chosen:
            try:
                done.append((commit, evaluated(query, commit)))
            except Exception:
                if done:  # first what came before; then it fails again
                    return done
                raise
        return done

    async def _hand_over(
        self, subscription: Subscription, commit: ChangeSet, delta: LiveDelta | None, turn: Turn
    ) -> bool:
        """False when the subscription no longer catches up."""
        if delta is not None and not await self._delivery.to_one(subscription, delta, commit.timestamp_us, turn):
            return False
        if subscription.state is not SubscriptionState.REPLAY:
            return False
        subscription.advance(commit.last_seq)
        return True
