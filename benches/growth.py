"""Cost of an insert and of a point read as the table grows from 10 thousand to 10 million rows."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benches.load import Measurement, measure
from benches.runner import Options, stage
from benches.table import Aim, Report, Row

NAME = "growth"
SUMMARY = "insert and point read as the table grows from 10 thousand to 10 million rows"
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
CONNECTIONS = 16
FLAT = 1.5


def run(options: Options) -> Iterator[Report]:
    """One table for reads, one for inserts; a line for each size."""
    reads: dict[int, list[Measurement]] = {}
    inserts: dict[int, list[Measurement]] = {}
    command = f"python -m benches {NAME}"
    with stage(options, insist=True) as running:
        filled = 0
        for size in SIZES:
            running.headrace.fill(filled, size - filled)
            filled = size
            for number in range(options.rounds + 1):
                seconds = options.seconds if number else 1
                read = measure(running.headrace.point_read(size), connections=CONNECTIONS, seconds=seconds)
                load = running.headrace.insert(options.next_keys())
                insert = measure(load, connections=CONNECTIONS, seconds=seconds)
                if number:
                    reads.setdefault(size, []).append(read)
                    inserts.setdefault(size, []).append(insert)
    for name, measured in (("Point read", reads), ("INSERT", inserts)):
        yield Report(
            title=f"{name} as the table grows, {CONNECTIONS} connections",
            unit="requests/s",
            headings=("p50 ms", "p99 ms"),
            rows=tuple(_row(size, rounds, command) for size, rounds in measured.items()),
            aims=(Aim(_label(SIZES[0]), 1 / FLAT),),
            subject=_label(SIZES[-1]),
        )


def _label(size: int) -> str:
    return f"{size:,} rows"


def _row(size: int, measured: list[Measurement], command: str) -> Row:
    return Row(
        syncs="yes",
        system=_label(size),
        figure=statistics.median(m.rate for m in measured),
        details=(
            f"{statistics.median(m.p50 for m in measured):.2f}",
            f"{statistics.median(m.p99 for m in measured):.2f}",
        ),
        command=command if size == SIZES[-1] else "",
    )
