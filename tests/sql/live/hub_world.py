"""A database with a hub, and clients that hold an answer and check every event that reaches them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from sql.database import Database
from sql.identity import Identity, Role
from sql.live.hub import LiveHub
from sql.live.interface import ChangeType, LiveDelta, LiveSubscription, WireRow
from sql.live.settings import LiveSettings
from sql.live.subscription import LiveOptions, LiveRequest, Subscription, SubscriptionState
from storage import StorageEngine, StorageOptions

ROOT = Identity("root", Role.SYSTEM)
ALICE = Identity("alice", Role.USER)
QUIET = StorageOptions(map_start=64 << 20, merge=False)
SMALL_RING = msgspec.structs.replace(QUIET, ring_commits=6)
ITEMS = "CREATE SHARED TABLE app.items (id INT PRIMARY KEY, room TEXT, n INT) WITH (ACCESS_LEVEL = 'PUBLIC')"


@contextlib.asynccontextmanager
async def world(
    folder: Path, options: StorageOptions = QUIET, settings: LiveSettings | None = None
) -> AsyncIterator[World]:
    """An engine in a folder, and the database above it."""
    with StorageEngine.open(folder, options) as engine:
        database = Database(engine, live=settings)
        try:
            yield World(engine, database)
        finally:
            database.close()


class World:
    """Runs statements and subscribes."""

    def __init__(self, engine: StorageEngine, database: Database) -> None:
        self.engine = engine
        self.database = database
        self.hub: LiveHub = database.live
        self._count = 0

    async def run(self, sql: str, *params: object, identity: Identity = ROOT) -> None:
        await self.database.execute(sql, params, "app", identity)

    async def create(self) -> None:
        await self.run("CREATE NAMESPACE app")
        await self.run(ITEMS)

    async def rows(self, sql: str) -> dict[object, WireRow]:
        """The rows of a query by `id`."""
        [result] = await self.database.execute(sql, (), "app", ROOT)
        assert result.table is not None
        return {row["id"]: row for row in result.table.to_pylist()}

    async def subscribe(
        self,
        client: Client,
        sql: str = "SELECT * FROM app.items",
        options: LiveOptions | None = None,
        *params: object,
        identity: Identity = ROOT,
        name: str | None = None,
    ) -> Subscription:
        """A subscription of the client, nothing fetched yet."""
        self._count += 1
        request = LiveRequest(sql, params, "app", identity, name or f"s{self._count}", client.name, options)
        return client.hold(await self.hub.subscribe(request, client), resumed=client.seq)

    async def caught_up(self, *subscriptions: Subscription) -> None:
        """Wait until they have what is committed."""
        newest = self.engine.last_seq
        try:
            await until(lambda: all(s.state is SubscriptionState.LIVE and s.seq >= newest for s in subscriptions))
        except AssertionError:
            raise AssertionError(f"{subscriptions} do not come to {newest}, {self.hub.stats()}") from None


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait for a condition."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "the condition never came true"
        await asyncio.sleep(0.001)


class Client:
    """A sink that keeps the answer of one subscription by `id`; every event has to fit it."""

    def __init__(self, name: str = "c1") -> None:
        self.name = name
        self.rows: dict[object, WireRow] = {}
        self.seq = 0
        """The greatest `seq` that it saw: where it may resume."""
        self.events: list[tuple[str, int]] = []
        self.ends: list[Exception] = []
        self.full: Callable[[], bool] = lambda: False
        self.seqs: list[int] = []
        """Every cursor that it passed."""

    def hold(self, subscription: Subscription, *, resumed: int) -> Subscription:
        if not subscription.resumed:
            self.rows.clear()
        return subscription

    async def load(self, subscription: Subscription) -> Subscription:
        """Fetch all batches, then go live."""
        if subscription.fresh:
            self.rows.clear()
        number = 0
        while subscription.has_snapshot:
            batch = await subscription.next_batch()
            assert batch.number == number
            number += 1
            for row in batch.rows:
                if subscription.resumed:
                    assert row["_seq"] > self.seq, "a row that the client knew already"
                else:
                    assert row["id"] not in self.rows
                self.rows[row["id"]] = row
            self._saw(batch.last_seq)
            if not batch.has_more:
                break
        subscription.go_live()
        return subscription

    def _saw(self, seq: int) -> None:
        assert seq >= self.seq
        self.seq = seq
        self.seqs.append(seq)

    def deliver(self, subscription: LiveSubscription, delta: LiveDelta) -> bool:
        if self.full():
            return False
        for change in delta.changes:
            for place, seq in enumerate(change.seqs):
                assert seq > self.seq, f"{change.type} {seq} came after {self.seq}"
                self._saw(seq)
                self.events.append((change.type.value, seq))
                if change.type is not ChangeType.INSERT:
                    old = change.old_rows[place]
                    known = self.rows.pop(old["id"])
                    assert known["_seq"] == old["_seq"]
                if change.type is not ChangeType.DELETE:
                    row = change.rows[place]
                    assert row["id"] not in self.rows
                    assert row["_seq"] == seq
                    self.rows[row["id"]] = row
        return True

    def ended(self, subscription: LiveSubscription, error: Exception) -> None:
        self.ends.append(error)

    def plain(self) -> dict[object, WireRow]:
        """The answer without `_seq`."""
        return {key: {k: v for k, v in row.items() if k != "_seq"} for key, row in self.rows.items()}


async def churn(world: World, rng: random.Random, statements: int) -> None:
    """Random inserts, updates and deletes of few keys; several of these at once share commits."""
    for _ in range(statements):
        key, room, n = rng.randrange(30), rng.choice("abc"), rng.randrange(10)
        kind = rng.randrange(6)
        if kind < 2:
            await world.run(
                "INSERT INTO app.items VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET room = $2, n = $3",
                key, room, n,
            )  # fmt: skip
        elif kind < 4:
            await world.run("UPDATE app.items SET room = $1, n = $2 WHERE id = $3", room, n, key)
        elif kind == 4:
            await world.run("DELETE FROM app.items WHERE id = $1", key)
        else:
            await world.run("UPDATE app.items SET n = n + 1 WHERE room = $1", room)
