"""What a client hears of rows that it cannot know: replaced versions without a key, rows that had expired."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from sql.database import Database
from sql.live.interface import LiveDelta, LiveSubscription
from sql.live.subscription import LiveOptions, LiveRequest
from storage import StorageEngine
from tests.sql.live.hub_world import QUIET, ROOT, World, world
from tests.storage.stream_model import JumpingClock

BARE = "CREATE SHARED TABLE app.bare (room TEXT, n INT) WITH (ACCESS_LEVEL = 'PUBLIC')"


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def deliver(self, subscription: LiveSubscription, delta: LiveDelta) -> bool:
        self.told += [(str(change.type), seq) for change in delta.changes for seq in change.seqs]
        return True

    def ended(self, subscription: LiveSubscription, error: Exception) -> None:
        raise error


@pytest.mark.parametrize(
    ("sql", "head"),
    [
        ("SELECT * FROM app.items", 3),
        ("SELECT n, id AS number FROM app.items", 3),
        ("SELECT n FROM app.items", 1),
        ("SELECT n AS id FROM app.items", 1),
        ("SELECT * FROM app.bare", 1),
    ],
)
def test_an_update_is_in_the_head_only_if_its_row_shows_its_key(tmp_path: Path, sql: str, head: int) -> None:
    async def body() -> None:
        async with world(tmp_path / "data") as here:
            await here.create()
            await here.run(BARE)
            await here.run("INSERT INTO app.bare VALUES ('a', 1), ('a', 2)")
            await here.run("INSERT INTO app.items VALUES (1, 'a', 1), (2, 'a', 2)")
            cursor = here.engine.last_seq
            await here.run("INSERT INTO app.bare VALUES ('b', 3)")
            await here.run("INSERT INTO app.items VALUES (3, 'b', 3)")
            for number in (1, 2):
                await here.run("UPDATE app.bare SET n = n + 10 WHERE n = $1", number)
                await here.run("UPDATE app.items SET n = n + 10 WHERE n = $1", number)
            listener = Listener()
            options = LiveOptions(from_=cursor)
            request = LiveRequest(sql, (), "app", ROOT, "s", "c", options)
            subscription = await here.hub.subscribe(request, listener)
            assert subscription.resumed
            batch = await subscription.next_batch()
            assert (len(batch.rows), batch.has_more) == (head, False)
            subscription.go_live()
            await here.caught_up(subscription)
            assert [kind for kind, _ in listener.told] == ["update"] * (3 - head)
            assert all(seq > batch.last_seq for _, seq in listener.told)

    asyncio.run(body())


def test_rows_that_had_expired_at_the_snapshot_are_not_deleted_again(tmp_path: Path) -> None:
    clock = JumpingClock()

    async def body(here: World) -> None:
        await here.run("CREATE NAMESPACE app")
        await here.run("CREATE STREAM TABLE app.notes (v TEXT) WITH (TTL_SECONDS = 10)")
        for _ in range(2):
            await here.run("INSERT INTO app.notes VALUES ('x'), ('y')")
            clock.wall += 6_000_000
        listener = Listener()
        request = LiveRequest("SELECT v FROM app.notes", (), "app", ROOT, "s", "c", LiveOptions())
        subscription = await here.hub.subscribe(request, listener)
        assert (subscription.total_rows, subscription.hidden_through) == (2, subscription.seq - 2)
        await subscription.next_batch()
        subscription.go_live()
        for kinds in ([], ["delete", "delete"]):
            assert await asyncio.to_thread(here.engine.evict) == 2
            await here.caught_up(subscription)
            assert [kind for kind, _ in listener.told] == kinds
            clock.wall += 6_000_000

    async def run() -> None:
        with StorageEngine.open(tmp_path / "data", msgspec.structs.replace(QUIET, evict=False), clock=clock) as engine:
            database = Database(engine)
            try:
                await body(World(engine, database))
            finally:
                database.close()

    asyncio.run(run())
