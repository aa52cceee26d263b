"""`GET /v1/files/{namespace}/{table_name}/{subfolder}/{file_id}`: the bytes of a FILE cell, whole or a range.

A file never changes under its id, so its digest is its ETag. What a browser would run is answered in a sandbox
(`Content-Security-Policy`), whatever the client that uploaded it said. Blocks are read in threads, one ahead of what
the client has taken. Errors are `{"error": sentence, "code": code}`; those of the bearer rules are in the SQL shape.
"""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

import msgspec
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from server.exchange import Exchange, exchange_of
from server.files.conditions import Part, Verdict, judge
from server.files.names import disposition
from server.middleware.errors import JSON
from server.state import AppState
from sql.errors import SqlError
from sql.files.downloads import FileRequest, StoredFile
from sql.storage_errors import translated
from storage.blobs import BlobError, BlobReader
from storage.errors import StorageError

FILES_PATH = "/v1/files/{namespace}/{table_name}/{subfolder}/{file_id}"
_ANYTHING = "/v1/files/{path:path}"

_BLOCK = 1 << 20
_PASSIVE = ("image/", "audio/", "video/", "font/")
_PASSIVE_TYPES = frozenset(
    {"application/pdf", "application/json", "application/octet-stream", "text/plain", "text/csv"}
)


class FilesRoute:
    """The endpoint, over the state."""

    def __init__(self, state: AppState) -> None:
        self._state = state

    def routes(self) -> list[Route]:
        """Return its routes. A path with more or fewer parts is an invalid one, not an unknown one."""
        return [
            Route(FILES_PATH, self.download, methods=["GET"], name="download"),
            Route(_ANYTHING, self.download, methods=["GET"], name="download-invalid", include_in_schema=False),
        ]

    async def download(self, request: Request) -> _Sent:
        """Answer one download."""
        exchange = exchange_of(request.scope)
        state = self._state
        identity = state.authenticator.authenticate(exchange.headers.get(b"authorization"), exchange)
        exchange.user = identity.user
        state.limits.check_query(identity.user)
        try:
            file, reader = await state.database.open_file(_request_of(request), identity)
        except (SqlError, StorageError) as error:
            return _Refusal(translated(error) if isinstance(error, StorageError) else error)
        return _Answer(file, reader)


class _Refusal:
    """An error, as ASGI application."""

    def __init__(self, error: SqlError) -> None:
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._error
        headers = [JSON, (b"retry-after", b"1")] if error.status == 503 else [JSON]
        body = msgspec.json.encode({"error": error.message, "code": error.code})
        await exchange_of(scope).respond(error.status, headers, body)


class _Answer:
    """A file's answer, as ASGI application; gives the file back at its end."""

    def __init__(self, file: StoredFile, reader: BlobReader) -> None:
        self._file = file
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        try:
            verdict = judge(exchange.headers, self._file.ref.sha256, self._file.modified_us, self._reader.size)
            headers = [*_headers_of(self._file), *verdict.headers]
            if verdict.part is None:
                await _without_body(exchange, verdict, headers)
            else:
                await self._send(exchange, verdict, verdict.part, headers)
        finally:
            self._reader.close()

    async def _send(self, exchange: Exchange, verdict: Verdict, part: Part, headers: list[tuple[bytes, bytes]]) -> None:
        headers.append((b"content-length", b"%d" % part.length))
        await exchange.send({"type": "http.response.start", "status": verdict.status, "headers": headers})
        if exchange.scope["method"] == "HEAD" or not part.length:
            await exchange.send({"type": "http.response.body", "body": b""})
            return
        loop = asyncio.get_running_loop()
        read = self._reader.read_at
        offset, end = part.first, part.first + part.length
        ahead = loop.run_in_executor(None, read, offset, min(_BLOCK, end - offset))
        try:
            while True:
                block = await asyncio.shield(ahead)
                if not block:
                    raise BlobError("a stored file is shorter than it was")
                offset += len(block)
                more = offset < end
                if more:
                    ahead = loop.run_in_executor(None, read, offset, min(_BLOCK, end - offset))
                await exchange.send({"type": "http.response.body", "body": block, "more_body": more})
                if not more:
                    return
        finally:
            if not ahead.done():
                await asyncio.wait([ahead])  # it reads from what is closed next
            if not ahead.cancelled():
                ahead.exception()


_Sent = _Refusal | _Answer


async def _without_body(exchange: Exchange, verdict: Verdict, headers: list[tuple[bytes, bytes]]) -> None:
    if verdict.status == 304:
        await exchange.send({"type": "http.response.start", "status": 304, "headers": headers})
        await exchange.send({"type": "http.response.body", "body": b""})
        return
    body = msgspec.json.encode({"error": verdict.sentence, "code": verdict.code})
    await exchange.respond(verdict.status, [JSON, *verdict.headers], body)


def _headers_of(file: StoredFile) -> list[tuple[bytes, bytes]]:
    ref = file.ref
    mime = ref.mime
    passive = mime in _PASSIVE_TYPES or (mime.startswith(_PASSIVE) and not mime.endswith("+xml"))
    headers = [
        (b"content-type", b"text/plain; charset=utf-8" if mime == "text/plain" else mime.encode()),
        (b"content-disposition", disposition("inline", ref.name).encode()),
        (b"cache-control", b"private, no-cache"),
    ]
    if not passive:
        headers.append((b"content-security-policy", b"sandbox; default-src 'none'"))
    return headers


def _request_of(request: Request) -> FileRequest:
    """What the path and the query name. A path of another shape gets an empty part, which is refused."""
    names = request.path_params
    query = parse_qs(request.url.query, keep_blank_values=True)
    return FileRequest(
        names.get("namespace", ""),
        names.get("table_name", ""),
        names.get("subfolder", ""),
        names.get("file_id", ""),
        query["user_id"][0] if "user_id" in query else None,
    )
