"""Systems of the benches of topics: their clients move every message once, in order, and runs are counted wholly."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import uvloop

from benches.load import first_request
from benches.notes import batch
from benches.peers import Unavailable
from benches.runner import SYSTEMS
from benches.topic_batches import fill
from benches.topic_peers import TopicClient, TopicHeadrace, TopicPeer, payload
from benches.topic_runs import TOPIC_PEERS, Run, drive, nothing, once

CLIENTS = {"nats": "nats", "redis": "redis"}


@pytest.fixture(params=sorted(TOPIC_PEERS))
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TopicPeer]:
    client = CLIENTS.get(request.param)
    if client is not None and importlib.util.find_spec(client) is None:
        pytest.skip(f"{client} is not installed (pip install '.[bench]')")
    running = TOPIC_PEERS[request.param]()
    try:
        try:
            running.start(tmp_path)
        except Unavailable as missing:
            pytest.skip(str(missing))
        yield running
    finally:
        running.stop()


def test_every_system_can_be_chosen() -> None:
    assert set(TOPIC_PEERS) <= set(SYSTEMS)


def test_the_message_is_the_row_of_the_other_benches() -> None:
    assert json.loads(payload(7)) == batch(7, 1).to_pylist()[0]


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_wrk_sends_the_same_message() -> None:
    running = TopicHeadrace()
    with socket.create_server(("127.0.0.1", 0)) as listener:  # wrk connects before it makes the request
        running.server.base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        path, body = first_request(running.produce(7))
    assert path == "/v1/api/topics/produce"
    assert json.loads(body) == {"topic_id": "bench.messages", "messages": [{"payload": json.loads(payload(7))}]}


@pytest.mark.parametrize("alone", [True, False])
def test_messages_are_consumed_once_and_in_order(peer: TopicPeer, alone: bool) -> None:
    async def run() -> None:
        client = await peer.connect(alone=alone)
        await client.publish(payload(0))
        await client.publish_many([payload(number) for number in range(1, 451)])
        await client.join("first")
        first = [await client.consume(200) for _ in range(2)]
        await client.close()
        assert first == [[payload(n) for n in range(200)], [payload(n) for n in range(200, 400)]]
        other = await peer.connect(alone=alone)
        await other.join("second")
        assert await other.consume(3) == [payload(n) for n in range(3)]
        await other.close()

    uvloop.run(run())


def test_filling_stores_as_many_as_it_says(peer: TopicPeer) -> None:
    async def consume(client: TopicClient) -> int:
        return len(await client.consume(150))

    once(peer, lambda client: fill(client, 600))
    result = drive(peer, 1, 30, consume, lambda client: client.join("all"), messages=600)
    assert result.messages == 600
    assert len(result.calls) == 4


class Counter:
    """A system whose clients take turns at every step."""

    name = "counter"
    syncs = syncs_offsets = "-"
    published = 0

    def start(self, folder: Path) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""

    def pids(self) -> list[int]:
        return []

    async def connect(self, *, alone: bool) -> TopicClient:
        return CounterClient(self)


class CounterClient:
    def __init__(self, system: Counter) -> None:
        self._system = system

    async def publish(self, payload: bytes) -> None:
        await self.publish_many([payload])

    async def publish_many(self, payloads: Sequence[bytes]) -> None:
        await asyncio.sleep(0)
        self._system.published += len(payloads)

    async def join(self, group: str) -> None:
        """No groups."""

    async def consume(self, limit: int) -> list[bytes]:
        return []

    async def close(self) -> None:
        """Nothing to close."""


def test_the_messages_of_all_clients_are_counted() -> None:
    system = Counter()

    async def publish(client: TopicClient) -> int:
        await client.publish_many([b""] * 3)
        return 3

    result = drive(system, 16, sys.maxsize / 1e9, publish, nothing, messages=30_000)
    assert result.messages == system.published >= 30_000
    assert len(result.calls) * 3 == result.messages
    assert Run(10, 2.0, []).rate == 5
