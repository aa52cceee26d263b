"""Where the rows of a large cold scan wait: in a file without a name, mapped into memory.

Hot batches are read where LMDB has them, so a scan of any size takes page cache, not memory of the process. Rows from
Parquet have to be decoded to somewhere. A scan keeps a bounded part of them in memory; the rest goes to a file that no
name leads to, so that it is gone with the last array that points into it, also when the process is killed.
"""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path
from typing import IO

import pyarrow as pa

from storage.errors import StorageFull

_ALIGNMENT = 64


class Spill:
    """Takes batches one after the other, then gives them all. Used by one thread."""

    def __init__(self, folder: Path, in_memory: int) -> None:
        self._folder = folder
        self._left = in_memory
        self._kept: list[pa.RecordBatch | tuple[int, int, pa.Schema]] = []
        self._file: IO[bytes] | None = None
        self._size = 0

    def add(self, batches: list[pa.RecordBatch]) -> None:
        """Keep batches. Raises StorageFull."""
        for batch in batches:
            nbytes = batch.nbytes
            if nbytes <= self._left:
                self._left -= nbytes
                self._kept.append(batch)
            else:
                self._kept.append((*self._write(batch), batch.schema))

    def batches(self) -> list[pa.RecordBatch]:
        """All of them, in order."""
        if self._file is None:
            return [batch for batch in self._kept if isinstance(batch, pa.RecordBatch)]
        with self._file as file:
            file.flush()
            whole = pa.py_buffer(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        return [
            batch
            if isinstance(batch, pa.RecordBatch)
            else pa.ipc.read_record_batch(whole.slice(batch[0], batch[1]), batch[2])
            for batch in self._kept
        ]

    def close(self) -> None:
        """Give the file up, when the batches are not wanted any more."""
        if self._file is not None:
            self._file.close()

    def _write(self, batch: pa.RecordBatch) -> tuple[int, int]:
        message = batch.serialize()
        try:
            if self._file is None:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by batches or close
            start = self._size
            self._file.write(message)
            self._file.write(bytes(-message.size % _ALIGNMENT))
        except OSError as error:
            raise StorageFull(f"a scan of the cold tier found no room in {self._folder}: {error}") from error
        self._size += message.size + -message.size % _ALIGNMENT
        return start, message.size
