"""Consumer groups over HTTP: claims, acknowledgements, redelivery, order, dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.topic_conformance import ACK, CONSUME, PATIENCE, Topics, beside, key_for, short, topic_server

SOON = 1
"""Seconds of a visibility timeout that is waited for."""


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topics]:
    with topic_server(tmp_path_factory.mktemp("groups")) as found:
        yield found


@pytest.fixture
def six(topics: Topics) -> str:
    """A topic of one partition with the messages 0 to 5."""
    topic = topics.topic()
    topics.fill(topic, 6)
    return topic


# --- acknowledgements -------------------------------------------------------------------------------------------------


def test_an_ack_field_by_field(topics: Topics, six: str) -> None:
    topics.consume(six, "g")
    answer = topics.post(ACK, {"topic_id": six, "group_id": "g", "upto_offset": 3})
    assert (answer.status_code, answer.json()) == (200, {"success": True, "acknowledged_offset": 3})
    answer = topics.post(ACK, {"topic_id": six, "group_id": "g", "upto_offset": 5, "partition_id": 0, "more": []})
    assert (answer.status_code, answer.json()) == (200, {"success": True, "acknowledged_offset": 5})


def test_acks_are_cumulative_and_never_go_back(topics: Topics, six: str) -> None:
    topics.consume(six, "g", consumer_id="a")
    for upto, acknowledged in [(1, 1), (4, 4), (2, 4), (0, 4), (4, 4), (5, 5), (4, 5)]:
        assert topics.ack(six, "g", upto, consumer_id="a") == acknowledged
        assert topics.committed(six, "g") == {0: acknowledged}
    assert topics.consume(six, "g").messages == []


@pytest.mark.parametrize("upto", [6, 7, 2**40, 2**63 - 1])
def test_an_ack_beyond_the_end_is_refused(topics: Topics, six: str, upto: int) -> None:
    topics.consume(six, "g", limit=2)
    found = topics.refused(ACK, topic_id=six, group_id="g", upto_offset=upto)
    assert (found.status, found.code) == (410, "OFFSET_OUT_OF_RANGE")
    assert found.fields == {"first_offset": 0, "next_offset": 6, "partition_id": 0}
    assert topics.committed(six, "g").get(0, -1) == -1
    assert topics.consume(six, "g").offsets == [2, 3, 4, 5]


@pytest.mark.parametrize(
    "change",
    [{"upto_offset": value} for value in (-1, 0.5, "0", True, [], {}, None, 2**63, 10**30)]
    + [{"partition_id": value} for value in (-1, 1, "0", 0.5, True, [], 2**63)]
    + [{"group_id": value} for value in (None, "", 1, [], {})]
    + [{"topic_id": value} for value in (None, "", 1, [], {})]
    + [{"release": value} for value in ("true", 1, [])]
    + [{"consumer_id": value} for value in (1, [], True)],
    ids=short,
)
def test_an_ack_that_cannot_be(topics: Topics, six: str, change: dict[str, Any]) -> None:
    topics.consume(six, "g", limit=2)
    found = topics.refused(ACK, **({"topic_id": six, "group_id": "g", "upto_offset": 1} | change))
    assert found.status == 404 if change == {"topic_id": ""} and found.code == "NOT_FOUND" else found.status == 400
    assert found.code in {"INVALID_INPUT", "NOT_FOUND"}
    assert topics.committed(six, "g").get(0, -1) == -1


@pytest.mark.parametrize("missing", ["topic_id", "group_id", "upto_offset"])
def test_an_ack_without_a_field_that_it_needs(topics: Topics, six: str, missing: str) -> None:
    body = {"topic_id": six, "group_id": "g", "upto_offset": 0}
    del body[missing]
    found = topics.refused(ACK, **body)
    assert (found.status, found.code) == (400, "INVALID_INPUT")


def test_acks_are_of_one_partition(topics: Topics) -> None:
    topic = topics.topic(partitions=3)
    for partition in range(3):
        topics.produce(topic, *({"key": key_for(partition, 3), "payload": n} for n in range(4)))
    topics.consume(topic, "g", consumer_id="a")
    assert topics.ack(topic, "g", 2, partition_id=1, consumer_id="a") == 2
    assert topics.ack(topic, "g", 0, partition_id=2, consumer_id="a") == 0
    committed = topics.committed(topic, "g")
    assert {partition: offset for partition, offset in committed.items() if offset >= 0} == {1: 2, 2: 0}


# --- claims -----------------------------------------------------------------------------------------------------------


def test_two_consumers_get_disjoint_claims(topics: Topics, six: str) -> None:
    assert topics.consume(six, "g", limit=3, consumer_id="a").offsets == [0, 1, 2]
    assert topics.consume(six, "g", limit=2, consumer_id="b").offsets == [3, 4]
    assert topics.consume(six, "g", limit=2, consumer_id="a").offsets == [5]
    assert topics.consume(six, "g", consumer_id="b").messages == []


def test_many_consumers_at_once_share_a_topic(topics: Topics) -> None:
    topic = topics.topic(partitions=4)
    for partition in range(4):
        topics.produce(topic, *({"key": key_for(partition, 4), "payload": n} for n in range(250)))

    def take_all(number: int) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        while batch := topics.consume(topic, "g", limit=7, consumer_id=f"c{number}" if number % 2 else None):
            if not batch.messages:
                return found
            assert set(batch.counts) == {1}
            found += [message.place for message in batch.messages]
        return found

    with ThreadPoolExecutor(8) as threads:
        found = [place for places in threads.map(take_all, range(8)) for place in places]
    topics.close()
    assert len(found) == 1_000
    assert sorted(found) == [(partition, offset) for partition in range(4) for offset in range(250)]


def test_an_ack_covers_the_claims_of_its_consumer_only(topics: Topics, six: str) -> None:
    topics.consume(six, "g", limit=3, consumer_id="a")
    topics.consume(six, "g", limit=3, consumer_id="b")
    topics.ack(six, "g", 5, consumer_id="b")
    topics.ack(six, "g", None, consumer_id="a", release=True)
    again = topics.consume(six, "g", consumer_id="c")
    assert (again.offsets, again.counts) == ([0, 1, 2], [2, 2, 2])
    assert topics.ack(six, "g", 2, consumer_id="c") >= 2
    assert topics.committed(six, "g") == {0: 5}
    assert topics.consume(six, "g").messages == []


def test_interleaved_claims_and_acks(topics: Topics, six: str) -> None:
    assert topics.consume(six, "g", limit=2, consumer_id="a").offsets == [0, 1]
    assert topics.consume(six, "g", limit=2, consumer_id="b").offsets == [2, 3]
    assert topics.consume(six, "g", limit=1, consumer_id="a").offsets == [4]
    topics.ack(six, "g", 4, consumer_id="a")  # 0, 1 and 4; not 2 and 3
    topics.ack(six, "g", None, consumer_id="b", release=True)
    batch = topics.consume(six, "g", consumer_id="c")
    assert (batch.offsets, batch.counts) == ([2, 3, 5], [2, 2, 1])


def test_one_who_holds_no_claim_acknowledges_the_one_that_the_offset_lies_in(topics: Topics, six: str) -> None:
    topics.consume(six, "g", limit=2, consumer_id="a")
    topics.consume(six, "g", limit=2, consumer_id="b")
    stranger = Topics(topics.server)
    try:
        assert stranger.ack(six, "g", 3) == 3
    finally:
        stranger.close()
    for consumer in ("a", "b"):
        topics.ack(six, "g", None, consumer_id=consumer, release=True)
    batch = topics.consume(six, "g")
    assert (batch.offsets, batch.counts) == ([0, 1, 4, 5], [2, 2, 1, 1])


def test_a_client_with_a_connection_for_each_request(topics: Topics, six: str) -> None:
    for first in range(0, 6, 2):
        for path, more in ((CONSUME, {"limit": 2, "start": "Earliest"}), (ACK, {"upto_offset": first + 1})):
            client = Topics(topics.server)
            answer = client.post(path, {"topic_id": six, "group_id": "g"} | more)
            client.close()
            assert answer.status_code == 200
            assert [each["offset"] for each in answer.json().get("messages", [])] in ([], [first, first + 1])
    assert topics.committed(six, "g") == {0: 5}


def test_without_a_consumer_id_claims_are_of_the_connection(topics: Topics, six: str) -> None:
    other = Topics(topics.server)
    try:
        assert topics.consume(six, "g", limit=2).offsets == [0, 1]
        assert other.consume(six, "g", limit=2).offsets == [2, 3]
        other.ack(six, "g", 3)
        topics.ack(six, "g", None, release=True)
        batch = topics.consume(six, "g")
        assert (batch.offsets, batch.counts) == ([0, 1, 4, 5], [2, 2, 1, 1])
    finally:
        other.close()


def test_release_gives_back_what_was_not_acknowledged(topics: Topics, six: str) -> None:
    topics.consume(six, "g", consumer_id="a", limit=4)
    assert topics.ack(six, "g", 1, consumer_id="a", release=True) == 1
    batch = topics.consume(six, "g", consumer_id="b", limit=3)
    assert (batch.offsets, batch.counts) == ([2, 3, 4], [2, 2, 1])


def test_a_release_wakes_a_long_poll(topics: Topics, six: str) -> None:
    topics.consume(six, "g", consumer_id="a")
    with beside(lambda: topics.consume(six, "g", consumer_id="b", timeout_seconds=PATIENCE)) as poll:
        topics.ack(six, "g", 3, consumer_id="a", release=True)
        assert poll.result(PATIENCE / 2).offsets == [4, 5]


def test_groups_know_nothing_of_each_other(topics: Topics, six: str) -> None:
    assert topics.consume(six, "one", limit=4).offsets == [0, 1, 2, 3]
    topics.ack(six, "one", 3)
    assert topics.consume(six, "two").offsets == [0, 1, 2, 3, 4, 5]
    assert topics.consume(six, "One").offsets == [0, 1, 2, 3, 4, 5]
    assert topics.consume(six, "three", {"Offset": 4}).offsets == [4, 5]
    assert topics.consume(six, "one").offsets == [4, 5]
    assert topics.consume(six, 'O\'Brien "ß" 漢/🦆').offsets == [0, 1, 2, 3, 4, 5]


def test_a_group_is_of_one_topic(topics: Topics, six: str) -> None:
    other = topics.topic()
    topics.fill(other, 2)
    topics.consume(six, "g")
    topics.ack(six, "g", 5)
    assert topics.consume(other, "g").offsets == [0, 1]


# --- redelivery -------------------------------------------------------------------------------------------------------


def test_what_is_not_acknowledged_in_time_comes_again(topics: Topics, six: str) -> None:
    first = topics.consume(six, "g", visibility_timeout_seconds=SOON, limit=3)
    assert (first.offsets, first.counts) == ([0, 1, 2], [1, 1, 1])
    assert topics.consume(six, "g", limit=3).offsets == [3, 4, 5]  # claimed for a minute
    second = topics.consume(six, "g", timeout_seconds=PATIENCE, visibility_timeout_seconds=SOON)
    assert second.offsets == [0, 1, 2]
    assert second.counts == [2, 2, 2]
    assert [message.data for message in second.messages] == [message.data for message in first.messages]
    third = topics.consume(six, "g", timeout_seconds=PATIENCE)
    assert (third.offsets, third.counts) == ([0, 1, 2], [3, 3, 3])


def test_what_was_acknowledged_never_comes_again(topics: Topics, six: str) -> None:
    topics.consume(six, "g", visibility_timeout_seconds=SOON)
    topics.ack(six, "g", 3)
    again = topics.consume(six, "g", timeout_seconds=PATIENCE)
    assert (again.offsets, again.counts) == ([4, 5], [2, 2])


def test_an_ack_after_the_timeout_counts_all_the_same(topics: Topics, six: str) -> None:
    topics.consume(six, "g", visibility_timeout_seconds=SOON, consumer_id="slow")
    assert topics.consume(six, "g", timeout_seconds=PATIENCE, consumer_id="quick", limit=2).offsets == [0, 1]
    topics.ack(six, "g", 1, consumer_id="quick")
    assert topics.ack(six, "g", 5, consumer_id="slow") == 5
    assert topics.committed(six, "g") == {0: 5}
    assert topics.consume(six, "g").messages == []


def test_one_expired_claim_leaves_the_others(topics: Topics, six: str) -> None:
    topics.consume(six, "g", limit=2, consumer_id="a")
    topics.consume(six, "g", limit=2, consumer_id="b", visibility_timeout_seconds=SOON)
    topics.consume(six, "g", limit=2, consumer_id="c")
    again = topics.consume(six, "g", consumer_id="d", timeout_seconds=PATIENCE)
    assert (again.offsets, again.counts) == ([2, 3], [2, 2])


# --- ordered ----------------------------------------------------------------------------------------------------------


def test_ordered_keeps_a_partition_with_one_consumer(topics: Topics) -> None:
    topic = topics.topic(partitions=2)
    for partition in range(2):
        topics.produce(topic, *({"key": key_for(partition, 2), "payload": n} for n in range(4)))
    first = topics.consume(topic, "g", ordered=True, consumer_id="a", partition_id=0, limit=2)
    assert first.offsets == [0, 1]
    assert topics.consume(topic, "g", ordered=True, consumer_id="b", partition_id=0).messages == []
    mine = topics.consume(topic, "g", ordered=True, consumer_id="b")
    assert [message.place for message in mine.messages] == [(1, 0), (1, 1), (1, 2), (1, 3)]
    assert topics.consume(topic, "g", ordered=True, consumer_id="a", limit=1).offsets == [2]  # its own partition
    topics.ack(topic, "g", 2, consumer_id="a")
    assert [message.place for message in topics.consume(topic, "g", ordered=True, consumer_id="b").messages] == [(0, 3)]


def test_an_ack_wakes_an_ordered_consumer(topics: Topics, six: str) -> None:
    topics.consume(six, "g", ordered=True, consumer_id="a", limit=3)
    with beside(lambda: topics.consume(six, "g", ordered=True, consumer_id="b", timeout_seconds=PATIENCE)) as poll:
        topics.ack(six, "g", 2, consumer_id="a")
        assert poll.result(PATIENCE / 2).offsets == [3, 4, 5]


def test_redeliveries_never_overtake_in_order(topics: Topics, six: str) -> None:
    more = {"ordered": True, "visibility_timeout_seconds": SOON, "limit": 2}
    assert topics.consume(six, "g", consumer_id="dead", **more).offsets == [0, 1]
    seen: list[int] = []
    while len(seen) < 6:
        batch = topics.consume(six, "g", consumer_id="b", ordered=True, limit=2, timeout_seconds=PATIENCE)
        assert batch.messages
        seen += batch.offsets
        topics.ack(six, "g", batch.offsets[-1], consumer_id="b")
    assert seen == [0, 1, 2, 3, 4, 5]


# --- dead letters -----------------------------------------------------------------------------------------------------


def test_after_the_last_delivery_a_message_goes_to_the_dead_letters(topics: Topics) -> None:
    dead = topics.topic()
    topic = topics.topic(max_deliveries=2, dead_letter_topic=dead)
    topics.produce(topic, {"key": "k", "payload": {"poison": True}}, {"key": "k", "payload": {"poison": False}})
    for delivery in (1, 2):
        batch = topics.consume(topic, "g", limit=1, consumer_id="a")
        assert (batch.offsets, batch.counts) == ([0], [delivery])
        topics.ack(topic, "g", None, consumer_id="a", release=True)
    last = topics.consume(topic, "g", timeout_seconds=PATIENCE)
    assert (last.offsets, last.counts) == ([1], [1])
    letter = topics.consume(dead, "undertaker", timeout_seconds=PATIENCE).messages
    assert [(message.offset, message.key, message.json) for message in letter] == [(0, "k", {"poison": True})]
    assert letter[0].topic == dead
    assert letter[0].origin == {"topic_id": topic, "partition_id": 0, "offset": 0, "delivery_count": 2}
    assert topics.consume(dead).messages[0].origin == letter[0].origin
    topics.ack(topic, "g", 1)
    assert topics.consume(topic, "g", timeout_seconds=0.1).messages == []
    assert [message.offset for message in topics.read(topic)] == [0, 1]  # the log itself keeps it


def test_expired_claims_count_as_deliveries(topics: Topics) -> None:
    dead = topics.topic()
    topic, table = topics.topic(max_deliveries=1, dead_letter_topic=dead), topics.table()
    topics.source(topic, table)
    topics.server.sql(f"INSERT INTO {table} VALUES (1, 'poison')")
    original = topics.consume(topic, "g", visibility_timeout_seconds=SOON).messages[0]
    with beside(lambda: topics.consume(topic, "g", timeout_seconds=3 * SOON)) as poll:
        (letter,) = topics.consume(dead, timeout_seconds=PATIENCE).messages
        assert poll.result(PATIENCE).messages == []
    assert (letter.key, letter.json, letter.op) == (original.key, original.json, original.op)
    assert letter.origin == {"topic_id": topic, "partition_id": 0, "offset": 0, "delivery_count": 1}


def test_each_group_buries_its_own(topics: Topics) -> None:
    dead = topics.topic()
    topic = topics.topic(max_deliveries=1, dead_letter_topic=dead)
    topics.fill(topic, 1)
    for group in ("one", "two"):
        assert topics.consume(topic, group, consumer_id="a").offsets == [0]
        topics.ack(topic, group, None, consumer_id="a", release=True)
        assert topics.consume(topic, group).messages == []
    assert [message.offset for message in topics.read(dead)] == [0, 1]


def test_without_a_bound_a_message_comes_for_ever(topics: Topics, six: str) -> None:
    for delivery in range(1, 30):
        batch = topics.consume(six, "g", limit=1, consumer_id="a")
        assert (batch.offsets, batch.counts) == ([0], [delivery])
        topics.ack(six, "g", None, consumer_id="a", release=True)


def test_a_missing_topic_is_not_found(topics: Topics) -> None:
    for path, more in ((CONSUME, {}), (ACK, {"upto_offset": 0})):
        for name in ("app.nosuch", "nosuch.t", "nosuch", "app.nosuch; DROP", "a.b.c", "APP.NOSUCH"):
            found = topics.refused(path, topic_id=name, group_id="g", **more)
            assert (found.status, found.code) == (404, "NOT_FOUND")
