"""Files of a request while they arrive: written and hashed in threads, block by block, in constant memory.

A staged file has no name (`storage.blobs.open_staged`): closed, or after a crash, nothing is left of it. One block is
written while the next one arrives; whoever sends faster than the disk takes waits. The blocks of a file are used again
and again: large ones would come from the system each time, page by page (`server/memory.py`).
"""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import hmac
import os
from collections.abc import Callable
from pathlib import Path

from server.files.content_types import HEAD_BYTES, TypeRules
from sql.errors import DigestMismatch, FileTooLarge, StorageFullError
from sql.files.references import UploadedFile
from storage.blobs import open_staged

BLOCK = 1 << 20

ADVISED = 8 << 20
"""After how many bytes the system is told to write them."""


class Budget:
    """Sizes that the files of one request may have; `left` is what all that are still to come may take together."""

    def __init__(self, max_file: int, max_request: int) -> None:
        self.max_file = max_file
        self.max_request = max_request
        self._used = 0

    def spend(self, part: str, size: int, more: int) -> None:
        """Note that a file grows by `more` to `size` bytes. Raises FileTooLarge."""
        if size > self.max_file:
            raise FileTooLarge(f"Part '{part}' is larger than {self.max_file} bytes, the largest file that may be sent")
        self._used += more
        if self._used > self.max_request:
            raise FileTooLarge(f"The files of a request may have {self.max_request} bytes together; these have more")


class StagedPart:
    """One file that arrives. `feed` what comes, `flush` when `pending` has grown, `finish` at its end; then `close`."""

    def __init__(
        self, part: str, name: str, declared: str | None, digest: bytes | None, rules: TypeRules, folder: Path
    ) -> None:
        self.part = part
        self._name = name
        self._declared = declared
        self._digest = digest
        self._rules = rules
        self._folder = folder
        self._filling = memoryview(b"")
        self._filled = 0
        self._full: list[memoryview] = []
        self._spare: list[memoryview] = []
        self._head = b""
        self._mime = ""
        self._size = 0
        self._written = self._advised = 0
        self._hash = hashlib.sha256()
        self._file = -1
        self._job: asyncio.Future[None] | None = None
        self._uploaded: UploadedFile | None = None

    def feed(self, data: memoryview, budget: Budget) -> None:
        """Take bytes that arrived. Raises FileTooLarge, and InvalidMimeType once the beginning says what it is."""
        self._size += len(data)
        budget.spend(self.part, self._size, len(data))
        rest = data
        while rest:
            if self._filled == len(self._filling):
                self._filling = self._spare.pop() if self._spare else memoryview(bytearray(BLOCK))
                self._filled = 0
            count = min(len(rest), BLOCK - self._filled)
            self._filling[self._filled : self._filled + count] = rest[:count]
            self._filled += count
            rest = rest[count:]
            if self._filled == BLOCK:
                self._full.append(self._filling)
                self._filling, self._filled = memoryview(b""), 0
        if not self._mime:
            if len(self._head) < HEAD_BYTES:
                self._head += bytes(data[: HEAD_BYTES - len(self._head)])
            if len(self._head) == HEAD_BYTES:
                self._mime = self._rules.settle(self.part, self._declared, self._head, self._name)

    @property
    def due(self) -> bool:
        """Whether there is enough to be written."""
        return bool(self._full)

    async def flush(self) -> None:
        """Hand full blocks to a thread, after those that it had before. Raises StorageFullError."""
        await self._settled()
        blocks, self._full = self._full, []
        self._start(lambda: self._write(blocks))

    async def finish(self) -> UploadedFile:
        """The last bytes have come: the file as it lies on the disk, synced. Raises SqlError."""
        if not self._mime:
            self._mime = self._rules.settle(self.part, self._declared, self._head, self._name)
        self._full.append(self._filling[: self._filled])
        self._filling, self._filled = memoryview(b""), 0
        await self.flush()
        await self._settled()
        digest = self._hash.digest()
        if self._digest is not None and not hmac.compare_digest(self._digest, digest):
            sent = base64.b64encode(self._digest).decode()
            raise DigestMismatch(f"Part '{self.part}' is not the file of digest sha-256=:{sent}: that was sent with it")
        self._start(lambda: os.fdatasync(self._file))
        await self._settled()
        self._uploaded = UploadedFile(self._name, self._size, self._mime, digest.hex(), self._file)
        return self._uploaded

    async def close(self) -> None:
        """Give the file back; if it was not stored meanwhile nothing is left of it."""
        if self._job is not None:
            await asyncio.wait([self._job])
            if not self._job.cancelled():
                self._job.exception()
            self._job = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _start(self, work: Callable[[], None]) -> None:
        self._job = asyncio.get_running_loop().run_in_executor(None, work)

    async def _settled(self) -> None:
        """Wait for what the thread has; raises what went wrong with it."""
        if self._job is None:
            return
        try:
            await asyncio.shield(self._job)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise StorageFullError("The disk has no room for the request's files; nothing was stored.") from error
            raise
        self._job = None

    def _write(self, blocks: list[memoryview]) -> None:
        if self._file < 0:
            self._file = open_staged(self._folder)
        for block in blocks:
            # One long call each, which both let go of the interpreter: a thread that takes it back for every small
            # piece waits for the event loop each time.
            self._hash.update(block)
            rest = block
            while rest:
                rest = rest[os.write(self._file, rest) :]
            self._written += len(block)
            if self._written - self._advised >= ADVISED:
                # Linux begins to write dirty pages that are said not to be needed: the sync at the end waits for few.
                os.posix_fadvise(self._file, self._advised, self._written - self._advised, os.POSIX_FADV_DONTNEED)
                self._advised = self._written
        self._spare = [block for block in blocks if len(block) == BLOCK][:2]
