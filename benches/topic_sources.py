"""What topics cost the INSERTs that feed them: none, 1, 4 and 16 topics on one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benches.load import Load
from benches.peer_headrace import Headrace
from benches.runner import Contender, Options, compare, request_rows, stage
from benches.table import Aim, Report

NAME = "topic-sources"
SUMMARY = "INSERT with 0, 1, 4 and 16 topics on the table, one row and 100 rows a request"
WITHIN = {1: 1.15, 4: 1.3, 16: 1.8}
"""Topics on the table, and how many times as long its INSERTs may take."""
BATCH = 100
BASE = "no topic"


def run(options: Options) -> Iterator[Report]:
    """A table for each number of topics in one server, asked in turn in every round."""
    with stage(options, insist=True) as running:
        headrace = running.headrace
        for topics in (0, *WITHIN):
            attach(headrace, topics)
        singles: Callable[[int, str], Load] = headrace.insert
        for title, connections, rows, load in (
            ("INSERT of one row a request, 1 connection", 1, 1, singles),
            ("INSERT of one row a request, 16 connections", 16, 1, singles),
            (
                f"INSERT of {BATCH} rows a request, 16 connections",
                16,
                BATCH,
                lambda first, table: headrace.insert_batch(first, BATCH, parameters=True, table=table),
            ),
        ):
            entries = [
                Contender(
                    f"headrace-{topics}-topics",
                    label(topics),
                    "yes",
                    lambda first, load=load, topics=topics: load(first, table_of(topics)),  # type: ignore[misc]
                )
                for topics in (0, *WITHIN)
            ]
            outcomes = compare(running, entries, connections=connections)
            yield Report(
                title=title,
                unit="rows/s",
                headings=("p50 ms", "p99 ms"),
                rows=request_rows(outcomes, f"python -m benches {NAME}", per_request=rows),
                aims=tuple(Aim(BASE, 1 / within, subject=label(topics)) for topics, within in WITHIN.items()),
                subject=BASE,
                note="each topic has one source, ON INSERT with payload full; aims are "
                + ", ".join(f"1/{within}" for within in WITHIN.values()),
            )


def attach(headrace: Headrace, topics: int) -> None:
    """Create a table, and that many topics that its INSERTs feed."""
    table = table_of(topics)
    headrace.create_notes(table)
    for number in range(topics):
        topic = f"bench.{table}_{number}"
        headrace.sql(f"CREATE TOPIC {topic} PARTITIONS 1")
        headrace.sql(f"ALTER TOPIC {topic} ADD SOURCE bench.{table} ON INSERT")


def table_of(topics: int) -> str:
    """The table with that many topics."""
    return f"notes_{topics}"


def label(topics: int) -> str:
    """How its line is named."""
    return BASE if topics == 0 else f"{topics} topic{'s' * (topics > 1)}"
