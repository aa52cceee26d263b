"""One HTTP request and its answer, as every layer of the server sees it.

The gate (`server/middleware/gate.py`) makes one `Exchange` a request, puts it into `scope["exchange"]` and into the
context variable `current_exchange`, and passes `exchange.send` on. Routes read the client's address, the request id and
the headers from it; the log reads the request id from the context variable.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar

from starlette.types import Message, Receive, Scope, Send

Answer = Callable[[int, list[tuple[bytes, bytes]], bytes], bool]
"""Writes a whole answer at once, if it can (`server.protocol.OneWriteCycle.answer`)."""

CONNECTION = "headrace.connection"
"""The extension of the scope that has the `number` of the connection (`RateLimits.opened`)."""

current_exchange: ContextVar[Exchange | None] = ContextVar("current_exchange", default=None)


def current_request_id() -> str:
    """The id of the request that is being answered; empty outside of one."""
    exchange = current_exchange.get()
    return "" if exchange is None else exchange.request_id


class Exchange:
    """A request under way: who asks, under which id, since when, and what was answered so far.

    `client` is the address that limits count (behind a trusted proxy the forwarded one), `loopback` whether the request
    really comes from this machine (the peer is a loopback address and no proxy stands in between).
    `user` is set by whoever authenticated the request.
    """

    __slots__ = (
        "_answer",
        "_receive",
        "_send",
        "client",
        "extra_headers",
        "headers",
        "loopback",
        "request_id",
        "scope",
        "started",
        "status",
        "user",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._answer: Answer | None = getattr(getattr(send, "__self__", None), "answer", None)
        self.headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))  # of a repeated header, the first counts
        self.started = time.perf_counter()
        self.request_id = ""
        self.client = ""
        self.loopback = False
        self.status = 0
        self.user: str | None = None
        self.extra_headers: list[tuple[bytes, bytes]] = []

    @property
    def took_ms(self) -> float:
        """Milliseconds since the request's headers were read, with 3 decimals."""
        return round((time.perf_counter() - self.started) * 1000.0, 3)

    async def receive(self) -> Message:
        """Take the next message of the request from the server."""
        return await self._receive()

    async def send(self, message: Message) -> None:
        """Pass a message of the answer on; the first one gets the headers that every answer carries."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self.extra_headers]
        await self._send(message)

    async def respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Send a whole answer; `headers` must hold its content type, the length is added here (204 has none)."""
        self.status = status
        length = [] if status == 204 else [(b"content-length", b"%d" % len(body))]
        everything = [*headers, *length, *self.extra_headers]
        if self._answer is not None and self._answer(status, everything, body):
            return
        await self._send({"type": "http.response.start", "status": status, "headers": everything})
        await self._send({"type": "http.response.body", "body": b"" if self.scope["method"] == "HEAD" else body})


def client_of_current() -> str:
    """The address of the client whose request is being answered; empty outside of one."""
    exchange = current_exchange.get()
    return "" if exchange is None else exchange.client


def exchange_of(scope: Scope) -> Exchange:
    """Return the exchange that the gate put into the scope."""
    exchange: Exchange = scope["exchange"]
    return exchange
