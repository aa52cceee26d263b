"""Commits as the log keeps them (by reference) and as readers of the feed see them (ChangeSets).

Byte layout of a commit record
------------------------------

Key: the commit's first `_seq`, u64 big-endian. Value: xxh3-64 of the rest (u64, little-endian), then a MessagePack
array:

    [last_seq, timestamp_us, [partition, ...], [[kind, name], ...]]
    partition = [table_id, user, schema_version, [first, last, first, last, ...], old, by]

`first, last` pairs are the ranges of `_seq` that the commit added to the partition, ascending; `old` and `by` are
packed little-endian int64: the rows that it superseded and the `_seq` that did it. A `by` inside an added range is a
replacement, any other a delete. The last list names the catalog objects that were put or deleted.

The record refers to rows; it does not copy them. An added row is in `rows`, or in `history` once it was superseded and
merging moved it. Rows that retention no longer covers are gone, and so are the rows of dropped tables: their changes
are left out when the log is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from storage.catalog import TableDef
from storage.errors import StorageCorrupt
from storage.layout import TableLayout


class PartitionRecord(msgspec.Struct, array_like=True, frozen=True):
    """What a commit did to one partition, by reference."""

    table_id: int
    user: str
    schema_version: int
    added: tuple[int, ...]
    old: bytes
    by: bytes

    def ranges(self) -> list[tuple[int, int]]:
        """The added `_seq` ranges."""
        return list(zip(self.added[::2], self.added[1::2], strict=True))

    def superseded(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The superseded `_seq`s (ascending) and those that superseded them."""
        return np.frombuffer(self.old, "<i8"), np.frombuffer(self.by, "<i8")


class CommitRecord(msgspec.Struct, array_like=True, frozen=True):
    """A commit; its first `_seq` is its key."""

    last_seq: int
    timestamp_us: int
    partitions: tuple[PartitionRecord, ...] = ()
    objects: tuple[tuple[str, str], ...] = ()


def encode_commit(record: CommitRecord) -> bytes:
    """The stored value of a commit."""
    data = msgspec.msgpack.encode(record)
    return xxhash.xxh3_64_digest(data)[::-1] + data


def decode_commit(first_seq: int, value: memoryview | bytes) -> CommitRecord:
    """The record of a stored commit. Raises StorageCorrupt when the checksum does not match."""
    data = bytes(value)
    if len(data) < 8 or int.from_bytes(data[:8], "little") != xxhash.xxh3_64_intdigest(data[8:]):
        raise StorageCorrupt(f"the commit record of _seq {first_seq} does not match its checksum")
    try:
        return msgspec.msgpack.decode(memoryview(data)[8:], type=CommitRecord)
    except msgspec.DecodeError as error:
        raise StorageCorrupt(f"the commit record of _seq {first_seq} does not decode: {error}") from None


def compress(seqs: Sequence[int]) -> list[int]:
    """Ascending integers as flat (first, last) pairs."""
    if not len(seqs):
        return []
    if seqs[-1] - seqs[0] + 1 == len(seqs):
        return [seqs[0], seqs[-1]]
    values = np.asarray(seqs, dtype=np.int64)
    breaks = np.flatnonzero(np.diff(values) != 1)
    firsts = values[np.concatenate(([0], breaks + 1))]
    lasts = values[np.concatenate((breaks, [len(values) - 1]))]
    flat: list[int] = np.column_stack((firsts, lasts)).ravel().tolist()
    return flat


class Resolved(NamedTuple):
    """The rows of one partition's change; `removed` ends in `_by`."""

    added: pa.RecordBatch
    removed: pa.RecordBatch


Written = Sequence[tuple[TableLayout, pa.RecordBatch]]
"""Batches as they were stored, with the layouts that they were written under."""

Resolver = Callable[[TableDef, PartitionRecord, Written | None], Resolved]


class TableChange:
    """What a commit did to one partition of one table. The rows are read when they are asked for, then kept.

    They have the columns that the table has when they are read (a column that was dropped since is not shown).
    """

    def __init__(
        self,
        table: TableDef,
        record: PartitionRecord,
        resolve: Resolver,
        batches: Written | None = None,
    ) -> None:
        self.table = table
        self.partition = record.user
        self.record = record
        self._resolve = resolve
        self._batches = batches
        self._rows: Resolved | None = None

    @property
    def added_count(self) -> int:
        """How many row versions were added."""
        return sum(last - first + 1 for first, last in self.record.ranges())

    @property
    def removed_count(self) -> int:
        """How many row versions were superseded."""
        return len(self.record.old) // 8

    def added(self) -> pa.RecordBatch:
        """Rows added: `_seq`, then the user columns (and `_row_id` before them, for tables without primary key)."""
        return self._read().added

    def removed(self) -> pa.RecordBatch:
        """Rows superseded, as they were: the columns of `added`, then `_by`."""
        return self._read().removed

    def _read(self) -> Resolved:
        if self._rows is None:
            self._rows = self._resolve(self.table, self.record, self._batches)
            self._batches = None
        return self._rows


class ChangeSet:
    """One commit, as every reader of the feed sees it."""

    __slots__ = ("first_seq", "last_seq", "nbytes", "objects", "tables", "timestamp_us")

    def __init__(
        self,
        first_seq: int,
        last_seq: int,
        timestamp_us: int,
        tables: list[TableChange],
        objects: list[tuple[str, str]],
        nbytes: int = 0,
    ) -> None:
        self.first_seq = first_seq
        self.last_seq = last_seq
        self.timestamp_us = timestamp_us
        self.tables = tables
        self.objects = objects
        self.nbytes = nbytes

    def __repr__(self) -> str:
        return f"ChangeSet({self.first_seq}..{self.last_seq}, {len(self.tables)} partitions)"
