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

import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from storage.catalog import TableDef
from storage.errors import StorageCorrupt
from storage.layout import TableLayout

_Decoded = TypeVar("_Decoded")


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


class PartitionOutline(msgspec.Struct, array_like=True, frozen=True):
    """Which partition a commit changed."""

    table_id: int
    user: str


class CommitOutline(msgspec.Struct, array_like=True, frozen=True):
    """A commit without its rows: enough to see whether it concerns somebody, at a fraction of the cost."""

    last_seq: int
    timestamp_us: int
    partitions: tuple[PartitionOutline, ...] = ()
    objects: tuple[tuple[str, str], ...] = ()


def encode_commit(record: CommitRecord) -> bytes:
    """The stored value of a commit."""
    data = msgspec.msgpack.encode(record)
    return xxhash.xxh3_64_digest(data)[::-1] + data


def decode_commit(first_seq: int, value: memoryview | bytes) -> CommitRecord:
    """The record of a stored commit. Raises StorageCorrupt when the checksum does not match."""
    return _decode(_RECORDS, first_seq, value)


def outline_commit(first_seq: int, value: memoryview | bytes) -> CommitOutline:
    """The outline of a stored commit. Raises StorageCorrupt when the checksum does not match."""
    return _decode(_OUTLINES, first_seq, value)


def _decode(decoder: msgspec.msgpack.Decoder[_Decoded], first_seq: int, value: memoryview | bytes) -> _Decoded:
    view = memoryview(value)
    data = view[8:]
    if len(view) < 8 or int.from_bytes(view[:8], "little") != xxhash.xxh3_64_intdigest(data):
        raise StorageCorrupt(f"the commit record of _seq {first_seq} does not match its checksum")
    try:
        return decoder.decode(data)
    except msgspec.DecodeError as error:
        raise StorageCorrupt(f"the commit record of _seq {first_seq} does not decode: {error}") from None


_RECORDS = msgspec.msgpack.Decoder(CommitRecord)
_OUTLINES = msgspec.msgpack.Decoder(CommitOutline)


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

Resolver = Callable[["TableChange"], Resolved]


class RingPlace:
    """What one commit takes of the feed's ring, for as long as it stands there."""

    __slots__ = ("in_ring", "nbytes")

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.in_ring = True


class TableChange:
    """What a commit did to one partition of one table. The rows are read when they are asked for, then kept.

    They have the columns that the table has when they are read (a column that was dropped since is not shown). Rows of
    a large change are kept only while somebody uses them.
    """

    __slots__ = ("_loose", "_resolve", "_rows", "batches", "derived", "partition", "place", "record", "table")

    def __init__(
        self,
        table: TableDef,
        record: PartitionRecord,
        resolve: Resolver,
        batches: Written | None = None,
        place: RingPlace | None = None,
    ) -> None:
        self.table = table
        self.partition = record.user
        self.record = record
        self.batches = batches
        """The added rows as they were stored, while they are at hand."""
        self.place = place
        self.derived: object = None
        """What readers made of the rows and share; theirs to set."""
        self._resolve = resolve
        self._rows: Resolved | None = None
        self._loose: tuple[weakref.ref[pa.RecordBatch], weakref.ref[pa.RecordBatch]] | None = None

    @property
    def added_count(self) -> int:
        """How many row versions were added."""
        flat = self.record.added
        return sum(flat[1::2]) - sum(flat[::2]) + len(flat) // 2

    @property
    def removed_count(self) -> int:
        """How many row versions were superseded."""
        return len(self.record.old) // 8

    @property
    def reads_storage(self) -> bool:
        """Whether asking for the rows opens a snapshot."""
        return self._kept() is None and (self.batches is None or bool(self.record.old))

    def added(self) -> pa.RecordBatch:
        """Rows added: `_seq`, then the user columns (and `_row_id` before them, for tables without primary key)."""
        return self.rows().added

    def removed(self) -> pa.RecordBatch:
        """Rows superseded, as they were: the columns of `added`, then `_by`."""
        return self.rows().removed

    def rows(self) -> Resolved:
        """Both. Raises LogTruncated when they are gone."""
        return self._kept() or self._resolve(self)

    def keep(self, rows: Resolved, *, loosely: bool = False) -> None:
        """Keep the rows; `loosely`, only as long as others do."""
        if loosely:
            self._loose = weakref.ref(rows.added), weakref.ref(rows.removed)
        else:
            self._rows = rows
            self.batches = None

    def _kept(self) -> Resolved | None:
        if self._rows is None and self._loose is not None:
            added, removed = (reference() for reference in self._loose)
            return None if added is None or removed is None else Resolved(added, removed)
        return self._rows


class ChangeSet:
    """One commit, as every reader of the feed sees it."""

    __slots__ = ("first_seq", "last_seq", "objects", "tables", "timestamp_us")

    def __init__(
        self,
        first_seq: int,
        last_seq: int,
        timestamp_us: int,
        tables: list[TableChange],
        objects: list[tuple[str, str]],
    ) -> None:
        self.first_seq = first_seq
        self.last_seq = last_seq
        self.timestamp_us = timestamp_us
        self.tables = tables
        self.objects = objects

    def __repr__(self) -> str:
        return f"ChangeSet({self.first_seq}..{self.last_seq}, {len(self.tables)} partitions)"
