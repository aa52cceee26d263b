"""A client of `/v1/ws` for tests, over `websockets`: it sends what it is told to and hands out what comes."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import websockets
from websockets.asyncio.client import ClientConnection

from tests.e2e.running import RunningServer

PATIENCE = 20.0
CLOSING = 1.0
"""Seconds that a client waits for the server's close frame: one whose queue is full of messages never reads it."""

SETTINGS = {
    "HEADRACE_WEBSOCKET_AUTH_TIMEOUT_SECS": "1", "HEADRACE_RATE_LIMIT_MAX_SUBSCRIPTIONS_PER_USER": "5",
    "HEADRACE_SECURITY_MAX_WS_MESSAGE_SIZE": "4096",
}  # fmt: skip
TABLES = """
CREATE NAMESPACE app;
CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY, body TEXT, done BOOLEAN);
CREATE TABLE app.news (id BIGINT PRIMARY KEY, body TEXT) WITH (TYPE = 'SHARED', ACCESS_LEVEL = 'PUBLIC');
CREATE TABLE app.staff (id BIGINT PRIMARY KEY) WITH (TYPE = 'SHARED', ACCESS_LEVEL = 'DBA');
CREATE USER ann WITH PASSWORD 'AnnPass123!' ROLE user;
CREATE USER bob WITH PASSWORD 'BobPass123!' ROLE user;
"""
EMPTY = "DELETE FROM app.notes WHERE true; DELETE FROM app.news WHERE true; DELETE FROM app.staff WHERE true"


@contextmanager
def live_server(folder: Path) -> Iterator[RunningServer]:
    """A server with the tables and users of these tests; at its end it must stop in good order."""
    running = RunningServer(folder / "data", changes=SETTINGS)
    try:
        running.start().set_up().sql(TABLES)
        yield running
        assert running.stop() == 0, running.log()
        assert "Traceback" not in running.log()
    finally:
        running.kill()


class Socket:
    """One connection."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.raw: list[str | bytes] = []

    async def send(self, message: object) -> None:
        """Send a message as JSON, a text or bytes as they are."""
        data = message if isinstance(message, (str, bytes)) else json.dumps(message)
        await self.connection.send(data)

    async def take(self) -> dict[str, Any]:
        """The next message, whatever its format."""
        async with asyncio.timeout(PATIENCE):
            data = await self.connection.recv()
        self.raw.append(data)
        if isinstance(data, str):
            return dict(json.loads(data))
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return dict(msgspec.json.decode(data) if data[:1] == b"{" else msgspec.msgpack.decode(data))

    async def say(self, message: object) -> dict[str, Any]:
        """Send a message, and take the next one that comes."""
        await self.send(message)
        return await self.take()

    async def settled(self) -> list[dict[str, Any]]:
        """Everything that comes before the answer to a ping: what was sent so far."""
        await self.send({"type": "ping", "id": "settled"})
        found = []
        while (message := await self.take())["type"] != "pong":
            found.append(message)
        return found

    async def authenticate(self, token: str, **protocol: str) -> dict[str, Any]:
        """Sign in in band."""
        more = {"protocol": protocol} if protocol else {}
        return await self.say({"type": "authenticate", "method": "jwt", "token": token} | more)

    async def subscribe(self, sql: str, name: str = "s1", **fields: Any) -> dict[str, Any]:
        """Subscribe; the next message."""
        return await self.say({"type": "subscribe", "subscription": {"id": name, "sql": sql, **fields}})

    async def closed(self) -> tuple[int | None, str | None]:
        """Wait for the server to close; code and reason."""
        async with asyncio.timeout(PATIENCE):
            await self.connection.wait_closed()
        return self.connection.close_code, self.connection.close_reason


@asynccontextmanager
async def connected(server: RunningServer, query: str = "", **options: Any) -> AsyncIterator[Socket]:
    """A connection that has not signed in."""
    url = f"{server.url.replace('http', 'ws', 1)}/v1/ws{query}"
    async with websockets.connect(
        url, **{"open_timeout": PATIENCE, "close_timeout": CLOSING, "compression": None, "max_size": None} | options
    ) as connection:
        yield Socket(connection)


@asynccontextmanager
async def signed_in(server: RunningServer, token: str = "", **protocol: str) -> AsyncIterator[Socket]:
    """A connection that has signed in, as the dba unless told otherwise."""
    async with connected(server) as socket:
        assert (await socket.authenticate(token or server.token, **protocol))["type"] == "auth_success"
        yield socket


def play(scene: Callable[[], Awaitable[None]]) -> None:
    """Run a scene on an event loop of its own."""

    async def body() -> None:
        await scene()

    asyncio.run(body())


async def sql(server: RunningServer, text: str, params: list[Any] | None = None) -> list[list[Any]]:
    """Run statements beside the event loop; the rows of the last one."""
    return await asyncio.to_thread(server.rows, text, params)


async def filled(live: RunningServer, count: int) -> None:
    """Give the admin's notes so many rows."""
    values = ", ".join(f"({n}, 'note {n}', {n % 2 == 0})" for n in range(1, count + 1))
    await sql(live, f"INSERT INTO app.notes VALUES {values}")
