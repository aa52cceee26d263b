"""Every kind of inconsistency of topics and their groups, planted by hand, is found and named by the check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import lmdb
import msgspec
import pytest

from storage import StorageEngine, TableDef
from storage.check import check
from storage.environment import Databases
from storage.errors import StorageCorrupt
from storage.keys import object_key
from storage.objects import TOPIC, table_name
from storage.topic_definitions import Operation, TopicDef
from storage.topic_groups import Claim, GroupState, encode_state, group_key
from storage.topic_log import empty_entry
from storage.topic_runs import (
    EntryHead,
    ProducedRun,
    RowRun,
    Run,
    SizedRun,
    decode_entry,
    encode_entry,
    entry_key,
    read_head,
)
from tests.storage.conftest import QUIET
from tests.storage.helpers import create, key_of, keyed_table, rows_of, seq_of
from tests.storage.test_check import damage
from tests.storage.topic_world import (
    IdRouter,
    claim_sync,
    create_topic,
    every_operation,
    messages_of,
    produce_sync,
)


class Planted(NamedTuple):
    """What the folder holds."""

    topic: TopicDef
    table: TableDef


Plant = Callable[[lmdb.Transaction, Databases, Planted], None]


@pytest.fixture
def planted(folder: Path) -> Planted:
    """A closed folder with a topic of two entries in partition 0, one in partition 1, and a group with claims."""
    with StorageEngine.open(folder, QUIET) as engine:
        engine.router = IdRouter()
        table = create(engine, keyed_table)
        topic = create_topic(engine, "t", every_operation(table), partitions=2)
        engine.commit_sync(lambda w: w.insert(table, "ann", rows_of(table, [(n, None, n) for n in range(4)])))
        engine.commit_sync(
            lambda w: w.replace(table, "ann", [seq_of(w, table, "ann", 2)], rows_of(table, [(2, "new", 0)]))
        )
        engine.commit_sync(lambda w: w.delete(table, "ann", w.find(table, "ann", [key_of(table, 0)])))
        produce_sync(engine, topic, 3, size=1_500)
        claim_sync(engine, topic, messages=4)
        claim_sync(engine, topic, messages=2)
    assert check(folder) == []
    return Planted(topic, table)


def encode_runs(runs: Sequence[Run]) -> bytes:
    return b"".join(SizedRun(run, 0).body for run in runs)


def first(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> tuple[bytes, EntryHead, list[Run]]:
    """The first entry of partition 0."""
    key = entry_key(planted.topic.topic_id, 0, 0)
    value = bytes(txn.get(key, db=dbs.topics))
    return key, read_head(value), decode_entry(key, value)


def second(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> tuple[bytes, bytes]:
    """The key and value of the second entry of partition 0."""
    cursor = txn.cursor(db=dbs.topics)
    assert cursor.set_range(entry_key(planted.topic.topic_id, 0, 1))
    assert int.from_bytes(cursor.key()[4:8], "big") == 0
    return bytes(cursor.key()), bytes(cursor.value())


def put_runs(
    txn: lmdb.Transaction, dbs: Databases, planted: Planted, change: Callable[[RowRun], RowRun], operation: Operation
) -> None:
    """Rewrite the runs of one kind in the first entry."""
    key, head, runs = first(txn, dbs, planted)
    assert any(isinstance(run, RowRun) and run.operation is operation for run in runs)
    runs = [change(run) if isinstance(run, RowRun) and run.operation is operation else run for run in runs]
    txn.put(key, encode_entry(head, encode_runs(runs)), db=dbs.topics)


def put_state(txn: lmdb.Transaction, dbs: Databases, planted: Planted, state: GroupState, partition: int = 0) -> None:
    txn.put(group_key(planted.topic.topic_id, partition, "g"), encode_state(state), db=dbs.offsets)


def flipped(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    key, value = second(txn, dbs, planted)
    txn.put(key, value[:-9] + bytes([value[-9] ^ 1]) + value[-8:], db=dbs.topics)


def cut(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    key, value = second(txn, dbs, planted)
    txn.put(key, value[:20], db=dbs.topics)


def odd_key(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    txn.put(entry_key(planted.topic.topic_id, 0, 0)[:-1], second(txn, dbs, planted)[1], db=dbs.topics)


def miscounted(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    key, head, runs = first(txn, dbs, planted)
    txn.put(key, encode_entry(head._replace(messages=head.messages + 1), encode_runs(runs)), db=dbs.topics)


def lost_between(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    key, head, runs = first(txn, dbs, planted)
    left = runs[:-1]
    count = sum(run.count for run in left)
    txn.put(key, encode_entry(head._replace(messages=count), encode_runs(left)), db=dbs.topics)


def empty_between(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    key, value = second(txn, dbs, planted)
    head = read_head(value)
    txn.delete(entry_key(planted.topic.topic_id, 0, 0), db=dbs.topics)
    txn.put(
        key[:-8] + (int.from_bytes(key[-8:], "big") - 1).to_bytes(8, "big"),
        empty_entry(0, head.first_us),
        db=dbs.topics,
    )


def back_in_time(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    key, value = second(txn, dbs, planted)
    head = read_head(value)
    runs = decode_entry(key, value)
    txn.put(key, encode_entry(head._replace(first_us=1, last_us=1), encode_runs(runs)), db=dbs.topics)


def floor_back(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    key, value = second(txn, dbs, planted)
    runs = decode_entry(key, value)
    txn.put(key, encode_entry(read_head(value)._replace(floor_seq=-1), encode_runs(runs)), db=dbs.topics)


def floor_high(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    key, head, runs = first(txn, dbs, planted)
    assert isinstance(runs[0], RowRun)
    txn.put(key, encode_entry(head._replace(floor_seq=runs[0].first), encode_runs(runs)), db=dbs.topics)


def stray(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    txn.put(entry_key(4711, 0, 0), empty_entry(0, 0), db=dbs.topics)


def partition_too_many(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    txn.put(entry_key(planted.topic.topic_id, 7, 0), empty_entry(0, 0), db=dbs.topics)


def row_not_stored(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    put_runs(txn, dbs, planted, lambda run: msgspec.structs.replace(run, first=run.first + 900), Operation.UPDATE)


def old_not_stored(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    gone = (999).to_bytes(8, "little")
    put_runs(txn, dbs, planted, lambda run: msgspec.structs.replace(run, olds=gone), Operation.UPDATE)


def deleted_not_stored(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    gone = (999).to_bytes(8, "little")
    put_runs(txn, dbs, planted, lambda run: msgspec.structs.replace(run, olds=gone), Operation.DELETE)


def other_user(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    put_runs(txn, dbs, planted, lambda run: msgspec.structs.replace(run, user="eve"), Operation.INSERT)


def unknown_table(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    put_runs(txn, dbs, planted, lambda run: msgspec.structs.replace(run, table_id=4711), Operation.INSERT)


def not_ascending(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    seqs = (0).to_bytes(4, "little") * 2
    put_runs(txn, dbs, planted, lambda run: msgspec.structs.replace(run, seqs=seqs), Operation.INSERT)


def state_flipped(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    key = group_key(planted.topic.topic_id, 0, "g")
    value = bytes(txn.get(key, db=dbs.offsets))
    txn.put(key, value[:-1] + bytes([value[-1] ^ 1]), db=dbs.offsets)


def state_too_far(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    put_state(txn, dbs, planted, GroupState(900))


def claims_overlap(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    put_state(txn, dbs, planted, GroupState(4, claims=(Claim(0, 2, 9, 1, "a"), Claim(2, 3, 9, 1, "b"))))


def claim_ahead(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    put_state(txn, dbs, planted, GroupState(2, claims=(Claim(0, 2, 9, 1, "a"),)))


def claim_backwards(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    put_state(txn, dbs, planted, GroupState(4, claims=(Claim(3, 1, 9, 1, "a"),)))


def acked_too_much(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    put_state(txn, dbs, planted, GroupState(4, acked=2, claims=(Claim(1, 2, 9, 1, "a"),)))


def group_of_no_topic(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    txn.put(group_key(4711, 0, "g"), encode_state(GroupState(0)), db=dbs.offsets)


def group_of_no_partition(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    put_state(txn, dbs, planted, GroupState(0), partition=9)


def group_without_name(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    txn.put(group_key(planted.topic.topic_id, 0, "g")[:-1], encode_state(GroupState(0)), db=dbs.offsets)


def put_topic(txn: lmdb.Transaction, dbs: Databases, topic: TopicDef) -> None:
    txn.put(object_key(TOPIC, table_name(topic.topic_id)), msgspec.msgpack.encode(topic), db=dbs.catalog)


def topic_twice(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    put_topic(txn, dbs, msgspec.structs.replace(planted.topic, topic_id=0))


def topic_nowhere(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    put_topic(txn, dbs, msgspec.structs.replace(planted.topic, namespace="gone"))


def source_of_nothing(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    sources = tuple(msgspec.structs.replace(source, table_id=4711) for source in planted.topic.sources)
    put_topic(txn, dbs, msgspec.structs.replace(planted.topic, sources=sources))


def source_not_referred(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    put_topic(txn, dbs, msgspec.structs.replace(planted.topic, referred=()))


def topic_broken(txn: lmdb.Transaction, dbs: Databases, planted: Planted) -> None:
    txn.put(object_key(TOPIC, table_name(planted.topic.topic_id)), b"\xc1", db=dbs.catalog)


@pytest.mark.parametrize(
    ("plant", "structure", "words"),
    [
        (flipped, "topics", "checksum"),
        (cut, "topics", "less than its header"),
        (odd_key, "topics", "has 15 bytes"),
        (miscounted, "topics", "count different messages"),
        (lost_between, "topics", "the entry before ends at"),
        (empty_between, "topics", "follows an empty entry"),
        (back_in_time, "topics", "its time lies before"),
        (floor_back, "topics", "its floor"),
        (floor_high, "topics", "not above the floor"),
        (stray, "topics", "belongs to no topic"),
        (partition_too_many, "topics", "has 2 partitions, but there is a 7"),
        (row_not_stored, "topics", "which is not stored"),
        (old_not_stored, "topics", "_seq 999, which is not stored"),
        (deleted_not_stored, "topics", "_seq 999, which is not stored"),
        (other_user, "topics", "which is not stored"),
        (unknown_table, "topics", "table id 4711"),
        (not_ascending, "topics", "do not ascend"),
        (state_flipped, "offsets", "does not match its checksum"),
        (state_too_far, "offsets", "stands at offset 900"),
        (claims_overlap, "offsets", "claim of 2 to 3 is out of place"),
        (claim_ahead, "offsets", "claim of 0 to 2 is out of place"),
        (claim_backwards, "offsets", "claim of 3 to 1 is out of place"),
        (acked_too_much, "offsets", "acknowledged up to 2, but 1 is not"),
        (group_of_no_topic, "offsets", "belongs to no topic"),
        (group_of_no_partition, "offsets", "but there is a 9"),
        (group_without_name, "offsets", "ends inside its partition"),
        (topic_twice, "catalog", "exists twice"),
        (topic_nowhere, "catalog", "namespace that does not exist"),
        (source_of_nothing, "catalog", "source in table id 4711"),
        (source_not_referred, "catalog", "has a source in table id"),
        (topic_broken, "catalog", "does not decode"),
    ],
)
def test_planted_damage_is_found(folder: Path, planted: Planted, plant: Plant, structure: str, words: str) -> None:
    with damage(folder) as (txn, dbs):
        plant(txn, dbs, planted)
    problems = check(folder)
    assert any(problem.structure == structure and words in problem.message for problem in problems), problems


def test_damage_of_an_entry_is_an_error_for_its_readers_only(folder: Path, planted: Planted) -> None:
    with damage(folder) as (txn, dbs):
        flipped(txn, dbs, planted)
    with StorageEngine.open(folder, QUIET) as engine:
        with pytest.raises(StorageCorrupt, match="partition 0, entry of offset"):
            messages_of(engine, planted.topic)
        assert produce_sync(engine, planted.topic, 1, partition=1) == [2]
        with engine.snapshot() as snapshot:
            assert snapshot.count(planted.table, "ann") == 3


@pytest.mark.parametrize("plant", [flipped, cut, odd_key, miscounted])
def test_damage_of_an_entry_keeps_no_folder_from_being_opened(folder: Path, planted: Planted, plant: Plant) -> None:
    with damage(folder) as (txn, dbs):
        plant(txn, dbs, planted)
    with StorageEngine.open(folder, QUIET) as engine, engine.snapshot() as snapshot:
        assert snapshot.count(planted.table, "ann") == 3


def test_a_topic_of_produced_messages_only(folder: Path) -> None:
    with StorageEngine.open(folder, QUIET) as engine:
        topic = create_topic(engine)
        produce_sync(engine, topic, 3)
        value = encode_entry(EntryHead(1, 0, 0, 0, 0), encode_runs([ProducedRun(0, "", (None,), (b"x",))]))
        assert engine.check() == []
    with damage(folder) as (txn, dbs):
        txn.put(entry_key(topic.topic_id, 0, 7), value, db=dbs.topics)
    assert any("the entry before ends at offset 3" in problem.message for problem in check(folder))
