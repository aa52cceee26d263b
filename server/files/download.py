"""The answers to a download: the bytes of a file, whole or a range, in blocks that are read one ahead; or an error.

A file never changes under its id, so its digest is its ETag. What a browser would run is answered in a sandbox
(`Content-Security-Policy`), whatever the client that uploaded it said.
"""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

import msgspec
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from server.exchange import Exchange, exchange_of
from server.files.conditions import Part, Verdict, judge
from server.files.names import disposition
from server.middleware.errors import JSON
from server.state import AppState
from sql.errors import SqlError
from sql.files.downloads import FileRequest, StoredFile
from sql.identity import Identity
from sql.storage_errors import translated
from storage.blobs import BlobError, BlobReader
from storage.errors import StorageError

_BLOCK = 1 << 20
_PASSIVE = ("image/", "audio/", "video/", "font/")
_PASSIVE_TYPES = frozenset(
    {"application/pdf", "application/json", "application/octet-stream", "text/plain", "text/csv"}
)


async def answer_download(state: AppState, request: Request, identity: Identity) -> Refusal | FileAnswer:
    """The answer to a request of a caller, as ASGI application."""
    try:
        file, reader = await state.database.open_file(request_of(request), identity)
    except (SqlError, StorageError) as error:
        return Refusal(translated(error) if isinstance(error, StorageError) else error)
    return FileAnswer(file, reader)


class Refusal:
    """An error, as ASGI application."""

    def __init__(self, error: SqlError) -> None:
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        error = self._error
        headers = [JSON, (b"retry-after", b"1")] if error.status == 503 else [JSON]
        body = msgspec.json.encode({"error": error.message, "code": error.code})
        await exchange_of(scope).respond(error.status, headers, body)


class FileAnswer:
    """A file's answer, as ASGI application; gives the file back at its end."""

    def __init__(self, file: StoredFile, reader: BlobReader) -> None:
        self._file = file
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and give the file back."""
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


def request_of(request: Request) -> FileRequest:
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
