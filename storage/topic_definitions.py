"""Definitions of topics: their partitions, retention and sources.

A topic is a durable, partitioned feed of messages. Its sources say which changes of which tables become messages;
others are produced directly. Definitions stand in the catalog under the topic's id, which comes from the same counter
as table ids and is never used again.
"""

from __future__ import annotations

import enum
from functools import cached_property

import msgspec

MAX_PARTITIONS = 1024
"""Most partitions of one topic; their number never changes, because it decides where a key goes."""


class Operation(enum.IntEnum):
    """What happened to a row; the value is stored."""

    INSERT = 0
    UPDATE = 1
    DELETE = 2


class PayloadMode(enum.IntEnum):
    """What the payload of a message shows of its row; the value is stored."""

    FULL = 0
    KEY = 1
    DIFF = 2


class TopicSource(msgspec.Struct, frozen=True):
    """Changes of one kind to one table that become messages of a topic.

    `condition` is canonical SQL text over the table's columns, None for every row. It is asked of the new row for
    inserts and updates, of the old row for deletes. `columns` are the ids of those that payloads show; empty: all.
    """

    source_id: int
    table_id: int
    operation: Operation
    payload: PayloadMode = PayloadMode.FULL
    condition: str | None = None
    columns: tuple[int, ...] = ()


class TopicDef(msgspec.Struct, frozen=True, dict=True):
    """A topic.

    `retention_seconds` and `retention_bytes`: older messages go, and the oldest beyond the bytes; 0 for no bound.
    A message that was delivered `max_deliveries` times without an acknowledgement goes to the topic `dead_letter`
    (None: the topic's own name with `_dead_letter`); 0 is the server's default, -1 never. `cleared` holds, for each
    partition, the offset below which CLEAR TOPIC took everything away. `referred` are the tables that retained
    messages may refer to: those of `sources` and of former ones.
    """

    topic_id: int
    namespace: str
    name: str
    partitions: int = 1
    retention_seconds: int = 7 * 86_400
    retention_bytes: int = 1 << 30
    max_deliveries: int = 0
    dead_letter: str | None = None
    sources: tuple[TopicSource, ...] = ()
    referred: tuple[int, ...] = ()
    next_source_id: int = 1
    cleared: tuple[int, ...] = ()
    owner: str = ""
    created_at: int = 0
    updated_at: int = 0

    @cached_property
    def full_name(self) -> str:
        """`namespace.name`, which is the topic's id for clients."""
        return f"{self.namespace}.{self.name}"

    def cleared_below(self, partition: int) -> int:
        """The offset below which a partition was cleared."""
        return self.cleared[partition] if partition < len(self.cleared) else 0
