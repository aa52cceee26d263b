"""Exact search: the nearest rows among those of a table or of a list of candidates.

A first pass in 32 bits leaves out what cannot be among the nearest; the rest is decided in 64 bits. So the answer is
that of the SQL functions over all rows, at the price of one pass of BLAS.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sql.vectors.metrics import Doubles, Singles, bounds, exact
from storage.vector_definitions import VectorMetric

Seqs = npt.NDArray[np.int64]


class Neighbours(NamedTuple):
    """Rows by `_seq`, nearest first (of equals the older first), and their distances."""

    seqs: Seqs
    distances: Doubles


class Block(NamedTuple):
    """Embeddings of consecutive rows; NULLs are left out."""

    seqs: Seqs
    vectors: Singles


NOTHING = Neighbours(np.empty(0, np.int64), np.empty(0))


def blocks(rows: pa.Table, dimension: int) -> Iterator[Block]:
    """The embeddings of a table whose first column is `_seq` and whose second the embedding; copied only at NULLs."""
    for batch in rows.to_batches():
        if not batch.num_rows:
            continue
        seqs, column = batch.column(0), batch.column(1)
        if column.null_count:
            seqs = seqs.filter(column.is_valid())
        if len(seqs):
            vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, dimension)
            yield Block(seqs.to_numpy(), vectors)


def nearest(metric: VectorMetric, found: list[Block], query: Doubles, count: int) -> Neighbours:
    """The `count` nearest of all rows, or all of them when they are fewer."""
    found = [block for block in found if len(block.seqs)]
    if not found or count <= 0:
        return NOTHING
    if sum(len(block.seqs) for block in found) > 2 * count + 64:
        found = _possible(metric, found, query, count)
    seqs = np.concatenate([block.seqs for block in found])
    distances = np.concatenate([exact(metric, block.vectors, query) for block in found])
    order = np.lexsort((seqs, distances))[:count]
    return Neighbours(seqs[order], distances[order])


def _possible(metric: VectorMetric, found: list[Block], query: Doubles, count: int) -> list[Block]:
    """The rows that may be among the nearest."""
    pairs = [bounds(metric, block.vectors, query) for block in found]
    upper = np.concatenate([high for _, high in pairs])
    limit = np.partition(upper, count - 1)[count - 1]
    kept = []
    for block, (low, _) in zip(found, pairs, strict=True):
        chosen = np.flatnonzero(low <= limit)
        if len(chosen):
            kept.append(Block(block.seqs[chosen], block.vectors[chosen]))
    return kept
