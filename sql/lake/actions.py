"""Actions of the Delta log: the lines of a commit, and the rows of a checkpoint, by the protocol of Delta Lake."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

MANAGED_FEATURE: Final = "headraceManaged"
"""A feature that no other writer knows, so none writes to our tables; readers need to know reader features only."""
READER_FEATURES: Final = frozenset({"columnMapping", "deletionVectors", "timestampNtz"})
"""What we may ask of readers. A table asks only for what it uses."""


class DeletionVector(msgspec.Struct, frozen=True, rename="camel"):
    """Where the bitmap of a file's dead rows lies."""

    storage_type: str
    path_or_inline_dv: str
    offset: int
    size_in_bytes: int
    cardinality: int


class Add(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A file that is part of the table from this version on. `path` is URI-encoded. Times are milliseconds."""

    path: str
    partition_values: dict[str, str | None]
    size: int
    modification_time: int
    data_change: bool
    stats: str | None = None
    deletion_vector: DeletionVector | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What names a file in the log: its path and its deletion vector."""
        found = self.deletion_vector
        return self.path, "" if found is None else f"{found.storage_type}{found.path_or_inline_dv}@{found.offset}"

    @property
    def shown(self) -> tuple[str, int, tuple[tuple[str, str | None], ...]]:
        """What it shows: dead rows of a file only grow in number, so the number tells them."""
        dead = 0 if self.deletion_vector is None else self.deletion_vector.cardinality
        return self.path, dead, tuple(sorted(self.partition_values.items()))

    def removed(self, now_ms: int) -> Remove:
        """The action that takes it out of the table."""
        return Remove(
            path=self.path,
            deletion_timestamp=now_ms,
            data_change=True,
            extended_file_metadata=True,
            partition_values=self.partition_values,
            size=self.size,
            deletion_vector=self.deletion_vector,
        )


class Remove(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A file that is no part of the table any more."""

    path: str
    deletion_timestamp: int
    data_change: bool
    extended_file_metadata: bool = False
    partition_values: dict[str, str | None] | None = None
    size: int | None = None
    deletion_vector: DeletionVector | None = None

    @property
    def key(self) -> tuple[str, str]:
        """See `Add.key`."""
        found = self.deletion_vector
        return self.path, "" if found is None else f"{found.storage_type}{found.path_or_inline_dv}@{found.offset}"


class Protocol(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a reader and a writer must know."""

    min_reader_version: int
    min_writer_version: int
    reader_features: list[str] | None = None
    writer_features: list[str] | None = None

    @property
    def asked(self) -> frozenset[str]:
        """The features that readers must know."""
        return frozenset(self.reader_features or ())


class Format(msgspec.Struct, frozen=True):
    """The format of the data files."""

    provider: str = "parquet"
    options: dict[str, str] = {}


class MetaData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The table's schema and settings."""

    id: str
    schema_string: str
    partition_columns: list[str] = msgspec.UNSET  # type: ignore[assignment]  # always written
    configuration: dict[str, str] = msgspec.UNSET  # type: ignore[assignment]
    format: Format = msgspec.UNSET  # type: ignore[assignment]
    name: str | None = None
    description: str | None = None
    created_time: int | None = None


class CommitInfo(msgspec.Struct, frozen=True, rename="camel"):
    """Who made the commit; for people."""

    timestamp: int
    operation: str
    operation_parameters: dict[str, str]
    engine_info: str = "Headrace"


class Action(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One line: exactly one of the fields."""

    commit_info: CommitInfo | None = None
    protocol: Protocol | None = None
    meta_data: MetaData | None = None
    add: Add | None = None
    remove: Remove | None = None


class LogState:
    """The table after a version, by replaying actions in order."""

    def __init__(self) -> None:
        self.version = -1
        self.checkpoint = -1
        self.protocol: Protocol | None = None
        self.meta_data: MetaData | None = None
        self.files: dict[tuple[str, str], Add] = {}

    def apply(self, actions: Iterable[Action]) -> None:
        """Replay actions."""
        for action in actions:
            if action.add is not None:
                self.files[action.add.key] = action.add
            elif action.remove is not None:
                self.files.pop(action.remove.key, None)
            elif action.protocol is not None:
                self.protocol = action.protocol
            elif action.meta_data is not None:
                self.meta_data = action.meta_data


def protocol_for(features: frozenset[str]) -> Protocol:
    """The protocol of a table that uses these features of `READER_FEATURES`."""
    writers = [*sorted(features), MANAGED_FEATURE]
    return Protocol(3, 7, sorted(features), writers) if features else Protocol(1, 7, None, writers)


def encode_actions(actions: Iterable[Action]) -> bytes:
    """The bytes of a commit."""
    return msgspec.json.Encoder().encode_lines(list(actions))


def decode_actions(data: bytes) -> list[Action]:
    """The actions of a commit; what we do not know in it is left out. Raises msgspec.DecodeError."""
    return msgspec.json.Decoder(Action).decode_lines(data)
