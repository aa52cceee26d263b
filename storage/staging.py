"""What the works of one group have staged: rows, key changes and superseded rows, with an undo per work.

Nothing of it is in LMDB yet. Rows stand in segments: runs of row tuples, or Arrow batches, each ascending in `_seq`.
Key changes stand in one overlay for the group: whole `keys` key -> `_seq`, 0 meaning deleted. A work that fails is
undone by truncating the segments to where the work began and by putting overlay entries back.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterable, Sequence

import numpy as np
import pyarrow as pa

from storage.batches import Seqs, own_row, without
from storage.catalog import TableDef
from storage.contiguous import one_array
from storage.keys import index_key_prefix, partition_key, row_key_prefix
from storage.layout import TableLayout, layout_of

Row = tuple[object, ...]


class RowSegment:
    """Row tuples of storage values in column order, with their `_seq` (and row ids, when the table has them)."""

    __slots__ = ("_built", "layout", "row_ids", "rows", "seqs")

    def __init__(self, layout: TableLayout) -> None:
        self.layout = layout
        self.seqs: list[int] = []
        self.row_ids: list[int] = []
        self.rows: list[Row] = []
        self._built: pa.RecordBatch | None = None

    def batch(self) -> pa.RecordBatch:
        """All rows as a stored batch (kept until rows are added)."""
        if self._built is None or self._built.num_rows != len(self.rows):
            self._built = build_batch(self.layout, self.seqs, self.row_ids, self.rows)
        return self._built

    def built(self, batch: pa.RecordBatch) -> None:
        """The rows were built together with others."""
        self._built = batch

    def part(self, positions: Sequence[int]) -> pa.RecordBatch:
        """Some rows as a stored batch that owns its memory."""
        row_ids = [self.row_ids[p] for p in positions] if self.row_ids else []
        return build_batch(self.layout, [self.seqs[p] for p in positions], row_ids, [self.rows[p] for p in positions])

    def truncate(self, count: int) -> None:
        """Forget the rows after the first `count`."""
        del self.seqs[count:], self.rows[count:], self.row_ids[count:]
        self._built = None


class BatchSegment:
    """An Arrow batch in stored form (`_seq`, `_row_id`, columns by id)."""

    __slots__ = ("_batch", "layout", "seqs")

    def __init__(self, layout: TableLayout, batch: pa.RecordBatch, seqs: Sequence[int]) -> None:
        self.layout = layout
        self.seqs = seqs
        self._batch = batch

    def batch(self) -> pa.RecordBatch:
        """All rows as a stored batch."""
        return self._batch

    def part(self, positions: Sequence[int]) -> pa.RecordBatch:
        """Some rows as a stored batch that owns its memory."""
        if len(positions) == 1:
            return own_row(self._batch, positions[0])
        return self._batch.take(pa.array(positions, pa.int64()))


Segment = RowSegment | BatchSegment


class StagedPartition:
    """One partition of one table: what the group adds to it and what it supersedes in it."""

    __slots__ = (
        "key_prefix", "mark", "open", "partition", "row_prefix", "segments", "superseded", "table_id", "user",
    )  # fmt: skip

    def __init__(self, table_id: int, user: str) -> None:
        self.table_id = table_id
        self.user = user
        self.partition = partition_key(user)
        self.row_prefix = row_key_prefix(table_id, self.partition)
        self.key_prefix = index_key_prefix(table_id, self.partition, 0)
        self.segments: list[Segment] = []
        self.open: RowSegment | None = None
        self.superseded: dict[int, int] = {}
        self.mark = -1

    def row_segment(self, layout: TableLayout) -> RowSegment:
        """The segment that takes more row tuples of that layout."""
        segment = self.open
        if segment is None or segment.layout is not layout:
            segment = self.open = RowSegment(layout)
            self.segments.append(segment)
        return segment

    def add_batch(self, segment: BatchSegment) -> None:
        """Stage an Arrow batch."""
        self.segments.append(segment)
        self.open = None

    def position(self) -> tuple[int, int]:
        """Where the staging stands now, for `rewind`."""
        return len(self.segments), len(self.segments[-1].seqs) if self.segments else 0

    def rewind(self, position: tuple[int, int]) -> None:
        """Forget everything staged after `position`."""
        count, rows = position
        del self.segments[count:]
        self.open = None
        if self.segments:
            last = self.segments[-1]
            if isinstance(last, RowSegment):
                last.truncate(rows)
                self.open = last

    def locate(self, seq: int) -> tuple[Segment, int] | None:
        """The segment and place of a staged row."""
        for segment in reversed(self.segments):
            seqs = segment.seqs
            if seqs and seqs[0] <= seq:
                place = bisect_right(seqs, seq) - 1
                return (segment, place) if seqs[place] == seq else None
        return None

    def holds(self, seq: int) -> bool:
        """Whether a row with that `_seq` is staged (superseded or not)."""
        return self.locate(seq) is not None

    def fetch(
        self, layout: TableLayout, seqs: Sequence[int], columns: Sequence[str] | None, with_seq: bool
    ) -> list[pa.RecordBatch]:
        """Staged rows by `_seq` in the order asked. Every one of them is staged."""
        pieces = []
        for seq in seqs:
            found = self.locate(seq)
            assert found is not None
            segment, place = found
            plan = layout.projection(segment.layout.table.schema_version, columns, with_seq=with_seq)
            pieces.append(plan.batch(segment.part([place])))
        return pieces

    def row(self, layout: TableLayout, seq: int, columns: Sequence[str] | None) -> tuple[object, ...] | None:
        """The storage values of a staged row, None when no such row is staged."""
        found = self.locate(seq)
        if found is None:
            return None
        segment, place = found
        if columns is None and isinstance(segment, RowSegment) and segment.layout is layout:
            return segment.rows[place]
        plan = layout.projection(segment.layout.table.schema_version, columns)
        return plan.row(segment.part([place]), 0)

    def scan(
        self, layout: TableLayout, columns: Sequence[str] | None, with_seq: bool, also_dead: Container[int] = ()
    ) -> list[pa.RecordBatch]:
        """The staged rows that are live and not in `also_dead`, in `_seq` order."""
        pieces: list[pa.RecordBatch] = []
        for segment in self.segments:
            if not len(segment.seqs):
                continue
            plan = layout.projection(segment.layout.table.schema_version, columns, with_seq=with_seq)
            batch = plan.batch(segment.batch())
            gone = [place for place, seq in enumerate(segment.seqs) if seq in self.superseded or seq in also_dead]
            pieces += without(batch, np.array(gone, dtype=np.int64)) if gone else [batch]
        return pieces

    def live_rows(self, table: TableDef) -> pa.Table:
        """The staged live rows: `_seq`, then the user columns by name."""
        layout = layout_of(table)
        schema = layout.projection(table.schema_version, None, with_seq=True).schema
        return pa.Table.from_batches(self.scan(layout, None, True), schema)

    def count(self) -> int:
        """Staged live rows minus superseded stored ones."""
        return sum(len(s.seqs) for s in self.segments) - len(self.superseded)

    def superseded_array(self) -> Seqs:
        """The superseded `_seq`s, ascending."""
        return np.fromiter(sorted(self.superseded), dtype=np.int64, count=len(self.superseded))


class Undo:
    """How to take one work's staging back."""

    __slots__ = ("keys", "positions", "superseded")

    def __init__(self) -> None:
        self.keys: list[tuple[bytes, int | None]] = []
        self.positions: list[tuple[StagedPartition, tuple[int, int]]] = []
        self.superseded: list[tuple[StagedPartition, int]] = []

    def clear(self) -> None:
        """The work succeeded: nothing to take back."""
        self.keys.clear()
        self.positions.clear()
        self.superseded.clear()

    def roll_back(self, overlay: dict[bytes, int]) -> None:
        """The work failed: put everything back, newest first."""
        for key, previous in reversed(self.keys):
            if previous is None:
                del overlay[key]
            else:
                overlay[key] = previous
        for staged, old in reversed(self.superseded):
            del staged.superseded[old]
        for staged, position in reversed(self.positions):
            staged.rewind(position)
            staged.mark = -1
        self.clear()


def build_batch(
    layout: TableLayout, seqs: Sequence[int], row_ids: Sequence[int], rows: Sequence[Row]
) -> pa.RecordBatch:
    """Row tuples as a stored batch of the layout's schema version."""
    columns: list[pa.Array] = [pa.array(seqs, pa.int64())]
    if layout.has_row_id:
        columns.append(pa.array(row_ids, pa.int64()))
    columns += map(pa.array, zip(*rows, strict=True), layout.types)
    return pa.RecordBatch.from_arrays(columns, schema=layout.schema)


def stored_columns(layout: TableLayout, rows: pa.Table) -> list[pa.Array]:
    """The user columns of a table by name, one array each, with the layout's types."""
    arrays = []
    for name, wanted in zip(layout.names, layout.types, strict=True):
        array = one_array(rows.column(name))
        arrays.append(array if array.type == wanted else array.cast(wanted))
    return arrays


def batch_of(
    layout: TableLayout, arrays: Iterable[pa.Array], first_seq: int, count: int, row_ids: pa.Array | None
) -> pa.RecordBatch:
    """User columns with consecutive `_seq`s as a stored batch."""
    seqs = pa.array(np.arange(first_seq, first_seq + count, dtype=np.int64))
    columns = [seqs]
    if layout.has_row_id:
        columns.append(seqs if row_ids is None else row_ids)
    return pa.RecordBatch.from_arrays([*columns, *arrays], schema=layout.schema)
