"""Secondary indexes beside PostgreSQL's: look-ups of one row and of many, a range, and what an index costs a write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pyarrow as pa

from benches.events import EVENT_QUERIES, EVENT_RANGE
from benches.load import Load, dumps
from benches.notes import BODY, arrow_stream
from benches.peer_headrace import FILL_ROWS, Headrace
from benches.peer_postgres import Postgres
from benches.peers import Peer
from benches.runner import Options, Stage, compare, contenders, request_rows, stage
from benches.table import Aim, Report

NAME = "indexes"
SUMMARY = "secondary indexes: look-ups, a range and the cost of writes, beside PostgreSQL"
CONNECTIONS = 16
ROWS_A_THREAD = 100
STRIDE = 7_919
"""A prime: `id * STRIDE` modulo a number without that factor meets each residue once."""

COLUMNS = "id BIGINT PRIMARY KEY, ref BIGINT NOT NULL, thread BIGINT NOT NULL, at BIGINT NOT NULL, body TEXT NOT NULL"
INDEXES = {
    0: (),
    1: ("thread",),
    3: ("ref", "thread", "at"),
}
"""Columns with an index, by the number in the table's name."""

QUERIES = {
    "ref": "one row by an indexed column",
    "thread": f"{ROWS_A_THREAD} rows by an indexed column",
    "at": f"count and sum over {EVENT_RANGE:,} rows by a range of an indexed column",
}


def run(options: Options) -> Iterator[Report]:
    """Reads of the table with three indexes, then inserts into tables with none, one and three."""
    rows = options.rows * 10
    with stage(options, "postgres") as running:
        for peer in running.peers.values():
            for count in INDEXES:
                _create(peer, count)
            _fill(peer, rows)
        yield from _reads(running, rows)
        yield from _writes(running, rows)


def _reads(running: Stage, rows: int) -> Iterator[Report]:
    for column, text in QUERIES.items():
        values = {"ref": rows, "thread": rows // ROWS_A_THREAD, "at": max(rows - EVENT_RANGE, 1)}[column]
        load = partial(_query, column=column, values=values)
        yield _compared(running, column, f"{text}, of {rows:,} rows", "reads/s", load, echo=True)


def _writes(running: Stage, rows: int) -> Iterator[Report]:
    for count in INDEXES:
        title = f"INSERT of one row a request, {count} secondary indexes"
        yield _compared(running, "insert", title, "inserts/s", partial(_insert, count=count, rows=rows), echo=False)


def _compared(
    running: Stage, key: str, title: str, unit: str, load: Callable[[Peer, int], Load | None], *, echo: bool
) -> Report:
    entries = contenders(running, load, f"{NAME}-{key}", echo=echo)
    return Report(
        title=f"{title}, {CONNECTIONS} connections",
        unit=unit,
        headings=("p50 ms", "p99 ms"),
        rows=request_rows(compare(running, entries, connections=CONNECTIONS), f"python -m benches {NAME}"),
        aims=(Aim("PostgreSQL + asyncpg", 1.0),),
    )


def _create(peer: Peer, count: int) -> None:
    if isinstance(peer, Headrace):
        peer.sql(f"CREATE SHARED TABLE bench.events{count} ({COLUMNS})")
        for column in INDEXES[count]:
            peer.sql(f"CREATE INDEX events{count}_{column} ON bench.events{count} ({column})")
    elif isinstance(peer, Postgres):
        peer.execute(f"CREATE TABLE events{count} ({COLUMNS})")
        for column in INDEXES[count]:
            peer.execute(f"CREATE INDEX events{count}_{column} ON events{count} ({column})")


def events(first: int, count: int, rows: int) -> pa.Table:
    """Rows `first` to `first + count - 1` of a table that has `rows`: `ref` and `at` in another order than `id`."""
    ids = range(first, first + count)
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "ref": pa.array([number * STRIDE % rows for number in ids], pa.int64()),
            "thread": pa.array([number % (rows // ROWS_A_THREAD) for number in ids], pa.int64()),
            "at": pa.array([(rows - 1 - number) * STRIDE % rows for number in ids], pa.int64()),
            "body": pa.array([BODY], pa.string()).take(pa.array([0] * count, pa.int32())),
        }
    )


def _fill(peer: Peer, rows: int) -> None:
    for first in range(0, rows, FILL_ROWS):
        batch = events(first, min(FILL_ROWS, rows - first), rows)
        if isinstance(peer, Headrace):
            peer.ingest("bench/events3", arrow_stream(batch), "application/vnd.apache.arrow.stream")
        elif isinstance(peer, Postgres):
            peer.copy("events3", batch)
    if isinstance(peer, Postgres):
        peer.execute("ANALYZE events3")


def _query(peer: Peer, first: int, *, column: str, values: int) -> Load | None:
    """One of the queries, for a random value."""
    del first  # reads write no keys
    setup = "math.randomseed(os.time())"
    value = f"math.floor(math.random() * {values})"
    if isinstance(peer, Postgres):
        return Load(peer.base, f'return "/events/{column}/" .. {value}', method="GET", setup=setup)
    assert isinstance(peer, Headrace)
    text = EVENT_QUERIES[column].replace("events3", "bench.events3")
    head = f'{{"sql":{dumps(text)},"params":['
    if column == "at":
        body = f'local v = {value}\nreturn "/v1/api/sql", [[{head}]] .. v .. "," .. v + {EVENT_RANGE - 1} .. "]}}"'
    else:
        body = f'return "/v1/api/sql", [[{head}]] .. {value} .. "]}}"'
    return Load(peer.base, body, setup=setup, headers=peer.headers)


def _insert(peer: Peer, first: int, *, count: int, rows: int) -> Load | None:
    """One new row a request; its indexed values lie among those of the rows that there are."""
    setup = (
        f"local function event(id) local k = id % {rows} return id, k * {STRIDE} % {rows}, "
        f"k % {rows // ROWS_A_THREAD}, ({rows} - 1 - k) * {STRIDE} % {rows} end"
    )
    values = f'[%d,%d,%d,%d,"{BODY}"]'
    if isinstance(peer, Postgres):
        body = f"return '/events/{count}', string.format('{values}', event({first} + n))"
        return Load(peer.base, body, setup=setup, headers={"Content-Type": "application/json"})
    assert isinstance(peer, Headrace)
    statement = f"INSERT INTO bench.events{count} (id, ref, thread, at, body) VALUES ($1, $2, $3, $4, $5)"
    body = (
        f'return \'/v1/api/sql\', [[{{"sql":{dumps(statement)},"params":]] .. '
        f"string.format('{values}', event({first} + n)) .. '}}'"
    )
    return Load(peer.base, body, setup=setup, headers=peer.headers)
