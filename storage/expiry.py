"""When rows of STREAM tables expire: from commit times to an exact cutoff in the `_seq` order.

A row of a STREAM table has expired when `now >= commit time + TTL`. No row carries its time: `times` has an entry for
each commit that adds rows to a STREAM table, commit time -> the commit's last `_seq`. Commit times never go back and
`_seq`s only grow, so both columns of `times` ascend, and the rows that have expired at a time T are exactly those with
a `_seq` up to the value of the last entry at or before T - TTL. As `_seq` is also the order of `rows`, a scan leaves
expired rows out by where it starts.

`StoredView` applies the cutoff to everything that it reads, at the time when the view was opened. So an expired row is
gone for every statement at once; `storage.eviction` supersedes it a little later, with a commit like any other, and
merging reclaims its space.

Entries that no cutoff needs any more are pruned: of those at or before `now - the longest TTL` only the newest one is
kept. A change of a table's TTL keeps the cutoff of that moment in the table's definition (`TableDef.expired_through`):
what has expired stays so, and no longer TTL asks for an entry that was pruned.
"""

from __future__ import annotations

from storage.catalog import Catalog, TableDef
from storage.environment import Txn, pack_number
from storage.keys import parse_seq_key, seq_key
from storage.reading import Reader


def note_commit(txn: Txn, reader: Reader, timestamp_us: int, last_seq: int) -> None:
    """Note the time of a commit that adds rows to a STREAM table. Of commits of the same time the last one counts."""
    assert reader.dbs.times is not None
    txn.put(seq_key(timestamp_us), pack_number(last_seq), db=reader.dbs.times)


def seq_at(reader: Reader, time_us: int) -> int:
    """The last `_seq` of the newest noted commit at or before a time; 0 when there is none."""
    if time_us < 0 or reader.dbs.times is None:
        return 0
    cursor = reader.txn.cursor(db=reader.dbs.times)
    wanted = seq_key(time_us)
    if cursor.set_range(wanted):
        if bytes(cursor.key()) != wanted and not cursor.prev():
            return 0
    elif not cursor.last():
        return 0
    return int.from_bytes(cursor.value(), "big")


def newest_time(reader: Reader) -> int:
    """The time of the newest noted commit; 0 when there is none. No later commit may be earlier."""
    if reader.dbs.times is None:
        return 0
    cursor = reader.txn.cursor(db=reader.dbs.times)
    return parse_seq_key(bytes(cursor.key())) if cursor.last() else 0


def cutoff(reader: Reader, table: TableDef, now_us: int) -> int:
    """The `_seq` up to which rows of a STREAM table have expired at a time."""
    return max(seq_at(reader, now_us - table.ttl_us), table.expired_through)


def time_of_seq(reader: Reader, seq: int) -> int | None:
    """When the row of a STREAM table with that `_seq` was committed; None when its entry was pruned.

    Both columns ascend, so the entry is found by halving the time in between: some dozens of lookups.
    """
    assert reader.dbs.times is not None
    cursor = reader.txn.cursor(db=reader.dbs.times)
    if not cursor.first():
        return None
    low = parse_seq_key(bytes(cursor.key()))
    if int.from_bytes(cursor.value(), "big") >= seq:
        return low
    cursor.last()
    high = parse_seq_key(bytes(cursor.key()))
    if int.from_bytes(cursor.value(), "big") < seq:
        return None
    while high - low > 1:  # the entry at `low` is before the row, the one at `high` is not
        cursor.set_range(seq_key((low + high) // 2))
        found = parse_seq_key(bytes(cursor.key()))
        if int.from_bytes(cursor.value(), "big") >= seq:
            if found == high:  # nothing stands from the middle up to `high`
                cursor.prev()
                found = parse_seq_key(bytes(cursor.key()))
                if int.from_bytes(cursor.value(), "big") < seq:
                    return high
            high = found
        else:
            low = found
    return high


def longest_ttl_us(catalog: Catalog) -> int:
    """The longest TTL of a STREAM table; 0 when there is none."""
    return max((table.ttl_us for table in catalog.tables() if table.expires), default=0)


def prunable(reader: Reader, before_us: int) -> bytes | None:
    """The newest entry at or before a time, when older ones stand before it: those can go."""
    assert reader.dbs.times is not None
    cursor = reader.txn.cursor(db=reader.dbs.times)
    wanted = seq_key(max(before_us, 0))
    if cursor.set_range(wanted):
        if bytes(cursor.key()) != wanted and not cursor.prev():
            return None
    elif not cursor.last():
        return None
    kept = bytes(cursor.key())
    return kept if cursor.prev() else None


def prune(txn: Txn, reader: Reader, before_us: int, limit: int) -> int:
    """Delete entries that are older than the newest one at or before a time, at most `limit`; how many."""
    kept = prunable(reader, before_us)
    if kept is None:
        return 0
    deleted = 0
    with txn.cursor(db=reader.dbs.times) as cursor:
        more = cursor.first()
        while more and deleted < limit and bytes(cursor.key()) < kept:
            more = cursor.delete()
            deleted += 1
    return deleted
