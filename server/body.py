"""Reading the body of a request, wholly or into a file, within time limits."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from types import TracebackType

from starlette.types import Message, Receive

from server.errors import ClientGone, HttpError
from sql.errors import StorageFullError

_BLOCK = 1 << 20


async def read_body(receive: Receive, seconds: float) -> bytes:
    """Return the whole body; one that is not complete after `seconds` is refused with 408."""
    message = await receive()
    body = _part(message)
    if not message.get("more_body", False):
        return body
    parts = [body]
    try:
        async with asyncio.timeout(seconds):
            while message.get("more_body", False):
                message = await receive()
                parts.append(_part(message))
    except TimeoutError:
        raise _too_slow(seconds) from None
    return b"".join(parts)


class SpooledBody:
    """A body as a file without a name, so that nothing is left of it after a crash.

    It is in memory up to a size, beyond that in the data folder; `path` opens it from its start as long as it is not
    closed.
    """

    def __init__(self, folder: Path, memory: int) -> None:
        self._folder = folder
        self._memory = memory
        self._file = os.memfd_create("body", os.MFD_CLOEXEC)
        self._in_memory = True

    @property
    def path(self) -> Path:
        """Where to open it."""
        return Path(f"/proc/self/fd/{self._file}")

    @property
    def in_memory(self) -> bool:
        """Whether the next block goes to memory."""
        return self._in_memory

    def write(self, block: bytes, size: int) -> None:
        """Append a block, after which the body has `size` bytes. Blocks unless the body is small."""
        if self._in_memory and size > self._memory:
            self._move()
        self._append(block)

    def _append(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            view = view[os.write(self._file, view) :]

    def _move(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        begun = os.pread(self._file, self._memory, 0)
        os.close(self._file)
        self._file = os.open(self._folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._in_memory = False
        self._append(begun)

    def close(self) -> None:
        """Give the space back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> SpooledBody:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


async def spool_body(receive: Receive, seconds: float, folder: Path, memory: int) -> SpooledBody:
    """Receive a body into a file; close it. `seconds` bounds the wait for each part."""
    body = SpooledBody(folder, memory)
    pending: list[bytes] = []
    size = written = 0
    loop = asyncio.get_running_loop()
    try:
        more = True
        while more:
            message = await _next(receive, seconds)
            part = _part(message)
            size += len(part)
            pending.append(part)
            more = message.get("more_body", False)
            if not more or size - written >= _BLOCK:
                block, pending, written = b"".join(pending), [], size
                if body.in_memory and size <= memory:
                    body.write(block, size)
                else:
                    await loop.run_in_executor(None, body.write, block, size)
    except BaseException as error:
        body.close()
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFullError("The disk has no room for the request's body; nothing was inserted.") from error
        raise
    return body


async def _next(receive: Receive, seconds: float) -> Message:
    try:
        async with asyncio.timeout(seconds):
            return await receive()
    except TimeoutError:
        raise _too_slow(seconds) from None


def _part(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    return body


def _too_slow(seconds: float) -> HttpError:
    return HttpError(
        408,
        "REQUEST_TIMEOUT",
        f"The request's body did not arrive within {seconds:g} seconds",
        headers={"Connection": "close"},
        sql_shape=True,
    )
