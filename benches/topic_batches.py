"""Batches of 200 messages: durable publish, and consume with acknowledgement by a group."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from benches.runner import Options
from benches.table import Aim, Report
from benches.topic_peers import TopicClient, TopicPeer, payload
from benches.topic_runs import Run, drive, in_turn, message_row, nothing, once, topic_stage

NAME = "topic-batches"
SUMMARY = "durable publish, and consume with ack, in batches of 200, beside NATS and Redis"
BATCH = 200
STORED = 40_000
"""Messages that every consumer's group finds; a round ends when it has consumed them, if not before."""
AIMS = (Aim("Redis Streams", 0.5), Aim("NATS JetStream", 2.0))


def run(options: Options) -> Iterator[Report]:
    """One table for publishing, one for consuming."""
    command = f"python -m benches {NAME}"
    headings = ("p50 ms", "p99 ms")
    numbers, groups = itertools.count(), itertools.count()

    async def publish(client: TopicClient) -> int:
        await client.publish_many([payload(number) for number in itertools.islice(numbers, BATCH)])
        return BATCH

    async def consume(client: TopicClient) -> int:
        return len(await client.consume(BATCH))

    def consumed(peer: TopicPeer, seconds: float) -> Run:
        """A group of its own for each run, which begins at the first message."""
        group = f"group-{next(groups)}"
        return drive(peer, 1, seconds, consume, lambda client: client.join(group), messages=STORED)

    with topic_stage(options, "headrace", "nats", "redis") as running:
        for peer in running.peers.values():
            once(peer, lambda client: fill(client, STORED))
        measured = in_turn(running, f"{NAME}-consume", consumed)
        yield Report(
            title=f"Consume and acknowledge in batches of {BATCH}, 1 consumer",
            unit="messages/s",
            headings=headings,
            rows=tuple(
                message_row(key, running.peers[key], runs, command, offsets=True) for key, runs in measured.items()
            ),
            aims=AIMS,
            note="a batch: Headrace consume + ack, NATS fetch + an answered acknowledgement of the last for all, Redis"
            " XREADGROUP + XACK of all ids; syncs: whether claims and acknowledgements are synced",
        )
        measured = in_turn(running, f"{NAME}-publish", lambda peer, seconds: drive(peer, 1, seconds, publish, nothing))
        yield Report(
            title=f"Durable publish in batches of {BATCH}, 1 producer",
            unit="messages/s",
            headings=headings,
            rows=tuple(message_row(key, running.peers[key], runs, command) for key, runs in measured.items()),
            aims=AIMS,
            note="a batch: Headrace one request, NATS publish_async and all answers, Redis one pipeline of XADD",
        )


async def fill(client: TopicClient, count: int) -> None:
    """Store messages for consumers to find."""
    for first in range(0, count, BATCH):
        await client.publish_many([payload(number) for number in range(first, first + BATCH)])
