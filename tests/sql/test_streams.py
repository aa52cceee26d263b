"""STREAM tables through SQL: what may be done with them, who sees what, and that no path shows an expired row."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sql.database import Database
from sql.errors import ExecutionError, InvalidSql, PermissionDenied, SqlError, Unsupported
from sql.identity import Identity, Role
from sql.results import StatementResult
from storage import StorageEngine, StorageOptions
from storage.catalog import NamespaceDef, TableKind
from tests.storage.stream_model import JumpingClock

ALICE = Identity("alice", Role.USER)
BOB = Identity("bob", Role.USER)
ADMIN = Identity("dora", Role.DBA)
SECOND = 1_000_000


class World:
    """A database over an engine whose clock stands until it is moved."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = JumpingClock()
        self.loop = asyncio.new_event_loop()
        options = StorageOptions(map_start=64 << 20, merge=False, evict=False)
        self.engine = StorageEngine.open(folder / "data", options, clock=self.clock)
        self.engine.commit_sync(lambda w: [w.put_namespace(NamespaceDef(name)) for name in ("default", "app")] and None)
        self.database = self.loop.run_until_complete(self._open())

    async def _open(self) -> Database:
        return Database(self.engine)

    def results(self, sql: str, who: Identity = ALICE, params: Sequence[Any] = ()) -> list[StatementResult]:
        return self.loop.run_until_complete(self.database.execute(sql, list(params), "app", who))

    def message(self, sql: str, who: Identity = ALICE) -> str:
        return self.results(sql, who)[-1].message or ""

    def rows(self, sql: str, who: Identity = ALICE, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        result = self.results(sql, who, params)[-1]
        if result.rows is not None:
            return [tuple(row) for row in result.rows]
        assert result.table is not None
        return [tuple(row.values()) for row in result.table.to_pylist()]

    def fails(self, sql: str, kind: type[SqlError], part: str, who: Identity = ALICE) -> None:
        with pytest.raises(kind) as caught:
            self.results(sql, who)
        assert part in caught.value.message

    def ingest(self, table: str, rows: pa.Table, who: Identity = ALICE) -> int:
        file = self.folder / "rows.arrow"
        with pa.ipc.new_stream(file, rows.schema) as writer:
            writer.write_table(rows)
        media = "application/vnd.apache.arrow.stream"
        return self.loop.run_until_complete(self.database.ingest("app", table, file, media, who))

    def pass_time(self, seconds: float) -> None:
        self.clock.wall += round(seconds * SECOND)

    def close(self) -> None:
        self.database.close()
        self.engine.close()
        self.loop.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def typing(world: World) -> World:
    world.results("CREATE STREAM TABLE app.typing (id INT PRIMARY KEY, who TEXT) WITH (TTL_SECONDS = 10)")
    return world


# --- definitions -----------------------------------------------------------------------------------------------------


def test_create_says_what_the_reference_says(world: World) -> None:
    create = "CREATE STREAM TABLE typing (id INT) WITH (TTL_SECONDS = 5)"
    assert world.message(create).endswith("stream table app.typing created successfully")
    by_option = "CREATE TABLE other (id INT) WITH (TYPE = 'STREAM', TTL_SECONDS = '5')"
    assert world.message(by_option).endswith("stream table app.other created successfully")
    table = world.engine.catalog.table("app", "other")
    assert table is not None
    assert (table.kind, table.ttl_seconds, table.owner) == (TableKind.STREAM, 5, "alice")
    world.fails(create, ExecutionError, "already exists")


def test_the_ttl_is_shown(typing: World) -> None:
    (row,) = typing.results("SHOW TABLES")[-1].table.to_pylist()
    assert row["table_type"] == "stream"
    assert '"TTL_SECONDS":10' in row["options"]
    assert row["access_level"] is None
    query = "SELECT table_type, options FROM system.tables WHERE table_name = 'typing'"
    assert typing.rows(query, ADMIN) == [("stream", '{"TABLE_TYPE":"stream","TTL_SECONDS":10}')]
    described = typing.results("DESCRIBE TABLE typing")[-1].table.to_pylist()
    assert [(c["column_name"], c["is_primary_key"], c["is_nullable"]) for c in described] == [
        ("id", True, False), ("who", False, True),
    ]  # fmt: skip
    query = "SELECT table_name, is_nullable FROM information_schema.columns WHERE table_name = 'typing' LIMIT 1"
    assert typing.rows(query) == [("typing", "NO")]
    query = "SELECT primary_key, primary_key_pos FROM system.columns WHERE column_name = 'id'"
    assert typing.rows(query, ADMIN) == [(True, 1)]


def test_who_may_create_alter_and_drop(typing: World) -> None:
    alter = "ALTER TABLE typing SET TBLPROPERTIES (TTL_SECONDS = 20)"
    typing.fails(alter, PermissionDenied, "another user", BOB)
    typing.fails("DROP STREAM TABLE typing", PermissionDenied, "another user", BOB)
    assert typing.message(alter) == "Table app.typing altered successfully: SET TTL_SECONDS 20 (version 2)"
    assert "unchanged" in typing.message(alter)
    typing.fails("ALTER TABLE typing SET TBLPROPERTIES (TTL_SECONDS = 0)", ExecutionError, "between 1 and")
    typing.fails("ALTER TABLE typing SET TBLPROPERTIES (TTL_SECONDS = 1, ACCESS_LEVEL = 'PUBLIC')", InvalidSql, "one")
    typing.fails("ALTER TABLE typing SET ACCESS LEVEL PUBLIC", ExecutionError, "SHARED tables only", ADMIN)
    typing.fails("ALTER TABLE typing DROP COLUMN id", ExecutionError, "part of the primary key")
    typing.results("CREATE USER TABLE app.mine (id INT PRIMARY KEY)")
    typing.fails("ALTER TABLE mine SET TBLPROPERTIES (TTL_SECONDS = 5)", ExecutionError, "STREAM tables only")
    assert typing.message("DROP STREAM TABLE typing").startswith(
        "Table app.typing dropped successfully. Cleanup job: CL-"
    )


@pytest.mark.parametrize(
    ("sql", "part"),
    [
        ("UPDATE typing SET who = 'x' WHERE id = 1", "UPDATE not supported for STREAM tables"),
        ("UPDATE typing SET who = 'x' WHERE true", "UPDATE not supported for STREAM tables"),
        ("INSERT INTO typing VALUES (1, 'a') ON CONFLICT DO NOTHING", "ON CONFLICT"),
        ("INSERT INTO typing VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET who = 'b'", "ON CONFLICT"),
        ("BEGIN; INSERT INTO typing VALUES (1, 'a'); COMMIT", "BEGIN … COMMIT"),
        ("BEGIN; DELETE FROM typing WHERE true; COMMIT", "BEGIN … COMMIT"),
        ("BEGIN; SELECT 1 WHERE EXISTS (SELECT 1 FROM app.typing); COMMIT", "BEGIN … COMMIT"),
        ("EXPLAIN UPDATE typing SET who = 'x' WHERE id = 1", "UPDATE not supported for STREAM tables"),
    ],
)
def test_what_is_refused(typing: World, sql: str, part: str) -> None:
    typing.results("INSERT INTO typing VALUES (1, 'a')")
    for _ in range(3):  # also when the text is known
        typing.fails(sql, Unsupported, part)
    assert typing.rows("SELECT * FROM typing") == [(1, "a")]


DIFFERENCES = [
    ("CREATE STREAM TABLE s (id INT)", ExecutionError, "needs TTL_SECONDS"),
    ("CREATE STREAM TABLE s (f FILE) WITH (TTL_SECONDS = 9)", Unsupported, "FILE columns are not available in STREAM"),
    ("ALTER TABLE typing ADD COLUMN f FILE", Unsupported, "FILE columns are not available in STREAM"),
    ("ALTER TABLE typing MODIFY COLUMN who FILE", Unsupported, "FILE columns are not available in STREAM"),
    ("CREATE STREAM TABLE s (id INT UNIQUE) WITH (TTL_SECONDS = 9)", Unsupported, "UNIQUE is not available"),
    ("CREATE STREAM TABLE s (id INT, UNIQUE (id)) WITH (TTL_SECONDS = 9)", Unsupported, "UNIQUE is not available"),
    ("ALTER TABLE typing ADD COLUMN u INT UNIQUE", Unsupported, "UNIQUE"),
    ("CREATE STREAM TABLE s (id INT) WITH (TTL_SECONDS = 9, STORAGE_ID = 'local')", ExecutionError, "STORAGE_ID does"),
    ("CREATE STREAM TABLE s (id INT) WITH (TTL_SECONDS = 9, FLUSH_POLICY = 'rows:5')", ExecutionError, "FLUSH_POLICY"),
    ("CREATE STREAM TABLE s (id INT) WITH (TTL_SECONDS = 9, USE_USER_STORAGE = true)", ExecutionError, "USER tables"),
    ("CREATE STREAM TABLE s (id INT) WITH (TTL_SECONDS = 9, ACCESS_LEVEL = 'PUBLIC')", ExecutionError, "SHARED tables"),
    ("CREATE STREAM TABLE s (id INT) WITH (TTL_SECONDS = 9, TYPE = 'USER')", InvalidSql, "contradict"),
    ("CREATE USER TABLE s (id INT) WITH (TTL_SECONDS = 9)", ExecutionError, "STREAM tables only"),
    ("CREATE SHARED TABLE s (id INT) WITH (TTL_SECONDS = 9)", ExecutionError, "STREAM tables only"),
    ("CREATE STREAM TABLE s (id INT) WITH (TTL_SECONDS = 0)", ExecutionError, "between 1 and"),
    ("CREATE STREAM TABLE s (id INT) WITH (TTL_SECONDS = 'soon')", ExecutionError, "whole number"),
    ("ALTER TABLE typing SET TBLPROPERTIES (TTL_SECONDS = 1.5)", ExecutionError, "whole number"),
    ("ALTER TABLE typing SET TBLPROPERTIES (TTL_SECONDS = true)", ExecutionError, "whole number"),
    ("ALTER TOPIC app.t ADD SOURCE typing ON UPDATE", Unsupported, "never updated"),
    ("ALTER TOPIC app.t ADD SOURCE typing ON DELETE", Unsupported, "expire by themselves"),
    ("ALTER TOPIC app.t ADD SOURCE typing ON INSERT, DELETE", Unsupported, "ON DELETE"),
]


@pytest.mark.parametrize(("sql", "kind", "part"), DIFFERENCES)
def test_where_stream_tables_differ(typing: World, sql: str, kind: type[SqlError], part: str) -> None:
    typing.results("CREATE TOPIC app.t", ADMIN)
    before = typing.engine.catalog
    typing.fails(sql, kind, part, ADMIN)
    assert typing.engine.catalog is before


def test_what_they_have_like_others(typing: World) -> None:
    typing.results("CREATE TOPIC app.t; ALTER TOPIC app.t ADD SOURCE typing ON INSERT", ADMIN)
    create = "CREATE STREAM TABLE s (id INT, v INT CHECK (v > 1), w INT NOT NULL DEFAULT 3) WITH (ttl_seconds = '9')"
    typing.results(create, ADMIN)
    typing.fails("INSERT INTO s (v) VALUES (1)", ExecutionError, "Constraint violation")
    typing.results("INSERT INTO s (v) VALUES (2), (2)")
    assert typing.rows("SELECT v, w FROM s") == [(2, 3), (2, 3)]
    assert typing.message("DELETE FROM s WHERE v = 2") == "Deleted 2 row(s)"


def test_a_name_inside_a_transaction_may_be_that_of_a_cte(typing: World) -> None:
    assert typing.results("BEGIN; WITH typing AS (SELECT 7 AS n) SELECT n FROM typing; COMMIT")[1].row_count == 1


# --- rows ------------------------------------------------------------------------------------------------------------


def test_every_row_is_appended_and_stays_in_order(typing: World) -> None:
    for n in (3, 1, 3, 2, 1):
        typing.results(f"INSERT INTO typing VALUES ({n}, 'w{n}')")
    assert [row[0] for row in typing.rows("SELECT id FROM typing")] == [3, 1, 3, 2, 1]
    assert typing.rows("SELECT id FROM typing LIMIT 2") == [(3,), (1,)]
    for _ in range(3):
        assert typing.rows("SELECT id, who FROM typing WHERE id = 3") == [(3, "w3"), (3, "w3")]
        assert len(typing.rows("SELECT who FROM typing WHERE id = $1", params=[1])) == 2
    typing.fails("INSERT INTO typing VALUES (NULL, 'x')", ExecutionError, "NOT NULL")
    assert typing.message("DELETE FROM typing WHERE id = 3") == "Deleted 2 row(s)"
    assert typing.rows("DELETE FROM typing WHERE id = 2 RETURNING who") == [("w2",)]
    assert typing.rows("SELECT COUNT(*) FROM typing") == [(2,)]


def test_each_user_has_rows_of_their_own(typing: World) -> None:
    typing.results("INSERT INTO typing VALUES (1, 'of alice')")
    typing.results("INSERT INTO typing VALUES (1, 'of bob')", BOB)
    for who, expected in ((ALICE, ["of alice"]), (BOB, ["of bob"]), (ADMIN, [])):
        assert [row[0] for row in typing.rows("SELECT who FROM typing WHERE id = 1", who)] == expected
        assert typing.rows("SELECT COUNT(*) FROM typing", who) == [(len(expected),)]
    typing.results("EXECUTE AS USER 'alice' (INSERT INTO app.typing VALUES (2, 'by dora'))", ADMIN)
    assert [row[0] for row in typing.rows("SELECT who FROM typing")] == ["of alice", "by dora"]
    assert typing.message("DELETE FROM typing WHERE true", ADMIN) == "Deleted 0 row(s)"
    assert "partition of user 'bob'" in str(typing.rows("EXPLAIN SELECT * FROM typing", BOB))


# Every one gives the ids of the visible rows, in order of `_seq`.
PATHS = {
    "native": "SELECT id FROM typing",
    "filter": "SELECT id FROM typing WHERE id >= 0",
    "duckdb": "SELECT CAST(id AS INT) + 0 FROM typing ORDER BY _seq",
    "subquery": "SELECT id FROM (SELECT _seq, * FROM typing) AS q ORDER BY _seq",
    "cte": "WITH q AS (SELECT _seq, id FROM typing) SELECT id FROM q ORDER BY _seq",
    "join": "SELECT t.id FROM typing AS t JOIN typing AS u ON t._seq = u._seq ORDER BY t._seq",
    "exists": "SELECT id FROM typing AS t WHERE EXISTS (SELECT 1 FROM typing AS u WHERE u._seq = t._seq) ORDER BY _seq",
    "in": "SELECT id FROM typing WHERE _seq IN (SELECT _seq FROM typing) ORDER BY _seq",
}


def look(world: World, expected: list[int]) -> None:
    """Every way to the rows shows these."""
    for name, sql in PATHS.items():
        assert [row[0] for row in world.rows(sql)] == expected, name
    for sql in ("SELECT COUNT(*) FROM typing", "SELECT COUNT(id) FROM typing", "SELECT (SELECT COUNT(*) FROM typing)"):
        assert world.rows(sql) == [(len(expected),)], sql
    for key in set(range(4)):
        found = world.rows(f"SELECT id FROM typing WHERE id = {key}")
        assert found == [(key,)] * expected.count(key)
    (stats,) = world.results("SHOW STATS FOR TABLE typing")[-1].table.to_pylist()
    assert stats["logical_rows"] == len(expected)
    world.results("DELETE FROM log WHERE true")
    world.results("INSERT INTO log SELECT id FROM typing ORDER BY _seq")
    assert [row[0] for row in world.rows("SELECT id FROM log ORDER BY _seq")] == expected
    assert f"{len(expected)}" in str(world.rows("EXPLAIN ANALYZE SELECT id FROM typing"))


@pytest.mark.parametrize("seed", range(4))
def test_no_path_shows_an_expired_row(typing: World, seed: int) -> None:
    """Rows come by every way, time passes, rows are deleted and evicted; what is seen is what the model says."""
    typing.results("CREATE USER TABLE app.log (id INT)")
    chance = random.Random(seed)
    model: list[tuple[int, int]] = []  # (id, expires at)
    ttl = 10
    for _ in range(40):
        now = typing.clock.wall
        step = chance.choice(["insert", "insert", "many", "ingest", "select", "wait", "wait", "delete", "evict", "ttl"])
        ids = [chance.randrange(4) for _ in range(chance.choice([1, 2, 30]) if step == "many" else 1)]
        if step in ("insert", "many"):
            values = ", ".join(f"({n}, 'w')" for n in ids)
            typing.results(f"INSERT INTO typing VALUES {values}")
        elif step == "ingest":
            assert typing.ingest("typing", pa.table({"id": pa.array(ids, pa.int32())})) == len(ids)
        elif step == "select":
            ids = [n for n, _ in model]
            typing.results("INSERT INTO typing SELECT id, who FROM typing ORDER BY _seq")
        elif step == "delete":
            gone = chance.randrange(4)
            count = sum(n == gone for n, _ in model)
            assert typing.message(f"DELETE FROM typing WHERE id = {gone}") == f"Deleted {count} row(s)"
            model = [(n, at) for n, at in model if n != gone]
        elif step == "evict":
            typing.engine.evict()
        elif step == "ttl":
            new = chance.choice([5, 10, 40])
            typing.results(f"ALTER TABLE typing SET TBLPROPERTIES (TTL_SECONDS = {new})")
            model = [(n, at + (new - ttl) * SECOND) for n, at in model]
            ttl = new
        else:
            typing.pass_time(chance.choice([0.5, 2, 5, 9.999999]))
        if step in ("insert", "many", "ingest", "select"):
            model += [(n, now + ttl * SECOND) for n in ids]
        model = [(n, at) for n, at in model if at > typing.clock.wall]
        look(typing, [n for n, _ in model])
    assert typing.engine.check() == []


def test_hot_statements_see_time_pass(typing: World) -> None:
    """Texts that were seen before run without a worker thread: they insert and read as ever."""
    for n in range(20):
        typing.results("INSERT INTO typing VALUES ($1, $2)", params=[n, "w"])
        typing.pass_time(1)
        seen = typing.rows("SELECT id FROM typing WHERE id = $1", params=[n])
        old = typing.rows("SELECT id FROM typing WHERE id = $1", params=[n - 9])
        assert seen == [(n,)]
        assert old == []
        assert typing.rows("SELECT COUNT(*) FROM typing") == [(min(n + 1, 9),)]
