"""A database with topics: statements, consumers, and rows straight into storage."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sql.database import Database
from sql.identity import Identity, Role
from sql.rendering import BigintMode
from sql.topics.hub import TopicHub
from sql.topics.messages import Batch, ConsumeRequest, Message
from sql.topics.settings import TopicSettings
from storage import StorageEngine, StorageOptions, TableDef
from storage.topic_definitions import Operation, PayloadMode, TopicDef, TopicSource
from storage.topic_writes import Produced
from tests.storage.topic_world import create_topic

ROOT = Identity("root", Role.SYSTEM)
QUIET = StorageOptions(map_start=64 << 20, merge=False, evict=False)


@contextlib.asynccontextmanager
async def world(
    folder: Path, settings: TopicSettings | None = None, bigint: BigintMode = BigintMode.AUTO
) -> AsyncIterator[World]:
    """An engine in a folder, and the database above it."""
    with StorageEngine.open(folder, QUIET) as engine:
        database = Database(engine, topics=settings, bigint=bigint)
        try:
            yield World(engine, database)
        finally:
            database.close()


class World:
    """Runs statements and consumes."""

    def __init__(self, engine: StorageEngine, database: Database) -> None:
        self.engine = engine
        self.database = database
        self.hub: TopicHub = database.topics

    async def run(self, sql: str, *params: object, identity: Identity = ROOT) -> None:
        await self.database.execute(sql, params, "app", identity)

    def table(self, name: str) -> TableDef:
        found = self.engine.catalog.table("app", name)
        assert found is not None
        return found

    def topic(
        self,
        name: str,
        table: str | None = None,
        payload: PayloadMode = PayloadMode.FULL,
        condition: str | None = None,
        operations: Sequence[Operation] = tuple(Operation),
        **more: object,
    ) -> TopicDef:
        """A topic over the changes of one table."""
        if table is None:
            return create_topic(self.engine, name, **more)
        columns: Any = more.pop("columns", ())
        sources = [
            TopicSource(0, self.table(table).table_id, operation, payload, condition, columns)
            for operation in operations
        ]
        return create_topic(self.engine, name, sources, **more)

    async def produce(self, topic: str, *payloads: bytes, partition: int | None = 0) -> list[int]:
        placed = await self.hub.produce("app", topic, [Produced(p, None, partition) for p in payloads], "ann")
        return [place.offset for place in placed]

    async def consume(self, topic: str, **more: Any) -> Batch:
        return await self.hub.consume(request(topic, **more))

    async def messages(self, topic: str) -> list[Message]:
        """All of them, for nobody in particular."""
        return list((await self.consume(topic, start="earliest", limit=10_000)).messages)

    async def payloads(self, topic: str) -> list[Any]:
        """All payloads as JSON."""
        return [json.loads(message.payload) for message in await self.messages(topic)]

    async def ack(self, topic: str, upto: int, holder: str = "=a", partition: int = 0) -> int:
        return await self.hub.acknowledge(
            "app", topic, "g", partition, upto, holder, back=False, is_gone=lambda other: False
        )


def request(topic: str, **more: Any) -> ConsumeRequest:
    """A request of a consumer named `=a`."""
    made = ConsumeRequest(namespace="app", topic=topic, holder="=a")
    return msgspec.structs.replace(made, **more)


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait for a condition."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "the condition never came true"
        await asyncio.sleep(0)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test on an event loop of its own."""

    @functools.wraps(test)
    def run(*arguments: object, **named: object) -> None:
        asyncio.run(test(*arguments, **named))

    return run
