"""The names of many objects of one kind, a bounded page at a time, without reading what they hold."""

from __future__ import annotations

from storage.keys import object_key, object_prefix
from storage.reading import Reader


def names_below(reader: Reader, kind: str, bound: str, limit: int) -> list[str]:
    """At most `limit` names of a kind that are less than `bound`, the least first."""
    prefix, end = object_prefix(kind), object_key(kind, bound)
    names: list[str] = []
    cursor = reader.txn.cursor(db=reader.dbs.catalog)
    if cursor.set_range(prefix):
        for raw in cursor.iternext(keys=True, values=False):
            key = bytes(raw)
            if len(names) == limit or key >= end or not key.startswith(prefix):
                break
            names.append(key[len(prefix) :].decode())
    return names
