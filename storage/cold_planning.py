"""What a flush moves and what a compaction rewrites: runs of neighbouring batches of a partition, one new file each.

A flush takes hot batches up to the last `_seq` that was there when it began. A compaction takes neighbouring segments
that are small, and segments that have dead rows or an older schema version. A run never spans a batch of the other
kind, so row groups never overlap other batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from storage.cold_segments import Segment, partition_of_key, read_segment, segment_items
from storage.cold_stubs import read_stub
from storage.errors import StorageCorrupt
from storage.keys import parse_row_key, row_key_prefix, table_prefix
from storage.layout import TableLayout
from storage.options import StorageOptions
from storage.reading import Reader, Stored, place_of


class Run(NamedTuple):
    """Batches that become one file; `replaced` are the segments that they are the whole of."""

    user: str
    partition: bytes
    keys: list[bytes]
    rows: int
    nbytes: int
    replaced: tuple[Segment, ...] = ()


class HotPartition(NamedTuple):
    """A partition with hot batches."""

    partition: bytes
    nbytes: int


def hot_partitions(reader: Reader, table_id: int) -> list[HotPartition]:
    """The partitions of a table that have hot batches, and how many bytes those have."""
    found: list[HotPartition] = []
    for partition in reader.partitions(table_id):
        nbytes = sum(
            len(batch.value) for batch in reader.stored(row_key_prefix(table_id, partition)) if not batch.header.flags
        )
        if nbytes:
            found.append(HotPartition(partition, nbytes))
    return found


def hot_runs(reader: Reader, table_id: int, partition: bytes, through: int, options: StorageOptions) -> Iterator[Run]:
    """The runs of hot batches that begin at or before `_seq` `through`."""
    user = reader.user_of(partition)
    keys: list[bytes] = []
    rows = nbytes = 0
    for batch in reader.stored(row_key_prefix(table_id, partition)):
        if batch.first_seq > through:
            break
        size = len(batch.value)
        full = rows + batch.header.rows > options.cold_segment_rows or nbytes + size > options.cold_segment_bytes
        if keys and (batch.header.flags or full):
            yield Run(user, partition, keys, rows, nbytes)
            keys, rows, nbytes = [], 0, 0
        if not batch.header.flags:
            keys.append(batch.key)
            rows += batch.header.rows
            nbytes += size
    if keys:
        yield Run(user, partition, keys, rows, nbytes)


def compactable(reader: Reader, layout: TableLayout) -> Iterator[bytes]:
    """The partitions that may have segments worth rewriting: several, dead rows, or an older schema version.

    The records of segments tell, and which batches have dead rows: no batch is looked at.
    """
    table_id, version = layout.table.table_id, layout.table.schema_version
    with_dead = {parse_row_key(key)[1] for key in reader.dead_keys(table_prefix(table_id))}
    for partition, records in itertools.groupby(
        segment_items(reader, table_id), key=lambda item: partition_of_key(item[0])
    ):
        count, current = 0, True
        for _, segment in records:
            count += 1
            current = current and segment.schema_version == version
        if count > 1 or not current or partition in with_dead:
            yield partition


class _Old(NamedTuple):
    """A segment as a compaction sees it."""

    segment: Segment
    keys: list[bytes]
    rows: int
    dead: int
    nbytes: int
    current: bool


def cold_runs(
    reader: Reader, layout: TableLayout, partition: bytes, start: bytes | None, options: StorageOptions
) -> Iterator[Run]:
    """The runs of segments worth rewriting, from a key of `rows` on."""
    user = reader.user_of(partition)
    run: list[_Old] = []

    def finished() -> Iterator[Run]:
        if len(run) > 1 or any(old.dead or not old.current for old in run):
            keys = [key for old in run for key in old.keys]
            segments = tuple(old.segment for old in run)
            yield Run(user, partition, keys, sum(o.rows for o in run), sum(o.nbytes for o in run), segments)

    for old in _segments(reader, layout, partition, start):
        if old is None:
            yield from finished()
            run = []
            continue
        small = old.rows - old.dead < options.cold_segment_rows // 2 and old.nbytes < options.cold_segment_bytes // 2
        if not (small or old.dead or not old.current):
            yield from finished()
            run = []
            continue
        rows = old.rows + sum(o.rows for o in run)
        nbytes = old.nbytes + sum(o.nbytes for o in run)
        if run and (rows > options.cold_segment_rows or nbytes > options.cold_segment_bytes):
            yield from finished()
            run = []
        run.append(old)
    yield from finished()


def _segments(reader: Reader, layout: TableLayout, partition: bytes, start: bytes | None) -> Iterator[_Old | None]:
    """The segments of a partition in order; None where something else stands between them."""
    prefix = row_key_prefix(layout.table.table_id, partition)
    dead = reader.dead_counts(prefix, start)
    version = layout.table.schema_version
    group: list[tuple[Stored, int]] = []
    present = -1

    def whole() -> _Old | None:
        first = group[0][0]
        segment = read_segment(reader, prefix, present)
        if segment is None:
            raise StorageCorrupt(f"{place_of(first.key, layout, first.header)}: its segment {present} is not known")
        if len(group) != segment.row_groups:
            return None  # replacing a part of it would take the file from the rest
        return _Old(
            segment,
            [batch.key for batch, _ in group],
            sum(batch.header.rows for batch, _ in group),
            sum(dead.get(batch.key, 0) for batch, _ in group),
            sum(nbytes for _, nbytes in group),
            all(batch.header.schema_version == version for batch, _ in group),
        )

    for batch in reader.stored(prefix, start=start):
        stub = read_stub(batch.value) if batch.header.flags else None
        if group and (stub is None or stub.segment_id != present):
            yield whole()
            group = []
        if stub is None:
            yield None
            continue
        present = stub.segment_id
        group.append((batch, stub.nbytes))
    if group:
        yield whole()
