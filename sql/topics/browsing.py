"""Messages for system.topic_messages: those who look on, who claim nothing and say which messages they mean.

A look is bounded. Beyond the bounds it is an error that says how to ask for less: a part of the messages would look
like all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sql.errors import ResultTooLarge
from sql.storage_errors import storage_errors
from sql.system_tables import Sought
from sql.topics.messages import Message, read_messages
from sql.wire import BigintMode
from storage.catalog import Catalog
from storage.engine import StorageEngine
from storage.reading import Reader
from storage.snapshots import Snapshot
from storage.topic_definitions import TopicDef
from storage.topic_log import bounds, extent, read_spans
from storage.topic_writes import Claimed
from storage.views import ReadView

MOST_MESSAGES = 10_000
MOST_BYTES = 16 << 20
_NARROWER = "Name a topic_id, a partition_id and bounds of the offset in WHERE, or use CONSUME."


class BrowsedTopics:
    """Reads messages of all topics of one database. Safe from any thread."""

    def __init__(self, engine: StorageEngine, bigint: BigintMode) -> None:
        self._engine = engine
        self._bigint = bigint

    def messages(self, view: ReadView, sought: Sought, *, bodies: bool) -> list[tuple[TopicDef, Message]]:
        """The messages that are sought, by topic, partition and offset; without `bodies` keys and payloads are empty.

        Of the statement's snapshot; inside BEGIN … COMMIT, those that are committed now. Raises ResultTooLarge.
        """
        found: list[tuple[TopicDef, Message]] = []
        with storage_errors(), self._reading(view) as (reader, catalog):
            ranges = list(_ranges(reader, catalog, sought))
            count = sum(place.last - place.first + 1 for _, place in ranges)
            if count > MOST_MESSAGES:
                raise ResultTooLarge(
                    f"system.topic_messages shows at most {MOST_MESSAGES:,} messages at a time, and {count:,} are "
                    f"asked for. {_NARROWER}"
                )
            room = MOST_BYTES
            for topic, place in ranges:
                if bodies:
                    last, taken = extent(reader, topic.topic_id, place.partition, place.first, place.last, room)
                    room -= taken
                    if last < place.last:
                        raise ResultTooLarge(
                            f"system.topic_messages shows at most {MOST_BYTES >> 20} MiB of payloads at a time. "
                            f"{_NARROWER}"
                        )
                    rows = read_messages(reader, catalog, self._bigint, topic.topic_id, [place])
                else:
                    rows = _heads(reader, topic, place)
                found += [(topic, message) for message in rows]
        return found

    @contextmanager
    def _reading(self, view: ReadView) -> Iterator[tuple[Reader, Catalog]]:
        if isinstance(view, Snapshot):
            with view.reading() as reader:
                yield reader, view.catalog
            return
        with self._engine.snapshot(purpose="browsing topics") as snapshot, snapshot.reading() as reader:
            yield reader, snapshot.catalog


def _ranges(reader: Reader, catalog: Catalog, sought: Sought) -> Iterator[tuple[TopicDef, Claimed]]:
    """The offsets that are sought and retained."""
    for topic in catalog.topics():
        if not sought.admits(topic.full_name):
            continue
        for partition in range(topic.partitions):
            if not sought.admits(topic.full_name, partition):
                continue
            first, end = bounds(reader, topic.topic_id, partition, topic.cleared_below(partition))
            last = end - 1
            if len(sought.equal) == 3:
                first, last = _within(first, last, sought.equal[2], sought.equal[2])
            elif len(sought.equal) == 2:
                first, last = _within(first, last, sought.low, sought.high)
            if first <= last:
                yield topic, Claimed(partition, first, last, 0)


def _within(first: int, last: int, low: object, high: object) -> tuple[int, int]:
    return (
        max(first, low) if isinstance(low, int) else first,
        min(last, high) if isinstance(high, int) else last,
    )


def _heads(reader: Reader, topic: TopicDef, place: Claimed) -> Iterator[Message]:
    """The messages without keys and payloads: no row is read."""
    for offset, run in read_spans(reader, topic.topic_id, place.partition, place.first, place.last):
        for number in range(run.count):
            yield Message(
                place.partition, offset + number, None, b"", run.timestamp_us, run.user, run.operation, 0, None
            )
