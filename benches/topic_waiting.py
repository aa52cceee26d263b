"""5,000 long polls that wait: what the server does meanwhile, what each weighs, how fast one commit wakes all."""

from __future__ import annotations

import os
import re
import resource
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benches.live_client import ClientFailed, connected
from benches.live_many import private_bytes
from benches.live_runs import median_of
from benches.long_polls import Requests, answers, feed
from benches.peers import Unavailable
from benches.runner import Options
from benches.table import Aim, Report, Row
from benches.topic_runs import TopicStage, topic_stage

NAME = "topic-waiting"
SUMMARY = "5,000 waiting long polls, a group each: CPU, memory, time until one commit has woken all"
POLLS = 5_000
POLL_SECONDS = 60.0
WATCH_SECONDS = 20.0
"""At most: the polls must not end before the commit."""
CALM, CALM_SECONDS = 5.0, 30.0
"""Per cent of a core that count as idle; how long that may take."""
CPU, WEIGHT, WOKEN = "CPU with the polls, %", "bytes a poll, RSS", "last poll woken, ms"


@dataclass(frozen=True)
class _Run:
    idle: float
    waiting: float
    resident: float
    private: float
    first: float
    last: float


def run(options: Options) -> Iterator[Report]:
    """A fresh server a round, so that memory of the round before does not serve the next."""
    if "headrace" not in options.only:
        return
    allow_files(POLLS + 1_000)
    runs: list[_Run] = []
    for _ in range(options.rounds):
        with topic_stage(options, "headrace") as running:
            runs.append(_measure(running))

    def row(name: str, figures: list[float]) -> Row:
        return Row("-", name, median_of(figures), (), f"python -m benches {NAME}")

    yield Report(
        title=f"{POLLS:,} waiting long polls, a connection and a group each",
        unit="figure",
        headings=(),
        rows=(
            row("CPU without polls, %", [run.idle for run in runs]),
            row(CPU, [run.waiting for run in runs]),
            row(WEIGHT, [run.resident for run in runs]),
            row("bytes a poll, private memory", [run.private for run in runs]),
            row("first poll woken, ms", [run.first for run in runs]),
            row(WOKEN, [run.last for run in runs]),
        ),
        aims=(Aim(None, 2.0, at_most=True, subject=CPU), Aim(None, 20_000, at_most=True, subject=WEIGHT)),
        subject=CPU,
        note="CPU: of one core, from /proc; memory: with the connection; woken: after the answer of the INSERT",
    )


def _measure(running: TopicStage) -> _Run:
    peer, seconds = running.headrace, min(running.options.seconds, WATCH_SECONDS)
    requests = Requests(peer)
    feed(peer.server)
    pid = peer.pids()[0]
    with connected(peer.port) as connection:
        warm(requests, connection)
    calm(pid)
    idle = busy_share(pid, seconds)
    resident, private = resident_bytes(pid), private_bytes(pid)
    polls = [connected(peer.port) for _ in range(POLLS)]
    try:
        for number, poll in enumerate(polls):
            poll.sendall(requests.consume(f"waiter-{number}", POLL_SECONDS, "Latest"))
        calm(pid)
        resident, private = resident_bytes(pid) - resident, private_bytes(pid) - private
        waiting = busy_share(pid, seconds)
        with connected(peer.port) as write:
            first, last = wake(requests, write, polls)
    finally:
        for poll in polls:
            poll.close()
    return _Run(idle, waiting, resident / POLLS, private / POLLS, first, last)


def wake(requests: Requests, write: socket.socket, polls: Sequence[socket.socket]) -> tuple[float, float]:
    """INSERT one row; milliseconds from its answer to the first and to the last poll that has it."""
    write.sendall(requests.insert(1))
    committed, *woken = answers([write, *polls])
    if len({answer.message().offset for answer in woken}) != 1:
        message = "the polls brought different messages"
        raise ClientFailed(message)
    arrivals = [answer.arrived - committed.arrived for answer in woken]
    return min(arrivals) / 1e6, max(arrivals) / 1e6


def warm(requests: Requests, connection: socket.socket) -> None:
    """One row and one message before memory is measured: first uses load what later ones share."""
    for request in (requests.insert(0), requests.consume("warm", 0, "Earliest"), requests.acknowledge("warm", 0)):
        connection.sendall(request)
        answers([connection])


def calm(pid: int) -> None:
    """Return once the process has hardly worked for half a second; raises ClientFailed when that does not come."""
    deadline = time.monotonic() + CALM_SECONDS
    while busy_share(pid, 0.5) > CALM:
        if time.monotonic() > deadline:
            message = f"the server is not idle after {CALM_SECONDS:.0f} s"
            raise ClientFailed(message)


def busy_share(pid: int, seconds: float) -> float:
    """Processor time of the process over that many seconds, in per cent of one core."""
    before, began = processor_ticks(pid), time.monotonic()
    time.sleep(seconds)
    ticks, passed = processor_ticks(pid) - before, time.monotonic() - began
    return 100 * ticks / os.sysconf("SC_CLK_TCK") / passed


def processor_ticks(pid: int) -> int:
    """User and system time of a process, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def resident_bytes(pid: int) -> int:
    """Memory of the process that is present, shared pages and pages of files too (RSS)."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def allow_files(count: int) -> None:
    """Allow this process and those that it starts so many open files; raises Unavailable when that is forbidden."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        message = f"{count:,} files may not be open at once (the limit is {hard:,}: ulimit -n)"
        raise Unavailable(message)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
