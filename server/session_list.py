"""Who is connected, for system.sessions.

A session is what the server keeps of a client between two messages, or while it answers: a WebSocket, an event stream,
and a request to the SQL, ingest or topic routes from the reading of its body to its answer. Requests that were answered
leave nothing behind, so an idle keep-alive connection is no session.
"""

from __future__ import annotations

from collections.abc import Iterable

from server.exchange import Exchange
from server.live.service import Member
from sql.system_rows import SessionRow
from storage.seams import Clock

_ACTIVE = "active"
_IDLE = "idle"
_SIGNING_IN = "authenticating"


def session_rows(requests: Iterable[Exchange], members: Iterable[Member], clock: Clock, now: float) -> list[SessionRow]:
    """The sessions; `now` is the `loop.time()` by which members were last heard of. Any thread."""
    now_us = clock.now_us()
    return [
        *(_of_request(exchange, now_us) for exchange in requests),
        *(_of_member(member, now_us, now) for member in members),
    ]


def _of_request(exchange: Exchange, now_us: int) -> SessionRow:
    opened = _opened(exchange, now_us)
    return SessionRow(
        session_id=exchange.request_id,
        user_id=exchange.user,
        state=_ACTIVE,
        client_addr=exchange.client,
        transport="http",
        opened_at=opened,
        last_seen_at=opened,
        last_method=_method(exchange),
    )


def _of_member(member: Member, now_us: int, now: float) -> SessionRow:
    exchange, token = member.exchange, member.token
    return SessionRow(
        session_id=member.connection_id,
        user_id=None if token is None else token.identity.user,
        state=_SIGNING_IN if token is None else _IDLE,
        client_addr=exchange.client,
        transport="websocket" if exchange.scope["type"] == "websocket" else "event_stream",
        opened_at=_opened(exchange, now_us),
        last_seen_at=now_us - max(int((now - member.last_heard) * 1_000_000), 0),
        last_method=_method(exchange),
    )


def _opened(exchange: Exchange, now_us: int) -> int:
    return now_us - int(exchange.took_ms * 1000)


def _method(exchange: Exchange) -> str:
    """The method and path of the request; a session that lasts began as one."""
    return f"{exchange.scope.get('method', 'GET')} {exchange.scope['path']}"
