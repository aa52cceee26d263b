"""The rows of a snapshot while a client fetches them: Arrow in memory, beyond a bound in an unlinked temporary file.

The file holds one Arrow IPC record batch for each `CHUNK_ROWS` rows; the offsets of the batches stay in memory, so a
batch of wire rows costs reading and decoding only what it covers. Nothing of the storage stays open meanwhile.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from sql.errors import ExecutionError, StorageFullError
from sql.live.wire_rows import WireRow, table_rows
from sql.plan import SEQ
from sql.results import ResultColumn
from sql.wire import BigintMode

CHUNK_ROWS = 4_096


class Spool:
    """Rows in the order of `_seq`, read in any order; safe from any thread. Close it."""

    def __init__(
        self,
        table: pa.Table,
        columns: Sequence[ResultColumn],
        bigint: BigintMode,
        *,
        memory_bytes: int,
        folder: Path | None = None,
    ) -> None:
        """Keep the rows of a `LiveQuery.snapshot`, whose `columns` they have.

        More than `memory_bytes` go to a file in `folder` (the system's temporary folder by default); raises
        StorageFullError when it cannot be written.
        """
        self.rows = table.num_rows
        self._columns = tuple(columns)
        self._bigint = bigint
        self._schema = table.schema
        self._lock = threading.Lock()
        self._table: pa.Table | None = table
        self._file = -1
        self._offsets: list[tuple[int, int]] = []
        self._closed = False
        if table.nbytes > memory_bytes:
            self._spill(table, folder)
            self._table = None

    @property
    def in_memory(self) -> bool:
        """Whether the rows stay in memory."""
        return self._file < 0

    def batch(self, start: int, count: int) -> list[WireRow]:
        """Up to `count` rows from the `start`-th on. Raises ExecutionError for values that JSON cannot carry."""
        return table_rows(self._slice(start, count), self._columns, self._bigint)

    def last_seq(self, end: int) -> int:
        """The `_seq` of the last of the first `end` rows; 0 when there is none."""
        end = min(end, self.rows)
        if end <= 0:
            return 0
        value: int = self._slice(end - 1, 1).column(SEQ)[0].as_py()
        return value

    def close(self) -> None:
        """Free memory and disk; idempotent. Reading is an error afterwards."""
        with self._lock:
            self._closed = True
            self._table = None
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            self.close()

    def _slice(self, start: int, count: int) -> pa.Table:
        end = min(start + count, self.rows)
        with self._lock:
            if self._closed:
                raise ExecutionError("The snapshot was given up.")
            if self._table is not None:
                return self._table.slice(start, max(0, end - start))
            if end <= start:
                return self._schema.empty_table()
            first, last = start // CHUNK_ROWS, (end - 1) // CHUNK_ROWS
            batches = [self._read(number) for number in range(first, last + 1)]
        return pa.Table.from_batches(batches, self._schema).slice(start - first * CHUNK_ROWS, end - start)

    def _read(self, number: int) -> pa.RecordBatch:
        offset, size = self._offsets[number]
        data = os.pread(self._file, size, offset)
        if len(data) != size:
            raise ExecutionError("The snapshot's temporary file is shorter than what was written.")
        return pa.ipc.read_record_batch(pa.py_buffer(data), self._schema)

    def _spill(self, table: pa.Table, folder: Path | None) -> None:
        try:
            if folder is not None:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file, path = tempfile.mkstemp(prefix="snapshot-", suffix=".arrow", dir=folder)
            Path(path).unlink()
            position = 0
            for start in range(0, table.num_rows, CHUNK_ROWS):
                chunk = table.slice(start, CHUNK_ROWS).combine_chunks()
                data = memoryview(chunk.to_batches()[0].serialize())
                self._offsets.append((position, len(data)))
                while data:
                    written = os.pwrite(self._file, data, position)
                    position += written
                    data = data[written:]
        except OSError as error:
            self.close()
            raise StorageFullError(f"The snapshot cannot be kept in the temporary folder: {error.strerror}") from error
        except BaseException:
            self.close()
            raise
