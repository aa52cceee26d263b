"""ALTER TABLE on hot and cold rows, schema history, DESCRIBE, SHOW: what `test_conformance_tables` leaves."""

from __future__ import annotations

import json
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
    shape,
)

REFUSED = {EXECUTION, INVALID, UNSUPPORTED}
DESCRIBED = ["column_name", "ordinal_position", "column_id", "data_type", "is_nullable", "is_primary_key",
             "column_default", "column_comment", "schema_version"]  # fmt: skip
STATS = ["table_name", "namespace", "schema_version", "logical_rows", "flushed_segments", "active_streams",
         "memory_bytes"]  # fmt: skip


@pytest.fixture(scope="module")
def roles(server: RunningServer) -> Iterator[Roles]:
    server.sql("CREATE NAMESPACE app")
    with roles_of(server) as found:
        yield found


@pytest.fixture
def t(roles: Roles) -> Iterator[RunningServer]:
    server = roles.server
    server.sql("CREATE TABLE app.t (id INT PRIMARY KEY, a INT, b TEXT) WITH (ACCESS_LEVEL = 'public')")
    server.sql("INSERT INTO app.t VALUES (1, 10, 'x'), (2, NULL, NULL), (3, 30000, 'long text')")
    yield server
    server.sql("DROP TABLE IF EXISTS app.t")


def version(server: RunningServer) -> int:
    (row,) = server.rows("SELECT schema_version FROM system.schemas WHERE table_name = 't' AND is_latest")
    return int(row[0])


# --- ALTER TABLE ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("ALTER TABLE app.t ADD COLUMN n INT", "ADD COLUMN n INT"),
        ("alter table APP.T add column N int;", "ADD COLUMN n INT"),
        ('ALTER TABLE "app"."t" ADD COLUMN "n" INT', "ADD COLUMN n INT"),
        ("ALTER TABLE app.t ADD COLUMN n VARCHAR(10)", "ADD COLUMN n TEXT"),
        ("ALTER TABLE app.t ADD COLUMN n DECIMAL(5,1) DEFAULT 1.5", "ADD COLUMN n DECIMAL(5,1)"),
        ("ALTER TABLE app.t\n  ADD COLUMN n INT -- why", "ADD COLUMN n INT"),
        ("ALTER TABLE app.t DROP COLUMN B", "DROP COLUMN b"),
        ("ALTER TABLE app.t RENAME COLUMN A TO N", "RENAME COLUMN a TO n"),
    ],
)
def test_spellings(t: RunningServer, sql: str, told: str) -> None:
    assert message(t.post(sql)) == f"Table app.t altered successfully: {told} (version 2)"
    assert version(t) == 2


def test_the_table_of_the_namespace(t: RunningServer) -> None:
    told = message(t.post("ALTER TABLE t ADD COLUMN n INT", namespace_id="app"))
    assert told == "Table app.t altered successfully: ADD COLUMN n INT (version 2)"


@pytest.mark.parametrize("flushed", [False, True])
def test_old_rows_after_every_change(t: RunningServer, flushed: bool) -> None:
    if flushed:
        done(t, t.post("STORAGE FLUSH TABLE app.t"), "FL")
    t.sql("ALTER TABLE app.t ADD COLUMN n INT NOT NULL DEFAULT 7")
    assert t.rows("SELECT n FROM app.t") == [[7], [7], [7]]
    t.sql("ALTER TABLE app.t ALTER COLUMN n SET DEFAULT 8; INSERT INTO app.t (id) VALUES (4)")
    assert t.rows("SELECT n FROM app.t") == [[7], [7], [7], [8]]  # the former default stays what it was
    t.sql("ALTER TABLE app.t MODIFY COLUMN a BIGINT; ALTER TABLE app.t RENAME COLUMN b TO c")
    result = one(t.post("SELECT * FROM app.t ORDER BY id"))
    assert shape(result) == [("id", "Int"), ("a", "BigInt"), ("c", "Text"), ("n", "Int")]
    assert result["rows"] == [[1, 10, "x", 7], [2, None, None, 7], [3, 30000, "long text", 7], [4, None, None, 8]]
    t.sql("ALTER TABLE app.t DROP COLUMN c; ALTER TABLE app.t ADD COLUMN c TEXT")
    assert t.rows("SELECT c FROM app.t WHERE id = 1") == [[None]]  # a new column of the old name is empty
    if flushed:
        done(t, t.post("STORAGE FLUSH TABLE app.t"), "FL")
        done(t, t.post("STORAGE COMPACT TABLE app.t"), "CO")
    assert t.rows("SELECT id, a, n, c FROM app.t WHERE a > 15 OR id = 4") == [[3, 30000, 7, None], [4, None, 8, None]]
    t.sql("UPDATE app.t SET a = 3000000000, c = 'new' WHERE id = 1")
    assert t.rows("SELECT a, c FROM app.t WHERE id = 1") == [[3_000_000_000, "new"]]


@pytest.mark.parametrize(
    ("operation", "part"),
    [
        ("MODIFY COLUMN a SMALLINT", "a"),
        ("MODIFY COLUMN b BOOLEAN", "b"),
        ("MODIFY COLUMN b DATE", "b"),
        ("MODIFY COLUMN a BIGINT NOT NULL", "NOT NULL constraint violation: column 'a'"),
        ("MODIFY COLUMN b TEXT NOT NULL", "NOT NULL constraint violation: column 'b'"),
        ("ALTER COLUMN b SET NOT NULL", "NOT NULL constraint violation: column 'b'"),
        ("MODIFY COLUMN id TEXT", "id"),
        ("MODIFY COLUMN a NOSUCHTYPE", ""),
        ("MODIFY COLUMN a", ""),
        ("MODIFY COLUMN a INT NULL NOT NULL", ""),
        ("ALTER COLUMN nosuch SET NOT NULL", "Not found: Column 'nosuch' does not exist"),
        ("ALTER COLUMN nosuch DROP DEFAULT", "Not found: Column 'nosuch' does not exist"),
        ("ALTER COLUMN a SET DEFAULT", ""),
        ("ALTER COLUMN a SET DEFAULT nosuch()", "NOSUCH()"),
        ("ALTER COLUMN a SET DEFAULT b", ""),
        ("ALTER COLUMN a SET DEFAULT 99999999999", "a"),
        ("ALTER COLUMN a SET NULL", ""),
        ("ALTER COLUMN a FROB", ""),
        ("ADD COLUMN", ""),
        ("ADD COLUMN n", ""),
        ("ADD COLUMN n INT PRIMARY KEY", ""),
        ("ADD COLUMN n INT INT", ""),
        ("ADD COLUMN n INT DEFAULT 'x'", "n"),
        ("ADD COLUMN n INT NOT NULL DEFAULT NULL", "n"),
        ("ADD COLUMN B TEXT", "Already exists: Column 'b' already exists"),
        ("ADD COLUMN _row_id INT", "reserved"),
        ("DROP COLUMN", ""),
        ("DROP COLUMN a, b", ""),
        ("DROP COLUMN _seq", ""),
        ("RENAME COLUMN a", ""),
        ("RENAME COLUMN id TO a", "Already exists: "),
        ("RENAME TO x", ""),
        ("SET ACCESS LEVEL", ""),
        ("SET ACCESS LEVEL 'PUBLIC' 'DBA'", ""),
        ("SET TBLPROPERTIES ()", ""),
        ("SET TBLPROPERTIES (ACCESS_LEVEL = 'nobody')", "nobody"),
        ("SET TBLPROPERTIES (ACCESS_LEVEL = 'public', ACCESS_LEVEL = 'dba')", ""),
        ("SET TBLPROPERTIES (TTL_SECONDS = 5)", ""),
        ("", ""),
    ],
)
def test_refused_on_a_filled_table(t: RunningServer, operation: str, part: str) -> None:
    before = t.rows("SELECT * FROM app.t"), t.rows("DESCRIBE TABLE app.t")
    answer = t.post(f"ALTER TABLE app.t {operation}")
    found = refused(answer, (answer.status_code, answer.json().get("error", {}).get("code")), part)
    assert found[:2] in REFUSED, found
    assert (t.rows("SELECT * FROM app.t"), t.rows("DESCRIBE TABLE app.t")) == before
    assert t.rows("SELECT access_level FROM system.schemas WHERE table_name = 't'") == [["public"]]


@pytest.mark.parametrize("name", HOSTILE_IDS)
def test_hostile_column_names(t: RunningServer, name: str) -> None:
    quoted = name.replace('"', '""')
    answer = t.post(f'ALTER TABLE app.t ADD COLUMN "{quoted}" INT DEFAULT 5')
    if answer.status_code == 200:
        assert t.rows(f'SELECT "{quoted}" FROM app.t WHERE id = 1') == [[5]]
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) in REFUSED, answer.text
        assert version(t) == 1


@pytest.mark.parametrize("operation", ["ADD COLUMN n INT", "DROP COLUMN a", "SET ACCESS LEVEL PUBLIC"])
@pytest.mark.parametrize("table", ["app.nosuch", "nowhere.t", "t"])
def test_missing_tables(t: RunningServer, table: str, operation: str) -> None:
    refused(t.post(f"ALTER TABLE {table} {operation}"), NO_TABLE)


def test_who_may(roles: Roles, t: RunningServer) -> None:
    for operation in ("ADD COLUMN n INT", "DROP COLUMN b", "SET ACCESS LEVEL DBA", "RENAME COLUMN a TO z"):
        refused(roles.post("user", f"ALTER TABLE app.t {operation}"), DENIED)
    refused(roles.post("service", "ALTER TABLE app.t SET ACCESS LEVEL DBA"), DENIED)
    refused(roles.post("dba", "ALTER TABLE system.users ADD COLUMN n INT"), DENIED)
    assert version(t) == 1
    for number, role in enumerate(("service", "dba", "system"), 2):
        assert message(roles.post(role, f"ALTER TABLE app.t ADD COLUMN n{number} INT")) == (
            f"Table app.t altered successfully: ADD COLUMN n{number} INT (version {number})"
        )


# --- history ----------------------------------------------------------------------------------------------------------


def test_history(t: RunningServer) -> None:
    t.sql("ALTER TABLE app.t ADD COLUMN n INT DEFAULT 1")
    t.sql("ALTER TABLE app.t DROP COLUMN b")
    t.sql("ALTER TABLE app.t RENAME COLUMN n TO m")
    rows = records(t.post("SELECT * FROM system.schemas WHERE table_name = 't' ORDER BY schema_version"))
    assert [(row["schema_version"], row["is_latest"]) for row in rows] == [
        (1, False),
        (2, False),
        (3, False),
        (4, True),
    ]
    names = [[column["column_name"] for column in json.loads(row["columns"])] for row in rows]
    assert names == [["id", "a", "b"], ["id", "a", "b", "n"], ["id", "a", "n"], ["id", "a", "m"]]
    assert [row["updated_at"] for row in rows] == sorted(row["updated_at"] for row in rows)
    for form in ("DESCRIBE TABLE app.t HISTORY", "desc table APP.T history", "DESCRIBE app.t HISTORY;"):
        result = one(t.post(form))
        assert columns(result) == DESCRIBED
        told = {(row[8], row[0]) for row in result["rows"]}
        assert told == {(place, name) for place, group in enumerate(names, 1) for name in group}
    now = records(t.post("DESCRIBE TABLE app.t"))
    assert [(row["column_name"], row["schema_version"]) for row in now] == [("id", 4), ("a", 4), ("m", 4)]
    ids = {(row["column_name"]): row["column_id"] for row in records(t.post("DESCRIBE TABLE app.t HISTORY"))}
    assert ids["n"] == ids["m"]  # a rename keeps the column


# --- DESCRIBE and SHOW ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "kinds"),
    [
        ("DESCRIBE TABLE app.nosuch", {NO_TABLE}),
        ("DESC TABLE nowhere.t", {NO_TABLE}),
        ("DESCRIBE TABLE t", {NO_TABLE}),
        ("DESCRIBE TABLE app.nosuch HISTORY", {NO_TABLE}),
        ("DESCRIBE", {INVALID}),
        ("DESCRIBE TABLE", {INVALID, NO_TABLE}),
        ("DESCRIBE TABLE app.t FUTURE", {INVALID}),
        ("DESCRIBE TABLE app.t, app.t", {INVALID}),
        ("SHOW STATS FOR TABLE app.nosuch", {NO_TABLE}),
        ("SHOW STATS FOR TABLE", {INVALID}),
        ("SHOW STATS FOR app.t", REFUSED),
        ("SHOW STATS", REFUSED),
        ("SHOW TABLES IN", {INVALID}),
        ("SHOW TABLES app", REFUSED),
        ("SHOW NAMESPACES IN app", REFUSED),
        ("SHOW", REFUSED),
        ("SHOW NOSUCH", REFUSED),
        ("SHOW MANIFEST FOR TABLE app.t", REFUSED),
        ("SHOW STORAGES IN app", REFUSED),
        ("SHOW EXPORT 'x'", REFUSED),
    ],
)
def test_refused_shows(t: RunningServer, sql: str, kinds: set[tuple[int, str]]) -> None:
    answer = t.post(sql)
    assert (answer.status_code, answer.json().get("error", {}).get("code")) in kinds, answer.text


def test_show_stats(roles: Roles, t: RunningServer) -> None:
    for role in ("user", "service", "dba", "system"):
        result = one(roles.post(role, "SHOW STATS FOR TABLE app.t"))
        assert columns(result) == STATS
        (row,) = records(roles.post(role, "show stats for table APP.T;"))
        assert (row["table_name"], row["namespace"], row["schema_version"]) == ("t", "app", 1)
        assert int(row["logical_rows"]) == 3
        assert int(row["memory_bytes"]) >= 0
    t.sql("DELETE FROM app.t WHERE id = 1; UPDATE app.t SET a = 1 WHERE id = 2")
    assert int(records(t.post("SHOW STATS FOR TABLE app.t"))[0]["logical_rows"]) == 2


def test_show_columns_and_system_tables(t: RunningServer) -> None:
    assert [row[0] for row in t.rows("DESCRIBE TABLE system.users")][:3] == ["user_id", "password_hash", "role"]
    assert len(t.rows("SHOW COLUMNS FROM app.t")) == 3


def test_namespaces_in_show_tables(roles: Roles, t: RunningServer) -> None:
    t.sql("CREATE TABLE app.hid (id INT PRIMARY KEY)")
    for role, seen in (("user", {"t"}), ("service", {"t", "hid"}), ("dba", {"t", "hid"})):
        names = {row["table_name"] for row in records(roles.post(role, "SHOW TABLES IN app"))}
        assert names == seen
    refused(roles.post("user", "DESCRIBE TABLE app.hid"), NO_TABLE if _hidden(roles) else DENIED)
    t.sql("DROP TABLE app.hid")


def _hidden(roles: Roles) -> bool:
    """Whether a table that one may not read is told of as missing; either is right, as long as SELECT agrees."""
    return roles.post("user", "SELECT * FROM app.hid").status_code == 404


def test_versions_outlive_a_kill(fresh_server: RunningServer) -> None:
    fresh_server.sql("CREATE NAMESPACE app; CREATE TABLE app.t (id INT PRIMARY KEY); INSERT INTO app.t VALUES (1)")
    ok(fresh_server.post("ALTER TABLE app.t ADD COLUMN n INT DEFAULT 4"))
    before = fresh_server.rows("DESCRIBE TABLE app.t HISTORY")
    fresh_server.restart()
    fresh_server.client.headers["Authorization"] = f"Bearer {fresh_server.token}"
    assert fresh_server.rows("DESCRIBE TABLE app.t HISTORY") == before
    assert fresh_server.rows("SELECT * FROM app.t") == [[1, 4]]
