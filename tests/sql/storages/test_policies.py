"""Flush policies by rows and by interval, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sql.jobs.model import JobType
from sql.storages.policies import FlushScheduler, FlushSettings, Policy, policy_of
from storage.catalog import TableDef, TableKind
from storage.snapshots import Snapshot
from tests.sql.jobs.job_world import LONG
from tests.sql.topic_world import TopicWorld, topic_world


class MovedClock:
    """Starts at the machine's time, because commits take theirs from it."""

    def __init__(self, now_us: int) -> None:
        self.now = now_us

    def now_us(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / 1e6


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TopicWorld]:
    with topic_world(tmp_path) as world:
        world.database.jobs.start()
        yield world


def scheduler_at(world: TopicWorld, table: str = "t", **settings: float) -> tuple[FlushScheduler, MovedClock]:
    found = world.engine.catalog.table("app", table)
    assert found is not None
    clock = MovedClock(found.created_at)
    return FlushScheduler(world.engine, world.database.jobs, FlushSettings(**settings), clock), clock


def flushes(world: TopicWorld) -> int:
    """How many flushes there were; all of them have ended."""
    ids = world.rows(f"SELECT job_id FROM system.jobs WHERE job_type = '{JobType.FLUSH}' AND actor = 'scheduler'")
    for (job_id,) in ids:
        assert world.database.jobs.wait(job_id, LONG).status == "completed"
    return len(ids)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rows:10", Policy(10, None)), ("interval:60", Policy(None, 60)), ("rows:10,interval:60", Policy(10, 60)),
        ("", None),
    ],
)  # fmt: skip
def test_policy_of_a_table(text: str, expected: Policy | None) -> None:
    table = TableDef(
        table_id=1, namespace="a", name="t", kind=TableKind.SHARED, columns=(), options={"flush_policy": text}
    )
    assert policy_of(table) == expected


def test_by_rows(world: TopicWorld) -> None:
    world.run("CREATE TABLE t (id BIGINT PRIMARY KEY) WITH (FLUSH_POLICY = 'rows:10')")
    scheduler, clock = scheduler_at(world, check_interval=60)
    world.run("INSERT INTO t SELECT i FROM range(9) r(i)")
    assert scheduler.look() == 60
    assert flushes(world) == 0
    clock.now += 10**12
    world.run("INSERT INTO t VALUES (9)")
    scheduler.look()
    assert flushes(world) == 1
    scheduler.look()
    world.run("INSERT INTO t VALUES (10)")
    scheduler.look()
    assert flushes(world) == 1


def test_by_interval(world: TopicWorld) -> None:
    world.run("CREATE TABLE t (id BIGINT PRIMARY KEY) WITH (FLUSH_POLICY = 'interval:30')")
    scheduler, clock = scheduler_at(world, check_interval=60)
    assert scheduler.look() == 60  # nothing is there to be flushed
    world.run("INSERT INTO t VALUES (1)")
    clock.now += 20_000_000
    assert scheduler.look() == 10  # and it looks again in time, though nothing was committed
    assert flushes(world) == 0
    clock.now += 10_000_000
    scheduler.look()
    assert flushes(world) == 1
    world.run("INSERT INTO t VALUES (2)")
    (began,) = world.rows("SELECT epoch_us(created_at) FROM system.jobs")[0]
    clock.now = began + 29_000_000
    assert scheduler.look() == 1
    assert flushes(world) == 1
    clock.now += 1_000_000
    scheduler.look()
    assert flushes(world) == 2


def test_whichever_comes_first(world: TopicWorld) -> None:
    world.run("CREATE TABLE t (id BIGINT PRIMARY KEY) WITH (FLUSH_POLICY = 'rows:3,interval:1000')")
    scheduler, clock = scheduler_at(world)
    world.run("INSERT INTO t VALUES (1), (2), (3)")
    scheduler.look()
    assert flushes(world) == 1
    world.run("INSERT INTO t VALUES (4)")
    clock.now += 10**10
    scheduler.look()
    assert flushes(world) == 2


def test_tables_without_a_policy_are_left_alone(world: TopicWorld) -> None:
    world.run("CREATE TABLE t (id BIGINT PRIMARY KEY)")
    world.run("INSERT INTO t SELECT i FROM range(1000) r(i)")
    scheduler, clock = scheduler_at(world)
    clock.now += 10**12
    scheduler.look()
    assert flushes(world) == 0


def test_a_table_is_counted_when_it_may_be_due_and_not_before(
    world: TopicWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run("CREATE TABLE t (id BIGINT PRIMARY KEY) WITH (FLUSH_POLICY = 'rows:10')")
    scheduler, _ = scheduler_at(world)
    counted = []
    pending_rows = world.engine.cold.pending_rows

    def counting(view: Snapshot, table: TableDef) -> int:
        counted.append(pending_rows(view, table))
        return counted[-1]

    monkeypatch.setattr(world.engine.cold, "pending_rows", counting)
    for number in range(4):
        world.run(f"INSERT INTO t SELECT {number} * 2 + i FROM range(2) r(i)")
        scheduler.look()
    assert counted == [2]
    world.run("DELETE FROM t WHERE id < 4")
    world.run("INSERT INTO t SELECT 100 + i FROM range(3) r(i)")
    scheduler.look()  # eleven were added, but four are gone
    assert (counted, flushes(world)) == ([2, 7], 0)
    world.run("INSERT INTO t VALUES (200), (201), (202)")
    scheduler.look()
    assert (counted, flushes(world)) == ([2, 7, 10], 1)
    world.run("INSERT INTO t VALUES (300)")
    scheduler.look()
    scheduler.look()
    world.run("CREATE TABLE other (id BIGINT PRIMARY KEY)")
    scheduler.look()
    assert (counted, flushes(world)) == ([2, 7, 10, 1], 1)
