"""The proxy does what its courses say, the same again for the same seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.chaos.proxy import Course, Cut, Journey, Proxy, calm, rough

End = tuple[asyncio.StreamReader, asyncio.StreamWriter]
BODY = random.Random(1).randbytes(100_000)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


@asynccontextmanager
async def proxied(journey: Journey) -> AsyncIterator[tuple[Proxy, End]]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    proxy = await Proxy(server.sockets[0].getsockname()[:2], choose=lambda _: journey).start()
    connection = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield proxy, connection
    finally:
        connection[1].close()
        await proxy.close()
        server.close()
        await server.wait_closed()


def run(journey: Journey, play: Callable[[Proxy, End], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), proxied(journey) as (proxy, connection):
            await play(proxy, connection)

    asyncio.run(main())


@pytest.mark.parametrize("course", [Course(), Course(delay=0.001, chunk=5_000), Course(rate=1e7), Course(chunk=4_097)])
def test_everything_passes_in_order(course: Course) -> None:
    async def play(_: Proxy, connection: End) -> None:
        reader, writer = connection
        writer.write(BODY)
        writer.write_eof()
        assert await reader.read(-1) == BODY

    run(Journey(up=course, down=course), play)


@pytest.mark.parametrize("at", [0, 1, 4_095, 4_096, 50_001])
def test_a_fin_comes_after_exactly_so_many_bytes(at: int) -> None:
    async def play(proxy: Proxy, connection: End) -> None:
        reader, writer = connection
        writer.write(BODY)
        assert await reader.read(-1) == BODY[:at]
        assert proxy.cuts == 1

    run(Journey(down=Course(cut_at=at, cut=Cut.FIN)), play)


def test_a_reset_is_a_reset() -> None:
    async def play(_: Proxy, connection: End) -> None:
        reader, writer = connection
        writer.write(BODY)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(len(BODY))

    run(Journey(down=Course(cut_at=10_000)), play)


def test_a_hole_holds_everything_back_until_its_end() -> None:
    async def play(_: Proxy, connection: End) -> None:
        reader, writer = connection
        loop = asyncio.get_running_loop()
        began = loop.time()
        writer.write(BODY[:100])
        assert await reader.readexactly(100) == BODY[:100]
        writer.write(BODY[100:200])
        assert await reader.readexactly(100) == BODY[100:200]
        assert loop.time() - began >= 0.2

    run(Journey(down=Course(hole_at=100, hole_seconds=0.2)), play)


def test_healing_opens_the_way_of_open_connections() -> None:
    async def play(proxy: Proxy, connection: End) -> None:
        reader, writer = connection
        proxy.heal()
        writer.write(BODY)
        assert await reader.readexactly(len(BODY)) == BODY
        assert proxy.choose is calm

    run(Journey(down=Course(cut_at=1_000)), play)


def test_a_server_that_is_not_there_is_a_reset() -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            listener = await asyncio.start_server(echo, "127.0.0.1", 0)
            target = listener.sockets[0].getsockname()[:2]
            listener.close()
            await listener.wait_closed()
            proxy = await Proxy(target).start()
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
            writer.close()
            await proxy.close()

    asyncio.run(main())


def test_the_seed_decides() -> None:
    def journeys(seed: int) -> list[Journey]:
        return [rough(random.Random(f"{seed}/{number}")) for number in range(20)]

    assert journeys(1) == journeys(1)
    assert journeys(1) != journeys(2)
