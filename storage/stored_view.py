"""The ReadView over one LMDB transaction: the committed state, for snapshots and as the writer's base."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec
import numpy as np
import pyarrow as pa

from storage.batches import Seqs
from storage.catalog import Catalog, TableDef
from storage.cold_reading import Part
from storage.cold_segments import COMMITTED_PREFIX, OTHER_PREFIX, Segment, segments_of
from storage.cold_statistics import Bounds
from storage.cold_streaming import RowStream
from storage.errors import ColdMiss, StorageCorrupt, StorageError
from storage.expiry import cutoff
from storage.keys import index_key_prefix, object_key, object_prefix, partition_key, row_key_prefix
from storage.layout import layout_of
from storage.reading import Reader
from storage.scan_statistics import ScanStatistics
from storage.stored_size import stored_bytes
from storage.topic_positions import GroupPosition, group_positions

T = TypeVar("T")


class StoredView:
    """Reads under a lock, so that whoever ends the transaction (`storage.snapshots`) does it between two reads.

    Rows of STREAM tables that had expired when the view was opened (`now_us`) are not there for any of its methods.
    They have no key in the index, so what reads by key (`find`, `get_row`, …) never meets one.
    """

    missing: type[StorageError] = StorageCorrupt
    """What a `_seq` that is not stored raises."""

    def __init__(self, reader: Reader, catalog: Catalog, seq: int, now_us: int) -> None:
        self._lock = threading.RLock()
        self._reader = reader
        self._now_us = now_us
        self._cutoffs: dict[int, tuple[TableDef, int]] = {}
        self.catalog = catalog
        self.seq = seq

    def _open(self) -> Reader:
        """The reader, or an error when the transaction has ended. Called with the lock held."""
        return self._reader

    def _owner(self) -> object | None:
        """What zero-copy arrays keep alive; None makes `scan` copy."""
        return None

    def _cutoff(self, reader: Reader, table: TableDef) -> int:
        """`expired_through`, with the lock held: every method that reads rows starts behind it."""
        if not table.expires:
            return 0
        found = self._cutoffs.get(table.table_id)
        if found is None or found[0] is not table:
            found = self._cutoffs[table.table_id] = table, cutoff(reader, table, self._now_us)
        return found[1]

    def expired_through(self, table: TableDef) -> int:
        """Up to where rows of a STREAM table have expired; see ReadView."""
        with self._lock:
            return self._cutoff(self._open(), table)

    @property
    def statistics(self) -> ScanStatistics:
        """What the scans of this view have read and left out."""
        return self._reader.statistics

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

    def stream(
        self,
        table: TableDef,
        partition: str,
        columns: Sequence[str],
        *,
        bounds: Mapping[str, Bounds] | None = None,
        encodable: Collection[str] = (),
    ) -> RowStream | pa.Table:
        """`scan` with `_seq`; where some rows are cold they are decoded while they are read.

        A stream's view must stay open, and its pages in place, until it has been read.
        """
        reader, schema, parts = self._parts(table, partition, columns, bounds, with_seq=True)
        hot = [part for part in parts if isinstance(part, pa.RecordBatch)]
        if len(hot) == len(parts):
            return pa.Table.from_batches(hot, schema)
        return RowStream(reader.cold, schema, parts, self._check, encodable)

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
        also_dead = None if superseded is None else np.asarray(superseded)
        reader, schema, parts = self._parts(table, partition, columns, bounds, with_seq=with_seq, also_dead=also_dead)
        return schema, reader.cold.read_all(parts, self._check)  # files are read without the lock

    def _parts(
        self,
        table: TableDef,
        partition: str,
        columns: Sequence[str] | None,
        bounds: Mapping[str, Bounds] | None,
        *,
        with_seq: bool,
        also_dead: Seqs | None = None,
    ) -> tuple[Reader, pa.Schema, list[Part]]:
        """What a scan finds, cold parts unread, and the reader that found it."""
        with self._lock:
            reader = self._open()
            schema, parts = reader.scan(
                layout_of(table),
                partition_key(partition),
                columns,
                with_seq=with_seq,
                owner=self._owner(),
                also_dead=also_dead,
                after=self._cutoff(reader, table),
                bounds=bounds,
            )
        return reader, schema, parts

    def _check(self) -> None:
        """Called between files: may raise, to end a long scan."""

    def scan_newer(
        self, table: TableDef, partition: str, after: int, columns: Sequence[str], enough: int | None = None
    ) -> pa.Table:
        """Live rows with a `_seq` beyond `after`, with `_seq` first and in its order.

        All of them, or the first ones: `enough` and some more.
        """
        with self._lock:
            reader = self._open()
            start = max(after, self._cutoff(reader, table))
            schema, parts = reader.scan(
                layout_of(table), partition_key(partition), columns,
                with_seq=True, owner=self._owner(), after=start, enough=enough,
            )  # fmt: skip
        return pa.Table.from_batches(reader.cold.read_all(parts, self._check), schema)

    def find(self, table: TableDef, partition: str, keys: Sequence[bytes], index_id: int = 0) -> list[int | None]:
        """Current `_seq`s by key; see ReadView."""
        with self._lock:
            return self._open().find(index_key_prefix(table.table_id, partition_key(partition), index_id), keys)

    def find_full(self, keys: Sequence[bytes]) -> list[int | None]:
        """See Base."""
        with self._lock:
            return self._open().find_full(keys)

    def fetch(
        self,
        table: TableDef,
        partition: str,
        seqs: Sequence[int],
        columns: Sequence[str] | None = None,
        *,
        with_seq: bool = False,
    ) -> pa.Table:
        """Rows by `_seq`; see ReadView."""
        with self._lock:
            reader = self._open()
            self._expect_unexpired(reader, table, seqs)
            schema, parts, order = reader.fetch(
                layout_of(table), partition_key(partition), seqs, columns, with_seq=with_seq, missing=self.missing
            )
        rows = pa.Table.from_batches(reader.cold.read_all(parts), schema)
        return rows if order is None else rows.combine_chunks().take(pa.array(order))

    def get_row(
        self, table: TableDef, partition: str, key: bytes, columns: Sequence[str] | None = None
    ) -> tuple[int, tuple[object, ...]] | None:
        """One row by primary key; see ReadView."""
        place = partition_key(partition)
        full = index_key_prefix(table.table_id, place, 0) + key
        prefix = row_key_prefix(table.table_id, place)

        def read(reader: Reader) -> tuple[int, tuple[object, ...]] | None:
            value = reader.txn.get(full, db=reader.dbs.keys)
            if value is None:
                return None
            seq = int.from_bytes(value, "big")
            return seq, reader.row(layout_of(table), prefix, seq, columns, self.missing)

        return self._row(read)

    def row_at(self, table: TableDef, partition: str, seq: int, columns: Sequence[str] | None) -> tuple[object, ...]:
        """See Base."""
        prefix = row_key_prefix(table.table_id, partition_key(partition))

        def read(reader: Reader) -> tuple[object, ...]:
            self._expect_unexpired(reader, table, (seq,))
            return reader.row(layout_of(table), prefix, seq, columns, self.missing)

        return self._row(read)

    def _row(self, read: Callable[[Reader], T]) -> T:
        """Read under the lock; a row group that is not in the cache is loaded without it."""
        with self._lock:
            reader = self._open()
            waits, reader.waits = reader.waits, False
            try:
                return read(reader)
            except ColdMiss as error:
                if not waits:
                    raise
                miss = error
            finally:
                reader.waits = waits
        self._load(miss)
        with self._lock:
            return read(self._open())

    def _load(self, miss: ColdMiss) -> None:
        miss.load()

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
        prefix = index_key_prefix(table.table_id, partition_key(partition), 0)
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
        prefix = index_key_prefix(table.table_id, partition_key(partition), index_id)
        return [(key[len(prefix) :], seq) for key, seq in self.find_range_full(prefix, low, high, limit, reverse)]

    def find_range_full(
        self, prefix: bytes, low: bytes | None, high: bytes | None, limit: int | None, reverse: bool
    ) -> list[tuple[bytes, int]]:
        """See Base."""
        with self._lock:
            return self._open().find_range(prefix, low, high, limit=limit, reverse=reverse)

    def _expect_unexpired(self, reader: Reader, table: TableDef, seqs: Sequence[int]) -> None:
        if table.expires and len(seqs) and min(seqs) <= self._cutoff(reader, table):
            raise self.missing(f"the row with _seq {min(seqs)} of table {table.full_name} has expired")

    def live(self, table: TableDef, partition: str, seqs: Sequence[int]) -> list[bool]:
        """See Base."""
        prefix = row_key_prefix(table.table_id, partition_key(partition))
        with self._lock:
            reader = self._open()
            expired = self._cutoff(reader, table)
            live = reader.are_live(prefix, seqs)
            return [seq > expired and alive for seq, alive in zip(seqs, live, strict=True)] if expired else live

    def partitions(self, table: TableDef) -> list[str]:
        """Partitions with rows; see ReadView."""
        with self._lock:
            reader = self._open()
            return [reader.user_of(partition) for partition in reader.partitions(table.table_id)]

    def count(self, table: TableDef, partition: str) -> int:
        """Live rows; see ReadView."""
        with self._lock:
            reader = self._open()
            return reader.count(layout_of(table), partition_key(partition), after=self._cutoff(reader, table))

    def stored_bytes(self, table: TableDef, partition: str) -> int:
        """Bytes of stored rows; see ReadView."""
        with self._lock:
            return stored_bytes(self._open(), table.table_id, partition_key(partition))

    def topic_groups(self) -> Sequence[GroupPosition]:
        """Where consumer groups stand; see ReadView."""
        with self._lock:
            return list(group_positions(self._open(), self.catalog))

    def segments(self, table_id: int | None = None, user: str | None = None) -> Sequence[Segment]:
        """The records of cold files; see ReadView."""
        partition = b"" if user is None else partition_key(user)
        with self._lock:
            reader = self._open()
            return [
                segment
                for prefix in (COMMITTED_PREFIX, OTHER_PREFIX)
                for segment in segments_of(reader, table_id, prefix=prefix, partition=partition)
            ]

    def get_object(self, kind: str, name: str, type: type[T]) -> T | None:  # noqa: A002
        """A definition; see ReadView."""
        data = self.object_bytes(kind, name)
        return None if data is None else msgspec.msgpack.decode(data, type=type)

    def list_objects(self, kind: str, type: type[T]) -> Iterator[T]:  # noqa: A002
        """Definitions of a kind; see ReadView."""
        return (msgspec.msgpack.decode(data, type=type) for data in self.object_items(kind).values())

    def object_bytes(self, kind: str, name: str) -> bytes | None:
        """See Base."""
        with self._lock:
            reader = self._open()
            value = reader.txn.get(object_key(kind, name), db=reader.dbs.catalog)
            return None if value is None else bytes(value)

    def object_items(self, kind: str) -> dict[bytes, bytes]:
        """See Base."""
        prefix = object_prefix(kind)
        found: dict[bytes, bytes] = {}
        with self._lock:
            reader = self._open()
            cursor = reader.txn.cursor(db=reader.dbs.catalog)
            if cursor.set_range(prefix):
                for raw, value in cursor.iternext():
                    key = bytes(raw)
                    if not key.startswith(prefix):
                        break
                    found[key] = bytes(value)
        return found
