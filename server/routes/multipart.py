"""The multipart form of an SQL request: parts `sql`, `params` (a JSON array as text) and `namespace_id`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from server.wire import SqlRequest
from sql.errors import EmptySql, InvalidInput, InvalidParameter, Unsupported

_MAX_PARTS = 64


async def parse_multipart(content_type: bytes, body: bytes) -> SqlRequest:
    """Parse the form; raises SqlError. Parts of other names are ignored, files are not taken yet."""

    async def stream() -> AsyncIterator[bytes]:
        yield body

    headers = Headers(raw=[(b"content-type", content_type)])
    try:
        parser = MultiPartParser(headers, stream(), max_files=1, max_fields=_MAX_PARTS, max_part_size=len(body) + 1)  # type: ignore[arg-type]
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise InvalidInput(f"Invalid multipart payload: {getattr(error, 'message', error)}") from None
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile) or name.startswith("file:"):
                raise Unsupported(f"Part '{name}': this server does not take files in SQL requests")
        texts = {name: value for name, value in form.items() if isinstance(value, str)}
    finally:
        await form.close()
    if "sql" not in texts:
        raise EmptySql("SQL statement is required")
    return SqlRequest(texts["sql"], _params(texts.get("params")), texts.get("namespace_id"))


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
