"""A subscription: one client's hold on a live query, from its snapshot to its end.

    SNAPSHOT ──go_live──▶ REPLAY ──caught up──▶ LIVE
       │                  ▲   │                  │
       │                  │   └─sink is full─▶ BEHIND ◀─sink is full─┘
       │                  └────drained────────────┘
       └──────────── close, or an error, from anywhere ──▶ ENDED

In SNAPSHOT its client fetches batches (or there are none to fetch) and nothing is buffered for it. In REPLAY it reads
the commits that came meanwhile from the feed, as fast as its sink takes them. In LIVE the hub hands it what concerns
it. In BEHIND its sink takes nothing; once it does again, REPLAY goes on where it stopped.

`seq` only ever grows: everything up to it was handed to the client or did not concern it.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from sql.identity import Identity
from sql.live.interface import LiveQuery, LiveSink, WireRow
from sql.results import ResultColumn

if TYPE_CHECKING:
    from sql.live.index import Listeners
    from sql.live.loading import Loading


class LiveOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a client may say about the rows that come first; on the wire `from` (or `from_seq_id`) is `from_`.

    Without any of them (`{}`) the whole answer comes first; without options at all, nothing does.
    """

    batch_size: int | None = None
    """Rows of a batch."""
    last_rows: int | None = None
    """Only that many rows, the newest."""
    from_: int | None = None
    """Only what happened after this `_seq`; 0 is a whole snapshot. Takes precedence over `last_rows`."""


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """What a client subscribes to. `params` are JSON values, `$1` first. `connection_id` is unique in the server."""

    sql: str
    params: Sequence[object]
    namespace: str
    identity: Identity
    subscription_id: str
    connection_id: str
    options: LiveOptions | None = None

    @property
    def live_id(self) -> str:
        """`<user>-<connection>-<subscription>`."""
        return f"{self.identity.user}-{self.connection_id}-{self.subscription_id}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Some of the rows that come first. `number` counts from 0.

    `last_seq` is the cursor after the batch; with the last one (`has_more` is false), that of the whole snapshot.
    `fresh` is true when the rows replace whatever the client had: its cursor was too old.
    """

    rows: list[WireRow]
    number: int
    has_more: bool
    last_seq: int
    fresh: bool = False


class SubscriptionState(enum.Enum):
    """Where a subscription stands; see the picture above."""

    SNAPSHOT = "snapshot"
    REPLAY = "replay"
    LIVE = "live"
    BEHIND = "behind"
    ENDED = "ended"


_State = SubscriptionState
_NEXT = {
    _State.SNAPSHOT: frozenset({_State.REPLAY, _State.ENDED}),
    _State.REPLAY: frozenset({_State.LIVE, _State.BEHIND, _State.ENDED}),
    _State.LIVE: frozenset({_State.REPLAY, _State.BEHIND, _State.ENDED}),
    _State.BEHIND: frozenset({_State.REPLAY, _State.ENDED}),
    _State.ENDED: frozenset[_State](),
}


class SubscriptionOwner(Protocol):
    """What a subscription asks of its hub."""

    async def next_batch(self, subscription: Subscription) -> Batch:
        """The next rows of its snapshot."""

    def go_live(self, subscription: Subscription) -> None:
        """Catch up and join the others."""

    def close_one(self, subscription: Subscription) -> None:
        """Forget it."""


class Subscription:
    """One subscription (a `LiveSubscription`). Made by `LiveHub.subscribe`; use it on the event loop.

    `total_rows` is how many rows its batches hold together. `resumed` is true when its batch 0 is what was missed since
    its cursor; `fresh` when the cursor was too old and the batches are a whole snapshot, `too_old` then says why (send
    it first, as RESUME_TOO_OLD). `changes` counts the events delivered; `created_us` and `updated_us` (the time of the
    last commit delivered, None before) are microseconds since the epoch.
    """

    __slots__ = (
        "_base",
        "changes",
        "created_us",
        "fresh",
        "hidden_through",
        "listeners",
        "owner",
        "query",
        "request",
        "resumed",
        "sink",
        "source",
        "state",
        "too_old",
        "total_rows",
        "updated_us",
    )

    def __init__(
        self, owner: SubscriptionOwner, request: LiveRequest, query: LiveQuery, sink: LiveSink, seq: int
    ) -> None:
        self.owner = owner
        self.request = request
        self.query = query
        self.sink = sink
        self.state = SubscriptionState.SNAPSHOT
        self.source: Loading | None = None
        """Where the rows wait that come first."""
        self.listeners: Listeners | None = None
        """Those it is LIVE with: all subscriptions of an equal query."""
        self.total_rows = 0
        self.resumed = False
        self.fresh = False
        self.hidden_through = 0
        """Rows of a STREAM table up to this `_seq` had expired at its snapshot: it is not told of their eviction."""
        self.too_old: str | None = None
        self.changes = 0
        self.created_us = time.time_ns() // 1_000
        self.updated_us: int | None = None
        self._base = seq

    def __repr__(self) -> str:
        return f"Subscription({self.live_id}, {self.state.value}, seq {self.seq})"

    @property
    def subscription_id(self) -> str:
        """The client's name for it, unique in its connection."""
        return self.request.subscription_id

    @property
    def connection_id(self) -> str:
        """The connection that it belongs to."""
        return self.request.connection_id

    @property
    def live_id(self) -> str:
        """`<user>-<connection>-<subscription>`: its name in `system.live` and KILL LIVE QUERY."""
        return self.request.live_id

    @property
    def columns(self) -> tuple[ResultColumn, ...]:
        """The columns of its rows, `_seq` among them."""
        return self.query.columns

    @property
    def has_snapshot(self) -> bool:
        """Whether there are batches to fetch before `go_live`; batch 0 may be empty."""
        return self.source is not None

    @property
    def seq(self) -> int:
        """Everything up to here was handed to the client or its sink, or does not concern it."""
        listeners = self.listeners
        return self._base if listeners is None else max(self._base, listeners.position)

    @property
    def handed(self) -> int:
        """As `seq`, without what did not concern it while LIVE."""
        return self._base

    def advance(self, seq: int) -> None:
        """Everything up to `seq` was handed over."""
        self._base = max(self._base, seq)

    def move(self, state: SubscriptionState) -> None:
        """Go from one state to the next. Raises RuntimeError for a step that the picture does not have."""
        if state not in _NEXT[self.state]:
            raise RuntimeError(f"a subscription cannot go from {self.state.value} to {state.value}")
        self.state = state

    async def next_batch(self) -> Batch:
        """The next batch; the first call gives batch 0.

        Raises SubscriptionEnded when there is none (left), SqlError when rows cannot be encoded.
        """
        return await self.owner.next_batch(self)

    def go_live(self) -> None:
        """Deliver from now on. To be called once: when the last batch is in the socket, or at once without one."""
        self.owner.go_live(self)

    def close(self) -> None:
        """End it for its client; its sink is not told. May be called again."""
        self.owner.close_one(self)
