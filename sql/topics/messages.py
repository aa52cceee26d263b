"""Messages and requests of consumers, as the hub, SQL statements and routes share them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from sql.topics.payloads import RunRenderer
from sql.wire import BigintMode
from storage.catalog import Catalog
from storage.reading import Reader
from storage.topic_definitions import Operation
from storage.topic_log import read_spans
from storage.topic_runs import Origin, ProducedRun
from storage.topic_writes import Claimed, Start


class Message(NamedTuple):
    """One message. `deliveries` is 0 where no group asked."""

    partition: int
    offset: int
    key: str | None
    payload: bytes
    timestamp_us: int
    user: str
    operation: Operation
    deliveries: int
    origin: Origin | None


class ConsumeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a consumer asks for; checked by whoever makes it. Times are seconds, `start` None is LATEST for new groups.

    Without a group nothing is claimed: messages are read from `start` on.
    """

    namespace: str
    topic: str
    group: str | None = None
    start: Start | None = None
    limit: int = 100
    max_bytes: int = 8 << 20
    partition: int | None = None
    timeout: float = 0.0
    visibility: float = 60.0
    holder: str = ""
    ordered: bool = False


class Batch(NamedTuple):
    """What a consumer gets: messages, whether there are more at once, and the next offset of each partition asked."""

    messages: Sequence[Message]
    has_more: bool
    positions: dict[int, int]

    @property
    def next_offset(self) -> int:
        """The offset after the last message; without messages, where the first of the partitions stands."""
        if self.messages:
            return self.messages[-1].offset + 1
        return next(iter(self.positions.values()), 0)


def read_messages(
    reader: Reader, catalog: Catalog, bigint: BigintMode, topic_id: int, ranges: Sequence[Claimed]
) -> Iterator[Message]:
    """The messages of some ranges with their payloads; those that retention took away meanwhile are left out.

    Raises StorageCorrupt.
    """
    renderer = RunRenderer(reader, catalog, bigint)
    for partition, first, last, deliveries in ranges:
        for offset, run in read_spans(reader, topic_id, partition, first, last):
            keys, payloads = renderer.render(run)
            origin = run.origin if isinstance(run, ProducedRun) else None
            operation, timestamp, user = run.operation, run.timestamp_us, run.user
            for place, (key, payload) in enumerate(zip(keys, payloads, strict=True)):
                yield Message(
                    partition,
                    offset + place,
                    key,
                    payload,
                    timestamp,
                    user,
                    operation,
                    deliveries,
                    origin.after(place) if origin is not None else None,
                )
