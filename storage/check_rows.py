"""The part of the check command that walks one partition: batches, dead rows, history and the key index.

It returns sentences and never raises for damage: what cannot be read is reported, and the walk goes on behind it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.batches import MAX_ROWS, Seqs, decode_batch, read_header, seqs_of, verify
from storage.catalog import TableDef
from storage.cold_statistics import column_statistics
from storage.cold_stubs import read_stats
from storage.dead import EMPTY, Entries, chunk_number, decode_dead
from storage.environment import Txn
from storage.errors import StorageCorrupt, StorageUnavailable
from storage.keys import index_key_prefix, prefix_end
from storage.layout import BY, SEQ, layout_of
from storage.reading import Reader, Stored, place_of
from storage.secondary import entry_keys_under
from storage.staged_view import index_keys

log = logging.getLogger("headrace.storage")

Problem = tuple[str, str, str]
"""Structure, place, sentence."""


class Walked(NamedTuple):
    """What a partition holds, as far as it could be read."""

    seqs: Seqs
    """Every `_seq` in `rows`, ascending."""
    dead: Seqs
    """Those that are superseded."""
    dead_by: Seqs
    """What superseded them."""
    history: Seqs
    history_by: Seqs


class PartitionCheck:
    """Walks one partition of one table."""

    def __init__(self, reader: Reader, table: TableDef, prefix: bytes, next_seq: int) -> None:
        self.reader = reader
        self.layout = layout_of(table)
        self.prefix = prefix
        self.next_seq = next_seq
        self.problems: list[Problem] = []
        self.unread = False
        self.finished = [index for index in self.layout.secondary if index.ready]
        ids = [*(i.index_id for i in self.layout.indexes), *(i.index_id for i in self.finished)]
        self.expected_keys = dict.fromkeys(ids, 0)

    def run(self) -> Walked:
        """Walk `rows` with its dead rows and keys, then `history`."""
        dead = self._dead_chunks()
        all_seqs: list[Seqs] = []
        dead_seqs: list[Seqs] = []
        dead_by: list[Seqs] = []
        for key, seqs, batch in self._batches("rows"):
            entries = dead.pop(key, EMPTY)
            entries = self._check_dead(key, seqs, entries)
            all_seqs.append(seqs)
            dead_seqs.append(seqs[entries["row"]])
            dead_by.append(entries["seq"].astype(np.int64))
            if batch is not None:
                mask = np.ones(len(seqs), dtype=bool)
                mask[entries["row"]] = False
                self._check_keys(key, batch, seqs, mask)
        for key in dead:
            if self.reader.txn.get(key, db=self.reader.dbs.rows) is None:
                self._report("dead", key, "dead rows of a batch that does not exist")
        history_seqs: list[Seqs] = []
        history_by: list[Seqs] = []
        for key, seqs, batch in self._batches("history"):
            if batch is None:
                continue
            by = batch.column(batch.schema.get_field_index(BY)).to_numpy()
            if (by <= seqs).any():
                self._report("history", key, "a row was superseded by a `_seq` that is not newer than its own")
            history_seqs.append(seqs)
            history_by.append(by.astype(np.int64))
        self._check_key_counts()
        order = np.concatenate([*dead_seqs, EMPTY["seq"].astype(np.int64)]).argsort()
        walked = Walked(
            _joined(all_seqs),
            _joined(dead_seqs)[order],
            _joined(dead_by)[order],
            _joined(history_seqs),
            _joined(history_by),
        )
        both = np.intersect1d(walked.seqs, walked.history)
        if len(both):
            self._report("history", self.prefix, f"{len(both)} rows stand both in rows and in history, first {both[0]}")
        return walked

    def _report(self, structure: str, key: bytes, message: str) -> None:
        self.problems.append((structure, place_of(key, self.layout), message))

    def _batches(self, structure: str) -> Iterator[tuple[bytes, Seqs, pa.RecordBatch | None]]:
        """Every batch whose header can be read, with what is wrong reported."""
        history = structure == "history"
        db = self.reader.dbs.history if history else self.reader.dbs.rows
        before = 0
        for key, value in entries_under(self.reader.txn, db, self.prefix):
            first = int.from_bytes(key[-8:], "big")
            try:
                header = read_header(value)
            except StorageCorrupt as error:
                self._report(structure, key, str(error))
                continue
            if not verify(value, header):
                self._report(structure, key, f"the checksum of rows _seq {first} to {header.last_seq} does not match")
                before = max(before, header.last_seq)
                continue
            seqs = seqs_of(value, header).astype(np.int64)
            if header.rows > MAX_ROWS:
                self._report(structure, key, f"a batch of {header.rows} rows is larger than {MAX_ROWS}")
            if seqs[0] != first or seqs[-1] != header.last_seq:
                self._report(structure, key, "the key or the header does not agree with the rows' `_seq`")
            if (seqs[1:] <= seqs[:-1]).any():
                self._report(structure, key, "`_seq` does not ascend")
            if first <= before:
                self._report(structure, key, f"overlaps the batch before it, which ends at _seq {before}")
            if seqs[-1] >= self.next_seq:
                self._report(structure, key, f"_seq {seqs[-1]} is not below next_seq {self.next_seq}")
            before = max(before, header.last_seq)
            yield key, seqs, self._decoded(structure, Stored(key, value, header), seqs)

    def _decoded(self, structure: str, stored: Stored, seqs: Seqs) -> pa.RecordBatch | None:
        key, value, header = stored
        if header.flags:
            return self._cold(stored)
        try:
            schema = self.layout.stored_schema(header.schema_version, history=structure == "history")
            batch = decode_batch(bytes(value), schema, None)
            batch.validate(full=True)
        except (StorageCorrupt, pa.ArrowException, OSError) as error:
            self._report(structure, key, str(error))
            return None
        if not np.array_equal(batch.column(batch.schema.get_field_index(SEQ)).to_numpy(), seqs):
            self._report(structure, key, "the header's `_seq` offset does not point at the `_seq` column")
        return batch

    def _cold(self, stored: Stored) -> pa.RecordBatch | None:
        """A cold batch, with the `_seq`s that its file has; None when it cannot be read, which is reported."""
        key, value, header = stored
        try:
            request = self.reader.request(self.layout, stored)
            columns = self.reader.cold.columns(request, range(len(request.schema)))
            batch = pa.RecordBatch.from_arrays([columns[place] for place in sorted(columns)], schema=request.schema)
            batch.validate(full=True)
            self._check_statistics(stored, batch)
        except StorageUnavailable as error:
            self.unread = True
            log.warning("%s was not checked: %s", place_of(key, self.layout, header), error)
            return None
        except (StorageCorrupt, pa.ArrowException) as error:
            self.unread = True
            self.problems.append(("segments", place_of(key, self.layout, header), str(error)))
            return None
        if not np.array_equal(batch.column(0).to_numpy(), seqs_of(value, header)):
            self._report("segments", key, "the file and the stub do not agree on the rows' `_seq`")
        return batch

    def _check_statistics(self, stored: Stored, batch: pa.RecordBatch) -> None:
        columns = self.layout.columns_at(stored.header.schema_version)
        found = column_statistics(columns, batch.columns[self.layout.first_column :])
        if found != read_stats(stored.value, stored.header):
            self._report("segments", stored.key, "the stub's statistics are not those of the rows")

    def _dead_chunks(self) -> dict[bytes, Entries]:
        found: dict[bytes, list[Entries]] = {}
        for key, value in entries_under(self.reader.txn, self.reader.dbs.dead, self.prefix):
            try:
                entries = decode_dead(value)
            except StorageCorrupt as error:
                self._report("dead", key[:-2], str(error))
                continue
            if chunk_number(key) != len(found.get(key[:-2], ())):
                self._report("dead", key[:-2], "a chunk of dead rows is missing")
            found.setdefault(key[:-2], []).append(entries)
        return {key: np.concatenate(chunks) for key, chunks in found.items()}

    def _check_dead(self, key: bytes, seqs: Seqs, entries: Entries) -> Entries:
        """The entries that make sense."""
        inside = entries[entries["row"] < len(seqs)]
        if len(inside) < len(entries):
            self._report("dead", key, f"dead row {entries['row'].max()} lies outside a batch of {len(seqs)} rows")
        if len(np.unique(inside["row"])) < len(inside):
            self._report("dead", key, "a row is marked dead twice")
            inside = inside[np.unique(inside["row"], return_index=True)[1]]
        by = inside["seq"].astype(np.int64)
        if (by <= seqs[inside["row"]]).any() or (by >= self.next_seq).any():
            self._report("dead", key, "a row is superseded by a `_seq` that is older than itself or not given yet")
        return inside

    def _check_keys(self, key: bytes, batch: pa.RecordBatch, seqs: Seqs, live: npt.NDArray[np.bool_]) -> None:
        """Every live row stands in each index under its key with its `_seq`."""
        if not (self.layout.indexes or self.finished) or not live.any():
            return
        version = read_header(self.reader.txn.get(key, db=self.reader.dbs.rows) or b"").schema_version
        arrays = self.layout.projection(version, None).arrays(batch.filter(pa.array(live)))
        mine = seqs[live]
        for index in self.layout.indexes:
            prefix = self._index_prefix(index.index_id)
            try:
                keys, places = index_keys(index, arrays, prefix)
            except ValueError as error:
                self._report("keys", key, f"index {index.index_id} cannot be built from the rows: {error}")
                continue
            self._check_found(key, index.index_id, keys, mine[np.asarray(places, dtype=np.int64)])
        for secondary in self.finished:
            try:
                entries = entry_keys_under(secondary, arrays, self._index_prefix(secondary.index_id))
            except ValueError as error:
                self._report("keys", key, f"index {secondary.name} cannot be built from the rows: {error}")
                continue
            keys, holders = entries.claims(mine.tolist())
            self._check_found(key, secondary.index_id, keys, np.asarray(holders, dtype=np.int64))

    def _check_found(self, key: bytes, index_id: int, keys: list[bytes], seqs: Seqs) -> None:
        """Each key is there and points to its row."""
        self.expected_keys[index_id] += len(keys)
        for found, seq in zip(self.reader.find_full(keys), seqs.tolist(), strict=True):
            if found != seq:
                what = "has no key" if found is None else f"stands under a key that points to _seq {found}"
                self._report("keys", key, f"the live row with _seq {seq} {what} in index {index_id}")

    def _index_prefix(self, index_id: int) -> bytes:
        return index_key_prefix(self.layout.table.table_id, self.prefix[4:], index_id)

    def _check_key_counts(self) -> None:
        """No index has a key too many (every live row has its own, so equal counts prove it)."""
        for index_id, expected in self.expected_keys.items():
            if self.unread:
                return  # rows that could not be looked at have keys, too
            prefix = self._index_prefix(index_id)
            count = 0
            for _ in entries_under(self.reader.txn, self.reader.dbs.keys, prefix):
                count += 1
            if count != expected:
                self._report("keys", self.prefix, f"index {index_id} has {count} keys for {expected} live rows")


def entries_under(txn: Txn, db: object, prefix: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """All entries of a sub-database under a prefix."""
    cursor = txn.cursor(db=db)  # type: ignore[arg-type]
    stop = prefix_end(prefix) if prefix else None
    if not (cursor.set_range(prefix) if prefix else cursor.first()):
        return
    for raw, value in cursor.iternext():
        key = bytes(raw)
        if stop is not None and key >= stop:
            return
        yield key, value


def _joined(parts: list[Seqs]) -> Seqs:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
