"""Definitions of vector indexes: which column of a table, and by which distance."""

from __future__ import annotations

import enum

import msgspec


class VectorMetric(enum.StrEnum):
    """How far two embeddings are from each other; less is nearer. The value is what definitions store."""

    COSINE = "cosine"
    """1 - cosine similarity; 1 where a norm is 0."""
    L2 = "l2"
    """Euclidean distance."""
    DOT = "dot"
    """The negative inner product."""

    @property
    def shown(self) -> str:
        """As messages name it: Cosine, L2, Dot."""
        return "L2" if self is VectorMetric.L2 else self.value.capitalize()


class VectorIndexDef(msgspec.Struct, frozen=True):
    """A vector index on one EMBEDDING column. `index_id` is of the table's `next_index_id`, never used again."""

    index_id: int
    name: str
    column_id: int
    metric: VectorMetric
