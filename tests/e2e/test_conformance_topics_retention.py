"""Retention by time and by bytes: what is gone is said to be gone, and a group that was too late can go on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conformance import error
from tests.e2e.topic_conformance import ACK, CONSUME, Topics, key_for, refusal, topic_server

ROUNDS = 90
"""Long polls of a second for which something that must go away may still be there."""


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topics]:
    log = {"HEADRACE_RETENTION_COMMIT_LOG_SECONDS": "1", "HEADRACE_RETENTION_COMMIT_LOG_BYTES": "65536",
           "HEADRACE_RETENTION_INTERVAL_SECONDS": "0.2"}  # fmt: skip
    with topic_server(tmp_path_factory.mktemp("retention"), **log) as found:
        yield found


@pytest.fixture(scope="module")
def quiet(topics: Topics) -> str:
    """A topic in which nothing ever comes, to wait with."""
    return topics.topic()


def first_offset(topics: Topics, topic: str, quiet: str, least: int, partition: int = 0) -> int:
    """Wait until the messages before `least` are gone; the first offset that is there."""
    request = {"topic_id": topic, "start": {"Offset": least - 1}, "partition_id": partition}
    for _ in range(ROUNDS):
        answer = topics.post(CONSUME, request)
        if answer.status_code != 200:
            found = refusal(answer)
            assert (found.status, found.code) == (410, "OFFSET_OUT_OF_RANGE")
            assert set(found.fields) == {"first_offset", "next_offset", "partition_id"}
            assert all(type(value) is int for value in found.fields.values())
            assert found.fields["partition_id"] == partition
            assert least <= found.fields["first_offset"] <= found.fields["next_offset"]
            return int(found.fields["first_offset"])
        topics.consume(quiet, timeout_seconds=1)
    raise AssertionError(f"offset {least - 1} is still there")


def large(numbers: range, key: str = "k") -> list[dict[str, Any]]:
    """Messages of ten kilobytes."""
    return [{"key": key, "payload": {"n": n, "fill": "x" * 10_000}} for n in numbers]


def test_by_time(topics: Topics, quiet: str) -> None:
    topic, table = topics.topic(retention_seconds=1), topics.table()
    topics.source(topic, table)
    topics.server.sql(f"INSERT INTO {table} SELECT range, 'a' FROM range(10)")
    topics.fill(topic, 5)
    assert first_offset(topics, topic, quiet, 15) == 15
    assert topics.consume(topic).messages == []
    topics.fill(topic, 1)
    assert topics.consume(topic, "g").offsets == [15]  # offsets go on where they were
    assert topics.server.rows(f"SELECT count(*) FROM {table}") == [[10]]


def test_by_bytes(topics: Topics, quiet: str) -> None:
    topic = topics.topic(retention_bytes=200_000)
    for start in range(0, 100, 10):
        topics.produce(topic, *large(range(start, start + 10)))
    first = first_offset(topics, topic, quiet, 50)
    messages = topics.read(topic)
    assert messages[0].offset >= first
    assert [message.json["n"] for message in messages] == list(range(messages[0].offset, 100))
    assert messages  # what fits stays


def test_what_may_stay_stays(topics: Topics, quiet: str) -> None:
    """Neither a topic without bounds nor one far from them loses anything while others do."""
    free, far = topics.topic(), topics.topic(retention_seconds=3600, retention_bytes=10 << 20)
    small = topics.topic(retention_seconds=1, retention_bytes=1_000)
    for topic in (free, far, small):
        topics.produce(topic, *large(range(20)))
    first_offset(topics, small, quiet, 20)
    for topic in (free, far):
        assert [message.json["n"] for message in topics.read(topic)] == list(range(20))


def test_each_partition_by_itself(topics: Topics, quiet: str) -> None:
    topic = topics.topic(partitions=2, retention_bytes=200_000)
    topics.produce(topic, *large(range(3), key_for(0, 2)))
    for start in range(0, 100, 10):
        topics.produce(topic, *large(range(start, start + 10), key_for(1, 2)))
    first_offset(topics, topic, quiet, 50, partition=1)
    read = topics.consume(topic, partition_id=1, limit=1_000).messages
    assert read[-1].offset == 99


def test_a_group_that_is_behind_is_told_and_goes_on(topics: Topics, quiet: str) -> None:
    topic = topics.topic(retention_seconds=1)
    topics.fill(topic, 10)
    assert topics.consume(topic, "g", limit=3).offsets == [0, 1, 2]
    topics.ack(topic, "g", 2)
    first_offset(topics, topic, quiet, 10)
    for more in ({}, {"partition_id": 0}, {"start": "Latest"}):
        found = topics.refused(CONSUME, **({"topic_id": topic, "group_id": "g", "start": "Earliest"} | more))
        assert (found.status, found.code) == (410, "OFFSET_OUT_OF_RANGE")
        assert found.fields == {"first_offset": 10, "next_offset": 10, "partition_id": 0}
        assert "10" in found.message
    found_by_sql = error(topics.server.post(f"CONSUME FROM {topic} GROUP 'g'"))
    assert (found_by_sql.status, found_by_sql.code) == (410, "OFFSET_OUT_OF_RANGE")
    topics.server.sql(f"RESET CONSUMER GROUP 'g' ON {topic} TO EARLIEST")
    assert topics.consume(topic, "g").messages == []
    topics.server.sql(f"ALTER TOPIC {topic} SET RETENTION (seconds = 3600)")
    topics.fill(topic, 2)
    assert topics.consume(topic, "g").offsets == [10, 11]
    assert topics.ack(topic, "g", 11) == 11


def test_a_group_that_is_not_behind_is_not_told(topics: Topics, quiet: str) -> None:
    topic = topics.topic(retention_seconds=1)
    topics.fill(topic, 4)
    topics.consume(topic, "g")
    topics.ack(topic, "g", 3)
    first_offset(topics, topic, quiet, 4)
    assert topics.consume(topic, "g").messages == []
    topics.fill(topic, 1)
    assert topics.consume(topic, "g").offsets == [4]
    assert topics.consume(topic, "new", "Earliest").offsets == [4]


def test_claimed_messages_that_went_away_can_be_acknowledged(topics: Topics, quiet: str) -> None:
    topic = topics.topic(retention_seconds=1)
    topics.fill(topic, 4)
    topics.consume(topic, "g", consumer_id="a")
    first_offset(topics, topic, quiet, 4)
    assert topics.ack(topic, "g", 3, consumer_id="a") == 3
    topics.fill(topic, 1)
    assert topics.consume(topic, "g", consumer_id="a").offsets == [4]


def test_retention_that_is_set_later(topics: Topics, quiet: str) -> None:
    topic = topics.topic()
    topics.fill(topic, 6)
    topics.server.sql(f"ALTER TOPIC {topic} SET RETENTION (seconds = 1)")
    assert first_offset(topics, topic, quiet, 6) == 6
    assert topics.refused(ACK, topic_id=topic, group_id="g", upto_offset=6).code == "OFFSET_OUT_OF_RANGE"


@pytest.mark.slow
def test_space_is_given_back(topics: Topics) -> None:
    """However much is written, the data file stops growing: four times what it holds goes through it."""
    topic, table = topics.topic(retention_bytes=1 << 20), topics.table("id INT PRIMARY KEY, v TEXT")
    topics.source(topic, table)
    data = topics.server.data / "data.mdb"
    written, size = 0, data.stat().st_size
    for each in range(1_000):
        topics.produce(topic, *large(range(100)))
        topics.server.sql(f"INSERT INTO {table} SELECT range + {each * 1000}, repeat('y', 900) FROM range(1000)")
        topics.server.sql(f"DELETE FROM {table} WHERE true")
        written += 100 * 10_000 + 1000 * 900
        size = max(size, data.stat().st_size)
        if written > 4 * size + (100 << 20):
            return
    raise AssertionError(f"{written} bytes were written, and the data file has {size}")
