"""Promise 5, as non-interference: what one user sees does not depend on what another one's rows hold.

Two databases are alike but for the rows of alice (as many, under the same keys, with other contents). Whatever bob
sends, both answer him the same, to the letter, errors and plans included; and no answer contains a word of hers.
Statements are generated: CTEs, subqueries, set operations, joins, INSERT … SELECT, UPDATE, DELETE, upserts, EXPLAIN,
SHOW, system tables, broken ones.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sql.database import Database
from sql.errors import SqlError
from sql.identity import Identity, Role
from sql.limits import SqlLimits
from sql.rendering import encode_error, encode_success
from storage.catalog import NamespaceDef
from storage.engine import StorageEngine
from storage.writer import WriteTransaction

ADMIN = Identity("admin", Role.DBA)
ALICE = Identity("alice", Role.USER)
BOB = Identity("bob", Role.USER)

SECRET = re.compile(rb"(?i)s3cret")
IDS = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
TIMES = re.compile(rb"(?<=[\[, ])1[78]\d{14}(?=[\], ])|\b\d+(\.\d+)?(?= ms\b)")
NAMED = re.compile(rb"(?<=convert string )'b\d+'")

SET_UP = """
CREATE USER TABLE app.notes (id INT PRIMARY KEY, body TEXT UNIQUE, n INT DEFAULT 0 CHECK (n < 1000));
CREATE USER TABLE app.tags (note INT, tag TEXT, PRIMARY KEY (note, tag));
CREATE USER TABLE app.log (line TEXT);
CREATE STREAM TABLE app.live (id INT PRIMARY KEY, body TEXT, n INT) WITH (TTL_SECONDS = 3600);
CREATE TABLE app.rooms (id INT PRIMARY KEY, name TEXT) WITH (ACCESS_LEVEL = 'PUBLIC');
CREATE TABLE app.hidden (id INT PRIMARY KEY, body TEXT);
INSERT INTO app.rooms VALUES (1, 'hall'), (2, 'attic')
"""


def _name_spaces(writer: WriteTransaction) -> None:
    for name in ("default", "app"):
        writer.put_namespace(NamespaceDef(name))


class World:
    """One database with alice's rows in it."""

    def __init__(self, folder: Path, flavour: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.engine = StorageEngine.open(folder)
        self.engine.commit_sync(_name_spaces)
        self.database = self.loop.run_until_complete(self._open())
        self.must(SET_UP, ADMIN)
        self.must(f"INSERT INTO app.hidden VALUES (1, 's3cret-{flavour}')", ADMIN)
        number = 1 if flavour == "x" else 7
        for key in range(6):
            self.must(f"INSERT INTO app.notes VALUES ({key}, 's3cret-{flavour}-{key}', {key * number})", ALICE)
            self.must(f"INSERT INTO app.tags VALUES ({key}, 's3cret-{flavour}')", ALICE)
            self.must(f"INSERT INTO app.log VALUES ('s3cret-{flavour}-{key}')", ALICE)
            self.must(f"INSERT INTO app.live VALUES ({key}, 's3cret-{flavour}-{key}', {key * number})", ALICE)

    async def _open(self) -> Database:
        return Database(self.engine, SqlLimits(statement_timeout=20))

    def must(self, sql: str, identity: Identity) -> None:
        self.loop.run_until_complete(self.database.execute(sql, None, "app", identity))

    def answer(self, sql: str, params: list[Any] | None, identity: Identity) -> bytes:
        try:
            results = self.loop.run_until_complete(self.database.execute(sql, params, "app", identity))
            return encode_success(results, 1.0)
        except SqlError as error:
            return encode_error(error, 1.0)

    def close(self) -> None:
        self.database.close()
        self.engine.close()
        self.loop.close()


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, World]]:
    pair = World(tmp_path_factory.mktemp("x"), "x"), World(tmp_path_factory.mktemp("y"), "y")
    yield pair
    for world in pair:
        world.close()


tables = st.sampled_from(["notes", "app.notes", "tags", "log", "rooms", "hidden", "notes AS n2", "app.tags t", "live"])
scalars = st.sampled_from([
    "*", "COUNT(*)", "id", "body", "n", "tag", "line", "_seq", "CURRENT_USER()", "MAX(body)",
    "string_agg(body, ',' ORDER BY body)",
    "n + 1", "upper(body)", "list(body ORDER BY body)", "row_number() OVER (ORDER BY n, body)", "hash(body)",
])  # fmt: skip
numbers = st.integers(0, 7)
conditions = st.one_of(
    st.builds(lambda n: f"id = {n}", numbers),
    st.builds(lambda n: f"note >= {n}", numbers),
    st.builds(lambda n: f"n BETWEEN {n} AND 50", numbers),
    st.sampled_from([
        "true", "1 = 1 OR id = 1", "body LIKE 's%'", "body IS NOT NULL", "EXISTS (SELECT 1 FROM tags WHERE note = id)",
        "id IN (SELECT note FROM tags)", "body = (SELECT MAX(body) FROM notes)", "'alice' = CURRENT_USER()",
        "n / (id - id) > 0", "CAST(body AS INT) = 1", "_seq > 0",
    ]),
)  # fmt: skip
selects = st.builds(lambda what, table, where: f"SELECT {what} FROM {table} WHERE {where}", scalars, tables, conditions)
queries = st.one_of(
    selects,
    st.builds("SELECT {} FROM {}".format, scalars, tables),
    st.builds("WITH c AS ({}) SELECT * FROM c".format, selects),
    st.builds("SELECT * FROM ({}) AS q".format, selects),
    st.builds("{} UNION ALL {}".format, selects, selects),
    st.builds("SELECT a.id, b.* FROM notes a LEFT JOIN {} ON true".format, tables),
    st.builds("SELECT (SELECT COUNT(*) FROM {}) AS c".format, tables),
    st.sampled_from([
        "SELECT * FROM alice.notes", "SELECT * FROM notes@alice", 'SELECT * FROM "alice"."notes"',
        "SELECT * FROM __s0", "SELECT * FROM system.users", "SELECT * FROM system.tables", "SELECT * FROM system.stats",
        "SELECT * FROM information_schema.tables", "SELECT * FROM information_schema.columns",
        "SELECT * FROM duckdb_tables()", "SELECT * FROM pg_catalog.pg_class", "SHOW TABLES", "SHOW COLUMNS FROM notes",
        "SHOW STATS FOR TABLE notes",
        "SHOW STATS FOR TABLE live", "DESCRIBE TABLE live", "DESCRIBE TABLE notes",
        "DESCRIBE TABLE hidden", "SHOW NAMESPACES",
        "EXECUTE AS USER 'alice' (SELECT * FROM notes)", "SELECT * FROM query_table('notes')",
    ]),
)  # fmt: skip
writes = st.one_of(
    st.builds(lambda k, n: f"INSERT INTO notes VALUES ({k}, 'b{n}', {n})", numbers, numbers),
    st.builds(
        lambda k, n: f"INSERT INTO notes (id, body) VALUES ({k}, 'b{n}') ON CONFLICT (id) "
        "DO UPDATE SET n = notes.n + 1, body = EXCLUDED.body RETURNING *",
        numbers, numbers,
    ),
    st.builds(lambda k: f"INSERT INTO notes (id, body) VALUES ({k}, 'z') ON CONFLICT DO NOTHING RETURNING id", numbers),
    st.builds("INSERT INTO log {}".format, st.sampled_from(["SELECT body FROM notes", "SELECT tag FROM tags"])),
    st.builds(lambda k, n: f"INSERT INTO live VALUES ({k}, 'b{n}', {n})", numbers, numbers),
    st.builds("INSERT INTO live SELECT id, body, n FROM {} WHERE {} RETURNING *".format,
              st.sampled_from(["notes", "live"]), conditions),
    st.builds("INSERT INTO tags SELECT id, body FROM notes WHERE {} RETURNING *".format, conditions),
    st.builds("UPDATE notes SET n = n + 1 WHERE {} RETURNING *".format, conditions),
    st.builds("UPDATE notes SET body = (SELECT MAX(line) FROM log) WHERE {}".format, conditions),
    st.builds("DELETE FROM {} WHERE {} RETURNING *".format,
              st.sampled_from(["notes", "tags", "hidden", "live"]), conditions),
    st.builds("BEGIN; {}; UPDATE notes SET n = 0 WHERE true; SELECT * FROM notes; ROLLBACK".format, selects),
)  # fmt: skip
statements = st.one_of(
    queries,
    writes,
    st.builds("EXPLAIN {}".format, st.one_of(queries, writes)),
    st.builds("EXPLAIN ANALYZE {}".format, selects),
)


def unordered(answer: bytes) -> object:
    """An answer without ids and times, its rows in an order of their own: SQL promises none here.

    Nor does it say which row of BOB's an error names; a row of another user's would be found by `SECRET`.
    """
    body = json.loads(NAMED.sub(b"'b'", TIMES.sub(b"0", IDS.sub(b"", answer))))
    for result in body["results"]:
        if "rows" in result:
            result["rows"].sort(key=json.dumps)
    return body


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(statements, min_size=1, max_size=4))
def test_no_statement_depends_on_another_users_rows(worlds: tuple[World, World], script: list[str]) -> None:
    left, right = worlds
    for sql in script:
        seen, also = left.answer(sql, None, BOB), right.answer(sql, None, BOB)
        assert not SECRET.search(seen.replace(sql.encode(), b"")), (sql, seen[:400])
        assert unordered(seen) == unordered(also), sql


def test_the_same_key_belongs_to_each_user_alone(worlds: tuple[World, World]) -> None:
    for world in worlds:
        world.must("DELETE FROM notes WHERE true; INSERT INTO notes (id, body) VALUES (1, 'of bob')", BOB)
        before = world.answer("SELECT * FROM notes ORDER BY id", None, ALICE)
        assert b"of bob" not in before
        for _ in range(3):
            world.must("UPDATE notes SET n = n + 1 WHERE id = 1", BOB)
            assert world.answer("SELECT * FROM notes WHERE id = $1", [1], BOB).count(b"of bob") == 1
            assert SECRET.search(world.answer("SELECT body FROM notes WHERE id = $1", [1], ALICE))
        world.must("DELETE FROM notes WHERE id = 1", BOB)
        assert world.answer("SELECT * FROM notes ORDER BY id", None, ALICE) == before
        assert b'"rows":[]' in world.answer("SELECT * FROM notes", None, BOB)


@pytest.mark.parametrize("role", list(Role))
def test_no_role_sees_anothers_rows_but_by_execute_as(worlds: tuple[World, World], role: Role) -> None:
    someone = Identity("carol", role)
    for world in worlds:
        for table in ("notes", "live"):
            assert b'"rows":[[0]]' in world.answer(f"SELECT COUNT(*) FROM {table}", None, someone)
            impersonated = world.answer(f"EXECUTE AS USER 'alice' (SELECT body FROM {table})", None, someone)
            assert bool(SECRET.search(impersonated)) == (role is not Role.USER)
