"""The namespace `dba`: the tables are what CREATE TABLE would make; samples are written, read and pruned."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sql.dba_tables import (
    NOTIFICATIONS_TABLE,
    PRUNED_AT_ONCE,
    STATS_TABLE,
    UnusableTable,
    add_samples,
    are_there,
    create_missing,
    prune,
    samples,
    unit_of,
)
from sql.errors import PermissionDenied
from sql.identity import Role
from storage.catalog import TableDef
from tests.sql.catalogue_world import ROLES, CatalogueWorld, catalogue_world

CREATED = {
    "notifications": "CREATE SHARED TABLE dba.notifications (id TEXT PRIMARY KEY DEFAULT ULID(), user_id TEXT, "
    "title TEXT NOT NULL, body TEXT, is_read BOOLEAN NOT NULL DEFAULT FALSE, created_at TIMESTAMP NOT NULL "
    "DEFAULT NOW(), updated_at TIMESTAMP NOT NULL DEFAULT NOW()) WITH (ACCESS_LEVEL = 'PUBLIC')",
    "stats": "CREATE SHARED TABLE dba.stats (id TEXT PRIMARY KEY, node_id BIGINT NOT NULL, metric_name TEXT NOT NULL, "
    "metric_value DOUBLE NOT NULL, metric_unit TEXT NOT NULL, sampled_at TIMESTAMP NOT NULL) "
    "WITH (ACCESS_LEVEL = 'DBA')",
}
SECOND = 1_000_000


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CatalogueWorld]:
    with catalogue_world(tmp_path_factory.mktemp("dba")) as made:
        made.engine.commit_sync(create_missing)
        yield made


def test_the_tables_are_what_sql_would_make(world: CatalogueWorld) -> None:
    ours = {table.name: table for table in world.engine.catalog.tables("dba")}
    assert ours.keys() == CREATED.keys()
    world.results("DROP NAMESPACE dba; CREATE NAMESPACE dba")
    for sql in CREATED.values():
        world.results(sql, identity=ROLES[Role.SYSTEM])
    for theirs in world.engine.catalog.tables("dba"):

        def alike(table: TableDef) -> TableDef:
            return msgspec.structs.replace(table, table_id=0, created_at=0, updated_at=0, owner="", options={})

        assert alike(ours[theirs.name]) == alike(theirs)


def test_making_them_again_changes_nothing(world: CatalogueWorld) -> None:
    before = list(world.engine.catalog.tables("dba"))
    assert are_there(world.engine.catalog)
    world.engine.commit_sync(create_missing)
    assert list(world.engine.catalog.tables("dba")) == before
    world.results("DROP TABLE dba.stats")
    assert not are_there(world.engine.catalog)
    world.engine.commit_sync(create_missing)
    assert are_there(world.engine.catalog)
    assert world.engine.catalog.table("dba", "notifications") == before[0]


@pytest.mark.parametrize("role", Role)
def test_who_may_read_and_write_them(world: CatalogueWorld, role: Role) -> None:
    identity = ROLES[role]
    assert world.error("SELECT * FROM dba.notifications", identity=identity) is None
    denied = type(world.error("SELECT * FROM dba.stats", identity=identity)) is PermissionDenied
    assert denied == (not role.is_admin)
    sent = world.error("INSERT INTO dba.notifications (title) VALUES ('Hello')", identity=identity)
    assert (type(sent) is PermissionDenied) == (role is Role.USER)
    assert sent is None or role is Role.USER


def test_a_sample_is_every_figure(world: CatalogueWorld) -> None:
    figures = {"things": 7, "a_bytes": 12, "b_seconds": 1.5, "cpu_percent": 3, "x_mb": 1}
    world.engine.commit_sync(lambda wtxn: add_samples(wtxn, samples(figures, 1_700_000_000_123_456)))
    assert world.rows("SELECT id, node_id, metric_name, metric_value, metric_unit FROM dba.stats ORDER BY id") == [
        ("1700000000123:1:a_bytes", 1, "a_bytes", 12.0, "bytes"),
        ("1700000000123:1:b_seconds", 1, "b_seconds", 1.5, "seconds"),
        ("1700000000123:1:cpu_percent", 1, "cpu_percent", 3.0, "percent"),
        ("1700000000123:1:things", 1, "things", 7.0, "count"),
        ("1700000000123:1:x_mb", 1, "x_mb", 1.0, "megabytes"),
    ]
    assert world.rows("SELECT DISTINCT epoch_us(sampled_at) FROM dba.stats") == [(1_700_000_000_123_456,)]


@given(st.lists(st.integers(0, 2 * 10**9), max_size=20), st.integers(0, 2 * 10**9))
def test_ids_are_in_the_order_of_time(times: list[int], before: int) -> None:
    """What pruning relies on: an id is below the bound of a time exactly when its sample is of a millisecond before."""
    bound = f"{before:013d}"
    for milliseconds in times:
        (name,) = samples({"m": 1}, milliseconds * 1000).column("id").to_pylist()
        assert (name < bound) == (milliseconds < before)


def test_pruning_takes_the_old_ones_in_bounded_works(world: CatalogueWorld) -> None:
    figures = {f"metric_{number}": 1 for number in range(PRUNED_AT_ONCE // 4)}
    for second in range(1, 11):
        rows = samples(figures, second * SECOND)
        world.engine.commit_sync(lambda wtxn, rows=rows: add_samples(wtxn, rows))  # type: ignore[misc]
    work = partial(prune, before_us=6 * SECOND)
    assert [world.engine.commit_sync(work) for _ in range(3)] == [PRUNED_AT_ONCE, PRUNED_AT_ONCE // 4, 0]
    kept = world.rows("SELECT DISTINCT epoch_us(sampled_at) FROM dba.stats ORDER BY 1")
    assert kept == [(second * SECOND,) for second in range(6, 11)]


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE dba.stats",
        "ALTER TABLE dba.stats ADD COLUMN more TEXT",
        "DROP TABLE dba.stats; CREATE USER TABLE dba.stats (id TEXT PRIMARY KEY)",
        "DROP NAMESPACE dba",
    ],
)
def test_another_table_of_that_name_is_left_alone(world: CatalogueWorld, change: str) -> None:
    world.results(change)
    with pytest.raises(UnusableTable):
        world.engine.commit_sync(lambda wtxn: add_samples(wtxn, samples({"a": 1}, SECOND)))
    with pytest.raises(UnusableTable):
        world.engine.commit_sync(partial(prune, before_us=SECOND))


def test_units() -> None:
    assert unit_of("uptime_seconds") == "seconds"
    assert unit_of("seconds_of_something") == "count"


def test_no_figure_is_no_row() -> None:
    rows = samples({}, SECOND)
    assert rows.num_rows == 0
    assert rows.schema == STATS_TABLE.arrow_schema
    assert isinstance(rows, pa.Table)
    assert NOTIFICATIONS_TABLE.access_level.value == "public"
