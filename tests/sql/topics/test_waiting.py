"""The waiting room under random interleavings: who is woken, who leaves, and that no wake-up gets lost."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from sql.topics.waiting import WOKEN, Place, WaitingRoom
from storage.topic_staging import TopicNews
from tests.sql.topics.topic_world import in_loop

FOR_EVER = 1e6
A, B, NOBODY = Place(1, "a"), Place(1, "b"), Place(1, None)


def news(*appended: int, groups: tuple[tuple[int, str], ...] = ()) -> TopicNews:
    return TopicNews(frozenset(appended), frozenset(groups))


class Room:
    """Consumers as tasks; `woken` are those that went on."""

    def __init__(self) -> None:
        self.room = WaitingRoom()
        self.tasks: list[tuple[Place, asyncio.Task[bool]]] = []

    async def enter(self, place: Place, seconds: float = FOR_EVER) -> asyncio.Task[bool]:
        task = asyncio.create_task(self.room.wait(place, seconds))
        self.tasks.append((place, task))
        await asyncio.sleep(0)
        return task

    async def settle(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    def woken(self, place: Place | None = None) -> list[int]:
        """The numbers of those that were woken, in the order in which they came."""
        mine = [task for at, task in self.tasks if place is None or at == place]
        return [number for number, task in enumerate(mine) if task.done() and not task.cancelled()]

    async def leave(self) -> None:
        self.room.wake_all()
        await self.settle()
        assert len(self.room) == 0
        assert list(self.room.places()) == []
        assert self.room._places == {}
        for _, task in self.tasks:
            assert task.done()


@in_loop
async def test_those_who_have_waited_longest_are_woken() -> None:
    here = Room()
    for _ in range(WOKEN + 3):
        await here.enter(A)
    await here.enter(B)
    await here.enter(Place(2, "a"))
    here.room.tell(news(1))
    await here.settle()
    assert here.woken(A) == list(range(WOKEN))
    assert here.woken(B) == [0]
    assert here.woken(Place(2, "a")) == []
    here.room.wake(A, 1)
    await here.settle()
    assert here.woken(A) == list(range(WOKEN + 1))
    await here.leave()


@in_loop
async def test_without_a_group_all_are_woken() -> None:
    here = Room()
    for _ in range(20):
        await here.enter(NOBODY)
    here.room.tell(news(groups=((1, "a"),)))
    await here.settle()
    assert here.woken() == []
    here.room.tell(news(1, groups=((1, "a"),)))
    await here.settle()
    assert here.woken() == list(range(20))
    await here.leave()


@in_loop
async def test_claims_of_a_group_wake_that_group_wherever_it_waits() -> None:
    here = Room()
    places = [A, Place(1, "a", 0), Place(1, "a", 1), Place(1, "a", None, "=x"), B]
    for place in places:
        await here.enter(place)
    here.room.tell(news(2, groups=((1, "a"), (3, "b"))))
    await here.settle()
    assert here.woken() == [0, 1, 2, 3]
    await here.leave()


@in_loop
async def test_the_time_is_over() -> None:
    here = Room()
    task = await here.enter(A, 0.0)
    assert await task is False
    assert len(here.room) == 0
    await here.leave()


@in_loop
async def test_who_is_woken_and_cancelled_wakes_the_next() -> None:
    here = Room()
    tasks = [await here.enter(A) for _ in range(WOKEN + 1)]
    here.room.tell(news(1))
    for task in tasks[:WOKEN]:
        task.cancel()
    await here.settle()
    assert here.woken() == [WOKEN]
    await here.leave()


@in_loop
async def test_who_is_cancelled_before_wakes_nobody() -> None:
    here = Room()
    tasks = [await here.enter(A) for _ in range(3)]
    tasks[1].cancel()
    await here.settle()
    assert here.woken() == []
    assert len(here.room) == 2
    here.room.wake(A, 1)
    await here.settle()
    assert here.woken() == [0]
    await here.leave()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.sampled_from([A, B, Place(1, "a", 0), Place(2, "a")])),
        st.tuples(st.just("tell"), st.sampled_from([news(1), news(2), news(1, 2), news(groups=((1, "a"),))])),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("run"), st.none()),
    ),
    max_size=40,
)


def concerns(told: TopicNews, place: Place) -> bool:
    return place.topic_id in told.appended or (place.topic_id, place.group) in told.groups


@given(STEPS)
def test_whatever_happens_between_no_wake_up_is_lost(steps: list[tuple[str, object]]) -> None:
    """After news, somebody who waited in the place goes on, unless all of them left by themselves."""

    async def play() -> None:
        here = Room()
        owed: dict[Place, set[asyncio.Task[bool]]] = {}
        for kind, value in steps:
            if kind == "enter":
                assert isinstance(value, Place)
                await here.enter(value)
            elif kind == "tell":
                assert isinstance(value, TopicNews)
                for place, task in here.tasks:
                    if concerns(value, place) and not task.done():
                        owed.setdefault(place, set()).add(task)
                here.room.tell(value)
            elif kind == "run":
                await here.settle()
            elif here.tasks:
                assert isinstance(value, int)
                here.tasks[value % len(here.tasks)][1].cancel()
        await here.settle()
        for waited in owed.values():
            stayed = [task for task in waited if not task.cancelled()]
            assert not stayed or any(task.done() for task in stayed), "news that nobody heard"
        assert len(here.room) == sum(1 for _, task in here.tasks if not task.done())
        await here.leave()

    asyncio.run(play())


@pytest.mark.parametrize("count", [1, 2, 50])
def test_the_news_of_one_commit_goes_round_a_group(count: int) -> None:
    """Whoever finds more wakes the next one: all messages are found, whatever the number of consumers."""

    async def play() -> None:
        room, left, got = WaitingRoom(), [0], list[int]()

        async def consume(number: int) -> None:
            while True:
                if left[0]:
                    left[0] -= 1
                    got.append(number)
                    if left[0]:
                        room.wake(A, 1)
                    return
                await room.wait(A, FOR_EVER)

        tasks = [asyncio.create_task(consume(number)) for number in range(count)]
        await asyncio.sleep(0)
        left[0] = count
        room.tell(news(1))
        await asyncio.wait_for(asyncio.gather(*tasks), 10)
        assert sorted(got) == list(range(count))
        assert len(room) == 0

    asyncio.run(play())


@pytest.mark.parametrize("seconds", [0.0, 0.0001, 0.002])
def test_the_shortest_waits_end_on_the_servers_own_loop(seconds: float) -> None:
    """uvloop makes no timer of what is over in less than a millisecond."""
    assert not uvloop.run(WaitingRoom().wait(A, seconds))
