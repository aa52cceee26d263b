"""CREATE and DROP VIEW, and what else statements may do with a view."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sql.errors import (
    ExecutionError,
    InvalidParameter,
    InvalidSql,
    PermissionDenied,
    SqlError,
    TableNotFound,
    Unsupported,
)
from sql.identity import Identity
from sql.views import definitions as view_definitions
from storage import StorageEngine, StorageOptions
from storage.check import check
from storage.view_definitions import ViewDef
from tests.sql.topic_world import ANN, BOB, DORA, ROOT, SAM, TopicWorld, topic_world


@pytest.fixture
def db(tmp_path: Path) -> Iterator[TopicWorld]:
    with topic_world(tmp_path) as world:
        world.run(
            "CREATE TABLE orders (id INT PRIMARY KEY, who TEXT, amount DOUBLE) WITH (ACCESS_LEVEL = 'PUBLIC');"
            "CREATE TABLE secret (id INT PRIMARY KEY, x TEXT) WITH (ACCESS_LEVEL = 'DBA');"
            "CREATE USER TABLE notes (id INT PRIMARY KEY, x TEXT);"
            "INSERT INTO orders VALUES (1, 'ann', 10), (2, 'bob', 20), (3, 'ann', 30)"
        )
        yield world


def view_of(db: TopicWorld, name: str, namespace: str = "app") -> ViewDef:
    found = db.engine.catalog.view(namespace, name)
    assert found is not None
    return found


def fails(
    db: TopicWorld, sql: str, message: str, kind: type[SqlError] = ExecutionError, who: Identity = ROOT, *params: object
) -> SqlError:
    with pytest.raises(kind) as caught:
        db.run(sql, *params, who=who)
    assert message in caught.value.message
    return caught.value


def test_messages(db: TopicWorld) -> None:
    assert db.message("CREATE VIEW app.v AS SELECT id FROM orders") == "View app.v created successfully"
    assert db.message("CREATE VIEW IF NOT EXISTS v AS SELECT 1 AS one") == "View app.v already exists (skipped)"
    assert db.message("CREATE OR REPLACE VIEW v AS SELECT who FROM orders") == "View app.v created successfully"
    assert db.message("DROP VIEW app.v", who=DORA) == "View app.v dropped successfully"
    assert db.message("DROP VIEW IF EXISTS app.v") == "View app.v does not exist (skipped)"


def test_a_view_is_kept(tmp_path: Path) -> None:
    with topic_world(tmp_path) as db:
        db.run("CREATE TABLE t (id INT PRIMARY KEY, x TEXT); CREATE VIEW v (a, b) AS SELECT * FROM t WHERE id > 1")
        before = view_of(db, "v")
        assert (before.sql, before.reads) == ('SELECT "id", "x" FROM "app".t WHERE id > 1', (("app", "t"),))
    assert check(tmp_path / "data") == []
    with StorageEngine.open(tmp_path / "data", StorageOptions(map_start=64 << 20, merge=False)) as engine:
        assert engine.catalog.view("app", "v") == before
        assert [view.full_name for view in engine.catalog.views()] == ["app.v"]


def test_stars_are_fixed_when_the_view_is_made(db: TopicWorld) -> None:
    db.run("CREATE VIEW v AS SELECT o.*, 1 AS one FROM orders AS o; CREATE VIEW w AS SELECT * FROM v")
    db.run("ALTER TABLE orders ADD COLUMN more INT DEFAULT 7")
    assert db.rows("SELECT * FROM v WHERE id = 2") == [(2, "bob", 20.0, 1)]
    assert db.rows("SELECT * FROM w WHERE id = 2") == [(2, "bob", 20.0, 1)]
    fails(db, "SELECT more FROM v", "Column not found: 'more'", InvalidSql)


def test_names_mean_the_namespace_of_the_statement(db: TopicWorld) -> None:
    db.run("CREATE VIEW other.v AS SELECT who FROM orders WHERE id = 1", namespace="app")
    assert db.rows("SELECT * FROM v", namespace="other") == [("ann",)]
    assert db.rows("SELECT * FROM other.v", namespace="default") == [("ann",)]


def test_a_common_table_expression_of_the_caller_does_not_reach_into_a_view(db: TopicWorld) -> None:
    db.run("CREATE VIEW v AS SELECT id FROM orders; CREATE VIEW w AS SELECT count(*) AS n FROM orders")
    assert db.rows("WITH orders AS (SELECT 9 AS id) SELECT id FROM v ORDER BY id LIMIT 1") == [(1,)]
    assert db.rows("WITH orders AS (SELECT 9 AS id) SELECT * FROM w") == [(3,)]
    assert db.rows("WITH v AS (SELECT 9 AS id) SELECT * FROM v") == [(9,)]


# --- rights -----------------------------------------------------------------------------------------------------------


def test_a_view_has_the_rights_of_its_caller(db: TopicWorld) -> None:
    db.run("CREATE VIEW s AS SELECT * FROM secret; CREATE VIEW deep AS SELECT count(*) AS n FROM s")
    for name in ("s", "deep"):
        error = fails(db, f"SELECT * FROM {name}", "may not read table 'app.secret'", PermissionDenied, ANN)
        assert "(in view 'app.s')" in error.message
        assert (error.line, error.column) == (1, 15)
        fails(db, f"DESCRIBE {name}", "Permission denied", PermissionDenied, SAM)
        db.run(f"SELECT * FROM {name}", who=DORA)


def test_user_tables_in_a_view_show_the_rows_of_the_caller(db: TopicWorld) -> None:
    db.run("CREATE VIEW v AS SELECT id, upper(x) AS x FROM notes; CREATE VIEW n AS SELECT count(*) AS n FROM notes")
    for number, who in enumerate((ANN, BOB, BOB), start=1):
        db.run("INSERT INTO notes VALUES ($1, $2)", number, who.user, who=who)
    assert db.rows("SELECT * FROM v", who=ANN) == [(1, "ANN")]
    assert db.rows("SELECT n FROM n", who=BOB) == [(2,)]
    assert db.rows("SELECT * FROM v") == []
    assert db.rows("EXECUTE AS USER 'ann' (SELECT * FROM v)") == [(1, "ANN")]


def test_who_defines_views(db: TopicWorld) -> None:
    for who in (ANN, SAM):
        fails(db, "CREATE VIEW v AS SELECT 1 AS a", "managed by the roles dba and system", PermissionDenied, who)
        fails(db, "DROP VIEW IF EXISTS v", "managed by the roles dba and system", PermissionDenied, who)
    fails(db, "CREATE VIEW system.v AS SELECT 1 AS a", "namespace 'system'", PermissionDenied)


def test_only_what_may_be_read_is_listed(db: TopicWorld) -> None:
    db.run("CREATE VIEW v AS SELECT id FROM orders; CREATE VIEW s AS SELECT id FROM secret")
    db.run("CREATE VIEW deep AS SELECT * FROM s; CREATE VIEW u AS SELECT user_id FROM system.users")

    def shown(who: Identity) -> set[str]:
        result = db.run("SHOW TABLES", who=who)
        assert result.table is not None
        return {row["table_name"] for row in result.table.to_pylist() if row["table_type"] == "view"}

    listing = "SELECT table_name FROM information_schema.views WHERE table_schema = 'app' ORDER BY 1"
    assert shown(ANN) == {"v"}
    assert db.rows(listing, who=ANN) == [("v",)]
    assert shown(DORA) == {"v", "s", "deep", "u"}
    assert [name for (name,) in db.rows(listing, who=DORA)] == ["deep", "s", "u", "v"]
    fails(db, "SELECT * FROM app.vv", "Did you mean 'app.v'", TableNotFound, ANN)


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_name_is_a_table_or_a_view(db: TopicWorld) -> None:
    db.run("CREATE VIEW v AS SELECT 1 AS a")
    fails(db, "CREATE TABLE v (id INT PRIMARY KEY)", "Already exists: View app.v already exists")
    fails(db, "CREATE TABLE IF NOT EXISTS v (id INT PRIMARY KEY)", "Already exists: View app.v")
    fails(db, "CREATE VIEW orders AS SELECT 1 AS a", "Already exists: Table app.orders already exists")
    fails(db, "CREATE OR REPLACE VIEW orders AS SELECT 1 AS a", "it is not a view")
    fails(db, "CREATE VIEW v AS SELECT 1 AS a", "Already exists: View app.v already exists")
    fails(db, "DROP TABLE v", "'app.v' is a view")
    fails(db, "DROP TABLE IF EXISTS v", "'app.v' is a view")
    fails(db, "ALTER TABLE v ADD COLUMN b INT", "'app.v' is a view")
    fails(db, "DROP VIEW orders", "'app.orders' is a table")
    fails(db, "DROP VIEW w", "View not found: 'app.w'", TableNotFound)
    fails(db, "CREATE VIEW nowhere.v AS SELECT 1 AS a", "Namespace 'nowhere' does not exist")


def test_dropping_a_namespace_drops_its_views(db: TopicWorld) -> None:
    db.run("CREATE NAMESPACE more; CREATE VIEW more.v AS SELECT 1 AS a")
    fails(db, "DROP NAMESPACE more RESTRICT", "1 view(s)")
    db.run("DROP NAMESPACE more; CREATE NAMESPACE more")
    fails(db, "SELECT * FROM more.v", "Table not found", TableNotFound)


@pytest.mark.parametrize(
    "sql", ["INSERT INTO v VALUES (1)", "UPDATE v SET id = 1 WHERE true", "DELETE FROM v WHERE id = 1"]
)
def test_views_are_read_only(db: TopicWorld, sql: str) -> None:
    db.run("CREATE VIEW v AS SELECT id FROM orders")
    assert fails(db, sql, "views are read only", Unsupported).code == "UNSUPPORTED"


# --- what is refused --------------------------------------------------------------------------------------------------


REFUSED = [
    ("SELECT id, who AS id FROM orders", "called 'id'", InvalidSql),
    ("SELECT * FROM orders JOIN notes ON true", "called 'id'", InvalidSql),
    ("SELECT nothing FROM orders", "Column not found", InvalidSql),
    ("SELECT * FROM nothing", "Table not found", TableNotFound),
    ("SELECT COLUMNS('i.*') FROM orders", "name the columns", Unsupported),
    ("SELECT x.id FROM (SELECT * FROM orders JOIN notes ON true) AS x", "name the columns", Unsupported),
    ("SELECT * RENAME (id AS k) FROM orders", "name the columns", Unsupported),
]


@pytest.mark.parametrize(("query", "message", "kind"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_is_no_view(db: TopicWorld, query: str, message: str, kind: type[SqlError]) -> None:
    fails(db, f"CREATE VIEW v AS {query}", message, kind)
    assert db.engine.catalog.view("app", "v") is None


def test_forms_that_are_refused(db: TopicWorld) -> None:
    fails(db, "CREATE VIEW v AS SELECT id FROM orders WHERE id = $1", "no parameters", InvalidSql, ROOT, 1)
    fails(db, "CREATE VIEW v AS SELECT id FROM orders WHERE id = $1", "missing", InvalidParameter)
    fails(db, "CREATE VIEW v (a, b) AS SELECT 1 AS a", "given 2 columns", InvalidSql)
    fails(db, "CREATE VIEW v (a, a) AS SELECT 1, 2", "called 'a'", InvalidSql)
    fails(db, "CREATE VIEW v (_seq) AS SELECT 1", "reserved")
    fails(db, "CREATE OR REPLACE VIEW IF NOT EXISTS v AS SELECT 1 AS a", "contradict", InvalidSql)
    fails(db, "CREATE VIEW v AS INSERT INTO orders VALUES (1)", "Expected SELECT", InvalidSql)
    fails(db, "CREATE VIEW v", "Expected AS", InvalidSql)
    fails(db, "CREATE MATERIALIZED VIEW v AS SELECT 1 AS a", "MATERIALIZED VIEW is not supported", Unsupported)
    fails(db, "CREATE TEMPORARY VIEW v AS SELECT 1 AS a", "TEMPORARY", Unsupported)
    fails(db, "BEGIN; CREATE VIEW v AS SELECT 1 AS a; COMMIT", "inside BEGIN", Unsupported)


def test_a_view_cannot_read_itself(db: TopicWorld) -> None:
    db.run("CREATE VIEW a AS SELECT id FROM orders; CREATE VIEW b AS SELECT id FROM a")
    fails(db, "CREATE OR REPLACE VIEW a AS SELECT id FROM b", "reads itself", InvalidSql)
    fails(db, "CREATE OR REPLACE VIEW a AS SELECT id FROM a", "reads itself", InvalidSql)
    assert db.rows("SELECT count(*) FROM b") == [(3,)]


def test_views_in_views_are_bounded(db: TopicWorld) -> None:
    db.run("CREATE VIEW v0 AS SELECT DISTINCT id FROM orders")
    for number in range(1, 16):
        db.run(f"CREATE VIEW v{number} AS SELECT DISTINCT id FROM v{number - 1}")
    assert db.rows("SELECT count(*) FROM v15") == [(3,)]
    fails(db, "CREATE VIEW v16 AS SELECT id FROM v15", "more than 16 deep", InvalidSql)
    db.run("CREATE VIEW w0 AS SELECT DISTINCT id FROM orders")
    for number in range(1, 6):
        db.run(f"CREATE VIEW w{number} AS SELECT a.id FROM w{number - 1} AS a JOIN w{number - 1} AS b ON a.id = b.id")
    fails(
        db, "CREATE VIEW w6 AS SELECT a.id FROM w5 AS a JOIN w5 AS b ON a.id = b.id", "more than 100 places", InvalidSql
    )


def test_expressions_in_views_neither_explode_nor_nest_without_end(db: TopicWorld) -> None:
    db.run("CREATE VIEW d0 AS SELECT id, who AS x FROM orders")
    for number in range(1, 9):
        old, new = "yx" if number % 2 == 0 else "xy"
        db.run(f"CREATE VIEW d{number} AS SELECT id, substr({' || '.join(old * 8)}, 1, 2) AS {new} FROM d{number - 1}")
    assert db.rows("SELECT x FROM d8 WHERE id = 1") == [("an",)]
    deep = f"{'(' * 40}{{}}{' + 1)' * 40}"
    db.run(f"CREATE VIEW n1 AS SELECT {deep.format('id')} AS x FROM orders")
    db.run(f"CREATE VIEW n2 AS SELECT {deep.format('x')} AS y FROM n1")
    assert db.rows("SELECT min(y) FROM n2") == [(81,)]
    fails(db, f"CREATE VIEW n3 AS SELECT {deep.format('y')} AS x FROM n2", "nests deeper than 200 levels", InvalidSql)


def test_a_definition_that_changes_meanwhile_is_seen(db: TopicWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = view_definitions.prepare
    table = db.engine.catalog.table("app", "notes")
    assert table is not None

    def slow(*arguments, **named):
        prepared = prepare(*arguments, **named)
        if db.engine.catalog.table("app", "notes") is not None:
            db.engine.commit_sync(lambda writer: writer.drop_table(table.table_id))
        return prepared

    monkeypatch.setattr(view_definitions, "prepare", slow)
    fails(db, "CREATE VIEW v AS SELECT * FROM notes", "Table not found: 'app.notes'", TableNotFound)
    assert db.engine.catalog.view("app", "v") is None


def test_what_a_view_misses_is_said_when_it_is_used(db: TopicWorld) -> None:
    db.run("CREATE VIEW v AS SELECT id, who FROM orders; CREATE VIEW w AS SELECT who FROM v WHERE who = 'ann'")
    db.run("ALTER TABLE orders RENAME COLUMN who TO customer")
    error = fails(db, "SELECT count(*)\nFROM app.w", "Column not found: 'who' (in view 'app.v')", InvalidSql)
    assert (error.line, error.column) == (2, 10)
    fails(db, "SELECT nothing FROM notes JOIN v USING (id)", "(in view 'app.v')", InvalidSql)
    db.run("DROP TABLE orders")
    missing = fails(db, "SELECT * FROM w", "Table not found: 'app.orders'", TableNotFound)
    assert "(in view 'app.v')" in missing.message
    db.run("CREATE OR REPLACE VIEW v AS SELECT id, x AS who FROM notes")
    assert db.rows("SELECT * FROM w") == []


def test_errors_of_the_callers_own_query_keep_their_place(db: TopicWorld) -> None:
    db.run("CREATE VIEW v AS SELECT id, who FROM orders; CREATE VIEW s AS SELECT sum(amount) AS total FROM orders")
    error = fails(db, "SELECT id,\n  nothing FROM v", "Column not found: 'nothing'", InvalidSql)
    assert (error.line, error.column) == (2, 3)
    assert "view" not in error.message
    error = fails(db, "SELECT total,\n  amount FROM s", "Column not found: 'amount'", InvalidSql)
    assert (error.line, error.column) == (2, 3)


def test_streams_in_views_stay_out_of_transactions(db: TopicWorld) -> None:
    db.run("CREATE STREAM TABLE ticks (n INT) WITH (TTL_SECONDS = 60); CREATE VIEW v AS SELECT n FROM ticks")
    db.run("CREATE VIEW w AS SELECT count(*) AS n FROM v")
    for name in ("v", "w"):
        fails(db, f"BEGIN; SELECT * FROM {name}; COMMIT", "STREAM tables cannot be used inside BEGIN", Unsupported)


# --- plans ------------------------------------------------------------------------------------------------------------


def plan(db: TopicWorld, sql: str, who: Identity = ROOT) -> str:
    return "\n".join(str(row[0]) for row in db.rows(f"EXPLAIN {sql}", who=who))


def test_a_simple_view_is_read_by_key(db: TopicWorld) -> None:
    db.run(
        "CREATE VIEW v AS SELECT id AS k, who, amount FROM orders; CREATE VIEW w AS SELECT k FROM v WHERE amount > 5"
    )
    assert "path: point read" in plan(db, "SELECT * FROM v WHERE k = 1")
    assert "key: id = 1" in plan(db, "SELECT k FROM w AS x WHERE x.k = 1")
    assert "path: native scan" in plan(db, "SELECT who FROM v ORDER BY k")
    assert "path: duckdb" in plan(db, "SELECT who, sum(amount) FROM v GROUP BY who")


def test_a_plan_ends_with_its_view(db: TopicWorld) -> None:
    db.run("CREATE VIEW v AS SELECT id, who FROM orders")
    for _ in range(3):  # the second run makes the statement hot, the third one is
        assert db.rows("SELECT who FROM v WHERE id = $1", 1) == [("ann",)]
    db.run("CREATE OR REPLACE VIEW v AS SELECT id, upper(who) AS who FROM orders")
    for _ in range(3):
        assert db.rows("SELECT who FROM v WHERE id = $1", 1) == [("ANN",)]
    db.run("DROP VIEW v")
    fails(db, "SELECT who FROM v WHERE id = $1", "Table not found", TableNotFound, ROOT, 1)


def test_dml_reads_views(db: TopicWorld) -> None:
    db.run(
        "CREATE VIEW v AS SELECT id + 10 AS id, who FROM orders; CREATE VIEW big AS SELECT max(id) AS id FROM orders"
    )
    db.run("INSERT INTO orders (id, who) SELECT * FROM v")
    db.run("UPDATE orders SET who = 'new' WHERE id IN (SELECT id FROM big)")
    db.run("DELETE FROM orders WHERE id IN (SELECT id FROM v WHERE who = 'bob')")
    assert db.rows("SELECT id, who FROM orders") == [(1, "ann"), (2, "bob"), (3, "ann"), (11, "ann"), (13, "new")]


# --- the catalogue ----------------------------------------------------------------------------------------------------


def test_the_catalogue_shows_views(db: TopicWorld) -> None:
    db.run("CREATE VIEW v (k, n) AS SELECT who, count(*) FROM orders GROUP BY who")
    assert db.rows("SELECT table_type, version FROM system.tables WHERE table_name = 'v'") == [("view", 1)]
    assert db.rows("SELECT column_name, data_type, ordinal FROM system.columns WHERE table_name = 'v'") == [
        ("k", "TEXT", 1), ("n", "BIGINT", 2),
    ]  # fmt: skip
    [(columns, options)] = db.rows("SELECT columns, options FROM system.schemas WHERE table_name = 'v' AND is_latest")
    assert [column["column_name"] for column in json.loads(columns)] == ["k", "n"]
    assert json.loads(options)["DEFINITION"].startswith("SELECT who")
    assert [row[:4] for row in db.rows("DESCRIBE v", who=ANN)] == [("k", 1, 1, "TEXT"), ("n", 2, 2, "BIGINT")]
    assert db.rows("SHOW COLUMNS FROM v") == db.rows("DESCRIBE TABLE app.v HISTORY")
    fails(db, "SHOW STATS FOR TABLE v", "is a view", InvalidSql)


def test_types_follow_the_table(db: TopicWorld) -> None:
    db.run("CREATE VIEW v AS SELECT id FROM orders; CREATE VIEW w AS SELECT id FROM v")
    db.run("ALTER TABLE orders MODIFY COLUMN id BIGINT")
    assert [row[3] for name in ("v", "w") for row in db.rows(f"DESCRIBE {name}")] == ["BIGINT", "BIGINT"]
