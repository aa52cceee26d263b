"""Queries, constraints, EXPLAIN ANALYZE, live queries and topics over rows that lie in Parquet."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from sql.duck import DuckOptions, DuckPool
from sql.errors import SqlError
from sql.live.subscription import LiveOptions
from sql.scanning import read_scan
from storage import StorageEngine, StorageOptions
from storage.catalog import NamespaceDef, TableKind
from storage.errors import StorageCorrupt
from tests.sql import query_grammar
from tests.sql.fake_view import FakeView
from tests.sql.live.hub_world import QUIET, SMALL_RING, Client
from tests.sql.live.hub_world import world as live_world
from tests.sql.query_grammar import Column, Query
from tests.sql.query_support import SERVICE, World, rows_of, table
from tests.sql.topic_world import TopicWorld, topic_world
from tests.storage.helpers import rows_of as stored_rows

QUERIES = 8


@pytest.fixture(scope="module")
def pool() -> Iterator[DuckPool]:
    pool = DuckPool(DuckOptions(memory_bytes=256 << 20, threads=1, connections=1))
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageEngine]:
    options = StorageOptions(map_start=64 << 20, merge=False, evict=False)
    with StorageEngine.open(tmp_path_factory.mktemp("cold"), options) as opened:
        opened.commit_sync(lambda wtxn: wtxn.put_namespace(NamespaceDef("default")))
        yield opened


@st.composite
def worlds(draw: st.DrawFn) -> tuple[tuple[Column, ...], list[list[tuple[object, ...]]], list[Query]]:
    """A table, its rows in a few parts (each becomes a file), and queries."""
    shape = draw(query_grammar.columns())
    rows = draw(query_grammar.rows(shape))
    cuts = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    parts = [rows[start:end] for start, end in itertools.pairwise([0, *cuts, len(rows)])]
    return shape, parts, draw(st.lists(query_grammar.queries(shape), min_size=QUERIES, max_size=QUERIES))


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
@given(world=worlds(), hot=st.booleans())
def test_flushed_rows_answer_as_if_they_were_not(
    pool: DuckPool,
    engine: StorageEngine,
    world: tuple[tuple[Column, ...], list[list[tuple[object, ...]]], list[Query]],
    hot: bool,
) -> None:
    shape, parts, queries = world
    with engine.snapshot() as snapshot:
        table_id = snapshot.allocate_table_id()
    definition = table(
        table_id,
        "t",
        [(c.name, c.type) for c in shape],
        key=[c.name for c in shape if c.key],
        kind=TableKind.SHARED,
    )
    engine.commit_sync(lambda wtxn: wtxn.put_table(definition))
    view = FakeView([definition])
    view.put(definition, "", [row for part in parts for row in part])
    for part in parts:
        if part:
            rows = stored_rows(definition, part)
            engine.commit_sync(lambda wtxn, rows=rows: wtxn.insert(definition, "", rows))
        if not hot or part is not parts[-1]:
            engine.cold.flush(definition.table_id)
    try:
        with engine.snapshot() as snapshot:
            for query, forced in itertools.product(queries, (False, True)):
                note(f"{query.text} {query.params}")
                expected = answer(World(view, pool), query, forced)
                assert answer(World(snapshot, pool), query, forced) == expected  # type: ignore[arg-type]
    finally:
        engine.commit_sync(lambda wtxn: wtxn.drop_table(definition.table_id))


def answer(world: World, query: Query, forced: bool) -> object:
    """The rows of a query (as a set where it orders none), or its error."""
    try:
        found = rows_of(world.run(query.text, *query.params, identity=SERVICE, duckdb=forced))
    except SqlError as error:
        return type(error).__name__, error.message
    return found if "ORDER BY" in query.text else sorted(found, key=repr)


# --- through statements ----------------------------------------------------------------------------------------------


@pytest.fixture
def cold(tmp_path: Path) -> Iterator[TopicWorld]:
    """A SHARED table in five files of 100 rows."""
    with topic_world(tmp_path) as world:
        world.run(
            "CREATE SHARED TABLE app.m "
            "(id INT PRIMARY KEY, at TIMESTAMP, value DOUBLE, name TEXT UNIQUE, day DATE, tag TEXT)"
        )
        for start in range(0, 500, 100):
            values = ", ".join(
                f"({n}, '2025-01-0{n // 100 + 1} 00:{n % 60:02}:00', {n}.5, 'n{n:03}', '2025-02-0{n // 100 + 1}', "
                f"'t{n:03}')"
                for n in range(start, start + 100)
            )
            world.run(f"INSERT INTO app.m VALUES {values}")
            flush(world)
        yield world


def flush(world: TopicWorld) -> None:
    """Move `app.m` to the cold tier."""
    found = world.engine.catalog.table("app", "m")
    assert found is not None
    world.engine.cold.flush(found.table_id)


@pytest.mark.parametrize(
    ("condition", "params", "files", "rows"),
    [
        ("id >= 120 AND id < 180", (), 1, 60),
        ("id BETWEEN $1 AND $2", (199, 200), 2, 2),
        ("value > 450", (), 1, 50),
        ("value = $1", (7.5,), 1, 1),
        ("tag = 't250'", (), 1, 1),
        ("tag IN ('t050', 't450')", (), 2, 2),
        ("at >= '2025-01-04' AND id % 2 = 0", (), 2, 100),
        ("at < $1", ("2025-01-02T00:00:00",), 2, 100),
        ("day = DATE '2025-02-03'", (), 1, 100),
        ("id < 50 OR name = 'n499'", (), 5, 51),
        ("NOT id IN (1, 2)", (), 5, 498),
        ("id > 5000", (), 0, 0),
    ],
)
def test_explain_analyze_shows_what_was_read(
    cold: TopicWorld, condition: str, params: tuple[object, ...], files: int, rows: int
) -> None:
    for select in ("SELECT * FROM app.m WHERE", "SELECT name, SUM(value) OVER () FROM app.m WHERE"):
        lines = [line for (line,) in cold.rows(f"EXPLAIN ANALYZE {select} {condition}", *params)]
        assert f"rows: {rows}" in lines, lines
        if "id" not in condition or "OR" in condition or "IN" in condition:
            wanted = f"cold: {files} files read, {5 - files} pruned; {files} row groups read, {5 - files} pruned"
            assert wanted in lines, lines


def test_constraints_and_changes_reach_cold_rows(cold: TopicWorld) -> None:
    for statement in (
        "INSERT INTO app.m (id, name) VALUES (7, 'other')",
        "INSERT INTO app.m (id, name) VALUES (1000, 'n007')",
        "UPDATE app.m SET name = 'n007' WHERE id = 8",
    ):
        with pytest.raises(SqlError, match=r"n007|7"):
            cold.run(statement)
    cold.run("UPDATE app.m SET name = 'seven' WHERE id = 7")
    cold.run("UPDATE app.m SET value = value + 1 WHERE value < 10")
    cold.run("DELETE FROM app.m WHERE id IN (8, 250)")
    cold.run("INSERT INTO app.m (id, name) VALUES (8, 'n008')")
    expected = [(7, 8.5, "seven"), (8, None, "n008"), (9, 10.5, "n009")]
    for _ in range(2):
        assert cold.rows("SELECT id, value, name FROM app.m WHERE id BETWEEN 7 AND 9 ORDER BY id") == expected
        assert cold.rows("SELECT COUNT(*), COUNT(DISTINCT name) FROM app.m") == [(499, 499)]
        flush(cold)
    found = cold.engine.catalog.table("app", "m")
    assert found is not None
    assert cold.engine.cold.compact(found.table_id) == (6, 1, 11)
    assert cold.rows("SELECT id, value, name FROM app.m WHERE id BETWEEN 7 AND 9 ORDER BY id") == expected
    assert cold.engine.check() == []


def test_point_reads_of_cold_rows_give_what_hot_ones_give(cold: TopicWorld) -> None:
    for _ in range(2):  # read from the file, then from the cache
        assert cold.rows("SELECT name, value FROM app.m WHERE id = $1", 321) == [("n321", 321.5)]
        assert cold.rows("SELECT name, value FROM app.m WHERE id = $1", 5000) == []


AGGREGATES = (
    "SELECT COUNT(*), SUM(value), MIN(tag), MAX(at) FROM app.m",
    "SELECT tag, COUNT(*) FROM app.m WHERE name LIKE 'n1%' GROUP BY tag ORDER BY tag",
    "WITH m AS (SELECT tag, value FROM app.m) SELECT COUNT(*) FROM m a JOIN m b ON a.tag = b.tag WHERE a.value < 9",
    "SELECT day, MAX(tag) FROM app.m WHERE tag > 't1' GROUP BY day ORDER BY day",
)


@pytest.mark.parametrize("query", AGGREGATES)
def test_aggregates_over_streams_are_those_over_tables(
    cold: TopicWorld, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold.run("UPDATE app.m SET tag = 'hot' WHERE id % 50 = 3")
    found = cold.rows(query)
    monkeypatch.setattr("sql.query.open_scan", read_scan)
    assert cold.rows(query) == found


def test_damage_that_a_stream_meets_is_told_as_what_it_is(cold: TopicWorld, tmp_path: Path) -> None:
    damaged = min(tmp_path.rglob("batch-*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-30])
    with pytest.raises((SqlError, StorageCorrupt), match=re.escape(damaged.name)) as told:
        cold.rows("SELECT tag, COUNT(*) FROM app.m GROUP BY tag")
    assert "Traceback" not in str(told.value)


# --- live queries and topics -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [QUIET, SMALL_RING])
def test_live_queries_resume_over_flushed_rows(tmp_path: Path, options: StorageOptions) -> None:
    """Rows move to files, die there and are purged; a client that was away gets every change once."""

    async def main() -> None:
        async with live_world(tmp_path, msgspec.structs.replace(options, cold_grace_seconds=0.0)) as world:
            await world.create()
            staying, leaving = Client("staying"), Client("leaving")
            for number in range(20):
                await world.run("INSERT INTO app.items VALUES ($1, 'a', 0)", number)
            found = world.engine.catalog.table("app", "items")
            assert found is not None
            cold = world.engine.cold
            await asyncio.to_thread(cold.flush, found.table_id)
            there = await staying.load(await world.subscribe(staying, options=LiveOptions()))
            away = await leaving.load(await world.subscribe(leaving, options=LiveOptions(), name="away"))
            await world.caught_up(there, away)
            away.close()
            for number in range(0, 20, 2):
                await world.run("UPDATE app.items SET n = 1 WHERE id = $1", number)
                await asyncio.to_thread(cold.flush, found.table_id)
            await world.run("DELETE FROM app.items WHERE id < 5")
            await asyncio.to_thread(cold.compact, found.table_id)
            await asyncio.to_thread(cold.collect)
            resumed = await world.subscribe(leaving, options=LiveOptions(from_=leaving.seq), name="again")
            await leaving.load(resumed)
            await world.caught_up(there, resumed)
            assert resumed.resumed
            assert leaving.plain() == staying.plain()
            assert staying.rows.keys() == set(range(5, 20))
            assert sum(row["n"] for row in staying.rows.values()) == 7

    asyncio.run(main())


def test_topics_deliver_flushed_and_purged_rows(tmp_path: Path) -> None:
    with topic_world(tmp_path) as world:
        world.run("CREATE SHARED TABLE app.m (id INT PRIMARY KEY, name TEXT)")
        world.run("CREATE TOPIC app.t")
        for operation in ("INSERT", "UPDATE", "DELETE"):
            world.run(f"ALTER TOPIC app.t ADD SOURCE app.m ON {operation}")
        world.run("INSERT INTO app.m VALUES (1, 'one'), (2, 'two'), (3, 'three')")
        flush(world)
        world.run("UPDATE app.m SET name = 'ONE' WHERE id = 1")
        flush(world)
        world.run("DELETE FROM app.m WHERE id IN (1, 2)")
        before = world.consumed("app.t")
        assert [(operation.upper(), payload["name"]) for operation, _, _, payload in before] == [
            ("INSERT", "one"), ("INSERT", "two"), ("INSERT", "three"), ("UPDATE", "ONE"),
            ("DELETE", "ONE"), ("DELETE", "two"),
        ]  # fmt: skip
        flush(world)
        found = world.engine.catalog.table("app", "m")
        assert found is not None
        world.engine.cold.compact(found.table_id)
        world.engine.compact()
        assert world.consumed("app.t") == before
        assert world.engine.check() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE t SET x = x + 1 WHERE id = 7",
        "UPDATE t SET x = x + 1 WHERE name = 'n7'",
        "UPDATE t SET x = x + 1 WHERE x = 7",
        "DELETE FROM t WHERE id = 7",
        "INSERT INTO t VALUES (7, 'n7', 0) ON CONFLICT (id) DO UPDATE SET x = t.x + 1",
        "UPDATE t SET x = (SELECT max(u.x) FROM t u) WHERE id IN (SELECT id FROM t WHERE id BETWEEN 7 AND 8)",
        "SELECT x FROM t WHERE id = 7",
        "SELECT x FROM t WHERE name = 'n7'",
        "SELECT count(*), sum(x) FROM t GROUP BY x % 3 ORDER BY 1, 2",
        "ACK app.m GROUP 'g' PARTITION 0 UPTO OFFSET 1",
        "PUBLISH TO app.m KEY 'k' PAYLOAD 'p'",
    ],
)
@pytest.mark.parametrize("whole", [False, True], ids=["alone", "transaction"])
def test_cold_rows_inside_the_writer(tmp_path: Path, statement: str, *, whole: bool) -> None:
    """Where others keep coming first, a statement runs in the writer, which has to put it off until files are read."""
    with topic_world(tmp_path) as world:
        world.run(
            "CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT, x BIGINT); CREATE TABLE hot (id BIGINT PRIMARY KEY)"
        )
        world.run("CREATE UNIQUE INDEX names ON t (name); CREATE TOPIC app.m; ALTER TOPIC app.m ADD SOURCE t ON DELETE")
        world.run("ALTER TOPIC app.m ADD SOURCE t ON INSERT")
        world.run("INSERT INTO t SELECT i, 'n' || i, i FROM range(40) r(i)")
        world.run("CONSUME FROM app.m GROUP 'g' FROM EARLIEST LIMIT 2")
        definition = world.engine.catalog.table("app", "t")
        assert definition is not None
        world.engine.cold.flush(definition.table_id)
        services = world.database._services
        services.limits = msgspec.structs.replace(services.limits, conflict_retries=0)
        if whole:
            statement = f"BEGIN; INSERT INTO hot VALUES (1); {statement}; {statement.replace('7', '9')}; COMMIT"
        world.run(statement)
        assert world.rows("SELECT count(*) FROM hot") == [(int(whole),)]
        assert world.rows("SELECT count(*) FROM t WHERE x <> id OR name IS NULL")[0][0] <= 3
        assert world.engine.check() == []
