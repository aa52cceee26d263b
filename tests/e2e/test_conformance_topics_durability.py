"""What a topic holds after a stop and after `kill -9`: messages, positions, claims, delivery counts, dead letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.topic_conformance import PATIENCE, Topics, key_for, topic_server

Restart = Callable[[], None]


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topics]:
    with topic_server(tmp_path_factory.mktemp("durability")) as found:
        yield found


@pytest.fixture(params=["stop", "kill -9"])
def restart(topics: Topics, request: pytest.FixtureRequest) -> Restart:
    """Restart the server, in good order or not."""

    def run() -> None:
        topics.close()
        if request.param == "stop":
            assert topics.server.stop() == 0, topics.server.log()
            topics.server.start()
        else:
            topics.server.restart()

    return run


def test_messages(topics: Topics, restart: Restart) -> None:
    topic, table = topics.topic(partitions=3), topics.table()
    topics.source(topic, table)
    topics.server.sql(f"INSERT INTO {table} SELECT range, 'a' FROM range(50); UPDATE {table} SET v = 'b' WHERE id < 9")
    topics.produce(topic, *({"key": str(n), "payload": n} for n in range(20)))
    before = topics.read(topic)
    assert len(before) == 79
    restart()
    assert topics.read(topic) == before
    topics.server.sql(f"INSERT INTO {table} VALUES (1000, 'after')")  # the source is still one
    places = topics.produce(topic, *({"key": str(n), "payload": n} for n in range(20)))
    after = topics.read(topic)
    assert len(after) == 100
    assert set(places) <= {message.place for message in after} - {message.place for message in before}


def test_acknowledgements(topics: Topics, restart: Restart) -> None:
    topic = topics.topic(partitions=2)
    for partition in range(2):
        topics.produce(topic, *({"key": key_for(partition, 2), "payload": n} for n in range(6)))
    topics.consume(topic, "g", consumer_id="a")
    topics.ack(topic, "g", 3, partition_id=1, consumer_id="a", release=True)
    topics.ack(topic, "g", 0, partition_id=0, consumer_id="a", release=True)
    restart()
    assert topics.committed(topic, "g") == {0: 0, 1: 3}
    places = [message.place for message in topics.consume(topic, "g", "Latest").messages]
    assert sorted(places) == [(0, offset) for offset in range(1, 6)] + [(1, 4), (1, 5)]


def test_claims_and_counts(topics: Topics, restart: Restart) -> None:
    topic = topics.topic()
    topics.fill(topic, 6)
    assert topics.consume(topic, "g", limit=2, consumer_id="a").offsets == [0, 1]
    topics.ack(topic, "g", None, consumer_id="a", release=True)
    assert topics.consume(topic, "g", limit=2, consumer_id="a").counts == [2, 2]
    assert topics.consume(topic, "g", limit=2, consumer_id="b").offsets == [2, 3]
    restart()
    batch = topics.consume(topic, "g", consumer_id="c")
    assert (batch.offsets, batch.counts) == ([4, 5], [1, 1])
    topics.ack(topic, "g", 3, consumer_id="b")
    topics.ack(topic, "g", None, consumer_id="a", release=True)
    batch = topics.consume(topic, "g", consumer_id="d")
    assert (batch.offsets, batch.counts) == ([0, 1], [3, 3])
    topics.ack(topic, "g", 1, consumer_id="d")
    topics.ack(topic, "g", 5, consumer_id="c")
    assert topics.committed(topic, "g") == {0: 5}


def test_claims_expire_over_a_restart(topics: Topics, restart: Restart) -> None:
    topic = topics.topic()
    topics.fill(topic, 3)
    topics.consume(topic, "g", visibility_timeout_seconds=1, consumer_id="a")
    restart()
    batch = topics.consume(topic, "g", timeout_seconds=PATIENCE, consumer_id="b")
    assert (batch.offsets, batch.counts) == ([0, 1, 2], [2, 2, 2])


def test_a_position_without_an_acknowledgement(topics: Topics, restart: Restart) -> None:
    topic = topics.topic()
    topics.fill(topic, 3)
    assert topics.consume(topic, "g", "Latest").messages == []
    topics.fill(topic, 2)
    restart()
    assert topics.consume(topic, "g", "Latest").offsets == [3, 4]


def test_dead_letters(topics: Topics, restart: Restart) -> None:
    dead = topics.topic()
    topic = topics.topic(max_deliveries=2, dead_letter_topic=dead)
    topics.fill(topic, 2)
    topics.consume(topic, "g", limit=1, consumer_id="a")
    restart()
    topics.ack(topic, "g", None, consumer_id="a", release=True)
    assert topics.consume(topic, "g", limit=1, consumer_id="a").counts == [2]
    restart()
    topics.ack(topic, "g", None, consumer_id="a", release=True)
    assert topics.consume(topic, "g", timeout_seconds=PATIENCE).offsets == [1]
    (letter,) = topics.consume(dead, timeout_seconds=PATIENCE).messages
    assert letter.origin == {"topic_id": topic, "partition_id": 0, "offset": 0, "delivery_count": 2}
    restart()
    assert topics.read(dead) == [letter]


def test_definitions(topics: Topics, restart: Restart) -> None:
    topic, gone, table = topics.topic(4, retention_seconds=3600), topics.topic(), topics.table()
    topics.source(topic, table, "INSERT", where="id > 3", payload="key")
    topics.server.sql(f"DROP TOPIC {gone}")
    sql = "SELECT topic_id, partitions, retention_seconds, CAST(routes AS TEXT) FROM system.topics ORDER BY 1"
    before = topics.server.rows(sql)
    restart()
    assert topics.server.rows(sql) == before
    assert topic in [row[0] for row in before]
    assert gone not in [row[0] for row in before]


def test_long_polls_end_when_the_server_stops(tmp_path: Path) -> None:
    with topic_server(tmp_path) as topics, ThreadPoolExecutor(20) as threads:
        topic = topics.topic()
        polls = [threads.submit(topics.consume, topic, "g", timeout_seconds=60) for _ in range(20)]
        for each in range(20):
            topics.server.sql(f"SELECT {each}")
        assert topics.server.stop() == 0, topics.server.log()
        for poll in polls:
            problem = poll.exception(PATIENCE)
            assert problem is None or isinstance(problem, httpx.TransportError | AssertionError), problem
        topics.close()
        topics.server.start()
