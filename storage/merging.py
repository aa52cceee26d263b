"""How neighbouring batches become one: what to merge, building it from a snapshot, applying it in the writer.

Choosing. Batches of a partition stand in `_seq` order. A batch's tier is the logarithm of its rows to the base
`fan_in`; a batch that is half full or more is done, and so is a cold one. A run of at least `fan_in` neighbours whose
tiers are at most t is merged into one, for the lowest such t: a stream of one-row commits is rewritten about four times
in all. A batch whose share of dead rows is high is rewritten alone, if it is hot.

Building happens off the writer's thread, from a snapshot: live rows (in the present schema version) become new batches;
superseded rows that the log or a topic still needs go to `history`, into its batches or between them, so that those
never overlap either.

Applying happens in the writer, in one bounded slice: the sources must still be what they were; rows that died since the
snapshot are translated by `_seq` into dead rows of the new batches; the sources are deleted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from storage.batches import MAX_ROWS, Seqs, encode_batch, read_header, seqs_of
from storage.dead import EMPTY, Entries
from storage.environment import Txn
from storage.flushing import put_dead
from storage.keys import row_key_prefix
from storage.layout import BY, SEQ, TableLayout
from storage.options import StorageOptions
from storage.reading import Reader, Stored
from storage.writer import WriteTransaction

HISTORY_BYTES = 8 << 20
"""Bytes of a history batch, about."""


class Candidate(NamedTuple):
    """A batch as the choice sees it. Cold ones are never chosen: what lies between them is merged."""

    key: bytes
    rows: int
    dead: int
    size: int
    cold: bool = False


class Output(NamedTuple):
    """A new batch."""

    key: bytes
    value: bytes
    seqs: Seqs


class Job(NamedTuple):
    """A merge that was built and waits to be applied."""

    prefix: bytes
    sources: dict[bytes, int]
    known_dead: dict[bytes, Entries]
    outputs: list[Output]
    old_history: list[bytes]
    new_history: list[Output]

    @property
    def size(self) -> int:
        """Bytes that applying it writes."""
        return sum(len(o.value) for o in self.outputs) + sum(len(o.value) for o in self.new_history)


def choose(batches: Sequence[Candidate], options: StorageOptions) -> list[list[Candidate]]:
    """The runs worth merging, in order; none longer than a full batch."""
    runs = _tiered_runs(batches, options)
    taken = {batch.key for run in runs for batch in run}
    for batch in batches:
        if batch.key in taken or not batch.dead or batch.cold:
            continue
        full = _tier(batch, options) == math.inf
        if batch.dead == batch.rows or (full and batch.dead >= batch.rows * options.merge_dead_share):
            runs.append([batch])
    return [piece for run in runs for piece in _bounded(run, options)]


def _tier(batch: Candidate, options: StorageOptions) -> float:
    if batch.cold or batch.rows >= options.batch_rows // 2 or batch.size >= options.batch_bytes // 2:
        return math.inf
    return math.floor(math.log(max(batch.rows, 1), options.merge_fan_in) + 1e-9)


def _tiered_runs(batches: Sequence[Candidate], options: StorageOptions) -> list[list[Candidate]]:
    tiers = [_tier(batch, options) for batch in batches]
    for limit in sorted({tier for tier in tiers if tier != math.inf}):
        runs: list[list[Candidate]] = []
        run: list[Candidate] = []
        for batch, tier in zip(batches, tiers, strict=True):
            if tier <= limit:
                run.append(batch)
                continue
            runs.append(run)
            run = []
        runs.append(run)
        runs = [run for run in runs if len(run) >= options.merge_fan_in]
        if runs:
            return runs
    return []


def _bounded(run: list[Candidate], options: StorageOptions) -> Iterator[list[Candidate]]:
    """A run in pieces that are one full batch each at most."""
    piece: list[Candidate] = []
    rows = size = 0
    for batch in run:
        if piece and (rows + batch.rows > options.batch_rows or size + batch.size > options.batch_bytes):
            yield piece
            piece, rows, size = [], 0, 0
        piece.append(batch)
        rows += batch.rows
        size += batch.size
    if len(piece) > 1 or (piece and piece[0].dead):
        yield piece


def candidates(reader: Reader, prefix: bytes) -> list[Candidate]:
    """The batches of a partition."""
    dead = reader.dead_counts(prefix)
    return [
        Candidate(batch.key, batch.header.rows, dead.get(batch.key, 0), len(batch.value), batch.header.cold)
        for batch in reader.stored(prefix)
    ]


def build(reader: Reader, layout: TableLayout, partition: bytes, run: Sequence[Candidate], kept_after: int) -> Job:
    """Build a merge from a snapshot. Rows that were superseded after `kept_after` are still needed by somebody."""
    prefix = row_key_prefix(layout.table.table_id, partition)
    sources: dict[bytes, int] = {}
    known: dict[bytes, Entries] = {}
    live: list[pa.RecordBatch] = []
    gone: list[pa.RecordBatch] = []
    low = 0
    for candidate in run:
        batch = _stored(reader, candidate.key)
        low = low or batch.first_seq
        sources[batch.key] = batch.header.checksum
        entries = reader.dead_of(batch.key) if candidate.dead else EMPTY
        plan = layout.upgrade(batch.header.schema_version)
        rows = plan.batch(reader.decode(layout, batch, reader))
        if not len(entries):
            live.append(rows)
            continue
        known[batch.key] = entries
        mask = np.ones(rows.num_rows, dtype=bool)
        mask[entries["row"]] = False
        live.append(rows.filter(pa.array(mask)))
        needed = np.sort(entries[entries["seq"] > kept_after], order="row")
        if len(needed):
            gone.append(with_by(rows.take(pa.array(needed["row"].astype(np.int64))), needed["seq"].astype(np.int64)))
    version = layout.table.schema_version
    outputs = _outputs(prefix, live, version)
    old_history, new_history = history_of(reader, layout, prefix, gone, low, kept_after)
    return Job(prefix, sources, known, outputs, old_history, new_history)


def with_by(rows: pa.RecordBatch, by: Seqs) -> pa.RecordBatch:
    """Rows in stored form with their `_by` at the end."""
    fields = [*rows.schema, pa.field(BY, pa.int64(), nullable=False)]
    return pa.RecordBatch.from_arrays([*rows.columns, pa.array(by, pa.int64())], schema=pa.schema(fields))


def apply_job(wtxn: WriteTransaction, job: Job) -> bool:
    """Put a merge into effect; False when its sources have changed (it is then dropped)."""
    txn, reader = wtxn.txn, wtxn.reader
    for key, checksum in job.sources.items():
        value = txn.get(key, db=reader.dbs.rows)
        if value is None or read_header(value).checksum != checksum:
            return False
    late_seqs, late_by = _late(reader, job)
    wtxn.flusher.touched = True
    for key in job.sources:
        txn.delete(key, db=reader.dbs.rows)
        delete_dead(txn, reader, key)
    for output in job.outputs:
        txn.put(output.key, output.value, db=reader.dbs.rows)
        low, high = late_seqs.searchsorted(output.seqs[0]), late_seqs.searchsorted(output.seqs[-1], "right")
        if high > low:
            places = output.seqs.searchsorted(late_seqs[low:high])
            put_dead(txn, reader, output.key, places.tolist(), late_by[low:high].tolist())
    for key in job.old_history:
        txn.delete(key, db=reader.dbs.history)
    for output in job.new_history:
        txn.put(output.key, output.value, db=reader.dbs.history)
    return True


def delete_dead(txn: Txn, reader: Reader, batch_key: bytes) -> None:
    """Delete the dead rows of a batch that goes away."""
    with txn.cursor(db=reader.dbs.dead) as cursor:
        more = cursor.set_range(batch_key)
        while more and bytes(cursor.key()).startswith(batch_key):
            more = cursor.delete()


def _late(reader: Reader, job: Job) -> tuple[Seqs, Seqs]:
    """Rows of the sources that died after the snapshot: their `_seq`s, ascending, and what superseded them."""
    seqs: list[Seqs] = []
    by: list[Seqs] = []
    for key in job.sources:
        now = reader.dead_of(key)
        known = job.known_dead.get(key, EMPTY)
        if len(now) == len(known):
            continue
        fresh = np.sort(now[~np.isin(now["row"], known["row"])], order="row")
        batch = _stored(reader, key)
        seqs.append(seqs_of(batch.value, batch.header)[fresh["row"]].astype(np.int64))
        by.append(fresh["seq"].astype(np.int64))
    if not seqs:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    return np.concatenate(seqs), np.concatenate(by)


def _stored(reader: Reader, key: bytes) -> Stored:
    value = reader.txn.get(key, db=reader.dbs.rows)
    assert value is not None
    return Stored(key, value, reader.header(key, value))


def _outputs(prefix: bytes, batches: Sequence[pa.RecordBatch], version: int) -> list[Output]:
    joined = pa.concat_batches([batch for batch in batches if batch.num_rows] or list(batches[:1])) if batches else None
    if joined is None or not joined.num_rows:
        return []
    seqs = joined.column(joined.schema.get_field_index(SEQ)).to_numpy().astype(np.int64)
    key = prefix + int(seqs[0]).to_bytes(8, "big")
    return [Output(key, encode_batch(joined, version, int(seqs[-1])), seqs)]


def history_of(
    reader: Reader, layout: TableLayout, prefix: bytes, gone: list[pa.RecordBatch], low: int, kept_after: int
) -> tuple[list[bytes], list[Output]]:
    """The history batches that superseded rows join, and what replaces them.

    A row whose `_seq` lies inside a batch joins it; the others fill the gaps between batches. A gap's rows take the
    batches before them along while those are smaller, so that there are few batches, and each row is rewritten a few
    times in all however long the history of the merged range is. Only batches from `low` on are taken along: those
    before may belong to another merge of the same slice.
    """
    if not gone:
        return [], []
    rows = _in_order(gone)
    seqs = rows.column(0).to_numpy()
    first = reader.around(prefix, int(seqs[0]), history=True)
    start = prefix + int(seqs[0]).to_bytes(8, "big") if first is None else first.key
    stop = prefix + (int(seqs[-1]) + 1).to_bytes(8, "big")
    present = list(reader.stored(prefix, history=True, start=start, stop=stop))
    slots = np.asarray([batch.first_seq for batch in present], np.int64).searchsorted(seqs, "right")
    old: list[bytes] = []
    new: list[Output] = []
    for slot in np.unique(slots).tolist():
        begin, end = slots.searchsorted([slot, slot + 1]).tolist()
        joined: list[Stored] = []
        before = present[slot - 1] if slot else None
        if before is not None and before.header.last_seq > seqs[begin]:
            joined.append(before)
        else:
            count = end - begin
            while before is not None and before.first_seq >= low and _joins(before, count):
                joined.append(before)
                count += before.header.rows
                before = reader.around(prefix, before.first_seq - 1, history=True) if slot == slots[0] else None
        pieces = [rows.slice(begin, end - begin)]
        for batch in joined:
            old.append(batch.key)
            found = layout.upgrade(batch.header.schema_version, history=True).batch(
                reader.decode(layout, batch, reader, history=True)
            )
            by = found.column(found.num_columns - 1).to_numpy()
            pieces.append(found if by.min() > kept_after else found.filter(pa.array(by > kept_after)))
        whole = _in_order(pieces)
        limit = min(MAX_ROWS, max(1, whole.num_rows * HISTORY_BYTES // max(whole.nbytes, 1)))
        for start_row in range(0, whole.num_rows, limit):
            new += _outputs(prefix, [whole.slice(start_row, limit)], layout.table.schema_version)
    return old, new


def _joins(batch: Stored, rows: int) -> bool:
    """Whether a history batch is taken along by so many rows after it."""
    count = batch.header.rows
    return count <= rows and count + rows <= MAX_ROWS and len(batch.value) <= HISTORY_BYTES // 2


def _in_order(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """The rows of all batches by `_seq`."""
    joined = pa.concat_batches(batches)
    seqs = joined.column(0).to_numpy()
    if (seqs[1:] < seqs[:-1]).any():
        joined = joined.take(pa.array(seqs.argsort()))
    return joined
