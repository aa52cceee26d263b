"""Snapshots of live queries find their rows by an index while there is one, and are the same rows without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sql.index_reads import observing
from sql.live.binding import bind_live
from sql.live.interface import LiveQuery
from tests.sql.indexes.index_world import ALICE, IndexWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[IndexWorld]:
    made = IndexWorld(tmp_path)
    made.run(
        "CREATE TABLE m (id BIGINT PRIMARY KEY, room TEXT, n INT UNIQUE) WITH (ACCESS_LEVEL = 'PUBLIC');"
        "INSERT INTO m SELECT range, 'room ' || range % 100, range FROM range(5000)"
    )
    yield made
    made.close()


def read(world: IndexWorld, query: LiveQuery, last_rows: int | None = None) -> tuple[list[object], list[str]]:
    """The ids of a snapshot in its order, and the indexes that it used."""
    with world.engine.snapshot() as view, observing() as used:
        ids = query.snapshot(view, last_rows=last_rows).column("id").to_pylist()
    return ids, [read[1] for read in used]


def bound(world: IndexWorld, text: str) -> LiveQuery:
    with world.engine.snapshot() as view:
        return bind_live(text, (), "app", ALICE, world.database._services, view)


def test_an_index_leads_a_snapshot_to_its_rows_until_it_is_dropped(world: IndexWorld) -> None:
    text = "SELECT id FROM app.m WHERE room = 'room 7' AND n > 1000"
    expected = list(range(1007, 5000, 100))
    assert read(world, bound(world, text)) == (expected, [])
    world.run("CREATE INDEX by_room ON m (room)")
    query = bound(world, text)
    assert read(world, query) == (expected, ["by_room"])
    assert read(world, query, last_rows=3) == (expected[-3:], ["by_room"])
    world.run(
        "DELETE FROM m WHERE id = 1007; UPDATE m SET room = 'room 7' WHERE id = 1; UPDATE m SET n = 9007 WHERE id = 7"
    )
    changed = [*expected[1:], 7]
    assert read(world, query) == (changed, ["by_room"])
    world.run("DROP INDEX by_room")
    assert read(world, query) == (changed, [])
    assert read(world, bound(world, text)) == (changed, [])


def test_a_constraint_leads_a_snapshot_to_its_row(world: IndexWorld) -> None:
    ids, [used] = read(world, bound(world, "SELECT id, room FROM app.m WHERE n = 17"))
    assert ids == [17]
    assert "n" in used
