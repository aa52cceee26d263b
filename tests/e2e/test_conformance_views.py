"""CREATE [OR REPLACE] VIEW, DROP VIEW, and views in every place where a table stands, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conformance import Roles, columns, message, ok, roles_of
from tests.e2e.running import RunningServer
from tests.e2e.statement_conformance import (
    DENIED,
    EXECUTION,
    HOSTILE_IDS,
    INVALID,
    NO_TABLE,
    UNSUPPORTED,
    one,
    records,
    refused,
    shape,
)


@pytest.fixture(scope="module")
def roles(server: RunningServer) -> Iterator[Roles]:
    server.sql(
        "CREATE NAMESPACE app; CREATE NAMESPACE other;"
        "CREATE TABLE app.t (id BIGINT PRIMARY KEY, v TEXT NOT NULL, p DECIMAL(8,2), at TIMESTAMP)"
        " WITH (ACCESS_LEVEL = 'public');"
        "INSERT INTO app.t VALUES (1, 'a', 1.5, '1970-01-01 00:00:01'), (2, 'b', NULL, NULL), (3, 'c', 3, NULL);"
        "CREATE TABLE app.secret (id INT PRIMARY KEY); INSERT INTO app.secret VALUES (42);"
        "CREATE USER TABLE app.mine (id INT PRIMARY KEY)"
    )
    with roles_of(server) as found:
        yield found


@pytest.fixture
def clean(roles: Roles) -> Iterator[RunningServer]:
    """The view app.v is free before and after."""
    yield roles.server
    roles.server.sql("DROP VIEW IF EXISTS app.w; DROP VIEW IF EXISTS app.v")


@pytest.mark.parametrize(
    ("sql", "names", "rows"),
    [
        ("CREATE VIEW app.v AS SELECT id, v FROM app.t", ["id", "v"], [[1, "a"], [2, "b"], [3, "c"]]),
        ("create view APP.V as select id from app.t where id > 1;", ["id"], [[2], [3]]),
        ('CREATE VIEW "app"."v" AS SELECT * FROM app.secret', ["id"], [[42]]),
        ("CREATE VIEW app.v (a, b) AS SELECT id, v FROM app.t WHERE id = 1", ["a", "b"], [[1, "a"]]),
        ("CREATE OR REPLACE VIEW app.v AS SELECT 1 AS one, 'x' AS two", ["one", "two"], [[1, "x"]]),
        ("CREATE VIEW app.v AS SELECT count(*) AS n, max(id) AS m FROM app.t", ["n", "m"], [[3, 3]]),
        ("CREATE VIEW app.v AS WITH x AS (SELECT id FROM app.t) SELECT * FROM x WHERE id < 2", ["id"], [[1]]),
        ("CREATE VIEW app.v AS SELECT a.id FROM app.t a JOIN app.t b ON a.id = b.id + 2", ["id"], [[3]]),
        ("CREATE VIEW app.v AS SELECT id FROM app.t UNION ALL SELECT id FROM app.secret ORDER BY 1 DESC LIMIT 2",
         ["id"], [[42], [3]]),
        ("CREATE VIEW app.v AS SELECT id, row_number() OVER (ORDER BY id DESC) AS place FROM app.t WHERE id <> 2",
         ["id", "place"], [[1, 2], [3, 1]]),
        ("CREATE VIEW app.v AS (SELECT id FROM app.t WHERE v = 'c')", ["id"], [[3]]),
        ("CREATE VIEW app.v AS VALUES (1, 'x')", None, [[1, "x"]]),
    ],
)  # fmt: skip
def test_forms(clean: RunningServer, sql: str, names: list[str] | None, rows: list[list[object]]) -> None:
    answer = clean.post(sql)
    if names is None and answer.status_code != 200:  # VALUES without SELECT need not be a view
        refused(answer, UNSUPPORTED if answer.json()["error"]["code"] == "UNSUPPORTED" else INVALID)
        return
    assert message(answer) == "View app.v created successfully"
    result = one(clean.post("SELECT * FROM app.v"))
    assert names is None or columns(result) == names
    assert sorted(map(str, result["rows"])) == sorted(map(str, rows))
    assert "message" not in result
    assert result["as_user"] == clean.user


def test_types_on_the_wire(clean: RunningServer) -> None:
    clean.sql("CREATE VIEW app.v AS SELECT id, v, p, at, p * 2 AS q, id > 1 AS late FROM app.t")
    result = one(clean.post("SELECT * FROM app.v WHERE id = 1"))
    kinds = dict(shape(result))
    assert (kinds["id"], kinds["v"], kinds["at"], kinds["late"]) == ("BigInt", "Text", "Timestamp", "Boolean")
    assert kinds["p"] == {"Decimal": {"precision": 8, "scale": 2}}
    assert result["rows"][0][:4] == [1, "a", "1.50", 1_000_000]
    assert result["rows"][0][5] is False


def test_in_every_place_of_a_query(clean: RunningServer) -> None:
    clean.sql("CREATE VIEW app.v AS SELECT id, v FROM app.t WHERE id < 3")
    for sql, rows in [
        ("SELECT x.v FROM app.v AS x WHERE x.id = 2", [["b"]]),
        ("SELECT count(*) FROM app.v", [[2]]),
        ("SELECT app.v.id FROM app.v ORDER BY id DESC", [[2], [1]]),
        ("SELECT v.id, t.id FROM app.v JOIN app.t ON t.id = v.id + 1 ORDER BY 1", [[1, 2], [2, 3]]),
        ("SELECT id FROM app.t WHERE id NOT IN (SELECT id FROM app.v)", [[3]]),
        ("WITH v AS (SELECT 9 AS id) SELECT id FROM v", [[9]]),
        ("SELECT id FROM app.v UNION ALL SELECT 7 ORDER BY 1", [[1], [2], [7]]),
        ("SELECT id FROM app.v WHERE id = $1", [[2]]),
    ]:
        assert clean.rows(sql, [2] if "$1" in sql else None) == rows
    assert clean.rows("SELECT id FROM v", namespace_id="app") == [[1], [2]]
    refused(clean.post("SELECT id FROM v"), NO_TABLE)
    clean.sql("UPDATE app.t SET v = 'new' WHERE id = 1")
    assert clean.rows("SELECT v FROM app.v WHERE id = 1") == [["new"]]
    clean.sql("UPDATE app.t SET v = 'a' WHERE id = 1")
    assert clean.rows("BEGIN; INSERT INTO app.secret SELECT id FROM app.v WHERE id = 1; ROLLBACK") == []


def test_unqualified_names_are_those_of_the_namespace(clean: RunningServer) -> None:
    assert message(clean.post("CREATE VIEW v AS SELECT id FROM t", namespace_id="app")) == (
        "View app.v created successfully"
    )
    assert clean.rows("SELECT count(*) FROM app.v", namespace_id="other") == [[3]]
    assert message(clean.post("DROP VIEW v", namespace_id="app")) == "View app.v dropped successfully"


def test_replacing_and_dropping(clean: RunningServer) -> None:
    clean.sql("CREATE VIEW app.v AS SELECT id FROM app.t")
    refused(clean.post("CREATE VIEW app.v AS SELECT 1 AS x"), EXECUTION, "Already exists: ")
    assert columns(one(clean.post("SELECT * FROM app.v"))) == ["id"]
    told = "View app.v created successfully"
    assert message(clean.post("CREATE OR REPLACE VIEW app.v (y) AS SELECT 2")) == told
    assert clean.rows("SELECT y FROM app.v") == [[2]]
    clean.sql("CREATE VIEW app.w AS SELECT y + 1 AS z FROM app.v")
    assert clean.rows("SELECT z FROM app.w") == [[3]]
    clean.sql("CREATE OR REPLACE VIEW app.v (y) AS SELECT 3")
    assert clean.rows("SELECT z FROM app.w") == [[4]]
    clean.sql("DROP VIEW app.w")
    for form in ("DROP VIEW app.v", 'drop view if exists "app".V', "DROP VIEW IF EXISTS app.v;"):
        clean.sql("CREATE OR REPLACE VIEW app.v AS SELECT 1 AS x")
        assert message(clean.post(form)) == "View app.v dropped successfully"
        refused(clean.post("SELECT * FROM app.v"), NO_TABLE)
    assert message(clean.post("DROP VIEW IF EXISTS app.v")) == "View app.v does not exist (skipped)"


@pytest.mark.parametrize(
    ("sql", "kinds", "part"),
    [
        ("CREATE VIEW app.v", {INVALID}, ""),
        ("CREATE VIEW app.v AS", {INVALID}, ""),
        ("CREATE VIEW AS SELECT 1", {INVALID}, ""),
        ("CREATE VIEW app.v SELECT 1", {INVALID}, ""),
        ("CREATE VIEW app.v AS SELECT", {INVALID}, ""),
        ("CREATE VIEW app.v AS SELECT 1 AS x; SELECT FROM", {INVALID}, ""),
        ("CREATE VIEW app.v AS DELETE FROM app.t WHERE true", {INVALID, UNSUPPORTED}, ""),
        ("CREATE VIEW app.v AS INSERT INTO app.secret VALUES (1) RETURNING id", {INVALID, UNSUPPORTED}, ""),
        ("CREATE VIEW app.v AS SELECT nosuch FROM app.t", {INVALID, EXECUTION}, "nosuch"),
        ("CREATE VIEW app.v AS SELECT * FROM app.nosuch", {NO_TABLE}, "nosuch"),
        ("CREATE VIEW app.v AS SELECT * FROM app.v", {NO_TABLE}, "v"),
        ("CREATE VIEW app.v AS SELECT id, id FROM app.t", {INVALID, EXECUTION}, "id"),
        ("CREATE VIEW app.v (a, b, c) AS SELECT id, v FROM app.t", {INVALID, EXECUTION}, ""),
        ("CREATE VIEW app.v (a, A) AS SELECT id, v FROM app.t", {INVALID, EXECUTION}, "a"),
        ("CREATE VIEW app.v () AS SELECT id FROM app.t", {INVALID}, ""),
        ("CREATE VIEW app.v AS SELECT id FROM app.t WHERE id = $1",
         {INVALID, EXECUTION, (400, "INVALID_PARAMETER")}, ""),
        ("CREATE VIEW nowhere.v AS SELECT 1 AS x", {EXECUTION}, "Namespace 'nowhere' does not exist"),
        ("CREATE VIEW app.t AS SELECT 1 AS x", {EXECUTION}, "app.t"),
        ("CREATE OR REPLACE VIEW app.t AS SELECT 1 AS x", {EXECUTION}, "app.t"),
        ("CREATE VIEW system.v AS SELECT 1 AS x", {DENIED}, ""),
        ("CREATE VIEW information_schema.v AS SELECT 1 AS x", {DENIED, EXECUTION}, ""),
        ("CREATE MATERIALIZED VIEW app.v AS SELECT 1 AS x", {UNSUPPORTED}, "MATERIALIZED"),
        ("CREATE TEMPORARY VIEW app.v AS SELECT 1 AS x", {UNSUPPORTED, INVALID}, ""),
        ("CREATE OR REPLACE TABLE app.v (id INT)", {UNSUPPORTED, INVALID}, ""),
        ("CREATE VIEW app.v AS SELECT * FROM read_csv('/etc/passwd')", {INVALID, EXECUTION, UNSUPPORTED, NO_TABLE}, ""),
        ("CREATE VIEW app.v AS SELECT * FROM '/etc/passwd'", {INVALID, EXECUTION, UNSUPPORTED, NO_TABLE}, ""),
        ("DROP VIEW", {INVALID}, ""),
        ("DROP VIEW app.nosuch", {EXECUTION, NO_TABLE, (404, "VIEW_NOT_FOUND")}, "nosuch"),
        ("DROP VIEW nowhere.v", {EXECUTION, NO_TABLE, (404, "VIEW_NOT_FOUND")}, ""),
        ("DROP VIEW app.t", {EXECUTION}, "app.t"),
        ("DROP VIEW IF EXISTS app.t", {EXECUTION}, "app.t"),
        ("DROP VIEW app.v app.w", {INVALID}, ""),
        ("BEGIN; CREATE VIEW app.v AS SELECT 1 AS x; COMMIT", {UNSUPPORTED}, "inside BEGIN"),
    ],
)  # fmt: skip
def test_refused(clean: RunningServer, sql: str, kinds: set[tuple[int, str]], part: str) -> None:
    before = clean.rows("SELECT table_name, columns FROM system.schemas ORDER BY 1")
    answer = clean.post(sql)
    found = refused(answer, (answer.status_code, answer.json().get("error", {}).get("code")), part)
    assert found[:2] in kinds, found
    refused(clean.post("SELECT * FROM app.v"), NO_TABLE)
    assert clean.rows("SELECT table_name, columns FROM system.schemas ORDER BY 1") == before
    assert clean.rows("SELECT count(*) FROM app.t") == [[3]]


@pytest.mark.parametrize("name", HOSTILE_IDS)
def test_hostile_names(clean: RunningServer, name: str) -> None:
    quoted = name.replace('"', '""')
    answer = clean.post(f'CREATE VIEW app."{quoted}" AS SELECT 1 AS x')
    if answer.status_code == 200:  # a quoted name may hold what a table's may hold: then it is one name, and works
        assert clean.rows(f'SELECT x FROM app."{quoted}"') == [[1]]
        clean.sql(f'DROP VIEW app."{quoted}"')
    else:
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] in {"SQL_EXECUTION_ERROR", "INVALID_SQL"}


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO app.v VALUES (9, 'x')",
        "UPDATE app.v SET v = 'x' WHERE id = 1",
        "DELETE FROM app.v WHERE id = 1",
        "ALTER TABLE app.v ADD COLUMN x INT",
        "DROP TABLE app.v",
        "DROP TABLE IF EXISTS app.v",
        "STORAGE FLUSH TABLE app.v",
        "CREATE TABLE app.v (id INT PRIMARY KEY)",
    ],
)
def test_a_view_is_no_table(clean: RunningServer, sql: str) -> None:
    clean.sql("CREATE VIEW app.v AS SELECT id, v FROM app.t")
    answer = clean.post(sql)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]["code"] in {"SQL_EXECUTION_ERROR", "TABLE_NOT_FOUND", "INVALID_SQL", "UNSUPPORTED"}
    assert "app.v" in answer.json()["error"]["message"]
    assert clean.rows("SELECT id, v FROM app.v ORDER BY 1") == [[1, "a"], [2, "b"], [3, "c"]]


def test_if_not_exists_finds_the_view(clean: RunningServer) -> None:
    clean.sql("CREATE VIEW app.v AS SELECT id FROM app.t")
    answer = clean.post("CREATE TABLE IF NOT EXISTS app.v (id INT PRIMARY KEY)")
    assert answer.status_code == 400 or "already exists" in message(answer)
    assert clean.rows("SELECT count(*) FROM app.v") == [[3]]


def test_who_may(roles: Roles, clean: RunningServer) -> None:
    for role in ("user", "service"):
        for sql in ("CREATE VIEW app.v AS SELECT 1 AS x", "CREATE OR REPLACE VIEW app.v AS SELECT 1 AS x",
                    "DROP VIEW IF EXISTS app.v", "DROP VIEW app.v"):  # fmt: skip
            refused(roles.post(role, sql), DENIED)
    for role in ("dba", "system"):
        ok(roles.post(role, "CREATE OR REPLACE VIEW app.v AS SELECT id FROM app.secret"))
    assert records(roles.post("service", "SELECT * FROM app.v")) == [{"id": 42}]
    found = roles.post("user", "SELECT * FROM app.v")
    assert found.status_code in {403, 404}
    clean.sql("CREATE OR REPLACE VIEW app.v AS SELECT id, CURRENT_USER() AS me FROM app.mine")
    for role, number in (("user", 1), ("dba", 2)):
        ok(roles.post(role, f"INSERT INTO app.mine VALUES ({number})"))
        assert one(roles.post(role, "SELECT * FROM app.v"))["rows"] == [[number, Roles.names[role]]]
    result = one(roles.post("dba", "EXECUTE AS USER 'u1' (SELECT * FROM app.v)"))
    assert (result["rows"], result["as_user"]) == ([[1, "u1"]], "u1")


def test_views_in_the_catalogue(clean: RunningServer) -> None:
    clean.sql("CREATE VIEW app.v AS SELECT id, v FROM app.t")
    assert clean.rows("SELECT table_type FROM system.tables WHERE table_name = 'v'") in ([["view"]], [])
    sql = "SELECT table_type FROM information_schema.tables WHERE table_schema = 'app' AND table_name = 'v'"
    assert clean.rows(sql) == [["VIEW"]]
    sql = "SELECT column_name FROM information_schema.columns WHERE table_name = 'v' ORDER BY ordinal_position"
    assert clean.rows(sql) == [["id"], ["v"]]
    described = records(clean.post("DESCRIBE TABLE app.v"))
    assert [row["column_name"] for row in described] == ["id", "v"]


def test_views_outlive_a_kill(fresh_server: RunningServer) -> None:
    fresh_server.sql("CREATE NAMESPACE app; CREATE TABLE app.t (id INT PRIMARY KEY); INSERT INTO app.t VALUES (5)")
    fresh_server.sql("CREATE VIEW app.v (n) AS SELECT id FROM app.t; CREATE VIEW app.w AS SELECT 1 AS x")
    fresh_server.sql("DROP VIEW app.w")
    fresh_server.restart()
    fresh_server.client.headers["Authorization"] = f"Bearer {fresh_server.token}"
    assert fresh_server.rows("SELECT n FROM app.v") == [[5]]
    refused(fresh_server.post("SELECT * FROM app.w"), NO_TABLE)
