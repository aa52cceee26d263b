"""Tables as existing clients define them: kinds, options, types, defaults, keys, every ALTER, DESCRIBE, DROP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conformance import columns, error, message, ok
from tests.e2e.running import RunningServer

DESCRIBED = [
    "column_name", "ordinal_position", "column_id", "data_type", "is_nullable", "is_primary_key", "column_default",
    "column_comment", "schema_version",
]  # fmt: skip
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


@pytest.fixture(scope="module")
def app(server: RunningServer) -> RunningServer:
    server.sql("CREATE NAMESPACE app")
    return server


@pytest.fixture
def clean(app: RunningServer) -> Iterator[RunningServer]:
    """The table app.t is free before and after."""
    yield app
    app.sql("DROP TABLE IF EXISTS app.t")


@pytest.mark.parametrize(
    ("prefix", "options", "kind", "level"),
    [
        ("", "", "shared", "private"),
        ("SHARED", "", "shared", "private"),
        ("USER", "", "user", None),
        ("", "TYPE='SHARED'", "shared", "private"),
        ("", "TYPE = 'USER'", "user", None),
        ("", "type='user'", "user", None),
        ("USER", "TYPE='USER'", "user", None),
        ("SHARED", "TYPE='SHARED', ACCESS_LEVEL='PUBLIC'", "shared", "public"),
        ("", "ACCESS_LEVEL = PUBLIC", "shared", "public"),
        ("", "access_level = 'private'", "shared", "private"),
        ("", "ACCESS_LEVEL = 'Restricted'", "shared", "restricted"),
        ("", "ACCESS_LEVEL = 'DBA'", "shared", "dba"),
        ("", "STORAGE_ID = 'local'", "shared", "private"),
        ("", "FLUSH_POLICY = 'rows:1'", "shared", "private"),
        ("", "FLUSH_POLICY = 'rows:999999'", "shared", "private"),
        ("", "FLUSH_POLICY = 'interval:1'", "shared", "private"),
        ("", "FLUSH_POLICY = 'interval:86399'", "shared", "private"),
        ("", "FLUSH_POLICY = 'rows:1000,interval:60'", "shared", "private"),
        ("", "DELETED_RETENTION_HOURS = 24", "shared", "private"),
        ("USER", "USE_USER_STORAGE = true, STORAGE_ID = 'local', FLUSH_POLICY = 'rows:10'", "user", None),
        ("USER", "USE_USER_STORAGE = 'false'", "user", None),
    ],
)
def test_kinds_and_options(clean: RunningServer, prefix: str, options: str, kind: str, level: str | None) -> None:
    clause = f"WITH ({options})" if options else ""
    made = message(clean.post(f"CREATE {prefix} TABLE app.t (id BIGINT PRIMARY KEY, v TEXT) {clause}"))
    assert made.startswith("CREATE TABLE")
    assert made.endswith(f": {kind} table app.t created successfully")
    sql = "SELECT table_type, access_level FROM system.schemas WHERE namespace_id = 'app' AND table_name = 't'"
    assert clean.rows(sql) == [[kind, level]]


@pytest.mark.parametrize(
    ("statement", "code", "part"),
    [
        ("CREATE SHARED TABLE app.t (id INT PRIMARY KEY) WITH (TYPE='USER')", "INVALID_SQL", "contradict"),
        ("CREATE USER TABLE app.t (id INT PRIMARY KEY) WITH (TYPE='SHARED')", "INVALID_SQL", "contradict"),
        ("CREATE TABLE app.t (id INT PRIMARY KEY) WITH (TYPE='OTHER')", "INVALID_SQL", "OTHER"),
        ("CREATE TABLE app.t (id INT PRIMARY KEY) WITH (STORAGE_ID='s3')", "SQL_EXECUTION_ERROR", "'s3' does not"),
        ("CREATE TABLE app.t (id INT PRIMARY KEY) WITH (USE_USER_STORAGE=true)", "SQL_EXECUTION_ERROR", "USER tables"),
        ("CREATE TABLE app.t (id INT PRIMARY KEY) WITH (FLUSH_POLICY='rows:0')", "SQL_EXECUTION_ERROR", "rows"),
        ("CREATE TABLE app.t (id INT PRIMARY KEY) WITH (FLUSH_POLICY='rows:1000000')", "SQL_EXECUTION_ERROR", "rows"),
        ("CREATE TABLE app.t (id INT PRIMARY KEY) WITH (FLUSH_POLICY='interval:0')", "SQL_EXECUTION_ERROR", "interval"),
        ("CREATE TABLE app.t (id INT PRIMARY KEY) WITH (FLUSH_POLICY='interval:86400')", "SQL_EXECUTION_ERROR", "int"),
        ("CREATE TABLE app.t (id INT PRIMARY KEY) WITH (FLUSH_POLICY='often')", "SQL_EXECUTION_ERROR", "FLUSH_POLICY"),
        ("CREATE TABLE app.t (id INT PRIMARY KEY) WITH (TTL_SECONDS=5)", "SQL_EXECUTION_ERROR", "STREAM"),
        ("CREATE USER TABLE app.t (id INT PRIMARY KEY) WITH (ACCESS_LEVEL='PUBLIC')", "SQL_EXECUTION_ERROR", "SHARED"),
        ("CREATE TABLE app.t (id INT PRIMARY KEY) WITH (ACCESS_LEVEL='OPEN')", "SQL_EXECUTION_ERROR", "OPEN"),
        ("CREATE TABLE app.t (id INT PRIMARY KEY) WITH (COMPRESSION='zstd')", "SQL_EXECUTION_ERROR", "COMPRESSION"),
        ("CREATE STREAM TABLE app.t (id INT)", "SQL_EXECUTION_ERROR", "needs TTL_SECONDS"),
        ("CREATE STREAM TABLE app.t (id INT) WITH (TTL_SECONDS=0)", "SQL_EXECUTION_ERROR", "between 1 and"),
        ("CREATE STREAM TABLE app.t (id INT) WITH (TTL_SECONDS=-1)", "SQL_EXECUTION_ERROR", "'-1'"),
        ("CREATE STREAM TABLE app.t (id INT) WITH (TTL_SECONDS='soon')", "SQL_EXECUTION_ERROR", "'soon'"),
        ("CREATE STREAM TABLE app.t (id INT) WITH (TTL_SECONDS=1.5)", "SQL_EXECUTION_ERROR", "'1.5'"),
        ("CREATE STREAM TABLE app.t (id INT) WITH (TYPE='USER', TTL_SECONDS=5)", "INVALID_SQL", "contradict"),
        ("CREATE STREAM TABLE app.t (id INT UNIQUE) WITH (TTL_SECONDS=5)", "UNSUPPORTED", "UNIQUE"),
        ("CREATE STREAM TABLE app.t (id INT) WITH (TTL_SECONDS=5, ACCESS_LEVEL='PUBLIC')", "SQL_EXECUTION_ERROR",
         "SHARED"),
        ("CREATE STREAM TABLE app.t (id INT) WITH (TTL_SECONDS=5, FLUSH_POLICY='rows:9')", "SQL_EXECUTION_ERROR",
         "FLUSH_POLICY"),
        ("CREATE TABLE app.t (id INT PRIMARY KEY, a INT, A TEXT)", "SQL_EXECUTION_ERROR", "Duplicate column name 'a'"),
        ("CREATE TABLE app.t ()", "INVALID_SQL", "column"),
        ("CREATE TABLE app.t (a INT PRIMARY KEY, b INT PRIMARY KEY)", "INVALID_SQL", "PRIMARY KEY"),
        ("CREATE TABLE app.t (a INT, PRIMARY KEY (b))", "SQL_EXECUTION_ERROR", "'b'"),
        ("CREATE TABLE app.t (a INT PRIMARY KEY REFERENCES app.x (id))", "UNSUPPORTED", "REFERENCES"),
        ("CREATE TABLE app.t (a INT, FOREIGN KEY (a) REFERENCES app.x (id))", "UNSUPPORTED", "FOREIGN KEY"),
        ("CREATE TABLE app.t AS SELECT 1", "UNSUPPORTED", "CREATE TABLE"),
        ("CREATE TABLE app.t (a INT PRIMARY KEY, b TEXT DEFAULT made_up())", "SQL_EXECUTION_ERROR", "MADE_UP()"),
        ("CREATE TABLE app.t (a INT PRIMARY KEY, b INT DEFAULT 'x')", "SQL_EXECUTION_ERROR", "'b'"),
        ("CREATE TABLE app.t (a INT PRIMARY KEY AUTO_INCREMENT)", "SQL_EXECUTION_ERROR", "SNOWFLAKE_ID()"),
        ("CREATE TABLE app.t (a INT PRIMARY KEY, b INT NULL NOT NULL)", "INVALID_SQL", "'b'"),
        *((f"CREATE TABLE app.t (id INT PRIMARY KEY, {name} INT)", "SQL_EXECUTION_ERROR", "reserved")
          for name in ("_seq", "_DELETED", "_id", "_row_id", "_rowid", "_key", "_updated", "_created", "_timestamp",
                       "_version", "_hash")),
    ],
)  # fmt: skip
def test_refused_tables(clean: RunningServer, statement: str, code: str, part: str) -> None:
    found = error(clean.post(statement))
    assert (found.status, found.code) == (400, code)
    assert part in found.message


def test_namespaces_must_exist_and_names_be_free(clean: RunningServer) -> None:
    create = "CREATE TABLE {} (id INT PRIMARY KEY)"
    missing = error(clean.post(create.format("nowhere.t")))
    assert missing[:2] == (400, "SQL_EXECUTION_ERROR")
    assert missing.message.endswith("Namespace 'nowhere' does not exist. Create it first with CREATE NAMESPACE nowhere")
    assert error(clean.post(create.format("system.t")))[:2] == (403, "PERMISSION_DENIED")
    message(clean.post(create.format("app.t")))
    again = error(clean.post(create.format("APP.T")))
    assert again[:2] == (400, "SQL_EXECUTION_ERROR")
    assert again.message == "Statement 1 failed: Already exists: Table app.t already exists"
    assert "app.t already exists" in message(clean.post("CREATE TABLE IF NOT EXISTS app.t (x TEXT PRIMARY KEY)"))
    assert clean.rows("DESCRIBE TABLE app.t")[0][0] == "id"


def test_dropping(clean: RunningServer) -> None:
    for drop in ("DROP TABLE app.t", "DROP USER TABLE app.t", "drop shared table if exists App.T"):
        clean.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
        assert message(clean.post(drop)).startswith("Table app.t dropped successfully")
    assert message(clean.post("DROP TABLE IF EXISTS app.t")) == "Table app.t does not exist (skipped)"
    found = error(clean.post("DROP TABLE app.t"))
    assert found[:2] == (404, "TABLE_NOT_FOUND")
    assert error(clean.post("DROP TABLE system.users"))[:2] == (403, "PERMISSION_DENIED")


def test_using_and_unqualified_names(clean: RunningServer) -> None:
    clean.sql("CREATE TABLE t (id INT PRIMARY KEY) USING kalamdb", namespace_id="app")
    assert ok(clean.post("SELECT * FROM t", namespace_id="APP"))[0]["rows"] == []
    assert error(clean.post("SELECT * FROM t")).code == "TABLE_NOT_FOUND"
    assert message(clean.post("DROP TABLE t", namespace_id="app")).startswith("Table app.t dropped successfully")


DECIMAL = [("DECIMAL", 38, 10), ("NUMERIC", 38, 10), ("DECIMAL(12)", 12, 0), ("DECIMAL(10,2)", 10, 2),
           ("NUMERIC(38,38)", 38, 38), ("DEC(4,1)", 4, 1), ("DECIMAL(1,0)", 1, 0)]  # fmt: skip
SERIALS = ("SERIAL", "BIGSERIAL", "SMALLSERIAL", "SERIAL2", "SERIAL4", "SERIAL8")
TYPES: list[tuple[str, object]] = [
    *((name, "Boolean") for name in ("BOOLEAN", "BOOL", "bool")),
    *((name, "SmallInt") for name in ("SMALLINT", "INT2", "SMALLINT(6)")),
    *((name, "Int") for name in ("INT", "INTEGER", "INT4", "MEDIUMINT", "SIGNED", "INT(11)")),
    *((name, "BigInt") for name in ("BIGINT", "INT8", "INT64", "BIGINT(20)", *SERIALS)),
    *((name, "Float") for name in ("FLOAT", "REAL", "FLOAT4")),
    *((name, "Double") for name in ("DOUBLE", "DOUBLE PRECISION", "FLOAT8", "FLOAT64")),
    *((name, "Text") for name in (
        "TEXT", "VARCHAR(10)", "VARCHAR", "CHAR(3)", "CHAR", "STRING", "STRING(10)", "CLOB", "TINYTEXT", "MEDIUMTEXT",
        "LONGTEXT", "NVARCHAR(5)", "CHARACTER VARYING(10)", "FIXEDSTRING(4)", "ENUM('a', 'b')",
    )),
    *((name, "Timestamp") for name in ("TIMESTAMP", "TIMESTAMP(3)", "TIMESTAMP(6)", "TIMESTAMP WITHOUT TIME ZONE")),
    *((name, "DateTime") for name in ("DATETIME", "DATETIME(6)", "TIMESTAMP WITH TIME ZONE")),
    ("DATE", "Date"), ("TIME", "Time"), ("JSON", "Json"), ("JSONB", "Json"), ("UUID", "Uuid"), ("FILE", "File"),
    *((name, "Bytes") for name in ("BYTES", "BYTEA", "BLOB", "BINARY", "VARBINARY", "BINARY(3)", "VARBINARY(10)")),
    *((name, {"Decimal": {"precision": precision, "scale": scale}}) for name, precision, scale in DECIMAL),
    ("EMBEDDING(1)", {"Embedding": 1}), ("EMBEDDING(8192)", {"Embedding": 8192}),
]  # fmt: skip


def test_type_names(app: RunningServer) -> None:
    fields = ", ".join(f"c{number} {name}" for number, (name, _) in enumerate(TYPES))
    app.sql(f"CREATE TABLE app.every (id BIGINT PRIMARY KEY, {fields})")
    (result,) = ok(app.post("SELECT * FROM app.every"))
    found = {column["name"]: column["data_type"] for column in result["schema"]}
    differing = [
        (name, found[f"c{number}"]) for number, (name, kind) in enumerate(TYPES) if found[f"c{number}"] != kind
    ]
    assert not differing
    defaults = {row[0]: row[6] for row in app.rows("DESCRIBE TABLE app.every") if row[6] is not None}
    serials = {f"c{number}" for number, (name, _) in enumerate(TYPES) if name in SERIALS}
    assert defaults == dict.fromkeys(serials, "SNOWFLAKE_ID()")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("DECIMAL(0,0)", "INVALID_SQL"), ("DECIMAL(39,2)", "INVALID_SQL"), ("DECIMAL(5,6)", "INVALID_SQL"),
        ("EMBEDDING", "INVALID_SQL"), ("EMBEDDING(0)", "INVALID_SQL"), ("EMBEDDING(8193)", "INVALID_SQL"),
        ("TINYINT", "UNSUPPORTED"), ("INT UNSIGNED", "UNSUPPORTED"), ("INTERVAL", "UNSUPPORTED"),
        ("INT[]", "UNSUPPORTED"), ("NOSUCHTYPE", "UNSUPPORTED"), ("ENUM()", "INVALID_SQL"),
    ],
)  # fmt: skip
def test_refused_types(clean: RunningServer, name: str, code: str) -> None:
    found = error(clean.post(f"CREATE TABLE app.t (id INT PRIMARY KEY, v {name})"))
    assert (found.status, found.code) == (400, code)
    assert found.details is not None
    assert "^" in found.details


def test_an_enum_takes_its_values_only(clean: RunningServer) -> None:
    clean.sql("CREATE TABLE app.t (id INT PRIMARY KEY, v ENUM('open', 'it''s') DEFAULT 'open')")
    clean.sql("INSERT INTO app.t (id) VALUES (1); INSERT INTO app.t VALUES (2, 'it''s'), (3, NULL)")
    assert clean.rows("SELECT v FROM app.t") == [["open"], ["it's"], [None]]
    assert error(clean.post("INSERT INTO app.t VALUES (4, 'shut')"))[:2] == (400, "SQL_EXECUTION_ERROR")
    clean.sql("ALTER TABLE app.t ADD COLUMN w ENUM('x')")
    assert error(clean.post("UPDATE app.t SET w = 'y' WHERE id = 1"))[:2] == (400, "SQL_EXECUTION_ERROR")


@pytest.mark.parametrize(
    ("default", "expected", "described"),
    [
        ("TEXT DEFAULT 'it''s'", "it's", "'it''s'"),
        ("INT DEFAULT -5", -5, "-5"),
        ("BOOLEAN DEFAULT true", True, "TRUE"),
        ("DOUBLE DEFAULT 1.5", 1.5, "1.5"),
        ("DECIMAL(5,2) DEFAULT 1.5", "1.50", "1.5"),
        ("TEXT DEFAULT NULL", None, "NULL"),
        ("JSON DEFAULT '{}'", "{}", "'{}'"),
        ("DATE DEFAULT '1970-01-02'", 1, "'1970-01-02'"),
        ("TIMESTAMP DEFAULT '1970-01-01 00:00:01'", 1_000_000, "'1970-01-01 00:00:01'"),
        ("EMBEDDING(2) DEFAULT '[1,2]'", [1.0, 2.0], "'[1,2]'"),
        ("TEXT DEFAULT CURRENT_USER()", "admin", "CURRENT_USER()"),
        ("TEXT DEFAULT CURRENT_USER", "admin", "CURRENT_USER()"),
        ("TIMESTAMP DEFAULT NOW()", int, "NOW()"),
        ("TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP", int, "NOW()"),
        ("DATETIME DEFAULT now()", int, "NOW()"),
        ("BIGINT DEFAULT SNOWFLAKE_ID()", str, "SNOWFLAKE_ID()"),
        ("TEXT DEFAULT SNOWFLAKE_ID()", str, "SNOWFLAKE_ID()"),
        ("BIGINT AUTO_INCREMENT", str, "SNOWFLAKE_ID()"),
        ("BIGINT GENERATED ALWAYS AS IDENTITY", str, "SNOWFLAKE_ID()"),
        ("BIGINT GENERATED BY DEFAULT AS IDENTITY", str, "SNOWFLAKE_ID()"),
        ("BIGSERIAL", str, "SNOWFLAKE_ID()"),
        ("TEXT DEFAULT UUID_V7()", UUID, "UUID_V7()"),
        ("UUID DEFAULT UUID_V7()", UUID, "UUID_V7()"),
        ("TEXT DEFAULT ULID()", ULID, "ULID()"),
    ],
)  # fmt: skip
def test_defaults(clean: RunningServer, default: str, expected: object, described: str) -> None:
    clean.sql(f"CREATE TABLE app.t (id INT PRIMARY KEY, v {default})")
    clean.sql("INSERT INTO app.t (id) VALUES (1), (2)")
    one, two = (row[0] for row in clean.rows("SELECT v FROM app.t"))
    if isinstance(expected, re.Pattern):
        assert expected.fullmatch(one)
        assert one < two
    elif isinstance(expected, type):
        assert isinstance(one, expected)
        assert (int(str(one)) < int(str(two))) is (expected is str)
    else:
        assert one == two == expected
    assert {row[0]: row[6] for row in clean.rows("DESCRIBE TABLE app.t")}["v"] == described


@pytest.mark.parametrize("key", ["BIGINT AUTO_INCREMENT PRIMARY KEY", "SERIAL PRIMARY KEY",
                                 "BIGINT PRIMARY KEY DEFAULT SNOWFLAKE_ID()", "TEXT PRIMARY KEY DEFAULT ULID()",
                                 "UUID PRIMARY KEY DEFAULT UUID_V7()"])  # fmt: skip
def test_generated_keys(clean: RunningServer, key: str) -> None:
    clean.sql(f"CREATE TABLE app.t (id {key}, v TEXT)")
    (result,) = ok(clean.post("INSERT INTO app.t (v) VALUES ('a'), ('b') RETURNING id, v"))
    assert result["schema"][0]["flags"] == ["pk", "nn", "uq"]
    assert clean.rows("SELECT * FROM app.t") == result["rows"]
    assert isinstance(result["rows"][0][0], str)


ALTERS: list[tuple[str, str]] = [
    ("ADD COLUMN d TEXT", "altered successfully: ADD COLUMN d TEXT (version 2)"),
    ("ADD COLUMN e INT NOT NULL DEFAULT 3", "altered successfully: ADD COLUMN e INT (version 3)"),
    ("add column F text default 'x'", "altered successfully: ADD COLUMN f TEXT (version 4)"),
    ("DROP COLUMN d", "altered successfully: DROP COLUMN d (version 5)"),
    ("MODIFY COLUMN a BIGINT", "altered successfully: MODIFY COLUMN a BIGINT (version 6)"),
    ("MODIFY COLUMN a BIGINT", "unchanged: MODIFY COLUMN a BIGINT (version 6 - no changes needed)"),
    ("MODIFY COLUMN b TEXT NOT NULL", "altered successfully: MODIFY COLUMN b TEXT NOT NULL (version 7)"),
    ("MODIFY COLUMN b TEXT NULL", "altered successfully: MODIFY COLUMN b TEXT NULL (version 8)"),
    ("ALTER COLUMN c SET NOT NULL", "altered successfully: SET NOT NULL on column c (version 9)"),
    ("ALTER COLUMN c SET NOT NULL", "unchanged: SET NOT NULL on column c (version 9 - no changes needed)"),
    ("ALTER COLUMN c DROP NOT NULL", "altered successfully: DROP NOT NULL on column c (version 10)"),
    ("ALTER COLUMN c DROP NOT NULL", "unchanged: DROP NOT NULL on column c (version 10 - no changes needed)"),
    ("ALTER COLUMN c SET DEFAULT 9", "altered successfully: SET DEFAULT 9 on column c (version 11)"),
    ("ALTER COLUMN c SET DEFAULT 9", "unchanged: SET DEFAULT 9 on column c (version 11 - no changes needed)"),
    ("ALTER COLUMN c DROP DEFAULT", "altered successfully: DROP DEFAULT on column c (version 12)"),
    ("ALTER COLUMN c DROP DEFAULT", "unchanged: DROP DEFAULT on column c (version 12 - no changes needed)"),
    ("RENAME COLUMN b TO title", "altered successfully: RENAME COLUMN b TO title (version 13)"),
    ("SET TBLPROPERTIES (ACCESS_LEVEL = 'public')", "altered successfully: SET ACCESS LEVEL PUBLIC (version 14)"),
    ("SET ACCESS LEVEL PUBLIC", "unchanged: SET ACCESS LEVEL PUBLIC (version 14 - no changes needed)"),
    ("set access level private", "altered successfully: SET ACCESS LEVEL PRIVATE (version 15)"),
    ("SET ACCESS LEVEL RESTRICTED", "altered successfully: SET ACCESS LEVEL RESTRICTED (version 16)"),
    ("SET ACCESS LEVEL DBA", "altered successfully: SET ACCESS LEVEL DBA (version 17)"),
]


def test_alterations(clean: RunningServer) -> None:
    clean.sql("CREATE TABLE app.t (id INT PRIMARY KEY, a INT, b TEXT, c INT DEFAULT 5)")
    clean.sql("INSERT INTO app.t VALUES (1, 1, 'x', 1), (2, NULL, 'y', 2)")
    for operation, told in ALTERS:
        assert message(clean.post(f"ALTER TABLE app.t {operation}")) == f"Table app.t {told}"
    (result,) = ok(clean.post("SELECT * FROM app.t"))
    assert columns(result) == ["id", "a", "title", "c", "e", "f"]
    assert result["rows"] == [[1, 1, "x", 1, 3, "x"], [2, None, "y", 2, 3, "x"]]
    assert {row[8] for row in clean.rows("DESCRIBE TABLE app.t")} == {17}
    assert {row[8] for row in clean.rows("DESCRIBE TABLE app.t HISTORY")} == set(range(1, 18))


@pytest.mark.parametrize(
    ("operation", "code", "part"),
    [
        ("ADD COLUMN a INT", "SQL_EXECUTION_ERROR", "Already exists: Column 'a' already exists"),
        ("ADD COLUMN n INT NOT NULL", "SQL_EXECUTION_ERROR", "'n' needs a DEFAULT"),
        ("ADD COLUMN _seq INT", "SQL_EXECUTION_ERROR", "reserved"),
        ("ADD COLUMN n INT DEFAULT made_up()", "SQL_EXECUTION_ERROR", "MADE_UP()"),
        ("DROP COLUMN nope", "SQL_EXECUTION_ERROR", "Not found: Column 'nope' does not exist"),
        ("DROP COLUMN id", "SQL_EXECUTION_ERROR", "primary key"),
        ("MODIFY COLUMN nope INT", "SQL_EXECUTION_ERROR", "Not found: Column 'nope' does not exist"),
        ("MODIFY COLUMN b INT", "SQL_EXECUTION_ERROR", "cannot change from TEXT to INT"),
        ("MODIFY COLUMN a INT NOT NULL", "SQL_EXECUTION_ERROR", "NOT NULL constraint violation: column 'a'"),
        ("ALTER COLUMN a SET NOT NULL", "SQL_EXECUTION_ERROR", "NOT NULL constraint violation: column 'a'"),
        ("ALTER COLUMN id DROP NOT NULL", "SQL_EXECUTION_ERROR", "primary key"),
        ("ALTER COLUMN a SET DEFAULT 'x'", "SQL_EXECUTION_ERROR", "'a'"),
        ("RENAME COLUMN nope TO x", "SQL_EXECUTION_ERROR", "Not found: Column 'nope' does not exist"),
        ("RENAME COLUMN a TO ID", "SQL_EXECUTION_ERROR", "Already exists: Column 'id' already exists"),
        ("RENAME COLUMN a TO _deleted", "SQL_EXECUTION_ERROR", "reserved"),
        ("SET ACCESS LEVEL OPEN", "INVALID_SQL", "not an access level"),
        ("SET TBLPROPERTIES (TTL = 5)", "INVALID_SQL", "ACCESS_LEVEL"),
        ("ADD COLUMN x INT, ADD COLUMN y INT", "INVALID_SQL", "one operation"),
        ("FROB COLUMN a", "INVALID_SQL", "Expected ADD"),
        ("CREATE INDEX a", "SQL_EXECUTION_ERROR", "a vector index is on an EMBEDDING column"),
        ("CREATE VECTOR INDEX nope USING COSINE", "SQL_EXECUTION_ERROR", "Not found: Column 'nope' does not exist"),
        ("CREATE VECTOR INDEX a USING MANHATTAN", "INVALID_SQL", "not a distance"),
        ("DROP VECTOR INDEX a", "SQL_EXECUTION_ERROR", "has no vector index"),
    ],
)
def test_refused_alterations(clean: RunningServer, operation: str, code: str, part: str) -> None:
    clean.sql("CREATE TABLE app.t (id INT PRIMARY KEY, a INT, b TEXT)")
    clean.sql("INSERT INTO app.t VALUES (1, NULL, 'x')")
    found = error(clean.post(f"ALTER TABLE app.t {operation}"))
    assert (found.status, found.code) == (400, code)
    assert part in found.message
    assert {row[8] for row in clean.rows("DESCRIBE TABLE app.t")} == {1}


def test_access_levels_are_for_shared_tables(clean: RunningServer) -> None:
    clean.sql("CREATE USER TABLE app.t (id INT PRIMARY KEY)")
    for operation in ("SET ACCESS LEVEL PUBLIC", "SET TBLPROPERTIES (ACCESS_LEVEL = 'public')"):
        found = error(clean.post(f"ALTER TABLE app.t {operation}"))
        assert found[:2] == (400, "SQL_EXECUTION_ERROR")
        assert "SHARED" in found.message
    assert error(clean.post("ALTER TABLE app.none SET ACCESS LEVEL PUBLIC"))[:2] == (404, "TABLE_NOT_FOUND")


@pytest.mark.parametrize("form", ["DESCRIBE TABLE app.t", "DESC TABLE app.t", "describe app.t", "DESCRIBE TABLE APP.T"])
def test_describe(clean: RunningServer, form: str) -> None:
    clean.sql("CREATE TABLE app.t (id BIGINT PRIMARY KEY, name VARCHAR(9) NOT NULL DEFAULT 'x', p DECIMAL(8,2))")
    (result,) = ok(clean.post(form))
    assert columns(result) == DESCRIBED
    assert result["rows"] == [
        ["id", 1, 1, "BIGINT", False, True, None, None, 1],
        ["name", 2, 2, "TEXT", False, False, "'x'", None, 1],
        ["p", 3, 3, "DECIMAL(8,2)", True, False, None, None, 1],
    ]
    kinds = [column["data_type"] for column in result["schema"]]
    assert kinds == ["Text", "Int", "BigInt", "Text", "Boolean", "Boolean", "Text", "Text", "Int"]


def test_show_tables_and_stats(clean: RunningServer) -> None:
    clean.sql("CREATE TABLE app.t (id BIGINT PRIMARY KEY, v TEXT) WITH (ACCESS_LEVEL = 'public')")
    clean.sql("INSERT INTO app.t VALUES (1, 'a'), (2, 'b')")
    for form in ("SHOW TABLES", "SHOW TABLES IN app", "SHOW TABLES IN NAMESPACE app", "show tables in APP"):
        (result,) = ok(clean.post(form))
        (row,) = [dict(zip(columns(result), row, strict=True)) for row in result["rows"] if row[1] == "t"]
        assert (row["table_id"], row["namespace_id"], row["table_type"]) == ("app:t", "app", "shared")
        assert (row["schema_version"], row["access_level"], row["is_latest"]) == (1, "public", True)
        assert isinstance(row["created_at"], int)
        described: list[dict[str, Any]] = json.loads(row["columns"])
        assert [column["column_name"] for column in described] == ["id", "v"]
    assert ok(clean.post("SHOW TABLES IN nowhere"))[0]["rows"] == []
    (stats,) = ok(clean.post("SHOW STATS FOR TABLE app.t"))
    assert columns(stats) == ["table_name", "namespace", "schema_version", "logical_rows", "flushed_segments",
                              "active_streams", "memory_bytes"]  # fmt: skip
    assert stats["rows"][0][:4] == ["t", "app", 1, 2]
