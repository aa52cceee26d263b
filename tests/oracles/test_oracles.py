"""Random queries asked in two ways (`oracles`) over random worlds (`worlds`), in the database in process.

A world is made of one number. HEADRACE_ORACLE_WORLDS is how many are tried; HEADRACE_ORACLE_FIRST is the first, so that
`HEADRACE_ORACLE_FIRST=17 HEADRACE_ORACLE_WORLDS=1` repeats the failure of world 17.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from sql.database import Database
from sql.duck import DuckOptions
from sql.errors import SqlError
from sql.identity import Identity, Role
from sql.results import ResultColumn
from sql.wire import BigintMode, wire_values
from storage.catalog import NamespaceDef
from storage.engine import StorageEngine, StorageOptions
from tests.oracles.oracles import Mismatch, Oracles, Refused, Rows, bag
from tests.oracles.worlds import Table, tables

WORLDS = int(os.environ.get("HEADRACE_ORACLE_WORLDS") or "12")
FIRST = int(os.environ.get("HEADRACE_ORACLE_FIRST") or "1")
QUERIES = 60
"""Draws in each world."""
RUNTIME_ERRORS = {"SQL_EXECUTION_ERROR"}
DBA = Identity("dora", Role.DBA)
ALICE = Identity("alice", Role.SERVICE)
BOB = Identity("bob", Role.SERVICE)

pytestmark = pytest.mark.timeout(7_200)


class Asked:
    """The database as one user sees it."""

    def __init__(self, runner: asyncio.Runner, database: Database, namespace: str, counts: Counter[str]) -> None:
        self._runner = runner
        self._database = database
        self._namespace = namespace
        self._counts = counts

    def run(self, sql: str, identity: Identity = ALICE) -> None:
        """Run a statement that must succeed."""
        self._runner.run(self._database.execute(sql, None, self._namespace, identity))

    def rows(self, sql: str) -> Rows:
        """The rows of a query."""
        return self._answer(sql, self._execute(sql))

    def streamed(self, sql: str) -> Rows:
        """The rows of a query, made by DuckDB unless it is a point read."""
        return self._answer(sql, self._stream(sql))

    def _answer(self, sql: str, rows: object) -> Rows:
        self._counts["asked"] += 1
        try:
            return self._runner.run(rows)  # type: ignore[arg-type]
        except SqlError as error:
            if error.code not in RUNTIME_ERRORS:
                raise Mismatch(f"{sql}\n  is refused: {error.code} {error.message}") from error
            self._counts["refused"] += 1
            raise Refused(error.message) from error

    async def _execute(self, sql: str) -> Rows:
        [result] = await self._database.execute(sql, None, self._namespace, ALICE)
        if result.table is None:
            return [tuple(_hashable(value) for value in row) for row in result.rows or ()]
        return _wire_rows(result.table.columns, result.columns)

    async def _stream(self, sql: str) -> Rows:
        stream = await self._database.stream(sql, None, self._namespace, ALICE)
        rows: Rows = []
        async for batch in stream.batches:
            rows += _wire_rows(batch.columns, stream.columns)
        return rows


def _wire_rows(columns: Sequence[pa.Array | pa.ChunkedArray], types: Sequence[ResultColumn]) -> Rows:
    """Rows as a client sees them."""
    shown = [
        wire_values(column, result.type, BigintMode.NUMBER, result.name)
        for column, result in zip(columns, types, strict=True)
    ]
    return [tuple(_hashable(value) for value in row) for row in zip(*shown, strict=True)]


def _hashable(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.Runner, Database, StorageEngine]]:
    options = StorageOptions(map_start=64 << 20, merge=False)
    with (
        StorageEngine.open(Path(tmp_path_factory.mktemp("oracles")) / "data", options) as engine,
        asyncio.Runner() as runner,
    ):

        async def make() -> Database:
            return Database(engine, duck=DuckOptions(threads=1, connections=1), bigint=BigintMode.NUMBER)

        database = runner.run(make())
        yield runner, database, engine
        database.close()


NUMBERS = itertools.count()


def fill(asked: Asked, made: tuple[Table, ...]) -> None:
    """Create the tables and insert the rows of Alice and Bob."""
    for table in made:
        asked.run(table.definition, DBA)
        if table.rows:
            asked.run(table.insert(table.rows))
        if not table.shared and table.others:
            asked.run(table.insert(table.others), BOB)


@pytest.mark.parametrize("world", range(FIRST, FIRST + WORLDS))
def test_two_ways_agree(world: int, place: tuple[asyncio.Runner, Database, StorageEngine]) -> None:
    runner, database, engine = place
    namespace = f"w{next(NUMBERS)}"
    engine.commit_sync(lambda writer: writer.put_namespace(NamespaceDef(namespace)))
    rng = random.Random(world)
    made = tables(rng)
    counts: Counter[str] = Counter()
    asked = Asked(runner, database, namespace, counts)
    fill(asked, made)
    oracles = Oracles(rng, made, asked)
    names = oracles.all()
    try:
        for draw in range(QUERIES):
            name = names[draw % len(names)]
            try:
                oracles.run(name)
            except Refused:
                continue
            except Mismatch as mismatch:
                rows = "\n".join(f"{t.definition};\n{t.insert(t.rows) if t.rows else '-- no rows'};" for t in made)
                pytest.fail(f"world {world}, draw {draw}, {name}:\n{mismatch}\n\n{rows}")
    finally:
        for table in made:
            asked.run(f"DROP TABLE {table.name}", DBA)
    assert counts["refused"] <= 0.35 * counts["asked"], counts


class Fixed:
    """Answers that a test gives, by what the query has in it."""

    def __init__(self, answers: dict[str, Rows]) -> None:
        self.answers = answers

    def rows(self, sql: str) -> Rows:
        return next((rows for part, rows in self.answers.items() if part in sql), [])

    streamed = rows


def test_a_condition_that_loses_rows_is_caught() -> None:
    made = tables(random.Random(1))
    wrong = Fixed({"WHERE": [], "SELECT": [(1,)]})
    caught = 0
    for seed in range(30):
        try:
            Oracles(random.Random(seed), made, wrong).run("where")
        except Mismatch:
            caught += 1
    assert caught > 20, caught


def test_rows_are_compared_as_values() -> None:
    assert bag([(0.0, None)]) == bag([(-0.0, None)])
    assert bag([(1,), (1,)]) != bag([(1,)])
    assert bag([(1,)]) != bag([("1",)])
