"""Putting a restored data folder in the place of the present one, at the next start of the server.

RESTORE DATABASE cannot change the folder that is being served. It restores beside it and leaves a note, also beside
it; the server reads the note before it opens the folder, and renames: the present folder to `<data>.before-restore-…`,
the restored one to `<data>`. Each step may be repeated, so a crash in between is made good by the next start.

    <data>.restore.json     the note: which folder is to come, and what the present one is to be called
    <data>.restored-<job>   the restored folder until then
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from sql.backup.copying import write_new
from sql.backup.layout import BackupError
from sql.backup.restoring import UNFINISHED
from storage.blobs import sync_folder
from storage.lock import FolderLock


class Pending(msgspec.Struct, frozen=True):
    """Names of folders beside the data folder."""

    restored: str
    former: str


def staging_folder(data: Path, job_id: str) -> Path:
    """Where a job restores to."""
    return data.with_name(f"{data.name}.restored-{job_id}")


def note_path(data: Path) -> Path:
    """The note of a data folder."""
    return data.with_name(f"{data.name}.restore.json")


def expect_swappable(data: Path) -> None:
    """Raise BackupError where the data folder cannot be renamed: it is a mount point, or a link."""
    if data.is_symlink() or data.stat().st_dev != data.parent.stat().st_dev:
        raise BackupError(
            f"the data folder {data} is a mount point or a link and cannot be replaced as a whole; stop the server and "
            "use `headrace restore`"
        )


def announce(data: Path, restored: Path, former: str) -> None:
    """Have the next start put a restored folder in place. A note that was there is replaced, with its folder."""
    before = _read(data)
    write_new(note_path(data), msgspec.json.encode(Pending(restored.name, former)))
    if before is not None and before.restored != restored.name:
        shutil.rmtree(data.with_name(before.restored), ignore_errors=True)


def swap_pending(data: Path) -> str | None:
    """Before the folder is opened: carry out what is noted. What was done, as a sentence; None: nothing is noted.

    Raises StorageLocked when the folder is served, BackupError for a note that makes no sense, OSError.
    """
    pending = _read(data)
    if pending is None:
        return None
    restored, former = data.with_name(pending.restored), data.with_name(pending.former)
    prefix = f"{data.name}."
    if not all(name.startswith(prefix) and "/" not in name for name in (pending.restored, pending.former)):
        raise BackupError(f"the note {note_path(data)} names folders that are none of this data folder")
    if (restored / UNFINISHED).exists():
        raise BackupError(f"the folder {restored} was not restored to its end; remove {note_path(data)}")
    if restored.is_dir():
        if data.is_dir():
            with FolderLock(data):
                data.rename(former)
        restored.rename(data)
        sync_folder(data.parent)
    elif not data.is_dir():
        raise BackupError(f"neither {data} nor {restored} is there; the former data may be in {former}")
    note_path(data).unlink()
    sync_folder(data.parent)
    return f"the data folder was restored; what it held before is in {former}"


def _read(data: Path) -> Pending | None:
    path = note_path(data)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Pending)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise BackupError(f"the note {path} cannot be read: {error}") from None
