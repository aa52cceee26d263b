"""What the works of a group stage for topics: produced messages with their offsets, and states of consumer groups.

Like rows, nothing of it is in LMDB before the group is written, and a work that fails is undone alone. Offsets are
given when a message is staged; messages that come from rows are appended behind the staged ones, when the group is
written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from storage.environment import Txn
from storage.reading import Reader
from storage.topic_groups import GroupState, decode_state, encode_state, group_key
from storage.topic_log import Bounds, append, bounds
from storage.topic_publishing import Publisher
from storage.topic_runs import SizedRun

_Place = tuple[int, int]


class TopicNews(NamedTuple):
    """What a commit did to topics, by topic id: those that got messages, groups whose claims changed, bytes added."""

    appended: frozenset[int]
    groups: frozenset[tuple[int, str]]
    nbytes: int = 0


class StagedTopics:
    """Staged over what a reader sees; `reader` gives the present one."""

    def __init__(self, reader: Callable[[], Reader]) -> None:
        self._reader = reader
        self._produced: dict[_Place, list[SizedRun]] = {}
        self._next: dict[_Place, int] = {}
        self._groups: dict[bytes, GroupState] = {}
        self._touched: set[tuple[int, str]] = set()
        self._undo: list[Callable[[], None]] = []

    @property
    def changed(self) -> bool:
        """Whether anything is staged."""
        return bool(self._produced or self._groups)

    def begin_work(self) -> None:
        """A work begins: what is staged so far stays."""
        self._undo.clear()

    def undo_work(self) -> None:
        """The work failed: forget what it staged."""
        while self._undo:
            self._undo.pop()()

    # --- messages ------------------------------------------------------------------------------------------------

    def bounds(self, topic_id: int, partition: int, cleared: int) -> Bounds:
        """The bounds of a partition with what is staged."""
        stored = bounds(self._reader(), topic_id, partition, cleared)
        return stored._replace(next=self._next.get((topic_id, partition), stored.next))

    def publish(self, topic_id: int, partition: int, run: SizedRun) -> int:
        """Stage messages; the offset of the first one."""
        place = topic_id, partition
        offset = self._next.get(place)
        if offset is None:
            offset = bounds(self._reader(), topic_id, partition).next
        runs = self._produced.setdefault(place, [])
        runs.append(run)
        self._next[place] = offset + run.run.count

        def undo() -> None:
            runs.pop()
            if runs:
                self._next[place] = offset
            else:
                del self._produced[place], self._next[place]

        self._undo.append(undo)
        return offset

    # --- groups --------------------------------------------------------------------------------------------------

    def group(self, topic_id: int, partition: int, group: str) -> GroupState | None:
        """The state of a group, None before its first use."""
        key = group_key(topic_id, partition, group)
        staged = self._groups.get(key)
        if staged is not None:
            return staged
        reader = self._reader()
        value = reader.txn.get(key, db=reader.dbs.offsets)
        return None if value is None else decode_state(key, value)

    def put_group(self, topic_id: int, partition: int, group: str, state: GroupState) -> None:
        """Stage a state."""
        key = group_key(topic_id, partition, group)
        previous = self._groups.get(key)
        self._groups[key] = state
        self._touched.add((topic_id, group))

        def undo() -> None:
            if previous is None:
                del self._groups[key]
            else:
                self._groups[key] = previous

        self._undo.append(undo)

    # --- writing -------------------------------------------------------------------------------------------------

    def write(self, txn: Txn, reader: Reader, publisher: Publisher, floor_seq: int, now_us: int) -> TopicNews:
        """Write everything into the LMDB transaction, then the messages that the publisher collected."""
        for key, state in sorted(self._groups.items()):
            txn.put(key, encode_state(state), db=reader.dbs.offsets)
        appended: set[int] = set()
        nbytes = 0
        cursor = txn.cursor(db=reader.dbs.topics)
        for (topic_id, partition), runs in self._produced.items():
            nbytes += sum([sized.nbytes for sized in runs])
            append(txn, cursor, reader, topic_id, partition, runs, floor_seq, now_us)
            appended.add(topic_id)
        for topic_id, partition, runs in publisher.runs():
            nbytes += sum([sized.nbytes for sized in runs])
            append(txn, cursor, reader, topic_id, partition, runs, floor_seq, now_us)
            appended.add(topic_id)
        return TopicNews(frozenset(appended), frozenset(self._touched), nbytes)
