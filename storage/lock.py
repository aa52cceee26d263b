"""The lock of a data folder: one process serves it, and a second one learns who that is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from pathlib import Path
from types import TracebackType

import msgspec

from storage.errors import StorageLocked

LOCK_NAME = "headrace.lock"


class Holder(msgspec.Struct, frozen=True):
    """Who holds a data folder."""

    pid: int
    host: str
    started: str


class FolderLock:
    """An exclusive flock on `headrace.lock`. The kernel gives it back when the process ends, however it ends.

    The file's content only serves the message; it is never trusted for the decision.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK_NAME
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._fd, 4096, 0)
            os.close(self._fd)
            raise StorageLocked(_sentence(folder, holder)) from None
        me = Holder(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        with contextlib.suppress(OSError):  # a full disk must not keep a folder from being opened
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, msgspec.json.encode(me) + b"\n", 0)

    def release(self) -> None:
        """Give the folder back."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def _sentence(folder: Path, content: bytes) -> str:
    try:
        holder = msgspec.json.decode(content, type=Holder)
    except msgspec.DecodeError:
        return f"the data folder {folder} is held by another process"
    who = f"process {holder.pid} on {holder.host}, which opened it at {holder.started}"
    return f"the data folder {folder} is held by {who}"
