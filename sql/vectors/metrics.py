"""Distances of many embeddings to one, by column, in the same arithmetic as the SQL functions.

The SQL functions bring 32-bit embeddings to 64 bits before they sum (`sql.vectors.functions`); so does `exact`.
`bounds` is the cheap first look at many rows: 32-bit sums by BLAS, with how far off they may be. The bound is the usual
one for a sum of n products in floating point, n * eps * sum |a_i b_i| (Higham, Accuracy and Stability of Numerical
Algorithms, 3.1), with room, and the Cauchy-Schwarz inequality for the sum.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from storage.vector_definitions import VectorMetric

Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_BLOCK = 4_096
"""Rows that are brought to 64 bits at a time."""
_SMALLEST, _LARGEST = 1e-15, 1e15
"""Between these norms, squares neither vanish nor overflow in 32 bits."""
_EPS = float(np.finfo(np.float32).eps)
_FUNCTIONS = {
    VectorMetric.COSINE: "COSINE_DISTANCE",
    VectorMetric.L2: "L2_DISTANCE",
    VectorMetric.DOT: "DOT_DISTANCE",
}


def function_of(metric: VectorMetric) -> str:
    """The SQL function of a metric's distance."""
    return _FUNCTIONS[metric]


def exact(metric: VectorMetric, rows: Singles, query: Doubles) -> Doubles:
    """The distance of each row to the query; never NaN."""
    found = [_exact(metric, rows[start : start + _BLOCK], query) for start in range(0, len(rows), _BLOCK)]
    return np.concatenate(found) if found else np.empty(0)


def _exact(metric: VectorMetric, rows: Singles, query: Doubles) -> Doubles:
    wide = rows.astype(np.float64)
    if metric is VectorMetric.L2:
        wide -= query
        squares: Doubles = np.einsum("ij,ij->i", wide, wide)
        return np.sqrt(squares)
    products: Doubles = wide @ query
    if metric is VectorMetric.DOT:
        return -products
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide) * float(query @ query))
    similar = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    distances: Doubles = 1.0 - similar.clip(-1.0, 1.0)
    return distances


def bounds(metric: VectorMetric, rows: Singles, query: Doubles) -> tuple[Doubles, Doubles]:
    """Lower and upper bounds of what orders the rows as their distances do; infinite where 32 bits are too few."""
    whole = math.sqrt(float(query @ query))
    with np.errstate(all="ignore"):
        products = (rows @ query.astype(np.float32)).astype(np.float64)
        squares: Doubles = np.einsum("ij,ij->i", rows, rows).astype(np.float64)
        lengths = np.sqrt(squares)
        if metric is VectorMetric.COSINE:
            about, scale = -products / (lengths * whole), np.ones(len(rows))
        elif metric is VectorMetric.L2:
            about, scale = squares - 2 * products + whole * whole, (lengths + whole) ** 2
        else:
            about, scale = -products, lengths * whole
        error = 4 * (rows.shape[1] + 2) * _EPS * scale
        low, high = about - error, about + error
        certain = (lengths > _SMALLEST) & (lengths < _LARGEST) & (_SMALLEST < whole < _LARGEST)
    return np.where(certain, low, -np.inf), np.where(certain, high, np.inf)
