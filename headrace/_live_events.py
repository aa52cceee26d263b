"""What a live query tells, in the order in which it happened.

    Snapshot* Ready Change* (Reset Snapshot* Ready Change*)*

The rows of the snapshots up to a `Ready` are the answer at one commit, and each `Change` is what a later commit did
to it. A `Reset` says that what was told so far does not lead on: the changes since then are no longer known, or the
snapshot was cut before it was complete. What follows it is a whole answer again.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TypeAlias

from headrace._values import Row


class ChangeType(enum.StrEnum):
    """What happened to the rows of a `Change`."""

    INSERT = "insert"
    """New rows, or rows that now match the query."""
    UPDATE = "update"
    """`rows` replace `old_rows`."""
    DELETE = "delete"
    """The rows are gone, or no longer match the query."""
    UPSERT = "upsert"
    """Inserted or updated while the client was away: after a reconnect the server does not always say which."""


@dataclass(frozen=True, slots=True)
class Change:
    """Consecutive changes of one type within one commit."""

    type: ChangeType
    rows: list[Row]
    """The new rows, whole: every column of the query and `_seq`. Empty for deletes."""
    old_rows: list[Row]
    """For updates, beside `rows`:

    the key, the old `_seq` and the old values of what changed. For deletes the old rows.
    """
    seq: int
    """Where in the log it stands; ascends strictly. `from_seq` of a later `live` goes on behind it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Some rows of the answer as it was when the live query began."""

    rows: list[Row]
    total_rows: int
    """How many rows all snapshots up to `Ready` have together."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The snapshot is complete (or none was asked for); changes follow."""

    seq: int | None
    """The commit that it was taken at; None where the server does not say."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Forget the rows told so far: a whole snapshot follows."""

    reason: str
    code: str = field(default="")
    """`RESUME_TOO_OLD`: the log does not reach back that far any more. Empty: the connection was cut too early."""


LiveEvent: TypeAlias = Change | Snapshot | Ready | Reset


def row_count(event: LiveEvent) -> int:
    """How many rows an event holds; what the bounds of buffers count, at least 1."""
    if isinstance(event, Change):
        return max(1, len(event.rows) + len(event.old_rows))
    return max(1, len(event.rows)) if isinstance(event, Snapshot) else 1
