"""The life of a subscription: what comes first, what follows, how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from sql.errors import InvalidInput, InvalidParameter, PermissionDenied, SqlError, TableNotFound, Unsupported
from sql.live.errors import InvalidCursor, LiveQueryFailed, LiveQueryKilled, SlowConsumer, SubscriptionEnded
from sql.live.settings import LiveSettings
from sql.live.subscription import LiveOptions, SubscriptionState
from storage.errors import StoragePoisoned
from tests.sql.live.hub_world import ALICE, QUIET, SMALL_RING, Client, World, until, world

Body = Callable[[World, Client], Awaitable[None]]


def play(folder: Path, body: Body, settings: LiveSettings | None = None, options: object = QUIET) -> None:
    """Run a test in a world with six rows: ids 0 to 5, rooms a and b in turn."""

    async def run() -> None:
        async with world(folder / "data", options, settings) as here:  # type: ignore[arg-type]
            await here.create()
            for number in range(6):
                await here.run("INSERT INTO app.items VALUES ($1, $2, $3)", number, "ab"[number % 2], number)
            await body(here, Client())

    asyncio.run(run())


def test_without_options_only_what_comes_is_told(tmp_path: Path) -> None:
    async def body(here: World, client: Client) -> None:
        subscription = await here.subscribe(client)
        assert not subscription.has_snapshot
        assert subscription.total_rows == 0
        assert subscription.state is SubscriptionState.SNAPSHOT
        with pytest.raises(SubscriptionEnded):
            await subscription.next_batch()
        await here.run("INSERT INTO app.items VALUES (10, 'a', 1)")  # between the two, and yet told
        subscription.go_live()
        await here.run("INSERT INTO app.items VALUES (11, 'a', 1)")
        await here.caught_up(subscription)
        assert set(client.rows) == {10, 11}
        assert subscription.changes == 2
        assert subscription.updated_us is not None
        assert subscription.seq == here.engine.last_seq

    play(tmp_path, body)


def test_a_snapshot_comes_in_batches_at_one_commit(tmp_path: Path) -> None:
    async def body(here: World, client: Client) -> None:
        newest = here.engine.last_seq
        subscription = await here.subscribe(client, options=LiveOptions(batch_size=4))
        await here.run("UPDATE app.items SET n = 100 WHERE id = 5")
        first = await subscription.next_batch()
        assert [row["id"] for row in first.rows] == [0, 1, 2, 3]
        assert (first.number, first.has_more, first.last_seq) == (0, True, first.rows[-1]["_seq"])
        await here.run("DELETE FROM app.items WHERE id = 0")
        last = await subscription.next_batch()
        assert [(row["id"], row["n"]) for row in last.rows] == [(4, 4), (5, 5)]
        assert (last.number, last.has_more, last.last_seq) == (1, False, newest)
        assert (subscription.total_rows, subscription.resumed, subscription.fresh) == (6, False, False)
        with pytest.raises(SubscriptionEnded):
            await subscription.next_batch()
        client.rows = {row["id"]: row for row in (*first.rows, *last.rows)}
        subscription.go_live()
        await here.caught_up(subscription)
        assert client.plain() == await here.rows("SELECT * FROM app.items")

    play(tmp_path, body)


def test_two_batches_at_a_time_are_refused(tmp_path: Path) -> None:
    async def body(here: World, client: Client) -> None:
        await here.run("INSERT INTO app.items SELECT 100 + i, 'c', i FROM range(500) r(i)")
        subscription = await here.subscribe(client, options=LiveOptions(batch_size=400))
        first = asyncio.create_task(subscription.next_batch())
        await asyncio.sleep(0)
        with pytest.raises(InvalidInput):
            await subscription.next_batch()
        assert len((await first).rows) == 400
        second = asyncio.create_task(subscription.next_batch())
        await asyncio.sleep(0)
        subscription.close()
        with pytest.raises(SqlError):
            await second

    play(tmp_path, body)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (LiveOptions(last_rows=2), [4, 5]),
        (LiveOptions(last_rows=0), []),
        (LiveOptions(last_rows=100, batch_size=100), [0, 1, 2, 3, 4, 5]),
        (LiveOptions(from_=0, last_rows=1), [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_newest_rows_come_oldest_first(tmp_path: Path, options: LiveOptions, expected: list[int]) -> None:
    async def body(here: World, client: Client) -> None:
        subscription = await here.subscribe(client, options=options)
        batch = await subscription.next_batch()
        assert [row["id"] for row in batch.rows] == expected
        assert not batch.has_more
        assert subscription.total_rows == len(expected)

    play(tmp_path, body)


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        (LiveOptions(batch_size=0), InvalidParameter, "batch_size"),
        (LiveOptions(batch_size=10_001), InvalidParameter, "batch_size"),
        (LiveOptions(batch_size=True), InvalidParameter, "batch_size"),
        (LiveOptions(last_rows=-1), InvalidParameter, "last_rows"),
        (LiveOptions(last_rows=1_001), Unsupported, "last_rows"),
        (LiveOptions(last_rows=5, batch_size=4), Unsupported, "last_rows"),
        (LiveOptions(from_=-1), InvalidParameter, "from"),
        (LiveOptions(from_=2**70), InvalidParameter, "from"),
        (LiveOptions(from_=10_000), InvalidCursor, "from"),
    ],
)
def test_options_out_of_bounds_are_named(
    tmp_path: Path, options: LiveOptions, error: type[SqlError], name: str
) -> None:
    async def body(here: World, client: Client) -> None:
        with pytest.raises(error, match=name):
            await here.subscribe(client, options=options)
        assert here.hub.subscriptions() == []

    play(tmp_path, body)


def test_a_resume_begins_with_what_came_and_goes_on_with_what_went(tmp_path: Path) -> None:
    async def body(here: World, client: Client) -> None:
        client.seq = here.engine.last_seq
        client.rows = {row_id: {"id": row_id, "_seq": 3 + row_id} for row_id in range(6)}
        await here.run("INSERT INTO app.items VALUES (10, 'a', 0)")
        await here.run("UPDATE app.items SET n = 1 WHERE id = 10")
        await here.run("UPDATE app.items SET n = 7 WHERE id = 1")
        await here.run("DELETE FROM app.items WHERE id = 0")
        await here.run("INSERT INTO app.items VALUES (11, 'b', 0)")
        subscription = await here.subscribe(client, options=LiveOptions(from_=client.seq))
        assert subscription.resumed
        batch = await subscription.next_batch()
        assert [(row["id"], row["n"]) for row in batch.rows] == [(10, 1), (1, 7)]
        assert batch.last_seq == batch.rows[-1]["_seq"]
        assert not batch.has_more
        assert subscription.total_rows == 2
        client.seq = batch.last_seq
        subscription.go_live()
        await here.caught_up(subscription)
        assert [kind for kind, _ in client.events] == ["delete", "insert"]

    play(tmp_path, body)


def test_a_cursor_older_than_the_log_gets_a_fresh_snapshot(tmp_path: Path) -> None:
    options = msgspec.structs.replace(SMALL_RING, retention_seconds=0.0)

    async def body(here: World, client: Client) -> None:
        cursor = here.engine.last_seq - 3
        for number in range(20, 30):
            await here.run("INSERT INTO app.items VALUES ($1, 'z', 0)", number)
        await asyncio.to_thread(here.engine.compact)
        client.rows = {"gone": {}}
        subscription = await here.subscribe(client, options=LiveOptions(from_=cursor, batch_size=7))
        assert subscription.fresh
        assert not subscription.resumed
        assert subscription.too_old is not None
        assert str(cursor) in subscription.too_old
        assert (await subscription.next_batch()).fresh
        subscription.close()
        await client.load(await here.subscribe(client, options=LiveOptions(from_=cursor, batch_size=7)))
        assert client.plain() == await here.rows("SELECT * FROM app.items")

    play(tmp_path, body, options=options)


def test_a_full_sink_is_left_alone_and_gets_everything_later(tmp_path: Path) -> None:
    async def body(here: World, client: Client) -> None:
        subscription = await client.load(await here.subscribe(client, options=LiveOptions()))
        client.full = lambda: True
        await here.run("UPDATE app.items SET n = 50 WHERE id = 2")
        await until(lambda: subscription.state is SubscriptionState.BEHIND)
        stood = subscription.seq
        for number in range(20):
            await here.run("UPDATE app.items SET n = $1 WHERE id = 3", number)
        assert subscription.seq == stood
        assert here.hub.stats()["live_behind"] == 1
        client.full = lambda: False
        here.hub.drained(client)
        await here.caught_up(subscription)
        assert len(client.events) == 21
        assert client.plain() == await here.rows("SELECT * FROM app.items")

    play(tmp_path, body, options=SMALL_RING)


def test_a_client_behind_the_log_is_told_so(tmp_path: Path) -> None:
    options = msgspec.structs.replace(SMALL_RING, retention_seconds=0.0)

    async def body(here: World, client: Client) -> None:
        subscription = await client.load(await here.subscribe(client, options=LiveOptions()))
        loading = Client("c2")
        slow = await here.subscribe(loading, options=LiveOptions())
        client.full = lambda: True
        for number in range(20):
            await here.run("UPDATE app.items SET n = $1 WHERE id = 3", number)
        await until(lambda: subscription.state is SubscriptionState.BEHIND)
        await asyncio.to_thread(here.engine.compact)
        here.hub.drained(client)
        await loading.load(slow)
        await until(lambda: client.ends and loading.ends)
        assert isinstance(client.ends[0], SlowConsumer)
        assert isinstance(loading.ends[0], SlowConsumer)
        assert subscription.state is slow.state is SubscriptionState.ENDED
        assert here.hub.stats()["live_ended_slow"] == 2

    play(tmp_path, body, options=options)


def test_a_client_that_fetches_nothing_is_ended(tmp_path: Path) -> None:
    async def body(here: World, client: Client) -> None:
        subscription = await here.subscribe(client, options=LiveOptions(batch_size=2))
        await until(lambda: client.ends)
        assert isinstance(client.ends[0], SlowConsumer)
        with pytest.raises(SubscriptionEnded):
            await subscription.next_batch()

    play(tmp_path, body, LiveSettings(idle_seconds=0.02))


def test_killing_and_closing(tmp_path: Path) -> None:
    async def body(here: World, client: Client) -> None:
        one = await client.load(await here.subscribe(client, name="one"))
        two = await client.load(await here.subscribe(client, name="two"))
        assert one.live_id == "root-c1-one"
        assert here.hub.find("root-c1-two") is two
        assert not here.hub.kill("root-c1-none")
        assert await asyncio.to_thread(here.hub.kill, "root-c1-one")
        await until(lambda: client.ends)
        assert isinstance(client.ends[0], LiveQueryKilled)
        anew = await client.load(await here.subscribe(client, name="two"))
        assert two.state is SubscriptionState.ENDED
        assert here.hub.subscriptions() == [anew]
        assert here.hub.count_of("root") == 1
        other = await Client("c2").load(await here.subscribe(Client("c2"), name="two"))
        here.hub.close_connection("c1")
        anew.close()
        assert here.hub.subscriptions() == [other]
        assert len(client.ends) == 1, "who closes by himself is not told"

    play(tmp_path, body)


def test_a_sink_that_raises_ends_its_own_subscription_only(tmp_path: Path) -> None:
    async def body(here: World, client: Client) -> None:
        good = await client.load(await here.subscribe(client, options=LiveOptions()))
        bad = Client("c2")
        broken = await bad.load(await here.subscribe(bad, options=LiveOptions()))
        bad.rows.clear()  # so that the next update does not fit
        await here.run("UPDATE app.items SET n = 9 WHERE id = 3")
        await here.caught_up(good)
        assert broken.state is SubscriptionState.ENDED
        assert isinstance(bad.ends[0], LiveQueryFailed)

    play(tmp_path, body)


def test_closing_the_database_tells_every_sink(tmp_path: Path) -> None:
    client = Client()

    async def body(here: World, _: Client) -> None:
        await client.load(await here.subscribe(client))
        await here.subscribe(client, options=LiveOptions())

    play(tmp_path, body)
    assert [getattr(error, "code", None) for error in client.ends] == ["STORAGE_UNAVAILABLE"] * 2


def test_many_rows_of_one_commit_come_in_pieces_that_can_be_refused(tmp_path: Path) -> None:
    async def body(here: World, client: Client) -> None:
        subscription = await client.load(await here.subscribe(client, options=LiveOptions()))
        left = [2]

        def full() -> bool:
            left[0] -= 1
            return left[0] < 0

        client.full = full
        await here.run("INSERT INTO app.items SELECT 100 + i, 'c', i FROM range(5000) r(i)")
        await until(lambda: subscription.state is SubscriptionState.BEHIND)
        assert 6 < len(client.rows) < 5_006
        client.full = lambda: False
        here.hub.drained(client)
        await here.caught_up(subscription)
        assert client.plain() == await here.rows("SELECT * FROM app.items")

    play(tmp_path, body)


def test_a_user_sees_only_his_own_rows(tmp_path: Path) -> None:
    async def body(here: World, client: Client) -> None:
        await here.run("CREATE USER TABLE app.notes (id INT PRIMARY KEY, t TEXT)")
        mine = await client.load(await here.subscribe(client, "SELECT * FROM app.notes", identity=ALICE))
        await here.run("INSERT INTO app.notes VALUES (1, 'root')")
        await here.run("INSERT INTO app.notes VALUES (2, 'alice')", identity=ALICE)
        await here.caught_up(mine)
        assert set(client.rows) == {2}
        with pytest.raises(PermissionDenied):
            await here.subscribe(client, "SELECT * FROM system.users", identity=ALICE)
        with pytest.raises(TableNotFound):
            await here.subscribe(client, "SELECT * FROM app.none")

    play(tmp_path, body)


@pytest.mark.parametrize("failing", ["_read_ahead", "_drain"])
def test_what_was_polled_before_an_error_is_told_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    async def body(here: World, client: Client) -> None:
        subscription = await client.load(await here.subscribe(client, options=LiveOptions()))
        await here.caught_up(subscription)
        dispatcher = here.hub._dispatcher
        whole, failures = getattr(dispatcher, failing), 2

        def fails(*arguments: object) -> object:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise StoragePoisoned("the storage is being reopened")
            return whole(*arguments)

        monkeypatch.setattr(dispatcher, failing, fails)
        for number in range(6):  # changes of rows that stand in the storage, several to a poll
            await asyncio.gather(
                here.run("UPDATE app.items SET n = n + 10 WHERE id = $1", number),
                here.run("UPDATE app.items SET n = n + 10 WHERE id = $1", 5 - number),
            )
        await here.caught_up(subscription)
        assert failures <= 0
        assert client.plain() == await here.rows("SELECT * FROM app.items")

    play(tmp_path, body)
