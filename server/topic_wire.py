"""Request and response bodies of the topic routes, as `/openapi.json` shows them. Unknown fields are ignored."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType


class ConsumeBody(msgspec.Struct):
    """What a consumer asks for."""

    topic_id: Annotated[str, Meta(description="namespace.name; without a namespace, default")]
    group_id: Annotated[str | None, Meta(description="Without one, messages are read and nothing is claimed")] = None
    start: Annotated[
        str | dict[str, int] | None,
        Meta(description='"Latest" (default), "Earliest" or {"Offset": n}; counts until the group has begun'),
    ] = None
    limit: Annotated[int, Meta(description="Messages at most")] = 100
    max_bytes: Annotated[int | None, Meta(description="Bytes of payloads, about; one message always comes")] = None
    partition_id: Annotated[int | None, Meta(description="One partition; without it, all of them")] = None
    timeout_seconds: Annotated[float | None, Meta(description="How long to wait for the first message")] = None
    visibility_timeout_seconds: Annotated[
        float | None, Meta(description="How long the messages are this consumer's until they are delivered again")
    ] = None
    consumer_id: Annotated[
        str | None, Meta(description="Whose claims these are; without it, those of the connection")
    ] = None
    ordered: Annotated[bool, Meta(description="Nothing from partitions in which another consumer holds messages")] = (
        False
    )


class MessageOrigin(msgspec.Struct):
    """Where a dead letter comes from."""

    topic_id: str
    partition_id: int
    offset: int
    delivery_count: int


class TopicMessage(msgspec.Struct):
    """A message. `user` is left out where nobody is known, `delivery_count` without a group."""

    topic_id: str
    partition_id: int
    offset: int
    payload: Annotated[bytes, Meta(description="base64")]
    key: str | None
    timestamp_ms: int
    user: str | UnsetType
    op: Literal["Insert", "Update", "Delete"]
    delivery_count: int | UnsetType = UNSET
    origin: MessageOrigin | UnsetType = UNSET


class PartitionPosition(msgspec.Struct):
    """Where a partition is read on."""

    partition_id: int
    next_offset: int


class ConsumeAnswer(msgspec.Struct):
    """Messages, in the order of their offsets within each partition."""

    messages: list[TopicMessage]
    next_offset: Annotated[int, Meta(description="The offset after the last message")]
    has_more: Annotated[bool, Meta(description="Whether there are more messages at once")]
    positions: Annotated[list[PartitionPosition], Meta(description="The next offset of each partition asked")]


class AckRequest(msgspec.Struct):
    """An acknowledgement: cumulative, within one partition."""

    topic_id: str
    group_id: str
    partition_id: Annotated[int | None, Meta(description="null: all of them, with release alone")] = 0
    upto_offset: Annotated[int | None, Meta(description="May be left out with release")] = None
    consumer_id: str | None = None
    release: Annotated[bool, Meta(description="Give the consumer's other messages of the partition back")] = False


class AckAnswer(msgspec.Struct, kw_only=True):
    """Up to where messages are acknowledged now; null: none."""

    success: Literal[True] = True
    acknowledged_offset: int | None


class ProducedMessage(msgspec.Struct):
    """A message to produce. Its partition is that of the key, if none is named."""

    payload: Annotated[msgspec.Raw, Meta(description="A string is base64; any other JSON value becomes its text")]
    key: str | None = None
    partition_id: int | None = None


class ProduceRequest(msgspec.Struct):
    """Messages to append, all or none."""

    topic_id: str
    messages: list[ProducedMessage]


class PartitionOffset(msgspec.Struct):
    """Where a message went."""

    partition_id: int
    offset: int


class ProduceAnswer(msgspec.Struct, kw_only=True):
    """Where the messages went, in their order."""

    success: Literal[True] = True
    count: int
    results: list[PartitionOffset]


class TopicFailure(msgspec.Struct):
    """Why a request failed."""

    error: str
    code: str
