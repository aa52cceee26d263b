"""UPDATE of one row by its key over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

from benches.runner import Options, compare, contenders, request_rows, stage
from benches.table import Aim, Report

NAME = "update"
SUMMARY = "UPDATE by key, 64 connections"
CONNECTIONS = 64


def run(options: Options) -> Iterator[Report]:
    """Every system holds the same rows; each request changes one of them at random."""
    with stage(options, "postgres", "pocketbase") as running:
        for peer in running.peers.values():
            peer.fill(0, options.rows)
        entries = contenders(running, lambda peer, _: peer.update(options.rows), NAME)
        outcomes = compare(running, entries, connections=CONNECTIONS)
        yield Report(
            title=f"UPDATE by key, {options.rows:,} rows, {CONNECTIONS} connections",
            unit="updates/s",
            headings=("p50 ms", "p99 ms"),
            rows=request_rows(outcomes, f"python -m benches {NAME}"),
            aims=(Aim("PostgreSQL + asyncpg", 2.0),),
        )
