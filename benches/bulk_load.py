"""Bulk load: whole bodies of rows, each stored in one commit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from benches import duck
from benches.load import Load, lua_string, measure
from benches.notes import arrow_stream, batch, ndjson
from benches.peer_postgres import Postgres
from benches.runner import Options, Stage, stage
from benches.table import Aim, Report, Row

NAME = "bulk-load"
SUMMARY = "bulk load of Arrow, NDJSON and CSV bodies, atomic each"
BODY_ROWS = 100_000
BODIES = 10
ARROW, NDJSON, CSV = "application/vnd.apache.arrow.stream", "application/x-ndjson", "text/csv"


def run(options: Options) -> Iterator[Report]:
    """One connection sends prepared bodies; the figure is rows of a body by the median time of its answer."""
    command = f"python -m benches {NAME}"
    with stage(options, "postgres") as running:
        encoders = {ARROW: arrow_stream, NDJSON: ndjson, CSV: _csv}
        for content_type, encode in encoders.items():
            _write_bodies(running.folder, content_type, encode)
        rows = []
        for content_type in (ARROW, NDJSON, CSV):
            if "headrace" in options.only:
                rate, details = _measure(running, lambda n, kind=content_type: _headrace(running, kind, n))  # type: ignore[misc]
                name = f"Headrace, {_short(content_type)}"
                rows.append(Row("yes", name, rate, details, f"{command} --only headrace"))
        if "echo" in options.only:
            rate, details = _measure(running, lambda n: running.echo.drain(_headrace(running, ARROW, n)))
            rows.append(Row("-", "echo, Arrow received only", rate, details, f"{command} --only echo"))
        postgres = running.peers.get("postgres")
        if isinstance(postgres, Postgres):
            rate, details = _measure(running, lambda _: _postgres(running, postgres))
            rows.append(Row("yes", "PostgreSQL + asyncpg, COPY of CSV", rate, details, f"{command} --only postgres"))
        if "duckdb" in options.only:
            rows.append(Row("yes", f"{duck.NAME}, Arrow", _duckdb(running), ("", ""), f"{command} --only duckdb"))
    yield Report(
        title=f"Bulk load, {BODY_ROWS:,} rows of 5 columns a request, 1 connection",
        unit="rows/s",
        headings=("p50 ms", "longest ms"),
        rows=tuple(rows),
        aims=tuple(Aim(None, 500_000, subject=f"Headrace, {kind}") for kind in ("arrow", "ndjson")),
        subject="Headrace, arrow",
    )


def _csv(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(rows, sink)
    return bytes(sink.getvalue())


def _short(content_type: str) -> str:
    return {ARROW: "arrow", NDJSON: "ndjson", CSV: "csv"}[content_type]


def _write_bodies(folder: Path, content_type: str, encode: Callable[[pa.Table], bytes]) -> None:
    for number in range(BODIES):
        body = encode(batch(number * BODY_ROWS, BODY_ROWS))
        (folder / f"body-{_short(content_type)}-{number}").write_bytes(body)


def _body(folder: Path, content_type: str) -> str:
    """Lua that reads the n-th body."""
    path = lua_string(str(folder / f"body-{_short(content_type)}-"))
    return f'local file = io.open({path} .. (n % {BODIES}), "rb")\nlocal body = file:read("*a")\nfile:close()\n'


def _headrace(running: Stage, content_type: str, number: int) -> Load:
    table = f"load_{_short(content_type)}_{number}"
    running.headrace.create_notes(table)
    return Load(
        running.headrace.base,
        f'{_body(running.folder, content_type)}return "/v1/api/ingest/bench/{table}", body',
        headers=running.headrace.headers | {"Content-Type": content_type},
        count=BODIES,
    )


def _postgres(running: Stage, postgres: Postgres) -> Load:
    postgres.execute("TRUNCATE notes")
    request = f'{_body(running.folder, CSV)}return "/notes/load", body'
    return Load(postgres.base, request, headers={"Content-Type": CSV}, count=BODIES)


def _measure(running: Stage, load: Callable[[int], Load]) -> tuple[float, tuple[str, str]]:
    measured = [
        measure(load(running.options.next_keys()), connections=1, seconds=120) for _ in range(running.options.rounds)
    ]
    p50 = statistics.median(m.p50 for m in measured)
    longest = statistics.median(m.longest for m in measured)
    return BODY_ROWS / p50 * 1000, (f"{p50:.0f}", f"{longest:.0f}")


def _duckdb(running: Stage) -> float:
    bodies = [batch(number * BODY_ROWS, BODY_ROWS) for number in range(BODIES)]
    times = []
    with duck.connect(running.folder) as connection:
        for rows in bodies:
            started = time.perf_counter()
            duck.fill(connection, "loaded", rows)
            times.append(time.perf_counter() - started)
    return BODY_ROWS / statistics.median(times)
