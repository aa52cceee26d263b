"""What the server tells the system tables of itself: sessions, lines of the log, the process; and how it is asked.

The server's room fills these in; the SQL room only shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who is connected: a request under way, a WebSocket or an event stream. Times are µs since the epoch."""

    session_id: str
    user_id: str | None
    state: str
    client_addr: str
    transport: str
    opened_at: int
    last_seen_at: int
    last_method: str


class LogLine(msgspec.Struct, frozen=True):
    """One line of the log; `timestamp` is µs since the epoch, `line` the number in the source file."""

    timestamp: int
    level: str
    thread: str
    target: str
    line: int
    message: str
    request_id: str | None


class NodeFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The process and the machine that it runs on."""

    api_addr: str
    hostname: str
    version: str
    machine_memory_mb: int
    memory_usage_mb: int
    cpu_usage_percent: float
    uptime_seconds: int
    uptime_human: str
    os: str
    arch: str
    first_retained_seq: int


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """How the server is asked. All but `request_id` are called from any thread.

    `request_id` is called on the event loop: the id of the request that is being answered.
    """

    sessions: Callable[[], Sequence[SessionRow]] = tuple
    logs: Callable[[], Sequence[LogLine]] = tuple
    node: Callable[[], NodeFigures | None] = lambda: None
    request_id: Callable[[], str] = str


NODE_ID = 1
"""The number of the only node."""
CLUSTER_ID = "headrace"
"""What the cluster of the only node is called."""
