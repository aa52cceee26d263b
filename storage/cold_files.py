"""Writing and deleting the files of the cold tier, and what they are called.

On a file system of this machine a file is written under a temporary name, synced and renamed, and the folder is synced
(so are folders that were made for it). An object store shows an object when its upload is complete.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pyarrow as pa
import xxhash

from storage.catalog import TableDef
from storage.errors import StorageFull, StorageUnavailable
from storage.storage_definitions import LOCAL, ColdPlace, local_place

if TYPE_CHECKING:
    from storage.storage_definitions import StorageResolver

TEMPORARY = ".tmp"
_SAFE = "@+,;!$'()~ "
"""Characters that stay as they are in names of folders, beside letters, digits, `_`, `.` and `-`."""
_LONGEST_NAME = 200
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_PLACEHOLDER = re.compile(r"\{(namespace|tableName|userId)\}")


class LocalStorages:
    """Knows `local` only."""

    def __init__(self, folder: Path) -> None:
        self._place = folder

    def place(self, storage_id: str) -> ColdPlace:
        """See StorageResolver."""
        if storage_id != LOCAL:
            raise StorageUnavailable(f"storage '{storage_id}' is not known here")
        return local_place(self._place)


def folder_of(place: ColdPlace, table: TableDef, user: str) -> str:
    """The folder of a table, or of a user's part of it, below the storage's base."""
    template = place.user_template if table.per_user else place.shared_template
    values = {"namespace": table.namespace, "tableName": table.name, "userId": user}
    filled = _PLACEHOLDER.sub(lambda found: path_name(values[found[1]]), template)
    return "/".join(part for part in filled.split("/") if part not in {"", ".", ".."})


def path_name(name: str) -> str:
    """A name as one part of a path: what is not plain is percent-encoded, what is long is cut and gets a digest."""
    encoded = quote(name, safe=_SAFE)
    if encoded.strip(". ") != encoded or not encoded:
        encoded = "".join(f"%{byte:02X}" for byte in name.encode()) or "%"
    if len(encoded) > _LONGEST_NAME:
        encoded = f"{encoded[: _LONGEST_NAME - 33].rstrip('. ')}~{xxhash.xxh3_128_hexdigest(name.encode())}"
    return encoded


def file_name(folder: str, number: int) -> str:
    """The path of a batch file."""
    return f"{folder}/batch-{number}.parquet" if folder else f"batch-{number}.parquet"


def taken(place: ColdPlace, paths: list[str]) -> set[str]:
    """Those of the paths that exist already."""
    from pyarrow import fs

    if place.folder is not None:
        return {path for path in paths if (place.folder / path).exists()}
    found = place.filesystem.get_file_info(paths)
    return {path for path, info in zip(paths, found, strict=True) if info.type != fs.FileType.NotFound}


def write_file(place: ColdPlace, path: str, data: pa.Buffer) -> None:
    """Store a file; it is durable but for the names of new folders (`sync_folders`).

    Raises StorageUnavailable, StorageFull.
    """
    try:
        if place.folder is None:
            with place.filesystem.open_output_stream(path) as stream:
                stream.write(data)
            return
        target = place.folder / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = target.with_name(target.name + TEMPORARY)
        number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(number, view) :]
            os.fsync(number)
        finally:
            os.close(number)
        temporary.replace(target)
        _sync_folder(target.parent)
    except (OSError, pa.ArrowException) as error:
        if getattr(error, "errno", None) in _FULL:
            raise StorageFull(f"the disk that holds cold files is full: {error}") from error
        raise StorageUnavailable(f"a file of the cold tier could not be written: {error}") from error


def sync_folders(place: ColdPlace, paths: Iterable[str]) -> None:
    """Make the names of the folders durable that files were written to. Raises StorageUnavailable."""
    if place.folder is None:
        return
    folders: set[Path] = {place.folder, place.folder.parent}
    for path in paths:
        folder = (place.folder / path).parent.parent
        while folder not in folders:
            folders.add(folder)
            folder = folder.parent
    try:
        for folder in folders:
            _sync_folder(folder)
    except OSError as error:
        raise StorageUnavailable(f"a folder of the cold tier could not be synced: {error}") from error


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def delete_file(resolver: StorageResolver, storage_id: str, path: str) -> None:
    """Delete a file and what a crash may have left of writing it. Raises StorageUnavailable."""
    place = resolver.place(storage_id)
    try:
        if place.folder is not None:
            target = place.folder / path
            target.with_name(target.name + TEMPORARY).unlink(missing_ok=True)
            target.unlink(missing_ok=True)
            return
        if taken(place, [path]):
            place.filesystem.delete_file(path)
    except FileNotFoundError:
        return
    except (OSError, pa.ArrowException) as error:
        raise StorageUnavailable(f"the file {path} of storage '{storage_id}' could not be deleted: {error}") from error
