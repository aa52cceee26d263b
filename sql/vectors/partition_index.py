"""One index of usearch: the embeddings of one column, table and partition, by `_seq`.

What it knows
-------------

The index is filled in slices. A slice reads, from a snapshot of commit M, live rows in `_seq` order behind what was
read before, up to `applied`. Rows that are superseded later stay in it as stale entries; whoever searches leaves out
what is not live in his own snapshot.

A reader at commit N may rely on it up to some `_seq`: if M <= N, every row that is live at N and not behind `applied`
was live at M too, so the slice took it in. If M > N, a row may have been live at N and gone at M. So the marks (M,
applied) of the last slices are kept, and `trusted(N)` is the largest `applied` whose M is not after N; the reader
searches all rows behind it exactly. Marks that are forgotten only make old snapshots search exactly.

usearch is asked by one thread at a time: its Python binding hands out thread slots by itself, and a growing index may
not be read. Searches go first; additions are made in small pieces.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sql.vectors.exact import Block, Seqs
from sql.vectors.metrics import Doubles
from storage.vector_definitions import VectorMetric

if TYPE_CHECKING:
    from usearch.index import Index

CONNECTIVITY = 16
"""Neighbours of a node (M of HNSW)."""
EXPANSION_ADD = 128
"""Candidates while a row is added (efConstruction)."""
LEAST_ASKED = 128
"""Candidates of a search at least (ef)."""
_PIECE = 32
"""Rows that are added while searches wait."""
_MARKS = 64
_KINDS = {VectorMetric.COSINE: ("cos", "bf16"), VectorMetric.L2: ("l2sq", "f32"), VectorMetric.DOT: ("ip", "bf16")}
"""Metric and number format of usearch. 16 bits suffice to choose candidates by angle; differences need all 32."""


class Mark(NamedTuple):
    """Live rows up to `applied` were taken in as of `commit`."""

    commit: int
    applied: int


def estimated_bytes(metric: VectorMetric, dimension: int, rows: int) -> int:
    """About what an index of so many rows takes: its numbers, and the lists of neighbours."""
    width = 2 if _KINDS[metric][1] == "bf16" else 4
    return rows * (dimension * width + CONNECTIVITY * 2 * 6 + 64)


class PartitionIndex:
    """An index and what it knows. Safe from any thread; additions come from one thread at a time."""

    def __init__(
        self, metric: VectorMetric, dimension: int, file: Path | None = None, mark: Mark | None = None
    ) -> None:
        """An empty index, or the one in a file of usearch. Raises what usearch raises for a bad file."""
        self.metric = metric
        self.dimension = dimension
        self._index = _open(metric, dimension, file)
        self._marks: deque[Mark] = deque([] if mark is None else [mark], maxlen=_MARKS)
        self._condition = threading.Condition()
        self._busy = False
        self._searches = 0
        self.unsaved = 0
        """Rows that its file does not have."""

    def __len__(self) -> int:
        return len(self._index)

    @property
    def memory_bytes(self) -> int:
        """What it takes."""
        return int(self._index.memory_usage)

    @property
    def mark(self) -> Mark:
        """How far it is."""
        return self._marks[-1] if self._marks else Mark(0, 0)

    def trusted(self, commit: int) -> int:
        """The `_seq` up to which a reader at `commit` finds every live row in it; 0 for none."""
        return max((mark.applied for mark in tuple(self._marks) if mark.commit <= commit), default=0)

    def add(self, slices: list[Block], mark: Mark) -> None:
        """Take in the rows of a slice; `mark` holds from then on."""
        for block in slices:
            for start in range(0, len(block.seqs), _PIECE):
                keys = block.seqs[start : start + _PIECE].astype(np.uint64)
                with self._turn(search=False):
                    self._index.add(keys, block.vectors[start : start + _PIECE], threads=1)
            self.unsaved += len(block.seqs)
        self._marks.append(mark)

    def search(self, query: Doubles, count: int) -> Seqs:
        """The `_seq`s of about the `count` nearest entries, stale ones among them; fewer when there are no more."""
        with self._turn(search=True):
            found = self._index.search(query.astype(np.float32), min(count, max(len(self._index), 1)), threads=1)
            seqs: Seqs = np.asarray(found.keys).astype(np.int64)
        return seqs

    def save(self, file: Path) -> Mark:
        """Write the index into a file; the mark that belongs to it. Call it from the thread that adds."""
        mark = self.mark
        with self._turn(search=False):
            self._index.save(str(file))
        self.unsaved = 0
        return mark

    @contextmanager
    def _turn(self, *, search: bool) -> Iterator[None]:
        """Wait for the index: a search for who has it, an addition also for all searches that wait."""
        with self._condition:
            if search:
                self._searches += 1
                self._condition.wait_for(lambda: not self._busy)
                self._searches -= 1
            else:
                self._condition.wait_for(lambda: not self._busy and not self._searches)
            self._busy = True
        try:
            yield
        finally:
            with self._condition:
                self._busy = False
                self._condition.notify_all()


def _open(metric: VectorMetric, dimension: int, file: Path | None) -> Index:
    from usearch.index import Index  # a server without vector indexes does without it

    kind, number = _KINDS[metric]
    index = Index(
        ndim=dimension,
        metric=kind,
        dtype=number,
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
        expansion_search=LEAST_ASKED,
    )
    if file is not None:
        index.load(str(file))
        if index.ndim != dimension:
            raise ValueError(f"the index has {index.ndim} dimensions instead of {dimension}")
    return index
