"""A database with tables of every kind and access, and the shortest way to ask it something in somebody's name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sql.database import Database
from sql.errors import SqlError
from sql.identity import Identity, Role
from sql.results import StatementResult
from sql.system_rows import ServerFacts
from storage.catalog import NamespaceDef
from storage.engine import StorageEngine
from storage.options import StorageOptions

ROLES = {role: Identity(f"a_{role.value}", role) for role in Role}
ADMIN = ROLES[Role.DBA]

SET_UP = """
CREATE NAMESPACE shop;
CREATE USER TABLE shop.carts (item BIGINT, size TEXT, amount INT NOT NULL DEFAULT 1, PRIMARY KEY (item, size),
    CONSTRAINT few CHECK (amount < 100 AND item > 0));
CREATE TABLE shop.items (id BIGINT PRIMARY KEY, name TEXT NOT NULL UNIQUE, price DECIMAL(10,2), added TIMESTAMP
    DEFAULT NOW(), tags JSON) WITH (ACCESS_LEVEL = 'PUBLIC');
CREATE TABLE shop.costs (id UUID PRIMARY KEY, cost DOUBLE, since DATE);
CREATE TABLE shop.wages (id INT PRIMARY KEY, wage FLOAT) WITH (ACCESS_LEVEL = 'DBA');
CREATE STREAM TABLE shop.clicks (id BIGINT PRIMARY KEY, at DATETIME, x SMALLINT) WITH (TTL_SECONDS = 3600);
CREATE NAMESPACE shown;
CREATE VIEW shown.cheap AS SELECT id, name, price FROM shop.items WHERE price < 10;
CREATE VIEW shown.cheapest AS SELECT min(price) AS least FROM shown.cheap;
CREATE VIEW shown.payroll AS SELECT sum(wage) AS total FROM shop.wages;
"""
VIEWS = ("cheap", "cheapest", "payroll")
TABLES = ("carts", "clicks", "costs", "items", "wages")


class CatalogueWorld:
    """One database on an event loop of its own."""

    def __init__(self, engine: StorageEngine, folder: Path, facts: ServerFacts | None = None) -> None:
        self.engine = engine
        self.loop = asyncio.new_event_loop()
        self.database = Database(
            engine, temp_folder=folder / "duck", facts=facts, settings=lambda: [("server.port", "1", "Port", "server")]
        )

    def results(
        self, sql: str, *params: object, identity: Identity = ADMIN, namespace: str | None = None
    ) -> list[StatementResult]:
        """What statements answer."""
        return self.loop.run_until_complete(self.database.execute(sql, params, namespace, identity))

    def rows(
        self, sql: str, *params: object, identity: Identity = ADMIN, namespace: str | None = None
    ) -> list[tuple[object, ...]]:
        """The rows of the last statement, as storage values of Python."""
        result = self.results(sql, *params, identity=identity, namespace=namespace)[-1]
        if result.rows is not None:
            return [tuple(row) for row in result.rows]
        assert result.table is not None
        return list(zip(*(column.to_pylist() for column in result.table.columns), strict=True))

    def error(self, sql: str, *params: object, identity: Identity = ADMIN) -> SqlError | None:
        """What statements fail with, if they do."""
        try:
            self.results(sql, *params, identity=identity)
        except SqlError as error:
            return error
        return None


@contextmanager
def catalogue_world(folder: Path, facts: ServerFacts | None = None) -> Iterator[CatalogueWorld]:
    """A world with the tables of SET_UP."""
    with StorageEngine.open(folder / "data", StorageOptions(map_start=64 << 20)) as engine:
        engine.commit_sync(lambda writer: writer.put_namespace(NamespaceDef("default")))
        world = CatalogueWorld(engine, folder, facts)
        try:
            world.results(SET_UP)
            yield world
        finally:
            world.database.close()
            world.loop.close()
