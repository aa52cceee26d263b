"""What can go wrong, as exceptions that can be caught apart.

HeadraceError                    code, status and request_id of the answer, where there was one
├── ClientClosed                 the client was closed before or during the call
├── ConnectionFailed             no answer: nobody listens, the connection was cut, TLS failed
│   └── RequestTimedOut          no answer in time
├── InvalidAnswer                an answer that is not of the protocol
├── ClaimLost                    an acknowledgement of a message that was given back to its group
├── DigestMismatch               a downloaded file is not the one that its FileRef names
├── UnexpectedRows               `Result.one()` or `scalar()` of a result that has another shape
├── ResponseError                the server answered with an error
│   ├── AuthenticationFailed     401, 428: wrong password, a token that ended, a locked account, no set-up yet
│   ├── PermissionDenied         403: the role may not do this, or not from here
│   ├── RateLimited              429: too many requests; `retry_after` seconds
│   ├── Unavailable              503: overloaded, stopping, or storage is being opened anew; `retry_after` if known
│   ├── ServerFault              other 5xx: a defect (its log has the request id), or a full disk (507)
│   ├── RequestRefused           other 4xx: a body too large, an unknown route, rows that cannot be ingested
│   │   ├── TopicNotFound        NOT_FOUND of a topic
│   │   ├── OffsetOutOfRange     OFFSET_OUT_OF_RANGE; first_offset, next_offset and partition
│   │   ├── MessageTooLarge      MESSAGE_TOO_LARGE
│   │   └── FileNotFound         404 of a download: no such file, or no row any more that refers to it
│   └── SqlError                 line, column, details, statement and applied
│       ├── InvalidSql           INVALID_SQL, EMPTY_SQL, BATCH_PARSE_ERROR
│       ├── InvalidParameter     INVALID_PARAMETER
│       ├── UnsupportedSql       UNSUPPORTED
│       ├── TableNotFound        TABLE_NOT_FOUND
│       ├── ExecutionFailed      SQL_EXECUTION_ERROR: a constraint, a conversion, a division
│       ├── LimitExceeded        RESULT_TOO_LARGE, MEMORY_LIMIT_EXCEEDED
│       ├── QueryTimedOut        QUERY_TIMEOUT
│       ├── TransactionConflict  TRANSACTION_CONFLICT
│       └── FileRefused          FILE_TOO_LARGE, TOO_MANY_FILES, INVALID_MIME_TYPE, MISSING_FILE, EXTRA_FILE
└── LiveError                    a live query was refused or has ended; `code` as on the socket
    └── SubscriptionLimitExceeded  too many live queries of this user or connection
"""

from __future__ import annotations


class HeadraceError(Exception):
    """Base of all. `code` is the server's stable code, `status` the HTTP status, `request_id` names it in the log."""

    def __init__(
        self, message: str, *, code: str = "", status: int | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.request_id = request_id

    def __str__(self) -> str:
        code = f"{self.code}: " if self.code else ""
        request = f" (request {self.request_id})" if self.request_id and (self.status or 0) >= 500 else ""
        return f"{code}{self.message}{request}"


class ClientClosed(HeadraceError):
    """The client was closed before or during the call."""


class ConnectionFailed(HeadraceError):
    """No answer came. Whether the request took effect is unknown unless the server was never reached."""


class RequestTimedOut(ConnectionFailed):
    """No answer came within the client's `timeout`."""


class InvalidAnswer(HeadraceError):
    """The server, or something in its place, sent what the protocol does not have."""


class ClaimLost(HeadraceError):
    """The message is not this consumer's any more: it was given back to the group, and comes again.

    A connection failed under a poll, or the consumer was closed.
    """


class DigestMismatch(HeadraceError):
    """The bytes of a download are not those that the FileRef names, by their SHA-256 or by their number."""


class UnexpectedRows(HeadraceError):
    """A result does not have exactly the row or column that was asked for."""


class ResponseError(HeadraceError):
    """The server answered with an error."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, code=code, status=status, request_id=request_id)
        self.retry_after = retry_after
        """Seconds after which the server wants to be asked again; None where it does not say."""


class AuthenticationFailed(ResponseError):
    """Nobody is signed in, or the password or token does not count (any more)."""


class PermissionDenied(ResponseError):
    """The account may not do this, or not from this address."""


class RateLimited(ResponseError):
    """Too many requests; nothing was done."""


class Unavailable(ResponseError):
    """The server cannot work on it now; nothing was done."""


class ServerFault(ResponseError):
    """The server failed; its log has the cause under `request_id`."""


class RequestRefused(ResponseError):
    """The request itself is not one that the server takes."""


class TopicNotFound(RequestRefused):
    """There is no such topic."""


class OffsetOutOfRange(RequestRefused):
    """The topic does not have the offset that the group would go on from: retention removed it, or it is yet to come.

    `RESET CONSUMER GROUP` moves the group. `first_offset` is the oldest message that is there, `next_offset` that of
    the next one to be written.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        first_offset: int | None = None,
        next_offset: int | None = None,
        partition: int | None = None,
    ) -> None:
        super().__init__(message, code=code, status=status, request_id=request_id, retry_after=retry_after)
        self.first_offset = first_offset
        self.next_offset = next_offset
        self.partition = partition


class MessageTooLarge(RequestRefused):
    """A message is larger than the server takes; none of the call was produced."""


class FileNotFound(RequestRefused):
    """There is no such file, or no row any more that refers to it and that the caller may read."""


class SqlError(ResponseError):
    """A statement, its parameters or its rows are wrong.

    `line` and `column` count from 1 in the text that was sent; `details` shows the place. `statement` is the number of
    the statement that failed and `applied` how many before it took effect. None where it is not known.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int | None = None,
        request_id: str | None = None,
        details: str | None = None,
        line: int | None = None,
        column: int | None = None,
        statement: int | None = None,
        applied: int | None = None,
    ) -> None:
        super().__init__(message, code=code, status=status, request_id=request_id)
        self.details = details
        self.line = line
        self.column = column
        self.statement = statement
        self.applied = applied

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.details}" if self.details else super().__str__()


class InvalidSql(SqlError):
    """The text is not SQL that the server knows, or names what does not exist."""


class InvalidParameter(SqlError):
    """A parameter is missing, surplus, too large, or does not fit its type."""


class UnsupportedSql(SqlError):
    """A statement or clause that Headrace does not have."""


class TableNotFound(SqlError):
    """There is no such table that the caller may know of."""


class ExecutionFailed(SqlError):
    """A well-formed statement that could not be carried out."""


class LimitExceeded(SqlError):
    """The result or the work is larger than allowed: add LIMIT, or use `stream` or `query_arrow`."""


class QueryTimedOut(SqlError):
    """The server gave the statement up at its time limit."""


class TransactionConflict(SqlError):
    """Others changed the same rows again and again; try once more."""


class FileRefused(SqlError):
    """A file is too large, of a type that is not allowed, missing, or one too many; nothing was stored."""


class LiveError(HeadraceError):
    """A live query was refused, or has ended against the client's will; `code` says why."""


class SubscriptionLimitExceeded(LiveError):
    """The user or the connection has as many live queries as it may."""


SQL_ERRORS: dict[str, type[SqlError]] = {
    "INVALID_SQL": InvalidSql,
    "EMPTY_SQL": InvalidSql,
    "BATCH_PARSE_ERROR": InvalidSql,
    "INVALID_PARAMETER": InvalidParameter,
    "UNSUPPORTED": UnsupportedSql,
    "TABLE_NOT_FOUND": TableNotFound,
    "SQL_EXECUTION_ERROR": ExecutionFailed,
    "RESULT_TOO_LARGE": LimitExceeded,
    "MEMORY_LIMIT_EXCEEDED": LimitExceeded,
    "QUERY_TIMEOUT": QueryTimedOut,
    "TRANSACTION_CONFLICT": TransactionConflict,
    "FILE_TOO_LARGE": FileRefused,
    "TOO_MANY_FILES": FileRefused,
    "INVALID_MIME_TYPE": FileRefused,
    "MISSING_FILE": FileRefused,
    "EXTRA_FILE": FileRefused,
}
"""The exception of each code of an SQL answer."""


REFUSALS: dict[str, type[RequestRefused]] = {
    "OFFSET_OUT_OF_RANGE": OffsetOutOfRange,
    "MESSAGE_TOO_LARGE": MessageTooLarge,
    "FILE_NOT_FOUND": FileNotFound,
}
"""The exception of each code about topics and downloads."""


def response_error_type(status: int) -> type[ResponseError]:
    """The exception of a status whose code says nothing more."""
    if status in {401, 428}:
        return AuthenticationFailed
    if status == 403:
        return PermissionDenied
    if status == 429:
        return RateLimited
    if status == 503:
        return Unavailable
    return ServerFault if status >= 500 else RequestRefused
