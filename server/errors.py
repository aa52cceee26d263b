"""Errors of the HTTP layer, beside those of `sql.errors`.

HttpError                    status, code; the JSON body is {"error": code, "message": …, and more fields}
├── BodyTooLarge             BODY_TOO_LARGE 413, with size_bytes and max_bytes
├── TooManyRequests          RATE_LIMIT_EXCEEDED or IP_BANNED 429, with Retry-After
└── AuthError                401, 403 or 500, codes of the bearer rules; on SQL routes rendered in the SQL error shape
ClientGone                   the client closed the connection; there is nobody to answer

`server/middleware/errors.py` turns them, `sql.errors.SqlError` and everything else into answers.
"""

from __future__ import annotations


class HttpError(Exception):
    """An answer other than success. `fields` go into the JSON body, `headers` into the answer.

    With `sql_shape` the body is that of a failed SQL request, otherwise `{"error": code, "message": …}`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        fields: dict[str, object] | None = None,
        headers: dict[str, str] | None = None,
        sql_shape: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fields = fields or {}
        self.headers = headers or {}
        self.sql_shape = sql_shape


class BodyTooLarge(HttpError):
    """The request's body is, or turned out to be, larger than the route takes."""

    def __init__(self, size: int, maximum: int) -> None:
        super().__init__(
            413,
            "BODY_TOO_LARGE",
            "Request body exceeds maximum allowed size",
            fields={"size_bytes": size, "max_bytes": maximum},
        )


class TooManyRequests(HttpError):
    """A rate limit is used up; the client may try again after `retry_after` seconds."""

    def __init__(
        self, message: str, *, code: str = "RATE_LIMIT_EXCEEDED", retry_after: int = 1, sql_shape: bool = False
    ) -> None:
        headers = {"Retry-After": str(retry_after)}
        if code == "RATE_LIMIT_EXCEEDED":
            headers["X-RateLimit-Reset"] = str(retry_after)
        fields: dict[str, object] = {"retry_after_seconds": retry_after}
        super().__init__(429, code, message, fields=fields, headers=headers, sql_shape=sql_shape)


class AuthError(HttpError):
    """The caller is not who the route needs; `AuthError(status, code, message)`. Always in the SQL shape."""

    def __init__(self, status: int, code: str, message: str, *, headers: dict[str, str] | None = None) -> None:
        if headers is None and status == 401:
            headers = {"WWW-Authenticate": 'Bearer realm="headrace"'}
        super().__init__(status, code, message, headers=headers, sql_shape=True)


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""
