"""Long polls of a topic as the benches hold them: raw sockets, many at once, and when each is answered."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benches.live_client import WAIT_SECONDS, ClientFailed, post
from benches.live_peers import note
from benches.peer_headrace import Headrace
from benches.topic_peers import Message, TopicHeadrace, decode_consumed

TABLE, TOPIC = "fed_notes", "bench.fed"
READ_BYTES = 1 << 16


def feed(headrace: Headrace) -> None:
    """Create the table, and the topic that its INSERTs feed."""
    headrace.create_notes(TABLE)
    headrace.sql(f"CREATE TOPIC {TOPIC} PARTITIONS 1")
    headrace.sql(f"ALTER TOPIC {TOPIC} ADD SOURCE bench.{TABLE} ON INSERT")


class Requests:
    """What the benches send to the topic and to its table, as bytes."""

    def __init__(self, peer: TopicHeadrace) -> None:
        self._port = peer.port
        self._headers = {"Authorization": peer.server.headers["Authorization"]}

    def insert(self, number: int) -> bytes:
        """INSERT of one row, which becomes one message."""
        statement = f"INSERT INTO bench.{TABLE} (id, room, author, body, stars) VALUES ($1, $2, $3, $4, $5)"
        return self._post("/v1/api/sql", {"sql": statement, "params": list(note(number, "").values())})

    def consume(self, group: str | None, seconds: float, start: object) -> bytes:
        """A consume that waits up to that many seconds for its first message."""
        where = {"topic_id": TOPIC, "group_id": group, "partition_id": 0}
        return self._post("/v1/api/topics/consume", where | {"start": start, "timeout_seconds": seconds})

    def acknowledge(self, group: str, upto: int) -> bytes:
        """An ack up to that offset."""
        where = {"topic_id": TOPIC, "group_id": group, "partition_id": 0}
        return self._post("/v1/api/topics/ack", where | {"upto_offset": upto})

    def _post(self, path: str, document: object) -> bytes:
        return post(self._port, path, document, self._headers)


@dataclass(frozen=True)
class Answer:
    """A whole answer, and the nanosecond (CLOCK_MONOTONIC) of the read that completed it."""

    arrived: int
    body: bytes

    def message(self) -> Message:
        """The one message that a poll brought; raises ClientFailed when it brought none or several."""
        found = decode_consumed(self.body).messages
        if len(found) != 1:
            message = f"a poll brought {len(found)} messages, not 1"
            raise ClientFailed(message)
        return found[0]


def answers(sockets: Sequence[socket.socket], seconds: float = WAIT_SECONDS) -> list[Answer]:
    """Read one answer from each socket, in the order of the sockets, noting when each is there.

    Raises ClientFailed when a connection ends, an answer is not 2xx, or for that many seconds nothing comes.
    """
    received = dict.fromkeys(sockets, b"")
    found: dict[socket.socket, Answer] = {}
    with selectors.DefaultSelector() as selector:
        for each in sockets:
            selector.register(each, selectors.EVENT_READ, each)
        while len(found) < len(sockets):
            ready = selector.select(seconds)
            if not ready:
                message = f"{len(found)} of {len(sockets)} answers arrived, then none for {seconds} s"
                raise ClientFailed(message)
            for key, _ in ready:
                connection: socket.socket = key.data
                chunk = connection.recv(READ_BYTES)
                now = time.monotonic_ns()
                received[connection] += chunk
                body = whole_body(received[connection])
                if body is not None:
                    found[connection] = Answer(now, body)
                    selector.unregister(connection)
                elif not chunk:
                    message = f"the server ended the connection after {received[connection][:600]!r}"
                    raise ClientFailed(message)
    return [found[connection] for connection in sockets]


def whole_body(text: bytes) -> bytes | None:
    """The body of an answer once it is complete; raises ClientFailed when the answer is not 2xx."""
    head, end, body = text.partition(b"\r\n\r\n")
    if not end:
        return None
    lowered = head.lower()
    if b"content-length:" not in lowered:
        message = f"an answer without Content-Length: {head[:500]!r}"
        raise ClientFailed(message)
    length = int(lowered.partition(b"content-length:")[2].split(b"\r\n")[0])
    if len(body) < length:
        return None
    if not head.startswith(b"HTTP/1.1 2"):
        message = f"a request failed: {text[:600]!r}"
        raise ClientFailed(message)
    return body[:length]
