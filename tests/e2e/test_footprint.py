"""What a server weighs: at rest, and while a million rows go out.

`VmRSS` is everything that is resident: `RssAnon`, the process's own memory, and `RssFile`, pages of files: the code of
Python, DuckDB and Arrow, and the pages of the database that LMDB maps. Those are the page cache's: the system takes
them back when it needs them, and they count here because somebody read them. An empty database has none to speak of,
so at rest all of `VmRSS` is held to the limit. While stored rows go out, `RssAnon` is what the server needs; the table
of these tests is small enough to hold all of `VmHWM`, the highest `VmRSS`, to the limit as well.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.running import RunningServer

IDLE_MB = 160
"""With its first sample of figures taken, as by default: 152 to 155 MB were seen, 146 of them before it."""
ABOVE_IDLE_MB = 300
ROWS = 1_000_000
ARROW = "application/vnd.apache.arrow.stream"
NDJSON = "application/x-ndjson"


def status(server: RunningServer) -> dict[str, float]:
    """Megabytes of /proc/<pid>/status."""
    assert server.process is not None
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return {name: int(kb) / 1024 for name, kb in re.findall(r"^(Vm\w+|Rss\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def forget_peak(server: RunningServer) -> None:
    """Let VmHWM begin anew."""
    assert server.process is not None
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")


def shown(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {figures[name]:.0f} MB" for name in ("VmRSS", "RssAnon", "RssFile", "VmHWM"))


def test_a_server_at_rest_is_small(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    running = serve(HEADRACE_RETENTION_ENABLE_DBA_STATS="true")
    started = status(running)
    running.set_up()
    while not running.rows("SELECT id FROM dba.stats LIMIT 1"):  # the first sample, a second after the start
        time.sleep(0.05)
    ready = status(running)
    running.rows("SELECT sum(range) FROM range(10)")
    used = status(running)
    with capsys.disabled():
        print(  # noqa: T201
            f"\nstarted: {shown(started)}\nset up and signed in: {shown(ready)}\nafter a query: {shown(used)}"
        )
    assert started["VmRSS"] < IDLE_MB
    assert ready["VmRSS"] < IDLE_MB


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a table of a million rows."""
    running = RunningServer(tmp_path_factory.mktemp("footprint") / "data")
    try:
        running.start().set_up().sql(
            "CREATE NAMESPACE app; CREATE TABLE app.big "
            "(id BIGINT PRIMARY KEY, name TEXT, a INT, b DOUBLE, at TIMESTAMP) WITH (TYPE='SHARED')"
        )
        lines = "".join(
            f'{{"id": {n}, "name": "row number {n}", "a": {n % 1000}, "b": {n / 7}, "at": "2026-01-01T00:00:00"}}\n'
            for n in range(ROWS)
        )
        answer = running.client.post(
            "/v1/api/ingest/app/big", content=lines.encode(), headers={"Content-Type": NDJSON}, timeout=120
        )
        assert answer.status_code == 200, answer.text[:500]
        running.stop()
        yield running.start().set_up()
        assert running.stop() == 0, running.log()[-4_000:]
    finally:
        running.kill()


@pytest.mark.parametrize("accept", [ARROW, NDJSON])
@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM app.big",
        "SELECT id, upper(name), a + 1, b, at FROM app.big WHERE a >= 0",
        "SELECT range AS id, 'row ' || range AS name, range % 7 AS a, range / 7 AS b FROM range(1000000)",
    ],
)
def test_a_million_rows_go_out_in_little_memory(
    filled: RunningServer, capsys: pytest.CaptureFixture[str], accept: str, query: str
) -> None:
    idle = status(filled)
    forget_peak(filled)
    most = idle["RssAnon"]
    received = lines = pending = 0
    with filled.client.stream(
        "POST", "/v1/api/sql", headers={"Accept": accept}, json={"sql": query}, timeout=120
    ) as answer:
        assert answer.status_code == 200
        for chunk in answer.iter_raw():
            received += len(chunk)
            lines += chunk.count(b"\n")
            pending += len(chunk)
            if pending > 1 << 20:
                pending = 0
                most = max(most, status(filled)["RssAnon"])
    after = status(filled)
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{accept}, {received >> 20} MB of {query[:40]}…: before {shown(idle)}; after {shown(after)}; "
            f"RssAnon rose by {most - idle['RssAnon']:.0f} MB, VmRSS by {after['VmHWM'] - idle['VmRSS']:.0f} MB"
        )
    assert received > 10 << 20
    assert lines == ROWS or accept == ARROW
    assert most - idle["RssAnon"] < ABOVE_IDLE_MB
    assert after["VmHWM"] - idle["VmRSS"] < ABOVE_IDLE_MB
