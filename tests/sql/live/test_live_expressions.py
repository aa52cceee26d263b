"""Whatever a query may ask of one table: a row's insertion tells the same row as a snapshot with it."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from sql.live.binding import rebind
from sql.live.changed_rows import ChangedRows
from sql.live.table_query import TableQuery
from sql.live.wire_rows import WireRow, table_rows
from storage.changes import ChangeSet
from storage.types import BIGINT, BOOLEAN, BYTES, FLOAT, JSON, TEXT, decimal
from tests.sql.live.live_world import World, opened

ROW = {"id": 1, "title": "é", "done": True, "j": '{"a":1}', "price": Decimal("1.50"), "b": b"xy", "f": 0.1}
WHOLE = {"id": 1, "title": "é", "done": True, "j": '{"a":1}', "price": "1.50", "b": [120, 121], "f": 0.1}

NATIVE, ENGINE = True, False
QUERIES: list[tuple[str, list[object], bool, WireRow | None]] = [
    ("SELECT * FROM app.t", [], NATIVE, WHOLE),
    ("SELECT t.* FROM app.t;", [], NATIVE, WHOLE),
    ("TABLE app.t", [], NATIVE, WHOLE),
    ("FROM app.t", [], NATIVE, WHOLE),
    ('SELECT ID, "title" AS "Titel" FROM APP.T WHERE Done', [], NATIVE, {"id": 1, "Titel": "é"}),
    ("SELECT x.id FROM app.t x WHERE x.id BETWEEN $1 AND $2 -- a comment", [0, 5], NATIVE, {"id": 1}),
    ("SELECT app.t.id FROM app.t", [], NATIVE, {"id": 1}),
    ("SELECT 1 AS one FROM app.t WHERE true", [], NATIVE, {"one": 1}),
    ("SELECT $1 AS given, id FROM app.t", ["q"], NATIVE, {"given": "q", "id": 1}),
    ("SELECT id FROM app.t WHERE $1", [True], NATIVE, {"id": 1}),
    ("SELECT id FROM app.t WHERE id = '1'", [], NATIVE, {"id": 1}),
    ("SELECT id FROM app.t WHERE id = $1", [None], NATIVE, None),
    ("SELECT id FROM app.t WHERE CURRENT_ROLE = 'user'", [], NATIVE, {"id": 1}),
    ("SELECT id FROM app.t WHERE _seq > $1 AND NOT _deleted", [0], NATIVE, {"id": 1}),
    ("SELECT id FROM app.t WHERE title = lower('É')", [], NATIVE, {"id": 1}),
    ("SELECT id FROM app.t WHERE f = 0.1", [], NATIVE, {"id": 1}),
    ("SELECT id FROM app.t WHERE id = 99999999999999999999", [], ENGINE, None),
    ("SELECT id FROM app.t WHERE NULL", [], ENGINE, None),
    ("SELECT id FROM app.t WHERE id = ANY($1)", [[1, 2]], ENGINE, {"id": 1}),
    ("SELECT id + 1 AS y FROM app.t WHERE y > 1", [], ENGINE, {"y": 2}),
    ("SELECT * EXCLUDE (b, j, f) FROM app.t", [], ENGINE, {"id": 1, "title": "é", "done": True, "price": "1.50"}),
    ("SELECT * REPLACE (id + 1 AS id) FROM app.t", [], ENGINE, {**WHOLE, "id": 2}),
    ("SELECT j->>'a' AS a FROM app.t WHERE j->>'a' = '1'", [], ENGINE, {"a": "1"}),
    ("SELECT id FROM app.t WHERE price = 1.5 AND b = X'7879'", [], ENGINE, {"id": 1}),
    ("SELECT id, CURRENT_USER() AS me FROM app.t WHERE NOW() IS NOT NULL", [], NATIVE, {"id": 1, "me": "alice"}),
    ("SELECT id FROM app.t WHERE list_sum([id, 2]) = 3", [], ENGINE, {"id": 1}),
    ("SELECT id, {'a': id} AS s FROM app.t", [], ENGINE, {"id": 1, "s": '{"a":1}'}),
    ("SELECT reverse(title) AS r, _seq FROM app.t WHERE id = 1", [], ENGINE, {"r": "é"}),
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with opened(Path(tmp_path_factory.mktemp("expressions")) / "db") as made:
        table = made.table("t", [
            ("id", BIGINT), ("title", TEXT), ("done", BOOLEAN), ("j", JSON), ("price", decimal(10, 2)), ("b", BYTES),
            ("f", FLOAT),
        ])  # fmt: skip
        rows = pa.Table.from_pylist([ROW], schema=table.arrow_schema)
        made.commit(lambda writer: writer.insert(table, "alice", rows))
        yield made


def commit_of(world: World) -> ChangeSet:
    return world.changes_after(0)[-1]


@pytest.mark.parametrize(("text", "params", "native", "row"), QUERIES)
def test_an_insertion_tells_what_a_snapshot_shows(
    world: World, text: str, params: list[object], native: bool, row: WireRow | None
) -> None:
    query = world.bind(text, *params)
    assert isinstance(query, TableQuery)
    assert query.plan.is_native is native
    commit = commit_of(world)
    expected = [] if row is None else [{**row, "_seq": commit.last_seq}]
    with world.engine.snapshot() as view:
        shown = table_rows(query.snapshot(view), query.columns, world.services.bigint)
        anew = rebind(query, view)
    assert shown == expected
    assert all(list(found) == [column.name for column in query.columns] for found in shown)
    assert anew.key == query.key
    delta = query.delta(commit, ChangedRows(commit.tables[0]), blocking=True)
    assert ([] if delta is None else [row for change in delta.changes for row in change.rows]) == expected
