"""The log of one Delta table in a storage: read, commit, checkpoint, and removal of what no reader needs any more.

We are its only writer: a data folder is open in one process, and publications of a table follow one another. All the
same a commit never takes the place of one that is there, where the storage can promise it: on a file system by a hard
link; an object store is asked first.

What is removed: commits and checkpoints before a checkpoint that is older than the grace period, and bitmap files
that no version from that checkpoint on refers to. So the log is bounded by what is published within the grace period.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa

from sql.lake.actions import Action, LogState, decode_actions, encode_actions
from sql.lake.checkpoints import decode_checkpoint, encode_checkpoint
from sql.lake.deletion_vectors import FOLDER as VECTORS
from sql.lake.deletion_vectors import files_of
from storage.cold_files import TEMPORARY, sync_folders, taken, write_file
from storage.errors import StorageUnavailable
from storage.storage_definitions import ColdPlace

LOG = "_delta_log"
CHECKPOINT_EVERY = 10
"""Commits between two checkpoints."""
_COMMIT = re.compile(r"(\d{20})\.json\Z")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet\Z")
_LAST = "_last_checkpoint"


class _Listed(NamedTuple):
    path: str
    version: int
    is_checkpoint: bool
    modified: datetime


class DeltaLog:
    """`root` is the table's folder below the base of `place`. The methods block and raise StorageUnavailable."""

    def __init__(self, place: ColdPlace, root: str) -> None:
        self._place = place
        self._root = root

    def read(self) -> LogState:
        """The state after the last version; version -1 when there is no log, or none that makes sense."""
        return self._replay(self._list())

    def write_file(self, name: str, data: bytes) -> None:
        """Write a file below the table's folder; durable."""
        path = self._path(name)
        write_file(self._place, path, pa.py_buffer(data))
        sync_folders(self._place, [path])

    def commit(self, state: LogState, actions: Sequence[Action]) -> None:
        """Make the next version; `state` becomes the one after it. Writes a checkpoint when it is time for one."""
        version = state.version + 1
        path = self._path(f"{LOG}/{version:020}.json")
        data = encode_actions(actions)
        if self._place.folder is not None:
            self._link(self._place.folder / path, data)
            sync_folders(self._place, [path])
        else:
            if taken(self._place, [path]):
                raise _conflict(path)
            write_file(self._place, path, pa.py_buffer(data))
        state.apply(actions)
        state.version = version
        if version - state.checkpoint >= CHECKPOINT_EVERY:
            self._checkpoint(state)

    def tidy(self, older_than: datetime) -> int:
        """Remove what no reader needs that began after this time; how many files."""
        listed = self._list()
        old = [one.version for one in listed if one.is_checkpoint and one.modified <= older_than]
        base = max(old, default=0)
        doomed = [one.path for one in listed if one.version < base]
        if not doomed:
            return 0
        kept = self._vectors_from(base, listed)
        doomed += [path for path, _ in self._files(VECTORS) if path.removeprefix(self._path("")) not in kept]
        self._delete(doomed)
        return len(doomed)

    def remove(self) -> None:
        """Take the table away: the log, newest version first, then the bitmaps."""
        newest_last = sorted(path for path, _ in self._files(LOG))
        self._delete([*reversed(newest_last), *(path for path, _ in self._files(VECTORS))])

    # --- reading -------------------------------------------------------------------------------------------------

    def _replay(self, listed: Sequence[_Listed], through: int | None = None) -> LogState:
        state = LogState()
        wanted = [one for one in listed if through is None or one.version <= through]
        checkpoint = max((one for one in wanted if one.is_checkpoint), key=lambda one: one.version, default=None)
        try:
            if checkpoint is not None:
                state.apply(decode_checkpoint(self._read(checkpoint.path)))
                state.version = state.checkpoint = checkpoint.version
            for one in sorted((one for one in wanted if not one.is_checkpoint), key=lambda one: one.version):
                if one.version == state.version + 1:
                    state.apply(decode_actions(self._read(one.path)))
                    state.version = one.version
        except (msgspec.DecodeError, pa.ArrowInvalid) as error:
            raise StorageUnavailable(f"the log {self._path(LOG)} does not decode: {error}") from error
        return state

    def _vectors_from(self, base: int, listed: Sequence[_Listed]) -> set[str]:
        """The bitmap files that versions from `base` on refer to."""
        vectors = [add.deletion_vector for add in self._replay(listed, base).files.values()]
        for one in listed:
            if one.version > base and not one.is_checkpoint:
                found = decode_actions(self._read(one.path))
                vectors += [action.add.deletion_vector for action in found if action.add is not None]
        return files_of(vectors)

    def _list(self) -> list[_Listed]:
        found = []
        for path, modified in self._files(LOG):
            name = path.rpartition("/")[2]
            for pattern, is_checkpoint in ((_COMMIT, False), (_CHECKPOINT, True)):
                match = pattern.match(name)
                if match is not None:
                    found.append(_Listed(path, int(match[1]), is_checkpoint, modified))
        return found

    def _files(self, folder: str) -> list[tuple[str, datetime]]:
        from pyarrow import fs

        selector = fs.FileSelector(self._path(folder), allow_not_found=True)
        try:
            found = self._place.filesystem.get_file_info(selector)
        except (OSError, pa.ArrowException) as error:
            raise StorageUnavailable(f"the folder {self._path(folder)} cannot be listed: {error}") from error
        return [(info.path, info.mtime) for info in found if info.type == fs.FileType.File]

    def _read(self, path: str) -> bytes:
        try:
            with self._place.filesystem.open_input_stream(path) as stream:
                data: bytes = stream.read()
        except (OSError, pa.ArrowException) as error:
            raise StorageUnavailable(f"the file {path} cannot be read: {error}") from error
        return data

    # --- writing -------------------------------------------------------------------------------------------------

    def _checkpoint(self, state: LogState) -> None:
        data, actions = encode_checkpoint(state)
        self.write_file(f"{LOG}/{state.version:020}.checkpoint.parquet", data)
        state.checkpoint = state.version
        self.write_file(f"{LOG}/{_LAST}", msgspec.json.encode({"version": state.version, "size": actions}))

    def _link(self, target: Path, data: bytes) -> None:
        """Make a file that is not there yet, whole or not at all."""
        temporary = target.with_name(target.name + TEMPORARY)
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(number, view) :]
                os.fsync(number)
            finally:
                os.close(number)
            os.link(temporary, target)
            temporary.unlink()
            number = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(number)
            finally:
                os.close(number)
        except FileExistsError:
            raise _conflict(str(target)) from None
        except OSError as error:
            raise StorageUnavailable(f"a version of an open table could not be written: {error}") from error

    def _delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            try:
                self._place.filesystem.delete_file(path)
            except FileNotFoundError:
                continue
            except (OSError, pa.ArrowException) as error:
                raise StorageUnavailable(f"the file {path} could not be deleted: {error}") from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if self._root else name


def _conflict(path: str) -> StorageUnavailable:
    return StorageUnavailable(f"somebody else wrote {path}; the log belongs to this server")
