"""uvicorn's HTTP protocol with the limits that it lacks: slow and large request heads, stalled bodies, connections.

=====================  ============================================================================================
what                   then
=====================  ============================================================================================
head larger than       431; counted while it arrives, so an endless header never fills the memory
`max_header_size`
head not complete      the connection is closed (slow loris); the time runs from the connection's start for the first
in time                request, from its first byte for later ones
body stalls            the connection is closed, unless it is we who pause reading
too many connections   503 TOO_MANY_CONNECTIONS to the first request, then close; loopback and trusted proxies are
from an address        exempt, as they speak for many
=====================  ============================================================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config as UvicornConfig
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from server.config import PerformanceSection
from server.middleware.client_address import ClientAddresses
from server.middleware.rate_limit import RateLimits


class HeadTooLarge(Exception):
    """The head of a request is larger than allowed; raised inside the parser, which then gives up."""


def make_protocol(
    config: PerformanceSection, limits: RateLimits, addresses: ClientAddresses
) -> type[HttpToolsProtocol]:
    """Return the protocol class for uvicorn, which makes one instance a connection."""

    class Protocol(LimitedProtocol):
        max_head = config.max_header_size
        head_timeout = config.client_request_timeout
        body_timeout = config.request_timeout

        def counts_connections(self, peer: str) -> bool:
            return not addresses.is_trusted(peer)

    Protocol.limits = limits
    return Protocol


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    limits: RateLimits
    max_head: int
    head_timeout: float
    body_timeout: float

    def __init__(
        self,
        config: UvicornConfig,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._in_head = False
        self._in_body = False
        self._head_size = 0
        self._counted = ""
        self._timer: asyncio.TimerHandle | None = None

    def counts_connections(self, peer: str) -> bool:
        """Whether connections from this peer are limited."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection and begin to wait for its first request."""
        super().connection_made(transport)  # type: ignore[arg-type]
        peer = self.client[0] if self.client else ""
        if self.counts_connections(peer):
            self._counted = peer
            if not self.limits.connect(peer):
                self.app = _refuse_connection(*self.limits.connections(peer))
        self._arm(self.head_timeout, self._head_overdue)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._disarm()
        self._discount()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to the WebSocket protocol, which has limits of its own."""
        self._disarm()
        self._discount()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then see what the connection waits for."""
        self._head_size += len(data)
        super().data_received(data)
        if self._in_head:
            if self._head_size > self.max_head:
                self._refuse_head()
            elif self._timer is None:
                self._arm(self.head_timeout, self._head_overdue)
        elif self._in_body:
            self._disarm()
            self._arm(self.body_timeout, self._body_overdue)
        elif self._timer is None and self.timeout_keep_alive_task is None and self._idle():
            self._arm(self.head_timeout, self._head_overdue)

    def on_message_begin(self) -> None:
        """Note that the head of a request begins."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Note that the head has ended; a head that came in one piece with its body is measured here."""
        self._in_head = False
        if self._head_size > self.max_head:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self.max_head:
                raise HeadTooLarge
        if self._timer is not None:
            self._disarm()
        self._in_body = True
        super().on_headers_complete()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None:
            cycle.__class__ = OneWriteCycle

    def on_message_complete(self) -> None:
        """Note that the whole request has arrived."""
        self._in_body = False
        self._head_size = 0
        if self._timer is not None:
            self._disarm()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or a head that is too large."""
        self._disarm()
        if self._head_size > self.max_head and not self._in_body:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: whoever asks for another protocol goes on with HTTP, and must not fill the log."""

    def _idle(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _refuse_head(self) -> None:
        self._in_head = False
        if self.transport.is_closing():
            return
        message = f"The request's line and headers are larger than {self.max_head} bytes"
        body = msgspec.json.encode({"error": "HEADERS_TOO_LARGE", "message": message})
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()

    def _arm(self, delay: float, callback: Callable[[], None]) -> None:
        self._timer = self.loop.call_later(delay, callback)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_overdue(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()

    def _body_overdue(self) -> None:
        self._timer = None
        if self.flow.read_paused:
            self._arm(self.body_timeout, self._body_overdue)
        elif not self.transport.is_closing():
            self.transport.close()

    def _discount(self) -> None:
        if self._counted:
            self.limits.disconnect(self._counted)
            self._counted = ""


class OneWriteCycle(RequestResponseCycle):
    """A request's cycle that can also write a whole answer at once.

    `send` writes head and body one after the other, a system call each, and checks every header: the dearest part of a
    short answer. `Exchange.respond` finds `answer` through the `send` that it was given.
    """

    def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
        """Write an answer whose headers are known to be sound; False if it must go the usual way."""
        if self.response_started or self.disconnected or not self.keep_alive or self.flow.write_paused:
            return False
        if self.scope["method"] == "HEAD" or status == 204:
            return False
        parts = [STATUS_LINE[status]]
        for name, value in self.default_headers:
            parts += (name, b": ", value, b"\r\n")
        for name, value in headers:
            if name == b"connection":
                return False
            parts += (name, b": ", value, b"\r\n")
        parts += (b"\r\n", body)
        self.response_started = True
        self.waiting_for_100_continue = False
        self.transport.write(b"".join(parts))
        self.response_complete = True
        self.message_event.set()
        self.on_response()
        return True


def _refuse_connection(current: int, maximum: int) -> ASGIApp:
    """Return the application that a connection beyond the limit gets."""
    body = msgspec.json.encode({
        "error": "TOO_MANY_CONNECTIONS",
        "message": "Too many connections from your IP address",
        "current": current,
        "max": maximum,
    })  # fmt: skip

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"retry-after", b"5"),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return refuse
