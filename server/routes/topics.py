"""`POST /v1/api/topics/consume`, `/ack` and `/produce`: consumers and producers of topics over HTTP.

Raw ASGI endpoints, as they are hot and a consumer may wait in one for a minute. They check the request, call the hub of
the database and render its answer. Errors have the shape of these routes, `{"error": sentence, "code": CODE}`; where
the bearer is wrong, that of SQL requests, as everywhere (`server/middleware/errors.py`).

Who consumes: a `consumer_id`, else the connection. The hub needs to know, because an acknowledgement covers only what
its sender holds (`storage.topic_groups`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from server.active import ActiveRequests
from server.body import read_body
from server.exchange import CONNECTION, Exchange
from server.middleware.errors import JSON, TOPICS_PREFIX
from server.state import AppState, Topics
from server.topic_wire import (
    AckAnswer,
    AckRequest,
    ConsumeAnswer,
    ConsumeBody,
    MessageOrigin,
    PartitionOffset,
    PartitionPosition,
    ProduceAnswer,
    ProducedMessage,
    ProduceRequest,
    TopicMessage,
)
from sql.errors import InvalidInput, MessageTooLarge, PermissionDenied
from sql.identity import Identity, Role
from sql.topic_arguments import group_refusal
from sql.topics.messages import Batch, ConsumeRequest, Message
from storage.topic_groups import NAMED
from storage.topic_writes import EARLIEST, LATEST, Produced, Start

DEFAULT_NAMESPACE = "default"
_LONGEST_ID = 256
_MESSAGE_BYTES = 200
"""About what a message takes in an answer beside its payload."""
_OPERATIONS: tuple[Literal["Insert", "Update", "Delete"], ...] = ("Insert", "Update", "Delete")
_LARGEST_OFFSET = 2**63 - 1

T = TypeVar("T", bound=msgspec.Struct)
Handler = Callable[[Exchange, Receive, bytes, Identity], Awaitable[bytes]]

_ON_THE_LOOP = 256 * 1024
"""Bytes of requests and payloads that are read and written on the event loop; more take a thread."""


class TopicRoutes:
    """The endpoints, over the state of the server."""

    def __init__(self, state: AppState, active: ActiveRequests) -> None:
        self._state = state
        self._active = active
        self._topics: Topics = state.database.topics
        self._settings = self._topics.settings
        self._timeout = state.config.performance.request_timeout
        self._boot = secrets.token_hex(4)
        self._encode = msgspec.json.Encoder().encode
        self._consume_body = msgspec.json.Decoder(ConsumeBody)
        self._ack_body = msgspec.json.Decoder(AckRequest)
        self._produce_body = msgspec.json.Decoder(ProduceRequest)

    def endpoints(self) -> dict[str, ASGIApp]:
        """The endpoints by their paths."""
        return {
            f"{TOPICS_PREFIX}consume": self._endpoint(self.consume),
            f"{TOPICS_PREFIX}ack": self._endpoint(self.ack),
            f"{TOPICS_PREFIX}produce": self._endpoint(self.produce),
        }

    def _endpoint(self, handler: Handler) -> ASGIApp:
        """What all of them do around their handlers."""

        async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            exchange: Exchange = scope["exchange"]
            if scope["method"] != "POST":
                raise HTTPException(405, headers={"Allow": "POST"})
            identity = self._authorized(exchange)
            body = await read_body(receive, self._timeout)
            kind = exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if kind != b"application/json":
                raise InvalidInput("Content-Type must be application/json")
            await exchange.respond(200, [JSON], await handler(exchange, receive, body, identity))

        return endpoint

    def _authorized(self, exchange: Exchange) -> Identity:
        """Who asks, as things stand now. Raises AuthError and PermissionDenied."""
        identity = self._state.authenticator.authenticate(exchange.headers.get(b"authorization"), exchange)
        if identity.role.rank < Role.SERVICE.rank:
            raise PermissionDenied(f"Role {identity.role.value} may not use topics; service, dba and system may")
        return identity

    # --- consume -------------------------------------------------------------------------------------------------

    async def consume(self, exchange: Exchange, receive: Receive, body: bytes, identity: Identity) -> bytes:
        """Messages for a consumer; waits for the first one up to `timeout_seconds`."""
        asked = _decoded(self._consume_body, body)
        settings = self._settings
        namespace, name = self._named(asked.topic_id)
        if asked.group_id is not None:
            _check_group(asked.group_id)
        request = ConsumeRequest(
            namespace=namespace,
            topic=name,
            group=asked.group_id,
            start=_start(asked.start),
            limit=_within("limit", asked.limit, 1, settings.max_batch_messages),
            max_bytes=settings.max_batch_bytes
            if asked.max_bytes is None
            else _within("max_bytes", asked.max_bytes, 1, settings.max_batch_bytes),
            partition=None if asked.partition_id is None else _partition(asked.partition_id),
            timeout=_seconds("timeout_seconds", asked.timeout_seconds or 0.0, settings.max_poll_seconds, cut=True),
            visibility=settings.visibility_timeout
            if asked.visibility_timeout_seconds is None
            else _seconds(
                "visibility_timeout_seconds", asked.visibility_timeout_seconds, settings.max_visibility_timeout
            ),
            holder=self._holder(asked.consumer_id, identity, exchange),
            ordered=asked.ordered,
        )
        self._active.enter(exchange, receive)
        try:
            batch = await self._topics.consume(request)
        finally:
            self._active.leave(exchange)
        if request.timeout:
            self._authorized(exchange)  # it may have waited long; what it claimed is free after its visibility timeout

        def rendered() -> bytes:
            return self._encode(_rendered(batch, asked.topic_id))

        large = sum([len(message.payload) + _MESSAGE_BYTES for message in batch.messages]) > _ON_THE_LOOP
        return await asyncio.to_thread(rendered) if large else rendered()

    # --- ack -----------------------------------------------------------------------------------------------------

    async def ack(self, exchange: Exchange, receive: Receive, body: bytes, identity: Identity) -> bytes:
        """Acknowledge up to an offset, give other claims back, or both."""
        asked = _decoded(self._ack_body, body)
        namespace, name = self._named(asked.topic_id)
        _check_group(asked.group_id)
        if asked.upto_offset is None and not asked.release:
            raise InvalidInput("upto_offset is missing: the offset up to which messages are acknowledged")
        upto = None if asked.upto_offset is None else _within("upto_offset", asked.upto_offset, 0, _LARGEST_OFFSET)
        if asked.partition_id is None and upto is not None:
            raise InvalidInput("partition_id is missing: offsets count in each partition by itself")
        offset = await self._topics.acknowledge(
            namespace,
            name,
            asked.group_id,
            None if asked.partition_id is None else _partition(asked.partition_id),
            upto,
            self._holder(asked.consumer_id, identity, exchange),
            back=asked.release,
            is_gone=self._is_gone,
        )
        return self._encode(AckAnswer(acknowledged_offset=offset if offset >= 0 else None))

    # --- produce -------------------------------------------------------------------------------------------------

    async def produce(self, exchange: Exchange, receive: Receive, body: bytes, identity: Identity) -> bytes:
        """Append messages, all or none."""
        large = len(body) > _ON_THE_LOOP
        asked, messages = await asyncio.to_thread(self._to_produce, body) if large else self._to_produce(body)
        namespace, name = self._named(asked.topic_id)
        placed = await self._topics.produce(namespace, name, messages, identity.user)
        results = [PartitionOffset(partition, offset) for partition, offset in placed]
        return self._encode(ProduceAnswer(count=len(placed), results=results))

    def _to_produce(self, body: bytes) -> tuple[ProduceRequest, list[Produced]]:
        """The request of a body and its messages."""
        asked = _decoded(self._produce_body, body)
        if not asked.messages:
            raise InvalidInput("messages is empty: there is nothing to produce")
        if len(asked.messages) > self._settings.max_batch_messages:
            raise InvalidInput(f"messages has more than {self._settings.max_batch_messages} entries")
        return asked, [self._produced(number, message) for number, message in enumerate(asked.messages)]

    def _produced(self, number: int, message: ProducedMessage) -> Produced:
        payload = _payload(number, message.payload)
        if len(payload) > self._settings.max_message_bytes:
            raise MessageTooLarge(
                f"messages[{number}].payload has {len(payload)} bytes; a message may have "
                f"{self._settings.max_message_bytes}"
            )
        key = message.key
        if key is not None and len(key) > self._settings.max_key_bytes // 4:
            size = len(key.encode())
            if size > self._settings.max_key_bytes:
                raise MessageTooLarge(
                    f"messages[{number}].key has {size} bytes; a key may have {self._settings.max_key_bytes}"
                )
        partition = None if message.partition_id is None else _partition(message.partition_id)
        return Produced(payload, key, partition)

    # --- who and what --------------------------------------------------------------------------------------------

    def _named(self, topic_id: str) -> tuple[str, str]:
        """Namespace and name of a topic's id; without a namespace it is in the default one."""
        namespace, dot, name = topic_id.rpartition(".")
        if not name or (dot and not namespace) or len(topic_id) > _LONGEST_ID:
            raise InvalidInput("topic_id must be a topic's name, 'namespace.name'")
        return self._state.database.scope(namespace or DEFAULT_NAMESPACE), name.lower()

    def _holder(self, consumer_id: str | None, identity: Identity, exchange: Exchange) -> str:
        if consumer_id is not None:
            if not 1 <= len(consumer_id) <= _LONGEST_ID:
                raise InvalidInput(f"consumer_id must have 1 to {_LONGEST_ID} characters")
            return f"{NAMED}{identity.user}:{consumer_id}"
        connection = exchange.scope.get("extensions", {}).get(CONNECTION, {})
        return f"{self._boot}:{connection.get('number', 0)}:{identity.user}"

    def _is_gone(self, holder: str) -> bool:
        """Whether a holder is a connection of this run of the server, and closed."""
        boot, _, rest = holder.partition(":")
        number, _, _ = rest.partition(":")
        return boot == self._boot and not self._state.limits.is_open(int(number))


def _decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidInput(f"Invalid request: {error}") from None
    except RecursionError:
        raise InvalidInput("Invalid request: it is nested too deeply") from None


def _check_group(group: str) -> None:
    refusal = group_refusal(group)
    if refusal:
        raise InvalidInput(f"group_id {refusal}")


def _start(start: str | dict[str, int] | None) -> Start | None:
    """Where a new group begins, of every spelling."""
    if start is None:
        return None
    if isinstance(start, str):
        word = start.lower()
        if word in {EARLIEST, LATEST}:
            return word
    elif len(start) == 1:
        name, offset = next(iter(start.items()))
        if name in {"Offset", "offset"} and 0 <= offset <= _LARGEST_OFFSET:
            return offset
    raise InvalidInput('start must be "Latest", "Earliest" or {"Offset": n} with n from 0')


def _within(name: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise InvalidInput(f"{name} must be between {least} and {most}, not {value}")
    return value


def _partition(value: int) -> int:
    return _within("partition_id", value, 0, 2**31 - 1)


def _seconds(name: str, value: float, most: float, *, cut: bool = False) -> float:
    """A time; one that is longer than the most is refused, or cut where clients ask for "as long as possible"."""
    if not 0 <= value <= (float("inf") if cut else most):
        raise InvalidInput(f"{name} must be between 0 and {most:g}, not {value:g}")
    return min(value, most)


def _payload(number: int, payload: msgspec.Raw) -> bytes:
    """The bytes of a payload: a string is base64, any other value its JSON text."""
    text = bytes(payload)
    if text[:1] != b'"':
        return msgspec.json.format(text, indent=-1)
    try:
        return msgspec.json.decode(text, type=bytes)
    except msgspec.MsgspecError:
        raise InvalidInput(
            f"messages[{number}].payload is a string and not base64; send bytes as base64, and JSON values as they are"
        ) from None


def _rendered(batch: Batch, topic_id: str) -> ConsumeAnswer:
    messages = [_message(message, topic_id) for message in batch.messages]
    positions = [PartitionPosition(partition, offset) for partition, offset in batch.positions.items()]
    return ConsumeAnswer(messages, batch.next_offset, batch.has_more, positions)


def _message(message: Message, topic_id: str) -> TopicMessage:
    origin = message.origin
    return TopicMessage(
        topic_id,
        message.partition,
        message.offset,
        message.payload,
        message.key,
        message.timestamp_us // 1000,
        message.user or msgspec.UNSET,
        _OPERATIONS[message.operation],
        message.deliveries or msgspec.UNSET,
        msgspec.UNSET
        if origin is None
        else MessageOrigin(origin.topic, origin.partition, origin.offset, origin.deliveries),
    )
