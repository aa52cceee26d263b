"""CREATE INDEX, DROP INDEX, SHOW INDEXES, and what a client sees of secondary indexes over HTTP."""

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
    done,
    one,
    records,
    refused,
)

REFUSED = {EXECUTION, INVALID, UNSUPPORTED}


@pytest.fixture(scope="module")
def roles(server: RunningServer) -> Iterator[Roles]:
    server.sql("CREATE NAMESPACE app")
    with roles_of(server) as found:
        yield found


@pytest.fixture
def t(roles: Roles) -> Iterator[RunningServer]:
    """A table app.t of 60 rows without indexes."""
    server = roles.server
    server.sql("CREATE TABLE app.t (id INT PRIMARY KEY, a INT, b TEXT, c DOUBLE) WITH (ACCESS_LEVEL = 'public')")
    server.sql("INSERT INTO app.t SELECT i, i % 10, 'b' || (i % 7), i / 2.0 FROM range(60) r(i)")
    server.sql("INSERT INTO app.t VALUES (100, NULL, NULL, NULL), (101, NULL, NULL, NULL)")
    yield server
    server.sql("DROP TABLE IF EXISTS app.t")


def indexes(server: RunningServer) -> list[list[object]]:
    return server.rows("SELECT index_name, is_unique, state FROM system.indexes WHERE table_name = 't' ORDER BY 1")


QUERIES = [
    "SELECT id FROM app.t WHERE a = 3 ORDER BY id",
    "SELECT id FROM app.t WHERE a = 3 AND b = 'b3' ORDER BY id",
    "SELECT id FROM app.t WHERE a > 7 ORDER BY id",
    "SELECT id FROM app.t WHERE a BETWEEN 2 AND 3 AND b >= 'b5' ORDER BY id",
    "SELECT id FROM app.t WHERE a IN (1, 2, NULL) ORDER BY id",
    "SELECT id FROM app.t WHERE a IS NULL ORDER BY id",
    "SELECT id FROM app.t WHERE a <> 3 AND a < 5 ORDER BY id",
    "SELECT id FROM app.t WHERE NOT (a = 3) AND b = 'b1' ORDER BY id",
    "SELECT id FROM app.t WHERE a = 3 OR b = 'b1' ORDER BY id",
    "SELECT count(*), min(a), max(a) FROM app.t",
    "SELECT a, b, id FROM app.t ORDER BY a DESC NULLS LAST, id LIMIT 5",
    "SELECT id FROM app.t WHERE a = 3.0 ORDER BY id",
    "SELECT id FROM app.t WHERE a = 3.5",
    "SELECT id FROM app.t WHERE a = NULL",
    "SELECT id FROM app.t WHERE b LIKE 'b2%' ORDER BY id",
]


@pytest.mark.parametrize(
    ("sql", "unique"),
    [
        ("CREATE INDEX i ON app.t (a)", False),
        ("create index I on APP.T (A, b);", False),
        ('CREATE INDEX "i" ON "app"."t" ("a")', False),
        ("CREATE INDEX IF NOT EXISTS i ON app.t (a)", False),
        ("CREATE UNIQUE INDEX i ON app.t (id, a)", True),
        ("CREATE UNIQUE INDEX IF NOT EXISTS i ON app.t (c)", True),
        ("CREATE INDEX i ON app.t USING btree (a ASC, b)", False),
    ],
)
def test_an_index_changes_no_answer(t: RunningServer, sql: str, unique: bool) -> None:
    before = [t.rows(query) for query in QUERIES]
    assert "i" in message(t.post(sql))
    assert indexes(t) == [["i", unique, "ready"]]
    assert [t.rows(query) for query in QUERIES] == before
    change = "UPDATE app.t SET a = 3, b = 'b1' WHERE id % 4 = 0; DELETE FROM app.t WHERE id % 9 = 1"
    t.sql(change)
    with_index = [t.rows(query) for query in QUERIES]
    done(t, t.post("STORAGE FLUSH TABLE app.t"), "FL")
    assert [t.rows(query) for query in QUERIES] == with_index
    t.sql("DROP INDEX i ON app.t")
    assert [t.rows(query) for query in QUERIES] == with_index
    assert indexes(t) == []


def test_explain_names_the_index(t: RunningServer) -> None:
    query = "EXPLAIN SELECT b FROM app.t WHERE a = 3"
    assert "by_a" not in str(t.rows(query))
    t.sql("CREATE INDEX by_a ON app.t (a)")
    assert "by_a" in str(t.rows(query))
    t.sql("DROP INDEX by_a ON app.t")
    assert "by_a" not in str(t.rows(query))


def test_unique_is_enforced(t: RunningServer) -> None:
    t.sql("CREATE UNIQUE INDEX u ON app.t (c)")
    before = t.rows("SELECT * FROM app.t")
    for sql in (
        "INSERT INTO app.t VALUES (200, 1, 'x', 2.5)",
        "INSERT INTO app.t VALUES (200, 1, 'x', 900), (201, 1, 'x', 900)",
        "UPDATE app.t SET c = 2.5 WHERE id = 6",
        "UPDATE app.t SET c = 77 WHERE id < 3",
        "BEGIN; INSERT INTO app.t VALUES (200, 1, 'x', 2.5); COMMIT",
    ):
        refused(t.post(sql), EXECUTION, "c")
        assert t.rows("SELECT * FROM app.t") == before
    t.sql("INSERT INTO app.t VALUES (200, 1, 'x', NULL)")  # NULLs never collide
    t.sql("DELETE FROM app.t WHERE c = 2.5; INSERT INTO app.t VALUES (201, 1, 'x', 2.5)")
    t.sql("INSERT INTO app.t VALUES (202, 5, 'y', 2.5) ON CONFLICT (c) DO UPDATE SET a = EXCLUDED.a")
    assert t.rows("SELECT id, a FROM app.t WHERE c = 2.5") == [[201, 5]]


def test_unique_over_cold_rows_and_users(roles: Roles, t: RunningServer) -> None:
    done(t, t.post("STORAGE FLUSH TABLE app.t"), "FL")
    t.sql("CREATE UNIQUE INDEX u ON app.t (c)")
    refused(t.post("INSERT INTO app.t VALUES (300, 1, 'x', 2.5)"), EXECUTION, "c")
    t.sql("CREATE USER TABLE app.m (id INT PRIMARY KEY, v TEXT); CREATE UNIQUE INDEX mu ON app.m (v)")
    for role in ("user", "dba"):
        ok(roles.post(role, "INSERT INTO app.m VALUES (1, 'x')"))
        refused(roles.post(role, "INSERT INTO app.m VALUES (2, 'x')"), EXECUTION, "v")
    t.sql("DROP TABLE app.m")


def test_rows_that_stand_against_it(t: RunningServer) -> None:
    refused(t.post("CREATE UNIQUE INDEX u ON app.t (a)"), EXECUTION, "a")
    assert indexes(t) == []
    t.sql("INSERT INTO app.t VALUES (200, 3, 'x', 5)")


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE INDEX",
        "CREATE INDEX i",
        "CREATE INDEX i ON",
        "CREATE INDEX i ON app.t",
        "CREATE INDEX i ON app.t ()",
        "CREATE INDEX i ON app.t (a, a)",
        "CREATE INDEX i ON app.t (nosuch)",
        "CREATE INDEX i ON app.t (_seq)",
        "CREATE INDEX i ON app.t (a + 1)",
        "CREATE INDEX i ON app.t (lower(b))",
        "CREATE INDEX i ON app.t (a) WHERE a > 1",
        "CREATE INDEX i ON app.t USING hash (a)",
        "CREATE INDEX i ON app.t (a) WITH (fillfactor = 9)",
        "CREATE INDEX i ON app.t (a) INCLUDE (b)",
        "CREATE INDEX i ON app.t (5)",
        "CREATE INDEX 'i' ON app.t ('a')",
        "CREATE INDEX i ON app.t (a); SELECT FROM",
        "BEGIN; CREATE INDEX i ON app.t (a); COMMIT",
        "CREATE INDEX taken ON app.t (b)",
        "CREATE UNIQUE INDEX taken ON app.t (b)",
        "CREATE INDEX i ON app.passing (id)",
        "CREATE INDEX i ON app.v (id)",
        "DROP INDEX",
        "DROP INDEX nosuch",
        "DROP INDEX app.nosuch",
        "DROP INDEX nosuch ON app.t",
        "DROP INDEX taken, nosuch",
        "DROP INDEX taken ON app.passing",
    ],
)
def test_refused(t: RunningServer, sql: str) -> None:
    t.sql("CREATE STREAM TABLE app.passing (id INT) WITH (TTL_SECONDS = 60); CREATE VIEW app.v AS SELECT id FROM app.t")
    t.sql("CREATE INDEX taken ON app.t (a)")
    answer = t.post(sql)
    t.sql("DROP TABLE app.passing; DROP VIEW app.v")
    assert (answer.status_code, answer.json()["error"]["code"]) in REFUSED | {(404, "INDEX_NOT_FOUND")}, answer.text
    assert indexes(t) == [["taken", False, "ready"]]


@pytest.mark.parametrize("table", ["app.nosuch", "nowhere.t", "t"])
def test_missing_tables(t: RunningServer, table: str) -> None:
    refused(t.post(f"CREATE INDEX i ON {table} (a)"), NO_TABLE)
    answer = t.post(f"DROP INDEX i ON {table}")
    assert answer.status_code in {400, 404}
    assert "skipped" in message(t.post("DROP INDEX IF EXISTS i ON app.t"))
    assert indexes(t) == []


def test_system_tables_are_not_indexed(t: RunningServer) -> None:
    answer = t.post("CREATE INDEX i ON system.users (role)")
    assert answer.status_code in {400, 403}


def test_names_and_if_exists(t: RunningServer) -> None:
    t.sql("CREATE INDEX i ON app.t (a)")
    assert "already exists" in message(t.post("CREATE INDEX IF NOT EXISTS i ON app.t (b)"))
    refused(t.post("CREATE INDEX i ON app.t (b)"), EXECUTION, "Already exists: ")
    assert ok(t.post("SELECT columns FROM system.indexes WHERE index_name = 'i'"))[0]["row_count"] == 1
    t.sql("CREATE INDEX j ON t (b)", namespace_id="app")
    for form in ("SHOW INDEXES", "SHOW INDEXES FROM app.t", "SHOW INDEXES ON app.t", "show indexes on APP.T"):
        result = one(t.post(form))
        assert "message" not in result
        assert {"i", "j"} <= {row[columns(result).index("index_name")] for row in result["rows"]}
    assert message(t.post("DROP INDEX j", namespace_id="app"))
    assert message(t.post("DROP INDEX app.i"))
    assert indexes(t) == []


@pytest.mark.parametrize("name", HOSTILE_IDS)
def test_hostile_names(t: RunningServer, name: str) -> None:
    quoted = name.replace('"', '""')
    answer = t.post(f'CREATE INDEX "{quoted}" ON app.t (a)')
    if answer.status_code == 200:
        assert [row[0] for row in indexes(t)] == [name.lower()]
        t.sql(f'DROP INDEX "{quoted}" ON app.t')
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) in REFUSED
    assert indexes(t) == []


def test_columns_of_an_index(t: RunningServer) -> None:
    t.sql("CREATE INDEX i ON app.t (a)")
    t.sql("ALTER TABLE app.t RENAME COLUMN a TO z")
    assert t.rows("SELECT count(*) FROM app.t WHERE z = 3") == [[6]]
    assert "i" in str(t.rows("EXPLAIN SELECT id FROM app.t WHERE z = 3"))
    answer = t.post("ALTER TABLE app.t DROP COLUMN z")  # either refused by name, or the index goes with its column
    if answer.status_code == 200:
        assert indexes(t) == []
    else:
        refused(answer, EXECUTION, "i")
        assert indexes(t) == [["i", False, "ready"]]


def test_who_may(roles: Roles, t: RunningServer) -> None:
    for sql in ("CREATE INDEX i ON app.t (a)", "CREATE UNIQUE INDEX i ON app.t (id)"):
        refused(roles.post("user", sql), DENIED)
        for role in ("service", "dba", "system"):
            ok(roles.post(role, sql))
            refused(roles.post("user", "DROP INDEX i ON app.t"), DENIED)
            ok(roles.post(role, "DROP INDEX i ON app.t"))
    t.sql("CREATE TABLE app.hid (id INT PRIMARY KEY, v INT) WITH (ACCESS_LEVEL = 'dba'); CREATE INDEX h ON app.hid (v)")
    shown = roles.post("user", "SHOW INDEXES")
    assert shown.status_code == 403 or "hid" not in shown.text
    answer = roles.post("user", "SHOW INDEXES FROM app.hid")
    assert answer.status_code in {403, 404}
    refused(roles.post("user", "SELECT * FROM system.indexes"), DENIED)
    t.sql("DROP TABLE app.hid")


def test_indexes_outlive_a_kill(fresh_server: RunningServer) -> None:
    fresh_server.sql(
        "CREATE NAMESPACE app; CREATE TABLE app.t (id INT PRIMARY KEY, a INT); CREATE INDEX i ON app.t (a)"
    )
    fresh_server.sql("CREATE UNIQUE INDEX u ON app.t (a, id); INSERT INTO app.t SELECT i, i % 5 FROM range(50) r(i)")
    records(fresh_server.post("SHOW INDEXES FROM app.t"))
    fresh_server.restart()
    fresh_server.client.headers["Authorization"] = f"Bearer {fresh_server.token}"
    assert indexes(fresh_server) == [["i", False, "ready"], ["u", True, "ready"]]
    assert fresh_server.rows("SELECT count(*) FROM app.t WHERE a = 2") == [[10]]
