"""Snapshots and changes of a query of one table: what messages hold, and what happens at the edges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from sql.duck import DuckOptions, DuckPool
from sql.errors import ExecutionError, MemoryLimitExceeded, QueryTimeout
from sql.live.changed_rows import SMALL, ChangedRows
from sql.live.errors import MustBlock, StaleBinding
from sql.live.interface import ChangeType, LiveDelta, LiveQuery
from sql.workers import Control
from storage.catalog import TableDef, TableKind
from storage.types import BIGINT, DOUBLE, TEXT, embedding
from tests.sql.live.live_world import ALICE, World, opened

Rows = Sequence[tuple[object, ...]]


class Notes:
    """A table of notes of alice's, and the shortest way to change it."""

    def __init__(self, world: World, table: TableDef) -> None:
        self.world, self.table = world, table

    def _arrow(self, rows: Rows) -> pa.Table:
        fields = list(self.table.arrow_schema)
        arrays = [pa.array([row[i] for row in rows], field.type) for i, field in enumerate(fields)]
        return pa.Table.from_arrays(arrays, schema=self.table.arrow_schema)

    def insert(self, *rows: tuple[object, ...]) -> int:
        first, _ = self.world.commit(lambda w: w.insert(self.table, "alice", self._arrow(rows)))
        return int(first)

    def replace(self, old: Sequence[int], *rows: tuple[object, ...]) -> int:
        first, _ = self.world.commit(lambda w: w.replace(self.table, "alice", old, self._arrow(rows)))
        return int(first)

    def delete(self, *seqs: int) -> None:
        self.world.commit(lambda w: w.delete(self.table, "alice", seqs))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with opened(tmp_path / "db") as made:
        yield made


@pytest.fixture
def notes(world: World) -> Notes:
    return Notes(world, world.table("notes", [("id", BIGINT), ("title", TEXT), ("price", DOUBLE)]))


def shown(deltas: list[LiveDelta]) -> list[tuple[str, list[int], list[object], list[object]]]:
    return [(c.type.value, list(c.seqs), list(c.rows), list(c.old_rows)) for d in deltas for c in d.changes]


def only_change(world: World, query: LiveQuery) -> tuple[object, ChangedRows]:
    commit = world.changes_after(0)[-1]
    [change] = [c for c in commit.tables if c.table.table_id == query.table_id]
    return commit, ChangedRows(change)


def test_insert_update_leave_enter_delete(world: World, notes: Notes) -> None:
    query = world.bind("SELECT title, id FROM app.notes WHERE price > 1")
    start = world.engine.last_seq
    first = notes.insert((1, "a", 5.0), (2, "b", 0.5))
    second = notes.replace([first], (1, "c", 6.0))
    third = notes.replace([second], (1, "c", 0.0))
    fourth = notes.replace([third], (1, "c", 2.0))
    notes.delete(fourth)
    assert shown(world.deltas(query, start)) == [
        ("insert", [first], [{"title": "a", "id": 1, "_seq": first}], []),
        ("update", [second], [{"title": "c", "id": 1, "_seq": second}], [{"title": "a", "id": 1, "_seq": first}]),
        ("delete", [third], [], [{"title": "c", "id": 1, "_seq": second}]),
        ("insert", [fourth], [{"title": "c", "id": 1, "_seq": fourth}], []),
        ("delete", [fourth + 1], [], [{"title": "c", "id": 1, "_seq": fourth}]),
    ]


def test_an_update_of_nothing_shown_is_told(world: World, notes: Notes) -> None:
    query = world.bind("SELECT title FROM app.notes")
    first = notes.insert((1, "a", 5.0))
    start = world.engine.last_seq
    second = notes.replace([first], (1, "a", 6.0))
    assert shown(world.deltas(query, start)) == [
        ("update", [second], [{"title": "a", "_seq": second}], [{"id": 1, "_seq": first}])
    ]


def test_deleted_is_shown_when_it_is_named(world: World, notes: Notes) -> None:
    query = world.bind("SELECT id, _deleted FROM app.notes")
    start = world.engine.last_seq
    first = notes.insert((1, "a", 5.0))
    second = notes.replace([first], (1, "b", 5.0))
    notes.delete(second)
    changes = shown(world.deltas(query, start))
    assert changes[0][2] == [{"id": 1, "_deleted": False, "_seq": first}]
    assert changes[1][3] == [{"id": 1, "_seq": first}]
    assert changes[2][3] == [{"id": 1, "_deleted": True, "_seq": second}]


def test_an_output_may_take_the_name_of_a_key(world: World, notes: Notes) -> None:
    query = world.bind("SELECT CAST(id AS TEXT) AS id FROM app.notes")
    first = notes.insert((1, "a", 5.0))
    start = world.engine.last_seq
    second = notes.replace([first], (1, "b", 5.0))
    assert shown(world.deltas(query, start)) == [
        ("update", [second], [{"id": "1", "_seq": second}], [{"id": "1", "_seq": first}])
    ]


def test_versions_within_one_commit_are_events_of_their_own(world: World, notes: Notes) -> None:
    query = world.bind("SELECT id, title FROM app.notes WHERE price > 1")
    start = world.engine.last_seq

    def work(writer) -> None:
        first, _ = writer.insert(notes.table, "alice", notes._arrow([(1, "a", 5.0)]))
        second, _ = writer.replace(notes.table, "alice", [first], notes._arrow([(1, "b", 5.0)]))
        writer.delete(notes.table, "alice", [second])
        writer.insert(notes.table, "alice", notes._arrow([(1, "c", 5.0)]))

    world.commit(work)
    types = [(kind, rows, [r["title"] for r in old]) for kind, _, rows, old in shown(world.deltas(query, start))]
    assert types == [
        ("insert", [{"id": 1, "title": "a", "_seq": start + 1}], []),
        ("update", [{"id": 1, "title": "b", "_seq": start + 2}], ["a"]),
        ("delete", [], ["b"]),
        ("insert", [{"id": 1, "title": "c", "_seq": start + 4}], []),
    ]


@pytest.mark.parametrize("where", ["", " WHERE reverse(title) <> 'x'"])
def test_messages_are_bounded(world: World, notes: Notes, where: str) -> None:
    query = world.bind(f"SELECT id FROM app.notes{where}")
    start = world.engine.last_seq
    first = notes.insert(*((n, "a", 1.0) for n in range(2_500)))
    notes.delete(*range(first, first + 1_001))
    changes = shown(world.deltas(query, start))
    assert [(kind, len(seqs)) for kind, seqs, _, _ in changes] == [
        ("insert", 1_000), ("insert", 1_000), ("insert", 500), ("delete", 1_000), ("delete", 1),
    ]  # fmt: skip
    assert [row["id"] for _, _, rows, _ in changes for row in rows] == list(range(2_500))


def test_rows_without_primary_key_are_known_by_seq(world: World) -> None:
    plain = Notes(world, world.table("plain", [("title", TEXT)], key=()))
    query = world.bind("SELECT * FROM app.plain")
    start = world.engine.last_seq
    first = plain.insert(("a",), ("a",))
    second = plain.replace([first], ("b",))
    plain.delete(first + 1)
    assert shown(world.deltas(query, start)) == [
        ("insert", [first, first + 1], [{"title": "a", "_seq": first}, {"title": "a", "_seq": first + 1}], []),
        ("update", [second], [{"title": "b", "_seq": second}], [{"title": "a", "_seq": first}]),
        ("delete", [second + 1], [], [{"title": "a", "_seq": first + 1}]),
    ]


def test_embeddings_are_compared_by_value(world: World) -> None:
    table = Notes(world, world.table("vectors", [("id", BIGINT), ("v", embedding(2)), ("n", BIGINT)]))
    query = world.bind("SELECT v, n FROM app.vectors")
    first = table.insert(*((n, [0.5, 1.0], 1) for n in range(SMALL + 1)))
    start = world.engine.last_seq
    seqs = list(range(first, first + SMALL + 1))
    table.replace(seqs, *((n, [0.5, 1.0 if n else 2.0], 2) for n in range(SMALL + 1)))
    [(_, _, _, old)] = shown(world.deltas(query, start))
    assert old[0] == {"v": [0.5, 1.0], "n": 1, "_seq": first, "id": 0}
    assert old[1] == {"n": 1, "_seq": first + 1, "id": 1}


def test_rows_of_streams_have_a_row_id(world: World) -> None:
    stream = Notes(
        world, world.table("pings", [("id", BIGINT), ("title", TEXT)], kind=TableKind.STREAM, ttl_seconds=600)
    )
    query = world.bind("SELECT id FROM app.pings")
    first = stream.insert((1, "a"))
    start = world.engine.last_seq
    stream.delete(first)
    assert shown(world.deltas(query, start)) == [
        ("delete", [first + 1], [], [{"id": 1, "_seq": first, "row_id": f"alice:{first}"}])
    ]


# --- on the event loop --------------------------------------------------------------------------------------------


def test_the_engine_is_never_asked_on_the_event_loop(world: World, notes: Notes) -> None:
    by_engine = world.bind("SELECT id FROM app.notes WHERE reverse(title) = 'ba'")
    outputs = world.bind("SELECT reverse(title) AS r, id FROM app.notes WHERE price > 1")
    accents = world.bind("SELECT id FROM app.notes WHERE lower(title) = 'é'")
    assert (by_engine.is_blocking, outputs.is_blocking, accents.is_blocking) == (True, False, False)
    notes.insert((1, "É", 0.0))
    commit, rows = only_change(world, outputs)
    assert outputs.delta(commit, rows) is None  # the condition alone says so
    for query in (by_engine, accents):
        with pytest.raises(MustBlock):
            query.delta(commit, rows)
    delta = accents.delta(commit, rows, blocking=True)
    assert delta is not None
    assert delta.changes[0].type is ChangeType.INSERT
    notes.insert((2, "ab", 2.0))
    commit, rows = only_change(world, outputs)
    with pytest.raises(MustBlock):
        outputs.delta(commit, rows)
    delta = outputs.delta(commit, rows, blocking=True)
    assert delta is not None
    assert delta.changes[0].rows[0]["r"] == "ba"


def test_values_that_json_cannot_carry_are_an_error_that_names_the_column(world: World, notes: Notes) -> None:
    query = world.bind("SELECT id, CAST(title AS DOUBLE) AS ratio FROM app.notes")
    notes.insert((1, "nan", 1.0))
    commit, rows = only_change(world, query)
    with pytest.raises(ExecutionError, match="ratio"):
        query.delta(commit, rows, blocking=True)


def test_an_error_of_the_condition_is_an_sql_error(world: World, notes: Notes) -> None:
    query = world.bind("SELECT id FROM app.notes WHERE CAST(title AS INT) > 3")
    notes.insert((1, "no number", 1.0))
    commit, rows = only_change(world, query)
    with pytest.raises(ExecutionError, match="no number"):
        query.delta(commit, rows, blocking=True)


def test_a_changed_table_needs_another_binding(world: World, notes: Notes) -> None:
    query = world.bind("SELECT id, title FROM app.notes")
    other = world.bind("SELECT id FROM app.notes")
    world.table("notes", [("id", BIGINT), ("name", TEXT)], table_id=notes.table.table_id)
    table = Notes(world, world.engine.catalog.table("app", "notes"))
    table.insert((1, "x"))
    commit, rows = only_change(world, query)
    with pytest.raises(StaleBinding, match="title"):
        query.delta(commit, rows)
    assert other.delta(commit, rows) is not None


# --- snapshots ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where", ["", " WHERE id >= 0", " WHERE reverse(title) = 'a'", " WHERE id >= 100 AND id < 900"]
)
def test_snapshots_come_by_seq(world: World, notes: Notes, where: str) -> None:
    first = notes.insert(*((n, "a", 1.0) for n in range(1_000)))
    notes.replace([first + 5, first + 3], (5, "a", 2.0), (3, "a", 2.0))
    query = world.bind(f"SELECT title, price FROM app.notes{where}")
    with world.engine.snapshot() as view:
        rows = query.snapshot(view)
        newest = query.snapshot(view, last_rows=3)
        none = query.snapshot(view, last_rows=0)
    seqs = rows.column("_seq").to_pylist()
    assert seqs == sorted(seqs)
    assert rows.schema.names == ["title", "price", "_seq"]
    assert newest.to_pylist() == rows.to_pylist()[-3:]
    assert none.num_rows == 0
    assert none.schema == rows.schema
    assert rows.num_rows == (800 if "900" in where else 1_000)


def test_snapshots_own_their_memory(tmp_path: Path) -> None:
    with opened(tmp_path / "db") as world:
        notes = Notes(world, world.table("notes", [("id", BIGINT), ("title", TEXT), ("price", DOUBLE)]))
        notes.insert(*((n, f"title {n}", 1.0) for n in range(3_000)))
        with world.engine.snapshot() as view:
            rows = world.bind("SELECT * FROM app.notes").snapshot(view)
        buffers = [b for column in rows.columns for chunk in column.chunks for b in chunk.buffers() if b is not None]
        assert all(buffer.parent is None for buffer in buffers)
    assert rows.column("title").to_pylist() == [f"title {n}" for n in range(3_000)]


def test_snapshots_are_bounded(world: World, notes: Notes) -> None:
    notes.insert(*((n, "x" * 1_000, 1.0) for n in range(3_000)))
    small = DuckPool(DuckOptions(memory_bytes=1 << 20, threads=1, connections=1))
    world.services.pool = small
    try:
        query = world.bind("SELECT * FROM app.notes")
        with world.engine.snapshot() as view:
            with pytest.raises(MemoryLimitExceeded, match="last_rows"):
                query.snapshot(view)
            assert query.snapshot(view, last_rows=10).num_rows == 10
    finally:
        world.services.pool = world.pool
        small.close()


def test_snapshots_stop_with_their_control(world: World, notes: Notes) -> None:
    notes.insert((1, "a", 1.0))
    query = world.bind("SELECT * FROM app.notes", identity=ALICE)
    control = Control(20.0)
    control.stop(QueryTimeout("over"))
    with world.engine.snapshot() as view, pytest.raises(QueryTimeout):
        query.snapshot(view, control=control)
