"""Writes what a group staged into the LMDB transaction: keys in order, batches, dead rows, commit record, meta.

Order matters for two reasons. Sorted puts touch each B-tree page once. And superseded rows are marked after the batches
are written, so that a row staged and superseded in the same group is found like any other.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Sequence

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.batches import MAX_ROWS, Seqs, encode_batch, seqs_of
from storage.catalog import Catalog
from storage.changes import CommitRecord, PartitionRecord, Written, compress, encode_commit
from storage.dead import (
    CHUNK,
    chunk_key,
    chunk_number,
    count_dead,
    decode_dead,
    encode_dead,
    make_entries,
    split_chunks,
)
from storage.environment import CATALOG_VERSION, NEXT_SEQ, NEXT_TABLE_ID, Txn, pack_number
from storage.errors import StorageCorrupt
from storage.expiry import note_commit
from storage.keys import object_key, parse_partition, seq_key
from storage.layout import TableLayout
from storage.objects import StagedObjects
from storage.reading import PARTITION_NAME, Reader
from storage.staging import RowSegment, StagedPartition, build_batch
from storage.topic_publishing import Publisher

BATCH_BYTES = 8 << 20


class WrittenPartition:
    """What the group did to one partition, for the commit record and the ChangeSet."""

    __slots__ = ("added", "batches", "by", "layout", "nbytes", "old")

    def __init__(self, layout: TableLayout | None) -> None:
        self.layout = layout
        self.added: list[int] = []
        self.old: list[int] = []
        self.by: list[int] = []
        self.batches: list[tuple[TableLayout, pa.RecordBatch]] = []
        self.nbytes = 0

    def add(self, seqs: Sequence[int]) -> None:
        """Note added rows (ascending, after those noted before)."""
        pairs = [seqs[0], seqs[-1]] if isinstance(seqs, range) else compress(seqs)
        if self.added and self.added[-1] + 1 == pairs[0]:
            self.added[-1] = pairs[1]
            del pairs[:2]
        self.added += pairs


class Flusher:
    """Collects what was written while it writes it. `write_staged` may run again after an abort (`restart`)."""

    def __init__(self, publisher: Publisher) -> None:
        self.written: dict[tuple[int, str], WrittenPartition] = {}
        self.publisher = publisher
        self.touched = False
        self.new_batches: list[tuple[int, str]] = []
        self.record: CommitRecord | None = None

    def restart(self) -> None:
        """The transaction was aborted; everything will be written again."""
        self.written.clear()
        self.new_batches.clear()
        self.publisher.restart()

    def write_staged(
        self,
        txn: Txn,
        reader: Reader,
        catalog: Catalog,
        overlay: dict[bytes, int],
        partitions: Iterable[StagedPartition],
    ) -> None:
        """Keys, batches and dead rows; notes the messages of topics about them. Raises PublishFailed."""
        if overlay:
            self._write_keys(txn, reader, overlay)
        touched = [staged for staged in partitions if staged.segments or staged.superseded]
        _build_together(touched)
        added = [self._write_rows(txn, reader, staged) for staged in touched]
        for staged in touched:
            if staged.superseded:
                self._write_dead(txn, reader, staged)
        for staged, batches in zip(touched, added, strict=True):
            if catalog.sources_of(staged.table_id):
                self.publisher.collect(catalog, reader, staged.table_id, staged.user, batches, staged.superseded)

    def claim_new(
        self, txn: Txn, keys_db: lmdb._Database, keys: list[bytes], places: Sequence[int], first_seq: int
    ) -> bool:
        """Put new keys straight into LMDB; False when one of them exists (the transaction must then be aborted)."""
        self.touched = True
        numbers = np.asarray(places, dtype=np.int64) + first_seq
        if not all(map(operator.lt, keys, itertools.islice(keys, 1, None))):
            order = pc.sort_indices(pa.array(keys, pa.binary())).to_numpy()
            keys = [keys[place] for place in order.tolist()]
            numbers = numbers[order]
            if any(map(operator.eq, keys, itertools.islice(keys, 1, None))):
                return False
        seqs = numbers.astype(">u8").tobytes()
        items = [(key, seqs[at : at + 8]) for key, at in zip(keys, range(0, len(seqs), 8), strict=True)]
        cursor = txn.cursor(db=keys_db)
        append = bool(items) and (not cursor.last() or bytes(cursor.key()) < items[0][0])
        consumed, added = cursor.putmulti(items, overwrite=False, append=append)
        return bool(consumed == added == len(items))

    def write_commit(
        self,
        txn: Txn,
        reader: Reader,
        objects: StagedObjects,
        first_seq: int,
        next_seq: int,
        timestamp_us: int,
        next_table_id: int,
    ) -> None:
        """The commit record, definitions and meta. A commit without a `_seq` (a merge) leaves no record."""
        dbs = reader.dbs
        for (kind, name), data in objects.staged.items():
            key = object_key(kind, name)
            if data is None:
                txn.delete(key, db=dbs.catalog)
            else:
                txn.put(key, data, db=dbs.catalog)
        if objects.catalog_changed:
            txn.put(CATALOG_VERSION, pack_number(objects.catalog.version), db=dbs.meta)
            txn.put(NEXT_TABLE_ID, pack_number(next_table_id), db=dbs.meta)
        if next_seq == first_seq:
            return
        named = tuple(name for name in objects.staged if not name[0].startswith("_"))
        partitions = []
        for (table_id, user), done in self.written.items():
            partitions.append(
                PartitionRecord(
                    table_id,
                    user,
                    done.layout.table.schema_version if done.layout else 0,
                    tuple(done.added),
                    np.array(done.old, dtype="<i8").tobytes(),
                    np.array(done.by, dtype="<i8").tobytes(),
                )
            )
        self.record = CommitRecord(next_seq - 1, timestamp_us, tuple(partitions), named)
        txn.put(seq_key(first_seq), encode_commit(self.record), db=dbs.commits)
        txn.put(NEXT_SEQ, pack_number(next_seq), db=dbs.meta)
        if any(done.layout is not None and done.layout.table.expires for done in self.written.values()):
            note_commit(txn, reader, timestamp_us, next_seq - 1)

    # --- the parts -----------------------------------------------------------------------------------------------

    @staticmethod
    def _write_keys(txn: Txn, reader: Reader, overlay: dict[bytes, int]) -> None:
        db = reader.dbs.keys
        items = sorted(overlay.items())
        if 0 in overlay.values():
            for key, seq in items:
                if not seq:
                    txn.delete(key, db=db)
            items = [item for item in items if item[1]]
        cursor = txn.cursor(db=db)
        cursor.putmulti([(key, seq.to_bytes(8, "big")) for key, seq in items])

    def _written(self, staged: StagedPartition) -> WrittenPartition:
        key = (staged.table_id, staged.user)
        done = self.written.get(key)
        if done is None:
            done = self.written[key] = WrittenPartition(None)
        return done

    def _write_rows(self, txn: Txn, reader: Reader, staged: StagedPartition) -> Written:
        """Write the batches of a partition; returns them."""
        done = self._written(staged)
        before = len(done.batches)
        for layout, batch, seqs in _batches(staged):
            done.layout = layout
            version = layout.table.schema_version
            for piece in _pieces(batch):
                first, last = piece.column(0)[0].as_py(), piece.column(0)[-1].as_py()
                key = staged.row_prefix + first.to_bytes(8, "big")
                txn.put(key, encode_batch(piece, version, last), db=reader.dbs.rows)
            for part in seqs:
                done.add(part)
            done.batches.append((layout, batch))
            done.nbytes += batch.nbytes
        if staged.segments:
            self.new_batches.append((staged.table_id, staged.user))
            if parse_partition(staged.partition) is None:
                txn.put(PARTITION_NAME + staged.partition, staged.user.encode(), db=reader.dbs.meta)
        return done.batches[before:]

    def _write_dead(self, txn: Txn, reader: Reader, staged: StagedPartition) -> None:
        done = self._written(staged)
        items = sorted(staged.superseded.items())
        old = np.array([item[0] for item in items], dtype=np.int64)
        by = np.array([item[1] for item in items], dtype=np.int64)
        add_dead(txn, reader, staged.row_prefix, old, by)
        done.old += old.tolist()
        done.by += by.tolist()


def add_dead(txn: Txn, reader: Reader, prefix: bytes, old: Seqs, by: Seqs) -> None:
    """Mark stored rows (ascending `_seq`s) as superseded."""
    place = 0
    while place < len(old):
        found = reader.locate(prefix, int(old[place]))
        if found is None:
            raise StorageCorrupt(f"the superseded row with _seq {old[place]} is not stored")
        batch, position = found
        end = int(old.searchsorted(batch.header.last_seq, "right"))
        if end - place == 1:
            rows: Sequence[int] = [position]
        else:
            stored = seqs_of(batch.value, batch.header)
            positions = stored.searchsorted(old[place:end])
            if not (stored[positions] == old[place:end]).all():
                raise StorageCorrupt(f"a superseded row between _seq {old[place]} and {old[end - 1]} is not stored")
            rows = positions.tolist()
        put_dead(txn, reader, batch.key, rows, by[place:end].tolist())
        place = end


def put_dead(txn: Txn, reader: Reader, batch_key: bytes, rows: Sequence[int], by: Sequence[int]) -> None:
    """Add entries to a batch's dead rows: into its newest chunk while there is room, else into new chunks."""
    db = reader.dbs.dead
    entries = make_entries(rows, by)
    cursor = txn.cursor(db=db)
    more = cursor.prev() if cursor.set_range(chunk_key(batch_key, 0xFFFF)) else cursor.last()
    number = 0
    if more:
        key = bytes(cursor.key())
        if len(key) == len(batch_key) + 2 and key.startswith(batch_key):
            number = chunk_number(key)
            value = cursor.value()
            if count_dead(value) + len(entries) <= CHUNK:
                entries = np.concatenate((decode_dead(value), entries))
            else:
                number += 1
    for offset, chunk in enumerate(split_chunks(entries)):
        txn.put(chunk_key(batch_key, number + offset), encode_dead(chunk), db=db)


def _build_together(partitions: Sequence[StagedPartition]) -> None:
    """Build the batches of many small row segments of one table at once, then slice them apart."""
    if len(partitions) < 4:
        return
    groups: dict[int, list[RowSegment]] = {}
    for staged in partitions:
        for segment in staged.segments:
            if isinstance(segment, RowSegment) and segment.rows:
                groups.setdefault(id(segment.layout), []).append(segment)
    for segments in groups.values():
        if len(segments) < 4:
            continue
        whole = build_batch(
            segments[0].layout,
            [seq for s in segments for seq in s.seqs],
            [row_id for s in segments for row_id in s.row_ids],
            [row for s in segments for row in s.rows],
        )
        start = 0
        for segment in segments:
            segment.built(whole.slice(start, len(segment.rows)))
            start += len(segment.rows)


def _batches(staged: StagedPartition) -> Iterator[tuple[TableLayout, pa.RecordBatch, list[Sequence[int]]]]:
    """The staged rows as few batches: one for each run of segments of a schema version, at most MAX_ROWS rows each."""
    run: list[pa.RecordBatch] = []
    seqs: list[Sequence[int]] = []
    rows = 0
    layout: TableLayout | None = None
    for segment in staged.segments:
        count = len(segment.seqs)
        if not count:
            continue
        if layout is not None and (
            segment.layout.table.schema_version != layout.table.schema_version or rows + count > MAX_ROWS
        ):
            yield layout, _joined(run), seqs
            run, seqs, rows = [], [], 0
        layout = segment.layout
        run.append(segment.batch())
        seqs.append(segment.seqs)
        rows += count
    if layout is not None and run:
        yield layout, _joined(run), seqs


def _joined(run: list[pa.RecordBatch]) -> pa.RecordBatch:
    return run[0] if len(run) == 1 else pa.concat_batches(run)


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch in pieces that are not too large to store."""
    rows, size = batch.num_rows, batch.nbytes
    if rows <= MAX_ROWS and (size <= BATCH_BYTES or rows == 1):
        yield batch
        return
    half = min(MAX_ROWS, rows // 2) if rows > 1 else 1
    yield from _pieces(batch.slice(0, half))
    yield from _pieces(batch.slice(half))
