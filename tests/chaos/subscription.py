"""One subscription as its client sees it: asked for, loading, live, taken up again; every step checked."""

from __future__ import annotations

import enum
import random
from collections import deque
from collections.abc import Mapping
from typing import Any

from tests.chaos.rowset import LiveSelect, RowSet, require

Message = dict[str, Any]
REMEMBERED = 40
"""Messages that are kept to be shown when something is wrong."""


class State(enum.Enum):
    """How far a subscription is on this connection."""

    IDLE = "idle"
    """Not asked for, or given up."""
    ASKED = "asked"
    LOADING = "loading"
    LIVE = "live"


class Subscription:
    """A live query that survives its connections: it resumes where its rows are complete, else it begins anew."""

    def __init__(self, name: str, select: LiveSelect, chance: random.Random) -> None:
        self.name = name
        self.select = select
        self.rowset = RowSet(select)
        self.state = State.IDLE
        self.complete = False
        """Whether the rows are those of some commit, so that changes from `cursor` on are enough."""
        self.loads = 0
        self.resumes = 0
        self.too_old = 0
        self.recent: deque[str] = deque(maxlen=REMEMBERED)
        self._chance = chance
        self._asked_from = False
        self._refused = False
        self._resumed = False
        self._batch_size = 0
        self._batch = 0
        self._total = 0
        self._loaded = 0

    def request(self) -> Message:
        """The message that subscribes, from where the rows are complete."""
        self.state = State.ASKED
        self._refused = False
        self._batch_size = self._chance.choice([20, 100, 1_000])
        options: Message = {"batch_size": self._batch_size}
        if self._batch_size == 1_000 and self._chance.random() < 0.5:
            del options["batch_size"]
        self._asked_from = self.complete and self.rowset.cursor > 0
        if self._asked_from:
            cursor = self.rowset.cursor
            options[self._chance.choice(["from", "from_seq_id"])] = self._chance.choice([cursor, str(cursor)])
        self._note("->", options)
        return {"type": "subscribe", "subscription": {"id": self.name, "sql": self.select.sql, "options": options}}

    def lost(self) -> None:
        """The connection has ended, or the subscription was given up."""
        self.state = State.IDLE
        self._note("--", {})

    def receive(self, message: Message) -> Message | None:
        """Take a message about this subscription; the one to answer with."""
        self._note("<-", message)
        kind = message["type"]
        if kind == "error":
            return self._error(message)
        if kind == "subscription_ack":
            self._acknowledged(message)
            return None
        require(kind in {"initial_data_batch", "change"}, "a message of no known kind", message)
        if self.state is State.ASKED:
            return None  # of the one that this one replaces
        if kind == "initial_data_batch":
            return self._rows(message)
        require(self.state is State.LIVE, "a change before the rows are complete", self.state, message)
        self.rowset.change(message)
        return None

    def delivered(self, seq: int) -> None:
        """The server says that all changes up to `seq` were delivered."""
        if self.state is State.LIVE:
            self._note("<-", {"pong": seq})
            self.rowset.advance(seq)

    def _error(self, message: Message) -> None:
        require(message["code"] == "RESUME_TOO_OLD", "an error", self.select.sql, message)
        require(self.state is State.ASKED and self._asked_from, "RESUME_TOO_OLD that nobody asked for", message)
        self._refused = True

    def _acknowledged(self, message: Message) -> None:
        require(self.state is State.ASKED, "an acknowledgement that nobody asked for", message)
        control = message["batch_control"]
        self._resumed = message["resumed"]
        require(self._resumed == (self._asked_from and not self._refused), "resumed or not", self._refused, message)
        require(control.get("fresh", False) == self._refused, "fresh or not", self._refused, message)
        self.rowset.describe(message["schema"])
        self._batch, self._loaded, self._total = 0, 0, message["total_rows"]
        self.state = State.LOADING
        if self._resumed:
            self.resumes += 1
            self.rowset.resumed = True
            return
        self.complete = False
        self.rowset.clear()
        self.loads += 1
        self.too_old += self._refused

    def _rows(self, message: Message) -> Message | None:
        require(self.state is State.LOADING, "rows when nothing is loading", self.state, message)
        control: Mapping[str, Any] = message["batch_control"]
        rows, more = message["rows"], control["has_more"]
        status = ("loading" if self._batch == 0 else "loading_batch") if more else "ready"
        require(control["status"] == status, "the wrong status", status, control)
        require(control["batch_num"] == self._batch, "a batch out of order", self._batch, control)
        require(len(rows) <= self._batch_size, "a batch that is too large", len(rows), self._batch_size)
        require(len(rows) == self._batch_size or not more, "a batch that is not full", len(rows), self._batch_size)
        self._batch += 1
        self._loaded += len(rows)
        if self._resumed:
            self.rowset.resume(rows)
        else:
            self.rowset.load(rows)
        last = None if control["last_seq_id"] is None else int(control["last_seq_id"])
        if last is not None:
            require(not rows or last >= self.rowset.cursor, "a last_seq_id before the last row", last, rows[-1:])
        if more:
            return {"type": "next_batch", "subscription_id": self.name, "last_seq_id": last}
        if last is not None:
            self.rowset.advance(last)
        if not self._resumed:
            require(self._loaded == self._total, "another number of rows than announced", self._loaded, self._total)
        self.complete = True
        self.state = State.LIVE
        return None

    def _note(self, way: str, message: Message) -> None:
        self.recent.append(f"{way} {message}"[:600])

    def story(self) -> str:
        """What happened last."""
        about = f"{self.name} ({self.state.value}, cursor {self.rowset.cursor}): {self.select.sql}"
        return "\n  ".join([about, *self.recent])
