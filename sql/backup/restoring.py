"""The way back: verifying a restore point, and making a data folder of it.

A restored folder goes on by itself and leaves the database that it was copied from in peace:

- cold files that lay in another storage lie in `local` now, as do the tables, and files that waited to be deleted are
  forgotten: else the copy would write among files that the original reads, or delete them;
- open tables are published anew, for the same reason;
- backups, restores and exports that were under way when the backup was made are over, and exports are not there;
- the change log is given up and `_seq`s go on far behind those of the backup: clients that saw later commits of the
  original cannot resume at a place that means something else here, they are told `RESUME_TOO_OLD` and begin anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from sql.backup.copying import COPY_BYTES, create, index_is_whole, make_folder, sync
from sql.backup.layout import (
    INDEX,
    BackupError,
    Block,
    Manifest,
    choose_point,
    index_entries,
    object_path,
    pack_path,
    point_folder,
    read_identity,
    read_manifest,
)
from sql.backup.making import COLD_FOLDER
from sql.exports.definitions import EXPORT_KIND, ExportDef
from sql.jobs.model import JOB_KIND, JobDef, JobStatus, JobType
from sql.lake.units import LAKE, LakeDef
from storage.blobs import sync_folder
from storage.check import check as check_folder
from storage.cold_segments import (
    COMMITTED_PREFIX,
    OTHER_PREFIX,
    delete_segment,
    partition_of_key,
    put_segment,
    segment_items,
)
from storage.cold_tier import STORAGE_OPTION
from storage.engine import StorageEngine
from storage.errors import StorageLocked
from storage.lock import LOCK_NAME, FolderLock
from storage.log_restart import restart_log
from storage.options import StorageOptions
from storage.page_copy import DATA_FILE
from storage.storage_definitions import LOCAL
from storage.writer import WriteTransaction

SEQ_STEP = 1 << 40
"""How far behind those of the backup the `_seq`s of a restored database begin."""
_NOT_AGAIN = frozenset({JobType.BACKUP, JobType.RESTORE, JobType.USER_EXPORT})
UNFINISHED = ".headrace-restore"
"""In a folder that is being restored into: it is of no use until this is gone."""

Progress = Callable[[float, str], None]


def no_progress(percent: float, message: str) -> None:
    """Say nothing."""


def no_check() -> None:
    """Never stop."""


def verify_bytes(
    backup: Path, point: str | None = None, progress: Progress = no_progress, check: Callable[[], None] = no_check
) -> Manifest:
    """Read everything that a restore point refers to, and compare checksums. Raises BackupError."""
    manifest = _open_point(backup, point)
    done = 0
    for block in _blocks(backup, manifest):
        check()
        done += len(block)
        progress(100 * done / manifest.total_bytes, "reads the data file")
    for file in manifest.files:
        for block in _object(backup, file.sha256, file.size):
            check()
            done += len(block)
            progress(100 * done / manifest.total_bytes, "reads files")
    return manifest


def restore(
    backup: Path,
    folder: Path,
    point: str | None = None,
    progress: Progress = no_progress,
    check: Callable[[], None] = no_check,
) -> Manifest:
    """Make a data folder of a restore point, verified on the way and checked at the end.

    Raises BackupError: also when the folder is not empty or is served. What fails leaves a folder that is marked as
    unfinished, and that another restore may be made into.
    """
    manifest = _open_point(backup, point)
    place = folder.absolute()
    if place.resolve() == backup.resolve() or backup.resolve() in place.resolve().parents:
        raise BackupError("the data folder must not lie inside the backup")
    with _empty_folder(place):
        _write(backup, manifest, place, progress, check)
        adopt(place, {file.segment: file.path for file in manifest.files if file.segment})
        progress(99, "checks the database")
        check()
        problems = check_folder(place)
        if problems:
            raise BackupError(f"the restored database is not consistent: {problems[0]} ({len(problems)} in all)")
    return manifest


@contextmanager
def _empty_folder(folder: Path) -> Iterator[None]:
    """The folder is empty, or one that a restore left unfinished; marked until the block has ended well."""
    try:
        make_folder(folder)
        if _names(folder) - {LOCK_NAME, UNFINISHED} and not (folder / UNFINISHED).exists():
            try:
                FolderLock(folder).release()
            except StorageLocked as error:
                raise BackupError(str(error)) from None
            raise BackupError(f"the folder {folder} is not empty; restore into a new one")
        lock = FolderLock(folder)
    except StorageLocked as error:
        raise BackupError(str(error)) from None
    except OSError as error:
        raise BackupError(f"the folder {folder} cannot be made: {error.strerror}") from None
    try:
        (folder / UNFINISHED).touch(mode=0o600)
        sync_folder(folder)
        for name in _names(folder) - {LOCK_NAME, UNFINISHED}:
            left = folder / name
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()
    finally:
        lock.release()  # the engine that is opened on the folder holds it itself
    yield
    (folder / UNFINISHED).unlink()
    sync_folder(folder)


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def _open_point(backup: Path, point: str | None) -> Manifest:
    manifest = read_manifest(backup, choose_point(backup, point))
    if manifest.database != read_identity(backup).database:
        raise BackupError(f"{backup} says that it is of another database than its restore point {manifest.point}")
    if not index_is_whole(backup, manifest):
        raise BackupError(f"the page index of {manifest.point} is missing or damaged")
    for pack in manifest.packs:
        path = pack_path(backup, pack.name)
        if not path.is_file() or path.stat().st_size != pack.size:
            raise BackupError(f"the pack {pack.name} is missing, or has not the size that was written")
    return manifest


def _blocks(backup: Path, manifest: Manifest) -> Iterator[bytes]:
    """The blocks of the data file, each one verified."""
    with ExitStack() as stack:
        packs: list[int] = []
        for pack in manifest.packs:
            number = os.open(pack_path(backup, pack.name), os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, number)
            packs.append(number)
        index = stack.enter_context((point_folder(backup, manifest.point) / INDEX).open("rb"))
        left = manifest.data_bytes
        for block in index_entries(index):
            yield _block(packs, block, min(left, manifest.block_bytes), manifest)
            left -= manifest.block_bytes
        if left > 0:
            raise BackupError(f"the page index of {manifest.point} ends too early")


def _block(packs: list[int], block: Block, size: int, manifest: Manifest) -> bytes:
    if size <= 0 or block.pack >= len(packs):
        raise BackupError(f"the page index of {manifest.point} is damaged")
    data = os.pread(packs[block.pack], size, block.offset)
    if hashlib.sha256(data).digest() != block.digest:
        pack = manifest.packs[block.pack].name
        raise BackupError(f"the pack {pack} is damaged at byte {block.offset}: a block does not match its checksum")
    return data


def _object(backup: Path, sha256: str, size: int) -> Iterator[bytes]:
    """The bytes of a stored file; the last ones come only if all of them are right."""
    digest = hashlib.sha256()
    found = 0
    held = b""
    try:
        with object_path(backup, sha256).open("rb") as file:
            while block := file.read(COPY_BYTES):
                digest.update(block)
                found += len(block)
                if held:
                    yield held
                held = block
    except FileNotFoundError:
        raise BackupError(f"the object {sha256} is missing") from None
    if found != size or digest.hexdigest() != sha256:
        raise BackupError(f"the object {sha256} is damaged: it does not match its checksum")
    if held:
        yield held


def _write(backup: Path, manifest: Manifest, folder: Path, progress: Progress, check: Callable[[], None]) -> None:
    done = 0
    with create(folder / DATA_FILE) as file:
        for block in _blocks(backup, manifest):
            check()
            file.write(block)
            done += len(block)
            progress(95 * done / manifest.total_bytes, "writes the data file")
        sync(file)
    folders = {folder}
    for one in manifest.files:
        path = folder / one.path
        make_folder(path.parent)
        with create(path) as file:
            for block in _object(backup, one.sha256, one.size):
                check()
                file.write(block)
                done += len(block)
            sync(file)
        progress(95 * done / manifest.total_bytes, "writes files")
        folders.add(path.parent)
    for made in folders:
        sync_folder(made)


def adopt(folder: Path, segments: Mapping[int, str]) -> None:
    """Make a database of its own of a copy (see above): `segments` says where the file of each lies in the folder.

    Raises StorageError.
    """
    with StorageEngine.open(folder, StorageOptions(merge=False, evict=False, cold_cache_bytes=0)) as engine:
        engine.submit_exclusive(lambda writer: _adopt_segments(writer, segments)).result()
        engine.commit_sync(_adopt_definitions)
    restart_log(folder, SEQ_STEP)


def _adopt_segments(writer: WriteTransaction, segments: Mapping[int, str]) -> None:
    writer.flusher.touched = True
    for key, segment in list(segment_items(writer.reader)):
        if segment.storage_id != LOCAL and segment.segment_id in segments:
            path = segments[segment.segment_id].removeprefix(f"{COLD_FOLDER}/")
            here = msgspec.structs.replace(segment, storage_id=LOCAL, path=path)
            put_segment(writer.txn, writer.reader, COMMITTED_PREFIX, partition_of_key(key), here)
    for key, segment in list(segment_items(writer.reader, prefix=OTHER_PREFIX)):
        delete_segment(writer.txn, writer.reader, OTHER_PREFIX, partition_of_key(key), segment)


def _adopt_definitions(writer: WriteTransaction) -> None:
    now = writer.now_us()
    for job in list(writer.list_objects(JOB_KIND, JobDef)):
        if job.job_type in _NOT_AGAIN and not job.status.finished:
            over = msgspec.structs.replace(
                job, status=JobStatus.CANCELLED, updated_at=now, finished_at=now,
                message="It was under way when the backup was made from which this database was restored",
            )  # fmt: skip
            writer.put_object(JOB_KIND, job.job_id, over)
    for export in list(writer.list_objects(EXPORT_KIND, ExportDef)):
        writer.delete_object(EXPORT_KIND, export.export_id)
    for lake in list(writer.list_objects(LAKE, LakeDef)):
        writer.delete_object(LAKE, lake.name)
    for table in list(writer.catalog.tables()):
        if table.options.get(STORAGE_OPTION, LOCAL) != LOCAL:
            kept = {name: value for name, value in table.options.items() if name != STORAGE_OPTION}
            writer.put_table(msgspec.structs.replace(table, options=kept))
