"""Files of FILE columns: what a cell says about one, and the multipart form that brings them.

httpx makes the form. Its parts are read here in threads, a few at a time, so that a slow disk does not hold up the
event loop and a file of any size takes the same memory.
"""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from os import PathLike, fspath
from pathlib import Path
from typing import IO, Any, TypeAlias
from urllib.parse import quote

import httpx
import msgspec

FileContent: TypeAlias = str | PathLike[str] | bytes | IO[bytes]
"""A path, or the bytes, or a file that is open for reading bytes."""

FileSource: TypeAlias = FileContent | tuple[str, FileContent] | tuple[str, FileContent, str]
"""What to upload; with the name that it is to have, and its MIME type."""

Files: TypeAlias = Mapping[str, FileSource]
"""What each `FILE("name")` of a statement stands for, by name."""

PARTS_AT_ONCE = 16
"""Parts of the form that are read in one go; one of a file has 64 KiB."""


class FileRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a cell of a FILE column says about its file."""

    id: str
    sub: str
    name: str
    size: int
    mime: str
    sha256: str
    shard: int | None = None

    @classmethod
    def parse(cls, value: Ref) -> FileRef:
        """A FileRef of what a row holds: the object, or its JSON text. Raises ValueError."""
        if isinstance(value, FileRef):
            return value
        try:
            if isinstance(value, (str, bytes)):
                return msgspec.json.decode(value, type=cls)
            return msgspec.convert(value, cls)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{str(value)[:100]!r} is no FileRef: {error}") from error

    def path(self, namespace: str, table: str) -> str:
        """Where a table's file is downloaded from."""
        parts = (namespace, table, self.sub, self.id)
        return "/v1/files/" + "/".join(quote(part, safe="") for part in parts)


Ref: TypeAlias = FileRef | Mapping[str, Any] | str | bytes
"""What a cell of a FILE column holds: an object, or its JSON text."""


def form_body(fields: Mapping[str, str], files: Files) -> tuple[dict[str, str], Callable[[], AsyncIterator[bytes]]]:
    """The headers of a form, and what makes its bytes, each time anew.

    Raises OSError for a path that cannot be read, TypeError for what is no file.
    """
    form = _Form(fields, files)
    return form.headers, form.chunks


class _Form:
    """A form that may be sent more than once: its boundary and so its headers stay."""

    def __init__(self, fields: Mapping[str, str], files: Files) -> None:
        self._fields = fields
        self._files = {name: _named(name, source) for name, source in files.items()}
        self._sent = False
        with ExitStack() as stack:
            self.headers = {
                name: value
                for name, value in self._request(stack, {}).headers.items()
                if name in {"content-type", "content-length"}
            }

    def _request(self, stack: ExitStack, headers: dict[str, str]) -> httpx.Request:
        files: list[tuple[str, tuple[str, Any, str]]] = []
        for name, (filename, content, mime) in self._files.items():
            source: Any = content
            if isinstance(content, str):
                source = stack.enter_context(Path(content).open("rb"))  # noqa: SIM115 (the stack closes it)
            elif not isinstance(content, bytes) and not _can_be_rewound(content):
                source = _Unsized(content)
            files.append((f"file:{name}", (filename, source, mime)))
        return httpx.Request("POST", "http://form/", data=self._fields, files=files, headers=headers)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of the form. Raises RuntimeError when a file that cannot be rewound was sent already."""
        if self._sent:
            for filename, content, _ in self._files.values():
                if not isinstance(content, (str, bytes)) and not _can_be_rewound(content):
                    raise RuntimeError(f"'{filename}' was read already and cannot be sent a second time")
        self._sent = True
        with ExitStack() as stack:
            request = await asyncio.to_thread(self._request, stack, self.headers)
            assert isinstance(request.stream, httpx.SyncByteStream)
            source = iter(request.stream)
            while block := await asyncio.to_thread(_read, source):
                yield block


class _Unsized:
    """A pipe or the like: httpx must not ask the system for its size, which is 0."""

    def __init__(self, source: IO[bytes]) -> None:
        self.read = source.read


def _can_be_rewound(source: IO[bytes]) -> bool:
    seekable = getattr(source, "seekable", None)
    return bool(seekable is not None and seekable())


def _read(source: Iterator[bytes]) -> bytes:
    return b"".join(islice(source, PARTS_AT_ONCE))


def _named(name: str, source: FileSource) -> tuple[str, str | bytes | IO[bytes], str]:
    """Name, content (a path as str) and MIME type; an empty type leaves it to the server to look."""
    filename, mime = "", ""
    content: FileContent
    if isinstance(source, tuple):
        filename, content = source[:2]
        mime = source[2] if len(source) > 2 else ""
    else:
        content = source
    if isinstance(content, (str, PathLike)):
        content = fspath(content)
        filename = filename or Path(content).name
    elif not isinstance(content, bytes):
        if not hasattr(content, "read"):
            raise TypeError(f"file '{name}' is a path, bytes or an open file, not {type(content).__name__}")
        written = getattr(content, "name", None)
        filename = filename or (Path(written).name if isinstance(written, str) else "")
    filename = filename or name
    return filename, content, mime or mimetypes.guess_type(filename)[0] or ""
