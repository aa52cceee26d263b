"""How long after its commit a row reaches its one subscriber, when the server does nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from benches.live_client import Writer
from benches.live_runs import Delivery, live_stage, median_of, milliseconds, one_at_a_time
from benches.runner import Options
from benches.table import Aim, Report, Row

NAME = "live-latency"
SUMMARY = "from an INSERT to its answer and to its one subscriber, idle server"
DIFFERENCE = "received less answered"


def run(options: Options) -> Iterator[Report]:
    """One subscriber with a filter over the user's own rows, one writer."""
    rounds: list[list[Delivery]] = []
    with live_stage(options, "headrace") as running:
        peer = running.headrace
        for _ in range(options.rounds):
            receiver, writer = peer.subscribe(running.program, 1), Writer(peer.port)
            first = options.next_keys()
            rounds.append(one_at_a_time(receiver, writer, peer.insert, first, 1, options.seconds))
            writer.close()
            receiver.close()

    def row(name: str, durations: list[list[int]]) -> Row:
        return Row(
            syncs=peer.syncs,
            system=name,
            figure=median_of([milliseconds(each) for each in durations]),
            details=(f"{median_of([milliseconds(each, 0.99) for each in durations]):.2f}", str(len(durations[0]))),
            command=f"python -m benches {NAME}",
        )

    yield Report(
        title="INSERT of one row, 1 subscriber (less is better)",
        unit="p50 ms",
        headings=("p99 ms", "rows"),
        rows=(
            row("answered", [[d.answered for d in each] for each in rounds]),
            row("received", [[d.last for d in each] for each in rounds]),
            row(DIFFERENCE, [[d.last - d.answered for d in each] for each in rounds]),
        ),
        aims=(Aim(None, 2.0, at_most=True, subject=DIFFERENCE),),
        subject="received",
        note="answered: the synced commit's own latency over HTTP; negative: the row overtook its answer",
    )
