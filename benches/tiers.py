"""Hot and cold rows of one large table: point reads, pruning, scans, flush and compaction.

Two tables hold the same rows. One stays hot; of the other all but the newest hundredth are flushed to Parquet.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import starmap
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from benches import duck
from benches.http_client import HttpClient, post_head
from benches.load import Load, dumps
from benches.notes import BODY, arrow_stream
from benches.peer_headrace import FILL_ROWS, Headrace
from benches.peers import Unavailable
from benches.runner import Contender, Options, Stage, compare, request_rows, stage
from benches.table import Aim, Report, Row

NAME = "tiers"
SUMMARY = "--rows rows hot and cold: point reads, pruning, scans beside DuckDB on the same Parquet, flush, compaction"

COLUMNS = (
    "id BIGINT PRIMARY KEY, at TIMESTAMP NOT NULL, device INT NOT NULL, kind TEXT NOT NULL, cents INT NOT NULL, "
    "body TEXT NOT NULL"
)
KINDS = ("gate opened", "gate closed", "level", "flow", "alarm")
DEVICES = 1_000
STRIDE = 7_919
FIRST_US = 1_767_225_600_000_000
STEP_US = 1_000
JOB_SECONDS = 3_600.0
GROUP_ROWS = 65_536
"""The most rows of a row group: keys that far apart never share one."""
DEAD = 100
"""One row in so many is deleted before the compaction."""

HOT, COLD = "events_hot", "events"
HOT_ONLY, MOSTLY_COLD = "Headrace, hot only", "Headrace, cold rows"
READ = "SELECT id, at, device, kind, cents, body FROM bench.{} WHERE id = $1"
SCANS = {
    "aggregate of two columns": "SELECT count(*), sum(cents), max(device) FROM {}",
    "filter on two columns": "SELECT count(*), sum(cents) FROM {} WHERE device = 17 AND cents > 5000",
    "filter on text": "SELECT count(*), min(id) FROM {} WHERE kind = 'alarm' AND body LIKE '%wheel%'",
    "GROUP BY number": "SELECT device, count(*), sum(cents) FROM {} GROUP BY device ORDER BY device",
    "GROUP BY text": "SELECT kind, count(*), sum(cents) FROM {} GROUP BY kind ORDER BY kind",
}


def run(options: Options) -> Iterator[Report]:
    """Load both tables, flush one, measure; the newest rows come after the scans, so that both scan the same rows."""
    rows = options.rows
    cold = rows - rows // 100
    with stage(options, insist=True) as running:
        headrace = running.headrace
        for table in (HOT, COLD):
            headrace.sql(f"CREATE SHARED TABLE bench.{table} ({COLUMNS})")
            _fill(headrace, table, 0, cold)
        seconds = _job(headrace, f"STORAGE FLUSH TABLE bench.{COLD}")
        files = sorted((running.folder / "headrace" / "cold").rglob("*.parquet"))
        flushed = _moved("flush", cold, seconds, files)
        yield from _scans(running, files, cold)  # before point reads have cached what they would read
        first = asyncio.run(_first_reads(headrace, cold))
        for table in (HOT, COLD):
            _fill(headrace, table, cold, rows)
        yield _first_report(first, cold)
        yield from _point_reads(running, cold)
        yield _pruning(headrace, cold)
        headrace.sql(f"DELETE FROM bench.{COLD} WHERE id % {DEAD} = 0 AND id < {cold}")
        seconds = _job(headrace, f"STORAGE COMPACT TABLE bench.{COLD}")
        compacted = _moved("compaction", cold - cold // DEAD, seconds, files)
    yield Report(
        title="Flush, and compaction after a hundredth of the rows was deleted",
        unit="rows/s",
        headings=("MB/s of Parquet", "seconds"),
        rows=(flushed, compacted),
        subject="flush",
    )


def events(first: int, count: int) -> pa.Table:
    """Rows `first` to `first + count - 1`."""
    ids = np.arange(first, first + count, dtype=np.int64)
    kinds = pa.DictionaryArray.from_arrays(pa.array(ids * STRIDE % 97 % len(KINDS), pa.int32()), pa.array(KINDS))
    return pa.table(
        {
            "id": pa.array(ids),
            "at": pa.array(FIRST_US + ids * STEP_US, pa.timestamp("us")),
            "device": pa.array(ids * STRIDE % DEVICES, pa.int32()),
            "kind": kinds.cast(pa.string()),
            "cents": pa.array(ids * STRIDE % 9_973, pa.int32()),
            "body": pa.array([BODY]).take(pa.array(np.zeros(count, dtype=np.int32))),
        }
    )


def _fill(headrace: Headrace, table: str, first: int, end: int) -> None:
    for start in range(first, end, FILL_ROWS):
        body = arrow_stream(events(start, min(FILL_ROWS, end - start)))
        headrace.ingest(f"bench/{table}", body, "application/vnd.apache.arrow.stream")


def _job(headrace: Headrace, statement: str) -> float:
    """Seconds from a statement that begins a job to the job's end."""
    started = time.perf_counter()
    found = re.search(r"Job ID: ([^'\" ,\]}]+)", str(headrace.sql(statement)))
    if found is None:
        raise Unavailable(f"{statement} began no job")
    while time.perf_counter() - started < JOB_SECONDS:
        status, message = headrace.rows("SELECT status, message FROM system.jobs WHERE job_id = $1", found[1])[0]
        if status == "completed":
            return time.perf_counter() - started
        if status in {"failed", "cancelled"}:
            raise Unavailable(f"{statement}: {message}")
        time.sleep(0.05)  # the job tells nobody over HTTP that it is done
    raise Unavailable(f"{statement} took too long")


def _moved(name: str, rows: int, seconds: float, files: Sequence[Path]) -> Row:
    size = sum(file.stat().st_size for file in files) / 1e6
    return Row("yes", name, rows / seconds, (f"{size / seconds:.1f}", f"{seconds:.1f}"), f"python -m benches {NAME}")


# --- point reads ---------------------------------------------------------------------------------------------------


async def _first_reads(headrace: Headrace, cold: int) -> dict[str, list[float]]:
    """Milliseconds of reads after the flush, when nothing is cached, each in a row group of its own; and once more."""
    port = int(headrace.base.rpartition(":")[2])
    head = post_head(port, "/v1/api/sql", headrace.headers)
    chance = random.Random(5)
    keys = list(range(chance.randrange(min(GROUP_ROWS, cold)), cold, GROUP_ROWS))
    chance.shuffle(keys)
    found: dict[str, list[float]] = {}
    client = await HttpClient.connect(port)
    for name, table in ((HOT_ONLY, HOT), ("first touch", COLD), ("the same keys again", COLD)):
        times = found[name] = []
        for key in keys:
            body = dumps({"sql": READ.format(table), "params": [key]}).encode()
            started = time.perf_counter()
            await client.post(head, body)
            times.append((time.perf_counter() - started) * 1000)
    client.close()
    return found


def _first_report(times: dict[str, list[float]], cold: int) -> Report:
    return Report(
        title=f"{len(times[HOT_ONLY])} keys of {cold:,} cold rows, a row group each, 1 connection (less is better)",
        unit="p50 ms",
        headings=("p99 ms", "longest ms"),
        rows=tuple(
            Row("-", name, statistics.median(some), (f"{np.percentile(some, 99):.2f}", f"{max(some):.2f}"), "")
            for name, some in times.items()
        ),
        subject=HOT_ONLY,
        aims=(
            Aim(HOT_ONLY, 2.0, at_most=True, subject="first touch"),
            Aim(HOT_ONLY, 2.0, at_most=True, subject="the same keys again"),
        ),
    )


def _point_reads(running: Stage, cold: int) -> Iterator[Report]:
    headrace = running.headrace
    setup = f"math.randomseed(os.time())\nlocal function any_id() return math.floor(math.random() * {cold}) end"

    def load(table: str) -> Load:
        head = f'{{"sql":{dumps(READ.format(table))},"params":['
        body = f'return "/v1/api/sql", [[{head}]] .. any_id() .. "]}}"'
        return Load(headrace.base, body, setup=setup, headers=headrace.headers)

    entries = [
        Contender("headrace-hot", HOT_ONLY, "-", lambda _: load(HOT)),
        Contender("headrace-cold", MOSTLY_COLD, "-", lambda _: load(COLD)),
    ]
    for connections in (1, 16):
        outcomes = compare(running, entries, connections=connections)
        rates = request_rows(outcomes, f"python -m benches {NAME} --rows {running.options.rows}")
        yield Report(
            title=f"Point read of random keys among {cold:,} rows, {connections} connections (less is better)",
            unit="p50 ms",
            headings=("p99 ms", "reads/s"),
            rows=tuple(
                Row(row.syncs, row.system, float(row.details[0]), (row.details[1], f"{row.figure:,.0f}"), row.command)
                for row in rates
            ),
            subject=MOSTLY_COLD,
            aims=(Aim(HOT_ONLY, 2.0, at_most=True),),
        )


# --- scans ---------------------------------------------------------------------------------------------------------


def _pruning(headrace: Headrace, cold: int) -> Report:
    """What EXPLAIN ANALYZE says of a range of time that a thousandth of the rows meets."""
    low = FIRST_US + cold // 2 * STEP_US
    high = low + max(cold // 1_000, 1) * STEP_US
    edges = [str(np.datetime64(value, "us")).replace("T", " ") for value in (low, high)]
    query = f"SELECT count(*), sum(cents) FROM bench.{COLD}"
    ranged = f"{query} WHERE at >= TIMESTAMP '{edges[0]}' AND at < TIMESTAMP '{edges[1]}'"
    return Report(
        title="What is read of the cold files, from EXPLAIN ANALYZE",
        unit="ms",
        headings=("cold",),
        rows=tuple(
            starmap(_explained, ((headrace, "a range of a thousandth", ranged), (headrace, "the whole table", query)))
        ),
        subject="a range of a thousandth",
    )


def _explained(headrace: Headrace, name: str, query: str) -> Row:
    lines = [str(row[0]) for row in headrace.rows(f"EXPLAIN ANALYZE {query}")]
    taken = next(float(line.split()[1]) for line in lines if line.startswith("time: "))
    cold = next((line.removeprefix("cold: ") for line in lines if line.startswith("cold: ")), "nothing")
    return Row("-", name, taken, (cold,), "")


def _scans(running: Stage, files: Sequence[Path], cold: int) -> Iterator[Report]:
    """Each query in turn: Headrace on cold and on hot rows over HTTP, DuckDB in process on the same files."""
    headrace, rounds = running.headrace, running.options.rounds
    source = f"read_parquet([{', '.join(repr(str(file)) for file in files)}])"
    with duckdb.connect() as connection:
        for name, query in SCANS.items():
            peer = f"{duck.NAME}, the same Parquet"
            systems: dict[str, Callable[[], Sequence[Sequence[object]]]] = {
                MOSTLY_COLD: partial(headrace.rows, query.format(f"bench.{COLD}")),
                HOT_ONLY: partial(headrace.rows, query.format(f"bench.{HOT}")),
                peer: partial(_parquet, connection, query.format(source)),
            }
            times: dict[str, list[float]] = {system: [] for system in systems}
            for number in range(rounds + 1):
                answers = []
                for system, ask in systems.items():
                    started = time.perf_counter()
                    answers.append(ask())
                    if number:
                        times[system].append((time.perf_counter() - started) * 1000)
                if not all(_same(answers[0], other) for other in answers[1:]):
                    raise Unavailable(f"{query}: the answers differ")
            yield Report(
                title=f"Scan of {cold:,} rows, {name} (less is better)",
                unit="ms",
                headings=("longest ms",),
                rows=tuple(
                    Row("-", system, statistics.median(some), (f"{max(some):.0f}",), "")
                    for system, some in times.items()
                ),
                subject=MOSTLY_COLD,
                aims=(Aim(peer, 3.0, at_most=True),),
            )


def _parquet(connection: duckdb.DuckDBPyConnection, text: str) -> list[Sequence[object]]:
    return list(connection.sql(text).fetchall())


def _same(mine: Sequence[Sequence[object]], other: Sequence[Sequence[object]]) -> bool:
    """Whether two answers are equal; sums are text in one and numbers in the other."""

    def equal(a: object, b: object) -> bool:
        try:
            return math.isclose(float(str(a)), float(str(b)), rel_tol=1e-9)
        except ValueError:
            return str(a) == str(b)

    return len(mine) == len(other) and all(
        equal(a, b) for left, right in zip(mine, other, strict=True) for a, b in zip(left, right, strict=True)
    )
