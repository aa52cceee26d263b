"""Namespaces, USE and SHOW, system tables and information_schema: names, columns, types and who sees what."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conformance import Roles, columns, error, message, ok, roles_of
from tests.e2e.running import RunningServer

COLUMNS = {
    "users": "user_id, password_hash, role, email, auth_type, auth_data, storage_mode, storage_id, "
    "failed_login_attempts, locked_until, last_login_at, created_at, updated_at, last_seen, deleted_at",
    "namespaces": "namespace_id, name, created_at, options, table_count",
    "schemas": "table_id, table_name, namespace_id, table_type, created_at, schema_version, columns, table_comment, "
    "updated_at, options, access_level, is_latest, storage_id, use_user_storage",
    "tables": "namespace_id, table_name, table_type, storage_id, version, options, comment, updated_at, created_at",
    "columns": "namespace_id, table_name, version, column_id, column_name, comment, data_type, default_value, ordinal, "
    "nullable, primary_key, primary_key_pos",
    "datatypes": "arrow_type, kalam_type, sql_name, description",
    "settings": "name, value, description, category",
    "stats": "metric_name, metric_value",
    "topics": "topic_id, name, alias, partitions, retention_seconds, retention_max_bytes, routes, created_at, "
    "updated_at",
    "topic_offsets": "topic_id, group_id, partition_id, last_acked_offset, updated_at, position, next_offset, lag, "
    "claims, pending",
}
RESERVED = (
    "system", "sys", "root", "kalamdb", "kalam", "main", "sql", "admin", "internal", "information_schema",
    "pg_catalog", "datafusion", "select", "table", "user", "order", "Group", '"SELECT"',
)  # fmt: skip


@pytest.fixture(scope="module")
def roles(server: RunningServer) -> Iterator[Roles]:
    server.sql(
        "CREATE NAMESPACE app;"
        "CREATE SHARED TABLE app.docs (id BIGINT, lang TEXT, body TEXT DEFAULT 'x', p DECIMAL(8,2),"
        " PRIMARY KEY (id, lang)) WITH (ACCESS_LEVEL = 'public', FLUSH_POLICY = 'rows:100');"
        "CREATE USER TABLE app.notes (id INT PRIMARY KEY);"
        "CREATE TOPIC app.feed PARTITIONS 2; ALTER TOPIC app.feed ADD SOURCE app.docs ON INSERT WHERE lang = 'en';"
        "RESET CONSUMER GROUP readers ON app.feed TO LATEST"
    )
    with roles_of(server) as found:
        yield found


# --- namespaces -------------------------------------------------------------------------------------------------------


def test_the_life_of_a_namespace(server: RunningServer) -> None:
    for sql, told in [
        ("CREATE NAMESPACE life", "Namespace 'life' created successfully"),
        ("create namespace if not exists LIFE", "Namespace 'life' already exists"),
        ("ALTER NAMESPACE life SET OPTIONS (k = 'v', x = 1, b = true)", "Namespace 'life' altered successfully"),
        ("DROP NAMESPACE life", "Namespace 'life' dropped successfully"),
        ("DROP NAMESPACE IF EXISTS life", "Namespace 'life' does not exist"),
        ("DROP NAMESPACE IF EXISTS life CASCADE", "Namespace 'life' does not exist"),
        ("CREATE NAMESPACE IF NOT EXISTS life", "Namespace 'life' created successfully"),
        ("DROP NAMESPACE life CASCADE", "Namespace 'life' dropped successfully"),
        ("CREATE NAMESPACE IF NOT EXISTS default", "Namespace 'default' already exists"),
    ]:
        assert message(server.post(sql)) == told
        if "ALTER" in sql:
            (options,) = server.rows("SELECT options FROM system.namespaces WHERE name = 'life'")[0]
            assert json.loads(options) == {"k": "v", "x": 1, "b": True}


@pytest.mark.parametrize("cascade", ["", "CASCADE"])
def test_dropping_a_namespace_drops_its_tables(server: RunningServer, cascade: str) -> None:
    server.sql("CREATE NAMESPACE full_one; CREATE TABLE full_one.t (id INT PRIMARY KEY)")
    found = error(server.post("DROP NAMESPACE full_one RESTRICT"))
    assert found[:2] == (400, "SQL_EXECUTION_ERROR")
    assert "not empty" in found.message
    assert message(server.post(f"DROP NAMESPACE full_one {cascade}")) == "Namespace 'full_one' dropped successfully"
    assert error(server.post("SELECT * FROM full_one.t")).code == "TABLE_NOT_FOUND"
    server.sql("CREATE NAMESPACE full_one")
    assert error(server.post("SELECT * FROM full_one.t")).code == "TABLE_NOT_FOUND"
    server.sql("DROP NAMESPACE full_one")


@pytest.mark.parametrize("name", RESERVED)
def test_reserved_names(server: RunningServer, name: str) -> None:
    found = error(server.post(f"CREATE NAMESPACE {name}"))
    assert found[:2] == (400, "SQL_EXECUTION_ERROR")
    assert "is reserved" in found.message


@pytest.mark.parametrize("name", ["_x", '"a b"', '"a-b"', "x" * 65, '"é"', '"1x"', '""', "1x", "a-b"])
def test_malformed_names(server: RunningServer, name: str) -> None:
    found = error(server.post(f"CREATE NAMESPACE {name}"))
    assert found.status == 400
    assert found.code in {"SQL_EXECUTION_ERROR", "INVALID_SQL"}
    server.sql(f"CREATE NAMESPACE {'y' * 64}; DROP NAMESPACE {'y' * 64}")


@pytest.mark.parametrize(
    ("sql", "part"),
    [
        ("CREATE NAMESPACE default", "Already exists: Namespace 'default' already exists"),
        ("CREATE NAMESPACE app", "Already exists: Namespace 'app' already exists"),
        ("DROP NAMESPACE nowhere", "Not found: Namespace 'nowhere' does not exist"),
        ("DROP NAMESPACE nowhere CASCADE", "Not found: Namespace 'nowhere' does not exist"),
        ("ALTER NAMESPACE nowhere SET OPTIONS (a = 1)", "Not found: Namespace 'nowhere' does not exist"),
        ("USE nowhere", "Not found: Namespace 'nowhere' does not exist"),
        ("DROP NAMESPACE default", "cannot be dropped"),
        ("DROP NAMESPACE system", "cannot be dropped"),
        ("DROP NAMESPACE IF EXISTS system", "cannot be dropped"),
        ("DROP NAMESPACE information_schema CASCADE", "cannot be dropped"),
    ],
)
def test_refused_namespace_statements(roles: Roles, sql: str, part: str) -> None:
    found = error(roles.server.post(sql))
    assert found[:2] == (400, "SQL_EXECUTION_ERROR")
    assert found.message.startswith("Statement 1 failed: ")
    assert part in found.message


@pytest.mark.parametrize("sql", ["USE app", "USE NAMESPACE app", "SET NAMESPACE app", "use App"])
def test_use_tells_that_it_sets_nothing(roles: Roles, sql: str) -> None:
    for role in ("user", "dba"):
        told = message(roles.post(role, sql))
        assert told.startswith("Namespace switched to 'app'")
        assert "namespace_id" in told
    assert error(roles.server.post(f"{sql}; SELECT * FROM docs")).code == "TABLE_NOT_FOUND"
    assert message(roles.server.post("USE system")).startswith("Namespace switched to 'system'")


def test_the_namespace_of_a_request(roles: Roles) -> None:
    server = roles.server
    for given in ("app", "APP", "App"):
        assert ok(server.post("SELECT * FROM docs", namespace_id=given))[0]["rows"] == []
        assert ok(server.post("SELECT * FROM app.docs", namespace_id=given))[0]["rows"] == []
    assert len(ok(server.post("SELECT * FROM app.docs; SHOW TABLES; SELECT 1", namespace_id="nowhere"))) == 3
    assert error(server.post("SELECT * FROM docs", namespace_id="nowhere")).message == "Table not found: 'nowhere.docs'"
    assert error(server.post("SELECT * FROM docs")).code == "TABLE_NOT_FOUND"
    assert error(server.post("SELECT * FROM docs", namespace_id=None)).code == "TABLE_NOT_FOUND"
    streamed = server.post("SELECT 1 AS n FROM docs", namespace_id="APP", headers={"Accept": "application/x-ndjson"})
    assert (streamed.status_code, streamed.text) == (200, "")


def test_show_namespaces(roles: Roles) -> None:
    own = roles.server.rows("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'system'")[0][0]
    assert own >= 19, "users, namespaces, schemas, tables, columns and the others of section 9"
    for role, counted in (("user", [2, 0]), ("dba", [2, own])):
        (result,) = ok(roles.post(role, "SHOW NAMESPACES"))
        assert ", ".join(columns(result)) == COLUMNS["namespaces"]
        rows = {row[0]: row for row in result["rows"]}
        assert {"app", "default", "system"} <= set(rows)
        assert all(row[0] == row[1] and isinstance(row[2], int) for row in rows.values())
        assert [rows["app"][4], rows["system"][4]] == counted
        assert list(rows) == sorted(rows)


# --- system tables ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_columns_of_system_tables(roles: Roles, name: str) -> None:
    wanted = COLUMNS[name].split(", ")
    for role in ("dba", "system"):
        (result,) = ok(roles.post(role, f"SELECT * FROM System.{name}"))
        assert columns(result) == wanted
        assert result["rows"]
        (described,) = ok(roles.post(role, f"DESCRIBE TABLE system.{name}"))
        assert [row[0] for row in described["rows"]] == wanted
    for role in ("user", "service"):
        found = error(roles.post(role, f"SELECT count(*) FROM system.{name}"))
        assert found[:2] == (403, "PERMISSION_DENIED")


def test_types_of_system_columns(roles: Roles) -> None:
    kinds = {
        "users": {"auth_data": "Json", "created_at": "Timestamp", "failed_login_attempts": "Int", "user_id": "Text"},
        "schemas": {"columns": "Json", "is_latest": "Boolean", "created_at": "Timestamp"},
        "columns": {"nullable": "Boolean", "primary_key": "Boolean", "data_type": "Text"},
        "stats": {"metric_name": "Text", "metric_value": "Text"},
        "topics": {"partitions": "Int", "retention_seconds": "BigInt", "routes": "Json", "created_at": "Timestamp"},
        "topic_offsets": {"partition_id": "Int", "last_acked_offset": "BigInt", "updated_at": "Timestamp"},
    }
    for table, expected in kinds.items():
        (result,) = ok(roles.server.post(f"SELECT * FROM system.{table}"))
        found = {column["name"]: column["data_type"] for column in result["schema"]}
        assert {name: found[name] for name in expected} == expected


def test_rows_of_tables_columns_and_schemas(roles: Roles) -> None:
    server = roles.server
    chosen = "namespace_id, table_name, table_type, storage_id, version"
    assert server.rows(f"SELECT {chosen} FROM system.tables WHERE namespace_id = 'app' ORDER BY table_name") == [
        ["app", "docs", "shared", "local", 1], ["app", "notes", "user", "local", 1],
    ]  # fmt: skip
    chosen = "column_name, data_type, default_value, ordinal, nullable, primary_key, primary_key_pos"
    assert server.rows(f"SELECT {chosen} FROM system.columns WHERE table_name = 'docs' ORDER BY ordinal") == [
        ["id", "BIGINT", None, 1, False, True, 1], ["lang", "TEXT", None, 2, False, True, 2],
        ["body", "TEXT", "'x'", 3, True, False, None], ["p", "DECIMAL(8,2)", None, 4, True, False, None],
    ]  # fmt: skip
    chosen = "table_id, table_type, schema_version, access_level, is_latest, use_user_storage, options, columns"
    (row,) = server.rows(f"SELECT {chosen} FROM system.schemas WHERE table_name = 'docs'")
    assert row[:6] == ["app:docs", "shared", 1, "public", True, False]
    assert json.loads(row[6])["flush_policy"] == "rows:100"
    described = json.loads(row[7])
    assert [column["column_name"] for column in described] == ["id", "lang", "body", "p"]
    assert described[3]["data_type"] == {"Decimal": {"precision": 8, "scale": 2}}
    server.sql("ALTER TABLE app.notes ADD COLUMN v TEXT")
    versions = "SELECT schema_version, is_latest FROM system.schemas WHERE table_name = 'notes' ORDER BY 1"
    assert server.rows(versions) == [[1, False], [2, True]]


def test_rows_of_topics_and_their_groups(roles: Roles) -> None:
    server = roles.server
    (row,) = server.rows("SELECT * FROM system.topics WHERE topic_id = 'app.feed'")
    assert row[:6] == ["app.feed", "feed", None, 2, 604800, 1 << 30]
    assert json.loads(row[6]) == [
        {"table_id": "app.docs", "op": "Insert", "payload_mode": "full", "filter": "lang = 'en'"}
    ]  # fmt: skip
    chosen = "topic_id, group_id, partition_id, last_acked_offset"
    assert server.rows(f"SELECT {chosen} FROM system.topic_offsets") == [
        ["app.feed", "readers", 0, None], ["app.feed", "readers", 1, None],
    ]  # fmt: skip


def test_a_composite_key_has_its_flags(roles: Roles) -> None:
    (result,) = ok(roles.server.post("SELECT * FROM app.docs"))
    assert [column.get("flags") for column in result["schema"]] == [["pk", "nn"], ["pk", "nn"], None, None]


def test_users_show_no_hashes(roles: Roles) -> None:
    rows = roles.server.rows("SELECT * FROM system.users")
    assert {row[1] for row in rows} <= {"***", None}
    assert "argon2" not in json.dumps(rows)
    by_name = {row[0]: row for row in rows}
    assert [by_name[name][2] for name in ("root", "admin", "s1", "u1")] == ["system", "dba", "service", "user"]
    assert by_name["admin"][14] is None


def test_data_types(roles: Roles) -> None:
    rows = roles.server.rows("SELECT kalam_type, sql_name FROM system.datatypes")
    assert {"BigInt", "Text", "Timestamp", "Json", "Uuid", "Bytes", "File"} <= {row[0] for row in rows}
    assert len(rows) == 17
    for _, name in rows:
        roles.server.sql(f"CREATE TABLE app.typed (id INT PRIMARY KEY, v {name}); DROP TABLE app.typed")


def test_information_schema(roles: Roles) -> None:
    for role in ("user", "dba"):
        (schemata,) = ok(roles.post(role, "SELECT schema_name FROM information_schema.schemata"))
        assert {"app", "default"} <= {row[0] for row in schemata["rows"]}
        (tables,) = ok(roles.post(role, "SELECT * FROM information_schema.tables WHERE table_schema = 'app'"))
        assert columns(tables)[:4] == ["table_catalog", "table_schema", "table_name", "table_type"]
        assert [row[2:4] for row in tables["rows"]] == [["docs", "BASE TABLE"], ["notes", "BASE TABLE"]]
        (shown,) = ok(
            roles.post(
                role,
                "SELECT column_name, ordinal_position, is_nullable, data_type FROM information_schema.columns "
                "WHERE table_name = 'docs' ORDER BY 2",
            )
        )
        assert shown["rows"][0] == ["id", 1, "NO", "BIGINT"]
        assert shown["rows"][3] == ["p", 4, "YES", "DECIMAL(8,2)"]


@pytest.mark.parametrize("what", ["SHOW NAMESPACES", "SHOW TABLES", "SHOW TABLES IN app", "DESCRIBE TABLE app.docs",
                                  "SHOW STATS FOR TABLE app.docs", "EXPLAIN SELECT * FROM app.docs"])  # fmt: skip
def test_shows_have_rows_and_no_message(roles: Roles, what: str) -> None:
    (result,) = ok(roles.post("user", what))
    assert "message" not in result
    assert result["row_count"] == len(result["rows"]) > 0
    assert result["as_user"] == "u1"
