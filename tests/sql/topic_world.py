"""A database with topics, driven one statement at a time, as clients drive it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sql.database import Database
from sql.identity import Identity, Role
from sql.results import StatementResult
from sql.topics.settings import TopicSettings
from storage import StorageEngine, StorageOptions
from storage.catalog import NamespaceDef
from storage.topic_definitions import TopicDef

ROOT = Identity("root", Role.SYSTEM)
DORA = Identity("dora", Role.DBA)
SAM = Identity("sam", Role.SERVICE)
SUE = Identity("sue", Role.SERVICE)
ANN = Identity("ann", Role.USER)
BOB = Identity("bob", Role.USER)

Row = tuple[Any, ...]


class TopicWorld:
    """One engine and one database on an event loop that runs while a statement does."""

    def __init__(self, runner: asyncio.Runner, engine: StorageEngine, database: Database) -> None:
        self.runner = runner
        self.engine = engine
        self.database = database

    def results(
        self, sql: str, *params: object, who: Identity = ROOT, namespace: str | None = "app"
    ) -> list[StatementResult]:
        return self.runner.run(self.database.execute(sql, list(params), namespace, who))

    def run(self, sql: str, *params: object, who: Identity = ROOT, namespace: str | None = "app") -> StatementResult:
        """The result of the last statement."""
        return self.results(sql, *params, who=who, namespace=namespace)[-1]

    def message(self, sql: str, *params: object, who: Identity = ROOT, namespace: str | None = "app") -> str:
        message = self.run(sql, *params, who=who, namespace=namespace).message
        assert message is not None
        return message

    def rows(self, sql: str, *params: object, who: Identity = ROOT, namespace: str | None = "app") -> list[Row]:
        return rows_of(self.run(sql, *params, who=who, namespace=namespace))

    def topic(self, name: str) -> TopicDef:
        namespace, _, own = name.partition(".")
        found = self.engine.catalog.topic(namespace, own)
        assert found is not None
        return found

    def consumed(self, topic: str, who: Identity = ROOT) -> list[tuple[str, str | None, str | None, Any]]:
        """(operation, key, user, payload as JSON) of every message of a topic, partition by partition."""
        rows = self.rows(f"CONSUME FROM {topic} FROM EARLIEST LIMIT 500", who=who)
        return [(row[7], row[3], row[6], json.loads(row[4])) for row in rows]


def rows_of(result: StatementResult) -> list[Row]:
    if result.rows is not None:
        return [tuple(row) for row in result.rows]
    assert result.table is not None
    return list(zip(*(column.to_pylist() for column in result.table.columns), strict=True))


@contextmanager
def topic_world(folder: Path, settings: TopicSettings | None = None) -> Iterator[TopicWorld]:
    """A world with the namespaces `default`, `app` and `other`."""
    options = StorageOptions(map_start=64 << 20, merge=False)
    with asyncio.Runner() as runner, StorageEngine.open(folder / "data", options) as engine:
        for name in ("default", "app", "other"):
            engine.commit_sync(lambda writer, name=name: writer.put_namespace(NamespaceDef(name)))

        async def made() -> Database:
            return Database(engine, temp_folder=folder / "duck", topics=settings)

        database = runner.run(made())
        try:
            yield TopicWorld(runner, engine, database)
        finally:
            database.close()
