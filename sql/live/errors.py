"""Errors that only live queries have.

SqlError
├── ResumeTooOld       RESUME_TOO_OLD: the log no longer holds what came after the cursor
├── InvalidCursor      INVALID_CURSOR: the cursor is beyond the newest commit
├── SlowConsumer       SLOW_CONSUMER: the client did not take its rows or changes in time
├── LiveQueryKilled    LIVE_QUERY_KILLED: KILL LIVE QUERY
├── LiveQueryFailed    SUBSCRIPTION_FAILED: the query could not be evaluated for a reason that is not its client's
├── SubscriptionEnded  SUBSCRIPTION_ENDED: a batch was asked of a subscription that is no more
└── StaleBinding       INVALID_SQL: the table has changed since the query was bound; the hub binds it anew

`MustBlock` is no error of a client's: the hub asks again on a worker thread.
"""

from __future__ import annotations

from sql.errors import SqlError


class ResumeTooOld(SqlError):
    """The log no longer holds what came after the cursor: only a whole snapshot helps."""

    code = "RESUME_TOO_OLD"


class InvalidCursor(SqlError):
    """The cursor names a place beyond the newest commit."""

    code = "INVALID_CURSOR"


class SlowConsumer(SqlError):
    """The client did not take its rows or changes in time; what it missed is no longer kept."""

    code = "SLOW_CONSUMER"


class LiveQueryKilled(SqlError):
    """Somebody with the right to do so ended the subscription."""

    code = "LIVE_QUERY_KILLED"


class LiveQueryFailed(SqlError):
    """The live query met an error of the server's own."""

    code = "SUBSCRIPTION_FAILED"
    status = 500


class SubscriptionEnded(SqlError):
    """The subscription has ended, or has handed out its last batch."""

    code = "SUBSCRIPTION_ENDED"


class StaleBinding(SqlError):
    """The rows no longer have the columns that the query was bound to; it has to be bound anew first."""

    code = "INVALID_SQL"


class MustBlock(Exception):
    """A delta needs the query engine: not on the event loop."""
