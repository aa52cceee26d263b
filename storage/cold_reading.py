"""Reading cold batches: from the cache of row groups, or from the columns of a Parquet file that somebody needs.

Nothing here touches LMDB: a `ColdRequest` carries all that is needed, so files are read while no lock is held that the
engine needs. Several row groups are read by a few threads at once (Arrow decodes without the interpreter's lock).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

import pyarrow as pa

from storage.batches import Seqs, encode_batch, without
from storage.cold_cache import GroupKey, RowGroupCache
from storage.cold_parquet import Footers, read_columns, read_footer, repeats
from storage.cold_segments import Segment
from storage.cold_spill import Spill
from storage.errors import ColdMiss, StorageCorrupt, StorageUnavailable
from storage.layout import Projection, StoredColumns
from storage.storage_definitions import LOCAL, StorageResolver

if TYPE_CHECKING:
    import pyarrow.parquet as pq
    from pyarrow import fs

T = TypeVar("T")
U = TypeVar("U")

READERS = min(4, os.cpu_count() or 1)
_IDLE_FILES = 64
_DENSE = 8
"""One row in so many, and more, is read without the cache: reading them all is not the way of point reads."""


class ColdRequest(NamedTuple):
    """A row group of a segment, and the batch that it is."""

    segment: Segment
    group: int
    version: int
    schema: pa.Schema
    """The stored schema."""
    rows: int
    seqs: Callable[[], Seqs]
    place: str
    """Table and range, for messages."""

    @property
    def key(self) -> GroupKey:
        """Its key in the cache."""
        return self.segment.segment_id, self.group


class ColdPart(NamedTuple):
    """Rows of a cold batch that a reader wants: projected, without those that are gone, or only those at `places`."""

    request: ColdRequest
    plan: Projection
    gone: Seqs | None = None
    places: Seqs | None = None


class SparseBatch(NamedTuple):
    """Some columns of a stored batch."""

    num_rows: int
    columns: dict[int, pa.Array]

    def column(self, i: int, /) -> pa.Array:
        """See StoredColumns."""
        return self.columns[i]


Part: TypeAlias = "pa.RecordBatch | ColdPart"


class ColdReads:
    """Reads row groups. Thread-safe; every method but `peek` may wait for files."""

    def __init__(
        self, cache: RowGroupCache, resolver: Callable[[], StorageResolver], scan_bytes: int = 64 << 20
    ) -> None:
        self.cache = cache
        self._scan_bytes = scan_bytes
        self._resolver = resolver
        self._footers = Footers()
        self._lock = threading.Lock()
        self._loading = [threading.Lock() for _ in range(16)]
        self._files: dict[int, list[pa.NativeFile]] = {}
        self._idle = 0
        self._pool: ThreadPoolExecutor | None = None
        self._segments: dict[int, Segment] = {}

    def close(self) -> None:
        """Close files and threads."""
        with self._lock:
            pool, self._pool = self._pool, None
            files, self._files = self._files, {}
        if pool is not None:
            pool.shutdown()
        for idle in files.values():
            for file in idle:
                file.close()

    def known(self, segment_id: int) -> Segment | None:
        """A committed segment that was looked up before."""
        return self._segments.get(segment_id)

    def remember(self, segment: Segment) -> None:
        """Keep what was looked up of a committed segment: it never changes while stubs refer to it."""
        if len(self._segments) >= 4_096:
            self._segments = {}
        self._segments[segment.segment_id] = segment

    def forget(self, segment: Segment) -> None:
        """The file of a segment is deleted."""
        self._segments.pop(segment.segment_id, None)
        self.cache.remove_segment(segment.segment_id, segment.row_groups)
        with self._lock:
            files = self._files.pop(segment.segment_id, [])
            self._idle -= len(files)
        for file in files:
            file.close()

    def peek(self, key: GroupKey) -> pa.RecordBatch | None:
        """A whole stored batch, without any I/O; None when it is not in the cache."""
        return self.cache.peek(key)

    def whole(self, request: ColdRequest, *, waits: bool = True) -> pa.RecordBatch:
        """A whole stored batch, through the cache. Raises ColdMiss instead of waiting, StorageCorrupt for damage."""
        batch = self.cache.peek(request.key)
        if batch is not None:
            return batch
        if not waits:
            raise ColdMiss(lambda: self.whole(request))
        with self._loading[hash(request.key) % len(self._loading)]:
            batch = self.cache.get(request.key, request.segment.checksum, request.schema)
            if batch is None:
                batch = self.uncached(request)
                value = encode_batch(batch, request.version, int(request.seqs()[-1]))
                batch = self.cache.put(request.key, request.segment.checksum, value, request.schema) or batch
        return batch

    def uncached(self, request: ColdRequest) -> pa.RecordBatch:
        """A whole stored batch from Parquet, in memory of its own."""
        columns = self.columns(request, range(1, len(request.schema)))
        arrays = [pa.array(request.seqs(), pa.int64()), *(columns[place] for place in range(1, len(request.schema)))]
        return pa.RecordBatch.from_arrays(arrays, schema=request.schema)

    def read(self, part: ColdPart) -> list[pa.RecordBatch]:
        """The rows of a part."""
        request, plan, gone, places = part
        if places is not None:
            dense = len(places) * _DENSE >= request.rows and self.cache.peek(request.key) is None
            stored = self._sparse(request, plan) if dense else self.whole(request)
            some = pa.array(places, pa.int64())
            wanted = SparseBatch(len(places), {p: stored.column(p).take(some) for p in plan.positions})
            return [plan.batch(wanted)]
        projected = plan.batch(self.cache.peek(request.key) or self._sparse(request, plan))
        if gone is None or not len(gone):
            return [projected]
        return without(projected, gone)

    def read_all(self, parts: Sequence[Part], check: Callable[[], object] = lambda: None) -> list[pa.RecordBatch]:
        """The rows of all parts, in order. `check` is called between row groups, and may raise."""
        cold = [part for part in parts if isinstance(part, ColdPart)]
        if not cold:
            return [part for part in parts if isinstance(part, pa.RecordBatch)]
        if len(cold) == 1:
            return [piece for part in parts for piece in (self.read(part) if isinstance(part, ColdPart) else [part])]
        spill = Spill(self.cache.folder, self._scan_bytes)
        hot: list[tuple[int, pa.RecordBatch]] = []
        found = 0
        read = self.ahead(cold, self.read)
        try:
            for part in parts:
                if isinstance(part, pa.RecordBatch):
                    hot.append((found, part))
                    continue
                check()
                pieces = next(read)
                spill.add(pieces)
                found += len(pieces)
            rows = spill.batches()
        finally:
            read.close()
            spill.close()
        for place, batch in reversed(hot):
            rows.insert(place, batch)
        return rows

    def ahead(self, parts: Iterable[T], read: Callable[[T], U]) -> Generator[U, None, None]:
        """`read` of each part, in order, by the threads that read files; a bounded number of parts ahead.

        When this ends, no `read` runs any more: a part may lie in pages that its view is about to give back.
        """
        pool = self._threads()
        left = iter(parts)
        waiting = deque(pool.submit(read, part) for part in itertools.islice(left, 2 * READERS))
        try:
            while waiting:
                done = waiting.popleft().result()
                waiting.extend(pool.submit(read, part) for part in itertools.islice(left, 1))
                yield done
        finally:
            for future in waiting:
                future.cancel()
            wait(waiting)

    def repeating(self, part: ColdPart, positions: Iterable[int]) -> set[int]:
        """Those text columns of a part's row group that are stored as numbers into a small dictionary."""
        request = part.request
        with self._opened(request) as opened:
            footer = self._footer(request.segment, opened.file)
            opened.whole = True
        return {position for position in positions if repeats(footer, request.group, position)}

    def columns(
        self, request: ColdRequest, positions: Iterable[int], encoded: Collection[int] = ()
    ) -> dict[int, pa.Array]:
        """Columns of a row group by position; those of `encoded` as dictionary arrays.

        Raises StorageCorrupt naming table, range and file.
        """
        wanted = list(positions)
        with self._opened(request) as opened:
            footer = self._footer(request.segment, opened.file)
            found = read_columns(opened.file, footer, request.group, request.schema, wanted, encoded)
            opened.whole = True
        if any(len(array) != request.rows for array in found.values()):
            raise StorageCorrupt(f"{request.place}: the file {request.segment.path} has another number of rows")
        return found

    @contextlib.contextmanager
    def _opened(self, request: ColdRequest) -> Iterator[_Opened]:
        """The file of a request for the block, whose errors leave it as ours."""
        segment = request.segment
        local = segment.storage_id == LOCAL
        try:
            with self._file(segment) as opened:
                yield opened
        except FileNotFoundError:
            raise StorageCorrupt(
                f"{request.place}: the file {segment.path} of storage '{segment.storage_id}' is missing"
            ) from None
        except (StorageCorrupt, pa.ArrowException) as error:
            raise StorageCorrupt(f"{request.place}: the file {segment.path}: {error}") from None
        except OSError as error:
            message = (
                f"{request.place}: the file {segment.path} of storage '{segment.storage_id}' cannot be read: {error}"
            )
            if local or "CRC" in str(error) or "Parquet" in str(error):
                raise StorageCorrupt(message) from None
            raise StorageUnavailable(message) from None

    def _footer(self, segment: Segment, file: pa.NativeFile) -> pq.FileMetaData:
        footer = self._footers.get(segment.segment_id)
        if footer is None:
            footer = read_footer(file, segment.footer_bytes, segment.footer_checksum)
            self._footers.add(segment.segment_id, footer)
        return footer

    def read_encoded(self, part: ColdPart, encoded: Collection[int], schema: pa.Schema) -> list[pa.RecordBatch]:
        """The rows of a part of a scan, with dictionary arrays for the columns at the positions of `encoded`."""
        request, plan, gone, _ = part
        cached = self.cache.peek(request.key)
        if cached is None:
            stored: StoredColumns = self._sparse(request, plan, encoded)
        else:
            some = self.columns(request, [position for position in plan.positions if position in encoded], encoded)
            stored = SparseBatch(request.rows, {p: some[p] if p in some else cached.column(p) for p in plan.positions})
        projected = pa.RecordBatch.from_arrays(plan.arrays(stored), schema=schema)
        return [projected] if gone is None or not len(gone) else without(projected, gone)

    def _sparse(self, request: ColdRequest, plan: Projection, encoded: Collection[int] = ()) -> SparseBatch:
        positions = plan.positions
        columns = self.columns(request, [position for position in positions if position], encoded)
        if 0 in positions:
            columns[0] = pa.array(request.seqs(), pa.int64())
        return SparseBatch(request.rows, columns)

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="headrace-cold")
            return self._pool

    def _file(self, segment: Segment) -> _Opened:
        with self._lock:
            idle = self._files.get(segment.segment_id)
            if idle:
                self._idle -= 1
                return _Opened(self, segment.segment_id, idle.pop())
        return _Opened(self, segment.segment_id, self.open(segment))

    def open(self, segment: Segment) -> pa.NativeFile:
        """The file of a segment, opened anew. Raises StorageUnavailable, OSError."""
        system: fs.FileSystem = self._resolver().place(segment.storage_id).filesystem
        return system.open_input_file(segment.path)

    def give_back(self, segment_id: int, file: pa.NativeFile) -> None:
        """Keep an open file for the next reader of the segment."""
        with self._lock:
            if self._idle < _IDLE_FILES:
                self._files.setdefault(segment_id, []).append(file)
                self._idle += 1
                return
            others, self._files = self._files, {segment_id: [file]}
            self._idle = 1
        for idle in others.values():
            for other in idle:
                other.close()


class _Opened:
    """An open file that one reader uses; it is kept for the next one when reading it went well."""

    def __init__(self, reads: ColdReads, segment_id: int, file: pa.NativeFile) -> None:
        self._reads = reads
        self._segment_id = segment_id
        self.file = file
        self.whole = False

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        if self.whole:
            self._reads.give_back(self._segment_id, self.file)
        else:
            self.file.close()
