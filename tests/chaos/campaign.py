"""Many subscribers and writers on one server that is cut off, killed and started again, until everybody must agree."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx

from tests.chaos.proxy import Cut, Proxy, rough
from tests.chaos.rowset import Row, Violation
from tests.chaos.selects import OWNERS, live_select
from tests.chaos.subscriber import RESTLESS, WELL_BEHAVED, Subscriber, describe
from tests.chaos.subscription import State, Subscription
from tests.chaos.writers import KEYED, OTHERS, SCHEMA, STREAMED, STREAMS, Writer
from tests.e2e.running import RunningServer

T = TypeVar("T")
log = logging.getLogger(__name__)

SUBSCRIPTIONS = 50
WRITERS = 8
PATIENCE = 90.0
"""Seconds until everybody must have seen everything: far more than is needed, however busy the machine is."""

PASSWORD = "correct horse battery"
SETTINGS = {
    "HEADRACE_RATE_LIMIT_MAX_MESSAGES_PER_SEC": "0",
    "HEADRACE_RATE_LIMIT_MAX_SUBSCRIPTIONS_PER_USER": "0",
    "HEADRACE_WEBSOCKET_AUTH_TIMEOUT_SECS": "60",
}
"""Subscribers are many and talkative, and the way to them is slow."""

FORGETFUL = {"HEADRACE_RETENTION_COMMIT_LOG_SECONDS": "1", "HEADRACE_RETENTION_COMMIT_LOG_BYTES": "65536"}
MINDFUL = {"HEADRACE_RETENTION_COMMIT_LOG_SECONDS": "86400", "HEADRACE_RETENTION_COMMIT_LOG_BYTES": "4294967296"}


class Campaign:
    """One server, its accounts, and everybody who uses it."""

    def __init__(self, server: RunningServer, seed: int) -> None:
        self.server = server
        self.seed = seed
        self.random = random.Random(seed)
        self.tokens: dict[str, str] = {}
        self.kills = 0
        self.writers: list[Writer] = []
        self.subscribers: list[Subscriber] = []
        self._owners: dict[str, str] = {}

    def set_up(self) -> None:
        """Make the tables and the accounts."""
        server = self.server.set_up()
        server.sql(SCHEMA)
        server.sql(STREAMS)
        server.sql(f"CREATE USER 'ann' WITH PASSWORD '{PASSWORD}' ROLE service")
        server.sql(f"CREATE USER 'bob' WITH PASSWORD '{PASSWORD}' ROLE user")
        self.tokens = {
            "admin": server.token,
            "ann": server.login("ann", PASSWORD),
            "bob": server.login("bob", PASSWORD),
        }

    def enlist(self, proxy: Proxy, name: str) -> None:
        """Make the subscribers and writers of a round."""
        chance = random.Random(f"{self.seed}/{name}")
        self.subscribers = []
        tables = [*KEYED, *KEYED, *OTHERS, *STREAMED]
        left = SUBSCRIPTIONS
        while left:
            some = min(left, chance.choice([1, 1, 2, 4, 8]))
            left -= some
            number = len(self.subscribers)
            account = chance.choice(OWNERS)
            own = random.Random(f"{self.seed}/{name}/{number}")
            subscriptions = [Subscription(f"s{at}", live_select(own, tables), own) for at in range(some)]
            direct = chance.random() < 0.3
            subscriber = Subscriber(
                f"round {name} subscriber {number} ({account}{', direct' if direct else ''})",
                self.server.port if direct else proxy.port,
                lambda account=account: self.tokens[account],  # type: ignore[misc]
                subscriptions,
                own,
                WELL_BEHAVED if direct else RESTLESS,
            )
            subscriber.rest = chance.choice([0.2, 1.0, 3.0])
            self.subscribers.append(subscriber)
            self._owners[subscriber.name] = account
        self.writers = []
        for number in range(WRITERS):
            account = ("admin", "ann", "admin", "ann", "bob")[number % 5]
            written = [KEYED[1], *STREAMED] if account == "bob" else [*KEYED, *OTHERS, *STREAMED]
            token = lambda account=account: self.tokens[account]  # noqa: E731
            self.writers.append(Writer(self.server.port, token, f"{self.seed}/{name}/w{number}", written, pause=0.1))

    async def round(self, name: str, seconds: float, *, forgetful: bool) -> None:
        """Let everybody go for a while, with accidents, then make peace and compare."""
        proxy = await Proxy(("127.0.0.1", self.server.port), self.seed, rough).start()
        self.enlist(proxy, name)
        try:
            await while_running([each.run() for each in self.subscribers], self._direct(proxy, seconds, forgetful))
        except BaseException as error:
            error.add_note(f"seed {self.seed}, round {name}: {self.report()}\n{self.server.log()[-1500:]}")
            raise
        finally:
            await proxy.close()
        log.info("seed %d, round %s: %s", self.seed, name, self.report())

    def report(self) -> dict[str, Any]:
        """What happened in this round."""
        written: Counter[str] = Counter()
        for writer in self.writers:
            written += writer.counts
        return {"subscribers": describe(self.subscribers), "writers": dict(written), "kills": self.kills}

    # --- the course of a round ---------------------------------------------------------------------------------

    async def _direct(self, proxy: Proxy, seconds: float, forgetful: bool) -> None:
        stop = threading.Event()
        loop = asyncio.get_running_loop()
        threads = ThreadPoolExecutor(len(self.writers), "writer")
        writing = [loop.run_in_executor(threads, writer.run, stop) for writer in self.writers]
        try:
            await self._accidents(proxy, seconds, forgetful, writing)
        finally:
            stop.set()
            await asyncio.gather(*writing)
            threads.shutdown()
        log.info("the writers have stopped: %s", self.report())
        proxy.heal()
        proxy.cut_all()
        for subscriber in self.subscribers:
            subscriber.manners = WELL_BEHAVED
            subscriber.rest = 0.1
        await self._agree()

    async def _accidents(
        self, proxy: Proxy, seconds: float, forgetful: bool, writing: list[asyncio.Future[None]]
    ) -> None:
        clock = asyncio.get_running_loop().time
        if forgetful:
            await self._outlast_the_log()
        end = clock() + seconds
        next_kill = clock() + self.random.uniform(0.1, 0.4) * seconds
        while (now := clock()) < end:
            await asyncio.sleep(self.random.uniform(0.05, 0.5))
            for task in writing:
                if task.done():
                    task.result()
            if self.random.random() < 0.05:
                proxy.cut_all(self.random.choice(list(Cut)))
            if now > next_kill:
                await asyncio.to_thread(self.server.restart)
                self.kills += 1
                next_kill = clock() + self.random.uniform(0.2, 0.5) * seconds

    async def _outlast_the_log(self) -> None:
        """Keep half of the subscribers away until the log has forgotten what they missed, and let them come back."""

        def settled() -> list[Subscriber]:
            return [each for each in self.subscribers if each.delivered]

        await until(lambda: len(settled()) >= len(self.subscribers) // 2, self.report)
        absent = settled()[::2]
        for subscriber in absent:
            subscriber.away = True
        missed = await asyncio.to_thread(self._mark)
        clock = asyncio.get_running_loop().time
        end = clock() + PATIENCE
        while await asyncio.to_thread(self._log_begin) <= missed:
            if clock() > end:
                raise Violation(f"the log still holds _seq {missed}")
            await asyncio.sleep(0.2)
        for subscriber in absent:
            subscriber.away = False

    def _log_begin(self) -> int:
        sql = "SELECT metric_value FROM system.stats WHERE metric_name = 'storage_first_retained_seq'"
        return int(self.server.rows(sql)[0][0])

    async def _agree(self) -> None:
        """Wait until everybody was told everything, then compare what they hold with what the server answers."""
        goal = await asyncio.to_thread(self._mark)
        await until(
            lambda: all(subscriber.delivered >= goal for subscriber in self.subscribers),
            lambda: [
                f"{subscriber.name}: {subscriber.delivered} of {goal}\n" + "\n".join(s.story() for s in bad)
                for subscriber in self.subscribers
                if subscriber.delivered < goal and (bad := list(subscriber.subscriptions.values()))
            ],
        )
        for subscriber in self.subscribers:
            for subscription in subscriber.subscriptions.values():
                await self._compare(self._owners[subscriber.name], subscriber, subscription)

    def _mark(self) -> int:
        self.server.client.headers["Authorization"] = f"Bearer {self.tokens['admin']}"
        self.server.sql("INSERT INTO live.marks VALUES (SNOWFLAKE_ID())")
        return int(self.server.rows("SELECT max(_seq) FROM live.marks")[0][0])

    async def _compare(self, account: str, subscriber: Subscriber, subscription: Subscription) -> None:
        held = subscription.rowset.rows
        clock = asyncio.get_running_loop().time
        end = clock() + PATIENCE
        while True:
            if subscription.state is State.LIVE:
                answer = await asyncio.to_thread(self.answer, account, subscription)
                if answer == held:
                    return
                # Rows expire by themselves: the answer is right at once, the subscriber is told in time.
                if not subscription.select.expires or clock() > end:
                    raise Violation(difference(answer, held) + "\n" + subscriber.name + "\n" + subscription.story())
            await asyncio.sleep(0.2)

    def answer(self, account: str, subscription: Subscription) -> dict[int, Row]:
        """What the server answers over HTTP, as a subscriber holds it."""
        body = {"sql": subscription.select.check}
        headers = {"Authorization": f"Bearer {self.tokens[account]}"}
        reply = httpx.post(f"{self.server.url}/v1/api/sql", json=body, headers=headers, timeout=60)
        assert reply.status_code == 200, reply.text
        (result,) = reply.json()["results"]
        names = [column["name"] for column in result["schema"]]
        whole = [column["data_type"] == "BigInt" for column in result["schema"]]
        rows = {}
        for values in result.get("rows", []):
            row = {
                name: int(value) if is_whole and value is not None else value
                for name, value, is_whole in zip(names, values, whole, strict=True)
            }
            rows[row.pop("_seq")] = row
        return rows


def difference(answer: dict[int, Row], held: dict[int, Row]) -> str:
    """What differs, in words."""
    missing = {seq: row for seq, row in answer.items() if seq not in held}
    surplus = {seq: row for seq, row in held.items() if seq not in answer}
    other = {seq: (row, held[seq]) for seq, row in answer.items() if seq in held and held[seq] != row}
    return (
        f"{len(answer)} rows in the answer, {len(held)} held; {len(missing)} missing, {len(surplus)} too many, "
        f"{len(other)} different\nmissing {str(missing)[:1000]}\ntoo many {str(surplus)[:1000]}\n"
        f"different {str(other)[:1000]}"
    )


async def until(holds: Callable[[], bool], describe_failure: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait until something holds; fails with a description when it does not in time."""
    clock = asyncio.get_running_loop().time
    end = clock() + patience
    while not holds():
        if clock() > end:
            raise Violation(f"not in {patience} seconds: {describe_failure()}"[:20_000])
        await asyncio.sleep(0.05)


async def while_running(endless: Iterable[Coroutine[Any, Any, Any]], play: Coroutine[Any, Any, T]) -> T:
    """Play something beside what never ends by itself; what that raises is raised."""
    beside = [asyncio.create_task(each) for each in endless]
    playing = asyncio.create_task(play)
    try:
        await asyncio.wait([playing, *beside], return_when=asyncio.FIRST_COMPLETED)
        for task in beside:
            if task.done():
                task.result()
        return await playing
    finally:
        for task in (playing, *beside):
            task.cancel()
        await asyncio.gather(playing, *beside, return_exceptions=True)
