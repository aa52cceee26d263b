"""From an error to the `code` and `message` that a client of live queries gets.

=====================================  ===================================================================
error                                  code
=====================================  ===================================================================
TableNotFound                          NOT_FOUND
PermissionDenied                       UNAUTHORIZED
InvalidSql, BatchParseError, EmptySql  INVALID_SQL
ExecutionError                         SUBSCRIPTION_FAILED; once rows are on their way, CONVERSION_ERROR
other SqlErrors                        their own
StorageError, MemoryError              those of the SqlError which they mean
anything else                          SUBSCRIPTION_FAILED; the traceback goes to the log only
=====================================  ===================================================================
"""

from __future__ import annotations

import enum
import logging
from typing import NamedTuple

from sql.errors import ExecutionError, MemoryLimitExceeded, SqlError
from sql.storage_errors import translated
from storage.errors import StorageError

_log = logging.getLogger(__name__)

_LONGEST_MESSAGE = 2_000


class Code(enum.StrEnum):
    """Codes of `error` messages that are not those of an SqlError."""

    AUTH_REQUIRED = "AUTH_REQUIRED"
    INVALID_SUBSCRIPTION_ID = "INVALID_SUBSCRIPTION_ID"
    SUBSCRIPTION_LIMIT_EXCEEDED = "SUBSCRIPTION_LIMIT_EXCEEDED"
    UNAUTHORIZED = "UNAUTHORIZED"
    NOT_FOUND = "NOT_FOUND"
    INVALID_SQL = "INVALID_SQL"
    UNSUPPORTED = "UNSUPPORTED"
    INVALID_OPTION = "INVALID_OPTION"
    SUBSCRIPTION_FAILED = "SUBSCRIPTION_FAILED"
    CONVERSION_ERROR = "CONVERSION_ERROR"
    BATCH_FETCH_FAILED = "BATCH_FETCH_FAILED"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
    UNSUPPORTED_DATA = "UNSUPPORTED_DATA"
    RESUME_TOO_OLD = "RESUME_TOO_OLD"
    SLOW_CONSUMER = "SLOW_CONSUMER"


_CODES = {
    "TABLE_NOT_FOUND": Code.NOT_FOUND,
    "PERMISSION_DENIED": Code.UNAUTHORIZED,
    "BATCH_PARSE_ERROR": Code.INVALID_SQL,
    "EMPTY_SQL": Code.INVALID_SQL,
}


class Told(NamedTuple):
    """What the client is told."""

    code: str
    message: str


def told(error: Exception, *, started: bool) -> Told:
    """What a client is told of an error; `started`: rows of the subscription were sent or are on their way."""
    if isinstance(error, StorageError):
        error = translated(error)
    elif isinstance(error, MemoryError):
        error = MemoryLimitExceeded("The live query needs more memory than the server has left.")
    if not isinstance(error, SqlError):
        _log.error("unexpected error in a live query", exc_info=error)
        return Told(Code.SUBSCRIPTION_FAILED, "The live query met an unexpected error of the server")
    code: str = _CODES.get(error.code, error.code)
    if type(error) is ExecutionError or error.code == ExecutionError.code:
        code = Code.CONVERSION_ERROR if started else Code.SUBSCRIPTION_FAILED
    message = error.message if len(error.message) <= _LONGEST_MESSAGE else f"{error.message[:_LONGEST_MESSAGE]} …"
    if error.line is not None and error.column is not None:
        message = f"{message} (line {error.line}, column {error.column})"
    return Told(code, message)
