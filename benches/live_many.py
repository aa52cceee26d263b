"""100,000 live queries on 1,000 sockets: what each weighs, how fast they register, how fast a change finds its own."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benches.live_client import Writer
from benches.live_runs import Delivery, LiveStage, live_stage, median_of, milliseconds, one_at_a_time
from benches.runner import Options
from benches.table import Aim, Report, Row

NAME = "live-many"
SUMMARY = "100,000 live queries on 1,000 sockets: memory, registrations a second, time to the matching client"
QUERIES, SOCKETS = 100_000, 1_000
WEIGHT, RATE, RECEIVED = "bytes a live query", "registrations a second", "change received, p50 ms"


@dataclass(frozen=True)
class _Run:
    weight: float
    socket_weight: float
    rate: float
    deliveries: list[Delivery]


def run(options: Options) -> Iterator[Report]:
    """A fresh server a round, so that memory of the round before does not serve the next."""
    runs: list[_Run] = []
    for _ in range(options.rounds):
        with live_stage(options, "headrace") as running:
            runs.append(_measure(running))

    def row(name: str, figure: float) -> Row:
        return Row("yes", name, figure, (), f"python -m benches {NAME}")

    yield Report(
        title=f"{QUERIES:,} live queries, each on its own key, on {SOCKETS:,} sockets",
        unit="figure",
        headings=(),
        rows=(
            row(WEIGHT, median_of([run.weight for run in runs])),
            row("bytes a signed-in socket", median_of([run.socket_weight for run in runs])),
            row(RATE, median_of([run.rate for run in runs])),
            row(RECEIVED, median_of([milliseconds([d.last for d in run.deliveries]) for run in runs])),
        ),
        aims=(Aim(None, 3_000, at_most=True, subject=WEIGHT), Aim(None, 5_000, subject=RATE)),
        subject=RATE,
        note="memory: private memory (USS) of the server's process, before and after, by the number",
    )


def _measure(running: LiveStage) -> _Run:
    peer = running.headrace
    peer.server.fill(0, QUERIES)
    warm = peer.connect(running.program, 1)
    peer.follow(warm, ["SELECT id, body FROM bench.notes WHERE id = -1"])
    pid = peer.pids()[0]
    empty = private_bytes(pid)
    receiver = peer.connect(running.program, SOCKETS)
    connected = private_bytes(pid)
    began = time.monotonic()
    peer.follow(receiver, [f"SELECT id, body FROM bench.notes WHERE id = {key}" for key in range(QUERIES)])
    seconds = time.monotonic() - began
    registered = private_bytes(pid)

    def update(_: int, marked: str) -> bytes:
        key = random.randrange(QUERIES)
        return peer.statement("UPDATE bench.notes SET body = $2 WHERE id = $1", key, f"room {marked}")

    writer = Writer(peer.port)
    deliveries = one_at_a_time(receiver, writer, update, 0, 1, running.options.seconds)
    writer.close()
    receiver.close()
    warm.close()
    return _Run((registered - connected) / QUERIES, (connected - empty) / SOCKETS, QUERIES / seconds, deliveries)


def private_bytes(pid: int) -> int:
    """Memory of the process that it shares with nobody (USS)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kb) * 1024 for kb in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.MULTILINE))
