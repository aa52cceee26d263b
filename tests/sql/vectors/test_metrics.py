"""Exact search against plain numpy, for all metrics, also where 32 bits are too few."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sql.vectors.exact import Block, blocks, nearest
from sql.vectors.metrics import bounds, exact
from storage.vector_definitions import VectorMetric


def reference(metric: VectorMetric, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The distances, one row at a time, as the definitions say."""
    found = []
    for row in rows.astype(np.float64):
        if metric is VectorMetric.L2:
            found.append(np.sqrt(((row - query) ** 2).sum()))
        elif metric is VectorMetric.DOT:
            found.append(-(row * query).sum())
        else:
            norm = np.sqrt((row**2).sum()) * np.sqrt((query**2).sum())
            found.append(1.0 if norm == 0 else 1.0 - np.clip((row * query).sum() / norm, -1, 1))
    return np.array(found)


ordinary = st.floats(-100, 100, width=32)
extreme = st.sampled_from([0.0, 1.0, -1.0, 1e-30, -1e-30, 1e30, -1e30, 3.0e38, 1e-44])


@st.composite
def searches(draw: st.DrawFn) -> tuple[VectorMetric, np.ndarray, np.ndarray, int]:
    dimension = draw(st.integers(1, 6))
    numbers = draw(st.sampled_from([ordinary, extreme]))
    rows = draw(arrays.arrays(np.float32, (draw(st.integers(1, 300)), dimension), elements=numbers))
    query = draw(arrays.arrays(np.float32, dimension, elements=numbers)).astype(np.float64)
    return draw(st.sampled_from(VectorMetric)), rows, query, draw(st.integers(1, 20))


@given(searches())
@settings(max_examples=150, deadline=None)
def test_exact_search_is_numpys(search: tuple[VectorMetric, np.ndarray, np.ndarray, int]) -> None:
    metric, rows, query, count = search
    distances = reference(metric, rows, query)
    seqs = np.arange(1, len(rows) + 1)
    cut = len(rows) // 3
    found = nearest(metric, [Block(seqs[:cut], rows[:cut]), Block(seqs[cut:], rows[cut:])], query, count)
    assert len(found.seqs) == len(set(found.seqs.tolist())) == min(count, len(rows))
    assert not np.isnan(found.distances).any()
    scale = np.abs(rows).max() * np.abs(query).max() * len(query) if metric is VectorMetric.DOT else 1.0
    np.testing.assert_allclose(found.distances, distances[found.seqs - 1], rtol=1e-9, atol=1e-9 * max(scale, 1e-300))
    np.testing.assert_allclose(found.distances, np.sort(distances)[:count], rtol=1e-9, atol=1e-9 * max(scale, 1e-300))


@given(searches())
@settings(max_examples=150, deadline=None)
def test_bounds_hold(search: tuple[VectorMetric, np.ndarray, np.ndarray, int]) -> None:
    metric, rows, query, _ = search
    low, high = bounds(metric, rows, query)
    distances = exact(metric, rows, query)
    if metric is VectorMetric.COSINE:
        certain = np.isfinite(low)
        distances, low, high = distances[certain] - 1, low[certain], high[certain]
    elif metric is VectorMetric.L2:
        distances = distances**2
    assert (low <= distances).all()
    assert (distances <= high).all()


@pytest.mark.parametrize("metric", VectorMetric)
def test_the_first_pass_leaves_out_most_rows(metric: VectorMetric) -> None:
    rows = np.random.default_rng(1).normal(size=(20_000, 64)).astype(np.float32)
    low, high = bounds(metric, rows, rows[0].astype(np.float64))
    assert (low <= np.partition(high, 9)[9]).sum() < 100


def test_nulls_are_left_out() -> None:
    kind = pa.list_(pa.float32(), 2)
    column = pa.array([[1, 2], None, [3, 4], None], kind)
    rows = pa.table({"_seq": pa.array([5, 6, 7, 8], pa.int64()), "v": column})
    [block] = blocks(rows, 2)
    assert block.seqs.tolist() == [5, 7]
    assert block.vectors.tolist() == [[1, 2], [3, 4]]
    [tail] = blocks(rows.slice(2, 1), 2)
    assert (tail.seqs.tolist(), tail.vectors.tolist()) == ([7], [[3, 4]])
    assert list(blocks(rows.slice(3), 2)) == []
