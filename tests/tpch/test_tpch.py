"""TPC-H over HTTP, loaded as Arrow: all 22 queries answer as DuckDB does, and as the answers in its package say.

Data and queries come from the package `duckdb-extension-tpch` with the DuckDB that it needs, installed into a folder of
their own (pytest's cache) and run in a process of their own: the project has another DuckDB. HEADRACE_TPCH_SCALE is the
scale factor, 0.01 by default; the time of each query is shown at the end.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from tests.e2e.running import RunningServer
from tests.tpch.conftest import TIMES
from tests.tpch.schema import NAMESPACE, TABLES, definition

VERSION = "1.5.5"
SCALE = os.environ.get("HEADRACE_TPCH_SCALE") or "0.01"
QUERIES = range(1, 23)
_PEER = Path(__file__).parent / "peer.py"

pytestmark = pytest.mark.timeout(1_800)


@dataclass(frozen=True)
class Peer:
    """What DuckDB made: a folder with tables and answers, the queries, and the seconds that each took."""

    folder: Path
    queries: dict[str, str]
    seconds: dict[str, float]
    answers: dict[str, str]

    def table(self, name: str) -> pa.Table:
        """A table or the answer of a query."""
        with pa.OSFile(str(self.folder / f"{name}.arrow")) as source:
            return pa.ipc.open_stream(source).read_all()


@pytest.fixture(scope="module")
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Peer:
    cache = request.config.cache
    assert cache is not None
    packages = cache.mkdir("tpch") / f"packages-{VERSION}"
    if not packages.exists():
        building = tmp_path_factory.mktemp("packages")
        wanted = [f"duckdb=={VERSION}", f"duckdb-extension-tpch=={VERSION}"]
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--only-binary=:all:", "--target"]
        made = subprocess.run([*install, building, *wanted], capture_output=True, text=True, check=False, timeout=600)
        if made.returncode:
            pytest.skip(f"the TPC-H packages cannot be installed: {made.stderr.strip().splitlines()[-1]}")
        shutil.copytree(building, packages, dirs_exist_ok=True)
    folder = tmp_path_factory.mktemp("tpch")
    command = [sys.executable, _PEER, SCALE, folder]
    environment = os.environ | {"PYTHONPATH": str(packages)}
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1_200, env=environment)
    assert made.returncode == 0, made.stderr
    facts = json.loads((folder / "tpch.json").read_text())
    assert facts["version"] == VERSION
    return Peer(folder, facts["queries"], facts["seconds"], facts["answers"])


@pytest.fixture(scope="module")
def server(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("server") / "data")
    try:
        running.start().set_up()
        running.sql(f"CREATE NAMESPACE {NAMESPACE}")
        for table in TABLES:
            running.sql(definition(table))
            path = peer.folder / f"{table}.arrow"
            headers = {"Content-Type": "application/vnd.apache.arrow.stream"}
            url = f"/v1/api/ingest/{NAMESPACE}/{table}"
            answer = running.client.post(url, content=path.read_bytes(), headers=headers, timeout=600)
            assert answer.status_code == 200, answer.text
            assert answer.json()["inserted"] == peer.table(table).num_rows
        yield running
        assert running.stop() == 0, running.log()
    finally:
        running.kill()


def test_the_tables_come_back_as_they_went_in(peer: Peer, server: RunningServer) -> None:
    for table in TABLES:
        sent = peer.table(table)
        body = {"sql": f"SELECT * FROM {NAMESPACE}.{table}"}
        headers = {"Accept": "application/vnd.apache.arrow.stream"}
        answer = server.client.post("/v1/api/sql", json=body, headers=headers, timeout=600)
        assert answer.status_code == 200, answer.text
        found = pa.ipc.open_stream(answer.content).read_all()
        keys = [(name, "ascending") for name in found.column_names]
        assert found.cast(sent.schema).sort_by(keys).equals(sent.sort_by(keys)), table


@pytest.mark.parametrize("number", QUERIES)
def test_query(number: int, peer: Peer, server: RunningServer, record_property: Callable[[str, object], None]) -> None:
    text = peer.queries[str(number)]
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        [result] = server.sql(text, namespace_id=NAMESPACE)
        seconds.append(time.perf_counter() - started)
    ours, theirs = min(seconds), peer.seconds[str(number)]
    record_property(TIMES, f"Q{number:2} {ours * 1e3:9.1f} ms, DuckDB {theirs * 1e3:9.1f} ms, {ours / theirs:6.2f} x")
    expected = peer.table(f"q{number}")
    assert [column["name"] for column in result["schema"]] == expected.column_names
    found = [[_plain(value, column["data_type"]) for value, column in zip(row, result["schema"], strict=True)]
             for row in result["rows"]]  # fmt: skip
    _assert_same(found, [list(row) for row in zip(*map(_values, expected.columns), strict=True)])
    if str(number) in peer.answers:
        lines = peer.answers[str(number)].splitlines()[1:]
        _assert_texts(found, [line.split("|") for line in lines], [_kind(c["data_type"]) for c in result["schema"]])


def _kind(data_type: object) -> str:
    return "Decimal" if isinstance(data_type, dict) else str(data_type)


def _plain(value: object, data_type: object) -> object:
    if isinstance(value, str) and _kind(data_type) in ("Decimal", "BigInt"):
        return Decimal(value)
    return value


def _values(column: pa.ChunkedArray) -> list[object]:
    if pa.types.is_date32(column.type):
        column = column.cast(pa.int32())
    return list(column.to_pylist())


def _assert_same(found: list[list[object]], expected: list[list[object]]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for value, wanted in zip(one, other, strict=True):
            if isinstance(wanted, float):
                assert isinstance(value, float)
                assert math.isclose(value, wanted, rel_tol=1e-12)
            else:
                assert value == wanted


def _assert_texts(found: list[list[object]], expected: list[list[str]], kinds: list[str]) -> None:
    """Against the answers of the package, which are texts."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for value, wanted, kind in zip(one, other, kinds, strict=True):
            if value is None:
                assert wanted in ("", "NULL")
            elif kind == "Date":
                assert value == (_day(wanted) - _day("1970-01-01"))
            elif isinstance(value, float):
                assert math.isclose(value, float(wanted), rel_tol=1e-9)
            elif isinstance(value, (int, Decimal)):
                assert value == Decimal(wanted)
            else:
                assert value == wanted


def _day(text: str) -> int:
    import datetime

    return datetime.date.fromisoformat(text).toordinal()
