"""How long after its commit a message reaches the long poll that waits for it, when the server does nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benches.live_client import connected
from benches.live_runs import WARM_UP, median_of, milliseconds
from benches.long_polls import Requests, answers, feed
from benches.runner import Options
from benches.table import Aim, Report, Row
from benches.topic_peers import TopicHeadrace
from benches.topic_runs import topic_stage

NAME = "topic-wake-up"
SUMMARY = "from an INSERT's answer to the answer of the long poll that waits for its message"
POLL_SECONDS = 30.0
SETTLE_SECONDS = 0.01
"""Between the poll and the INSERT, so that the poll waits by then."""
READER, GROUP = "stateless read", "group, which claims"


def run(options: Options) -> Iterator[Report]:
    """One poll at a time: without a group, and with one, whose answer comes after the commit of its claim."""
    differences: dict[str, list[list[int]]] = {READER: [], GROUP: []}
    with topic_stage(options, "headrace") as running:
        if not running.peers:
            return
        feed(running.headrace.server)
        for _ in range(options.rounds):
            for name, rounds in differences.items():
                first = options.next_keys()
                group = f"group-{first}" if name == GROUP else None
                rounds.append(wake_ups(running.headrace, group, first, options.seconds))
    yield Report(
        title="From the answer of an INSERT to that of the long poll it wakes, 1 poll (less is better)",
        unit="p50 ms",
        headings=("p99 ms", "rows"),
        rows=tuple(
            Row(
                syncs="-" if name == READER else "yes",
                system=name,
                figure=median_of([milliseconds(each) for each in rounds]),
                details=(f"{median_of([milliseconds(each, 0.99) for each in rounds]):.2f}", str(len(rounds[0]))),
                command=f"python -m benches {NAME}",
            )
            for name, rounds in differences.items()
        ),
        aims=tuple(Aim(None, 2.0, at_most=True, subject=name) for name in differences),
        subject=GROUP,
        note="the INSERT is answered once its commit is synced; negative: the message overtook that answer",
    )


def wake_ups(peer: TopicHeadrace, group: str | None, first: int, seconds: float) -> list[int]:
    """Nanoseconds from the answer of each INSERT to that of the poll that waited for it."""
    requests = Requests(peer)
    poll, write = connected(peer.port), connected(peer.port)
    measured: list[int] = []
    start: object = "Latest"
    end: float | None = None
    number = 0
    try:
        while end is None or time.monotonic() < end:
            if number == WARM_UP:
                end = time.monotonic() + seconds
            poll.sendall(requests.consume(group, POLL_SECONDS, start))
            time.sleep(SETTLE_SECONDS)
            write.sendall(requests.insert(first + number))
            committed, woken = answers([write, poll])
            offset = woken.message().offset
            start = {"Offset": offset + 1}
            if group is not None:
                write.sendall(requests.acknowledge(group, offset))
                answers([write])
            if number >= WARM_UP:
                measured.append(woken.arrived - committed.arrived)
            number += 1
    finally:
        poll.close()
        write.close()
    return measured
