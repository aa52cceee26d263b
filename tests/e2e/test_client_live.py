"""Live queries of the Python client against a real server, one that is killed and restarted under them included."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import headrace
from headrace import (
    AsyncClient,
    Change,
    ChangeType,
    Compression,
    LiveEvent,
    LiveSettings,
    Ready,
    Serialization,
    Snapshot,
)
from tests.e2e.running import RunningServer

SECONDS = 60.0
_numbers = count()


@pytest.fixture
def table(server: RunningServer) -> Iterator[str]:
    """A new table for each test."""
    name = f"live.t{next(_numbers)}"
    server.sql("CREATE NAMESPACE IF NOT EXISTS live")
    server.sql(f"CREATE TABLE {name} (id BIGINT PRIMARY KEY, name TEXT, price DECIMAL(10, 2), at DATETIME)")
    yield name
    server.sql(f"DROP TABLE {name}")


def run(server: RunningServer, test: Callable[[AsyncClient], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(SECONDS), AsyncClient(server.url, token=server.token, **options) as client:
            await test(client)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def until_ready(stream: headrace.LiveStream) -> list[LiveEvent]:
    events = []
    async for event in stream:
        events.append(event)
        if isinstance(event, Ready):
            break
    return events


def rows_of(events: list[LiveEvent]) -> list[dict[str, Any]]:
    return [row for event in events if isinstance(event, Snapshot) for row in event.rows]


async def table_rows(client: AsyncClient, table: str) -> dict[int, dict[str, Any]]:
    result = await client.query(f"SELECT *, _seq FROM {table}")
    return {row["id"]: row for row in result.rows}


@pytest.mark.parametrize("sign_in", ["header", "message"])
@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("serialization", list(Serialization))
def test_snapshot_and_changes(
    server: RunningServer, table: str, serialization: Serialization, compression: Compression, sign_in: str
) -> None:
    async def test(client: AsyncClient) -> None:
        await client.insert(table, [{"id": n, "name": "x" * 50, "price": "1.50"} for n in range(25)])
        async with client.live(f"SELECT * FROM {table} WHERE id < $1", [20], batch_size=6) as stream:
            events = await until_ready(stream)
            assert rows_of(events) == list((await table_rows(client, table)).values())[:20]
            assert isinstance(events[0], Snapshot)
            assert events[0].total_rows == 20
            await client.execute(f"UPDATE {table} SET price = 2 WHERE id = 3")
            await client.execute(f"DELETE FROM {table} WHERE id = 4; INSERT INTO {table} (id) VALUES (25)")
            await client.execute(f"INSERT INTO {table} (id) VALUES (-1)")
            update, delete, insert = [await stream.next() for _ in range(3)]
            assert isinstance(update, Change)
            assert isinstance(delete, Change)
            assert isinstance(insert, Change)
            assert [change.type for change in (update, delete, insert)] == ["update", "delete", "insert"]
            assert str(update.rows[0]["price"]) == "2.00"
            assert str(update.old_rows[0]["price"]) == "1.50"
            assert delete.old_rows[0]["id"] == 4
            assert insert.rows == [{"id": -1, "name": None, "price": None, "at": None, "_seq": insert.seq}]
            assert update.seq < delete.seq < insert.seq

    settings = LiveSettings(serialization=serialization, compression=compression, sign_in=sign_in)
    run(server, test, live=settings)


def test_rows_follow_the_table(server: RunningServer, table: str) -> None:
    async def test(client: AsyncClient) -> None:
        async with client.live_rows(f"SELECT *, _seq FROM {table}") as live:
            assert dict(await live.ready()) == {}
            assert live.key == ("id",)
            for n in range(40):
                upsert = f"INSERT INTO {table} (id, name) VALUES ($1, 'a') ON CONFLICT (id) DO UPDATE SET name = 'b'"
                await client.execute(upsert, [n % 13])
                if n % 3 == 0:
                    await client.execute(f"DELETE FROM {table} WHERE id = $1", [n % 7])
            wanted = await table_rows(client, table)
            await until(lambda: dict(live.rows) == wanted)

    run(server, test)


def test_options(server: RunningServer, table: str) -> None:
    async def test(client: AsyncClient) -> None:
        await client.insert(table, [{"id": n} for n in range(3000)])
        async with client.live(f"SELECT id FROM {table}", last_rows=2000) as newest:
            assert [row["id"] for row in rows_of(await until_ready(newest))] == list(range(1000, 3000))
            cursor = newest.cursor
        async with client.live(f"SELECT id FROM {table}", snapshot=False) as changes:
            assert rows_of(await until_ready(changes)) == []
            await client.execute(f"DELETE FROM {table} WHERE id = 5; INSERT INTO {table} (id) VALUES (5)")
            first = await changes.next()
            assert isinstance(first, Change)
            assert first.type == "delete"
        async with client.live(f"SELECT id FROM {table}", from_seq=cursor) as resumed:
            assert await until_ready(resumed) == [Ready(cursor)]
            again = await resumed.next()
            assert isinstance(again, Change)
            assert (again.type, again.old_rows[0]["id"]) == ("delete", 5)
        with pytest.raises(headrace.LiveError) as caught:
            await client.live(f"SELECT id FROM {table}", from_seq=2**62).next()
        assert caught.value.code == "INVALID_CURSOR"

    run(server, test)


def test_refusals(server: RunningServer, table: str) -> None:
    async def test(client: AsyncClient) -> None:
        for sql, code in [("SELECT * FROM live.nothing", "NOT_FOUND"), ("SELECT", "INVALID_SQL")]:
            with pytest.raises(headrace.LiveError) as caught:
                await client.live(sql).next()
            assert caught.value.code == code
        streams = [client.live(f"SELECT * FROM {table}") for _ in range(11)]
        for stream in streams[:10]:
            await until_ready(stream)
        with pytest.raises(headrace.SubscriptionLimitExceeded):
            await streams[10].next()
        await streams[0].aclose()
        async with asyncio.timeout(10):
            await until_ready(client.live(f"SELECT * FROM {table}"))

    run(server, test)


def test_a_dropped_table_ends_its_live_queries(server: RunningServer) -> None:
    async def test(client: AsyncClient) -> None:
        await client.execute("CREATE NAMESPACE IF NOT EXISTS live; CREATE TABLE live.gone (id INT PRIMARY KEY)")
        async with client.live_rows("SELECT * FROM live.gone") as live:
            await live.ready()
            await client.execute("DROP TABLE live.gone")
            with pytest.raises(headrace.LiveError) as caught:
                await live.changed(live.version)
            assert caught.value.code == "NOT_FOUND"

    run(server, test)


def test_a_slow_reader_loses_nothing(server: RunningServer, table: str) -> None:
    async def test(client: AsyncClient) -> None:
        async with client.live(f"SELECT id FROM {table}", buffer_rows=100) as stream:
            await until_ready(stream)
            for start in range(0, 3000, 100):
                await client.insert(table, [{"id": n} for n in range(start, start + 100)])
            subscription = stream._subscription
            await until(lambda: subscription.parked or subscription.state.failure)
            assert subscription.state.failure is None
            seen: list[int] = []
            while len(seen) < 3000:
                event = await stream.next()
                assert isinstance(event, Change)
                assert event.type in {ChangeType.INSERT, ChangeType.UPSERT}
                seen += [row["id"] for row in event.rows]
            assert seen == list(range(3000))

    run(server, test)


def test_the_blocking_client(server: RunningServer, table: str) -> None:
    with headrace.connect(server.url, user=server.user, password=server.password) as db:
        db.insert(table, [{"id": 1, "name": "a"}])
        with (
            db.live(f"SELECT id, name FROM {table}", timeout=30) as stream,
            db.live_rows(f"SELECT * FROM {table}") as live,
        ):
            assert isinstance(next(stream), Snapshot)
            assert isinstance(next(stream), Ready)
            assert list(live.ready(30)) == [1]
            with pytest.raises(TimeoutError):
                stream.next(timeout=0.01)
            writer = threading.Thread(target=lambda: db.execute(f"INSERT INTO {table} (id) VALUES (2)"))
            writer.start()
            change = next(stream)
            assert isinstance(change, Change)
            assert change.rows[0]["id"] == 2
            writer.join()
            seen = live.version
            while 2 not in live.rows:
                live.changed(seen, 30)
                seen = live.version
            closer = threading.Thread(target=stream.close)
            closer.start()
            assert list(stream) == []
            closer.join()
        assert db.state == "connected"
    assert not [thread for thread in threading.enumerate() if thread.name == "headrace-client"]


@pytest.mark.parametrize("sign_in", ["header", "message"])
def test_a_session_that_ends_is_renewed(server: RunningServer, table: str, sign_in: str) -> None:
    async def main() -> None:
        cuts: list[object] = []
        options = {"user": server.user, "password": server.password, "on_disconnect": cuts.append}
        settings = LiveSettings(sign_in=sign_in, first_delay=0.05)
        async with (
            asyncio.timeout(SECONDS),
            AsyncClient(server.url, live=settings, **options) as client,
            client.live_rows(f"SELECT id FROM {table}") as live,
        ):
            await live.ready()
            # Ends the session on the server; the client keeps its password, as after a new signing key.
            headers = {"Authorization": f"Bearer {client._session._access}"}
            await client._http.request("POST", "/v1/api/auth/logout", headers=headers)
            await until(lambda: bool(cuts))
            await client.execute(f"INSERT INTO {table} (id) VALUES (1)")
            await until(lambda: 1 in live.rows)

    asyncio.run(main())


def test_a_server_that_is_killed_and_restarted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    running = RunningServer(data)
    port = None
    try:
        running.start().set_up()
        port = urlsplit(running.url).port
        running.sql("CREATE NAMESPACE app; CREATE TABLE app.t (id BIGINT PRIMARY KEY, name TEXT)")
        settings = LiveSettings(first_delay=0.05, max_delay=0.5)
        options = {"user": running.user, "password": running.password, "live": settings}

        async def main() -> None:
            nonlocal running
            events: list[LiveEvent] = []
            cuts: list[object] = []
            async with (
                asyncio.timeout(SECONDS),
                AsyncClient(running.url, on_disconnect=cuts.append, **options) as client,
                client.live_rows("SELECT *, _seq FROM app.t", on_change=events.append) as live,
            ):
                await live.ready()
                for restart in range(3):
                    writer = asyncio.create_task(write(client, restart))
                    await until(lambda: restart * 1000 + 4 in live.rows)  # noqa: B023
                    running.kill()
                    written = await writer
                    assert written
                    running = await asyncio.to_thread(RunningServer(data, ["--port", str(port)]).start)
                    await client.execute("DELETE FROM app.t WHERE id < $1", [restart * 1000 + 2])
                    wanted = await table_rows(client, "app.t")
                    await until(lambda: dict(live.rows) == wanted)  # noqa: B023
                    for number in written[2:]:
                        assert number in live.rows
            assert len(cuts) == 3
            changes = [event for event in events if isinstance(event, Change)]
            for event, following in pairwise(changes):
                assert event.seq < following.seq
            assert not [event for event in events if isinstance(event, headrace.Reset)]

        async def write(client: AsyncClient, restart: int) -> list[int]:
            """Insert until the server is gone; what it acknowledged."""
            written = []
            for number in count(restart * 1000):
                try:
                    await client.execute("INSERT INTO app.t VALUES ($1, 'x')", [number])
                except headrace.ConnectionFailed:
                    return written
                written.append(number)
            raise AssertionError

        asyncio.run(main())
        assert running.stop() == 0, running.log()
    finally:
        running.kill()
