"""Segments: the records of the Parquet files of the cold tier, and their keys in `state`.

Two kinds of keys, all integers big-endian:

======  ==============================================  ===============================================================
prefix  key behind the prefix                           value
======  ==============================================  ===============================================================
S       table id (u32), partition, segment id (u64)     `Segment` as MessagePack, committed: stubs in `rows` refer to it
T       table id (u32), partition, segment id (u64)     `Segment` as MessagePack that is being written, or that a
                                                        compaction replaced and whose file waits to be deleted
======  ==============================================  ===============================================================

Segment ids are given once (`next_segment` in `meta`).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from storage.keys import parse_row_key, row_key_prefix, table_prefix

if TYPE_CHECKING:
    from storage.environment import Txn
    from storage.reading import Reader

COMMITTED_PREFIX = b"S"
OTHER_PREFIX = b"T"
NEXT_SEGMENT = b"next_segment"
_U64 = struct.Struct(">Q")

Value = bool | int | float | str | bytes
"""A minimum or maximum as stored: storage values, decimals as text. (msgspec decodes no union of text and bytes.)"""


class SegmentStatus(enum.StrEnum):
    """Only committed segments are read."""

    IN_PROGRESS = "in_progress"
    COMMITTED = "committed"
    TOMBSTONE = "tombstone"


class ColumnStats(msgspec.Struct, frozen=True, array_like=True):
    """Bounds of a column's values (None: not known, or no value that is not NULL) and how many are NULL.

    Bounds of long text and bytes are cut: the lower one may be less than every value, the upper one greater.
    `bounded` says whether the bounds hold; with `bounded` and no bounds, every value is NULL.
    """

    null_count: int
    bounded: bool
    low: Any = None
    high: Any = None


class Segment(msgspec.Struct, frozen=True):
    """One Parquet file. Its row group n is the cold batch whose stub names the segment and n.

    `path` is below the storage's base. `checksum` is the xxh3-64 of the whole file, `footer_checksum` that of its last
    `footer_bytes` bytes. `column_stats` go by column id. Times are microseconds since the epoch.
    """

    segment_id: int
    table_id: int
    user: str
    storage_id: str
    path: str
    status: SegmentStatus
    schema_version: int
    rows: int = 0
    row_groups: int = 0
    bytes: int = 0
    min_seq: int = 0
    max_seq: int = 0
    column_stats: dict[int, ColumnStats] = {}
    created_at: int = 0
    updated_at: int = 0
    checksum: int = 0
    footer_bytes: int = 0
    footer_checksum: int = 0


_decode = msgspec.msgpack.Decoder(Segment).decode
_encode = msgspec.msgpack.Encoder().encode


def segment_key(prefix: bytes, table_id: int, partition: bytes, segment_id: int) -> bytes:
    """The key of a segment's record."""
    return prefix + row_key_prefix(table_id, partition) + _U64.pack(segment_id)


def read_segment(reader: Reader, row_prefix: bytes, segment_id: int) -> Segment | None:
    """The committed segment of a partition (by what its `rows` keys begin with) with that id."""
    key = COMMITTED_PREFIX + row_prefix + _U64.pack(segment_id)
    value = reader.txn.get(key, db=reader.dbs.state)
    return None if value is None else _decode(value)


def segments_of(
    reader: Reader, table_id: int | None = None, *, prefix: bytes = COMMITTED_PREFIX, partition: bytes = b""
) -> Iterator[Segment]:
    """The records of a table (or of one partition of it), or all, by table, partition and id."""
    return (segment for _, segment in segment_items(reader, table_id, prefix=prefix, partition=partition))


def segment_items(
    reader: Reader, table_id: int | None = None, *, prefix: bytes = COMMITTED_PREFIX, partition: bytes = b""
) -> Iterator[tuple[bytes, Segment]]:
    """The records of a table (or of one partition of it), or all, with their keys."""
    wanted = prefix if table_id is None else prefix + table_prefix(table_id) + partition
    cursor = reader.txn.cursor(db=reader.dbs.state)
    if not cursor.set_range(wanted):
        return
    for raw, value in cursor.iternext():
        key = bytes(raw)
        if not key.startswith(wanted):
            return
        yield key, _decode(value)


def count_segments(reader: Reader, table_id: int) -> int:
    """How many committed segments a table has; none is decoded."""
    return sum(1 for _ in segment_keys(reader, table_id))


def segment_keys(reader: Reader, table_id: int) -> Iterator[bytes]:
    """The keys of the committed segments of a table, by partition and id."""
    wanted = COMMITTED_PREFIX + table_prefix(table_id)
    cursor = reader.txn.cursor(db=reader.dbs.state)
    if not cursor.set_range(wanted):
        return
    for raw in cursor.iternext(keys=True, values=False):
        key = bytes(raw)
        if not key.startswith(wanted):
            return
        yield key


def partition_of_key(key: bytes) -> bytes:
    """The partition in the key of a record. Raises ValueError for malformed bytes."""
    return parse_row_key(key[1:])[1]


def segment_id_of_key(key: bytes) -> int:
    """The segment id in the key of a record."""
    found: int = _U64.unpack_from(key, len(key) - _U64.size)[0]
    return found


def put_segment(txn: Txn, reader: Reader, prefix: bytes, partition: bytes, segment: Segment) -> None:
    """Store a record."""
    key = segment_key(prefix, segment.table_id, partition, segment.segment_id)
    txn.put(key, _encode(segment), db=reader.dbs.state)


def delete_segment(txn: Txn, reader: Reader, prefix: bytes, partition: bytes, segment: Segment) -> bool:
    """Delete a record; False when there was none."""
    key = segment_key(prefix, segment.table_id, partition, segment.segment_id)
    return bool(txn.delete(key, db=reader.dbs.state))


def bury_segment(txn: Txn, reader: Reader, partition: bytes, segment: Segment, now_us: int) -> None:
    """Make a committed segment a tombstone: no stub refers to it any more, its file waits to be deleted."""
    delete_segment(txn, reader, COMMITTED_PREFIX, partition, segment)
    gone = msgspec.structs.replace(segment, status=SegmentStatus.TOMBSTONE, updated_at=now_us)
    put_segment(txn, reader, OTHER_PREFIX, partition, gone)
