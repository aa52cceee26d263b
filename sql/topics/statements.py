"""CONSUME, ACK, RESET CONSUMER GROUP and PUBLISH. Used on worker threads.

ACK and PUBLISH are made ready before they are carried out, so that `BEGIN … COMMIT` can do the same at its end: their
works run in the writer behind the transaction's rows, in its commit. What they answer is known only then; the request
was not answered before, so the rows of the result are filled in by the work. After ROLLBACK they stay NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from sql.audit import record
from sql.audited import action_of
from sql.errors import InvalidInput, MessageTooLarge, SqlError
from sql.results import ResultColumn, StatementResult
from sql.services import Services, StatementContext
from sql.storage_errors import storage_errors
from sql.topic_arguments import group_of, number_of, position_of
from sql.topic_statements import (
    AckTopic,
    ConsumeFrom,
    MessageValue,
    Publish,
    PublishedMessage,
    ResetGroup,
)
from sql.topic_values import key_of, payload_of
from sql.topics.messages import ConsumeRequest, Message
from sql.topics.names import check_may_use, require_topic
from sql.topics.settings import TopicSettings
from storage.catalog import Catalog
from storage.topic_groups import NAMED
from storage.topic_writes import (
    EARLIEST,
    MESSAGE_OVERHEAD,
    Placed,
    Produced,
    acknowledge_upto,
    check_partition,
    produce,
    reset_group,
    topic_named,
)
from storage.types import BIGINT, BYTES, INT, TEXT, arrow_type
from storage.writer import WriteTransaction

DEFAULT_LIMIT = 100
"""Messages that CONSUME gives without LIMIT."""

CONSUMED = (
    ResultColumn("topic_id", TEXT, ("nn",)),
    ResultColumn("partition_id", INT, ("nn",)),
    ResultColumn("offset", BIGINT, ("nn",)),
    ResultColumn("key", TEXT),
    ResultColumn("payload", BYTES, ("nn",)),
    ResultColumn("timestamp_ms", BIGINT, ("nn",)),
    ResultColumn("user", TEXT),
    ResultColumn("op", TEXT, ("nn",)),
    ResultColumn("delivery_count", INT),
)
ACKNOWLEDGED = (
    ResultColumn("topic", TEXT, ("nn",)),
    ResultColumn("group_id", TEXT, ("nn",)),
    ResultColumn("partition", INT, ("nn",)),
    ResultColumn("committed_offset", BIGINT),
)
PUBLISHED = (
    ResultColumn("topic_id", TEXT, ("nn",)),
    ResultColumn("partition_id", INT),
    ResultColumn("offset", BIGINT),
)

Work = Callable[[WriteTransaction], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An ACK or PUBLISH that was checked as far as it can be before the writer runs `work`.

    `work` fills in `result`; it may run more than once, and what counts is its last run. `size` is in bytes.
    """

    work: Work
    result: StatementResult
    size: int = 64
    weight: int = 1


def run(
    statement: ConsumeFrom | AckTopic | ResetGroup | Publish, context: StatementContext, services: Services
) -> StatementResult:
    """Carry out one statement durably. Raises SqlError."""
    with storage_errors():
        if isinstance(statement, ConsumeFrom):
            return _consume(statement, context, services)
        if isinstance(statement, ResetGroup):
            return _reset(statement, context, services)
        prepared = prepare(statement, services.engine.catalog, context, services.topics.settings)
        services.engine.commit_sync(prepared.work, weight=prepared.weight)
        return prepared.result


def prepare(
    statement: AckTopic | Publish, catalog: Catalog, context: StatementContext, settings: TopicSettings
) -> Prepared:
    """Check an ACK or PUBLISH. Raises SqlError, and UnknownPartition."""
    check_may_use(context.identity)
    if isinstance(statement, AckTopic):
        return _ack(statement, catalog, context)
    return _publish(statement, catalog, context, settings)


def holder_of(user: str) -> str:
    """Whose the claims of CONSUME are: those of a user over SQL, whatever the connection, so that ACK covers them."""
    return f"{NAMED}sql:{user}"


# --- consuming --------------------------------------------------------------------------------------------------------


def _consume(statement: ConsumeFrom, context: StatementContext, services: Services) -> StatementResult:
    check_may_use(context.identity)
    settings, params = services.topics.settings, context.params
    topic = require_topic(statement.topic, services.engine.catalog, context)
    limit = DEFAULT_LIMIT if statement.limit is None else number_of(statement.limit, params, least=1)
    if limit > settings.max_batch_messages:
        raise InvalidInput(f"CONSUME gives at most {settings.max_batch_messages:,} messages at a time, not {limit:,}.")
    group = None if statement.group is None else group_of(statement.group, params)
    start = None if statement.start is None else position_of(statement.start, params)
    if group is None and start is None:
        start = EARLIEST  # nothing waits here: after the newest message there is never one
    batch = services.topics.consume_now(
        ConsumeRequest(
            namespace=topic.namespace,
            topic=topic.name,
            group=group,
            start=start,
            limit=limit,
            max_bytes=settings.max_batch_bytes,
            partition=None if statement.partition is None else number_of(statement.partition, params),
            visibility=settings.visibility_timeout,
            holder=holder_of(context.identity.user),
        )
    )
    return _rows(CONSUMED, _consumed(topic.full_name, batch.messages))


def _consumed(topic: str, messages: Sequence[Message]) -> list[Sequence[object]]:
    """The columns of messages."""
    return [
        [topic] * len(messages),
        [message.partition for message in messages],
        [message.offset for message in messages],
        [message.key for message in messages],
        [message.payload for message in messages],
        [message.timestamp_us // 1000 for message in messages],
        [message.user or None for message in messages],
        [message.operation.name.lower() for message in messages],
        [message.deliveries or None for message in messages],
    ]


def _reset(statement: ResetGroup, context: StatementContext, services: Services) -> StatementResult:
    check_may_use(context.identity)
    params = context.params
    topic = require_topic(statement.topic, services.engine.catalog, context)
    group = group_of(statement.group, params)
    partition = None if statement.partition is None else number_of(statement.partition, params)
    to = position_of(statement.to, params)

    def work(wtxn: WriteTransaction) -> None:
        reset_group(wtxn, topic_named(wtxn, topic.namespace, topic.name), group, partition, to)
        details = {"group": group, "partition": partition, "to": to}
        record(wtxn, context, action_of(statement), topic.full_name, details, context.subject)

    services.engine.commit_sync(work)
    return StatementResult(message=f"Reset group '{group}' of topic '{topic.full_name}'")


# --- acknowledging and publishing -------------------------------------------------------------------------------------


def _ack(statement: AckTopic, catalog: Catalog, context: StatementContext) -> Prepared:
    topic = require_topic(statement.topic, catalog, context)
    group = group_of(statement.group, context.params)
    partition = number_of(statement.partition, context.params)
    upto = number_of(statement.upto, context.params)
    check_partition(topic, partition)
    result = _rows(ACKNOWLEDGED, [[topic.full_name], [group], [partition], [None]])

    def work(wtxn: WriteTransaction) -> None:
        found = topic_named(wtxn, topic.namespace, topic.name)
        holder = holder_of(context.identity.user)
        committed = acknowledge_upto(
            wtxn, found, group, partition, upto, holder, back=False, is_gone=lambda other: False
        )
        result.table = _table(ACKNOWLEDGED, [[topic.full_name], [group], [partition], [committed]])

    return Prepared(work, result)


def _publish(statement: Publish, catalog: Catalog, context: StatementContext, settings: TopicSettings) -> Prepared:
    topic = require_topic(statement.topic, catalog, context)
    messages = [_produced(written, context.params, settings) for written in statement.messages]
    names = [topic.full_name] * len(messages)
    nothing = [None] * len(messages)
    result = _rows(PUBLISHED, [names, nothing, nothing])

    def work(wtxn: WriteTransaction) -> None:
        placed: list[Placed] = produce(
            wtxn, topic_named(wtxn, topic.namespace, topic.name), messages, context.identity.user
        )
        result.table = _table(PUBLISHED, [names, [place.partition for place in placed], [p.offset for p in placed]])

    size = sum(len(message.payload) + len(message.key or "") + MESSAGE_OVERHEAD for message in messages)
    return Prepared(work, result, size, max(1, len(messages) // 8))


def _produced(written: PublishedMessage, params: Sequence[object], settings: TopicSettings) -> Produced:
    """A message within the bounds. Raises MessageTooLarge with the place of its value."""
    key, payload = key_of(written.key, params), payload_of(written.payload, params)
    if len(payload) > settings.max_message_bytes:
        raise _too_large("payload", len(payload), settings.max_message_bytes, written.payload)
    if key is not None and len(key.encode()) > settings.max_key_bytes:
        raise _too_large("key", len(key.encode()), settings.max_key_bytes, written.key)
    return Produced(payload, key)


def _too_large(what: str, size: int, limit: int, written: MessageValue | None) -> SqlError:
    line, column = (None, None) if written is None else (written.line, written.column)
    return MessageTooLarge(
        f"The {what} of a message has {size:,} bytes; at most {limit:,} are taken.", line=line, column=column
    )


# --- results ----------------------------------------------------------------------------------------------------------


def _rows(columns: tuple[ResultColumn, ...], values: Sequence[Sequence[object]]) -> StatementResult:
    table = _table(columns, values)
    return StatementResult(columns=columns, table=table, row_count=table.num_rows)


def _table(columns: tuple[ResultColumn, ...], values: Sequence[Sequence[object]]) -> pa.Table:
    arrays = [pa.array(of_column, arrow_type(c.type)) for c, of_column in zip(columns, values, strict=True)]
    return pa.Table.from_arrays(arrays, names=[column.name for column in columns])
