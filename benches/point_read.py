"""Point read by key over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

from benches.runner import Options, compare, contenders, request_rows, stage
from benches.table import Aim, Report

NAME = "point-read"
SUMMARY = "point read by key over HTTP, 16 connections"
CONNECTIONS = 16


def run(options: Options) -> Iterator[Report]:
    """Every system holds the same rows; each request reads one of them at random."""
    with stage(options, "postgres", "pocketbase") as running:
        for peer in running.peers.values():
            peer.fill(0, options.rows)
        entries = contenders(running, lambda peer, _: peer.point_read(options.rows), NAME)
        outcomes = compare(running, entries, connections=CONNECTIONS)
        yield Report(
            title=f"Point read by key, {options.rows:,} rows, {CONNECTIONS} connections",
            unit="reads/s",
            headings=("p50 ms", "p99 ms"),
            rows=request_rows(outcomes, f"python -m benches {NAME}"),
            aims=(Aim("echo (ceiling)", 0.5), Aim("PocketBase", 1.3), Aim("PostgreSQL + asyncpg", 2.0)),
        )
