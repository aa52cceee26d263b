"""The native path, DuckDB's path and plain DuckDB on a copy of the rows agree on random queries."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from sql.duck import DuckOptions, DuckPool
from sql.duck_results import stored
from sql.duck_types import result_type, to_duck_column
from sql.errors import SqlError
from sql.identity import Identity
from sql.plan import Path
from storage.catalog import TableKind
from storage.types import arrow_type
from tests.sql import query_grammar
from tests.sql.fake_view import FakeView
from tests.sql.query_grammar import Column, Query
from tests.sql.query_support import ALICE, SERVICE, World, rows_of, table

QUERIES = 6
EXAMPLES = int(os.environ.get("HEADRACE_DIFFERENTIAL_EXAMPLES") or "100")
"""Worlds; each runs QUERIES queries three ways: more than 5,000 queries in the CI."""

paths: Counter[Path] = Counter()


@pytest.fixture(scope="module")
def pool() -> Iterator[DuckPool]:
    pool = DuckPool(DuckOptions(memory_bytes=256 << 20, threads=1, connections=1))
    yield pool
    pool.close()
    assert set(paths) == set(Path), "the grammar no longer reaches every path"


@pytest.fixture(scope="module")
def reference() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET integer_division = true")
    connection.execute("SET arrow_lossless_conversion = true")
    yield connection
    connection.close()


@st.composite
def worlds(draw: st.DrawFn) -> tuple[tuple[Column, ...], list[tuple[object, ...]], list[Query]]:
    shape = draw(query_grammar.columns())
    rows = draw(query_grammar.rows(shape))
    return shape, rows, draw(st.lists(query_grammar.queries(shape), min_size=QUERIES, max_size=QUERIES))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
@given(world=worlds(), shared=st.booleans())
def test_all_ways_agree(
    pool: DuckPool,
    reference: duckdb.DuckDBPyConnection,
    world: tuple[tuple[Column, ...], list[tuple[object, ...]], list[Query]],
    shared: bool,
) -> None:
    shape, rows, queries = world
    kind = TableKind.SHARED if shared else TableKind.USER
    definition = table(
        1, "t", [(c.name, c.type) for c in shape], key=[c.name for c in shape if c.key], kind=kind,
    )  # fmt: skip
    view = FakeView([definition])
    view.put(definition, "" if shared else "alice", rows)
    if not shared:
        view.put(definition, "bob", [_other(shape)])
    here = World(view, pool)
    identity = SERVICE if shared else ALICE
    copy = pa.table(
        [to_duck_column(c.type, view.scan(definition, "" if shared else "alice").column(c.name)) for c in shape],
        names=[c.name for c in shape],
    )
    reference.register("copy_of_t", copy)
    reference.execute("CREATE OR REPLACE TABLE t AS SELECT * FROM copy_of_t")
    reference.unregister("copy_of_t")
    for query in queries:
        note(f"{query.text} {query.params}")
        _compare(here, reference, query, identity)


def _other(shape: tuple[Column, ...]) -> tuple[object, ...]:
    """A row of another user's, with the least values."""
    values = {"BOOLEAN": False, "TEXT": "bob", "UUID": b"b" * 16, "DOUBLE": 0.0}
    return tuple(values.get(str(c.type), Decimal("0.00") if c.type.precision else 0) for c in shape)


def _compare(here: World, reference: duckdb.DuckDBPyConnection, query: Query, identity: Identity) -> None:
    expected = _expected(reference, query)
    outcomes = []
    plan = here.bind(query.text, query.params, identity) if expected is not None else None
    if plan is not None:
        paths[plan.path] += 1
    for forced in (False, True):
        try:
            outcomes.append(rows_of(here.run(query.text, *query.params, identity=identity, duckdb=forced)))
        except SqlError as error:
            outcomes.append(error)
    if expected is None:
        assert all(isinstance(outcome, SqlError) for outcome in outcomes), outcomes
        return
    for outcome in outcomes:
        assert not isinstance(outcome, SqlError), outcome.message
    native, engine = outcomes
    if plan is not None and plan.path is not Path.DUCKDB:
        assert native == engine
    if query.ordered:
        assert native == expected
    assert _bag(native) == _bag(expected)
    assert _bag(engine) == _bag(expected)


def _bag(rows: list[tuple[object, ...]]) -> Counter[str]:
    return Counter(repr(row) for row in rows)


def _expected(reference: duckdb.DuckDBPyConnection, query: Query) -> list[tuple[object, ...]] | None:
    """What plain DuckDB answers, in our result types; None for an error."""
    try:
        signature = reference.sql(query.text, params=query.params or None)
        types = [result_type(str(kind)) for kind in signature.types]
        result = signature.to_arrow_table()
    except duckdb.Error:
        return None
    columns = []
    for column, kind in zip(result.columns, types, strict=True):
        try:
            columns.append([stored(chunk, arrow_type(kind), "x") for chunk in column.chunks])
        except SqlError:
            return None
    flat = [[value for chunk in chunks for value in chunk.to_pylist()] for chunks in columns]
    return list(zip(*flat, strict=True))
