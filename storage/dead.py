"""The value format of `dead`: which rows of a batch a later commit superseded, and by which `_seq`.

Byte layout
-----------

Key: the batch's key in `rows`, then a chunk number (u16, big-endian). Value (little-endian):

    0   u64  xxh3-64 of the rest
    8   ...  entries of 10 bytes: row (u16) in the batch, `_seq` (u64) of the change that superseded it

A batch without chunks is all live. The entries of one batch are spread over chunks of at most CHUNK entries, and only
the newest chunk is ever rewritten: a commit that kills one row of a batch with 30,000 dead ones writes a
few kilobytes, not all of them. Merging a batch away deletes its chunks.

Invariants: rows lie inside the batch, no row stands twice, the superseding `_seq` is greater than the row's own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from storage.errors import StorageCorrupt

ENTRY = np.dtype([("row", "<u2"), ("seq", "<u8")])
CHUNK = 384
_SUM = struct.Struct("<Q")
_NUMBER = struct.Struct(">H")

Entries = npt.NDArray[Any]
EMPTY: Entries = np.empty(0, ENTRY)


def chunk_key(batch_key: bytes, number: int) -> bytes:
    """Key of a chunk."""
    return batch_key + _NUMBER.pack(number)


def chunk_number(key: bytes) -> int:
    """The chunk number at the end of a `dead` key."""
    number: int = _NUMBER.unpack_from(key, len(key) - 2)[0]
    return number


def make_entries(rows: Iterable[int], seqs: Iterable[int]) -> Entries:
    """Entries from parallel sequences."""
    rows, seqs = list(rows), list(seqs)
    entries = np.empty(len(rows), ENTRY)
    entries["row"] = rows
    entries["seq"] = seqs
    return entries


def encode_dead(entries: Entries) -> bytes:
    """The stored value of a chunk."""
    data = entries.tobytes()
    return _SUM.pack(xxhash.xxh3_64_intdigest(data)) + data


def count_dead(value: memoryview | bytes) -> int:
    """How many entries a chunk holds, from its length alone."""
    return (len(value) - _SUM.size) // ENTRY.itemsize


def decode_dead(value: memoryview | bytes) -> Entries:
    """The entries of a chunk; they own their memory. Raises StorageCorrupt on a checksum mismatch."""
    data = bytes(value)
    if len(data) < _SUM.size or (len(data) - _SUM.size) % ENTRY.itemsize:
        raise StorageCorrupt("an entry of dead rows has an impossible length")
    if _SUM.unpack_from(data)[0] != xxhash.xxh3_64_intdigest(memoryview(data)[_SUM.size :]):
        raise StorageCorrupt("an entry of dead rows does not match its checksum")
    return np.frombuffer(data, ENTRY, offset=_SUM.size)


def split_chunks(entries: Entries) -> list[Entries]:
    """Entries in pieces of at most CHUNK."""
    return [entries[start : start + CHUNK] for start in range(0, len(entries), CHUNK)]
