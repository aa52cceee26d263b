"""One live query as a state machine, without any input or output: messages go in, events come out.

    IDLE --subscribe()--> SUBSCRIBING --ack--> SNAPSHOT --ready--> LIVE
                               └------ack, resumed, or no snapshot----^
    any but ENDED --lost()--> IDLE;   any --an error that is final--> ENDED

What holds, whatever is cut wherever:

- Events of one subscription come with ascending `seq`. An event whose `seq` is not above the last one that was
  delivered is dropped, so nothing is told twice.
- `cursor` is what a new subscription resumes from: the last delivered `seq`, or what a `pong` says was all delivered.
  It counts only once a snapshot was complete. A snapshot that was cut is told again from its start, after a `Reset`
  if any of it had been told.
- The server sends missed rows partly as a batch, which does not say whether a row is new or replaces another one:
  they become `upsert` changes. Who cannot do with those (a row set without a key) says so with `resumable`, and gets
  a `Reset` and a whole snapshot instead.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from headrace._answers import ColumnAnswer
from headrace._exceptions import InvalidAnswer, LiveError, SubscriptionLimitExceeded
from headrace._live_events import Change, ChangeType, LiveEvent, Ready, Reset, Snapshot
from headrace._live_messages import LiveOptions, ServerMessage, integer
from headrace._values import Row, RowDecoder

TOO_OLD = "RESUME_TOO_OLD"
_START_OVER = frozenset({"INVALID_CURSOR"})
"""Errors after which only a whole snapshot helps."""
_TRANSIENT = frozenset({"BATCH_FETCH_FAILED", "SLOW_CONSUMER", "SERVER_OVERLOADED", "STORAGE_UNAVAILABLE"})
"""Errors after which the same live query may well work."""
_AFTER_CUT = frozenset({"SUBSCRIPTION_LIMIT_EXCEEDED"})
"""The same, for one that worked before: the server may not have noticed yet that the old connection is gone."""
MAX_FAILURES = 8
"""Transient errors in a row until one is final."""


class Phase(enum.Enum):
    """Where a subscription stands."""

    IDLE = enum.auto()
    """The server knows nothing of it."""
    SUBSCRIBING = enum.auto()
    SNAPSHOT = enum.auto()
    LIVE = enum.auto()
    ENDED = enum.auto()


class LiveState:
    """The state of one live query."""

    def __init__(
        self,
        options: LiveOptions | None,
        *,
        raw: bool = False,
        can_resume: Callable[[list[ColumnAnswer]], bool] = lambda schema: True,
    ) -> None:
        self._options = options and LiveOptions(batch_size=options.batch_size, last_rows=options.last_rows)
        self._raw = raw
        self._can_resume = can_resume
        self._resumable = True
        self.phase = Phase.IDLE
        self.cursor: int | None = options.from_seq if options else None
        """Where to resume; None for a beginning from the start."""
        self.failure: LiveError | InvalidAnswer | None = None
        """Why it ended."""
        self.failures = 0
        """Transient errors since the last message that was none."""
        self.wants_batch = False
        """Whether a `next_batch` is due."""
        self.boundary: int | None = None
        """`last_seq_id` of the snapshot that is being fetched, to be sent back with `next_batch`."""
        self.schema: list[ColumnAnswer] = []
        self._decoder = RowDecoder(())
        self._delivered = self.cursor or 0
        self._established = False
        # Whether anything was told (or, with `from_seq`, is known from before) that a new snapshot must take back.
        self._told = bool(self.cursor)
        self._was_ready = False
        self._owes_snapshot = False  # a `Reset` was told, whatever was asked for at first
        self._resumed = False
        self._too_old = False
        self._total_rows = 0
        self._highest = 0  # the largest `_seq` in the snapshot that is being fetched

    def subscribe(self) -> LiveOptions | None:
        """Begin, or begin again; the `options` of the message that is to be sent."""
        assert self.phase is Phase.IDLE, self.phase
        self.phase = Phase.SUBSCRIBING
        self.wants_batch = False
        self._resumed = False
        if self.cursor is None:
            return LiveOptions() if self._options is None and self._owes_snapshot else self._options
        batch_size = self._options.batch_size if self._options else None
        return LiveOptions(batch_size=batch_size, from_seq=self.cursor)

    def lost(self) -> list[LiveEvent]:
        """The connection is gone, or the server was told to forget the subscription."""
        if self.phase in {Phase.IDLE, Phase.ENDED}:
            return []
        unfinished = self.phase is Phase.SNAPSHOT
        self.phase = Phase.IDLE
        self.wants_batch = False
        if unfinished or not self._resumable:
            what = "the snapshot was complete" if unfinished else "changes could be told apart by a key"
            return self._start_over(f"the connection was cut before {what}")
        return []

    def end(self, failure: LiveError | InvalidAnswer | None = None) -> None:
        """No more of it, for that reason or because nobody wants it any more."""
        self.phase = Phase.ENDED
        self.wants_batch = False
        self.failure = self.failure or failure

    def caught_up(self, seq: int) -> None:
        """A `pong` came: everything up to `seq` was delivered on this connection."""
        if self.phase is Phase.LIVE:
            self.cursor = max(seq, self.cursor or 0)

    def receive(self, message: ServerMessage) -> list[LiveEvent]:
        """Take the next message of this subscription; what it tells.

        A message that is none of the protocol ends it (`failure`), as do errors that are final and those of
        `can_resume`.
        """
        if self.phase in {Phase.IDLE, Phase.ENDED}:
            return []
        try:
            if message.type == "error":
                return self._error(message)
            if message.type == "change":
                return self._change(message)
            if message.type == "initial_data_batch":
                return self._batch(message)
            return self._ack(message) if message.type == "subscription_ack" else []
        except (InvalidAnswer, LiveError) as error:
            self.end(error)
            return []

    def _ack(self, message: ServerMessage) -> list[LiveEvent]:
        if self.phase is not Phase.SUBSCRIBING:
            raise InvalidAnswer("the server acknowledged a live query twice")
        control = message.batch_control
        fresh = self._too_old or (control is not None and control.fresh)
        self._too_old = False
        asked_from = self.cursor
        self._established = True
        self._total_rows = message.total_rows
        if message.schema is not None:
            self.schema = message.schema
            if not self._raw:
                self._decoder = RowDecoder((column.name, column.data_type) for column in message.schema)
        self._resumable = self._can_resume(self.schema)
        # 0 is before everything: a whole snapshot.
        self._resumed = bool(asked_from) and not fresh and message.resumed is not False
        if self._resumed:
            self.phase = Phase.LIVE
            self.failures = 0
            return [] if self._was_ready else self._ready(asked_from)
        events: list[LiveEvent] = []
        if asked_from is not None:
            events = self._start_over("the server has no changes from there on")
        self.phase = Phase.SNAPSHOT
        self._highest = 0
        if self._options is None and asked_from is None and not fresh and not self._owes_snapshot:
            # No snapshot was asked for, so no batch follows.
            return [*events, *self._ready(integer(control.last_seq_id) if control else None)]
        return events

    def _batch(self, message: ServerMessage) -> list[LiveEvent]:
        control, rows = message.batch_control, self._decoder.decode(message.rows or [])
        if control is None or self.phase is Phase.SUBSCRIBING:
            raise InvalidAnswer("the server sent a batch of rows out of place")
        self.wants_batch = control.has_more
        self.boundary = integer(control.last_seq_id)
        if self._resumed:
            rows = [row for row in rows if _seq(row) > self._delivered]
            if not rows:
                return []
            return self._deliver(Change(ChangeType.UPSERT, rows, [], max(map(_seq, rows))))
        if self.phase is not Phase.SNAPSHOT:
            raise InvalidAnswer("the server sent a batch of rows out of place")
        self._highest = max([self._highest, *map(_seq, rows)])
        events: list[LiveEvent] = []
        if rows:
            self._told = True
            events.append(Snapshot(rows, max(self._total_rows, len(rows))))
        if not control.has_more:
            events += self._ready(max(self.boundary or 0, self._highest))
        return events

    def _ready(self, seq: int | None) -> list[LiveEvent]:
        self.phase = Phase.LIVE
        self._told = self._was_ready = True
        self._owes_snapshot = False
        self.failures = 0
        self.cursor = seq
        self._delivered = seq or 0
        return [Ready(seq)]

    def _change(self, message: ServerMessage) -> list[LiveEvent]:
        if self.phase is not Phase.LIVE:
            raise InvalidAnswer("the server sent a change before its snapshot was complete")
        rows = self._decoder.decode(message.rows or [])
        old_rows = self._decoder.decode(message.old_values or [])
        try:
            change_type = ChangeType(message.change_type)
        except ValueError:
            raise InvalidAnswer(f"the server sent a change of the unknown type {message.change_type!r}") from None
        seq = integer(message.seq)
        if seq is None:
            seq = max(map(_seq, rows or old_rows), default=0)
        if seq <= self._delivered:
            return []
        return self._deliver(Change(change_type, rows, old_rows, seq))

    def _deliver(self, change: Change) -> list[LiveEvent]:
        self._delivered = change.seq
        self.cursor = max(change.seq, self.cursor or 0)
        return [change]

    def _error(self, message: ServerMessage) -> list[LiveEvent]:
        code = message.code
        if code == TOO_OLD:
            self._too_old = True
            return self._start_over(message.message, code)
        if code in _START_OVER and self._established:
            self.phase = Phase.IDLE
            return self._start_over(message.message, code)
        if code in _TRANSIENT or (code in _AFTER_CUT and self._established):
            self.failures += 1
            if self.failures < MAX_FAILURES:
                return self.lost()
        kind = SubscriptionLimitExceeded if code == "SUBSCRIPTION_LIMIT_EXCEEDED" else LiveError
        self.end(kind(message.message, code=code))
        return []

    def _start_over(self, reason: str, code: str = "") -> list[LiveEvent]:
        """Forget the cursor; a `Reset` if anything was told that does not count any more."""
        told, self._told = self._told, False
        self._owes_snapshot = self._owes_snapshot or told
        self.cursor = None
        self._delivered = 0
        return [Reset(reason, code)] if told else []


def _seq(row: Row) -> int:
    """The `_seq` of a row, 0 where it has none."""
    value = row.get("_seq")
    return value if isinstance(value, int) else int(value or 0)
