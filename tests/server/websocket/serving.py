"""A server with a WebSocket at /ws, in the event loop of the test, and a client that sends bytes by hand."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Close, Frame, Opcode

from server.app import create_app
from server.listener import HttpServer, bind, make_server
from server.protocol import make_protocol
from server.websocket.connection import EXTENSION, FrameConnection
from tests.server.fakes import Setting, make

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
)
PATIENCE = 20.0


class Strangers:
    """Addresses of which none is trusted, so that loopback counts as any other."""

    def is_trusted(self, peer: str) -> bool:
        return False


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, condition
        await asyncio.sleep(0.005)


class Session:
    """An application: accepts, keeps what it receives, echoes; `hold` keeps it from receiving."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.connections: list[FrameConnection] = []
        self.running = 0
        self.free = asyncio.Event()
        self.free.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.running += 1
        try:
            assert (await receive())["type"] == "websocket.connect"
            await send({"type": "websocket.accept"})
            self.connections.append(scope["extensions"][EXTENSION]["connection"])
            while True:
                await self.free.wait()
                message = await receive()
                self.messages.append(dict(message))
                if message["type"] == "websocket.disconnect":
                    return
                if "headrace.too_large" not in message:
                    await send({**message, "type": "websocket.send"})
        finally:
            self.running -= 1


@dataclass(slots=True)
class Site:
    """A server that runs."""

    port: int
    server: HttpServer
    setting: Setting
    opened: list[Raw] = field(default_factory=list)

    def connect(self, path: str = "/ws", **options: Any) -> connect:
        """A client of `websockets`; enter it or await it."""
        return connect(f"ws://127.0.0.1:{self.port}{path}", compression=None, **options)

    async def raw(self, *, receive_buffer: int = 0) -> Raw:
        """A connection on which nothing was sent."""
        made = socket.socket()
        if receive_buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=made)
        self.opened.append(Raw(reader, writer))
        return self.opened[-1]

    async def upgraded(self, **options: int) -> Raw:
        """A connection that was upgraded by hand."""
        raw = await self.raw(**options)
        raw.send(f"{UPGRADE}\r\n".encode())
        head = await raw.head()
        assert head.startswith("HTTP/1.1 101 Switching Protocols\r\n"), head
        return raw


@dataclass(slots=True)
class Raw:
    """A client that sends and reads bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def frame(self, opcode: int, payload: bytes, *, fin: bool = True, mask: bool = True) -> None:
        self.send(Frame(Opcode(opcode), payload, fin).serialize(mask=mask))

    async def head(self) -> str:
        return (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)).decode("latin-1")

    async def answer(self) -> tuple[str, bytes]:
        """Head and body of an answer that refuses, after which the server closes."""
        head = await self.head()
        return head, await self.rest()

    async def rest(self) -> bytes:
        """All until the server ends its side."""
        return await asyncio.wait_for(self.reader.read(), PATIENCE)

    async def read(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame."""
        first, second = await asyncio.wait_for(self.reader.readexactly(2), PATIENCE)
        assert first & 0x80
        size = second
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
        return first & 0x0F, await asyncio.wait_for(self.reader.readexactly(size), PATIENCE)

    async def closing(self) -> tuple[int, str]:
        """Code and reason of the close frame that comes next; after it the server ends its side."""
        opcode, payload = await self.read()
        assert opcode == Opcode.CLOSE, (opcode, payload)
        close = Close.parse(payload)
        assert await self.rest() == b""
        return int(close.code), close.reason

    def reset(self) -> None:
        """Close so that the server gets a reset."""
        found = self.writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


@asynccontextmanager
async def serving(
    folder: Path,
    app: ASGIApp,
    changes: Mapping[str, Mapping[str, object]] | None = None,
    *,
    strangers: bool = False,
) -> AsyncIterator[Site]:
    """Serve `app` at /ws; at the end the server must stop, and no connection be left."""
    setting = make(folder, changes)
    whole = create_app(setting.state, active=setting.active, websocket_routes={"/ws": app})
    started = asyncio.Event()
    server = make_server(whole, setting.state.config, setting.state.limits, started.set)
    if strangers:
        server.config.http = make_protocol(setting.state.config.performance, setting.state.limits, Strangers())  # type: ignore[arg-type]
    with bind("127.0.0.1", 0) as listener:
        port: int = listener.getsockname()[1]
        task = asyncio.create_task(server.serve([listener]))
        await asyncio.wait_for(started.wait(), PATIENCE)
        try:
            site = Site(port, server, setting)
            yield site
        finally:
            for raw in site.opened:
                raw.writer.transport.abort()
            server.should_exit = True
            await asyncio.wait_for(task, PATIENCE)
    assert not server.server_state.connections
    assert not server.server_state.tasks


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a test on the event loop that the server uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario)


__all__ = ["KEY", "PATIENCE", "UPGRADE", "ClientConnection", "Raw", "Session", "Site", "run", "serving", "until"]
