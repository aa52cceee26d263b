"""A lane: the commits of one query that may take long, apart from all others.

The dispatcher wakes it with a commit that concerns it; then it reads the feed for itself, up to what the dispatcher has
claimed, and rests again. While it rests it has whatever the dispatcher has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from sql.live.delivery import Delivery, Turn
from sql.live.evaluation import Evaluation, evaluated
from storage.changes import ChangeSet

if TYPE_CHECKING:
    from sql.live.index import Follower, Listeners
    from sql.live.replay import CommitReader


class Lane:
    """The `Follower` of one query that blocks."""

    def __init__(
        self,
        listeners: Listeners,
        dispatcher: Follower,
        evaluation: Evaluation,
        reader: CommitReader,
        delivery: Delivery,
        failed: Callable[[Listeners, Exception], None],
    ) -> None:
        self._listeners = listeners
        self._dispatcher = dispatcher
        self._evaluation = evaluation
        self._reader = reader
        self._delivery = delivery
        self._failed = failed
        self._position = self._claimed = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def position(self) -> int:
        """See Follower."""
        return self._position if self._task is not None else max(self._position, self._dispatcher.position)

    @property
    def claimed(self) -> int:
        """See Follower."""
        return self._claimed if self._task is not None else max(self._position, self._dispatcher.claimed)

    def wake(self, commit: ChangeSet) -> None:
        """See to a commit that the dispatcher has just claimed."""
        if self._task is None and commit.last_seq > self._position:
            self._position = self._claimed = max(self._position, self._dispatcher.position)
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            turn = Turn()
            while self._listeners.subscriptions and self._position < self._dispatcher.claimed:
                await self._advance(turn)
        except Exception as error:  # noqa: BLE001  ends this query's subscriptions, nobody else's
            self._failed(self._listeners, error)
        finally:
            self._task = None

    async def _advance(self, turn: Turn) -> None:
        query = self._listeners.query
        part = await self._reader.read(query, self._position, self._dispatcher.claimed)
        if part.end <= self._position:
            raise RuntimeError(f"the change feed has no commit after {self._position}, but a newer one was announced")
        for commit in part.commits:
            if not self._listeners.subscriptions:
                return
            self._claimed = commit.last_seq
            async with self._evaluation.blocking:
                delta = await self._evaluation.run(partial(evaluated, query, commit))
            if delta is not None:
                await self._delivery.to_listeners(self._listeners, delta, commit.timestamp_us, turn)
            self._position = commit.last_seq
        self._position = self._claimed = part.end
