"""Files in an object store or any other file system that `pyarrow.fs` reaches."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from storage.blobs import COPY_BYTES, BlobError, BlobReader


def store_of(uri: str) -> ArrowBlobs | Path:
    """The store that a URI names, or the folder of this machine. Raises BlobError."""
    try:
        system, base = fs.FileSystem.from_uri(uri)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise BlobError(f"'{uri}' names no place for files: {error}") from error
    if not base.strip("/"):
        raise BlobError(f"'{uri}' names no place for files: it has no path")
    return Path(base) if isinstance(system, fs.LocalFileSystem) else ArrowBlobs(system, base)


class ArrowBlobs:
    """Files below a path of any file system of `pyarrow.fs`, such as a bucket of an object store."""

    def __init__(self, system: fs.FileSystem, base: str) -> None:
        self._system = system
        self._base = base.rstrip("/")

    def put(self, staged: int, path: str) -> None:
        """See BlobStore. An object store shows an object when its upload is complete."""
        try:
            if not isinstance(self._system, (fs.S3FileSystem, fs.GcsFileSystem)):
                self._system.create_dir(self._place(path).rpartition("/")[0], recursive=True)
            stream = self._system.open_output_stream(self._place(path))
            offset = 0
            while block := os.pread(staged, COPY_BYTES, offset):
                stream.write(block)
                offset += len(block)
            stream.close()  # only now is it surely there
        except (OSError, pa.ArrowException) as error:
            raise BlobError(f"a file could not be stored: {error}") from error

    def open(self, path: str) -> BlobReader | None:
        """See BlobStore."""
        try:
            return _ArrowBlob(self._system.open_input_file(self._place(path)))
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException) as error:
            raise BlobError(f"a file could not be opened: {error}") from error

    def delete(self, path: str) -> None:
        """See BlobStore. Of a folder in an object store its (empty) marker stays."""
        try:
            self._system.delete_file(self._place(path))
        except FileNotFoundError:
            return
        except (OSError, pa.ArrowException) as error:
            if self._system.get_file_info(self._place(path)).type != fs.FileType.NotFound:
                raise BlobError(f"a file could not be deleted: {error}") from error

    def list(self) -> Iterator[str]:
        """See BlobStore."""
        selector = fs.FileSelector(self._base, allow_not_found=True, recursive=True)
        for info in self._system.get_file_info(selector):
            if info.type == fs.FileType.File:
                yield info.path.removeprefix(self._base).lstrip("/")

    def _place(self, path: str) -> str:
        return f"{self._base}/{path}"


class _ArrowBlob:
    def __init__(self, file: pa.NativeFile) -> None:
        self._file = file
        self.size: int = file.size()

    def read_at(self, offset: int, length: int) -> bytes:
        try:
            data: bytes = self._file.read_at(length, offset)
        except (OSError, pa.ArrowException) as error:
            raise BlobError(f"a file could not be read: {error}") from error
        return data

    def close(self) -> None:
        with contextlib.suppress(OSError, pa.ArrowException):  # nothing was written
            self._file.close()
