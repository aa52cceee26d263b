"""Whether a client still lives, and takes what it is sent.

While something waits to be sent, the client's pongs may be stuck behind what it has not read yet, and our pings are
stuck behind that in any case. So silence counts only while nothing waits; otherwise progress does. And a server that
comes late to its heartbeat was busy: it may not have read yet what the client said, so it finds nobody silent then.
"""

from __future__ import annotations

import enum

from server.websocket.connection import FrameConnection


class Sign(enum.Enum):
    """What a heartbeat finds."""

    FINE = "fine"
    QUIET = "quiet"
    """Silent for a while: ping it."""
    SILENT = "silent"
    """Silent for too long."""
    STUCK = "stuck"
    """Has taken nothing of what waits for it for too long."""


class Heartbeat:
    """The heartbeat of one connection; times are `loop.time()`, in seconds."""

    __slots__ = ("_connection", "_longest_silence", "_longest_stall", "_looked", "_quiet_after", "_quiet_since")

    def __init__(
        self,
        connection: FrameConnection,
        now: float,
        *,
        beat_seconds: float,
        longest_silence: float,
        longest_stall: float,
    ) -> None:
        self._connection = connection
        self._quiet_since = self._looked = now
        self._quiet_after = beat_seconds / 2
        self._longest_silence = longest_silence
        self._longest_stall = longest_stall

    def look(self, now: float) -> Sign:
        """Look at the connection; to be called every `beat_seconds`."""
        connection = self._connection
        late = now - self._looked > 3 * self._quiet_after
        self._looked = now
        if connection.buffered:
            self._quiet_since = now
            return Sign.STUCK if now - connection.last_drained > self._longest_stall else Sign.FINE
        if late:
            self._quiet_since = now - self._quiet_after
        silence = now - max(connection.last_heard, self._quiet_since)
        if silence > self._longest_silence:
            return Sign.SILENT
        return Sign.QUIET if silence >= self._quiet_after else Sign.FINE
