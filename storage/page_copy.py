"""A consistent copy of the data file while it is written to: the pages of one commit, block by block.

LMDB never writes over a page that a commit refers to while a read transaction of that commit is open, and it changes
the two meta pages at the beginning of the file only when it commits. So a copy takes the meta pages while the writer
stands still (inside one of its works), together with a snapshot, and the other pages afterwards, at leisure. What
belongs to the commit is then as it was; the rest of the file is free pages of that commit, whatever they hold. The
newer of the two meta pages is the commit's, and that is the one which LMDB opens.

A block is read under a pin that lasts as long as the read, so a copy holds up neither the growth of the map nor
reopening: when those end its snapshot, the next block raises SnapshotExpired, and the copy is to begin again.

Pages stay where they are until they change, so what did not change between two copies is the same block at the same
place.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from storage.errors import StorageError

if TYPE_CHECKING:
    from storage.environment import Environment
    from storage.snapshots import Snapshot

DATA_FILE = "data.mdb"
_META = struct.Struct("=16xIIQQ96xQQ")
"""Of a meta page: page header, magic, version, address, map size, two tree roots, last page, transaction id."""
_MAGIC = 0xBEEFC0DE


class PageCopy:
    """The data file at one commit. `snapshot` is that commit; close the copy (it is a context manager)."""

    def __init__(self, snapshot: Snapshot, folder: Path, metas: bytes, pages: int, page_bytes: int) -> None:
        self.snapshot = snapshot
        self.nbytes = pages * page_bytes
        self._metas = metas
        self._file = os.open(folder / DATA_FILE, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> PageCopy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the pages back."""
        os.close(self._file)
        self.snapshot.close()

    def blocks(self, size: int) -> Iterator[bytes]:
        """The file in blocks of `size` bytes (the last one may be shorter). Raises SnapshotExpired."""
        for offset in range(0, self.nbytes, size):
            wanted = min(size, self.nbytes - offset)
            with self.snapshot.pin():
                block = os.pread(self._file, wanted, offset)
            if len(block) < wanted:  # pages at the end that were given out but never written
                block += bytes(wanted - len(block))
            yield self._metas + block[len(self._metas) :] if offset == 0 else block


def begin_copy(environment: Environment, snapshot: Snapshot) -> PageCopy:
    """A copy of the snapshot's commit, which must be the newest; called in the writer, so that none follows meanwhile.

    Raises StorageError when the meta pages are not what this module takes them for.
    """
    page_bytes: int = environment.env.stat()["psize"]
    pages: int = environment.env.info()["last_pgno"] + 1
    file = os.open(environment.folder / DATA_FILE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        metas = os.pread(file, 2 * page_bytes, 0)
    finally:
        os.close(file)
    newest = -1
    for place in (0, page_bytes):
        magic, _, _, _, _, transaction = _META.unpack_from(metas, place)
        if magic != _MAGIC:
            raise StorageError("the data file does not begin with two meta pages of LMDB")
        newest = max(newest, transaction)
    if newest != snapshot.txn_id:
        raise StorageError(f"the data file is at commit {newest}, the snapshot at {snapshot.txn_id}")
    return PageCopy(snapshot, environment.folder, metas, pages, page_bytes)
