"""The hub: whoever waits is woken by what concerns them, every message comes once, and nobody is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sql.errors import Overloaded
from sql.topics.messages import Batch
from sql.topics.settings import TopicSettings
from storage import WriteTransaction
from storage.errors import OffsetOutOfRange, UnknownPartition, UnknownTopic
from storage.topic_staging import TopicNews
from storage.topic_writes import Produced, produce
from tests.sql.topics.topic_world import World, in_loop, until, world
from tests.storage.topic_world import state_of

LONG = 60.0
"""A timeout that no test is to wait for: whoever waits so long was forgotten."""


def offsets(batch: Batch) -> list[tuple[int, int]]:
    return [(message.partition, message.offset) for message in batch.messages]


async def finished(*tasks: asyncio.Task[Batch]) -> list[Batch]:
    """What they got; well before their own timeouts."""
    return await asyncio.wait_for(asyncio.gather(*tasks), 20)


async def waiting(here: World, count: int) -> None:
    await until(lambda: here.hub.waiting == count)


@in_loop
async def test_consume_ack_and_again(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.topic("t")
        await here.produce("t", b"0", b"1", b"2")
        batch = await here.consume("t", group="g", start="earliest", limit=2)
        assert [(m.offset, m.payload, m.deliveries) for m in batch.messages] == [(0, b"0", 1), (1, b"1", 1)]
        assert (batch.has_more, batch.next_offset, batch.positions) == (True, 2, {0: 2})
        assert await here.ack("t", 1) == 1
        batch = await here.consume("t", group="g")
        assert offsets(batch) == [(0, 2)]
        assert not batch.has_more
        empty = await here.consume("t", group="g")
        assert (empty.messages, empty.next_offset) == ((), 3)


@in_loop
async def test_what_is_not_there(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.topic("t")
        for group in (None, "g"):
            with pytest.raises(UnknownTopic):
                await here.consume("nothing", group=group)
            with pytest.raises(UnknownPartition):
                await here.consume("t", group=group, partition=1)
            with pytest.raises(OffsetOutOfRange):
                await here.consume("t", group=group, start=1)
        with pytest.raises(UnknownTopic):
            await here.produce("nothing", b"x")


@pytest.mark.parametrize("group", [None, "g"])
@pytest.mark.parametrize("start", ["latest", "earliest", None, 0])
@in_loop
async def test_a_consumer_who_waits_gets_the_next_message(
    tmp_path: Path, group: str | None, start: str | int | None
) -> None:
    async with world(tmp_path) as here:
        here.topic("t", partitions=2)
        task = asyncio.create_task(here.consume("t", group=group, start=start, timeout=LONG))
        await waiting(here, 1)
        await here.produce("t", b"x", partition=1)
        [batch] = await finished(task)
        assert offsets(batch) == [(1, 0)]
        assert here.hub.waiting == 0


@in_loop
async def test_without_a_group_everybody_gets_everything(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.topic("t")
        await here.produce("t", b"before")
        tasks = [asyncio.create_task(here.consume("t", start="latest", timeout=LONG)) for _ in range(10)]
        await waiting(here, 10)
        await here.produce("t", b"x")
        assert [offsets(batch) for batch in await finished(*tasks)] == [[(0, 1)]] * 10


@in_loop
async def test_a_timeout_of_zero_waits_for_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.topic("t")
        for group in (None, "g"):
            batch = await here.consume("t", group=group)
            assert (list(batch.messages), batch.has_more, batch.positions) == ([], False, {0: 0})


@in_loop
async def test_a_short_timeout_ends_with_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.topic("t")
        assert (await here.consume("t", group="g", timeout=0.01)).messages == ()
        assert here.hub.waiting == 0


@in_loop
async def test_waiting_costs_no_commits(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.topic("t")
        here.topic("other")
        await here.consume("t", group="g")
        task = asyncio.create_task(here.consume("t", group="g", timeout=LONG))
        await waiting(here, 1)
        commits = here.engine.stats().commits
        for n in range(5):
            await here.produce("other", b"%d" % n)
        assert here.engine.stats().commits == commits + 5
        await here.produce("t", b"x")
        await finished(task)


@in_loop
async def test_messages_of_rows_wake_too(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.run("CREATE NAMESPACE app")
        await here.run("CREATE SHARED TABLE app.items (id INT PRIMARY KEY, n INT)")
        here.topic("t", "items")
        task = asyncio.create_task(here.consume("t", group="g", timeout=LONG))
        await waiting(here, 1)
        await here.run("INSERT INTO app.items VALUES (1, 2)")
        [batch] = await finished(task)
        assert [message.key for message in batch.messages] == ["1"]


@in_loop
async def test_an_expired_claim_wakes_who_waits_for_it(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.topic("t")
        await here.produce("t", b"x")
        await here.consume("t", group="g", start="earliest", visibility=0.05, holder="=lost")
        [batch] = await finished(asyncio.create_task(here.consume("t", group="g", timeout=LONG)))
        assert [(m.offset, m.deliveries) for m in batch.messages] == [(0, 2)]


@in_loop
async def test_an_acknowledgement_wakes_who_waits_for_the_partition(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.topic("t")
        await here.produce("t", b"0", b"1")
        await here.consume("t", group="g", start="earliest", limit=1, ordered=True)
        task = asyncio.create_task(here.consume("t", group="g", ordered=True, holder="=b", timeout=LONG))
        await waiting(here, 1)
        await here.ack("t", 0)
        [batch] = await finished(task)
        assert offsets(batch) == [(0, 1)]


@in_loop
async def test_stopping_answers_everybody(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.topic("t")
        tasks = [asyncio.create_task(here.consume("t", group="g", timeout=LONG)) for _ in range(20)]
        await waiting(here, 20)
        here.hub.stop()
        assert all(batch.messages == () for batch in await finished(*tasks))


@in_loop
async def test_too_many_who_wait_are_refused(tmp_path: Path) -> None:
    async with world(tmp_path, TopicSettings(max_waiting=2)) as here:
        here.topic("t")
        tasks = [asyncio.create_task(here.consume("t", group="g", timeout=LONG)) for _ in range(2)]
        await waiting(here, 2)
        with pytest.raises(Overloaded, match="2 consumers wait already"):
            await here.consume("t", group="g", timeout=LONG)
        assert (await here.consume("t", group="g")).messages == ()
        here.hub.stop()
        await finished(*tasks)


@in_loop
async def test_a_dropped_topic_is_told_to_who_waits(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        topic = here.topic("t")
        await here.produce("t", b"x")
        await here.consume("t", group="g", start="earliest", visibility=0.05)
        task = asyncio.create_task(here.consume("t", group="g", timeout=LONG))
        await waiting(here, 1)
        here.engine.commit_sync(lambda w: w.drop_topic(topic.topic_id))
        with pytest.raises(UnknownTopic):
            await finished(task)


# --- nobody is forgotten ------------------------------------------------------------------------------------------


@in_loop
async def test_consumers_of_other_partitions_do_not_take_the_wake_up(tmp_path: Path) -> None:
    """Ten wait for partition 0 before the one who waits for partition 1, which gets a message."""
    async with world(tmp_path) as here:
        here.topic("t", partitions=2)
        others = [asyncio.create_task(here.consume("t", group="g", partition=0, timeout=LONG)) for _ in range(10)]
        await waiting(here, 10)
        task = asyncio.create_task(here.consume("t", group="g", partition=1, timeout=LONG))
        await waiting(here, 11)
        await here.produce("t", b"x", partition=1)
        [batch] = await finished(task)
        assert offsets(batch) == [(1, 0)]
        here.hub.stop()
        await finished(*others)


@in_loop
async def test_the_consumer_who_may_have_the_message_is_woken(tmp_path: Path) -> None:
    """In order, and with the partition in one consumer's hands, nobody else may have what comes."""
    async with world(tmp_path) as here:
        here.topic("t")
        await here.produce("t", b"0")
        await here.consume("t", group="g", start="earliest", holder="=mine", ordered=True)
        others = [
            asyncio.create_task(here.consume("t", group="g", holder=f"={n}", ordered=True, timeout=LONG))
            for n in range(10)
        ]
        await waiting(here, 10)
        task = asyncio.create_task(here.consume("t", group="g", holder="=mine", ordered=True, timeout=LONG))
        await waiting(here, 11)
        await here.produce("t", b"1")
        [batch] = await finished(task)
        assert offsets(batch) == [(0, 1)]
        here.hub.stop()
        await finished(*others)


@in_loop
async def test_a_wake_up_of_consumers_who_leave_is_not_lost(tmp_path: Path) -> None:
    """Those who were woken go away before they look; the message is somebody else's."""
    async with world(tmp_path) as here:
        here.topic("t")
        await here.consume("t", group="g")
        leaving = [asyncio.create_task(here.consume("t", group="g", timeout=LONG)) for _ in range(8)]
        await waiting(here, 8)
        staying = asyncio.create_task(here.consume("t", group="g", timeout=LONG))
        await waiting(here, 9)
        topic = here.engine.catalog.topic("app", "t")
        assert topic is not None
        tell = here.hub._room.tell

        def tell_and_leave(news: TopicNews) -> None:
            tell(news)
            for task in leaving:
                task.cancel()

        here.hub._room.tell = tell_and_leave  # type: ignore[method-assign]
        here.engine.commit_sync(lambda w: produce(w, topic, [Produced(b"x")], "ann"))
        [batch] = await finished(staying)
        assert offsets(batch) == [(0, 0)]
        assert all(task.cancelled() for task in leaving)


class Between:
    """Lets something happen after a consumer has looked and before it waits."""

    def __init__(self, here: World, happen: Callable[[], object]) -> None:
        self._looked = here.hub._looked
        self._happen = happen
        self.times = 0
        here.hub._looked = self._look  # type: ignore[method-assign]

    def _look(self, *arguments: Any) -> Any:
        look = self._looked(*arguments)
        if not look.is_worthwhile and not self.times:
            self.times += 1
            self._happen()
        return look


@pytest.mark.parametrize("on_worker", [False, True])
@pytest.mark.parametrize("group", [None, "g"])
@in_loop
async def test_a_message_between_looking_and_waiting_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_worker: bool, group: str | None
) -> None:
    """The writer commits and tells while the consumer has looked in vain and does not wait yet."""
    async with world(tmp_path) as here:
        topic = here.topic("t")
        await here.consume("t", group=group)
        if on_worker:  # the storage holds readers back, so looking takes place on a worker
            monkeypatch.setattr(here.engine, "snapshot_at_once", lambda purpose="": None)

        def append(wtxn: WriteTransaction) -> None:
            produce(wtxn, topic, [Produced(b"x")], "ann")

        between = Between(here, lambda: here.engine.commit_sync(append))
        [batch] = await finished(asyncio.create_task(here.consume("t", group=group, timeout=LONG)))
        assert offsets(batch) == [(0, 0)]
        assert between.times == 1


@pytest.mark.parametrize("partitioned", [False, True])
@in_loop
async def test_many_consumers_under_many_appends_get_every_message_once(tmp_path: Path, partitioned: bool) -> None:
    async with world(tmp_path) as here:
        here.topic("t", partitions=3)
        total, got = 400, list[tuple[int, int]]()
        done = asyncio.Event()

        async def consume(number: int) -> None:
            partition = number % 3 if partitioned else None
            while not done.is_set():
                batch = await here.consume(
                    "t", group="g", start="earliest", holder=f"={number}", limit=3, partition=partition, timeout=LONG
                )
                got.extend(offsets(batch))
                for place in {message.partition for message in batch.messages}:
                    last = max(message.offset for message in batch.messages if message.partition == place)
                    await here.ack("t", last, holder=f"={number}", partition=place)
                if len(got) >= total:
                    done.set()
                    here.hub.stop()

        async def send() -> None:
            for n in range(total // 2):
                await here.produce("t", b"a", b"b", partition=n % 3)

        consumers = [asyncio.create_task(consume(number)) for number in range(12)]
        await send()
        await asyncio.wait_for(asyncio.gather(*consumers), 60)
        assert len(got) == len(set(got)) == total
        assert here.engine.check() == []


@in_loop
async def test_what_does_not_fit_into_the_answer_is_given_back_in_one_piece(tmp_path: Path) -> None:
    """Claims go by what messages account for; payloads of rows may be larger, and the rest is the next one's."""
    async with world(tmp_path) as here:
        await here.run("CREATE NAMESPACE app")
        await here.run("CREATE SHARED TABLE app.items (id INT PRIMARY KEY, n INT)")
        topic = here.topic("t", "items", partitions=2)
        values = ", ".join(f"({n}, {n})" for n in range(400))
        await here.run(f"INSERT INTO app.items VALUES {values}")
        got: list[tuple[int, int]] = []
        while True:
            batch = await here.consume("t", group="g", start="earliest", max_bytes=9_000, limit=1_000)
            if not batch.messages:
                break
            assert sum(len(message.payload) for message in batch.messages) <= 9_000
            assert {message.deliveries for message in batch.messages} == {1}
            got += offsets(batch)
            for partition in (0, 1):
                state = state_of(here.engine, topic, partition=partition)
                assert state is not None
                assert len(state.claims) <= 2 * len(got) // 30
        assert len(got) == len(set(got)) == 400
        assert here.engine.check() == []


@in_loop
async def test_reads_without_a_group_share_the_limit_and_go_on(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.topic("t", partitions=3)
        for partition, count in ((0, 50), (1, 3), (2, 50)):
            await here.produce("t", *[b"x" * 100] * count, partition=partition)
        batch = await here.consume("t", start="earliest", limit=30)
        assert batch.has_more
        assert len(batch.messages) == 30
        assert {message.partition for message in batch.messages} == {0, 1, 2}
        assert all(message.deliveries == 0 for message in batch.messages)
        rest = await here.consume("t", start=batch.positions[0], partition=0, limit=1_000)
        assert [m.offset for m in rest.messages] == list(range(batch.positions[0], 50))
        one = await here.consume("t", start="earliest", max_bytes=1)
        assert len(one.messages) == 1
        many = await here.consume("t", start="earliest", limit=1_000)
        assert len(many.messages) == 103
        assert not many.has_more
