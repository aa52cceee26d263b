"""A snapshot's rows are the same from memory and from a file, in whatever order they are asked for."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sql.errors import ExecutionError, StorageFullError
from sql.live import spool as spool_module
from sql.live.spool import Spool
from sql.live.wire_rows import table_rows
from sql.results import ResultColumn
from sql.wire import BigintMode
from storage.types import BIGINT, TEXT, UUID

COLUMNS = (
    ResultColumn("id", BIGINT),
    ResultColumn("title", TEXT),
    ResultColumn("tag", UUID),
    ResultColumn("_seq", BIGINT),
)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def rows_of(count: int, chunk: int) -> pa.Table:
    """Rows in chunks, NULLs among them."""
    batches = []
    for start in range(0, count, chunk):
        numbers = range(start, min(start + chunk, count))
        batches.append(pa.record_batch({
            "id": pa.array([2**60 + n if n % 5 == 0 else n for n in numbers], pa.int64()),
            "title": pa.array([None if n % 3 == 0 else f"title {n}" for n in numbers], pa.string()),
            "tag": pa.array([None if n % 7 == 0 else n.to_bytes(16, "big") for n in numbers], pa.binary(16)),
            "_seq": pa.array([10 + 2 * n for n in numbers], pa.int64()),
        }))  # fmt: skip
    schema = pa.schema([("id", pa.int64()), ("title", pa.string()), ("tag", pa.binary(16)), ("_seq", pa.int64())])
    return pa.Table.from_batches(batches, schema)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    count=st.integers(0, 400),
    chunk=st.integers(1, 150),
    asked=st.lists(st.tuples(st.integers(0, 420), st.integers(0, 150)), max_size=6),
    spilled=st.booleans(),
)
def test_every_batch_is_its_part_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, chunk: int, asked: list[tuple[int, int]], spilled: bool
) -> None:
    monkeypatch.setattr(spool_module, "CHUNK_ROWS", 64)
    table = rows_of(count, chunk)
    spool = Spool(table, COLUMNS, BigintMode.AUTO, memory_bytes=-1 if spilled else 1 << 30, folder=tmp_path / "spools")
    whole = table_rows(table, COLUMNS, BigintMode.AUTO)
    assert spool.rows == count
    assert spool.in_memory is not spilled
    for start, size in asked:
        assert spool.batch(start, size) == whole[start : start + size]
        end = min(start + size, count)
        assert spool.last_seq(start + size) == (10 + 2 * (end - 1) if end else 0)
    spool.close()


def test_a_file_has_no_name_and_goes_with_the_spool(tmp_path: Path) -> None:
    before = open_files()
    spool = Spool(rows_of(10_000, 10_000), COLUMNS, BigintMode.AUTO, memory_bytes=1_000, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert open_files() == before + 1
    assert spool.batch(9_999, 5)[0]["_seq"] == 10 + 2 * 9_999
    spool.close()
    spool.close()
    assert open_files() == before
    with pytest.raises(ExecutionError):
        spool.batch(0, 1)


def test_a_spool_that_is_forgotten_gives_its_file_back(tmp_path: Path) -> None:
    before = open_files()
    spool = Spool(rows_of(10, 10), COLUMNS, BigintMode.AUTO, memory_bytes=0, folder=tmp_path)
    del spool
    assert open_files() == before


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageFullError, match="temporary folder"):
        Spool(rows_of(10, 10), COLUMNS, BigintMode.AUTO, memory_bytes=0, folder=tmp_path / "file")


def test_large_numbers_are_as_the_mode_says() -> None:
    spool = Spool(rows_of(1, 1), COLUMNS, BigintMode.AUTO, memory_bytes=1 << 20)
    assert spool.batch(0, 1) == [{"id": str(2**60), "title": None, "tag": None, "_seq": 10}]
    assert Spool(rows_of(2, 1), COLUMNS, BigintMode.STRING, memory_bytes=1 << 20).last_seq(2) == 12
