"""How a client keeps its connection for live queries, and where that connection stands."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from headrace._live_messages import Compression, Serialization


class ConnectionState(enum.StrEnum):
    """Where the connection for live queries stands."""

    IDLE = "idle"
    """Not wanted yet: there was no live query."""
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    """It was cut, and is being opened again, or the next attempt is waited for."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSettings:
    """How a client keeps its connection for live queries."""

    serialization: Serialization = Serialization.JSON
    compression: Compression = Compression.NONE
    sign_in: str = "header"
    """`header`: the token goes with the upgrade; `message`: in the first message, for proxies that drop the header."""
    ping_seconds: float = 4.0
    """How often to ask whether the server is there; it drops clients that are silent for 10 seconds."""
    open_seconds: float = 10.0
    """Longest wait for a connection and for being signed in on it."""
    first_delay: float = 0.25
    """Seconds before the first new attempt, at most; each further one waits twice as long."""
    max_delay: float = 30.0
    """Longest wait between attempts."""
    max_message_bytes: int = 64 << 20
    """Largest message of the server that is taken."""
