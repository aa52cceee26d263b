"""Resumes of queries whose rows do not tell which older version they replace."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sql.live.interface import LiveDelta, LiveSubscription
from sql.live.subscription import LiveOptions, LiveRequest
from tests.sql.live.hub_world import ROOT, world

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
