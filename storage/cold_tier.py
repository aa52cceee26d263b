"""ColdTier: what the engine offers of its cold tier (`engine.cold`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from storage.catalog import TableDef
from storage.cold_segments import Segment
from storage.snapshots import Snapshot
from storage.storage_definitions import StorageResolver

Progress = Callable[[float, str], None]
"""Called with percent done and a message."""
Check = Callable[[], None]
"""Called between bounded steps; raises to stop the work (what was moved stays moved)."""


class Flushed(NamedTuple):
    """What a flush moved."""

    rows: int
    segments: int
    bytes: int


class Compacted(NamedTuple):
    """What a compaction changed."""

    segments_before: int
    segments_after: int
    rows_removed: int


class ColdTier:
    """Moves rows to Parquet, merges the files, deletes those that nothing needs. Thread-safe; the methods block."""

    resolver: StorageResolver
    """Opens storages; knows only `local` until the SQL room sets its own."""
    tables_moved: list[Callable[[int], None]]
    """Called with a table id after each commit that changed a table's segments, on the thread that moved them."""

    def flush(self, table_id: int, progress: Progress | None = None, check: Check | None = None) -> Flushed:
        """Move all hot rows of a table. Rows written meanwhile stay hot."""
        raise NotImplementedError

    def compact(self, table_id: int, progress: Progress | None = None, check: Check | None = None) -> Compacted:
        """Merge small segments, rewrite those with dead rows or of an older schema version."""
        raise NotImplementedError

    def pending_rows(self, view: Snapshot, table: TableDef) -> int:
        """How many live rows a flush would move."""
        raise NotImplementedError

    def segments(self, view: Snapshot, table_id: int | None = None) -> Iterator[Segment]:
        """The segments of a table, or all: committed ones, then those being written or waiting to be deleted."""
        raise NotImplementedError
