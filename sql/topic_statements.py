"""Statements about topics: one frozen dataclass for each kind, as in `sql.statements`.

A topic's name is a `TableName`: without a namespace it takes the request's. Where a number or a group may be written as
`$n`, the field holds a `RequestParameter`; `sql.topic_arguments` finds its value when the statement runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, TypeAlias

from sqlglot import exp

from sql.table_name import TableName
from storage.types import ColumnType

SourceOperation: TypeAlias = Literal["insert", "update", "delete"]
PayloadKind: TypeAlias = Literal["full", "key", "diff"]
Edge: TypeAlias = Literal["latest", "earliest"]


@dataclass(frozen=True, slots=True)
class RequestParameter:
    """`$n`, and its place in the request's text."""

    index: int
    line: int = 1
    column: int = 1


Number: TypeAlias = int | RequestParameter
GroupName: TypeAlias = str | RequestParameter
Position: TypeAlias = Edge | int | RequestParameter
"""Where a group reads on: behind the newest message, at the oldest one, or at an offset."""


# --- definitions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreateTopic:
    """CREATE TOPIC [IF NOT EXISTS] ns.t [PARTITIONS n] [WITH (option = value, …)].

    `options` by lower-case name: `retention_seconds`, `retention_bytes` and `max_deliveries` are positive integers,
    `dead_letter_topic` a topic's name with its namespace. None was written as NULL: without that bound, or none.
    """

    topic: TableName
    partitions: int = 1
    if_not_exists: bool = False
    options: dict[str, int | str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DropTopic:
    """DROP TOPIC [IF EXISTS] t."""

    topic: TableName
    if_exists: bool = False


@dataclass(frozen=True, slots=True)
class ClearTopic:
    """CLEAR TOPIC t."""

    topic: TableName


@dataclass(frozen=True, slots=True)
class AddTopicSource:
    """ALTER TOPIC t ADD SOURCE ns.t | SELECT … ON operation, … [WHERE condition] [WITH (payload = 'mode')].

    A query is a SELECT from one table: that is `table` then, and the query's WHERE is `condition`. The texts are as
    written.
    """

    topic: TableName
    table: TableName
    operations: tuple[SourceOperation, ...]
    condition: exp.Expression | None = None
    condition_text: str | None = None
    payload: PayloadKind = "full"
    query: exp.Select | None = None
    query_text: str | None = None


@dataclass(frozen=True, slots=True)
class DropTopicSource:
    """ALTER TOPIC t DROP SOURCE ns.t [ON operation, …]; without operations: all of the table's."""

    topic: TableName
    table: TableName
    operations: tuple[SourceOperation, ...] = ()


@dataclass(frozen=True, slots=True)
class AlterTopicOptions:
    """ALTER TOPIC t SET RETENTION (seconds = n, bytes = n) | SET (option = value, …); options as in `CreateTopic`."""

    topic: TableName
    options: dict[str, int | str | None]


# --- messages and groups ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConsumeFrom:
    """CONSUME FROM t [GROUP g] [PARTITION n] [FROM LATEST | EARLIEST | n] [LIMIT n]."""

    topic: TableName
    group: GroupName | None = None
    partition: Number | None = None
    start: Position | None = None
    limit: Number | None = None


@dataclass(frozen=True, slots=True)
class AckTopic:
    """ACK t GROUP g [PARTITION n] UPTO OFFSET n."""

    topic: TableName
    group: GroupName
    upto: Number
    partition: Number = 0


@dataclass(frozen=True, slots=True)
class ResetGroup:
    """RESET CONSUMER GROUP g ON t [PARTITION n] TO EARLIEST | LATEST | [OFFSET] n."""

    topic: TableName
    group: GroupName
    to: Position
    partition: Number | None = None


@dataclass(frozen=True, slots=True)
class MessageValue:
    """KEY or PAYLOAD of a message: a literal or `$n`, perhaps cast to TEXT, JSON or BYTES.

    Numbers are int, Decimal (written with a point) or float (with an exponent); X'…' is bytes.
    """

    value: str | bytes | int | float | Decimal | RequestParameter | None
    type: ColumnType | None = None
    line: int = 1
    column: int = 1


@dataclass(frozen=True, slots=True)
class PublishedMessage:
    """[KEY k] PAYLOAD p."""

    key: MessageValue | None
    payload: MessageValue


@dataclass(frozen=True, slots=True)
class Publish:
    """PUBLISH TO t [KEY k] PAYLOAD p [, [KEY k] PAYLOAD p] and so on."""

    topic: TableName
    messages: tuple[PublishedMessage, ...]


TopicDefinition: TypeAlias = CreateTopic | DropTopic | ClearTopic | AddTopicSource | DropTopicSource | AlterTopicOptions
TopicMessage: TypeAlias = ConsumeFrom | AckTopic | ResetGroup | Publish
TOPIC_DEFINITIONS = (CreateTopic, DropTopic, ClearTopic, AddTopicSource, DropTopicSource, AlterTopicOptions)
TOPIC_MESSAGES = (ConsumeFrom, AckTopic, ResetGroup, Publish)
