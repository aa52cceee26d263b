"""Order-preserving keys: column values, partitions and sub-database keys as bytes.

Bytes compare like the values they encode, column by column, so a range of keys is a range of data. The
encoding of every column is prefix-free: no value's bytes begin another value's bytes, which is what makes
concatenation order-preserving for composite keys.

======================  ===============================================================================
kind                    bytes
======================  ===============================================================================
Boolean                 1: 00 or 01
SmallInt, Int, BigInt   8: big-endian, sign bit flipped (one width, so widening a column keeps its keys)
Timestamp, DateTime,    8: as BigInt
Time, Date
Float, Double           8: IEEE double, big-endian; negative: all bits flipped, else: sign bit flipped.
                        -0.0 is 0.0; NaN and infinities are refused
Decimal                 16: unscaled value, big-endian, sign bit flipped (one width for every precision)
Uuid                    16: as they are
Text                    UTF-8 with 00 -> 01 01 and 01 -> 01 02, then the terminator 00
Bytes                   the same escaping
======================  ===============================================================================

Long keys. LMDB takes 511 bytes. An encoding of MAX_KEY bytes or more becomes its first CUT_LENGTH bytes and
the blake2b-256 digest of the whole encoding: exactly MAX_KEY bytes, a length that no whole encoding has, so
cut and whole keys never collide. Cut keys are distinct and sort right against every key that differs within
the first CUT_LENGTH bytes; among keys that agree there, the order is that of the digests. A range scan
therefore uses `encode_prefix` (never longer than CUT_LENGTH) for its bounds and filters the rows it finds.

Partitions are user ids in the Text encoding ("" = SHARED = one 00 byte). An encoding of more than
PARTITION_LIMIT bytes becomes its first PARTITION_CUT bytes, an FF (which UTF-8 never contains) and the digest.
No partition is a prefix of another.

Keys of the primary key and of UNIQUE constraints never hold NULL; the caller leaves rows with a NULL out (they cannot
collide).

Secondary indexes have every row. Before each column's bytes stands 01, and 02 alone stands for NULL, so that NULLs sort
behind all values, as ORDER BY has them. The key of an entry is that encoding (cut like the others) and the row's
`_seq` in 8 bytes, which makes it distinct; 4 + 97 + 2 + 400 + 8 are just the 511 bytes. In a unique index the `_seq` is
left out where no column is NULL, so that equal values meet under one key. The value is the `_seq` in every case.
"""

from __future__ import annotations

from storage.key_columns import encode_columns, encode_marked_columns
from storage.key_encoding import (
    CUT_LENGTH,
    MAX_KEY,
    check_key_types,
    decode_key,
    encode_key,
    encode_prefix,
    is_cut,
    key_encoder,
    marked_encoder,
    marked_prefix,
    prefix_end,
)
from storage.key_layout import (
    SHARED_PARTITION,
    TABLE_BYTES,
    index_key_prefix,
    object_key,
    object_prefix,
    parse_index_key,
    parse_partition,
    parse_row_key,
    parse_seq_key,
    partition_key,
    row_key,
    row_key_prefix,
    seq_key,
    table_id_of,
    table_prefix,
)

__all__ = [
    "CUT_LENGTH",
    "MAX_KEY",
    "SHARED_PARTITION",
    "TABLE_BYTES",
    "check_key_types",
    "decode_key",
    "encode_columns",
    "encode_key",
    "encode_marked_columns",
    "encode_prefix",
    "index_key_prefix",
    "is_cut",
    "key_encoder",
    "marked_encoder",
    "marked_prefix",
    "object_key",
    "object_prefix",
    "parse_index_key",
    "parse_partition",
    "parse_row_key",
    "parse_seq_key",
    "partition_key",
    "prefix_end",
    "row_key",
    "row_key_prefix",
    "seq_key",
    "table_id_of",
    "table_prefix",
]
