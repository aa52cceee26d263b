"""Cost of an insert and of a point read as the table grows from 10 thousand to 10 million rows."""

from __future__ import annotations

from collections.abc import Iterator

from benches.runner import Contender, Options, compare, request_rows, stage
from benches.table import Aim, Report

NAME = "growth"
SUMMARY = "insert and point read as the table grows from 10 thousand to 10 million rows"
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
CONNECTIONS = 16
FLAT = 1.5


def run(options: Options) -> Iterator[Report]:
    """One table of each size, asked in turn in every round, so that a drift of the machine meets all of them."""
    with stage(options, insist=True) as running:
        headrace = running.headrace
        reads, inserts = [], []
        for size in SIZES:
            table = f"notes_{size}"
            headrace.create_notes(table)
            headrace.fill(0, size, table)
            key = f"headrace-{size}"
            reads.append(Contender(key, _label(size), "yes", lambda _, t=table, n=size: headrace.point_read(n, t)))  # type: ignore[misc]
            inserts.append(Contender(key, _label(size), "yes", lambda first, t=table: headrace.insert(first, t)))  # type: ignore[misc]
        for name, contenders in (("Point read", reads), ("INSERT", inserts)):
            outcomes = compare(running, contenders, connections=CONNECTIONS)
            yield Report(
                title=f"{name} by size of the table, {CONNECTIONS} connections",
                unit="requests/s",
                headings=("p50 ms", "p99 ms"),
                rows=request_rows(outcomes, f"python -m benches {NAME}"),
                aims=tuple(Aim(_label(size), 1 / FLAT) for size in SIZES[:-1]),
                subject=_label(SIZES[-1]),
            )


def _label(size: int) -> str:
    return f"{size:,} rows"
