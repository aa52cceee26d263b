"""What the systems under the benches of topics offer, and Headrace's own side of it.

The work is the same for each: one topic of one partition (a stream), messages that are the rows of `notes` as JSON,
consumers in a group that take messages and acknowledge them. Every client is a Python client on uvloop, in the process
of the bench; what counts as acknowledged is what the server has answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from benches.http_client import HttpClient, post_head
from benches.load import Load, dumps
from benches.notes import BODY, LUA_ROW
from benches.peer_headrace import Headrace

TOPIC = "bench.messages"


class TopicClient(Protocol):
    """One connection, driven by one producer or one consumer."""

    async def publish(self, payload: bytes) -> None:
        """Publish one message and wait for its acknowledgement."""

    async def publish_many(self, payloads: Sequence[bytes]) -> None:
        """Publish messages together and wait until each is acknowledged."""

    async def join(self, group: str) -> None:
        """Create a group that begins at the first message, and become its consumer."""

    async def consume(self, limit: int) -> list[bytes]:
        """Take up to `limit` messages for the group, acknowledge them, and return their payloads."""

    async def close(self) -> None:
        """Close the connection."""


class TopicPeer(Protocol):
    """A system with a log of messages and groups of consumers."""

    name: str
    syncs: str
    """Whether it syncs to disk before it acknowledges a message."""
    syncs_offsets: str
    """Whether it does so before it answers a claim or an acknowledgement of a group."""

    def start(self, folder: Path) -> None:
        """Start on empty data in `folder`; raises Unavailable."""

    def stop(self) -> None:
        """End the server."""

    def pids(self) -> list[int]:
        """Its processes."""

    async def connect(self, *, alone: bool) -> TopicClient:
        """A client of the one topic, which is created if it is not there; `alone`: no other runs beside it."""


_encode = msgspec.json.Encoder().encode


def payload(number: int) -> bytes:
    """The message of that number: a row of `notes` as JSON."""
    return _encode(
        {
            "id": number,
            "room": f"room-{number % 100}",
            "author": f"author-{number % 1000}",
            "body": BODY,
            "stars": number % 5,
        }
    )


class Message(msgspec.Struct):
    """A message as Headrace's consumers see it; the decoder turns base64 into bytes."""

    partition_id: int
    offset: int
    payload: bytes
    key: str | None = None


class Consumed(msgspec.Struct):
    """An answer to consume."""

    messages: list[Message]
    next_offset: int
    has_more: bool


class _Produced(msgspec.Struct):
    success: bool
    count: int


class _Acknowledged(msgspec.Struct):
    success: bool
    acknowledged_offset: int


class _NewMessage(msgspec.Struct):
    payload: msgspec.Raw


class _Produce(msgspec.Struct):
    topic_id: str
    messages: list[_NewMessage]


decode_consumed = msgspec.json.Decoder(Consumed).decode
_decode_produced = msgspec.json.Decoder(_Produced).decode
_decode_acknowledged = msgspec.json.Decoder(_Acknowledged).decode


class TopicHeadrace:
    """Headrace with a topic of one partition, and clients of `/v1/api/topics`."""

    name = "Headrace"
    syncs = "yes"
    syncs_offsets = "yes"

    def __init__(self) -> None:
        self.server = Headrace()
        self.port = 0

    def start(self, folder: Path) -> None:
        """Start the server, create the topic."""
        self.server.start(folder)
        self.port = urlsplit(self.server.base).port or 0
        self.server.sql(f"CREATE TOPIC {TOPIC} PARTITIONS 1")

    def stop(self) -> None:
        """End the server."""
        self.server.stop()

    def pids(self) -> list[int]:
        """The server."""
        return self.server.pids()

    async def connect(self, *, alone: bool) -> TopicClient:
        """A kept-alive HTTP connection."""
        del alone
        return _HeadraceClient(await HttpClient.connect(self.port), self.port, self.server.headers)

    def produce(self, first: int) -> Load:
        """One message a request, for `wrk`."""
        body = f'{{"topic_id":{dumps(TOPIC)},"messages":[{{"payload":%s}}]}}'
        row = '{"id":%d,"room":"%s","author":"%s","body":"%s","stars":%d}'
        request = f'return "/v1/api/topics/produce", string.format([[{body % row}]], note({first} + n))'
        return Load(self.server.base, request, setup=LUA_ROW, headers=self.server.headers)


class _HeadraceClient:
    """Producer and consumer over one connection."""

    def __init__(self, connection: HttpClient, port: int, headers: dict[str, str]) -> None:
        self._connection = connection
        self._produce, self._consume, self._ack = (
            post_head(port, f"/v1/api/topics/{work}", headers) for work in ("produce", "consume", "ack")
        )
        self._group = ""

    async def publish(self, payload: bytes) -> None:
        """One message a request."""
        await self.publish_many([payload])

    async def publish_many(self, payloads: Sequence[bytes]) -> None:
        """One request; payloads are JSON values as they are."""
        document = _Produce(TOPIC, [_NewMessage(msgspec.Raw(each)) for each in payloads])
        answer = _decode_produced(await self._connection.post(self._produce, _encode(document)))
        assert answer.success
        assert answer.count == len(payloads)

    async def join(self, group: str) -> None:
        """A group begins with its first consume."""
        self._group = group

    async def consume(self, limit: int) -> list[bytes]:
        """A consume and an ack up to the last offset."""
        asked = {"topic_id": TOPIC, "group_id": self._group, "start": "Earliest", "limit": limit, "partition_id": 0}
        answer = decode_consumed(await self._connection.post(self._consume, _encode(asked)))
        if answer.messages:
            last = answer.messages[-1].offset
            told = {"topic_id": TOPIC, "group_id": self._group, "partition_id": 0, "upto_offset": last}
            acknowledged = _decode_acknowledged(await self._connection.post(self._ack, _encode(told)))
            assert acknowledged.acknowledged_offset == last
        return [message.payload for message in answer.messages]

    async def close(self) -> None:
        """Close the connection."""
        self._connection.close()
