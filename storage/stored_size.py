"""How much the rows of a partition and the definitions of a kind take, without reading any of them."""

from __future__ import annotations

from storage.key_layout import object_prefix, row_key_prefix
from storage.reading import Reader


def stored_bytes(reader: Reader, table_id: int, partition: bytes) -> int:
    """Bytes of the batches that a partition has in `rows`, superseded rows included.

    LMDB knows the length of a value from its leaf page, so the batches themselves are not touched.
    """
    prefix = row_key_prefix(table_id, partition)
    total = 0
    cursor = reader.txn.cursor(db=reader.dbs.rows)
    if cursor.set_range(prefix):
        for key, value in cursor.iternext():
            if bytes(key[: len(prefix)]) != prefix:
                break
            total += len(value)
    return total


def count_objects(reader: Reader, kind: str) -> int:
    """How many definitions of a kind there are; none is decoded."""
    prefix = object_prefix(kind)
    total = 0
    cursor = reader.txn.cursor(db=reader.dbs.catalog)
    if cursor.set_range(prefix):
        for key in cursor.iternext(keys=True, values=False):
            if bytes(key[: len(prefix)]) != prefix:
                break
            total += 1
    return total
