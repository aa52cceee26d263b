"""Schema versions: each has its time and its columns, is kept while the table lives, and their number has a bound."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sql import alter_table
from sql.errors import ExecutionError
from storage import StorageEngine, StorageOptions
from tests.sql.topic_world import TopicWorld, topic_world

VERSIONS = (
    "SELECT schema_version, is_latest, columns, created_at FROM system.schemas WHERE table_name = 't' "
    "ORDER BY schema_version"
)
STEPS = (
    ("ADD COLUMN a INT", ["id", "a"]),
    ("RENAME COLUMN a TO b", ["id", "b"]),
    ("MODIFY COLUMN b BIGINT", ["id", "b"]),
    ("ADD COLUMN c TEXT DEFAULT 'x'", ["id", "b", "c"]),
    ("DROP COLUMN b", ["id", "c"]),
    ("SET ACCESS LEVEL PUBLIC", ["id", "c"]),
)


def alter(db: TopicWorld, operation: str) -> str:
    return db.message(f"ALTER TABLE t {operation}")


def test_every_version_has_a_row_with_its_time_and_its_columns(tmp_path: Path) -> None:
    with topic_world(tmp_path) as db:
        db.run("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1)")
        for number, (operation, _) in enumerate(STEPS, start=2):
            assert alter(db, operation).endswith(f"(version {number})")
        assert alter(db, "ALTER COLUMN c SET DEFAULT 'x'") == (
            "Table app.t unchanged: SET DEFAULT 'x' on column c (version 7 - no changes needed)"
        )
        found = db.rows(VERSIONS)
        names = [[column["column_name"] for column in json.loads(row[2])] for row in found]
        assert names == [["id"], *(columns for _, columns in STEPS)]
        assert [row[0] for row in found] == list(range(1, len(STEPS) + 2))
        assert [row[1] for row in found] == [False] * len(STEPS) + [True]
        assert len({row[3] for row in found}) == len(found)
        assert [row[3] for row in found] == sorted(row[3] for row in found)
        described = db.rows("DESCRIBE t HISTORY")
        assert [[row[0] for row in described if row[8] == number] for number in range(1, len(found) + 1)] == names


def test_versions_are_kept_when_no_row_needs_them(tmp_path: Path) -> None:
    with topic_world(tmp_path) as db:
        db.run("CREATE TABLE t (id INT PRIMARY KEY)")
        for operation, _ in STEPS:
            alter(db, operation)
        before = db.rows(VERSIONS)
    with StorageEngine.open(tmp_path / "data", StorageOptions(map_start=64 << 20)) as engine:
        table = engine.catalog.table("app", "t")
        assert table is not None
        assert [version.version for version in table.history] == [row[0] for row in before[:-1]]


def test_their_number_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alter_table, "MAX_HISTORY", 4)
    with topic_world(tmp_path) as db:
        db.run("CREATE TABLE t (id INT PRIMARY KEY)")
        alter(db, "ADD COLUMN a INT")
        alter(db, "RENAME COLUMN a TO b")
        with pytest.raises(ExecutionError, match="more than 4 columns together"):
            alter(db, "RENAME COLUMN b TO c")
        assert [row[0] for row in db.rows("DESCRIBE t")] == ["id", "b"]
