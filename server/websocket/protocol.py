"""uvicorn's protocol of a connection that was upgraded: from frames to ASGI messages and back.

`server/protocol.py` reads and checks the upgrade request and hands the transport over. From then on

* messages reach the application one at a time; while one waits, at most one more read of the socket is kept and
  reading pauses, so a flood costs bounded memory;
* a read with very many small frames is worked off in turns, so a flood holds up nobody else;
* the application sends through ASGI or, cheaper, through `scope["extensions"]["headrace.frames"]["connection"]`.

An upgrade that must be refused reaches the application too, so that it is counted and logged as every request: the
reason is in `scope["extensions"]["headrace.frames"]["refused"]`, and the gate answers with it.
"""

from __future__ import annotations

import asyncio
import logging
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

import msgspec
from starlette.types import Message, Scope
from uvicorn.config import Config as UvicornConfig
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.protocols.utils import ClientDisconnected, get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from server.config import Config
from server.errors import HttpError
from server.websocket.connection import EXTENSION, TOO_LARGE, Connection, FrameConnection, Outbox
from server.websocket.frames import binary_frame, text_frame
from server.websocket.handshake import Handshake, RawHeaders, accept_head, denial_head
from server.websocket.reader import Binary, Closing, Event, MessageReader, Ping, Text, TooLarge, Violation
from server.websocket.turn import LoopTurn

CEILING = 16
"""How many times the limit a message may be large before the connection is given up, not only the message."""

GOING_AWAY = 1001
ABNORMAL = 1006
INTERNAL_ERROR = 1011

_TURN = 256
"""Frames that are read from one connection before others get their turn."""

_IN_A_ROW = 64
"""Messages that an application receives without a pause before others get their turn."""

_log = logging.getLogger("headrace.websocket")


class State(IntEnum):
    """How far a connection is."""

    CONNECTING = 0
    """The application has not accepted yet."""
    DENYING = 1
    """The application sends an answer that refuses."""
    OPEN = 2
    CLOSING = 3
    """This side sent its close frame and waits for the client's."""
    ENDED = 4
    """Nothing is read any more."""


@dataclass(slots=True, frozen=True)
class Upgrade:
    """An upgrade request, and what came with it."""

    handshake: Handshake | HttpError
    """An error if the request has to be refused."""
    path: bytes
    query: bytes
    http_version: str
    headers: RawHeaders
    rest: bytes
    """What the client sent behind the request, without waiting for the answer."""


def make_websocket_protocol(config: Config) -> type[WebSocketProtocol]:
    """Return the protocol class for uvicorn."""

    class Protocol(WebSocketProtocol):
        __slots__ = ()
        high = config.websocket.send_buffer_bytes
        limit = config.security.max_ws_message_size
        outbox = Outbox()
        turn = LoopTurn()

    return Protocol


class WebSocketProtocol(asyncio.Protocol):
    """One upgraded connection."""

    high: ClassVar[int]
    limit: ClassVar[int]
    outbox: ClassVar[Outbox]
    turn: ClassVar[LoopTurn]

    __slots__ = (
        "_app",
        "_app_state",
        "_connection",
        "_denial",
        "_handshake",
        "_inbox",
        "_leaving",
        "_loop",
        "_paused",
        "_reader",
        "_release",
        "_row",
        "_server_state",
        "_state",
        "_told",
        "_transport",
        "_waiter",
    )

    def __init__(
        self,
        config: UvicornConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._app = config.loaded_app
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._state = State.CONNECTING
        self._told = False  # whether the application got websocket.connect
        self._inbox: Message | None = None
        self._leaving: Message | None = None  # websocket.disconnect, once there is a reason for it
        self._waiter: asyncio.Future[None] | None = None
        self._row = 0
        self._paused = False
        self._denial: tuple[int, RawHeaders, bytearray] | None = None

    def upgrade(self, transport: asyncio.Transport, upgrade: Upgrade, release: Callable[[], None]) -> None:
        """Take the connection over; `release` is called once, when it is lost."""
        self._transport = transport
        self._release = release
        self._handshake = upgrade.handshake
        self._connection = Connection(transport, self._loop, self.high, self.outbox, self._closing)
        self._reader = MessageReader(self.limit, CEILING * self.limit)
        self._server_state.connections.add(self)  # type: ignore[arg-type]
        transport.set_protocol(self)
        if upgrade.rest:
            self.data_received(upgrade.rest)
        task = self._loop.create_task(self._run(self._scope(upgrade)))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    def _scope(self, upgrade: Upgrade) -> Scope:
        handshake = upgrade.handshake
        refused = isinstance(handshake, HttpError)
        path = upgrade.path.decode("ascii")
        connection: FrameConnection = self._connection
        return {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": upgrade.http_version,
            "method": "GET",  # not in ASGI; logs and errors name it
            "scheme": "ws",
            "server": get_local_addr(self._transport),
            "client": get_remote_addr(self._transport),
            "root_path": "",
            "path": urllib.parse.unquote(path) if "%" in path else path,
            "raw_path": upgrade.path,
            "query_string": upgrade.query,
            "headers": upgrade.headers,
            "subprotocols": [] if isinstance(handshake, HttpError) else list(handshake.subprotocols),
            "state": self._app_state.copy(),
            "extensions": {
                "websocket.http.response": {},
                EXTENSION: {"connection": connection, "refused": handshake if refused else None},
            },
        }

    # The transport

    def data_received(self, data: bytes) -> None:
        """Read frames, unless a message waits: then this is the last that is taken until it is fetched."""
        if self._state is State.ENDED:
            return
        self._reader.feed(data)
        if self._inbox is not None or self._state < State.OPEN:
            self._pause()
        else:
            self._pump()

    def eof_received(self) -> None:
        """Let the transport close: nobody reads from a client that ended its side."""

    def pause_writing(self) -> None:
        """Pass on that the transport's buffer is full."""
        self._connection.pause()

    def resume_writing(self) -> None:
        """Pass on that it has drained."""
        self._connection.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything and tell the application."""
        self._server_state.connections.discard(self)
        release, self._release = self._release, _nothing
        release()
        self._connection.lost()
        self._end(ABNORMAL, "")

    def shutdown(self) -> None:
        """Close because the server stops (called by uvicorn)."""
        if self._state < State.OPEN:
            body = msgspec.json.encode({"error": "SERVER_SHUTTING_DOWN", "message": "The server is shutting down"})
            headers = [(b"content-type", b"application/json"), (b"retry-after", b"5")]
            self._deny(503, headers, body)
        elif self._state is State.OPEN:
            self._connection.close(GOING_AWAY, "Server shutting down")

    # Frames

    def _pump(self) -> None:
        """Read frames until there is a message for the application, nothing more, or others must have their turn."""
        if self._inbox is not None or not State.OPEN <= self._state < State.ENDED:
            return
        turn = _TURN
        try:
            while (event := self._reader.next()) is not None:
                if not self._take(event):
                    break
                turn -= 1
                if not turn:
                    self._pause()
                    self._loop.call_soon(self._pump)
                    break
            else:
                self._resume()
        except Violation as violation:
            self._connection.fail(violation.code, violation.reason)
            self._end(violation.code, violation.reason)
            return
        if turn < _TURN or event is not None:
            self._connection.heard()

    def _take(self, event: Event) -> bool:
        """Act on what a frame brought; False if nothing more is to be read for now."""
        if isinstance(event, Closing):
            self._connection.answer_close(event.payload)
            self._end(event.code, event.reason)
            return False
        if self._state is State.CLOSING:
            return True
        if isinstance(event, Text):
            self._deliver({"type": "websocket.receive", "text": event.text})
        elif isinstance(event, Binary):
            self._deliver({"type": "websocket.receive", "bytes": event.data})
        elif isinstance(event, TooLarge):
            self._deliver({"type": "websocket.receive", "text": None, "bytes": None, TOO_LARGE: event.size})
        else:
            if isinstance(event, Ping):
                self._connection.answer_ping(event.payload)
            return True
        return False

    def _deliver(self, message: Message) -> None:
        self._inbox = message
        self._connection.reading = False
        self._wake()

    def _closing(self, code: int, reason: str) -> None:
        """This side began to close: from now on only the client's close frame is of interest."""
        self._state = State.CLOSING
        self._inbox = None
        self._leave(code, reason)
        self._resume()
        self._loop.call_soon(self._pump)

    def _end(self, code: int, reason: str) -> None:
        """Nothing is read any more; what still arrives until the client closes its side is thrown away."""
        self._state = State.ENDED
        self._reader.discard()
        self._leave(code, reason)
        self._resume()

    def _leave(self, code: int, reason: str) -> None:
        if self._leaving is None:
            self._leaving = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        self._connection.reading = True
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    # The application

    async def _run(self, scope: Scope) -> None:
        code = INTERNAL_ERROR
        try:
            await self._app(scope, self._receive, self._send)
            code = 1000
        except ClientDisconnected:
            code = 1000
        except Exception:  # noqa: BLE001  the last one to see it
            _log.exception("unexpected error in a WebSocket application")
        finally:
            if self._state < State.OPEN:
                self._deny(500, [(b"content-type", b"text/plain")], b"Internal Server Error")
            else:
                self._connection.close(code)

    async def _receive(self) -> Message:
        if not self._told:
            self._told = True
            return {"type": "websocket.connect"}
        self._row += 1
        if self._row >= _IN_A_ROW or (self._row > 1 and self.turn.is_over()):
            self._row = 0
            await asyncio.sleep(0)
        while True:
            if self._inbox is None:
                self._pump()
            message = self._inbox
            if message is not None:
                self._inbox = None
                self._connection.reading = True
                self._loop.call_soon(self._pump)  # later: what the application does with it at once comes first
                return message
            if self._leaving is not None:
                return self._leaving
            self._row = 0
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self._state is State.OPEN:
            await self._send_open(kind, message)
        elif self._state > State.OPEN:
            raise ClientDisconnected
        elif kind == "websocket.accept" and self._state is State.CONNECTING:
            self._accept(message)
        elif kind == "websocket.close" and self._state is State.CONNECTING:
            self._deny(403, [], b"")
        elif kind == "websocket.http.response.start" and self._state is State.CONNECTING:
            self._state = State.DENYING
            self._denial = (message["status"], list(message.get("headers", ())), bytearray())
        elif kind == "websocket.http.response.body" and self._denial is not None:
            status, headers, body = self._denial
            body += message.get("body", b"")
            if not message.get("more_body", False):
                self._deny(status, headers, bytes(body))
        else:
            raise RuntimeError(f"ASGI message {kind!r} is out of place: the WebSocket is {self._state.name}")

    async def _send_open(self, kind: str, message: Message) -> None:
        if kind == "websocket.send":
            data = message.get("bytes")
            self._connection.write(text_frame(message["text"].encode()) if data is None else binary_frame(data))
            await self._connection.drained()
        elif kind == "websocket.close":
            self._connection.close(message.get("code", 1000), message.get("reason") or "")
        else:
            raise RuntimeError(f"ASGI message {kind!r} is out of place: the WebSocket is open")

    def _accept(self, message: Message) -> None:
        if isinstance(self._handshake, HttpError):
            raise RuntimeError("An upgrade that must be refused cannot be accepted")
        headers = [*self._server_state.default_headers, *message.get("headers", ())]
        self._transport.write(accept_head(self._handshake, message.get("subprotocol"), headers))
        self._state = State.OPEN
        self._connection.accepted()
        self._pump()

    def _deny(self, status: int, headers: RawHeaders, body: bytes) -> None:
        default = self._server_state.default_headers
        self._transport.write(denial_head(STATUS_LINE[status], [*default, *headers], len(body)) + body)
        self._connection.finish()
        self._end(ABNORMAL, "")


def _nothing() -> None:
    """Stand in for a release that was called."""
