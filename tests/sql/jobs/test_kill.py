"""kill -9 of a process that runs jobs: what was submitted is done in the end, what was cancelled is not."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sql.jobs.model import JOB_KIND, JobDef, JobStatus, JobType
from sql.jobs.run import JobRun
from sql.jobs.service import JobService
from storage.check import check
from tests.sql.jobs.job_world import LONG, QUICK, engine_at

ROOT = Path(__file__).parents[3]
STEPS = 6


class Step(msgspec.Struct):
    """What a job of the test leaves behind: how far it came."""

    done: int


def step_by_step(engine):
    """A runner that goes on behind the last step that was committed, as runners are to."""

    def runner(run: JobRun) -> str:
        name = run.job.job_id
        while True:
            run.check()

            def work(wtxn) -> int:
                step = wtxn.get_object("step", name, Step)
                done = 1 if step is None else step.done + 1
                wtxn.put_object("step", name, Step(done))
                return done

            done = engine.commit_sync(work)
            run.progress(100 * done / STEPS)
            if done >= STEPS:
                return f"came to {done}"

    return runner


CHILD = """
import os, sys
from pathlib import Path
from sql.jobs.model import JobType
from sql.jobs.service import JobService
from tests.sql.jobs.job_world import QUICK, engine_at
from tests.sql.jobs.test_kill import step_by_step

with engine_at(Path(sys.argv[1])) as engine:
    jobs = JobService(engine, QUICK)
    jobs.register(JobType.FLUSH, step_by_step(engine))
    jobs.start()
    os.write(1, b"ready\\n")
    while True:
        job = jobs.submit(JobType.FLUSH, {}, actor="test", priority=5)
        os.write(1, f"submitted {job.job_id}\\n".encode())
        doomed = jobs.submit(JobType.COMPACT, {}, actor="test", priority=10)
        try:
            jobs.cancel(doomed.job_id)
        except Exception:
            continue  # it failed first, for want of a runner
        os.write(1, f"cancelled {doomed.job_id}\\n".encode())
"""


@pytest.mark.parametrize("seed", range(1))
def test_kill_in_the_middle_of_jobs(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    said: dict[str, set[str]] = {"submitted": set(), "cancelled": set()}
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
        assert child.stdout is not None
        with child.stdout:
            assert child.stdout.readline() == b"ready\n"
            lines = 10 + dice.randrange(30)
            for number, line in enumerate(child.stdout):
                if line.endswith(b"\n"):
                    word, name = line.decode().split()
                    said[word].add(name)
                if number == lines:
                    break
            child.send_signal(signal.SIGKILL)
            child.wait()
    assert len(said["submitted"]) > 10

    with engine_at(tmp_path) as engine:
        with engine.snapshot() as snapshot:
            stored = {job.job_id: job for job in snapshot.list_objects(JOB_KIND, JobDef)}
        assert said["submitted"] | said["cancelled"] <= stored.keys()  # what was acknowledged is there
        jobs = JobService(engine, QUICK)
        jobs.register(JobType.FLUSH, step_by_step(engine))
        jobs.start()
        for name, job in stored.items():
            ended = jobs.wait(name, LONG)
            if job.job_type is JobType.FLUSH:
                assert ended.status is JobStatus.COMPLETED, ended
                assert ended.retry_count == 0
            elif name in said["cancelled"]:
                assert ended.status is JobStatus.CANCELLED, ended
        jobs.stop()
        with engine.snapshot() as snapshot:
            steps = [snapshot.get_object("step", name, Step) for name in said["submitted"]]
        assert all(step is not None and step.done >= STEPS for step in steps)
        assert not engine.check()
    assert not check(tmp_path / "data")
