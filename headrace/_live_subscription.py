"""One live query between the shared connection and whoever reads it: a bounded buffer of events.

The connection hands messages over and never waits. A snapshot is asked for batch by batch as room comes, so it cannot
run over. Changes can: when the buffer is full the subscription is *parked*, that is, the server is told to forget it,
and what still comes of it is dropped. Once the reader has caught up it resumes from its cursor. So a slow reader
costs a bounded amount of memory, loses nothing, and holds up nobody else on the connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from headrace._exceptions import HeadraceError, InvalidAnswer, LiveError
from headrace._live_events import LiveEvent, row_count
from headrace._live_messages import LiveOptions, NextBatch, ServerMessage, SubscriptionRequest
from headrace._live_state import LiveState, Phase
from headrace._values import encode_value


class Carrier(Protocol):
    """The connection, as a subscription sees it."""

    def attach(self, subscription: Subscription) -> None:
        """Subscribe as soon as there is a connection."""

    def detach(self, subscription: Subscription) -> None:
        """Tell the server to forget it."""

    def forget(self, subscription: Subscription) -> None:
        """It has ended: detach it for good."""

    def retry_later(self, subscription: Subscription) -> None:
        """Attach again after a while."""

    def post(self, message: NextBatch) -> None:
        """Send a message of an attached subscription."""


class Subscription:
    """A live query that is wanted until it is closed. Belongs to one event loop; read by one task at a time."""

    def __init__(
        self,
        carrier: Carrier,
        state: LiveState,
        sql: str,
        *,
        params: list[object] | None,
        namespace: str | None,
        buffer_rows: int,
    ) -> None:
        self._carrier = carrier
        self._state = state
        self._sql = sql
        self._params = None if params is None else [encode_value(value) for value in params]
        self._namespace = namespace
        self._room = buffer_rows
        self._events: deque[LiveEvent] = deque()
        self._buffered = 0
        self._changed = asyncio.Event()
        self._parked = False
        self._failure: HeadraceError | None = None
        self._ended = False
        self._asked = False  # a next_batch is under way
        self.wire_id = ""
        """Its name on the connection now; another one after each cut."""

    @property
    def state(self) -> LiveState:
        """Where it stands."""
        return self._state

    @property
    def parked(self) -> bool:
        """Whether its reader is too slow, and the server was told to forget it for now."""
        return self._parked

    @property
    def buffered_rows(self) -> int:
        """Rows that wait to be read."""
        return self._buffered

    def start(self) -> None:
        """Ask for it."""
        self._carrier.attach(self)

    def request(self, wire_id: str) -> SubscriptionRequest:
        """Begin under a name; what to send."""
        self.wire_id = wire_id
        self._asked = False
        options: LiveOptions | None = self._state.subscribe()
        return SubscriptionRequest(wire_id, self._sql, self._params, self._namespace, options)

    def receive(self, message: ServerMessage) -> None:
        """Take a message of the connection."""
        if message.type == "change" and self._buffered >= self._room:
            self._park()
            return
        if message.type == "initial_data_batch":
            self._asked = False
        self._put(self._state.receive(message))
        if self._state.phase is Phase.ENDED:
            self._finish(self._state.failure)
            self._carrier.forget(self)
        elif self._state.phase is Phase.IDLE:
            self._carrier.detach(self)
            self._carrier.retry_later(self)
        else:
            self._ask()

    def lost(self) -> None:
        """The connection is gone."""
        self._asked = False
        self._put(self._state.lost())

    def ask_again(self) -> None:
        """The server did not take a message: ask for the batch once more, if one was asked for."""
        if self._asked:
            self._asked = False
            self._state.wants_batch = True
            self._ask()

    def fail(self, error: HeadraceError) -> None:
        """It cannot go on; the reader gets the error behind the events that wait."""
        if not self._ended:
            self._state.end()
            self._finish(error)

    def close(self) -> None:
        """End it. Who reads gets the end at once."""
        if self._ended:
            self._events.clear()
            return
        self._events.clear()
        self._buffered = 0
        self._state.end()
        self._finish(None)
        self._carrier.forget(self)

    async def next(self) -> LiveEvent | None:
        """The next event; None at the end, after `close`. Raises LiveError, or what ended the connection for good."""
        while not self._events:
            if self._ended:
                if self._failure is not None:
                    raise self._failure
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._take()

    def _take(self) -> LiveEvent:
        event = self._events.popleft()
        self._buffered -= row_count(event)
        if self._parked and self._buffered <= self._room // 2:
            self._parked = False
            self._carrier.attach(self)
        self._ask()
        return event

    def _put(self, events: list[LiveEvent]) -> None:
        if not events:
            return
        self._events.extend(events)
        self._buffered += sum(map(row_count, events))
        self._changed.set()

    def _ask(self) -> None:
        """Ask for the next batch of a snapshot where there is one and room for it."""
        state = self._state
        if state.wants_batch and not self._asked and self._buffered <= self._room // 2:
            state.wants_batch = False
            self._asked = True
            self._carrier.post(NextBatch(self.wire_id, state.boundary))

    def _park(self) -> None:
        self._parked = True
        self._carrier.detach(self)
        self._put(self._state.lost())

    def _finish(self, failure: LiveError | InvalidAnswer | HeadraceError | None) -> None:
        self._ended = True
        self._failure = failure
        self._changed.set()
