"""Copying bytes into a backup: durable files, by digest, and new blocks of the data file."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

from sql.backup.layout import ENTRY, INDEX, BackupError, Block, Manifest, Pack, index_entries, object_path, pack_path
from sql.backup.layout import point_folder as folder_of_point
from storage.blobs import sync_folder
from storage.page_copy import PageCopy

COPY_BYTES = 1 << 20
_TEMPORARY = ".part"
_numbers = itertools.count()

Check = Callable[[int], None]
"""Called with the bytes that were done since the last call; raises when the copy is to stop."""


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, for their owner only, durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


def write_new(path: Path, data: bytes) -> None:
    """A small file, whole and durable or not at all."""
    temporary = path.with_name(path.name + _TEMPORARY)
    temporary.unlink(missing_ok=True)
    with create(temporary) as file:
        file.write(data)
        sync(file)
    temporary.replace(path)
    sync_folder(path.parent)


def create(path: Path) -> IO[bytes]:
    """A new file that only its owner can read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def sync(file: IO[bytes]) -> None:
    """Make what was written durable."""
    file.flush()
    os.fsync(file.fileno())


def clear_incoming(backup: Path) -> None:
    """Remove what was being stored when a backup broke off."""
    for path in (backup / "objects").glob(f"incoming*{_TEMPORARY}"):
        path.unlink()


class Stored(NamedTuple):
    """A file in the backup, and how many bytes that added to it."""

    sha256: str
    size: int
    added: int


def store_object(backup: Path, blocks: Iterator[bytes | memoryview], check: Check) -> Stored:
    """Store bytes under their digest, unless they are there. Several threads may store at a time."""
    objects = backup / "objects"
    make_folder(objects)
    temporary = objects / f"incoming-{next(_numbers)}{_TEMPORARY}"
    temporary.unlink(missing_ok=True)
    digest = hashlib.sha256()
    size = 0
    with create(temporary) as file:
        for block in blocks:
            digest.update(block)
            file.write(block)
            size += len(block)
            check(len(block))
        name = digest.hexdigest()
        target = object_path(backup, name)
        if target.is_file() and target.stat().st_size == size:
            temporary.unlink()
            return Stored(name, size, 0)
        sync(file)
    make_folder(target.parent)
    temporary.replace(target)
    sync_folder(target.parent)
    return Stored(name, size, size)


class CopiedPages(NamedTuple):
    """The data file in the backup."""

    index_sha256: str
    packs: list[Pack]
    added: int


def store_pages(
    backup: Path, point: str, copy: PageCopy, block_bytes: int, former: Manifest | None, check: Check
) -> CopiedPages:
    """Store the blocks of a data file that differ from those of a former point, and the index of all."""
    if former is not None and (former.block_bytes != block_bytes or not index_is_whole(backup, former)):
        former = None
    packs = [] if former is None else [pack.name for pack in former.packs]
    sizes: dict[str, int] = {} if former is None else {pack.name: pack.size for pack in former.packs}
    pack = pack_path(backup, point)
    make_folder(pack.parent)
    packs.append(point)
    offset = 0
    index_digest = hashlib.sha256()
    with create(pack) as blocks, create(folder_of_point(backup, point) / INDEX) as index:
        known = _entries_of(backup, former)
        for block in copy.blocks(block_bytes):
            digest = hashlib.sha256(block).digest()
            before = next(known, None)
            if before is not None and before.digest == digest:
                entry = ENTRY.pack(digest, before.pack, before.offset)
            else:
                entry = ENTRY.pack(digest, len(packs) - 1, offset)
                blocks.write(block)
                offset += len(block)
            index.write(entry)
            index_digest.update(entry)
            check(len(block))
        sync(blocks)
        sync(index)
        sizes[point] = offset
    sync_folder(pack.parent)
    return CopiedPages(index_digest.hexdigest(), [Pack(name, sizes[name]) for name in packs], offset)


def index_is_whole(backup: Path, manifest: Manifest) -> bool:
    """Whether the page index of a point is there and what was written."""
    try:
        with (folder_of_point(backup, manifest.point) / INDEX).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == manifest.index_sha256
    except OSError:
        return False


def _entries_of(backup: Path, manifest: Manifest | None) -> Iterator[Block]:
    if manifest is None:
        return
    with (folder_of_point(backup, manifest.point) / INDEX).open("rb") as file:
        for block in index_entries(file):
            if block.pack >= len(manifest.packs):
                raise BackupError(f"the page index of {manifest.point} is damaged")
            yield block


def there(backup: Path, known: Mapping[str, tuple[str, int]], source: str) -> tuple[str, int] | None:
    """Digest and size of what was copied from a source before, if it is in the backup still."""
    found = known.get(source)
    if found is None:
        return None
    path = object_path(backup, found[0])
    return found if path.is_file() and path.stat().st_size == found[1] else None
