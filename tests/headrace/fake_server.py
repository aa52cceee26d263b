"""A server for `/v1/ws` inside the test: faithful to the protocol, and made to fail on purpose.

`FakeServer` serves one `ModelTable` over real sockets, in JSON, gzip or MessagePack. Faults are set before or while
it runs: connections cut after some bytes of the server's answers, tokens refused, messages dropped for coming too
fast, subscriptions refused. It never repeats and never reorders what the protocol says comes once and in order.
"""

from __future__ import annotations

import asyncio
import gzip
import http
import json
from collections import deque
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import msgspec
import websockets
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from tests.headrace.model_server import Message, ModelSubscription, ModelTable


class FakeServer:
    """Serves `table` under `url` while it is entered."""

    def __init__(self, table: ModelTable | None = None) -> None:
        self.table = table or ModelTable()
        self.tokens = {"token"}
        """Those that are not refused."""
        self.cut_after: deque[int] = deque()
        """Of the next connections, each is cut when the server has sent so many bytes on it."""
        self.refuse_upgrade: deque[tuple[int, dict[str, str]]] = deque()
        """Status and headers with which the next upgrades are refused."""
        self.errors: deque[tuple[str, str]] = deque()
        """Code and message with which the next subscriptions are refused."""
        self.dropped = 0
        """How many of the next messages of clients are dropped for coming too fast."""
        self.silent = False
        """Whether to answer nothing at all any more."""
        self.received: list[Message] = []
        """Every message of every client."""
        self.connections: list[_Session] = []
        """Those that are open."""
        self.accepted = 0
        """How many were opened."""
        self.url = ""
        self._relays: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve, "127.0.0.1", 0, process_request=self._upgrade, compression=None, close_timeout=0.2
        )
        self._inner = self._server.sockets[0].getsockname()[1]
        self._relay = await asyncio.start_server(self._relay_one, "127.0.0.1", 0)
        self.port = self._relay.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._relay.close()
        for relay in list(self._relays):
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)
        await self._relay.wait_closed()
        self._server.close()
        await self._server.wait_closed()
        await asyncio.sleep(0)  # aborted transports close their sockets in the next round

    def cut(self) -> None:
        """Cut all connections, as a power failure would."""
        for relay in list(self._relays):
            relay.cancel()

    def pump(self) -> None:
        """Send what has happened to the table to whom it concerns."""
        for session in self.connections:
            session.pump()

    # --- WebSocket ----------------------------------------------------------------------------------------------------

    def _upgrade(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.refuse_upgrade:
            status, headers = self.refuse_upgrade.popleft()
            response = connection.respond(http.HTTPStatus(status), "refused\n")
            response.headers.update(headers)
            return response
        bearer = request.headers.get("Authorization")
        if bearer is not None and bearer.removeprefix("Bearer ") not in self.tokens:
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "token refused\n")
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        self.accepted += 1
        session = _Session(self, connection)
        self.connections.append(session)
        try:
            await session.run()
        except websockets.ConnectionClosed:
            return
        finally:
            self.connections.remove(session)

    # --- bytes --------------------------------------------------------------------------------------------------------

    async def _relay_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        budget = self.cut_after.popleft() if self.cut_after else None
        writers, copies = [writer], []
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._inner)
            writers.append(inner_writer)
            copies = [
                asyncio.create_task(_copy(reader, inner_writer, None)),
                asyncio.create_task(_copy(inner_reader, writer, budget)),
            ]
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass  # `cut`
        finally:
            self._relays.discard(task)
            for copy in copies:
                copy.cancel()
            await asyncio.gather(*copies, return_exceptions=True)
            for each in writers:
                each.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: int | None) -> None:
    """Copy until the end, or until so many bytes were copied."""
    while data := await reader.read(65536):
        if budget is not None:
            data = data[:budget]
            budget -= len(data)
        writer.write(data)
        await writer.drain()
        if budget == 0:
            return
    # Whoever waits for the end of the other direction ends with this one.


class _Session:
    """One connection of a client."""

    def __init__(self, server: FakeServer, connection: ServerConnection) -> None:
        self._server = server
        self._connection = connection
        self._subscriptions: dict[str, ModelSubscription] = {}
        assert connection.request is not None
        query = parse_qs(urlsplit(connection.request.path).query)
        self._msgpack = query.get("serialization") == ["msgpack"]
        self._gzip = query.get("compress") != ["false"]
        self._signed_in = "Authorization" in connection.request.headers
        self._out: asyncio.Queue[Message] = asyncio.Queue()

    async def run(self) -> None:
        """Serve until the connection ends."""
        sender = asyncio.create_task(self._send_all())
        try:
            if self._signed_in:
                await self._connection.send(json.dumps({"type": "auth_success", "user": "ann", "role": "user"}))
            async for frame in self._connection:
                await self._take(frame)
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _take(self, frame: str | bytes) -> None:
        server = self._server
        if isinstance(frame, bytes) and not self._msgpack:
            await self._connection.close(1011, "binary in JSON mode")
            return
        message = msgspec.json.decode(frame) if isinstance(frame, str) else msgspec.msgpack.decode(frame)
        server.received.append(message)
        if server.silent:
            return
        if message["type"] == "authenticate":
            await self._authenticate(message)
        elif server.dropped:
            server.dropped -= 1
            self._send({"type": "error", "subscription_id": "rate_limit", "code": "RATE_LIMIT_EXCEEDED", "message": ""})
        else:
            self._answer(message)

    async def _authenticate(self, message: Message) -> None:
        if message["token"] not in self._server.tokens:
            await self._connection.send(json.dumps({"type": "auth_error", "message": "token refused"}))
            await self._connection.close(1008, "token refused")
            return
        self._gzip = message["protocol"]["compression"] == "gzip"
        self._msgpack = message["protocol"]["serialization"] == "msgpack"
        await self._connection.send(json.dumps({"type": "auth_success", "user": "ann", "role": "user"}))

    def _answer(self, message: Message) -> None:
        server = self._server
        if message["type"] == "ping":
            self.pump()
            reached = [subscription.reached for subscription in self._subscriptions.values()]
            self._send({"type": "pong", "id": message["id"], "seq": min([server.table.seq, *reached])})
        elif message["type"] == "subscribe":
            request = message["subscription"]
            if server.errors:
                code, text = server.errors.popleft()
                self._send({"type": "error", "subscription_id": request["id"], "code": code, "message": text})
                return
            subscription = ModelSubscription(server.table, request["id"], request.get("options"))
            self._subscriptions[request["id"]] = subscription
            for each in subscription.first:
                self._send(each)
            self.pump()
        elif message["type"] == "next_batch":
            subscription = self._subscriptions[message["subscription_id"]]
            for each in subscription.next_batch():
                self._send(each)
            self.pump()
        elif message["type"] == "unsubscribe":
            self._subscriptions.pop(message["subscription_id"], None)

    def pump(self) -> None:
        """Send what is new to all subscriptions."""
        for subscription in self._subscriptions.values():
            for message in subscription.pump():
                self._send(message)

    def say(self, message: Message) -> None:
        """Send any message."""
        self._send(message)

    async def close(self, code: int, reason: str = "") -> None:
        """Close as a server does that stops."""
        await self._connection.close(code, reason)

    @property
    def subscriptions(self) -> int:
        """How many live queries the client has here."""
        return len(self._subscriptions)

    def _send(self, message: Message) -> None:
        self._out.put_nowait(message)

    async def _send_all(self) -> None:
        while True:
            message: Any = await self._out.get()
            frame = msgspec.msgpack.encode(message) if self._msgpack else msgspec.json.encode(message)
            if self._gzip and len(frame) >= 512:
                await self._connection.send(gzip.compress(frame))
            else:
                await self._connection.send(frame, text=not self._msgpack)
