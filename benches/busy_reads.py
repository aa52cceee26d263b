"""99th percentile of a point read while 64 writers are busy, against the same read when nothing else runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benches.load import Measurement, RunningLoad, measure
from benches.peers import Peer
from benches.runner import Options, stage
from benches.table import Aim, Report, Row

NAME = "busy-reads"
SUMMARY = "p99 of a point read while 64 writers are busy"
WRITERS = 64


def run(options: Options) -> Iterator[Report]:
    """One table a system and number of readers: idle beside busy."""
    with stage(options, "postgres", "pocketbase") as running:
        for key, peer in running.chosen():
            peer.fill(0, options.rows)
            for readers in (1, 16):
                yield _report(options, key, peer, readers)


def _report(options: Options, key: str, peer: Peer, readers: int) -> Report:
    read = peer.point_read(options.rows)
    assert read is not None
    idle: list[Measurement] = []
    busy: list[Measurement] = []
    writes: list[float] = []
    for _ in range(options.rounds):
        insert = peer.insert(options.next_keys())
        assert insert is not None
        idle.append(measure(read, connections=readers, seconds=options.seconds))
        writers = RunningLoad(insert, connections=WRITERS, seconds=options.seconds + 1)
        busy.append(measure(read, connections=readers, seconds=options.seconds))
        writes.append(writers.finish().rate)

    def row(name: str, measured: list[Measurement], written: str) -> Row:
        return Row(
            syncs=peer.syncs,
            system=name,
            figure=statistics.median(m.p99 for m in measured),
            details=(
                f"{statistics.median(m.p50 for m in measured):.2f}",
                f"{statistics.median(m.rate for m in measured):,.0f}",
                written,
            ),
            command=f"python -m benches {NAME} --only {key}",
        )

    return Report(
        title=f"{peer.name}: point read with {readers} connections, idle and under {WRITERS} writers (less is better)",
        unit="p99 ms",
        headings=("p50 ms", "reads/s", "inserts/s"),
        rows=(row("idle", idle, ""), row("busy", busy, f"{statistics.median(writes):,.0f}")),
        aims=(Aim("idle", 5.0, at_most=True),) if key == "headrace" else (),
        subject="busy",
    )
