"""An event stream over a hub that does as it is told: what happens while its rows are on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from server.auth.cache import VerifiedToken
from server.errors import ClientGone
from server.exchange import Exchange
from server.live.events import EventStream
from sql.errors import ExecutionError
from sql.identity import Identity, Role
from sql.live.errors import LiveQueryKilled
from sql.live.subscription import LiveOptions, LiveRequest
from storage.catalog import USER_KIND
from tests.server.live.fakes import World, batches, inserted, settle

ANN = Identity("ann", Role.USER)


class Reader:
    """The client's end of a stream; it reads while `reading` is set."""

    def __init__(self, world: World) -> None:
        self.sent: list[dict[str, Any]] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.gone = asyncio.Event()
        scope = {"type": "http", "headers": [], "method": "GET"}
        exchange = Exchange(scope, self.receive, self.send)  # type: ignore[arg-type]
        token = VerifiedToken(ANN, "f1", world.verifier.expires_us, False, 0)
        self.stream = EventStream(world.service, exchange, token, "ann/f1")
        self.request = LiveRequest("x", (), "app", ANN, "events", self.stream.connection_id, LiveOptions())

    async def send(self, message: dict[str, Any]) -> None:
        await self.reading.wait()
        self.sent.append(message)

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    def events(self) -> list[str]:
        """The names of the events so far."""
        body = b"".join(message.get("body", b"") for message in self.sent)
        return [line.removeprefix("event: ") for line in body.decode().split("\n") if line.startswith("event: ")]

    @property
    def ended(self) -> bool:
        return bool(self.sent) and not self.sent[-1].get("more_body", True)


def run(test: Callable[[World, Reader, asyncio.Task[None]], Awaitable[None]], *sizes: int, **options: Any) -> None:
    """Run a test beside a stream, and see that nothing is left of it."""

    async def body() -> None:
        world = World(**options)
        world.hub.snapshot.batches = batches(*sizes)
        reader = Reader(world)
        task = asyncio.create_task(reader.stream.run(reader.request, reader.receive))
        await settle()
        await test(world, reader, task)
        reader.gone.set()
        await asyncio.wait([task], timeout=5)
        assert task.done()
        assert not world.hub.open
        assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} == set()

    asyncio.run(body())


def test_a_client_that_goes_ends_everything() -> None:
    async def test(world: World, reader: Reader, task: asyncio.Task[None]) -> None:
        assert reader.events() == ["ack", "rows", "rows"]
        assert world.hub.deliver("events", inserted())
        await settle()
        assert reader.events()[-1] == "change"
        assert not task.done()

    run(test, 1, 1)


def test_a_batch_that_fails_is_told_in_the_stream() -> None:
    async def body() -> None:
        world = World()
        world.hub.snapshot.batches = batches(1, 1)
        reader = Reader(world)
        reader.reading.clear()
        task = asyncio.create_task(reader.stream.run(reader.request, reader.receive))
        await settle()
        world.hub.batch_error = ExecutionError("NaN")
        reader.reading.set()
        await task
        assert reader.events() == ["ack", "rows", "error"]
        assert b"CONVERSION_ERROR" in reader.sent[-2]["body"]
        assert reader.ended

    asyncio.run(body())


def test_a_query_that_is_killed_while_its_rows_come_ends_the_stream() -> None:
    async def body() -> None:
        world = World()
        world.hub.snapshot.batches = batches(1)
        reader = Reader(world)
        reader.reading.clear()
        task = asyncio.create_task(reader.stream.run(reader.request, reader.receive))
        await settle()
        world.hub.end("events", LiveQueryKilled("x"))
        reader.reading.set()
        await task
        assert reader.events() == ["ack", "error"]
        assert reader.ended

    asyncio.run(body())


def test_a_full_queue_refuses_until_the_client_reads() -> None:
    async def test(world: World, reader: Reader, task: asyncio.Task[None]) -> None:
        reader.reading.clear()
        assert world.hub.deliver("events", inserted(101))
        await settle()  # the stream waits for the client with it
        assert world.hub.deliver("events", inserted(102, "x" * 200))
        assert world.hub.deliver("events", inserted(103)) is False
        reader.reading.set()
        await settle()
        assert reader.events().count("change") == 2
        assert world.hub.drains == 1

    run(test, send_buffer_bytes=100)


def test_a_client_that_never_reads_is_cut_off() -> None:
    async def test(world: World, reader: Reader, task: asyncio.Task[None]) -> None:
        reader.reading.clear()
        assert world.hub.deliver("events", inserted())
        with pytest.raises(ClientGone):
            await asyncio.wait_for(asyncio.shield(task), 5)

    run(test, slow_consumer_timeout_secs=0.02)


def test_a_token_that_holds_no_more_ends_the_stream() -> None:
    async def test(world: World, reader: Reader, task: asyncio.Task[None]) -> None:
        world.service.start()
        world.service.joined(reader.stream)
        world.service.accounts_changed([(USER_KIND, "ann")])
        await settle()
        assert not reader.ended
        world.verifier.revoked.add("ann/f1")
        world.service.accounts_changed([(USER_KIND, "ann")])
        await settle()
        assert reader.events()[-1] == "error"
        assert reader.ended
        assert world.hub.open == {}
        await world.service.close()

    run(test)


def test_an_idle_stream_gets_a_fresh_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.live.events.HEARTBEAT_SECONDS", 0.01)

    async def test(world: World, reader: Reader, task: asyncio.Task[None]) -> None:
        async with asyncio.timeout(5):
            while not any(b": still here\nid: 100\n\n" in m.get("body", b"") for m in reader.sent):
                await asyncio.sleep(0.005)

    run(test)
