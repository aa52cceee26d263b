"""INSERT of 100 and 1,000 rows a statement."""

from __future__ import annotations

from collections.abc import Iterator

from benches.runner import Contender, Options, compare, contenders, request_rows, stage
from benches.table import Aim, Report

NAME = "insert-many"
SUMMARY = "INSERT of 100 and 1,000 rows a statement, values and parameters, 16 connections"
CONNECTIONS = 16
LITERAL = "Headrace, values"
PEER = "PostgreSQL + asyncpg"


def run(options: Options) -> Iterator[Report]:
    """One table for each size; Headrace stands in it twice, with parameters and with literal values."""
    with stage(options, "postgres", "pocketbase") as running:
        for size in (100, 1_000):
            entries = contenders(
                running,
                lambda peer, first, size=size: peer.insert_batch(first, size, parameters=True),  # type: ignore[misc]
                NAME,
            )
            if "headrace" in options.only:
                literal = Contender(
                    "headrace-values",
                    LITERAL,
                    "yes",
                    lambda first, size=size: running.headrace.insert_batch(  # type: ignore[misc]
                        first, size, parameters=False
                    ),
                )
                entries.insert(1, literal)
            outcomes = compare(running, entries, connections=CONNECTIONS)
            rows = request_rows(outcomes, f"python -m benches {NAME}", per_request=size)
            yield Report(
                title=f"INSERT of {size:,} rows a statement, {CONNECTIONS} connections",
                unit="rows/s",
                headings=("p50 ms", "p99 ms"),
                rows=rows,
                aims=(Aim(PEER, 1.5, subject="Headrace"), Aim(PEER, 1.5, subject=LITERAL)),
            )
