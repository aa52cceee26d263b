"""Removing the entries of dropped indexes, in slices that run alone in the writer."""

from __future__ import annotations

import msgspec

from storage.key_layout import partition_end
from storage.keys import index_key_prefix, prefix_end, table_prefix
from storage.snapshots import Snapshot
from storage.submission import SubmitExclusive
from storage.writer import WriteTransaction

DROPPED_INDEX = "_dropped_index"
"""The object kind of indexes whose entries wait to be removed."""
SLICE_ENTRIES = 20_000
SLICE_PARTITIONS = 20_000


class DroppedIndex(msgspec.Struct, frozen=True):
    """An index without a definition. Its entries in partitions before `partition` are removed."""

    table_id: int
    index_id: int
    partition: bytes = b""


def index_object(table_id: int, index_id: int) -> str:
    """The name of an index's objects: table and index id as digits."""
    return f"{table_id:010d}.{index_id:05d}"


def dropped_indexes(view: Snapshot) -> list[DroppedIndex]:
    """The indexes whose entries wait to be removed."""
    return list(view.list_objects(DROPPED_INDEX, DroppedIndex))


def remove_entries(submit: SubmitExclusive, dropped: DroppedIndex) -> None:
    """Remove all entries of a dropped index. Blocks."""
    left: DroppedIndex | None = dropped
    while left is not None:
        left = submit(lambda wtxn, left=left: _remove_slice(wtxn, left)).result()  # type: ignore[misc]


def _remove_slice(wtxn: WriteTransaction, dropped: DroppedIndex) -> DroppedIndex | None:
    """Remove a slice; what is left, or None at the end."""
    table = table_prefix(dropped.table_id)
    wtxn.flusher.touched = True
    entries, partitions = SLICE_ENTRIES, SLICE_PARTITIONS
    name = index_object(dropped.table_id, dropped.index_id)
    with wtxn.txn.cursor(db=wtxn.dbs.keys) as cursor:
        at: bytes | None = table + dropped.partition
        while at is not None and cursor.set_range(at):
            key = bytes(cursor.key())
            if not key.startswith(table):
                break
            partition = key[4 : partition_end(key, 4)]
            prefix = index_key_prefix(dropped.table_id, partition, dropped.index_id)
            more = cursor.set_range(prefix)
            while more and bytes(cursor.key()).startswith(prefix) and entries:
                more = cursor.delete()
                entries -= 1
            left = None if entries else partition
            at = prefix_end(table + partition)
            partitions -= 1
            if left is None and not partitions and at is not None and at.startswith(table):
                left = at[len(table) :]
            if left is not None:
                rest = DroppedIndex(dropped.table_id, dropped.index_id, left)
                wtxn.put_object(DROPPED_INDEX, name, rest)
                return rest
    wtxn.delete_object(DROPPED_INDEX, name)
    return None
