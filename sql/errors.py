"""The error tree of the SQL layer; each error carries its wire code and HTTP status.

SqlError                     code, status
├── InvalidSql               INVALID_SQL 400, with line and column where known
├── BatchParseError          BATCH_PARSE_ERROR 400 (unterminated quote or comment)
├── EmptySql                 EMPTY_SQL 400
├── InvalidInput             INVALID_INPUT 400
├── InvalidParameter         INVALID_PARAMETER 400
├── ExecutionError           SQL_EXECUTION_ERROR 400 (constraints, conversions, DDL preconditions)
├── Unsupported              UNSUPPORTED 400
├── TableNotFound            TABLE_NOT_FOUND 404
├── TopicNotFound            TOPIC_NOT_FOUND 404
├── OffsetNotRetained        OFFSET_OUT_OF_RANGE 410, with partition, first and next offset
├── MessageTooLarge          MESSAGE_TOO_LARGE 413
├── PermissionDenied         PERMISSION_DENIED 403
├── TransactionConflict      TRANSACTION_CONFLICT 409
├── QueryTimeout             QUERY_TIMEOUT 408
├── MemoryLimitExceeded      MEMORY_LIMIT_EXCEEDED 400
├── ResultTooLarge           RESULT_TOO_LARGE 400
├── Overloaded               SERVER_OVERLOADED 503
├── ClusterUnavailable       CLUSTER_UNAVAILABLE 503 (CLUSTER … statements: there is one node)
├── FileTooLarge             FILE_TOO_LARGE 413
├── TooManyFiles             TOO_MANY_FILES 400
├── InvalidMimeType          INVALID_MIME_TYPE 415
├── MissingFile              MISSING_FILE 400 (a placeholder without its part)
├── ExtraFile                EXTRA_FILE 400 (a part without its placeholder)
├── DigestMismatch           DIGEST_MISMATCH 400
├── FileNotFound             FILE_NOT_FOUND 404
├── StorageFullError         STORAGE_FULL 507
└── StorageUnavailable       STORAGE_UNAVAILABLE 503 (I/O error, reopening or shutting down)
"""

from __future__ import annotations


class SqlError(Exception):
    """Base of every error that a client may see. `line` and `column` count from 1 in the request's text."""

    code = "SQL_EXECUTION_ERROR"
    status = 400

    def __init__(
        self, message: str, *, line: int | None = None, column: int | None = None, excerpt: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
        self.excerpt = excerpt
        self.statement: int | None = None
        """Number (from 1) of the statement that failed, set by the parser or the session."""
        self.applied: int = 0
        """How many statements before it took effect, set by the session."""


class InvalidSql(SqlError):
    """The text is not SQL that we accept, or names something that does not exist."""

    code = "INVALID_SQL"


class BatchParseError(SqlError):
    """The text cannot be split into statements."""

    code = "BATCH_PARSE_ERROR"


class EmptySql(SqlError):
    """There is no statement in the text."""

    code = "EMPTY_SQL"


class InvalidInput(SqlError):
    """The request itself is malformed."""

    code = "INVALID_INPUT"


class FilesNeeded(InvalidInput):
    """The statement has FILE placeholders, and the request brought no files."""


class InvalidParameter(SqlError):
    """A parameter is missing, surplus, or does not fit its type."""

    code = "INVALID_PARAMETER"


class ExecutionError(SqlError):
    """A well-formed statement that could not be carried out."""


class Unsupported(SqlError):
    """A statement or clause that Headrace does not have (yet)."""

    code = "UNSUPPORTED"


class TableNotFound(SqlError):
    """No such table, or none that the caller may know of."""

    code = "TABLE_NOT_FOUND"
    status = 404


class TopicNotFound(SqlError):
    """No such topic."""

    code = "TOPIC_NOT_FOUND"
    status = 404


class OffsetNotRetained(SqlError):
    """An offset lies before the first message that is there, or behind the next one."""

    code = "OFFSET_OUT_OF_RANGE"
    status = 410

    def __init__(self, message: str, *, partition: int, first: int, following: int) -> None:
        super().__init__(message)
        self.partition = partition
        self.first = first
        self.following = following


class MessageTooLarge(SqlError):
    """A message's payload or key is larger than `topics.max_message_bytes` or `topics.max_key_bytes`."""

    code = "MESSAGE_TOO_LARGE"
    status = 413


class PermissionDenied(SqlError):
    """The role may not do this."""

    code = "PERMISSION_DENIED"
    status = 403


class TransactionConflict(SqlError):
    """Another commit changed a row that the transaction changes; retries were used up."""

    code = "TRANSACTION_CONFLICT"
    status = 409


class QueryTimeout(SqlError):
    """The statement ran longer than the limit."""

    code = "QUERY_TIMEOUT"
    status = 408


class MemoryLimitExceeded(SqlError):
    """The statement needed more memory than the limit."""

    code = "MEMORY_LIMIT_EXCEEDED"


class ProcessMemoryExceeded(MemoryLimitExceeded):
    """The process had no more memory for the statement, whoever has it."""


class ResultTooLarge(SqlError):
    """More result rows than `limits.max_result_rows`."""

    code = "RESULT_TOO_LARGE"


class Overloaded(SqlError):
    """A bounded queue is full."""

    code = "SERVER_OVERLOADED"
    status = 503


class ClusterUnavailable(SqlError):
    """A statement about a cluster; Headrace is a single node by design."""

    code = "CLUSTER_UNAVAILABLE"
    status = 503


class FileTooLarge(SqlError):
    """A file, or all files of a request together, are larger than allowed."""

    code = "FILE_TOO_LARGE"
    status = 413


class TooManyFiles(SqlError):
    """More files than a request may have."""

    code = "TOO_MANY_FILES"


class InvalidMimeType(SqlError):
    """A file is, or says that it is, of a type that is not allowed."""

    code = "INVALID_MIME_TYPE"
    status = 415


class MissingFile(SqlError):
    """A FILE placeholder has no part."""

    code = "MISSING_FILE"


class ExtraFile(SqlError):
    """A part has no FILE placeholder."""

    code = "EXTRA_FILE"


class DigestMismatch(SqlError):
    """A file is not the one whose digest the client sent."""

    code = "DIGEST_MISMATCH"


class FileNotFound(SqlError):
    """No such file, or none that the caller may read."""

    code = "FILE_NOT_FOUND"
    status = 404


class ExportNotFound(SqlError):
    """There is no such export, or not any more."""

    code = "EXPORT_NOT_FOUND"
    status = 404


class StorageFullError(SqlError):
    """The disk or the storage limit is full."""

    code = "STORAGE_FULL"
    status = 507


class StorageUnavailable(SqlError):
    """Storage met an I/O error, is reopening, or is shutting down."""

    code = "STORAGE_UNAVAILABLE"
    status = 503
