"""CREATE, ALTER, DROP and CLEAR TOPIC, carried out on the writer's transaction.

An option has three states: not written (the server's default, or what the topic has), a number, and NULL, which means
no bound. Storage has 0 for no bound of retention, and for deliveries 0 for the server's default and -1 for none.
"""

from __future__ import annotations

from typing import TypedDict, cast

import msgspec

from sql.binder import BindContext
from sql.create_table import SYSTEM_NAMESPACES
from sql.ddl import require_table
from sql.errors import ExecutionError, InvalidInput, PermissionDenied
from sql.jobs.cleanup import stage_topic_cleanup
from sql.names import check_topic_name
from sql.namespaces import require_namespace
from sql.results import StatementResult
from sql.topic_statements import (
    AddTopicSource,
    AlterTopicOptions,
    ClearTopic,
    CreateTopic,
    DropTopic,
    DropTopicSource,
    TopicDefinition,
)
from sql.topics.names import check_may_define, require_topic
from sql.topics.settings import TopicSettings
from sql.topics.sources import OPERATIONS, shown_operations, sources_of
from sql.views.simple import source_over_table, table_behind
from sql.writing import StatementContext
from storage.topic_definitions import MAX_PARTITIONS, TopicDef
from storage.topic_writes import NEVER
from storage.writer import WriteTransaction

WrittenOptions = dict[str, int | str | None]


class _Options(TypedDict, total=False):
    """Options as fields of TopicDef."""

    retention_seconds: int
    retention_bytes: int
    max_deliveries: int
    dead_letter: str | None


def run(
    statement: TopicDefinition,
    wtxn: WriteTransaction,
    context: StatementContext,
    binding: BindContext,
    settings: TopicSettings,
) -> StatementResult:
    """Carry out one statement; all of them are for dba and system."""
    check_may_define(context.identity)
    if isinstance(statement, CreateTopic):
        return _create(statement, wtxn, context, settings)
    if isinstance(statement, DropTopic):
        namespace = statement.topic.namespace or context.namespace
        if statement.if_exists and wtxn.catalog.topic(namespace, statement.topic.name) is None:
            return StatementResult(message=f"Topic '{namespace}.{statement.topic.name}' does not exist (skipped)")
    topic = require_topic(statement.topic, wtxn.catalog, context)
    if isinstance(statement, DropTopic):
        wtxn.drop_topic(topic.topic_id)
        return StatementResult(
            message=f"Dropped topic '{topic.full_name}' and scheduled cleanup job [{_cleanup(topic, wtxn, context)}]"
        )
    if isinstance(statement, ClearTopic):
        return _clear(topic, wtxn, context)
    if isinstance(statement, AddTopicSource):
        return _add_source(statement, topic, wtxn, context, binding)
    if isinstance(statement, DropTopicSource):
        return _drop_source(statement, topic, wtxn, context, binding)
    return _alter(statement, topic, wtxn)


def _create(
    statement: CreateTopic, wtxn: WriteTransaction, context: StatementContext, settings: TopicSettings
) -> StatementResult:
    name = statement.topic.name
    namespace = statement.topic.namespace or context.namespace
    full_name = f"{namespace}.{name}"
    if namespace in SYSTEM_NAMESPACES:
        raise PermissionDenied(f"Permission denied: topics cannot be created in namespace '{namespace}'")
    require_namespace(wtxn, namespace)
    if wtxn.catalog.topic(namespace, name) is not None:
        if statement.if_not_exists:
            return StatementResult(message=f"Topic '{full_name}' already exists (skipped)")
        raise ExecutionError(f"Already exists: Topic '{full_name}' already exists")
    check_topic_name(name)
    if statement.partitions > MAX_PARTITIONS:
        raise ExecutionError(
            f"Invalid operation: a topic has at most {MAX_PARTITIONS:,} partitions, not {statement.partitions:,}"
        )
    now = wtxn.now_us()
    topic = TopicDef(
        topic_id=wtxn.allocate_table_id(), namespace=namespace, name=name, partitions=statement.partitions,
        retention_seconds=settings.retention_seconds, retention_bytes=settings.retention_bytes,
        owner=context.identity.user, created_at=now, updated_at=now,
    )  # fmt: skip
    wtxn.put_topic(msgspec.structs.replace(topic, **_options(statement.options, topic, wtxn)))
    return StatementResult(message=f"Created topic '{full_name}' with {statement.partitions} partition(s)")


def _options(written: WrittenOptions, topic: TopicDef, wtxn: WriteTransaction) -> _Options:
    """The written options as fields of the definition."""
    found: _Options = {}
    if "retention_seconds" in written:
        found["retention_seconds"] = cast("int | None", written["retention_seconds"]) or 0
    if "retention_bytes" in written:
        found["retention_bytes"] = cast("int | None", written["retention_bytes"]) or 0
    if "max_deliveries" in written:
        found["max_deliveries"] = cast("int | None", written["max_deliveries"]) or NEVER
    if "dead_letter_topic" in written:
        found["dead_letter"] = _dead_letter(cast("str | None", written["dead_letter_topic"]), topic, wtxn)
    return found


def _dead_letter(name: str | None, topic: TopicDef, wtxn: WriteTransaction) -> str | None:
    """The topic that takes what cannot be delivered; it is made when it is needed."""
    if name is None:
        return None
    if name == topic.full_name:
        raise InvalidInput(f"The dead-letter topic of '{name}' cannot be the topic itself.")
    namespace, _, own = name.partition(".")
    if namespace in SYSTEM_NAMESPACES:
        raise PermissionDenied(f"Permission denied: topics cannot be created in namespace '{namespace}'")
    require_namespace(wtxn, namespace)
    if wtxn.catalog.topic(namespace, own) is None:
        check_topic_name(own)
    return name


def _alter(statement: AlterTopicOptions, topic: TopicDef, wtxn: WriteTransaction) -> StatementResult:
    changed = msgspec.structs.replace(topic, **_options(statement.options, topic, wtxn))
    if changed != topic:
        wtxn.put_topic(msgspec.structs.replace(changed, updated_at=wtxn.now_us()))
    return StatementResult(message=f"Altered topic '{topic.full_name}'")


def _clear(topic: TopicDef, wtxn: WriteTransaction, context: StatementContext) -> StatementResult:
    cleared = tuple(
        wtxn.topics.bounds(topic.topic_id, partition, topic.cleared_below(partition)).next
        for partition in range(topic.partitions)
    )
    wtxn.put_topic(msgspec.structs.replace(topic, cleared=cleared, updated_at=wtxn.now_us()))
    job_id = _cleanup(topic, wtxn, context)
    return StatementResult(message=f"Scheduled cleanup job [{job_id}] for topic '{topic.full_name}'")


def _add_source(
    statement: AddTopicSource,
    topic: TopicDef,
    wtxn: WriteTransaction,
    context: StatementContext,
    binding: BindContext,
) -> StatementResult:
    statement = source_over_table(statement, binding)
    table = require_table(statement.table, wtxn, context, "a source of a topic")
    added = sources_of(statement, topic, table, binding)
    referred = topic.referred if table.table_id in topic.referred else (*topic.referred, table.table_id)
    wtxn.put_topic(
        msgspec.structs.replace(
            topic, sources=(*topic.sources, *added), referred=referred, updated_at=wtxn.now_us(),
            next_source_id=topic.next_source_id + len(added),
        )
    )  # fmt: skip
    shown = shown_operations(tuple(source.operation for source in added))
    return StatementResult(message=f"Added source {table.full_name} ON {shown} to topic '{topic.full_name}'")


def _drop_source(
    statement: DropTopicSource,
    topic: TopicDef,
    wtxn: WriteTransaction,
    context: StatementContext,
    binding: BindContext,
) -> StatementResult:
    """Messages that the source brought stay, so `referred` does, too."""
    table = require_table(table_behind(statement.table, binding), wtxn, context, "a source of a topic")
    present = tuple(source.operation for source in topic.sources if source.table_id == table.table_id)
    wanted = tuple(OPERATIONS[name] for name in statement.operations) or present
    missing = tuple(operation for operation in wanted if operation not in present)
    if missing or not wanted:
        which = f" ON {shown_operations(missing)}" if missing else ""
        raise ExecutionError(f"Not found: Topic '{topic.full_name}' has no source {table.full_name}{which}")
    left = tuple(
        source for source in topic.sources if source.table_id != table.table_id or source.operation not in wanted
    )
    wtxn.put_topic(msgspec.structs.replace(topic, sources=left, updated_at=wtxn.now_us()))
    return StatementResult(
        message=f"Removed source {table.full_name} ON {shown_operations(wanted)} from topic '{topic.full_name}'"
    )


def _cleanup(topic: TopicDef, wtxn: WriteTransaction, context: StatementContext) -> str:
    """The id of the job that gives back what the topic's messages took."""
    return stage_topic_cleanup(wtxn, topic, context.identity.user)
