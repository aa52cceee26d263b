"""How many of the true neighbours an index finds, on embeddings of real texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from storage.vector_definitions import VectorMetric
from tests.sql.vectors.docstrings import embeddings
from tests.sql.vectors.vector_world import VectorWorld, recall

QUERIES = 150


@pytest.mark.timeout(300)
@pytest.mark.parametrize("metric", VectorMetric)
def test_recall_at_10_on_docstrings(tmp_path: Path, metric: VectorMetric, record_property) -> None:
    vectors = embeddings()
    assert len(vectors) > 3_000
    chosen = np.random.default_rng(5).permutation(len(vectors))
    queries, stored = vectors[chosen[:QUERIES]], vectors[chosen[QUERIES:]]
    world = VectorWorld(tmp_path, dimension=vectors.shape[1], metric=metric, min_rows=1_000)
    world.insert(range(len(stored)), stored)
    world.build()
    with world.engine.snapshot() as view:
        assert world.indexes.usable(view, world.table, "", "v", metric) is not None
        shares = [recall(world.search(view, query, 10), world.exactly(view, query, 10)) for query in queries]
    world.close()
    record_property("recall", float(np.mean(shares)))
    assert np.mean(shares) >= 0.95
