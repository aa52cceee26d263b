"""CREATE INDEX, DROP INDEX, SHOW INDEXES, and what EXPLAIN says about indexes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sql.errors import SqlError
from sql.jobs.model import JobStatus
from tests.sql.indexes.index_world import ADMIN, ALICE, BOB, IndexWorld

SET_UP = """
CREATE TABLE m (id BIGINT PRIMARY KEY, room TEXT, at BIGINT, n INT) WITH (ACCESS_LEVEL = 'PUBLIC');
INSERT INTO m VALUES (1, 'a', 10, 1), (2, 'a', 20, NULL), (3, 'b', 30, 3), (4, NULL, 40, 4), (5, 'a', 15, 1)
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[IndexWorld]:
    made = IndexWorld(tmp_path)
    made.run(SET_UP)
    yield made
    made.check()
    made.close()


def test_an_index_is_created_shown_used_and_dropped(world: IndexWorld) -> None:
    assert (
        world.run("CREATE INDEX by_room ON m (room, at)").message == "Index by_room on table app.m created successfully"
    )
    assert world.run("CREATE INDEX IF NOT EXISTS by_room ON m (n)").message == (
        "Index by_room already exists on table app.m (skipped)"
    )
    [shown] = world.rows("SHOW INDEXES FROM m")
    assert shown[:6] == ("app", "m", "by_room", "room, at", False, "ready")
    assert world.rows("SELECT index_name, columns FROM system.indexes") == [("by_room", "room, at")]
    plan = world.plan("SELECT id FROM m WHERE room = 'a' AND at > 12")
    assert "path: index" in plan
    assert "index: by_room (room = a, at > 12)" in plan
    assert world.rows("SELECT id FROM m WHERE room = 'a' AND at > 12") == [(2,), (5,)]
    analyzed = world.rows("EXPLAIN ANALYZE SELECT id FROM m WHERE room = 'a' AND at > 12")
    assert ("fetched: 2 row(s) of app.m by index by_room",) in analyzed
    assert world.run("DROP INDEX app.by_room ON m").message == "Index by_room on table app.m dropped successfully"
    assert world.run("DROP INDEX IF EXISTS by_room").message == "Index app.by_room does not exist (skipped)"
    assert world.rows("SHOW INDEXES") == []
    assert "index:" not in world.plan("SELECT id FROM m WHERE room = 'a'")
    keys = stored_keys(world)
    world.engine.compact()
    assert stored_keys(world) == keys - 5


def stored_keys(world: IndexWorld) -> int:
    with world.engine.snapshot() as snapshot, snapshot.reading() as reader:
        count: int = reader.txn.stat(reader.dbs.keys)["entries"]
        return count


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("CREATE INDEX i ON m (nothing)", "Column 'nothing' does not exist"),
        ("CREATE INDEX i ON m (n, n)", "names column 'n' twice"),
        ("CREATE INDEX i ON nothing (n)", "Table not found: 'app.nothing'"),
        ("CREATE INDEX i ON m (n DESC NULLS)", "Expected LAST"),
        ("CREATE INDEX i ON m (upper(room))", "over an expression"),
        ("CREATE INDEX i ON m USING hash (n)", "no other kind"),
        ("CREATE INDEX i ON m (n) WHERE n > 1", "a part of the rows"),
        ("CREATE INDEX ON m (n)", "needs a name"),
        ("CREATE INDEX i ON m ()", "Expected a column name"),
        ("CREATE INDEX i ON s (n)", "not available for STREAM tables"),
        ("CREATE INDEX i ON j (doc)", "cannot be part of an index"),
        ("CREATE INDEX i ON system.jobs (job_id)", "system table"),
        ("CREATE INDEX there ON j (id)", "already exists, on another table"),
        ("CREATE INDEX there ON m (n)", "Index app.there already exists"),
        ("DROP INDEX nothing", "Index 'app.nothing' does not exist"),
        ("DROP INDEX there ON j", "Index 'app.there' does not exist"),
        ("ALTER TABLE m DROP COLUMN room", "is part of index 'there'"),
        ("ALTER TABLE m MODIFY COLUMN room BIGINT", "is part of a key"),
        ("BEGIN; CREATE INDEX i ON m (n); COMMIT", "inside BEGIN … COMMIT"),
    ],
)
def test_what_cannot_be_is_refused_in_words(world: IndexWorld, statement: str, words: str) -> None:
    world.run("CREATE STREAM TABLE s (n INT) WITH (TTL_SECONDS = 60)")
    world.run("CREATE TABLE j (id INT PRIMARY KEY, doc JSON)")
    world.run("CREATE INDEX there ON m (room)")
    with pytest.raises(SqlError) as raised:
        world.run(statement)
    assert words in raised.value.message
    assert 400 <= raised.value.status < 500
    assert [row[2] for row in world.rows("SHOW INDEXES")] == ["there"]


def test_only_who_may_alter_a_table_may_index_it(world: IndexWorld) -> None:
    world.run("CREATE INDEX i ON m (n)")
    world.run("CREATE USER TABLE u (id INT PRIMARY KEY, n INT)")
    for statement in ("CREATE INDEX j ON m (n)", "DROP INDEX i", "CREATE INDEX j ON u (n)"):
        with pytest.raises(SqlError, match="Permission denied"):
            world.run(statement, identity=ALICE)
    assert [row[2] for row in world.rows("SHOW INDEXES", identity=ALICE)] == ["i"]


def test_a_unique_index_is_a_constraint(world: IndexWorld) -> None:
    with pytest.raises(SqlError) as raised:
        world.run("CREATE UNIQUE INDEX one_n ON m (n)")
    assert "Unique index 'one_n' violation: value '1'" in raised.value.message
    assert world.rows("SHOW INDEXES") == []
    world.run("UPDATE m SET n = 5 WHERE id = 5; CREATE UNIQUE INDEX one_n ON m (n)")
    with pytest.raises(SqlError, match="Unique index 'one_n' violation: value '3' already exists in column 'n'"):
        world.run("INSERT INTO m VALUES (6, 'c', 1, 3)")
    with pytest.raises(SqlError, match="multiple times"):
        world.run("INSERT INTO m VALUES (6, 'c', 1, 7), (7, 'c', 1, 7)")
    with pytest.raises(SqlError, match="Unique index 'one_n' violation: value '4'"):
        world.run("UPDATE m SET n = 4 WHERE id = 1")
    world.run("INSERT INTO m VALUES (8, 'n', 1, NULL), (9, 'n', 1, NULL)")
    world.run("UPDATE m SET n = CASE n WHEN 3 THEN 4 ELSE 3 END WHERE n IN (3, 4)")
    assert world.rows("SELECT id, n FROM m WHERE n IN (3, 4)") == [(3, 4), (4, 3)]
    world.run("INSERT INTO m VALUES (10, 'x', 1, 3) ON CONFLICT (n) DO UPDATE SET room = EXCLUDED.room")
    assert world.rows("SELECT id, room FROM m WHERE n = 3") == [(4, "x")]
    assert world.run("INSERT INTO m VALUES (11, 'y', 1, 3) ON CONFLICT DO NOTHING").row_count == 0


def test_users_read_their_own_entries_only(world: IndexWorld) -> None:
    world.run("CREATE USER TABLE u (id INT PRIMARY KEY, n INT)", identity=ALICE)
    world.run("CREATE UNIQUE INDEX i ON u (n)", identity=ALICE)
    for identity in (ALICE, BOB):
        world.run("INSERT INTO u VALUES (1, 7)", identity=identity)
    world.run("INSERT INTO u VALUES (2, 8)", identity=BOB)
    assert world.rows("SELECT id FROM u WHERE n IN (7, 8)", identity=ALICE) == [(1,)]
    assert world.rows("SELECT id FROM u WHERE n IN (7, 8)", identity=ADMIN) == []


def test_order_by_and_joins(world: IndexWorld) -> None:
    world.run("CREATE INDEX by_at ON m (at); CREATE INDEX by_room ON m (room, at)")
    newest = "SELECT id FROM m WHERE room = 'a' ORDER BY at DESC LIMIT 2"
    assert "order: at descending, as in index by_room (room = a)" in world.plan(newest)
    assert world.rows(newest) == [(2,), (5,)]
    assert world.rows("SELECT id FROM m WHERE n > 2 ORDER BY at LIMIT 5 OFFSET 1") == [(4,)]
    assert world.rows("SELECT id, room FROM m ORDER BY room DESC, at DESC LIMIT 2") == [(4, None), (3, "b")]
    join = "SELECT a.id, b.id FROM m AS a JOIN m AS b ON a.at < b.at WHERE a.room = 'b' AND b.room IS NULL"
    assert "index: by_room (room = b)" in world.plan(join)
    assert world.rows(join) == [(3, 4)]
    outer = "SELECT a.id FROM m AS a LEFT JOIN m AS b ON b.at = a.at + 10 WHERE b.room IS NULL ORDER BY 1"
    assert world.rows(outer) == [(3,), (4,), (5,)]
    assert world.rows("SELECT id FROM m WHERE room = ANY ($1) AND upper(room) <> 'Q' ORDER BY 1", ["b"]) == [(3,)]


def test_a_transaction_reads_its_own_entries(world: IndexWorld) -> None:
    world.run("CREATE INDEX by_n ON m (n)")
    results = world.loop.run_until_complete(
        world.database.execute(
            "BEGIN; INSERT INTO m VALUES (6, 'z', 1, 1); UPDATE m SET n = 9 WHERE n = 1 AND id < 3;"
            "DELETE FROM m WHERE n = 4; SELECT id FROM m WHERE n IN (1, 4, 9); COMMIT",
            None, "app", ADMIN,
        )
    )  # fmt: skip
    assert results[4].table is not None
    assert results[4].table.column(0).to_pylist() == [1, 5, 6]
    assert world.rows("SELECT id FROM m WHERE n = 9") == [(1,)]


def test_a_large_table_is_indexed_by_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sql.indexes.definitions.BUILT_AT_ONCE", 2)
    world = IndexWorld(tmp_path, jobs=True)
    world.run(SET_UP)
    world.run("CREATE INDEX by_n ON m (n)")
    [(state, job_id)] = world.rows("SELECT state, job_id FROM system.indexes")
    job = world.database.jobs.get(str(job_id))
    assert (state, job and job.status, job and job.job_id[:3]) == ("ready", JobStatus.COMPLETED, "IX-")
    with pytest.raises(SqlError, match="Unique index 'u' violation: value '1'"):
        world.run("CREATE UNIQUE INDEX u ON m (n)")
    assert [row[2] for row in world.rows("SHOW INDEXES")] == ["by_n"]
    world.check()
    world.close()


def test_what_a_crash_left_unfinished_is_finished_at_the_next_start(tmp_path: Path) -> None:
    import msgspec

    from storage.catalog import IndexDef, IndexState

    world = IndexWorld(tmp_path)
    world.run(SET_UP)
    table = world.engine.catalog.table("app", "m")
    assert table is not None
    half = msgspec.structs.replace(table, indexes=(IndexDef(1, "half", (4,)),), next_index_id=2)
    world.engine.commit_sync(lambda wtxn: wtxn.put_table(half))
    assert "index:" not in world.plan("SELECT id FROM m WHERE n = 1")
    world.close()
    world = IndexWorld(tmp_path, jobs=True)
    [(job_id,)] = world.rows("SELECT job_id FROM system.jobs")
    assert world.database.jobs.wait(str(job_id), 20).status is JobStatus.COMPLETED
    found = world.engine.catalog.table("app", "m")
    assert found is not None
    assert found.indexes[0].state is IndexState.READY
    assert world.rows("SELECT id FROM m WHERE n = 1") == [(1,), (5,)]
    world.check()
    world.close()
