"""The cache of cold row groups: decoded batches in files of `<data>/cache`, mapped into memory.

A point read needs one row of a row group that may have 65,536. So the whole group is decoded once and kept, in the
value format of hot batches (`storage.batches`), in a file of its own; reading a row of it is then what reading a row of
a hot batch is, and its memory is page cache, which the system takes back when it needs to.

The cache is bounded by bytes and by files; what was used longest ago goes first. A file is written under a temporary
name and renamed, and that of an earlier process is verified by its checksum when it is mapped, so what a crash leaves
is either whole or not used.
File names carry the checksum of the Parquet file, so a cache never serves another segment that got the same id.
Whatever goes wrong with a cache file is logged and the file left out: Parquet has the rows.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from storage.batches import HEADER, read_header, verify
from storage.errors import StorageCorrupt

log = logging.getLogger("headrace.cold")

MOST_FILES = 16_384
"""Each mapped file is a mapping of the process, which are limited."""
_NAME = re.compile(r"([0-9a-f]+)-([0-9a-f]+)-([0-9a-f]{16})\.arrow\Z")

GroupKey = tuple[int, int]
"""Segment id, row group."""


class _Entry(NamedTuple):
    checksum: int
    size: int
    batch: pa.RecordBatch | None
    """None until it was mapped and verified."""


class RowGroupCache:
    """Thread-safe. `peek` does no I/O of its own; the other methods may.

    A cache with the limit 0 keeps nothing, and leaves its folder alone.
    """

    def __init__(self, folder: Path, limit: int, most_files: int = MOST_FILES) -> None:
        self.folder = folder
        self._limit = limit
        self._most = most_files
        self._lock = threading.Lock()
        self._entries: OrderedDict[GroupKey, _Entry] = OrderedDict()
        self._bytes = 0
        self.hits = 0
        self.misses = 0
        if limit:
            self._adopt()

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def peek(self, key: GroupKey) -> pa.RecordBatch | None:
        """The batch, when it is mapped already."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry.batch is None:
                return None
            self._entries.move_to_end(key)
            self.hits += 1
            return entry.batch

    def get(self, key: GroupKey, checksum: int, schema: pa.Schema) -> pa.RecordBatch | None:
        """The batch of the segment with that checksum; maps its file when an earlier process left it."""
        batch = self.peek(key)
        if batch is not None:
            return batch
        with self._lock:
            entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        if entry.checksum != checksum:
            self.remove(key)
            return None
        return self._mapped(key, entry, schema)

    def put(self, key: GroupKey, checksum: int, value: bytes, schema: pa.Schema) -> pa.RecordBatch | None:
        """Keep a batch in its stored form; the mapped batch, or None when it cannot be kept."""
        if 2 * len(value) > self._limit:
            return None
        path = self._path(key, checksum)
        temporary = path.with_suffix(f".{threading.get_ident():x}.tmp")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_bytes(value)
            temporary.replace(path)
        except OSError as error:
            log.warning("a row group cannot be cached: %s", error)
            with contextlib.suppress(OSError):
                temporary.unlink()
            return None
        entry = _Entry(checksum, len(value), None)
        self._keep(key, entry)
        return self._mapped(key, entry, schema, trusted=True)

    def remove(self, key: GroupKey) -> None:
        """Forget a batch."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is not None:
                self._bytes -= entry.size
        if entry is not None:
            self._unlink(key, entry)

    def remove_segment(self, segment_id: int, groups: int) -> None:
        """Forget the batches of a segment whose file is deleted."""
        for group in range(groups):
            self.remove((segment_id, group))

    def _keep(self, key: GroupKey, entry: _Entry) -> None:
        surplus: list[tuple[GroupKey, _Entry]] = []
        with self._lock:
            before = self._entries.pop(key, None)
            self._entries[key] = entry
            self._bytes += entry.size - (before.size if before is not None else 0)
            while len(self._entries) > 1 and (self._bytes > self._limit or len(self._entries) > self._most):
                old, gone = self._entries.popitem(last=False)
                self._bytes -= gone.size
                surplus.append((old, gone))
        for old, gone in surplus:
            self._unlink(old, gone)

    def _mapped(
        self, key: GroupKey, entry: _Entry, schema: pa.Schema, *, trusted: bool = False
    ) -> pa.RecordBatch | None:
        path = self._path(key, entry.checksum)
        try:
            with pa.memory_map(str(path)) as file:
                buffer = file.read_buffer()
            value = memoryview(buffer)
            header = read_header(value)
            if not trusted and not verify(value, header):  # one just written is in the page cache as it was made
                raise StorageCorrupt("the checksum does not match")
            batch = pa.ipc.read_record_batch(buffer.slice(HEADER.size), schema)
            if batch.num_rows != header.rows:
                raise StorageCorrupt("it has another number of rows")
        except (OSError, pa.ArrowException, StorageCorrupt) as error:
            log.warning("the cached row group %s cannot be used: %s", path.name, error)
            self.remove(key)
            return None
        with self._lock:
            if self._entries.get(key) == entry or key not in self._entries:
                if key not in self._entries:
                    return batch  # evicted meanwhile; the mapping lives as long as the batch
                self._entries[key] = entry._replace(batch=batch)
                self._entries.move_to_end(key)
        return batch

    def _adopt(self) -> None:
        """Take over the files that an earlier process left, those used last as the newest."""
        try:
            files = [(entry, entry.stat()) for entry in os.scandir(self.folder)]
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("the cache of row groups cannot be listed: %s", error)
            return
        for file, stat in sorted(files, key=lambda pair: pair[1].st_mtime):
            found = _NAME.match(file.name)
            if found is None:
                with contextlib.suppress(OSError):
                    Path(file.path).unlink()
                continue
            key = int(found[1], 16), int(found[2], 16)
            self._keep(key, _Entry(int(found[3], 16), stat.st_size, None))

    def _path(self, key: GroupKey, checksum: int) -> Path:
        return self.folder / f"{key[0]:x}-{key[1]:x}-{checksum:016x}.arrow"

    def _unlink(self, key: GroupKey, entry: _Entry) -> None:
        try:
            self._path(key, entry.checksum).unlink(missing_ok=True)
        except OSError as error:
            log.warning("a file of the cache of row groups cannot be deleted: %s", error)
