"""Reading rows through one LMDB transaction: by range, by `_seq`, by key. Snapshots and the writer share it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from storage.batches import (
    Header,
    Seqs,
    decode_batch,
    own_row,
    positions_in,
    read_header,
    row_position,
    seqs_of,
    verify,
    without,
)
from storage.cold_reading import ColdPart, ColdReads, ColdRequest, Part
from storage.cold_segments import read_segment
from storage.cold_statistics import Bounds, excludes
from storage.cold_stubs import read_stats, read_stub
from storage.dead import EMPTY, Entries, count_dead, decode_dead
from storage.environment import Cursor, Databases, Txn
from storage.errors import StorageCorrupt, StorageError
from storage.keys import parse_partition, parse_row_key, prefix_end, row_key_prefix, table_prefix
from storage.layout import SEQ, Projection, TableLayout
from storage.memory import LARGE, SCATTERED, BatchMemory
from storage.scan_statistics import ScanStatistics


class Stored(NamedTuple):
    """A stored batch: its key, its value in the map and its header."""

    key: bytes
    value: memoryview
    header: Header

    @property
    def first_seq(self) -> int:
        """The first `_seq`, from the key."""
        return int.from_bytes(self.key[-8:], "big")


class Reader:
    """Reads over a transaction. Used by one thread at a time; valid until the transaction ends.

    A Reader that does not wait (`waits`) raises ColdMiss where it would read a file; scans and fetches only name cold
    parts, which are read when the transaction is not needed any more (`ColdReads.read_all`).
    """

    def __init__(self, txn: Txn, dbs: Databases, memory: BatchMemory, cold: ColdReads, *, waits: bool = True) -> None:
        self.txn = txn
        self.dbs = dbs
        self.memory = memory
        self.cold = cold
        self.waits = waits
        self.statistics = ScanStatistics()

    @cached_property
    def _rows(self) -> Cursor:
        return self.txn.cursor(db=self.dbs.rows)

    @cached_property
    def _history(self) -> Cursor:
        return self.txn.cursor(db=self.dbs.history)

    def stored(
        self, prefix: bytes, *, history: bool = False, start: bytes | None = None, stop: bytes | None = None
    ) -> Iterator[Stored]:
        """The batches whose keys begin with a prefix, in order, from `start` (included) to `stop` (excluded)."""
        cursor = self.txn.cursor(db=self.dbs.history if history else self.dbs.rows)
        if not cursor.set_range(start or prefix):
            return
        for raw, value in cursor.iternext():
            key = bytes(raw)
            if not key.startswith(prefix) or (stop is not None and key >= stop):
                return
            yield Stored(key, value, self.header(key, value))

    def header(self, key: bytes, value: memoryview) -> Header:
        """The header of a batch; what is wrong names the table and the range."""
        try:
            return read_header(value)
        except StorageCorrupt as error:
            raise StorageCorrupt(f"{place_of(key)}: {error}") from None

    def locate(self, prefix: bytes, seq: int) -> tuple[Stored, int] | None:
        """The batch of a partition that holds `seq`, and the row's place in it."""
        batch = self.before(prefix, seq)
        if batch is None:
            return None
        position = row_position(batch.value, batch.header, batch.first_seq, seq)
        return (batch, position) if position >= 0 else None

    def before(self, prefix: bytes, seq: int) -> Stored | None:
        """As `around`; large batches are remembered, so that no cursor passes their neighbours again."""
        start = self.memory.start_before(prefix, seq)
        if start is not None:
            key = prefix + start.to_bytes(8, "big")
            value = self.txn.get(key, db=self.dbs.rows)
            if value is not None:
                header = self.header(key, value)
                if header.last_seq >= seq:
                    return Stored(key, value, header)
        batch = self.around(prefix, seq)
        if batch is not None and batch.header.rows >= LARGE:
            self.memory.add_start(prefix, batch.first_seq)
        return batch

    def around(self, prefix: bytes, seq: int, *, history: bool = False) -> Stored | None:
        """The batch with the greatest first `_seq` that is not after `seq`."""
        cursor = self._history if history else self._rows
        wanted = prefix + seq.to_bytes(8, "big")
        if cursor.set_range(wanted):
            if cursor.key() != wanted and not cursor.prev():
                return None
        elif not cursor.last():
            return None
        key = bytes(cursor.key())
        if len(key) != len(wanted) or not key.startswith(prefix):
            return None
        value = cursor.value()
        return Stored(key, value, self.header(key, value))

    def decode(
        self, layout: TableLayout, batch: Stored, owner: object | None, *, history: bool = False
    ) -> pa.RecordBatch:
        """The record batch, verified when it is read for the first time; of a cold batch, by way of the cache."""
        key, value, header = batch
        if header.flags:
            found = self.cold.peek(read_stub(value)[:2])
            return found or self.cold.whole(self.request(layout, batch), waits=self.waits)
        self._expect_whole(layout, batch)
        schema = layout.stored_schema(header.schema_version, history=history)
        try:
            decoded = decode_batch(value, schema, owner)
        except (pa.ArrowInvalid, OSError) as error:
            raise StorageCorrupt(f"{place_of(key, layout, header)}: {error}") from None
        if decoded.num_rows != header.rows:
            raise StorageCorrupt(f"{place_of(key, layout, header)}: the header and the batch count different rows")
        return decoded

    def request(self, layout: TableLayout, batch: Stored) -> ColdRequest:
        """What reading a cold batch takes; valid beyond the transaction. Raises StorageCorrupt."""
        key, value, header = batch
        self._expect_whole(layout, batch)
        stub = read_stub(value)
        segment = self.cold.known(stub.segment_id)
        if segment is None:
            segment = read_segment(self, key[:-8], stub.segment_id)
            if segment is None:
                raise StorageCorrupt(f"{place_of(key, layout, header)}: its segment {stub.segment_id} is not known")
            self.cold.remember(segment)
        seqs = seqs_of(value, header) if header.seq_offset else None
        return ColdRequest(
            segment,
            stub.row_group,
            header.schema_version,
            layout.stored_schema(header.schema_version),
            header.rows,
            (lambda: seqs_of(b"", header)) if seqs is None else (lambda: seqs),
            place_of(key, layout, header),
        )

    def _expect_whole(self, layout: TableLayout, batch: Stored) -> None:
        key, value, header = batch
        if not self.memory.verified(key, header.checksum):
            if not verify(value, header):
                raise StorageCorrupt(f"{place_of(key, layout, header)}: the checksum does not match")
            self.memory.add_verified(key, header.checksum)

    def dead_of(self, batch_key: bytes) -> Entries:
        """The superseded rows of one batch."""
        cursor = self.txn.cursor(db=self.dbs.dead)
        if not cursor.set_range(batch_key) or not bytes(cursor.key()).startswith(batch_key):
            return EMPTY
        chunks = []
        for raw, value in cursor.iternext():
            if not bytes(raw).startswith(batch_key):
                break
            chunks.append(_decode_dead(batch_key, value))
        return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)

    def dead_in(self, prefix: bytes, start: bytes | None = None) -> dict[bytes, Entries]:
        """The superseded rows of every batch under a prefix that has any, from the key `start` on."""
        found: dict[bytes, list[Entries]] = {}
        cursor = self.txn.cursor(db=self.dbs.dead)
        if cursor.set_range(start or prefix):
            for raw, value in cursor.iternext():
                key = bytes(raw)
                if not key.startswith(prefix):
                    break
                found.setdefault(key[:-2], []).append(_decode_dead(key[:-2], value))
        return {key: chunks[0] if len(chunks) == 1 else np.concatenate(chunks) for key, chunks in found.items()}

    def dead_counts(self, prefix: bytes, start: bytes | None = None) -> dict[bytes, int]:
        """How many superseded rows the batches under a prefix have (from the key `start` on), without reading which."""
        found: dict[bytes, int] = {}
        cursor = self.txn.cursor(db=self.dbs.dead)
        if cursor.set_range(start or prefix):
            for raw, value in cursor.iternext():
                key = bytes(raw)
                if not key.startswith(prefix):
                    break
                found[key[:-2]] = found.get(key[:-2], 0) + count_dead(value)
        return found

    def dead_keys(self, prefix: bytes) -> Iterator[bytes]:
        """The batches under a prefix that have superseded rows, by key; a batch may come more than once."""
        cursor = self.txn.cursor(db=self.dbs.dead)
        if cursor.set_range(prefix):
            for raw in cursor.iternext(keys=True, values=False):
                key = bytes(raw)
                if not key.startswith(prefix):
                    return
                yield key[:-2]

    def scan(
        self,
        layout: TableLayout,
        partition: bytes,
        columns: Sequence[str] | None,
        *,
        with_seq: bool = False,
        owner: object | None = None,
        also_dead: Seqs | None = None,
        after: int = 0,
        bounds: Mapping[str, Bounds] | None = None,
        enough: int | None = None,
    ) -> tuple[pa.Schema, list[Part]]:
        """The live rows of a partition with a `_seq` after `after`, in `_seq` order, without those of `also_dead`.

        Batches in which no row can satisfy the `bounds` may be left out. After `enough` rows no batch follows.
        """
        prefix = row_key_prefix(layout.table.table_id, partition)
        start = self.start_after(prefix, after)
        dead = self.dead_in(prefix, start)
        schema = layout.projection(layout.table.schema_version, columns, with_seq=with_seq).schema
        parts: list[Part] = []
        found = small = 0
        for batch in self.stored(prefix, start=start):
            if enough is not None and found >= enough:
                break
            header = batch.header
            small += header.rows < LARGE and not header.flags
            if bounds and self._excluded(layout, batch, bounds):
                continue
            gone = dead[batch.key]["row"] if batch.key in dead else None
            if also_dead is not None and len(also_dead):
                more = positions_in(seqs_of(batch.value, header), also_dead)
                gone = more if gone is None else np.concatenate((gone, more))
            if batch.first_seq <= after:
                early = np.arange(rows_through(batch, after))
                gone = early if gone is None else np.union1d(gone, early)
            if gone is not None and len(gone) >= header.rows:
                continue
            found += header.rows - (0 if gone is None else len(gone))
            plan = layout.projection(header.schema_version, columns, with_seq=with_seq)
            if header.flags:
                request = self.request(layout, batch)
                self.statistics.cold(request.segment.segment_id, read=True)
                if not self.waits:
                    self.decode(layout, batch, None)  # now in the cache, or refused
                parts.append(ColdPart(request, plan, gone))
                continue
            self.statistics.batches += 1
            projected = plan.batch(self.decode(layout, batch, owner))
            if gone is None or not len(gone):
                parts.append(projected)
            else:
                parts += without(projected, gone)
        if small >= SCATTERED:
            self.memory.add_scattered(prefix)
        return schema, parts

    def _excluded(self, layout: TableLayout, batch: Stored, bounds: Mapping[str, Bounds]) -> bool:
        """Whether no row of a batch can satisfy the bounds."""
        header = batch.header
        excluded = False
        seqs = bounds.get(SEQ)
        if seqs is not None:
            above = isinstance(seqs.low, int) and header.last_seq < seqs.low
            excluded = above or (isinstance(seqs.high, int) and batch.first_seq > seqs.high)
        if not header.flags:
            return excluded
        if not excluded:
            self._expect_whole(layout, batch)
            stats = read_stats(batch.value, header)
            written = {column.column_id: column for column in layout.columns_at(header.schema_version)}
            for name, bound in bounds.items():
                column = layout.table.by_name.get(name)
                found = None if column is None else stats.get(column.column_id)
                if column is None or found is None or column.column_id not in written:
                    continue
                if excludes(found, written[column.column_id], column, bound):
                    excluded = True
                    break
        if excluded:
            self.statistics.cold(read_stub(batch.value).segment_id, read=False)
        return excluded

    def count(self, layout: TableLayout, partition: bytes, *, after: int = 0) -> int:
        """How many live rows with a `_seq` after `after` a partition has, from headers as far as they tell."""
        prefix = row_key_prefix(layout.table.table_id, partition)
        start = self.start_after(prefix, after)
        total, cut = 0, 0
        for batch in self.stored(prefix, start=start):
            total += batch.header.rows
            if batch.first_seq <= after:
                early = rows_through(batch, after)
                cut = early - int((self.dead_of(batch.key)["row"] < early).sum())
        return total - cut - sum(self.dead_counts(prefix, start).values()) if total else 0

    def start_after(self, prefix: bytes, after: int) -> bytes | None:
        """The key of the first batch of a partition that may hold a `_seq` after `after`; None for the beginning."""
        batch = self.before(prefix, after) if after else None
        if batch is None:
            return None
        return batch.key if batch.header.last_seq > after else prefix + (after + 1).to_bytes(8, "big")

    def fetch(
        self,
        layout: TableLayout,
        partition: bytes,
        seqs: Sequence[int],
        columns: Sequence[str] | None,
        *,
        with_seq: bool,
        missing: type[StorageError],
    ) -> tuple[pa.Schema, list[Part], Seqs | None]:
        """Rows by `_seq`; those of hot batches own their memory. Raises `missing` for one that is not there.

        The rows come in ascending order of `_seq`; the array says how to take them to have the order asked.
        """
        prefix = row_key_prefix(layout.table.table_id, partition)
        schema = layout.projection(layout.table.schema_version, columns, with_seq=with_seq).schema
        if len(seqs) == 1:
            found = self.locate(prefix, seqs[0])
            if found is None:
                raise missing(_missing(layout, seqs[0]))
            batch, position = found
            plan = layout.projection(batch.header.schema_version, columns, with_seq=with_seq)
            if batch.header.flags:
                return schema, [self._cold_rows(layout, batch, plan, np.array([position]))], None
            row = own_row(self.decode(layout, batch, self), position)
            return schema, [pa.RecordBatch.from_arrays(plan.arrays(row), schema=schema)], None
        wanted = np.asarray(seqs, dtype=np.int64)
        order = wanted.argsort(kind="stable")
        ascending = wanted[order]
        parts: list[Part] = []
        place = 0
        while place < len(ascending):
            found = self.locate(prefix, int(ascending[place]))
            if found is None:
                raise missing(_missing(layout, int(ascending[place])))
            batch = found[0]
            end = int(ascending.searchsorted(batch.header.last_seq, "right"))
            stored = seqs_of(batch.value, batch.header)
            positions = stored.searchsorted(ascending[place:end])
            if not (stored[positions] == ascending[place:end]).all():
                wrong = ascending[place:end][stored[positions] != ascending[place:end]]
                raise missing(_missing(layout, int(wrong[0])))
            plan = layout.projection(batch.header.schema_version, columns, with_seq=with_seq)
            if batch.header.flags:
                parts.append(self._cold_rows(layout, batch, plan, positions))
            else:
                taken = _taken(plan, self.decode(layout, batch, self), pa.array(positions))
                parts.append(pa.RecordBatch.from_arrays(taken, schema=schema))
            place = end
        if (order[1:] > order[:-1]).all():
            return schema, parts, None
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return schema, parts, back

    def _cold_rows(self, layout: TableLayout, batch: Stored, plan: Projection, places: Seqs) -> Part:
        """Rows of a cold batch: taken now when this reader does not wait, or when they are cached."""
        part = ColdPart(self.request(layout, batch), plan, None, places)
        self.statistics.cold(part.request.segment.segment_id, read=True)
        if self.waits:
            return part
        self.decode(layout, batch, None)  # now in the cache, or refused
        return self.cold.read(part)[0]

    def row(
        self,
        layout: TableLayout,
        prefix: bytes,
        seq: int,
        columns: Sequence[str] | None,
        missing: type[StorageError],
    ) -> tuple[object, ...]:
        """One row by `_seq` as storage values, without building Arrow results."""
        found = self.locate(prefix, seq)
        if found is None:
            raise missing(_missing(layout, seq))
        batch, position = found
        plan = layout.projection(batch.header.schema_version, columns)
        return plan.row(self.decode(layout, batch, self), position)

    def load(self, layout: TableLayout, prefix: bytes, seq: int) -> None:
        """Have the row with that `_seq` where reading it takes no file. Raises ColdMiss."""
        found = self.locate(prefix, seq)
        if found is not None and found[0].header.flags:
            self.decode(layout, found[0], None)

    def is_live(self, prefix: bytes, seq: int) -> bool:
        """Whether a row with that `_seq` is stored and not superseded."""
        found = self.locate(prefix, seq)
        return found is not None and found[1] not in self.dead_of(found[0].key)["row"]

    def are_live(self, prefix: bytes, seqs: Sequence[int]) -> list[bool]:
        """`is_live` of each of many rows; a batch is looked into once for all of them."""
        if len(seqs) <= 1:
            return [self.is_live(prefix, seq) for seq in seqs]
        wanted = np.asarray(seqs, dtype=np.int64)
        order = wanted.argsort(kind="stable")
        ascending = wanted[order]
        live = np.zeros(len(ascending), dtype=bool)
        place = 0
        while place < len(ascending):
            batch = self.before(prefix, int(ascending[place]))
            if batch is None or batch.header.last_seq < ascending[place]:
                place += 1
                continue
            end = int(ascending.searchsorted(batch.header.last_seq, "right"))
            stored = seqs_of(batch.value, batch.header)
            positions = stored.searchsorted(ascending[place:end])
            there = stored[positions] == ascending[place:end]
            dead = self.dead_of(batch.key)["row"]
            live[place:end] = there & ~np.isin(positions, dead) if len(dead) else there
            place = end
        answers = np.empty(len(live), dtype=bool)
        answers[order] = live
        found: list[bool] = answers.tolist()
        return found

    def find(self, prefix: bytes, keys: Sequence[bytes]) -> list[int | None]:
        """Current `_seq` per encoded key of one index."""
        return self.find_full([prefix + key for key in keys])

    def find_full(self, keys: Sequence[bytes]) -> list[int | None]:
        """Current `_seq` per whole `keys` key."""
        get, db = self.txn.get, self.dbs.keys
        if len(keys) < 16:
            return [None if (v := get(key, db=db)) is None else int.from_bytes(v, "big") for key in keys]
        with self.txn.cursor(db=db) as cursor:
            found = {bytes(k): int.from_bytes(v, "big") for k, v in cursor.getmulti(list(keys))}
        return [found.get(key) for key in keys]

    def find_range(
        self, prefix: bytes, low: bytes | None, high: bytes | None, *, limit: int | None, reverse: bool
    ) -> list[tuple[bytes, int]]:
        """(whole key, `_seq`) of the keys of one index from `low` (included) to `high` (excluded), in key order."""
        start = prefix + (low or b"")
        stop = prefix_end(prefix) if high is None else prefix + high
        cursor = self.txn.cursor(db=self.dbs.keys)
        found: list[tuple[bytes, int]] = []
        if not reverse:
            if cursor.set_range(start):
                for raw, value in cursor.iternext():
                    key = bytes(raw)
                    if (stop is not None and key >= stop) or (limit is not None and len(found) >= limit):
                        break
                    found.append((key, int.from_bytes(value, "big")))
            return found
        more = cursor.last() if stop is None or not cursor.set_range(stop) else cursor.prev()
        while more and (limit is None or len(found) < limit):
            key = bytes(cursor.key())
            if key < start:
                break
            found.append((key, int.from_bytes(cursor.value(), "big")))
            more = cursor.prev()
        return found

    def partitions(self, table_id: int, after: bytes = b"", limit: int | None = None) -> list[bytes]:
        """The partitions of a table that hold batches, behind `after`, by a jump from one to the next."""
        prefix = table_prefix(table_id)
        cursor = self.txn.cursor(db=self.dbs.rows)
        found: list[bytes] = []
        at: bytes | None = prefix_end(prefix + after) if after else prefix
        while at is not None and (limit is None or len(found) < limit) and cursor.set_range(at):
            key = bytes(cursor.key())
            if not key.startswith(prefix):
                break
            partition = parse_row_key(key)[1]
            found.append(partition)
            at = prefix_end(prefix + partition)
        return found

    def user_of(self, partition: bytes) -> str:
        """The user id of a partition; long ones stand in `meta`."""
        user = parse_partition(partition)
        if user is None:
            value = self.txn.get(PARTITION_NAME + partition, db=self.dbs.meta)
            if value is None:
                raise StorageCorrupt("the name of a long partition is missing")
            user = bytes(value).decode()
        return user


PARTITION_NAME = b"partition\0"


def rows_through(batch: Stored, seq: int) -> int:
    """How many rows of a batch have a `_seq` up to this one."""
    return int(seqs_of(batch.value, batch.header).searchsorted(seq, "right"))


def place_of(key: bytes, layout: TableLayout | None = None, header: Header | None = None) -> str:
    """The table and the range of a batch, for messages."""
    try:
        table_id, _, first = parse_row_key(key)
    except ValueError:
        return f"key {key.hex()}"
    name = f"table {layout.table.full_name}" if layout is not None else f"table id {table_id}"
    return f"{name}, rows _seq {first} to {header.last_seq if header is not None else '?'}"


def _decode_dead(batch_key: bytes, value: memoryview) -> Entries:
    try:
        return decode_dead(value)
    except StorageCorrupt as error:
        raise StorageCorrupt(f"{place_of(batch_key)}: {error}") from None


def _taken(plan: Projection, batch: pa.RecordBatch, places: pa.Array) -> list[pa.Array]:
    """The projected columns of some rows of a batch; what is not projected is not taken either."""
    if plan.plain is not None:
        return [batch.column(position).take(places) for position in plan.plain]
    return plan.arrays(batch.take(places))


def _missing(layout: TableLayout, seq: int) -> str:
    return f"the row with _seq {seq} of table {layout.table.full_name} is not stored"
