"""CREATE, ALTER and DROP of namespaces and tables: messages, rights, rules, and old rows under new definitions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from write_support import ADMIN, ALICE, BOB, DBA, QUIET, SERVICE, Database

from sql.errors import ExecutionError, PermissionDenied, SqlError, TableNotFound, Unsupported
from storage import StorageEngine
from storage.catalog import AccessLevel, TableKind
from storage.types import BIGINT, DOUBLE, INT, TEXT, decimal


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageEngine]:
    with StorageEngine.open(Path(tmp_path_factory.mktemp("ddl")) / "data", QUIET) as opened:
        yield opened


@pytest.fixture(scope="module")
def database(engine: StorageEngine) -> Database:
    return Database(engine)


@pytest.fixture
def db(database: Database) -> Iterator[Database]:
    yield database
    for table in list(database.engine.catalog.tables()):
        database.commit(lambda w, table=table: w.drop_table(table.table_id))


def fails(db: Database, text: str, message: str, kind: type[SqlError] = ExecutionError, identity=ADMIN, **more) -> None:
    before = db.engine.catalog.version
    with pytest.raises(kind) as caught:
        db.run(text, identity, **more)
    assert message in caught.value.message
    assert db.engine.catalog.version == before


# --- namespaces -------------------------------------------------------------------------------------------------------


def test_namespace_messages(db: Database) -> None:
    assert db.run("CREATE NAMESPACE shop") == "Namespace 'shop' created successfully"
    assert db.run("CREATE NAMESPACE IF NOT EXISTS shop") == "Namespace 'shop' already exists"
    fails(db, "CREATE NAMESPACE shop", "Already exists: ")
    assert db.run("ALTER NAMESPACE shop SET OPTIONS (a = 'x', n = 1, b = true)") == (
        "Namespace 'shop' altered successfully"
    )
    assert db.engine.catalog.namespace("shop").options == {"a": "x", "n": 1, "b": True}
    assert db.run("DROP NAMESPACE shop") == "Namespace 'shop' dropped successfully"
    assert db.run("DROP NAMESPACE IF EXISTS shop") == "Namespace 'shop' does not exist"
    fails(db, "DROP NAMESPACE shop", "Not found: ")
    fails(db, "DROP NAMESPACE default", "cannot be dropped")


RESERVED = (
    "system sys root kalamdb kalam main default sql admin internal information_schema pg_catalog datafusion headrace"
)


@pytest.mark.parametrize("name", [*RESERVED.split(), *map(str.upper, RESERVED.split()[:3]), "select", "table", "user"])
def test_reserved_namespace_names(db: Database, name: str) -> None:
    told = "Already exists" if name == "default" else f"Namespace name '{name}' is reserved"
    fails(db, f'CREATE NAMESPACE "{name}"', told)


@pytest.mark.parametrize("name", ["_x", "1a", "a-b", "é", "a b", "a.b"])
def test_namespace_names_that_are_none(db: Database, name: str) -> None:
    fails(db, f'CREATE NAMESPACE "{name}"', "must begin with a letter")


def test_the_length_of_a_namespace_name(db: Database) -> None:
    fails(db, f"CREATE NAMESPACE {'a' * 65}", "1 to 64 characters")
    assert db.run(f"CREATE NAMESPACE {'a' * 64}").endswith("created successfully")
    assert db.run("CREATE NAMESPACE selection_1").endswith("created successfully")


COLUMNS = "_seq _deleted _id _row_id _rowid _key _updated _created _timestamp _version _hash"


@pytest.mark.parametrize("name", COLUMNS.split())
def test_reserved_column_names(db: Database, name: str) -> None:
    told = f"Column name '{name}' is reserved for the system"
    fails(db, f"CREATE TABLE t ({name} INT)", told)
    fails(db, f'CREATE TABLE t ("{name.upper()}" INT)', told)
    db.run("CREATE TABLE t (a INT, b INT)")
    fails(db, f"ALTER TABLE t ADD COLUMN {name} INT", told)
    fails(db, f"ALTER TABLE t RENAME COLUMN a TO {name}", told)


def test_namespaces_are_for_admins(db: Database) -> None:
    for identity in (ALICE, SERVICE):
        fails(db, "CREATE NAMESPACE n1", "Permission denied", PermissionDenied, identity)
        fails(db, "DROP NAMESPACE app", "Permission denied", PermissionDenied, identity)
    assert "created" in db.run("CREATE NAMESPACE n1", DBA)
    db.run("DROP NAMESPACE n1")


def test_dropping_a_namespace_takes_its_tables(db: Database) -> None:
    db.run("CREATE NAMESPACE shop")
    db.run("CREATE TABLE shop.a (id INT PRIMARY KEY)")
    fails(db, "DROP NAMESPACE shop RESTRICT", "not empty")
    db.run("DROP NAMESPACE shop")
    assert db.engine.catalog.table("shop", "a") is None
    db.run("CREATE NAMESPACE shop")
    assert db.run("DROP NAMESPACE shop CASCADE") == "Namespace 'shop' dropped successfully"


# --- CREATE TABLE -----------------------------------------------------------------------------------------------------


def test_create_messages(db: Database) -> None:
    assert db.run("CREATE TABLE t (id INT PRIMARY KEY)") == "CREATE TABLE: shared table app.t created successfully"
    assert db.run("CREATE USER TABLE u (id INT PRIMARY KEY)") == "CREATE TABLE: user table app.u created successfully"
    fails(db, "CREATE TABLE app.t (id INT)", "Already exists: Table app.t already exists")
    assert db.run("CREATE TABLE IF NOT EXISTS t (id INT)") == "Table app.t already exists (skipped)"
    fails(
        db,
        "CREATE TABLE nowhere.t (id INT)",
        "Namespace 'nowhere' does not exist. Create it first with CREATE NAMESPACE nowhere",
    )
    fails(db, "CREATE TABLE system.t (id INT)", "Permission denied", PermissionDenied)


def test_kind_by_prefix_option_and_namespace(db: Database) -> None:
    db.run("CREATE TABLE o (id INT) WITH (TYPE = 'USER')")
    assert db.table("o").kind is TableKind.USER
    fails(db, "CREATE SHARED TABLE p (id INT) WITH (TYPE = 'USER')", "contradict", SqlError)
    db.run("CREATE TABLE mine (id INT)", ALICE, namespace="alice")
    assert db.table("mine", "alice").kind is TableKind.USER
    db.run("CREATE TABLE alice.theirs (id INT)", DBA)
    assert db.table("theirs", "alice").kind is TableKind.SHARED
    db.run("CREATE TABLE s (id INT)", SERVICE, namespace="sam")
    assert db.table("s", "sam").kind is TableKind.USER
    db.run("CREATE SHARED TABLE s2 (id INT)", SERVICE, namespace="sam")
    assert db.table("s2", "sam").kind is TableKind.SHARED


def test_create_rights(db: Database) -> None:
    fails(db, "CREATE SHARED TABLE t (id INT)", "Permission denied", PermissionDenied, ALICE)
    fails(db, "CREATE TABLE t (id INT)", "Permission denied", PermissionDenied, ALICE)
    db.run("CREATE USER TABLE t (id INT)", ALICE)
    assert db.table("t").owner == "alice"
    db.run("CREATE SHARED TABLE t2 (id INT)", SERVICE)
    fails(db, "CREATE TABLE t3 (id INT) WITH (ACCESS_LEVEL='DBA')", "Permission denied", PermissionDenied, SERVICE)


def test_options(db: Database) -> None:
    db.run(
        "CREATE TABLE t (id INT) WITH (STORAGE_ID = 'local', FLUSH_POLICY = 'interval:60, rows:10', "
        "ACCESS_LEVEL = 'PUBLIC', DELETED_RETENTION_HOURS = 24)"
    )
    table = db.table("t")
    assert table.access_level is AccessLevel.PUBLIC
    assert table.options == {
        "storage_id": "local",
        "flush_policy": "rows:10,interval:60",
        "deleted_retention_hours": "24",
    }
    db.run("CREATE USER TABLE u (id INT) WITH (USE_USER_STORAGE = true)")
    assert db.table("u").options == {"use_user_storage": "true"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("STORAGE_ID = 's3'", "Storage 's3' does not exist"),
        ("FLUSH_POLICY = 'rows:0'", "between 1 and 999,999"),
        ("FLUSH_POLICY = 'rows:1000000'", "between 1 and 999,999"),
        ("FLUSH_POLICY = 'interval:86400'", "between 1 and 86,399"),
        ("FLUSH_POLICY = 'rows:1,rows:2'", "is not 'rows:N'"),
        ("FLUSH_POLICY = 'often'", "is not 'rows:N'"),
        ("ACCESS_LEVEL = 'secret'", "Unknown ACCESS_LEVEL"),
        ("USE_USER_STORAGE = true", "USER tables only"),
        ("TTL_SECONDS = 5", "STREAM tables only"),
        ("DELETED_RETENTION_HOURS = -1", "number of hours"),
        ("COLOUR = 'red'", "Unknown table option 'COLOUR'"),
    ],
)
def test_wrong_options(db: Database, options: str, message: str) -> None:
    fails(db, f"CREATE TABLE t (id INT) WITH ({options})", message, SqlError)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("id INT, ID TEXT", "Duplicate column name 'id'"),
        ("_seq BIGINT", "reserved"),
        ("_deleted BOOLEAN", "reserved"),
        ("a INT PRIMARY KEY, b INT PRIMARY KEY", "one primary key"),
        ("a INT PRIMARY KEY, b INT, PRIMARY KEY (b)", "given twice"),
        ("a INT, PRIMARY KEY (b)", "names column 'b'"),
        ("a INT, PRIMARY KEY (a, a)", "twice"),
        ("a JSON PRIMARY KEY", "cannot be part of a PRIMARY KEY"),
        ("a EMBEDDING(3) UNIQUE", "cannot be part of a UNIQUE"),
        ("a INT DEFAULT nonsense()", "must be a literal or one of NOW()"),
        ("a INT DEFAULT (1 + 1)", "must be a literal"),
        ("a INT DEFAULT 'x'", "DEFAULT of column 'a'"),
        ("a SMALLINT DEFAULT 40000", "DEFAULT of column 'a'"),
        ("a INT DEFAULT SNOWFLAKE_ID()", "does not give values of type INT"),
        ("a BOOLEAN DEFAULT NOW()", "does not give values of type BOOLEAN"),
        ("a INT CHECK (b > 0)", "names 'b'"),
        ("a INT CHECK (a > (SELECT 1))", "a subquery"),
        ("a INT CHECK (sum(a) > 0)", "an aggregate"),
        ("a TIMESTAMP CHECK (a < NOW())", "does not always give the same answer"),
        ("a TEXT CHECK (a = CURRENT_USER)", "does not always give the same answer"),
        ("a INT CHECK (a < random())", "does not always give the same answer"),
        ("a INT CHECK (a > $1)", "a parameter"),
        ("a INT CHECK (a + 1)", "not a condition"),
        ("a INT, CONSTRAINT c CHECK (a > 0), CONSTRAINT c CHECK (a < 9)", "Duplicate constraint name 'c'"),
    ],
)
def test_wrong_columns(db: Database, columns: str, message: str) -> None:
    fails(db, f"CREATE TABLE t ({columns})", message, SqlError)


def test_definition(db: Database) -> None:
    db.run(
        "CREATE TABLE t (a INT, b TEXT DEFAULT 'x', c DECIMAL(9,2) NOT NULL UNIQUE, d SERIAL, "
        "e TIMESTAMP DEFAULT now(), PRIMARY KEY (b, a), UNIQUE (a, c), UNIQUE (a, b), CHECK (a > 0), "
        "CONSTRAINT short CHECK (length(b) < 5))"
    )
    table = db.table("t")
    assert [c.name for c in table.key_columns] == ["b", "a"]
    assert [c.nullable for c in table.columns] == [False, False, False, True, True]
    assert [u.name for u in table.uniques] == ["t_c_key", "t_a_c_key"]
    assert [c.name for c in table.checks] == ["t_check", "short"]
    assert [c.default for c in table.columns] == [None, "'x'", None, "SNOWFLAKE_ID()", "NOW()"]
    assert table.columns[2].type == decimal(9, 2)


def test_table_without_key(db: Database) -> None:
    db.run("CREATE TABLE t (a INT)")
    db.insert_rows("t", [(1,), (1,), (None,)])
    assert db.rows("t") == [{"a": 1}, {"a": 1}, {"a": None}]


# --- ALTER TABLE ------------------------------------------------------------------------------------------------------


def test_add_column_reads_default_in_old_rows(db: Database) -> None:
    db.run("CREATE TABLE t (id INT PRIMARY KEY)")
    db.insert_rows("t", [(1,), (2,)])
    assert db.run("ALTER TABLE t ADD COLUMN n BIGINT NOT NULL DEFAULT 7") == (
        "Table app.t altered successfully: ADD COLUMN n BIGINT (version 2)"
    )
    db.run("ALTER TABLE t ADD COLUMN s TEXT")
    db.run("ALTER TABLE t ADD COLUMN d DECIMAL(5,1) DEFAULT 2.5")
    db.insert_rows("t", [(3, 8, "x", None)])
    rows = db.rows("t")
    assert [r["n"] for r in rows] == [7, 7, 8]
    assert [r["s"] for r in rows] == [None, None, "x"]
    assert [str(r["d"]) for r in rows] == ["2.5", "2.5", "None"]
    assert db.run("ALTER TABLE t ADD COLUMN IF NOT EXISTS n INT") == (
        "Table app.t unchanged: ADD COLUMN n INT (version 4 - no changes needed)"
    )


def test_add_column_refusals(db: Database) -> None:
    db.run("CREATE TABLE t (id INT PRIMARY KEY)")
    db.run("ALTER TABLE t ADD COLUMN empty INT NOT NULL")
    db.insert_rows("t", [(1, 1)])
    fails(db, "ALTER TABLE t ADD COLUMN a INT NOT NULL", "NOT NULL column 'a' needs a DEFAULT")
    fails(db, "ALTER TABLE t ADD COLUMN id INT", "Already exists: ")
    fails(db, "ALTER TABLE t ADD COLUMN a BIGINT DEFAULT SNOWFLAKE_ID()", "would all get the same")
    fails(db, "ALTER TABLE t ADD COLUMN a INT UNIQUE", "UNIQUE", Unsupported)
    fails(db, "ALTER TABLE t ADD COLUMN _id INT", "reserved")
    fails(db, "ALTER TABLE t ADD COLUMN a INT DEFAULT 5 CHECK (a > id + 9)", "CHECK constraint violation")
    db.run("ALTER TABLE t ADD COLUMN a INT DEFAULT 5 CHECK (a > id)")
    assert db.table("t").checks[0].name == "t_a_check"


def test_drop_column(db: Database) -> None:
    db.run("CREATE TABLE t (id INT PRIMARY KEY, a INT UNIQUE, b INT CHECK (b > 0), c TEXT)")
    db.insert_rows("t", [(1, 2, 3, "x")])
    assert db.run("ALTER TABLE t DROP COLUMN c") == "Table app.t altered successfully: DROP COLUMN c (version 2)"
    assert db.rows("t") == [{"id": 1, "a": 2, "b": 3}]
    fails(db, "ALTER TABLE t DROP COLUMN id", "part of the primary key")
    fails(db, "ALTER TABLE t DROP COLUMN a", "UNIQUE constraint 't_a_key'")
    fails(db, "ALTER TABLE t DROP COLUMN b", "CHECK constraint 't_b_check'")
    fails(db, "ALTER TABLE t DROP COLUMN c", "Not found: Column 'c'")
    assert "unchanged" in db.run("ALTER TABLE t DROP COLUMN IF EXISTS c")
    db.run("ALTER TABLE t ADD COLUMN c INT")
    assert db.rows("t") == [{"id": 1, "a": 2, "b": 3, "c": None}]


def test_modify_widens_in_place(db: Database) -> None:
    db.run("CREATE TABLE t (id INT PRIMARY KEY, a SMALLINT DEFAULT 3, b DECIMAL(5,2))")
    db.insert_rows("t", [(1, 2, None)])
    db.run("ALTER TABLE t ADD COLUMN c SMALLINT DEFAULT 9")
    for column, column_type in (("id", "BIGINT"), ("a", "DOUBLE"), ("b", "DECIMAL(12,4)"), ("c", "BIGINT")):
        assert "altered successfully" in db.run(f"ALTER TABLE t MODIFY COLUMN {column} {column_type}")
    table = db.table("t")
    assert [c.type for c in table.columns] == [BIGINT, DOUBLE, decimal(12, 4), BIGINT]
    db.insert_rows("t", [(2**40, 0.5, None, 2**40)])
    assert [(r["id"], r["a"], r["c"]) for r in db.rows("t")] == [(1, 2.0, 9), (2**40, 0.5, 2**40)]
    with db.engine.snapshot() as snapshot:
        from storage.keys import encode_key

        assert snapshot.find(table, "", [encode_key([BIGINT], [1]), encode_key([BIGINT], [2**40])]) != [None, None]


def test_modify_refusals(db: Database) -> None:
    db.run("CREATE TABLE t (id BIGINT PRIMARY KEY, a BIGINT, b TEXT, c INT CHECK (c > 0))")
    db.run("ALTER TABLE t MODIFY COLUMN b INT")  # an empty table takes any type
    assert db.table("t").by_name["b"].type == INT
    db.run("ALTER TABLE t MODIFY COLUMN b TEXT")
    db.insert_rows("t", [(1, 2, "x", 3)])
    fails(db, "ALTER TABLE t MODIFY COLUMN a INT", "cannot change from BIGINT to INT in place")
    fails(db, "ALTER TABLE t MODIFY COLUMN b INT", "cannot change from TEXT to INT in place")
    fails(db, "ALTER TABLE t MODIFY COLUMN id INT", "part of a key")
    fails(db, "ALTER TABLE t MODIFY COLUMN c DOUBLE", "CHECK constraint")
    assert "unchanged" in db.run("ALTER TABLE t MODIFY COLUMN a BIGINT")
    db.run("ALTER TABLE t MODIFY COLUMN c BIGINT NOT NULL")
    assert db.table("t").by_name["c"].nullable is False
    assert db.rows("t") == [{"id": 1, "a": 2, "b": "x", "c": 3}]


def test_set_not_null_checks_rows_of_every_partition(db: Database) -> None:
    db.run("CREATE USER TABLE t (id INT PRIMARY KEY, a INT)")
    db.insert_rows("t", [(1, 5)], "alice")
    db.run("ALTER TABLE t ALTER COLUMN a SET NOT NULL")
    assert "unchanged" in db.run("ALTER TABLE t ALTER COLUMN a SET NOT NULL")
    db.run("ALTER TABLE t ALTER COLUMN a DROP NOT NULL")
    db.insert_rows("t", [(1, None)], "bob")
    fails(db, "ALTER TABLE t ALTER COLUMN a SET NOT NULL", "column 'a' holds NULL in existing rows")
    fails(db, "ALTER TABLE t ALTER COLUMN id DROP NOT NULL", "primary key")


def test_defaults_renames_and_access(db: Database) -> None:
    db.run("CREATE TABLE t (id INT PRIMARY KEY, a TEXT CHECK (length(a) < 9 AND a <> 'a'))")
    assert db.run("ALTER TABLE t ALTER COLUMN a SET DEFAULT 'q'").endswith("SET DEFAULT 'q' on column a (version 2)")
    assert "unchanged" in db.run("ALTER TABLE t ALTER COLUMN a SET DEFAULT 'q'")
    fails(db, "ALTER TABLE t ALTER COLUMN id SET DEFAULT 'q'", "DEFAULT of column 'id'")
    db.run("ALTER TABLE t ALTER COLUMN a DROP DEFAULT")
    db.run("ALTER TABLE t RENAME COLUMN a TO name")
    assert db.table("t").checks[0].expression == 'LENGTH("name") < 9 AND "name" <> \'a\''
    assert db.table("t").by_name["name"].column_id == 2
    fails(db, "ALTER TABLE t RENAME COLUMN name TO id", "Already exists")
    fails(db, "ALTER TABLE t RENAME COLUMN a TO b", "Not found")
    db.run("ALTER TABLE t SET ACCESS LEVEL PUBLIC")
    assert db.table("t").access_level is AccessLevel.PUBLIC
    assert "unchanged" in db.run("ALTER TABLE t SET TBLPROPERTIES (ACCESS_LEVEL = 'PUBLIC')")
    db.run("CREATE USER TABLE u (id INT)")
    fails(db, "ALTER TABLE u SET ACCESS LEVEL PUBLIC", "SHARED tables only")
    assert [v.version for v in db.table("t").history] == [1, 2, 3, 4]
    assert db.table("t").schema_version == 5


def test_alter_and_drop_rights(db: Database) -> None:
    db.run("CREATE USER TABLE t (id INT)", ALICE)
    db.run("CREATE TABLE private (id INT)")
    db.run("CREATE TABLE secret (id INT) WITH (ACCESS_LEVEL = 'DBA')")
    fails(db, "ALTER TABLE t ADD COLUMN a INT", "created by another user", PermissionDenied, BOB)
    fails(db, "DROP TABLE t", "created by another user", PermissionDenied, BOB)
    fails(db, "DROP TABLE t", "created by another user", PermissionDenied, SERVICE)
    fails(db, "ALTER TABLE private ADD COLUMN a INT", "may not see", PermissionDenied, ALICE)
    fails(db, "ALTER TABLE secret ADD COLUMN a INT", "may not see", PermissionDenied, SERVICE)
    fails(db, "ALTER TABLE private SET ACCESS LEVEL DBA", "only dba and system", PermissionDenied, SERVICE)
    fails(db, "DROP TABLE system.users", "system table", PermissionDenied)
    db.run("ALTER TABLE t ADD COLUMN a INT", ALICE)
    db.run("ALTER TABLE private ADD COLUMN a INT", SERVICE)
    assert db.run("DROP TABLE t", ALICE).startswith("Table app.t dropped successfully. Cleanup job: CL-")


def test_missing_tables(db: Database) -> None:
    db.run("CREATE TABLE messages (id INT)")
    fails(db, "DROP TABLE message", "Did you mean 'app.messages'?", TableNotFound)
    fails(db, "ALTER TABLE message ADD COLUMN a INT", "Table not found: 'app.message'", TableNotFound)
    assert db.run("DROP TABLE IF EXISTS message") == "Table app.message does not exist (skipped)"
    assert db.run("DROP USER TABLE messages").startswith("Table app.messages dropped successfully. Cleanup job: CL-")


def test_text_type_stays(db: Database) -> None:
    db.run("CREATE TABLE t (id INT PRIMARY KEY, j JSON)")
    db.insert_rows("t", [(1, '{"a":1}')])
    db.run("ALTER TABLE t MODIFY COLUMN j TEXT")
    assert db.table("t").by_name["j"].type == TEXT
    assert db.rows("t") == [{"id": 1, "j": '{"a":1}'}]
