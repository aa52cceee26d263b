"""Reading the body of a request, wholly or into a file, within time limits."""

from __future__ import annotations

import asyncio
import io
import tempfile
from pathlib import Path
from typing import BinaryIO

from starlette.types import Message, Receive

from server.errors import ClientGone, HttpError

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


async def spool_body(receive: Receive, seconds: float, folder: Path, memory: int) -> BinaryIO:
    """Return the body as a file at its start: in memory up to `memory` bytes, beyond that in `folder`.

    The file has no name, so nothing is left of it after a crash. `seconds` bounds the wait for each part.
    """
    file: BinaryIO = io.BytesIO()
    pending: list[bytes] = []
    size = written = 0
    loop = asyncio.get_running_loop()
    try:
        while True:
            message = await _next(receive, seconds)
            part = _part(message)
            size += len(part)
            pending.append(part)
            last = not message.get("more_body", False)
            if size > memory and isinstance(file, io.BytesIO):
                file = await loop.run_in_executor(None, _open, folder)
            if last or size - written >= _BLOCK:
                block, pending, written = b"".join(pending), [], size
                if isinstance(file, io.BytesIO):
                    file.write(block)
                else:
                    await loop.run_in_executor(None, file.write, block)
            if last:
                file.seek(0)
                return file
    except BaseException:
        file.close()
        raise


def _open(folder: Path) -> BinaryIO:
    folder.mkdir(mode=0o700, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder, buffering=0)


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
