"""The bodies of HTTP answers, and the exception that an answer stands for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeVar

import httpx
import msgspec

from headrace._exceptions import (
    REFUSALS,
    SQL_ERRORS,
    ConnectionFailed,
    FileNotFound,
    InvalidAnswer,
    OffsetOutOfRange,
    ResponseError,
    SqlError,
    TopicNotFound,
    response_error_type,
)

T = TypeVar("T")


class ColumnAnswer(msgspec.Struct):
    """One entry of a `schema`."""

    name: str
    data_type: Any
    index: int = 0
    flags: tuple[str, ...] = ()


class StatementAnswer(msgspec.Struct):
    """One entry of `results`."""

    row_count: int = 0
    schema: list[ColumnAnswer] = []
    rows: list[list[Any]] = []
    message: str | None = None
    as_user: str = ""


class SqlAnswer(msgspec.Struct):
    """The answer of `POST /v1/api/sql`."""

    results: list[StatementAnswer]
    took: float = 0.0


class IngestAnswer(msgspec.Struct):
    """The answer of an ingest."""

    inserted: int


class User(msgspec.Struct, frozen=True):
    """An account, as sign-in and `me()` tell it."""

    id: str
    role: str
    email: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class MeAnswer(msgspec.Struct):
    """The answer of `GET /v1/api/auth/me`."""

    user: User


class TokenAnswer(msgspec.Struct):
    """The answer of login and refresh."""

    user: User
    access_token: str
    expires_at: datetime
    refresh_token: str
    refresh_expires_at: datetime


class _ErrorDetail(msgspec.Struct):
    code: str
    message: str = ""
    details: Any = None
    line: int | None = None
    column: int | None = None
    statement: int | None = None
    applied: int | None = None


class _ErrorBody(msgspec.Struct):
    """All shapes of an error.

    `error` is an object on the SQL and ingest routes; beside a `code` it is a sentence (topics, files), else the code
    itself.
    """

    error: _ErrorDetail | str
    message: str = ""
    code: str = ""
    first_offset: int | None = None
    next_offset: int | None = None
    partition_id: int | None = None

    def detail(self) -> _ErrorDetail:
        """Code and sentence, whatever the shape."""
        if isinstance(self.error, _ErrorDetail):
            return self.error
        return _ErrorDetail(self.code, self.error) if self.code else _ErrorDetail(self.error, self.message)


def parse(response: httpx.Response, kind: type[T]) -> T:
    """The body of a successful answer. Raises InvalidAnswer when it is not what the route answers."""
    try:
        return msgspec.json.decode(response.content, type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidAnswer(
            f"{response.request.url} did not answer as Headrace does: {error}",
            status=response.status_code,
            request_id=request_id(response),
        ) from error


async def rows_of_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[dict[str, Any]]]:
    """The rows of an answer with one JSON object a line, as they come. Raises ConnectionFailed when it was cut."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode_lines
    rest = b""
    async for chunk in chunks:
        lines, end, rest = (rest + chunk).rpartition(b"\n")
        if end:
            yield decode(lines)
    if rest:
        # A whole answer ends with a line break.
        raise ConnectionFailed("the answer ended before its end; the server's log says why")


def request_id(response: httpx.Response) -> str | None:
    """The name of the request in the server's log."""
    name: str | None = response.headers.get("X-Request-ID")
    return name


def retry_after_seconds(written: str) -> float | None:
    """Seconds of a `Retry-After` header, written as a number or as a date; None where it is neither."""
    try:
        return max(0.0, float(written))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(written) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def error_of(response: httpx.Response) -> ResponseError:
    """The exception that an answer other than success stands for; its body has been read."""
    status = response.status_code
    more: dict[str, Any] = {"status": status, "request_id": request_id(response)}
    retry_after = retry_after_seconds(response.headers.get("Retry-After", ""))
    try:
        body = msgspec.json.decode(response.content, type=_ErrorBody)
    except msgspec.MsgspecError:
        message = f"{response.request.url} answered {status} {response.reason_phrase}"
        return _refusal_type(response, "", "")(message, retry_after=retry_after, **more)
    detail = body.detail()
    more["code"] = detail.code
    kind = SQL_ERRORS.get(detail.code)
    if kind is None and detail.line is not None:
        kind = SqlError  # bad rows of an ingest
    if kind is not None and isinstance(body.error, _ErrorDetail):
        return kind(
            detail.message,
            details=detail.details if isinstance(detail.details, str) else None,
            line=detail.line,
            column=detail.column,
            statement=detail.statement,
            applied=detail.applied,
            **more,
        )
    refusal = _refusal_type(response, detail.code, body.code)
    if refusal is OffsetOutOfRange:
        more |= {"first_offset": body.first_offset, "next_offset": body.next_offset, "partition": body.partition_id}
    return refusal(detail.message, retry_after=retry_after, **more)


def _refusal_type(response: httpx.Response, code: str, own_code: str) -> type[ResponseError]:
    """The exception of an answer that is not about a statement: by its code, its route, its status.

    `own_code` is the code if it stood beside a sentence: then the route gave it, and there is such a route.
    """
    path = response.request.url.path
    if code in REFUSALS:
        return REFUSALS[code]
    if response.status_code == HTTPStatus.NOT_FOUND and "/v1/files/" in path:
        return FileNotFound
    if own_code == "NOT_FOUND" and "/v1/api/topics/" in path:
        return TopicNotFound
    return response_error_type(response.status_code)
