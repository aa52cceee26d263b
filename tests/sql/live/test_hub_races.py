"""No gap, no duplicate: clients that come, stall, leave and resume at any moment end with the answer of a SELECT."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from sql.live.subscription import LiveOptions, SubscriptionState
from storage import StorageOptions
from tests.sql.live.hub_world import QUIET, SMALL_RING, Client, World, churn, world

QUERIES = (
    "SELECT * FROM app.items",
    "SELECT * FROM app.items WHERE room = 'a'",
    "SELECT * FROM app.items WHERE n > 4",
    "SELECT * FROM app.items WHERE room = 'b' AND n < 6",
    "SELECT id, n FROM app.items WHERE room IN ('a', 'c')",
)


async def follow(here: World, number: int, rng: random.Random, done: asyncio.Event) -> tuple[str, Client]:
    """One client: subscribes, refuses now and then, leaves and resumes at random until writing is over."""
    sql = rng.choice(QUERIES)
    client = Client(f"c{number}")
    refusing = rng.random() * 0.6
    client.full = lambda: not done.is_set() and rng.random() < refusing
    options = LiveOptions(batch_size=rng.randint(1, 9))
    subscription = await client.load(await here.subscribe(client, sql, options))
    while not done.is_set():
        await asyncio.sleep(rng.random() * 0.01)
        here.hub.drained(client)
        if rng.random() < 0.2 and client.seq:
            subscription.close()
            await asyncio.sleep(rng.random() * 0.02)
            options = LiveOptions(batch_size=rng.randint(1, 9), from_=client.seq)
            subscription = await here.subscribe(client, sql, options)
            assert subscription.resumed
            await client.load(subscription)
    here.hub.drained(client)
    await here.caught_up(subscription)
    assert not client.ends
    subscription.close()
    return sql, client


@pytest.mark.parametrize("options", [QUIET, SMALL_RING], ids=["ring", "log"])
@pytest.mark.parametrize("seed", range(3))
def test_random_clients_end_with_the_answer(tmp_path: Path, options: StorageOptions, seed: int) -> None:
    async def run() -> None:
        rng = random.Random(seed)
        async with world(tmp_path / "data", options) as here:
            await here.create()
            await churn(here, rng, 40)
            done = asyncio.Event()
            clients = [
                asyncio.create_task(follow(here, number, random.Random(rng.random()), done)) for number in range(12)
            ]
            await asyncio.gather(*(churn(here, random.Random(rng.random()), 60) for _ in range(4)))
            done.set()
            for sql, client in await asyncio.gather(*clients):
                assert client.plain() == await here.rows(sql)
            assert here.hub.stats()["active_subscriptions"] == 0
            assert here.hub.stats()["live_queries"] == 0

    asyncio.run(run())


@pytest.mark.parametrize("merged", [False, True])
def test_resuming_from_every_cursor_also_after_reopening(tmp_path: Path, merged: bool) -> None:
    """Whatever `_seq` a client saw last, inside a commit or not, it gets exactly the rest."""

    async def run() -> None:
        async with world(tmp_path / "data", SMALL_RING) as here:
            await here.create()
            client = Client()
            subscription = await client.load(await here.subscribe(client, QUERIES[1], LiveOptions()))
            states = [(client.seq, dict(client.rows))]

            def deliver(subscription_: object, delta: object, original=client.deliver) -> bool:
                for change in delta.changes:  # type: ignore[attr-defined]
                    for place, seq in enumerate(change.seqs):
                        if change.old_rows:
                            state_rows.pop(change.old_rows[place]["id"])
                        if change.rows:
                            state_rows[change.rows[place]["id"]] = change.rows[place]
                        states.append((seq, dict(state_rows)))
                return original(subscription_, delta)

            state_rows: dict[object, dict[str, object]] = {}
            client.deliver = deliver  # type: ignore[method-assign]
            await asyncio.gather(*(churn(here, random.Random(number), 25) for number in range(4)))
            await here.caught_up(subscription)
            if merged:
                await asyncio.to_thread(here.engine.compact)
        async with world(tmp_path / "data", SMALL_RING) as here:
            assert len(states) > 20
            for number, (seq, rows) in enumerate(states):
                late = Client(f"late{number}")
                late.seq, late.rows = seq, dict(rows)
                options = LiveOptions(from_=seq, batch_size=1 + number % 5) if seq else LiveOptions()
                again = await late.load(await here.subscribe(late, QUERIES[1], options))
                await here.caught_up(again)
                assert late.rows == client.rows
                assert again.state is SubscriptionState.LIVE

    asyncio.run(run())
