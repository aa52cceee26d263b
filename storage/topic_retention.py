"""What topics no longer have to keep, and what they still need of others.

Messages go by age and by bytes, the oldest first, whole entries at a time; below the offset to which CLEAR TOPIC
cleared a partition; and all of them with their topic. The last entry of a partition goes only by age, and leaves an
empty one, so that offsets go on (`storage.topic_log`).

A message about a row is a reference to it. So retention of rows asks `floors` first: row versions that were superseded
after a table's floor may be what some message shows, and stay in `history`; a dropped table with a floor keeps its
rows.

The janitor plans from snapshots and deletes through works that run alone in the writer, each one bounded.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from storage.catalog import Catalog
from storage.environment import Cursor
from storage.objects import DROPPED, DROPPED_TOPIC, DroppedTable, DroppedTopic
from storage.reading import Reader
from storage.snapshots import Snapshot
from storage.submission import SubmitExclusive
from storage.topic_definitions import TopicDef
from storage.topic_log import Entry, empty_entry, entries, first_entry, last_entry
from storage.topic_runs import entry_key, parse_entry_key, topic_prefix
from storage.writer import WriteTransaction

SLICE = 4_000
"""Entries that one work deletes at most."""


def floors(reader: Reader, catalog: Catalog, dropped: Mapping[int, DroppedTable]) -> dict[int, int]:
    """For each table that retained messages may refer to: all they refer to are events with a greater `_seq`."""
    found: dict[int, int] = {}
    cursor = reader.txn.cursor(db=reader.dbs.topics)
    for topic in catalog.topics():
        floor = _floor(cursor, topic) if topic.referred else None
        if floor is None:
            continue
        for table_id in topic.referred:
            gone = dropped.get(table_id)
            if gone is None or floor < gone.last_seq:
                found[table_id] = min(floor, found.get(table_id, floor))
    return found


def _floor(cursor: Cursor, topic: TopicDef) -> int | None:
    """The floor of a topic; None when it has no messages."""
    found = [
        entry.head.floor_seq
        for partition in range(topic.partitions)
        if (entry := first_entry(cursor, topic.topic_id, partition)) is not None and entry.head.messages
    ]
    return min(found, default=None)


def dropped_tables(snapshot: Snapshot) -> dict[int, DroppedTable]:
    """The tables that were dropped and are not reclaimed yet."""
    return {table.table_id: table for table in snapshot.list_objects(DROPPED, DroppedTable)}


class _Size(NamedTuple):
    """What a partition holds up to its last entry, that one left out: accounted bytes, and its key."""

    nbytes: int
    last: bytes


class TopicJanitor:
    """Used on the merger's thread. Remembers how large partitions are, so that it reads what is new only."""

    def __init__(self) -> None:
        self._sizes: dict[tuple[int, int], _Size] = {}
        self.nbytes = 0
        """What the messages of all topics account for, as of the last round."""

    def run(
        self,
        open_snapshot: Callable[[str], Snapshot],
        submit: SubmitExclusive,
        now_us: int,
        is_stopped: Callable[[], bool],
    ) -> int:
        """One round over all topics; how many entries went."""
        deleted = 0
        with open_snapshot("retention of topics") as snapshot:
            topics = list(snapshot.catalog.topics())
            gone = [topic.topic_id for topic in snapshot.list_objects(DROPPED_TOPIC, DroppedTopic)]
        total = 0
        for topic in topics:
            while not is_stopped():
                with open_snapshot("retention of topics") as snapshot, snapshot.reading() as reader:
                    keys, nbytes = self._surplus(reader, topic, now_us)
                went = submit(_deletion(topic, keys, now_us)).result() if keys else 0
                deleted += went
                if not went:
                    total += nbytes
                    break
        for topic_id in gone:
            done = False
            while not done and not is_stopped():
                done = submit(partial(reclaim_topic, topic_id=topic_id)).result()
        known = {topic.topic_id for topic in topics}
        self._sizes = {place: size for place, size in self._sizes.items() if place[0] in known}
        self.nbytes = total
        return deleted

    def _surplus(self, reader: Reader, topic: TopicDef, now_us: int) -> tuple[list[bytes], int]:
        """The next keys of entries that have to go, at most SLICE, and the bytes that the topic holds."""
        keys: list[bytes] = []
        total = 0
        for partition in range(topic.partitions):
            overdue = _overdue(reader, topic, partition, now_us, SLICE - len(keys))
            total += self._measure(reader, topic.topic_id, partition)
            if overdue:
                self._forget(overdue[0])  # after measuring, which counts what is about to go
                keys += overdue
        if keys or not topic.retention_bytes or total <= topic.retention_bytes:
            return keys, total
        return self._beyond(reader, topic, total - topic.retention_bytes), total

    def _measure(self, reader: Reader, topic_id: int, partition: int) -> int:
        """The accounted bytes of a partition."""
        place = topic_id, partition
        cursor = reader.txn.cursor(db=reader.dbs.topics)
        last = last_entry(cursor, topic_id, partition)
        if last is None:
            return 0
        known = self._sizes.get(place)
        nbytes = 0 if known is None else known.nbytes
        start = 0 if known is None else parse_entry_key(known.last)[2]
        for entry in entries(reader, topic_id, partition, start):
            if entry.key == last.key:
                break
            nbytes += entry.head.nbytes
        self._sizes[place] = _Size(nbytes, last.key)
        return nbytes + last.head.nbytes

    def _beyond(self, reader: Reader, topic: TopicDef, surplus: int) -> list[bytes]:
        """The oldest entries, over all partitions, that account for so many bytes; never a partition's last one."""
        walks = []
        for partition in range(topic.partitions):
            last = last_entry(reader.txn.cursor(db=reader.dbs.topics), topic.topic_id, partition)
            if last is not None:
                walks.append((entries(reader, topic.topic_id, partition, 0), last.key))
        heap: list[tuple[int, int, Entry]] = []
        for number, (walk, stop) in enumerate(walks):
            entry = next(walk)
            if entry.key != stop:
                heap.append((entry.head.last_us, number, entry))
        heapq.heapify(heap)
        keys: list[bytes] = []
        while heap and surplus > 0 and len(keys) < SLICE:
            _, number, entry = heapq.heappop(heap)
            keys.append(entry.key)
            surplus -= entry.head.nbytes
            following = next(walks[number][0])
            if following.key != walks[number][1]:
                heapq.heappush(heap, (following.head.last_us, number, following))
        for key in keys:
            self._forget(key)
        return keys

    def _forget(self, key: bytes) -> None:
        """An entry goes: measure its partition anew."""
        topic_id, partition, _ = parse_entry_key(key)
        self._sizes.pop((topic_id, partition), None)


def _deletion(topic: TopicDef, keys: list[bytes], now_us: int) -> Callable[[WriteTransaction], int]:
    return lambda wtxn: delete_entries(wtxn, topic, keys, now_us)


def _overdue(reader: Reader, topic: TopicDef, partition: int, now_us: int, count: int) -> list[bytes]:
    """The keys of entries at the beginning of a partition that are too old, or cleared."""
    keys: list[bytes] = []
    for entry in entries(reader, topic.topic_id, partition, 0):
        if len(keys) >= count or not _is_overdue(entry, topic, partition, now_us):
            break
        keys.append(entry.key)
    return keys


def _is_overdue(entry: Entry, topic: TopicDef, partition: int, now_us: int) -> bool:
    if not entry.head.messages:
        return False
    if entry.end <= topic.cleared_below(partition):
        return True
    return bool(topic.retention_seconds) and entry.head.last_us < now_us - topic.retention_seconds * 1_000_000


def delete_entries(wtxn: WriteTransaction, topic: TopicDef, keys: list[bytes], now_us: int) -> int:
    """Delete entries; how many went. A partition's last one leaves an empty entry, and stays if it got messages."""
    wtxn.flusher.touched = True
    txn, db = wtxn.txn, wtxn.dbs.topics
    cursor = txn.cursor(db=db)
    deleted = 0
    for key in keys:
        topic_id, partition, _ = parse_entry_key(key)
        last = last_entry(cursor, topic_id, partition)
        if last is not None and last.key == key:
            if not _is_overdue(last, topic, partition, now_us):
                continue
            txn.delete(key, db=db)
            marker = empty_entry(wtxn.first_seq - 1, last.head.last_us)
            txn.put(entry_key(topic_id, partition, last.end), marker, db=db)
            deleted += 1
        else:
            deleted += bool(txn.delete(key, db=db))
    return deleted


def reclaim_topic(wtxn: WriteTransaction, topic_id: int) -> bool:
    """Delete a slice of a dropped topic's messages and groups; True when nothing is left."""
    wtxn.flusher.touched = True
    prefix = topic_prefix(topic_id)
    left = SLICE
    for db in (wtxn.dbs.topics, wtxn.dbs.offsets):
        with wtxn.txn.cursor(db=db) as cursor:
            more = cursor.set_range(prefix)
            while more and bytes(cursor.key()[:4]) == prefix:
                if not left:
                    return False
                more = cursor.delete()
                left -= 1
    wtxn.reclaimed_topic(topic_id)
    return True
