"""Row groups on their way into the cache: written by a thread of its own, so that no reader waits for the disk.

Whoever missed a row group has it in memory once it is decoded; to write 7 MB beside a busy disk takes longer than that.
Until its file is there a row group is served from that memory, which is bounded: what is beyond it is written by the
reader itself, so that readers never run ahead of the disk.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from storage.cold_cache import GroupKey, RowGroupCache

log = logging.getLogger("headrace.cold")

MOST_BYTES = 64 << 20


class CacheWriter:
    """Thread-safe. Only `add` and `settle` may wait for files."""

    def __init__(self, cache: RowGroupCache, most_bytes: int = MOST_BYTES) -> None:
        self._cache = cache
        self._most = most_bytes
        self._lock = threading.Lock()
        self._empty = threading.Condition(self._lock)
        self._waiting: dict[GroupKey, pa.RecordBatch] = {}
        self._bytes = 0
        self._closed = False
        self._pool: ThreadPoolExecutor | None = None

    def peek(self, key: GroupKey) -> pa.RecordBatch | None:
        """A batch that waits to be written."""
        return self._waiting.get(key)

    def add(
        self, key: GroupKey, checksum: int, batch: pa.RecordBatch, schema: pa.Schema, encode: Callable[[], bytes]
    ) -> None:
        """Have a batch of the segment with that checksum cached; `encode` makes its stored form."""
        if not self._cache.takes(batch.nbytes):
            return
        with self._lock:
            if key in self._waiting:
                return
            waits = not self._closed and self._bytes + batch.nbytes <= self._most
            if waits:
                self._waiting[key] = batch
                self._bytes += batch.nbytes
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(1, thread_name_prefix="headrace-cold-cache")
                self._pool.submit(self._write, key, checksum, batch, schema, encode)
        if not waits:
            self._cache.put(key, checksum, encode(), schema)

    def forget(self, segment_id: int, groups: int) -> None:
        """The file of a segment is deleted; what is being written of it is deleted when it is there."""
        with self._lock:
            for group in range(groups):
                self._drop((segment_id, group))

    def settle(self) -> None:
        """Wait until all that was added is written."""
        with self._empty:
            self._empty.wait_for(lambda: not self._waiting)

    def close(self) -> None:
        """Write what waits, and end the thread."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()

    def _write(
        self, key: GroupKey, checksum: int, batch: pa.RecordBatch, schema: pa.Schema, encode: Callable[[], bytes]
    ) -> None:
        with self._lock:
            if self._waiting.get(key) is not batch:
                return
        try:
            self._cache.put(key, checksum, encode(), schema)
        except Exception:
            log.exception("a row group cannot be cached")
        with self._lock:
            wanted = self._waiting.get(key) is batch
            if wanted:
                self._drop(key)
        if not wanted:
            self._cache.remove(key)

    def _drop(self, key: GroupKey) -> None:
        batch = self._waiting.pop(key, None)
        if batch is not None:
            self._bytes -= batch.nbytes
        if not self._waiting:
            self._empty.notify_all()
