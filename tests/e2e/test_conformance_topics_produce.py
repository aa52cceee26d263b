"""Producing over HTTP: payloads, keys, partitions, all or nothing, limits."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import xxhash

from tests.e2e.topic_conformance import PRODUCE, Topics, partition_of, refusal, short, topic_server

KEYS = ["", "0", "42", "a", "ä", "漢字 🦆", "e\u0301", "x" * 500, " ", "\x00", "null", "line\nline", '"quoted"']


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topics]:
    with topic_server(tmp_path_factory.mktemp("produce")) as found:
        yield found


def test_the_answer_field_by_field(topics: Topics) -> None:
    topic = topics.topic()
    body = {"topic_id": topic, "messages": [{"key": "a", "payload": {"x": 1}}, {"payload": "aGk="}], "more": 1}
    answer = topics.post(PRODUCE, body)
    assert (answer.status_code, answer.json()) == (
        200,
        {"success": True, "count": 2,
         "results": [{"partition_id": 0, "offset": 0}, {"partition_id": 0, "offset": 1}]},
    )  # fmt: skip
    first, second = topics.read(topic)
    assert (first.key, first.data, first.op) == ("a", b'{"x":1}', "Insert")
    assert (second.key, second.data, second.op) == (None, b"hi", "Insert")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", b"hi", bytes(range(256)), b"{}", "漢字 🦆".encode(), b"x" * 100_000],
    ids=lambda data: f"{len(data)}-{data[:4]!r}",
)
def test_a_string_is_base64(topics: Topics, data: bytes) -> None:
    topic = topics.topic()
    topics.produce(topic, {"payload": base64.b64encode(data).decode()})
    assert topics.read(topic)[0].data == data


@pytest.mark.parametrize("text", ["a", "hello!", "a===", "aGk", "aGk=x", "\x00", "漢字", "-_-_", " ", "aGk=\n=", "="])
def test_a_string_that_is_no_base64(topics: Topics, text: str) -> None:
    topic = topics.topic()
    found = topics.refused(PRODUCE, topic_id=topic, messages=[{"payload": "aGk="}, {"payload": text}])
    assert (found.status, found.code) == (400, "INVALID_INPUT")
    assert topics.read(topic) == []


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, -1, 2**63, 0.1, 1e300, [], {}, [1, [2, [3]]], {"b": 1, "a": {"ü": "漢 🦆", "": None}},
     {"text": "line\nline \"q\" \\ \u2028"}],
    ids=short,
)  # fmt: skip
def test_any_other_value_becomes_its_json_text(topics: Topics, value: Any) -> None:
    topic = topics.topic()
    topics.produce(topic, {"payload": value})
    found = topics.read(topic)[0]
    assert found.json == value
    assert type(found.json) is type(value)
    if isinstance(value, dict):
        assert list(found.json) == list(value)


@pytest.mark.parametrize("partitions", [1, 2, 3, 6, 16])
def test_a_key_decides_the_partition(topics: Topics, partitions: int) -> None:
    topic = topics.topic(partitions)
    places = topics.produce(topic, *({"key": key, "payload": n} for n, key in enumerate(KEYS)))
    ends: Counter[int] = Counter()
    for key, place in zip(KEYS, places, strict=True):
        partition = xxhash.xxh64(key.encode(), seed=0).intdigest() % partitions
        assert place == (partition, ends[partition])
        ends[partition] += 1
    found = {message.place: (message.key, message.json) for message in topics.read(topic)}
    assert found == {place: (key, n) for n, (key, place) in enumerate(zip(KEYS, places, strict=True))}


def test_a_partition_may_be_chosen(topics: Topics) -> None:
    topic = topics.topic(partitions=3)
    asked = [2, 0, 1, 2, 2, 0]
    messages = [{"key": "same", "payload": n, "partition_id": partition} for n, partition in enumerate(asked)]
    assert topics.produce(topic, *messages) == [(2, 0), (0, 0), (1, 0), (2, 1), (2, 2), (0, 1)]
    assert topics.produce(topic, {"payload": 6, "partition_id": 1}) == [(1, 1)]
    (place,) = topics.produce(topic, {"key": "same", "payload": 7, "partition_id": None})
    assert place[0] == partition_of("same", 3)


def test_without_keys_every_partition_gets_some(topics: Topics) -> None:
    topic = topics.topic(partitions=4)
    places = [place for _ in range(10) for place in topics.produce(topic, *({"payload": n} for n in range(20)))]
    assert {partition for partition, _ in places} == {0, 1, 2, 3}
    assert len(set(places)) == 200
    assert all(message.key is None for message in topics.read(topic))


def test_offsets_go_on_without_a_gap(topics: Topics) -> None:
    topic = topics.topic(partitions=2)

    def produce(worker: int) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for each in range(20):
            found += topics.produce(topic, *({"key": f"{worker}/{n}", "payload": [worker, each, n]} for n in range(5)))
            refused = topics.post(PRODUCE, {"topic_id": topic, "messages": [{"payload": 1}, {"payload": "!"}]})
            assert refused.status_code == 400
        return found

    with ThreadPoolExecutor(6) as threads:
        places = [place for found in threads.map(produce, range(6)) for place in found]
    topics.close()
    for partition in range(2):
        offsets = sorted(offset for where, offset in places if where == partition)
        assert offsets == list(range(len(offsets)))
    messages = topics.read(topic)
    assert len(messages) == 600
    last: dict[str | None, int] = {}
    for message in messages:  # each worker's messages of a key stand in the order of its requests
        assert message.json[1] > last.get(message.key, -1)
        last[message.key] = message.json[1]


@pytest.mark.parametrize(
    "messages",
    [
        [{"payload": 1}, {"key": 1, "payload": 1}],
        [{"payload": 1}, {"key": [], "payload": 1}],
        [{"payload": 1}, {"key": True, "payload": 1}],
        [{"payload": 1}, {"key": "a"}],
        [{"payload": 1}, {}],
        [{"payload": 1}, None],
        [{"payload": 1}, "aGk="],
        [{"payload": 1}, 1],
        [{"payload": 1}, []],
        [{"payload": 1}, {"payload": 1, "partition_id": 2}],
        [{"payload": 1}, {"payload": 1, "partition_id": -1}],
        [{"payload": 1}, {"payload": 1, "partition_id": "0"}],
        [{"payload": 1}, {"payload": 1, "partition_id": 0.5}],
        [{"payload": 1}, {"payload": 1, "partition_id": 2**64}],
        {"payload": 1},
        "aGk=",
        None,
        1,
    ],
    ids=short,
)
def test_all_or_nothing(topics: Topics, messages: Any) -> None:
    topic = topics.topic(partitions=2)
    found = topics.refused(PRODUCE, topic_id=topic, messages=messages)
    assert (found.status, found.code) == (400, "INVALID_INPUT")
    assert topics.read(topic) == []
    assert sorted(topics.produce(topic, *({"payload": 0, "partition_id": each} for each in (0, 1)))) == [(0, 0), (1, 0)]


def test_no_messages_are_none(topics: Topics) -> None:
    topic = topics.topic()
    answer = topics.post(PRODUCE, {"topic_id": topic, "messages": []})
    if answer.status_code == 200:
        assert answer.json() == {"success": True, "count": 0, "results": []}
    else:
        assert refusal(answer)[:2] == (400, "INVALID_INPUT")
    assert topics.read(topic) == []


@pytest.mark.parametrize("missing", ["topic_id", "messages"])
def test_a_field_that_is_missing(topics: Topics, missing: str) -> None:
    body = {"topic_id": topics.topic(), "messages": [{"payload": 1}]}
    del body[missing]
    found = topics.refused(PRODUCE, **body)
    assert (found.status, found.code) == (400, "INVALID_INPUT")
    assert missing in found.message


def test_a_topic_that_is_not_there(topics: Topics) -> None:
    found = topics.refused(PRODUCE, topic_id="app.nosuch", messages=[{"payload": 1}])
    assert (found.status, found.code) == (404, "NOT_FOUND")
    assert "app.nosuch" in found.message


def test_a_message_that_is_too_large(topics: Topics) -> None:
    """What the configured largest message is, the server says itself."""
    topic = topics.topic()
    ((largest,),) = topics.server.rows("SELECT value FROM system.settings WHERE name = 'topics.max_message_bytes'")
    data = bytes(int(largest))
    fits, too_large = base64.b64encode(data).decode(), base64.b64encode(data + b"x").decode()
    found = topics.refused(PRODUCE, topic_id=topic, messages=[{"payload": 1}, {"payload": too_large}])
    assert (found.status, found.code) == (413, "MESSAGE_TOO_LARGE")
    assert topics.read(topic) == []
    topics.produce(topic, {"payload": fits})
    assert len(topics.read(topic)[0].data) == int(largest)


def test_ten_thousand_at_once(topics: Topics) -> None:
    topic = topics.topic(partitions=3)
    places = topics.produce(topic, *({"key": str(n), "payload": n} for n in range(10_000)))
    assert len(set(places)) == 10_000
    assert {message.place: message.json for message in topics.read(topic)} == {
        place: n for n, place in enumerate(places)
    }


def test_the_message_in_a_group_is_the_same(topics: Topics) -> None:
    topic = topics.topic()
    topics.produce(topic, {"key": "k", "payload": {"a": 1}})
    (plain,) = topics.consume(topic).messages
    (grouped,) = topics.consume(topic, "g").messages
    assert plain == grouped._replace(delivery_count=None)
    assert json.loads(plain.data) == {"a": 1}
