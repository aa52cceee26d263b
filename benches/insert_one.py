"""Durable INSERT of one row a request."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from benches.runner import Options, Outcome, compare, contenders, request_rows, stage
from benches.table import Aim, Report, Row

NAME = "insert"
SUMMARY = "durable one-row INSERT, 1, 16 and 64 connections"
AIMS = {
    16: (Aim("echo (ceiling)", 0.4), Aim("PostgreSQL + asyncpg", 2.5), Aim("PocketBase", 1.4)),
    64: (Aim("echo (ceiling)", 0.5), Aim("PostgreSQL + asyncpg", 2.5), Aim("PocketBase", 1.4)),
}
SUM = "one sync + one echo"


def run(options: Options) -> Iterator[Report]:
    """One table for each number of connections."""
    command = f"python -m benches {NAME}"
    with stage(options, "postgres", "pocketbase") as running:
        for connections in (1, 16, 64):
            entries = contenders(running, lambda peer, first: peer.insert(first), NAME)
            outcomes = compare(running, entries, connections=connections)
            if connections == 1:
                yield _one_connection(outcomes, command, running.folder)
            else:
                yield Report(
                    title=f"INSERT of one row a request, {connections} connections",
                    unit="inserts/s",
                    headings=("p50 ms", "p99 ms"),
                    rows=request_rows(outcomes, command),
                    aims=AIMS[connections],
                )


def _one_connection(outcomes: list[Outcome], command: str, folder: Path) -> Report:
    sync = _sync_milliseconds(folder)
    rows = [
        Row(
            syncs=outcome.contender.syncs,
            system=outcome.contender.name,
            figure=outcome.median(lambda m: m.p50),
            details=(f"{outcome.median(lambda m: m.p99):.2f}", f"{outcome.median(lambda m: m.rate):,.0f}"),
            command=f"{command} --only {outcome.contender.key}",
        )
        for outcome in outcomes
    ]
    rows.append(Row("yes", "one sync (fdatasync of 4 KiB)", sync, ("", ""), ""))
    echo = next((row.figure for row in rows if row.system.startswith("echo")), None)
    if echo is not None:
        rows.append(Row("yes", SUM, sync + echo, ("", ""), ""))
    return Report(
        title="INSERT of one row a request, 1 connection (less is better)",
        unit="p50 ms",
        headings=("p99 ms", "inserts/s"),
        rows=tuple(rows),
        aims=(Aim(SUM, 1.3, at_most=True),),
    )


def _sync_milliseconds(folder: Path) -> float:
    """Median time of appending 4 KiB and syncing it, in the folder where the servers write."""
    times = []
    descriptor = os.open(folder / "sync-probe", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(300):
            started = time.perf_counter()
            os.write(descriptor, bytes(4096))
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - started)
    finally:
        os.close(descriptor)
    return statistics.median(times) * 1000
