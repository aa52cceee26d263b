"""A tiny server of the live protocol over one table in memory, to test the subscriber; it can be told to lie."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import gzip
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.chaos.subscriber import QUIET

SCHEMA = [
    {"name": "id", "data_type": "BigInt", "index": 0},
    {"name": "v", "data_type": "Text", "index": 1},
    {"name": "_seq", "data_type": "BigInt", "index": 2},
]
Message = dict[str, Any]


class Lie(enum.Enum):
    """What the server does wrong, now and then."""

    NONE = "none"
    GAP = "an event is left out"
    DUPLICATE = "an event is sent twice"
    EARLY = "a resume begins one event too early"


class FakeServer:
    """`write` and `delete` change the table; every subscription sees all of it."""

    def __init__(self, lie: Lie = Lie.NONE, keep: int = 1 << 60) -> None:
        self.lie = lie
        self.keep = keep
        """Events that a client can resume over."""
        self.rows: dict[int, Message] = {}
        self.log: list[tuple[int, str, Message]] = []
        self.seq = 0
        self.port = 0
        self._server: Server | None = None
        self.listeners: set[asyncio.Event] = set()

    async def __aenter__(self) -> FakeServer:
        """Listen."""
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            process_request=self._check,
            select_subprotocol=lambda _, offered: offered[0] if offered else None,
            compression=None,
            close_timeout=0.2,
            logger=QUIET,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @staticmethod
    def _check(connection: ServerConnection, request: Request) -> Response | None:
        if urlsplit(request.path).path == "/v1/ws":
            return None
        return connection.respond(HTTPStatus.NOT_FOUND, "")

    # --- the table ---------------------------------------------------------------------------------------------

    async def write(self, key: int, value: str) -> None:
        """Insert or update a row."""
        self.seq += 1
        old = self.rows.get(key)
        new = {"id": key, "v": value, "_seq": self.seq}
        self.rows[key] = new
        change: Message = {"change_type": "update" if old else "insert", "seq": self.seq, "rows": [new]}
        if old:
            changed = {"v": old["v"]} if old["v"] != value else {}
            change["old_values"] = [{"id": key, **changed, "_seq": old["_seq"]}]
        await self._tell(change)

    async def delete(self, key: int) -> None:
        """Delete a row that exists."""
        self.seq += 1
        await self._tell({"change_type": "delete", "seq": self.seq, "old_values": [self.rows.pop(key)]})

    async def _tell(self, change: Message) -> None:
        self.log.append((self.seq, change["change_type"], change))
        for listener in self.listeners:
            listener.set()
        await asyncio.sleep(0)

    # --- a connection ------------------------------------------------------------------------------------------

    async def _serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        query = {name: values[0] for name, values in parse_qs(urlsplit(socket.request.path).query).items()}
        protocol = {
            "serialization": query.get("serialization", "json"),
            "compression": query.get("compression", "gzip"),
        }
        if "Authorization" not in socket.request.headers and socket.subprotocol is None:
            protocol = msgspec.json.decode(await socket.recv())["protocol"]
        await socket.send(msgspec.json.encode({"type": "auth_success", "protocol": protocol}).decode())
        talk = _Talk(self, socket, protocol)
        feeding = asyncio.create_task(talk.feed())
        try:
            async for raw in socket:
                await talk.receive(raw)
        except ConnectionClosed:
            pass
        finally:
            feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
                await feeding


class _Talk:
    """What one client is told."""

    def __init__(self, server: FakeServer, socket: ServerConnection, protocol: Message) -> None:
        self._server = server
        self._socket = socket
        self._msgpack = protocol["serialization"] == "msgpack"
        self._gzip = protocol["compression"] == "gzip"
        self._positions: dict[str, int] = {}
        self._waiting: dict[str, tuple[list[Message], int, int, int]] = {}
        self._told = 0
        self._more = asyncio.Event()
        server.listeners.add(self._more)

    async def receive(self, raw: str | bytes) -> None:
        message = msgspec.msgpack.decode(raw) if isinstance(raw, bytes) else msgspec.json.decode(raw)
        name = message.get("subscription_id", "")
        if message["type"] == "ping":
            seq = min(self._positions.values(), default=self._server.seq)
            await self._send({"type": "pong", "id": message["id"]} | ({} if self._waiting else {"seq": seq}))
        elif message["type"] == "unsubscribe":
            self._positions.pop(name, None)
            self._waiting.pop(name, None)
        elif message["type"] == "next_batch":
            await self._batch(name)
        else:
            await self._subscribe(message["subscription"])

    async def _subscribe(self, asked: Message) -> None:
        name, options = asked["id"], asked["options"]
        self._positions.pop(name, None)
        size = int(options.get("batch_size", 1_000))
        start = int(options.get("from", options.get("from_seq_id", 0)))
        assert start <= self._server.seq
        missed = [event for event in self._server.log if event[0] > start - (self._server.lie is Lie.EARLY)]
        fresh = start > 0 and len(missed) > self._server.keep
        if fresh:
            await self._send({"type": "error", "subscription_id": name, "code": "RESUME_TOO_OLD", "message": ""})
        resumed = start > 0 and not fresh
        rows = sorted(self._server.rows.values(), key=lambda row: int(row["_seq"]))
        end = self._server.seq
        if resumed:
            rows = []
            for _, kind, change in missed[:size]:
                if kind == "delete":
                    break
                rows += change["rows"]
            end = rows[-1]["_seq"] if rows else start
        control = {"batch_num": 0, "has_more": False, "status": "ready", "last_seq_id": end} | (
            {"fresh": True} if fresh else {}
        )
        await self._send({
            "type": "subscription_ack", "subscription_id": name, "total_rows": len(rows), "schema": SCHEMA,
            "resumed": resumed, "batch_control": control,
        })  # fmt: skip
        self._waiting[name] = (rows, size, 0, end)
        await self._batch(name)

    async def _batch(self, name: str) -> None:
        rows, size, number, end = self._waiting.pop(name)
        now, later = rows[:size], rows[size:]
        if later:
            self._waiting[name] = (later, size, number + 1, end)
        status = ("loading_batch" if number else "loading") if later else "ready"
        control = {"batch_num": number, "has_more": bool(later), "status": status}
        control["last_seq_id"] = now[-1]["_seq"] if later else end
        await self._send({"type": "initial_data_batch", "subscription_id": name, "rows": now, "batch_control": control})
        if not later:
            self._positions[name] = end
            self._more.set()

    async def feed(self) -> None:
        """Tell every subscription what it has not been told."""
        while True:
            for name in list(self._positions):
                while self._positions.get(name, self._server.seq) < self._server.seq:
                    position = self._positions[name]
                    seq, _, change = self._server.log[position]  # events are numbered from 1
                    self._positions[name] = seq
                    await self._event({"type": "change", "subscription_id": name, **change})
            await self._more.wait()
            self._more.clear()

    async def _event(self, message: Message) -> None:
        self._told += 1
        odd = self._told % 50 == 0
        if odd and self._server.lie is Lie.GAP:
            return
        await self._send(message)
        if odd and self._server.lie is Lie.DUPLICATE:
            await self._send(message)

    async def _send(self, message: Message) -> None:
        data = msgspec.msgpack.encode(message) if self._msgpack else msgspec.json.encode(message)
        if self._gzip and len(data) >= 512 and len(packed := gzip.compress(data)) < len(data):
            await self._socket.send(packed)
        else:
            await self._socket.send(data if self._msgpack else data.decode())
