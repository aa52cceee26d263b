"""STORAGE FLUSH and STORAGE COMPACT, their messages and rights; options of tables; manifests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sql.errors import ExecutionError, PermissionDenied, TableNotFound
from sql.jobs.model import JobType
from storage.cold_segments import Segment
from storage.stored_view import StoredView
from tests.sql.jobs.job_world import LONG, Gate
from tests.sql.topic_world import ANN, BOB, DORA, SAM, TopicWorld, topic_world

JOB = re.compile(r"\b[A-Z]{2}-[0-9a-f]{23}\b")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TopicWorld]:
    with topic_world(tmp_path) as world:
        yield world


def done(world: TopicWorld, message: str) -> list[str]:
    """What the jobs that a message names said in the end."""
    found = [world.database.jobs.wait(job_id, LONG) for job_id in JOB.findall(message)]
    assert all(job.status in {"completed", "skipped"} for job in found), found
    return [job.message for job in found]


def fill(world: TopicWorld, table: str = "t", rows: int = 50) -> None:
    world.run(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, x TEXT)")
    world.run(f"INSERT INTO {table} SELECT i, 'v' || i FROM range({rows}) r(i)")


def test_flush_and_compact_a_table(world: TopicWorld) -> None:
    world.database.start()
    fill(world)
    message = world.message("STORAGE FLUSH TABLE app.t", who=SAM)
    (job_id,) = JOB.findall(message)
    assert message == f"Storage flush started for table 'app.t'. Job ID: {job_id}"
    assert job_id.startswith("FL-")
    (said,) = done(world, message)
    assert re.fullmatch(r"Moved 50 row\(s\) of app\.t into 1 file\(s\) of \d+ bytes", said)
    assert world.rows("SELECT count(*), sum(id) FROM t") == [(50, sum(range(50)))]
    assert world.message("STORAGE FLUSH TABLE t") == ("Storage flush skipped: no pending writes for table 'app.t'")
    world.run("DELETE FROM t WHERE id < 20")
    compacted = world.message("STORAGE COMPACT TABLE t", who=SAM)
    (job_id,) = JOB.findall(compacted)
    assert compacted == f"Storage compaction started for table 'app.t'. Job ID: {job_id}"
    assert job_id.startswith("CO-")
    done(world, compacted)
    assert world.rows("SELECT count(*), sum(id) FROM t") == [(30, sum(range(20, 50)))]


def test_one_flush_and_one_compaction_of_a_table_at_a_time(world: TopicWorld) -> None:
    gate = Gate()
    for kind in (JobType.FLUSH, JobType.COMPACT):
        world.database.jobs.register(kind, gate, lane=lambda job: f"table {job.argument('table_id')}")
    world.database.start()
    fill(world)
    first = world.message("STORAGE FLUSH TABLE t")
    gate.wait_inside(1)
    assert world.message("STORAGE FLUSH TABLE t") == (
        "Storage flush skipped: a flush is already queued or running for table 'app.t'"
    )
    waiting = world.message("STORAGE COMPACT TABLE t")
    assert world.message("STORAGE COMPACT TABLE t") == (
        "Storage compaction skipped: a compaction is already queued or running for table 'app.t'"
    )
    assert world.message("STORAGE FLUSH ALL") == "Storage flush started for 0 table(s) in namespace 'app'. Job IDs: []"
    assert gate.most == 1
    gate.open()
    done(world, first + waiting)
    assert gate.most == 1


def test_all_means_the_namespace_of_the_request_or_the_named_one(world: TopicWorld) -> None:
    world.database.start()
    world.run("CREATE NAMESPACE second")
    fill(world, "a", 3)
    fill(world, "b", 3)
    fill(world, "second.c", 3)
    world.run("CREATE STREAM TABLE s (id INT) WITH (TTL_SECONDS = 1000)")
    world.run("INSERT INTO s VALUES (1)")
    first = world.message("STORAGE FLUSH ALL")
    assert first.startswith("Storage flush started for 2 table(s) in namespace 'app'. Job IDs: [FL-")
    assert len(JOB.findall(first)) == 2
    for form in ("IN second", "IN NAMESPACE second"):
        world.run("INSERT INTO second.c SELECT max(id) + 1, 'x' FROM second.c")
        message = world.message(f"STORAGE FLUSH ALL {form}")
        assert message.startswith("Storage flush started for 1 table(s) in namespace 'second'. Job IDs: [FL-")
        done(world, message)
    done(world, first)
    compacted = world.message("STORAGE COMPACT ALL IN NAMESPACE app")
    assert compacted.startswith("Storage compaction started for 2 table(s) in namespace 'app'. Job IDs: [CO-")
    done(world, compacted)
    with pytest.raises(ExecutionError, match="Namespace 'none' does not exist"):
        world.run("STORAGE FLUSH ALL IN none")


def test_rights(world: TopicWorld) -> None:
    world.run("CREATE TABLE secret (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = 'DBA')")
    for sql in (
        "STORAGE FLUSH TABLE secret", "STORAGE COMPACT TABLE secret", "STORAGE FLUSH ALL", "STORAGE COMPACT ALL"
    ):  # fmt: skip
        with pytest.raises(PermissionDenied):
            world.run(sql, who=ANN)
    for sql in ("STORAGE FLUSH TABLE secret", "STORAGE COMPACT TABLE secret"):
        with pytest.raises(PermissionDenied):
            world.run(sql, who=SAM)
    assert "for 0 table(s)" in world.message("STORAGE COMPACT ALL", who=SAM)
    assert "for 1 table(s)" in world.message("STORAGE COMPACT ALL", who=DORA)


def test_what_has_no_cold_files(world: TopicWorld) -> None:
    world.run("CREATE STREAM TABLE s (id INT) WITH (TTL_SECONDS = 10)")
    for what in ("FLUSH", "COMPACT"):
        with pytest.raises(ExecutionError, match=r"STREAM table 'app\.s' has no cold files"):
            world.run(f"STORAGE {what} TABLE s")
        with pytest.raises(ExecutionError, match="not a table with stored rows"):
            world.run(f"STORAGE {what} TABLE system.jobs")
        with pytest.raises(TableNotFound):
            world.run(f"STORAGE {what} TABLE none")


def test_jobs_of_tables_that_were_dropped_or_have_nothing_are_skipped(world: TopicWorld) -> None:
    fill(world)
    flush = world.message("STORAGE FLUSH TABLE t")
    compact = world.message("STORAGE COMPACT TABLE t")
    world.run("DROP TABLE t")
    world.run("CREATE TABLE empty (id INT PRIMARY KEY)")
    nothing = world.message("STORAGE COMPACT TABLE empty")
    world.database.start()
    assert done(world, flush) == done(world, compact) == ["Table app.t was dropped"]
    assert done(world, nothing) == ["Table app.empty has no cold files"]


def test_options_of_tables(world: TopicWorld, tmp_path: Path) -> None:
    world.database.start()
    world.run(f"CREATE STORAGE big TYPE filesystem PATH '{tmp_path}/big'")
    world.run(
        "CREATE TABLE t (id BIGINT PRIMARY KEY) WITH (STORAGE_ID = 'big', FLUSH_POLICY = 'interval:60, rows:100')"
    )
    world.run("INSERT INTO t VALUES (1)")
    done(world, world.message("STORAGE FLUSH TABLE t"))
    assert [path.name for path in (tmp_path / "big").rglob("*.parquet")] == ["batch-1.parquet"]
    with pytest.raises(ExecutionError, match=r"Cannot drop storage 'big': 1 table\(s\) still using it"):
        world.run("DROP STORAGE big")
    assert "altered successfully" in world.message("ALTER TABLE t SET TBLPROPERTIES (STORAGE_ID = 'local')")
    world.run("INSERT INTO t VALUES (2)")
    done(world, world.message("STORAGE FLUSH TABLE t"))
    assert len(list((world.engine.path / "cold").rglob("*.parquet"))) == 1
    assert world.rows("SELECT id FROM t ORDER BY id") == [(1,), (2,)]
    with pytest.raises(ExecutionError, match=r"1 table\(s\) still using it"):  # a file of it lies there
        world.run("DROP STORAGE big")
    world.run("ALTER TABLE t SET TBLPROPERTIES (FLUSH_POLICY = 'rows:7')")
    assert "unchanged" in world.message("ALTER TABLE t SET TBLPROPERTIES (FLUSH_POLICY = 'rows:7')")
    table = world.engine.catalog.table("app", "t")
    assert table is not None
    assert table.options == {"storage_id": "local", "flush_policy": "rows:7"}
    world.run("ALTER TABLE t SET TBLPROPERTIES (FLUSH_POLICY = NULL)")
    for wrong in ("FLUSH_POLICY = 'often'", "STORAGE_ID = 'none'"):
        with pytest.raises(ExecutionError, match=r"Invalid operation"):
            world.run(f"ALTER TABLE t SET TBLPROPERTIES ({wrong})")
    world.run("CREATE STREAM TABLE s (id INT) WITH (TTL_SECONDS = 10)")
    with pytest.raises(ExecutionError, match="STREAM"):
        world.run("ALTER TABLE s SET TBLPROPERTIES (FLUSH_POLICY = 'rows:7')")


def test_a_table_keeps_its_storage_until_its_files_are_gone(world: TopicWorld, tmp_path: Path) -> None:
    world.database.start()
    world.run(f"CREATE STORAGE big TYPE filesystem PATH '{tmp_path}/big'")
    world.run("CREATE TABLE t (id BIGINT PRIMARY KEY) WITH (STORAGE_ID = 'big')")
    world.run("INSERT INTO t VALUES (1)")
    done(world, world.message("STORAGE FLUSH TABLE t"))
    world.run("DROP TABLE t")
    with pytest.raises(ExecutionError, match=r"Cannot drop storage 'big'"):
        world.run("DROP STORAGE big")


def test_manifests(world: TopicWorld) -> None:
    world.database.start()
    fill(world, "shared_one", 10)
    world.run("CREATE USER TABLE notes (id BIGINT PRIMARY KEY, body TEXT)")
    for who in (ANN, BOB):
        world.run("INSERT INTO notes VALUES (1, 'a'), (2, NULL)", who=who)
    done(world, world.message("STORAGE FLUSH ALL"))
    shown = world.rows("SHOW MANIFEST", who=DORA)
    assert [row[:4] for row in shown] == [
        ("app:shared_one:shared", "app", "shared_one", "shared"),
        ("app:notes:ann", "app", "notes", "ann"),
        ("app:notes:bob", "app", "notes", "bob"),
    ]
    manifest = json.loads(shown[1][9])
    assert manifest["table_id"] == {"namespace_id": "app", "table_name": "notes"}
    assert manifest["user_id"] == "ann"
    (segment,) = manifest["segments"]
    assert (segment["row_count"], segment["status"]) == (2, "committed")
    assert segment["column_stats"] == {
        "1": {"min": 1, "max": 2, "null_count": 0},
        "2": {"min": "a", "max": "a", "null_count": 1},
    }
    assert manifest["last_sequence_number"] == segment["max_seq"]
    assert (world.engine.path / "cold" / segment["path"]).stat().st_size == segment["size_bytes"]
    assert world.rows("SELECT count(*) FROM system.manifest") == [(3,)]


def test_a_user_sees_no_manifest_of_others(world: TopicWorld) -> None:
    """Bounds of values and names of users are in it: they are no more open than the rows."""
    world.database.start()
    fill(world, "private_one", 10)
    world.run("CREATE USER TABLE notes (id BIGINT PRIMARY KEY, body TEXT)")
    for who in (ANN, BOB):
        world.run(f"INSERT INTO notes VALUES (1, 'only {who.user} knows')", who=who)
    done(world, world.message("STORAGE FLUSH ALL"))
    (row,) = world.rows("SHOW MANIFEST", who=ANN)
    assert row[0] == "app:notes:ann"
    assert "bob" not in str(row)
    assert {row[0] for row in world.rows("SHOW MANIFEST", who=SAM)} == {"app:private_one:shared"}


def test_a_manifest_reads_the_records_of_those_who_are_asked_for(
    world: TopicWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run("CREATE USER TABLE own (id BIGINT PRIMARY KEY)")
    world.run("CREATE USER TABLE other (id BIGINT PRIMARY KEY)")
    for who in (ANN, BOB, SAM):
        for table in ("own", "other"):
            world.run(f"INSERT INTO {table} VALUES (1)", who=who)
    for table in ("own", "other"):
        found = world.engine.catalog.table("app", table)
        assert found is not None
        world.engine.cold.flush(found.table_id)
    asked: list[tuple[str, str | None]] = []
    segments = StoredView.segments

    def asking(self: StoredView, table_id: int | None = None, user: str | None = None) -> Sequence[Segment]:
        table = None if table_id is None else self.catalog.table_by_id(table_id)
        assert table is not None
        if table.namespace == "app":
            asked.append((table.name, user))
        return segments(self, table_id, user)

    monkeypatch.setattr(StoredView, "segments", asking)
    assert [row[3] for row in world.rows("SHOW MANIFEST", who=ANN)] == ["ann", "ann"]
    assert asked == [("own", "ann"), ("other", "ann")]
    asked.clear()
    text = "SELECT scope FROM system.manifest WHERE namespace_id = 'app' AND table_name = $1 AND scope = $2"
    assert world.rows(text, "own", "bob", who=DORA) == [("bob",)]
    assert asked == [("own", "bob")]
    asked.clear()
    assert len(world.rows("SHOW MANIFEST", who=DORA)) == 6
    assert asked == [("own", None), ("other", None)]
