"""`headrace restore` and `headrace backup`: restore points of a backup, listed, verified, made a data folder again.

Exit codes: 0 done, 1 something is wrong, with one sentence on standard error.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import lmdb

from sql.backup import layout, restoring
from storage.errors import StorageError

_FAILURES = (layout.BackupError, StorageError, OSError, lmdb.Error)


def restore(backup: Path, folder: Path, point: str | None) -> int:
    """Make a data folder of a restore point; returns the exit code."""
    try:
        manifest = restoring.restore(backup.absolute(), folder, point, _shown())
    except _FAILURES as error:
        return _failed(error)
    _say(f"Restored {manifest.point} ({_size(manifest.total_bytes)}) into {folder}. It is consistent.")
    return 0


def list_points(backup: Path) -> int:
    """Print the restore points of a backup, the oldest first; returns the exit code."""
    try:
        layout.read_identity(backup)
        manifests = [layout.read_manifest(backup, point) for point in layout.points_of(backup)]
    except _FAILURES as error:
        return _failed(error)
    for found in manifests:
        made = datetime.fromtimestamp(found.created_us / 1e6, UTC)
        _say(
            f"{found.point}  {made:%Y-%m-%d %H:%M:%S} UTC  {_size(found.total_bytes)}, "
            f"of which {_size(found.new_bytes)} were new"
        )
    if not manifests:
        _say(f"{backup} holds no complete backup.")
    return 0


def verify(backup: Path, point: str | None, *, quick: bool, scratch: Path | None) -> int:
    """Compare all checksums, and unless `quick` restore into a folder that is removed, and check that.

    `scratch` is where that folder is made: the system's folder for temporary files unless it is given.
    """
    try:
        backup = backup.absolute()
        manifest = restoring.verify_bytes(backup, point, _shown())
        if not quick:
            with tempfile.TemporaryDirectory(prefix="headrace-verify-", dir=scratch) as folder:
                restoring.restore(backup, Path(folder) / "data", manifest.point, _shown())
    except _FAILURES as error:
        return _failed(error)
    what = "All checksums match" if quick else "All checksums match, and the restored database is consistent"
    _say(f"{manifest.point}: {what}.")
    return 0


def _shown() -> restoring.Progress:
    """Progress on standard error, where somebody looks at it."""
    if not sys.stderr.isatty():
        return restoring.no_progress
    shown = -1

    def show(percent: float, message: str) -> None:
        nonlocal shown
        if int(percent) > shown:
            shown = int(percent)
            print(f"\r{shown:3d} %  {message:<40}", end="" if shown < 99 else "\n", file=sys.stderr)  # noqa: T201

    return show


def _size(nbytes: int) -> str:
    return f"{nbytes:,} bytes"


def _say(sentence: str) -> None:
    print(sentence)  # noqa: T201


def _failed(error: Exception) -> int:
    print(f"headrace: {error}", file=sys.stderr)  # noqa: T201
    return 1
