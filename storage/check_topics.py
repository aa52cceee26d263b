"""The part of the check command that concerns topics: messages, what they refer to, and consumer groups.

- topics: every entry decodes and matches its checksum; offsets of a partition are contiguous and only its last entry
  may be empty; the topic exists (or was dropped) and has the partition; floors and times do not go back; every row
  version that a message refers to is stored, and no reference is to an event at or below the floor.
- offsets: every state decodes; position and claims lie below the next offset; claims ascend and do not overlap, and lie
  below the position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from storage.batches import Seqs
from storage.catalog import Catalog
from storage.check_rows import Walked, entries_under
from storage.errors import StorageCorrupt
from storage.keys import partition_key
from storage.reading import Reader
from storage.topic_definitions import Operation, TopicDef
from storage.topic_groups import GroupState, decode_state, parse_group_key
from storage.topic_runs import EntryHead, RowRun, decode_entry, parse_entry_key, read_head

Report = Callable[[str, str, str], None]
_Place = tuple[int, int]


class TopicsCheck:
    """Walks `topics` and `offsets`. `walked` are the rows of tables by (table id, partition)."""

    def __init__(
        self,
        reader: Reader,
        catalog: Catalog,
        dropped: set[int],
        walked: Mapping[tuple[int, bytes], Walked],
        report: Report,
    ) -> None:
        self._reader = reader
        self._catalog = catalog
        self._dropped = dropped
        self._walked = walked
        self._report = report
        self._next: dict[_Place, int] = {}
        self._empty: set[_Place] = set()
        self._heads: dict[_Place, EntryHead] = {}

    def run(self) -> None:
        """Check everything."""
        for key, value in entries_under(self._reader.txn, self._reader.dbs.topics, b""):
            try:
                self._entry(key, value)
            except (StorageCorrupt, ValueError) as error:
                self._report("topics", key.hex(), str(error))
        for key, value in entries_under(self._reader.txn, self._reader.dbs.offsets, b""):
            try:
                self._group(key, decode_state(key, value))
            except (StorageCorrupt, ValueError) as error:
                self._report("offsets", key.hex(), str(error))

    def _topic(self, structure: str, topic_id: int, partition: int) -> TopicDef | None:
        topic = self._catalog.topic_by_id(topic_id)
        if topic is None:
            if topic_id not in self._dropped:
                self._report(structure, f"topic id {topic_id}", "belongs to no topic")
            return None
        if partition >= topic.partitions:
            self._report(structure, topic.full_name, f"has {topic.partitions} partitions, but there is a {partition}")
        return topic

    def _entry(self, key: bytes, value: memoryview) -> None:
        topic_id, partition, offset = parse_entry_key(key)
        topic = self._topic("topics", topic_id, partition)
        place = topic_id, partition
        shown = f"{topic.full_name if topic else topic_id}, partition {partition}, offset {offset}"
        head = read_head(value)
        runs = decode_entry(key, value)
        if self._next.get(place, offset) != offset:
            self._report("topics", shown, f"the entry before ends at offset {self._next[place]}")
        if place in self._empty:
            self._report("topics", shown, "follows an empty entry")
        before = self._heads.get(place)
        if before is not None and (head.floor_seq < before.floor_seq or head.first_us < before.last_us):
            self._report("topics", shown, "its floor or its time lies before that of the entry before")
        self._next[place] = offset + head.messages
        self._heads[place] = head
        if not head.messages:
            self._empty.add(place)
        for run in runs:
            if isinstance(run, RowRun):
                self._references(shown, run, head)

    def _references(self, shown: str, run: RowRun, head: EntryHead) -> None:
        seqs = run.event_seqs()
        if run.first <= head.floor_seq:
            self._report("topics", shown, f"refers to _seq {run.first}, which is not above the floor {head.floor_seq}")
        if len(seqs) != run.count or (len(seqs) > 1 and not (seqs[1:] > seqs[:-1]).all()):
            self._report("topics", shown, "the _seqs of a run do not ascend")
        if self._catalog.table_by_id(run.table_id) is None:
            if run.table_id not in self._dropped:
                self._report("topics", shown, f"refers to table id {run.table_id}, which does not exist")
            return
        walked = self._walked.get((run.table_id, partition_key(run.user)))
        wanted = [run.old_seqs()] if run.operation is Operation.DELETE else [seqs, run.old_seqs()]
        for group in wanted:
            missing = group if walked is None else _missing(group, walked)
            if len(missing):
                self._report("topics", shown, f"refers to the row with _seq {missing[0]}, which is not stored")

    def _group(self, key: bytes, state: GroupState) -> None:
        topic_id, partition, group = parse_group_key(key)
        topic = self._topic("offsets", topic_id, partition)
        if topic is None:
            return
        shown = f"{topic.full_name}, partition {partition}, group {group}"
        following = self._next.get((topic_id, partition), 0)
        if state.position > following:
            self._report("offsets", shown, f"stands at offset {state.position}, the next one is {following}")
        last = -1
        for claim in state.claims:
            if claim.first <= last or claim.last < claim.first or claim.last >= state.position:
                self._report("offsets", shown, f"the claim of {claim.first} to {claim.last} is out of place")
            last = claim.last
        if state.acked >= state.behind:
            self._report("offsets", shown, f"acknowledged up to {state.acked}, but {state.behind} is not")


def _missing(seqs: Seqs, walked: Walked) -> Seqs:
    return seqs[~(np.isin(seqs, walked.seqs) | np.isin(seqs, walked.history))]
