"""The storage engine: LMDB environment, Arrow batches, catalog, writer, snapshots and the change feed."""

from __future__ import annotations

from storage.catalog import Catalog, TableDef
from storage.engine import StorageEngine
from storage.options import StorageOptions, StorageStats
from storage.seams import SYSTEM_CLOCK, Clock
from storage.snapshots import Snapshot
from storage.submission import Commit
from storage.transaction import CommitInfo, Transaction
from storage.views import ReadView
from storage.writer import WriteTransaction

__all__ = [
    "SYSTEM_CLOCK",
    "Catalog",
    "Clock",
    "Commit",
    "CommitInfo",
    "ReadView",
    "Snapshot",
    "StorageEngine",
    "StorageOptions",
    "StorageStats",
    "TableDef",
    "Transaction",
    "WriteTransaction",
]
