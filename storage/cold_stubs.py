"""Stubs: what `rows` holds of a cold batch, whose columns lie in a row group of a Parquet file.

A stub stands under the key that the batch had (table, partition, first `_seq`) and begins with the same header as a
hot batch (`storage.batches`), with the flag COLD. So `dead`, `keys` and `commits` refer to its rows as before.

Byte layout behind the header (little-endian)
---------------------------------------------

    32  u64  segment id
    40  u32  row group
    44  u32  length of the statistics
    48  u64  bytes of the decoded batch
    56  ...  unless the `_seq`s are contiguous: for each row the distance of its `_seq` from the last one (u32; u64 with
             the flag WIDE). The header's offset points here, and is 0 when they are contiguous
    ..  ...  statistics: MessagePack map from column id to `ColumnStats`
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from storage.batches import COLD, HEADER, WIDE, Header, Seqs, checksum, pack_head
from storage.cold_segments import ColumnStats
from storage.errors import StorageCorrupt

_BODY = struct.Struct("<QIIQ")
_SEQS = HEADER.size + _BODY.size

_decode = msgspec.msgpack.Decoder(dict[int, ColumnStats]).decode
_encode = msgspec.msgpack.Encoder().encode


class Stub(NamedTuple):
    """Where the columns of a cold batch lie."""

    segment_id: int
    row_group: int
    nbytes: int


def encode_stub(seqs: Seqs, schema_version: int, stub: Stub, stats: Mapping[int, ColumnStats]) -> bytes:
    """The stored value of a stub."""
    last = int(seqs[-1])
    flags, offset, places = COLD, 0, b""
    if last - int(seqs[0]) + 1 != len(seqs):
        offset = _SEQS
        distances = last - seqs
        if int(distances[0]) >= 1 << 32:
            flags |= WIDE
        places = distances.astype("<u8" if flags & WIDE else "<u4").tobytes()
    numbers = _encode(dict(stats))
    body = b"".join((_BODY.pack(stub.segment_id, stub.row_group, len(numbers), stub.nbytes), places, numbers))
    head = pack_head(flags, schema_version, len(seqs), offset, last)
    return b"".join((head, checksum(head, body).to_bytes(8, "little"), body))


def read_stub(value: memoryview | bytes) -> Stub:
    """Where the columns lie. Raises StorageCorrupt when the value is too short."""
    segment_id, row_group, _, nbytes = _body(value)
    return Stub(segment_id, row_group, nbytes)


def read_stats(value: memoryview | bytes, header: Header) -> dict[int, ColumnStats]:
    """The statistics by column id. Raises StorageCorrupt when they do not decode."""
    width = 0 if not header.seq_offset else 8 if header.flags & WIDE else 4
    start = _SEQS + width * header.rows
    length = _body(value)[2]
    try:
        return _decode(memoryview(value)[start : start + length])
    except msgspec.DecodeError as error:
        raise StorageCorrupt(f"the statistics of a cold batch do not decode: {error}") from None


def _body(value: memoryview | bytes) -> tuple[int, int, int, int]:
    if len(value) < _SEQS:
        raise StorageCorrupt("a stub is shorter than its header")
    found: tuple[int, int, int, int] = _BODY.unpack_from(value, HEADER.size)
    return found
