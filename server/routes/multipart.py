"""The multipart form of an SQL request: parts `sql`, `params`, `namespace_id` and `file:<placeholder>`, as a stream.

Every limit holds while the body arrives: what is too large, too many, of a wrong type or too slow is refused when that
is known, and what follows it is never kept. The texts are in memory, files go to staging as they come.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Receive

from server.config import Config
from server.errors import BodyTooLarge, ClientGone, HttpError
from server.files.content_types import TypeRules, declared_type
from server.files.names import file_name
from server.files.staging import Budget, StagedPart
from server.wire import SqlRequest
from sql.errors import EmptySql, InvalidInput, InvalidMimeType, InvalidParameter, TooManyFiles
from sql.files.references import UploadedFile

FILE_PREFIX = "file:"
MAX_FIELDS = 64
MAX_PART_HEADER = 4_096
MAX_PART_HEADERS = 8
MAX_NAME = 256

_FIELDS = frozenset({"sql", "params", "namespace_id"})


class FormLimits:
    """What the configuration allows of a form."""

    def __init__(self, config: Config, folder: Path) -> None:
        files = config.files
        self.folder = folder
        self.idle_seconds = config.performance.request_timeout
        self.min_rate = files.min_upload_bytes_per_second
        self.max_fields_bytes = config.limits.max_body_bytes
        self.max_file = files.max_size_bytes
        self.max_files = files.max_files_per_request
        self.max_request = files.max_request_bytes
        self.types = TypeRules(files.allowed_mime_types)

    @property
    def max_body(self) -> int:
        """The largest body: all files, all texts, and as much again as texts for the frame around the parts."""
        return self.max_request + 2 * self.max_fields_bytes


class Form(NamedTuple):
    """A form that has arrived. `files` are by the name of their placeholder; `texts_size` in bytes."""

    request: SqlRequest
    files: Mapping[str, UploadedFile]
    texts_size: int


@asynccontextmanager
async def receive_form(receive: Receive, content_type: bytes, limits: FormLimits) -> AsyncIterator[Form]:
    """Receive a form; its files are given back on the way out. Raises SqlError and HttpError."""
    reading = _Reading(content_type, limits)
    try:
        yield await reading.run(receive)
    finally:
        for part in reading.staged:
            await part.close()


class _Reading:
    """One form on its way in. The parser's callbacks note what it finds; `run` does what takes time."""

    def __init__(self, content_type: bytes, limits: FormLimits) -> None:
        self._limits = limits
        self._budget = Budget(limits.max_file, limits.max_request)
        self.staged: list[StagedPart] = []
        self._finished: list[StagedPart] = []
        self._uploads: dict[str, UploadedFile] = {}
        self._texts: dict[str, bytearray] = {}
        self._texts_size = 0
        self._seen: set[str] = set()
        self._parts = 0
        self._headers: dict[str, bytes] = {}
        self._field = bytearray()
        self._value = bytearray()
        self._text: bytearray | None = None
        self._file: StagedPart | None = None
        self._ended = False
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not boundary:
            raise InvalidInput("Invalid multipart payload: Content-Type names no boundary")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_end": self._on_end,
                },
                max_header_count=MAX_PART_HEADERS,
                max_header_size=MAX_PART_HEADER,
            )
        except FormParserError as error:
            raise InvalidInput(f"Invalid multipart payload: {error}") from None

    async def run(self, receive: Receive) -> Form:
        try:
            async with asyncio.timeout(None) as timer:
                await self._receive(receive, timer)
        except TimeoutError:
            if not timer.expired():
                raise
            sentence, headers = "The request's body arrives too slowly", {"Connection": "close"}
            raise HttpError(408, "REQUEST_TIMEOUT", sentence, headers=headers, sql_shape=True) from None
        if not self._ended:
            raise InvalidInput("Invalid multipart payload: the last boundary is missing")
        return Form(self._request(), self._uploads, self._texts_size)

    async def _receive(self, receive: Receive, timer: asyncio.Timeout) -> None:
        """Take the whole body.

        The timer gives `idle_seconds` for each message (a little less: it is not set anew for every one), and for all
        of them no more than the slowest rate.
        """
        limits = self._limits
        now = asyncio.get_running_loop().time
        latest = now() + limits.idle_seconds
        size = 0
        due = 0.0
        more = True
        while more:
            wanted = now() + limits.idle_seconds
            if limits.min_rate:
                wanted = min(wanted, latest + size / limits.min_rate)
            if wanted - due > limits.idle_seconds / 16:
                due = wanted
                timer.reschedule(due)
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            data: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(data)
            if size > limits.max_body:
                raise BodyTooLarge(size, limits.max_body)
            try:
                self._parser.write(data)
            except FormParserError as error:
                raise InvalidInput(f"Invalid multipart payload: {error}") from None
            if self._finished or (self._file is not None and self._file.due):
                timer.reschedule(None)  # the disk may take its time
                due = 0.0
                await self._settle()

    async def _settle(self) -> None:
        """Write what has come of files."""
        finished, self._finished = self._finished, []
        for part in finished:
            self._uploads[part.part.removeprefix(FILE_PREFIX)] = await part.finish()
        if self._file is not None and self._file.due:
            await self._file.flush()

    # --- what the parser finds -----------------------------------------------------------------------------------

    def _on_part_begin(self) -> None:
        self._parts += 1
        most = MAX_FIELDS + self._limits.max_files
        if self._parts > most:
            raise InvalidInput(f"Invalid multipart payload: more than {most} parts")
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        name = self._field.decode("latin-1").lower()
        if name in self._headers:
            raise InvalidInput(f"Invalid multipart payload: a part has two headers {name[:100]}")
        self._headers[name] = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._headers.get("content-disposition", b""))
        if kind != b"form-data" or b"name" not in options:
            raise InvalidInput("Invalid multipart payload: a part has no Content-Disposition: form-data with a name")
        try:
            name = options[b"name"].decode()
        except UnicodeDecodeError:
            raise InvalidInput("Invalid multipart payload: the name of a part is not UTF-8") from None
        if len(name) > MAX_NAME:
            raise InvalidInput(f"Invalid multipart payload: the name of a part is longer than {MAX_NAME} characters")
        known = name in _FIELDS or name.startswith(FILE_PREFIX)
        if known and name in self._seen:
            raise InvalidInput(f"Part '{name}' is there twice")
        self._seen.add(name)
        if name.startswith(FILE_PREFIX):
            self._begin_file(name, options.get(b"filename"))
        else:
            self._text = bytearray()
            if name in _FIELDS:
                self._texts[name] = self._text

    def _begin_file(self, part: str, raw_name: bytes | None) -> None:
        limits = self._limits
        if len(self.staged) >= limits.max_files:
            raise TooManyFiles(f"A request may bring {limits.max_files} files; this one has more")
        try:
            name = file_name(raw_name)
        except ValueError as error:
            raise InvalidInput(f"The file name of part '{part}' {error}") from None
        try:
            declared = declared_type(self._headers.get("content-type", b"").decode("latin-1"))
        except ValueError as error:
            raise InvalidMimeType(f"Part '{part}': {error}") from None
        limits.types.check_declared(part, declared)
        digest = _sha256_of(part, self._headers.get("content-digest"))
        self._file = StagedPart(part, name, declared, digest, limits.types, limits.folder)
        self.staged.append(self._file)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        piece = memoryview(data)[start:end]
        if self._file is not None:
            self._file.feed(piece, self._budget)
            return
        assert self._text is not None
        self._texts_size += len(piece)
        if self._texts_size > self._limits.max_fields_bytes:
            raise BodyTooLarge(self._texts_size, self._limits.max_fields_bytes)
        self._text += piece

    def _on_part_end(self) -> None:
        if self._file is not None:
            self._finished.append(self._file)
        self._file = self._text = None

    def _on_end(self) -> None:
        self._ended = True

    # --- the request ---------------------------------------------------------------------------------------------

    def _request(self) -> SqlRequest:
        texts = {}
        for name, raw in self._texts.items():
            try:
                texts[name] = raw.decode()
            except UnicodeDecodeError:
                raise InvalidInput(f"Part '{name}' is not UTF-8") from None
        if "sql" not in texts:
            raise EmptySql("SQL statement is required")
        return SqlRequest(texts["sql"], _params(texts.get("params")), texts.get("namespace_id"))


def _sha256_of(part: str, header: bytes | None) -> bytes | None:
    """The SHA-256 of a Content-Digest (RFC 9530); None when it names no such one. Raises InvalidInput."""
    for item in (header or b"").split(b","):
        name, _, value = item.strip().partition(b"=")
        if name.strip().lower() != b"sha-256":
            continue
        value = value.strip()
        try:
            digest = base64.b64decode(value[1:-1], validate=True)
        except binascii.Error:
            digest = b""
        if len(digest) != 32 or value[:1] != b":" or value[-1:] != b":":
            raise InvalidInput(f"Content-Digest of part '{part}' must be sha-256=:<32 bytes in base64>:")
        return digest
    return None


def _params(text: str | None) -> list[Any] | None:
    if text is None or not text.strip():
        return None
    try:
        params = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise InvalidParameter(f"Invalid params JSON: {error}") from None
    except RecursionError:
        raise InvalidParameter("Invalid params JSON: it is nested too deeply") from None
    if params is not None and not isinstance(params, list):
        raise InvalidParameter("Params must be a JSON array")
    return params
