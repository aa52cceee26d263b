"""One subscription of a session: the ack, the batches of its snapshot as its client asks for them, then changes.

    STARTING ──ack, batch 0──▶ LOADING ──next_batch──▶ FETCHING ──┐
        │                        ▲                        │       │
        │                        └────more to come────────┘       │
        └────ack, no snapshot──────▶ LIVE ◀────the last batch─────┘        ENDED from anywhere

Each step that waits (STARTING, FETCHING) is a task, so that a large snapshot holds up none of the session's other
messages. A step waits until the client has room in its buffer. What is asked meanwhile is counted and done next.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Coroutine
from typing import TYPE_CHECKING

from server.live.encoding import Codec
from server.live.failures import Code, Told, told
from server.live.limits import QUEUED_BATCHES
from server.live.messages import BatchControl, BatchStatus, Failure, InitialDataBatch, SubscriptionAck
from sql.live.subscription import Batch, LiveRequest, Subscription
from sql.rendering import wire_schema

if TYPE_CHECKING:
    from server.live.session import Session

_ROWS_ON_THE_LOOP = 200
"""Larger batches are written in a thread, so that other sessions go on meanwhile."""


class Stage(enum.Enum):
    """Where a subscription stands; see the picture above."""

    STARTING = "starting"
    LOADING = "loading"
    FETCHING = "fetching"
    LIVE = "live"
    ENDED = "ended"


class ClientSubscription:
    """One subscription id of one session, from its `subscribe` to its end."""

    __slots__ = ("_asked", "_codec", "_request", "_session", "_task", "live", "prefix", "stage")

    def __init__(self, session: Session, request: LiveRequest, codec: Codec) -> None:
        self._session = session
        self._request = request
        self._codec = codec
        self._asked = 0
        self._task: asyncio.Task[None] | None = None
        self.prefix = codec.prefix(request.subscription_id)
        self.live: Subscription | None = None
        """The hub's side, once it stands."""
        self.stage = Stage.STARTING

    @property
    def id(self) -> str:
        """The client's name for it."""
        return self._request.subscription_id

    def start(self) -> None:
        """Bind the query, read its snapshot, answer."""
        self._step(self._begin())

    def ask(self) -> bool:
        """Have the next batch sent; False if there is nothing to fetch, or too much was asked ahead."""
        if self.stage is Stage.LOADING:
            self.stage = Stage.FETCHING
            self._step(self._fetch())
            return True
        if self.stage in {Stage.STARTING, Stage.FETCHING} and self._asked < QUEUED_BATCHES:
            self._asked += 1
            return True
        return False

    def close(self) -> None:
        """End it, with whatever runs for it. May be called again."""
        if self.stage is Stage.ENDED:
            return
        self.stage = Stage.ENDED
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        if self.live is not None:
            self.live.close()

    # --- steps ----------------------------------------------------------------------------------------------------

    def _step(self, work: Coroutine[object, object, None]) -> None:
        task = self._task = self._session.loop.create_task(self._guarded(work))
        self._session.tasks.add(task)
        task.add_done_callback(self._stepped)

    def _stepped(self, task: asyncio.Task[None]) -> None:
        """Let go of a task that has ended: if it was cancelled, it keeps everything that it had at hand."""
        self._session.tasks.discard(task)
        if self._task is task:
            self._task = None

    async def _guarded(self, work: Coroutine[object, object, None]) -> None:
        """Run a step; whatever goes wrong ends the subscription and is told to the client."""
        try:
            await work
        except Exception as error:  # noqa: BLE001  told to the client, and logged if it is unexpected
            if self.stage is not Stage.ENDED:
                self._session.fail(self, self._told(error))

    def _told(self, error: Exception) -> Told:
        started = self.stage is not Stage.STARTING
        found = told(error, started=started)
        if started and found.code == "SUBSCRIPTION_ENDED":
            return Told(Code.BATCH_FETCH_FAILED, found.message)
        return found

    async def _begin(self) -> None:
        session = self._session
        async with session.loading:
            live = self.live = await session.hub.subscribe(self._request, session)
            batch = await live.next_batch() if live.has_snapshot else None
        await session.writable()
        if live.too_old is not None:
            session.send(Failure(self.id, Code.RESUME_TOO_OLD, live.too_old))
        control = BatchControl(0, has_more=False, status=BatchStatus.READY, last_seq_id=live.seq)
        session.send(
            SubscriptionAck(
                subscription_id=self.id,
                total_rows=live.total_rows,
                batch_control=control if batch is None else control_of(batch),
                schema=wire_schema(live.columns),
                resumed=live.resumed,
            )
        )
        if batch is None:
            self._go_live(live)
        else:
            await self._send(batch, live)

    async def _fetch(self) -> None:
        live = self.live
        assert live is not None
        session = self._session
        async with session.loading:
            batch = await live.next_batch()
        await session.writable()
        await self._send(batch, live)

    async def _send(self, batch: Batch, live: Subscription) -> None:
        message = InitialDataBatch(self.id, batch.rows, control_of(batch))
        if len(batch.rows) > _ROWS_ON_THE_LOOP:
            frame = await asyncio.to_thread(self._codec.encode, message)
        else:
            frame = self._codec.encode(message)
        self._session.connection.write(frame)
        if not batch.has_more:
            self._go_live(live)
        elif self._asked:
            self._asked -= 1
            self.stage = Stage.FETCHING
            self._step(self._fetch())
        else:
            self.stage = Stage.LOADING

    def _go_live(self, live: Subscription) -> None:
        self.stage = Stage.LIVE
        self._task = None
        for _ in range(self._asked):
            self._session.send(nothing_to_fetch(self.id))
        self._asked = 0
        live.go_live()


def control_of(batch: Batch) -> BatchControl:
    """The `batch_control` of a batch."""
    if not batch.has_more:
        status = BatchStatus.READY
    else:
        status = BatchStatus.LOADING_BATCH if batch.number else BatchStatus.LOADING
    return BatchControl(batch.number, batch.has_more, status, batch.last_seq, batch.fresh)


def nothing_to_fetch(subscription_id: str) -> Failure:
    """The answer to a `next_batch` that no batch follows."""
    return Failure(subscription_id, Code.BATCH_FETCH_FAILED, "There is no further batch to fetch for this subscription")
