"""Where the consumer groups of all topics stand, and how many messages are there, for those who look on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from storage.catalog import Catalog
from storage.reading import Reader
from storage.topic_definitions import TopicDef
from storage.topic_groups import GroupState, decode_state, parse_group_key
from storage.topic_log import Bounds, bounds


class GroupPosition(NamedTuple):
    """A group in one partition of a topic, with the partition's bounds."""

    topic: TopicDef
    partition: int
    group: str
    state: GroupState
    bounds: Bounds

    @property
    def lag(self) -> int:
        """Messages that are there and that the group has not acknowledged."""
        return max(self.bounds.next - max(self.state.behind, self.state.acked + 1, self.bounds.first), 0)

    @property
    def pending(self) -> int:
        """Messages that were handed out and that nobody has acknowledged."""
        return sum(claim.messages for claim in self.state.claims)


def group_positions(reader: Reader, catalog: Catalog) -> Iterator[GroupPosition]:
    """Every group of every topic, by topic id, partition and name. Raises StorageCorrupt."""
    for topic in sorted(catalog.topics(), key=lambda topic: topic.topic_id):
        known: dict[int, Bounds] = {}
        cursor = reader.txn.cursor(db=reader.dbs.offsets)
        more = cursor.set_range(topic.topic_id.to_bytes(4, "big"))
        while more:
            key = bytes(cursor.key())
            topic_id, partition, group = parse_group_key(key)
            if topic_id != topic.topic_id:
                break
            found = known.get(partition)
            if found is None:
                found = known[partition] = bounds(
                    reader, topic_id, partition, topic.cleared_below(partition)
                )  # fmt: skip
            yield GroupPosition(topic, partition, group, decode_state(key, cursor.value()), found)
            more = cursor.next()


def message_count(reader: Reader, catalog: Catalog) -> int:
    """The messages of all topics that are there."""
    count = 0
    for topic in catalog.topics():
        for partition in range(topic.partitions):
            found = bounds(reader, topic.topic_id, partition, topic.cleared_below(partition))
            count += found.next - min(found.first, found.next)
    return count
