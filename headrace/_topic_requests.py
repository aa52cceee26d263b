"""The topic routes: what goes out and what comes back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from headrace._answers import parse
from headrace._requests import Requests
from headrace._topic_messages import MessageAnswer, MessagePosition, NewMessage, Payload, message_body

T = TypeVar("T")

Start: TypeAlias = Literal["latest", "earliest"] | int
"""Where a group begins that has not acknowledged anything."""


class _PartitionAnswer(msgspec.Struct, frozen=True):
    partition_id: int


class ConsumeAnswer(msgspec.Struct, frozen=True):
    """The answer of consume."""

    messages: list[MessageAnswer]
    has_more: bool = False
    positions: list[_PartitionAnswer] = []


class _AckAnswer(msgspec.Struct, frozen=True):
    acknowledged_offset: int | None = None


class _ProduceAnswer(msgspec.Struct, frozen=True):
    results: list[MessagePosition]


class PollOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What every poll of a consumer says, as the route names it."""

    topic_id: str
    group_id: str
    start: str | dict[str, int] | None = None
    limit: int | None = None
    partition_id: int | None = None
    max_bytes: int | None = None
    ordered: bool = False
    visibility_timeout_seconds: float | None = None


def start_of(start: Start) -> str | dict[str, int]:
    """How the route writes a start. Raises ValueError."""
    if isinstance(start, int) and not isinstance(start, bool) and start >= 0:
        return {"Offset": start}
    if start in {"latest", "earliest"}:
        return str(start).capitalize()
    raise ValueError(f"start is 'latest', 'earliest' or an offset, not {start!r}")


class TopicRequests:
    """Requests about topics, in the name of whoever is signed in."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def consume(self, options: PollOptions, consumer_id: str, wait_seconds: float) -> ConsumeAnswer:
        """Ask for messages and wait for the first one. Raises ResponseError, ConnectionFailed."""
        body = {**msgspec.to_builtins(options), "consumer_id": consumer_id, "timeout_seconds": wait_seconds}
        return await self._post("consume", body, ConsumeAnswer, wait_seconds)

    async def ack(
        self,
        options: PollOptions,
        consumer_id: str,
        partition: int,
        upto: int | None,
        *,
        release: bool = False,
    ) -> None:
        """Acknowledge up to an offset, and give the other claims in the partition back where wanted.

        Raises ResponseError, ConnectionFailed.
        """
        body = {
            "topic_id": options.topic_id,
            "group_id": options.group_id,
            "partition_id": partition,
            "upto_offset": upto,
            "consumer_id": consumer_id,
            "release": release,
        }
        await self._post("ack", body, _AckAnswer)

    async def produce(self, topic: str, messages: Iterable[NewMessage | Payload]) -> list[MessagePosition]:
        """Write messages, all or none; where they stand. Raises ResponseError, ConnectionFailed."""
        body = {"topic_id": topic, "messages": [message_body(message) for message in messages]}
        return (await self._post("produce", body, _ProduceAnswer)).results

    async def _post(self, route: str, body: dict[str, Any], kind: type[T], patience: float = 0.0) -> T:
        content, headers = msgspec.json.encode(body), {"Content-Type": "application/json"}
        response = await self._requests.send("POST", f"/v1/api/topics/{route}", content, headers, patience)
        return parse(response, kind)
