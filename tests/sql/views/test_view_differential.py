"""A query over a view gives what it gives with the view's text in its place; so does it where the view is merged."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, note, reject, settings
from hypothesis import strategies as st

from sql.binder import BindContext, bind_query
from sql.dialect import parse_batch
from sql.duck import DuckOptions, DuckPool
from sql.errors import SqlError
from sql.plan import Path
from sql.query import Execution, run_query
from sql.view_statements import CreateView
from sql.views.definitions import define
from sql.workers import Control
from storage.view_definitions import ViewDef
from tests.sql.fake_view import FakeView
from tests.sql.query_support import ALICE, World
from tests.sql.views.view_grammar import T_ROWS, U_ROWS, T, U, View, queries, simple, views

EXAMPLES = int(os.environ.get("HEADRACE_DIFFERENTIAL_EXAMPLES") or "15")
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
outcomes: Counter[str] = Counter()


@pytest.fixture(scope="module")
def pool() -> Iterator[DuckPool]:
    pool = DuckPool(DuckOptions(memory_bytes=256 << 20, threads=1, connections=1))
    yield pool
    pool.close()
    assert outcomes["answers"] > outcomes["errors"] / 2, outcomes
    assert outcomes["native"], "no view is merged any more"
    assert outcomes["answers"] > 50


def world_of(pool: DuckPool) -> World:
    view = FakeView([T, U])
    view.put(T, "alice", T_ROWS)
    view.put(U, "alice", U_ROWS)
    return World(view, pool)


def create(world: World, name: str, view: View) -> None:
    """Define a view; one that is no query at all is not what is tested here."""
    [parsed] = parse_batch(f"CREATE VIEW {name}{view.head} AS {view.sql}")
    assert isinstance(parsed.statement, CreateView)
    catalog = world.view.catalog
    binding = BindContext(catalog, world.system, "default", ALICE.role, world.pool)
    try:
        bind_query(parsed.statement.query, binding)
    except SqlError:
        reject()
    made = define(parsed.statement, ViewDef("default", name, (), ""), binding)
    assert [column.name for column in made.columns] == list(view.columns)
    world.view.catalog = catalog.evolve(catalog.version + 1, put=[made])


Answer = tuple[list[tuple[str, str]], list[str]] | None


def answer(world: World, text: str, params: Sequence[object] = ()) -> Answer:
    """Columns and rows in any order; None for an error."""
    try:
        plan = world.bind(text, params)
        execution = Execution(world.view, ALICE, Control(20.0), params)
        result = run_query(plan, execution, world.runtime, max_rows=1_000)
    except SqlError as error:
        note(f"{text} -> {error.message}")
        return None
    if plan.path is not Path.DUCKDB and " v" in text:
        outcomes["native"] += 1
    rows = zip(*(column.to_pylist() for column in result.columns), strict=True)
    return [(column.name, str(column.type)) for column in plan.columns], sorted(map(repr, rows))


def compare(world: World, query: str, named: str, inlined: str, called: str) -> None:
    note(query)
    over_view = answer(world, query.format(v=named, q=called))
    expected = answer(world, query.format(v=inlined, q=called))
    outcomes["errors" if expected is None else "answers"] += 1
    assert over_view == expected


@SETTINGS
@given(view=views(), alias=st.sampled_from(["", " AS z", " AS t"]), data=st.data())
def test_a_view_is_its_text(pool: DuckPool, view: View, alias: str, data: st.DataObject) -> None:
    world = world_of(pool)
    note(view)
    create(world, "v", view)
    called = alias.removeprefix(" AS ") or "v"
    for query in data.draw(st.lists(queries(view.columns), min_size=4, max_size=4)):
        compare(world, query, f"v{alias}", view.inlined(called), called)


@SETTINGS
@given(inner=views(), data=st.data())
def test_a_view_over_a_view_is_its_text(pool: DuckPool, inner: View, data: st.DataObject) -> None:
    world = world_of(pool)
    create(world, "w", inner)
    outer = data.draw(simple("w", inner.columns))
    note((inner, outer))
    create(world, "v", outer)
    text = outer.sql.replace("FROM w AS q", f"FROM {inner.inlined('q')}").replace(
        "FROM w", f"FROM {inner.inlined('w')}"
    )
    for query in data.draw(st.lists(queries(outer.columns), min_size=3, max_size=3)):
        compare(world, query, "v", View(text, outer.columns).inlined("v"), "v")
