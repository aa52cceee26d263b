"""SQL as existing clients send it: result shapes, DML, upserts, batches, transactions, parameters, names, encodings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conformance import columns, error, ok
from tests.e2e.conftest import Serve
from tests.e2e.running import RunningServer

UUID = "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.fixture(scope="module")
def app(server: RunningServer) -> RunningServer:
    server.sql("CREATE NAMESPACE app")
    return server


@pytest.fixture
def t(app: RunningServer) -> Iterator[RunningServer]:
    """app.t with the rows 3, 1, 2, inserted in that order."""
    app.sql(
        "CREATE TABLE app.t (id BIGINT PRIMARY KEY, name TEXT NOT NULL, n INT DEFAULT 7, u TEXT UNIQUE);"
        "INSERT INTO app.t VALUES (3, 'c', 30, 'z'), (1, 'a', 10, 'x'), (2, 'b', 20, NULL)"
    )
    yield app
    app.sql("DROP TABLE app.t")


# --- queries ----------------------------------------------------------------------------------------------------------


def test_select_star_shows_user_columns_in_key_order(t: RunningServer) -> None:
    (result,) = ok(t.post("SELECT * FROM app.t"))
    assert result["schema"] == [
        {"name": "id", "data_type": "BigInt", "index": 0, "flags": ["pk", "nn", "uq"]},
        {"name": "name", "data_type": "Text", "index": 1, "flags": ["nn"]},
        {"name": "n", "data_type": "Int", "index": 2},
        {"name": "u", "data_type": "Text", "index": 3, "flags": ["uq"]},
    ]
    assert result["rows"] == [[1, "a", 10, "x"], [2, "b", 20, None], [3, "c", 30, "z"]]
    assert "message" not in result


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT name FROM app.t", [["a"], ["b"], ["c"]]),
        ("SELECT name FROM app.t LIMIT 2", [["a"], ["b"]]),
        ("SELECT name FROM app.t LIMIT 2 OFFSET 2", [["c"]]),
        ("SELECT name FROM app.t WHERE n > 10", [["b"], ["c"]]),
        ("SELECT name FROM app.t ORDER BY n DESC", [["c"], ["b"], ["a"]]),
        ("SELECT u FROM app.t ORDER BY u", [["x"], ["z"], [None]]),
        ("SELECT _deleted FROM app.t", [[False]] * 3),
        ("SELECT count(*) FROM app.t WHERE _seq > 0", [[3]]),
        ("SELECT DISTINCT n / n FROM app.t", [[1.0]]),
        ("SELECT max(id), min(name) FROM app.t", [[3, "a"]]),
        ("SELECT a.id, b.name FROM app.t a JOIN app.t b ON b.id = a.id + 1 ORDER BY 1", [[1, "b"], [2, "c"]]),
        ("WITH x AS (SELECT id FROM app.t) SELECT sum(id) FROM x", [["6"]]),
        ("SELECT id FROM app.t UNION ALL SELECT 9 ORDER BY 1", [[1], [2], [3], [9]]),
        ("SELECT id, row_number() OVER (ORDER BY id DESC) FROM app.t ORDER BY 1", [[1, 3], [2, 2], [3, 1]]),
        ("SELECT id FROM app.t WHERE id IN (SELECT max(id) FROM app.t)", [[3]]),
        ("SELECT '{\"a\":{\"b\":1}}'::JSON -> 'a' ->> 'b'", [["1"]]),
        ("SELECT CURRENT_USER, current_role()", [["admin", "dba"]]),
        ("sElEcT Name FrOm App.T wHeRe ID = 1", [["a"]]),
        ('SELECT "NAME" FROM "app"."t" WHERE "Id" = 1', [["a"]]),
        ("SELECT `name` FROM `app`.`t` WHERE `id` = 1", [["a"]]),
    ],
)
def test_queries(t: RunningServer, sql: str, rows: list[list[Any]]) -> None:
    found = ok(t.post(sql))[0]["rows"]
    assert [[int(v) if isinstance(v, str) and v.isdigit() else v for v in row] for row in found] == [
        [int(v) if isinstance(v, str) and v.isdigit() else v for v in row] for row in rows
    ]


def test_no_implicit_limit(app: RunningServer) -> None:
    assert len(app.rows("SELECT range FROM range(1500)")) == 1500
    assert len(app.rows("SELECT range FROM range(1500) LIMIT 1200")) == 1200
    found = error(app.post("SELECT range FROM range(100001)"))
    assert found[:2] == (400, "RESULT_TOO_LARGE")
    assert "100000" in found.message.replace(",", "")


def test_names_of_columns(app: RunningServer) -> None:
    (result,) = ok(app.post('SELECT 1 AS FooBar, 2 AS "FooBar", count(*), 3 AS x'))
    assert columns(result) == ["foobar", "FooBar", "count(*)", "x"]
    assert all("flags" not in column for column in result["schema"])


def test_hidden_columns_when_named(t: RunningServer) -> None:
    (result,) = ok(t.post("SELECT *, _seq, _deleted FROM app.t"))
    assert columns(result) == ["id", "name", "n", "u", "_seq", "_deleted"]
    assert [column["data_type"] for column in result["schema"][4:]] == ["BigInt", "Boolean"]
    before = {row[0]: int(row[4]) for row in result["rows"]}
    t.sql("UPDATE app.t SET n = 0 WHERE id = 2")
    after = {row[0]: int(row[1]) for row in t.rows("SELECT id, _seq FROM app.t")}
    assert after[2] > max(before.values())
    assert (after[1], after[3]) == (before[1], before[3])


# --- changes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "count", "told"),
    [
        ("INSERT INTO app.t (id, name) VALUES (4, 'd')", 1, "Inserted 1 row(s)"),
        ("insert into app.t values (4, 'd', 1, 'q'), (5, 'e', 2, 'r')", 2, "Inserted 2 row(s)"),
        ("INSERT INTO app.t (name, id) SELECT name, id + 10 FROM app.t", 3, "Inserted 3 row(s)"),
        ("INSERT INTO app.t (id, name) SELECT 4, 'd' WHERE false", 0, "Inserted 0 row(s)"),
        ("UPDATE app.t SET n = n + 1 WHERE id < 3", 2, "Updated 2 row(s)"),
        ("UPDATE app.t SET name = 'a' WHERE id = 1", 0, "Updated 0 row(s)"),
        ("UPDATE app.t SET name = 'a' WHERE id <= 2", 1, "Updated 1 row(s)"),
        ("UPDATE app.t SET n = 0 WHERE id = 99", 0, "Updated 0 row(s)"),
        ("UPDATE app.t SET n = 0 WHERE true", 3, "Updated 3 row(s)"),
        ("DELETE FROM app.t WHERE id = 1", 1, "Deleted 1 row(s)"),
        ("DELETE FROM app.t WHERE id = 99", 0, "Deleted 0 row(s)"),
        ("DELETE FROM app.t WHERE true", 3, "Deleted 3 row(s)"),
        ("INSERT INTO app.t (id, name) VALUES (1, 'q') ON CONFLICT DO NOTHING", 0, "Inserted 0 row(s)"),
        ("INSERT INTO app.t (id, name) VALUES (1, 'q'), (8, 'h') ON CONFLICT (id) DO NOTHING", 1, "Inserted 1 row(s)"),
        ("INSERT INTO app.t (id, name) VALUES (1, 'q') ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name", 1,
         "Inserted 1 row(s)"),
        (("INSERT INTO app.t (id, name) VALUES (1, 'q') ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name "
         "WHERE t.n > 99"), 0, "Inserted 0 row(s)"),
    ],
)  # fmt: skip
def test_changes_are_counted(t: RunningServer, sql: str, count: int, told: str) -> None:
    (result,) = ok(t.post(sql))
    assert result == {"row_count": count, "message": told, "as_user": "admin"}


def test_an_upsert_keeps_what_it_does_not_assign(t: RunningServer) -> None:
    t.sql(
        "INSERT INTO app.t (id, name, n) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name || n",
        [1, "new", 99],
    )
    assert t.rows("SELECT * FROM app.t WHERE id = 1") == [[1, "new10", 10, "x"]]
    t.sql("INSERT INTO app.t (id, name, u) VALUES (9, 'k', 'x') ON CONFLICT (u) DO UPDATE SET n = t.n + EXCLUDED.id")
    assert t.rows("SELECT n FROM app.t WHERE id = 1") == [[19]]


@pytest.mark.parametrize(
    ("sql", "params", "names", "rows"),
    [
        ("INSERT INTO app.t (id, name) VALUES (4, 'd') RETURNING *", None, ["id", "name", "n", "u"],
         [[4, "d", 7, None]]),
        ("INSERT INTO app.t (id, name) VALUES ($1, $2), ($3, $4) RETURNING id, name AS title", [4, "d", 5, "e"],
         ["id", "title"], [[4, "d"], [5, "e"]]),
        (("INSERT INTO app.t (id, name) VALUES (1, 'q') ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name "
         "RETURNING id, name, n"), None, ["id", "name", "n"], [[1, "q", 10]]),
        ("INSERT INTO app.t (id, name) VALUES (1, 'q') ON CONFLICT DO NOTHING RETURNING id", None, ["id"], []),
        ("UPDATE app.t SET n = n * 2 WHERE id = 2 RETURNING id, n", None, ["id", "n"], [[2, 40]]),
        ("UPDATE app.t SET n = 1 WHERE id = 99 RETURNING *", None, ["id", "name", "n", "u"], []),
        ("DELETE FROM app.t WHERE id = 2 RETURNING *", None, ["id", "name", "n", "u"], [[2, "b", 20, None]]),
    ],
)  # fmt: skip
def test_returning(
    t: RunningServer, sql: str, params: list[Any] | None, names: list[str], rows: list[list[Any]]
) -> None:
    (result,) = ok(t.post(sql, params))
    assert columns(result) == names
    assert result["rows"] == rows
    assert result["schema"][0].get("flags") == ["pk", "nn", "uq"]


@pytest.mark.parametrize(
    ("sql", "part"),
    [
        ("UPDATE app.t SET n = 1", "UPDATE requires a WHERE clause"),
        ("DELETE FROM app.t", "DELETE requires a WHERE clause"),
        ("UPDATE app.t SET id = 9 WHERE id = 1", "UPDATE cannot modify primary key column 'id'"),
        ("INSERT INTO app.t (id, name) VALUES (4, NULL)",
         "NOT NULL constraint violation: column 'name' cannot be NULL (row 1)"),
        ("INSERT INTO app.t (id, name) VALUES (4, 'd'), (5, NULL)",
         "NOT NULL constraint violation: column 'name' cannot be NULL (row 2)"),
        ("INSERT INTO app.t (id) VALUES (4)", "NOT NULL constraint violation: column 'name' cannot be NULL (row 1)"),
        ("UPDATE app.t SET name = NULL WHERE id = 1", "NOT NULL constraint violation: column 'name' cannot be NULL"),
        ("INSERT INTO app.t (id, name) VALUES (NULL, 'd')", "NOT NULL constraint violation: column 'id'"),
        ("INSERT INTO app.t (name) VALUES ('d')", "NOT NULL constraint violation: column 'id'"),
        ("INSERT INTO app.t (id, name) VALUES (1, 'd')",
         "Primary key violation: value '1' already exists in column 'id'"),
        ("INSERT INTO app.t (id, name) VALUES (8, 'd'), (8, 'e')", ("Primary key violation: value '8' appears multiple "
         "times in the insert batch")),
        ("INSERT INTO app.t (id, name, u) VALUES (8, 'd', 'x')", "value 'x' already exists in column 'u'"),
    ],
)  # fmt: skip
def test_constraints(t: RunningServer, sql: str, part: str) -> None:
    found = error(t.post(sql))
    assert found[:2] == (400, "SQL_EXECUTION_ERROR")
    assert found.message.startswith("Statement 1 failed: ")
    assert part in found.message
    assert t.rows("SELECT count(*) FROM app.t") == [[3]]


def test_a_deleted_key_can_be_inserted_again(t: RunningServer) -> None:
    t.sql("DELETE FROM app.t WHERE id = 1; INSERT INTO app.t (id, name) VALUES (1, 'again')")
    assert t.rows("SELECT name FROM app.t WHERE id = 1") == [["again"]]


@pytest.mark.parametrize(
    ("sql", "status", "code", "part"),
    [
        ("INSERT INTO system.users VALUES (1)", 403, "PERMISSION_DENIED", "Cannot insert system table"),
        ("UPDATE system.users SET role = 'dba' WHERE true", 403, "PERMISSION_DENIED", "Cannot update system table"),
        ("DELETE FROM system.users WHERE true", 403, "PERMISSION_DENIED", "Cannot delete system table"),
        ("INSERT INTO app.t (nope) VALUES (1)", 400, "INVALID_SQL", "'nope'"),
        ("INSERT INTO app.t (id, name) VALUES (1)", 400, "INVALID_SQL", "1 value(s)"),
        ("INSERT INTO app.t (id, id) VALUES (1, 2)", 400, "INVALID_SQL", "'id'"),
        ("UPDATE app.t SET nope = 1 WHERE id = 1", 400, "INVALID_SQL", "'nope'"),
        ("UPDATE app.t SET _seq = 1 WHERE id = 1", 400, "INVALID_SQL", "'_seq'"),
        ("SELECT nope FROM app.t", 400, "INVALID_SQL", "Column not found"),
        ("SELECT nope()", 400, "INVALID_SQL", "nope()"),
        ("SELECT * FROM app.nope", 404, "TABLE_NOT_FOUND", "Table not found: 'app.nope'"),
        ("SELECT * FROM app.tt", 404, "TABLE_NOT_FOUND", "'app.tt'. Did you mean 'app.t'?"),
        ("SELECT * FROM nope", 404, "TABLE_NOT_FOUND", "Table not found: 'default.nope'"),
        ("INSERT INTO nope VALUES (1)", 404, "TABLE_NOT_FOUND", "Table not found: 'default.nope'"),
        ("UPDATE nope SET a = 1 WHERE true", 404, "TABLE_NOT_FOUND", "Table not found: 'default.nope'"),
        ("DELETE FROM nope WHERE true", 404, "TABLE_NOT_FOUND", "Table not found: 'default.nope'"),
        ("SELECT * FROM system.nope", 404, "TABLE_NOT_FOUND", "Table not found: 'system.nope'"),
        ("SELECT 'x", 400, "BATCH_PARSE_ERROR", "never closed"),
        ('SELECT "x', 400, "BATCH_PARSE_ERROR", "never closed"),
        ("SELECT `x", 400, "BATCH_PARSE_ERROR", "never closed"),
        ("SELECT 1 /* x", 400, "BATCH_PARSE_ERROR", "never closed"),
        ("SELECT CAST('NaN' AS DOUBLE)", 400, "SQL_EXECUTION_ERROR", "NaN"),
        ("SELECT 'abc'::INT", 400, "SQL_EXECUTION_ERROR", "abc"),
    ],
)  # fmt: skip
def test_mistakes(t: RunningServer, sql: str, status: int, code: str, part: str) -> None:
    found = error(t.post(sql))
    assert found[:2] == (status, code)
    assert part in found.message


# --- batches and transactions -----------------------------------------------------------------------------------------


def test_every_statement_of_a_batch_has_its_result(t: RunningServer) -> None:
    results = ok(
        t.post(";; INSERT INTO app.t (id, name) VALUES (4, 'a;b'); -- one; two\n"
               "/* ; */ SELECT count(*) FROM app.t; UPDATE app.t SET n = 1 WHERE id = 4;"
               "DELETE FROM app.t WHERE id = 4;"
               "SELECT ';' AS \"a;b\";;")
    )  # fmt: skip
    assert [(result["row_count"], result.get("message")) for result in results] == [
        (1, "Inserted 1 row(s)"), (1, None), (1, "Updated 1 row(s)"), (1, "Deleted 1 row(s)"), (1, None),
    ]  # fmt: skip
    assert results[1]["rows"] == [[4]]
    assert (columns(results[4]), results[4]["rows"]) == (["a;b"], [[";"]])


@pytest.mark.parametrize("sql", ["", ";", " \n\t", "-- nothing", "/* nothing */ ;; -- more"])
def test_nothing_to_run(app: RunningServer, sql: str) -> None:
    assert error(app.post(sql)) == (400, "EMPTY_SQL", "No SQL statements provided", None)


def test_a_failing_batch_says_where_it_stopped(t: RunningServer) -> None:
    insert = "INSERT INTO app.t (id, name) VALUES ({}, 'x')"
    answer = t.post(f"{insert.format(50)}; {insert.format(51)}; {insert.format(50)}; {insert.format(52)}")
    found = error(answer)
    assert found[:2] == (400, "SQL_EXECUTION_ERROR")
    assert found.message.startswith("Statement 3 failed: ")
    assert found.details is not None
    assert "2 statements before it took effect" in found.details
    assert t.rows("SELECT id FROM app.t WHERE id >= 50") == [[50], [51]]
    parsed = error(t.post(f"{insert.format(60)}; SELEC 1"))
    assert parsed[:2] == (400, "INVALID_SQL")
    assert t.rows("SELECT id FROM app.t WHERE id >= 60") == []


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN TRANSACTION", "START TRANSACTION", "begin"])
@pytest.mark.parametrize(("end", "word"), [("COMMIT", "committed"), ("ROLLBACK", "rolled back")])
def test_transactions(t: RunningServer, begin: str, end: str, word: str) -> None:
    results = ok(t.post(f"{begin}; INSERT INTO app.t (id, name) VALUES (4, 'd'); SELECT count(*) FROM app.t; {end}"))
    first, last = results[0]["message"], results[-1]["message"]
    found = re.fullmatch(rf"Transaction started \(({UUID})\)", first)
    assert found
    assert last == f"Transaction {word} ({found[1]})"
    assert (results[1]["message"], results[2]["rows"]) == ("Inserted 1 row(s)", [[4]])
    assert t.rows("SELECT count(*) FROM app.t") == [[4 if word == "committed" else 3]]


@pytest.mark.parametrize(
    ("sql", "code", "told"),
    [
        ("BEGIN; {}", "SQL_EXECUTION_ERROR",
         "Request completed with an open explicit transaction; rolled back automatically"),
        ("BEGIN; {}; INSERT INTO app.t (id, name) VALUES (1, 'dup'); COMMIT", "SQL_EXECUTION_ERROR",
         "Statement 3 failed: "),
        ("BEGIN; {}; BEGIN; COMMIT", "SQL_EXECUTION_ERROR", "Statement 3 failed: Conflict: "),
        ("BEGIN; {}; CREATE TABLE app.x (id INT PRIMARY KEY); COMMIT", "UNSUPPORTED", "Definitions"),
        ("BEGIN; {}; DROP TABLE app.t; COMMIT", "UNSUPPORTED", "Definitions"),
        ("BEGIN; {}; INSERT INTO system.users VALUES (1); COMMIT", "PERMISSION_DENIED", ""),
        ("COMMIT", "SQL_EXECUTION_ERROR", "Statement 1 failed: "),
        ("ROLLBACK", "SQL_EXECUTION_ERROR", "Statement 1 failed: "),
        ("BEGIN; {}; SAVEPOINT a; COMMIT", "UNSUPPORTED", "SAVEPOINT"),
    ],
)  # fmt: skip
def test_transactions_that_fail_leave_nothing(t: RunningServer, sql: str, code: str, told: str) -> None:
    found = error(t.post(sql.format("INSERT INTO app.t (id, name) VALUES (4, 'd')")))
    assert found.code == code
    assert found.message.startswith(told)
    assert t.rows("SELECT count(*) FROM app.t") == [[3]]


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "params", "rows"),
    [
        ("SELECT $1, $2, $3, $4", [True, 1.5, "é", None], [[True, 1.5, "é", None]]),
        ("SELECT $1", [9007199254740991], [[9007199254740991]]),
        ("SELECT $1", [9007199254740993], [["9007199254740993"]]),
        ("SELECT $1::BIGINT", ["-9223372036854775808"], [["-9223372036854775808"]]),
        ("SELECT $2 || $1", ["a", "b"], [["ba"]]),
        ("SELECT $1 || $1", ["a"], [["aa"]]),
        ("SELECT name FROM app.t WHERE id = $1", [1], [["a"]]),
        ("SELECT name FROM app.t WHERE id = $1", ["1"], [["a"]]),
        ("SELECT name FROM app.t WHERE id = ANY($1)", [[3, 1]], [["a"], ["c"]]),
        ("SELECT name FROM app.t WHERE id = $1", [None], []),
        ("SELECT name FROM app.t WHERE name LIKE $1 LIMIT $2", ["%", 1], [["a"]]),
        ("SELECT '$1' || $1", ["x"], [["$1x"]]),
    ],
)
def test_parameters(t: RunningServer, sql: str, params: list[Any], rows: list[list[Any]]) -> None:
    assert ok(t.post(sql, params))[0]["rows"] == rows


@pytest.mark.parametrize(
    ("sql", "params", "code"),
    [
        ("SELECT $1", None, "INVALID_PARAMETER"), ("SELECT $1", [], "INVALID_PARAMETER"),
        ("SELECT $1, $3", [1, 2, 3], "INVALID_PARAMETER"), ("SELECT 1", [1], "INVALID_PARAMETER"),
        ("SELECT * FROM app.t WHERE id = $1", ["one"], "INVALID_PARAMETER"),
        ("INSERT INTO app.t (id, name) VALUES ($1, 'x')", [1.5], "INVALID_PARAMETER"),
        ("SELECT $0", [1], "INVALID_SQL"), ("SELECT ?", [1], "INVALID_SQL"), ("SELECT :a", [1], "INVALID_SQL"),
    ],
)  # fmt: skip
def test_wrong_parameters(t: RunningServer, sql: str, params: list[Any] | None, code: str) -> None:
    assert error(t.post(sql, params))[:2] == (400, code)


def test_a_batch_shares_its_parameters(t: RunningServer) -> None:
    results = ok(t.post("INSERT INTO app.t (id, name) VALUES ($1, $2); SELECT name FROM app.t WHERE id = $1", [4, "d"]))
    assert results[1]["rows"] == [["d"]]


# --- encodings --------------------------------------------------------------------------------------------------------

VALUES: list[tuple[str, object, str, object]] = [
    ("BOOLEAN", True, "true", True), ("SMALLINT", -32768, "-32768", -32768),
    ("INT", 2**31 - 1, "2147483647", 2**31 - 1),
    ("BIGINT", 5, "5", 5), ("BIGINT", str(2**63 - 1), str(2**63 - 1), str(2**63 - 1)), ("FLOAT", 0.5, "0.5", 0.5),
    ("DOUBLE", 1e300, "1e300", 1e300), ("TEXT", "a'é\n", "'a''é\n'", "a'é\n"),
    ("TIMESTAMP", "1969-12-31 23:59:59.999999", "'1969-12-31 23:59:59.999999'", -1),
    ("DATETIME", "1970-01-01T01:00:00+01:00", "'1970-01-01 00:00:00Z'", 0), ("DATE", "1970-01-31", "'1970-01-31'", 30),
    ("TIME", "00:00:01.5", "'00:00:01.5'", 1_500_000), ("JSON", '{"a":[1]}', "'{\"a\":[1]}'", '{"a":[1]}'),
    ("UUID", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
     "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("DECIMAL(10,2)", "1.5", "1.5", "1.50"), ("DECIMAL", 1, "1", "1.0000000000"),
    ("BYTES", [0, 10, 255], "X'000aff'", [0, 10, 255]), ("EMBEDDING(3)", "[1, 2, 3.5]", "'[1,2,3.5]'", [1, 2, 3.5]),
]  # fmt: skip


def test_values_on_the_wire(app: RunningServer) -> None:
    fields = ", ".join(f"c{number} {kind}" for number, (kind, _, _, _) in enumerate(VALUES))
    app.sql(f"CREATE TABLE app.wire (id INT PRIMARY KEY, {fields})")
    marks = ", ".join(f"${number}" for number in range(1, len(VALUES) + 1))
    app.sql(f"INSERT INTO app.wire VALUES (1, {marks})", [given for _, given, _, _ in VALUES])
    app.sql(f"INSERT INTO app.wire VALUES (2, {', '.join(literal for _, _, literal, _ in VALUES)})")
    app.sql("INSERT INTO app.wire (id) VALUES (3)")
    given, literal, nothing = (row[1:] for row in app.rows("SELECT * FROM app.wire"))
    wanted = [value for _, _, _, value in VALUES]
    assert given == wanted
    assert literal == wanted
    assert nothing == [None] * len(VALUES)
    app.sql("DROP TABLE app.wire")


@pytest.mark.parametrize(("mode", "small"), [("string", "5"), ("number", 5)])
def test_modes_of_big_integers(serve: Serve, mode: str, small: object) -> None:
    big = 2**53 + 1
    running = serve(HEADRACE_WIRE_BIGINT=mode).set_up()
    running.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, i INT); INSERT INTO t VALUES (5, 5)")
    running.sql("INSERT INTO t VALUES ($1, 6)", [big])
    shown = big if mode == "number" else str(big)
    assert running.rows("SELECT * FROM t") == [[small, 5], [shown, 6]]
    assert running.rows("SELECT id FROM t WHERE id = $1", [str(big)]) == [[shown]]
    assert running.rows("SELECT count(*) + 3 FROM t") == [[small]]
    assert type(running.rows("SELECT _seq FROM t WHERE id = 5")[0][0]) is type(small)


# --- what is not there yet --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE MATERIALIZED VIEW app.v AS SELECT 1",
        "PREPARE x AS SELECT 1", "TRUNCATE TABLE app.t", "MERGE INTO app.t USING app.t ON true",
        "INSERT OVERWRITE app.t SELECT 1", "DECLARE c CURSOR FOR SELECT 1", "SAVEPOINT x", "SET x = 1",
        "CREATE POLICY p ON app.t", "CREATE TYPE x AS ENUM ('a')", "CALL f()", "GRANT SELECT ON app.t TO u1",
        "ALTER TABLE app.t RENAME TO x",
    ],
)  # fmt: skip
def test_statements_of_later_issues_are_refused_by_name(app: RunningServer, sql: str) -> None:
    found = error(app.post(sql))
    assert found[:2] == (400, "UNSUPPORTED")
    assert "not supported" in found.message
    assert found.details is not None
    assert "^" in found.details


@pytest.mark.parametrize("action", ["SNAPSHOT", "PURGE --UPTO 5", "TRIGGER ELECTION", "TRANSFER-LEADER 2", "LIST"])
def test_there_is_no_cluster(app: RunningServer, action: str) -> None:
    found = error(app.post(f"CLUSTER {action}"))
    assert found[:2] == (503, "CLUSTER_UNAVAILABLE")
    assert "single node" in found.message
