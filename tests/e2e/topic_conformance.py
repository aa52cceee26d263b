"""A strict client of the topic routes, made from the contract alone: every field of every answer is checked."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
import xxhash

from tests.e2e.conformance import LONGEST
from tests.e2e.running import RunningServer

CONSUME, ACK, PRODUCE = (f"/v1/api/topics/{name}" for name in ("consume", "ack", "produce"))
PATIENCE = 30
"""Seconds for which a long poll waits that must be woken."""

T = TypeVar("T")
NAMES = count(1)
ALWAYS = {"topic_id", "partition_id", "offset", "payload", "key", "timestamp_ms", "op"}
ORIGIN = {"topic_id": str, "partition_id": int, "offset": int, "delivery_count": int}


class Message(NamedTuple):
    """One message, its shape checked; fields that were left out are None."""

    topic: str
    partition: int
    offset: int
    key: str | None
    data: bytes
    op: str
    timestamp_ms: int
    user: str | None = None
    delivery_count: int | None = None
    origin: dict[str, Any] | None = None

    @property
    def json(self) -> Any:
        """The payload, as JSON text has it."""
        return json.loads(self.data, parse_constant=_refuse_constant)

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset."""
        return self.partition, self.offset


class Batch(NamedTuple):
    """The answer to a consume, its shape checked."""

    messages: list[Message]
    has_more: bool
    next_offset: int | None
    positions: dict[int, int]

    @property
    def offsets(self) -> list[int]:
        """The offsets, in the order of the answer."""
        return [message.offset for message in self.messages]

    @property
    def keys(self) -> list[str | None]:
        """The keys, in the order of the answer."""
        return [message.key for message in self.messages]

    @property
    def payloads(self) -> list[Any]:
        """The payloads read as JSON, in the order of the answer."""
        return [message.json for message in self.messages]

    @property
    def counts(self) -> list[int | None]:
        """The delivery counts, in the order of the answer."""
        return [message.delivery_count for message in self.messages]


class Refusal(NamedTuple):
    """An error answer of a topic route, its shape checked."""

    status: int
    code: str
    message: str
    fields: dict[str, Any]


def partition_of(key: str, partitions: int) -> int:
    """Where a key belongs: xxHash64 with seed 0 of its UTF-8 text, modulo the number of partitions."""
    return xxhash.xxh64_intdigest(key.encode(), seed=0) % partitions


def short(value: object) -> str:
    """A name of a parameter that is not as long as it may be."""
    return str(value)[:40]


def key_for(partition: int, partitions: int, prefix: str = "k") -> str:
    """Some key that belongs to a partition."""
    return next(key for key in (f"{prefix}{each}" for each in count()) if partition_of(key, partitions) == partition)


def refusal(answer: httpx.Response) -> Refusal:
    """An error in the shape of the topic routes, after every field was checked."""
    assert 400 <= answer.status_code < 500, answer.text[:LONGEST]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Request-ID"]
    body = answer.json()
    assert {"error", "code"} <= set(body), body
    assert isinstance(body["error"], str)
    assert body["error"]
    assert "Traceback" not in body["error"]
    assert body["code"] == body["code"].upper()
    more = {name: value for name, value in body.items() if name not in {"error", "code"}}
    return Refusal(answer.status_code, body["code"], body["error"], more)


def _refuse_constant(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def _whole(value: object) -> int:
    assert type(value) is int, value
    return value


def _message(body: dict[str, Any], *, grouped: bool) -> Message:
    optional = {"user", "origin"} | ({"delivery_count"} if grouped else set())
    assert set(body) >= ALWAYS | ({"delivery_count"} if grouped else set()), body
    assert set(body) <= ALWAYS | optional, body
    assert body["op"] in {"Insert", "Update", "Delete"}
    assert body["key"] is None or isinstance(body["key"], str)
    assert isinstance(body.get("user", ""), str)
    assert _whole(body["timestamp_ms"]) > 1_700_000_000_000
    assert _whole(body["offset"]) >= 0
    assert _whole(body["partition_id"]) >= 0
    if grouped:
        assert _whole(body["delivery_count"]) >= 1
    if "origin" in body:
        assert {name: type(value) for name, value in body["origin"].items()} == ORIGIN
    return Message(
        body["topic_id"],
        body["partition_id"],
        body["offset"],
        body["key"],
        base64.b64decode(body["payload"], validate=True),
        body["op"],
        body["timestamp_ms"],
        body.get("user"),
        body.get("delivery_count"),
        body.get("origin"),
    )


def batch_of(answer: httpx.Response, request: Mapping[str, Any]) -> Batch:
    """A success of consume, after every field was checked."""
    assert answer.status_code == 200, answer.text[:LONGEST]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Request-ID"]
    body = answer.json()
    assert set(body) == {"messages", "next_offset", "has_more", "positions"}, set(body)
    assert type(body["has_more"]) is bool
    messages = [_message(each, grouped=request.get("group_id") is not None) for each in body["messages"]]
    assert len(messages) <= request.get("limit", 100)
    for each in body["positions"]:
        assert set(each) == {"partition_id", "next_offset"}
        assert _whole(each["next_offset"]) >= 0
    positions = {_whole(each["partition_id"]): each["next_offset"] for each in body["positions"]}
    assert len(positions) == len(body["positions"])
    last: dict[int, int] = {}
    for message in messages:
        assert message.topic == request["topic_id"]
        assert message.offset > last.get(message.partition, -1), "offsets of a partition ascend"
        assert request.get("partition_id") in {None, message.partition}
        last[message.partition] = message.offset
    for partition, offset in last.items():
        assert positions[partition] >= offset + 1
    if request.get("partition_id") is not None:
        assert body["next_offset"] == positions[request["partition_id"]]
    if body["next_offset"] is not None:
        _whole(body["next_offset"])
    return Batch(messages, body["has_more"], body["next_offset"], positions)


class Topics:
    """Requests to topics in one role; each thread has its own connection."""

    def __init__(self, server: RunningServer, token: str | None = None) -> None:
        self.server = server
        self.token = token or server.token
        self._local = threading.local()
        self._clients: list[httpx.Client] = []

    @property
    def client(self) -> httpx.Client:
        """The connection of this thread."""
        if not hasattr(self._local, "client"):
            self._local.client = self.server.client_of(self.token)
            self._clients.append(self._local.client)
        found: httpx.Client = self._local.client
        return found

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients:
            client.close()
        self._local = threading.local()
        self._clients = []

    # --- what tests write with -----------------------------------------------------------------------------------

    def topic(self, partitions: int = 1, **options: Any) -> str:
        """A new topic; its name."""
        name = f"app.topic{next(NAMES)}"
        chosen = ", ".join(f"{key} = {value!r}" for key, value in options.items())
        sql = f"CREATE TOPIC {name} PARTITIONS {partitions}" + (f" WITH ({chosen})" if chosen else "")
        (result,) = self.server.sql(sql)
        assert result["message"] == f"Created topic '{name}' with {partitions} partition(s)"
        return name

    def table(self, columns: str = "id INT PRIMARY KEY, v TEXT", kind: str = "SHARED", more: str = "") -> str:
        """A new table; its name."""
        name = f"app.table{next(NAMES)}"
        self.server.sql(f"CREATE {kind} TABLE {name} ({columns}) {more}")
        return name

    def source(
        self, topic: str, table: str, on: str = "INSERT UPDATE DELETE", where: str = "", payload: str = "full"
    ) -> None:
        """Add sources."""
        condition = f" WHERE {where}" if where else ""
        for operation in on.split():
            (result,) = self.server.sql(
                f"ALTER TOPIC {topic} ADD SOURCE {table} ON {operation}{condition} WITH (payload = '{payload}')"
            )
            expected = f"Added source {table} ON {operation.capitalize()} to topic '{topic}'"
            assert result["message"] == expected

    # --- requests ------------------------------------------------------------------------------------------------

    def post(self, path: str, body: Any) -> httpx.Response:
        """Send any JSON."""
        return self.client.post(path, json=body)

    def consume(self, topic: str, group: str | None = None, start: Any = "Earliest", **more: Any) -> Batch:
        """Consume; fails unless it is a success."""
        request = {"topic_id": topic, "start": start} | ({} if group is None else {"group_id": group}) | more
        return batch_of(self.post(CONSUME, request), request)

    def read(self, topic: str, **more: Any) -> list[Message]:
        """Everything that a topic holds, by partition and offset; checks that no offset is left out."""
        found: list[Message] = []
        for partition in range(self.partitions(topic)):
            at: Any = "Earliest"
            while batch := self.consume(topic, None, at, partition_id=partition, limit=1_000, **more):
                if not batch.messages:
                    break
                found += batch.messages
                at = {"Offset": batch.next_offset}
            offsets = [message.offset for message in found if message.partition == partition]
            assert offsets == list(range(offsets[0] if offsets else 0, offsets[-1] + 1 if offsets else 0))
        return found

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has."""
        ((found,),) = self.server.rows("SELECT partitions FROM system.topics WHERE topic_id = $1", [topic])
        return int(found)

    def ack(self, topic: str, group: str, upto: int | None, **more: Any) -> int:
        """Acknowledge; fails unless it is a success. The acknowledged offset."""
        answer = self.post(ACK, {"topic_id": topic, "group_id": group, "upto_offset": upto} | more)
        assert answer.status_code == 200, answer.text[:LONGEST]
        body = answer.json()
        assert set(body) == {"success", "acknowledged_offset"}
        assert body["success"] is True
        found: int = body["acknowledged_offset"]
        assert type(found) is int or (found is None and upto is None), "null: nothing was acknowledged yet"
        return found

    def produce(self, topic: str, *messages: Any) -> list[tuple[int, int]]:
        """Produce; fails unless it is a success. Partition and offset of each message."""
        answer = self.post(PRODUCE, {"topic_id": topic, "messages": list(messages)})
        assert answer.status_code == 200, answer.text[:LONGEST]
        body = answer.json()
        assert set(body) == {"success", "count", "results"}
        assert body["success"] is True
        assert body["count"] == len(messages) == len(body["results"])
        for each in body["results"]:
            assert set(each) == {"partition_id", "offset"}
        return [(_whole(each["partition_id"]), _whole(each["offset"])) for each in body["results"]]

    def fill(self, topic: str, messages: int, key: str = "k") -> None:
        """Produce messages 0, 1, … with one key."""
        self.produce(topic, *({"key": key, "payload": {"n": each}} for each in range(messages)))

    def refused(self, path: str, **body: Any) -> Refusal:
        """A request that must fail."""
        return refusal(self.post(path, body))

    def committed(self, topic: str, group: str) -> dict[int, int]:
        """The last acknowledged offset of each partition, as the system table has it."""
        sql = "SELECT partition_id, last_acked_offset FROM system.topic_offsets WHERE topic_id = $1 AND group_id = $2"
        return {
            partition: int(offset) for partition, offset in self.server.rows(sql, [topic, group]) if offset is not None
        }


@contextmanager
def beside(run: Callable[[], T]) -> Iterator[Future[T]]:
    """Run something on a thread of its own; its result is taken when it is asked for."""
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(run)


@contextmanager
def topic_server(folder: Path, **changes: str) -> Iterator[Topics]:
    """A server with a namespace `app`; it must log no traceback and stop in good order."""
    running = RunningServer(folder / "data", changes=changes)
    topics: Topics | None = None
    try:
        running.start().set_up()
        running.sql("CREATE NAMESPACE app")
        topics = Topics(running)
        yield topics
        topics.close()
        assert running.stop() == 0, running.log()
        assert "Traceback" not in running.log(), running.log()[-4000:]
    finally:
        if topics is not None:
            topics.close()
        running.kill()
