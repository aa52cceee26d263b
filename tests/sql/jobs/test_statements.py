"""Jobs as SQL sees them: KILL JOB, system.jobs, system.job_nodes, what DROP and CLEAR answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sql.errors import PermissionDenied
from sql.jobs.errors import JobNotFound
from sql.jobs.model import JobType
from storage.objects import DROPPED, DROPPED_TOPIC, DroppedTable, DroppedTopic
from tests.sql.jobs.job_world import LONG, Gate, finished, flush
from tests.sql.topic_world import ANN, DORA, SAM, TopicWorld, topic_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TopicWorld]:
    with topic_world(tmp_path) as world:
        yield world


def job_in(message: str) -> str:
    found = re.search(r"\b[A-Z]{2}-[0-9a-f]{23}\b", message)
    assert found is not None, message
    return found[0]


def test_kill_job(world: TopicWorld) -> None:
    jobs = world.database.jobs
    gate = Gate()
    jobs.register(JobType.FLUSH, gate)
    world.database.start()
    job = flush(jobs, table="app.t")
    gate.wait_inside(1)
    for who in (ANN, SAM):
        with pytest.raises(PermissionDenied, match="dba or system"):
            world.run(f"KILL JOB '{job.job_id}'", who=who)
    assert world.message(f"KILL JOB '{job.job_id}'", who=DORA) == f"Job {job.job_id} killed: cancelled"
    jobs.wait(job.job_id, LONG)
    for gone in (job.job_id, "FL-0", ""):
        with pytest.raises(JobNotFound):
            world.run(f"KILL JOB '{gone}'")
    rows = world.rows("SELECT status, message, actor FROM system.jobs WHERE job_type = 'flush'")
    assert rows == [("cancelled", "Cancelled by dora", "root")]


def test_progress_is_seen_while_a_job_runs(world: TopicWorld) -> None:
    jobs = world.database.jobs
    gate = Gate()

    def runner(run) -> str:
        run.progress(37.9, "half way")
        return gate(run)

    jobs.register(JobType.FLUSH, runner)
    world.database.start()
    job = flush(jobs)
    gate.wait_inside(1)
    seen = world.rows("SELECT status, progress, message, started_at IS NULL, finished_at FROM system.jobs")
    assert seen == [("running", 37, "half way", False, None)]
    gate.open()
    finished(jobs, job)
    assert world.rows("SELECT status, progress, message FROM system.jobs") == [("completed", 100, "through")]


def test_a_failure_is_seen(world: TopicWorld) -> None:
    jobs = world.database.jobs

    def runner(run) -> str:
        raise ValueError("no room")

    jobs.register(JobType.FLUSH, runner)
    world.database.start()
    jobs.wait(flush(jobs).job_id, LONG)
    (row,) = world.rows("SELECT status, message, retry_count, exception_trace FROM system.jobs")
    assert row[:3] == ("failed", "ValueError: no room", 3)
    assert row[3].startswith("Traceback")
    assert world.rows("SELECT node_id, status, error_message FROM system.job_nodes") == [
        (1, "failed", "ValueError: no room")
    ]
    figures = dict(world.rows("SELECT metric_name, metric_value FROM system.stats WHERE metric_name LIKE '%job%'"))
    assert figures == {"jobs_failed": "1", "jobs_queued": "0", "jobs_running": "0", "total_jobs": "1"}


def test_dropping_a_table_has_a_job_that_gives_its_space_back(world: TopicWorld) -> None:
    world.run("CREATE TABLE gone (id BIGINT PRIMARY KEY)")
    world.run("INSERT INTO gone VALUES (1), (2)")
    table = world.engine.catalog.table("app", "gone")
    assert table is not None
    message = world.message("DROP TABLE gone")
    job_id = job_in(message)
    assert message == f"Table app.gone dropped successfully. Cleanup job: {job_id}"
    assert job_id.startswith("CL-")
    world.database.start()
    job = world.database.jobs.get(job_id)
    assert job is not None
    assert finished(world.database.jobs, job).message == "Reclaimed app.gone"
    with world.engine.snapshot() as snapshot:
        assert list(snapshot.list_objects(DROPPED, DroppedTable)) == []


def test_rows_that_messages_refer_to_stay_and_the_job_says_so(world: TopicWorld) -> None:
    world.run(
        "CREATE TABLE kept (id BIGINT PRIMARY KEY); CREATE TOPIC app.life; ALTER TOPIC life ADD SOURCE kept ON INSERT"
    )
    world.run("INSERT INTO kept VALUES (1)")
    dropped = job_in(world.message("DROP TABLE kept"))
    world.database.start()
    jobs = world.database.jobs
    assert "which messages of topics refer to" in jobs.wait(dropped, LONG).message
    cleared = job_in(world.message("CLEAR TOPIC life"))
    assert jobs.wait(cleared, LONG).message == "Reclaimed messages of app.life"
    with world.engine.snapshot() as snapshot:
        assert list(snapshot.list_objects(DROPPED, DroppedTable)) == []
    removed = job_in(world.message("DROP TOPIC life"))
    assert removed.startswith("TC-")
    assert jobs.wait(removed, LONG).status == "completed"
    with world.engine.snapshot() as snapshot:
        assert list(snapshot.list_objects(DROPPED_TOPIC, DroppedTopic)) == []


def test_dropping_a_namespace_reclaims_its_tables(world: TopicWorld) -> None:
    world.run(
        "CREATE NAMESPACE whole; CREATE TABLE whole.a (id INT PRIMARY KEY); CREATE TABLE whole.b (id INT PRIMARY KEY)"
    )
    world.run("DROP NAMESPACE whole")
    world.database.start()
    ((job_id,),) = world.rows("SELECT job_id FROM system.jobs")
    assert world.database.jobs.wait(job_id, LONG).message == "Reclaimed whole.a, whole.b"


def test_only_admins_see_jobs(world: TopicWorld) -> None:
    for who in (ANN, SAM):
        for table in ("jobs", "job_nodes"):
            with pytest.raises(PermissionDenied):
                world.run(f"SELECT * FROM system.{table}", who=who)
