"""Files of vector indexes: `vectors/<table id>/<index id>/<partition>.json` and beside it a file of usearch.

A partition's name is the SHA-256 of the user's id (of nothing for a SHARED table), so that no id is a path. The JSON
file names the other, with its size and xxHash3, what it is an index of, and the mark that belongs to it. First the new
index is written and synced, then the JSON file is replaced by a rename, then the old index goes: at every moment the
JSON file names a whole index.

Files are derived from the rows. What is missing, damaged or of other rows is built again; nobody hears of it but the
log.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec
import xxhash

from sql.vectors.partition_index import Mark, PartitionIndex
from storage.vector_definitions import VectorMetric

log = logging.getLogger("headrace.vectors")

_FORMAT = 1


class IndexPlace(msgspec.Struct, frozen=True):
    """What an index is of."""

    table_id: int
    index_id: int
    partition: str
    metric: VectorMetric
    dimension: int


class _Stored(msgspec.Struct, frozen=True):
    """The JSON file."""

    format: int
    place: IndexPlace
    file: str
    size: int
    xxh3: str
    commit: int
    applied: int
    rows: int


class IndexFiles:
    """The folder of index files. Use it from one thread at a time for each place."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, place: IndexPlace, index: PartitionIndex) -> None:
        """Write an index. Raises OSError, and RuntimeError of usearch; then the old file is still whole."""
        folder, stem = self._where(place)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{stem}-{index.mark.applied}-{index.mark.commit}.usearch"
        new = folder / f"{name}.new"
        mark = index.save(new)
        _sync(new)
        new.replace(folder / name)
        size, digest = _digest(folder / name)
        stored = _Stored(_FORMAT, place, name, size, digest, mark.commit, mark.applied, len(index))
        new = folder / f"{stem}.json.new"
        new.write_bytes(msgspec.json.encode(stored))
        _sync(new)
        new.replace(folder / f"{stem}.json")
        _sync(folder)
        for old in folder.glob(f"{stem}-*.usearch"):
            if old.name != name:
                old.unlink(missing_ok=True)

    def load(self, place: IndexPlace, last_seq: int) -> PartitionIndex | None:
        """The stored index of a place; None when there is none, or none that belongs to a database at `last_seq`."""
        folder, stem = self._where(place)
        try:
            stored = msgspec.json.decode((folder / f"{stem}.json").read_bytes(), type=_Stored)
            if stored.format != _FORMAT or stored.place != place or stored.commit > last_seq or "/" in stored.file:
                raise ValueError("it is of another index or another state of the database")
            if _digest(folder / stored.file) != (stored.size, stored.xxh3):
                raise ValueError("its checksum differs")
            index = PartitionIndex(
                place.metric, place.dimension, folder / stored.file, Mark(stored.commit, stored.applied)
            )
            if len(index) != stored.rows:
                raise ValueError(f"it has {len(index)} rows instead of {stored.rows}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RuntimeError, msgspec.MsgspecError) as error:
            log.warning("vector index %s of table %s is built again: %s", place.index_id, place.table_id, error)
            return None
        return index

    def exists(self, place: IndexPlace) -> bool:
        """Whether something is stored for a place, whole or not."""
        folder, stem = self._where(place)
        return (folder / f"{stem}.json").exists()

    def forget(self, place: IndexPlace) -> None:
        """Remove the files of one place."""
        folder, stem = self._where(place)
        for file in folder.glob(f"{stem}*"):
            file.unlink(missing_ok=True)

    def keep_only(self, known: Iterable[tuple[int, int]]) -> None:
        """Remove the files of all indexes but these (table id, index id)."""
        wanted = {(str(table), str(index)) for table, index in known}
        with contextlib.suppress(FileNotFoundError):
            for table in list(self._folder.iterdir()):
                for index in list(table.iterdir()) if table.is_dir() else ():
                    if (table.name, index.name) not in wanted:
                        shutil.rmtree(index, ignore_errors=True)
                with contextlib.suppress(OSError):
                    table.rmdir()  # only when nothing is left in it

    def _where(self, place: IndexPlace) -> tuple[Path, str]:
        folder = self._folder / str(place.table_id) / str(place.index_id)
        return folder, hashlib.sha256(place.partition.encode()).hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> tuple[int, str]:
    size = path.stat().st_size
    if not size:
        return 0, ""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return size, xxhash.xxh3_64_hexdigest(data)
