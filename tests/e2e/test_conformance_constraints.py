"""NOT NULL, keys, UNIQUE and CHECK over hot and cold rows, in batches and transactions, with their messages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conformance import Roles, error, ok, roles_of
from tests.e2e.running import RunningServer
from tests.e2e.statement_conformance import EXECUTION, INVALID, done, refused


@pytest.fixture(scope="module")
def roles(server: RunningServer) -> Iterator[Roles]:
    server.sql("CREATE NAMESPACE app")
    with roles_of(server) as found:
        yield found


def filled(server: RunningServer, name: str, *, cold: bool) -> RunningServer:
    """Make a table with every constraint, its rows hot or flushed."""
    server.sql(
        f"CREATE TABLE {name} (id INT PRIMARY KEY, v TEXT NOT NULL, u INT UNIQUE, d INT NOT NULL DEFAULT 5,"
        " n INT CHECK (n > 0))"
    )
    server.sql(f"INSERT INTO {name} VALUES (1, 'a', 11, 1, 1), (2, 'b', 22, 2, 2), (3, 'c', NULL, 3, NULL)")
    if cold:
        done(server, server.post(f"STORAGE FLUSH TABLE {name}"), "FL")
    return server


@pytest.fixture(scope="module", params=["hot", "cold"])
def t(roles: Roles, request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """The table app.t, which no test of a violation changes."""
    yield filled(roles.server, "app.t", cold=request.param == "cold")
    roles.server.sql("DROP TABLE app.t")


@pytest.mark.parametrize(
    ("sql", "part"),
    [
        ("INSERT INTO app.t (id, v) VALUES (9, NULL)",
         "NOT NULL constraint violation: column 'v' cannot be NULL (row 1)"),
        ("INSERT INTO app.t (id, v) VALUES (8, 'x'), (9, NULL)",
         "NOT NULL constraint violation: column 'v' cannot be NULL (row 2)"),
        ("INSERT INTO app.t (id) VALUES (9)", "NOT NULL constraint violation: column 'v' cannot be NULL"),
        ("INSERT INTO app.t (id, v, d) VALUES (9, 'x', NULL)", "NOT NULL constraint violation: column 'd'"),
        ("INSERT INTO app.t (v) VALUES ('x')", "'id'"),
        ("INSERT INTO app.t (id, v) VALUES (NULL, 'x')", "'id'"),
        ("INSERT INTO app.t (id, v) SELECT id + 10, NULL FROM app.t", "NOT NULL constraint violation: column 'v'"),
        ("UPDATE app.t SET v = NULL WHERE id = 1", "NOT NULL constraint violation: column 'v'"),
        ("UPDATE app.t SET v = (SELECT max(v) FROM app.t WHERE id > 99) WHERE true",
         "NOT NULL constraint violation: column 'v'"),
        ("INSERT INTO app.t (id, v) VALUES (2, 'x')", "Primary key violation: value '2' already exists in column 'id'"),
        ("INSERT INTO app.t (id, v) VALUES (7, 'x'), (3, 'y')",
         "Primary key violation: value '3' already exists in column 'id'"),
        ("INSERT INTO app.t (id, v) VALUES (7, 'x'), (7, 'y')",
         "Primary key violation: value '7' appears multiple times in the insert batch"),
        ("INSERT INTO app.t (id, v) SELECT id, v FROM app.t", "Primary key violation: value '"),
        ("UPDATE app.t SET id = 9 WHERE id = 1", "UPDATE cannot modify primary key column 'id'"),
        ("UPDATE app.t SET ID = id WHERE true", "UPDATE cannot modify primary key column 'id'"),
        ("INSERT INTO app.t (id, v, u) VALUES (9, 'x', 22)", "'u'"),
        ("INSERT INTO app.t (id, v, u) VALUES (8, 'x', 5), (9, 'x', 5)", "'u'"),
        ("UPDATE app.t SET u = 11 WHERE id = 2", "'u'"),
        ("UPDATE app.t SET u = 7 WHERE true", "'u'"),
        ("INSERT INTO app.t (id, v, n) VALUES (9, 'x', 0)", ""),
        ("UPDATE app.t SET n = n - 1 WHERE n IS NOT NULL", ""),
        ("UPDATE app.t SET v = 'x'", "UPDATE requires a WHERE clause"),
        ("DELETE FROM app.t", "DELETE requires a WHERE clause"),
        ("INSERT INTO app.t (id, v) VALUES (99999999999, 'x')", "id"),
        ("INSERT INTO app.t (id, v, nosuch) VALUES (9, 'x', 1)", "nosuch"),
        ("INSERT INTO app.t (id, v, v) VALUES (9, 'x', 'y')", "v"),
        ("INSERT INTO app.t (id, v) VALUES (9)", ""),
        ("INSERT INTO app.t (id, v) VALUES (9, 'x', 1)", ""),
        ("INSERT INTO app.t (id, v, _seq) VALUES (9, 'x', 1)", "_seq"),
        ("UPDATE app.t SET _seq = 1 WHERE id = 1", "_seq"),
        ("UPDATE app.t SET _deleted = true WHERE id = 1", "_deleted"),
        ("UPDATE app.t SET v = 'x', v = 'y' WHERE id = 1", "v"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("frame", ["{}", "BEGIN; INSERT INTO app.t (id, v) VALUES (50, 'z'); {}; COMMIT"])
def test_violations_change_nothing(t: RunningServer, frame: str, sql: str, part: str) -> None:
    before = t.rows("SELECT *, _seq FROM app.t")
    found = error(t.post(frame.format(sql)))
    assert found[:2] in {EXECUTION, INVALID}, found
    assert part in found.message
    assert t.rows("SELECT *, _seq FROM app.t") == before


@pytest.mark.parametrize("cold", [False, True])
def test_what_is_no_violation(roles: Roles, cold: bool) -> None:
    t = filled(roles.server, "app.w", cold=cold)
    t.sql("DELETE FROM app.w WHERE id = 1; INSERT INTO app.w (id, v, u) VALUES (1, 'again', 11)")
    t.sql("INSERT INTO app.w (id, v) VALUES (4, ''), (5, ' ')")  # NULL is no duplicate, '' no NULL
    assert ok(t.post("UPDATE app.w SET u = u WHERE true"))[0]["message"] == "Updated 0 row(s)"
    assert ok(t.post("UPDATE app.w SET v = 'b' WHERE id IN (2, 77)"))[0]["message"] == "Updated 0 row(s)"
    assert ok(t.post("DELETE FROM app.w WHERE id = 77"))[0]["message"] == "Deleted 0 row(s)"
    t.sql("BEGIN; DELETE FROM app.w WHERE id = 2; INSERT INTO app.w (id, v, u) VALUES (2, 'B', 22); COMMIT")
    assert t.rows("SELECT id, v, u, d FROM app.w") == [
        [1, "again", 11, 5], [2, "B", 22, 5], [3, "c", None, 3], [4, "", None, 5], [5, " ", None, 5],
    ]  # fmt: skip
    t.sql("DROP TABLE app.w")


def test_keys_of_user_tables_are_each_users_own(roles: Roles) -> None:
    roles.server.sql("CREATE USER TABLE app.m (id INT PRIMARY KEY, u INT UNIQUE)")
    for role in ("user", "service", "dba"):
        ok(roles.post(role, "INSERT INTO app.m VALUES (1, 1)"))
        refused(roles.post(role, "INSERT INTO app.m VALUES (1, 2)"), EXECUTION, "Primary key violation: value '1'")
        refused(roles.post(role, "INSERT INTO app.m VALUES (2, 1)"), EXECUTION, "'u'")
    roles.server.sql("DROP TABLE app.m")


@pytest.mark.parametrize(
    ("kind", "one", "same", "other"),
    [
        ("TEXT", "'a''b'", "'a''b'", "'A''B'"),
        ("BIGINT", "9007199254740993", "9007199254740993", "9007199254740992"),
        ("UUID", "'0196d7a0-0000-7000-8000-00000000000a'", "'0196D7A0-0000-7000-8000-00000000000A'",
         "'0196d7a0-0000-7000-8000-00000000000b'"),
        ("DATE", "'2026-02-01'", "'2026-02-01'", "'2026-02-02'"),
        ("DECIMAL(10,2)", "1.5", "1.50", "1.51"),
        ("TIMESTAMP", "'2026-02-01 00:00:00'", "'2026-02-01 00:00:00.000000'", "'2026-02-01 00:00:00.000001'"),
        ("BOOLEAN", "true", "TRUE", "false"),
    ],
)  # fmt: skip
def test_keys_of_every_type(roles: Roles, kind: str, one: str, same: str, other: str) -> None:
    server = roles.server
    server.sql(f"CREATE TABLE app.k (k {kind} PRIMARY KEY, v INT)")
    server.sql(f"INSERT INTO app.k VALUES ({one}, 1)")
    refused(server.post(f"INSERT INTO app.k VALUES ({same}, 2)"), EXECUTION, "Primary key violation: value '")
    server.sql(f"INSERT INTO app.k VALUES ({other}, 2)")
    done(server, server.post("STORAGE FLUSH TABLE app.k"), "FL")
    refused(server.post(f"INSERT INTO app.k VALUES ({same}, 2)"), EXECUTION, "Primary key violation: value '")
    assert server.rows(f"SELECT v FROM app.k WHERE k = {same}") == [[1]]
    assert server.rows(f"DELETE FROM app.k WHERE k = {same} RETURNING v") == [[1]]
    assert server.rows("SELECT v FROM app.k") == [[2]]
    server.sql("DROP TABLE app.k")


def test_a_composite_key(roles: Roles) -> None:
    server = roles.server
    server.sql("CREATE TABLE app.c (a INT, b TEXT, v INT, PRIMARY KEY (a, b)); INSERT INTO app.c VALUES (1, 'x', 1)")
    server.sql("INSERT INTO app.c VALUES (1, 'y', 2), (2, 'x', 3)")
    for flushed in (False, True):
        if flushed:
            done(server, server.post("STORAGE FLUSH TABLE app.c"), "FL")
        refused(server.post("INSERT INTO app.c VALUES (2, 'x', 9)"), EXECUTION, "Primary key violation: ")
        for column in ("a", "b"):
            found = server.post(f"UPDATE app.c SET {column} = {column} WHERE true")
            refused(found, EXECUTION, f"UPDATE cannot modify primary key column '{column}'")
    assert server.rows("SELECT v FROM app.c WHERE a = 1 AND b = 'y'") == [[2]]
    assert server.rows("SELECT v FROM app.c") == [[1], [2], [3]]
    server.sql("DROP TABLE app.c")


def test_streams_have_no_keys(roles: Roles) -> None:
    server = roles.server
    server.sql("CREATE STREAM TABLE app.s (id INT PRIMARY KEY, v TEXT NOT NULL) WITH (TTL_SECONDS = 600)")
    server.sql("INSERT INTO app.s VALUES (1, 'a'), (1, 'b')")
    assert server.rows("SELECT count(*) FROM app.s") == [[2]]
    refused(server.post("INSERT INTO app.s VALUES (1, NULL)"), EXECUTION, "NOT NULL constraint violation: column 'v'")
    found = error(server.post("UPDATE app.s SET v = 'x' WHERE id = 1"))
    assert found.status == 400
    assert "UPDATE not supported for STREAM tables" in found.message
    assert error(server.post("BEGIN; INSERT INTO app.s VALUES (2, 'x'); COMMIT")).status == 400
    assert ok(server.post("DELETE FROM app.s WHERE id = 1"))[0]["message"] == "Deleted 2 row(s)"
    server.sql("DROP TABLE app.s")
