"""The bodies of HTTP answers, and the exception that an answer stands for."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx
import msgspec

from headrace._exceptions import SQL_ERRORS, InvalidAnswer, ResponseError, SqlError, response_error_type

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
    """Both shapes of an error: `error` is an object on the SQL and ingest routes, the code itself elsewhere."""

    error: _ErrorDetail | str
    message: str = ""
    code: str = ""


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


def request_id(response: httpx.Response) -> str | None:
    """The name of the request in the server's log."""
    name: str | None = response.headers.get("X-Request-ID")
    return name


def retry_after(response: httpx.Response) -> float | None:
    """Seconds of the `Retry-After` header, written as a number or as a date; None without one."""
    written = response.headers.get("Retry-After", "")
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
    status, name = response.status_code, request_id(response)
    try:
        body = msgspec.json.decode(response.content, type=_ErrorBody)
    except msgspec.MsgspecError:
        message = f"{response.request.url} answered {status} {response.reason_phrase}"
        return response_error_type(status)(message, status=status, request_id=name, retry_after=retry_after(response))
    detail = body.error if isinstance(body.error, _ErrorDetail) else _ErrorDetail(body.error, body.message)
    kind = SQL_ERRORS.get(detail.code)
    if kind is None and detail.line is not None:
        kind = SqlError  # bad rows of an ingest
    if kind is None or not isinstance(body.error, _ErrorDetail):
        return response_error_type(status)(
            detail.message, code=detail.code, status=status, request_id=name, retry_after=retry_after(response)
        )
    return kind(
        detail.message,
        code=detail.code,
        status=status,
        request_id=name,
        details=detail.details if isinstance(detail.details, str) else None,
        line=detail.line,
        column=detail.column,
        statement=detail.statement,
        applied=detail.applied,
    )
