"""Staging changes over another view: the common part of WriteTransaction and Transaction.

Inserts, replacements and deletes are checked against the base and against what is staged already, then staged with
`_seq`s of their own. Each call is all or nothing: it checks everything before it stages anything, so that a
caller may catch DuplicateKey or WriteConflict and go on.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NoReturn

import numpy as np
import pyarrow as pa

from storage.batches import MAX_ROWS
from storage.catalog import TableDef
from storage.contiguous import one_array
from storage.errors import DuplicateKey, SchemaChanged, WriteConflict
from storage.keys import encode_columns, index_key_prefix
from storage.layout import ROW_ID, Index, SecondaryIndex, TableLayout, layout_of, storage_value
from storage.secondary import EntryKeys, entry_keys, row_entries, suffixed
from storage.staged_reads import StagedReads
from storage.staging import BatchSegment, Row, StagedPartition, batch_of, stored_columns


class StagedView(StagedReads):
    """Changes over a base view, and the view with them."""

    def expect_schema(self, table: TableDef) -> TableDef:
        """The present definition, if it is the schema version that the caller planned on; else SchemaChanged."""
        present = self.catalog.table_by_id(table.table_id)
        if present is None:
            raise SchemaChanged(f"table {table.full_name} was dropped")
        if present is not table and (
            present.schema_version != table.schema_version or present.maintained != table.maintained
        ):
            raise SchemaChanged(f"table {table.full_name} was altered")
        return present

    def insert_row(self, table: TableDef, partition: str, row: Row, key: bytes | None) -> int:
        """Stage one row (storage values in column order). `key` is its encoded primary key, None to let it be built."""
        layout = layout_of(table)
        staged = self._staged(table, partition)
        claims = self._row_claims(layout, staged, row, key) if layout.indexes else ()
        for index, full in claims:
            if self._current(full):
                self._duplicate(index, tuple(row[p] for p in index.positions), 0, in_batch=False)
        if not layout.secondary:
            return self._stage_row(layout, staged, row, claims)
        entries = row_entries(layout.secondary, staged, row)
        for place, (full, bare) in enumerate(entries):
            if bare and self._current(full):
                held = layout.secondary[place]
                self._duplicate(held, tuple(row[p] for p in held.positions), 0, in_batch=False)
        seq = self._stage_row(layout, staged, row, claims)
        self._claim([full if bare else suffixed(full, seq) for full, bare in entries], [seq] * len(entries))
        return seq

    def replace_row(self, table: TableDef, partition: str, old_seq: int, row: Row, key: bytes | None) -> int:
        """Stage one row that supersedes `old_seq`; its key may change. Raises WriteConflict or DuplicateKey."""
        layout = layout_of(table)
        if layout.primary is None or layout.uniques or layout.secondary:
            return self._replace_as_table(layout, partition, old_seq, row)
        staged = self._staged(table, partition)
        claims = self._row_claims(layout, staged, row, key)
        if self._current(claims[0][1]) != old_seq:
            return self._replace_as_table(layout, partition, old_seq, row)
        seq = self._stage_row(layout, staged, row, claims)
        self._supersede(staged, old_seq, seq)
        return seq

    def _replace_as_table(self, layout: TableLayout, partition: str, old_seq: int, row: Row) -> int:
        columns = [pa.array([value], wanted) for value, wanted in zip(row, layout.types, strict=True)]
        rows = pa.Table.from_arrays(columns, schema=layout.table.arrow_schema)
        return self.replace(layout.table, partition, [old_seq], rows)[0]

    def insert(self, table: TableDef, partition: str, rows: pa.Table) -> tuple[int, int]:
        """Stage rows (all columns by name). Returns their first and last `_seq`; raises DuplicateKey."""
        layout = layout_of(table)
        staged = self._staged(table, partition)
        arrays = stored_columns(layout, rows)
        claims: list[bytes] = []
        offsets: list[int] = []
        for index in layout.indexes:
            keys, places = index_keys(index, arrays, self._index_prefix(table, partition, index.index_id))
            self._check_distinct(index, keys, places, arrays)
            for place, found in zip(places, self.find_full(keys), strict=True):
                if found is not None:
                    self._duplicate(index, key_values(index, arrays, place), place, in_batch=False)
            claims += keys
            offsets += places
        entries = self._free_entries(layout, staged, arrays, frozenset())
        first = self._stage_rows(layout, staged, arrays, rows.num_rows, None)
        self._claim(claims, [first + offset for offset in offsets])
        self._claim_entries(entries, range(first, first + rows.num_rows))
        return first, first + rows.num_rows - 1

    def replace(self, table: TableDef, partition: str, old_seqs: Sequence[int], rows: pa.Table) -> tuple[int, int]:
        """Stage rows; row i supersedes `old_seqs[i]`. Keys may change. Raises WriteConflict or DuplicateKey."""
        if len(old_seqs) != rows.num_rows:
            raise ValueError("replace needs one old _seq for each row")
        layout = layout_of(table)
        staged = self._staged(table, partition)
        arrays = stored_columns(layout, rows)
        if len(set(old_seqs)) != len(old_seqs):
            raise WriteConflict(f"a row of table {table.full_name} is replaced twice")
        claims: list[bytes] = []
        offsets: list[int] = []
        released: list[bytes] = []
        if layout.primary is None:
            self._expect_live(table, partition, old_seqs)
        for index in layout.indexes:
            prefix = self._index_prefix(table, partition, index.index_id)
            keys, places = index_keys(index, arrays, prefix)
            self._check_distinct(index, keys, places, arrays)
            current = self.find_full(keys)
            kept = {place for place, seq in zip(places, current, strict=True) if seq == old_seqs[place]}
            changed = [place for place in range(len(old_seqs)) if place not in kept]
            free: set[bytes] = set()
            if changed:
                free = set(self._old_keys(table, partition, index, prefix, [old_seqs[p] for p in changed]))
            for key, place, seq in zip(keys, places, current, strict=True):
                if place not in kept and seq is not None and key not in free:
                    self._duplicate(index, key_values(index, arrays, place), place, in_batch=False)
            taken = set(keys)
            released += [key for key in free if key not in taken]
            claims += keys
            offsets += places
        entries = self._free_entries(layout, staged, arrays, frozenset(old_seqs))
        released += self._held_entries(layout, staged, table, partition, old_seqs)
        row_ids = None
        if layout.has_row_id:
            row_ids = self.fetch(table, partition, old_seqs, [ROW_ID]).column(0).combine_chunks()
        first = self._stage_rows(layout, staged, arrays, rows.num_rows, row_ids)
        self._claim(released, [0] * len(released))
        self._claim(claims, [first + offset for offset in offsets])
        self._claim_entries(entries, range(first, first + rows.num_rows))
        for offset, old in enumerate(old_seqs):
            self._supersede(staged, old, first + offset)
        return first, first + rows.num_rows - 1

    def delete(self, table: TableDef, partition: str, seqs: Sequence[int]) -> None:
        """Stage the end of rows; each takes one `_seq`. Raises WriteConflict for one that is not current."""
        layout = layout_of(table)
        staged = self._staged(table, partition)
        if len(set(seqs)) != len(seqs):
            raise WriteConflict(f"a row of table {table.full_name} is deleted twice")
        released: list[bytes] = []
        if layout.primary is None:
            self._expect_live(table, partition, seqs)
        for index in layout.indexes:
            prefix = self._index_prefix(table, partition, index.index_id)
            released += self._old_keys(table, partition, index, prefix, seqs)
        released += self._held_entries(layout, staged, table, partition, seqs)
        first = self._take_seqs(len(seqs))
        self._claim(released, [0] * len(released))
        for offset, old in enumerate(seqs):
            self._supersede(staged, old, first + offset)

    def _staged(self, table: TableDef, partition: str) -> StagedPartition:
        key = (table.table_id, partition)
        staged = self._partitions.get(key)
        if staged is None:
            staged = self._partitions[key] = StagedPartition(table.table_id, partition)
        if staged.mark != self._mark:
            self.expect_schema(table)
            self._undo.positions.append((staged, staged.position()))
            staged.mark = self._mark
        return staged

    def _current(self, full: bytes) -> int | None:
        return self.find_full((full,))[0]

    def _row_claims(
        self, layout: TableLayout, staged: StagedPartition, row: Row, key: bytes | None
    ) -> Sequence[tuple[Index, bytes]]:
        claims = []
        if layout.primary is not None:
            primary = layout.primary
            if key is None:
                key = primary.encode([row[p] for p in primary.positions])
            claims.append((primary, staged.key_prefix + key))
        for index in layout.uniques:
            values = [row[p] for p in index.positions]
            if None not in values:
                prefix = index_key_prefix(staged.table_id, staged.partition, index.index_id)
                claims.append((index, prefix + index.encode(values)))
        return claims

    def _stage_row(
        self, layout: TableLayout, staged: StagedPartition, row: Row, claims: Sequence[tuple[Index, bytes]]
    ) -> int:
        seq = self._take_seqs(1)
        overlay, undo = self._overlay, self._undo.keys
        for _, full in claims:
            undo.append((full, overlay.get(full)))
            overlay[full] = seq
        segment = staged.row_segment(layout)
        if layout.has_row_id:
            segment.row_ids.append(seq)
        segment.seqs.append(seq)
        segment.rows.append(row)
        return seq

    def _stage_rows(
        self, layout: TableLayout, staged: StagedPartition, arrays: list[pa.Array], count: int, row_ids: pa.Array | None
    ) -> int:
        first = self._take_seqs(count)
        for start in range(0, count, MAX_ROWS):
            size = min(MAX_ROWS, count - start)
            part = arrays if size == count else [array.slice(start, size) for array in arrays]
            ids = row_ids if row_ids is None or size == count else row_ids.slice(start, size)
            batch = batch_of(layout, part, first + start, size, ids)
            staged.add_batch(BatchSegment(layout, batch, range(first + start, first + start + size)))
        return first

    def _take_seqs(self, count: int) -> int:
        first = self._next_seq
        self._next_seq = first + count
        return first

    def _claim(self, keys: Sequence[bytes], seqs: Sequence[int]) -> None:
        overlay = self._overlay
        self._undo.keys += [(key, overlay.get(key)) for key in keys]
        overlay.update(zip(keys, seqs, strict=True))

    def _supersede(self, staged: StagedPartition, old: int, by: int) -> None:
        staged.superseded[old] = by
        self._undo.superseded.append((staged, old))

    def _old_keys(
        self, table: TableDef, partition: str, index: Index, prefix: bytes, seqs: Sequence[int]
    ) -> list[bytes]:
        """The keys that current rows hold in an index. Raises WriteConflict for a row that is not current."""
        rows = self.fetch(table, partition, seqs, index.names)
        arrays = [rows.column(name).combine_chunks() for name in index.names]
        keys, places = index_keys(index, arrays, prefix, by_position=False)
        for seq, place in zip(self.find_full(keys), places, strict=True):
            if seq != seqs[place]:
                raise WriteConflict(f"a row of table {table.full_name} was changed meanwhile")
        return keys

    # Secondary indexes (`storage.secondary`)

    def _free_entries(
        self, layout: TableLayout, staged: StagedPartition, arrays: list[pa.Array], replaced: Container[int]
    ) -> list[EntryKeys]:
        """The entries of new rows. Raises DuplicateKey when another row than the replaced ones holds a unique one."""
        found = [entry_keys(index, arrays, staged) for index in layout.secondary]
        for entries in found:
            keys = entries.bare_keys
            if not keys:
                continue
            self._check_distinct(entries.of, keys, entries.bare, arrays)
            for place, seq in zip(entries.bare, self.find_full(keys), strict=True):
                if seq is not None and seq not in replaced:
                    self._duplicate(entries.of, key_values(entries.of, arrays, place), place, in_batch=False)
        return found

    def _held_entries(
        self, layout: TableLayout, staged: StagedPartition, table: TableDef, partition: str, seqs: Sequence[int]
    ) -> list[bytes]:
        """The entries that rows hold. While an index is built some rows have none yet, and others may hold theirs."""
        if not layout.secondary or not seqs:
            return []
        names = list(dict.fromkeys(name for index in layout.secondary for name in index.names))
        rows = self.fetch(table, partition, seqs, names)
        columns = {name: one_array(rows.column(name)) for name in names}
        held: list[bytes] = []
        for index in layout.secondary:
            entries = entry_keys(index, columns, staged)
            held += entries.suffixed_keys(seqs)
            current = self.find_full(entries.bare_keys)
            held += [
                key
                for key, place, seq in zip(entries.bare_keys, entries.bare, current, strict=True)
                if seq == seqs[place]
            ]
        return held

    def _claim_entries(self, found: Sequence[EntryKeys], seqs: Sequence[int]) -> None:
        for entries in found:
            self._claim(*entries.claims(seqs))

    def _expect_live(self, table: TableDef, partition: str, seqs: Sequence[int]) -> None:
        if not all(self.live(table, partition, seqs)):
            raise WriteConflict(f"a row of table {table.full_name} was changed meanwhile")

    def _check_distinct(
        self, index: Index | SecondaryIndex, keys: Sequence[bytes], places: Sequence[int], arrays: Sequence[pa.Array]
    ) -> None:
        if len(set(keys)) == len(keys):
            return
        seen: set[bytes] = set()
        for key, place in zip(keys, places, strict=True):
            if key in seen:
                self._duplicate(index, key_values(index, arrays, place), place, in_batch=True)
            seen.add(key)

    @staticmethod
    def _duplicate(index: Index | SecondaryIndex, values: tuple[object, ...], row: int, *, in_batch: bool) -> NoReturn:
        name = index.name if isinstance(index, SecondaryIndex) else ""
        primary = index.index_id == 0
        raise DuplicateKey(index.names, values, row=row, in_batch=in_batch, primary=primary, index=name)


def index_keys(
    index: Index, arrays: Sequence[pa.Array], prefix: bytes, *, by_position: bool = True
) -> tuple[list[bytes], Sequence[int]]:
    """The whole keys of rows in one index and the places of those rows: rows with a NULL have no key."""
    columns = [arrays[p] for p in index.positions] if by_position else list(arrays)
    places: Sequence[int] = range(len(columns[0]))
    if index.index_id and any(column.null_count for column in columns):
        valid = np.ones(len(columns[0]), dtype=bool)
        for column in columns:
            valid &= column.is_valid().to_numpy(zero_copy_only=False)
        mask = pa.array(valid)
        columns = [column.filter(mask) for column in columns]
        places = np.flatnonzero(valid).tolist()
    return [prefix + key for key in encode_columns(index.types, columns)], places


def key_values(index: Index | SecondaryIndex, arrays: Sequence[pa.Array], place: int) -> tuple[object, ...]:
    """The storage values of one row in an index."""
    return tuple(storage_value(arrays[p][place]) for p in index.positions)
