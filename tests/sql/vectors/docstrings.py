"""Real text embeddings without a download: latent semantic analysis of the docstrings of Python's standard library.

Each docstring is a document. Weights are tf-idf with sublinear tf, as Salton and Buckley define them; the projection is
a truncated singular value decomposition by random range finding (Halko, Martinsson, Tropp 2011), from a fixed seed. The
vectors of several thousand texts lie as embeddings of texts do: clustered, with near duplicates and with a few odd
ones.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np

_WORD = re.compile(r"[a-z]{3,}")
_LEFT_OUT = {"test", "tests", "site-packages", "idlelib", "lib2to3"}


def texts(most: int) -> list[str]:
    """Docstrings of modules, classes and functions, in the order of files and lines, each once."""
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, None] = {}
    for path in sorted(root.rglob("*.py")):
        if _LEFT_OUT & set(path.relative_to(root).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        if len(found) >= most:
            break
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                text = ast.get_docstring(node)
                if text and len(_WORD.findall(text.lower())) >= 4:
                    found[text] = None
    return list(found)[:most]


@lru_cache(maxsize=1)
def embeddings(most: int = 4_000, dimension: int = 64) -> np.ndarray:
    """A 32-bit vector for each text."""
    documents = [Counter(_WORD.findall(text.lower())) for text in texts(most)]
    frequency = Counter(word for words in documents for word in words)
    vocabulary = {word: place for place, (word, _) in enumerate(frequency.most_common(2_000))}
    weights = np.zeros((len(documents), len(vocabulary)), np.float32)
    for row, words in enumerate(documents):
        for word, count in words.items():
            if word in vocabulary:
                weights[row, vocabulary[word]] = (1 + np.log(count)) * np.log(len(documents) / frequency[word])
    weights /= np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-9)
    sketch = weights @ np.random.default_rng(20_261_128).normal(size=(len(vocabulary), dimension + 16)).astype(
        np.float32
    )
    basis, _ = np.linalg.qr(weights @ (weights.T @ sketch))
    left, values, _ = np.linalg.svd(basis.T @ weights, full_matrices=False)
    return np.ascontiguousarray(((basis @ left) * values)[:, :dimension], np.float32)
