"""Row groups on their way into the cache: served meanwhile, bounded, forgotten with their segment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from storage.batches import encode_batch
from storage.cold_cache import RowGroupCache
from storage.cold_keeping import CacheWriter

SCHEMA = pa.schema([pa.field("_seq", pa.int64(), nullable=False), pa.field("name", pa.string())])
BATCH = pa.RecordBatch.from_arrays([pa.array([1, 2, 3]), pa.array(["a", "b", "c"])], schema=SCHEMA)
KEY, CHECKSUM = (1, 0), 99


@pytest.fixture
def cache(tmp_path: Path) -> RowGroupCache:
    return RowGroupCache(tmp_path / "cache", 1 << 20)


@pytest.fixture
def writer(cache: RowGroupCache) -> Iterator[CacheWriter]:
    writer = CacheWriter(cache)
    yield writer
    writer.close()


def encoded() -> bytes:
    return encode_batch(BATCH, 1, 3)


def held(gate: threading.Event, reached: threading.Event | None = None) -> Callable[[], bytes]:
    def encode() -> bytes:
        if reached is not None:
            reached.set()
        assert gate.wait(30)
        return encoded()

    return encode


def test_a_batch_is_there_before_its_file(cache: RowGroupCache, writer: CacheWriter) -> None:
    gate = threading.Event()
    writer.add(KEY, CHECKSUM, BATCH, SCHEMA, held(gate))
    assert writer.peek(KEY) is BATCH
    assert cache.peek(KEY) is None
    gate.set()
    writer.settle()
    assert writer.peek(KEY) is None
    assert cache.peek(KEY) == BATCH


def test_a_segment_that_is_forgotten_leaves_no_file(cache: RowGroupCache, writer: CacheWriter) -> None:
    gate, reached = threading.Event(), threading.Event()
    writer.add(KEY, CHECKSUM, BATCH, SCHEMA, held(gate, reached))
    assert reached.wait(30)
    writer.add((1, 1), CHECKSUM, BATCH, SCHEMA, encoded)
    writer.forget(1, 2)
    assert writer.peek(KEY) is None
    gate.set()
    writer.close()
    assert len(cache) == 0
    assert list(cache.folder.iterdir()) == []


def test_what_is_beyond_the_bound_is_written_by_who_adds_it(cache: RowGroupCache) -> None:
    writer = CacheWriter(cache, BATCH.nbytes)
    gate = threading.Event()
    writer.add(KEY, CHECKSUM, BATCH, SCHEMA, held(gate))
    writer.add((2, 0), CHECKSUM, BATCH, SCHEMA, encoded)
    assert writer.peek((2, 0)) is None
    assert cache.peek((2, 0)) == BATCH
    gate.set()
    writer.close()
    assert cache.peek(KEY) == BATCH


def test_closing_writes_what_waits(cache: RowGroupCache, writer: CacheWriter) -> None:
    for group in range(5):
        writer.add((1, group), CHECKSUM, BATCH, SCHEMA, encoded)
    writer.close()
    assert len(cache) == 5
    writer.add((1, 5), CHECKSUM, BATCH, SCHEMA, encoded)  # without the thread
    assert cache.peek((1, 5)) == BATCH


def test_a_batch_that_cannot_be_written_is_logged_and_left_out(
    cache: RowGroupCache, writer: CacheWriter, caplog: pytest.LogCaptureFixture
) -> None:
    def refused() -> bytes:
        raise MemoryError

    writer.add(KEY, CHECKSUM, BATCH, SCHEMA, refused)
    writer.settle()
    assert (writer.peek(KEY), cache.peek(KEY)) == (None, None)
    assert "a row group cannot be cached" in caplog.text
    writer.add(KEY, CHECKSUM, BATCH, SCHEMA, encoded)
    writer.settle()
    assert cache.peek(KEY) == BATCH


def test_a_cache_that_keeps_nothing_holds_nothing(tmp_path: Path) -> None:
    writer = CacheWriter(RowGroupCache(tmp_path / "cache", 0))
    writer.add(KEY, CHECKSUM, BATCH, SCHEMA, encoded)
    assert writer.peek(KEY) is None
    writer.close()
    assert not (tmp_path / "cache").exists()
