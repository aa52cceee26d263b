"""All vector indexes of a server: which are in memory, which are built, which are behind; and searching them.

A search never waits for an index. What an index does not know is searched exactly (see `partition_index`), and without
one everything is: then the answer is only slower. Indexes are loaded by the first search that wants them;
`sql.vectors.upkeep` builds them, lets them follow the commits, saves and unloads them, on a thread of its own.

Each partition of a USER table has an index of its own, so a search can meet no row of another user, stale entries
included. Partitions of few rows have none: a user who is idle or has little costs nothing.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from sql.vectors.exact import NOTHING, Block, Neighbours, blocks, nearest
from sql.vectors.index_files import IndexFiles, IndexPlace
from sql.vectors.metrics import Doubles
from sql.vectors.partition_index import LEAST_ASKED, PartitionIndex, estimated_bytes
from sql.vectors.settings import VectorSettings
from storage.catalog import TableDef
from storage.snapshots import Snapshot
from storage.vector_definitions import VectorIndexDef, VectorMetric
from storage.views import ReadView

log = logging.getLogger("headrace.vectors")

_GROWTH = 4
_RANKED = 4
_LEAST_RANKED = 40
"""How many times as many candidates as wanted, and how many at least, are ranked by their stored embeddings."""
_MOST_FILTERED = 8_192
"""Candidates of which a condition is asked at most; where it keeps too few of so many, a scan is better."""

Keep = Callable[[Sequence[int]], npt.NDArray[np.bool_]]
"""Which of some rows, by `_seq`, a condition keeps."""


def place_of(table: TableDef, index: VectorIndexDef, partition: str) -> IndexPlace:
    """The place of a table's index in a partition."""
    dimension = table.by_id[index.column_id].type.dimension
    return IndexPlace(table.table_id, index.index_id, partition, index.metric, dimension)


class VectorIndexes:
    """The indexes in memory, least recently used first, and what has to be done about them. Safe from any thread."""

    def __init__(self, settings: VectorSettings | None = None) -> None:
        self.settings = settings or VectorSettings()
        self.files = None if self.settings.folder is None else IndexFiles(self.settings.folder)
        self.wanted: Callable[[IndexPlace], None] = lambda place: None
        """Asks the upkeep to build an index, or to let it take in what is new."""
        self._resident: OrderedDict[IndexPlace, PartitionIndex] = OrderedDict()
        self._lock = threading.Lock()
        self._places: dict[IndexPlace, threading.Lock] = {}

    # --- searching -----------------------------------------------------------------------------------------------

    def search(
        self,
        view: ReadView,
        table: TableDef,
        partition: str,
        column: str,
        metric: VectorMetric,
        query: Doubles,
        count: int,
        keep: Keep | None = None,
    ) -> Neighbours:
        """The `count` nearest rows of a partition in the view; without those whose embedding is NULL.

        With `keep`, of the rows that it keeps; none where an index does not lead to enough of them, as looking at all
        rows is another's business then. Raises what `keep` raises.
        """
        index = self.usable(view, table, partition, column, metric)
        if index is not None and isinstance(view, Snapshot) and count * 10 <= len(index):
            found = self._by_index(view, table, partition, column, index, query, count, keep)
            if found is not None:
                return found
        if keep is not None:
            return NOTHING
        rows = view.scan(table, partition, [column], with_seq=True)
        return nearest(metric, list(blocks(rows, len(query))), query, count)

    def usable(
        self, view: ReadView, table: TableDef, partition: str, column: str, metric: VectorMetric
    ) -> PartitionIndex | None:
        """The index for a search, loaded if need be; None where it is exact. Transactions are searched exactly."""
        index = table.vector_index(column)
        if index is None or index.metric is not metric or not isinstance(view, Snapshot):
            return None
        place = place_of(table, index, partition)
        found = self.resident(place)
        if found is not None:
            return found
        if not self.worthwhile(place, view.count(table, partition)):
            return None
        found = self._loaded(place, view.seq)
        self.wanted(place)
        return found

    def _by_index(
        self,
        view: Snapshot,
        table: TableDef,
        partition: str,
        column: str,
        index: PartitionIndex,
        query: Doubles,
        count: int,
        keep: Keep | None,
    ) -> Neighbours | None:
        """The nearest among what the index gives and what it does not know; None when that may be too little."""
        trusted = index.trusted(view.seq)
        newer = list(blocks(view.scan_newer(table, partition, trusted, [column]), len(query)))
        if sum(len(block.seqs) for block in newer) > self.settings.follow_rows:
            definition = table.vector_index(column)
            if definition is not None:
                self.wanted(place_of(table, definition, partition))
        if keep is not None:
            newer = [_kept(block, keep) for block in newer]
        size = len(index)
        asked = max(2 * count, LEAST_ASKED)
        enough = count
        if keep is not None:  # the last of what the index gives are not as certain, and a condition is often a tenth
            asked, enough = max(24 * count, 2 * LEAST_ASKED), 2 * count
        while True:
            seqs = index.search(query, asked)
            seqs = seqs[seqs <= trusted]
            seqs = seqs[np.asarray(view.live(table, partition, seqs.tolist()), dtype=bool)]
            if keep is not None and len(seqs):
                seqs = seqs[keep(seqs.tolist())]
            if len(seqs) >= enough:
                break
            if asked * _GROWTH * 4 > size or (keep is not None and asked * _GROWTH > _MOST_FILTERED):
                return None  # most entries are stale, or most rows newer: looking at all rows is cheaper
            asked *= _GROWTH
        seqs = seqs[: max(_RANKED * count, _LEAST_RANKED)]  # the index gives the nearest first, if not exactly
        rows = view.fetch(table, partition, seqs.tolist(), [column], with_seq=True)
        candidates: list[Block] = [*blocks(rows, len(query)), *newer]
        return nearest(index.metric, candidates, query, count)

    # --- what is in memory ---------------------------------------------------------------------------------------

    def resident(self, place: IndexPlace) -> PartitionIndex | None:
        """The index of a place if it is in memory; it counts as used."""
        with self._lock:
            found = self._resident.get(place)
            if found is not None:
                self._resident.move_to_end(place)
            return found

    def residents(self) -> dict[IndexPlace, PartitionIndex]:
        """All that is in memory, least recently used first."""
        with self._lock:
            return dict(self._resident)

    def publish(self, place: IndexPlace, index: PartitionIndex) -> None:
        """Let searches use an index from now on."""
        with self._lock:
            self._resident[place] = index
            self._resident.move_to_end(place)

    def unload(self, place: IndexPlace) -> None:
        """Take an index out of memory; searches that have it go on."""
        with self._lock:
            self._resident.pop(place, None)

    def alone(self, place: IndexPlace) -> threading.Lock:
        """Held by whoever loads, builds, extends or saves the index of a place."""
        with self._lock:
            return self._places.setdefault(place, threading.Lock())

    def forget(self, place: IndexPlace) -> None:
        """The index was dropped."""
        with self._lock:
            self._resident.pop(place, None)
            self._places.pop(place, None)

    def worthwhile(self, place: IndexPlace, rows: int) -> bool:
        """Whether so many rows are to have an index: not too few, and not more than the memory takes."""
        fits = estimated_bytes(place.metric, place.dimension, rows) <= self.settings.memory_bytes
        return rows >= self.settings.min_rows and fits

    def _loaded(self, place: IndexPlace, last_seq: int) -> PartitionIndex | None:
        """The stored index of a place, now in memory. While another thread sees to the place, None."""
        if self.files is None or not self.files.exists(place):
            return None
        lock = self.alone(place)
        if not lock.acquire(blocking=False):
            return None
        try:
            found = self.resident(place) or self.files.load(place, last_seq)
            if found is not None:
                self.publish(place, found)
            return found
        finally:
            lock.release()


def _kept(block: Block, keep: Keep) -> Block:
    chosen = keep(block.seqs.tolist())
    return Block(block.seqs[chosen], block.vectors[chosen])
