"""Indexes change no answer: the same statements over a table with indexes, one without, and DuckDB itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sql.indexes.index_world import ALICE, IndexWorld

COLUMNS = "id BIGINT, a INT, b TEXT, d DOUBLE, t TIMESTAMP, f BOOLEAN"
INDEXES = ("(a)", "(b, a)", "(d)", "(t, b)", "(f, a, d)", "(a, b, t)")

small = st.integers(-2, 3)
texts = st.sampled_from(["", "a", "b", "ab", "a\x01", "ä", "x" * 500, "x" * 500 + "y"])
doubles = st.sampled_from([-1.5, -0.0, 0.0, 0.1, 2.0, 1e300])
times = st.sampled_from(["2026-01-01", "2026-01-01 00:00:00.000001", "1969-12-31 23:59:59"])


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def value(kind: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(kind, kind, kind, st.just("NULL"))


cells = {
    "a": small.map(str),
    "b": texts.map(quoted),
    "d": doubles.map(lambda x: f"CAST({x!r} AS DOUBLE)"),
    "t": times.map(quoted),
    "f": st.sampled_from(["true", "false"]),
}
literals = {**cells, "d": st.sampled_from(["-1.5", "0", "0.1", "2.0", "-0.0", "1e300", "3"])}
names = st.sampled_from(sorted(cells))


@st.composite
def terms(draw: st.DrawFn) -> str:
    name = draw(names)
    one, two = draw(literals[name]), draw(literals[name])
    form = draw(st.integers(0, 6))
    if form < 3:
        return f"{name} {draw(st.sampled_from(['=', '=', '<', '<=', '>', '>=']))} {one}"
    if form == 3:
        return f"{name} IN ({one}, {two})"
    if form == 4:
        return f"{name} BETWEEN {one} AND {two}"
    if form == 5:
        return f"{name} IS {draw(st.sampled_from(['', 'NOT ']))}NULL"
    return f"({name} = {one} OR id > 3)"


conditions = st.lists(terms(), min_size=1, max_size=3).map(" AND ".join)


@st.composite
def writes(draw: st.DrawFn) -> str:
    form = draw(st.integers(0, 9))
    if form < 5:
        row = [draw(value(cells[name])) for name in cells]
        sets = ", ".join(f"{name} = EXCLUDED.{name}" for name in cells)
        values = f"({draw(st.integers(0, 8))}, {', '.join(row)})"
        return f"INSERT INTO {{t}} VALUES {values} ON CONFLICT (id) DO UPDATE SET {sets}"
    where = draw(conditions)
    if form < 8:
        name = draw(names)
        return f"UPDATE {{t}} SET {name} = {draw(value(cells[name]))} WHERE {where}"
    return f"DELETE FROM {{t}} WHERE {where}"


@st.composite
def queries(draw: st.DrawFn) -> tuple[str, bool]:
    """A query and whether its order counts."""
    where = draw(conditions)
    form = draw(st.integers(0, 4))
    if form == 0:
        return f"SELECT COUNT(*) FROM {{t}} WHERE {where}", True
    if form == 1:
        term = re.sub(r"\b(id|[abdtf]) (?=[=<>IB])", r"x.\1 ", draw(terms()))
        join = draw(st.sampled_from(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]))
        return f"SELECT x.id, y.id FROM {{t}} AS x {join} {{t}} AS y ON x.a = y.id WHERE {term}", False
    if form == 2:
        index = [name.strip() for name in draw(st.sampled_from(INDEXES)).strip("()").split(",")]
        columns = index[draw(st.integers(0, len(index) - 1)) :]
        direction = draw(st.sampled_from(["", " DESC"]))
        order = ", ".join(name + direction for name in columns)
        limit = f"LIMIT {draw(st.integers(0, 4))} OFFSET {draw(st.integers(0, 2))}"
        return f"SELECT {', '.join(columns)} FROM {{t}} WHERE {where} ORDER BY {order} {limit}", True
    return f"SELECT * FROM {{t}} WHERE {where}", False


class Pair:
    """The two tables in one database, and DuckDB."""

    def __init__(self, folder: Path) -> None:
        self.world = IndexWorld(folder)
        self.duck = duckdb.connect()
        self.duck.execute("SET default_null_order = 'nulls_last_on_asc_first_on_desc'; SET TimeZone = 'UTC'")
        self.number = 0

    def start(self) -> None:
        """Two new tables."""
        self.number += 1
        n = self.number
        for name, key in ((f"plain{n}", "PRIMARY KEY (id)"), (f"indexed{n}", "PRIMARY KEY (id)")):
            self.world.run(f"CREATE USER TABLE {name} ({COLUMNS}, {key})", identity=ALICE)
        self.duck.execute(f"CREATE OR REPLACE TABLE duck ({COLUMNS}, PRIMARY KEY (id))")

    def create(self, place: int) -> None:
        """Create one of the indexes."""
        self.world.run(f"CREATE INDEX i{self.number}_{place} ON indexed{self.number} {INDEXES[place]}", identity=ALICE)

    def write(self, sql: str) -> None:
        """The same write to all three."""
        counts = {
            self.world.run(sql.format(t=f"{name}{self.number}"), identity=ALICE).row_count
            for name in ("plain", "indexed")
        }
        assert len(counts) == 1
        self.duck.execute(sql.format(t="duck"))

    def ask(self, sql: str, ordered: bool) -> None:
        """The same question to all three."""
        plain, indexed = (
            self.world.rows(sql.format(t=f"{name}{self.number}"), identity=ALICE) for name in ("plain", "indexed")
        )
        duck = self.duck.execute(sql.format(t="duck")).fetchall()
        if not ordered:
            plain, indexed, duck = (sorted(rows, key=repr) for rows in (plain, indexed, duck))
        assert indexed == plain
        assert indexed == duck


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("indexes"))
    yield made
    made.world.check()
    made.world.close()


steps = st.lists(
    st.one_of(
        writes().map(lambda sql: ("write", sql)),
        writes().map(lambda sql: ("write", sql)),
        queries().map(lambda query: ("ask", query)),
        st.integers(0, len(INDEXES) - 1).map(lambda place: ("index", place)),
    ),
    min_size=8,
    max_size=25,
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_indexes_change_no_answer(pair: Pair, todo: list[tuple[str, object]]) -> None:
    pair.start()
    made: set[int] = set()
    for kind, what in todo:
        if kind == "write":
            assert isinstance(what, str)
            pair.write(what)
        elif kind == "ask":
            assert isinstance(what, tuple)
            pair.ask(*what)
        elif isinstance(what, int) and what not in made:
            made.add(what)
            pair.create(what)
    pair.world.check()
