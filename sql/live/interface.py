"""What a live query is to those who run it and to those who deliver its changes: the seams of `sql.live`.

    feed (ChangeSets) -> LiveHub: which queries can a commit concern? -> LiveQuery.delta -> LiveSink.deliver (a session)

A `LiveQuery` says what a commit changes in its answer; how it knows is its own affair (a filter over one table now,
the incremental engine for joins and aggregates later). Queries with equal `key` have the same answer, so the hub
evaluates one of them for all their subscriptions, and what is rendered from a `LiveDelta` is rendered once and kept.

Order and identity of events: every event has a `seq`, the `_seq` at which the commit log says that it happened. The
`seq`s of one subscription ascend strictly. An insert's or update's is the `_seq` of the new row version; that of a
delete is the `_seq` that the delete itself got; that of a row that leaves the filter is the `_seq` of the version that
no longer matches. A client that has seen everything up to `seq` resumes from there without gap or duplicate.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from sql.live.changed_rows import ChangedRows
from sql.live.wire_rows import WireRow
from sql.results import ResultColumn
from sql.workers import Control
from storage.changes import ChangeSet
from storage.views import ReadView

__all__ = [
    "ChangeType",
    "ChangedRows",
    "Equality",
    "LiveChange",
    "LiveDelta",
    "LiveQuery",
    "LiveSink",
    "LiveSubscription",
    "WireRow",
]


class ChangeType(enum.StrEnum):
    """What happened to a row of a live query's answer; the value is the wire spelling."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


class LiveChange:
    """Consecutive events of one type within one commit: one message.

    `seqs` holds the events' `seq`s, ascending. `rows` are the new rows (empty for deletes), `old_rows` the old ones
    (empty for inserts); both parallel to `seqs`. The old row of an update has `_seq`, the key and the columns that
    changed; that of a delete the key and all projected columns, `_seq` being the version that the client knows.
    """

    __slots__ = ("old_rows", "rows", "seqs", "type")

    def __init__(
        self, change_type: ChangeType, seqs: Sequence[int], rows: Sequence[WireRow], old_rows: Sequence[WireRow]
    ) -> None:
        self.type = change_type
        self.seqs = seqs
        self.rows = rows
        self.old_rows = old_rows

    @property
    def seq(self) -> int:
        """The last event's `seq`: the cursor after this message."""
        return self.seqs[-1]


class LiveDelta:
    """What one commit changes in one live query's answer; shared by all subscriptions of that query.

    `renderings` belongs to those who deliver: encoded messages by format, each made once.
    """

    __slots__ = ("changes", "renderings", "seq")

    def __init__(self, seq: int, changes: Sequence[LiveChange]) -> None:
        self.seq = seq
        """The last `_seq` of the commit."""
        self.changes = changes
        self.renderings: dict[Hashable, object] = {}

    def after(self, seq: int) -> LiveDelta | None:
        """The events later than `seq`, for a client that was cut off within the commit; None when there are none."""
        if self.changes and self.changes[0].seqs[0] > seq:
            return self
        kept: list[LiveChange] = []
        for change in self.changes:
            start = sum(1 for known in change.seqs if known <= seq)
            if start == 0:
                kept.append(change)
            elif start < len(change.seqs):
                kept.append(LiveChange(change.type, change.seqs[start:], change.rows[start:], change.old_rows[start:]))
        return LiveDelta(self.seq, kept) if kept else None

    def without_hidden(self, through: int) -> LiveDelta | None:
        """The events without deletes of rows whose `_seq` is at most `through`; None when there are none."""
        kept: list[LiveChange] = []
        for change in self.changes:
            if change.type is not ChangeType.DELETE:
                kept.append(change)
                continue
            shown = [place for place, row in enumerate(change.old_rows) if int(str(row["_seq"])) > through]
            if len(shown) == len(change.seqs):
                kept.append(change)
            elif shown:
                seqs, rows = [change.seqs[place] for place in shown], [change.old_rows[place] for place in shown]
                kept.append(LiveChange(change.type, seqs, (), rows))
        if len(kept) == len(self.changes) and all(map(operator.is_, kept, self.changes)):
            return self
        return LiveDelta(self.seq, kept) if kept else None


@dataclass(frozen=True, slots=True)
class Equality:
    """`column = value` must hold for every row of the answer; a hashable storage value, compared as SQL does."""

    column: str
    value: object


class LiveQuery(Protocol):
    """A bound query with its arguments and its caller's scope. Immutable; safe from any thread."""

    @property
    def key(self) -> Hashable:
        """Equal keys mean equal answers: plan, arguments, partition, caller where it matters."""

    @property
    def columns(self) -> tuple[ResultColumn, ...]:
        """The projected columns, then `_seq`."""

    @property
    def table_id(self) -> int | None:
        """The table whose commits concern it; None for a system table (then every commit with `objects` does)."""

    @property
    def partition(self) -> str:
        """The partition whose commits concern it."""

    @property
    def equality(self) -> Equality | None:
        """A condition by which an index finds the query; None when it has to be evaluated for each change."""

    @property
    def is_blocking(self) -> bool:
        """True when `delta` may take long or wait (DuckDB): it runs on a worker thread, apart from other queries."""

    def snapshot(self, view: ReadView, *, last_rows: int | None = None, control: Control | None = None) -> pa.Table:
        """The answer at the view's commit, ordered by `_seq`: the `columns` in storage types, in memory of its own.

        `last_rows` keeps the newest ones only; `control` stops it. Blocks; raises SqlError.
        """

    @property
    def is_resumable(self) -> bool:
        """True when deltas can be made from any commit of the log; False for system tables: only a snapshot helps."""

    @property
    def shows_key(self) -> bool:
        """True when rows have the whole primary key: a client can tell by a new version which one it replaces."""

    def delta(self, commit: ChangeSet, rows: ChangedRows | None, *, blocking: bool = False) -> LiveDelta | None:
        """What a commit changes in the answer; None for nothing.

        `rows` are the commit's rows of (`table_id`, `partition`); None for a system table. Raises SqlError when
        a row cannot be evaluated or encoded, StaleBinding (an SqlError) when the query has to be bound anew first.
        Without `blocking` it may raise MustBlock: call it again on a worker thread, with `blocking`.
        """


class LiveSink(Protocol):
    """Whoever delivers the changes of subscriptions: a WebSocket session, an event stream. Called on the event loop."""

    def deliver(self, subscription: LiveSubscription, delta: LiveDelta) -> bool:
        """Take a delta whole and at once, or refuse it with False; must not block and must not raise.

        After a refusal the subscription is behind: the hub replays the log for it once `LiveHub.drained` is called.
        """

    def ended(self, subscription: LiveSubscription, error: Exception) -> None:
        """The subscription has ended against its client's will (an SqlError); nothing more comes."""


class LiveSubscription(Protocol):
    """One subscription as its sink sees it (`sql.live.subscription`)."""

    @property
    def subscription_id(self) -> str:
        """The client's name for it."""

    @property
    def live_id(self) -> str:
        """`<user>-<connection>-<subscription>`."""

    @property
    def columns(self) -> tuple[ResultColumn, ...]:
        """The columns of rows."""
