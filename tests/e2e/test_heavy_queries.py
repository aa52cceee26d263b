"""Queries that want too much time, memory, rows or company: each gets its code, and others are served meanwhile."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.e2e.bystander import PATIENCE, Bystander, failure
from tests.e2e.conftest import Serve
from tests.e2e.running import RunningServer

PROCESS = 2 << 30
SMALL = {
    "HEADRACE_EXECUTION_HANDLER_TIMEOUT_SECONDS": "2",
    "HEADRACE_EXECUTION_STREAM_TIMEOUT_SECONDS": "600",
    "HEADRACE_DUCKDB_MEMORY_LIMIT_BYTES": str(256 << 20),
    "HEADRACE_DUCKDB_MAX_TEMP_BYTES": str(256 << 20),
    "HEADRACE_DUCKDB_PROCESS_MEMORY_BYTES": str(PROCESS),
}
ENDLESS = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range < 0"

TIMEOUT = (408, "QUERY_TIMEOUT")
MEMORY = (400, "MEMORY_LIMIT_EXCEEDED")
TOO_LARGE = (400, "RESULT_TOO_LARGE")
EXECUTION = (400, "SQL_EXECUTION_ERROR")
OVERLOADED = (503, "SERVER_OVERLOADED")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("heavy") / "data", (), SMALL)
    try:
        running.start().set_up().sql(
            "CREATE NAMESPACE app; CREATE TABLE app.items (id BIGINT PRIMARY KEY, name TEXT) WITH (TYPE='SHARED'); "
            "INSERT INTO app.items VALUES (1, 'one'), (2, 'two')"
        )
        yield running
        assert running.stop() == 0, running.log()[-4_000:]
        assert "Traceback" not in running.log(), running.log()[-4_000:]
    finally:
        running.kill()


@pytest.fixture(scope="module")
def other(server: RunningServer) -> Iterator[Bystander]:
    bystander = Bystander(server)
    yield bystander
    bystander.close()


def memory_mb(server: RunningServer, name: str) -> float:
    """A figure of /proc/<pid>/status."""
    assert server.process is not None
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r", {TIMEOUT}),
        (ENDLESS, {TIMEOUT}),
        ("SELECT count(*) FROM range(100000000000000)", {TIMEOUT}),
        ("SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c", {TIMEOUT}),
        ("SELECT * FROM app.items WHERE id IN (SELECT range FROM range(100000000000000))", {TIMEOUT}),
        ("DELETE FROM app.items WHERE id IN (SELECT range FROM range(10, 100000000000000))", {TIMEOUT}),
        ("SELECT * FROM range(1000000000)", {TOO_LARGE}),
        ("SELECT * FROM range(100000) a, range(100000) b", {TOO_LARGE}),
        ("SELECT a.id FROM app.items a, range(1000000000)", {TOO_LARGE}),
        ("SELECT repeat('x', 4000000000)", {MEMORY}),
        ("SELECT length(repeat('x', 4000000000))", {MEMORY}),
        ("SELECT max(length(repeat('x', 4000000 + range::INT))) FROM range(100000)", {MEMORY, TIMEOUT}),
        ("SELECT printf('%2000000000d', 1)", {MEMORY, TIMEOUT}),
        ("SELECT lpad('x', 2000000000, 'y')", {MEMORY, TIMEOUT}),
        ("SELECT length(replace(repeat('x', 1000000), 'x', repeat('y', 1000000)))", {MEMORY, TIMEOUT}),
        ("SELECT array_agg(range) FROM range(1000000000)", {MEMORY, TIMEOUT}),
        ("SELECT len(list(range)) FROM range(1000000000000)", {MEMORY, TIMEOUT}),
        ("SELECT string_agg(range::TEXT, ',') FROM range(10000000000)", {MEMORY, TIMEOUT}),
        ("SELECT len(range(2000000000))", {MEMORY, TIMEOUT}),
        ("SELECT len(range(1000000000000))", {EXECUTION, MEMORY}),
        ("SELECT list_resize([1], 2000000000)", {MEMORY, TIMEOUT}),
        ("SELECT bitstring('1', 2000000000)", {MEMORY, TIMEOUT}),
        ("SELECT string_split(repeat('a,', 900000000), ',')", {MEMORY, TIMEOUT}),
        ("SELECT histogram(range) FROM range(1000000000)", {MEMORY, TIMEOUT}),
        ("SELECT count(*) FROM (SELECT DISTINCT range FROM range(1000000000))", {MEMORY, TIMEOUT}),
        ("SELECT * FROM range(100000000) a ORDER BY a.range % 1000, a.range DESC LIMIT 90000000", {MEMORY, TIMEOUT}),
        ("SELECT count(*) FROM range(100000000) a JOIN range(100000000) b USING (range)", {MEMORY, TIMEOUT}),
        ("SELECT sum(x) OVER (ORDER BY x % 7) FROM range(1000000000) t(x)", {MEMORY, TIMEOUT}),
        ("WITH RECURSIVE r(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM r) SELECT count(*) FROM r", {MEMORY}),
        ("SELECT levenshtein(repeat('a', 100000), repeat('b', 100000))", {EXECUTION}),
        ("SELECT damerau_levenshtein(name, repeat('b', 100000)) FROM app.items", {EXECUTION}),
        ("INSERT INTO app.items SELECT range + 10, 'x' FROM range(1000000000)", {MEMORY, TIMEOUT}),
        ("INSERT INTO app.items VALUES (3, repeat('x', 4000000000))", {MEMORY}),
        ("UPDATE app.items SET name = repeat('x', 4000000000) WHERE id = 1", {MEMORY}),
    ],
    ids=lambda value: repr(sorted(value) if isinstance(value, set) else value)[:60],
)
def test_a_query_that_takes_too_much_is_stopped(
    server: RunningServer, other: Bystander, sql: str, expected: set[tuple[int, str]]
) -> None:
    answer = other.watch(lambda: server.post(sql))
    assert failure(answer, sql) in expected, answer.text[:500]
    other.query()
    assert server.rows("SELECT id, name FROM app.items ORDER BY id") == [[1, "one"], [2, "two"]]
    assert memory_mb(server, "VmHWM") < 1.25 * PROCESS / (1 << 20)


def test_memory_comes_back(server: RunningServer, other: Bystander) -> None:
    """What large queries took counts neither as memory nor as addresses afterwards."""
    for _ in range(2):
        for sql in (
            "SELECT max(length(repeat('x', 100000 + range::INT))) FROM range(8000)",
            "SELECT count(*) FROM (SELECT DISTINCT range FROM range(3000000))",
        ):
            answer = server.post(sql)
            assert answer.status_code == 200 or failure(answer, sql) in {MEMORY, TIMEOUT}
    other.query()
    assert memory_mb(server, "VmData") < 0.75 * PROCESS / (1 << 20)


@pytest.mark.parametrize("accept", ["application/x-ndjson", "application/vnd.apache.arrow.stream"])
def test_a_stream_ends_with_its_client(server: RunningServer, other: Bystander, accept: str) -> None:
    """More streams than there are connections of the query engine; it is free again when their clients have gone."""
    for _ in range(6):
        with server.client.stream(
            "POST",
            "/v1/api/sql",
            headers={"Accept": accept},
            json={"sql": "SELECT range AS id, 'row ' || range AS v FROM range(1000000000000)"},
            timeout=PATIENCE,
        ) as answer:
            assert answer.status_code == 200
            received = 0
            for chunk in answer.iter_bytes():
                received += len(chunk)
                if received > 4 << 20:
                    break
        other.read()
    assert server.rows("SELECT count(*) + 1 FROM range(10)") == [[11]]
    other.query()


def test_a_query_ends_with_its_client(serve: Serve) -> None:
    """The same for queries that have answered nothing yet; alone they would take until their timeout."""
    running = serve(HEADRACE_EXECUTION_HANDLER_TIMEOUT_SECONDS="600").set_up()
    running.sql("CREATE NAMESPACE app")
    other = Bystander(running)

    def leave() -> None:
        with running.client_of(running.token) as client, suppress(httpx.ReadTimeout):
            client.post("/v1/api/sql", json={"sql": ENDLESS}, timeout=httpx.Timeout(PATIENCE, read=0.5))

    threads = [threading.Thread(target=leave) for _ in range(6)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        other.read()
    other.query()
    other.close()
    assert running.stop() == 0, running.log()[-4_000:]


def test_more_than_can_be_served_is_refused(serve: Serve) -> None:
    running = serve(
        HEADRACE_EXECUTION_HANDLER_TIMEOUT_SECONDS="3",
        HEADRACE_DUCKDB_WAIT_SECONDS="1",
        HEADRACE_EXECUTION_MAX_WAITING="16",
        HEADRACE_PERFORMANCE_WORKER_MAX_BLOCKING_THREADS="8",
    ).set_up()
    running.sql("CREATE NAMESPACE app")
    other = Bystander(running)

    def ask(_: int) -> httpx.Response:
        with running.client_of(running.token) as client:
            return client.post("/v1/api/sql", json={"sql": ENDLESS}, timeout=PATIENCE)

    def attack() -> list[httpx.Response]:
        with ThreadPoolExecutor(64) as pool:
            return list(pool.map(ask, range(64)))

    answers = other.watch(attack)
    assert {failure(answer) for answer in answers} == {TIMEOUT, OVERLOADED}
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(refused) >= 64 - 8 - 16
    assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
    other.query()
    other.close()
    assert running.stop() == 0, running.log()[-4_000:]
