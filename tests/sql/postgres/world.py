"""The typed rows that expressions are asked over, in PostgreSQL and in Headrace."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sql.database import Database
from sql.duck import DuckOptions
from sql.errors import SqlError
from sql.identity import Identity, Role
from storage import StorageEngine, StorageOptions
from storage.catalog import NamespaceDef
from tests.sql.postgres.values import Answer, our_answer

_COLUMNS = """
    id INTEGER PRIMARY KEY, i INTEGER, b BIGINT, s SMALLINT, d DOUBLE PRECISION, n NUMERIC(12, 3), tx TEXT, bo BOOLEAN,
    da DATE, ts TIMESTAMP, tz {datetime}, j {json}, u UUID, by {bytes}
"""
POSTGRES_TABLE = f"CREATE TABLE typed ({_COLUMNS.format(datetime='TIMESTAMPTZ', json='JSONB', bytes='BYTEA')});\n"
HEADRACE_TABLE = (
    f"CREATE SHARED TABLE typed ({_COLUMNS.format(datetime='DATETIME', json='JSON', bytes='BYTES')})"
    " WITH (ACCESS_LEVEL = 'public')"
)
ROWS = """
INSERT INTO typed VALUES
(1, 1, 10, 2, 1.5, 1.250, 'hello', true, '2024-02-29', '2024-02-29 12:30:45.5', '2024-02-29 12:30:45.5+00',
 '{"a": 1, "list": [1, 2, 3], "name": "x", "deep": {"er": {"x": "y"}}}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
 '\\x0102ff'),
(2, -7, -9007199254740993, -3, -2.5, -2.500, 'World', false, '1999-12-31', '1999-12-31 23:59:59',
 '1999-12-31 23:59:59+02', '{"a": null, "list": []}', '00000000-0000-0000-0000-000000000001', '\\x'),
(3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
(4, 3, 9000000000, 5, 0.1, 1000.005, 'hello world', true, '2024-03-01', '2024-03-01 00:00:00', '2024-03-01 00:00:00+00',
 '[1, "two"]', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '\\x41'),
(5, 1, 0, 0, 3, 0.000, '', false, '2024-01-31', '2024-01-31 10:20:30.123456', '2024-01-31 10:20:30-08',
 '{"a": "text", "name": null}', NULL, '\\x4142');
"""

ANN = Identity("ann", Role.DBA)


class Headrace:
    """The same rows in Headrace."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loop = asyncio.new_event_loop()

    def run(self, text: str) -> Answer:
        """What one statement answers."""
        try:
            results = self._loop.run_until_complete(self._database.execute(text, None, None, ANN))
        except SqlError as error:
            return Answer("error", [], str(error))
        return our_answer(results[-1])

    def ask(self, expression: str) -> Answer:
        """The answer to one expression."""
        return self.run(f"SELECT {expression}")

    def close(self) -> None:
        """End the loop."""
        self._loop.close()


@contextmanager
def headrace(folder: Path) -> Iterator[Headrace]:
    """A database with the typed rows."""
    with StorageEngine.open(folder / "data", StorageOptions(map_start=64 << 20)) as engine:
        engine.commit_sync(lambda writer: writer.put_namespace(NamespaceDef("default")))
        options = DuckOptions(memory_bytes=256 << 20, threads=1, connections=1)
        database = Database(engine, temp_folder=folder / "duck", duck=options)
        world = Headrace(database)
        for text in (HEADRACE_TABLE, ROWS):
            answer = world.run(text)
            assert answer.kind != "error", answer
        try:
            yield world
        finally:
            world.close()
            database.close()
