"""When and how tables are published: once, wholly, in turn, again after a crash; and how the log stays small."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sql.jobs.model import JobType
from sql.lake.jobs import LakeUpkeep
from storage.check import check
from storage.errors import StorageUnavailable
from tests.sql.jobs.job_world import LONG
from tests.sql.lake.lake_world import in_order, lake_of, own_rows, ran, root_of
from tests.sql.lake.second_engines import delta_rs
from tests.sql.topic_world import ANN, BOB, TopicWorld, topic_world

ROOT = Path(__file__).parents[3]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TopicWorld]:
    with topic_world(tmp_path) as world:
        world.database.jobs.start()  # without housekeeping: nothing is published that a test does not ask for
        yield world


def fill(world: TopicWorld, low: int = 0, high: int = 10) -> None:
    world.run("CREATE TABLE IF NOT EXISTS t (id INT PRIMARY KEY, x TEXT)")
    world.run(f"INSERT INTO t SELECT i, 'v' || i FROM range({low}, {high}) r(i)")
    ran(world, "STORAGE FLUSH TABLE t")


def files(world: TopicWorld) -> list[str]:
    root = root_of(world)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_publication_without_changes_does_nothing(world: TopicWorld) -> None:
    fill(world)
    before = files(world)
    table = world.engine.catalog.table("app", "t")
    assert table is not None
    assert not world.database.lake.stale(table.table_id)
    assert world.database.lake.publish(table.table_id) is None
    assert files(world) == before
    world.run("INSERT INTO t VALUES (100, 'hot')")  # a hot row is not shown, so nothing is stale
    assert not world.database.lake.stale(table.table_id)


def test_publications_of_a_table_follow_one_another(world: TopicWorld) -> None:
    fill(world)
    table = world.engine.catalog.table("app", "t")
    assert table is not None
    world.run("DELETE FROM t WHERE id < 3")
    lake, found = world.database.lake, []
    inside, barrier = [0, 0], threading.Barrier(4)

    def step(name: str) -> None:
        inside[0] += 1 if name == "planned" else -1
        inside[1] = max(inside)

    lake.step = step

    def publish() -> None:
        barrier.wait()
        found.append(lake.publish(table.table_id))

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside[1] == 1
    assert [one for one in found if one is not None] == [(1, 3)]
    assert in_order(delta_rs(root_of(world))) == own_rows(world)


def test_deletes_are_published_by_the_look(world: TopicWorld) -> None:
    fill(world)
    upkeep = LakeUpkeep(world.engine, world.database.jobs, world.database.lake)
    world.run("DELETE FROM t WHERE id < 3")
    upkeep.look()
    table = world.engine.catalog.table("app", "t")
    assert table is not None
    job = world.database.jobs.keyed(f"publish:{table.table_id}")
    assert job is not None
    assert world.database.jobs.wait(job.job_id, LONG).message == "Published 1 file(s) of app.t with 3 deleted row(s)"
    assert in_order(delta_rs(root_of(world))) == own_rows(world)


def test_the_log_stays_small_and_what_readers_may_need_stays(world: TopicWorld) -> None:
    """30 versions: with a long grace all of them read; without one, a checkpoint and its commits are left."""
    fill(world, 0, 60)
    seen = {}
    for number in range(1, 30):
        world.run(f"DELETE FROM t WHERE id = {number}")
        ran(world, "STORAGE FLUSH TABLE t")
        lake = lake_of(world)
        assert lake is not None
        seen[lake.version] = own_rows(world)
    assert sorted(seen) == list(range(1, 30))
    for version in (1, 9, 10, 11, 25, 29):
        assert in_order(delta_rs(root_of(world), version=version)) == seen[version]
    assert len([name for name in files(world) if name.startswith("_delta_log/") and name.endswith(".json")]) == 30
    world.engine.options = msgspec.structs.replace(world.engine.options, cold_grace_seconds=0.0)
    for number in range(30, 42):
        world.run(f"DELETE FROM t WHERE id = {number}")
        ran(world, "STORAGE FLUSH TABLE t")
    left = files(world)
    assert len([name for name in left if name.endswith(".json")]) <= 12, left
    assert len([name for name in left if name.endswith(".bin")]) <= 12, left
    assert len([name for name in left if name.endswith(".checkpoint.parquet")]) == 1
    assert in_order(delta_rs(root_of(world))) == own_rows(world)


def test_the_open_table_of_a_dropped_table_goes_unless_another_lies_there(world: TopicWorld) -> None:
    fill(world)
    root = root_of(world)
    world.run("DROP TABLE t")
    world.run("CREATE TABLE t (id INT PRIMARY KEY, other DOUBLE)")
    world.run("INSERT INTO t VALUES (1, 0.5)")
    ran(world, "STORAGE FLUSH TABLE t")
    assert in_order(delta_rs(root)) == own_rows(world)
    assert world.database.lake.sweep() == 1
    assert in_order(delta_rs(root)) == own_rows(world)
    world.run("DROP TABLE t")
    LakeUpkeep(world.engine, world.database.jobs, world.database.lake).look()
    job = world.database.jobs.keyed("open tables")
    assert job is not None
    assert job.job_type is JobType.MANIFEST_EVICTION
    assert world.database.jobs.wait(job.job_id, LONG).message == "Took away the open tables of 1 dropped table(s)"
    assert not any((root / "_delta_log").iterdir())


def test_a_version_that_somebody_else_wrote_is_not_replaced(world: TopicWorld) -> None:
    fill(world)
    table = world.engine.catalog.table("app", "t")
    assert table is not None
    foreign = root_of(world) / "_delta_log" / f"{1:020}.json"
    world.database.lake.step = lambda name: foreign.write_text('{"txn":{"appId":"x","version":1}}\n') and None
    world.run("DELETE FROM t WHERE id = 1")
    with pytest.raises(StorageUnavailable, match="somebody else wrote"):
        world.database.lake.publish(table.table_id)
    world.database.lake.step = lambda name: None
    assert world.database.lake.publish(table.table_id) is not None  # behind it
    assert foreign.read_text().startswith('{"txn"')
    assert in_order(delta_rs(root_of(world))) == own_rows(world)


def test_a_log_that_does_not_decode_is_said_and_left(world: TopicWorld) -> None:
    fill(world)
    table = world.engine.catalog.table("app", "t")
    assert table is not None
    first = root_of(world) / "_delta_log" / f"{0:020}.json"
    whole = first.read_bytes()
    first.write_bytes(whole[:-20])
    world.run("DELETE FROM t WHERE id = 1")
    with pytest.raises(StorageUnavailable, match="does not decode"):
        world.database.lake.publish(table.table_id)
    first.write_bytes(whole)
    assert world.database.lake.publish(table.table_id) is not None


CHILD = """
import os, signal, sys
from pathlib import Path
from tests.sql.lake.test_publishing import fill
from tests.sql.topic_world import topic_world

def die(name):
    if name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

with topic_world(Path(sys.argv[1])) as world:
    world.database.jobs.start()
    fill(world)
    world.run("UPDATE t SET x = 'new' WHERE id = 1")
    world.run("DELETE FROM t WHERE id = 2")
    world.engine.cold.step = world.database.lake.step = die
    fill(world, 10, 20)
"""


@pytest.mark.parametrize("step", ["swapped", "planned", "committed"])
def test_kill_between_flush_and_publication(tmp_path: Path, step: str) -> None:
    """The former version reads until the next start, which brings the present one."""
    made = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), step], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=300, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert made.returncode == -signal.SIGKILL, made.stderr
    root = tmp_path / "data" / "cold" / "app" / "t"
    former = sorted(row["id"] for row in delta_rs(root))
    if step != "committed":
        assert former == list(range(10))
    assert check(tmp_path / "data") == []
    with topic_world(tmp_path) as world:
        expected = own_rows(world)
        table = world.engine.catalog.table("app", "t")
        assert table is not None
        upkeep = LakeUpkeep(world.engine, world.database.jobs, world.database.lake)
        upkeep.look()  # as housekeeping does right after the start
        world.database.start()
        keys = (f"flush:{table.table_id}", f"publish:{table.table_id}")
        for job in map(world.database.jobs.keyed, keys):
            if job is not None:
                world.database.jobs.wait(job.job_id, LONG)
        assert not world.database.lake.stale(table.table_id)
        assert in_order(delta_rs(root)) == expected


def test_a_look_asks_about_tables_that_changed_only(world: TopicWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(world)
    world.run("CREATE TABLE other (id INT PRIMARY KEY)")
    lake, asked = world.database.lake, []
    stale = lake.stale

    def asking(table_id: int) -> bool:
        table = world.engine.catalog.table_by_id(table_id)
        assert table is not None
        asked.append(table.name)
        return stale(table_id)

    monkeypatch.setattr(lake, "stale", asking)
    upkeep = LakeUpkeep(world.engine, world.database.jobs, lake, Standing())
    for statement, names in (
        ("INSERT INTO t VALUES (100, 'hot')", {"t", "other"}),  # the first look
        ("INSERT INTO t VALUES (101, 'hot')", set()),
        ("INSERT INTO other VALUES (1)", set()),
        ("DELETE FROM other WHERE id = 1", {"other"}),
        ("UPDATE t SET x = 'dead' WHERE id = 1", {"t"}),  # behind now, and so asked again until it is published
        ("INSERT INTO other VALUES (2)", {"t"}),
        ("ALTER TABLE other ADD COLUMN y INT", {"t", "other"}),
    ):
        world.run(statement)
        asked.clear()
        upkeep.look()
        assert set(asked) & {"t", "other"} == names, statement
        asked.clear()
    job = world.database.jobs.keyed(f"publish:{table_id(world)}")
    assert job is not None
    world.database.jobs.wait(job.job_id, LONG)


class Standing:
    """A clock that stands still, so that no look follows another too soon."""

    def now_us(self) -> int:
        return 0

    def monotonic(self) -> float:
        return 0.0


def table_id(world: TopicWorld, name: str = "t") -> int:
    found = world.engine.catalog.table("app", name)
    assert found is not None
    return found.table_id


@pytest.mark.parametrize("template", ["{namespace}/{tableName}/{userId}", "{userId}/{namespace}/{tableName}"])
def test_whether_a_table_is_behind_is_told_from_keys_as_from_its_files(world: TopicWorld, template: str) -> None:
    world.run(f"ALTER STORAGE local SET USER_TABLES_TEMPLATE '{template}'")
    world.run("CREATE USER TABLE t (id INT PRIMARY KEY, x TEXT)")
    number, lake = table_id(world), world.database.lake

    def behind() -> bool:
        told = lake.stale(number)
        with world.engine.snapshot() as snapshot:
            table = snapshot.catalog.table_by_id(number)
            assert table is not None
            units, gone = lake._units(snapshot, table)
        assert told is (bool(gone) or any(unit.stale for unit in units))
        return told

    assert not behind()
    for who in (ANN, BOB):
        world.run("INSERT INTO t SELECT i, 'v' || i FROM range(5) r(i)", who=who)
    assert not behind()
    world.engine.cold.flush(number)
    assert behind()
    lake.publish(number)
    assert not behind()
    world.run("INSERT INTO t VALUES (10, 'hot')", who=ANN)
    world.run("DELETE FROM t WHERE id = 10", who=ANN)
    assert not behind()
    world.run("DELETE FROM t WHERE id = 1", who=ANN)
    assert behind()
    lake.publish(number)
    assert not behind()
    world.engine.cold.compact(number)
    assert behind()
    lake.publish(number)
    world.run("DELETE FROM t WHERE true", who=BOB)
    world.engine.cold.compact(number)
    assert behind()
    lake.publish(number)
    assert not behind()
    world.run("ALTER STORAGE local SET USER_TABLES_TEMPLATE 'elsewhere/{namespace}/{tableName}/{userId}'")
    assert behind()
    lake.publish(number)
    assert not behind()
