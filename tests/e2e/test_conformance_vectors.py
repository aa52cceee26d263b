"""EMBEDDING columns, vector indexes, COSINE_DISTANCE and vector_search as existing clients use them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conformance import Roles, columns, message, ok, roles_of
from tests.e2e.running import RunningServer
from tests.e2e.statement_conformance import DENIED, EXECUTION, INVALID, NO_TABLE, UNSUPPORTED, done, one, refused, shape

REFUSED = {EXECUTION, INVALID, UNSUPPORTED}


@pytest.fixture(scope="module")
def roles(server: RunningServer) -> Iterator[Roles]:
    server.sql("CREATE NAMESPACE app")
    with roles_of(server) as found:
        yield found


@pytest.fixture
def t(roles: Roles) -> Iterator[RunningServer]:
    """A table app.t with embeddings of two numbers."""
    server = roles.server
    server.sql("CREATE TABLE app.t (id INT PRIMARY KEY, v TEXT, e EMBEDDING(2)) WITH (ACCESS_LEVEL = 'public')")
    server.sql("INSERT INTO app.t VALUES (1, 'x', '[1, 0]'), (2, 'y', '[0, 1]'), (3, 'xy', '[1, 1]'), (4, 'n', NULL)")
    yield server
    server.sql("DROP TABLE IF EXISTS app.t")


def test_values_on_the_wire(t: RunningServer) -> None:
    result = one(t.post("SELECT e FROM app.t"))
    assert shape(result) == [("e", {"Embedding": 2})]
    assert result["rows"] == [[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 1.0]], [None]]
    t.sql("UPDATE app.t SET e = $1 WHERE id = 4", ["[0.5, -0.25]"])
    t.sql("UPDATE app.t SET e = $1 WHERE id = 3", [[2, 3]])
    assert t.rows("SELECT e FROM app.t WHERE id >= 3") == [[[2.0, 3.0]], [[0.5, -0.25]]]


@pytest.mark.parametrize("value", ["'[1]'", "'[1, 2, 3]'", "'[]'", "'x'", "'[1, \"a\"]'", "'[1, null]'", "'{}'", "5",
                                   "'[1, 1e999]'", "'[NaN, 1]'", "true", "''", "'[[1, 2]]'"])  # fmt: skip
def test_embeddings_of_another_length_or_kind(t: RunningServer, value: str) -> None:
    answer = t.post(f"INSERT INTO app.t VALUES (9, 'bad', {value})")
    assert (answer.status_code, answer.json()["error"]["code"]) in REFUSED, answer.text
    assert t.rows("SELECT count(*) FROM app.t") == [[4]]


@pytest.mark.parametrize("definition", ["EMBEDDING(2)", "embedding(2)", "EMBEDDING( 2 )"])
def test_type_names(roles: Roles, definition: str) -> None:
    roles.server.sql(f"CREATE TABLE app.k (id INT PRIMARY KEY, e {definition})")
    assert shape(one(roles.post("dba", "SELECT e FROM app.k"))) == [("e", {"Embedding": 2})]
    roles.server.sql("DROP TABLE app.k")


def test_cosine_distance(t: RunningServer) -> None:
    result = one(t.post("SELECT id, COSINE_DISTANCE(e, '[1, 0]') AS d FROM app.t ORDER BY id"))
    assert shape(result)[1] in {("d", "Float"), ("d", "Double")}
    found = dict(result["rows"])
    assert found[1] == pytest.approx(0)
    assert found[2] == pytest.approx(1)
    assert found[3] == pytest.approx(1 - 0.5**0.5, abs=1e-6)
    assert found[4] is None
    assert t.rows("SELECT COSINE_DISTANCE(e, '[0, 0]') FROM app.t WHERE id = 1") == [[1.0]]
    nearest = "SELECT id FROM app.t ORDER BY COSINE_DISTANCE(e, {}) LIMIT 2"
    assert t.rows(nearest.format("'[0.1, 1]'")) == [[2], [3]]
    assert t.rows(nearest.format("$1"), ["[0.1, 1]"]) == [[2], [3]]


@pytest.mark.parametrize("value", ["'[1]'", "'[1, 2, 3]'", "'no'", "'[]'"])
def test_lengths_of_cosine_distance(t: RunningServer, value: str) -> None:
    answer = t.post(f"SELECT COSINE_DISTANCE(e, {value}) FROM app.t")
    assert (answer.status_code, answer.json()["error"]["code"]) in REFUSED, answer.text


@pytest.mark.parametrize("using", ["", "USING COSINE", "USING L2", "using dot"])
@pytest.mark.parametrize("word", ["", "VECTOR "])
def test_an_index_comes_and_goes(t: RunningServer, word: str, using: str) -> None:
    distance = {"": "Cosine", "COSINE": "Cosine", "L2": "L2", "DOT": "Dot"}[using.upper().removeprefix("USING ")]
    told = message(t.post(f"ALTER TABLE app.t CREATE {word}INDEX e {using}"))
    assert told == f"Vector index enabled on app.t.e ({distance})"
    ids = "SELECT row_id FROM vector_search('app.t', 'e', '[1, 0.1]', 2)"
    assert {row[0] for row in t.rows(ids)} == ({"1", "3"})
    t.sql("INSERT INTO app.t VALUES (5, 'z', '[1, 0.2]'); DELETE FROM app.t WHERE id = 3")
    assert {row[0] for row in t.rows(ids)} == {"1", "5"}
    done(t, t.post("STORAGE FLUSH TABLE app.t"), "FL")
    assert {row[0] for row in t.rows(ids)} == {"1", "5"}
    assert message(t.post(f"ALTER TABLE app.t DROP {word}INDEX e")) == "Vector index disabled on app.t.e"
    answer = t.post(f"ALTER TABLE app.t DROP {word}INDEX e")
    refused(answer, EXECUTION, "e")


@pytest.mark.parametrize(
    "operation",
    ["CREATE VECTOR INDEX", "CREATE VECTOR INDEX e USING", "CREATE VECTOR INDEX e, v", "CREATE VECTOR INDEX v",
     "CREATE VECTOR INDEX e USING COSINE USING L2", "CREATE VECTOR INDEX id USING L2", "CREATE VECTOR INDEX 'e'",
     "CREATE VECTOR INDEX _seq", "DROP VECTOR INDEX", "DROP VECTOR INDEX nosuch", "DROP VECTOR INDEX id"],
)  # fmt: skip
def test_refused_indexes(t: RunningServer, operation: str) -> None:
    answer = t.post(f"ALTER TABLE app.t {operation}")
    assert (answer.status_code, answer.json()["error"]["code"]) in REFUSED, answer.text
    assert {row[8] for row in t.rows("DESCRIBE TABLE app.t")} == {1}
    refused(t.post(f"ALTER TABLE app.nosuch {'CREATE VECTOR INDEX e'}"), NO_TABLE)


def test_vector_search(t: RunningServer) -> None:
    result = one(t.post("SELECT * FROM vector_search('app.t', 'e', '[1, 0]')"))
    assert columns(result) == ["row_id", "score"]
    assert shape(result)[0] == ("row_id", "Text")
    assert shape(result)[1][1] in {"Float", "Double"}
    assert [row[0] for row in result["rows"]] == ["1", "3", "2"]
    joined = (
        "SELECT t.v FROM vector_search('app.t', 'e', '[0, 1]', 2) s JOIN app.t t ON CAST(t.id AS TEXT) = s.row_id"
        " ORDER BY s.score"
    )
    assert t.rows(joined) == [["y"], ["xy"]]
    assert len(t.rows("SELECT * FROM VECTOR_SEARCH('APP.T', 'E', '[0, 1]', 1)")) == 1


@pytest.mark.parametrize(
    "arguments",
    ["", "'app.t'", "'app.t', 'e'", "'app.t', 'nosuch', '[1, 0]'", "'app.t', 'v', '[1, 0]'", "'app.t', 'e', '[1]'",
     "'app.t', 'e', 'x'", "'app.t', 'e', '[1, 0]', 0", "'app.t', 'e', '[1, 0]', -1", "'app.t', 'e', '[1, 0]', 'x'",
     "'app.t', 'e', '[1, 0]', 1, 2", "'app.t', 'e', '[1, 0]', 1.5", "'app.t', 'e', v",
     "'app.t; DROP TABLE app.t', 'e', '[1, 0]'", "'app.t', 'e', '[1, 0]', 99999999999999999999",
     "'system.users', 'role', '[1, 0]'"],
)  # fmt: skip
def test_refused_searches(t: RunningServer, arguments: str) -> None:
    answer = t.post(f"SELECT * FROM vector_search({arguments})")
    found = (answer.status_code, answer.json()["error"]["code"])
    assert found in REFUSED | {NO_TABLE}, answer.text
    assert t.rows("SELECT count(*) FROM app.t") == [[4]]


def test_missing_tables(t: RunningServer) -> None:
    refused(t.post("SELECT * FROM vector_search('app.nosuch', 'e', '[1, 0]')"), NO_TABLE, "nosuch")
    refused(t.post("SELECT * FROM vector_search('nowhere.t', 'e', '[1, 0]')"), NO_TABLE)


def test_who_may(roles: Roles, t: RunningServer) -> None:
    refused(roles.post("user", "ALTER TABLE app.t CREATE VECTOR INDEX e"), DENIED)
    ok(roles.post("service", "ALTER TABLE app.t CREATE VECTOR INDEX e"))
    refused(roles.post("user", "ALTER TABLE app.t DROP VECTOR INDEX e"), DENIED)
    assert len(one(roles.post("user", "SELECT * FROM vector_search('app.t', 'e', '[1, 0]')"))["rows"]) == 3
    t.sql("ALTER TABLE app.t SET ACCESS LEVEL PRIVATE")
    answer = roles.post("user", "SELECT * FROM vector_search('app.t', 'e', '[1, 0]')")
    assert answer.status_code in {403, 404}
    t.sql("CREATE USER TABLE app.m (id INT PRIMARY KEY, e EMBEDDING(2)); ALTER TABLE app.m CREATE VECTOR INDEX e")
    for role, number in (("user", 1), ("dba", 2)):
        ok(roles.post(role, f"INSERT INTO app.m VALUES ({number}, '[1, 1]')"))
    for role, number in (("user", 1), ("dba", 2)):
        (row,) = one(roles.post(role, "SELECT row_id FROM vector_search('app.m', 'e', '[1, 1]')"))["rows"]
        assert row == [str(number)]
    t.sql("DROP TABLE app.m")
