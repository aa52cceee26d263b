"""Storage errors as the errors that a client sees: the one place where the two trees meet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sql.errors import (
    ExecutionError,
    InvalidInput,
    OffsetNotRetained,
    Overloaded,
    QueryTimeout,
    SqlError,
    StorageFullError,
    StorageUnavailable,
    TopicNotFound,
    TransactionConflict,
)
from sql.violations import duplicate_violation
from storage.catalog import TableDef
from storage.errors import (
    ColdMiss,
    DuplicateKey,
    FileRefused,
    OffsetOutOfRange,
    PublishFailed,
    QueueFull,
    SchemaChanged,
    SnapshotExpired,
    StorageClosed,
    StorageCorrupt,
    StorageError,
    StorageFull,
    StoragePoisoned,
    UnknownPartition,
    UnknownTopic,
    WriteConflict,
)


def translated(error: StorageError, table: TableDef | None = None) -> SqlError:
    """The client's error for a storage error; `table` is the written table, for the names in key violations."""
    if isinstance(error, DuplicateKey):
        if table is not None:
            return duplicate_violation(error, table)
        return ExecutionError(f"Constraint violation: duplicate value in column(s) {', '.join(error.columns)}")
    if isinstance(error, (WriteConflict, SchemaChanged)):
        return TransactionConflict(f"Conflict: another commit came first ({error}); nothing of this was applied.")
    if isinstance(error, UnknownTopic):
        return TopicNotFound(str(error))
    if isinstance(error, UnknownPartition):
        return InvalidInput(str(error))
    if isinstance(error, OffsetOutOfRange):
        return OffsetNotRetained(str(error), partition=error.partition, first=error.first, following=error.following)
    if isinstance(error, PublishFailed):
        return ExecutionError(f"Nothing was written: {error}")
    if isinstance(error, FileRefused):
        return ExecutionError(
            f"Invalid operation: column '{error.column}' is of type FILE: it takes NULL, FILE('part') with an upload, "
            "or the reference that the same row holds in it already"
        )
    if isinstance(error, StorageFull):
        return StorageFullError(f"The storage is full: {error}. Nothing of this request's change was kept.")
    if isinstance(error, QueueFull):
        return Overloaded("Too many writes are waiting; try again in a moment.")
    if isinstance(error, SnapshotExpired):
        return QueryTimeout("The statement held its snapshot longer than the lease and was ended.")
    if isinstance(error, StoragePoisoned):
        return StorageUnavailable(
            "The storage met an I/O error and is being reopened. This change was not acknowledged: it was not applied, "
            "or it was applied wholly; read before you repeat it."
        )
    if isinstance(error, StorageClosed):
        return StorageUnavailable("The server is shutting down.")
    if isinstance(error, StorageCorrupt):
        return StorageUnavailable(f"Stored data is damaged: {error}. Run `headrace check`.")
    return StorageUnavailable(str(error))


@contextmanager
def storage_errors(table: TableDef | None = None) -> Iterator[None]:
    """Raise storage errors as the client's errors, but for a ColdMiss: it has the writer put a work off."""
    try:
        yield
    except ColdMiss:
        raise
    except StorageError as error:
        raise translated(error, table) from error
