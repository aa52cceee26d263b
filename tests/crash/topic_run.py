"""A run over tables with topics in which each call on the disk fails once, or is the last before `kill -9`. A program.

`python -m tests.crash.topic_run CONTROL FOLDER FAULT`, with the shim preloaded. It plays the steps of
`tests.crash.topic_script`. Where calls fail: for each step and each n it lets the n-th call fail, sends the step's
requests again until they are acknowledged, and compares everything after every failure. Where calls kill: for each n a
process plays all steps until the n-th call ends it; another one opens what it left. It must be what was acknowledged,
or that and requests that were under way, wholly. The report is JSON.
"""

from __future__ import annotations

import asyncio
import errno
import faulthandler
import itertools
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from sql.errors import SqlError
from storage.check import check
from storage.errors import StorageError, StorageFull, StoragePoisoned
from tests.crash.faults import Call, Fault, Faults
from tests.crash.topic_script import (
    STEPS,
    Model,
    Violation,
    acknowledged,
    attempt,
    compare,
    first_model,
    found,
    open_database,
    prepare,
)

TRIES = 400
HANG_SECONDS = 60


def main(control: str, folder: str, fault_json: str) -> int:
    """Let every call fail or kill; print the report."""
    logging.basicConfig(level=logging.CRITICAL)
    faults = Faults(Path(control))
    faults.disarm()
    values = json.loads(fault_json)
    fault = Fault(**values | {"call": Call(values["call"])})
    report: dict[str, Any] = {"injected": 0, "violations": [], "errors": {}}
    home = Path(folder)
    if fault.kill:
        problem = in_a_process(lambda: prepare(home / "first"))
        if problem:
            report["violations"].append(problem)
        else:
            kill_everywhere(home, faults, fault, report)
    else:
        asyncio.run(fail_everywhere(home, faults, fault, report))
    sys.stdout.write(json.dumps(report))
    return 0


# --- failing ----------------------------------------------------------------------------------------------------------


async def fail_everywhere(home: Path, faults: Faults, fault: Fault, report: dict[str, Any]) -> None:
    """For each step and each n, in a copy of the folder before the step."""
    await prepare(home / "first")
    before, model = home / "first", first_model()
    for number in range(len(STEPS)):
        for at in itertools.count(1):
            sys.stderr.write(f"{fault}, step {STEPS[number].name}, n = {at}\n")
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
            here = Path(tempfile.mkdtemp(dir=home)) / "data"
            shutil.copytree(before, here)
            fired = False
            try:
                fired = await fail_once(here, faults, fault, number, at, model.copy(), report["errors"])
            except Exception as error:  # noqa: BLE001 - whatever goes wrong belongs into the report
                report["violations"].append(
                    f"{fault}, step {STEPS[number].name}, n = {at}: {type(error).__name__}: {error}"
                )
                fired = faults.fired > 0
            faults.disarm()
            report["injected"] += fired
            if len(report["violations"]) >= 10:
                return
            if not fired:
                break
            shutil.rmtree(here.parent)
        for effect in STEPS[number].effects:
            effect(model)
        before = here  # the step was played there, and nothing failed
    faulthandler.cancel_dump_traceback_later()


async def fail_once(
    here: Path, faults: Faults, fault: Fault, number: int, at: int, model: Model, errors: dict[str, int]
) -> bool:
    """Play one step while its `at`-th call fails, and the one behind it; whether a call failed."""
    engine, database = open_database(here)
    try:
        faults.forget()
        faults.arm(fault, at)
        failures = 0
        for step in STEPS[number : number + 2]:
            waiting = list(range(len(step.requests)))
            for _ in range(TRIES):
                done, problems = await attempt(database, step, waiting)
                for place in done:
                    step.effects[place](model)
                    waiting.remove(place)
                for problem in problems:
                    accept(fault, problem, errors)
                failures += bool(problems)
                if failures >= 3:
                    faults.forgive()
                await verify(engine, database, model, f"after {step.name} with {len(problems)} failures")
                if not waiting:
                    break
            else:
                raise Violation(f"{step.name} still fails after {TRIES} tries")
            if step is STEPS[number] and not faults.fired:
                return False
            faults.forgive()
        if again := faults.synced_again():
            raise Violation(f"a failed sync was tried again: {again}")
    finally:
        faults.disarm()
        database.close()
        engine.close()
    await reopened(here, [model])
    return True


def accept(fault: Fault, error: Exception, errors: dict[str, int]) -> None:
    """Whether this is how the fault should be reported."""
    kind = type(error).__name__
    errors[kind] = errors.get(kind, 0) + 1
    full = fault.error == errno.ENOSPC and not fault.short
    if isinstance(error, SqlError):
        expected = error.status == (507 if full else 503)
    else:
        expected = isinstance(error, StorageFull if full else StoragePoisoned)
    if not expected:
        raise Violation(f"{fault} was reported as {kind}: {error}") from error


async def verify(engine: Any, database: Any, model: Model, when: str) -> None:
    """Everything is as the model has it; while storage is being opened again, ask again."""
    for _ in range(TRIES):
        try:
            difference = compare(model, found(engine, database))
            told = await acknowledged(database)
        except StorageError as error:
            if not isinstance(error, StoragePoisoned):
                raise
        except SqlError as error:
            if error.status != 503:
                raise
        else:
            if difference or told != model.acknowledged:
                raise Violation(f"{when}: {difference}; acknowledged {told}, not {model.acknowledged}")
            return
        await asyncio.sleep(0.002)
    raise Violation(f"{when}: nothing could be read")


async def reopened(here: Path, models: list[Model]) -> None:
    """What a folder holds when it is opened anew is one of these, and the check command finds nothing."""
    if problems := check(here):
        raise Violation(f"check: {problems[0]} (and {len(problems) - 1} more)")
    engine, database = open_database(here)
    try:
        there, told = found(engine, database), await acknowledged(database)
        if not any(not compare(model, there) and told == model.acknowledged for model in models):
            raise Violation(f"after opening anew: {compare(models[0], there)}; or {compare(models[-1], there)}; {told}")
    finally:
        database.close()
        engine.close()


# --- killing ----------------------------------------------------------------------------------------------------------


def kill_everywhere(home: Path, faults: Faults, fault: Fault, report: dict[str, Any]) -> None:
    """For each n, a process that ends at the n-th call, and one that looks at what it left."""
    for at in itertools.count(1):
        sys.stderr.write(f"{fault}, n = {at}\n")
        here = Path(tempfile.mkdtemp(dir=home)) / "data"
        shutil.copytree(home / "first", here)
        journal = here.parent / "journal"
        journal.touch()
        problem = in_a_process(partial(play, here, journal, faults, fault, at))
        killed = problem == KILLED
        if problem and not killed:
            report["violations"].append(f"{fault}, n = {at}: {problem}")
        report["injected"] += killed
        done = [tuple(json.loads(line)) for line in journal.read_text().splitlines()]
        faults.disarm()
        problem = in_a_process(partial(reopened, here, possible(done)))
        if problem:
            report["violations"].append(f"{fault}, n = {at}, after {len(done)} answers: {problem}")
        shutil.rmtree(here.parent)
        if not killed or len(report["violations"]) >= 10:
            return


KILLED = "killed"


def in_a_process(run: Callable[[], Coroutine[Any, Any, None]]) -> str:
    """Run something in a process of its own, forked before any thread is there; what went wrong, empty for nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(reading)
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
            asyncio.run(run())
            status = 0
        except BaseException as error:  # noqa: BLE001 - the parent reports it
            os.write(writing, f"{error}\n{traceback.format_exc()[-1500:]}".encode()[:4_000])
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return KILLED if number == signal.SIGKILL else f"signal {number}"
    return said if os.waitstatus_to_exitcode(status) else ""


async def play(here: Path, journal: Path, faults: Faults, fault: Fault, at: int) -> None:
    """Play all steps; each answer goes into the journal, which the kernel keeps whoever is killed."""
    engine, database = open_database(here)
    notes = os.open(journal, os.O_WRONLY | os.O_APPEND)

    async def noted(step: int, request: int) -> None:
        await STEPS[step].requests[request](database)
        os.write(notes, json.dumps([step, request]).encode() + b"\n")

    faults.arm(fault, at)
    for step in range(len(STEPS)):
        await asyncio.gather(*(noted(step, request) for request in range(len(STEPS[step].requests))))
    faults.disarm()
    database.close()
    engine.close()


def possible(done: list[tuple[int, ...]]) -> list[Model]:
    """What may be there: all that was answered, and any of the other requests of the step that was under way."""
    model, answered = first_model(), set(done)
    for number, step in enumerate(STEPS):
        places = range(len(step.requests))
        here = [place for place in places if (number, place) in answered]
        for place in here:
            step.effects[place](model)
        if len(here) < len(step.requests):
            open_ = [place for place in places if place not in here]
            models = []
            for count in range(len(open_) + 1):
                for some in itertools.combinations(open_, count):
                    models.append(model.copy())
                    for place in some:
                        step.effects[place](models[-1])
            return models
    return [model]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
