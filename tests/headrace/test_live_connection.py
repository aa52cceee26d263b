"""Live queries over real sockets against a server that fails on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from headrace import (
    AsyncClient,
    AuthenticationFailed,
    Change,
    ClientClosed,
    Compression,
    ConnectionFailed,
    ConnectionState,
    LiveError,
    LiveEvent,
    LiveSettings,
    Ready,
    Reset,
    Serialization,
    Snapshot,
    SubscriptionLimitExceeded,
    Unavailable,
)
from tests.headrace.fake_server import FakeServer
from tests.headrace.model_server import ModelTable

SQL = "SELECT * FROM app.t"
FAST = {"first_delay": 0.01, "max_delay": 0.05, "ping_seconds": 0.5}
SECONDS = 20


def run(test: Callable[[FakeServer], Any], table: ModelTable | None = None) -> None:
    """Run a test's coroutine with a server, within a limit, and check that nothing of it is left running."""

    async def main() -> None:
        async with asyncio.timeout(SECONDS), FakeServer(table) as server:
            await test(server)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left

    asyncio.run(main(), debug=True)


@asynccontextmanager
async def client_of(server: FakeServer, token: str = "token", **options: Any) -> AsyncIterator[AsyncClient]:
    options.setdefault("live", LiveSettings(**FAST))
    async with AsyncClient(server.url, token=token, **options) as client:
        yield client


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition; the test's limit of time ends it."""
    while not condition():
        await asyncio.sleep(0.005)


async def until_ready(stream: AsyncIterator[LiveEvent]) -> list[LiveEvent]:
    events = []
    async for event in stream:
        events.append(event)
        if isinstance(event, Ready):
            return events
    raise AssertionError("ended before it was ready")


def filled(count: int) -> ModelTable:
    table = ModelTable()
    for key in range(count):
        table.put(key, f"value {key}")
    return table


def test_snapshot_then_changes() -> None:
    async def test(server: FakeServer) -> None:
        async with client_of(server) as client, client.live(SQL, batch_size=2) as stream:
            events = await until_ready(stream)
            assert [len(event.rows) for event in events if isinstance(event, Snapshot)] == [2, 2, 1]
            assert events[-1] == Ready(5)
            assert [column.name for column in stream.columns] == ["id", "value", "_seq"]
            server.table.put(2, "new")
            server.table.delete(3)
            server.pump()
            update, delete = [await stream.next(), await stream.next()]
            assert isinstance(update, Change)
            assert isinstance(delete, Change)
            assert (update.type, update.rows[0]["value"], update.old_rows[0]["value"]) == ("update", "new", "value 2")
            assert (delete.type, delete.rows, delete.old_rows[0]["id"], delete.seq) == ("delete", [], 3, 7)
            assert stream.cursor == 7

    run(test, filled(5))


@pytest.mark.parametrize("sign_in", ["header", "message"])
@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("serialization", list(Serialization))
def test_every_encoding(serialization: Serialization, compression: Compression, sign_in: str) -> None:
    async def test(server: FakeServer) -> None:
        settings = LiveSettings(serialization=serialization, compression=compression, sign_in=sign_in, **FAST)
        async with client_of(server, live=settings) as client, client.live(SQL) as stream:
            (snapshot, _) = await until_ready(stream)
            assert isinstance(snapshot, Snapshot)
            assert snapshot.rows == server.table.by_seq()

    run(test, filled(50))


def test_rows_survive_cuts_at_any_byte() -> None:
    async def test(server: FakeServer) -> None:
        told: list[LiveEvent] = []
        live_settings = LiveSettings(first_delay=0.001, max_delay=0.005)
        async with (
            client_of(server, live=live_settings) as client,
            client.live_rows(SQL, batch_size=3, on_change=told.append) as live,
        ):
            await live.ready()
            for step, budget in enumerate(range(0, 2400, 37)):
                opened = server.accepted
                server.cut_after.append(budget)
                server.cut()
                server.table.put(step % 7, f"step {step}")
                if step % 3 == 0:
                    server.table.delete((step + 3) % 7)
                if step % 10 == 9:
                    server.table.forget_log()
                await until(lambda: server.accepted > opened)  # noqa: B023
                opened = server.accepted
                server.table.put(10 + step % 3, f"step {step}")
                server.pump()
                # Either it gets along with so many bytes, or it is cut and comes again.
                await until(lambda: server.accepted > opened or dict(live.rows) == server.table.rows)  # noqa: B023
            await until(lambda: dict(live.rows) == server.table.rows)
        last = 0
        for event in told:
            if isinstance(event, Reset):
                last = 0
            elif isinstance(event, Change):
                assert event.seq > last
                last = event.seq
        assert sum(isinstance(event, Reset) for event in told) > 3

    run(test, filled(10))


def test_what_was_missed_comes_after_a_cut() -> None:
    async def test(server: FakeServer) -> None:
        gone: list[Exception] = []
        back = asyncio.Event()
        async with (
            client_of(server, on_disconnect=gone.append, on_connect=back.set) as client,
            client.live(SQL) as stream,
        ):
            await until_ready(stream)
            assert client.state is ConnectionState.CONNECTED
            back.clear()
            server.cut()
            server.table.put(9, "missed")
            server.table.delete(0)
            first, second = await stream.next(), await stream.next()
            assert isinstance(first, Change)
            assert isinstance(second, Change)
            assert (first.type, first.rows[0]["id"]) == ("upsert", 9)
            assert (second.type, second.old_rows[0]["id"]) == ("delete", 0)
            assert [type(error) for error in gone] == [ConnectionFailed]
            assert back.is_set()
        assert client.state is ConnectionState.CLOSED

    run(test, filled(2))


def test_an_old_cursor_replaces_all_rows_at_once() -> None:
    async def test(server: FakeServer) -> None:
        states: list[set[int]] = []
        events: list[LiveEvent] = []

        def note(event: LiveEvent) -> None:
            events.append(event)
            states.append(set(live.rows))

        async with client_of(server) as client:
            live = client.live_rows(SQL, batch_size=1, on_change=note)
            assert set(await live.ready()) == {0, 1, 2}
            server.cut()
            server.table.delete(0)
            server.table.put(7, "x")
            server.table.forget_log()
            await until(lambda: set(live.rows) == {1, 2, 7})
            assert {frozenset(state) for state in states} == {frozenset(), frozenset({0, 1, 2}), frozenset({1, 2, 7})}
            assert [event.code for event in events if isinstance(event, Reset)] == ["RESUME_TOO_OLD"]
            await live.aclose()

    run(test, filled(3))


def test_one_connection_serves_many_and_knows_what_is_wanted() -> None:
    async def test(server: FakeServer) -> None:
        async with client_of(server) as client:
            streams = [client.live(SQL) for _ in range(12)]
            for stream in streams:
                await until_ready(stream)
            assert server.accepted == 1
            for stream in streams[3:]:
                await stream.aclose()
            await until(lambda: server.connections[0].subscriptions == 3)
            del stream, streams[1:]
            await until(lambda: server.connections[0].subscriptions == 1)  # dropped ones were collected

    run(test, filled(1))


def test_a_slow_reader_is_parked_and_loses_nothing() -> None:
    async def test(server: FakeServer) -> None:
        async with (
            client_of(server) as client,
            client.live(SQL, buffer_rows=10) as slow,
            client.live_rows(SQL) as quick,
        ):
            await until_ready(slow)
            await quick.ready()
            for step in range(200):
                server.table.put(step, step)
                server.pump()
            await until(lambda: len(quick.rows) == 200)
            assert slow._subscription.parked
            assert slow._subscription.buffered_rows <= 12
            seen = []
            while len(seen) < 200:
                event = await slow.next()
                assert isinstance(event, Change)
                seen += [row["id"] for row in event.rows]
            assert seen == list(range(200))

    run(test)


def test_a_snapshot_waits_for_its_reader() -> None:
    async def test(server: FakeServer) -> None:
        async with client_of(server) as client, client.live(SQL, batch_size=10, buffer_rows=20) as stream:
            first = await stream.next()
            assert isinstance(first, Snapshot)
            await until(lambda: stream._subscription.buffered_rows)
            for _ in range(20):
                await asyncio.sleep(0)
            assert stream._subscription.buffered_rows <= 20
            rest = await until_ready(stream)
            assert sum(len(event.rows) for event in rest if isinstance(event, Snapshot)) == 190
            assert first.total_rows == 200

    run(test, filled(200))


def test_messages_that_were_dropped_go_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace._live_connection.RATE_LIMIT_SECONDS", 0.05)

    async def test(server: FakeServer) -> None:
        async with client_of(server) as client:
            server.dropped = 3
            streams = [client.live(SQL, batch_size=1) for _ in range(2)]
            for stream in streams:
                stream.start()
            for stream in streams:
                events = await until_ready(stream)
                assert sum(len(event.rows) for event in events if isinstance(event, Snapshot)) == 5
            await until(lambda: server.connections[0].subscriptions == 2)

    run(test, filled(5))


def test_a_silent_server_is_left() -> None:
    async def test(server: FakeServer) -> None:
        settings = LiveSettings(first_delay=0.01, max_delay=0.05, ping_seconds=0.05)
        async with client_of(server, live=settings) as client, client.live(SQL) as stream:
            await until_ready(stream)
            server.silent = True
            await until(lambda: server.accepted > 1)
            server.silent = False
            server.table.put(1, "x")
            server.pump()
            assert isinstance(await stream.next(), Change)

    run(test, filled(1))


@pytest.mark.parametrize(("code", "kind"), [
    ("NOT_FOUND", LiveError), ("INVALID_SQL", LiveError), ("SUBSCRIPTION_LIMIT_EXCEEDED", SubscriptionLimitExceeded),
])  # fmt: skip
def test_a_refusal_is_raised(code: str, kind: type[LiveError]) -> None:
    async def test(server: FakeServer) -> None:
        async with client_of(server) as client:
            for _ in range(2):
                server.errors.append((code, "because"))
            with pytest.raises(kind, match="because") as caught:
                await client.live(SQL).next()
            assert caught.value.code == code
            with pytest.raises(kind):
                await client.live_rows(SQL).ready()

    run(test)


def test_the_limit_right_after_a_cut_is_waited_out() -> None:
    async def test(server: FakeServer) -> None:
        async with client_of(server) as client, client.live(SQL) as stream:
            await until_ready(stream)
            server.errors.extend([("SUBSCRIPTION_LIMIT_EXCEEDED", "the old connection still counts")] * 3)
            server.cut()
            server.table.put(1, "x")
            event = await stream.next()
            assert isinstance(event, Change)
            assert not server.errors

    run(test, filled(1))


def test_nobody_there_is_an_error_at_once_and_a_wait_later() -> None:
    async def test(server: FakeServer) -> None:
        server.refuse_upgrade.append((503, {}))
        async with client_of(server) as client, client.live(SQL) as stream:
            with pytest.raises(Unavailable, match="503"):
                await stream.next()
            async with client.live(SQL) as second:
                await until_ready(second)
                server.refuse_upgrade.extend([(503, {"Retry-After": "0"})] * 4)
                server.cut()
                server.table.put(1, "x")
                assert isinstance(await second.next(), Change)
                assert not server.refuse_upgrade

    run(test, filled(1))


@pytest.mark.parametrize("sign_in", ["header", "message"])
def test_a_token_that_cannot_be_renewed_ends_it(sign_in: str) -> None:
    async def test(server: FakeServer) -> None:
        settings = LiveSettings(sign_in=sign_in, **FAST)
        async with client_of(server, live=settings) as client, client.live(SQL) as stream:
            await until_ready(stream)
            server.tokens.clear()
            server.cut()
            with pytest.raises(AuthenticationFailed):
                await stream.next()

    run(test)


def test_closing_wakes_who_waits() -> None:
    async def test(server: FakeServer) -> None:
        async with client_of(server) as client:
            stream, other, rows = client.live(SQL), client.live(SQL), client.live_rows(SQL)
            await until_ready(stream)
            await until_ready(other)
            await rows.ready()
            seen = [dict(state) async for state in _first(rows)]
            assert seen == [{}]
            waiting = asyncio.create_task(_collect(stream))
            await asyncio.sleep(0)
            await stream.aclose()
            assert await waiting == []
            waiting = asyncio.create_task(_collect(other))
            await asyncio.sleep(0)
        with pytest.raises(ClientClosed):
            await waiting
        with pytest.raises(ClientClosed):
            await rows.changed(rows.version)
        with pytest.raises(ClientClosed):
            client.live(SQL)
        await rows.aclose()

    run(test)


async def _first(rows: Any) -> AsyncIterator[Any]:
    async for state in rows:
        yield state
        return


async def _collect(stream: AsyncIterator[LiveEvent]) -> list[LiveEvent]:
    return [event async for event in stream]


def test_a_callback_that_fails_ends_its_rows() -> None:
    def fail(event: LiveEvent) -> None:
        raise LookupError("mine")

    async def test(server: FakeServer) -> None:
        async with client_of(server) as client:
            live = client.live_rows(SQL, on_change=fail)
            with pytest.raises(LookupError, match="mine"):
                await live.ready()
            await until(lambda: server.connections[0].subscriptions == 0)

    run(test)


def test_a_key_that_the_query_does_not_have() -> None:
    async def test(server: FakeServer) -> None:
        async with client_of(server) as client:
            with pytest.raises(LiveError, match="no column 'name'"):
                await client.live_rows(SQL, key="name").ready()
            by_value = client.live_rows(SQL, key=["id", "value"])
            assert list(await by_value.ready()) == [(0, "value 0")]
            await by_value.aclose()

    run(test, filled(1))
