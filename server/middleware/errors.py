"""From an error to an answer, in one place.

======================  =======================================================================================
error                   answer
======================  =======================================================================================
SqlError                its status, the error shape of SQL requests (`sql.rendering.encode_error`)
StorageError            that of the SqlError which it means (`sql.storage_errors.translated`)
MemoryError             MEMORY_LIMIT_EXCEEDED
HttpError               its status, `{"error": code, "message": …}` and its fields, or the SQL shape
HTTPException           404 and 405 of the router, `{"error": "NOT_FOUND" or "METHOD_NOT_ALLOWED", "message": …}`
anything else           500 INTERNAL_ERROR with the request id; the traceback goes to the log only
======================  =======================================================================================

On `/v1/api/auth/` codes are ids in lower case (`internal_error`), elsewhere under `/v1/api/` an unexpected error has
the SQL shape. On `/v1/api/topics/` everything but the bearer's errors is `{"error": message, "code": code}`.
"""

from __future__ import annotations

import msgspec
from starlette.exceptions import HTTPException

from server.errors import HttpError
from server.exchange import Exchange
from server.wire import SqlFailure, SqlFailureDetail
from sql.errors import MemoryLimitExceeded, OffsetNotRetained, SqlError
from sql.rendering import encode_error
from sql.storage_errors import translated
from storage.errors import StorageError

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]

JSON = (b"content-type", b"application/json")

TOPICS_PREFIX = "/v1/api/topics/"
_TOPIC_CODES = {"TOPIC_NOT_FOUND": "NOT_FOUND", "PERMISSION_DENIED": "FORBIDDEN"}
_AUTH_PREFIX = "/v1/api/auth/"
_API_PREFIX = "/v1/api/"
_ROUTER_CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


def answer_to(error: Exception, exchange: Exchange) -> Answer:
    """Return status, headers (without the length) and body of the answer to an error."""
    if isinstance(error, StorageError):
        error = translated(error)
    elif isinstance(error, MemoryError):
        error = MemoryLimitExceeded("The request needs more memory than the server has left; try again in a moment.")
    if isinstance(error, SqlError):
        if exchange.scope["path"].startswith(TOPICS_PREFIX):
            return error.status, _retry_later(error.status), _topic_error(error)
        return error.status, _retry_later(error.status), _sql_error(error, exchange)
    if isinstance(error, HttpError):
        return _http_error(error, exchange)
    if isinstance(error, HTTPException):
        code = _ROUTER_CODES.get(error.status_code, "HTTP_ERROR")
        message = f"{exchange.scope['method']} {exchange.scope['path']}: {error.detail}"
        return error.status_code, _headers(dict(error.headers or {})), _flat(code, message, {})
    return 500, [JSON], _internal_error(exchange)


def sql_failure(code: str, message: str, took: float, details: object = None, **more: object) -> bytes:
    """Encode a failure in the SQL shape; `more` are further fields of the body."""
    body = msgspec.to_builtins(SqlFailure(error=SqlFailureDetail(code, message, details), took=took))
    return msgspec.json.encode({**body, **more})


def _sql_error(error: SqlError, exchange: Exchange) -> bytes:
    return encode_error(error, exchange.took_ms)


def _topic_error(error: SqlError) -> bytes:
    body: dict[str, object] = {"error": error.message, "code": _TOPIC_CODES.get(error.code, error.code)}
    if isinstance(error, OffsetNotRetained):
        body |= {"partition_id": error.partition, "first_offset": error.first, "next_offset": error.following}
    return msgspec.json.encode(body)


def _http_error(error: HttpError, exchange: Exchange) -> Answer:
    headers = _headers(error.headers)
    if error.sql_shape:
        return error.status, headers, sql_failure(error.code, error.message, exchange.took_ms, **error.fields)
    return error.status, headers, _flat(error.code, error.message, error.fields)


def _internal_error(exchange: Exchange) -> bytes:
    path = exchange.scope["path"]
    fields: dict[str, object] = {"request_id": exchange.request_id}
    message = "The server met an unexpected error; its log tells more under this request id."
    if path.startswith(_AUTH_PREFIX):
        return _flat("internal_error", message, fields)
    if path.startswith(TOPICS_PREFIX):
        return msgspec.json.encode({"error": message, "code": "INTERNAL_ERROR", **fields})
    if path.startswith(_API_PREFIX):
        return sql_failure("INTERNAL_ERROR", message, exchange.took_ms, **fields)
    return _flat("INTERNAL_ERROR", message, fields)


def _flat(code: str, message: str, fields: dict[str, object]) -> bytes:
    return msgspec.json.encode({"error": code, "message": message, **fields})


def _headers(more: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [JSON, *((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in more.items())]


def _retry_later(status: int) -> list[tuple[bytes, bytes]]:
    return [JSON, (b"retry-after", b"1")] if status == 503 else [JSON]
