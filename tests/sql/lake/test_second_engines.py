"""A table in cold files, read by other engines, has the rows that SELECT has."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sql.lake.lake_world import in_order, lake_of, own_rows, ran, root_of
from tests.sql.lake.second_engines import delta_rs, duckdb, duckdb_packages
from tests.sql.topic_world import ANN, BOB, TopicWorld, topic_world

ALL_TYPES = """CREATE TABLE t (id BIGINT PRIMARY KEY, b BOOLEAN, s SMALLINT, i INT, f FLOAT, d DOUBLE, x TEXT,
  ts TIMESTAMP, dt DATETIME, da DATE, ti TIME, js JSON, by BYTES, u UUID, de DECIMAL(12,3),
  big DECIMAL(38,10), e EMBEDDING(3))"""
VALUES = """INSERT INTO t VALUES
  (1, true, 2, 3, 1.5, 2.5, 'hé "x"', '2024-01-02 03:04:05.123456', '2024-01-02T03:04:05.123456Z', '2024-02-29',
   '23:59:59.000001', '{"a":1}', X'00FF', '0190c1d4-0000-7000-8000-00000000abcd', 123.456, 0.0000000001, [1,2,3]),
  (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (3, false, -32768, -2147483648, -1.5, -2.5, '', '1901-01-02 03:04:05', '1901-01-02T03:04:05.1Z', '0001-01-01',
   '00:00:00', 'null', X'', 'ffffffff-ffff-ffff-ffff-ffffffffffff', -0.001,
   -1234567890123456789012345678.0123456789, [0,0,0]),
  (4, true, 32767, 2147483647, 0, 1e300, 'end', '2262-01-01 00:00:00', '2262-01-01T00:00:00Z', '9999-12-31', '12:00:00',
   '[]', X'5C', '00000000-0000-0000-0000-000000000000', 0, 0, [1,1,1])"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TopicWorld]:
    with topic_world(tmp_path) as world:
        world.database.start()
        yield world


@pytest.fixture(scope="module")
def packages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert request.config.cache is not None
    return duckdb_packages(request.config.cache, tmp_path_factory.mktemp("packages"))


def same(world: TopicWorld, packages: Path | None) -> None:
    """Both engines have the rows of the table `t`."""
    expected = own_rows(world)
    assert in_order(delta_rs(root_of(world))) == expected
    if packages is not None:
        assert in_order(duckdb(packages, root_of(world))) == expected


def test_the_life_of_a_table(world: TopicWorld, packages: Path) -> None:
    world.run(ALL_TYPES)
    world.run(VALUES)
    ran(world, "STORAGE FLUSH TABLE t")
    same(world, packages)
    world.run("UPDATE t SET x = 'new' WHERE id = 1")
    world.run("DELETE FROM t WHERE id = 2")
    ran(world, "STORAGE FLUSH TABLE t")
    same(world, packages)
    assert ran(world, "STORAGE FLUSH TABLE t") == []
    world.run("DELETE FROM t WHERE id = 3")  # a flush has nothing to move, but something to publish
    assert ran(world, "STORAGE FLUSH TABLE t") == ["Published 2 file(s) of app.t with 3 deleted row(s)"]
    same(world, packages)
    for change in (
        "RENAME COLUMN x TO y", "RENAME COLUMN i TO x", "DROP COLUMN b", "ADD COLUMN b TEXT",
        "ADD COLUMN i INT DEFAULT 7",
        'ADD COLUMN "two words" TEXT', "ALTER COLUMN s SET DATA TYPE INT", "ADD COLUMN t TIME DEFAULT '01:02:03'",
    ):  # fmt: skip
        world.run(f"ALTER TABLE t {change}")
    world.run("INSERT INTO t (id, b, \"two words\") VALUES (5, 'is text now', 'blank')")
    ran(world, "STORAGE FLUSH TABLE t")
    same(world, packages)
    world.run("DELETE FROM t WHERE id = 4")
    ran(world, "STORAGE COMPACT TABLE t")
    same(world, packages)
    world.run("DELETE FROM t WHERE true")
    ran(world, "STORAGE COMPACT TABLE t")
    same(world, packages)
    assert own_rows(world) == []


@pytest.mark.parametrize("seed", range(3))
def test_random_statements(world: TopicWorld, seed: int) -> None:
    """Whatever happened, after a flush another engine has the rows."""
    dice = random.Random(seed)
    world.run("CREATE TABLE t (id BIGINT PRIMARY KEY, a INT, x TEXT)")
    columns, made = ["a"], 0
    for _ in range(25):
        what = dice.choices(["put", "delete", "flush", "compact", "rename", "add", "drop"], [6, 4, 4, 1, 1, 1, 1])[0]
        low = dice.randrange(300)
        high = low + dice.randrange(1, 60)
        if what == "put":
            name = dice.choice(columns)
            world.run(f"INSERT INTO t (id, {name}, x) SELECT i, i * {low}, 'v' || i FROM range({low}, {high}) r(i) "
                      f"ON CONFLICT (id) DO UPDATE SET {name} = excluded.{name}")  # fmt: skip
        elif what == "delete":
            world.run(f"DELETE FROM t WHERE id BETWEEN {low} AND {high}")
        elif what in ("flush", "compact"):
            ran(world, f"STORAGE {what.upper()} TABLE t")
            if what == "flush" and lake_of(world) is not None:
                same(world, None)
        elif what == "drop" and len(columns) > 1:
            world.run(f"ALTER TABLE t DROP COLUMN {columns.pop(dice.randrange(len(columns)))}")
        else:
            made += 1
            name = dice.choice([f"c{made}", "a"]) if "a" not in columns else f"c{made}"
            if what == "rename":
                old = dice.randrange(len(columns))
                world.run(f"ALTER TABLE t RENAME COLUMN {columns[old]} TO {name}")
                columns[old] = name
            else:
                world.run(f"ALTER TABLE t ADD COLUMN {name} INT{dice.choice(['', f' DEFAULT {made}'])}")
                columns.append(name)
    world.run("INSERT INTO t (id) VALUES (1000)")
    ran(world, "STORAGE FLUSH TABLE t")
    same(world, None)


def test_a_user_table_is_one_table_with_the_user_as_partition(world: TopicWorld, packages: Path) -> None:
    world.run("CREATE USER TABLE t (id INT PRIMARY KEY, _user_id TEXT)")
    odd = type(ANN)("ö/ä %20?#=x", ANN.role)
    for who in (ANN, BOB, odd):
        world.run("INSERT INTO t SELECT i, 'mine' FROM range(3) r(i)", who=who)
    ran(world, "STORAGE FLUSH TABLE t")
    world.run("DELETE FROM t WHERE id = 1", who=BOB)
    ran(world, "STORAGE FLUSH TABLE t")
    expected = in_order(
        row | {"_user_id_": who.user} for who in (ANN, BOB, odd) for row in own_rows(world, who=who)
    )  # fmt: skip
    assert in_order(delta_rs(root_of(world))) == expected
    assert in_order(duckdb(packages, root_of(world))) == expected
    (only,) = duckdb(packages, root_of(world), "SELECT count(*) n FROM delta_scan($1) WHERE _user_id_ = 'bob'")
    assert only == {"n": 2}


def test_other_engines_prune_by_our_statistics_and_lose_nothing(world: TopicWorld, packages: Path) -> None:
    world.run(ALL_TYPES)
    for row in VALUES.split("VALUES")[1].split("),\n"):
        world.run(f"INSERT INTO t VALUES {row.strip().rstrip(')')})")
        ran(world, "STORAGE FLUSH TABLE t")
    conditions = (
        "id = 3", "s < 0", "i >= 2147483647", "f > 1", "d > 1e299", "x = ''", "x > 'e'", "ts < '1950-01-01'",
        "dt > '2200-01-01T00:00:00Z'", "da < '0002-01-01'", "da = '9999-12-31'", "ti > '23:00:00'", "de < 0",
        "de > 100", "big < -1", "big = 0.0000000001", "u = 'ffffffff-ffff-ffff-ffff-ffffffffffff'", "b", "x IS NULL",
    )  # fmt: skip
    each = [f"SELECT {n} AS n, id FROM delta_scan($1) WHERE {condition}" for n, condition in enumerate(conditions)]
    found = duckdb(packages, root_of(world), f"{' UNION ALL '.join(each)} ORDER BY n, id")
    for number, condition in enumerate(conditions):
        expected = [row[0] for row in world.rows(f"SELECT id FROM t WHERE {condition} ORDER BY id")]
        assert expected, condition
        assert [row["id"] for row in found if row["n"] == number] == expected, condition


def test_a_table_asks_of_readers_only_what_it_needs(world: TopicWorld) -> None:
    """Without renames and deletes, the plainest readers will do."""
    deltalake = pytest.importorskip("deltalake")
    world.run("CREATE TABLE t (id BIGINT PRIMARY KEY, a INT)")
    world.run("INSERT INTO t SELECT i, i FROM range(10) r(i)")
    ran(world, "STORAGE FLUSH TABLE t")
    plain = deltalake.DeltaTable(str(root_of(world)))
    assert plain.protocol().min_reader_version == 1
    assert plain.to_pyarrow_table().num_rows == 10
    world.run("DELETE FROM t WHERE id < 4")
    ran(world, "STORAGE FLUSH TABLE t")
    assert deltalake.DeltaTable(str(root_of(world))).protocol().reader_features == ["deletionVectors"]
    world.run("ALTER TABLE t RENAME COLUMN a TO b")
    world.run("INSERT INTO t VALUES (20, 1)")
    ran(world, "STORAGE FLUSH TABLE t")
    asked = deltalake.DeltaTable(str(root_of(world))).protocol().reader_features
    assert sorted(asked) == ["columnMapping", "deletionVectors"]


def test_nobody_else_writes_to_an_open_table(world: TopicWorld) -> None:
    deltalake = pytest.importorskip("deltalake")
    world.run("CREATE TABLE t (id BIGINT PRIMARY KEY)")
    world.run("INSERT INTO t VALUES (1)")
    ran(world, "STORAGE FLUSH TABLE t")
    with pytest.raises(deltalake.exceptions.DeltaError, match="headraceManaged"):
        deltalake.DeltaTable(str(root_of(world))).delete()
    assert [row["id"] for row in delta_rs(root_of(world))] == [1]


def test_each_user_has_an_open_table_where_the_template_puts_the_user_first(
    world: TopicWorld, packages: Path, tmp_path: Path
) -> None:
    base = tmp_path / "other"
    world.run(
        f"CREATE STORAGE other TYPE filesystem PATH '{base}' "
        "USER_TABLES_TEMPLATE '{userId}/{namespace}/{tableName}'"
    )
    world.run("CREATE USER TABLE t (id INT PRIMARY KEY) WITH (STORAGE_ID = 'other')")
    for who in (ANN, BOB):
        world.run("INSERT INTO t VALUES (1), (2), (3)", who=who)
    ran(world, "STORAGE FLUSH TABLE t")
    world.run("DELETE FROM t WHERE id = 2", who=BOB)
    before = sorted(path.name for path in (base / "ann/app/t/_delta_log").iterdir())
    ran(world, "STORAGE FLUSH TABLE t")
    for who in (ANN, BOB):
        assert in_order(duckdb(packages, base / who.user / "app" / "t")) == own_rows(world, who=who)
    assert before == sorted(path.name for path in (base / "ann/app/t/_delta_log").iterdir())  # not touched
    world.run("DROP TABLE t")
    assert world.database.lake.sweep() == 2
    assert not any(base.rglob("_delta_log/*"))


def test_files_in_another_storage_are_named_by_their_uris(world: TopicWorld, tmp_path: Path) -> None:
    """The protocol allows it; DuckDB 1.5.5 and delta-rs 1.6.6 cannot read it, so the log itself is looked at."""
    world.run(f"CREATE STORAGE other TYPE filesystem PATH '{tmp_path / 'o ther'}'")
    world.run("CREATE TABLE t (id INT PRIMARY KEY)")
    world.run("INSERT INTO t VALUES (1), (2)")
    ran(world, "STORAGE FLUSH TABLE t")
    before = root_of(world)
    world.run("ALTER TABLE t SET TBLPROPERTIES (STORAGE_ID = 'other')")
    world.run("INSERT INTO t VALUES (3)")
    ran(world, "STORAGE FLUSH TABLE t")
    lines = (tmp_path / "o ther/app/t/_delta_log" / f"{0:020}.json").read_text().splitlines()
    paths = [json.loads(line)["add"]["path"] for line in lines if '"add"' in line]
    assert paths == [(before / "batch-1.parquet").as_uri(), "batch-2.parquet"]
    assert list((before / "_delta_log").iterdir()) == []
