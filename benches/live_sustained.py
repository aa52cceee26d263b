"""2,000 commits a second for a while, with 100 subscribers whose filters pass one row in a hundred each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from benches.live_client import BLANK, ClientFailed, paced
from benches.live_peers import note
from benches.live_runs import LiveStage, live_stage, median_of, milliseconds
from benches.runner import Options
from benches.table import Aim, Report, Row

NAME = "live-sustained"
SUMMARY = "2,000 commits a second with 100 subscribers of 1 % of them each"
RATE, ROOMS, CONNECTIONS = 2_000, 100, 32
RECEIVED, LOST, REACHED = "change received, p99 ms", "changes lost", "commits a second"
# Filters by which no index finds the live query: each is evaluated for each commit.
FILTERS = {"room = 'room-{}'": True, "room LIKE 'room-{}'": False}


@dataclass(frozen=True)
class _Run:
    rate: float
    lost: int
    answered: list[int]
    received: list[int]


def run(options: Options) -> Iterator[Report]:
    """One table with filters that an index finds, one with filters that must be evaluated."""
    with live_stage(options, "headrace") as running:
        for where, indexed in FILTERS.items():
            runs = [_measure(running, where) for _ in range(options.rounds)]
            yield _report(where, runs, judged=indexed)


def _measure(running: LiveStage, where: str) -> _Run:
    peer, options = running.headrace, running.options
    receiver = peer.connect(running.program, ROOMS)
    columns = "id, room, author, body, stars"
    peer.follow(receiver, [f"SELECT {columns} FROM bench.notes WHERE {where.format(k)}" for k in range(ROOMS)])
    first = options.next_keys()
    rows = [note(first + i, BLANK, f"room-{i % ROOMS}") for i in range(int(RATE * options.seconds))]
    requests = [peer.insert_into("notes", row) for row in rows]
    began = time.monotonic_ns()
    answers = paced(running.program, running.folder, peer.port, requests, rate=RATE, connections=CONNECTIONS)
    try:
        receiver.wait(len(rows), seconds=10)
    except ClientFailed as lost:
        print(f"  {lost}")
    arrived = {stamp: arrival for stamp, arrival, _ in receiver.records()}
    received = [arrived[stamp] - stamp for stamp, _ in answers if stamp in arrived]
    receiver.close()
    assert began < answers[0][0]
    span = (max(answered for _, answered in answers) - answers[0][0]) / 1e9
    return _Run(len(answers) / span, len(rows) - len(received), [a - s for s, a in answers], received)


def _report(where: str, runs: list[_Run], *, judged: bool) -> Report:
    def row(name: str, figure: float, *details: str) -> Row:
        return Row("yes", name, figure, (*details, "")[:1], f"python -m benches {NAME}")

    received = [milliseconds(run.received, 0.99) if run.received else float("inf") for run in runs]
    aims = (Aim(None, 50, at_most=True, subject=RECEIVED), Aim(None, 0, at_most=True, subject=LOST))
    return Report(
        title=f"{RATE:,} commits a second, {ROOMS} subscribers WHERE {where.format('N')}",
        unit="figure",
        headings=("p50 ms",),
        rows=(
            row(RECEIVED, median_of(received), f"{median_of([milliseconds(run.received or [0]) for run in runs]):.2f}"),
            row(
                "commit answered, p99 ms",
                median_of([milliseconds(run.answered, 0.99) for run in runs]),
                f"{median_of([milliseconds(run.answered) for run in runs]):.2f}",
            ),
            row(LOST, sum(run.lost for run in runs)),
            row(REACHED, median_of([run.rate for run in runs])),
        ),
        aims=aims if judged else (),
        subject=RECEIVED,
        note="times from when the request was due; lost: sum of the rounds; the client takes part of the two cores",
    )
