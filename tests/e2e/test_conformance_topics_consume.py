"""Reading a topic over HTTP: fields, `start`, limits, partitions, positions, long polls."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.topic_conformance import CONSUME, PATIENCE, Topics, batch_of, beside, key_for, short, topic_server


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topics]:
    with topic_server(tmp_path_factory.mktemp("consume")) as found:
        yield found


# --- fields -----------------------------------------------------------------------------------------------------------


def test_a_message_of_a_table_field_by_field(topics: Topics) -> None:
    topic, table = topics.topic(), topics.table()
    topics.source(topic, table)
    topics.server.sql(f"INSERT INTO {table} VALUES (42, 'a')")
    answer = topics.post(CONSUME, {"topic_id": topic, "group_id": "g", "start": "Earliest", "limit": 10})
    assert answer.status_code == 200
    body = answer.json()
    (message,) = body.pop("messages")
    assert body == {"next_offset": 1, "has_more": False, "positions": [{"partition_id": 0, "next_offset": 1}]}
    payload, moment = message.pop("payload"), message.pop("timestamp_ms")
    assert message == {"topic_id": topic, "partition_id": 0, "offset": 0, "key": "42", "op": "Insert",
                       "delivery_count": 1}  # fmt: skip
    assert type(payload) is str
    assert type(moment) is int
    assert list(body) == ["next_offset", "has_more", "positions"]


def test_a_stateless_read_has_no_delivery_count_and_claims_nothing(topics: Topics) -> None:
    topic = topics.topic()
    topics.fill(topic, 3)
    for _ in range(2):
        assert topics.consume(topic).offsets == [0, 1, 2]
        assert topics.consume(topic, group_id=None).offsets == [0, 1, 2]
    assert topics.consume(topic, "g").offsets == [0, 1, 2]
    assert topics.server.rows("SELECT * FROM system.topic_offsets WHERE topic_id = $1 AND group_id = ''", [topic]) == []


def test_an_empty_topic(topics: Topics) -> None:
    topic = topics.topic(partitions=3)
    for more in ({}, {"group_id": "g"}, {"partition_id": 2}):
        batch = topics.consume(topic, **more)  # type: ignore[arg-type]
        assert (batch.messages, batch.has_more) == ([], False)
        assert set(batch.positions.values()) <= {0}


def test_messages_carry_the_time_of_their_commit(topics: Topics) -> None:
    topic = topics.topic()
    for each in range(5):
        topics.produce(topic, {"payload": each}, {"payload": each})
    times = [message.timestamp_ms for message in topics.read(topic)]
    assert times == sorted(times)
    assert times[::2] == times[1::2]  # of one commit


def test_unknown_fields_are_ignored(topics: Topics) -> None:
    topic = topics.topic()
    topics.fill(topic, 1)
    assert topics.consume(topic, "g", colour="red", nested={"a": [1]}, Limit=0).offsets == [0]


def test_null_is_as_if_left_out(topics: Topics) -> None:
    topic = topics.topic()
    topics.fill(topic, 2)
    request = {"topic_id": topic, "start": "Earliest", "group_id": None, "partition_id": None, "consumer_id": None}
    assert batch_of(topics.post(CONSUME, request), request).offsets == [0, 1]


# --- start ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [None, "g"])
@pytest.mark.parametrize(
    ("start", "offsets"),
    [
        ("Latest", []), ("latest", []), ("LATEST", []), ("Earliest", [0, 1, 2, 3]), ("earliest", [0, 1, 2, 3]),
        ("EARLIEST", [0, 1, 2, 3]), ("eArLiEsT", [0, 1, 2, 3]), ({"Offset": 0}, [0, 1, 2, 3]), ({"offset": 2}, [2, 3]),
        ({"Offset": 3}, [3]), ({"Offset": 4}, []),
    ],
    ids=short,
)  # fmt: skip
def test_every_spelling_of_start(topics: Topics, group: str | None, start: Any, offsets: list[int]) -> None:
    topic = topics.topic()
    topics.fill(topic, 4)
    assert topics.consume(topic, group, start).offsets == offsets


def test_start_is_latest_when_it_is_left_out(topics: Topics) -> None:
    topic = topics.topic()
    topics.fill(topic, 2)
    for request in ({"topic_id": topic}, {"topic_id": topic, "group_id": "g"}):
        assert batch_of(topics.post(CONSUME, request), request).messages == []


@pytest.mark.parametrize(
    "start",
    ["", "Newest", "0", 0, 1.5, True, [], ["Earliest"], {}, {"Offset": -1}, {"Offset": "0"}, {"Offset": 1.5},
     {"Offset": None}, {"Offset": True}, {"OFFSET": 0}, {"Offset": 2**63}, {"Offset": 10**30}, {"Latest": 0},
     {"Earliest": {}}],
    ids=short,
)  # fmt: skip
def test_a_start_that_is_none(topics: Topics, start: Any) -> None:
    topic = topics.topic()
    for group in ({}, {"group_id": "g"}):
        found = topics.refused(CONSUME, topic_id=topic, start=start, **group)
        assert (found.status, found.code) == (400, "INVALID_INPUT")


@pytest.mark.parametrize("start", ["Earliest", "Latest", {"Offset": 0}, {"Offset": 5}], ids=short)
def test_start_is_ignored_once_the_group_has_acknowledged(topics: Topics, start: Any) -> None:
    topic = topics.topic()
    topics.fill(topic, 6)
    assert topics.consume(topic, "g", limit=3).offsets == [0, 1, 2]
    assert topics.ack(topic, "g", 1, release=True) == 1
    assert topics.consume(topic, "g", start).offsets == [2, 3, 4, 5]


def test_an_ack_of_a_group_that_never_read_sets_where_it_begins(topics: Topics) -> None:
    topic = topics.topic()
    topics.fill(topic, 5)
    assert topics.ack(topic, "g", 2) == 2
    assert topics.consume(topic, "g", "Earliest").offsets == [3, 4]


def test_latest_misses_nothing_between_two_polls(topics: Topics) -> None:
    topic = topics.topic()
    topics.fill(topic, 2)
    assert topics.consume(topic, "g", "Latest").messages == []
    topics.fill(topic, 2)
    assert topics.consume(topic, "g", "Latest").offsets == [2, 3]


def test_latest_holds_for_every_partition(topics: Topics) -> None:
    topic = topics.topic(partitions=4)
    keys = [key_for(partition, 4) for partition in range(4)]
    topics.produce(topic, *({"key": key, "payload": 0} for key in keys))
    assert topics.consume(topic, "g", "Latest").messages == []
    topics.produce(topic, *({"key": key, "payload": 1} for key in keys))
    assert sorted(message.place for message in topics.consume(topic, "g", "Latest").messages) == [
        (partition, 1) for partition in range(4)
    ]


# --- how much ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [None, "g"])
def test_limits_of_a_batch(topics: Topics, group: str | None) -> None:
    topic = topics.topic()
    topics.fill(topic, 5)
    first = topics.consume(topic, group, limit=2)
    assert (first.offsets, first.has_more, first.next_offset) == ([0, 1], True, 2)
    whole = topics.consume(topic, group, limit=10_000)
    expected = [0, 1, 2, 3, 4] if group is None else [2, 3, 4]
    assert (whole.offsets, whole.has_more, whole.next_offset) == (expected, False, 5)


def test_the_limit_is_a_hundred_when_it_is_left_out(topics: Topics) -> None:
    topic = topics.topic()
    topics.fill(topic, 101)
    batch = topics.consume(topic, "g")
    assert (len(batch.messages), batch.has_more) == (100, True)
    assert topics.consume(topic, "g").offsets == [100]


@pytest.mark.parametrize(
    ("field", "value"),
    [("limit", value) for value in (0, -1, 10_001, 2**31, 2**63, 10**30, 1.5, "10", True, [], {})]
    + [("max_bytes", value) for value in (0, -1, 1.5, "10", True, [], 10**30)]
    + [("timeout_seconds", value) for value in (-1, -0.5, "10", True, [], {})]
    + [("visibility_timeout_seconds", value) for value in (-1, -0.5, "60", True, [])]
    + [("partition_id", value) for value in (-1, 1, 2**31, 2**63, 10**30, 0.5, "0", True, [], {})]
    + [("ordered", value) for value in ("true", 1, [], 0)]
    + [("group_id", value) for value in (1, True, [], {}, "", "x" * 100_000)]
    + [("consumer_id", value) for value in (1, True, [], {}, "x" * 100_000)],
    ids=short,
)
def test_a_field_that_cannot_be(topics: Topics, field: str, value: Any) -> None:
    topic = topics.topic()
    found = topics.refused(CONSUME, **({"topic_id": topic, "group_id": "g", "start": "Earliest"} | {field: value}))
    assert (found.status, found.code) == (400, "INVALID_INPUT")
    assert topics.consume(topic, "g").messages == []


@pytest.mark.parametrize("group", [None, "g"])
def test_a_batch_is_bounded_by_bytes_and_one_message_comes_always(topics: Topics, group: str | None) -> None:
    topic = topics.topic()
    topics.produce(topic, *({"key": "k", "payload": "x" * 1_000 + f"{n:04}"} for n in range(8)))
    size = len(topics.read(topic)[0].data)
    assert topics.consume(topic, group, max_bytes=1).offsets == [0]
    after = 0 if group is None else 1
    batch = topics.consume(topic, group, max_bytes=size * 4)
    assert batch.offsets in ([after, after + 1, after + 2], [after, after + 1, after + 2, after + 3])
    assert batch.has_more
    assert batch.next_offset == batch.offsets[-1] + 1


def test_more_bytes_than_a_batch_may_have_come_in_several(topics: Topics) -> None:
    topic = topics.topic()
    for _ in range(6):
        topics.produce(topic, *({"key": "k", "payload": {"x": "y" * 500_000}} for _ in range(4)))
    taken: list[int] = []
    while batch := topics.consume(topic, "g", limit=1_000):
        if not batch.messages:
            break
        assert sum(len(message.data) for message in batch.messages) <= 8 << 20
        assert batch.has_more is (batch.offsets[-1] < 23)
        taken += batch.offsets
    assert taken == list(range(24))


# --- partitions -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spread(topics: Topics) -> str:
    """Four partitions, 50 messages in each."""
    topic = topics.topic(partitions=4)
    for partition in range(4):
        key = key_for(partition, 4)
        topics.produce(topic, *({"key": key, "payload": n} for n in range(50)))
    return topic


def test_one_partition_of_several(topics: Topics, spread: str) -> None:
    for partition in range(4):
        batch = topics.consume(spread, "one", partition_id=partition, limit=20)
        assert [message.place for message in batch.messages] == [(partition, offset) for offset in range(20)]
        assert (batch.next_offset, batch.has_more, batch.positions[partition]) == (20, True, 20)


@pytest.mark.parametrize("group", [None, "fair"])
def test_without_a_partition_all_get_their_share(topics: Topics, spread: str, group: str | None) -> None:
    batch = topics.consume(spread, group, limit=40)
    share = Counter(message.partition for message in batch.messages)
    assert sorted(share) == [0, 1, 2, 3]
    assert min(share.values()) >= 5, share
    assert sum(share.values()) == 40
    assert batch.has_more
    assert batch.positions == {partition: count for partition, count in share.items()}  # noqa: C416 - a Counter


def test_no_partition_starves_by_small_batches(topics: Topics, spread: str) -> None:
    taken: Counter[int] = Counter()
    for _ in range(40):
        (message,) = topics.consume(spread, "small", limit=1).messages
        taken[message.partition] += 1
    assert sorted(taken) == [0, 1, 2, 3]
    assert min(taken.values()) >= 5, taken


def test_all_partitions_to_their_end(topics: Topics, spread: str) -> None:
    found: list[tuple[int, int]] = []
    while batch := topics.consume(spread, "end", limit=33):
        if not batch.messages:
            break
        found += [message.place for message in batch.messages]
        for partition in range(4):
            offsets = [message.offset for message in batch.messages if message.partition == partition]
            if offsets:
                assert batch.positions[partition] == offsets[-1] + 1
    assert not batch.has_more
    assert sorted(found) == [(partition, offset) for partition in range(4) for offset in range(50)]


def test_positions_are_where_a_stateless_reader_goes_on(topics: Topics, spread: str) -> None:
    positions = topics.consume(spread, limit=50).positions
    for partition, position in positions.items():
        rest = topics.consume(spread, None, {"Offset": position}, partition_id=partition)
        assert rest.offsets == list(range(position, 50))


# --- long polls -------------------------------------------------------------------------------------------------------


def waiting(topics: Topics, topic: str, group: str | None, start: Any, **more: Any) -> Any:
    """A long poll on a thread of its own."""
    return beside(lambda: topics.consume(topic, group, start, **({"timeout_seconds": PATIENCE} | more)))


@pytest.mark.parametrize("group", [None, "g"])
@pytest.mark.parametrize("partition", [None, 0])
def test_a_commit_wakes_a_long_poll(topics: Topics, group: str | None, partition: int | None) -> None:
    topic, table = topics.topic(), topics.table()
    topics.source(topic, table)
    more = {} if partition is None else {"partition_id": partition}
    for each in range(8):
        with waiting(topics, topic, group, {"Offset": each}, **more) as poll:
            topics.server.sql(f"INSERT INTO {table} VALUES ({each}, 'x')")
            batch = poll.result(PATIENCE / 2)
        assert batch.keys == [str(each)]


def test_a_long_poll_of_latest_sees_the_first_message_after_it(topics: Topics) -> None:
    topic = topics.topic()
    topics.fill(topic, 3)
    assert topics.consume(topic, "g", "Latest").messages == []
    with waiting(topics, topic, "g", "Latest") as poll:
        topics.fill(topic, 1)
        assert poll.result(PATIENCE / 2).offsets == [3]


@pytest.mark.parametrize("group", [None, "g"])
@pytest.mark.parametrize("seconds", [0, 0.05, 1])
def test_a_long_poll_is_empty_when_its_time_is_over(topics: Topics, group: str | None, seconds: float) -> None:
    topic = topics.topic()
    topics.fill(topic, 1)
    batch = topics.consume(topic, group, "Latest", timeout_seconds=seconds)
    assert (batch.messages, batch.has_more, batch.next_offset) == ([], False, 1)


def test_what_is_there_comes_at_once(topics: Topics) -> None:
    topic = topics.topic()
    topics.fill(topic, 1)
    with waiting(topics, topic, "g", "Earliest", limit=100) as poll:
        assert poll.result(PATIENCE / 2).offsets == [0]


def test_a_commit_elsewhere_or_rolled_back_wakes_nobody(topics: Topics) -> None:
    topic, table, other = topics.topic(), topics.table(), topics.table()
    topics.source(topic, table, "INSERT", where="id > 10")
    with waiting(topics, topic, "g", "Earliest", timeout_seconds=2) as poll:
        topics.server.sql(f"INSERT INTO {other} VALUES (1, 'x'); INSERT INTO {table} VALUES (1, 'filtered')")
        topics.server.sql(f"BEGIN; INSERT INTO {table} VALUES (11, 'x'); ROLLBACK")
        assert poll.result(PATIENCE).messages == []


def test_waiting_consumers_hold_nobody_up(topics: Topics) -> None:
    """Far more polls than there are worker threads wait, and everything else goes on; then one commit wakes them."""
    topic, busy = topics.topic(), topics.topic()
    with ThreadPoolExecutor(60) as threads:
        polls = [
            threads.submit(topics.consume, topic, None if n % 2 else f"g{n}", timeout_seconds=PATIENCE)
            for n in range(60)
        ]
        for each in range(30):
            assert topics.server.rows("SELECT 1") == [[1]]
            topics.produce(busy, {"payload": each})
            assert topics.consume(busy, "g").offsets == [each]
        topics.fill(topic, 1)
        assert all(poll.result(PATIENCE / 2).offsets == [0] for poll in polls)
    topics.close()


def test_of_waiting_consumers_of_a_group_one_gets_the_message(topics: Topics) -> None:
    topic = topics.topic()
    with ThreadPoolExecutor(8) as threads:
        polls = [threads.submit(topics.consume, topic, "g", timeout_seconds=3, consumer_id=f"c{n}") for n in range(8)]
        topics.fill(topic, 1)
        found = [poll.result(PATIENCE).offsets for poll in polls]
    assert sorted(found) == [[]] * 7 + [[0]]
    topics.close()


def test_the_answer_is_compact_json(topics: Topics) -> None:
    topic = topics.topic()
    topics.fill(topic, 1)
    answer = topics.post(CONSUME, {"topic_id": topic, "start": "Earliest"})
    assert answer.text == json.dumps(answer.json(), separators=(",", ":"), ensure_ascii=False)
