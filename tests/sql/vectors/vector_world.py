"""A table of embeddings in a real engine, with its indexes driven by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from sql.vectors.exact import Neighbours, blocks, nearest
from sql.vectors.indexes import VectorIndexes, place_of
from sql.vectors.settings import VectorSettings
from sql.vectors.upkeep import VectorUpkeep
from storage import StorageEngine, StorageOptions
from storage.catalog import ColumnDef, NamespaceDef, TableDef, TableKind
from storage.keys import encode_key
from storage.snapshots import Snapshot
from storage.transaction import Transaction
from storage.types import BIGINT, arrow_type, embedding
from storage.vector_definitions import VectorIndexDef, VectorMetric

OPTIONS = StorageOptions(map_start=64 << 20, merge=False)


class VectorWorld:
    """One table `app.t (id BIGINT PRIMARY KEY, v EMBEDDING(n))` with an index on v."""

    def __init__(
        self,
        folder: Path,
        *,
        dimension: int = 8,
        metric: VectorMetric = VectorMetric.COSINE,
        min_rows: int = 20,
        kind: TableKind = TableKind.SHARED,
        memory_bytes: int = 1 << 30,
    ) -> None:
        self.folder = folder
        self.dimension = dimension
        self.metric = metric
        self.settings = VectorSettings(folder / "vectors", memory_bytes, min_rows, 50)
        self.engine = StorageEngine.open(folder / "data", OPTIONS)
        self.open()
        if self.engine.catalog.table("app", "t") is None:
            self._create(kind)

    def _create(self, kind: TableKind) -> None:
        columns = (ColumnDef(1, "id", BIGINT, nullable=False), ColumnDef(2, "v", embedding(self.dimension)))
        table = TableDef(
            1, "app", "t", kind, columns, primary_key=(1,), next_column_id=3, next_index_id=2,
            vector_indexes=(VectorIndexDef(1, "t_v", 2, self.metric),),
        )  # fmt: skip
        self.engine.commit_sync(lambda writer: (writer.put_namespace(NamespaceDef("app")), writer.put_table(table)))

    def open(self) -> None:
        """Indexes as after a start: nothing in memory."""
        self.indexes = VectorIndexes(self.settings)
        self.upkeep = VectorUpkeep(self.engine, self.indexes)
        self.indexes.wanted = lambda place: None

    def close(self) -> None:
        self.upkeep.close()
        self.engine.close()

    @property
    def table(self) -> TableDef:
        found = self.engine.catalog.table("app", "t")
        assert found is not None
        return found

    def insert(self, ids: Sequence[int], vectors: np.ndarray, user: str = "") -> None:
        """Rows by id; those that are there already are replaced."""
        flat = pa.array(vectors.astype(np.float32).ravel())
        rows = pa.table(
            {
                "id": pa.array(ids, pa.int64()),
                "v": pa.FixedSizeListArray.from_arrays(flat, type=arrow_type(embedding(self.dimension))),
            }
        )
        with self.engine.snapshot() as snapshot:
            old = snapshot.find(self.table, user, [encode_key([BIGINT], [number]) for number in ids])
            transaction = Transaction(snapshot)
            there = [place for place, seq in enumerate(old) if seq is not None]
            new = [place for place, seq in enumerate(old) if seq is None]
            if there:
                transaction.replace(self.table, user, [seq for seq in old if seq is not None], rows.take(there))
            if new:
                transaction.insert(self.table, user, rows.take(new))
        self.engine.commit_sync(transaction.apply)

    def delete(self, ids: Sequence[int], user: str = "") -> None:
        with self.engine.snapshot() as snapshot:
            found = snapshot.find(self.table, user, [encode_key([BIGINT], [number]) for number in ids])
            transaction = Transaction(snapshot)
            transaction.delete(self.table, user, [seq for seq in found if seq is not None])
        self.engine.commit_sync(transaction.apply)

    def build(self) -> str:
        """Bring all indexes up to date."""
        return self.upkeep.build(self.table.table_id, 1)

    def place(self, user: str = ""):
        return place_of(self.table, self.table.vector_indexes[0], user)

    def search(self, view: Snapshot, query: np.ndarray, count: int, user: str = "") -> Neighbours:
        return self.indexes.search(view, self.table, user, "v", self.metric, query.astype(np.float64), count)

    def exactly(self, view: Snapshot, query: np.ndarray, count: int, user: str = "") -> Neighbours:
        """The same without an index."""
        rows = view.scan(self.table, user, ["v"], with_seq=True)
        return nearest(self.metric, list(blocks(rows, self.dimension)), query.astype(np.float64), count)


def recall(found: Neighbours, true: Neighbours) -> float:
    """The share of the true neighbours that were found."""
    return len(set(found.seqs.tolist()) & set(true.seqs.tolist())) / max(len(true.seqs), 1)
