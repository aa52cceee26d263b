"""Snapshot and changes, applied by a client, are the plain SELECT at every commit: random tables, queries, commits."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from sql.errors import SqlError
from sql.live import changed_rows
from sql.live.changed_rows import ChangedRows
from sql.live.interface import LiveDelta, LiveQuery
from sql.live.table_query import TableQuery
from sql.live.wire_rows import table_rows
from storage import WriteTransaction
from storage.catalog import TableDef, TableKind
from tests.sql import query_grammar
from tests.sql.live.live_world import ALICE, SERVICE, Client, World, opened
from tests.sql.query_grammar import Column, _Maker

EXAMPLES = int(os.environ.get("HEADRACE_DIFFERENTIAL_EXAMPLES") or "40")
numbers = count()
ways: Counter[str] = Counter()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with opened(Path(tmp_path_factory.mktemp("live")) / "db") as made:
        yield made
    wanted = {"native", "engine", "engine outputs", "insert", "update", "delete"}
    assert wanted <= set(ways), f"the histories no longer reach every way: {ways}"


@dataclass(frozen=True)
class Text:
    """A live query: its outputs, condition and parameters. `keyed` when the key is shown under its own names."""

    outputs: str
    where: str
    params: list[object]
    keyed: bool


@st.composite
def texts(draw: st.DrawFn, shape: tuple[Column, ...]) -> Text:
    maker = _Maker(draw, shape)
    keyed = draw(st.booleans())
    chosen = [c.name for c in shape if c.key] if keyed else []
    outputs = "*"
    if draw(st.integers(0, 2)):
        more = draw(st.lists(st.sampled_from([c.name for c in shape]), min_size=1, max_size=4, unique=True))
        items = [*chosen, *(name for name in more if name not in chosen)]
        if draw(st.booleans()):
            items.append(f"{maker.computed()} AS o")
        if draw(st.integers(0, 2)) == 0:
            items.append(f"md5(CAST({more[0]} AS VARCHAR)) AS e")
        if draw(st.integers(0, 4)) == 0:
            items.insert(0, "_seq")
        outputs = ", ".join(items)
    else:
        keyed = True
    where = ""
    if draw(st.integers(0, 5)):
        where = f" WHERE {maker.predicate()}"
        column = maker.column()
        if column is not None and draw(st.integers(0, 3)) == 0:
            where += f" {draw(st.sampled_from(['AND', 'OR']))} md5(CAST({column.name} AS VARCHAR)) < '8'"
    return Text(outputs, where, maker.params, keyed)


@st.composite
def changes(draw: st.DrawFn, shape: tuple[Column, ...]) -> list[tuple[str, int, list[tuple[object, ...]]]]:
    """The works of one commit: each a kind, where it begins among the rows, and rows to write."""
    kinds = st.sampled_from(["insert", "update", "rekey", "delete"])
    return draw(
        st.lists(st.tuples(kinds, st.integers(0, 30), query_grammar.rows(shape, most=3)), min_size=1, max_size=4)
    )


@st.composite
def histories(draw: st.DrawFn):
    shape = draw(query_grammar.columns())
    rows = draw(query_grammar.rows(shape))
    queries = draw(st.lists(texts(shape), min_size=3, max_size=4))
    return shape, rows, queries, draw(st.lists(changes(shape), min_size=1, max_size=5))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
@given(history=histories(), shared=st.booleans())
def test_changes_follow_the_answer(world: World, history, shared: bool) -> None:
    shape, rows, queries, commits = history
    kind = TableKind.SHARED if shared else TableKind.USER
    name = f"t{next(numbers)}"
    table = world.table(
        name, [(c.name, c.type) for c in shape], key=[c.name for c in shape if c.key], kind=kind,
    )  # fmt: skip
    partition, identity = ("", SERVICE) if shared else ("alice", ALICE)
    keys = sum(c.key for c in shape)
    world.commit(lambda writer: _insert(writer, table, partition, rows, keys))
    runs = []
    for text in queries:
        sql = f"SELECT {text.outputs} FROM app.{name}{text.where}"
        note(f"{sql} {text.params}")
        try:
            query = world.bind(sql, *text.params, identity=identity)
        except SqlError as error:
            note(f"not bound: {error}")
            continue
        runs.append(_Run(world, query, text, f"app.{name}", identity))
    for number, works in enumerate(commits):
        position = world.engine.last_seq
        world.commit(lambda writer, works=works: _write(writer, table, partition, works, keys))
        note(f"commit {number}: {works}")
        for commit in world.changes_after(position):
            for change in commit.tables:
                for run in runs:
                    run.take(commit, change)
        with world.engine.snapshot() as view:
            for run in runs:
                run.compare(view)


class _Run:
    """One query's client beside the plain SELECT."""

    def __init__(self, world: World, query: LiveQuery, text: Text, table: str, identity) -> None:
        assert isinstance(query, TableQuery)
        self.world, self.query, self.identity = world, query, identity
        self.text, self.params = text, text.params
        shown = text.outputs if "_seq" in text.outputs else f"{text.outputs}, _seq"
        self.select = f"SELECT {shown} FROM {table}{text.where}"
        self.key = [column.name for column in query.plan.table.key_columns]
        plan = query.plan
        ways["native" if plan.is_native else "engine outputs" if plan.covers_condition else "engine"] += 1
        self.client: Client | None = None
        with world.engine.snapshot() as view:
            expected = self._expected(view)
            if expected is not None:
                snapshot = query.snapshot(view)
                rows = table_rows(snapshot, query.columns, world.services.bigint)
                assert sorted(rows, key=_seq) == sorted(expected, key=_seq)
                assert [row["_seq"] for row in rows] == sorted(row["_seq"] for row in rows)
                newest = query.snapshot(view, last_rows=2)
                assert table_rows(newest, query.columns, world.services.bigint) == rows[-2:]
                self.client = Client(rows, self.key)

    def _expected(self, view):
        try:
            return self.world.select(self.select, self.params, view, self.identity)
        except SqlError as error:
            note(f"{self.select}: {error}")
            return None

    def take(self, commit, change) -> None:
        if self.client is None:
            return
        rows = ChangedRows(change)
        by_column = ChangedRows(change)
        by_column.is_small = False
        try:
            delta = self.query.delta(commit, rows, blocking=True)
            other = self.query.delta(commit, by_column, blocking=True)
        except SqlError as error:
            note(f"{self.select}: {error}")
            self.client = None
            return
        assert _plain(delta) == _plain(other)
        if delta is not None:
            for change_of_type in delta.changes:
                ways[change_of_type.type.value] += 1
            self.client.apply(delta)
        self._check_index(rows, delta)

    def _check_index(self, rows: ChangedRows, delta: LiveDelta | None) -> None:
        """An index that looks for the equality's value in the changed rows misses nothing."""
        equality = self.query.equality
        if equality is not None and delta is not None:
            assert equality.value in rows.values(equality.column)

    def compare(self, view) -> None:
        expected = self._expected(view)
        if self.client is None or expected is None:
            self.client = None
            return
        assert self.client.rows == {row["_seq"]: row for row in expected}
        if self.text.keyed:
            assert self.client.by_key() == {tuple(row[name] for name in self.key): row for row in expected}


def _seq(row):
    return row["_seq"]


def _plain(delta: LiveDelta | None):
    if delta is None:
        return None
    return [(c.type, list(c.seqs), list(c.rows), list(c.old_rows)) for c in delta.changes]


def _current(writer: WriteTransaction, table: TableDef, partition: str) -> dict[int, tuple[object, ...]]:
    rows = writer.scan(table, partition, with_seq=True)
    columns = [changed_rows.stored_values(column.combine_chunks()) for column in rows.columns]
    return {row[0]: row[1:] for row in zip(*columns, strict=True)}


def _arrow(table: TableDef, rows):
    columns = list(zip(*rows, strict=True)) if rows else [[] for _ in table.columns]
    arrays = [pa.array(list(c), f.type) for c, f in zip(columns, table.arrow_schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=table.arrow_schema)


def _insert(writer: WriteTransaction, table: TableDef, partition: str, rows, keys: int) -> None:
    known = {row[:keys] for row in _current(writer, table, partition).values()}
    fresh = [row for row in rows if row[:keys] not in known]
    if fresh:
        writer.insert(table, partition, _arrow(table, fresh))


def _write(writer: WriteTransaction, table: TableDef, partition: str, works, keys: int) -> None:
    for kind, start, rows in works:
        current = _current(writer, table, partition)
        chosen = list(current)[start % (len(current) or 1) :][: len(rows)]
        if kind == "insert":
            _insert(writer, table, partition, rows, keys)
        elif kind == "delete" and chosen:
            writer.delete(table, partition, chosen)
        elif chosen:
            others = {row[:keys] for seq, row in current.items() if seq not in chosen}
            new = []
            for seq, row in zip(chosen, rows, strict=False):
                rekey = kind == "rekey" and row[:keys] not in others
                new.append(row if rekey else (*current[seq][:keys], *row[keys:]))
                others.add(new[-1][:keys])
            if len({row[:keys] for row in new}) == len(new):
                writer.replace(table, partition, chosen, _arrow(table, new))
