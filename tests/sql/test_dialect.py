"""Each statement and spelling to the dataclass that it means."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlglot
from sqlglot import exp

from sql.dialect import Headrace, parse_batch, parse_expression
from sql.errors import EmptySql, InvalidInput, InvalidSql, SqlError, Unsupported
from sql.statements import (
    AddColumn,
    AlterNamespace,
    AlterOperation,
    AlterTable,
    AlterUser,
    Begin,
    ColumnSpec,
    Commit,
    CreateNamespace,
    CreateTable,
    CreateUser,
    Delete,
    Describe,
    DropColumn,
    DropNamespace,
    DropTable,
    DropUser,
    ExecuteAs,
    Explain,
    Insert,
    ModifyColumn,
    Query,
    RenameColumn,
    Rollback,
    SetAccessLevel,
    SetDefault,
    SetNotNull,
    Show,
    Statement,
    Update,
    UseNamespace,
)
from sql.table_name import TableName
from storage.catalog import AccessLevel, TableKind
from storage.types import (
    BIGINT,
    BOOLEAN,
    BYTES,
    DATE,
    DATETIME,
    DOUBLE,
    FILE,
    FLOAT,
    INT,
    JSON,
    SMALLINT,
    TEXT,
    TIME,
    TIMESTAMP,
    UUID,
    ColumnType,
    decimal,
    embedding,
)


def one(text: str) -> Statement:
    """The only statement of a text."""
    (parsed,) = parse_batch(text)
    return parsed.statement


def sql_of(node: exp.Expr | None) -> str:
    """A tree as DuckDB's SQL."""
    assert node is not None
    return node.sql("duckdb")


def table(text: str) -> CreateTable:
    """A CREATE TABLE statement."""
    statement = one(text)
    assert isinstance(statement, CreateTable)
    return statement


def column(spec: str) -> ColumnSpec:
    """A column as CREATE TABLE reads it, its position left out."""
    return replace(table(f"CREATE TABLE t ({spec})").columns[0], line=1, column=1)


COMMANDS: list[tuple[str, Statement]] = [
    ("CREATE NAMESPACE app", CreateNamespace("app")),
    ("create namespace if not exists App", CreateNamespace("app", if_not_exists=True)),
    ('CREATE SCHEMA "App"', CreateNamespace("App")),
    (
        "ALTER NAMESPACE app SET OPTIONS (k = 'v', x = 1, b = true, n = NULL, f = -1.5, w = word)",
        AlterNamespace("app", {"k": "v", "x": 1, "b": True, "n": None, "f": -1.5, "w": "word"}),
    ),
    ("DROP NAMESPACE app", DropNamespace("app")),
    ("DROP NAMESPACE IF EXISTS app CASCADE", DropNamespace("app", if_exists=True)),
    ("DROP NAMESPACE app RESTRICT", DropNamespace("app", restrict=True)),
    ("DROP SCHEMA app", DropNamespace("app")),
    ("USE app", UseNamespace("app")),
    ("USE NAMESPACE app", UseNamespace("app")),
    ("USE namespace", UseNamespace("namespace")),
    ("SET NAMESPACE app", UseNamespace("app")),
    ('SET NAMESPACE "App"', UseNamespace("App")),
    ("BEGIN", Begin()),
    ("BEGIN TRANSACTION", Begin()),
    ("BEGIN WORK", Begin()),
    ("START TRANSACTION", Begin()),
    ("COMMIT", Commit()),
    ("COMMIT TRANSACTION", Commit()),
    ("COMMIT WORK;", Commit()),
    ("END", Commit()),
    ("END TRANSACTION", Commit()),
    ("ROLLBACK", Rollback()),
    ("ROLLBACK WORK", Rollback()),
    ("SHOW NAMESPACES", Show("namespaces")),
    ("SHOW TABLES", Show("tables")),
    ("SHOW TABLES IN app", Show("tables", namespace="app")),
    ("SHOW TABLES IN NAMESPACE app", Show("tables", namespace="app")),
    ("SHOW COLUMNS FROM app.Msgs", Show("columns", table=TableName("app", "msgs", 1, 19))),
    ("SHOW COLUMNS IN msgs", Show("columns", table=TableName(None, "msgs", 1, 17))),
    ("SHOW STATS FOR TABLE msgs", Show("stats", table=TableName(None, "msgs", 1, 22))),
    ("DESCRIBE t", Describe(TableName(None, "t", 1, 10))),
    ("DESC TABLE a.t HISTORY", Describe(TableName("a", "t", 1, 12), history=True)),
    ("DESCRIBE TABLE t", Describe(TableName(None, "t", 1, 16))),
    ("DESCRIBE table", Describe(TableName(None, "table", 1, 10))),
    ("DESCRIBE table HISTORY", Describe(TableName(None, "table", 1, 10), history=True)),
    ("DROP TABLE t", DropTable(TableName(None, "t", 1, 12))),
    ("DROP USER TABLE IF EXISTS a.T", DropTable(TableName("a", "t", 1, 27), if_exists=True)),
    ("DROP SHARED TABLE t CASCADE", DropTable(TableName(None, "t", 1, 19))),
    (
        "CREATE USER 'ann' WITH PASSWORD 'it''s' ROLE dba EMAIL 'a@b'",
        CreateUser("ann", "password", "it's", "dba", "a@b"),
    ),
    ("CREATE USER ann WITH PASSWORD 'p'", CreateUser("ann", "password", "p", "user")),
    ("CREATE USER ann PASSWORD 'p' ROLE 'viewer'", CreateUser("ann", "password", "p", "user")),
    ('CREATE USER "Ann" WITH OAUTH \'{"a":1}\' ROLE developer', CreateUser("Ann", "oauth", '{"a":1}', "service")),
    ("CREATE USER IF NOT EXISTS s ROLE admin WITH INTERNAL", CreateUser("s", "internal", None, "dba", None, True)),
    ("ALTER USER ann SET PASSWORD 'new'", AlterUser("ann", password="new")),
    ("ALTER USER ann SET PASSWORD 'new' OLD 'o'", AlterUser("ann", password="new", old_password="o")),
    ("ALTER USER 'ann' SET ROLE service", AlterUser("ann", role="service")),
    ("ALTER USER ann SET EMAIL 'a@b'", AlterUser("ann", email="a@b")),
    ("DROP USER ann", DropUser("ann")),
    ("DROP USER IF EXISTS 'ann'", DropUser("ann", if_exists=True)),
]


@pytest.mark.parametrize(("text", "expected"), COMMANDS, ids=[text for text, _ in COMMANDS])
def test_commands(text: str, expected: Statement) -> None:
    assert one(text) == expected


TYPES: list[tuple[str, ColumnType]] = [
    *((name, BOOLEAN) for name in ("BOOLEAN", "bool")),
    *((name, SMALLINT) for name in ("SMALLINT", "INT2")),
    *((name, INT) for name in ("INT", "INTEGER", "INT4", "MEDIUMINT", "SIGNED")),
    *((name, BIGINT) for name in ("BIGINT", "INT8", "INT64", "SERIAL", "BIGSERIAL", "SMALLSERIAL")),
    *((name, FLOAT) for name in ("FLOAT", "REAL", "FLOAT4", "FLOAT(24)")),
    *((name, DOUBLE) for name in ("DOUBLE", "DOUBLE PRECISION", "FLOAT8", "FLOAT64", "FLOAT(53)")),
    *((name, TEXT) for name in ("TEXT", "VARCHAR(10)", "varchar", "CHAR(3)", "CHARACTER VARYING(5)", "STRING", "CLOB",
                                "LONGTEXT", "NVARCHAR(2)")),
    *((name, TIMESTAMP) for name in ("TIMESTAMP", "TIMESTAMP(3)", "TIMESTAMP WITHOUT TIME ZONE")),
    *((name, DATETIME) for name in ("DATETIME", "DATETIME(6)", "TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ")),
    ("DATE", DATE),
    *((name, TIME) for name in ("TIME", "TIME(6)")),
    *((name, JSON) for name in ("JSON", "JSONB")),
    *((name, BYTES) for name in ("BYTES", "BYTEA", "BLOB", "BINARY(16)", "VARBINARY(5)")),
    ("UUID", UUID),
    ("FILE", FILE),
    *((name, decimal(38, 10)) for name in ("DECIMAL", "NUMERIC")),
    ("DECIMAL(10,2)", decimal(10, 2)),
    ("NUMERIC(38, 38)", decimal(38, 38)),
    ("DECIMAL(5)", decimal(5, 0)),
    ("EMBEDDING(3)", embedding(3)),
    ("EMBEDDING(8192)", embedding(8192)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), TYPES, ids=[name for name, _ in TYPES])
def test_types(name: str, expected: ColumnType) -> None:
    assert column(f"c {name} NOT NULL").type == expected
    assert isinstance(one(f"ALTER TABLE t ADD COLUMN c {name}"), AlterTable)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("DECIMAL(39)", InvalidSql, "precision from 1 to 38"),
        ("DECIMAL(0)", InvalidSql, "precision from 1 to 38"),
        ("DECIMAL(5,6)", InvalidSql, "scale 6"),
        ("DECIMAL(-1)", InvalidSql, "Expected a whole number"),
        ("DECIMAL(1,2,3)", InvalidSql, "Expected )"),
        ("EMBEDDING", InvalidSql, "EMBEDDING(n) needs a dimension"),
        ("EMBEDDING(0)", InvalidSql, "EMBEDDING(n) needs a dimension"),
        ("EMBEDDING(8193)", InvalidSql, "from 1 to 8192"),
        ("FLOAT(54)", InvalidSql, "1 to 53 bits"),
        ("TIMESTAMP(10)", InvalidSql, "precision from 0 to 9"),
        ("VARCHAR(0)", InvalidSql, "length of at least 1"),
        ("DATE(3)", InvalidSql, "takes no parameters"),
        ("TINYINT", Unsupported, "TINYINT is not supported; use SMALLINT"),
        ("INT UNSIGNED", Unsupported, "INT UNSIGNED is not supported"),
        ("UINTEGER", Unsupported, "UINTEGER is not supported"),
        ("INT[]", Unsupported, "Array types are not supported"),
        ("ENUM", Unsupported, "ENUM is not supported; write ENUM('a', 'b')"),
        ("ENUM('a', 1)", InvalidSql, "a string for ENUM"),
        ("INTERVAL", Unsupported, "INTERVAL is not supported"),
        ("TIME WITH TIME ZONE", Unsupported, "TIME WITH TIME ZONE"),
        ("FROBNICATE", Unsupported, "FROBNICATE is not supported"),
        ("'TEXT'", InvalidSql, "Expected a type name"),
        ("", InvalidSql, "Expected a type name"),
    ],
)
def test_refused_types(name: str, kind: type[SqlError], message: str) -> None:
    with pytest.raises(kind) as caught:
        one(f"CREATE TABLE t (c {name})")
    assert message in caught.value.message
    assert caught.value.line == 1


def test_create_table_in_full() -> None:
    statement = table(
        """CREATE USER TABLE IF NOT EXISTS App.Msgs (
             Id BIGINT PRIMARY KEY DEFAULT SNOWFLAKE_ID(),
             "Body" TEXT NOT NULL DEFAULT 'a' || 'b' COMMENT 'what was said',
             n DECIMAL(10,2) CONSTRAINT positive CHECK (n > 0) CHECK (n < 10) UNIQUE,
             UNIQUE (body, n), CONSTRAINT pair UNIQUE (n, id),
             CHECK (id <> 0), CONSTRAINT c CHECK (n > id)
           ) USING parquet WITH (TYPE = 'USER', flush_policy = 'rows:10', USE_USER_STORAGE = true)"""
    )
    assert statement.table == TableName("app", "msgs", 1, 33)
    assert statement.kind is TableKind.USER
    assert statement.if_not_exists
    assert statement.options == {"TYPE": "USER", "FLUSH_POLICY": "rows:10", "USE_USER_STORAGE": True}
    assert statement.uniques == ((None, ("body", "n")), ("pair", ("n", "id")))
    assert [(name, sql_of(check)) for name, check in statement.checks] == [(None, "id <> 0"), ("c", "n > id")]
    identity, body, number = statement.columns
    assert (identity.name, identity.primary_key, identity.line, identity.column) == ("id", True, 2, 14)
    assert isinstance(identity.default, exp.Anonymous)
    assert (body.name, body.not_null, body.comment, sql_of(body.default)) == (
        "body",
        True,
        "what was said",
        "'a' || 'b'",
    )
    assert number.unique
    assert [(name, sql_of(check)) for name, check in number.checks] == [("positive", "n > 0"), (None, "n < 10")]


@pytest.mark.parametrize(
    "spelling",
    ["id BIGINT AUTO_INCREMENT", "id BIGINT AUTOINCREMENT", "id BIGINT GENERATED ALWAYS AS IDENTITY", "id SERIAL",
     "id BIGINT GENERATED BY DEFAULT AS IDENTITY (START WITH 1)", "id BIGSERIAL", "id BIGINT DEFAULT SNOWFLAKE_ID()"],
)  # fmt: skip
def test_generated_ids(spelling: str) -> None:
    default = column(f"{spelling} PRIMARY KEY").default
    assert isinstance(default, exp.Anonymous)
    assert default.name.upper() == "SNOWFLAKE_ID"


@pytest.mark.parametrize(
    ("text", "default", "not_null"),
    [
        ("DEFAULT 1 NOT NULL", "1", True),
        ("DEFAULT NULL", "NULL", False),
        ("DEFAULT NULL NULL", "NULL", False),
        ("DEFAULT (1 IS NOT NULL) NOT NULL", "(NOT 1 IS NULL)", True),
        ("DEFAULT 1 IS NOT NULL", "NOT 1 IS NULL", False),
        ("NOT NULL DEFAULT now() UNIQUE", "NOW()", True),
        ("DEFAULT CURRENT_TIMESTAMP", "CURRENT_TIMESTAMP", False),
        ("DEFAULT -5", "-5", False),
        ("DEFAULT concat('a,', ')')", "CONCAT('a,', ')')", False),
        ("DEFAULT TRUE CHECK (c)", "TRUE", False),
    ],
)
def test_defaults(text: str, default: str, not_null: bool) -> None:
    spec = column(f"c TEXT {text}, d INT")
    assert (sql_of(spec.default), spec.not_null) == (default, not_null)


def test_table_level_key() -> None:
    statement = table("CREATE TABLE t (a INT, b INT, CONSTRAINT pk PRIMARY KEY (A, b))")
    assert statement.primary_key == ("a", "b")
    assert statement.kind is None
    assert not any(spec.primary_key for spec in statement.columns)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CREATE TABLE t (a INT)", None),
        ("CREATE SHARED TABLE t (a INT)", TableKind.SHARED),
        ("CREATE USER TABLE t (a INT) WITH (TYPE = 'user')", TableKind.USER),
        ("CREATE TABLE t (a INT) WITH (TYPE = 'SHARED')", TableKind.SHARED),
        ("CREATE STREAM TABLE t (a INT) WITH (TTL_SECONDS = 5)", TableKind.STREAM),
        ("CREATE TABLE t (a INT) WITH (TYPE = 'STREAM', TTL_SECONDS = 5)", TableKind.STREAM),
        ("CREATE TABLE t (a INT) WITH (ACCESS_LEVEL = PUBLIC)", None),
    ],
)
def test_table_kinds(text: str, kind: TableKind | None) -> None:
    assert table(text).kind is kind


ALTERATIONS: list[tuple[str, AlterOperation]] = [
    ("ADD COLUMN c INT NOT NULL", AddColumn(ColumnSpec("c", INT, not_null=True, line=1, column=26))),
    ("ADD C INT", AddColumn(ColumnSpec("c", INT, line=1, column=19))),
    ("ADD COLUMN IF NOT EXISTS c INT", AddColumn(ColumnSpec("c", INT, line=1, column=40), if_not_exists=True)),
    ("DROP COLUMN c", DropColumn("c")),
    ("DROP COLUMN IF EXISTS C CASCADE", DropColumn("c", if_exists=True)),
    ("DROP c", DropColumn("c")),
    ("MODIFY COLUMN c BIGINT", ModifyColumn("c", BIGINT)),
    ("MODIFY c BIGINT NOT NULL", ModifyColumn("c", BIGINT, not_null=True)),
    ("MODIFY COLUMN c TEXT NULL", ModifyColumn("c", TEXT, not_null=False)),
    ("ALTER COLUMN c TYPE BIGINT", ModifyColumn("c", BIGINT)),
    ("ALTER c SET DATA TYPE DECIMAL(5,1)", ModifyColumn("c", decimal(5, 1))),
    ("ALTER COLUMN c SET NOT NULL", SetNotNull("c", True)),
    ("ALTER COLUMN c DROP NOT NULL", SetNotNull("c", False)),
    ("ALTER COLUMN c DROP DEFAULT", SetDefault("c", None)),
    ("RENAME COLUMN a TO B", RenameColumn("a", "b")),
    ("RENAME a TO b", RenameColumn("a", "b")),
    ("SET ACCESS LEVEL PUBLIC", SetAccessLevel(AccessLevel.PUBLIC)),
    ("SET TBLPROPERTIES (ACCESS_LEVEL = 'restricted')", SetAccessLevel(AccessLevel.RESTRICTED)),
]


@pytest.mark.parametrize(("text", "expected"), ALTERATIONS, ids=[text for text, _ in ALTERATIONS])
def test_alter_table(text: str, expected: AlterOperation) -> None:
    assert one(f"ALTER TABLE T {text}") == AlterTable(TableName(None, "t", 1, 13), expected)


def test_alter_default() -> None:
    statement = one("ALTER TABLE t ALTER COLUMN c SET DEFAULT now()")
    assert isinstance(statement, AlterTable)
    assert isinstance(statement.operation, SetDefault)
    assert sql_of(statement.operation.default) == "NOW()"


QUERIES = [
    ("select A, t.B from Ns.T as t", "SELECT a, t.b FROM ns.t AS t"),
    ('select "A" as "Total" from "Ns"."T"', 'SELECT "a" AS "Total" FROM "Ns"."t"'),
    ("select `A b` from t", 'SELECT "a b" FROM t'),
    ("values (1, 'a'), (2, 'b')", "SELECT * FROM (VALUES (1, 'a'), (2, 'b'))"),
    ("from t", "SELECT * FROM t"),
    ("table t", "SELECT * FROM t"),
    ("(select 1) union all (select 2) order by 1", "(SELECT 1) UNION ALL (SELECT 2) ORDER BY 1"),
    ("with r as (select 1 as a) select * from r", "WITH r AS (SELECT 1 AS a) SELECT * FROM r"),
    ("select $2, $01::int", "SELECT $2, CAST($1 AS INT)"),
    ("select a || b, a->'x'->>'y' from t", "SELECT a || b, (a -> 'x') ->> 'y' FROM t"),
    ("select a->>'b.c' = 'd', a->0 from t", "SELECT (a ->> 'b.c') = 'd', a -> 0 FROM t"),
    ("select a ? 'k' from t", "SELECT POSTGRES_JSONB_EXISTS(a, 'k') FROM t"),
    ("select a ilike 'x%' and not b like 'y' from t", "SELECT a ILIKE 'x%' AND NOT b LIKE 'y' FROM t"),
    (r"select E'a\n\x41\u00e9\'''', X'00FF', 'it''s'", "SELECT 'a\nAé''''', UNHEX('00ff'), 'it''s'"),
    ("select array[1, array[2]], [1, 2][1]", "SELECT [1, [2]], [1, 2][1]"),
    ("select a::decimal, cast(a as numeric), a::decimal(5,1) from t",
     "SELECT CAST(a AS DECIMAL(38, 10)), CAST(a AS DECIMAL(38, 10)), CAST(a AS DECIMAL(5, 1)) FROM t"),
    ("select a::embedding(3), a::file, a::datetime, a::bytes, a::jsonb from t",
     "SELECT CAST(a AS REAL[3]), CAST(a AS TEXT), CAST(a AS TIMESTAMPTZ), CAST(a AS BLOB), CAST(a AS JSON) FROM t"),
    ("select a from t /* c */ where -- d\n a = 1", "SELECT a FROM t WHERE a = 1"),
    ("select 1_000, .5, 1e3", "SELECT 1000, .5, 1e3"),
    ("select date '2020-01-01', interval '1 day'", "SELECT CAST('2020-01-01' AS DATE), INTERVAL '1' DAY"),
    ("select a from t where b is unknown", "SELECT a FROM t WHERE b IS NULL"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), QUERIES, ids=[text for text, _ in QUERIES])
def test_queries(text: str, expected: str) -> None:
    statement = one(text)
    assert isinstance(statement, Query)
    assert statement.ast.sql("duckdb") == expected


DML = [
    ("insert into T (A) values (1), (default)", Insert, "INSERT INTO t (a) VALUES (1), (DEFAULT)"),
    ("insert into t default values returning *", Insert, "INSERT INTO t DEFAULT VALUES RETURNING *"),
    ("insert into t select a from u", Insert, "INSERT INTO t SELECT a FROM u"),
    ("with u as (select 1 as a) insert into t select a from u", Insert,
     "WITH u AS (SELECT 1 AS a) INSERT INTO t SELECT a FROM u"),
    ("insert into t values ($1, X'00') on conflict (a) do update set b = excluded.b where t.a > 1 returning a", Insert,
     "INSERT INTO t VALUES ($1, UNHEX('00')) ON CONFLICT(a) DO UPDATE SET b = excluded.b WHERE t.a > 1 RETURNING a"),
    ("insert into t values (1) on conflict do nothing", Insert, "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING"),
    ("update t set a = b + 1, c = 'x' where d = $1 returning a", Update,
     "UPDATE t SET a = b + 1, c = 'x' WHERE d = $1 RETURNING a"),
    ("delete from t where a in (select b from u) returning *", Delete,
     "DELETE FROM t WHERE a IN (SELECT b FROM u) RETURNING *"),
    ("delete from t", Delete, "DELETE FROM t"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind", "expected"), DML, ids=[text for text, _, _ in DML])
def test_dml(text: str, kind: type[Insert] | type[Update] | type[Delete], expected: str) -> None:
    statement = one(text)
    assert isinstance(statement, kind)
    assert statement.ast.sql("duckdb") == expected


def test_explain() -> None:
    plain = one("EXPLAIN SELECT 1")
    assert isinstance(plain, Explain)
    assert isinstance(plain.inner, Query)
    assert not plain.analyze
    for text in ("EXPLAIN ANALYZE DELETE FROM t WHERE a = 1", "EXPLAIN (ANALYZE) DELETE FROM t WHERE a = 1"):
        analyzed = one(text)
        assert isinstance(analyzed, Explain)
        assert isinstance(analyzed.inner, Delete)
        assert analyzed.analyze


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("EXECUTE AS USER 'alice' (SELECT 1)", "alice"),
        ("execute as user 'o''hara' ( INSERT INTO t VALUES (1); )", "o'hara"),
        ("EXECUTE AS USER Bob (SHOW TABLES)", "bob"),
        ('EXECUTE AS USER "Bob" (SELECT (1));', "Bob"),
    ],
)
def test_execute_as(text: str, user: str) -> None:
    statement = one(text)
    assert isinstance(statement, ExecuteAs)
    assert statement.user == user


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("EXECUTE AS USER (SELECT 1)", "user's name"),
        ("EXECUTE AS USER '' (SELECT 1)", "needs a user's name"),
        ("EXECUTE AS alice (SELECT 1)", "Expected USER"),
        ("EXECUTE AS USER 'a' SELECT 1", "Expected ("),
        ("EXECUTE AS USER 'a' (SELECT 1", "never closed"),
        ("EXECUTE AS USER 'a' ()", "needs a statement"),
        ("EXECUTE AS USER 'a' (SELECT 1; SELECT 2)", "exactly one statement"),
        ("EXECUTE AS USER 'a' (SELECT 1) SELECT 2", "not expected"),
        ("EXECUTE AS USER 'a' (EXECUTE AS USER 'b' (SELECT 1))", "inside another"),
        ("EXECUTE AS USER 'a' (BEGIN)", "transaction"),
    ],
)
def test_execute_as_is_checked(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_batch(text)
    assert message in caught.value.message


def test_inner_errors_of_execute_as_are_sql_errors() -> None:
    with pytest.raises(InvalidSql):
        parse_batch("EXECUTE AS USER 'a' (SELECT FROM)")


UNSUPPORTED = [
    ("SAVEPOINT a", "SAVEPOINT"), ("RELEASE a", "savepoint"), ("ROLLBACK TO a", "Savepoints"),
    ("PREPARE p AS SELECT 1", "PREPARE"), ("EXECUTE p", "EXECUTE"), ("DEALLOCATE p", "DEALLOCATE"),
    ("COPY t TO 'x'", "COPY"), ("ATTACH 'x'", "ATTACH"), ("DETACH x", "DETACH"), ("INSTALL httpfs", "INSTALL"),
    ("LOAD httpfs", "LOAD"), ("PRAGMA version", "PRAGMA"), ("SET x = 1", "SET X"), ("SET NAMESPACE = 'a'", "SET"),
    ("CALL f()", "CALL"), ("TRUNCATE t", "TRUNCATE"), ("MERGE INTO t USING u ON true", "MERGE"),
    ("CREATE TABLE t AS SELECT 1", "CREATE TABLE … AS"), ("RESET x", "RESET"),
    ("CREATE MATERIALIZED VIEW v AS SELECT 1", "CREATE MATERIALIZED VIEW"), ("ALTER VIEW v RENAME TO w", "ALTER VIEW"),
    ("CREATE TEMP VIEW v AS SELECT 1", "CREATE TEMP VIEW"),
    ("CREATE VIEW v WITH (x = 1) AS SELECT 1", "Options of a view"),
    ("CREATE TABLE t (id BIGINT GENERATED ALWAYS AS IDENTITY (START WITH 5))", "IDENTITY column"),
    ("CREATE TABLE t (id BIGINT GENERATED BY DEFAULT AS IDENTITY (INCREMENT BY 2))", "IDENTITY column"),
    ("CREATE TEMP TABLE t (a INT)", "CREATE TEMP TABLE"), ("CREATE OR REPLACE TABLE t (a INT)", "OR REPLACE TABLE"),
    ("STORAGE MOVE TABLE t", "STORAGE"), ("KILL QUERY 'x'", "KILL"), ("BACKUP TABLE t TO 'x'", "BACKUP"),
    ("CREATE OR REPLACE TOPIC t", "OR REPLACE TOPIC"), ("GRANT a TO b", "GRANT"),
    ("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 1)", "constraint"), ("ALTER TABLE t RENAME TO u", "Renaming a table"),
    ("CREATE TABLE t (a INT REFERENCES u)", "foreign key"), ("CREATE TABLE t (a INT, FOREIGN KEY (a) REFERENCES u)",
    "FOREIGN KEY"), ("CREATE TABLE t (a INT GENERATED ALWAYS AS (1))", "Generated columns"),
    ("SELECT 1 INTO t", "INTO"), ("SELECT * FROM t FOR UPDATE", "FOR UPDATE"), ("SELECT a #> b FROM t", "#>"),
    ("WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", "DELETE inside"), ("VACUUM", "VACUUM"),
    ("INSERT OR REPLACE INTO t VALUES (1)", "INSERT OR"), ("REPLACE INTO t VALUES (1)", "REPLACE"),
    ("INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = 1", "ON DUPLICATE KEY"),
    ("INSERT INTO t VALUES (1) ON CONFLICT ON CONSTRAINT c DO NOTHING", "ON CONSTRAINT"),
    ("SELECT * FROM t PIVOT (sum(a) FOR b IN (1))", "PIVOT"), ("DESCRIBE SELECT 1", "DESCRIBE of a query"),
    ("BEGIN ISOLATION LEVEL SERIALIZABLE", "modes"), ("COMMIT AND CHAIN", "COMMIT AND"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "name"), UNSUPPORTED, ids=[text for text, _ in UNSUPPORTED])
def test_unsupported_statements_are_named(text: str, name: str) -> None:
    with pytest.raises(Unsupported) as caught:
        parse_batch(text)
    assert name in caught.value.message
    assert "supported" in caught.value.message
    assert caught.value.line == 1


def test_batches() -> None:
    first, second = parse_batch("\n SELECT $1, $3;\n\n-- note\n UPDATE t SET a = $2 WHERE true ;; ")
    assert (first.text, first.line, first.column, set(first.parameters)) == ("SELECT $1, $3", 2, 2, {1, 3})
    assert (second.line, second.column, set(second.parameters)) == (5, 2, {2})
    assert second.text == "UPDATE t SET a = $2 WHERE true"


@pytest.mark.parametrize("text", ["", "   \n", ";;;", "-- nothing", "/* a /* b */ */ ;"])
def test_empty(text: str) -> None:
    with pytest.raises(EmptySql):
        parse_batch(text)


def test_at_most_so_many_statements() -> None:
    assert len(parse_batch("BEGIN;" * 3, max_statements=3)) == 3
    with pytest.raises(InvalidSql, match="at most 3 statements"):
        parse_batch("BEGIN;" * 4, max_statements=3)


def test_positions_are_those_of_the_request() -> None:
    _, parsed = parse_batch("SELECT 1;\n  SELECT a.Col,\n my_func(x) FROM ns.Tab AS a")
    assert isinstance(parsed.statement, Query)
    places = {
        (type(node).__name__, node.name): (node.meta["line"], node.meta["col"])
        for node in parsed.statement.ast.walk()
        if isinstance(node, (exp.Column, exp.Table, exp.Anonymous))
    }
    assert places == {
        ("Column", "col"): (2, 12), ("Anonymous", "my_func"): (3, 2), ("Column", "x"): (3, 10),
        ("Table", "tab"): (3, 21),
    }  # fmt: skip


def test_long_connectors_become_shallow_and_keep_their_order() -> None:
    text = " OR ".join(f"a = {i} AND b = {i}" for i in range(500))
    statement = one(f"SELECT 1 FROM t WHERE {text}")
    assert isinstance(statement, Query)
    assert statement.ast.sql("duckdb").count(" OR ") == 499
    numbers = [int(node.name) for node in _in_order(statement.ast) if isinstance(node, exp.Literal)][1:]
    assert numbers == [i // 2 for i in range(1000)]
    assert _depth(statement.ast) < 30


def _in_order(root: exp.Expr) -> list[exp.Expr]:
    nodes: list[exp.Expr] = []
    stack = [root]
    while stack:
        node = stack.pop()
        nodes.append(node)
        stack.extend(reversed(list(node.iter_expressions())))
    return nodes


def _depth(root: exp.Expr) -> int:
    return max((1 + _depth(child) for child in root.iter_expressions()), default=1)


def test_expressions() -> None:
    assert sql_of(parse_expression("a > 1 AND b IS NOT NULL")) == "a > 1 AND NOT b IS NULL"
    for text in ("", "a b", "a,", "*", "SELECT"):
        with pytest.raises(InvalidSql):
            parse_expression(text)


def test_the_dialect_works_in_sqlglot() -> None:
    tree = sqlglot.parse_one("SELECT `A`, a->>'b.c' FROM T /* x */", dialect=Headrace)
    assert tree.sql(Headrace) == "SELECT \"A\", a ->> 'b.c' FROM t"


def test_a_statement_that_cannot_be_parsed_has_its_number() -> None:
    with pytest.raises(SqlError) as caught:
        parse_batch("SELECT 1; SELECT 2;\nFROB; SELECT 3")
    assert (caught.value.statement, caught.value.applied, caught.value.line) == (3, 0, 2)
