"""Queries that fail, block or ask for a thread: they concern their own subscriptions and nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

from sql.errors import ExecutionError
from sql.live.changed_rows import ChangedRows
from sql.live.delivery import split
from sql.live.errors import LiveQueryFailed, MustBlock, StaleBinding
from sql.live.interface import ChangeType, LiveChange, LiveDelta, LiveQuery
from sql.live.subscription import LiveOptions, LiveRequest, Subscription, SubscriptionState
from storage.changes import ChangeSet
from tests.sql.live.hub_world import ROOT, SMALL_RING, Client, World, until, world

EVERYTHING = "SELECT * FROM app.items"


class Odd:
    """A live query that does as another one, but for what a test wants of it."""

    is_resumable = True
    shows_key = True

    def __init__(self, inner: LiveQuery, *, blocking: bool = False) -> None:
        self.inner = inner
        self.is_blocking = blocking
        self.key = ("odd", id(inner))
        self.columns = inner.columns
        self.table_id = inner.table_id
        self.partition = inner.partition
        self.equality = None
        self.fail: Callable[[bool], None] = lambda blocking: None
        self.gate = threading.Event()
        self.gate.set()
        self.deltas = 0
        self.threads: set[str] = set()

    def delta(self, commit: ChangeSet, rows: ChangedRows | None, *, blocking: bool = False) -> LiveDelta | None:
        self.fail(blocking)
        assert self.gate.wait(30)
        self.deltas += 1
        self.threads.add(threading.current_thread().name)
        return self.inner.delta(commit, rows, blocking=blocking)


async def odd(
    here: World, client: Client, *, blocking: bool = False, like: Odd | None = None
) -> tuple[Subscription, Odd]:
    """A LIVE subscription of an odd query over all items."""
    hub = here.hub
    await hub.start()
    request = LiveRequest(EVERYTHING, (), "app", ROOT, f"odd-{client.name}", client.name, None)
    query, seq = await hub._bind(request)
    strange = like or Odd(query, blocking=blocking)
    subscription = hub._register(Subscription(hub, request, strange, client, seq), seq)  # type: ignore[arg-type]
    hub._listen()
    subscription.go_live()
    await until(lambda: subscription.state is SubscriptionState.LIVE)
    return subscription, strange


def play(folder: Path, body: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        async with world(folder / "data", SMALL_RING) as here:
            await here.create()
            await body(here)

    asyncio.run(run())


def insert(here: World, number: int) -> Awaitable[None]:
    return here.run("INSERT INTO app.items VALUES ($1, 'a', 0)", number)


def test_a_blocking_query_delays_nobody_and_misses_nothing(tmp_path: Path) -> None:
    async def body(here: World) -> None:
        quick, slow, twin = Client("c1"), Client("c2"), Client("c3")
        fast = await quick.load(await here.subscribe(quick, options=LiveOptions()))
        late, query = await odd(here, slow, blocking=True)
        query.gate.clear()
        for number in range(20):  # more than the ring holds
            await insert(here, number)
        await here.caught_up(fast)
        assert len(quick.events) == 20
        assert not slow.events
        assert late.seq < here.engine.last_seq
        second, _ = await odd(here, twin, like=query)  # joins the lane where it stands, or ahead of it
        query.gate.set()
        await here.caught_up(late, second)
        assert [seq for _, seq in slow.events] == [seq for _, seq in quick.events]
        await insert(here, 100)
        await here.caught_up(fast, late, second)
        assert query.deltas == 21, "evaluated once for both"
        assert 100 in slow.rows
        assert set(twin.rows) == {100}
        assert all(name.startswith("sql_live") for name in query.threads)
        late.close()
        second.close()
        await insert(here, 101)
        await here.caught_up(fast)
        assert query.deltas == 21

    play(tmp_path, body)


def test_a_lane_rests_while_commits_concern_others(tmp_path: Path) -> None:
    async def body(here: World) -> None:
        client = Client()
        subscription, query = await odd(here, client, blocking=True)
        await here.run("CREATE SHARED TABLE app.other (id INT PRIMARY KEY)")
        for number in range(20):
            await here.run("INSERT INTO app.other VALUES ($1)", number)
        await here.caught_up(subscription)
        assert query.deltas == 0
        await insert(here, 1)
        await here.caught_up(subscription)
        assert (query.deltas, set(client.rows)) == (1, {1})

    play(tmp_path, body)


def test_a_query_that_fails_ends_its_own_subscriptions(tmp_path: Path) -> None:
    async def body(here: World) -> None:
        for number, (blocking, error) in enumerate(
            [(False, ExecutionError("division by zero")), (True, ExecutionError("x")), (False, RuntimeError("bug"))]
        ):
            good, bad = Client(f"g{number}"), Client(f"b{number}")
            fine = await good.load(await here.subscribe(good, options=LiveOptions()))
            _, query = await odd(here, bad, blocking=blocking)

            def fail(_: bool, error: Exception = error) -> None:
                raise error

            query.fail = fail
            await insert(here, number)
            await until(lambda bad=bad: bad.ends)
            await here.caught_up(fine)
            expected = ExecutionError if isinstance(error, ExecutionError) else LiveQueryFailed
            assert type(bad.ends[0]) is expected
            assert "bug" not in str(bad.ends[0])
            assert number in good.rows
            fine.close()
        assert here.hub.stats()["live_queries"] == 0

    play(tmp_path, body)


def test_a_query_may_ask_for_a_thread(tmp_path: Path) -> None:
    async def body(here: World) -> None:
        client = Client()
        subscription, query = await odd(here, client)

        def fail(blocking: bool) -> None:
            if not blocking:
                raise MustBlock

        query.fail = fail
        await insert(here, 1)
        await here.caught_up(subscription)
        assert set(client.rows) == {1}
        assert all(name.startswith("sql_live") for name in query.threads)

    play(tmp_path, body)


def test_a_stale_query_is_bound_anew_once(tmp_path: Path) -> None:
    async def body(here: World) -> None:
        client, hopeless = Client("c1"), Client("c2")
        subscription, query = await odd(here, client)
        _, never = await odd(here, hopeless)

        def fail(_: bool) -> None:
            raise StaleBinding("the columns are not what they were")

        query.fail = never.fail = fail
        review = here.hub._catalog._judge

        def judge(queries, identities):
            verdicts, _ = review({place: q.inner for place, q in queries.items()}, set())
            return {place: verdicts[place] if queries[place] is query else never for place in queries}, {}

        here.hub._catalog._judge = judge  # type: ignore[method-assign]
        await insert(here, 1)
        await here.caught_up(subscription)
        assert set(client.rows) == {1}
        await until(lambda: hopeless.ends)
        assert isinstance(hopeless.ends[0], StaleBinding)

    play(tmp_path, body)


def test_the_dispatcher_goes_on_after_a_commit_that_it_could_not_hand_out(tmp_path: Path) -> None:
    async def body(here: World) -> None:
        client = Client()
        subscription = await client.load(await here.subscribe(client, options=LiveOptions()))
        dispatcher = here.hub._dispatcher
        rows = dispatcher._evaluation.rows
        calls = []

        async def broken(change):
            calls.append(change)
            if len(calls) == 1:
                raise OSError("the first one fails")
            return await rows(change)

        dispatcher._evaluation.rows = broken  # type: ignore[method-assign]
        await insert(here, 1)
        await insert(here, 2)
        await here.caught_up(subscription)
        assert set(client.rows) == {1, 2}
        assert not client.ends

    play(tmp_path, body)


def test_a_delta_is_cut_only_where_a_cursor_can_stand() -> None:
    one_seq = LiveDelta(9, [LiveChange(ChangeType.INSERT, [9] * 1_000, [{}] * 1_000, []) for _ in range(3)])
    assert [sum(len(change.seqs) for change in piece.changes) for piece in split(one_seq)] == [3_000]
    rows = [LiveChange(ChangeType.INSERT, range(n, n + 1_000), [{}] * 1_000, []) for n in (1, 1_001, 2_001)]
    pieces = split(LiveDelta(3_000, rows))
    assert [piece.seq for piece in pieces] == [1_000, 2_000, 3_000]
