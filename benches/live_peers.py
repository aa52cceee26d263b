"""What the systems under the benches of live queries offer, and Headrace's own side of it.

The work is the same for each: `count` clients, a socket each, follow one query; rows that belong to it are inserted,
one a request. Peers without filters follow the whole table, which is to their advantage.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from benches.live_client import Receiver, connected, post, receive_until, text_frame, upgrade
from benches.notes import BODY
from benches.peer_headrace import Headrace

ROOM = "room-7"
ACKNOWLEDGED = "subscription_ack"


class LivePeer(Protocol):
    """A system that tells its clients of changes."""

    name: str
    syncs: str
    """Whether it syncs to disk before it acknowledges a write."""
    port: int
    """Where rows are written."""

    def start(self, folder: Path) -> None:
        """Start on empty data in `folder`; raises Unavailable."""

    def stop(self) -> None:
        """End the server."""

    def pids(self) -> list[int]:
        """Its processes."""

    def subscribe(self, program: Path, count: int) -> Receiver:
        """`count` clients that follow the rows of ROOM; returns once the server has acknowledged all."""

    def insert(self, number: int, marked: str) -> bytes:
        """The request that inserts one row of ROOM, with that key and that marker in its body."""


def note(number: int, marked: str, room: str = ROOM) -> dict[str, object]:
    """The row with that key; the columns of `benches.notes`."""
    return {"id": number, "room": room, "author": "author-7", "body": f"{BODY} {marked}", "stars": number % 5}


class LiveHeadrace:
    """Headrace with a SHARED table `notes` and a USER table `own_notes`, and clients of `/v1/ws`."""

    name = "Headrace"
    syncs = "yes"

    def __init__(self) -> None:
        self.server = Headrace()
        self.port = 0

    def start(self, folder: Path) -> None:
        """Start the server, create the table of the user's own rows."""
        self.server.start(folder)
        self.port = urlsplit(self.server.base).port or 0
        self.server.sql(
            "CREATE USER TABLE bench.own_notes (id BIGINT PRIMARY KEY, room TEXT NOT NULL, author TEXT NOT NULL,"
            " body TEXT NOT NULL, stars INT NOT NULL)"
        )

    def stop(self) -> None:
        """End the server."""
        self.server.stop()

    def pids(self) -> list[int]:
        """The server."""
        return self.server.pids()

    def connect(self, program: Path, count: int) -> Receiver:
        """`count` signed-in WebSockets without subscriptions."""
        request = upgrade(self.port, "/v1/ws?compress=false", {"Authorization": self.server.headers["Authorization"]})
        sockets = [connected(self.port) for _ in range(count)]
        for connection in sockets:  # all at once: the first may not stay silent for long
            connection.sendall(request)
        for connection in sockets:
            receive_until(connection, b"auth_success")
        return Receiver(program, sockets, "ws", ACKNOWLEDGED)

    def follow(self, receiver: Receiver, queries: Sequence[str]) -> None:
        """Subscribe to the queries, dealt out over the sockets in turn, and wait until all are acknowledged."""
        frames = [
            text_frame(msgspec.json.encode({"type": "subscribe", "subscription": {"id": f"s{i}", "sql": sql}}).decode())
            for i, sql in enumerate(queries)
        ]
        before = receiver.acknowledged
        for number, connection in enumerate(receiver.sockets):
            connection.sendall(b"".join(frames[number :: len(receiver.sockets)]))
        receiver.wait(before + len(queries), acknowledged=True)

    def subscribe(self, program: Path, count: int) -> Receiver:
        """A filter over the user's own rows."""
        receiver = self.connect(program, count)
        query = f"SELECT id, room, author, body, stars FROM bench.own_notes WHERE room = '{ROOM}' AND stars >= 0"
        self.follow(receiver, [query] * count)
        return receiver

    def insert(self, number: int, marked: str) -> bytes:
        """INSERT into the user's own rows with five parameters."""
        return self.insert_into("own_notes", note(number, marked))

    def insert_into(self, table: str, row: dict[str, object]) -> bytes:
        """INSERT of one row with five parameters."""
        statement = f"INSERT INTO bench.{table} (id, room, author, body, stars) VALUES ($1, $2, $3, $4, $5)"
        return self.statement(statement, *row.values())

    def statement(self, text: str, *params: object) -> bytes:
        """The request of any statement."""
        authorization = {"Authorization": self.server.headers["Authorization"]}
        return post(self.port, "/v1/api/sql", {"sql": text, "params": params}, authorization)
