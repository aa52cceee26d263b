"""Durable publish of one message a request, from one producer and from 16."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator

from benches.load import Measurement, measure
from benches.runner import Options
from benches.table import Aim, Report, Row
from benches.topic_peers import TopicClient, payload
from benches.topic_runs import TopicStage, drive, in_turn, message_row, nothing, topic_stage

NAME = "topic-publish"
SUMMARY = "durable publish of one message a request, 1 and 16 producers, beside NATS and Redis"
AIMS = {1: Aim("NATS JetStream", 1.5), 16: Aim("NATS JetStream", 4.0)}
BY_WRK = "Headrace, load from wrk"


def run(options: Options) -> Iterator[Report]:
    """One table for each number of producers."""
    command = f"python -m benches {NAME}"
    numbers = itertools.count()

    async def publish(client: TopicClient) -> int:
        await client.publish(payload(next(numbers)))
        return 1

    with topic_stage(options, "headrace", "nats", "redis") as running:
        for producers, aim in AIMS.items():
            by_wrk: list[Measurement] = []
            measured = in_turn(
                running,
                f"{NAME}-{producers}",
                lambda peer, seconds, producers=producers: drive(peer, producers, seconds, publish, nothing),  # type: ignore[misc]
                after_round=lambda seconds, producers=producers, found=by_wrk: found.extend(  # type: ignore[misc]
                    _by_wrk(running, producers, seconds)
                ),
            )
            rows = [message_row(key, running.peers[key], runs, command) for key, runs in measured.items()]
            if by_wrk:
                rows.insert(1, _wrk_row(by_wrk[1:], command))
            yield Report(
                title=f"Durable publish of one message a request, {producers} producer{'s' * (producers > 1)}",
                unit="messages/s",
                headings=("p50 ms", "p99 ms"),
                rows=tuple(rows),
                aims=(aim,),
                note="Python clients on uvloop in one process, a connection for each producer",
            )


def _by_wrk(running: TopicStage, producers: int, seconds: float) -> Iterator[Measurement]:
    """The same requests from wrk: what the server does when no Python client holds it back."""
    if "headrace" in running.peers:
        yield measure(running.headrace.produce(running.options.next_keys()), connections=producers, seconds=seconds)


def _wrk_row(measured: list[Measurement], command: str) -> Row:
    return Row(
        syncs="yes",
        system=BY_WRK,
        figure=statistics.median(each.rate for each in measured),
        details=(
            f"{statistics.median(each.p50 for each in measured):.2f}",
            f"{statistics.median(each.p99 for each in measured):.2f}",
        ),
        command=f"{command} --only headrace",
    )
