"""Topics for the storage tests: definitions, a router without SQL, and every message of a topic with what it shows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from storage import StorageEngine, TableDef, WriteTransaction
from storage.catalog import Catalog, NamespaceDef
from storage.errors import PublishFailed
from storage.layout import layout_of
from storage.reading import Reader
from storage.retention import dropped_definition
from storage.topic_definitions import Operation, PayloadMode, TopicDef, TopicSource
from storage.topic_groups import GroupState, decode_state, group_key
from storage.topic_log import Bounds, bounds, read_spans
from storage.topic_publishing import PublishedRows, Routed
from storage.topic_runs import Origin, ProducedRun, RowRun
from storage.topic_writes import Claimed, ClaimRequest, ClaimResult, Produced, acknowledge_upto, claim, produce
from storage.versions import read_versions

SECOND = 1_000_000
POISON = -666
"""An `amount` that the router refuses."""


class IdRouter:
    """Partition: `id` modulo the number of partitions. Condition: a divisor of `id`."""

    def route(self, topic: TopicDef, source: TopicSource, table: TableDef, rows: PublishedRows) -> Routed:
        if source.condition is None and topic.partitions == 1:
            return Routed(None, None)
        ids = rows.batch.column("id").to_numpy()
        if POISON in rows.batch.column("amount").to_pylist():
            raise PublishFailed("poison")
        kept = None if source.condition is None else np.flatnonzero(ids % int(source.condition) == 0)
        if topic.partitions == 1:
            return Routed(kept, None)
        partitions = (ids % topic.partitions).astype(np.int64)
        return Routed(kept, partitions if kept is None else partitions[kept])

    def rendered(self, run: RowRun, catalog: Catalog, reader: Reader) -> ProducedRun:
        rows = shown_rows(reader, catalog, run)
        payloads = tuple(msgspec.json.encode(row) for row in rows)
        keys = tuple(str(row[0]) for row in rows)
        return ProducedRun(run.timestamp_us, run.user, keys, payloads, run.operation)


class Message(NamedTuple):
    """A message as it is read: of a row the `_seq` and the values of the version that it shows."""

    partition: int
    offset: int
    operation: Operation
    user: str
    seq: int
    row: tuple[object, ...] | None
    old: tuple[object, ...] | None
    key: str | None = None
    payload: bytes | None = None
    origin: Origin | None = None


def topic_def(topic_id: int, name: str, sources: Sequence[TopicSource] = (), **more: object) -> TopicDef:
    """A topic with sources."""
    numbered = tuple(msgspec.structs.replace(source, source_id=n) for n, source in enumerate(sources, start=1))
    referred = tuple(sorted({source.table_id for source in sources}))
    topic = TopicDef(topic_id, "app", name, sources=numbered, referred=referred, next_source_id=len(numbered) + 1)
    return msgspec.structs.replace(topic, **more)


def create_topic(
    engine: StorageEngine, name: str = "events", sources: Sequence[TopicSource] = (), **more: object
) -> TopicDef:
    """Create the namespace and a topic."""

    def work(wtxn: WriteTransaction) -> TopicDef:
        if wtxn.catalog.namespace("app") is None:
            wtxn.put_namespace(NamespaceDef("app"))
        topic = topic_def(wtxn.allocate_table_id(), name, sources, **more)
        wtxn.put_topic(topic)
        return topic

    return engine.commit_sync(work)


def change_topic(engine: StorageEngine, topic: TopicDef, **more: object) -> TopicDef:
    """Alter a topic."""

    def work(wtxn: WriteTransaction) -> TopicDef:
        present = wtxn.catalog.topic_by_id(topic.topic_id)
        assert present is not None
        changed = msgspec.structs.replace(present, **more)
        wtxn.put_topic(changed)
        return changed

    return engine.commit_sync(work)


def every_operation(
    table: TableDef, payload: PayloadMode = PayloadMode.DIFF, condition: str | None = None
) -> list[TopicSource]:
    """Sources for inserts, updates and deletes."""
    return [TopicSource(0, table.table_id, operation, payload, condition) for operation in Operation]


def all_bounds(engine: StorageEngine, topic: TopicDef) -> list[Bounds]:
    """The bounds of each partition."""
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        return [
            bounds(reader, topic.topic_id, number, topic.cleared_below(number)) for number in range(topic.partitions)
        ]


def messages_of(engine: StorageEngine, topic: TopicDef) -> list[Message]:
    """Every message that is there, by partition and offset, with the rows that it refers to."""
    found: list[Message] = []
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        for number in range(topic.partitions):
            place = bounds(reader, topic.topic_id, number, topic.cleared_below(number))
            expected = place.first
            for offset, run in read_spans(reader, topic.topic_id, number, place.first, place.next - 1):
                assert offset == expected, "a gap in the offsets"
                found += _messages(reader, snapshot.catalog, number, offset, run)
                expected += run.count
            assert expected == place.next
    return found


def _messages(reader: Reader, catalog: Catalog, number: int, offset: int, run: RowRun | ProducedRun) -> list[Message]:
    if isinstance(run, ProducedRun):
        return [
            Message(number, offset + n, run.operation, run.user, 0, None, None, key, payload,
                    run.origin.after(n) if run.origin else None)
            for n, (key, payload) in enumerate(zip(run.keys, run.payloads, strict=True))
        ]  # fmt: skip
    shown = shown_rows(reader, catalog, run)
    olds: list[tuple[object, ...] | None] = [None] * run.count
    if run.olds and run.operation is Operation.UPDATE:
        olds = list(versions(reader, catalog, run, run.old_seqs()))
    return [
        Message(number, offset + n, run.operation, run.user, seq, row, old)
        for n, (seq, row, old) in enumerate(zip(run.event_seqs().tolist(), shown, olds, strict=True))
    ]


def shown_rows(reader: Reader, catalog: Catalog, run: RowRun) -> list[tuple[object, ...]]:
    """The rows that a run shows."""
    return versions(reader, catalog, run, run.old_seqs() if run.operation is Operation.DELETE else run.event_seqs())


def versions(reader: Reader, catalog: Catalog, run: RowRun, seqs: object) -> list[tuple[object, ...]]:
    """Row versions in the order asked; all of them must be stored."""
    table = catalog.table_by_id(run.table_id) or dropped_definition(reader, run.table_id)
    assert table is not None, "the table of a message is not known"
    wanted = np.asarray(seqs, dtype=np.int64)
    order = np.argsort(wanted)
    rows = read_versions(reader, layout_of(table), run.user, wanted[order])
    assert rows.num_rows == len(wanted), "a row version that a message shows is gone"
    return [
        tuple(row.values())
        for row in rows.take(pa.array(np.argsort(order))).select(table.arrow_schema.names).to_pylist()
    ]


def produce_sync(
    engine: StorageEngine, topic: TopicDef, count: int = 1, *, partition: int | None = 0, size: int = 1
) -> list[int]:
    """Produce messages; their offsets."""
    messages = [Produced(b"%0*d" % (size, n), f"k{n}", partition) for n in range(count)]
    return [placed.offset for placed in engine.commit_sync(lambda wtxn: produce(wtxn, topic, messages, "ann"))]


def claim_sync(engine: StorageEngine, topic: TopicDef, **more: object) -> ClaimResult:
    """Claim for a group; the topic as the catalog has it."""
    request = msgspec.structs.replace(ClaimRequest("g", "=a", 100, 1 << 20, 60 * SECOND, start="earliest"), **more)

    def work(wtxn: WriteTransaction) -> ClaimResult:
        present = wtxn.catalog.topic_by_id(topic.topic_id)
        assert present is not None
        return claim(wtxn, present, request)

    return engine.commit_sync(work)


def ack_in(
    wtxn: WriteTransaction,
    topic: TopicDef,
    upto: int | None,
    *,
    group: str = "g",
    partition: int = 0,
    holder: str = "=a",
    back: bool = False,
    gone: Collection[str] = (),
) -> int:
    """Acknowledge; `gone` are the connections that are closed."""
    return acknowledge_upto(wtxn, topic, group, partition, upto, holder, back=back, is_gone=gone.__contains__)


def ranges(result: ClaimResult) -> list[tuple[int, int, int, int]]:
    """What a claim gave, as plain tuples."""
    return [tuple(claimed) for claimed in result.claimed]  # type: ignore[misc]


def offsets_of(claimed: Sequence[Claimed]) -> list[tuple[int, int]]:
    """(partition, offset) of everything that was handed out."""
    return [(c.partition, offset) for c in claimed for offset in range(c.first, c.last + 1)]


def state_of(engine: StorageEngine, topic: TopicDef, group: str = "g", partition: int = 0) -> GroupState | None:
    """The stored state of a group."""
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        key = group_key(topic.topic_id, partition, group)
        value = reader.txn.get(key, db=reader.dbs.offsets)
        return None if value is None else decode_state(key, value)
