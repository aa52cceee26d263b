"""The job engine: durable, bounded, ordered, repeated, cancelled, resumed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sql.errors import Overloaded
from sql.jobs import store
from sql.jobs.errors import JobCancelled, JobInterrupted, JobNotFound, JobSkipped
from sql.jobs.model import JOB_KIND, JobDef, JobStatus, JobType
from sql.jobs.run import JobRun
from sql.jobs.service import JobService
from sql.jobs.settings import JobSettings
from storage import StorageEngine
from tests.sql.jobs.job_world import LONG, QUICK, Gate, engine_at, finished, flush


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[StorageEngine]:
    with engine_at(tmp_path) as engine:
        yield engine


@pytest.fixture
def jobs(engine: StorageEngine) -> Iterator[JobService]:
    service = JobService(engine, QUICK)
    yield service
    service.stop()


def test_a_job_runs_and_tells_what_it_did(jobs: JobService) -> None:
    seen = []

    def runner(run: JobRun) -> str:
        seen.append(msgspec.json.decode(run.job.parameters))
        assert run.job.status is JobStatus.RUNNING
        run.progress(40, "half")
        latest = jobs.progress_of(run.job.job_id)
        assert latest is not None
        assert latest == (40, "half")
        return "did it"

    jobs.register(JobType.FLUSH, runner)
    jobs.start()
    job = flush(jobs, table="app.t")
    assert job.job_id.startswith("FL-")
    done = finished(jobs, job)
    assert (done.message, done.progress, done.actor, done.retry_count) == ("did it", 100, "root", 0)
    assert done.created_at <= done.started_at <= done.finished_at  # type: ignore[operator]
    assert seen == [{"table": "app.t"}]
    assert jobs.progress_of(job.job_id) is None


def test_every_type_has_a_prefix_of_its_own() -> None:
    prefixes = {kind.prefix for kind in JobType}
    assert len(prefixes) == len(JobType)
    assert all(len(prefix) == 2 and prefix.isupper() for prefix in prefixes)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_never_more_than_max_concurrent(engine: StorageEngine, limit: int) -> None:
    jobs = JobService(engine, JobSettings(max_concurrent=limit))
    gate = Gate()
    jobs.register(JobType.FLUSH, gate)
    jobs.start()
    submitted = [flush(jobs, n=n) for n in range(3 * limit)]
    gate.wait_inside(limit)
    assert jobs.figures()["jobs_running"] == limit
    gate.open()
    for job in submitted:
        finished(jobs, job)
    assert gate.most == limit
    jobs.stop()


def test_one_job_of_a_lane_at_a_time(jobs: JobService) -> None:
    inside: set[object] = set()
    lock = threading.Lock()

    def runner(run: JobRun) -> str:
        table = run.job.argument("table")
        with lock:
            assert table not in inside
            inside.add(table)
        run.sleep(0.002)
        with lock:
            inside.remove(table)
        return "ok"

    jobs.register(JobType.FLUSH, runner, lane=lambda job: str(job.argument("table")))
    jobs.start()
    for job in [flush(jobs, table=n % 3) for n in range(12)]:
        assert finished(jobs, job).retry_count == 0


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 10), min_size=1, max_size=8))
def test_priority_then_age(tmp_path_factory: pytest.TempPathFactory, priorities: list[int]) -> None:
    with engine_at(tmp_path_factory.mktemp("jobs")) as engine:
        jobs = JobService(engine, JobSettings(max_concurrent=1))
        ran: list[str] = []
        jobs.register(JobType.FLUSH, lambda run: ran.append(run.job.job_id) or "ok")  # type: ignore[func-returns-value]
        submitted = [jobs.submit(JobType.FLUSH, {}, actor="", priority=p) for p in priorities]
        jobs.start()
        for job in submitted:
            finished(jobs, job)
        jobs.stop()
        expected = sorted(submitted, key=lambda job: (job.priority, job.created_at, job.job_id))
        assert ran == [job.job_id for job in expected]


@pytest.mark.parametrize("failures", [0, 1, 3, 4, 9])
def test_retries(jobs: JobService, failures: int) -> None:
    runs: list[int] = []

    def runner(run: JobRun) -> str:
        runs.append(run.job.retry_count)
        if len(runs) <= failures:
            raise ValueError("not today")
        return "at last"

    jobs.register(JobType.FLUSH, runner)
    jobs.start()
    lasts = failures > QUICK.max_retries
    done = finished(jobs, flush(jobs), JobStatus.FAILED if lasts else JobStatus.COMPLETED)
    assert runs == list(range(min(failures, QUICK.max_retries) + 1))
    assert done.retry_count == min(failures, QUICK.max_retries)
    if lasts:
        assert done.message == "ValueError: not today"
        assert done.exception_trace is not None
        assert "in runner" in done.exception_trace
        assert jobs.figures()["jobs_failed"] == 1


def test_skipped(jobs: JobService) -> None:
    def runner(run: JobRun) -> str:
        raise JobSkipped("nothing there")

    jobs.register(JobType.FLUSH, runner)
    jobs.start()
    assert finished(jobs, flush(jobs), JobStatus.SKIPPED).message == "nothing there"


def test_a_type_that_nobody_runs_fails(jobs: JobService) -> None:
    jobs.start()
    assert "no way to run" in finished(jobs, flush(jobs), JobStatus.FAILED).message


def test_cancel_while_it_waits_and_while_it_runs(engine: StorageEngine) -> None:
    jobs = JobService(engine, JobSettings(max_concurrent=1))
    gate = Gate()
    jobs.register(JobType.FLUSH, gate)
    jobs.start()
    running = flush(jobs)
    gate.wait_inside(1)
    waiting = flush(jobs)
    for job in (waiting, running):
        cancelled = jobs.cancel(job.job_id, "dora")
        assert cancelled.status is JobStatus.CANCELLED
        assert finished(jobs, job, JobStatus.CANCELLED).message == "Cancelled by dora"
        with pytest.raises(JobNotFound, match="has ended as cancelled already"):
            jobs.cancel(job.job_id)
    with pytest.raises(JobNotFound, match="no job"):
        jobs.cancel("FL-nothing")
    gate.open()
    finished(jobs, flush(jobs))  # the slot is free again
    assert waiting.job_id not in gate.order
    jobs.stop()


def test_what_came_to_its_end_after_all_says_so(jobs: JobService) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def deaf(run: JobRun) -> str:
        begun.set()
        assert go_on.wait(LONG)
        return "all written"

    jobs.register(JobType.FLUSH, deaf)
    jobs.start()
    job = flush(jobs)
    assert begun.wait(LONG)
    jobs.cancel(job.job_id)
    go_on.set()
    jobs.register(JobType.COMPACT, lambda run: "after it")
    finished(jobs, jobs.submit(JobType.COMPACT, {}, actor=""))
    jobs.stop()
    told = jobs.get(job.job_id)
    assert told is not None
    assert told.status is JobStatus.CANCELLED
    assert "all written" in told.message


def test_an_idempotency_key_answers_with_the_job_that_has_it(jobs: JobService) -> None:
    gate = Gate()
    jobs.register(JobType.FLUSH, gate)
    jobs.start()
    key = "flush:" + "x" * 600
    first, created = jobs.submit_once(JobType.FLUSH, {"n": 1}, actor="", idempotency_key=key)
    assert created
    again = jobs.submit_once(JobType.FLUSH, {"n": 2}, actor="", idempotency_key=key)
    assert (again.job.job_id, again.created) == (first.job_id, False)
    assert jobs.submit_once(JobType.FLUSH, {}, actor="", idempotency_key="other").created
    gate.open()
    finished(jobs, first)
    within = jobs.submit_once(JobType.FLUSH, {}, actor="", idempotency_key=key, window=3600)
    assert (within.job.job_id, within.created) == (first.job_id, False)
    after = jobs.submit_once(JobType.FLUSH, {}, actor="", idempotency_key=key)
    assert after.created
    assert jobs.keyed(key) == jobs.get(after.job.job_id) or jobs.keyed(key) is not None


def test_many_threads_and_one_key_make_one_job(jobs: JobService) -> None:
    gate = Gate()
    jobs.register(JobType.FLUSH, gate)
    jobs.start()
    found: list[store.Staged] = []

    def submit() -> None:
        found.append(jobs.submit_once(JobType.FLUSH, {}, actor="", idempotency_key="one"))

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [staged.created for staged in found].count(True) == 1
    assert len({staged.job.job_id for staged in found}) == 1


def test_a_job_is_there_if_and_only_if_its_commit_is(engine: StorageEngine, jobs: JobService) -> None:
    jobs.register(JobType.CLEANUP, lambda run: "ok")
    jobs.start()
    made = []

    def work(wtxn, fails: bool) -> None:
        made.append(jobs.submit_in(wtxn, JobType.CLEANUP, {}, actor="ann"))
        if fails:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        engine.commit_sync(lambda wtxn: work(wtxn, fails=True))
    engine.commit_sync(lambda wtxn: work(wtxn, fails=False))
    finished(jobs, made[-1])
    assert jobs.get(made[0].job_id) is None


def test_too_many_waiting_jobs_are_refused(engine: StorageEngine) -> None:
    jobs = JobService(engine, JobSettings(max_concurrent=1, max_waiting=2))
    gate = Gate()
    jobs.register(JobType.FLUSH, gate)
    jobs.start()
    flush(jobs)
    gate.wait_inside(1)
    flush(jobs)
    flush(jobs)

    def many() -> None:
        for _ in range(1000):
            flush(jobs)

    with pytest.raises(Overloaded, match=r"jobs\.max_waiting"):
        many()
    jobs.stop()


def test_an_orderly_stop_gives_the_job_to_the_next_start(engine: StorageEngine) -> None:
    first = JobService(engine, QUICK)
    gate = Gate()
    reasons = []

    def runner(run: JobRun) -> str:
        try:
            return gate(run)
        except JobCancelled as stopped:
            reasons.append(type(stopped))
            raise

    first.register(JobType.FLUSH, runner)
    first.start()
    job = flush(first)
    gate.wait_inside(1)
    first.stop()
    assert reasons == [JobInterrupted]
    stored = first.get(job.job_id)
    assert stored is not None
    assert (stored.status, stored.retry_count, stored.interruptions) == (JobStatus.QUEUED, 0, 0)

    second = JobService(engine, QUICK)
    second.register(JobType.FLUSH, lambda run: "went on")
    second.start()
    assert finished(second, job).message == "went on"
    second.stop()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(JobStatus), min_size=1, max_size=8))
def test_a_start_queues_what_had_not_finished(
    tmp_path_factory: pytest.TempPathFactory, statuses: list[JobStatus]
) -> None:
    with engine_at(tmp_path_factory.mktemp("jobs")) as engine:
        names = {f"FL-{number}": status for number, status in enumerate(statuses)}

        def work(wtxn) -> None:
            for name, status in names.items():
                wtxn.put_object(JOB_KIND, name, JobDef(name, JobType.FLUSH, status))

        engine.commit_sync(work)
        jobs = JobService(engine, QUICK)
        ran = []
        jobs.register(JobType.FLUSH, lambda run: ran.append(run.job.job_id) or "ok")  # type: ignore[func-returns-value]
        jobs.start()
        for name, status in names.items():
            job = jobs.wait(name, LONG)
            assert job.status is (status if status.finished else JobStatus.COMPLETED)
        jobs.stop()
        assert sorted(ran) == sorted(name for name, status in names.items() if not status.finished)


def test_what_ends_the_server_again_and_again_is_given_up(engine: StorageEngine, jobs: JobService) -> None:
    cut = JobDef("FL-0", JobType.FLUSH, JobStatus.RUNNING, interruptions=store.MAX_INTERRUPTIONS)
    engine.commit_sync(lambda wtxn: wtxn.put_object(JOB_KIND, cut.job_id, cut))
    jobs.register(JobType.FLUSH, lambda run: "never")
    jobs.start()
    assert "the server ended 11 times" in finished(jobs, cut, JobStatus.FAILED).message


def test_old_jobs_are_removed_and_others_stay(engine: StorageEngine) -> None:
    from sql.jobs import cleanup

    jobs = JobService(engine, JobSettings(retry_backoff=0.001, max_finished=3))
    cleanup.register(jobs, engine)
    gate = Gate()
    jobs.register(JobType.FLUSH, lambda run: "ok")
    jobs.register(JobType.COMPACT, gate)
    jobs.start()
    stays = jobs.submit(JobType.COMPACT, {}, actor="")
    old = [jobs.submit(JobType.FLUSH, {}, actor="", idempotency_key=f"k{n}") for n in range(8)]
    for job in old:
        finished(jobs, job)
    assert len(jobs.old_jobs()) == 5
    done = finished(jobs, jobs.submit(JobType.JOB_CLEANUP, {}, actor=""))
    assert done.message == "Removed 5 finished job(s)"
    left = [job for job in old if jobs.get(job.job_id) is not None]
    assert len(left) == 3
    assert [jobs.keyed(f"k{n}") is not None for n in range(8)].count(True) == 3
    assert jobs.get(stays.job_id) is not None
    gate.open()
    finished(jobs, stays)
    jobs.stop()
