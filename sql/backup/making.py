"""Making a restore point: everything that a data folder needs to open, as of one commit, while others write.

The commit is held by a snapshot. Cold files that it refers to are kept by the snapshot itself, FILE blobs by
`FileStore.holding`. Its pages are pinned one block at a time, so when the storage has to move its map the snapshot
ends and the copy begins again from a newer commit; what was stored is not stored twice.

Whatever breaks off leaves no manifest, so it is no restore point; the next backup into the folder clears it away.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import xxhash

from sql.backup.copying import Check, make_folder, store_object, store_pages, there, write_new
from sql.backup.layout import (
    BLOCK_BYTES,
    FORMAT,
    IDENTITY,
    LOCK,
    MANIFEST,
    MANIFEST_SUM,
    BackedUpFile,
    BackupError,
    Identity,
    Manifest,
    point_folder,
    points_of,
    read_identity,
    read_manifest,
)
from storage.blobs import BlobError, BlobStore, sync_folder
from storage.cold_files import file_name, folder_of
from storage.cold_segments import Segment, segments_of
from storage.engine import StorageEngine
from storage.errors import SnapshotExpired
from storage.file_records import FileKey, FileRecord, every_record, path_of
from storage.file_references import file_columns
from storage.file_store import FileStore
from storage.page_copy import PageCopy
from storage.seams import SYSTEM_CLOCK
from storage.storage_definitions import LOCAL
from storage.writer import WriteTransaction

log = logging.getLogger("headrace.backup")

DATABASE = "_database"
"""Object kind of the id that tells this database from others, under the name `id`."""
SECRETS = ("jwt_secret", "storage_key")
"""Files of the data folder beside the database that it needs to go on as before."""
COLD_FOLDER = "cold"
FILES_FOLDER = "files"
_BLOCK = 1 << 20
_LEASE = 30 * 86_400.0
_ATTEMPTS = 5


class DatabaseId(msgspec.Struct, frozen=True):
    """What tells a database from others; a restored copy has the same one."""

    id: str


class Made(NamedTuple):
    """A restore point that was made."""

    manifest: Manifest
    files_copied: int


def expect_target(target: Path, data_folder: Path, database: str | None) -> None:
    """Raise BackupError unless backups of this database may be put there; None: it has no id yet."""
    if not target.is_absolute():
        raise BackupError(f"the path of a backup must be absolute, and '{str(target)[:200]}' is not")
    place, data = target.resolve(), data_folder.resolve()
    if place == data or data in place.parents:
        raise BackupError(f"the backup must not lie inside the data folder {data}")
    if place in data.parents:
        raise BackupError("the data folder lies inside that folder; name one of its own for backups")
    try:
        if not place.exists():
            return
        if not place.is_dir():
            raise BackupError(f"{target} is not a folder")
        names = {entry.name for entry in place.iterdir()}
    except OSError as error:
        raise BackupError(f"{target} cannot be read: {error.strerror}") from None
    if not names or names <= {LOCK, IDENTITY + ".part"}:
        return
    if IDENTITY not in names:
        raise BackupError(f"{target} is neither empty nor a backup")
    if read_identity(place).database != database:
        raise BackupError(f"{target} holds backups of another database")


def database_id(engine: StorageEngine) -> str | None:
    """The id of the database, if it has one."""
    with engine.snapshot(purpose="backup") as snapshot:
        found = snapshot.get_object(DATABASE, "id", DatabaseId)
    return None if found is None else found.id


def make_backup(
    engine: StorageEngine,
    files: FileStore | None,
    target: Path,
    progress: Callable[[float, str], None],
    check: Callable[[], None],
) -> Made:
    """Make a restore point in a folder. Raises BackupError, StorageError, OSError, and what `check` raises."""
    expect_target(target, engine.path, database_id(engine))
    database = engine.commit_sync(_identify)
    make_folder(target)
    with _alone(target):
        if not (target / IDENTITY).exists():
            target.chmod(0o700)
            write_new(target / IDENTITY, msgspec.json.encode(Identity(FORMAT, database)))
        clear_leftovers(target)
        for attempt in range(_ATTEMPTS):
            try:
                return _Backup(engine, files, target, database, progress, check).make()
            except SnapshotExpired:
                if attempt == _ATTEMPTS - 1:
                    raise
                log.info("the commit of a backup was given up, because the storage moved; it begins again")
                clear_leftovers(target)
    raise AssertionError


def clear_leftovers(target: Path) -> None:
    """Remove what backups that were broken off have left: points without a manifest, their packs and objects."""
    whole = set(points_of(target))
    broken = [folder for folder in _entries(target / "points") if folder.name not in whole]
    if broken:
        _clear_objects(target, whole)
    for folder in broken:  # last: whoever is killed before does all of it again
        shutil.rmtree(folder)
    for pack in _entries(target / "packs"):
        if pack.name.removesuffix(".pack") not in whole:
            pack.unlink()


def _clear_objects(target: Path, points: set[str]) -> None:
    """Remove the objects that none of the points refers to."""
    try:
        needed = {file.sha256 for point in points for file in read_manifest(target, point).files}
    except BackupError as error:  # nobody knows what that one needs
        log.warning("objects of backups that were broken off are left: %s", error)
        return
    for folder in _entries(target / "objects"):
        if not folder.is_dir():
            folder.unlink()
            continue
        for stored in _entries(folder):
            if stored.name not in needed:
                stored.unlink()


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keep others from making a backup in the same folder."""
    number = os.open(target / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BackupError(f"another backup into {target} is under way") from None
        yield
    finally:
        os.close(number)


def _identify(writer: WriteTransaction) -> str:
    found = writer.get_object(DATABASE, "id", DatabaseId)
    if found is None:
        found = DatabaseId(secrets.token_hex(16))
        writer.put_object(DATABASE, "id", found)
    return found.id


def point_name(now_us: int) -> str:
    """The name of a point made at a time (microseconds since the epoch)."""
    return datetime.fromtimestamp(now_us / 1e6, UTC).strftime("%Y%m%dT%H%M%S.%fZ")


class _Backup:
    def __init__(
        self,
        engine: StorageEngine,
        files: FileStore | None,
        target: Path,
        database: str,
        progress: Callable[[float, str], None],
        check: Callable[[], None],
    ) -> None:
        self.engine = engine
        self.files = files
        self.target = target
        self.database = database
        self.check = check
        self.report = progress
        self.now = SYSTEM_CLOCK.now_us()
        points = points_of(target)
        self.former = self._former(points)
        while points and point_name(self.now) <= points[-1]:  # names sort, whatever the clock does
            at = datetime.strptime(points[-1], "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
            self.now = int(at.timestamp() * 1e6) + 2
        self.point = point_name(self.now)
        self.known = {} if self.former is None else {f.source: (f.sha256, f.size) for f in self.former.files}
        self.done = 0
        self.total = 1
        self.added = 0
        self.copied = 0

    def _former(self, points: list[str]) -> Manifest | None:
        """The newest point that can be read: what it has is not copied again."""
        for point in reversed(points):
            try:
                return read_manifest(self.target, point)
            except BackupError as error:
                log.warning("an earlier restore point is of no use: %s", error)
        return None

    def make(self) -> Made:
        folder = point_folder(self.target, self.point)
        make_folder(folder)
        holding = _no_files() if self.files is None else self.files.holding()
        with holding, self.engine.copy_pages(lease=_LEASE, purpose="backup") as copy:
            segments, blobs = self._needed(copy)
            self.total = 1 + copy.nbytes + sum(s.bytes for s in segments) + sum(r.size for _, r in blobs)
            pages = store_pages(self.target, self.point, copy, BLOCK_BYTES, self.former, self._ticking("database"))
            self.added += pages.added
            found = [self._segment(copy, segment) for segment in segments]
            found += [self._blob(self.files.blobs, key, record) for key, record in blobs if self.files is not None]
            found += self._secrets()
            seq = copy.snapshot.seq
            nbytes = copy.nbytes
        manifest = Manifest(
            format=FORMAT, database=self.database, point=self.point, created_us=self.now, version=_version(),
            seq=seq, data_bytes=nbytes, block_bytes=BLOCK_BYTES, index_sha256=pages.index_sha256, packs=pages.packs,
            files=found, new_bytes=self.added,
        )  # fmt: skip
        self.check()
        data = msgspec.json.encode(manifest)
        write_new(folder / MANIFEST_SUM, (hashlib.sha256(data).hexdigest() + "\n").encode())
        write_new(folder / MANIFEST, data)
        sync_folder(folder.parent)
        return Made(manifest, self.copied)

    def _needed(self, copy: PageCopy) -> tuple[list[Segment], list[tuple[FileKey, FileRecord]]]:
        """The cold files and the stored files that the commit refers to."""
        catalog = copy.snapshot.catalog
        with copy.snapshot.reading() as reader:
            segments = [s for s in segments_of(reader) if catalog.table_by_id(s.table_id) is not None]
            blobs = []
            for key, record in every_record(reader):
                table = catalog.table_by_id(key[0])
                if table is not None and record.is_live(file_columns(table)):
                    blobs.append((key, record))
        if blobs and self.files is None:
            raise BackupError("this server has no place for files, but rows refer to some")
        return segments, blobs

    def _ticking(self, what: str) -> Check:
        def tick(nbytes: int) -> None:
            self.check()
            self.done += nbytes
            self.report(100 * self.done / self.total, f"copies {what}: {self.done >> 20} of {self.total >> 20} MiB")

        return tick

    def _segment(self, copy: PageCopy, segment: Segment) -> BackedUpFile:
        source = f"segment {segment.segment_id} {segment.checksum:016x} {segment.bytes}"
        path = f"{COLD_FOLDER}/{segment.path}"
        if segment.storage_id != LOCAL:
            table = copy.snapshot.catalog.table_by_id(segment.table_id)
            assert table is not None
            folder = folder_of(self.engine.cold.resolver.place(LOCAL), table, segment.user)
            path = (
                f"{COLD_FOLDER}/{file_name(folder, segment.segment_id)}"  # where it would lie had it been flushed there
            )
        tick = self._ticking("cold files")
        known = there(self.target, self.known, source)
        if known is not None:
            tick(segment.bytes)
            return BackedUpFile(path, known[1], known[0], source, segment.segment_id)
        state = xxhash.xxh3_64()

        def blocks() -> Iterator[bytes]:
            with self.engine.cold.reads.open(segment) as file:
                while block := file.read(_BLOCK):
                    state.update(block)
                    yield block

        try:
            stored = store_object(self.target, blocks(), tick)
        except (OSError, pa.ArrowException) as error:
            if copy.snapshot.expired:  # nothing kept the file any more
                raise SnapshotExpired("the snapshot of the backup was ended") from error
            raise BackupError(f"the cold file {segment.path} cannot be copied: {error}") from error
        if stored.size != segment.bytes or state.intdigest() != segment.checksum:
            raise BackupError(f"the cold file {segment.path} is damaged: it does not match its checksum")
        return self._stored(path, source, stored.sha256, stored.size, stored.added, segment.segment_id)

    def _blob(self, blobs: BlobStore, key: FileKey, record: FileRecord) -> BackedUpFile:
        path = path_of(key, record)
        source = f"file {path} {record.size}"
        tick = self._ticking("files")
        known = there(self.target, self.known, source)
        if known is not None:
            tick(record.size)
            return BackedUpFile(f"{FILES_FOLDER}/{path}", known[1], known[0], source)
        try:
            reader = blobs.open(path)
            if reader is None:
                raise BackupError(f"the stored file {path} is gone")
            try:
                size = reader.size
                parts = (reader.read_at(offset, _BLOCK) for offset in range(0, size, _BLOCK))
                stored = store_object(self.target, parts, tick)
            finally:
                reader.close()
        except BlobError as error:
            raise BackupError(f"the stored file {path} cannot be copied: {error}") from error
        wanted = re.search(r'"sha256":"([0-9a-f]{64})"', record.text)
        if stored.size != record.size or (wanted is not None and wanted[1] != stored.sha256):
            raise BackupError(f"the stored file {path} is damaged: it does not match its checksum")
        return self._stored(f"{FILES_FOLDER}/{path}", source, stored.sha256, stored.size, stored.added, 0)

    def _stored(self, path: str, source: str, sha256: str, size: int, added: int, segment: int) -> BackedUpFile:
        self.added += added
        self.copied += 1
        return BackedUpFile(path, size, sha256, source, segment)

    def _secrets(self) -> list[BackedUpFile]:
        """The keys of the server: without them nobody stays signed in, and credentials of storages are lost."""
        found = []
        for name in SECRETS:
            try:
                data = (self.engine.path / name).read_bytes()
            except FileNotFoundError:
                continue
            stored = store_object(self.target, iter([data]), lambda _: self.check())
            found.append(self._stored(name, f"secret {name}", stored.sha256, stored.size, stored.added, 0))
        return found


def _version() -> str:
    try:
        return metadata.version("headrace")
    except metadata.PackageNotFoundError:  # run from its source, without being installed
        return "0+unknown"


@contextmanager
def _no_files() -> Iterator[None]:
    yield
