"""Conditions of sources: what they keep is what the same WHERE keeps, whichever evaluator is asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sql.binder import BindContext
from sql.dialect import parse_expression
from sql.errors import SqlError, Unsupported
from sql.identity import Role
from sql.topics.conditions import Condition, bind_condition, compile_condition
from sql.topics.router import SqlRouter
from storage.catalog import Catalog
from storage.errors import PublishFailed
from storage.layout import SEQ
from storage.topic_definitions import Operation, PayloadMode
from storage.topic_publishing import PublishedRows
from tests.sql.topics.topic_world import ROOT, World, in_loop, world
from tests.storage.helpers import rows_of

NUMBERS = st.integers(-3, 6)
TEXTS = st.sampled_from(["", "a", "ab", "b", "A", "it''s", "é"])
SIMPLE = st.one_of(
    st.builds("{} {} {}".format, st.sampled_from(["a", "b", "id"]), st.sampled_from(["=", "<>", "<", ">="]), NUMBERS),
    st.builds("a {} b".format, st.sampled_from(["=", "<", "<>"])),
    st.builds("name {} '{}'".format, st.sampled_from(["=", "<>", "<"]), TEXTS),
    st.builds("name LIKE '{}%'".format, TEXTS),
    st.builds("{} IS {} NULL".format, st.sampled_from(["a", "name", "flag"]), st.sampled_from(["", "NOT"])),
    st.builds("a IN ({}, {})".format, NUMBERS, NUMBERS),
    st.builds("b BETWEEN {} AND {}".format, NUMBERS, NUMBERS),
    st.sampled_from(["flag", "NOT flag", "TRUE", "FALSE", "NULL"]),
    st.builds("a + b > {}".format, NUMBERS),
)  # fmt: skip
OTHERS = st.one_of(
    st.builds("regexp_matches(name, '^{}')".format, st.sampled_from(["a", "b", "[A-Z]"])),
    st.builds("length(name) % 2 = {}".format, st.integers(0, 1)),
    st.builds("greatest(a, b, {}) > 2".format, NUMBERS),
    st.builds("CASE WHEN flag THEN a ELSE b END > {}".format, NUMBERS),
    st.builds("reverse(name) = '{}'".format, TEXTS),
)
CONDITIONS = st.recursive(
    SIMPLE | OTHERS,
    lambda inner: st.one_of(
        st.builds("({}) AND ({})".format, inner, inner),
        st.builds("({}) OR ({})".format, inner, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=4,
)
NAMES = TEXTS.map(lambda text: text.replace("''", "'"))
ROW = st.tuples(st.none() | NUMBERS, st.none() | NUMBERS, st.none() | NAMES, st.none() | st.booleans())
ITEMS = "CREATE SHARED TABLE app.items (id INT PRIMARY KEY, a INT, b BIGINT, name TEXT, flag BOOLEAN)"
ways: Counter[str] = Counter()


async def create(here: World) -> None:
    await here.run("CREATE NAMESPACE app")
    await here.run(ITEMS)


async def ids_of(here: World, sql: str) -> list[int]:
    [result] = await here.database.execute(sql, (), "app", ROOT)
    assert result.table is not None
    return sorted(result.table.column("id").to_pylist())


@given(st.lists(CONDITIONS, min_size=1, max_size=4), st.lists(ROW, min_size=1, max_size=12), st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_source_keeps_what_where_keeps(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], rows: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    """Inserts and updates by the new row, deletes by the old one."""
    changed = [data.draw(ROW) for _ in rows]

    async def play() -> None:
        async with world(tmp_path_factory.mktemp("data")) as here:
            await create(here)
            table = here.table("items")
            for number, text in enumerate(texts):
                here.topic(f"t{number}", "items", PayloadMode.KEY, text, partitions=1 + number)
            expected: list[list[tuple[Operation, int]]] = [[] for _ in texts]

            async def note(operation: Operation) -> None:
                for number, text in enumerate(texts):
                    kept = await ids_of(here, f"SELECT id FROM app.items WHERE {text}")
                    expected[number] += [(operation, key) for key in kept]

            whole = [(key, *row) for key, row in enumerate(rows)]
            here.engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, whole)))
            await note(Operation.INSERT)
            with here.engine.snapshot() as snapshot:
                seqs = snapshot.scan(table, "", [SEQ]).column(0).to_pylist()
            new = [(key, *row) for key, row in enumerate(changed)]
            here.engine.commit_sync(lambda w: w.replace(table, "", seqs, rows_of(table, new)))
            await note(Operation.UPDATE)
            await note(Operation.DELETE)
            await here.run("DELETE FROM app.items WHERE TRUE")
            for number, text in enumerate(texts):
                found = [(m.operation, int(m.key or "")) for m in await here.messages(f"t{number}")]
                assert sorted(found) == sorted(expected[number]), text
            router = here.engine.router
            assert isinstance(router, SqlRouter)
            ways["engine" if router._pool is not None else "native"] += 1

    asyncio.run(play())


def test_both_evaluators_were_asked() -> None:
    assert set(ways) == {"engine", "native"}, ways


@given(CONDITIONS, st.lists(ROW, min_size=1, max_size=10), st.randoms())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_order_of_rows_does_not_matter(bound: Any, text: str, rows: list[tuple[Any, ...]], chance: Any) -> None:
    """Old versions come in the order of their events, which is not that of their `_seq`s."""
    here, compiled = bound
    table = here.table("items")
    arrays = rows_of(table, [(n, *row) for n, row in enumerate(rows)]).combine_chunks().to_batches()[0]
    batch = pa.RecordBatch.from_arrays(
        [pa.array(range(10, 10 + len(rows)), pa.int64()), *arrays.columns], names=[SEQ, *arrays.schema.names]
    )
    condition: Condition = compiled(text)
    straight = condition.kept(PublishedRows(len(rows), lambda: batch))
    assert straight.tolist() == sorted(set(straight.tolist()))
    order = list(range(len(rows)))
    chance.shuffle(order)
    mixed = condition.kept(PublishedRows(len(rows), lambda: batch.take(pa.array(order))))
    assert mixed.tolist() == sorted(mixed.tolist())
    assert sorted(np.array(order)[mixed].tolist()) == straight.tolist()


@pytest.fixture(scope="module")
def bound(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A table, and what compiles conditions over it."""
    loop = asyncio.new_event_loop()
    opened = world(tmp_path_factory.mktemp("conditions"))
    here = loop.run_until_complete(opened.__aenter__())
    loop.run_until_complete(create(here))
    router = here.engine.router
    assert isinstance(router, SqlRouter)
    table = here.table("items")

    def compiled(text: str) -> Condition:
        return compile_condition(text, table, context(here), router._runtime)

    yield here, compiled
    loop.run_until_complete(opened.__aexit__(None, None, None))
    loop.close()


def context(here: World) -> BindContext:
    services = here.hub._services
    catalog = Catalog(0, (), (here.table("items"),))
    return BindContext(catalog, services.system, "app", Role.SYSTEM, services.pool)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("id = $1", Unsupported, "Parameters"),
        ("name = CURRENT_USER()", Unsupported, "CURRENT_USER"),
        ("NOW() > NOW()", Unsupported, r"NOW\(\)"),
        ("nothing = 1", SqlError, "nothing"),
        ("id + ", SqlError, None),
        ("count(*) > 1", SqlError, None),
        ("name > 1 + id AND id = 'x'", SqlError, None),
    ],
)
def test_conditions_that_no_source_may_have(bound: Any, text: str, error: type[Exception], words: str | None) -> None:
    here, _ = bound
    with pytest.raises(error, match=words):
        bind_condition(parse_expression(text), here.table("items"), context(here))


@in_loop
async def test_a_condition_that_fails_for_a_row_fails_its_write_only(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await create(here)
        here.topic("t", "items", PayloadMode.KEY, "CAST(name AS INTEGER) > 5")
        table = here.table("items")
        await here.run("INSERT INTO app.items VALUES (1, 1, 1, '7', TRUE), (2, 1, 1, '3', TRUE)")
        with pytest.raises(PublishFailed, match="condition"):
            here.engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, [(3, 1, 1, "x", True)])))
        with pytest.raises(SqlError):
            await here.run("INSERT INTO app.items VALUES (4, 1, 1, 'y', TRUE)")
        assert [message.key for message in await here.messages("t")] == ["1"]
        assert await ids_of(here, "SELECT id FROM app.items") == [1, 2]


@in_loop
async def test_a_condition_lives_through_changes_of_its_table(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await create(here)
        here.topic("t", "items", PayloadMode.KEY, "a > 1")
        await here.run("INSERT INTO app.items (id, a) VALUES (1, 1), (2, 2)")
        await here.run("ALTER TABLE app.items DROP COLUMN name")
        await here.run("ALTER TABLE app.items ADD COLUMN more TEXT")
        await here.run("INSERT INTO app.items (id, a, more) VALUES (3, 1, 'x'), (4, 2, 'x')")
        assert [message.key for message in await here.messages("t")] == ["2", "4"]
