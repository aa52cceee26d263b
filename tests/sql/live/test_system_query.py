"""Live queries of system tables: what commits of definitions change, told once, against what the client has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from sql.errors import PermissionDenied, TableNotFound, Unsupported
from sql.live.interface import LiveQuery
from sql.live.wire_rows import table_rows
from storage.catalog import NamespaceDef, UserDef
from storage.topic_definitions import TopicDef
from storage.types import BIGINT, TEXT
from tests.sql.live.live_world import ALICE, DBA, World, opened


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with opened(tmp_path / "db") as made:
        yield made


def told(world: World, query: LiveQuery, position: int) -> list[tuple[str, list[object], list[object]]]:
    found = []
    for commit in world.changes_after(position):
        delta = query.delta(commit, None, blocking=True)
        if delta is not None:
            assert delta.seq == commit.last_seq
            found += [(c.type.value, list(c.rows), list(c.old_rows)) for c in delta.changes]
    return found


def test_users_come_change_and_go(world: World) -> None:
    query = world.bind("SELECT role, email FROM system.users WHERE role <> 'service'", identity=DBA)
    with world.engine.snapshot() as view:
        assert query.snapshot(view).num_rows == 0
    start = world.engine.last_seq
    world.commit(lambda w: w.put_object("user", "ann", UserDef("ann", "user", email="a@x")))
    first = world.engine.last_seq
    assert told(world, query, start) == [("insert", [{"role": "user", "email": "a@x", "_seq": first}], [])]
    world.commit(lambda w: w.put_object("user", "ann", UserDef("ann", "dba", email="a@x")))
    second = world.engine.last_seq
    row = {"role": "dba", "email": "a@x", "_seq": second}
    assert told(world, query, first) == [("update", [row], [{"role": "user", "user_id": "ann", "_seq": first}])]
    world.commit(lambda w: w.put_object("user", "ann", UserDef("ann", "service", email="a@x")))
    assert told(world, query, second) == [
        ("delete", [], [{"role": "dba", "email": "a@x", "user_id": "ann", "_seq": second}])
    ]


def test_topics_come_and_change(world: World) -> None:
    query = world.bind("SELECT topic_id, partitions FROM system.topics", identity=DBA)
    start = world.engine.last_seq
    topic = TopicDef(world.engine.commit_sync(lambda w: w.allocate_table_id()), "app", "t")
    world.commit(lambda w: w.put_topic(topic))
    first = world.engine.last_seq
    row = {"topic_id": "app.t", "partitions": 1, "_seq": first}
    assert told(world, query, start) == [("insert", [row], [])]
    world.commit(lambda w: w.put_topic(msgspec.structs.replace(topic, owner="ann")))
    world.commit(lambda w: w.drop_topic(topic.topic_id))
    assert told(world, query, first) == [("delete", [], [row])]


def test_a_commit_is_told_once_however_late_it_is_read(world: World) -> None:
    query = world.bind("SELECT name FROM system.namespaces", identity=DBA)
    start = world.engine.last_seq
    for name in ("one", "two"):
        world.commit(lambda w, name=name: w.put_namespace(NamespaceDef(name)))
    [(kind, rows, _)] = told(world, query, start)
    assert kind == "insert"
    assert [row["name"] for row in rows] == ["one", "two"]
    assert told(world, query, start) == []
    with world.engine.snapshot() as view:
        snapshot = query.snapshot(view)
    assert [column.name for column in query.columns] == snapshot.schema.names == ["name", "_seq"]
    names = {row["name"] for row in table_rows(snapshot, query.columns, world.services.bigint)}
    assert {"one", "two", "app", "system"} <= names


def test_commits_of_rows_change_nothing(world: World) -> None:
    table = world.table("t", [("id", BIGINT), ("title", TEXT)])
    query = world.bind("SELECT * FROM system.tables", identity=DBA)
    start = world.engine.last_seq
    rows = pa.Table.from_pylist([{"id": 1, "title": "a"}], schema=table.arrow_schema)
    world.commit(lambda w: w.insert(table, "alice", rows))
    assert len(world.changes_after(start)) == 1
    assert told(world, query, start) == []


def test_everyone_sees_the_tables_that_he_may_read(world: World) -> None:
    query = world.bind("SELECT table_name, column_name FROM information_schema.columns WHERE table_name = 'late'")
    start = world.engine.last_seq
    world.table("late", [("id", BIGINT), ("title", TEXT)])
    [(kind, rows, _)] = told(world, query, start)
    assert kind == "insert"
    assert [row["column_name"] for row in rows] == ["id", "title"]


def test_two_queries_have_no_key_in_common(world: World) -> None:
    first, second = (world.bind("SELECT * FROM system.namespaces", identity=DBA) for _ in range(2))
    assert first.key != second.key
    assert (first.table_id, first.partition, first.equality, first.is_resumable) == (None, "", None, False)
    assert first.is_blocking


def test_rights_and_tables_are_checked(world: World) -> None:
    with pytest.raises(PermissionDenied):
        world.bind("SELECT * FROM system.namespaces", identity=ALICE)
    with pytest.raises(TableNotFound):
        world.bind("SELECT * FROM system.nope", identity=DBA)
    with pytest.raises(Unsupported, match="running server"):
        world.bind("SELECT * FROM system.settings", identity=DBA)
