"""Every change of a source's table becomes its messages: once, in order, in the commit of the change or not at all."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import Commit, StorageEngine, StorageOptions, TableDef, Transaction, WriteTransaction
from storage.errors import PublishFailed
from storage.topic_definitions import Operation, PayloadMode, TopicDef, TopicSource
from storage.topic_staging import TopicNews
from storage.topic_writes import Produced, produce
from tests.storage.conftest import QUIET
from tests.storage.helpers import create, key_of, keyed_table, keyless_table, plain_table, rows_of, seq_of
from tests.storage.test_engine import Gate
from tests.storage.topic_world import (
    POISON,
    IdRouter,
    all_bounds,
    create_topic,
    every_operation,
    messages_of,
    produce_sync,
)

OPTIONS = msgspec.structs.replace(QUIET, direct_rows=40, group_wait_us=0)
USERS = ("", "ann", "bob" * 60)
Row = tuple[Any, ...]


class Event(NamedTuple):
    """What happened to a row: the new version, and the one that went."""

    table: str
    user: str
    operation: Operation
    key: int
    row: Row | None
    old: Row | None


@pytest.fixture
def engine(folder: Path) -> Iterator[StorageEngine]:
    with StorageEngine.open(folder, OPTIONS) as opened:
        opened.router = IdRouter()
        yield opened


class Change(Exception):
    """A work that fails at its end."""


class World:
    """Two tables, topics over them, and a model of rows and events."""

    def __init__(self, engine: StorageEngine, seed: int) -> None:
        self.engine = engine
        self.random = random.Random(seed)
        self.tables = {"keyed": create(engine, keyed_table), "plain": create(engine, plain_table)}
        keyed, plain = self.tables["keyed"], self.tables["plain"]
        self.topics = [
            create_topic(engine, "all", every_operation(keyed) + every_operation(plain)),
            create_topic(engine, "split", every_operation(keyed, PayloadMode.FULL), partitions=3),
            create_topic(engine, "some", every_operation(plain, PayloadMode.DIFF, condition="2"), partitions=2),
            create_topic(
                engine,
                "twice",
                [
                    TopicSource(0, plain.table_id, Operation.UPDATE, mode)
                    for mode in (PayloadMode.FULL, PayloadMode.DIFF)
                ],
            ),
        ]
        self.rows: dict[tuple[str, str], dict[int, Row]] = {}
        self.events: list[Event] = []
        self.count = 0
        self.used: set[int] = set()
        self.reuses_keys = True
        """Whether keys of deleted rows come again."""

    def row(self, key: int) -> Row:
        """Every version is another one, so that an event is known by its rows."""
        self.count += 1
        return (key, f"m{self.count}", self.count)

    def work(self, *, heavy: bool) -> tuple[Any, list[Event], dict[tuple[str, str], dict[int, Row]]]:
        """A work of one to four operations, the events that it makes, and the rows that it leaves."""
        rows = {place: dict(found) for place, found in self.rows.items()}
        events: list[Event] = []
        steps: list[tuple[str, str, str, Any]] = []
        for _ in range(self.random.randint(1, 4)):
            name, user = self.random.choice(("keyed", "plain")), self.random.choice(USERS)
            present = rows.setdefault((name, user), {})
            kind = self.random.choice(("insert", "replace", "replace", "delete", "row"))
            if kind in {"insert", "row"}:
                most = 1 if kind == "row" else 300 if heavy else 5
                taken = present if self.reuses_keys else self.used
                free = [key for key in range(1_000) if key not in taken]
                fresh = [self.row(key) for key in self.random.sample(free, self.random.randint(1, most))]
                events += [Event(name, user, Operation.INSERT, row[0], row, None) for row in fresh]
                present.update((row[0], row) for row in fresh)
                self.used.update(row[0] for row in fresh)
                steps.append((kind, name, user, fresh))
            elif present:
                most = min(len(present), 300 if heavy else 4)
                keys = self.random.sample(sorted(present), self.random.randint(1, most))
                if kind == "delete":
                    events += [Event(name, user, Operation.DELETE, key, None, present.pop(key)) for key in keys]
                    steps.append((kind, name, user, keys))
                else:
                    fresh = [self.row(key) for key in keys]
                    events += [Event(name, user, Operation.UPDATE, row[0], row, present[row[0]]) for row in fresh]
                    present.update((row[0], row) for row in fresh)
                    steps.append((kind, name, user, fresh))

        def run(wtxn: WriteTransaction | Transaction) -> None:
            for kind, name, user, payload in steps:
                do(wtxn, self.tables[name], kind, user, payload)

        return run, events, rows

    def group(self) -> None:
        """Several works that meet in one commit, of which some fail."""
        gate = Gate(self.engine)
        commits: list[tuple[Commit[None], bool]] = []
        for _ in range(self.random.randint(1, 4)):
            heavy = self.random.random() < 0.2
            run, events, rows = self.work(heavy=heavy)
            fails = self.random.random() < 0.2

            def work(wtxn: WriteTransaction, run: Any = run, fails: bool = fails) -> None:
                run(wtxn)
                if fails:
                    raise Change

            commits.append((self.engine.submit(work, weight=1_000 if heavy else 1), fails))
            if not fails:
                self.events += events
                self.rows = rows
        gate.open()
        for commit, fails in commits:
            if fails:
                with pytest.raises(Change):
                    commit.result(20)
            else:
                commit.result(20)

    def compare(self) -> None:
        """Each topic has the messages of its events, in an order in which they may have happened."""
        for topic in self.topics:
            found = [
                (message.operation, message.user, message.row, message.old, message.partition)
                for message in messages_of(self.engine, topic)
            ]
            expected = [wanted for event in self.events for wanted in self.messages(topic, event)]
            assert sorted(found, key=repr) == sorted(expected, key=repr)
            for partition in range(topic.partitions):
                seqs = [m.seq for m in messages_of(self.engine, topic) if m.partition == partition]
                assert all(one <= two for one, two in pairwise(seqs))
                if topic.name != "twice":
                    assert len(set(seqs)) == len(seqs)
            self.compare_order(topic)

    def compare_order(self, topic: TopicDef) -> None:
        """The messages about one row stand in the order of what happened to it."""
        by_row: dict[tuple[str, str, int], list[tuple[Operation, int]]] = {}
        for event in self.events:
            shown = event.row or event.old
            assert shown is not None
            for _ in self.messages(topic, event):
                by_row.setdefault((event.table, event.user, event.key), []).append((event.operation, shown[2]))
        names = {version: place for place, steps in by_row.items() for _, version in steps}
        found: dict[tuple[str, str, int], list[tuple[Operation, int]]] = {}
        for message in messages_of(self.engine, topic):
            assert message.row is not None
            version = message.row[2]
            assert isinstance(version, int)
            found.setdefault(names[version], []).append((message.operation, version))
        assert found == by_row

    def messages(self, topic: TopicDef, event: Event) -> Iterator[tuple[Any, ...]]:
        """What an event is in a topic."""
        table = self.tables[event.table]
        for source in topic.sources:
            if source.table_id != table.table_id or source.operation is not event.operation:
                continue
            if source.condition is not None and event.key % int(source.condition):
                continue
            shown = event.old if event.operation is Operation.DELETE else event.row
            shows_old = source.payload is PayloadMode.DIFF and event.operation is Operation.UPDATE
            partition = event.key % topic.partitions
            yield event.operation, event.user, shown, event.old if shows_old else None, partition


def do(view: Any, table: TableDef, kind: str, user: str, payload: Any) -> None:
    """One operation."""
    if kind == "row":
        view.insert_row(table, user, payload[0], key_of(table, payload[0][0]))
    elif kind == "insert":
        view.insert(table, user, rows_of(table, payload))
    elif kind == "replace":
        seqs = view.find(table, user, [key_of(table, row[0]) for row in payload])
        view.replace(table, user, seqs, rows_of(table, payload))
    else:
        view.delete(table, user, view.find(table, user, [key_of(table, key) for key in payload]))


@given(st.integers(0, 2**32))
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_changes_become_their_messages(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    with StorageEngine.open(tmp_path_factory.mktemp("data"), OPTIONS) as engine:
        engine.router = IdRouter()
        world = World(engine, seed)
        for _ in range(8):
            world.group()
        world.compare()
        assert engine.check() == []


@given(st.integers(0, 2**32))
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_transaction_publishes_its_net_effect(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """A row that it inserts and deletes again is nobody's message, one that it updates twice is one message."""
    with StorageEngine.open(tmp_path_factory.mktemp("data"), OPTIONS) as engine:
        engine.router = IdRouter()
        world = World(engine, seed)
        world.reuses_keys = False  # a row deleted and one inserted with its key are two messages, not an update
        for _ in range(4):
            before = {place: dict(rows) for place, rows in world.rows.items()}
            with engine.snapshot() as snapshot:
                txn = Transaction(snapshot)
                for _ in range(3):
                    run, _, rows = world.work(heavy=False)
                    savepoint = txn.savepoint()
                    run(txn)
                    if world.random.random() < 0.3:
                        txn.rollback_to(savepoint)
                    else:
                        world.rows = rows
                engine.commit_sync(txn.apply)
            for (name, user), rows in world.rows.items():
                old = before.get((name, user), {})
                for key in old.keys() | rows.keys():
                    was, now = old.get(key), rows.get(key)
                    if was == now:
                        continue
                    kind = Operation.INSERT if was is None else Operation.DELETE if now is None else Operation.UPDATE
                    world.events.append(Event(name, user, kind, key, now, was))
        for topic in world.topics:
            found = [(m.operation, m.user, m.row, m.old, m.partition) for m in messages_of(engine, topic)]
            expected = [wanted for event in world.events for wanted in world.messages(topic, event)]
            assert sorted(found, key=repr) == sorted(expected, key=repr)
        assert engine.check() == []


def test_a_work_of_many_rows_publishes_all_of_them(folder: Path) -> None:
    """More than `direct_rows`, which go straight into LMDB, and more than one entry takes."""
    with StorageEngine.open(folder, QUIET) as engine:
        engine.router = IdRouter()
        table = create(engine)
        one = create_topic(engine, "one", every_operation(table))
        four = create_topic(engine, "four", every_operation(table), partitions=4)
        count = 25_000
        assert count > QUIET.direct_rows
        rows = [(n, None, n) for n in range(count)]

        def work(wtxn: WriteTransaction) -> None:
            wtxn.insert(table, "", rows_of(table, rows[:15_000]))
            wtxn.insert_row(table, "", rows[15_000], key_of(table, 15_000))
            wtxn.insert(table, "", rows_of(table, rows[15_001:]))
            wtxn.replace(table, "", [seq_of(wtxn, table, "", 7)], rows_of(table, [(7, "new", 7)]))
            wtxn.delete(table, "", [seq_of(wtxn, table, "", 8)])

        engine.commit_sync(work, weight=count)
        found = messages_of(engine, one)
        assert [m.row for m in found if m.operation is Operation.INSERT] == rows
        assert [(m.offset, m.operation, m.row, m.old) for m in found[count:]] == [
            (count, Operation.UPDATE, (7, "new", 7), (7, None, 7)),
            (count + 1, Operation.DELETE, (8, None, 8), None),
        ]
        split = messages_of(engine, four)
        assert sorted((m.operation, m.seq, m.row, m.old) for m in split) == [
            (m.operation, m.seq, m.row, m.old) for m in found
        ]
        assert all(m.row is not None and m.row[0] % 4 == m.partition for m in split)  # type: ignore[operator]
        assert engine.check() == []


def test_a_message_that_cannot_be_made_fails_only_its_own_work(engine: StorageEngine) -> None:
    table = create(engine, keyed_table)
    topic = create_topic(engine, "t", every_operation(table), partitions=2)
    gate = Gate(engine)
    first = engine.submit(lambda w: w.insert_row(table, "ann", (1, None, 1), key_of(table, 1)))
    poison = engine.submit(lambda w: w.insert_row(table, "ann", (2, None, POISON), key_of(table, 2)))
    produced = engine.submit(lambda w: produce(w, topic, [Produced(b"p", None, 0)], "ann"))
    last = engine.submit(lambda w: w.insert_row(table, "ann", (3, None, 3), key_of(table, 3)))
    gate.open()
    for commit in (first, produced, last):
        commit.result(10)
    with pytest.raises(PublishFailed, match="poison"):
        poison.result(10)
    heavy = rows_of(table, [(n, None, POISON if n == 900 else n) for n in range(10, 1_000)])
    with pytest.raises(PublishFailed, match="poison"):
        engine.commit_sync(lambda w: w.insert(table, "ann", heavy), weight=1_000)
    found = messages_of(engine, topic)
    assert [(m.partition, m.row[0] if m.row else m.payload) for m in found] == [(0, b"p"), (1, 1), (1, 3)]
    with engine.snapshot() as snapshot:
        assert snapshot.count(table, "ann") == 2
    assert engine.check() == []


def test_without_the_sql_room_nothing_is_guessed(folder: Path) -> None:
    with StorageEngine.open(folder, QUIET) as engine:
        table = create(engine)
        plain = create_topic(engine, "plain", every_operation(table))
        engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, [(1, None, 1)])))
        assert len(messages_of(engine, plain)) == 1
        create_topic(engine, "split", every_operation(table), partitions=2)
        with pytest.raises(PublishFailed, match=r"topic app\.split cannot be written to"):
            engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, [(2, None, 1)])))


@pytest.mark.parametrize("weight", [1, 1_000])
def test_a_full_map_publishes_once(engine: StorageEngine, monkeypatch: pytest.MonkeyPatch, weight: int) -> None:
    """The map is full at the commit: it grows, and what was staged is written again."""
    table = create(engine)
    topic = create_topic(engine, "t", every_operation(table), partitions=2)
    environment = engine._environment
    commit, left = environment.commit, [2]

    def failing(txn: Any) -> None:
        if left[0]:
            left[0] -= 1
            raise lmdb.MapFullError("simulated")
        commit(txn)

    monkeypatch.setattr(environment, "commit", failing)

    def work(wtxn: WriteTransaction) -> int:
        wtxn.insert(table, "", rows_of(table, [(n, None, n) for n in range(400)]))
        wtxn.delete(table, "", [seq_of(wtxn, table, "", 0)])
        return produce(wtxn, topic, [Produced(b"p", None, 1)], "ann")[0].offset

    offset = engine.commit_sync(work, weight=weight)
    assert left == [0]
    found = messages_of(engine, topic)
    assert [(m.payload, m.offset) for m in found if m.payload] == [(b"p", offset)]
    assert [bound.next for bound in all_bounds(engine, topic)] == [201, 201]
    assert sorted(m.row for m in found if m.operation is Operation.INSERT and m.row) == [
        (n, None, n) for n in range(400)
    ]
    assert engine.check() == []


def test_a_small_map_that_grows_publishes_once(folder: Path) -> None:
    options = StorageOptions(map_start=1 << 20, merge=False, evict=False, direct_rows=500, drain_seconds=0.0)
    with StorageEngine.open(folder, options) as engine:
        engine.router = IdRouter()
        table = create(engine)
        topic = create_topic(engine, "t", every_operation(table), partitions=2)
        before = engine.stats().map_bytes
        for start in range(0, 12_000, 400):
            rows = rows_of(table, [(n, "x" * 300, n) for n in range(start, start + 400)])
            weight = 400 if start % 800 else 2_000
            engine.commit_sync(lambda w, rows=rows: w.insert(table, "", rows), weight=weight)
        assert engine.stats().map_bytes > before
        assert [[m.row[0] for m in messages_of(engine, topic) if m.partition == p and m.row] for p in (0, 1)] == [
            list(range(0, 12_000, 2)),
            list(range(1, 12_000, 2)),
        ]
        assert engine.check() == []


def test_a_table_without_a_key_and_rows_of_one_commit_from_many_tables(engine: StorageEngine) -> None:
    """Messages stand by `_seq`, whatever tables they are from: that is the order in which the works ran."""
    tables = [create(engine, keyless_table, f"t{n}") for n in range(3)]
    topic = create_topic(engine, "t", [source for table in tables for source in every_operation(table)])
    gate = Gate(engine)
    commits = [engine.submit(lambda w, n=n: w.insert_row(tables[n % 3], "", (n, None, n), None)) for n in range(30)]
    produced = engine.submit(lambda w: produce(w, topic, [Produced(b"p")], "ann"))
    gate.open()
    seqs = [commit.result(10) for commit in commits]
    assert produced.result(10)[0].offset == 0
    found = messages_of(engine, topic)
    assert [m.seq for m in found] == [0, *seqs]
    assert [m.row[0] for m in found if m.row] == list(range(30))


def test_news_names_what_a_commit_concerned(engine: StorageEngine) -> None:
    table = create(engine)
    topic = create_topic(engine, "t", every_operation(table))
    other = create_topic(engine, "other")
    heard: list[TopicNews] = []

    def failing(news: TopicNews) -> None:
        raise RuntimeError("deaf")

    deaf, leave = engine.signals.listen(failing), engine.signals.listen(heard.append)
    engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, [(1, None, 1)])))
    produce_sync(engine, other)
    engine.commit_sync(lambda w: w.put_table(msgspec.structs.replace(table, comment="x")))
    leave()
    deaf()
    produce_sync(engine, other)
    assert [news.appended for news in heard] == [{topic.topic_id}, {other.topic_id}]


def test_sources_of_a_dropped_table_end(engine: StorageEngine) -> None:
    table = create(engine)
    topic = create_topic(engine, "t", every_operation(table))
    engine.commit_sync(lambda w: w.insert(table, "", rows_of(table, [(1, None, 1)])))
    engine.commit_sync(lambda w: w.drop_table(table.table_id))
    again = create(engine)
    engine.commit_sync(lambda w: w.insert(again, "", rows_of(again, [(2, None, 2)])))
    present = engine.catalog.topic_by_id(topic.topic_id)
    assert present is not None
    assert present.sources == ()
    assert present.referred == (table.table_id,)
    assert [m.row for m in messages_of(engine, topic)] == [(1, None, 1)]
    assert engine.check() == []
