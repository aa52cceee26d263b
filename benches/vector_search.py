"""Vector search: Headrace over HTTP beside usearch and exact numpy in process, on the same embeddings."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import httpx
import numpy as np
import numpy.typing as npt

from benches.peers import Unavailable
from benches.runner import Options, stage
from benches.table import Aim, Report, Row

NAME = "vector-search"
SUMMARY = "the 10 nearest of many embeddings, over HTTP, against usearch and numpy in process"

Vectors = npt.NDArray[np.float32]

DIMENSION = 128
QUERIES = 200
TOP = 10
BATCH = 500
BUILD_SECONDS = 1_800.0
INDEXED = 5_000
"""Rows below which the server searches exactly (vectors.min_rows)."""
FLOOR = "SELECT 1, over HTTP"
LIBRARY = "usearch, in process"
NUMPY = "numpy exact, in process"
SEARCH = f"SELECT id FROM bench.vectors ORDER BY COSINE_DISTANCE(v, $1) LIMIT {TOP}"
FILTERED = f"SELECT id FROM bench.vectors WHERE part = 7 ORDER BY COSINE_DISTANCE(v, $1) LIMIT {TOP}"
FUNCTION = f"SELECT row_id FROM vector_search('bench.vectors', 'v', $1, {TOP})"


def run(options: Options) -> Iterator[Report]:
    """One connection, one search at a time; the systems take turns in every round."""
    base, queries = embeddings(options.rows)
    unit = base / np.linalg.norm(base, axis=1, keepdims=True)
    with stage(options, insist=True) as running:
        headrace = running.headrace
        with httpx.Client(base_url=headrace.base, headers=headrace.headers, timeout=BUILD_SECONDS) as client:
            load(client, base)
            searches = [
                ("Headrace", search_over_http(client, SEARCH), None),
                ("Headrace, vector_search", search_over_http(client, FUNCTION), None),
                ("Headrace, WHERE of 10 %", search_over_http(client, FILTERED), 7),
                (FLOOR, select_one(client), None),
                (LIBRARY, library(base), None),
                (NUMPY, lambda query: np.argpartition(unit @ -query, TOP)[:TOP].tolist(), None),
            ]
            rows = measured(searches, unit, queries, options.rounds)
    yield Report(
        title=f"{TOP} nearest of {options.rows:,} embeddings of {DIMENSION} numbers, 1 connection (less is better)",
        unit="p50 ms",
        headings=("p99 ms", f"recall@{TOP}"),
        rows=rows,
        aims=(Aim(FLOOR, 2.0, at_most=True),),
        note="usearch and numpy answer inside the bench's process, without HTTP, SQL, snapshots and rights.",
    )


def embeddings(rows: int) -> tuple[Vectors, Vectors]:
    """Clustered vectors, as those of texts are, and as many queries from the same clusters; from a fixed seed."""
    chance = np.random.default_rng(11)
    centres = chance.normal(size=(max(rows // 100, 10), DIMENSION))
    chosen = chance.integers(0, len(centres), rows + QUERIES)
    found = (centres[chosen] + 0.7 * chance.normal(size=(rows + QUERIES, DIMENSION))).astype(np.float32)
    return found[:rows], found[rows:]


def load(client: httpx.Client, base: Vectors) -> None:
    """Fill the table and wait for its index."""
    sql(client, "CREATE NAMESPACE IF NOT EXISTS bench")
    sql(client, f"CREATE SHARED TABLE bench.vectors (id INT PRIMARY KEY, part INT, v EMBEDDING({DIMENSION}))")
    for start in range(0, len(base), BATCH):
        part = base[start : start + BATCH]
        places = ", ".join(f"(${3 * n + 1}, ${3 * n + 2}, ${3 * n + 3})" for n in range(len(part)))
        values: list[object] = []
        for number, vector in enumerate(part, start):
            values += [number, number % 10, vector.tolist()]
        sql(client, f"INSERT INTO bench.vectors VALUES {places}", values)
    sql(client, "CREATE VECTOR INDEX ON bench.vectors (v) USING COSINE")
    if len(base) < INDEXED:
        return
    until = time.monotonic() + BUILD_SECONDS
    while time.monotonic() < until:
        plan = sql(client, f"EXPLAIN {SEARCH}", [base[0].tolist()])
        if any(str(row[0]).startswith("vector index: ") for row in plan):
            return
        failed = sql(client, "SELECT message FROM system.jobs WHERE job_type = 'vector_index' AND status = 'failed'")
        if failed:
            raise Unavailable(f"the index was not built: {failed[0][0]}")
        time.sleep(0.5)  # the job tells nobody over HTTP that it is done
    raise Unavailable("the index was not built in time")


def sql(client: httpx.Client, text: str, params: Sequence[object] = ()) -> list[list[object]]:
    """The rows of a statement."""
    answer = client.post("/v1/api/sql", json={"sql": text, "params": list(params)})
    answer.raise_for_status()
    found: list[list[object]] = answer.json()["results"][0].get("rows") or []
    return found


def search_over_http(client: httpx.Client, text: str) -> Callable[[Vectors], list[int]]:
    """A search by its statement."""
    return lambda query: [int(str(row[0])) for row in sql(client, text, [query.tolist()])]


def select_one(client: httpx.Client) -> Callable[[Vectors], list[int]]:
    """What a query that does nothing costs, with the vector sent along."""
    return lambda query: [int(bool(sql(client, "SELECT 1 WHERE $1 IS NOT NULL", [query.tolist()]))) - 1]


def library(base: Vectors) -> Callable[[Vectors], list[int]]:
    """The library alone, with the settings of Headrace's index; its answers are not ranked again."""
    from usearch.index import Index

    index = Index(ndim=DIMENSION, metric="cos", dtype="bf16", connectivity=16, expansion_add=128, expansion_search=128)
    index.add(np.arange(len(base), dtype=np.uint64), base, threads=1)
    return lambda query: index.search(query, TOP, threads=1).keys.tolist()


def measured(
    searches: Sequence[tuple[str, Callable[[Vectors], list[int]], int | None]],
    unit: Vectors,
    queries: Vectors,
    rounds: int,
) -> tuple[Row, ...]:
    """A line for each search: times over all rounds, and the share of the true neighbours that were found."""
    times: dict[str, list[float]] = {name: [] for name, _, _ in searches}
    hits: dict[str, list[float]] = {name: [] for name, _, _ in searches}
    every = np.arange(len(unit))
    for number in range(rounds + 1):
        for name, search, part in searches:
            ids = every if part is None else every[every % 10 == part]
            for query in queries:
                started = time.perf_counter()
                found = search(query)
                taken = (time.perf_counter() - started) * 1000
                if number:
                    times[name].append(taken)
                elif name != FLOOR and len(hits[name]) < len(queries):
                    true = ids[np.argpartition(unit[ids] @ -query, TOP)[:TOP]]
                    hits[name].append(len(set(found) & set(true.tolist())) / TOP)
    return tuple(
        Row(
            syncs="-",
            system=name,
            figure=statistics.median(times[name]),
            details=(
                f"{np.percentile(times[name], 99):.2f}",
                f"{statistics.mean(hits[name]):.3f}" if hits[name] else "-",
            ),
            command=f"python -m benches {NAME}",
        )
        for name, _, _ in searches
    )
