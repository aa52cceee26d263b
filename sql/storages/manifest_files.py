"""`manifest.json` beside the Parquet files of each partition: what is in them, for who reads the folder by itself.

They are written with a table's publication (`sql.lake.publishing`), from the snapshot that it publishes, and only for
the partitions whose files changed since the one before: a USER table may have many.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pyarrow as pa

from sql.storages.manifest import encode_manifest, manifest_of
from storage.catalog import TableDef
from storage.cold_files import sync_folders, write_file
from storage.cold_segments import Segment, SegmentStatus
from storage.errors import StorageUnavailable
from storage.storage_definitions import ColdPlace, StorageResolver

NAME: Final = "manifest.json"
_WRITERS: Final = 8
_TOGETHER: Final = 256
"""Manifests that are written before their folders are synced."""


def write_manifests(
    table: TableDef, segments: Iterable[Segment], storages: StorageResolver, since_us: int, check: Callable[[], None]
) -> int:
    """Write those that changed at `since_us` or later; how many. Raises StorageUnavailable, StorageFull.

    `segments` are the records of the table, or of some of its users. Several are written at a time, and their folders
    synced together: most of the time of a small file is its sync. `check` is called now and then, and may raise.
    """
    folders: dict[tuple[str, str, str], list[Segment]] = {}
    for segment in segments:
        if segment.status is not SegmentStatus.IN_PROGRESS:
            folder = posixpath.dirname(segment.path)
            folders.setdefault((segment.storage_id, segment.user, folder), []).append(segment)
    changed = [
        (storage_id, posixpath.join(folder, NAME), user, found)
        for (storage_id, user, folder), found in folders.items()
        if max(max(segment.created_at, segment.updated_at) for segment in found) >= since_us
    ]

    def write(one: tuple[str, str, str, list[Segment]]) -> None:
        storage_id, path, user, found = one
        committed = [segment for segment in found if segment.status is SegmentStatus.COMMITTED]
        data = encode_manifest(manifest_of(table, user, committed))
        write_file(storages.place(storage_id), path, pa.py_buffer(data))

    with ThreadPoolExecutor(max(1, min(_WRITERS, len(changed))), thread_name_prefix="headrace-manifests") as pool:
        for start in range(0, len(changed), _TOGETHER):
            check()
            group = changed[start : start + _TOGETHER]
            list(pool.map(write, group))
            for storage_id in {one[0] for one in group}:
                sync_folders(storages.place(storage_id), [path for at, path, *_ in group if at == storage_id])
    return len(changed)


def remove_manifests(place: ColdPlace, root: str) -> None:
    """Take all manifests below a table's folder away. Raises StorageUnavailable."""
    from pyarrow import fs

    try:
        for info in place.filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True, recursive=True)):
            if info.base_name == NAME:
                place.filesystem.delete_file(info.path)
    except (OSError, pa.ArrowException) as error:
        raise StorageUnavailable(f"the manifests below {root} could not be removed: {error}") from error
