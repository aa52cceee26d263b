"""The sqllogictest files beside the repository, run through the HTTP endpoint of a real server.

By default a sample by seed: of each file about every 50th query, up to its 1,100th statement. HEADRACE_SLT=all runs
everything, a number the part of the queries (`0.1`) of whole files; HEADRACE_SLT_SEED draws another sample,
HEADRACE_SLT_FOLDER reads other files. Records that do not pass stand in `differences.txt`; the rate of each file is
shown at the end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.running import RunningServer
from tests.slt import differences
from tests.slt.conftest import RATES
from tests.slt.http_run import FileRun, Outcome, Sample

FOLDER = Path(os.environ.get("HEADRACE_SLT_FOLDER") or Path(__file__).parents[3] / "shared" / "slt") / "test"
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.test") if path.stat().st_size)
AMOUNT = os.environ.get("HEADRACE_SLT", "")
SEED = os.environ.get("HEADRACE_SLT_SEED") or "1"
SAMPLE = Sample(1.0 if AMOUNT == "all" else float(AMOUNT), None, SEED) if AMOUNT else Sample(0.02, 1_100, SEED)
LEAST = 0.99
"""The part of all records that must pass when everything runs."""

LISTED = differences.read(differences.LIST.read_text())

pytestmark = [pytest.mark.timeout(3_600)]
if not FILES:
    pytestmark.append(pytest.mark.skip(reason="the sqllogictest files (../shared/slt) are not beside the repository"))

Run = Callable[[str, Sample, bool], Outcome]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("slt") / "data", changes={"HEADRACE_DUCKDB_THREADS": "1"})
    try:
        yield running.start().set_up()
        assert running.stop() == 0, running.log()
    finally:
        running.kill()


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    return {}


@pytest.fixture
def run(server: RunningServer, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Run:
    def run_file(name: str, sample: Sample, streamed: bool) -> Outcome:
        namespace = f"slt{abs(hash(request.node.nodeid))}"
        server.sql(f"CREATE NAMESPACE {namespace}")
        started = time.perf_counter()
        file = FileRun(server.client, namespace, name, LISTED, sample, streamed=streamed)
        outcome = file.run((FOLDER / name).read_text())
        seconds = time.perf_counter() - started
        record_property(
            RATES,
            f"{name:42} {outcome.passed:6,} of {outcome.passed + outcome.failed:6,} pass ({outcome.rate:7.2%}), "
            f"{outcome.for_others:5,} for others, {outcome.left_out:6,} left out, {seconds:6.1f} s"
            + " streamed"
            * streamed,
        )
        return outcome

    return run_file


@pytest.mark.parametrize("name", FILES)
def test_file(name: str, run: Run, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[name] = run(name, SAMPLE, False)
    assert not outcome.wrong, f"{len(outcome.wrong)} records fail:\n" + "\n".join(outcome.wrong[:20])
    assert not outcome.mended, f"{len(outcome.mended)} records pass:\n" + "\n".join(outcome.mended[:20])


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("index/commute/")])
def test_file_by_duckdb_alone(name: str, run: Run) -> None:
    outcome = run(name, SAMPLE, True)
    assert not outcome.wrong, f"{len(outcome.wrong)} records fail:\n" + "\n".join(outcome.wrong[:20])


def test_nearly_all_pass(outcomes: dict[str, Outcome], record_property: Callable[[str, object], None]) -> None:
    passed = sum(outcome.passed for outcome in outcomes.values())
    failed = sum(outcome.failed for outcome in outcomes.values())
    record_property(RATES, f"~ all files{passed:38,} of {passed + failed:6,} pass ({passed / (passed + failed):7.2%})")
    assert set(outcomes) == set(FILES), "run the whole module"
    if AMOUNT == "all":
        assert passed >= LEAST * (passed + failed)
    else:
        assert passed > failed, "a sample runs every statement, but few of the queries: it has no rate to hold"


def test_every_listed_record_is_one() -> None:
    places = {name: (FOLDER / name).read_text().splitlines() for name, _ in LISTED.records}
    for name, line in LISTED.records:
        assert places[name][line - 2].startswith(("statement", "query")), f"{name}:{line} begins no record"
