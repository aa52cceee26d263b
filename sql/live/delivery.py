"""Hands deltas to sinks: whole or from where a client was cut off, in pieces when they are large, counted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from sql.live.errors import LiveQueryFailed
from sql.live.index import Listeners
from sql.live.interface import LiveChange, LiveDelta
from sql.live.subscription import Subscription, SubscriptionState

log = logging.getLogger("headrace.live")

PIECE_ROWS = 1_000
"""Rows of a delta that a sink is given at once, so that no single commit has to fit into its buffer."""
TURN_SECONDS = 0.005
"""How long the event loop is held before others get their turn."""
_LOOK_EVERY = 64

Ended = Callable[[Subscription, Exception], None]


class Turn:
    """How long the present task has held the event loop."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = time.perf_counter() + TURN_SECONDS

    async def pause(self) -> None:
        """Let others run when it is their turn."""
        if time.perf_counter() >= self._until:
            await asyncio.sleep(0)
            self._until = time.perf_counter() + TURN_SECONDS


class Delivery:
    """The way out. `end` ends a subscription with an error, `refused` sets one aside until its sink has room."""

    def __init__(self, end: Ended, refused: Callable[[Subscription], None]) -> None:
        self._end = end
        self._refused = refused
        self.deltas = 0
        """Deltas that queries made."""
        self.deliveries = 0
        """Deltas (or pieces of them) that sinks took."""

    async def to_listeners(self, listeners: Listeners, delta: LiveDelta, time_us: int, turn: Turn) -> None:
        """Hand a delta to all who listen; those that come or go meanwhile are the follower's affair."""
        self.deltas += 1
        pieces = split(delta)
        subscriptions = listeners.subscriptions
        if len(subscriptions) == 1 and len(pieces) == 1:
            self._to_live(next(iter(subscriptions)), listeners, pieces[0], time_us)
            return
        for piece in pieces:
            for number, subscription in enumerate(tuple(subscriptions)):
                self._to_live(subscription, listeners, piece, time_us)
                if not number % _LOOK_EVERY:
                    await turn.pause()

    def _to_live(self, subscription: Subscription, listeners: Listeners, piece: LiveDelta, time_us: int) -> None:
        if subscription.listeners is listeners and not self.offer(subscription, piece, time_us):
            self._refused(subscription)

    async def to_one(self, subscription: Subscription, delta: LiveDelta, time_us: int, turn: Turn) -> bool:
        """Hand a delta to one that replays the log; False when its sink refused, or it does no longer replay."""
        self.deltas += 1
        for piece in split(delta):
            if subscription.state is not SubscriptionState.REPLAY:
                return False
            if not self.offer(subscription, piece, time_us):
                self._refused(subscription)
                return False
            await turn.pause()
        return subscription.state is SubscriptionState.REPLAY

    def offer(self, subscription: Subscription, piece: LiveDelta, time_us: int) -> bool:
        """Hand over what the client does not have yet; False when its sink refused it."""
        known = subscription.handed
        part = piece if known < piece.changes[0].seqs[0] else piece.after(known)
        if part is not None and subscription.hidden_through:
            part = part.without_hidden(subscription.hidden_through)
        if part is not None and known < piece.seq:
            try:
                taken = subscription.sink.deliver(subscription, part)
            except Exception:
                log.exception("the sink of %s failed", subscription.live_id)
                self._end(subscription, LiveQueryFailed("The change could not be delivered; subscribe again."))
                return True
            if not taken:
                return False
            self.deliveries += 1
            subscription.changes += sum([len(change.seqs) for change in part.changes])
            subscription.updated_us = time_us
        subscription.advance(piece.seq)
        return True


def split(delta: LiveDelta) -> list[LiveDelta]:
    """A delta in pieces of whole changes of about PIECE_ROWS rows. A piece's `seq` is that of its last event."""
    changes = delta.changes
    if len(changes) == 1 or sum([len(change.seqs) for change in changes]) <= PIECE_ROWS:
        return [delta]
    pieces: list[LiveDelta] = []
    part: list[LiveChange] = []
    rows = 0
    for change in changes:
        # events of a system table share the `seq` of their commit: between them there is no cursor to go on from
        if part and rows + len(change.seqs) > PIECE_ROWS and part[-1].seq < change.seqs[0]:
            pieces.append(LiveDelta(part[-1].seq, part))
            part, rows = [], 0
        part.append(change)
        rows += len(change.seqs)
    pieces.append(LiveDelta(delta.seq, part))
    return pieces
