"""Running the systems under the benches of topics: start them, drive their Python clients in turn, take medians."""

from __future__ import annotations

import asyncio
import contextlib
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from benches.live_runs import milliseconds
from benches.peer_nats import Nats
from benches.peer_redis import Redis
from benches.peers import Unavailable
from benches.runner import Options, profiled
from benches.table import Row
from benches.topic_peers import TopicClient, TopicHeadrace, TopicPeer

TOPIC_PEERS: dict[str, Callable[[], TopicPeer]] = {"headrace": TopicHeadrace, "nats": Nats, "redis": Redis}
WARM_UP_SECONDS = 1.0


@dataclass(frozen=True)
class TopicStage:
    """The running systems of one bench."""

    options: Options
    folder: Path
    peers: dict[str, TopicPeer]

    @property
    def headrace(self) -> TopicHeadrace:
        """Headrace, for benches that insist on it."""
        peer = self.peers["headrace"]
        assert isinstance(peer, TopicHeadrace)
        return peer


@contextlib.contextmanager
def topic_stage(options: Options, *wanted: str) -> Iterator[TopicStage]:
    """Start the wanted systems that were chosen, all on one disk; those that are not installed are left out."""
    with contextlib.ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-", dir=options.folder)))
        peers: dict[str, TopicPeer] = {}
        for key in wanted:
            if key not in options.only:
                continue
            peer = TOPIC_PEERS[key]()
            cleanup.callback(peer.stop)
            try:
                peer.start(folder)
                uvloop.run(_reached(peer))
            except Unavailable as missing:
                print(f"  left out: {missing}", file=sys.stderr)
                continue
            peers[key] = peer
        yield TopicStage(options, folder, peers)


async def _reached(peer: TopicPeer) -> None:
    """Connect once, so that a client that is not installed shows before the first round."""
    client = await peer.connect(alone=True)
    await client.close()


@dataclass(frozen=True)
class Run:
    """What one round of one system did: messages, seconds, nanoseconds of each of its calls."""

    messages: int
    seconds: float
    calls: Sequence[int]

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds


Work = Callable[[TopicClient], Awaitable[int]]
"""One call of a client; how many messages it moved."""


def drive(
    peer: TopicPeer,
    clients: int,
    seconds: float,
    work: Work,
    prepare: Callable[[TopicClient], Awaitable[None]],
    *,
    messages: float = math.inf,
) -> Run:
    """Let clients, a connection each, repeat the work for that long, or until that many messages have moved."""
    return uvloop.run(_drive(peer, clients, seconds, work, prepare, messages))


async def _drive(
    peer: TopicPeer,
    clients: int,
    seconds: float,
    work: Work,
    prepare: Callable[[TopicClient], Awaitable[None]],
    most: float,
) -> Run:
    connected = [await peer.connect(alone=clients == 1) for _ in range(clients)]
    calls: list[int] = []
    messages = 0
    try:
        for client in connected:
            await prepare(client)
        began = time.perf_counter_ns()
        end = began + int(seconds * 1e9)

        async def repeat(client: TopicClient) -> None:
            nonlocal messages
            now = time.perf_counter_ns()
            while now < end and messages < most:
                moved = await work(client)  # not in the sum: other clients add to it meanwhile
                messages += moved
                before, now = now, time.perf_counter_ns()
                calls.append(now - before)

        await asyncio.gather(*map(repeat, connected))
        return Run(messages, (time.perf_counter_ns() - began) / 1e9, calls)
    finally:
        for client in connected:
            await client.close()


async def nothing(client: TopicClient) -> None:
    """No preparation."""
    del client


def once(peer: TopicPeer, work: Callable[[TopicClient], Awaitable[Any]]) -> None:
    """Let one client do something that is not measured."""

    async def run() -> None:
        client = await peer.connect(alone=True)
        try:
            await work(client)
        finally:
            await client.close()

    uvloop.run(run())


def in_turn(
    running: TopicStage,
    name: str,
    run: Callable[[TopicPeer, float], Run],
    after_round: Callable[[float], None] | None = None,
) -> dict[str, list[Run]]:
    """Run every system in every round, then what `after_round` does; a round of one second before is not counted.

    `name` is that of the flame graph of Headrace's last round, if one is asked for.
    """
    measured: dict[str, list[Run]] = {}
    for number in range(running.options.rounds + 1):
        seconds = running.options.seconds if number else WARM_UP_SECONDS
        for key, peer in running.peers.items():
            recorded = key == "headrace" and number == running.options.rounds
            with profiled(running.options, peer.pids()[0], name) if recorded else contextlib.nullcontext():
                result = run(peer, seconds)
            if number:
                measured.setdefault(key, []).append(result)
        if after_round is not None:
            after_round(seconds)
    return measured


def message_row(key: str, peer: TopicPeer, runs: Sequence[Run], command: str, *, offsets: bool = False) -> Row:
    """A row whose figure is messages a second, with the times of a call as details; `offsets`: of what groups did."""
    return Row(
        syncs=peer.syncs_offsets if offsets else peer.syncs,
        system=peer.name,
        figure=statistics.median(run.rate for run in runs),
        details=(
            f"{statistics.median(milliseconds(run.calls) for run in runs):.2f}",
            f"{statistics.median(milliseconds(run.calls, 0.99) for run in runs):.2f}",
        ),
        command=f"{command} --only {key}",
    )
