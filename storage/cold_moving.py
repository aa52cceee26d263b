"""Making one new file of a run of batches, and the swap that puts it into effect.

Steps, each of which a crash may follow
---------------------------------------

1. A commit records the segment as in progress, with its path. (Nothing else yet: at the next start the record goes.)
2. The live rows are encoded and the file is written and synced. (At the next start file and record go.)
3. One LMDB transaction replaces the batches by stubs, translates rows that died meanwhile into dead rows of the stubs,
   moves superseded rows that somebody needs into `history`, and makes the record a committed one; the segments that a
   compaction replaced become tombstones in it. (Now the new state is there, wholly.)
4. Later, when no snapshot reads them any more, the files of tombstones are deleted, then their records.

Building reads a snapshot, and so does everything but steps 1 and 3, which are short works of the writer. Step 3 does
nothing when a batch is not what it was; then the new file goes as in step 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from storage.batches import MAX_ROWS
from storage.cold_parquet import Encoded, encode_file
from storage.cold_planning import Run
from storage.cold_segments import (
    COMMITTED_PREFIX,
    OTHER_PREFIX,
    Segment,
    SegmentStatus,
    bury_segment,
    delete_segment,
    put_segment,
)
from storage.cold_statistics import column_statistics, merged
from storage.cold_stubs import Stub, encode_stub
from storage.dead import Entries
from storage.environment import pack_number, read_number
from storage.keys import row_key_prefix
from storage.layout import TableLayout
from storage.merging import Job, Output, apply_job, history_of, with_by
from storage.reading import Reader, Stored
from storage.writer import WriteTransaction

GROUP_BYTES = 16 << 20
"""Decoded bytes of a row group, about."""


class Built(NamedTuple):
    """A run that was read: the live rows as row groups, and what else the swap needs."""

    run: Run
    schema_version: int
    """That of the rows here; the table may have another one when they are swapped in."""
    sources: dict[bytes, int]
    known_dead: dict[bytes, Entries]
    groups: list[pa.RecordBatch]
    gone: list[pa.RecordBatch]
    """Superseded rows that may be needed, with what superseded them."""
    first_seq: int


class Moved(NamedTuple):
    """A run whose file is written: ready for the swap. `segment` is None when no row of the run is live."""

    built: Built
    segment: Segment | None
    outputs: list[Output]


def build(reader: Reader, layout: TableLayout, run: Run, kept_after: int) -> Built:
    """Read a run from a snapshot, in the present schema version."""
    sources: dict[bytes, int] = {}
    known: dict[bytes, Entries] = {}
    live: list[pa.RecordBatch] = []
    gone: list[pa.RecordBatch] = []
    for key in run.keys:
        value = reader.txn.get(key, db=reader.dbs.rows)
        assert value is not None
        batch = Stored(key, value, reader.header(key, value))
        sources[key] = batch.header.checksum
        if batch.header.flags:
            stored = reader.cold.uncached(reader.request(layout, batch))
        else:
            stored = reader.decode(layout, batch, None)
        rows = layout.upgrade(batch.header.schema_version).batch(stored)
        entries = reader.dead_of(key)
        if not len(entries):
            live.append(rows)
            continue
        known[key] = entries
        mask = np.ones(rows.num_rows, dtype=bool)
        mask[entries["row"]] = False
        live.append(rows.filter(pa.array(mask)))
        needed = np.sort(entries[entries["seq"] > kept_after], order="row")
        if len(needed):
            places = pa.array(needed["row"].astype(np.int64))
            gone.append(with_by(rows.take(places), needed["seq"].astype(np.int64)))
    first = int.from_bytes(run.keys[0][-8:], "big")
    return Built(run, layout.table.schema_version, sources, known, list(_row_groups(live)), gone, first)


def _row_groups(batches: Sequence[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows in batches that are row groups."""
    waiting: list[pa.RecordBatch] = []
    rows = nbytes = 0
    for batch in batches:
        left = batch
        while left.num_rows:
            room = MAX_ROWS - rows
            size = left.nbytes
            if rows and (room <= 0 or nbytes + size > GROUP_BYTES):
                yield _one(waiting)
                waiting, rows, nbytes = [], 0, 0
                continue
            piece = left.slice(0, room)
            waiting.append(piece)
            rows += piece.num_rows
            nbytes += piece.nbytes
            left = left.slice(piece.num_rows)
    if waiting:
        yield _one(waiting)


def _one(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def encode(layout: TableLayout, built: Built, segment: Segment) -> tuple[Segment, list[Output], Encoded]:
    """The file of a run, its stubs and its record (still in progress)."""
    version = layout.table.schema_version
    encoded = encode_file(layout, version, built.groups)
    prefix = row_key_prefix(layout.table.table_id, built.run.partition)
    outputs: list[Output] = []
    parts = []
    for number, group in enumerate(built.groups):
        seqs = group.column(0).to_numpy()
        stats = column_statistics(layout.table.columns, group.columns[layout.first_column :])
        stub = Stub(segment.segment_id, number, group.nbytes)
        outputs.append(Output(prefix + int(seqs[0]).to_bytes(8, "big"), encode_stub(seqs, version, stub, stats), seqs))
        parts.append(stats)
    written = msgspec.structs.replace(
        segment,
        rows=sum(group.num_rows for group in built.groups),
        row_groups=len(built.groups),
        bytes=encoded.data.size,
        min_seq=int(outputs[0].seqs[0]),
        max_seq=int(outputs[-1].seqs[-1]),
        column_stats=merged(layout.table.columns, parts),
        checksum=encoded.checksum,
        footer_bytes=encoded.footer_bytes,
        footer_checksum=encoded.footer_checksum,
    )
    return written, outputs, encoded


def job_of(reader: Reader, layout: TableLayout, moved: Moved, kept_after: int) -> Job:
    """The swap of a run as a merge; `history` must stay as this reader sees it until it is applied."""
    built = moved.built
    prefix = row_key_prefix(layout.table.table_id, built.run.partition)
    gone = built.gone
    if gone and built.schema_version != layout.table.schema_version:
        upgrade = layout.upgrade(built.schema_version, history=True)
        gone = [upgrade.batch(batch) for batch in gone]
    old, new = history_of(reader, layout, prefix, gone, built.first_seq, kept_after)
    return Job(prefix, built.sources, built.known_dead, moved.outputs, old, new)


def record_segments(
    next_segment: int, key: bytes, pending: Sequence[tuple[bytes, Segment]]
) -> Callable[[WriteTransaction], None]:
    """The work of step 1."""

    def work(wtxn: WriteTransaction) -> None:
        wtxn.flusher.touched = True
        present = read_number(wtxn.txn, wtxn.dbs, key, 1)  # another flush may have gone further
        wtxn.txn.put(key, pack_number(max(present, next_segment)), db=wtxn.dbs.meta)
        for partition, segment in pending:
            put_segment(wtxn.txn, wtxn.reader, OTHER_PREFIX, partition, segment)

    return work


def swap(jobs: Sequence[tuple[Job, Moved]], table_id: int) -> Callable[[WriteTransaction], list[bool]]:
    """The work of step 3: which of the runs took effect."""

    def work(wtxn: WriteTransaction) -> list[bool]:
        if wtxn.catalog.table_by_id(table_id) is None:
            return [False] * len(jobs)
        return [_swap_one(wtxn, job, moved) for job, moved in jobs]

    return work


def _swap_one(wtxn: WriteTransaction, job: Job, moved: Moved) -> bool:
    if not apply_job(wtxn, job):
        return False
    txn, reader, partition = wtxn.txn, wtxn.reader, moved.built.run.partition
    if moved.segment is not None:
        now = wtxn.now_us()
        delete_segment(txn, reader, OTHER_PREFIX, partition, moved.segment)
        committed = msgspec.structs.replace(moved.segment, status=SegmentStatus.COMMITTED, updated_at=now)
        put_segment(txn, reader, COMMITTED_PREFIX, partition, committed)
    for old in moved.built.run.replaced:
        bury_segment(txn, reader, partition, old, wtxn.now_us())
    return True
