"""A TCP proxy that misbehaves by a seed: it delays, throttles, swallows and cuts what passes, both ways."""

from __future__ import annotations

import asyncio
import enum
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

CHUNK = 16_384
NEVER = 1 << 62
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes `close` send RST and forget what was not sent."""


class Cut(enum.Enum):
    """How a connection ends."""

    RST = "rst"
    FIN = "fin"


@dataclass(frozen=True, slots=True)
class Course:
    """What happens to the bytes of one direction of one connection."""

    delay: float = 0.0
    """Seconds that each chunk waits."""
    chunk: int = CHUNK
    """Most bytes that pass at a time."""
    rate: float = 0.0
    """Bytes a second; 0: no bound."""
    hole_at: int = NEVER
    """After so many bytes nothing passes for `hole_seconds`."""
    hole_seconds: float = 0.0
    cut_at: int = NEVER
    """After exactly so many bytes both directions end."""
    cut: Cut = Cut.RST


@dataclass(frozen=True, slots=True)
class Journey:
    """The courses of one connection: what the client sends, and what the server does."""

    up: Course = field(default_factory=Course)
    down: Course = field(default_factory=Course)


Chooser = Callable[[random.Random], Journey]


def calm(_: random.Random) -> Journey:
    """Everything passes."""
    return Journey()


def rough(chance: random.Random) -> Journey:
    """Any mixture; about one connection in four has a cut or a hole soon, most have one some time."""

    def course(cut_after: int) -> Course:
        hole = chance.random() < 0.15
        return Course(
            delay=chance.choice([0.0, 0.0, 0.0, chance.uniform(0.0, 0.02)]),
            chunk=chance.choice([CHUNK, CHUNK, CHUNK, chance.randrange(1, 400)]),
            rate=chance.choice([0.0, 0.0, 0.0, chance.uniform(20_000, 200_000)]),
            hole_at=int(chance.expovariate(1 / cut_after)) if hole else NEVER,
            hole_seconds=chance.uniform(0.1, 2.0) if hole else 0.0,
            cut_at=int(chance.expovariate(1 / cut_after)) if chance.random() < 0.8 else NEVER,
            cut=chance.choice(list(Cut)),
        )

    return Journey(up=course(1_500), down=course(60_000))


class Proxy:
    """Forwards to one address. Belongs to the event loop that started it.

    What happens to the n-th connection depends on the seed and n alone.
    """

    def __init__(self, target: tuple[str, int], seed: int = 0, choose: Chooser = calm) -> None:
        self.target = target
        self.choose = choose
        self.port = 0
        self.accepted = 0
        self.cuts = 0
        self._seed = seed
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> Proxy:
        """Listen on a free port of loopback."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    def heal(self) -> None:
        """From now on everything passes, on open connections too; what a hole holds back goes on at its end."""
        self.choose = calm
        for link in self._links:
            link.journey = Journey()

    def cut_all(self, how: Cut = Cut.RST) -> None:
        """End every open connection."""
        for link in list(self._links):
            link.end(how)

    async def close(self) -> None:
        """Stop listening and end every connection."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._link(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        chance = random.Random(f"{self._seed}/{self.accepted}")
        try:
            onward = await asyncio.open_connection(*self.target)
        except (OSError, asyncio.CancelledError):
            _close(writer, Cut.RST)
            return
        link = _Link(self, self.choose(chance), (reader, writer), onward)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)
            link.end(Cut.RST)


End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """Both directions of a connection."""

    def __init__(self, proxy: Proxy, journey: Journey, client: End, server: End) -> None:
        self.journey = journey
        self._proxy = proxy
        self._client = client
        self._server = server
        for _, writer in (client, server):
            writer.transport.set_write_buffer_limits(high=CHUNK)

    async def run(self) -> None:
        """Forward until both directions have ended."""
        await asyncio.gather(
            self._forward(self._client[0], self._server[1], lambda: self.journey.up),
            self._forward(self._server[0], self._client[1], lambda: self.journey.down),
        )
        self.end(Cut.FIN)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, course: Callable[[], Course]
    ) -> None:
        passed = 0
        holed = False
        try:
            while data := await reader.read(min(CHUNK, course().chunk)):
                now = course()
                if not holed and passed + len(data) > now.hole_at:
                    holed = True
                    await asyncio.sleep(now.hole_seconds)
                    now = course()
                pause = now.delay + (len(data) / now.rate if now.rate else 0.0)
                if pause:
                    await asyncio.sleep(pause)
                if passed + len(data) >= now.cut_at:
                    writer.write(data[: max(0, now.cut_at - passed)])
                    await writer.drain()
                    self._proxy.cuts += 1
                    self.end(now.cut)
                    return
                writer.write(data)
                passed += len(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except (ConnectionError, RuntimeError, OSError):
            # One side is gone: the other learns it at once.
            self.end(Cut.RST)

    def end(self, how: Cut) -> None:
        """End both sides; idempotent."""
        _close(self._client[1], how)
        _close(self._server[1], how)


def _close(writer: asyncio.StreamWriter, how: Cut) -> None:
    transport = writer.transport
    if how is Cut.FIN:
        writer.close()
        return
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    transport.abort()
