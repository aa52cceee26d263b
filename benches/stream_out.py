"""A million rows out as Arrow over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

from benches import duck
from benches.load import first_request
from benches.notes import batch
from benches.runner import Contender, Options, compare, stage
from benches.table import Aim, Report, Row
from benches.web import send

NAME = "stream-out"
SUMMARY = "1 million rows out as Arrow over HTTP"
ROWS = 1_000_000
ARROW = "application/vnd.apache.arrow.stream"
SUM = "DuckDB export + bare stream"


def run(options: Options) -> Iterator[Report]:
    """Headrace's stream against DuckDB's export to memory plus a bare Starlette stream of the same bytes."""
    command = f"python -m benches {NAME}"
    with stage(options, insist=True) as running:
        running.headrace.fill(0, ROWS)
        load = running.headrace.query("SELECT id, room, author, body, stars FROM bench.notes", ARROW)
        path, body = first_request(load)
        content = send("POST", load.base + path, body, load.headers)
        echo = running.echo.stream("rows", content)
        entries = [
            Contender("headrace", "Headrace", "-", lambda _: load),
            Contender("echo", "bare Starlette stream", "-", lambda _: echo),
        ]
        outcomes = compare(running, [e for e in entries if e.key in options.only], connections=1)
        rows = [
            Row(
                syncs="-",
                system=outcome.contender.name,
                figure=outcome.median(lambda m: m.p50),
                details=(f"{outcome.median(lambda m: m.longest):.0f}", f"{len(content) / 1e6:.0f}"),
                command=f"{command} --only {outcome.contender.key}",
            )
            for outcome in outcomes
        ]
        if "duckdb" in options.only:
            with duck.connect(running.folder) as connection:
                for first in range(0, ROWS, 250_000):
                    duck.fill(connection, "notes", batch(first, 250_000))
                connection.execute("CHECKPOINT")
                time = duck.milliseconds(lambda: duck.export(connection, "FROM notes"), options.rounds)
            rows.append(Row("-", f"{duck.NAME}, Arrow export", time, ("", ""), f"{command} --only duckdb"))
            bare = next((row.figure for row in rows if row.system.startswith("bare")), None)
            if bare is not None:
                rows.append(Row("-", SUM, time + bare, ("", ""), ""))
    yield Report(
        title=f"{ROWS:,} rows out as Arrow, 1 connection (less is better)",
        unit="p50 ms",
        headings=("longest ms", "MB"),
        rows=tuple(rows),
        aims=(Aim(SUM, 1.2, at_most=True),),
    )
