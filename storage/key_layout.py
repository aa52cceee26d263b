"""Keys of the sub-databases: how table, partition, index, sequence number and object name lie in them.

==============  =================================================================
sub-database    key
==============  =================================================================
rows, dead,     table id (u32) · partition · first `_seq` (u64)
history
keys            table id (u32) · partition · index id (u16, 0 = primary key) · key (· `_seq` in secondary indexes)
catalog         kind · 00 · name (UTF-8), cut like a long key
commits         first `_seq` (u64)
==============  =================================================================

All integers are big-endian. `storage.keys` describes partitions and keys.
"""

from __future__ import annotations

import struct

from storage.key_encoding import (
    cut,
    digest,
    escape,
    unescape,
)

PARTITION_LIMIT = 96
"""Longest partition encoding (terminator included) that is stored whole."""
PARTITION_CUT = 64
"""How many bytes of its encoding a long partition keeps."""

LONGEST_PARTITION = PARTITION_CUT + 1 + 32
"""Length of a long partition: table (4) + partition (97) + index (2) + key (400) fit LMDB's 511 bytes."""

TABLE_BYTES = 4
"""Length of a table id; the partition follows."""

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_LONG_MARK = b"\xff"

SHARED_PARTITION = b"\x00"
"""The partition of SHARED tables: the encoding of ""."""


def partition_key(user: str) -> bytes:
    """The partition of a user id ("" for SHARED tables); no partition is a prefix of another.

    At most 97 bytes. Raises ValueError for text that is not Unicode (lone surrogates).
    """
    encoding = escape(user.encode())
    if len(encoding) <= PARTITION_LIMIT:
        return encoding
    return encoding[:PARTITION_CUT] + _LONG_MARK + digest(encoding)


def parse_partition(partition: bytes) -> str | None:
    """The user id of a partition, or None when it is cut. Raises ValueError for malformed bytes."""
    if len(partition) == LONGEST_PARTITION and partition[PARTITION_CUT] == 0xFF:
        return None
    if len(partition) > PARTITION_LIMIT or partition.find(b"\x00") != len(partition) - 1:
        raise ValueError("malformed partition")
    return unescape(partition[:-1]).decode()


def partition_end(data: bytes, start: int) -> int:
    """Where the partition that begins at `start` ends. Raises ValueError when it does not."""
    mark = start + PARTITION_CUT
    if len(data) >= start + LONGEST_PARTITION and data[mark] == 0xFF and b"\x00" not in data[start:mark]:
        return start + LONGEST_PARTITION
    end = data.find(b"\x00", start, start + PARTITION_LIMIT)
    if end < 0:
        raise ValueError("a key ends inside its partition")
    return end + 1


def table_prefix(table_id: int) -> bytes:
    """What all keys of a table begin with."""
    return _U32.pack(table_id)


def table_id_of(key: bytes) -> int:
    """The table of a key of `rows` or `keys`. Raises ValueError for malformed bytes."""
    if len(key) < TABLE_BYTES:
        raise ValueError("a key ends inside its table id")
    found: int = _U32.unpack_from(key)[0]
    return found


def row_key(table_id: int, partition: bytes, seq: int) -> bytes:
    """Key in `rows`, `dead` and `history` of the batch whose first row has `seq`."""
    return _U32.pack(table_id) + partition + _U64.pack(seq)


def row_key_prefix(table_id: int, partition: bytes) -> bytes:
    """What the `rows` keys of one partition begin with."""
    return _U32.pack(table_id) + partition


def index_key_prefix(table_id: int, partition: bytes, index_id: int) -> bytes:
    """What the `keys` keys of one index of one partition begin with; the encoded key follows."""
    return _U32.pack(table_id) + partition + _U16.pack(index_id)


def parse_row_key(key: bytes) -> tuple[int, bytes, int]:
    """(table id, partition, first seq) of a `rows` key. Raises ValueError for malformed bytes."""
    if len(key) < 4:
        raise ValueError("a key ends inside its table id")
    end = partition_end(key, 4)
    if len(key) != end + 8:
        raise ValueError("a key does not end in a sequence number of 8 bytes")
    return _U32.unpack_from(key)[0], key[4:end], _U64.unpack_from(key, end)[0]


def parse_index_key(key: bytes) -> tuple[int, bytes, int, bytes]:
    """(table id, partition, index id, encoded key) of a `keys` key. Raises ValueError for malformed bytes."""
    if len(key) < 4:
        raise ValueError("a key ends inside its table id")
    end = partition_end(key, 4)
    if len(key) < end + 2:
        raise ValueError("a key ends inside its index id")
    return _U32.unpack_from(key)[0], key[4:end], _U16.unpack_from(key, end)[0], key[end + 2 :]


def seq_key(seq: int) -> bytes:
    """Key in `commits`."""
    return _U64.pack(seq)


def parse_seq_key(key: bytes) -> int:
    """The sequence number of a `commits` key. Raises ValueError for malformed bytes."""
    if len(key) != 8:
        raise ValueError("not a sequence number of 8 bytes")
    value: int = _U64.unpack(key)[0]
    return value


def object_key(kind: str, name: str) -> bytes:
    """Key in `catalog`; `kind` has no NUL character. Long names are cut like long keys."""
    return cut(kind.encode() + b"\x00" + name.encode())


def object_prefix(kind: str) -> bytes:
    """What the `catalog` keys of one kind begin with."""
    return kind.encode() + b"\x00"
