"""What EXPLAIN says of a vector search: `vector index: …`, or `exact: …` and why."""

from __future__ import annotations

from collections.abc import Iterator

from sql.identity import Identity
from sql.plan import QueryPlan
from sql.rights import partition_of
from sql.vectors.indexes import VectorIndexes
from sql.vectors.metrics import function_of
from sql.vectors.nearest import nearest_scan
from storage.catalog import TableDef
from storage.snapshots import Snapshot
from storage.vector_definitions import VectorMetric
from storage.views import ReadView


def describe_vectors(plan: QueryPlan, view: ReadView, identity: Identity, vectors: VectorIndexes) -> Iterator[str]:
    """A line for each scan that reads the nearest rows, as it would be read now for this caller."""
    near = nearest_scan(plan)
    if near is not None and near.table is not None and near.nearest is not None:
        nearest = near.nearest
        yield _line(near.table, nearest.column, nearest.metric, view, identity, vectors)
    for scan in plan.scans:
        if scan.search is not None:
            yield _line(scan.search.table, scan.search.column, scan.search.metric, view, identity, vectors)


def _line(
    table: TableDef, column: str, metric: VectorMetric, view: ReadView, identity: Identity, vectors: VectorIndexes
) -> str:
    distance = f"{function_of(metric)} of {column}"
    index = table.vector_index(column)
    if index is None or index.metric is not metric:
        return f"exact: {distance} (the column has no vector index for it)"
    partition = partition_of(table, identity)
    if vectors.usable(view, table, partition, column, metric) is not None:
        return f"vector index: {index.name} ({distance})"
    if not isinstance(view, Snapshot):
        return f"exact: {distance} (inside a transaction)"
    rows = view.count(table, partition)
    if rows < vectors.settings.min_rows:
        return f"exact: {distance} ({rows} rows; {index.name} is used from {vectors.settings.min_rows} on)"
    return f"exact: {distance} ({index.name} is not built, or would not fit vectors.memory_bytes)"
