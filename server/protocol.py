"""uvicorn's HTTP protocol with the limits that it lacks: slow and large request heads, stalled bodies, connections.

They hold for upgrades to WebSocket as well, whose transport goes to `server/websocket/protocol.py` once the request is
complete; the connection stays counted until it is lost.

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
from functools import partial

import httptools
import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config as UvicornConfig
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from server.config import PerformanceSection
from server.errors import HttpError
from server.exchange import CONNECTION
from server.middleware.client_address import ClientAddresses
from server.middleware.rate_limit import RateLimits
from server.websocket.handshake import Handshake, check_upgrade
from server.websocket.protocol import Upgrade, WebSocketProtocol


class HeadTooLarge(Exception):
    """The head of a request is larger than allowed; raised inside the parser, which then gives up."""


class BadUpgrade(Exception):
    """A request to upgrade that has a body or no path; raised inside the parser, which then gives up."""


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
        self._open = False
        self._number = 0
        self._refusal: HttpError | None = None
        self._declined = False
        self._ended = False  # no more requests are read: the connection is no longer ours or closes after an answer
        self._stopping = False
        self._timer: asyncio.TimerHandle | None = None

    def counts_connections(self, peer: str) -> bool:
        """Whether connections from this peer are limited."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection and begin to wait for its first request."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._open = True
        self._number = self.limits.opened()
        peer = self.client[0] if self.client else ""
        if self.counts_connections(peer):
            self._counted = peer
            if not self.limits.connect(peer):
                self._refusal = _too_many_connections(*self.limits.connections(peer))
                self.app = _refuse_connection(self._refusal)
        self._arm(self.head_timeout, self._head_overdue)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._disarm()
        self._discount()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Note that the server stops (called by uvicorn)."""
        self._stopping = True
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then see what the connection waits for."""
        if self._ended:
            return
        self._head_size += len(data)
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                if self._declined:
                    data = self._decline() + data
                elif self._should_upgrade():
                    self._hand_over(data)
                    return
                else:  # CONNECT: what follows is no HTTP
                    self._ended = True
                    self.cycle.keep_alive = False
                    return
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return
        self._watch()

    def _watch(self) -> None:
        """Arm the timer of what the connection waits for."""
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

    def _should_upgrade(self) -> bool:
        """Whether the request asks for a WebSocket; other upgrades, and other methods, are answered as without."""
        if self.scope["method"] != "GET" or self.ws_protocol_class is None:
            return False
        return any(name == b"upgrade" and b"websocket" in value.lower() for name, value in self.headers)

    def _decline(self) -> bytes:
        """Begin a request anew whose upgrade is declined, such as h2c; returns its head, for a parser of its own.

        The parser takes every upgrade for the end of HTTP: it would read the request's body as the next request.
        """
        self._declined = False
        head = [b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        head += [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return b"".join([*head, b"\r\n"])

    def _hand_over(self, rest: bytes) -> None:
        """Give the transport to the WebSocket protocol, with what followed the request."""
        self._ended = True
        self._disarm()
        if not self._idle():  # the WebSocket's frames would get between the answers that are still to come
            self.cycle.keep_alive = False
            return
        url = httptools.parse_url(self.url)
        version: str = self.scope["http_version"]
        upgrade = Upgrade(
            handshake=self._check_upgrade(version),
            path=url.path,
            query=url.query or b"",
            http_version=version,
            headers=list(self.headers),
            rest=rest,
        )
        self.connections.discard(self)
        release = partial(_release, self.limits, self._number, self._counted)
        self._counted, self._open = "", False
        protocol = self.ws_protocol_class(self.config, self.server_state, self.app_state)  # type: ignore[call-arg,misc]
        assert isinstance(protocol, WebSocketProtocol)
        protocol.upgrade(self.transport, upgrade, release)
        self.parser = None  # type: ignore[assignment]  # they hold each other

    def _check_upgrade(self, http_version: str) -> Handshake | HttpError:
        if self._refusal is not None:
            return self._refusal
        if self._stopping:
            message = "The server is shutting down"
            return HttpError(503, "SERVER_SHUTTING_DOWN", message, headers={"Retry-After": "5"})
        limit = self.limit_concurrency
        if limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit):
            message = "The server has as many connections as it may have"
            return HttpError(503, "SERVER_OVERLOADED", message, headers={"Retry-After": "5"})
        try:
            return check_upgrade("GET", http_version, self.url.decode("latin-1"), self.headers)
        except HttpError as error:
            return error

    def on_message_begin(self) -> None:
        """Note that the head of a request begins, and on which connection."""
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: {"number": self._number}}
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
        if self.parser.should_upgrade():
            method = self.scope["method"] = self.parser.get_method().decode("ascii")
            if self._should_upgrade():
                self._check_upgrade_head()
            elif method != "CONNECT":
                self._declined = True
                return
        super().on_headers_complete()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None:
            cycle.__class__ = OneWriteCycle

    def _check_upgrade_head(self) -> None:
        """Refuse an upgrade that announces a body, or whose target has no path, while the parser can still do so."""
        path = httptools.parse_url(self.url).path
        if not path or not path.isascii():
            raise BadUpgrade
        for name, value in self.headers:
            if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 ")):
                raise BadUpgrade

    def on_message_complete(self) -> None:
        """Note that the whole request has arrived."""
        if self._declined:
            return
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
        if self._open:
            self.limits.closed(self._number)
            self._open = False
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


def _too_many_connections(current: int, maximum: int) -> HttpError:
    return HttpError(
        503,
        "TOO_MANY_CONNECTIONS",
        "Too many connections from your IP address",
        fields={"current": current, "max": maximum},
        headers={"Retry-After": "5"},
    )


def _release(limits: RateLimits, number: int, counted: str) -> None:
    """Discount an upgraded connection."""
    limits.closed(number)
    if counted:
        limits.disconnect(counted)


def _refuse_connection(refusal: HttpError) -> ASGIApp:
    """Return the application that a connection beyond the limit gets."""
    body = msgspec.json.encode({"error": refusal.code, "message": refusal.message, **refusal.fields})

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
