"""The value format of `rows` and `history`: a header and one Arrow record batch, read in place.

Byte layout (little-endian)
---------------------------

    0   u16  layout version (1)
    2   u16  flags (0; a stub of a cold batch has others: `storage.cold_stubs`)
    4   u32  schema version: which columns the batch holds
    8   u32  row count, 1 .. 65,536
    12  u32  offset of the `_seq` values, from the start of the header
    16  u64  last `_seq`
    24  u64  xxh3-64 of everything before this field and everything after the header
    32  ...  the IPC message of one record batch, without its schema

The schema is not repeated in every value: `storage.layout` derives it from the table's schema version. `_seq` is
the first field and never null, so its values are the first buffer of the message's body; the header says where,
and a search for a row needs no Arrow at all.

Reading in place
----------------

LMDB gives a pointer into its map. Values larger than a page lie on overflow pages, 16 bytes after a page's
start, so the message begins on a multiple of 16 and Arrow reads it where it is. Small values sit among others at
even addresses only; those are copied first, because Arrow and what consumes its arrays may use aligned loads.

Arrow arrays that point into the map carry an *owner*: an object that lives as long as any of them does. The
owner of a snapshot keeps the snapshot's pages (see `storage.snapshots`), so a forgotten array cannot see a
page change under it.

Invariants
----------

- `_seq` ascends strictly inside a batch; the first is in the key, the last in the header.
- A batch is never changed in place; merging replaces it.
- The checksum is verified when a batch is read for the first time (`storage.memory` remembers which were), and by the
  check command. A mismatch raises StorageCorrupt with the table and the range.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from storage.errors import StorageCorrupt

HEADER = struct.Struct("<HHIIIQQ")
LAYOUT_VERSION = 1
MAX_ROWS = 65_536
COLD = 1
"""Flag of a stub: the columns lie in Parquet."""
WIDE = 2
"""Flag of a stub whose `_seq`s are stored as distances of 8 bytes."""
_CHECKED = struct.Struct("<HHIIIQ")
_U32 = struct.Struct("<I")

Seqs = npt.NDArray[np.int64]


class Header(NamedTuple):
    """The fields of the header, in order."""

    layout: int
    flags: int
    schema_version: int
    rows: int
    seq_offset: int
    last_seq: int
    checksum: int

    @property
    def cold(self) -> bool:
        """Whether the value is a stub."""
        return self.flags != 0


def encode_batch(batch: pa.RecordBatch, schema_version: int, last_seq: int) -> bytes:
    """The stored value of a batch whose first column is `_seq`."""
    message = memoryview(batch.serialize())
    seq_offset = HEADER.size + 8 + _U32.unpack_from(message, 4)[0]
    head = pack_head(0, schema_version, batch.num_rows, seq_offset, last_seq)
    return b"".join((head, checksum(head, message).to_bytes(8, "little"), message))


def checksum(head: bytes | memoryview, message: bytes | memoryview) -> int:
    """xxh3-64 over the header up to the checksum and the message."""
    state = xxhash.xxh3_64(head)
    state.update(message)
    return state.intdigest()


def read_header(value: memoryview | bytes) -> Header:
    """The header of a stored value. Raises StorageCorrupt when it cannot be one."""
    if len(value) < HEADER.size:
        raise StorageCorrupt("a batch is shorter than its header")
    header = Header._make(HEADER.unpack_from(value))
    if header.flags:
        return _stub_header(value, header)
    if header.layout != LAYOUT_VERSION or header.seq_offset + 8 * header.rows > len(value) or not header.rows:
        raise StorageCorrupt(f"a batch has an impossible header ({header})")
    return header


def _stub_header(value: memoryview | bytes, header: Header) -> Header:
    width = 0 if not header.seq_offset else 8 if header.flags & WIDE else 4
    if (
        header.layout != LAYOUT_VERSION
        or header.flags & ~WIDE != COLD
        or header.seq_offset + width * header.rows > len(value)
        or not header.rows
    ):
        raise StorageCorrupt(f"a batch has an impossible header ({header})")
    return header


def pack_head(flags: int, schema_version: int, rows: int, seq_offset: int, last_seq: int) -> bytes:
    """The fields of a header up to the checksum."""
    return _CHECKED.pack(LAYOUT_VERSION, flags, schema_version, rows, seq_offset, last_seq)


def verify(value: memoryview | bytes, header: Header) -> bool:
    """Whether the checksum matches."""
    view = memoryview(value)
    return checksum(view[: _CHECKED.size], view[HEADER.size :]) == header.checksum


def seqs_of(value: memoryview | bytes, header: Header) -> Seqs:
    """The `_seq` values, in place where they are stored as such."""
    if header.flags:
        if not header.seq_offset:
            return np.arange(header.last_seq - header.rows + 1, header.last_seq + 1, dtype=np.int64)
        width = "<u8" if header.flags & WIDE else "<u4"
        distances = np.frombuffer(value, width, header.rows, header.seq_offset)
        return header.last_seq - distances.astype(np.int64)
    return np.frombuffer(value, "<i8", header.rows, header.seq_offset)


def row_position(value: memoryview | bytes, header: Header, first_seq: int, seq: int) -> int:
    """Where the row with `seq` is in the batch, or -1."""
    if seq > header.last_seq or seq < first_seq:
        return -1
    if header.last_seq - first_seq + 1 == header.rows:
        return seq - first_seq
    seqs = seqs_of(value, header)
    place = int(seqs.searchsorted(seq))
    return place if seqs[place] == seq else -1


def decode_batch(value: memoryview | bytes, schema: pa.Schema, owner: object | None) -> pa.RecordBatch:
    """The record batch of a stored value.

    With an `owner` the batch points into the value and keeps the owner alive, unless the value is not aligned;
    without one it owns a copy of its bytes.
    """
    if owner is None:
        return pa.ipc.read_record_batch(pa.py_buffer(bytes(value)).slice(HEADER.size), schema)
    buffer = pa.py_buffer(value)
    address = buffer.address + HEADER.size
    if address & 7:
        return pa.ipc.read_record_batch(pa.py_buffer(bytes(value[HEADER.size :])), schema)
    return pa.ipc.read_record_batch(pa.foreign_buffer(address, buffer.size - HEADER.size, owner), schema)


def own_row(batch: pa.RecordBatch, position: int) -> pa.RecordBatch:
    """A copy of one row that owns its memory (an IPC round trip is the cheapest way to cut a slice out)."""
    return pa.ipc.read_record_batch(batch.slice(position, 1).serialize(), batch.schema)


def positions_in(seqs: Seqs, wanted: Seqs) -> Seqs:
    """Places in `seqs` of those of `wanted` that are there (both ascending)."""
    low, high = wanted.searchsorted(seqs[0]), wanted.searchsorted(seqs[-1], "right")
    some = wanted[low:high]
    places = seqs.searchsorted(some)
    found: Seqs = places[seqs[places] == some].astype(np.int64)
    return found


def without(batch: pa.RecordBatch, gone: Seqs) -> list[pa.RecordBatch]:
    """A batch without some rows: slices when they are few, a filtered copy when they are many."""
    rows = batch.num_rows
    if len(gone) <= 8:
        pieces, start = [], 0
        for row in sorted(int(row) for row in gone):
            if row > start:
                pieces.append(batch.slice(start, row - start))
            start = row + 1
        if start < rows:
            pieces.append(batch.slice(start, rows - start))
        return pieces
    mask = np.ones(rows, dtype=bool)
    mask[gone] = False
    return [batch.filter(pa.array(mask))]
