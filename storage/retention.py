"""What the log no longer has to keep: old commit records, superseded rows in `history`, rows of dropped tables.

Topics have a say in the latter two (`storage.topic_retention`).

Each function does one bounded slice inside the writer and says whether there is more.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec

from storage.catalog import Catalog, TableDef
from storage.changes import decode_commit
from storage.cold_segments import bury_segment, partition_of_key, segment_items
from storage.environment import LOG_TRUNCATED, PAGE, pack_number, read_number
from storage.keys import object_key, parse_row_key, parse_seq_key, table_prefix
from storage.layout import layout_of
from storage.objects import DROPPED, DroppedTable, table_name
from storage.reading import Reader
from storage.writer import WriteTransaction

SLICE = 4_000


def log_bytes(reader: Reader) -> int:
    """How much the log takes: commit records and history, in pages."""
    total = 0
    for db in (reader.dbs.commits, reader.dbs.history):
        stat = reader.txn.stat(db)
        total += int(stat["leaf_pages"]) + int(stat["overflow_pages"]) + int(stat["branch_pages"])
    return total * PAGE


def truncation_point(reader: Reader, before_us: int, max_bytes: int) -> int:
    """The `_seq` up to which commits may go: those older than `before_us`, and the oldest ones beyond `max_bytes`."""
    cursor = reader.txn.cursor(db=reader.dbs.commits)
    entries = int(reader.txn.stat(reader.dbs.commits)["entries"])
    used = log_bytes(reader)
    surplus = entries if used <= max_bytes else int(entries * (1 - max_bytes / used)) + 1
    drop = 0 if used <= max_bytes else min(surplus, SLICE)
    point, seen = 0, 0
    more = cursor.first()
    while more and seen < SLICE:
        record = decode_commit(parse_seq_key(bytes(cursor.key())), cursor.value())
        if record.timestamp_us >= before_us and seen >= drop:
            break
        point = record.last_seq
        seen += 1
        more = cursor.next()
    return point


def truncate_log(wtxn: WriteTransaction, point: int) -> int:
    """Delete the commits that end at or before `point`; how many."""
    wtxn.flusher.touched = True
    deleted = 0
    with wtxn.txn.cursor(db=wtxn.dbs.commits) as cursor:
        more = cursor.first()
        while more and deleted < SLICE and parse_seq_key(bytes(cursor.key())) <= point:
            cursor.delete()  # moves to the next one, or to nothing
            more = bool(cursor.key())
            deleted += 1
    present = read_number(wtxn.txn, wtxn.dbs, LOG_TRUNCATED, 0)
    wtxn.txn.put(LOG_TRUNCATED, pack_number(max(point, present)), db=wtxn.dbs.meta)
    return deleted


def purgeable_history(
    reader: Reader, catalog: Catalog, after: bytes, count: int, kept_after: Callable[[int], int]
) -> tuple[list[bytes], bytes | None]:
    """Keys of history batches that nobody needs, among the next `count` after a key; and where to go on.

    `kept_after` says of a table which of its rows are still needed: those that were superseded after that `_seq`.
    """
    keys: list[bytes] = []
    seen = 0
    for batch in reader.stored(b"", history=True, start=after or b"\0"):
        if seen >= count:
            return keys, batch.key
        seen += 1
        table = catalog.table_by_id(parse_row_key(batch.key)[0])
        if table is None:
            continue
        rows = reader.decode(layout_of(table), batch, reader, history=True)
        if int(rows.column(rows.num_columns - 1).to_numpy().max()) <= kept_after(table.table_id):
            keys.append(batch.key)
    return keys, None


def purge_history(wtxn: WriteTransaction, keys: list[bytes]) -> None:
    """Delete history batches."""
    wtxn.flusher.touched = True
    for key in keys:
        wtxn.txn.delete(key, db=wtxn.dbs.history)


def dropped_definition(reader: Reader, table_id: int) -> TableDef | None:
    """The last definition of a table that was dropped and not reclaimed yet."""
    value = reader.txn.get(object_key(DROPPED, table_name(table_id)), db=reader.dbs.catalog)
    return None if value is None else msgspec.msgpack.decode(value, type=DroppedTable).definition


def reclaim_table(wtxn: WriteTransaction, table_id: int) -> bool:
    """Delete a slice of a dropped table's entries; True when nothing is left (its tombstone goes too).

    Its Parquet files are left to the cold tier, which deletes them when no snapshot reads them any more.
    """
    wtxn.flusher.touched = True
    prefix = table_prefix(table_id)
    left = SLICE
    for db in (wtxn.dbs.rows, wtxn.dbs.dead, wtxn.dbs.history, wtxn.dbs.keys):
        with wtxn.txn.cursor(db=db) as cursor:
            more = cursor.set_range(prefix)
            while more and bytes(cursor.key()).startswith(prefix):
                if not left:
                    return False
                more = cursor.delete()
                left -= 1
    for key, segment in list(itertools.islice(segment_items(wtxn.reader, table_id), left + 1)):
        if not left:
            return False
        bury_segment(wtxn.txn, wtxn.reader, partition_of_key(key), segment, wtxn.now_us())
        left -= 1
    wtxn.reclaimed(table_id)
    return True
