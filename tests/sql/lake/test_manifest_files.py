"""`manifest.json` beside the files of each partition: what system.manifest tells, written where something changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sql.lake.lake_world import lake_of, ran
from tests.sql.topic_world import ANN, BOB, TopicWorld, topic_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TopicWorld]:
    with topic_world(tmp_path) as world:
        world.database.start()
        yield world


def manifests(world: TopicWorld) -> dict[str, bytes]:
    """All manifests of the storage `local` by their folder."""
    base = world.engine.path / "cold"
    return {str(path.parent.relative_to(base)): path.read_bytes() for path in base.rglob("manifest.json")}


def committed(text: bytes | str) -> list[tuple[str, int]]:
    """The files and rows of a manifest."""
    found = json.loads(text)["segments"]
    return sorted((one["path"], one["row_count"]) for one in found if one["status"] == "committed")


def test_each_user_has_one_and_only_what_changed_is_written_again(world: TopicWorld) -> None:
    world.run("CREATE USER TABLE t (id INT PRIMARY KEY, x TEXT)")
    for who in (ANN, BOB):
        world.run("INSERT INTO t SELECT i, 'v' FROM range(10) r(i)", who=who)
    ran(world, "STORAGE FLUSH TABLE t")
    first = manifests(world)
    assert sorted(first) == ["app/t/ann", "app/t/bob"]
    shown = world.rows("SELECT manifest_json FROM system.manifest ORDER BY cache_key")
    assert sorted(committed(text) for text in first.values()) == sorted(committed(text) for (text,) in shown)
    world.run("INSERT INTO t VALUES (10, 'w')", who=ANN)
    ran(world, "STORAGE FLUSH TABLE t")
    second = manifests(world)
    assert second["app/t/bob"] == first["app/t/bob"]
    assert [rows for _, rows in committed(second["app/t/ann"])] == [10, 1]
    ran(world, "STORAGE COMPACT TABLE t")
    assert [rows for _, rows in committed(manifests(world)["app/t/ann"])] == [11]


def test_they_go_with_the_table(world: TopicWorld) -> None:
    world.run("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1)")
    ran(world, "STORAGE FLUSH TABLE t")
    assert lake_of(world) is not None
    assert list(manifests(world)) == ["app/t"]
    ran(world, "DROP TABLE t")
    assert world.database.lake.sweep() == 1
    assert manifests(world) == {}
