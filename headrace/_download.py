"""Downloads: a file's bytes to memory or to a file, checked against its digest, resumed where a connection broke.

A file never changes under its id, so what was received before a break stays good, and the rest is asked for with a
range. A server that sends the whole again is read up to where the first one broke.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias
from urllib.parse import quote

import httpx

from headrace._backoff import Retries, RetryPolicy, is_transient
from headrace._exceptions import DigestMismatch, HeadraceError, InvalidAnswer
from headrace._files import FileRef, Ref
from headrace._requests import Requests

Target: TypeAlias = str | PathLike[str] | IO[bytes]
"""A path, or a file that is open for writing bytes."""

ByteRange: TypeAlias = tuple[int, int | None]
"""The first byte, and the one behind the last; None: to the end."""

FIVE_TIMES = RetryPolicy(attempts=5)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")

log = logging.getLogger("headrace")


class Sink(Protocol):
    """What takes the bytes."""

    def write(self, data: bytes, /) -> Any:
        """Take the next bytes."""


async def download(
    requests: Requests,
    ref: Ref,
    table: tuple[str, str],
    to: Target | None,
    *,
    user: str | None = None,
    byte_range: ByteRange | None = None,
    retry: RetryPolicy = FIVE_TIMES,
) -> bytes | None:
    """Download a file of a table: its bytes, or None when they went elsewhere. Raises as AsyncClient.download does."""
    file = FileRef.parse(ref)
    path = file.path(*table) + (f"?user_id={quote(user, safe='')}" if user is not None else "")
    transfer = Transfer(requests, path, file, byte_range, retry)
    if to is None:
        memory = BytesIO()
        await transfer.run(memory)
        return memory.getvalue()
    if isinstance(to, (str, PathLike)):
        async with _replacement(Path(to)) as target:
            await transfer.run(target)
    else:
        await transfer.run(to)
    return None


@asynccontextmanager
async def _replacement(path: Path) -> AsyncIterator[IO[bytes]]:
    """A new file beside `path` that takes its place once it is whole and on the disk; else it is removed."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    target = await asyncio.to_thread(beside.open, "xb")
    try:
        with target:
            yield target
            await asyncio.to_thread(_sync, target)
        await asyncio.to_thread(beside.replace, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _sync(target: IO[bytes]) -> None:
    target.flush()
    os.fsync(target.fileno())


class Transfer:
    """One download, over as many requests as it takes."""

    def __init__(
        self, requests: Requests, path: str, file: FileRef, byte_range: ByteRange | None, retry: RetryPolicy
    ) -> None:
        start, stop = byte_range or (0, None)
        end = file.size if stop is None else min(stop, file.size)
        if not 0 <= start <= end:
            raise ValueError(f"byte_range {byte_range} does not lie in the {file.size} bytes of the file")
        self._requests = requests
        self._path = path
        self._file = file
        self._start = start
        self._end = end
        self._retry = retry
        self._digest = hashlib.sha256()
        self._received = 0

    async def run(self, sink: Sink) -> None:
        """Bring the bytes to the sink. Raises DigestMismatch, ResponseError, ConnectionFailed."""
        retries, before = Retries(self._retry), 0
        while True:
            try:
                await self._request(sink)
                break
            except HeadraceError as error:
                if self._received > before:  # it goes on: what counts are attempts without success
                    retries, before = Retries(self._retry), self._received
                delay = retries.next_delay(error) if is_transient(error) else None
                if delay is None:
                    raise
                log.warning("%s goes on in %.1f seconds behind byte %d: %s", self._path, delay, self._received, error)
            await asyncio.sleep(delay)
        if self._start + self._received != self._end:
            raise DigestMismatch(f"{self._received} bytes came of '{self._file.name}', not {self._end - self._start}")
        if self._end - self._start == self._file.size and self._digest.hexdigest() != self._file.sha256.lower():
            raise DigestMismatch(f"the bytes of '{self._file.name}' have another SHA-256 than its FileRef says")

    async def _request(self, sink: Sink) -> None:
        first = self._start + self._received
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if first >= self._end and self._file.size:
            return
        if first or self._end < self._file.size:
            headers |= {"Range": f"bytes={first}-{self._end - 1}", "If-Range": f'"{self._file.sha256}"'}
        async with self._requests.stream("GET", self._path, None, headers) as response:
            surplus = first - self._first_of(response)
            if surplus < 0:
                raise InvalidAnswer(f"bytes from {first} were asked for, and later ones came")
            async for chunk in response.aiter_bytes():
                known, surplus = surplus, max(0, surplus - len(chunk))
                room = known + self._end - self._start - self._received
                if fresh := chunk[known:room]:
                    await asyncio.to_thread(self._take, sink, fresh)
                if len(chunk) > room:
                    if self._end == self._file.size:
                        self._received += len(chunk) - room  # there should be no more
                    return

    def _take(self, sink: Sink, data: bytes) -> None:
        sink.write(data)
        self._digest.update(data)
        self._received += len(data)

    @staticmethod
    def _first_of(response: httpx.Response) -> int:
        """The first byte that an answer has."""
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            return 0
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None:
            raise InvalidAnswer("an answer with a part of a file does not say which part")
        return int(found[1])
