"""The error tree of the storage engine.

StorageError
├── StorageFull            the disk or the map limit is reached; nothing of the mutation was kept
├── StoragePoisoned        a commit met an I/O error; the environment is being reopened
├── StorageCorrupt         a checksum or a structure is wrong; names table and range
├── StorageUnavailable     a storage of cold files is not known, or cannot be reached now
├── ColdMiss               a row group is not in the cache, and the reader may not wait for it (never told to clients)
├── StorageLocked          another process holds the data folder
├── StorageClosed          the engine is shut down or shutting down
├── QueueFull              the writer's queue is at its bound; try again later
├── SnapshotExpired        the snapshot's lease ran out
├── WriteConflict          a row that the mutation replaces was changed by a later commit
├── SchemaChanged          the table's definition is not the one the mutation was planned on
├── DuplicateKey           a primary key or UNIQUE constraint would hold one value twice
├── PublishFailed          a change cannot be made a message of a topic; the write fails with it
├── UnknownTopic           no topic of that name
├── UnknownPartition       the topic has no partition of that number
├── OffsetOutOfRange       an offset is not in the topic's partition (any more); names the first and the next one
├── FileRefused            a FILE cell would refer to a file that was not uploaded for it
└── LogTruncated           the feed was asked for commits that retention removed
"""

from __future__ import annotations

from collections.abc import Callable


class StorageError(Exception):
    """Base of everything the storage engine raises on purpose."""


class StorageFull(StorageError):
    """The disk or the configured map limit is reached."""


class StoragePoisoned(StorageError):
    """A commit met an I/O error; nothing is acknowledged until the environment was reopened."""


class StorageCorrupt(StorageError):
    """A stored value does not match its checksum or its neighbours."""


class StorageUnavailable(StorageError):
    """A storage of cold files is not known or cannot be reached; the message says which."""


class ColdMiss(StorageError):
    """A read by a thread that may not wait met a row group that is not in the cache.

    `load` reads it into the cache; it may take as long as the storage does.
    """

    def __init__(self, load: Callable[[], object]) -> None:
        super().__init__("a row group of the cold tier is not in the cache")
        self.load = load


class StorageLocked(StorageError):
    """Another process holds the data folder; the message says which."""


class StorageClosed(StorageError):
    """The engine is closed or closing."""


class QueueFull(StorageError):
    """The writer's queue is at its bound."""


class SnapshotExpired(StorageError):
    """The snapshot was held longer than its lease."""


class WriteConflict(StorageError):
    """A row that the mutation replaces or deletes is no longer the current version."""


class SchemaChanged(StorageError):
    """The table was altered or dropped after the mutation was planned."""


class FileRefused(StorageError):
    """A FILE cell would get a reference that no upload of the same table and user has made for it."""

    def __init__(self, column: str) -> None:
        super().__init__(f"column '{column}' would refer to a file that was not uploaded for it")
        self.column = column


class LogTruncated(StorageError):
    """The change feed was asked for commits older than the retained log."""


class PublishFailed(StorageError):
    """A source's condition cannot be evaluated for a row that the mutation writes."""


class UnknownTopic(StorageError):
    """The topic does not exist (any more)."""


class UnknownPartition(StorageError):
    """The topic does not have the partition."""


class OffsetOutOfRange(StorageError):
    """An offset lies before the first message that is there, or behind the next one."""

    def __init__(self, message: str, *, partition: int, first: int, following: int) -> None:
        super().__init__(message)
        self.partition = partition
        self.first = first
        self.following = following


class DuplicateKey(StorageError):
    """A unique key would hold one value twice.

    `columns` are the names of the key's columns, `values` the storage values of the offending key,
    `row` the zero-based index of the offending row in its batch, `in_batch` is true when both rows
    came with the same mutation, `index` the name of a unique index, empty for a constraint.
    """

    def __init__(
        self,
        columns: tuple[str, ...],
        values: tuple[object, ...],
        *,
        row: int,
        in_batch: bool,
        primary: bool,
        index: str = "",
    ) -> None:
        super().__init__(f"duplicate key in column(s) {', '.join(columns)}")
        self.columns = columns
        self.values = values
        self.row = row
        self.in_batch = in_batch
        self.primary = primary
        self.index = index
