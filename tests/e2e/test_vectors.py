"""Vector search in a running server: over HTTP, after `kill -9`, and while nobody waits."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.conftest import Serve
from tests.e2e.running import RunningServer

DIMENSION = 16
SEARCH = "SELECT id FROM app.docs ORDER BY COSINE_DISTANCE(v, $1) LIMIT 10"


def fill(server: RunningServer, base: np.ndarray, start: int) -> None:
    places = ", ".join(f"(${2 * n + 1}, ${2 * n + 2})" for n in range(len(base)))
    values = [value for number, row in enumerate(base, start) for value in (number, row.tolist())]
    server.sql(f"INSERT INTO app.docs VALUES {places}", values)


def nearest(server: RunningServer, query: np.ndarray) -> set[int]:
    return {row[0] for row in server.rows(SEARCH, [query.tolist()])}


def share_found(server: RunningServer, base: np.ndarray, ids: np.ndarray, queries: np.ndarray) -> float:
    unit = base / np.linalg.norm(base, axis=1, keepdims=True)
    hits = 0
    for query in queries:
        true = ids[np.argsort(-(unit[ids] @ query), kind="stable")[:10]]
        found = nearest(server, query)
        assert found <= set(ids.tolist())
        hits += len(found & set(true.tolist()))
    return hits / (10 * len(queries))


def test_statements_over_http(serve: Serve) -> None:
    server = serve(HEADRACE_VECTORS_MIN_ROWS="100").set_up()
    server.sql("CREATE NAMESPACE app")
    server.sql(f"CREATE SHARED TABLE app.docs (id INT PRIMARY KEY, v EMBEDDING({DIMENSION}))")
    [enabled] = server.sql("ALTER TABLE app.docs CREATE VECTOR INDEX v USING COSINE")
    assert enabled["message"] == "Vector index enabled on app.docs.v (Cosine)"
    [found] = server.sql("SELECT row_id, score FROM vector_search('app.docs', 'v', $1, 3)", [[1.0] * DIMENSION])
    assert [(column["name"], column["data_type"]) for column in found["schema"]] == [
        ("row_id", "Text"),
        ("score", "Float"),
    ]
    [disabled] = server.sql("ALTER TABLE app.docs DROP VECTOR INDEX v")
    assert disabled["message"] == "Vector index disabled on app.docs.v"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_kill_9_costs_an_index_nothing(serve: Serve, tmp_path: Path) -> None:
    """Killed while it builds, follows and saves, each time it finds what is stored, and only that."""
    chance = random.Random(7)
    base = np.random.default_rng(7).normal(size=(3_000, DIMENSION)).astype(np.float32)
    queries = np.random.default_rng(8).normal(size=(15, DIMENSION)).astype(np.float32)
    server = serve(HEADRACE_VECTORS_MIN_ROWS="200").set_up()
    server.sql("CREATE NAMESPACE app")
    server.sql(f"CREATE SHARED TABLE app.docs (id INT PRIMARY KEY, v EMBEDDING({DIMENSION}))")
    server.sql("CREATE VECTOR INDEX ON app.docs (v)")
    stored: set[int] = set()
    for number in range(6):
        start = number * 500
        fill(server, base[start : start + 500], start)
        stored |= set(range(start, start + 500))
        gone = chance.sample(sorted(stored), 40)
        server.sql(f"DELETE FROM app.docs WHERE id IN ({', '.join(map(str, gone))})")
        stored -= set(gone)
        nearest(server, queries[0])
        server.kill()
        for file in (tmp_path / "data" / "vectors").rglob("*.usearch"):
            if chance.random() < 0.3:
                file.write_bytes(file.read_bytes()[: chance.randrange(1_000)])
        server.start()
        assert share_found(server, base, np.array(sorted(stored)), queries) >= 0.95
