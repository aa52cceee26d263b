"""Queries of vector search: functions, ORDER BY … LIMIT with and without conditions, vector_search."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sql.errors import InvalidParameter, InvalidSql, SqlError, TableNotFound, Unsupported
from sql.vectors import nearest
from sql.vectors.metrics import exact, function_of
from sql.vectors.plain_nearest import run_plain
from storage.vector_definitions import VectorMetric
from tests.sql.vectors.sql_world import BASE, DIMENSION, Sql, vectors


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sql]:
    """A table of 800 rows and one without an embedding, with an index for each metric on a copy of the column."""
    sql = Sql(tmp_path_factory.mktemp("docs"))
    for metric in VectorMetric:
        table = f"app.{metric.value}"
        sql.run(f"CREATE SHARED TABLE {table} (id INT PRIMARY KEY, kind TEXT, v EMBEDDING({DIMENSION}))")
        sql.insert(table, BASE)
        sql.run(f"INSERT INTO {table} VALUES (9000, 'none', NULL)")
        sql.run(f"CREATE VECTOR INDEX ON {table} (v) USING {metric.value}")
        sql.build(table)
    yield sql
    sql.close()


def expected(metric: VectorMetric, query: np.ndarray, ids: np.ndarray, count: int) -> list[int]:
    order = np.argsort(exact(metric, BASE[ids], query.astype(np.float64)), kind="stable")
    return ids[order][:count].tolist()


# --- functions -------------------------------------------------------------------------------------------------------

numbers = st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=5)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_functions_agree_with_numpy(docs: Sql, data: st.DataFn) -> None:
    left = data.draw(numbers)
    right = data.draw(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=len(left), max_size=len(left)))
    a, b = np.array([left], np.float32), np.array(right, np.float32).astype(np.float64)
    kind = f"EMBEDDING({len(left)})"
    [row] = docs.rows(
        f"SELECT COSINE_DISTANCE($1::{kind}, $2), L2_DISTANCE('{left}', $2), DOT_DISTANCE($1::{kind}, '{right}'), "
        f"INNER_PRODUCT($1::{kind}, $2), $1::{kind} <-> $2::{kind}",
        left,
        right,
    )
    wanted = [float(exact(metric, a, b)[0]) for metric in VectorMetric]
    scale = float(np.abs(a.astype(np.float64) * b).sum())
    assert row[0] == pytest.approx(wanted[0], abs=1e-6)
    assert row[1] == pytest.approx(wanted[1], rel=1e-9, abs=1e-300)
    assert row[2] == pytest.approx(wanted[2], abs=1e-12 * scale + 1e-300)
    assert row[3] == pytest.approx(-wanted[2], abs=1e-12 * scale + 1e-300)
    assert row[4] == row[1]


def test_functions_at_their_edges(docs: Sql) -> None:
    assert docs.rows("SELECT COSINE_DISTANCE('[0, 0]', '[1, 2]'), COSINE_DISTANCE(NULL, '[1]')") == [(1.0, None)]
    assert docs.rows("SELECT DOT_DISTANCE(v, v), INNER_PRODUCT(v, NULL) FROM app.dot WHERE id = 9000") == [(None, None)]
    for text in ("COSINE_DISTANCE(v, '[1, 2]')", "L2_DISTANCE('[1]', v)", "v <-> '[1, 2]'", "DOT_DISTANCE(v, [1])"):
        with pytest.raises(InvalidSql, match="same number of dimensions, not of"):
            docs.rows(f"SELECT {text} FROM app.l2")
    with pytest.raises(InvalidParameter, match="takes 12 numbers, not 2"):
        docs.rows("SELECT COSINE_DISTANCE(v, $1) FROM app.l2", [1, 2])
    with pytest.raises(InvalidSql, match="array of numbers"):
        docs.rows("SELECT COSINE_DISTANCE(v, 'near') FROM app.l2")
    with pytest.raises(InvalidSql, match="takes two embeddings"):
        docs.rows("SELECT L2_DISTANCE(v) FROM app.l2")
    with pytest.raises(SqlError, match=r"(?i)dimension"):
        docs.rows("SELECT COSINE_DISTANCE([1.0, id], [1.0, 2.0, 3.0]) FROM app.l2")


def test_a_name_means_what_its_own_from_says(docs: Sql) -> None:
    """Columns of other scopes, aliases and lambdas that share the name of an embedding have other dimensions."""
    for text in (
        "WITH c AS (SELECT [1.0, 0.0] AS v FROM app.l2 LIMIT 1) SELECT L2_DISTANCE(v, '[0, 0]') FROM c",
        "SELECT L2_DISTANCE(x.v, '[0, 0]') FROM (SELECT [1.0, 0.0] AS v) x, app.l2 WHERE id = 1",
        "SELECT list_transform([[1.0, 0.0]], v -> L2_DISTANCE(v, '[0, 0]'))[1] FROM app.l2 WHERE id = 1",
        "SELECT L2_DISTANCE(k, '[0, 0]') FROM (SELECT id AS i, [1.0, 0.0] AS k FROM app.l2 WHERE id = 1)",
    ):
        assert docs.rows(text) == [(1.0,)], text


# --- ORDER BY … LIMIT ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", VectorMetric)
def test_the_nearest_come_from_the_index(docs: Sql, metric: VectorMetric) -> None:
    text = f"SELECT id FROM app.{metric.value} ORDER BY {function_of(metric)}(v, $1) LIMIT 10"
    assert f"vector index: {metric.value}_v_vector ({function_of(metric)} of v)" in docs.plan(text, BASE[0].tolist())
    hits = 0
    for query in vectors(2, 30):
        found = [row[0] for row in docs.rows(text, query.tolist())]
        assert len(set(found)) == 10
        hits += len(set(found) & set(expected(metric, query, np.arange(800), 10)))
    assert hits >= 0.98 * 300


@pytest.mark.parametrize("metric", VectorMetric)
@pytest.mark.parametrize(
    "group", ["kind = 'g7'", "id < 400", "id % 3 = 1 AND kind <> 'g1'", "kind = 'g3' AND id > 790"]
)
def test_conditions_are_kept_exactly(docs: Sql, metric: VectorMetric, group: str) -> None:
    found_ids = docs.rows(f"SELECT id FROM app.{metric.value} WHERE ({group}) AND v IS NOT NULL")
    ids = np.array([row[0] for row in found_ids], int)
    name = function_of(metric)
    hits = total = 0
    for query in vectors(3, 12):
        rows = docs.rows(
            f"SELECT id, {name}(v, $1) AS d FROM app.{metric.value} WHERE {group} ORDER BY d, id LIMIT $2 OFFSET 1",
            query.tolist(),
            9,
        )
        found = [row[0] for row in rows if row[1] is not None]
        wanted = expected(metric, query, ids, 10)[1:]
        assert set(found) <= set(ids.tolist())
        assert [row[1] for row in rows] == sorted(row[1] for row in rows)
        assert len(found) == len(wanted)
        hits += len(set(found) & set(wanted))
        total += len(wanted)
    assert hits >= 0.95 * total


@pytest.mark.parametrize("metric", VectorMetric)
@pytest.mark.parametrize("group", ["true", "kind = $3", "id % 2 = 1", "kind = 'g3' AND id % 7 = 1", "kind = 'nobody'"])
def test_columns_alone_need_no_duckdb(
    docs: Sql, metric: VectorMetric, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows in the same order as DuckDB gives them, whichever of the two is asked."""
    values = ["g7"] if "$3" in group else []
    found_ids = docs.rows(f"SELECT id, kind FROM app.{metric.value} WHERE ({group.replace('$3', '$1')})", *values)
    kinds = dict(found_ids)
    ids = np.array(sorted(kinds.keys() - {9000}), int)
    text = (
        f"SELECT id AS number, kind, id FROM app.{metric.value} WHERE {group} "
        f"ORDER BY {function_of(metric)}(v, $1) LIMIT $2 OFFSET 1"
    )
    plainly = []

    def counting(*arguments: Any) -> pa.Table | None:
        plainly.append(run_plain(*arguments))
        return plainly[-1]

    monkeypatch.setattr(nearest, "run_plain", counting)
    hits = total = 0
    for query in vectors(4, 12):
        columns = docs.run(text, query.tolist(), 9, *values)[-1].table
        assert columns.column_names == ["number", "kind", "id"]
        rows = docs.rows(text, query.tolist(), 9, *values)
        assert all(row[0] == row[2] and kinds[row[0]] == row[1] for row in rows)
        found = [row[0] for row in rows if row[0] != 9000]
        wanted = expected(metric, query, ids, 10)[1:]
        assert len(found) == len(wanted)
        distances = exact(metric, BASE[found], query.astype(np.float64)) if found else np.empty(0)
        assert (distances[1:] >= distances[:-1]).all()
        hits += len(set(found) & set(wanted))
        total += len(wanted)
    assert hits >= 0.97 * total
    enough = len(ids) >= 100
    assert len(plainly) == 24
    assert all((answer is not None) is enough for answer in plainly) or group == "kind = $3"


def test_a_condition_that_is_null_keeps_no_row(docs: Sql) -> None:
    text = "SELECT id FROM app.l2 WHERE id > $2 ORDER BY v <-> $1 LIMIT 5"
    assert docs.rows(text, BASE[0].tolist(), None) == []
    assert len(docs.rows(text, BASE[0].tolist(), 10)) == 5


def test_rows_without_an_embedding_come_last(docs: Sql) -> None:
    query = BASE[0].tolist()
    found = docs.rows("SELECT id FROM app.l2 WHERE id > 797 ORDER BY v <-> $1 LIMIT 5", query)
    assert [row[0] for row in found][-1] == 9000
    assert len(found) == 3
    everything = docs.rows("SELECT id FROM app.l2 ORDER BY v <-> $1 LIMIT 900", query)
    assert len(everything) == 801
    assert everything[-1] == (9000,)
    assert docs.rows("SELECT count(*) FROM (SELECT id FROM app.l2 ORDER BY v <-> NULL LIMIT 3)") == [(3,)]


def test_similarity_descending_is_dot_distance_ascending(docs: Sql) -> None:
    query = BASE[3].tolist()
    ascending = docs.rows("SELECT id FROM app.dot ORDER BY DOT_DISTANCE(v, $1) LIMIT 8", query)
    text = "SELECT id FROM app.dot ORDER BY INNER_PRODUCT(v, $1) DESC NULLS LAST LIMIT 8"
    assert "vector index" in docs.plan(text, query)
    assert docs.rows(text, query) == ascending
    assert "vector index" not in docs.plan("SELECT id FROM app.dot ORDER BY INNER_PRODUCT(v, $1) LIMIT 8", query)
    assert docs.rows("SELECT id FROM app.dot ORDER BY INNER_PRODUCT(v, $1) DESC LIMIT 1", query) == [(9000,)]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT id FROM app.l2 ORDER BY L2_DISTANCE(v, $1) DESC LIMIT 3",
        "SELECT id FROM app.l2 ORDER BY L2_DISTANCE(v, $1)",
        "SELECT id FROM app.l2 ORDER BY L2_DISTANCE(v, $1) NULLS FIRST LIMIT 3",
        "SELECT id FROM app.l2 ORDER BY kind, L2_DISTANCE(v, $1) LIMIT 3",
        "SELECT id FROM app.l2 ORDER BY 1 - L2_DISTANCE(v, $1) LIMIT 3",
        "SELECT DISTINCT kind, L2_DISTANCE(v, $1) AS d FROM app.l2 ORDER BY d LIMIT 3",
        "SELECT id, row_number() OVER (ORDER BY id) FROM app.l2 ORDER BY L2_DISTANCE(v, $1) LIMIT 3",
        "SELECT a.id FROM app.l2 a JOIN app.dot b USING (id) ORDER BY L2_DISTANCE(a.v, $1) LIMIT 3",
        "SELECT kind, min(L2_DISTANCE(v, $1)) AS d FROM app.l2 GROUP BY kind ORDER BY d LIMIT 3",
    ],
)
def test_other_questions_read_all_rows(docs: Sql, text: str) -> None:
    plan = docs.plan(text, BASE[0].tolist())
    assert "vector index" not in plan
    assert "exact" not in plan
    assert docs.rows(text, BASE[0].tolist())


def test_explain_says_why_a_search_is_exact(docs: Sql) -> None:
    text = "SELECT id FROM app.l2 ORDER BY COSINE_DISTANCE(v, $1) LIMIT 3"
    assert "exact: COSINE_DISTANCE of v (the column has no vector index for it)" in docs.plan(text, BASE[0].tolist())


def test_a_transaction_searches_what_it_wrote(docs: Sql) -> None:
    query = (BASE[11] * 2).tolist()
    results = docs.run(
        "BEGIN; UPDATE app.cosine SET v = $2 WHERE id = 11; INSERT INTO app.cosine VALUES (7777, 'new', $1); "
        "SELECT id FROM app.cosine ORDER BY COSINE_DISTANCE(v, $1) LIMIT 1; "
        "SELECT row_id FROM vector_search('app.cosine', 'v', $1, 1); ROLLBACK",
        query,
        (-BASE[11]).tolist(),
    )
    assert [results[place].table.column(0).to_pylist() for place in (3, 4)] == [[7777], ["7777"]]
    assert docs.rows("SELECT id FROM app.cosine ORDER BY COSINE_DISTANCE(v, $1) LIMIT 1", query) == [(11,)]


# --- vector_search ---------------------------------------------------------------------------------------------------


def test_vector_search_gives_keys_and_distances(docs: Sql) -> None:
    query = vectors(4, 1)[0]
    rows = docs.rows("SELECT row_id, score FROM vector_search('app.cosine', 'v', $1)", query.tolist())
    assert len(rows) == 10
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    joined = docs.rows(
        "SELECT d.id, s.score, COSINE_DISTANCE(d.v, $1) FROM vector_search('app.cosine', 'V', $2, $3) AS s "
        "JOIN app.cosine d ON d.id = s.row_id ORDER BY s.score",
        query.tolist(),
        str(query.tolist()),
        5,
    )
    assert [str(row[0]) for row in joined] == [row[0] for row in rows][:5]
    assert all(score == pytest.approx(distance, abs=1e-7) for _, score, distance in joined)
    assert "vector index: cosine_v_vector" in docs.plan(
        "SELECT * FROM vector_search('cosine', 'v', $1)", query.tolist()
    )
    assert docs.rows("SELECT * FROM vector_search('app.cosine', 'v', $1)", None) == []
    assert docs.rows("SELECT count(*) FROM vector_search('app.cosine', 'v', $1, 3), app.l2", query.tolist()) == [
        (2403,)
    ]


@pytest.mark.parametrize(
    ("arguments", "error", "part"),
    [
        ("'app.cosine', 'v', $1, 2, 3", InvalidSql, "three or four"),
        ("'app.cosine', 'v', $1, 0", InvalidSql, "from 1 to"),
        ("'app.cosine', 'v', $1, 1.5", InvalidSql, "from 1 to"),
        ("'app.cosine', 'v', $1, 10001", InvalidSql, "from 1 to"),
        ("'app.cosine', 'v', '[1]'", InvalidSql, "of 12 dimensions, not of 1"),
        ("'app.cosine', 'v', 'x'", InvalidSql, "array of numbers"),
        ("'app.cosine', 'v', upper($1)", InvalidSql, "a literal or a parameter"),
        ("'app.cosine', 'kind', $1", InvalidSql, "is TEXT, not an EMBEDDING"),
        ("'app.cosine', 'w', $1", InvalidSql, "Column not found: 'w'"),
        ("'app.cosines', 'v', $1", TableNotFound, "Did you mean 'app.cosine'"),
        ("'system.tables', 'v', $1", InvalidSql, "Column not found"),
        ("$1, 'v', '[1]'", InvalidSql, "are texts"),
    ],
)
def test_vector_search_refuses(docs: Sql, arguments: str, error: type[SqlError], part: str) -> None:
    params = [BASE[0].tolist()] if "$1" in arguments else []
    with pytest.raises(error, match=part):
        docs.rows(f"SELECT * FROM vector_search({arguments})", *params)


def test_vector_search_is_a_table(docs: Sql) -> None:
    with pytest.raises(InvalidSql, match="stands in FROM"):
        docs.rows("SELECT vector_search('app.cosine', 'v', '[1]')")
    with pytest.raises((InvalidSql, Unsupported)):
        docs.rows("SUBSCRIBE TO SELECT * FROM vector_search('app.cosine', 'v', '[1]')")
