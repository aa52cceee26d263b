"""What a subscription's client gets first: which rows its options ask for, and the batches in which they wait.

- A whole snapshot, or its newest rows: read once, at one commit, then kept in a `Spool`.
- On a resume, the head of what was missed: inserts and updates up to the first row that went. What a later update of
  the head replaced is left out, so that every row of it is a version that the client does not know yet. Rows without
  their whole key do not tell which version they replace: there the head also ends at an update of an older row.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import NamedTuple

from sql.errors import InvalidParameter, Unsupported
from sql.live.errors import ResumeTooOld
from sql.live.evaluation import evaluated
from sql.live.interface import ChangeType, LiveDelta, LiveQuery, WireRow
from sql.live.replay import CommitReader
from sql.live.settings import LiveSettings
from sql.live.spool import Spool
from sql.live.subscription import Batch, LiveOptions

_LARGEST = 2**63 - 1
_AT_HAND = 100
"""Rows of a batch that are rendered on the event loop."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Checked options."""

    batch_size: int
    last_rows: int | None
    after: int
    """Resume after that `_seq`; 0 for a snapshot."""


def wanted_of(options: LiveOptions, settings: LiveSettings) -> Wanted:
    """What options ask for. Raises InvalidParameter or Unsupported naming the option that is out of bounds."""
    size = settings.batch_size
    if options.batch_size is not None:
        size = _checked("batch_size", options.batch_size, 1, settings.max_batch_size)
    after = 0 if options.from_ is None else _checked("from", options.from_, 0, _LARGEST)
    last_rows = options.last_rows
    if last_rows is not None:
        _checked("last_rows", last_rows, 0, _LARGEST)
        if options.from_ is not None:
            last_rows = None
        elif last_rows > size:
            raise Unsupported(
                f"Option last_rows ({last_rows}) is larger than batch_size ({size}): the newest rows come in one batch."
            )
    return Wanted(size, last_rows, after)


def _checked(name: str, value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidParameter(f"Option {name} must be an integer, not {type(value).__name__}.")
    if not least <= value <= most:
        raise InvalidParameter(f"Option {name} must be from {least} to {most}, not {value}.")
    return value


class Head(NamedTuple):
    """The first rows of a resume, and the `_seq` of the last event that they hold."""

    rows: list[WireRow]
    seq: int


def read_head(
    query: LiveQuery, reader: CommitReader, after: int, until: int, count: int, settings: LiveSettings
) -> Head:
    """Up to `count` rows that came after a `_seq`. Blocks for `resume_seconds` at most, or one slice of the log.

    Raises ResumeTooOld's cause, LogTruncated, when the log does not hold them; SqlError when the query fails.
    """
    limit = time.monotonic() + settings.resume_seconds
    rows: dict[object, WireRow] = {}
    seq = after
    while seq < until:
        part = reader.at_once(query, seq, until)
        if part is None:
            part = reader.from_log(query, seq, until)
        for commit in part.commits:
            delta = evaluated(query, commit)
            if delta is not None:
                stopped = _take(rows, delta, seq, count, keyed=query.shows_key)
                if stopped is not None:
                    return Head(list(rows.values()), stopped)
            seq = max(seq, commit.last_seq)
            if time.monotonic() >= limit:
                return Head(list(rows.values()), seq)
        if part.end <= seq and not part.commits:
            break
        seq = max(seq, part.end)
        if time.monotonic() >= limit:
            break
    return Head(list(rows.values()), seq)


def _take(rows: dict[object, WireRow], delta: LiveDelta, seq: int, count: int, *, keyed: bool) -> int | None:
    """Add a delta's events to the head; where it ends, when it does before the delta does."""
    part = delta.after(seq)
    for change in () if part is None else part.changes:
        for place, event in enumerate(change.seqs):
            if change.type is ChangeType.DELETE or len(rows) >= count:
                return seq
            if change.type is ChangeType.UPDATE:
                replaced = rows.pop(change.old_rows[place]["_seq"], None)
                if replaced is None and not keyed:
                    return seq
            rows[change.rows[place]["_seq"]] = change.rows[place]
            seq = event
    return None


def too_old(after: int) -> ResumeTooOld:
    """What a client hears whose cursor is older than the log."""
    return ResumeTooOld(f"The changes after _seq {after} are no longer kept; a whole snapshot follows.")


class Loading:
    """Rows that wait for their client. `next` blocks; the rest is for the event loop."""

    __slots__ = ("_batch_size", "_fresh", "_next", "_rows", "_seq", "_spool", "busy", "timer")

    def __init__(self, source: Spool | list[WireRow], batch_size: int, seq: int, *, fresh: bool = False) -> None:
        """`seq` is the commit (or the last event) that the rows stand for."""
        self._spool = source if isinstance(source, Spool) else None
        self._rows = source if isinstance(source, list) else []
        self._batch_size = batch_size
        self._seq = seq
        self._fresh = fresh
        self._next = 0
        self.busy = False
        """Whether a batch is being made."""
        self.timer: asyncio.TimerHandle | None = None
        """Ends the subscription of a client that asks for nothing."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self._rows) if self._spool is None else self._spool.rows

    @property
    def is_at_hand(self) -> bool:
        """Whether the next batch costs next to nothing."""
        return self._spool is None or (self._spool.in_memory and min(self._spool.rows, self._batch_size) <= _AT_HAND)

    def next(self) -> Batch:
        """The next batch. Raises ExecutionError for values that JSON cannot carry, or when it was closed."""
        number, size = self._next, self._batch_size
        start, end = number * size, min((number + 1) * size, self.rows)
        has_more = end < self.rows
        if self._spool is None:
            rows, last_seq = self._rows, self._seq
        else:
            rows = self._spool.batch(start, end - start)
            last_seq = self._spool.last_seq(end) if has_more else self._seq
        self._next += 1
        return Batch(rows, number, has_more, last_seq, self._fresh)

    def close(self) -> None:
        """Give the memory back."""
        if self.timer is not None:
            self.timer.cancel()
        if self._spool is not None:
            self._spool.close()
