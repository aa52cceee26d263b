"""Time to the matching client as live queries grow in number, each on a key of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator

from benches.live_client import Writer
from benches.live_runs import Delivery, live_stage, median_of, milliseconds, one_at_a_time
from benches.runner import Options
from benches.table import Aim, Report, Row

NAME = "live-keys"
SUMMARY = "time to the matching client among 1 to 10,000 live queries, each on its own key"
COUNTS = (1, 100, 1_000, 10_000)
SOCKETS = 100
"""At most: 100 live queries a socket are the default limit."""


def run(options: Options) -> Iterator[Report]:
    """UPDATE of one row that one of the live queries follows."""
    rounds: dict[int, list[list[Delivery]]] = {count: [] for count in COUNTS}
    with live_stage(options, "headrace") as running:
        peer = running.headrace
        peer.server.fill(0, COUNTS[-1])
        for _ in range(options.rounds):
            for count in COUNTS:
                receiver, writer = peer.connect(running.program, min(count, SOCKETS)), Writer(peer.port)
                peer.follow(receiver, [f"SELECT id, body FROM bench.notes WHERE id = {key}" for key in range(count)])

                def update(_: int, marked: str, count: int = count) -> bytes:
                    key = random.randrange(count)
                    return peer.statement("UPDATE bench.notes SET body = $2 WHERE id = $1", key, f"room {marked}")

                rounds[count].append(one_at_a_time(receiver, writer, update, 0, 1, options.seconds))
                writer.close()
                receiver.close()
    yield Report(
        title="UPDATE by key of one row that one live query follows (less is better)",
        unit="p50 ms",
        headings=("p99 ms", "answered p50 ms", "rows"),
        rows=tuple(_row(count, measured) for count, measured in rounds.items()),
        aims=(Aim(_name(1), 1.5, at_most=True, subject=_name(COUNTS[-1])),),
        subject=_name(COUNTS[-1]),
        note=f"from the writing of the request to its row at the client; up to {SOCKETS} sockets; every update syncs",
    )


def _name(count: int) -> str:
    return f"{count:,} live {'query' if count == 1 else 'queries'}"


def _row(count: int, rounds: list[list[Delivery]]) -> Row:
    return Row(
        syncs="yes",
        system=_name(count),
        figure=median_of([milliseconds([d.last for d in each]) for each in rounds]),
        details=(
            f"{median_of([milliseconds([d.last for d in each], 0.99) for each in rounds]):.2f}",
            f"{median_of([milliseconds([d.answered for d in each]) for each in rounds]):.2f}",
            str(len(rounds[0])),
        ),
        command=f"python -m benches {NAME}",
    )
