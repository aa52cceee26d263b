"""Producing, claiming, acknowledging and resetting through the writer: nothing is handed out twice, nothing is lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from storage import StorageEngine, Transaction, WriteTransaction
from storage.errors import DuplicateKey, OffsetOutOfRange, UnknownPartition, UnknownTopic, WriteConflict
from storage.topic_definitions import TopicDef
from storage.topic_groups import MAX_CLAIMS
from storage.topic_log import Bounds
from storage.topic_partitioning import partition_of_key, partitions_of_keys
from storage.topic_staging import TopicNews
from storage.topic_writes import (
    Claimed,
    ClaimRequest,
    Produced,
    claim,
    produce,
    reset_group,
    topic_named,
)
from tests.storage.conftest import QUIET
from tests.storage.helpers import contents, create, key_of, rows_of
from tests.storage.stream_model import JumpingClock
from tests.storage.test_engine import Gate
from tests.storage.topic_world import (
    SECOND,
    IdRouter,
    ack_in,
    all_bounds,
    change_topic,
    claim_sync,
    create_topic,
    every_operation,
    messages_of,
    offsets_of,
    produce_sync,
    ranges,
    state_of,
)

MINUTE = 60 * SECOND


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


@pytest.fixture
def engine(folder: Path, clock: JumpingClock) -> Iterator[StorageEngine]:
    with StorageEngine.open(folder, QUIET, clock=clock) as opened:
        opened.router = IdRouter()
        yield opened


def ack(engine: StorageEngine, topic: TopicDef, upto: int | None, **more: Any) -> int:
    return engine.commit_sync(lambda w: ack_in(w, topic, upto, **more))


# --- producing ----------------------------------------------------------------------------------------------------


def test_keys_decide_where_a_message_goes(engine: StorageEngine) -> None:
    topic = create_topic(engine, partitions=5)
    keys = [f"k{n}" for n in range(40)] + ["", "é", "\U0001f6b0"]
    placed = engine.commit_sync(lambda w: produce(w, topic, [Produced(b"x", key) for key in keys], "ann"))
    assert [one.partition for one in placed] == [partition_of_key(key, 5) for key in keys]
    assert partitions_of_keys((key.encode() for key in keys), len(keys), 5).tolist() == [p.partition for p in placed]
    assert len({one.partition for one in placed}) == 5
    by_partition = Counter[int]()
    for one in placed:
        assert one.offset == by_partition[one.partition]
        by_partition[one.partition] += 1
    stored = {(m.partition, m.offset): m.key for m in messages_of(engine, topic)}
    assert stored == {tuple(place): key for place, key in zip(placed, keys, strict=True)}


def test_partitions_of_keys_are_those_of_the_specification() -> None:
    """xxHash64 with seed 0; the values are those of its reference implementation."""
    assert partition_of_key("", 1_000_000_007) == 0xEF46DB3751D8E999 % 1_000_000_007
    assert partition_of_key("a", 1_000_000_007) == 0xD24EC4F1A98C6E5B % 1_000_000_007
    assert partition_of_key("abc", 1_000_000_007) == 0x44BC2CF5AD770999 % 1_000_000_007
    assert partition_of_key("whatever", 1) == 0


def test_messages_without_a_key_take_their_turn(engine: StorageEngine) -> None:
    topic = create_topic(engine, partitions=3)
    turns = [engine.commit_sync(lambda w: produce(w, topic, [Produced(b"x")] * 2, "ann")) for _ in range(6)]
    assert all(one.partition == two.partition for one, two in turns)
    assert Counter(one.partition for one, _ in turns) == {0: 2, 1: 2, 2: 2}


def test_a_partition_that_is_not_there_produces_nothing(engine: StorageEngine) -> None:
    topic = create_topic(engine, partitions=2)
    for partition in (2, -1):
        with pytest.raises(UnknownPartition, match="has 2 partition"):
            engine.commit_sync(
                lambda w, p=partition: produce(w, topic, [Produced(b"x", None, 0), Produced(b"x", None, p)], "ann")
            )
    assert messages_of(engine, topic) == []
    with pytest.raises(UnknownTopic, match=r"app\.nothing"):
        engine.commit_sync(lambda w: topic_named(w, "app", "nothing"))


def test_works_that_meet_in_a_commit_get_their_own_offsets(engine: StorageEngine) -> None:
    """Also when one between them fails."""
    topic = create_topic(engine)
    produce_sync(engine, topic, 3)

    def failing(wtxn: WriteTransaction) -> None:
        produce(wtxn, topic, [Produced(b"lost")] * 5, "ann")
        claim(wtxn, topic, ClaimRequest("g", "=a", 2, 100, MINUTE, start="earliest"))
        raise RuntimeError("no")

    gate = Gate(engine)
    before = engine.stats().commits
    works = [engine.submit(lambda w, n=n: produce(w, topic, [Produced(b"%d" % n)] * n, "ann")) for n in (1, 2)]
    lost = engine.submit(failing)
    works.append(engine.submit(lambda w: produce(w, topic, [Produced(b"3")] * 3, "ann")))
    gate.open()
    assert [[placed.offset for placed in work.result(10)] for work in works] == [[3], [4, 5], [6, 7, 8]]
    with pytest.raises(RuntimeError):
        lost.result(10)
    assert engine.stats().commits == before + 1
    assert [m.payload for m in messages_of(engine, topic)][3:] == [b"1", b"2", b"2", b"3", b"3", b"3"]
    assert state_of(engine, topic) is None
    assert engine.check() == []


# --- claiming -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "expected"),
    [(None, 9), ("latest", 9), ("earliest", 4), (4, 4), (6, 6), (9, 9)],
)
def test_where_a_group_begins(engine: StorageEngine, start: str | int | None, expected: int) -> None:
    topic = create_topic(engine)
    produce_sync(engine, topic, 9)
    topic = change_topic(engine, topic, cleared=(4,))
    result = claim_sync(engine, topic, start=start, messages=1)
    assert ranges(result) == ([] if expected == 9 else [(0, expected, expected, 1)])
    produce_sync(engine, topic, 1)
    following = expected if expected == 9 else expected + 1
    assert ranges(claim_sync(engine, topic, start=start, messages=1)) == [(0, following, following, 1)]


@pytest.mark.parametrize("start", [3, 10])
def test_a_start_that_is_not_there(engine: StorageEngine, start: int) -> None:
    topic = create_topic(engine)
    produce_sync(engine, topic, 9)
    topic = change_topic(engine, topic, cleared=(4,))
    with pytest.raises(OffsetOutOfRange) as caught:
        claim_sync(engine, topic, start=start)
    assert (caught.value.first, caught.value.following) == (4, 9)
    assert state_of(engine, topic) is None


def test_a_start_counts_until_something_is_claimed_acknowledged_or_reset(engine: StorageEngine) -> None:
    topic = create_topic(engine)
    produce_sync(engine, topic, 5)
    assert ranges(claim_sync(engine, topic, start="latest")) == []
    assert ranges(claim_sync(engine, topic, start=3, messages=1)) == [(0, 3, 3, 1)]
    assert ranges(claim_sync(engine, topic, start="earliest", messages=1)) == [(0, 4, 4, 1)]
    ack(engine, topic, 4)
    assert ranges(claim_sync(engine, topic, start="earliest")) == []
    engine.commit_sync(lambda w: reset_group(w, topic, "g", None, 0))
    assert ranges(claim_sync(engine, topic, start="latest", messages=2)) == [(0, 0, 1, 1)]
    other = "h"
    ack(engine, topic, 1, group=other)
    assert ranges(claim_sync(engine, topic, group=other, start="earliest")) == [(0, 2, 4, 1)]


def test_an_acknowledgement_cannot_be_ahead_of_the_messages(engine: StorageEngine) -> None:
    topic = create_topic(engine, partitions=2)
    produce_sync(engine, topic, 3)
    with pytest.raises(OffsetOutOfRange, match="has no message yet"):
        ack(engine, topic, 3)
    with pytest.raises(UnknownPartition):
        ack(engine, topic, 0, partition=2)
    assert ack(engine, topic, None) == -1
    assert state_of(engine, topic) is None
    assert ack(engine, topic, 2) == 2
    assert ack(engine, topic, 0) == 2
    assert ack(engine, topic, None) == 2


def test_release_gives_claims_back_at_once(engine: StorageEngine) -> None:
    topic = create_topic(engine)
    produce_sync(engine, topic, 6)
    claim_sync(engine, topic, messages=4)
    claim_sync(engine, topic, messages=2, holder="=b")
    assert ack(engine, topic, 1, back=True) == 1
    assert ranges(claim_sync(engine, topic, holder="=c")) == [(0, 2, 3, 2)]
    assert ack(engine, topic, None, holder="=b", back=True) == 1
    assert ranges(claim_sync(engine, topic, holder="=c")) == [(0, 4, 5, 2)]


def test_expired_claims_are_handed_out_again_before_what_is_new(engine: StorageEngine, clock: JumpingClock) -> None:
    topic = create_topic(engine)
    produce_sync(engine, topic, 10)
    claim_sync(engine, topic, messages=3)
    claim_sync(engine, topic, messages=3, holder="=b", visibility_us=2 * MINUTE)
    clock.wall += MINUTE
    result = claim_sync(engine, topic, messages=5, holder="=c")
    assert ranges(result) == [(0, 0, 2, 2), (0, 6, 7, 1)]
    assert result.has_more
    assert result.positions == {0: 8}
    assert ack(engine, topic, 2) == 2  # who named itself and lost its claim still acknowledges it
    state = state_of(engine, topic)
    assert state is not None
    assert [(c.first, c.last, c.holder) for c in state.claims] == [(3, 5, "=b"), (6, 7, "=c")]


def test_an_expired_claim_is_handed_out_in_parts(engine: StorageEngine, clock: JumpingClock) -> None:
    topic = create_topic(engine)
    produce_sync(engine, topic, 10, size=100)
    claim_sync(engine, topic)
    clock.wall += MINUTE
    assert ranges(claim_sync(engine, topic, messages=3, holder="=b")) == [(0, 0, 2, 2)]
    given = offsets_of(claim_sync(engine, topic, max_bytes=300, holder="=c").claimed)
    assert given == [(0, 3), (0, 4)]  # 134 bytes each
    assert ranges(claim_sync(engine, topic, holder="=d")) == [(0, 5, 9, 2)]
    state = state_of(engine, topic)
    assert state is not None
    held = [(offset, c.holder) for c in state.claims for offset in range(c.first, c.last + 1)]
    assert held == [
        *((n, "=b") for n in range(3)),
        *((n, "=c") for n in range(3, 5)),
        *((n, "=d") for n in range(5, 10)),
    ]


def test_bytes_bound_what_is_handed_out_but_one_message_always_comes(engine: StorageEngine) -> None:
    topic = create_topic(engine, partitions=2)
    for partition in (0, 1):
        for _ in range(4):
            produce_sync(engine, topic, 3, partition=partition, size=1_000)
    assert [c.last + 1 - c.first for c in claim_sync(engine, topic, max_bytes=1).claimed] == [1]
    assert sum(c.last + 1 - c.first for c in claim_sync(engine, topic, max_bytes=7_500).claimed) == 7
    left = 0
    while result := claim_sync(engine, topic, max_bytes=3_200).claimed:
        size = sum(c.last + 1 - c.first for c in result)
        assert 1 <= size <= 3
        left += size
    assert left == 24 - 1 - 7


def test_all_partitions_have_their_share(engine: StorageEngine) -> None:
    topic = create_topic(engine, partitions=4)
    for partition, count in enumerate((100, 100, 2, 0)):
        if count:
            produce_sync(engine, topic, count, partition=partition)
    result = claim_sync(engine, topic, messages=42)
    shares = Counter(partition for partition, _ in offsets_of(result.claimed))
    assert shares == {0: 20, 1: 20, 2: 2}
    assert result.has_more
    firsts = {claim_sync(engine, topic, messages=1).claimed[0].partition for _ in range(8)}
    assert firsts == {0, 1}, "the same partition always came first"


def test_partitions_that_others_read_come_last(engine: StorageEngine) -> None:
    topic = create_topic(engine, partitions=2)
    for partition in (0, 1):
        produce_sync(engine, topic, 10, partition=partition)
    claim_sync(engine, topic, messages=1, partition=1, holder="=b")
    for _ in range(4):
        assert claim_sync(engine, topic, messages=1).claimed[0].partition == 0


def test_in_order_a_partition_is_with_one_consumer_at_a_time(engine: StorageEngine, clock: JumpingClock) -> None:
    topic = create_topic(engine)
    produce_sync(engine, topic, 10)
    assert ranges(claim_sync(engine, topic, ordered=True, messages=2)) == [(0, 0, 1, 1)]
    assert ranges(claim_sync(engine, topic, ordered=True, messages=2, holder="=b")) == []
    assert ranges(claim_sync(engine, topic, ordered=True, messages=2)) == [(0, 2, 3, 1)]
    ack(engine, topic, 3)
    assert ranges(claim_sync(engine, topic, ordered=True, messages=2, holder="=b")) == [(0, 4, 5, 1)]
    clock.wall += MINUTE
    assert ranges(claim_sync(engine, topic, ordered=True, messages=3)) == [(0, 4, 5, 2), (0, 6, 6, 1)]


def test_claims_have_a_bound(engine: StorageEngine) -> None:
    topic = create_topic(engine)
    produce_sync(engine, topic, MAX_CLAIMS + 1)

    def many(wtxn: WriteTransaction) -> int:
        request = ClaimRequest("g", "=a", 1, 1 << 20, MINUTE, start="earliest")
        return sum(len(claim(wtxn, topic, request).claimed) for _ in range(MAX_CLAIMS + 1))

    assert engine.commit_sync(many) == MAX_CLAIMS
    assert not claim_sync(engine, topic).has_more
    ack(engine, topic, 0)
    assert ranges(claim_sync(engine, topic)) == [(0, MAX_CLAIMS, MAX_CLAIMS, 1)]
    assert engine.check() == []


def test_what_the_same_commit_produced_can_be_claimed(engine: StorageEngine) -> None:
    topic = create_topic(engine)

    def work(wtxn: WriteTransaction) -> list[Claimed]:
        produce(wtxn, topic, [Produced(b"x")] * 3, "ann")
        return claim(wtxn, topic, ClaimRequest("g", "=a", 10, 1 << 20, MINUTE, start="earliest")).claimed

    assert engine.commit_sync(work) == [Claimed(0, 0, 2, 1)]
    assert engine.check() == []


def test_claims_survive_a_restart(folder: Path, clock: JumpingClock) -> None:
    with StorageEngine.open(folder, QUIET, clock=clock) as engine:
        topic = create_topic(engine)
        produce_sync(engine, topic, 4)
        claim_sync(engine, topic, messages=2)
    with StorageEngine.open(folder, QUIET, clock=clock) as engine:
        assert ranges(claim_sync(engine, topic, holder="=b")) == [(0, 2, 3, 1)]
        clock.wall += MINUTE
        assert ranges(claim_sync(engine, topic, holder="=c")) == [(0, 0, 1, 2), (0, 2, 3, 2)]
        assert engine.check() == []


def test_reset_concerns_the_partitions_that_it_names(engine: StorageEngine) -> None:
    topic = create_topic(engine, partitions=3)
    for partition in range(3):
        produce_sync(engine, topic, 2, partition=partition)
    claim_sync(engine, topic)
    assert engine.commit_sync(lambda w: reset_group(w, topic, "g", 1, "earliest")) == 1
    assert ranges(claim_sync(engine, topic)) == [(1, 0, 1, 1)]
    assert engine.commit_sync(lambda w: reset_group(w, topic, "g", None, "latest")) == 3
    assert ranges(claim_sync(engine, topic)) == []
    with pytest.raises(UnknownPartition):
        engine.commit_sync(lambda w: reset_group(w, topic, "g", 3, "latest"))


# --- together with rows -------------------------------------------------------------------------------------------


def test_messages_and_acknowledgements_of_a_transaction_are_kept_with_its_rows(engine: StorageEngine) -> None:
    table = create(engine)
    topic = create_topic(engine, sources=every_operation(table))
    produce_sync(engine, topic, 2)
    claim_sync(engine, topic)
    with engine.snapshot() as snapshot:
        txn = Transaction(snapshot)
        txn.insert_row(table, "", (1, None, 1), key_of(table, 1))
        txn.also(lambda w: produce(w, topic, [Produced(b"mine")], "ann"))
        savepoint = txn.savepoint()
        txn.also(lambda w: produce(w, topic, [Produced(b"taken back")], "ann"))
        txn.rollback_to(savepoint)
        txn.also(lambda w: ack_in(w, topic, 1))
        assert all_bounds(engine, topic) == [Bounds(0, 2)]
        heard: list[TopicNews] = []
        leave = engine.signals.listen(heard.append)
        engine.commit_sync(txn.apply)
        leave()
    assert [(news.appended, news.groups) for news in heard] == [({topic.topic_id}, {(topic.topic_id, "g")})]
    assert [m.payload or m.row for m in messages_of(engine, topic)][2:] == [b"mine", (1, None, 1)]
    state = state_of(engine, topic)
    assert state is not None
    assert state.acked == 1


def test_a_transaction_that_is_refused_leaves_neither(engine: StorageEngine) -> None:
    table = create(engine)
    topic = create_topic(engine)
    produce_sync(engine, topic, 1)
    claim_sync(engine, topic)
    engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, [(1, None, 1), (2, None, 2)])))

    def begin() -> Transaction:
        txn = Transaction(snapshot)
        txn.also(lambda w: produce(w, topic, [Produced(b"x")], "ann"))
        txn.also(lambda w: ack_in(w, topic, 0))
        return txn

    with engine.snapshot() as snapshot:
        conflicting = begin()
        conflicting.delete(table, "", conflicting.find(table, "", [key_of(table, 1)]))  # type: ignore[arg-type]
        duplicate = begin()
        duplicate.insert_row(table, "", (3, None, 3), key_of(table, 3))
        late = begin()
        late.also(lambda w: ack_in(w, topic, 99))
        late.insert_row(table, "", (4, None, 4), key_of(table, 4))
        engine.commit_sync(lambda w: w.delete(table, "", w.find(table, "", [key_of(table, 1)])))
        engine.commit_sync(lambda w: w.insert_row(table, "", (3, None, 0), key_of(table, 3)))
        for txn, error in ((conflicting, WriteConflict), (duplicate, DuplicateKey), (late, OffsetOutOfRange)):
            with pytest.raises(error):
                engine.commit_sync(txn.apply)
    assert len(messages_of(engine, topic)) == 1
    state = state_of(engine, topic)
    assert state is not None
    assert state.acked == -1
    with engine.snapshot() as snapshot:
        assert contents(snapshot, table) == [(2, None, 2), (3, None, 0)]
    assert engine.check() == []


# --- many at a time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [False, True])
def test_consumers_at_once_get_every_message_once(engine: StorageEngine, ordered: bool) -> None:
    """Producers and consumers in threads, one time frame: what is handed out is disjoint, and all of it."""
    topic = create_topic(engine, partitions=3)
    total, barrier = 600, threading.Barrier(6)
    produced = threading.Event()
    lock = threading.Lock()
    handed: list[tuple[str, list[tuple[int, int]]]] = []

    def send(start: int) -> None:
        barrier.wait()
        for n in range(start, total, 2):
            engine.commit_sync(lambda w, n=n: produce(w, topic, [Produced(b"%d" % n, f"k{n % 40}")], "ann"))

    def consume(holder: str) -> None:
        barrier.wait()
        while True:
            finished = produced.is_set()
            result = claim_sync(engine, topic, holder=holder, messages=7, ordered=ordered)
            with lock:
                handed.append((holder, offsets_of(result.claimed)))
            for partition in {claimed.partition for claimed in result.claimed}:
                last = max(claimed.last for claimed in result.claimed if claimed.partition == partition)
                ack(engine, topic, last, holder=holder, partition=partition)
            with lock:
                everything = sum(len(offsets) for _, offsets in handed)
            if finished and everything >= total:
                return

    with ThreadPoolExecutor(6) as pool:
        senders = [pool.submit(send, start) for start in (0, 1)]
        readers = [pool.submit(consume, f"=c{n}") for n in range(4)]
        for sender in senders:
            sender.result(60)
        produced.set()
        for reader in readers:
            reader.result(60)
    offsets = [offset for _, given in handed for offset in given]
    assert len(offsets) == len(set(offsets)) == total
    assert set(offsets) == {(m.partition, m.offset) for m in messages_of(engine, topic)}
    for _, given in handed:
        for partition in range(3):
            mine = [offset for number, offset in given if number == partition]
            assert all(one + 1 == two for one, two in pairwise(mine))
    for partition, bound in enumerate(all_bounds(engine, topic)):
        state = state_of(engine, topic, partition=partition)
        assert state is not None
        assert (state.acked, state.position, state.claims) == (bound.next - 1, bound.next, ())
    assert engine.check() == []
