"""INSERT, UPDATE, DELETE: results, defaults, constraints, RETURNING, rights and scope, over a snapshot and inside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from write_support import ADMIN, ALICE, BOB, DBA, QUIET, SERVICE, Context, Writer

from sql import ddl, dml
from sql.binder import BindContext
from sql.dialect import parse_batch
from sql.duck import DuckPool
from sql.errors import ExecutionError, InvalidParameter, InvalidSql, PermissionDenied, SqlError, TableNotFound
from sql.system_tables import SystemTables
from storage import StorageEngine
from storage.transaction import Transaction


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageEngine]:
    with StorageEngine.open(Path(tmp_path_factory.mktemp("dml")) / "data", QUIET) as opened:
        yield opened


@pytest.fixture(scope="module")
def database(engine: StorageEngine) -> Iterator[Writer]:
    pool = DuckPool()
    yield Writer(engine, pool)
    pool.close()


@pytest.fixture
def db(database: Writer) -> Iterator[Writer]:
    database.run(
        "CREATE TABLE t (id INT PRIMARY KEY, name TEXT DEFAULT 'new', n INT NOT NULL DEFAULT 5, x DOUBLE UNIQUE, "
        "CONSTRAINT small CHECK (n < 100))"
    )
    yield database
    for table in list(database.engine.catalog.tables()):
        database.commit(lambda w, table=table: w.drop_table(table.table_id))


def fails(
    db: Writer,
    text: str,
    message: str,
    kind: type[SqlError] = ExecutionError,
    *,
    params=(),
    identity=ADMIN,
    via=None,
) -> None:
    seq = db.engine.last_seq
    run = (lambda: via(text)) if via is not None else (lambda: db.write(text, params, identity))
    with pytest.raises(kind) as caught:
        run()
    assert message in caught.value.message
    assert db.engine.last_seq == seq


def ids(db: Writer) -> list[object]:
    return [row["id"] for row in db.rows("t")]


def returned(result) -> list[dict[str, object]]:
    assert result.message is None
    assert result.table is not None
    assert result.row_count == result.table.num_rows
    return result.table.to_pylist()


# --- INSERT -----------------------------------------------------------------------------------------------------------


def test_insert_values_and_defaults(db: Writer) -> None:
    result = db.write("INSERT INTO t VALUES (1, 'a', 2, 0.5), (2, NULL, 3, NULL)")
    assert (result.message, result.row_count) == ("Inserted 2 row(s)", 2)
    db.write("INSERT INTO app.t (N, id) VALUES (7, 3)")
    db.write("INSERT INTO t (id, name, n) VALUES (4, DEFAULT, DEFAULT)")
    assert db.rows("t") == [
        {"id": 1, "name": "a", "n": 2, "x": 0.5},
        {"id": 2, "name": None, "n": 3, "x": None},
        {"id": 3, "name": "new", "n": 7, "x": None},
        {"id": 4, "name": "new", "n": 5, "x": None},
    ]


def test_insert_parameters_and_expressions(db: Writer) -> None:
    db.write("INSERT INTO t (id, name, n) VALUES ($1, $2, $1 + 1), ($3, upper('b') || 'c', (SELECT 4))", [1, "a", 2])
    assert [(r["id"], r["name"], r["n"]) for r in db.rows("t")] == [(1, "a", 2), (2, "Bc", 4)]
    fails(db, "INSERT INTO t (id) VALUES ($1)", "parameter $1 (INT)", InvalidParameter, params=["many"])
    fails(db, "INSERT INTO t (id) VALUES ($2)", "$2", InvalidParameter, params=[1])


def test_insert_generated_values(db: Writer) -> None:
    db.run(
        "CREATE TABLE g (id BIGINT PRIMARY KEY DEFAULT SNOWFLAKE_ID(), u UUID DEFAULT UUID_V7(), "
        "ut TEXT DEFAULT UUID_V7(), l TEXT DEFAULT ULID(), t TIMESTAMP DEFAULT NOW(), d DATE DEFAULT NOW(), "
        "who TEXT DEFAULT CURRENT_USER(), e EMBEDDING(2) DEFAULT [1, 2.5], b BYTES DEFAULT X'00ff', k INT)"
    )
    db.write("INSERT INTO g (k) VALUES (1), (2), (3)", identity=SERVICE)
    db.write("INSERT INTO g (id, k) VALUES (SNOWFLAKE_ID(), 4)")
    db.write("INSERT INTO g DEFAULT VALUES")
    rows = db.rows("g")
    assert len({r["id"] for r in rows}) == 5
    assert [r["id"] for r in rows] == sorted(r["id"] for r in rows)
    assert len({r["u"] for r in rows}) == len({r["l"] for r in rows}) == len({r["ut"] for r in rows}) == 5
    assert len({r["t"] for r in rows[:3]}) == 1
    assert rows[0]["who"] == "sam"
    assert rows[0]["e"] == [1.0, 2.5]
    assert rows[0]["b"] == b"\x00\xff"
    assert [r["k"] for r in rows] == [1, 2, 3, 4, None]


def test_insert_select(db: Writer) -> None:
    db.write("INSERT INTO t (id) VALUES (1), (2)")
    assert db.write("INSERT INTO t (id, name) SELECT id + 10, 'copy' FROM t").message == "Inserted 2 row(s)"
    assert db.write("WITH a AS (SELECT 20 AS i) INSERT INTO t (id, n) SELECT i, 1.6 FROM a").row_count == 1
    assert [(r["id"], r["name"], r["n"]) for r in db.rows("t")] == [
        (1, "new", 5), (2, "new", 5), (11, "copy", 5), (12, "copy", 5), (20, "new", 2),
    ]  # fmt: skip
    fails(db, "INSERT INTO t (id) SELECT 1, 2", "1 target column(s) but the query gives 2", InvalidSql)
    fails(db, "INSERT INTO t (id) SELECT 3000000000", "column 'id' (INT)")
    fails(db, "INSERT INTO t (id) SELECT 'abc'", "column 'id' (INT)")
    fails(db, "INSERT INTO t (id, name) SELECT 9, DATE '2020-01-01'", "write CAST")


def test_insert_into_a_table_without_key(db: Writer) -> None:
    db.run("CREATE TABLE k (a INT)")
    db.write("INSERT INTO k VALUES (1), (1)")
    assert db.write("UPDATE k SET a = 2 WHERE a = 1").row_count == 2
    assert db.write("DELETE FROM k WHERE a = 2").row_count == 2


def test_insert_mistakes(db: Writer) -> None:
    fails(db, "INSERT INTO t (id, nope) VALUES (1, 2)", "Column 'nope' does not exist in table app.t", InvalidSql)
    fails(db, "INSERT INTO t (id, id) VALUES (1, 2)", "names column 'id' twice", InvalidSql)
    fails(db, "INSERT INTO t (id, n) VALUES (1, 2), (3)", "row 2 has 1 value(s)", InvalidSql)
    fails(db, "INSERT INTO t VALUES (1)", "4 target column(s) but row 1 has 1", InvalidSql)
    fails(db, "INSERT INTO t (id) VALUES ('x')", "column 'id' (INT)")
    fails(db, "INSERT INTO t (id) VALUES (1.5)", "column 'id' (INT)")
    fails(db, "INSERT INTO nothing VALUES (1)", "Table not found: 'app.nothing'", TableNotFound)
    fails(db, "INSERT INTO t (id) VALUES (nope + 1)", "nope", SqlError)


def test_error_position(db: Writer) -> None:
    with pytest.raises(InvalidSql) as caught:
        db.write("INSERT INTO t (id,\n  nope) VALUES (1, 2)")
    assert (caught.value.line, caught.value.column) == (2, 3)


# --- constraints ------------------------------------------------------------------------------------------------------


def test_not_null(db: Writer) -> None:
    fails(
        db,
        "INSERT INTO t (id, n) VALUES (1, 1), (2, NULL)",
        "Constraint violation: NOT NULL constraint violation: column 'n' cannot be NULL (row 2)",
    )
    fails(db, "INSERT INTO t (n) VALUES (1)", "column 'id' cannot be NULL (row 1)")
    db.write("INSERT INTO t (id) VALUES (1)")
    fails(db, "UPDATE t SET n = NULL WHERE id = 1", "column 'n' cannot be NULL")


def test_primary_key_and_unique(db: Writer) -> None:
    db.write("INSERT INTO t (id, x) VALUES (1, 0.5)")
    fails(
        db,
        "INSERT INTO t (id) VALUES (2), (1)",
        "Constraint violation: Primary key violation: value '1' already exists in column 'id'",
    )
    fails(
        db,
        "INSERT INTO t (id) VALUES (7), (7)",
        "Primary key violation: value '7' appears multiple times in the insert batch",
    )
    fails(db, "INSERT INTO t (id, x) VALUES (2, 0.5)", "value '0.5' already exists in column 'x'")
    fails(db, "INSERT INTO t (id, x) VALUES (2, 0.25), (3, 0.25)", "value '0.25' appears multiple times")
    db.write("INSERT INTO t (id, x) VALUES (2, NULL), (3, NULL)")
    fails(db, "UPDATE t SET x = 0.5 WHERE id = 2", "value '0.5' already exists in column 'x'")
    fails(db, "UPDATE t SET x = 0.75 WHERE id > 1", "value '0.75' appears multiple times")
    db.write("DELETE FROM t WHERE id = 1")
    db.write("INSERT INTO t (id, x) VALUES (1, 0.5)")


def test_composite_key_message(db: Writer) -> None:
    db.run("CREATE TABLE c (a INT, b TEXT, v INT, PRIMARY KEY (a, b))")
    db.write("INSERT INTO c VALUES (1, 'x', 0), (1, 'y', 0)")
    fails(db, "INSERT INTO c VALUES (1, 'x', 1)", "value '1, x' already exists in column 'a, b'")
    assert db.write("UPDATE c SET v = 9 WHERE b = 'y' AND a = $1", [1]).row_count == 1
    assert db.plan("UPDATE c SET v = 9 WHERE b = 'y' AND a = $1", [1]).keyed
    assert not db.plan("UPDATE c SET v = 9 WHERE a = $1", [1]).keyed


def test_check(db: Writer) -> None:
    fails(db, "INSERT INTO t (id, n) VALUES (1, 1), (2, 100)", "row 2 violates constraint 'small'")
    db.write("INSERT INTO t (id) VALUES (1)")
    fails(db, "UPDATE t SET n = n + 95 WHERE id = 1", "violates constraint 'small'")
    db.run("CREATE TABLE c (a INT CHECK (a > 0))")
    db.write("INSERT INTO c VALUES (NULL), (1)")
    assert len(db.rows("c")) == 2


# --- UPDATE -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [False, True])
def test_update(db: Writer, inside: bool) -> None:
    db.write("INSERT INTO t (id, n) VALUES (1, 1), (2, 2), (3, 3)")
    assert db.write("UPDATE t SET n = n + $1 WHERE id = $2", [10, 2], inside=inside).message == "Updated 1 row(s)"
    assert db.write("UPDATE t SET n = id, x = n, name = DEFAULT WHERE t.id = 2", inside=inside).row_count == 1
    assert db.write("UPDATE t AS q SET n = q.n * 2 WHERE q.id <> 2", inside=inside).row_count == 2
    assert db.write("UPDATE t SET n = (SELECT max(n) FROM t) WHERE id = 1", inside=inside).row_count == 1
    assert [(r["id"], r["n"], r["x"]) for r in sorted(db.rows("t"), key=lambda r: r["id"])] == [
        (1, 6, None), (2, 2, 12.0), (3, 6, None),
    ]  # fmt: skip


def test_update_counts_only_changed_rows(db: Writer) -> None:
    db.write("INSERT INTO t (id, n) VALUES (1, 1), (2, 2), (3, 2)")
    seq = db.engine.last_seq
    assert db.write("UPDATE t SET n = 2 WHERE true").message == "Updated 1 row(s)"
    assert db.engine.last_seq == seq + 1
    assert db.write("UPDATE t SET n = 2, name = name WHERE true").message == "Updated 0 row(s)"
    assert db.write("UPDATE t SET x = NULL WHERE id = 1").row_count == 0
    assert db.write("UPDATE t SET n = 3 WHERE id = 99").row_count == 0
    assert db.write("UPDATE t SET n = 3 WHERE id = NULL").row_count == 0


def test_update_from_and_delete_using(db: Writer) -> None:
    db.write("INSERT INTO t (id, n) VALUES (1, 1), (2, 2)")
    db.run("CREATE TABLE o (id INT PRIMARY KEY, w INT)")
    db.write("INSERT INTO o VALUES (1, 50), (2, 60), (3, 70)")
    assert db.write("UPDATE t SET n = o.w + 1 FROM o WHERE o.id = t.id").row_count == 2
    assert [r["n"] for r in db.rows("t")] == [51, 61]
    assert db.write("UPDATE t SET n = 7 FROM o WHERE o.w > 55 AND t.id = 1").row_count == 1
    assert db.write("DELETE FROM t USING o WHERE o.id = t.id AND o.w = 60").message == "Deleted 1 row(s)"
    assert ids(db) == [1]


def test_update_mistakes(db: Writer) -> None:
    fails(db, "UPDATE t SET n = 1", "UPDATE requires a WHERE clause")
    fails(db, "DELETE FROM t", "DELETE requires a WHERE clause")
    fails(db, "UPDATE t SET id = 2 WHERE id = 1", "UPDATE cannot modify primary key column 'id'")
    fails(db, "UPDATE t SET nope = 2 WHERE id = 1", "Column 'nope' does not exist", InvalidSql)
    fails(db, "UPDATE t SET n = 1, n = 2 WHERE id = 1", "assigns column 'n' twice", InvalidSql)
    fails(db, "UPDATE t SET n = 'x' WHERE id = 1", "column 'n' (INT)")
    db.write("INSERT INTO t (id) VALUES (1)")
    fails(db, "UPDATE t SET n = n * 1000000000 WHERE id = 1", "", SqlError)


def test_assignment_conversions(db: Writer) -> None:
    db.run(
        "CREATE TABLE v (id INT PRIMARY KEY, d DECIMAL(8,2), i INT, f FLOAT, s TEXT, ts TIMESTAMP, da DATE, u UUID, "
        "j JSON, b BOOLEAN, e EMBEDDING(2))"
    )
    db.write("INSERT INTO v (id, d, i) VALUES (1, 10.10, 3)")
    db.write("UPDATE v SET d = d * 1.155, f = i / 2.0, i = i * 1.5, s = i + 1, b = i > 1 WHERE id = 1")
    db.write("UPDATE v SET ts = TIMESTAMP '2020-01-02 03:04:05' + INTERVAL 1 DAY, da = ts WHERE id = 1")
    db.write("UPDATE v SET u = '00000000-0000-0000-0000-00000000000' || '1', j = '{\"a\"' || ':1}' WHERE id = 1")
    db.write("UPDATE v SET e = '[1, ' || '2]' WHERE id = 1")
    row = db.rows("v")[0]
    assert (str(row["d"]), row["i"], row["f"], row["s"], row["b"]) == ("11.67", 5, 1.5, "4", True)
    assert str(row["ts"]) == "2020-01-03 03:04:05"
    assert row["da"] is None
    assert row["u"] == bytes(15) + b"\x01"
    assert row["j"] == '{"a":1}'
    assert row["e"] == [1.0, 2.0]
    fails(db, "UPDATE v SET j = '{' || '' WHERE id = 1", "column 'j' (JSON)")
    fails(db, "UPDATE v SET d = d * 1000000 WHERE id = 1", "column 'd' (DECIMAL(8,2))")
    fails(db, "UPDATE v SET f = sqrt(-1.0 * id) WHERE id = 1", "", SqlError)


# --- DELETE -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [False, True])
def test_delete(db: Writer, inside: bool) -> None:
    db.write("INSERT INTO t (id, n) VALUES (1, 1), (2, 2), (3, 3), (4, 4)")
    assert db.write("DELETE FROM t WHERE id = $1", [2], inside=inside).message == "Deleted 1 row(s)"
    assert db.write("DELETE FROM t WHERE id = 2", inside=inside).row_count == 0
    assert db.write("DELETE FROM t WHERE n > (SELECT min(n) FROM t) AND id < 4", inside=inside).row_count == 1
    assert ids(db) == [1, 4]
    assert db.write("DELETE FROM t WHERE true", inside=inside).row_count == 2
    assert ids(db) == []


# --- RETURNING --------------------------------------------------------------------------------------------------------


def test_returning(db: Writer) -> None:
    result = db.write("INSERT INTO t (id, n) VALUES (1, 1), (2, 2) RETURNING *, n * 10 AS ten, t.name, repeat('a', n)")
    assert [(c.name, str(c.type), c.flags) for c in result.columns] == [
        ("id", "INT", ("pk", "nn", "uq")),
        ("name", "TEXT", ()),
        ("n", "INT", ("nn",)),
        ("x", "DOUBLE", ("uq",)),
        ("ten", "INT", ()),
        ("name", "TEXT", ()),
        ("repeat", "TEXT", ()),
    ]
    assert [column.to_pylist() for column in result.table.columns] == [
        [1, 2], ["new", "new"], [1, 2], [None, None], [10, 20], ["new", "new"], ["a", "aa"],
    ]  # fmt: skip
    assert result.row_count == 2
    assert returned(db.write("UPDATE t SET n = n + 1 WHERE id = 2 RETURNING id, n")) == [{"id": 2, "n": 3}]
    assert returned(db.write("UPDATE t SET n = n WHERE id = 2 RETURNING id")) == []
    assert returned(db.write("DELETE FROM t WHERE true RETURNING n + id AS s, $1::INT AS p", [7])) == [
        {"s": 2, "p": 7}, {"s": 5, "p": 7},
    ]  # fmt: skip
    fails(db, "INSERT INTO t (id) VALUES (1) RETURNING nope", "Column 'nope' does not exist", InvalidSql)
    fails(db, "INSERT INTO t (id) VALUES (1) RETURNING _seq", "not known before the commit", SqlError)


# --- ON CONFLICT ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [False, True])
def test_upsert(db: Writer, inside: bool) -> None:
    def write(text: str, params=()):
        return db.write(text, params, inside=inside)

    add = "INSERT INTO t (id, n) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET n = t.n + EXCLUDED.n RETURNING n"
    assert db.plan(add, [1, 2]).keyed
    assert returned(write(add, [1, 2])) == [{"n": 2}]
    assert returned(write(add, [1, 3])) == [{"n": 5}]
    assert write("INSERT INTO t (id) VALUES (1), (2) ON CONFLICT DO NOTHING").message == "Inserted 1 row(s)"
    assert write("INSERT INTO t (id) VALUES (3), (3), (1) ON CONFLICT (id) DO NOTHING").row_count == 1
    both = write(
        "INSERT INTO t (id, n) VALUES (9, 1), (2, 50), (1, 60), (8, 2) "
        "ON CONFLICT (id) DO UPDATE SET n = EXCLUDED.n, name = 'up' WHERE excluded.n < 60 RETURNING id, name, n"
    )
    assert returned(both) == [
        {"id": 9, "name": "new", "n": 1}, {"id": 2, "name": "up", "n": 50}, {"id": 8, "name": "new", "n": 2},
    ]  # fmt: skip
    assert sorted(ids(db)) == [1, 2, 3, 8, 9]


def test_upsert_returns_unchanged_rows_without_writing(db: Writer) -> None:
    db.write("INSERT INTO t (id, name) VALUES (1, 'a')")
    seq = db.engine.last_seq
    text = "INSERT INTO t (id, name) VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name RETURNING id"
    assert returned(db.write(text)) == [{"id": 1}]
    text = "INSERT INTO t (id, name) VALUES (1, 'b') ON CONFLICT (id) DO UPDATE SET id = EXCLUDED.id, name = 'a'"
    assert db.write(text).message == "Inserted 1 row(s)"
    assert db.engine.last_seq == seq


def test_upsert_on_unique_columns(db: Writer) -> None:
    db.write("INSERT INTO t (id, x) VALUES (1, 0.5), (2, NULL)")
    upsert = "INSERT INTO t (id, x) VALUES ($1, $2) ON CONFLICT (x) DO UPDATE SET n = EXCLUDED.id RETURNING id, n"
    assert returned(db.write(upsert, [7, 0.5])) == [{"id": 1, "n": 7}]
    assert returned(db.write(upsert, [7, None])) == [{"id": 7, "n": 5}]
    fails(db, upsert, "value '7' already exists in column 'id'", params=[7, 0.75])
    assert db.write("INSERT INTO t (id, x) VALUES (9, 0.5), (1, 9.5), (10, 1) ON CONFLICT DO NOTHING").row_count == 1


def test_upsert_by_query_expressions(db: Writer) -> None:
    db.write("INSERT INTO t (id, n) VALUES (1, 3), (2, 1)")
    text = (
        "INSERT INTO t (id, name) SELECT id, 'q' FROM t ON CONFLICT (id) DO UPDATE SET "
        "name = repeat(EXCLUDED.name, t.n) WHERE length(repeat('x', t.n)) > 1 RETURNING id, name"
    )
    assert returned(db.write(text)) == [{"id": 1, "name": "qqq"}]


def test_upsert_mistakes(db: Writer) -> None:
    db.write("INSERT INTO t (id) VALUES (1)")
    fails(
        db,
        "INSERT INTO t (id) VALUES (1), (1) ON CONFLICT (id) DO UPDATE SET n = 1",
        "cannot affect a row twice: value '1' appears multiple times",
    )
    fails(db, "INSERT INTO t (id) VALUES (1) ON CONFLICT (n) DO NOTHING", "no primary key or UNIQUE", InvalidSql)
    fails(db, "INSERT INTO t (id) VALUES (1) ON CONFLICT DO UPDATE SET n = 1", "conflict target", SqlError)
    fails(db, "INSERT INTO t (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 5", "primary key column 'id'")
    fails(db, "INSERT INTO t (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET n = EXCLUDED.nope", "nope", InvalidSql)
    fails(db, "INSERT INTO t (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET n = NULL", "cannot be NULL")
    fails(db, "INSERT INTO t (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET n = 100", "'small'")


# --- rights and scope -------------------------------------------------------------------------------------------------


def test_rights(db: Writer) -> None:
    db.run("CREATE TABLE open (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = 'PUBLIC')")
    db.run("CREATE TABLE locked (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = 'DBA')")
    for text in ("INSERT INTO open VALUES (1)", "DELETE FROM open WHERE id = 1", "INSERT INTO t (id) VALUES (1)"):
        fails(db, text, "Permission denied", PermissionDenied, identity=ALICE)
    fails(db, "INSERT INTO locked VALUES (1)", "Permission denied", PermissionDenied, identity=SERVICE)
    db.write("INSERT INTO open VALUES (1)", identity=SERVICE)
    db.write("INSERT INTO locked VALUES (1)", identity=DBA)
    fails(db, "INSERT INTO system.users VALUES (1)", "Cannot insert system table 'system.users'", PermissionDenied)
    fails(db, "DELETE FROM system.users WHERE true", "Cannot delete system table", PermissionDenied)
    fails(db, "UPDATE information_schema.tables SET a = 1 WHERE true", "system table", PermissionDenied)


def test_user_tables_are_scoped(db: Writer) -> None:
    db.run("CREATE USER TABLE u (id INT PRIMARY KEY, v TEXT)", ALICE)
    for identity in (ALICE, BOB, DBA):
        db.write("INSERT INTO u VALUES (1, CURRENT_USER)", identity=identity)
    assert db.write("UPDATE u SET v = v || '!' WHERE true", identity=ALICE).row_count == 1
    assert db.write("UPDATE u SET v = 'x' WHERE id = 1", identity=DBA).row_count == 1
    assert db.write("DELETE FROM u WHERE true", identity=BOB).row_count == 1
    assert db.rows("u", "alice") == [{"id": 1, "v": "alice!"}]
    assert db.rows("u", "dora") == [{"id": 1, "v": "x"}]
    assert db.rows("u", "bob") == []


# --- transactions -----------------------------------------------------------------------------------------------------


def test_a_failing_statement_leaves_nothing(db: Writer) -> None:
    with db.engine.snapshot() as snapshot:
        transaction = Transaction(snapshot)

        def run(text: str, params=()):
            point = transaction.savepoint()
            try:
                return db.plan(text, params).run(transaction, params, ADMIN, db.services)
            except SqlError:
                transaction.rollback_to(point)
                raise

        run("INSERT INTO t (id, n) VALUES (1, 1), (2, 2)")
        with pytest.raises(ExecutionError):
            run("INSERT INTO t (id) VALUES (3), (1)")
        with pytest.raises(ExecutionError):
            run("INSERT INTO t (id, n) VALUES (2, 3), (4, 100) ON CONFLICT (id) DO UPDATE SET n = EXCLUDED.n + 1")
        assert run("INSERT INTO t (id, n) SELECT id + 10, n FROM t").row_count == 2
        assert run("UPDATE t SET n = n + 1 WHERE id = 11").row_count == 1
        assert run("DELETE FROM t WHERE id = 2").row_count == 1
        assert db.select("SELECT id, n FROM t", view=transaction) == [(1, 1), (11, 2), (12, 2)]
        db.commit(transaction.apply)
    assert sorted(ids(db)) == [1, 11, 12]


def test_keyed_plans_ask_no_engine(db: Writer) -> None:
    for text, params in (
        ("INSERT INTO t (id, n) VALUES ($1, 3), (2, DEFAULT)", [1]),
        ("INSERT INTO t (id, n) VALUES (1, 3) ON CONFLICT (id) DO UPDATE SET n = t.n + 1 RETURNING n", []),
        ("UPDATE t SET n = n + 1, name = $1 WHERE id = 1", ["a"]),
        ("DELETE FROM t WHERE id = 2", []),
    ):
        assert db.plan(text, params).keyed, text
        db.write(text, params, inside=True)
    assert not db.plan("UPDATE t SET name = repeat(name, 2) WHERE id = 1").keyed
    assert not db.plan("INSERT INTO t (id) SELECT 1").keyed
    assert not db.plan("DELETE FROM t WHERE n = 1").keyed


# --- checks by query --------------------------------------------------------------------------------------------------


def test_checks_that_need_the_query_engine(db: Writer) -> None:
    db.run("CREATE TABLE c (a TEXT PRIMARY KEY CHECK (regexp_matches(a, '^[a-z]+$')), n INT)")
    assert not db.plan("INSERT INTO c VALUES ('abc', 1)").keyed
    db.write("INSERT INTO c VALUES ('abc', 1)")
    fails(db, "INSERT INTO c VALUES ('x', 1), ('A1', 1)", "row 2 violates constraint 'c_a_check'")
    fails(db, "ALTER TABLE c ADD COLUMN b TEXT DEFAULT 'x' CHECK (repeat(b, n) <> 'x')", "row 1", via=db.run)
    db.run("ALTER TABLE c ADD COLUMN b TEXT DEFAULT 'x' CHECK (repeat(b, n) <> 'xx')")
    fails(db, "UPDATE c SET n = 2 WHERE a = 'abc'", "row 1 violates constraint 'c_b_check'")
    fails(db, "CREATE TABLE d (a TEXT CHECK (no_such_function(a)))", "no_such_function", SqlError, via=db.run)
    fails(db, "CREATE TABLE d (a TEXT CHECK (repeat(a, 2)))", "is TEXT, not a condition", via=db.run)
    fails(db, "CREATE TABLE d (a TEXT CHECK (getenv(a) = 'x'))", "getenv", SqlError, via=db.run)


# --- types ------------------------------------------------------------------------------------------------------------

EDGES = [
    ("BOOLEAN", ["TRUE", "false"], [True, False]),
    ("SMALLINT", ["-32768", "32767"], [-32768, 32767]),
    ("INT", ["-2147483648", "2147483647"], [-(2**31), 2**31 - 1]),
    ("BIGINT", ["-9223372036854775808", "9223372036854775807"], [-(2**63), 2**63 - 1]),
    ("FLOAT", ["0.5", "-1e38"], [0.5, -9.999999680285692e37]),
    ("DOUBLE", ["0.1", "-1.7976931348623157e308"], [0.1, -1.7976931348623157e308]),
    ("TEXT", ["''", "'Zürich 🚀 ''quoted'''"], ["", "Zürich 🚀 'quoted'"]),
    (
        "TIMESTAMP",
        ["'1969-12-31T23:59:59.999999'", "'9999-12-31 00:00:00'"],
        ["1969-12-31 23:59:59.999999", "9999-12-31 00:00:00"],
    ),
    ("DATETIME", ["'2020-01-01T00:00:00+02:00'"], ["2019-12-31 22:00:00+00:00"]),
    ("DATE", ["DATE '1900-01-01'", "'0001-01-01'"], ["1900-01-01", "0001-01-01"]),
    ("TIME", ["'00:00:00'", "TIME '23:59:59.999999'"], ["00:00:00", "23:59:59.999999"]),
    ("JSON", ["'{\"a\": [1, null]}'", "'null'"], ['{"a": [1, null]}', "null"]),
    ("BYTES", ["X''", "X'00ff'"], [b"", b"\x00\xff"]),
    ("UUID", ["'00000000-0000-0000-0000-0000000000ff'"], [bytes(15) + b"\xff"]),
    (
        "DECIMAL(38,10)",
        ["-9999999999999999999999999999.9999999999", "0.1"],
        ["-9999999999999999999999999999.9999999999", "0.1000000000"],
    ),
    ("EMBEDDING(3)", ["'[1, -0.5, 1e3]'", "[0, 0, 0]"], [[1.0, -0.5, 1000.0], [0.0, 0.0, 0.0]]),
]


@pytest.mark.parametrize(("kind", "literals", "values"), EDGES)
def test_types_at_their_edges(db: Writer, kind: str, literals: list[str], values: list[object]) -> None:
    db.run(f"CREATE TABLE v (id INT PRIMARY KEY, v {kind}, d {kind} DEFAULT {literals[0]})")
    for number, literal in enumerate(literals):
        db.write(f"INSERT INTO v (id, v) VALUES ({number}, {literal})")
    db.write(f"INSERT INTO v VALUES ({len(literals)}, NULL, NULL)")
    db.write(f"INSERT INTO v (id, v, d) SELECT id + 10, v, d FROM v WHERE id < {len(literals)}")
    db.write("UPDATE v SET d = v WHERE id >= 10")

    def plain(value: object) -> object:
        return value if isinstance(value, (bool, int, float, str, bytes, list, type(None))) else str(value)

    rows = {row["id"]: row for row in db.rows("v")}
    for number, expected in enumerate(values):
        assert plain(rows[number]["v"]) == expected
        assert plain(rows[number]["d"]) == values[0]
        assert plain(rows[number + 10]["v"]) == expected
        assert plain(rows[number + 10]["d"]) == expected
    assert rows[len(values)]["v"] is None
    assert rows[len(values)]["d"] is None


def test_subqueries_that_look_at_the_row(db: Writer) -> None:
    db.run("CREATE TABLE o (id INT PRIMARY KEY, w INT)")
    db.write("INSERT INTO o VALUES (1, 50), (2, 60)")
    db.write("INSERT INTO t (id) VALUES (1), (2)")
    assert db.write("UPDATE t SET n = (SELECT w FROM o WHERE o.id = t.id) + $1 WHERE true", [1]).row_count == 2
    assert db.write("UPDATE t SET n = o.w + $1 FROM o WHERE o.id = t.id", [2]).row_count == 2
    text = "UPDATE t AS q SET name = 'z' WHERE q.id = 1 RETURNING (SELECT w FROM o WHERE o.id = q.id) + $1 AS w"
    assert returned(db.write(text, [3])) == [{"w": 53}]
    text = (
        "INSERT INTO t (id) VALUES (2) ON CONFLICT (id) DO UPDATE SET "
        "n = (SELECT max(w) FROM o WHERE o.id = t.id) + $1 RETURNING n"
    )
    assert returned(db.write(text, [4])) == [{"n": 64}]
    fails(db, "INSERT INTO t (id) VALUES (2) ON CONFLICT (id) DO UPDATE SET n = repeat(nope, 2)", "nope", SqlError)
    fails(db, "UPDATE t SET n = nope + $1 WHERE id = 1", "nope", SqlError, params=[1])
    fails(db, "UPDATE t SET n = o.nope + $1 FROM o WHERE o.id = t.id", "nope", SqlError, params=[1])


def test_infinities_stay_out(db: Writer) -> None:
    db.run("CREATE TABLE f (id INT PRIMARY KEY, d DOUBLE, t TIMESTAMP, a DATE, e EMBEDDING(2))")
    for values in ("d) SELECT 1, 'inf'::DOUBLE", "d) SELECT 1, 'nan'::DOUBLE", "t) SELECT 1, 'infinity'::TIMESTAMP",
                   "a) SELECT 1, '-infinity'::DATE", "e) SELECT 1, ['inf'::FLOAT, 1]::FLOAT[2]"):  # fmt: skip
        fails(db, f"INSERT INTO f (id, {values}", "cannot hold the value", SqlError)
    db.write("INSERT INTO f SELECT 1, 1.5, '2020-01-01'::TIMESTAMP, '2020-01-01'::DATE, [1, 2]::FLOAT[2]")


def test_definitions_and_rows_in_one_transaction(db: Writer) -> None:
    with db.engine.snapshot() as snapshot:
        transaction = Transaction(snapshot)

        def define(text: str) -> str | None:
            (parsed,) = parse_batch(text)
            return ddl.run(parsed.statement, transaction, Context(ADMIN), db.evaluation(ADMIN)).message

        def write(text: str) -> int:
            (parsed,) = parse_batch(text)
            binding = BindContext(transaction.catalog, SystemTables([]), "app", ADMIN.role, db.pool)
            return dml.plan_write(parsed.statement, binding).run(transaction, (), ADMIN, db.services).row_count

        define("CREATE NAMESPACE fresh")
        define("CREATE TABLE fresh.n (id INT PRIMARY KEY)")
        assert write("INSERT INTO fresh.n VALUES (1), (2)") == 2
        assert define("ALTER TABLE fresh.n ADD COLUMN v INT NOT NULL DEFAULT 7") is not None
        assert write("UPDATE fresh.n SET v = v + id WHERE id = 2") == 1
        point = transaction.savepoint()
        define("DROP TABLE fresh.n")
        transaction.rollback_to(point)
        assert write("DELETE FROM fresh.n WHERE id = 1") == 1
        db.commit(transaction.apply)
    with db.engine.snapshot() as snapshot:
        assert snapshot.scan(db.table("n", "fresh"), "").to_pylist() == [{"id": 2, "v": 9}]
    db.run("DROP NAMESPACE fresh")
