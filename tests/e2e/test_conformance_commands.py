"""CLUSTER, KILL LIVE QUERY, SUBSCRIBE TO, EXPLAIN, USE, SET and transactions: forms, refusals and hostile texts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.e2e.conformance import Roles, error, message, ok, roles_of
from tests.e2e.running import RunningServer
from tests.e2e.statement_conformance import DENIED, EXECUTION, INVALID, NO_TABLE, UNSUPPORTED, one, refused

REFUSED = {EXECUTION, INVALID, UNSUPPORTED}
UUID7 = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.fixture(scope="module")
def roles(server: RunningServer) -> Iterator[Roles]:
    server.sql(
        "CREATE NAMESPACE app; CREATE TABLE app.t (id INT PRIMARY KEY, v TEXT) WITH (ACCESS_LEVEL = 'public');"
        "INSERT INTO app.t VALUES (1, 'a'), (2, 'b'); CREATE TABLE app.hid (id INT PRIMARY KEY)"
    )
    with roles_of(server) as found:
        yield found


@pytest.mark.parametrize(
    "action",
    ["SNAPSHOT", "snapshot;", "PURGE --UPTO 5", "PURGE --upto 5", "TRIGGER ELECTION", "TRIGGER-ELECTION",
     "TRANSFER-LEADER 2", "TRANSFER LEADER 2", "REBALANCE", "STEPDOWN", "STEP-DOWN", "CLEAR",
     "JOIN 2 127.0.0.1:9188 127.0.0.1:8080", "LIST", "STATUS", "LS", "LEAVE"],
)  # fmt: skip
def test_there_is_no_cluster(roles: Roles, action: str) -> None:
    for role in ("dba", "system"):
        found = error(roles.post(role, f"CLUSTER {action}"))
        assert found[:2] in {(503, "CLUSTER_UNAVAILABLE"), INVALID, UNSUPPORTED}, found
        if "-" not in action.replace("--", "").replace("TRANSFER-LEADER", ""):
            assert found.code == "CLUSTER_UNAVAILABLE" or " " in action, found
    for role in ("user", "service"):
        assert error(roles.post(role, f"CLUSTER {action}"))[:2] in {DENIED, INVALID, UNSUPPORTED}


@pytest.mark.parametrize("sql", ["CLUSTER", "CLUSTER DANCE", "CLUSTER 'x'", "CLUSTER SNAPSHOT; SELECT FROM"])
def test_malformed_cluster_statements(roles: Roles, sql: str) -> None:
    assert error(roles.post("dba", sql)).status in {400, 503}


# --- KILL LIVE QUERY --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "x", "admin-1-x", "é-1-x", "u1-'' OR true--", "x" * 4000, "a\x00b", "--", "%"])
def test_live_queries_that_are_not_there(roles: Roles, name: str) -> None:
    for role in ("user", "dba"):
        found = error(roles.post(role, "KILL LIVE QUERY '{}'".format(name.replace("'", "''"))))
        assert found.status in {400, 404}
        assert found.code in {"LIVE_QUERY_NOT_FOUND", "INVALID_SQL", "SQL_EXECUTION_ERROR"}


@pytest.mark.parametrize("sql", ["KILL LIVE QUERY", "KILL LIVE QUERY NULL", "KILL LIVE QUERY 'a' 'b'", "KILL LIVE",
                                 "KILL LIVE QUERIES 'a'", "KILL QUERY 'a'", "KILL 5"])  # fmt: skip
def test_malformed_kills(roles: Roles, sql: str) -> None:
    assert error(roles.post("dba", sql))[:2] in REFUSED


# --- SUBSCRIBE TO -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    ["(last_rows=99999999999999999999)", "(last_rows=1.5)", "(last_rows)", "(last_rows=)", "(=1)", "(last_rows=1,)",
     "(last_rows=1, last_rows=2)", "(from=1, from_seq_id=2)", "(batch_size=0)", "(batch_size=-1)", "(batch_size='')",
     "(from=-1)", "(from=NULL)", "(last_rows=(SELECT 1))", "(last_rows=1); DROP TABLE app.t", "last_rows=1"],
)  # fmt: skip
def test_bad_options_of_subscribe(roles: Roles, options: str) -> None:
    found = error(roles.post("user", f"SUBSCRIBE TO app.t OPTIONS {options}"))
    assert 400 <= found.status < 500
    assert roles.server.rows("SELECT count(*) FROM app.t") == [[2]]


def test_what_may_be_subscribed_to(roles: Roles) -> None:
    result = one(roles.post("user", "SUBSCRIBE TO app.t"))
    assert (result["row_count"], result["as_user"], "message" in result) == (1, "u1", False)
    for sql in ("SUBSCRIBE TO app.hid", "SUBSCRIBE TO SELECT * FROM app.hid"):
        assert error(roles.post("user", sql))[:2] in {DENIED, NO_TABLE}
        ok(roles.post("service", sql))
    assert error(roles.post("user", "SUBSCRIBE TO system.users"))[:2] in {DENIED, NO_TABLE}


# --- EXPLAIN, SET, SHOW -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sql", ["EXPLAIN SELECT * FROM app.t", "explain select 1", "EXPLAIN SELECT max(id) FROM app.t",
                                 "EXPLAIN ANALYZE SELECT v FROM app.t"])  # fmt: skip
def test_explain(roles: Roles, sql: str) -> None:
    result = one(roles.post("dba", sql))
    assert result["rows"]
    assert all(column["data_type"] == "Text" for column in result["schema"])
    assert "message" not in result


def test_show_all_is_for_admins(roles: Roles) -> None:
    for role in ("user", "service"):
        assert error(roles.post(role, "SHOW ALL"))[:2] == DENIED
    assert one(roles.post("dba", "SHOW ALL"))["rows"]


def test_explain_changes_nothing(roles: Roles) -> None:
    for sql in ("EXPLAIN DELETE FROM app.t WHERE true", "EXPLAIN ANALYZE DELETE FROM app.t WHERE true",
                "EXPLAIN UPDATE app.t SET v = 'z' WHERE true", "EXPLAIN INSERT INTO app.t VALUES (9, 'x')",
                "EXPLAIN DROP TABLE app.t", "EXPLAIN ANALYZE INSERT INTO app.t VALUES (9, 'x')"):  # fmt: skip
        answer = roles.post("dba", sql)
        assert answer.status_code < 500, answer.text
        assert roles.server.rows("SELECT * FROM app.t") == [[1, "a"], [2, "b"]]


@pytest.mark.parametrize(("sql", "kinds"), [
    ("EXPLAIN", REFUSED), ("EXPLAIN EXPLAIN SELECT 1", REFUSED), ("EXPLAIN SELECT * FROM app.nosuch", {NO_TABLE}),
    ("EXPLAIN SELECT nosuch FROM app.t", {INVALID, EXECUTION}), ("EXPLAIN ANALYZE", REFUSED),
    ("EXPLAIN (FORMAT JSON) SELECT 1", {*REFUSED, (200, "")}),
])  # fmt: skip
def test_refused_explanations(roles: Roles, sql: str, kinds: set[tuple[int, str]]) -> None:
    answer = roles.post("dba", sql)
    assert (answer.status_code, answer.json().get("error", {}).get("code", "")) in kinds, answer.text
    assert error(roles.post("user", "EXPLAIN SELECT * FROM app.hid"))[:2] in {DENIED, NO_TABLE}


@pytest.mark.parametrize(
    "sql",
    ["PREPARE p AS SELECT 1", "EXECUTE p", "DEALLOCATE p", "TRUNCATE TABLE app.t", "TRUNCATE app.t",
     "MERGE INTO app.t USING app.hid ON app.t.id = app.hid.id WHEN MATCHED THEN DELETE", "SAVEPOINT s",
     "RELEASE SAVEPOINT s", "ROLLBACK TO SAVEPOINT s", "DECLARE c CURSOR FOR SELECT 1", "FETCH ALL FROM c",
     "INSERT OVERWRITE app.t SELECT 1", "COPY app.t TO '/tmp/x'", "COPY app.t FROM '/etc/passwd'", "ATTACH '/tmp/x'",
     "INSTALL httpfs", "LOAD httpfs", "PRAGMA database_list", "VACUUM", "CHECKPOINT", "LOCK TABLE app.t", "SET x = 1",
     "RESET x", "CALL f()", "DO 'x'", "LISTEN x", "GRANT ALL ON app.t TO u1", "REVOKE ALL ON app.t FROM u1",
     "COMMENT ON TABLE app.t IS 'x'", "IMPORT DATABASE '/tmp/x'", "EXPORT DATABASE '/tmp/x'", "SHOW BACKUP",
     "SELECT * INTO app.z FROM app.t", "CREATE FUNCTION f() RETURNS INT AS '1'", "CREATE SEQUENCE s",
     "FLUSH TABLE app.t",
     "CREATE TRIGGER x AFTER INSERT ON app.t", "ALTER SYSTEM SET x = 1", "CREATE DATABASE x"],
)  # fmt: skip
def test_what_is_not_in_the_dialect(roles: Roles, sql: str) -> None:
    for role in ("user", "system"):
        found = error(roles.post(role, sql))
        assert found[:2] in {*REFUSED, DENIED}, found
        assert roles.server.rows("SELECT * FROM app.t") == [[1, "a"], [2, "b"]]
    assert roles.server.rows("SELECT count(*) FROM system.schemas WHERE namespace_id = 'app'") == [[2]]


# --- USE and transactions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql", ["USE", "USE NAMESPACE", "SET NAMESPACE", "USE app other", "USE app.t", "USE 5", "USE 'a b'"]
)
def test_malformed_use(roles: Roles, sql: str) -> None:
    found = error(roles.post("user", sql))
    assert found[:2] in REFUSED


def test_messages_of_transactions(roles: Roles) -> None:
    for end, told in (("COMMIT", "committed"), ("ROLLBACK", "rolled back"), ("commit transaction", "committed")):
        answer = roles.post("dba", f"BEGIN; {end}")
        if answer.status_code != 200:  # COMMIT TRANSACTION is no form of the reference
            assert error(answer)[:2] in REFUSED
            continue
        first, last = ok(answer)
        begun = re.fullmatch(rf"Transaction started \(({UUID7})\)", first["message"])
        assert begun
        assert last["message"] == f"Transaction {told} ({begun[1]})"
        assert (first["row_count"], last["row_count"]) == (0, 0)


@pytest.mark.parametrize(
    "sql",
    ["COMMIT", "ROLLBACK", "BEGIN; BEGIN; COMMIT", "BEGIN; CREATE TABLE app.z (id INT PRIMARY KEY); COMMIT",
     "BEGIN; DROP TABLE app.t; COMMIT", "BEGIN; ALTER TABLE app.t ADD COLUMN z INT; COMMIT",
     "BEGIN; CREATE NAMESPACE z; COMMIT", "BEGIN; CREATE USER 'z' WITH INTERNAL; COMMIT",
     "BEGIN; INSERT INTO app.t VALUES (3, 'c')",
     "BEGIN; INSERT INTO app.t VALUES (3, 'c'); COMMIT; COMMIT; SELECT FROM",
     "BEGIN; INSERT INTO app.t VALUES (3, 'c'); SELECT * FROM app.nosuch; COMMIT",
     "BEGIN; INSERT INTO app.t VALUES (3, 'c'); INSERT INTO app.t VALUES (1, 'again'); COMMIT",
     "BEGIN WORK AND CHAIN; COMMIT", "START", "BEGIN; INSERT INTO app.t VALUES (3, 'c'); CLUSTER SNAPSHOT; COMMIT"],
)  # fmt: skip
def test_transactions_that_leave_nothing(roles: Roles, sql: str) -> None:
    found = error(roles.post("dba", sql))
    assert 400 <= found.status <= 503
    assert roles.server.rows("SELECT * FROM app.t") == [[1, "a"], [2, "b"]]
    assert message(roles.post("dba", "USE app")).startswith("Namespace switched to 'app'")


def test_an_open_transaction_is_told_of(roles: Roles) -> None:
    found = error(roles.post("dba", "BEGIN; INSERT INTO app.t VALUES (3, 'c')"))
    assert found[:2] == EXECUTION
    assert "Request completed with an open explicit transaction; rolled back automatically" in found.message
    refused(roles.post("dba", "COMMIT"), EXECUTION)
