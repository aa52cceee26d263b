"""Any course of failures: every message is handled, in order, and without failures once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace import AsyncClient, RetryPolicy, Topic
from tests.headrace.fake_topics import LOST, UNREACHED, FakeTopics, Fault

SOON = RetryPolicy(base_seconds=0.0005, max_seconds=0.002)
MESSAGES = 40


@dataclass
class Crash(Exception):
    """The handling of a message fails."""


@dataclass
class Plan:
    """What goes wrong: for requests, and at which messages a worker ends and how."""

    faults: list[Fault]
    ends: dict[int, str]
    partitions: int
    limit: int
    ordered: bool


faults = st.lists(st.sampled_from([None, None, LOST, UNREACHED, 502, 503, 429]), max_size=25)
ends = st.dictionaries(st.integers(0, 150), st.sampled_from(["crash", "break", "stop", "cancel"]), max_size=6)
plans = st.builds(Plan, faults, ends, st.integers(1, 3), st.integers(1, 15), st.booleans())


async def work(topic: Topic, plan: Plan, seen: list[tuple[int, int]], done: list[tuple[int, int]]) -> None:
    """One worker, from its start to its end."""
    options = {"limit": plan.limit, "ordered": plan.ordered, "retry": SOON, "idle_seconds": 0.0}
    async with topic.consume("workers", start="earliest", **options) as consumer:  # type: ignore[arg-type]
        async for message in consumer:
            seen.append((message.partition, message.offset))
            end = plan.ends.pop(len(seen), None)
            if end == "crash":
                raise Crash
            done.append((message.partition, message.offset))
            if end == "break":
                break
            if end == "stop":
                consumer.stop()
            if end == "cancel":
                raise asyncio.CancelledError


async def works(topic: Topic, plan: Plan, seen: list[tuple[int, int]], done: list[tuple[int, int]]) -> None:
    """Workers one after the other, until all is done."""
    while len(set(done)) < MESSAGES:
        try:
            await work(topic, plan, seen, done)
        except (Crash, asyncio.CancelledError):
            continue


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plan=plans, workers=st.integers(1, 3))
def test_every_message_is_handled_in_order(plan: Plan, workers: int) -> None:
    server = FakeTopics(plan.partitions)
    server.visibility = 0.05  # of partitions that no answer has named, nothing can be given back
    server.publish(*range(MESSAGES))
    server.faults.extend(plan.faults)
    calm = not any(plan.faults) and not plan.ends
    seen: list[tuple[int, int]] = []
    done: list[tuple[int, int]] = []

    async def main() -> None:
        async with (
            asyncio.timeout(20),
            AsyncClient("http://db", transport=httpx.MockTransport(server), token="token") as client,
        ):
            topic = client.topic("app.orders")
            await asyncio.gather(*(works(topic, plan, seen, done) for _ in range(workers)))

    asyncio.run(main())
    everything = {(number, at) for number, log in enumerate(server.messages) for at in range(len(log))}
    assert set(done) == everything
    if calm:
        assert len(seen) == MESSAGES
    none_lost = LOST not in plan.faults  # one that claimed a partition which no other answer has named yet
    if plan.ordered or (workers == 1 and none_lost):
        for partition in range(plan.partitions):
            first_times = list(dict.fromkeys(at for number, at in done if number == partition))
            assert first_times == sorted(first_times)
    for number, group in enumerate(server.groups["workers"]):
        acknowledged = {(number, at) for at in range(group.acked + 1)}
        assert acknowledged <= set(done)
