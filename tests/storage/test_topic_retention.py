"""Retention of topics, and of the rows that their messages show: what is retained can be read, the rest goes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import StorageEngine, TableDef, WriteTransaction
from storage.catalog import ColumnDef, SchemaVersion
from storage.errors import OffsetOutOfRange
from storage.objects import DROPPED, DROPPED_TOPIC, DroppedTable, DroppedTopic
from storage.retention import dropped_definition
from storage.topic_definitions import Operation, PayloadMode, TopicDef, TopicSource
from storage.topic_log import TAIL_US, Bounds, entries
from storage.topic_runs import Origin
from storage.topic_writes import NEVER, ClaimRequest, claim, reset_group
from storage.types import BIGINT
from tests.storage.conftest import QUIET
from tests.storage.helpers import create, key_of, keyed_table, rows_of, seq_of
from tests.storage.stream_model import JumpingClock, stream_table
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
    produce_sync,
    ranges,
    state_of,
)

OPTIONS = msgspec.structs.replace(QUIET, merge_fan_in=2, retention_seconds=0.0, group_wait_us=0, direct_rows=50)
MINUTE = 60 * SECOND


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


@pytest.fixture
def engine(folder: Path, clock: JumpingClock) -> Iterator[StorageEngine]:
    with StorageEngine.open(folder, OPTIONS, clock=clock) as opened:
        opened.router = IdRouter()
        yield opened


def put(engine: StorageEngine, table: TableDef, key: int, amount: int, user: str = "") -> None:
    """Insert or replace a row."""

    def work(wtxn: WriteTransaction) -> None:
        found = wtxn.get_row(table, user, key_of(table, key))
        row: tuple[Any, ...] = (key, None, amount, *range(3, len(table.columns)))
        if found is None:
            wtxn.insert_row(table, user, row, key_of(table, key))
        else:
            wtxn.replace_row(table, user, found[0], row, key_of(table, key))

    engine.commit_sync(work)


def history_rows(engine: StorageEngine) -> int:
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        return sum(batch.header.rows for batch in reader.stored(b"", history=True))


def entry_count(engine: StorageEngine, topic: TopicDef, partition: int = 0) -> int:
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        return len(list(entries(reader, topic.topic_id, partition, 0)))


def objects(engine: StorageEngine) -> tuple[list[int], list[int]]:
    """The ids of tables and topics that wait to be reclaimed."""
    with engine.snapshot() as snapshot:
        tables = [table.table_id for table in snapshot.list_objects(DROPPED, DroppedTable)]
        return tables, [topic.topic_id for topic in snapshot.list_objects(DROPPED_TOPIC, DroppedTopic)]


# --- by age, by bytes ---------------------------------------------------------------------------------------------


def test_messages_go_by_age_and_offsets_stay(engine: StorageEngine, clock: JumpingClock) -> None:
    topic = create_topic(engine, "t", retention_seconds=600, retention_bytes=0)
    for _ in range(5):
        produce_sync(engine, topic, 3)
        clock.wall += 200 * SECOND
    engine.compact()  # at 1,000 s: what was produced at 0 and 200 s is older than 600 s
    assert all_bounds(engine, topic) == [Bounds(6, 15)]
    clock.wall += 10_000 * SECOND
    engine.compact()
    assert all_bounds(engine, topic) == [Bounds(15, 15)]
    assert entry_count(engine, topic) == 1
    engine.compact()
    assert produce_sync(engine, topic, 2) == [15, 16]
    assert all_bounds(engine, topic) == [Bounds(15, 17)]
    assert engine.check() == []


def test_offsets_go_on_after_all_messages_went_and_a_restart(folder: Path, clock: JumpingClock) -> None:
    with StorageEngine.open(folder, OPTIONS, clock=clock) as engine:
        topic = create_topic(engine, "t", retention_seconds=10)
        produce_sync(engine, topic, 7)
        clock.wall += MINUTE
        engine.compact()
    with StorageEngine.open(folder, OPTIONS, clock=clock) as engine:
        assert all_bounds(engine, topic) == [Bounds(7, 7)]
        assert produce_sync(engine, topic) == [7]


@pytest.mark.parametrize("size", [1, 3_000])
def test_a_clock_that_was_set_back_does_not_make_messages_younger_than_their_successors(
    folder: Path, clock: JumpingClock, size: int
) -> None:
    """Produced messages leave no record in the log of commits, so their time has to be found elsewhere."""
    with StorageEngine.open(folder, OPTIONS, clock=clock) as engine:
        topic = create_topic(engine, "t", retention_seconds=600, partitions=2)
        clock.wall += 5_000 * SECOND
        produce_sync(engine, topic, 1, size=size)
    clock.wall -= 5_000 * SECOND
    with StorageEngine.open(folder, OPTIONS, clock=clock) as engine:
        produce_sync(engine, topic, 1, size=size)
        assert engine.check() == []


@given(st.integers(0, 2**32))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_retention_takes_what_it_must_and_no_more(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """By age: nothing is left that is too old, and nothing went that is not. By bytes: as few as need be."""
    chance, clock = random.Random(seed), JumpingClock()
    with StorageEngine.open(tmp_path_factory.mktemp("data"), OPTIONS, clock=clock) as engine:
        seconds, limit = chance.choice([0, 300, 3_000]), chance.choice([0, 4_000, 20_000])
        topic = create_topic(engine, "t", retention_seconds=seconds, retention_bytes=limit, partitions=2)
        produced: dict[tuple[int, int], tuple[int, int]] = {}
        for _ in range(30):
            partition, count, size = chance.randrange(2), chance.randint(1, 5), chance.choice([1, 700])
            for offset in produce_sync(engine, topic, count, partition=partition, size=size):
                produced[partition, offset] = clock.wall, size
            clock.wall += chance.choice([1, 70, 200]) * SECOND
            if chance.random() < 0.3:
                before = {(m.partition, m.offset) for m in messages_of(engine, topic)}
                engine.compact()
                after = {(m.partition, m.offset) for m in messages_of(engine, topic)}
                assert after <= before
                present = {place: produced[place] for place in before}
                self_check(present, before - after, seconds, limit, clock.wall)
                assert_suffix(after, [bound.next for bound in all_bounds(engine, topic)])
        assert engine.check() == []


def self_check(
    present: dict[tuple[int, int], tuple[int, int]], gone: set[tuple[int, int]], seconds: int, limit: int, now: int
) -> None:
    """Whether the right messages went."""
    sizes = {place: size + 2 + 32 for place, (_, size) in present.items()}
    too_old = {place for place, (at, _) in present.items() if seconds and at < now - seconds * SECOND}
    slack = {place for place in too_old if present[place][0] >= now - seconds * SECOND - TAIL_US}
    assert too_old - slack <= gone, "a message outlived its time by more than an entry"
    surplus = gone - too_old
    kept = sum(size for place, size in sizes.items() if place not in gone)
    if not limit:
        assert not surplus
        return
    largest = 5 * (700 + 34) + 2_000  # an entry: one work's messages, or small ones joined
    assert kept <= limit + 2 * largest, "more than retention allows, beside the last entries"
    if surplus:
        assert kept + largest > limit, "messages went although there was room"


def assert_suffix(there: set[tuple[int, int]], following: list[int]) -> None:
    """What is left of a partition is its end."""
    for partition, end in enumerate(following):
        offsets = sorted(offset for number, offset in there if number == partition)
        assert offsets == list(range(end - len(offsets), end))


def test_bytes_of_what_went_by_age_do_not_count_any_more(engine: StorageEngine, clock: JumpingClock) -> None:
    """What age takes away is not counted once more against younger messages."""
    topic = create_topic(engine, "t", retention_seconds=600, retention_bytes=10_000)
    produce_sync(engine, topic, 10, size=700)
    clock.wall += 1_000 * SECOND
    for _ in range(3):
        produce_sync(engine, topic, 4, size=700)
    engine.compact()
    assert all_bounds(engine, topic) == [Bounds(10, 22)]
    engine.compact()
    assert all_bounds(engine, topic) == [Bounds(10, 22)]


def test_the_oldest_go_over_all_partitions(engine: StorageEngine, clock: JumpingClock) -> None:
    topic = create_topic(engine, "t", retention_seconds=0, retention_bytes=10_000, partitions=3)
    for number in range(30):
        produce_sync(engine, topic, 1, partition=number % 3, size=2_000)
        clock.wall += SECOND
    engine.compact()
    left = sorted((m.offset, m.partition) for m in messages_of(engine, topic))
    assert 4 <= len(left) <= 6
    assert left == sorted((n // 3, n % 3) for n in range(30 - len(left), 30))
    assert engine._merger._janitor.nbytes <= 10_000 + 2_100


def test_the_last_entry_stays_however_few_bytes_are_allowed(engine: StorageEngine) -> None:
    topic = create_topic(engine, "t", retention_bytes=1)
    for _ in range(3):
        produce_sync(engine, topic, 1, size=3_000)
        engine.compact()
        assert len(messages_of(engine, topic)) == 1


# --- CLEAR and DROP -----------------------------------------------------------------------------------------------


def test_clear_takes_everything_away_at_once_and_offsets_go_on(engine: StorageEngine, clock: JumpingClock) -> None:
    topic = create_topic(engine, "t", partitions=2)
    produce_sync(engine, topic, 5, partition=0)
    produce_sync(engine, topic, 3, partition=1)
    assert ranges(claim_sync(engine, topic, messages=2, partition=0)) == [(0, 0, 1, 1)]
    topic = change_topic(engine, topic, cleared=(5, 3))
    assert messages_of(engine, topic) == []
    assert all_bounds(engine, topic) == [Bounds(5, 5), Bounds(3, 3)]
    assert claim_sync(engine, topic).claimed == []  # passed over, and not an error
    state = state_of(engine, topic)
    assert state is not None
    assert (state.position, state.acked, state.claims) == (5, 4, ())
    assert produce_sync(engine, topic, 2, partition=0) == [5, 6]
    assert [m.offset for m in messages_of(engine, topic)] == [5, 6]
    clock.wall += SECOND
    engine.compact()
    assert [m.offset for m in messages_of(engine, topic)] == [5, 6]
    assert entry_count(engine, topic, 1) == 1
    assert ranges(claim_sync(engine, topic)) == [(0, 5, 6, 1)]
    assert engine.check() == []


def test_a_dropped_topic_leaves_nothing(engine: StorageEngine) -> None:
    table = create(engine)
    keep = create_topic(engine, "keep", every_operation(table))
    topic = create_topic(engine, "t", every_operation(table), partitions=2)
    put(engine, table, 1, 1)
    produce_sync(engine, topic, 5)
    claim_sync(engine, topic)
    claim_sync(engine, keep)
    engine.commit_sync(lambda w: w.drop_topic(topic.topic_id))
    put(engine, table, 2, 2)
    assert engine.check() == []
    assert objects(engine) == ([], [topic.topic_id])
    engine.compact()
    assert objects(engine) == ([], [])
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        for db in (reader.dbs.topics, reader.dbs.offsets):
            ids = {int.from_bytes(bytes(key)[:4], "big") for key, _ in reader.txn.cursor(db=db)}
            assert ids == {keep.topic_id}
    assert engine.check() == []
    again = create_topic(engine, "t")
    assert again.topic_id != topic.topic_id
    assert produce_sync(engine, again) == [0]
    assert state_of(engine, again) is None


# --- rows that messages show --------------------------------------------------------------------------------------


class UpdateWorld:
    """Rows that change and change again, while the log keeps nothing, and topics that show every version."""

    def __init__(self, engine: StorageEngine, clock: JumpingClock, seed: int) -> None:
        self.engine, self.clock, self.random = engine, clock, random.Random(seed)
        engine.router = IdRouter()
        self.table = create(engine, keyed_table)
        sources = every_operation(self.table, PayloadMode.DIFF)
        self.topics = [
            create_topic(engine, "all", sources, retention_seconds=0, retention_bytes=0),
            create_topic(engine, "short", sources, retention_seconds=500, partitions=2),
            create_topic(
                engine, "deletes", [TopicSource(0, self.table.table_id, Operation.DELETE)], retention_bytes=300
            ),
        ]
        self.rows: dict[tuple[str, int], tuple[Any, ...]] = {}
        self.expected: list[tuple[Operation, str, tuple[Any, ...], tuple[Any, ...] | None]] = []
        self.count = 0

    def step(self) -> None:
        action = self.random.choice((self.write, self.write, self.write, self.write, self.maintain, self.alter))
        action()
        self.clock.wall += self.random.choice((0, 1, 90)) * SECOND

    def write(self) -> None:
        place = user, key = self.random.choice(("ann", "bob" * 60)), self.random.randrange(6)
        table, old = self.table, self.rows.get(place)
        self.count += 1
        if old is not None and self.random.random() < 0.3:
            self.engine.commit_sync(lambda w: w.delete(table, user, [seq_of(w, table, user, key)]))
            del self.rows[place]
            self.expected.append((Operation.DELETE, user, old, None))
            return
        row = (key, None, self.count, *range(3, len(table.columns)))
        put(self.engine, table, key, self.count, user)
        self.rows[place] = row
        self.expected.append((Operation.UPDATE if old else Operation.INSERT, user, row, old))

    def maintain(self) -> None:
        self.engine.compact()
        assert self.engine.check() == []

    def alter(self) -> None:
        """Payloads have the columns that the table has when they are read."""
        old = self.table
        if len(old.columns) > 5 or self.random.random() < 0.7:
            return
        column = ColumnDef(old.next_column_id, f"c{len(old.columns)}", BIGINT)
        self.table = msgspec.structs.replace(
            old,
            columns=(*old.columns, column),
            schema_version=old.schema_version + 1,
            history=(*old.history, SchemaVersion(old.schema_version, old.columns)),
            next_column_id=old.next_column_id + 1,
        )
        self.engine.commit_sync(lambda wtxn: wtxn.put_table(self.table))
        self.rows = {place: (*row, None) for place, row in self.rows.items()}
        self.expected = [
            (kind, user, (*row, None), None if was is None else (*was, None)) for kind, user, row, was in self.expected
        ]

    def compare(self) -> None:
        """Each retained message shows the very rows of its event."""
        everything, short, deletes = (messages_of(self.engine, topic) for topic in self.topics)
        assert [(m.operation, m.user, m.row, m.old) for m in everything] == self.expected
        for found in (short, deletes):
            shown = [(m.operation, m.user, m.row, m.old) for m in sorted(found, key=lambda m: m.seq)]
            assert [one for one in self.expected if one in shown] == shown


@given(st.integers(0, 2**32))
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_a_retained_message_shows_is_there(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    clock = JumpingClock()
    folder = tmp_path_factory.mktemp("data")
    with StorageEngine.open(folder, OPTIONS, clock=clock) as engine:
        world = UpdateWorld(engine, clock, seed)
        for _ in range(40):
            world.step()
        world.compare()
        clock.wall += MINUTE
        world.maintain()
        world.compare()
    with StorageEngine.open(folder, OPTIONS, clock=clock) as engine:
        world.engine = engine
        world.maintain()
        world.compare()


def test_rows_go_when_no_message_shows_them_any_more(engine: StorageEngine, clock: JumpingClock) -> None:
    table = create(engine)
    create_topic(engine, "t", every_operation(table), retention_seconds=600)
    for number in range(50):
        put(engine, table, 1, number)
    clock.wall += SECOND
    engine.compact()
    assert history_rows(engine) == 49
    clock.wall += 1_000 * SECOND
    engine.compact()
    engine.compact()
    assert history_rows(engine) == 0
    assert engine.check() == []


def test_other_tables_do_not_keep_what_only_a_topic_of_this_one_needs(
    engine: StorageEngine, clock: JumpingClock
) -> None:
    table, other = create(engine), create(engine, name="other")
    create_topic(engine, "t", every_operation(table))
    for number in range(20):
        put(engine, table, 1, number)
        put(engine, other, 1, number)
    clock.wall += SECOND
    engine.compact()
    engine.compact()
    assert history_rows(engine) == 19
    assert engine.check() == []


def test_expired_rows_of_a_stream_table_can_still_be_shown(engine: StorageEngine, clock: JumpingClock) -> None:
    table = create(engine, stream_table)
    sources = [TopicSource(0, table.table_id, operation) for operation in (Operation.INSERT, Operation.DELETE)]
    topic = create_topic(engine, "t", sources, retention_seconds=600)
    engine.commit_sync(lambda w: w.insert(table, "ann", rows_of(table, [(n, "b") for n in range(5)])))
    clock.wall += MINUTE
    assert engine.evict() == 5
    clock.wall += SECOND
    engine.compact()
    expected = [(operation, (n, "b")) for operation in (Operation.INSERT, Operation.DELETE) for n in range(5)]
    assert [(m.operation, m.row) for m in messages_of(engine, topic)] == expected
    clock.wall += 1_000 * SECOND
    engine.compact()
    engine.compact()
    assert history_rows(engine) == 0
    assert engine.check() == []


def test_a_dropped_table_stays_while_messages_refer_to_it(engine: StorageEngine, clock: JumpingClock) -> None:
    table = create(engine)
    topic = create_topic(engine, "t", every_operation(table), retention_seconds=600)
    for number in range(10):
        put(engine, table, number % 3, number)
    expected = messages_of(engine, topic)
    engine.commit_sync(lambda w: w.drop_table(table.table_id))
    produce_sync(engine, topic, 1)
    clock.wall += SECOND
    engine.compact()
    engine.compact()
    assert messages_of(engine, topic)[:-1] == expected
    assert objects(engine) == ([table.table_id], [])
    assert engine.check() == []
    clock.wall += 599 * SECOND
    put_something = create_topic(engine, "other")
    produce_sync(engine, put_something)
    clock.wall += MINUTE
    engine.compact()
    assert objects(engine) == ([], [])
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        assert dropped_definition(reader, table.table_id) is None
        assert reader.txn.stat(reader.dbs.rows)["entries"] == 0
    assert engine.check() == []


def test_a_dropped_table_goes_when_later_messages_cannot_refer_to_it(
    engine: StorageEngine, clock: JumpingClock
) -> None:
    table, other = create(engine), create(engine, name="other")
    create_topic(engine, "t", every_operation(table) + every_operation(other), retention_seconds=600)
    put(engine, table, 1, 1)
    engine.commit_sync(lambda w: w.drop_table(table.table_id))
    clock.wall += 400 * SECOND
    put(engine, other, 1, 1)
    engine.compact()
    assert objects(engine) == ([table.table_id], [])
    clock.wall += 400 * SECOND
    engine.compact()
    assert objects(engine) == ([], [])
    assert engine.check() == []


def test_dropping_the_topic_frees_the_dropped_table(engine: StorageEngine, clock: JumpingClock) -> None:
    table = create(engine)
    topic = create_topic(engine, "t", every_operation(table))
    put(engine, table, 1, 1)
    engine.commit_sync(lambda w: w.drop_table(table.table_id))
    engine.compact()
    assert objects(engine) == ([table.table_id], [])
    engine.commit_sync(lambda w: w.drop_topic(topic.topic_id))
    engine.compact()
    assert objects(engine) == ([], [])
    assert engine.check() == []


def test_the_file_stays_small_under_updates_without_end(folder: Path, clock: JumpingClock) -> None:
    options = msgspec.structs.replace(OPTIONS, merge_fan_in=4)
    with StorageEngine.open(folder, options, clock=clock) as engine:
        table = create(engine)
        create_topic(engine, "t", every_operation(table), retention_seconds=100, retention_bytes=200_000)
        engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, [(n, "x" * 90, 0) for n in range(40)])))

        def replace(wtxn: WriteTransaction, number: int) -> None:
            seqs = [seq for seq in wtxn.find(table, "", [key_of(table, n) for n in range(40)]) if seq is not None]
            wtxn.replace(table, "", seqs, rows_of(table, [(n, "x" * 90, number) for n in range(40)]))

        sizes = []
        for number in range(400):
            engine.commit_sync(lambda w, number=number: replace(w, number))
            clock.wall += 5 * SECOND
            if number % 20 == 19:
                engine.compact()
                sizes.append(engine.stats().used_bytes)
        assert max(sizes[5:]) <= 2 * max(sizes[:5]), sizes
        assert engine.check() == []


# --- dead letters, groups that are behind -------------------------------------------------------------------------


def test_what_is_delivered_in_vain_goes_to_the_dead_letters(engine: StorageEngine, clock: JumpingClock) -> None:
    table = create(engine)
    topic = create_topic(engine, "t", every_operation(table), max_deliveries=2)
    produce_sync(engine, topic, 3)
    put(engine, table, 5, 50)
    for deliveries in (1, 2):
        assert ranges(claim_sync(engine, topic)) == [(0, 0, 3, deliveries)]
        clock.wall += MINUTE
    assert ranges(claim_sync(engine, topic)) == []
    state = state_of(engine, topic)
    assert state is not None
    assert (state.position, state.acked, state.claims) == (4, 3, ())
    dead = engine.catalog.topic("app", "t_dead_letter")
    assert dead is not None
    assert dead.max_deliveries == NEVER
    assert [(m.key, m.payload, m.origin) for m in messages_of(engine, dead)] == [
        *((f"k{n}", b"%d" % n, Origin("app.t", 0, n, 2)) for n in range(3)),
        ("5", b"[5,null,50]", Origin("app.t", 0, 3, 2)),
    ]
    produce_sync(engine, topic, 1)
    assert ranges(claim_sync(engine, topic)) == [(0, 4, 4, 1)]
    assert engine.check() == []


def test_dead_letters_of_some_only(engine: StorageEngine, clock: JumpingClock) -> None:
    """Those that others acknowledge or are still to be tried stay; a topic may name where the others go."""
    dead = create_topic(engine, "morgue", partitions=2)
    topic = create_topic(engine, "t", max_deliveries=1, dead_letter="app.morgue", partitions=3)
    for partition in range(3):
        produce_sync(engine, topic, 4, partition=partition)
    claim_sync(engine, topic, partition=2, messages=3)
    engine.commit_sync(lambda w: ack_in(w, topic, 0, partition=2))
    clock.wall += MINUTE
    assert ranges(claim_sync(engine, topic, partition=2)) == [(2, 3, 3, 1)]
    assert [(m.partition, m.origin) for m in messages_of(engine, dead)] == [
        (0, Origin("app.t", 2, 1, 1)),
        (0, Origin("app.t", 2, 2, 1)),
    ]
    clock.wall += MINUTE
    never = change_topic(engine, topic, max_deliveries=NEVER)
    assert ranges(claim_sync(engine, never, partition=2, max_deliveries=1)) == [(2, 3, 3, 2)]
    clock.wall += MINUTE
    default = change_topic(engine, topic, max_deliveries=0)
    assert ranges(claim_sync(engine, default, partition=2, max_deliveries=3)) == [(2, 3, 3, 3)]
    clock.wall += MINUTE
    assert ranges(claim_sync(engine, default, partition=2, max_deliveries=3)) == []
    assert len(messages_of(engine, dead)) == 3


def test_a_dead_letter_that_cannot_be_made_changes_nothing(engine: StorageEngine, clock: JumpingClock) -> None:
    topic = create_topic(engine, "t", max_deliveries=1)
    produce_sync(engine, topic, 1)
    claim_sync(engine, topic)
    clock.wall += MINUTE

    def fail_late(wtxn: WriteTransaction) -> None:
        claim(wtxn, topic, ClaimRequest("g", "=a", 10, 100, MINUTE))
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        engine.commit_sync(fail_late)
    assert engine.catalog.topic("app", "t_dead_letter") is None
    state = state_of(engine, topic)
    assert state is not None
    assert state.claims[0].deliveries == 1


def test_a_group_that_is_behind_what_is_retained_is_told_so(engine: StorageEngine, clock: JumpingClock) -> None:
    topic = create_topic(engine, "t", retention_seconds=600)
    produce_sync(engine, topic, 5)
    assert ranges(claim_sync(engine, topic, messages=2, visibility_us=10_000 * SECOND)) == [(0, 0, 1, 1)]
    clock.wall += 700 * SECOND
    produce_sync(engine, topic, 3)
    engine.compact()
    with pytest.raises(OffsetOutOfRange, match="RESET CONSUMER GROUP 'g'") as caught:
        claim_sync(engine, topic)
    assert (caught.value.partition, caught.value.first, caught.value.following) == (0, 5, 8)
    assert engine.commit_sync(lambda w: ack_in(w, topic, 1)) == 1
    assert engine.commit_sync(lambda w: reset_group(w, topic, "g", None, "earliest")) == 1
    assert ranges(claim_sync(engine, topic, start="latest")) == [(0, 5, 7, 1)]
    for to in (4, 9):
        with pytest.raises(OffsetOutOfRange) as caught:
            engine.commit_sync(lambda w, to=to: reset_group(w, topic, "g", 0, to))
        assert (caught.value.first, caught.value.following) == (5, 8)
    assert engine.check() == []


def test_a_group_behind_an_empty_partition_is_told_so(engine: StorageEngine, clock: JumpingClock) -> None:
    topic = create_topic(engine, "t", retention_seconds=600)
    produce_sync(engine, topic, 2)
    claim_sync(engine, topic, messages=1)
    clock.wall += 700 * SECOND
    engine.compact()
    with pytest.raises(OffsetOutOfRange):
        claim_sync(engine, topic)
