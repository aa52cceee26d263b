"""Redis Streams with `appendfsync always`, through redis-py and its compiled parser."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.peers import Unavailable
from benches.processes import ServerProcess, descendants, free_port
from benches.topic_peers import TopicClient

if TYPE_CHECKING:
    from redis import Redis as BlockingConnection
    from redis.asyncio import Redis as Connection

STREAM, FIELD = "bench.messages", "m"


class Redis:
    """One redis-server that appends every command to its log and syncs it before it answers."""

    name = "Redis Streams"
    syncs = "yes"
    syncs_offsets = "yes"

    def __init__(self) -> None:
        self._port = 0
        self._server: ServerProcess | None = None

    def start(self, folder: Path) -> None:
        """Start on an empty folder; the log is its only store."""
        program = shutil.which("redis-server")
        if program is None:
            message = "Redis is not installed (apt-get install redis-server)"
            raise Unavailable(message)
        self._port = free_port()
        data = folder / "redis"
        data.mkdir()
        settings = {
            "port": str(self._port),
            "bind": "127.0.0.1",
            "dir": str(data),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "daemonize": "no",
        }
        arguments = [argument for name, value in settings.items() for argument in (f"--{name}", value)]
        self._server = ServerProcess([program, *arguments], self._port, folder / "redis.log")
        self._server.start()

    def stop(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.stop()

    def pids(self) -> list[int]:
        """The server."""
        return descendants(self._server.pid) if self._server else []

    async def connect(self, *, alone: bool) -> TopicClient:
        """A client with one connection: redis-py's blocking one when nothing else runs, as it is the faster one."""
        try:
            import redis
            import redis.asyncio
        except ImportError as missing:
            message = "the client of Redis is not installed (pip install 'redis[hiredis]')"
            raise Unavailable(message) from missing
        client = redis.Redis if alone else redis.asyncio.Redis
        return _RedisClient(client(port=self._port, single_connection_client=True))


class _RedisClient:
    """Producer and consumer over one connection. Both clients of redis-py have the same commands."""

    def __init__(self, connection: Connection | BlockingConnection) -> None:
        self._connection = connection
        self._group = ""

    async def publish(self, payload: bytes) -> None:
        """XADD of one entry."""
        await _answer(self._connection.xadd(STREAM, {FIELD: payload}))

    async def publish_many(self, payloads: Sequence[bytes]) -> None:
        """XADDs in one pipeline, outside of a transaction."""
        pipeline = self._connection.pipeline(transaction=False)
        for each in payloads:
            pipeline.xadd(STREAM, {FIELD: each})
        added = await _answer(pipeline.execute())
        assert len(added) == len(payloads)

    async def join(self, group: str) -> None:
        """XGROUP CREATE from the first entry."""
        self._group = group
        await _answer(self._connection.xgroup_create(STREAM, group, id="0", mkstream=True))

    async def consume(self, limit: int) -> list[bytes]:
        """XREADGROUP, then one XACK of all ids."""
        found = await _answer(self._connection.xreadgroup(self._group, "consumer", {STREAM: ">"}, count=limit))
        if not found:
            return []
        [entries] = found.values() if isinstance(found, dict) else [entries for _, entries in found]
        numbers = [number for number, _ in entries]
        acknowledged = await _answer(self._connection.xack(STREAM, self._group, *numbers))
        assert acknowledged == len(entries)
        return [fields[FIELD.encode()] for _, fields in entries]

    async def close(self) -> None:
        """Close the connection."""
        await _answer(self._connection.aclose() if hasattr(self._connection, "aclose") else self._connection.close())


async def _answer(result: Any) -> Any:
    """The answer of a command, of either client."""
    return await result if inspect.isawaitable(result) else result
