"""The subscriber keeps its rows right through bad connections, and catches a server that lies, by what it is told or
by what it holds at the end."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.chaos.campaign import until, while_running
from tests.chaos.fake_server import FakeServer, Lie
from tests.chaos.proxy import Proxy, rough
from tests.chaos.rowset import LiveSelect, Violation
from tests.chaos.subscriber import RESTLESS, WELL_BEHAVED, Subscriber, describe
from tests.chaos.subscription import Subscription

SELECT = LiveSelect("app.t", ("id", "v"), "", lambda _: True, ("id",), star=True)


async def play(server: FakeServer, seed: int, writes: int = 600) -> list[Subscriber]:
    """Write at random while ten subscribers watch; all must hold the table at the end."""
    proxy = await Proxy(("127.0.0.1", server.port), seed, rough).start()
    subscribers = []
    for number in range(10):
        chance = random.Random(f"{seed}/{number}")
        subscriptions = [Subscription(name, SELECT, chance) for name in ("a", "b")[: chance.randrange(1, 3)]]
        subscribers.append(Subscriber(str(number), proxy.port, lambda: "token", subscriptions, chance, RESTLESS))

    async def write() -> None:
        chance = random.Random(seed)
        for _ in range(writes):
            key = chance.randrange(40)
            if key in server.rows and chance.random() < 0.4:
                await server.delete(key)
            else:
                await server.write(key, chance.choice(["x", "y", "z" * 600]))
            await asyncio.sleep(0.002)
        proxy.heal()
        proxy.cut_all()
        for subscriber in subscribers:
            subscriber.manners = WELL_BEHAVED
            subscriber.rest = 0.05
        await until(
            lambda: all(subscriber.delivered >= server.seq for subscriber in subscribers),
            lambda: [subscriber.delivered for subscriber in subscribers],
        )
        answer = {row["_seq"]: {"id": row["id"], "v": row["v"]} for row in server.rows.values()}
        for subscriber in subscribers:
            for subscription in subscriber.subscriptions.values():
                if subscription.rowset.rows != answer:
                    raise Violation(f"{subscriber.name} holds other rows\n{subscription.story()}")

    try:
        await while_running([subscriber.run() for subscriber in subscribers], write())
    finally:
        await proxy.close()
    return subscribers


def run(server: FakeServer, seed: int) -> dict[str, int]:
    async def main() -> dict[str, int]:
        async with asyncio.timeout(120), server:
            for key in range(30):
                await server.write(key, "first")
            return describe(await play(server, seed))

    return asyncio.run(main())


def test_an_honest_server_is_believed() -> None:
    counts = run(FakeServer(keep=150), 1)
    for what in ("insert", "update", "delete", "resumes", "loads", "too old", "aborted", "replaced", "compressed"):
        assert counts.get(what, 0) > 0, (what, counts)


@pytest.mark.parametrize("lie", [lie for lie in Lie if lie is not Lie.NONE])
def test_a_lying_server_is_caught(lie: Lie) -> None:
    with pytest.raises(Violation):
        run(FakeServer(lie), 2)
