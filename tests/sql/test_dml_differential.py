"""Random sequences of INSERT, UPDATE, DELETE and upserts leave the same rows as in DuckDB, and fail alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from write_support import ADMIN, QUIET, Writer

from sql.duck import DuckPool
from sql.errors import SqlError
from storage import StorageEngine
from storage.transaction import Transaction

DDL = (
    "CREATE TABLE {} (id INTEGER PRIMARY KEY, a INTEGER, b VARCHAR DEFAULT 'dflt', c DOUBLE NOT NULL DEFAULT 1.5, "
    "u INTEGER UNIQUE, CHECK (a < 50))"
)
NAMES = itertools.count()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageEngine]:
    with StorageEngine.open(Path(tmp_path_factory.mktemp("diff")) / "data", QUIET) as opened:
        yield opened


@pytest.fixture(scope="module")
def db(engine: StorageEngine) -> Iterator[Writer]:
    pool = DuckPool()
    yield Writer(engine, pool)
    pool.close()


ids = st.integers(0, 7)
small = st.one_of(st.none(), st.integers(-3, 60))
texts = st.sampled_from(["NULL", "''", "'x'", "'Straße'", "'a''b'", "DEFAULT"])
doubles = st.sampled_from(["0", "-1.25", "2", "1e3", "DEFAULT", "NULL"])
uniques = st.one_of(st.none(), st.integers(0, 9))


def sql(value: object) -> str:
    return "NULL" if value is None else str(value)


rows = st.tuples(ids, small, texts, doubles, uniques)


def values(found: list[tuple]) -> str:
    return ", ".join(f"({i}, {sql(a)}, {b}, {c}, {sql(u)})" for i, a, b, c, u in found)


conditions = st.sampled_from([
    "true", "id = 3", "id = 3 AND a > 2", "5 = id", "id IN (1, 2, 9)", "a IS NULL", "a > 10 OR b = 'x'",
    "NOT (a > 10)", "b LIKE '%a%'", "c > a", "id BETWEEN 2 AND 4", "a = (SELECT max(a) FROM {t})", "length(b) > 2",
    "coalesce(a, id) % 2 = 0", "id > 100",
])  # fmt: skip
setters = st.sampled_from([
    "a = a + 1", "a = id * 2, c = c / 2", "b = upper(b)", "b = DEFAULT", "a = NULL", "c = a", "c = NULL",
    "b = b || '-' || id", "a = (SELECT count(*) FROM {t})", "a = CASE WHEN a IS NULL THEN 0 ELSE a END",
    "a = a, b = 'same'", "u = u + 1", "u = 5", "u = NULL", "b = repeat(b, 2)", "a = c", "a = a * 3, c = a",
])  # fmt: skip
upserts = st.sampled_from([
    "", " ON CONFLICT (id) DO NOTHING",
    " ON CONFLICT (id) DO UPDATE SET a = EXCLUDED.a", " ON CONFLICT (id) DO UPDATE SET a = {t}.a + EXCLUDED.a, c = 7",
    " ON CONFLICT (id) DO UPDATE SET b = EXCLUDED.b || '+' WHERE {t}.a > EXCLUDED.a",
    " ON CONFLICT (id) DO UPDATE SET b = repeat(EXCLUDED.b, 2)",
])  # fmt: skip

inserts = st.builds(lambda found: f"INSERT INTO {{t}} VALUES {values(found)}", st.lists(rows, min_size=1, max_size=4))
# Keys of one statement differ (with equal ones DuckDB's DO NOTHING leaves out other rows, too), and each row
# keeps NOT NULL and CHECK (DuckDB looks at conflicts first, PostgreSQL and Headrace at these).
upserting = st.builds(
    lambda found, upsert: f"INSERT INTO {{t}} VALUES {values(found)}{upsert}",
    st.lists(
        rows.filter(lambda row: row[3] != "NULL" and (row[1] or 0) < 50),
        min_size=1,
        max_size=4,
        unique_by=(lambda row: row[0], lambda row: row[0] if row[4] is None else ~row[4]),
    ),
    upserts,
)
partial = st.builds(lambda i, a: f"INSERT INTO {{t}} (a, id) VALUES ({sql(a)}, {i})", ids, small)
copies = st.builds(
    lambda k, where, upsert: f"INSERT INTO {{t}} (id, a, b) SELECT id + {k}, a, b FROM {{t}} WHERE {where}{upsert}",
    st.integers(0, 9), conditions, upserts,
)  # fmt: skip
updates = st.builds(lambda sets, where: f"UPDATE {{t}} SET {sets} WHERE {where}", setters, conditions)
deletes = st.builds(lambda where: f"DELETE FROM {{t}} WHERE {where}", conditions)
statements = st.lists(
    st.one_of(inserts, upserting, partial, copies, updates, updates, deletes), min_size=2, max_size=10
)


def in_duckdb(connection: duckdb.DuckDBPyConnection, text: str) -> bool:
    try:
        connection.sql(text)
    except duckdb.Error:
        return False
    return True


def contents(found: list[tuple]) -> list[tuple]:
    return sorted(found, key=lambda row: row[0])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(script=statements, mode=st.sampled_from(["snapshot", "writer", "transaction"]))
def test_same_as_duckdb(db: Writer, script: list[str], mode: str) -> None:
    name = f"t{next(NAMES)}"
    db.run(DDL.format(name))
    with duckdb.connect(":memory:") as duck, db.engine.snapshot() as snapshot:
        duck.execute("SET integer_division = true")
        duck.execute(DDL.format(name)).fetchall()
        transaction = Transaction(snapshot)
        for text in (statement.replace("{t}", name) for statement in script):
            point = transaction.savepoint()
            try:
                if mode == "transaction":
                    db.plan(text).run(transaction, (), ADMIN, db.services)
                else:
                    db.write(text, inside=mode == "writer")
                ours = True
            except SqlError as error:
                ours = False
                refusal = error
                transaction.rollback_to(point)
                if "cannot affect a row twice" in error.message:
                    continue  # as in PostgreSQL; DuckDB takes the last row
            theirs = in_duckdb(duck, text)
            assert ours == theirs, (text, None if ours else refusal)
            view = transaction if mode == "transaction" else None
            expected = duck.sql(f"SELECT * FROM {name}").fetchall()
            assert contents(db.select(f"SELECT * FROM {name}", view=view)) == contents(expected), text
        if mode == "transaction":
            db.commit(transaction.apply)
            assert contents(db.select(f"SELECT * FROM {name}")) == contents(expected)
    db.run(f"DROP TABLE {name}")
