"""System tables over topics: their definitions, and where consumer groups stand."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pyarrow as pa

from sql.system_tables import SYSTEM, Rows, Sought, SystemColumn, SystemContext, SystemTable
from storage.topic_definitions import TopicDef
from storage.types import BIGINT, BYTES, INT, JSON, TEXT, TIMESTAMP
from storage.views import ReadView

_TOPIC_COLUMNS = (
    SystemColumn("topic_id", TEXT, nullable=False),
    SystemColumn("name", TEXT, nullable=False),
    SystemColumn("alias", TEXT),
    SystemColumn("partitions", INT, nullable=False),
    SystemColumn("retention_seconds", BIGINT),
    SystemColumn("retention_max_bytes", BIGINT),
    SystemColumn("routes", JSON, nullable=False),
    SystemColumn("created_at", TIMESTAMP, nullable=False),
    SystemColumn("updated_at", TIMESTAMP, nullable=False),
)
_OFFSET_COLUMNS = (
    SystemColumn("topic_id", TEXT, nullable=False),
    SystemColumn("group_id", TEXT, nullable=False),
    SystemColumn("partition_id", INT, nullable=False),
    SystemColumn("last_acked_offset", BIGINT),
    SystemColumn("updated_at", TIMESTAMP, nullable=False),
    SystemColumn("position", BIGINT, nullable=False),
    SystemColumn("next_offset", BIGINT, nullable=False),
    SystemColumn("lag", BIGINT, nullable=False),
    SystemColumn("claims", INT, nullable=False),
    SystemColumn("pending", BIGINT, nullable=False),
)


_MESSAGE_COLUMNS = (
    SystemColumn("topic_id", TEXT, nullable=False),
    SystemColumn("partition_id", INT, nullable=False),
    SystemColumn("offset", BIGINT, nullable=False),
    SystemColumn("key", TEXT),
    SystemColumn("payload", BYTES, nullable=False),
    SystemColumn("timestamp_ms", BIGINT, nullable=False),
    SystemColumn("user_id", TEXT, nullable=False),
    SystemColumn("op", TEXT, nullable=False),
)


def _topic_rows(view: ReadView, context: SystemContext) -> Rows:
    """One row for each topic. Nothing has an alias: names are what topics are called by."""
    for topic in view.catalog.topics():
        yield (
            topic.full_name, topic.name, None, topic.partitions, topic.retention_seconds or None,
            topic.retention_bytes or None, _routes(topic, view), topic.created_at, topic.updated_at,
        )  # fmt: skip


def _routes(topic: TopicDef, view: ReadView) -> str:
    """The sources as JSON text."""
    routes = []
    for source in topic.sources:
        table = view.catalog.table_by_id(source.table_id)
        if table is not None:
            routes.append({
                "table_id": table.full_name,
                "op": source.operation.name.capitalize(),
                "payload_mode": source.payload.name.lower(),
                "filter": source.condition,
            })  # fmt: skip
    return msgspec.json.encode(routes).decode()


def _offset_rows(view: ReadView, context: SystemContext) -> Rows:
    """One row for each group in each partition that it has come to."""
    for position in view.topic_groups():
        state = position.state
        yield (
            position.topic.full_name, position.group, position.partition, state.acked if state.acked >= 0 else None,
            state.updated_us, state.position, position.bounds.next, position.lag, len(state.claims), position.pending,
        )  # fmt: skip


def _messages(view: ReadView, context: SystemContext, sought: Sought, wanted: frozenset[str]) -> Mapping[str, pa.Array]:
    """One row for each retained message that is sought; payloads are made only when they are asked for."""
    topics = context.topics
    found = [] if topics is None else topics.messages(view, sought, bodies=not wanted.isdisjoint(("key", "payload")))
    return {
        "topic_id": pa.array([topic.full_name for topic, _ in found], pa.string()),
        "partition_id": pa.array([message.partition for _, message in found], pa.int32()),
        "offset": pa.array([message.offset for _, message in found], pa.int64()),
        "key": pa.array([message.key for _, message in found], pa.string()),
        "payload": pa.array([message.payload for _, message in found], pa.binary()),
        "timestamp_ms": pa.array([message.timestamp_us // 1000 for _, message in found], pa.int64()),
        "user_id": pa.array([message.user for _, message in found], pa.string()),
        "op": pa.array([message.operation.name.lower() for _, message in found], pa.string()),
    }


MESSAGES_TABLE = SystemTable(
    SYSTEM, "topic_messages", _MESSAGE_COLUMNS, fill=_messages, key=("topic_id", "partition_id", "offset"),
    seek=("topic_id", "partition_id", "offset"),
)  # fmt: skip
TOPICS_TABLE = SystemTable(SYSTEM, "topics", _TOPIC_COLUMNS, _topic_rows, key=("topic_id",))
OFFSETS_TABLE = SystemTable(
    SYSTEM, "topic_offsets", _OFFSET_COLUMNS, _offset_rows, key=("topic_id", "group_id", "partition_id")
)
