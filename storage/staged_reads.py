"""Reading through staged changes: a base view, the rows and keys staged over it, and what they supersede."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec
import numpy as np
import pyarrow as pa

from storage.catalog import Catalog, TableDef
from storage.cold_segments import Segment
from storage.cold_statistics import Bounds
from storage.keys import index_key_prefix
from storage.layout import layout_of
from storage.objects import StagedObjects
from storage.scan_statistics import ScanStatistics
from storage.staging import StagedPartition, Undo
from storage.topic_positions import GroupPosition
from storage.views import Base

T = TypeVar("T")


class StagedReads:
    """A base view with changes over it, for reading."""

    def __init__(self, base: Base, first_seq: int, next_version: Callable[[], int]) -> None:
        self._base = base
        self._next_seq = first_seq
        self._overlay: dict[bytes, int] = {}
        self._partitions: dict[tuple[int, str], StagedPartition] = {}
        self._undo = Undo()
        self._mark = 0
        self._objects = StagedObjects(base, next_version)

    @property
    def catalog(self) -> Catalog:
        """Namespaces and tables, with the staged changes."""
        return self._objects.catalog

    @property
    def seq(self) -> int:
        """The last `_seq` of the base."""
        return self._base.seq

    def expired_through(self, table: TableDef) -> int:
        """Up to where rows of a STREAM table have expired in the base; staged rows never have."""
        return self._base.expired_through(table)

    @property
    def statistics(self) -> ScanStatistics:
        """What the scans of the base have read and left out."""
        return self._base.statistics

    def scan(
        self,
        table: TableDef,
        partition: str,
        columns: Sequence[str] | None = None,
        *,
        with_seq: bool = False,
        bounds: Mapping[str, Bounds] | None = None,
    ) -> pa.Table:
        """Live rows; see ReadView."""
        schema, batches = self.scan_live(table, partition, columns, with_seq, None, bounds)
        return pa.Table.from_batches(batches, schema)

    def scan_live(
        self,
        table: TableDef,
        partition: str,
        columns: Sequence[str] | None,
        with_seq: bool,
        superseded: pa.Array | None,
        bounds: Mapping[str, Bounds] | None = None,
    ) -> tuple[pa.Schema, list[pa.RecordBatch]]:
        """See Base."""
        staged = self._partitions.get((table.table_id, partition))
        if staged is None:
            return self._base.scan_live(table, partition, columns, with_seq, superseded, bounds)
        gone = staged.superseded_array()
        if superseded is not None:
            gone = np.union1d(gone, np.asarray(superseded))
        schema, batches = self._base.scan_live(table, partition, columns, with_seq, pa.array(gone, pa.int64()), bounds)
        also = set(gone.tolist()) if superseded is not None else ()
        return schema, batches + staged.scan(layout_of(table), columns, with_seq, also)

    def find(self, table: TableDef, partition: str, keys: Sequence[bytes], index_id: int = 0) -> list[int | None]:
        """Current `_seq`s by key; see ReadView."""
        prefix = self._index_prefix(table, partition, index_id)
        return self.find_full([prefix + key for key in keys])

    def find_full(self, keys: Sequence[bytes]) -> list[int | None]:
        """See Base."""
        overlay = self._overlay
        if not overlay:
            return self._base.find_full(keys)
        found: list[int | None] = [overlay.get(key) for key in keys]
        misses = [place for place, seq in enumerate(found) if seq is None]
        if misses:
            for place, seq in zip(misses, self._base.find_full([keys[p] for p in misses]), strict=True):
                found[place] = seq
        return [seq or None for seq in found]

    def fetch(
        self,
        table: TableDef,
        partition: str,
        seqs: Sequence[int],
        columns: Sequence[str] | None = None,
        *,
        with_seq: bool = False,
    ) -> pa.Table:
        """Rows by `_seq`; see ReadView. Raises WriteConflict for one that is not there."""
        staged = self._partitions.get((table.table_id, partition))
        if staged is None or not staged.segments:
            return self._base.fetch(table, partition, seqs, columns, with_seq=with_seq)
        ours = [place for place, seq in enumerate(seqs) if staged.holds(seq)]
        if not ours:
            return self._base.fetch(table, partition, seqs, columns, with_seq=with_seq)
        layout = layout_of(table)
        schema = layout.projection(table.schema_version, columns, with_seq=with_seq).schema
        pieces = staged.fetch(layout, [seqs[p] for p in ours], columns, with_seq)
        if len(ours) == len(seqs):
            return pa.Table.from_batches(pieces, schema)
        mine = set(ours)
        theirs = [place for place in range(len(seqs)) if place not in mine]
        rest = self._base.fetch(table, partition, [seqs[p] for p in theirs], columns, with_seq=with_seq)
        back = np.empty(len(seqs), dtype=np.int64)
        back[ours + theirs] = np.arange(len(seqs))
        joined = pa.concat_tables([pa.Table.from_batches(pieces, schema), rest])
        return joined.combine_chunks().take(pa.array(back))

    def get_row(
        self, table: TableDef, partition: str, key: bytes, columns: Sequence[str] | None = None
    ) -> tuple[int, tuple[object, ...]] | None:
        """One row by primary key; see ReadView."""
        (seq,) = self.find_full((self._index_prefix(table, partition, 0) + key,))
        return None if seq is None else (seq, self.row_at(table, partition, seq, columns))

    def row_at(self, table: TableDef, partition: str, seq: int, columns: Sequence[str] | None) -> tuple[object, ...]:
        """See Base."""
        staged = self._partitions.get((table.table_id, partition))
        row = None if staged is None else staged.row(layout_of(table), seq, columns)
        return self._base.row_at(table, partition, seq, columns) if row is None else row

    def find_range(
        self,
        table: TableDef,
        partition: str,
        low: bytes | None,
        high: bytes | None,
        *,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[int]:
        """Primary keys in a range; see ReadView."""
        prefix = self._index_prefix(table, partition, 0)
        return [seq for _, seq in self.find_range_full(prefix, low, high, limit, reverse)]

    def index_entries(
        self,
        table: TableDef,
        partition: str,
        index_id: int,
        low: bytes | None,
        high: bytes | None,
        *,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[tuple[bytes, int]]:
        """Entries of any index; see ReadView."""
        prefix = self._index_prefix(table, partition, index_id)
        return [(key[len(prefix) :], seq) for key, seq in self.find_range_full(prefix, low, high, limit, reverse)]

    def find_range_full(
        self, prefix: bytes, low: bytes | None, high: bytes | None, limit: int | None, reverse: bool
    ) -> list[tuple[bytes, int]]:
        """See Base."""
        start = prefix + (low or b"")
        stop = None if high is None else prefix + high
        mine = {
            key: seq
            for key, seq in self._overlay.items()
            if key >= start and key.startswith(prefix) and (stop is None or key < stop)
        }
        wanted = None if limit is None else limit + len(mine)
        base = self._base.find_range_full(prefix, low, high, wanted, reverse)
        if not mine:
            return base
        merged = {key: seq for key, seq in base if key not in mine}
        merged.update((key, seq) for key, seq in mine.items() if seq)
        ordered = sorted(merged.items(), reverse=reverse)
        return ordered if limit is None else ordered[:limit]

    def partitions(self, table: TableDef) -> list[str]:
        """Partitions with rows; see ReadView."""
        found = self._base.partitions(table)
        known = set(found)
        for (table_id, user), staged in self._partitions.items():
            if table_id == table.table_id and staged.segments and user not in known:
                found.append(user)
        return found

    def count(self, table: TableDef, partition: str) -> int:
        """Live rows; see ReadView."""
        staged = self._partitions.get((table.table_id, partition))
        return self._base.count(table, partition) + (staged.count() if staged else 0)

    def live(self, table: TableDef, partition: str, seqs: Sequence[int]) -> list[bool]:
        """See Base."""
        staged = self._partitions.get((table.table_id, partition))
        if staged is None:
            return self._base.live(table, partition, seqs)
        held = [staged.holds(seq) for seq in seqs]
        theirs = [seq for seq, mine in zip(seqs, held, strict=True) if not mine]
        answers = iter(self._base.live(table, partition, theirs) if theirs else ())
        return [(mine or next(answers)) and seq not in staged.superseded for seq, mine in zip(seqs, held, strict=True)]

    def stored_bytes(self, table: TableDef, partition: str) -> int:
        """Bytes of stored rows in the base; see ReadView."""
        return self._base.stored_bytes(table, partition)

    def topic_groups(self) -> Sequence[GroupPosition]:
        """Where consumer groups stand in the base; see ReadView."""
        return self._base.topic_groups()

    def segments(self, table_id: int | None = None, user: str | None = None) -> Sequence[Segment]:
        """The records of cold files in the base; see ReadView."""
        return self._base.segments(table_id, user)

    def get_object(self, kind: str, name: str, type: type[T]) -> T | None:  # noqa: A002
        """A definition; see ReadView."""
        data = self.object_bytes(kind, name)
        return None if data is None else msgspec.msgpack.decode(data, type=type)

    def list_objects(self, kind: str, type: type[T]) -> Iterator[T]:  # noqa: A002
        """Definitions of a kind; see ReadView."""
        return (msgspec.msgpack.decode(data, type=type) for _, data in sorted(self.object_items(kind).items()))

    def object_bytes(self, kind: str, name: str) -> bytes | None:
        """See Base."""
        return self._objects.get(kind, name)

    def object_items(self, kind: str) -> dict[bytes, bytes]:
        """See Base."""
        return self._objects.items(kind)

    def _index_prefix(self, table: TableDef, partition: str, index_id: int) -> bytes:
        staged = self._partitions.get((table.table_id, partition)) or StagedPartition(table.table_id, partition)
        return index_key_prefix(table.table_id, staged.partition, index_id) if index_id else staged.key_prefix
