"""Definitions of vector indexes, their life over restarts, and whose rows a search shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sql.errors import ExecutionError, InvalidSql, PermissionDenied, SqlError, TableNotFound, Unsupported
from tests.sql.vectors.sql_world import ADMIN, ALICE, BASE, BOB, SERVICE, Sql


@pytest.fixture
def sql(tmp_path: Path) -> Iterator[Sql]:
    made = Sql(tmp_path)
    yield made
    made.close()


def test_explain_names_an_index_that_waits_for_rows(sql: Sql) -> None:
    sql.run("CREATE TABLE app.few (id INT PRIMARY KEY, kind TEXT, v EMBEDDING(12) NOT NULL)")
    sql.insert("app.few", BASE[:5])
    sql.run("CREATE VECTOR INDEX near ON app.few (v)")
    text = "SELECT id FROM app.few ORDER BY COSINE_DISTANCE(v, $1) LIMIT 3"
    assert "(5 rows; near is used from 300 on)" in sql.plan(text, BASE[0].tolist())
    assert len(sql.rows(text, BASE[0].tolist())) == 3


def test_row_ids_of_all_keys(sql: Sql) -> None:
    cases = [
        ("a UUID", "'0190a5d0-0000-7000-8000-00000000000a'", "0190a5d0-0000-7000-8000-00000000000a"),
        ("a TEXT", "'x y'", "x y"),
        ("a TIMESTAMP", "'2026-01-02 03:04:05.000006'", "2026-01-02 03:04:05.000006"),
        ("a DATE", "'2026-01-02'", "2026-01-02"),
        ("a DECIMAL(10, 2)", "12.50", "12.50"),
        ("a BOOLEAN", "true", "true"),
        ("a BYTES", "'\\x0aff'", "\\x0aff"),
        ("a BIGINT", "9007199254740993", "9007199254740993"),
    ]
    for number, (column, value, shown) in enumerate(cases):
        table = f"app.k{number}"
        sql.run(f"CREATE SHARED TABLE {table} ({column} PRIMARY KEY, v EMBEDDING(2))")
        sql.run(f"INSERT INTO {table} VALUES ({value}, '[1, 2]')")
        assert sql.rows(f"SELECT row_id FROM vector_search('{table}', 'v', '[1, 2]')") == [(shown,)]
        if "BYTES" not in column:
            join = f"SELECT count(*) FROM vector_search('{table}', 'v', '[1, 2]') s JOIN {table} t ON t.a = s.row_id"
            assert sql.rows(join) == [(1,)], column
    sql.run("CREATE SHARED TABLE app.two (a TEXT, b INT, v EMBEDDING(2), PRIMARY KEY (a, b))")
    sql.run("""INSERT INTO app.two VALUES ('q"', 7, '[1, 2]')""")
    assert sql.rows("SELECT row_id FROM vector_search('app.two', 'v', '[1, 2]')") == [('["q\\"","7"]',)]
    sql.run("CREATE SHARED TABLE app.none (v EMBEDDING(2))")
    sql.run("INSERT INTO app.none VALUES ('[1, 2]')")
    [(row_id,)] = sql.rows("SELECT row_id FROM vector_search('app.none', 'v', '[1, 2]')")
    assert sql.rows(f"SELECT _seq FROM app.none WHERE _seq = {row_id}") == [(int(row_id),)]


# --- definitions -----------------------------------------------------------------------------------------------------


def test_messages_of_definitions(sql: Sql) -> None:
    sql.run("CREATE TABLE app.t (id INT PRIMARY KEY, e EMBEDDING(3), f EMBEDDING(3), name TEXT)")
    assert (
        sql.message("ALTER TABLE app.t CREATE VECTOR INDEX e USING COSINE")
        == "Vector index enabled on app.t.e (Cosine)"
    )
    assert sql.message("ALTER TABLE app.t CREATE INDEX f USING DOT") == "Vector index enabled on app.t.f (Dot)"
    assert sql.message("ALTER TABLE app.t DROP INDEX f") == "Vector index disabled on app.t.f"
    assert sql.message("CREATE VECTOR INDEX near ON app.t (f) USING L2") == "Vector index enabled on app.t.f (L2)"
    assert "skipped" in sql.message("CREATE VECTOR INDEX IF NOT EXISTS near ON app.t (f)")
    assert sql.message("DROP VECTOR INDEX near ON app.t") == "Vector index disabled on app.t.f"
    assert sql.message("DROP VECTOR INDEX IF EXISTS near") == "Vector index app.near does not exist (skipped)"
    assert sql.message("ALTER TABLE app.t DROP VECTOR INDEX e") == "Vector index disabled on app.t.e"
    assert sql.message("ALTER TABLE app.t DROP VECTOR INDEX IF EXISTS e") == (
        "Vector index on column 'e' does not exist (skipped)"
    )


@pytest.mark.parametrize(
    ("text", "error", "part"),
    [
        ("ALTER TABLE app.t CREATE VECTOR INDEX name", ExecutionError, "'name' of app.t is TEXT"),
        ("ALTER TABLE app.t CREATE VECTOR INDEX nope", ExecutionError, "'nope' does not exist"),
        ("ALTER TABLE app.t CREATE VECTOR INDEX e", ExecutionError, r"has the vector index app_e \(Cosine\)"),
        ("CREATE VECTOR INDEX app_e ON app.t (f)", ExecutionError, "Namespace 'app' has a vector index app_e"),
        ("CREATE VECTOR INDEX ON app.t (e, f)", InvalidSql, "on one column"),
        ("CREATE VECTOR INDEX ON app.t (f) USING HNSW", InvalidSql, "not a distance"),
        ("CREATE VECTOR INDEX ON app.s (e)", ExecutionError, "not on a STREAM table"),
        ("CREATE VECTOR INDEX ON app.missing (e)", TableNotFound, "app.missing"),
        ("CREATE VECTOR INDEX ON system.users (e)", PermissionDenied, "system table"),
        ("DROP VECTOR INDEX nope", ExecutionError, "Vector index 'app.nope' does not exist"),
        ("ALTER TABLE app.t DROP VECTOR INDEX f", ExecutionError, "has no vector index"),
        ("ALTER TABLE app.t MODIFY COLUMN e EMBEDDING(4)", ExecutionError, "has a vector index"),
        ("BEGIN; CREATE VECTOR INDEX ON app.t (f); COMMIT", Unsupported, "outside"),
    ],
)
def test_refused_definitions(sql: Sql, text: str, error: type[SqlError], part: str) -> None:
    sql.run("CREATE TABLE app.t (id INT PRIMARY KEY, e EMBEDDING(3), f EMBEDDING(3), name TEXT)")
    sql.run("CREATE STREAM TABLE app.s (e EMBEDDING(3)) WITH (TTL_SECONDS = 60)")
    sql.run("CREATE VECTOR INDEX app_e ON app.t (e)")
    before = sql.engine.catalog.table("app", "t")
    with pytest.raises(error, match=part):
        sql.run(text)
    assert sql.engine.catalog.table("app", "t") == before


def test_an_index_goes_with_its_column_and_survives_a_new_name(sql: Sql) -> None:
    sql.run("CREATE TABLE app.t (id INT PRIMARY KEY, e EMBEDDING(3))")
    sql.run("CREATE VECTOR INDEX near ON app.t (e)")
    sql.run("ALTER TABLE app.t RENAME COLUMN e TO f")
    assert "near is used from" in sql.plan("SELECT id FROM app.t ORDER BY COSINE_DISTANCE(f, '[1, 2, 3]') LIMIT 1")
    sql.run("ALTER TABLE app.t DROP COLUMN f")
    assert sql.engine.catalog.table("app", "t").vector_indexes == ()


def test_an_index_works_after_a_restart(sql: Sql) -> None:
    sql.run("CREATE SHARED TABLE app.t (id INT PRIMARY KEY, kind TEXT, v EMBEDDING(12))")
    sql.run("CREATE VECTOR INDEX near ON app.t (v)")
    sql.insert("app.t", BASE[:400])
    assert sql.build("app.t") == "400 rows in 1 partition(s)"
    sql.close()
    sql.open()
    sql.insert("app.t", BASE[400:420], 400)
    sql.run("DELETE FROM app.t WHERE id = 17")
    text = "SELECT id FROM app.t ORDER BY COSINE_DISTANCE(v, $1) LIMIT 1"
    assert "vector index: near" in sql.plan(text, BASE[0].tolist())
    assert sql.rows(text, BASE[410].tolist()) == [(410,)]
    assert sql.rows(text, BASE[3].tolist()) == [(3,)]
    assert sql.rows(text, BASE[17].tolist()) != [(17,)]


def test_the_background_builds_and_follows(sql: Sql) -> None:
    """Nobody drives it: the statement asks for the index, commits bring it rows."""
    sql.run("CREATE SHARED TABLE app.t (id INT PRIMARY KEY, kind TEXT, v EMBEDDING(12))")
    sql.insert("app.t", BASE[:400])
    sql.run("CREATE VECTOR INDEX near ON app.t (v)")

    async def until_done(sql: Sql, job: str) -> None:
        while True:
            [result] = await sql.database.execute(job, (), "app", ADMIN)
            [row] = result.table.to_pylist()
            if row["status"] == "completed":
                assert "app.t" in row["parameters"]
                assert row["message"] == "400 rows in 1 partition(s)"
                return
            await asyncio.sleep(0.02)

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.02)

    def held() -> list[int]:
        return [len(index) for index in sql.database.vectors._indexes.residents().values()]

    sql.loop.run_until_complete(until(lambda: held() == [400]))
    job = "SELECT job_type, status, parameters, message FROM system.jobs WHERE job_type = 'vector_index'"
    sql.loop.run_until_complete(until_done(sql, job))
    sql.insert("app.t", BASE[400:500], 400)
    sql.loop.run_until_complete(until(lambda: held() == [500]))
    sql.run("DROP VECTOR INDEX near")
    sql.loop.run_until_complete(until(lambda: held() == [] and not list((sql.folder / "vectors").rglob("*.json"))))


# --- rights ----------------------------------------------------------------------------------------------------------


def test_nobody_finds_rows_of_another_user(sql: Sql) -> None:
    sql.run("CREATE USER TABLE app.notes (id INT PRIMARY KEY, kind TEXT, v EMBEDDING(12))")
    sql.run("CREATE VECTOR INDEX near ON app.notes (v)")
    sql.insert("app.notes", BASE[:350], who=ALICE)
    sql.insert("app.notes", BASE[350:700], 350, who=BOB)
    sql.insert("app.notes", BASE[700:705], 700)
    assert sql.build("app.notes") == "700 rows in 2 partition(s)"
    own = {ALICE: set(range(350)), BOB: set(range(350, 700)), ADMIN: set(range(700, 705))}
    for who, ids in own.items():
        for query in BASE[::97]:
            for text in (
                "SELECT id FROM app.notes ORDER BY COSINE_DISTANCE(v, $1) LIMIT 5",
                "SELECT id FROM app.notes WHERE id >= 0 ORDER BY COSINE_DISTANCE(v, $1) LIMIT 5",
                "SELECT row_id::INT FROM vector_search('app.notes', 'v', $1, 5)",
            ):
                found = {row[0] for row in sql.rows(text, query.tolist(), who=who)}
                assert len(found) == 5
                assert found <= ids
    assert sql.rows("SELECT * FROM vector_search('app.notes', 'v', $1)", BASE[0].tolist(), who=SERVICE) == []
    [result] = sql.run(
        "EXECUTE AS USER 'alice' (SELECT row_id::INT AS id FROM vector_search('app.notes', 'v', $1, 350))",
        BASE[400].tolist(),
    )
    assert set(result.table.column("id").to_pylist()) == own[ALICE]


def test_shared_tables_by_their_access_level(sql: Sql) -> None:
    search = "SELECT row_id FROM vector_search('app.{}', 'v', '[1, 2]')"
    for level, readers in {
        "PUBLIC": {ALICE, SERVICE, ADMIN},
        "PRIVATE": {SERVICE, ADMIN},
        "RESTRICTED": {SERVICE, ADMIN},
        "DBA": {ADMIN},
    }.items():
        table = f"s_{level.lower()}"
        sql.run(f"CREATE SHARED TABLE app.{table} (id INT PRIMARY KEY, v EMBEDDING(2)) WITH (ACCESS_LEVEL = '{level}')")
        sql.run(f"INSERT INTO app.{table} VALUES (1, '[1, 2]')")
        for who in (ALICE, SERVICE, ADMIN):
            if who in readers:
                assert sql.rows(search.format(table), who=who) == [("1",)]
            else:
                with pytest.raises(PermissionDenied, match="may not read"):
                    sql.rows(search.format(table), who=who)


def test_a_view_searches_for_its_caller(sql: Sql) -> None:
    sql.run("CREATE USER TABLE app.notes (id INT PRIMARY KEY, kind TEXT, v EMBEDDING(12))")
    ones = [1.0] * 12
    sql.run(f"CREATE VIEW app.near AS SELECT row_id FROM vector_search('app.notes', 'v', '{ones}')")
    sql.insert("app.notes", BASE[:3], who=ALICE)
    sql.insert("app.notes", BASE[3:5], 3, who=BOB)
    assert {row[0] for row in sql.rows("SELECT * FROM app.near", who=ALICE)} == {"0", "1", "2"}
    assert {row[0] for row in sql.rows("SELECT * FROM app.near", who=BOB)} == {"3", "4"}


def test_who_may_define_indexes(sql: Sql) -> None:
    sql.run("CREATE SHARED TABLE app.shared (id INT PRIMARY KEY, v EMBEDDING(2)) WITH (ACCESS_LEVEL = 'PUBLIC')")
    sql.run("CREATE SHARED TABLE app.closed (id INT PRIMARY KEY, v EMBEDDING(2)) WITH (ACCESS_LEVEL = 'DBA')")
    for text in (
        "CREATE VECTOR INDEX mine ON app.shared (v)",
        "ALTER TABLE app.closed CREATE VECTOR INDEX v",
        "CREATE VECTOR INDEX IF NOT EXISTS mine ON app.closed (v)",
    ):
        with pytest.raises(PermissionDenied):
            sql.run(text, who=ALICE)
    sql.run("CREATE VECTOR INDEX hidden ON app.closed (v)")
    sql.run("CREATE VECTOR INDEX seen ON app.shared (v)")
    for name in ("hidden", "seen"):
        with pytest.raises(PermissionDenied):
            sql.run(f"DROP VECTOR INDEX {name}", who=ALICE)
    assert sql.message("DROP VECTOR INDEX seen", who=SERVICE) == "Vector index disabled on app.shared.v"
