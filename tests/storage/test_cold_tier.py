"""The cold tier step by step: files, pruning, damage, the cache, who may wait, and what a crash leaves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import StorageEngine, StorageOptions, TableDef
from storage.catalog import ColumnDef, SchemaVersion
from storage.cold_files import file_name, folder_of, path_name
from storage.cold_segments import SegmentStatus
from storage.cold_statistics import Bounds, column_statistics, excludes
from storage.errors import ColdMiss, SchemaChanged, StorageCorrupt, StorageUnavailable
from storage.layout import encode_initial, layout_of
from storage.point_read import PointReader
from storage.storage_definitions import local_place
from storage.types import (
    BIGINT,
    BOOLEAN,
    BYTES,
    DATE,
    DATETIME,
    DOUBLE,
    FLOAT,
    JSON,
    TEXT,
    TIME,
    TIMESTAMP,
    UUID,
    arrow_type,
    decimal,
    embedding,
)
from storage.versions import read_versions
from storage.writer import WriteTransaction
from tests.storage.conftest import QUIET
from tests.storage.helpers import create, key_of, keyed_table, keyless_table, plain_table, rows_of

OPTIONS = msgspec.structs.replace(QUIET, cold_grace_seconds=0.0)


@pytest.fixture
def engine(folder: Path) -> Iterator[StorageEngine]:
    """An engine whose replaced files have no grace."""
    with StorageEngine.open(folder, OPTIONS) as opened:
        yield opened


def fill(engine: StorageEngine, table: TableDef, user: str, ids: range) -> None:
    """Insert rows (id, text of id, id)."""
    rows = rows_of(table, [(number, f"r{number:05d}", number) for number in ids])
    engine.commit_sync(lambda wtxn: wtxn.insert(table, user, rows))


def all_rows(engine: StorageEngine, table: TableDef, user: str = "") -> list[dict[str, Any]]:
    """Every live row."""
    with engine.snapshot() as snapshot:
        rows: list[dict[str, Any]] = snapshot.scan(table, user, with_seq=True).to_pylist()
        return rows


def committed(engine: StorageEngine, table: TableDef) -> list[Any]:
    """The committed segments of a table."""
    with engine.snapshot() as snapshot:
        found = list(engine.cold.segments(snapshot, table.table_id))
    return [segment for segment in found if segment.status is SegmentStatus.COMMITTED]


# --- files -----------------------------------------------------------------------------------------------------------


def test_files_are_plain_parquet_with_names_and_field_ids(engine: StorageEngine, folder: Path) -> None:
    table = create(engine)
    fill(engine, table, "", range(2_000))
    assert engine.cold.flush(table.table_id).rows == 2_000
    [segment] = committed(engine, table)
    file = pq.ParquetFile(folder / "cold" / segment.path)
    assert segment.path == "app/plain/batch-1.parquet"
    assert file.schema_arrow.names == ["_seq", "id", "email", "amount"]
    ids = [field.metadata[b"PARQUET:field_id"] for field in file.schema_arrow]
    assert ids[1:] == [b"1", b"2", b"3"]
    group = file.metadata.row_group(0)
    assert (group.column(1).statistics.min, group.column(1).statistics.max) == (0, 1_999)
    assert file.read().to_pylist() == all_rows(engine, table)
    assert engine.check() == []


def test_every_type_survives(engine: StorageEngine, folder: Path) -> None:
    types = (
        BOOLEAN, FLOAT, DOUBLE, TEXT, TIMESTAMP, DATETIME, DATE, TIME, JSON, BYTES, UUID, decimal(38, 10), embedding(3),
    )  # fmt: skip
    values = (
        True, 0.5, -1e300, "é\0", 1, -1, 19_000, 86_399_999_999, "{}", b"\xff", bytes(range(16)), None, [0.5, 1, 2],
    )  # fmt: skip
    columns = tuple(ColumnDef(number, f"c{number}", kind) for number, kind in enumerate(types, 2))

    def make(table_id: int) -> TableDef:
        return msgspec.structs.replace(
            plain_table(table_id), columns=(ColumnDef(1, "id", BIGINT, nullable=False), *columns), next_column_id=99
        )

    table = create(engine, make)
    rows = rows_of(table, [(1, *values), (2, *(None for _ in types))])
    engine.commit_sync(lambda wtxn: wtxn.insert(table, "", rows))
    before = all_rows(engine, table)
    engine.cold.flush(table.table_id)
    assert all_rows(engine, table) == before
    with engine.snapshot() as snapshot:
        assert snapshot.scan(table, "").schema.types == [arrow_type(column.type) for column in table.columns]
        assert snapshot.fetch(table, "", [row["_seq"] for row in before], with_seq=True).to_pylist() == before
    [segment] = committed(engine, table)
    schema = pq.ParquetFile(folder / "cold" / segment.path).schema
    logical = {column.name: str(column.logical_type) for column in map(schema.column, range(len(schema)))}
    assert logical["c9"] == logical["c12"] == "String"  # Delta Lake has neither TIME nor UUID
    assert engine.check() == []


def test_hidden_row_ids_stay(engine: StorageEngine) -> None:
    table = create(engine, keyless_table)
    fill(engine, table, "", range(10))

    def row_ids() -> list[int]:
        with engine.snapshot() as snapshot:
            found: list[int] = snapshot.scan(table, "", ["_row_id"]).column(0).to_pylist()
            return found

    before = row_ids()
    engine.cold.flush(table.table_id)
    assert row_ids() == before


@pytest.mark.parametrize("user", ["..", ".", "a/b", "a\\b", "", "..%2f", "x" * 500, "\0", "é", "_x", "con", "a=b"])
def test_user_ids_are_one_safe_part_of_a_path(tmp_path: Path, user: str) -> None:
    name = path_name(user)
    assert name not in {"", ".", ".."}
    assert not set(name) & set("/\\\0")
    assert len(name.encode()) <= 255
    path = file_name(folder_of(local_place(tmp_path), keyed_table(1), user), 7)
    assert (tmp_path / path).resolve().is_relative_to(tmp_path / "app" / "keyed")


def test_a_file_that_is_there_is_never_written_over(engine: StorageEngine, folder: Path) -> None:
    table = create(engine)
    fill(engine, table, "", range(5))
    stranger = folder / "cold" / "app" / "plain" / "batch-1.parquet"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("not ours")
    engine.cold.flush(table.table_id)
    assert [segment.segment_id for segment in committed(engine, table)] == [2]
    assert stranger.read_text() == "not ours"


def test_columns_are_found_after_they_were_renamed_and_dropped(engine: StorageEngine) -> None:
    table = create(engine)
    fill(engine, table, "", range(3))
    engine.cold.flush(table.table_id)
    first, second, third = table.columns
    changed = msgspec.structs.replace(
        table,
        columns=(first, msgspec.structs.replace(third, name="email"), ColumnDef(4, "more", TEXT)),
        schema_version=2,
        history=(SchemaVersion(1, table.columns),),
        next_column_id=5,
    )
    engine.commit_sync(lambda wtxn: wtxn.put_table(changed))
    assert second.name == "email"
    expected = [{"id": n, "email": n, "more": None} for n in range(3)]
    with engine.snapshot() as snapshot:
        assert snapshot.scan(changed, "").to_pylist() == expected
        # the bounds of the old column of that name say nothing about the new one
        assert snapshot.scan(changed, "", bounds={"email": Bounds(0, 2)}).num_rows == 3
    assert engine.cold.compact(changed.table_id).segments_after == 1
    assert committed(engine, changed)[0].schema_version == 2
    with engine.snapshot() as snapshot:
        assert snapshot.scan(changed, "").to_pylist() == expected
    assert engine.check() == []


@pytest.mark.parametrize("again", [False, True], ids=["flush", "compaction"])
@pytest.mark.parametrize("drop", [False, True], ids=["added", "dropped"])
def test_the_schema_changes_between_reading_and_swapping(engine: StorageEngine, *, again: bool, drop: bool) -> None:
    """Superseded rows, which the log needs, were read with other columns than those under which they are kept."""
    table = create(engine)
    fill(engine, table, "", range(6))
    if again:
        engine.cold.flush(table.table_id)
    old = all_rows(engine, table)
    engine.commit_sync(lambda wtxn: wtxn.delete(table, "", [row["_seq"] for row in old[1:3]]))
    changed = msgspec.structs.replace(
        table,
        columns=table.columns[:2]
        if drop
        else (*table.columns, ColumnDef(4, "more", BIGINT, initial=encode_initial(pa.array([7], pa.int64())))),
        schema_version=2,
        history=(SchemaVersion(1, table.columns),),
        next_column_id=5,
    )

    def alter(step: str) -> None:
        if step == "written" and engine.catalog.table_by_id(table.table_id) == table:
            engine.commit_sync(lambda wtxn: wtxn.put_table(changed))

    engine.cold.step = alter
    if again:
        engine.cold.compact(table.table_id)
    else:
        engine.cold.flush(table.table_id)
    assert engine.check() == []
    names = [column.name for column in changed.columns]
    wanted = [{name: row.get(name, 7) for name in ("_seq", *names)} for row in old]
    assert all_rows(engine, changed) == [*wanted[:1], *wanted[3:]]
    with engine.snapshot() as snapshot, snapshot.reading() as reader:
        seqs = np.array([row["_seq"] for row in old], dtype=np.int64)
        versions = read_versions(reader, layout_of(changed), "", seqs)
    assert sorted(versions.select(["_seq", *names]).to_pylist(), key=lambda row: row["_seq"]) == wanted


# --- pruning ---------------------------------------------------------------------------------------------------------


def test_only_files_that_may_match_are_read(engine: StorageEngine) -> None:
    table = create(engine)
    for start in range(0, 500, 100):
        fill(engine, table, "", range(start, start + 100))
        engine.cold.flush(table.table_id)
    with engine.snapshot() as snapshot:
        rows = snapshot.scan(table, "", ["id"], bounds={"id": Bounds(150, 220)})
        assert rows.column("id").to_pylist() == list(range(100, 300))
        counts = snapshot.statistics.counts()
        assert (counts.files, counts.files_pruned, counts.row_groups, counts.row_groups_pruned) == (2, 3, 2, 3)
    with engine.snapshot() as snapshot:
        assert snapshot.scan(table, "", bounds={"email": Bounds(among=["r00007", "x"])}).num_rows == 100
        assert snapshot.statistics.counts().files == 1
        assert snapshot.scan(table, "", bounds={"_seq": Bounds(snapshot.seq, None)}).num_rows == 100


VALUES: dict[Any, Any] = {
    BIGINT: st.integers(-(2**63), 2**63 - 1),
    DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    TEXT: st.text(max_size=3) | st.text("ab\U0010ffff\ud7ff", min_size=62, max_size=67),
    BYTES: st.binary(max_size=3) | st.binary(min_size=63, max_size=66).map(lambda b: b"\xff" * 60 + b),
    BOOLEAN: st.booleans(),
    UUID: st.binary(min_size=16, max_size=16),
    DATE: st.integers(-10_000, 10_000),
    decimal(38, 2): st.decimals(-(10**20), 10**20, places=2),
}


@given(st.data())
def test_statistics_never_exclude_a_value_that_is_there(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(list(VALUES)))
    values = data.draw(st.lists(st.none() | VALUES[kind], min_size=1, max_size=8))
    column = ColumnDef(1, "c", kind)
    stats = column_statistics([column], [pa.array(values, arrow_type(kind))])[1]
    stats = msgspec.msgpack.decode(msgspec.msgpack.encode(stats), type=type(stats))
    one, two = data.draw(VALUES[kind]), data.draw(VALUES[kind])
    present = [value for value in values if value is not None]
    for bounds, matches in (
        (Bounds(one, None), lambda v: v >= one),
        (Bounds(None, one), lambda v: v <= one),
        (Bounds(one, one), lambda v: v == one),
        (Bounds(min(one, two), max(one, two)), lambda v: min(one, two) <= v <= max(one, two)),
        (Bounds(among=[one, two, None]), lambda v: v in (one, two)),
    ):
        if any(map(matches, present)):
            assert not excludes(stats, column, column, bounds)
    if not present:
        assert excludes(stats, column, column, Bounds(one, None))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(low=st.none() | st.integers(-5, 1_100), high=st.none() | st.integers(-5, 1_100))
def test_a_bounded_scan_has_every_row_that_matches(pruned: StorageEngine, low: int | None, high: int | None) -> None:
    table = pruned.catalog.table("app", "plain")
    assert table is not None
    with pruned.snapshot() as snapshot:
        found = snapshot.scan(table, "", ["amount"], bounds={"amount": Bounds(low, high)}).column(0).to_pylist()
        everything = snapshot.scan(table, "", ["amount"]).column(0).to_pylist()

    def matching(amounts: list[int]) -> list[int]:
        return [a for a in amounts if (low is None or a >= low) and (high is None or a <= high)]

    assert matching(found) == matching(everything)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageEngine]:
    """Ten files whose amounts overlap, and some hot rows."""
    options = msgspec.structs.replace(OPTIONS, cold_segment_rows=100)
    with StorageEngine.open(tmp_path_factory.mktemp("pruned"), options) as engine:
        table = create(engine)
        amounts = np.random.default_rng(7).integers(0, 1_000, 1_000) // 3 * 3 + np.arange(1_000) // 10
        for start in range(0, 1_000, 100):
            rows = rows_of(table, [(n, None, int(amounts[n])) for n in range(start, start + 100)])
            engine.commit_sync(lambda wtxn, rows=rows: wtxn.insert(table, "", rows))
            if start < 900:
                engine.cold.flush(table.table_id)
        yield engine


# --- damage ----------------------------------------------------------------------------------------------------------


def damaged(folder: Path, how: str, segment: Any) -> None:
    """Do something to a file."""
    file = folder / "cold" / segment.path
    if how == "missing":
        file.unlink()
        return
    data = bytearray(file.read_bytes())
    if how == "short":
        data = data[: len(data) // 2]
    elif how == "footer":
        data[-20] ^= 0x40
    else:
        data[len(data) // 3] ^= 0x40
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["missing", "short", "footer", "page"])
def test_damage_fails_only_what_needs_the_file(folder: Path, how: str) -> None:
    with StorageEngine.open(folder, OPTIONS) as engine:
        table = create(engine)
        for start in (0, 1_000):
            fill(engine, table, "", range(start, start + 1_000))
            engine.cold.flush(table.table_id)
        first, second = committed(engine, table)
    damaged(folder, how, first)
    with StorageEngine.open(folder, OPTIONS) as engine:
        with engine.snapshot() as snapshot:
            with pytest.raises(StorageCorrupt, match=rf"app\.plain, rows _seq {first.min_seq} to .*{first.path}"):
                snapshot.scan(table, "")
            with pytest.raises(StorageCorrupt, match=first.path):
                snapshot.get_row(table, "", key_of(table, 5))
            assert snapshot.count(table, "") == 2_000
            assert snapshot.scan(table, "", bounds={"id": Bounds(1_000, None)}).num_rows == 1_000
            assert snapshot.get_row(table, "", key_of(table, 1_005))[1][0] == 1_005  # type: ignore[index]
        problems = engine.check()
        assert any(first.path in str(problem) for problem in problems)
        assert not any(second.path in str(problem) for problem in problems)
        with pytest.raises(StorageCorrupt):
            engine.commit_sync(lambda wtxn: wtxn.get_row(table, "", key_of(table, 5)))
        fill(engine, table, "", range(3_000, 3_010))


def test_an_unknown_storage_is_an_error_that_names_it(engine: StorageEngine) -> None:
    table = create(
        engine, lambda table_id: msgspec.structs.replace(plain_table(table_id), options={"storage_id": "far"})
    )
    fill(engine, table, "", range(3))
    with pytest.raises(StorageUnavailable, match="'far'"):
        engine.cold.flush(table.table_id)
    assert len(all_rows(engine, table)) == 3


# --- the cache, and who may wait ------------------------------------------------------------------------------------


def test_the_event_loop_reads_only_what_is_cached(engine: StorageEngine) -> None:
    table = create(engine)
    fill(engine, table, "", range(100))
    engine.cold.flush(table.table_id)
    reader = PointReader(table, ["id", "email"])
    snapshot = engine.snapshot_at_once()
    assert snapshot is not None
    with snapshot:
        with pytest.raises(ColdMiss):
            reader.read(snapshot, "", key_of(table, 7))
        for read in (
            lambda: snapshot.get_row(table, "", key_of(table, 7)),
            lambda: snapshot.fetch(table, "", [snapshot.seq]),
            lambda: snapshot.fetch(table, "", [snapshot.seq, snapshot.seq - 1]),
            lambda: snapshot.scan(table, ""),
        ):
            with pytest.raises(ColdMiss):
                read()
    with engine.snapshot() as waiting:
        assert waiting.get_row(table, "", key_of(table, 7)) is not None
    again = engine.snapshot_at_once()
    assert again is not None
    with again:
        assert reader.read(again, "", key_of(table, 7)) == [7, "r00007"]
        assert again.scan(table, "").num_rows == 100


def test_changed_rows_of_files_are_not_read_on_the_event_loop(engine: StorageEngine) -> None:
    table = create(engine)
    fill(engine, table, "", range(10))
    engine.cold.flush(table.table_id)
    cursor = engine.feed.subscribe(engine.last_seq)
    engine.commit_sync(lambda wtxn: wtxn.delete(table, "", wtxn.find(table, "", [key_of(table, 7)])))
    engine.cold.reads.cache.remove((1, 0))  # the writer needed the key of the row
    [commit] = cursor.poll()
    assert not engine.feed.read_rows_at_once(commit.tables)
    engine.feed.read_rows(commit.tables)
    assert engine.feed.read_rows_at_once(commit.tables)
    assert commit.tables[0].removed().column("id").to_pylist() == [7]


def test_the_writer_goes_on_while_a_work_waits_for_a_file(
    engine: StorageEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = create(engine)
    fill(engine, table, "", range(10))
    engine.cold.flush(table.table_id)
    opening, gate = threading.Event(), threading.Event()
    reads = engine.cold.reads
    really = reads.open

    def slow(segment: Any) -> Any:
        opening.set()
        assert gate.wait(30)
        return really(segment)

    monkeypatch.setattr(reads, "open", slow)
    waiting = engine.submit(lambda wtxn: wtxn.get_row(table, "", key_of(table, 7)))
    assert opening.wait(30)
    fill(engine, table, "", range(100, 110))
    assert not waiting.done()
    gate.set()
    found = waiting.result(30)
    assert found is not None
    assert found[1] == (7, "r00007", 7)


def test_the_cache_is_bounded_and_survives_restarts(folder: Path) -> None:
    options = msgspec.structs.replace(OPTIONS, cold_cache_bytes=64 << 10, cold_segment_rows=500)
    cache = folder / "cache"
    with StorageEngine.open(folder, options) as engine:
        table = create(engine)
        for start in range(0, 5_000, 500):
            fill(engine, table, "", range(start, start + 500))
        engine.cold.flush(table.table_id)
        with engine.snapshot() as snapshot:
            for number in range(0, 5_000, 100):
                assert snapshot.get_row(table, "", key_of(table, number))[1][0] == number  # type: ignore[index]
        assert 0 < sum(file.stat().st_size for file in cache.iterdir()) <= options.cold_cache_bytes
        kept = sorted(file.name for file in cache.iterdir())
    (cache / "1-0-0000000000000000.5.tmp").write_bytes(b"left by a crash")
    spoilt = cache / kept[-1]
    spoilt.write_bytes(bytes(spoilt.stat().st_size))
    with StorageEngine.open(folder, options) as engine:
        assert sorted(file.name for file in cache.iterdir()) == kept
        with engine.snapshot() as snapshot:
            for number in range(0, 5_000, 50):
                assert snapshot.get_row(table, "", key_of(table, number))[1][0] == number  # type: ignore[index]


def test_a_large_scan_waits_in_a_file_without_a_name(folder: Path) -> None:
    options = msgspec.structs.replace(OPTIONS, cold_scan_bytes=20_000, cold_segment_rows=500)
    with StorageEngine.open(folder, options) as engine:
        table = create(engine)
        for start in range(0, 3_000, 500):
            fill(engine, table, "", range(start, start + 500))
        before = all_rows(engine, table)
        mapped = pa.total_allocated_bytes()
        engine.cold.flush(table.table_id)
        fill(engine, table, "", range(3_000, 3_010))
        with engine.snapshot() as snapshot:
            rows = snapshot.scan(table, "", with_seq=True)
            assert pa.total_allocated_bytes() - mapped < rows.nbytes // 2
        assert rows.slice(0, 3_000).to_pylist() == before
        assert rows.column("id").to_pylist() == list(range(3_010))
        assert list((folder / "cache").iterdir()) == []


# --- flush and compaction ------------------------------------------------------------------------------------------


def test_a_first_flush_of_dead_rows_alone_writes_nothing(engine: StorageEngine, folder: Path) -> None:
    table = create(engine)

    def work(writer: WriteTransaction) -> None:
        writer.delete(table, "", [writer.insert_row(table, "", (1, "a", 1), key_of(table, 1))])

    engine.commit_sync(work)
    assert engine.cold.flush(table.table_id).segments == 0
    assert not (folder / "cold").exists()
    assert engine.check() == []
    with engine.snapshot() as snapshot:
        assert snapshot.count(table, "") == 0


def test_rows_that_die_during_a_move_are_dead_afterwards(engine: StorageEngine) -> None:
    table = create(engine)
    fill(engine, table, "", range(10))
    engine.cold.flush(table.table_id)
    fill(engine, table, "", range(10, 20))
    deleted = iter(range(3, 20, 5))

    def meanwhile(step: str) -> None:
        if step == "written":
            doomed = next(deleted)
            engine.commit_sync(lambda wtxn: wtxn.delete(table, "", wtxn.find(table, "", [key_of(table, doomed)])))

    engine.cold.step = meanwhile
    engine.cold.flush(table.table_id)
    engine.cold.compact(table.table_id)
    assert [row["id"] for row in all_rows(engine, table)] == [n for n in range(20) if n not in (3, 8)]
    assert engine.check() == []


def test_files_of_replaced_segments_stay_while_a_snapshot_reads_them(engine: StorageEngine, folder: Path) -> None:
    table = create(engine)
    for start in (0, 10):
        fill(engine, table, "", range(start, start + 10))
        engine.cold.flush(table.table_id)
    old = [folder / "cold" / segment.path for segment in committed(engine, table)]
    with engine.snapshot() as before:
        assert engine.cold.compact(table.table_id)[:2] == (2, 1)
        assert engine.cold.collect() == 0
        assert before.scan(table, "").num_rows == 20
        assert all(file.exists() for file in old)
    assert engine.cold.collect() == 2
    assert not any(file.exists() for file in old)
    assert len(all_rows(engine, table)) == 20


def test_the_files_of_a_dropped_table_go(engine: StorageEngine, folder: Path) -> None:
    table = create(engine)
    fill(engine, table, "", range(10))
    engine.cold.flush(table.table_id)
    engine.commit_sync(lambda wtxn: wtxn.drop_table(table.table_id))
    with pytest.raises(SchemaChanged):
        engine.cold.flush(table.table_id)
    engine.compact()
    engine.cold.collect()
    assert list((folder / "cold").rglob("*.parquet")) == []
    with engine.snapshot() as snapshot:
        assert list(engine.cold.segments(snapshot)) == []


def test_many_partitions_are_moved_in_rounds(engine: StorageEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.cold_tier.ROUND_FILES", 4)
    table = create(engine, keyed_table)
    users = [f"u{number}" for number in range(11)]
    for user in users:
        fill(engine, table, user, range(3))
    shown: list[float] = []
    moved: list[int] = []
    engine.cold.tables_moved.append(moved.append)
    result = engine.cold.flush(table.table_id, lambda percent, _: shown.append(percent))
    assert result[:2] == (33, 11)
    assert shown == sorted(shown)
    assert shown[-1] == 100
    assert moved == [table.table_id] * 3
    for user in users:
        assert len(all_rows(engine, table, user)) == 3
    assert engine.check() == []


def test_a_compaction_in_rounds_meets_no_part_of_its_own_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.cold_tier.ROUND_FILES", 1)
    monkeypatch.setattr("storage.cold_moving.MAX_ROWS", 10)
    options = msgspec.structs.replace(OPTIONS, cold_segment_rows=60, merge=False)
    with StorageEngine.open(folder, options) as engine:
        table = create(engine)
        for start, end in ((0, 60), (60, 100), (100, 160), (160, 200)):
            fill(engine, table, "", range(start, end))
        engine.cold.flush(table.table_id)
        assert [segment.row_groups for segment in committed(engine, table)] == [6, 4, 6, 4]
        keys = [key_of(table, number) for number in range(0, 200, 20)]  # so that later row groups begin later
        engine.commit_sync(lambda wtxn: wtxn.delete(table, "", wtxn.find(table, "", keys)))
        before = all_rows(engine, table)
        assert engine.cold.compact(table.table_id) == (4, 4, len(keys))
        assert all_rows(engine, table) == before
        assert engine.check() == []


class Stop(Exception):
    """What a job raises that was cancelled."""


def test_a_stopped_flush_keeps_what_it_moved(engine: StorageEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.cold_tier.ROUND_FILES", 2)
    table = create(engine, keyed_table)
    for user in "abcdef":
        fill(engine, table, user, range(3))
    calls = iter(range(9))

    def check() -> None:
        if next(calls) == 2:
            raise Stop

    with pytest.raises(Stop):
        engine.cold.flush(table.table_id, check=check)
    assert len(committed(engine, table)) == 4
    assert engine.cold.flush(table.table_id).segments == 2
    assert engine.check() == []


@pytest.mark.parametrize("step", ["recorded", "written"])
def test_what_a_failed_move_leaves_is_collected(engine: StorageEngine, folder: Path, step: str) -> None:
    table = create(engine)
    fill(engine, table, "", range(10))

    def fail(reached: str) -> None:
        if reached == step:
            raise Stop

    engine.cold.step = fail
    with pytest.raises(Stop):
        engine.cold.flush(table.table_id)
    engine.cold.step = lambda _: None
    assert engine.cold.collect() == 1
    assert list((folder / "cold").rglob("*.parquet*")) == []
    assert engine.cold.flush(table.table_id).rows == 10
    assert engine.check() == []


def test_a_flush_that_ends_while_files_are_collected_keeps_its_file(
    engine: StorageEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = create(engine)
    fill(engine, table, "", range(10))
    recorded, gate = threading.Event(), threading.Event()

    def hold(step: str) -> None:
        if step == "recorded":
            recorded.set()
            assert gate.wait(30)

    engine.cold.step = hold
    flushing = threading.Thread(target=engine.cold.flush, args=(table.table_id,))
    flushing.start()
    assert recorded.wait(30)
    really = engine.cold._snapshot

    def snapshot_then_swap(purpose: str) -> Any:
        snapshot = really(purpose)
        if purpose.startswith("collecting"):
            gate.set()
            flushing.join()
        return snapshot

    monkeypatch.setattr(engine.cold, "_snapshot", snapshot_then_swap)
    assert engine.cold.collect() == 0
    assert len(list((folder / "cold").rglob("*.parquet"))) == 1
    assert len(all_rows(engine, table)) == 10
    assert engine.check() == []


def test_background_merging_leaves_stubs_and_moving_partitions_alone(folder: Path) -> None:
    options = StorageOptions(map_start=64 << 20, merge=False, evict=False, merge_fan_in=2)
    with StorageEngine.open(folder, options) as engine:
        table = create(engine)
        for number in range(8):
            fill(engine, table, "", range(number, number + 1))
            engine.cold.flush(table.table_id)
        assert engine.compact() == 0
        for number in range(8, 12):
            fill(engine, table, "", range(number, number + 1))
        with engine._merger.reserving([(table.table_id, "")]):
            assert engine.compact() == 0
        assert engine.compact() == 1
        assert [row["id"] for row in all_rows(engine, table)] == list(range(12))
        assert engine.check() == []
