"""Topics for code that blocks: the same outcomes, with stops from threads and signal handlers, and Ctrl-C."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import headrace
from headrace import Client, RetryPolicy, SyncConsumer, SyncMessage, SyncTopic
from tests.headrace.fake_topics import FakeTopics


@pytest.fixture
def server() -> FakeTopics:
    return FakeTopics(partitions=1)


@pytest.fixture
def topic(server: FakeTopics) -> Iterator[SyncTopic]:
    with Client("http://db", transport=httpx.MockTransport(server), token="token", namespace="app") as client:
        yield client.topic("orders")


def drain(topic: SyncTopic, **options: Any) -> SyncConsumer:
    return topic.consume("workers", **{"start": "earliest", "idle_seconds": 0} | options)


def when_polling(server: FakeTopics, act: Any) -> threading.Thread:
    """Act in another thread as soon as a poll waits."""

    def wait() -> None:
        assert server.polled_of_threads.wait(20)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_produce_and_consume(server: FakeTopics, topic: SyncTopic) -> None:
    assert topic.name == "app.orders"
    assert topic.produce("first", key="k").offset == 0
    assert [position.offset for position in topic.produce_many(range(9))] == list(range(1, 10))
    messages = list(drain(topic, limit=4))
    assert [message.offset for message in messages] == list(range(10))
    assert (messages[0].text(), messages[0].key, messages[9].json()) == ("first", "k", 8)
    assert isinstance(messages[0], SyncMessage)
    assert server.acked("workers") == [9]


def test_batches_and_explicit_acknowledgement(server: FakeTopics, topic: SyncTopic) -> None:
    server.publish(*range(10))
    with drain(topic, limit=4, auto_ack=False) as consumer:
        first = consumer.next_batch()
        first[1].ack()
        assert server.acked("workers") == [1]
        consumer.ack(*first)
        assert server.acked("workers") == [3]
        assert [len(batch) for batch in consumer.batches()] == [4, 2]
    assert server.acked("workers") == [3]
    assert server.held("workers") == []
    with pytest.raises(headrace.ClaimLost):
        first[3].ack()


def test_an_exception_and_a_break(server: FakeTopics, topic: SyncTopic) -> None:
    server.publish(*range(10))

    def loop(last: int, error: Exception | None = None) -> None:
        with drain(topic) as consumer:
            for message in consumer:
                if message.offset == last:
                    if error is not None:
                        raise error
                    break

    with pytest.raises(KeyError):
        loop(2, KeyError())
    assert server.acked("workers") == [1]
    loop(4)
    assert server.acked("workers") == [4]


def test_dropping_it_gives_back_what_is_not_done(server: FakeTopics, topic: SyncTopic) -> None:
    server.publish(*range(10))
    for message in drain(topic):
        if message.offset == 3:
            break
    gc.collect()
    while server.held("workers"):
        topic.produce("the client's thread goes on")
    assert server.acked("workers") == [2]


def test_stop_from_another_thread(server: FakeTopics, topic: SyncTopic) -> None:
    server.publish(*range(3))
    consumer = topic.consume("workers", start="earliest")
    thread = when_polling(server, consumer.stop)
    assert [message.offset for message in consumer] == [0, 1, 2]
    thread.join()
    assert server.acked("workers") == [2]


def test_stop_from_a_signal_handler(server: FakeTopics, topic: SyncTopic) -> None:
    server.publish(*range(3))
    consumer = topic.consume("workers", start="earliest")
    before = signal.signal(signal.SIGUSR1, lambda *_: consumer.stop())
    try:
        thread = when_polling(server, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        assert [message.offset for message in consumer] == [0, 1, 2]
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert server.acked("workers") == [2]


def test_an_interrupt_leaves_nothing_behind(server: FakeTopics, topic: SyncTopic) -> None:
    server.publish(*range(3))

    def loop() -> None:
        with topic.consume("workers", start="earliest") as consumer:
            for _ in consumer:
                pass

    ended = threading.Event()

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        if not ended.wait(20):  # an interrupt that comes inside a finalizer is lost
            os.kill(os.getpid(), signal.SIGINT)

    thread = when_polling(server, interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop()
    ended.set()
    thread.join()
    assert server.acked("workers") == [2]
    assert server.waiting == 0
    assert server.held("workers") == []


def test_run(server: FakeTopics, topic: SyncTopic) -> None:
    server.publish(*range(5))
    calls: list[int] = []
    threads = set()

    def handler(message: SyncMessage) -> None:
        threads.add(threading.current_thread())
        calls.append(message.offset)
        _ = 1 / (message.offset - 2)

    policy = RetryPolicy(attempts=2, base_seconds=0.001, on_exhausted="skip")
    topic.run("workers", handler, retry=policy, start="earliest", idle_seconds=0)
    assert calls == [0, 1, 2, 2, 3, 4]
    assert threads == {threading.current_thread()}
    assert server.acked("workers") == [4]
    with pytest.raises(ZeroDivisionError):
        topic.run("others", handler, retry=RetryPolicy(attempts=1), start="earliest", idle_seconds=0)
    assert server.acked("others") == [1]


def test_after_the_client_was_closed(server: FakeTopics) -> None:
    server.publish(*range(3))
    with Client("http://db", transport=httpx.MockTransport(server), token="token") as client:
        consumer = client.topic("app.orders").consume("workers", start="earliest")
        assert consumer.next().offset == 0
    assert server.held("workers") == []
    consumer.stop()
    consumer.close()
    with pytest.raises(headrace.ClientClosed):
        consumer.next()
