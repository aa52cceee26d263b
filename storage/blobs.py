"""Where the bytes of files lie: a small protocol, and folders of this machine; others are in `storage.arrow_blobs`.

Paths are relative, with `/` between their parts, and made by us alone (`storage.file_records.path_of`). A file is put
whole and durable, or not at all; it never changes afterwards, and deleting one that is not there is no error.

`pyarrow.fs` syncs nothing, so folders of this machine are written with the system's own calls: the staged file, which
has no name until then and so leaves nothing behind after a crash, is linked into its place and the folder synced.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

COPY_BYTES = 8 << 20


class BlobError(Exception):
    """The blob store cannot be used, or could not do what it was asked; the message is a sentence."""


class BlobReader(Protocol):
    """One stored file, open for reading; used by one thread at a time."""

    @property
    def size(self) -> int:
        """Bytes."""

    def read_at(self, offset: int, length: int) -> bytes | memoryview:
        """At most `length` bytes from `offset` on; fewer only at the end."""

    def close(self) -> None:
        """Give it back."""


class BlobStore(Protocol):
    """Stored files by path. All methods block, are thread-safe and raise BlobError."""

    def put(self, staged: int, path: str) -> None:
        """Store the bytes of a file descriptor, which are synced already, durably under a path that is free."""

    def open(self, path: str) -> BlobReader | None:
        """Open a stored file; None when there is none."""

    def delete(self, path: str) -> None:
        """Remove a stored file, if it is there."""

    def list(self) -> Iterator[str]:
        """The paths of all stored files."""


class FolderBlobs:
    """Files in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders = threading.Lock()
        """Held while a file gets its name and while empty folders go, so that no folder goes in between."""

    def put(self, staged: int, path: str) -> None:
        """See BlobStore."""
        target = self._root / path
        try:
            with self._folders:
                self._make(target.parent)
                folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    copied = self._link(staged, folder, target.name)
                except BaseException:
                    os.close(folder)
                    raise
            try:
                if not copied:
                    os.fsync(staged)  # its bytes are synced already, its new name is not
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise BlobError(f"a file could not be stored: {error.strerror or error}") from error

    @staticmethod
    def _link(staged: int, folder: int, name: str) -> bool:
        """Give the staged file its name; copy it, synced, when it lies on another file system, and say so."""
        try:
            link_staged(staged, folder, name)
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP}:
                raise
        else:
            return False
        copy = os.open(f"/proc/self/fd/{folder}", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            offset = 0
            while count := os.sendfile(copy, staged, offset, COPY_BYTES):
                offset += count
            link_staged(copy, folder, name)
            os.fsync(copy)
        finally:
            os.close(copy)
        return True

    def _make(self, folder: Path) -> None:
        """Make a folder, and every new entry on the way to it durable."""
        if folder.is_dir():
            return
        if folder != self._root:
            self._make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True, parents=folder == self._root)
        sync_folder(folder.parent)

    def open(self, path: str) -> BlobReader | None:
        """See BlobStore."""
        try:
            return _FolderBlob(os.open(self._root / path, os.O_RDONLY | os.O_CLOEXEC))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise BlobError(f"a file could not be opened: {error.strerror or error}") from error

    def delete(self, path: str) -> None:
        """See BlobStore. Folders that it leaves empty go, too."""
        target = self._root / path
        try:
            target.unlink(missing_ok=True)
            with self._folders:
                for folder in list(target.parents)[:2]:
                    folder.rmdir()
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR}:
                raise BlobError(f"a file could not be deleted: {error.strerror or error}") from error

    def list(self) -> Iterator[str]:
        """See BlobStore."""
        for folder, _, names in os.walk(self._root):
            for name in names:
                yield (Path(folder) / name).relative_to(self._root).as_posix()


class _FolderBlob:
    def __init__(self, file: int) -> None:
        self._file = file
        self.size = os.fstat(file).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._file, length, offset)

    def close(self) -> None:
        os.close(self._file)


def open_blobs(uri: str, folder: Path) -> BlobStore:
    """The store that a URI names, such as `s3://bucket/path`; `folder` when it is empty. Raises BlobError."""
    if not uri:
        return FolderBlobs(folder)
    from storage.arrow_blobs import store_of  # loads clients of object stores

    found = store_of(uri)
    return FolderBlobs(found) if isinstance(found, Path) else found


def open_staged(folder: Path) -> int:
    """A file without a name for bytes that arrive: nothing is left of it when it is closed, or after a crash."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)


def link_staged(staged: int, folder: int, name: str) -> None:
    """Give a file without a name its name in an open folder. Raises FileExistsError when it is taken."""
    # `src_dir_fd` makes Python call linkat, which follows the link in /proc as link does not.
    os.link(f"/proc/self/fd/{staged}", name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=True)


def sync_folder(folder: Path) -> None:
    """Make the entries of a folder durable."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
