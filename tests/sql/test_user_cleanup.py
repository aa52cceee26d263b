"""Dropped accounts: kept for the grace period, then ended with their rows, and with nobody else's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from topic_world import ROOT, SAM, TopicWorld, topic_world

from sql import user_cleanup
from sql.audit import AUDIT_KIND, AuditEntry
from sql.identity import Identity, Role
from sql.jobs.errors import JobCancelled, JobSkipped
from sql.jobs.model import JobDef, JobStatus, JobType
from sql.jobs.run import JobRun
from sql.user_cleanup import DAY_US, SLICE, UserCleanup, UserCleanupSettings
from storage.catalog import USER_KIND, UserDef

DELA = Identity("dela", Role.USER)
ABLE = Identity("able", Role.USER)
TABLES = ("app.notes", "app.keyless", "app.passing")


class Time:
    """A clock that a test moves."""

    def __init__(self, us: int) -> None:
        self.us = us

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.us / 1e6


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TopicWorld]:
    with topic_world(tmp_path) as world:
        world.engine.commit_sync(lambda w: w.put_object(USER_KIND, "root", UserDef("root", "system")))
        world.run("CREATE USER 'dela' WITH INTERNAL ROLE user; CREATE USER 'able' WITH INTERNAL ROLE user")
        world.run("CREATE USER TABLE notes (id INT PRIMARY KEY, v TEXT UNIQUE); CREATE USER TABLE keyless (id INT)")
        world.run("CREATE STREAM TABLE passing (id INT) WITH (TTL_SECONDS = 86400)")
        for who in (DELA, ABLE, ROOT):
            world.run("INSERT INTO notes SELECT range, 'v' || range FROM range(5)", who=who)
            world.run("INSERT INTO keyless VALUES (1), (1), (2)", who=who)
            world.run("INSERT INTO passing VALUES (1), (2)", who=who)
        world.run("CREATE TABLE shared (id INT PRIMARY KEY)")
        world.run("INSERT INTO shared VALUES (1)")
        yield world


def cleanup(world: TopicWorld, days: float) -> UserCleanup:
    """As things stand `days` after now."""
    time = Time(world.database._services.functions.now_us() + int(days * DAY_US))
    return UserCleanup(world.engine, world.database.jobs, UserCleanupSettings(30), time)


def run(of: UserCleanup) -> str:
    return of.run(JobRun(JobDef("UC-1", JobType.USER_CLEANUP, JobStatus.RUNNING)))


def counts(world: TopicWorld, user: str) -> list[int]:
    with world.engine.snapshot() as view:
        tables = [view.catalog.table(*name.split(".")) for name in TABLES]
        return [view.count(table, user) for table in tables if table is not None]


def users(world: TopicWorld) -> list[str]:
    with world.engine.snapshot() as view:
        return [user.user_id for user in view.list_objects(USER_KIND, UserDef)]


def test_accounts_that_were_not_dropped_stay(world: TopicWorld) -> None:
    with pytest.raises(JobSkipped):
        run(cleanup(world, 1_000))
    assert counts(world, "dela") == [5, 3, 2]


def test_rows_go_and_the_record_and_no_others(world: TopicWorld) -> None:
    world.run("DROP USER dela")
    with pytest.raises(JobSkipped):
        run(cleanup(world, 29.9))
    assert run(cleanup(world, 30.1)) == "Ended 1 dropped account(s) with 10 row(s)"
    assert counts(world, "dela") == [0, 0, 0]
    assert counts(world, "able") == counts(world, "root") == [5, 3, 2]
    assert users(world) == ["able", "root"]
    assert world.rows("SELECT * FROM shared") == [(1,)]
    with world.engine.snapshot() as view:
        entry = list(view.list_objects(AUDIT_KIND, AuditEntry))[-1]
    assert (entry.actor, entry.action, entry.target, entry.subject) == ("", "USER_CLEANUP", "dela", "dela")
    assert json.loads(entry.details or "") == {"rows": 10}
    with pytest.raises(JobSkipped):
        run(cleanup(world, 99))


def test_an_account_made_anew_keeps_its_rows(world: TopicWorld) -> None:
    world.run("DROP USER dela; CREATE USER 'dela' WITH INTERNAL ROLE user")
    with pytest.raises(JobSkipped):
        run(cleanup(world, 99))
    assert len(world.rows("SELECT * FROM notes", who=DELA)) == 5


def test_one_made_anew_in_the_middle_keeps_what_is_left(world: TopicWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run("DROP USER dela")
    monkeypatch.setattr(user_cleanup, "SLICE", 2)
    of = cleanup(world, 99)

    class Meddling(JobRun):
        checks = 0

        def check(self) -> None:
            self.checks += 1
            if self.checks == 4:
                world.run("CREATE USER 'dela' WITH INTERNAL ROLE user")

    told = of.run(Meddling(JobDef("UC-1", JobType.USER_CLEANUP, JobStatus.RUNNING)))
    deleted = 10 - sum(counts(world, "dela"))
    assert 0 < deleted < 10
    assert told == f"Ended 0 dropped account(s) with {deleted} row(s)"
    assert "dela" in users(world)


def test_a_job_that_was_cut_off_goes_on(world: TopicWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run("DROP USER dela")
    monkeypatch.setattr(user_cleanup, "SLICE", 2)
    of = cleanup(world, 99)

    class Cut(JobRun):
        checks = 0

        def check(self) -> None:
            self.checks += 1
            if self.checks == 5:
                raise JobCancelled("cut")

    with pytest.raises(JobCancelled):
        of.run(Cut(JobDef("UC-1", JobType.USER_CLEANUP, JobStatus.RUNNING)))
    assert 0 < sum(counts(world, "dela")) < 10
    assert run(of).startswith("Ended 1 dropped account(s)")
    assert counts(world, "dela") == [0, 0, 0]


def test_many_rows_go_in_slices_and_rows_that_come_meanwhile_go_too(world: TopicWorld) -> None:
    world.run(f"INSERT INTO keyless SELECT 7 FROM range({SLICE + 10})", who=DELA)
    world.run("DROP USER dela")
    of = cleanup(world, 99)
    before = world.engine.stats().commits

    class Adding(JobRun):
        added = False

        def check(self) -> None:
            if not self.added:
                self.added = True
                world.run("EXECUTE AS USER 'dela' (INSERT INTO keyless VALUES (8))", who=SAM)

    told = of.run(Adding(JobDef("UC-1", JobType.USER_CLEANUP, JobStatus.RUNNING)))
    assert told == f"Ended 1 dropped account(s) with {SLICE + 21} row(s)"
    assert world.engine.stats().commits - before == 6  # the row, two slices of one table, two tables, the record
    assert counts(world, "dela") == [0, 0, 0]


def test_topics_hear_of_it_as_of_any_delete(world: TopicWorld) -> None:
    world.run("CREATE TOPIC app.gone; ALTER TOPIC gone ADD SOURCE notes ON DELETE WITH (payload = 'key')")
    world.run("DROP USER dela")
    run(cleanup(world, 99))
    assert [(op, user) for op, _, user, _ in world.consumed("gone")] == [("delete", "dela")] * 5


def test_the_job_runs_by_itself_once_however_often_somebody_looks(world: TopicWorld) -> None:
    of = cleanup(world, 99)
    of.look()
    assert world.rows("SELECT * FROM system.jobs") == []
    world.run("DROP USER dela")
    of.look()
    of.look()
    ((job_id, kind),) = world.rows("SELECT job_id, job_type FROM system.jobs")
    assert (job_id[:3], kind) == ("UC-", "user_cleanup")
    world.database.start()
    assert world.database.jobs.wait(job_id, 60).message == "Ended 1 dropped account(s) with 10 row(s)"
    assert users(world) == ["able", "root"]


def test_for_ever(world: TopicWorld) -> None:
    world.run("DROP USER dela")
    of = UserCleanup(world.engine, world.database.jobs, UserCleanupSettings(-1), Time(1 << 52))
    of.look()
    with pytest.raises(JobSkipped):
        run(of)
