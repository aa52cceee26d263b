"""Consuming and producing against a made-up server: what is done when, what comes again, what ends how."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pytest

import headrace
from headrace import AsyncClient, Consumer, Message, NewMessage, RetryPolicy, Topic
from tests.headrace.fake_topics import LOST, UNREACHED, FakeTopics

SOON = RetryPolicy(base_seconds=0.001, max_seconds=0.01)


def run(server: FakeTopics, test: Callable[[Topic], Coroutine[Any, Any, None]], topic: str = "app.orders") -> None:
    async def main() -> None:
        transport = httpx.MockTransport(server)
        async with asyncio.timeout(30), AsyncClient("http://db", transport=transport, token="token") as client:
            await test(client.topic(topic))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def drain(topic: Topic, **options: Any) -> Consumer:
    return topic.consume("workers", **{"start": "earliest", "idle_seconds": 0, "retry": SOON} | options)


async def read(consumer: Consumer) -> list[Message]:
    return [message async for message in consumer]


def values(messages: list[Message]) -> list[Any]:
    return [message.json() for message in messages]


# --- done, current, given back ----------------------------------------------------------------------------------------


def test_everything_comes_once_in_order_and_is_acknowledged_by_the_batch() -> None:
    server = FakeTopics(partitions=2)
    server.publish(*range(250))

    async def test(topic: Topic) -> None:
        messages = await read(drain(topic))
        assert sorted(values(messages)) == list(range(250))
        for partition in (0, 1):
            assert [m.offset for m in messages if m.partition == partition] == list(range(125))
        assert {m.delivery_count for m in messages} == {1}

    run(server, test)
    assert server.acked("workers") == [124, 124]
    assert server.groups["workers"][0].claims == server.groups["workers"][1].claims == []
    # 100, 100 and 50 of two partitions, the first of which is read first, and one poll that finds nothing.
    assert len(server.of("consume")) == 4
    acks = [(ack["partition_id"], ack["upto_offset"]) for ack in server.of("ack")]
    assert sorted(acks) == [(0, 99), (0, 124), (1, 74), (1, 124)]
    assert len({body["consumer_id"] for _, body in server.requests}) == 1


def test_what_a_message_has() -> None:
    server = FakeTopics(partitions=1)
    server.publish({"id": 7}, key="7")
    origin = {"topic_id": "app.first", "partition_id": 3, "offset": 9, "delivery_count": 5}
    server.messages[0][0] |= {"user": "ann", "op": "Update", "origin": origin}

    async def test(topic: Topic) -> None:
        (message,) = await read(drain(topic))
        assert (message.topic, message.partition, message.offset, message.key) == ("app.orders", 0, 0, "7")
        assert (message.user, message.op, message.delivery_count) == ("ann", "Update", 1)
        assert message.payload == b'{"id": 7}'
        assert message.json() == {"id": 7}
        assert message.text() == '{"id": 7}'
        assert message.timestamp == datetime(2026, 1, 1, tzinfo=UTC)
        assert message.origin == headrace.MessageOrigin("app.first", 3, 9, 5)
        assert message.position == headrace.MessagePosition(0, 0)
        assert repr(message) == "<Message app.orders 0/0 key='7' Update 9 bytes>"

    run(server, test)


def test_what_is_asked() -> None:
    server = FakeTopics(partitions=2)

    async def test(topic: Topic) -> None:
        options: dict[str, Any] = {"partition": 1, "limit": 7, "max_bytes": 1000, "visibility_timeout": 5}
        await read(topic.consume("g", start=3, idle_seconds=0, consumer_id="ann", ordered=False, **options))
        assert await read(topic.consume("h", idle_seconds=0)) == []

    run(server, test)
    first, second = server.of("consume")
    assert first.pop("consumer_id").startswith("ann-")
    assert first == {
        "topic_id": "app.orders",
        "group_id": "g",
        "start": {"Offset": 3},
        "limit": 7,
        "partition_id": 1,
        "max_bytes": 1000,
        "timeout_seconds": 0,
        "visibility_timeout_seconds": 5,
    }
    assert (second["start"], second["limit"], second["ordered"]) == ("Latest", 100, True)
    for wrong in ({"start": "middle"}, {"start": -1}, {"start": True}, {"poll_seconds": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            AsyncClient().topic("app.orders").consume("g", **wrong)  # type: ignore[arg-type]


def test_an_exception_leaves_its_message_to_others() -> None:
    server = FakeTopics(partitions=1)
    server.publish(*range(10))

    async def test(topic: Topic) -> None:
        async def fail() -> None:
            async with drain(topic) as consumer:
                async for message in consumer:
                    _ = 1 / (message.offset - 4)

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert server.acked("workers") == [3]
        assert server.held("workers") == []
        assert len(server.of("ack")) == 1
        messages = await read(drain(topic))
        assert [(m.offset, m.delivery_count) for m in messages] == [(n, 2) for n in range(4, 10)]

    run(server, test)


@pytest.mark.parametrize(("whole", "acked"), [(True, 4), (False, 3)])
def test_leaving_the_block_finishes_the_message_dropping_the_consumer_does_not(whole: bool, acked: int) -> None:
    server = FakeTopics(partitions=1)
    server.publish(*range(10))

    async def loop(consumer: Consumer) -> None:
        async for message in consumer:
            if message.offset == 4:
                break

    async def test(topic: Topic) -> None:
        if whole:
            async with drain(topic) as consumer:
                await loop(consumer)
        else:
            await loop(drain(topic))
            gc.collect()

    run(server, test)  # closing the client ends what was dropped
    assert server.acked("workers") == [acked]
    assert server.held("workers") == []


def test_batches() -> None:
    server = FakeTopics(partitions=1)
    server.publish(*range(25))

    async def test(topic: Topic) -> None:
        sizes = []
        async with drain(topic, limit=10) as consumer:
            async for batch in consumer.batches():
                assert server.acked("workers") == [batch[0].offset - 1]
                sizes.append(len(batch))
        assert sizes == [10, 10, 5]
        assert server.acked("workers") == [24]

    run(server, test)


def test_what_is_done_does_not_wait_for_long_to_be_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace._consumption.ACK_SECONDS", 0.0)
    server = FakeTopics(partitions=1)
    server.publish(*range(3))

    async def test(topic: Topic) -> None:
        async for message in drain(topic):
            assert server.acked("workers") == [message.offset - 1]

    run(server, test)


def test_what_is_buffered_for_too_long_is_asked_for_again() -> None:
    now = [0.0]
    server = FakeTopics(partitions=1, clock=lambda: now[0])
    server.publish(*range(4))

    async def test(topic: Topic) -> None:
        consumer = drain(topic, visibility_timeout=100)
        await consumer.next()
        await consumer.next()
        consumer._consumption._expires_at = 0.0
        now[0] = 101.0
        rest = await read(consumer)
        # The second one was done in time for its acknowledgement to count.
        assert [(m.offset, m.delivery_count) for m in rest] == [(2, 2), (3, 2)]

    run(server, test)
    assert server.acked("workers") == [3]


# --- explicit acknowledgement -----------------------------------------------------------------------------------------


def test_explicit_acknowledgement() -> None:
    server = FakeTopics(partitions=1)
    server.publish(*range(10))

    async def test(topic: Topic) -> None:
        async with drain(topic, auto_ack=False) as consumer:
            messages = [await consumer.next() for _ in range(6)]
            assert server.of("ack") == []
            await messages[2].ack()
            assert server.acked("workers") == [2]
            await messages[1].ack()
            assert len(server.of("ack")) == 1
            await consumer.ack(*messages[:5])
            assert server.acked("workers") == [4]
        assert server.held("workers") == []
        assert server.acked("workers") == [4]
        with pytest.raises(headrace.ClaimLost):
            await messages[5].ack()

    run(server, test)


def test_an_acknowledgement_after_stop_counts() -> None:
    server = FakeTopics(partitions=1)
    server.publish(*range(10))

    async def test(topic: Topic) -> None:
        async with drain(topic, auto_ack=False) as consumer:
            async for message in consumer:
                consumer.stop()
                server.faults += [UNREACHED]
                with pytest.raises(headrace.ConnectionFailed):
                    await message.ack()
                await message.ack()
        assert message.offset == 0

    run(server, test)
    assert server.acked("workers") == [0]
    assert server.held("workers") == []


# --- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [False, True])
def test_stop_ends_a_poll_that_waits(gone: bool) -> None:
    server = FakeTopics(partitions=1)
    server.publish(1)
    server.claims_for_those_gone = gone

    async def test(topic: Topic) -> None:
        consumer = topic.consume("workers", start="earliest", consumer_id="first")
        reading = asyncio.create_task(read(consumer))
        await server.polled.wait()
        threading.Thread(target=consumer.stop).start()
        if gone:
            server.messages[0].append(server.messages[0][0] | {"offset": 1})
        assert values(await reading) == [1]
        assert server.acked("workers") == [0]
        assert server.held("workers") == []
        with pytest.raises(StopAsyncIteration):
            await consumer.next()

    run(server, test)


def test_stop_between_messages_gives_the_rest_back() -> None:
    server = FakeTopics(partitions=2)
    server.publish(*range(20))

    async def test(topic: Topic) -> None:
        consumer = drain(topic)
        seen = []
        async for message in consumer:
            seen.append(message)
            if len(seen) == 3:
                consumer.stop()
        assert len(seen) == 3
        assert server.held("workers") == []
        assert len(await read(drain(topic))) == 17

    run(server, test)


def test_stop_before_the_first_poll() -> None:
    server = FakeTopics()

    async def test(topic: Topic) -> None:
        consumer = topic.consume("workers")
        consumer.stop()
        assert await read(consumer) == []
        await consumer.aclose()

    run(server, test)
    assert server.requests == []


def test_stop_while_the_server_is_away(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace._consumption.CLOSING", RetryPolicy(attempts=2, base_seconds=0.001))
    server = FakeTopics(partitions=1)
    server.publish(*range(3))

    async def test(topic: Topic) -> None:
        consumer = topic.consume("workers", start="earliest", retry=RetryPolicy(base_seconds=20, max_seconds=20))
        await consumer.next()
        server.faults += [UNREACHED] * 100
        await consumer.next()
        consumer.stop()
        assert await read(consumer) == []

    with caplog.at_level(logging.WARNING, "headrace"):
        run(server, test)
    assert "could not give back what it holds" in caplog.text
    assert len(server.of("ack")) == 2
    assert server.held("workers") == [(0, 0, 2)]


def test_closing_the_client_ends_consumers() -> None:
    server = FakeTopics(partitions=1)

    async def test(topic: Topic) -> None:
        consumer = topic.consume("workers", start="earliest")
        reading = asyncio.create_task(read(consumer))
        await server.polled.wait()
        test.reading = reading  # type: ignore[attr-defined]

    async def main() -> None:
        async with AsyncClient("http://db", transport=httpx.MockTransport(server), token="token") as client:
            await test(client.topic("app.orders"))
        assert await test.reading == []  # type: ignore[attr-defined]

    asyncio.run(main())


def test_a_wait_that_is_given_up_loses_nothing() -> None:
    server = FakeTopics(partitions=1)
    server.claims_for_those_gone = True

    async def test(topic: Topic) -> None:
        consumer = topic.consume("workers", start="earliest")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await consumer.next()
        server.publish("later")
        assert (await consumer.next()).json() == "later"
        reading = asyncio.create_task(consumer.next())
        await server.polled.wait()
        reading.cancel()
        server.messages[0].append(server.messages[0][0] | {"offset": 1})
        await asyncio.wait({reading})
        assert server.held("workers") == [(0, 1, 1)]
        assert (await consumer.next()).offset == 1
        await consumer.aclose()

    run(server, test)
    assert server.acked("workers") == [0]


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [UNREACHED, LOST, 429, 502, 503, 504])
@pytest.mark.parametrize("at", range(6))
def test_failures_are_waited_out_and_cost_no_message(fault: str | int, at: int) -> None:
    server = FakeTopics(partitions=2)
    server.publish(*range(40))

    async def test(topic: Topic) -> None:
        server.faults += [*[None] * at, fault, fault]
        messages = await read(drain(topic, limit=10))
        assert {m.json() for m in messages} == set(range(40))
        assert len(messages) == 40
        for partition in (0, 1):
            assert [m.offset for m in messages if m.partition == partition] == list(range(20))

    run(server, test)
    assert server.acked("workers") == [19, 19]


def test_acknowledging_what_came_before_a_lost_answer_says_that_it_comes_again() -> None:
    server = FakeTopics(partitions=1)
    server.publish(*range(20))

    async def test(topic: Topic) -> None:
        async with drain(topic, limit=5, auto_ack=False) as consumer:
            first = await consumer.next_batch()
            server.faults.append(LOST)
            again = await consumer.next_batch()
            assert [m.offset for m in again] == [m.offset for m in first] == list(range(5))
            with pytest.raises(headrace.ClaimLost):
                await first[-1].ack()
            await again[-1].ack()
            assert server.acked("workers") == [4]

    run(server, test)


def test_a_policy_that_gives_up() -> None:
    server = FakeTopics()
    server.faults += [503] * 3

    async def test(topic: Topic) -> None:
        consumer = drain(topic, retry=RetryPolicy(attempts=3, base_seconds=0.001))
        with pytest.raises(headrace.Unavailable):
            await consumer.next()
        assert await read(consumer) == []

    run(server, test)
    assert len(server.of("consume")) == 4


def test_retry_after_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeTopics()
    waits: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    async def handler(request: httpx.Request) -> httpx.Response:
        if not server.requests:
            server.requests.append(("refused", {}))
            return httpx.Response(429, json={"error": "slower", "code": "RATE_LIMITED"}, headers={"Retry-After": "7"})
        return await server(request)

    monkeypatch.setattr(asyncio, "sleep", noted)

    async def main() -> None:
        async with AsyncClient("http://db", transport=httpx.MockTransport(handler), token="token") as client:
            assert await read(drain(client.topic("app.orders"))) == []

    asyncio.run(main())
    assert waits == [7.0]


def test_errors_have_their_types() -> None:
    server = FakeTopics(partitions=2)
    server.publish(*range(10), partition=1)
    server.first_offsets[1] = 5

    async def test(topic: Topic) -> None:
        with pytest.raises(headrace.PermissionDenied):
            await read(topic.consume("strangers"))
        with pytest.raises(headrace.OffsetOutOfRange) as caught:
            await read(topic.consume("late", start=2))
        error = caught.value
        assert (error.first_offset, error.next_offset, error.partition) == (5, 10, 1)
        assert (error.code, error.status) == ("OFFSET_OUT_OF_RANGE", 410)
        with pytest.raises(headrace.MessageTooLarge, match="at most 1000 bytes"):
            await topic.produce("x" * 1001)

    run(server, test)

    async def elsewhere(topic: Topic) -> None:
        with pytest.raises(headrace.TopicNotFound, match="no such topic"):
            await read(topic.consume("g"))

    run(server, elsewhere, "app.nothing")
    with pytest.raises(ValueError, match="needs a namespace"):
        AsyncClient().topic("orders")
    assert AsyncClient(namespace="app").topic("orders").name == "app.orders"


def test_a_poll_may_take_longer_than_a_request() -> None:
    server = FakeTopics()
    server.publish(1)

    async def test(topic: Topic) -> None:
        async with topic.consume("workers", start="earliest", poll_seconds=45) as consumer:
            await consumer.next()

    run(server, test)
    assert server.timeouts == [105.0, 60.0]


def test_a_server_that_does_not_wait_is_not_asked_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    polls = 0
    waits: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal polls
        polls += 1
        if polls == 5:
            consumers[0].stop()
        return httpx.Response(200, json={"messages": [], "positions": []})

    monkeypatch.setattr(asyncio, "sleep", noted)
    consumers: list[Consumer] = []

    async def main() -> None:
        async with AsyncClient("http://db", transport=httpx.MockTransport(handler), token="token") as client:
            consumers.append(client.topic("app.orders").consume("workers"))
            assert await read(consumers[0]) == []

    asyncio.run(main())
    assert 4 <= len(waits) <= 5
    assert waits[3] > 0.1


# --- handlers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auto_ack", [True, False])
def test_a_handler_that_fails_is_called_again_and_then_skipped(
    auto_ack: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server = FakeTopics(partitions=1)
    server.publish("good", "bad", "good")
    calls: list[int] = []

    async def handler(message: Message) -> None:
        calls.append(message.offset)
        if message.json() == "bad":
            raise ValueError("no")
        if not auto_ack:
            await message.ack()

    async def test(topic: Topic) -> None:
        policy = RetryPolicy(attempts=3, base_seconds=0.001, on_exhausted="skip")
        options: dict[str, Any] = {"start": "earliest", "idle_seconds": 0, "auto_ack": auto_ack}
        await topic.run("workers", handler, retry=policy, **options)

    with caplog.at_level(logging.WARNING, "headrace"):
        run(server, test)
    assert calls == [0, 1, 1, 1, 2]
    assert server.acked("workers") == [2]
    assert "skips <Message app.orders 0/1" in caplog.text


def test_a_handler_that_goes_on_failing_ends_it() -> None:
    server = FakeTopics(partitions=1)
    server.publish(*range(4))
    calls: list[int] = []

    def handler(message: Message) -> None:
        calls.append(message.offset)
        _ = 1 / (message.offset - 2)

    async def test(topic: Topic) -> None:
        with pytest.raises(ZeroDivisionError):
            await drain(topic).run(handler, retry=RetryPolicy(attempts=2, base_seconds=0.001))

    run(server, test)
    assert calls == [0, 1, 2, 2]
    assert server.acked("workers") == [1]
    assert server.held("workers") == []


def test_stop_ends_the_wait_for_another_call_of_a_handler() -> None:
    server = FakeTopics(partitions=1)
    server.publish(*range(4))

    async def test(topic: Topic) -> None:
        consumer = drain(topic)

        def handler(message: Message) -> None:
            if message.offset == 1:
                asyncio.get_running_loop().call_later(0.01, consumer.stop)
                raise ValueError("no")

        await consumer.run(handler, retry=RetryPolicy(base_seconds=1000, max_seconds=1000))

    run(server, test)
    assert server.acked("workers") == [0]
    assert server.held("workers") == []


def test_policies_that_make_no_sense() -> None:
    for wrong in ({"attempts": 0}, {"base_seconds": -1}, {"base_seconds": 9, "max_seconds": 1}, {"on_exhausted": "no"}):
        with pytest.raises(ValueError, match=r"attempts|seconds|on_exhausted"):
            RetryPolicy(**wrong)  # type: ignore[arg-type]


# --- producing --------------------------------------------------------------------------------------------------------


def test_payloads() -> None:
    server = FakeTopics(partitions=2)
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    given = [b"\x00\xff", bytearray(b"a"), "Ünï", {"n": 2**70, "at": moment}, [1, None], 1.5, None, True]
    expected = [b"\x00\xff", b"a", "Ünï".encode(), f'{{"n":{2**70},"at":"2026-01-02T03:04:05Z"}}'.encode()]
    expected += [b"[1,null]", b"1.5", b"null", b"true"]

    async def test(topic: Topic) -> None:
        positions = await topic.produce_many([NewMessage(payload, partition=0) for payload in given])
        assert positions == [headrace.MessagePosition(0, n) for n in range(len(given))]
        assert [m.payload for m in await read(drain(topic))] == expected
        assert await topic.produce({"id": UUID(int=1), "price": Decimal("1.50")}, key=12) == (
            headrace.MessagePosition(0, len(given))
        )
        (message,) = await read(drain(topic))
        assert (message.key, message.json()) == ("12", {"id": str(UUID(int=1)), "price": "1.50"})
        assert await topic.produce_many([]) == []
        for wrong in (float("nan"), [float("inf")], "\ud800"):
            with pytest.raises(ValueError, match=r"JSON|encode"):
                await topic.produce(wrong)
        with pytest.raises(TypeError):
            await topic.produce(object())

    run(server, test)
    assert len(server.of("produce")) == 2


def test_producing_is_tried_again_only_when_wanted() -> None:
    server = FakeTopics(partitions=1)

    async def test(topic: Topic) -> None:
        server.faults.append(LOST)
        with pytest.raises(headrace.ConnectionFailed):
            await topic.produce(1)
        assert len(server.messages[0]) == 1
        server.faults += [LOST, 503, UNREACHED]
        assert (await topic.produce(2, retry=SOON)).offset == 2
        assert len(server.messages[0]) == 3

    run(server, test)
