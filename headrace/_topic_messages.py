"""Messages of topics as their users see them, and how payloads go to the wire.

A message knows the consumer that it came from, so that it can be acknowledged; `claim` is the name under which the
server holds it for that consumer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeAlias

import msgspec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Payload: TypeAlias = Any
"""Bytes go as they are, text as UTF-8, everything else as its JSON text."""


class MessagePosition(msgspec.Struct, frozen=True):
    """Where a message stands in its topic."""

    partition: int = msgspec.field(name="partition_id")
    offset: int


class MessageOrigin(msgspec.Struct, frozen=True):
    """Where a message of a dead-letter topic was delivered in vain, and how often."""

    topic: str = msgspec.field(name="topic_id")
    partition: int = msgspec.field(name="partition_id")
    offset: int
    delivery_count: int | None = None


class NewMessage(msgspec.Struct, frozen=True):
    """A message to be produced. Without a `partition` the key decides; without both, the server."""

    payload: Payload
    key: str | int | None = None
    partition: int | None = None


class MessageAnswer(msgspec.Struct, frozen=True):
    """One entry of `messages` in the answer of consume."""

    topic_id: str
    partition_id: int
    offset: int
    payload: bytes
    timestamp_ms: int
    op: str
    key: str | None = None
    user: str | None = None
    delivery_count: int = 1
    origin: MessageOrigin | None = None


class Acknowledges(Protocol):
    """What a message is acknowledged with."""

    async def ack(self, messages: Iterable[BaseMessage]) -> None:
        """Acknowledge messages and everything before them in their partitions."""


class SyncAcknowledges(Protocol):
    """The same for code that blocks."""

    def ack(self, *messages: BaseMessage) -> None:
        """Acknowledge messages and everything before them in their partitions."""


class BaseMessage:
    """What both faces of a message have."""

    __slots__ = (
        "claim",
        "delivery_count",
        "key",
        "offset",
        "op",
        "origin",
        "partition",
        "payload",
        "timestamp",
        "topic",
        "user",
    )

    def __init__(self, answer: MessageAnswer, claim: str) -> None:
        self.topic: str = answer.topic_id
        self.partition: int = answer.partition_id
        self.offset: int = answer.offset
        self.key: str | None = answer.key
        self.payload: bytes = answer.payload
        self.timestamp: datetime = _EPOCH + timedelta(milliseconds=answer.timestamp_ms)
        """When it was written, in UTC."""
        self.user: str | None = answer.user
        """Whose row it tells of, in USER tables; who produced it."""
        self.op: str = answer.op
        """`Insert`, `Update` or `Delete`; produced messages are `Insert`."""
        self.delivery_count: int = answer.delivery_count
        """1 at the first delivery to the group."""
        self.origin: MessageOrigin | None = answer.origin
        """In a dead-letter topic: where it comes from."""
        self.claim = claim

    def json(self) -> Any:
        """What the payload's JSON text holds. Raises msgspec.DecodeError (a ValueError) if it is none."""
        return msgspec.json.decode(self.payload)

    def text(self) -> str:
        """The payload as text. Raises UnicodeDecodeError (a ValueError) if it is not UTF-8."""
        return self.payload.decode()

    @property
    def position(self) -> MessagePosition:
        """Partition and offset."""
        return MessagePosition(self.partition, self.offset)

    def __repr__(self) -> str:
        key = "" if self.key is None else f" key={self.key!r}"
        kind = type(self).__name__
        return f"<{kind} {self.topic} {self.partition}/{self.offset}{key} {self.op} {len(self.payload)} bytes>"


class Message(BaseMessage):
    """A message of a topic: `topic`, `partition`, `offset`, `key`, `payload`, `timestamp`, `user`, `op`, ….

    `op` is `Insert`, `Update` or `Delete`; `delivery_count` is 1 at the first delivery to the group; `origin` tells
    where a message of a dead-letter topic comes from.
    """

    __slots__ = ("_consumer",)

    def __init__(self, answer: MessageAnswer, claim: str, consumer: Acknowledges) -> None:
        super().__init__(answer, claim)
        self._consumer = consumer

    async def ack(self) -> None:
        """Acknowledge it and everything before it in its partition. Raises as `Consumer.ack` does."""
        await self._consumer.ack((self,))


class SyncMessage(BaseMessage):
    """A message of a topic, for code that blocks; see Message."""

    __slots__ = ("_consumer",)

    def __init__(self, message: BaseMessage, consumer: SyncAcknowledges) -> None:
        for name in BaseMessage.__slots__:
            setattr(self, name, getattr(message, name))
        self._consumer = consumer

    def ack(self) -> None:
        """Acknowledge it and everything before it in its partition. Raises as `SyncConsumer.ack` does."""
        self._consumer.ack(self)


def payload_bytes(payload: Payload) -> bytes:
    """The bytes of a payload.

    Raises ValueError for NaN, infinities and text that is not Unicode; TypeError for what has no JSON text.
    """
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return bytes(payload)
    if isinstance(payload, str):
        return payload.encode()
    # json, because msgspec writes null for NaN; dates, UUIDs, decimals and structs are those of msgspec.
    text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=msgspec.to_builtins)
    return text.encode()


def message_body(message: NewMessage | Payload) -> dict[str, Any]:
    """One entry of `messages` in the body of produce: the payload in base64. Raises as `payload_bytes` does."""
    new = message if isinstance(message, NewMessage) else NewMessage(message)
    body: dict[str, Any] = {"payload": payload_bytes(new.payload)}
    if new.key is not None:
        body["key"] = str(new.key)
    if new.partition is not None:
        body["partition_id"] = new.partition
    return body
