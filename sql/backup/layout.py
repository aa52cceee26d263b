"""What a backup looks like on disk, and reading it: restore points, their manifests and page indexes.

A backup is a folder of one database with any number of *restore points*:

    backup.json                      which database this is
    backup.lock                      held while a backup is made
    points/<point>/manifest.json     written last: without it the point is not there
    points/<point>/manifest.sha256   its SHA-256, in hexadecimal
    points/<point>/pages.index       where each block of the data file lies
    packs/<point>.pack               the blocks that were new with that point, one behind the other
    objects/<aa>/<sha-256>           other files, by what they hold: cold Parquet files, FILE blobs, keys of the server

`pages.index` has 48 bytes for each block of `block_bytes` of the data file: its SHA-256, the number of its pack in the
manifest's `packs` (u32), 4 bytes of nothing, its offset there (u64), all little-endian. Points are named by the time
of their making, so that their names sort.

Everything is covered: the manifest by its own checksum file, all else by checksums in it or in the index.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

FORMAT: Final = 1
BLOCK_BYTES: Final = 64 << 10
IDENTITY: Final = "backup.json"
LOCK: Final = "backup.lock"
MANIFEST: Final = "manifest.json"
MANIFEST_SUM: Final = "manifest.sha256"
INDEX: Final = "pages.index"
ENTRY: Final = struct.Struct("<32sI4xQ")
_POINT = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z")


class BackupError(Exception):
    """A backup cannot be made, read or restored; the message is a sentence."""


class Identity(msgspec.Struct, frozen=True):
    """Which database a folder is a backup of."""

    format: int
    database: str


class BackedUpFile(msgspec.Struct, frozen=True):
    """A file of the data folder, by its `path` there. `source` says what it was copied from, so that it is known again.

    `segment` is the id of the cold segment whose file it is, 0 for others.
    """

    path: str
    size: int
    sha256: str
    source: str
    segment: int = 0


class Pack(msgspec.Struct, frozen=True):
    """A pack that blocks of a point lie in. Its name is that of the point which made it."""

    name: str
    size: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One restore point. Sizes are bytes; `created_us` microseconds since the epoch; `seq` the last one it has.

    `new_bytes` is what this point added to the backup.
    """

    format: int
    database: str
    point: str
    created_us: int
    version: str
    seq: int
    data_bytes: int
    block_bytes: int
    index_sha256: str
    packs: list[Pack]
    files: list[BackedUpFile]
    new_bytes: int

    @property
    def total_bytes(self) -> int:
        """What restoring it writes."""
        return self.data_bytes + sum(file.size for file in self.files)


class Block(NamedTuple):
    """Where a block lies."""

    digest: bytes
    pack: int
    offset: int


def point_folder(backup: Path, point: str) -> Path:
    """The folder of a restore point."""
    return backup / "points" / point


def pack_path(backup: Path, name: str) -> Path:
    """A pack."""
    return backup / "packs" / f"{name}.pack"


def object_path(backup: Path, sha256: str) -> Path:
    """A file by its digest."""
    return backup / "objects" / sha256[:2] / sha256


def is_point(name: str) -> bool:
    """Whether a name is one that we give to restore points."""
    return _POINT.fullmatch(name) is not None


def read_identity(backup: Path) -> Identity:
    """Which database a folder is a backup of. Raises BackupError."""
    try:
        data = (backup / IDENTITY).read_bytes()
        found = msgspec.json.decode(data, type=Identity)
    except FileNotFoundError:
        raise BackupError(f"{backup} is not a backup: it has no {IDENTITY}") from None
    except (OSError, msgspec.DecodeError) as error:
        raise BackupError(f"{backup / IDENTITY} cannot be read: {error}") from None
    if msgspec.json.encode(found) != data:
        raise BackupError(f"{backup / IDENTITY} is damaged")
    if found.format != FORMAT:
        raise BackupError(f"{backup} has format {found.format}; this version reads format {FORMAT}")
    return found


def points_of(backup: Path) -> list[str]:
    """The names of the complete restore points, the oldest first."""
    folder = backup / "points"
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if is_point(entry.name) and (entry / MANIFEST).is_file())


def read_manifest(backup: Path, point: str) -> Manifest:
    """The manifest of a restore point, checked. Raises BackupError."""
    if not is_point(point):
        raise BackupError(f"'{point[:80]}' is not the name of a restore point")
    folder = point_folder(backup, point)
    try:
        data = (folder / MANIFEST).read_bytes()
        stored = (folder / MANIFEST_SUM).read_text("ascii")
    except FileNotFoundError:
        raise BackupError(f"{backup} has no restore point {point}") from None
    except (OSError, ValueError) as error:
        raise BackupError(f"the manifest of {point} cannot be read: {error}") from None
    if hashlib.sha256(data).hexdigest() + "\n" != stored:
        raise BackupError(f"the manifest of {point} does not match its checksum")
    try:
        found = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise BackupError(f"the manifest of {point} cannot be read: {error}") from None
    if found.format != FORMAT:
        raise BackupError(f"{point} has format {found.format}; this version reads format {FORMAT}")
    if found.point != point or found.block_bytes <= 0 or found.data_bytes <= 0:
        raise BackupError(f"the manifest of {point} is not one of this point")
    for file in found.files:
        _expect_inside(file.path)
    if any(not is_point(pack.name) for pack in found.packs):
        raise BackupError(f"the manifest of {point} names a pack that is none of ours")
    if any(re.fullmatch("[0-9a-f]{64}", file.sha256) is None for file in found.files):
        raise BackupError(f"the manifest of {point} names a file without a checksum")
    return found


def _expect_inside(path: str) -> None:
    """A manifest may come from anywhere: it is to name files of the data folder only."""
    parts = path.split("/")
    if not path or "\0" in path or any(part in {"", ".", ".."} for part in parts):
        raise BackupError(f"the manifest names a file outside of the data folder: {path[:200]!r}")


def choose_point(backup: Path, point: str | None) -> str:
    """The named restore point, or the newest one. Raises BackupError."""
    read_identity(backup)
    if point is not None:
        return point
    points = points_of(backup)
    if not points:
        raise BackupError(f"{backup} holds no complete backup")
    return points[-1]


def index_entries(file: BinaryIO) -> Iterator[Block]:
    """The entries of an open index."""
    while data := file.read(ENTRY.size * 4096):
        yield from map(Block._make, ENTRY.iter_unpack(data))
