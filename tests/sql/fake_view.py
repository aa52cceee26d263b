"""An in-memory ReadView: tables as Arrow tables, for tests of queries without a storage engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import pyarrow as pa

from storage.catalog import Catalog, NamespaceDef, TableDef
from storage.cold_segments import Segment, SegmentStatus
from storage.cold_statistics import Bounds as ColumnBounds
from storage.keys import encode_key
from storage.scan_statistics import ScanStatistics
from storage.topic_definitions import TopicDef
from storage.topic_groups import Claim, GroupState
from storage.topic_log import Bounds
from storage.topic_positions import GroupPosition

T = TypeVar("T")


class FakeView:
    """Rows by (table id, partition). `_seq` counts from 1 over all rows in the order in which they were put."""

    def __init__(
        self,
        tables: Sequence[TableDef],
        objects: Mapping[tuple[str, str], object] | None = None,
        topics: Sequence[TopicDef] = (),
    ) -> None:
        names = sorted({table.namespace for table in tables} | {"default"})
        self.catalog = Catalog(1, [NamespaceDef(name) for name in names], tables, topics)
        self.seq = 0
        self.reads: list[tuple[str, str]] = []
        self._rows: dict[tuple[int, str], pa.Table] = {}
        self._objects = dict(objects or {})

    def put(self, table: TableDef, partition: str, rows: Sequence[Sequence[object]] | pa.Table) -> None:
        """Set the rows of a partition; tuples of storage values, or a table."""
        if not isinstance(rows, pa.Table):
            columns = list(zip(*rows, strict=True)) or [()] * len(table.columns)
            rows = pa.table(
                [pa.array(list(c), f.type) for c, f in zip(columns, table.arrow_schema, strict=True)],
                schema=table.arrow_schema,
            )
        seqs = pa.array(range(self.seq + 1, self.seq + 1 + rows.num_rows), pa.int64())
        self.seq += rows.num_rows
        self._rows[table.table_id, partition] = rows.add_column(0, "_seq", seqs)

    def expired_through(self, table: TableDef) -> int:
        return 0

    def stored_bytes(self, table: TableDef, partition: str) -> int:
        return self._all(table, partition).nbytes

    def topic_groups(self) -> Sequence[GroupPosition]:
        return [
            GroupPosition(topic, 0, "mailer", GroupState(7, 3, (Claim(4, 6, 0, 1, "x"),)), Bounds(0, 9))
            for topic in self.catalog.topics()
        ]

    def segments(self, table_id: int | None = None, user: str | None = None) -> Sequence[Segment]:
        return [
            Segment(
                segment_id=table.table_id, table_id=table.table_id, user="ann" if table.per_user else "",
                storage_id="local", path="batch-1.parquet", status=SegmentStatus.COMMITTED, schema_version=1,
            )
            for table in self.catalog.tables()
            if user in (None, "ann" if table.per_user else "") and table_id in (None, table.table_id)
        ]  # fmt: skip

    def _all(self, table: TableDef, partition: str) -> pa.Table:
        self.reads.append((table.full_name, partition))
        found = self._rows.get((table.table_id, partition))
        if found is None:
            return pa.schema([pa.field("_seq", pa.int64()), *table.arrow_schema]).empty_table()
        return found

    @property
    def statistics(self) -> ScanStatistics:
        return ScanStatistics()

    def scan(
        self,
        table: TableDef,
        partition: str,
        columns: Sequence[str] | None = None,
        *,
        with_seq: bool = False,
        bounds: Mapping[str, ColumnBounds] | None = None,
    ) -> pa.Table:
        names = list(table.arrow_schema.names if columns is None else columns)
        return self._all(table, partition).select((["_seq"] if with_seq else []) + names)

    def _keys(self, table: TableDef, partition: str) -> list[tuple[bytes, int]]:
        rows = self._all(table, partition)
        types = [column.type for column in table.key_columns]
        columns = [_values(rows.column(column.name)) for column in table.key_columns]
        keys = [encode_key(types, values) for values in zip(*columns, strict=True)]
        return sorted(zip(keys, rows.column("_seq").to_pylist(), strict=True))

    def find(self, table: TableDef, partition: str, keys: Sequence[bytes], index_id: int = 0) -> list[int | None]:
        known = dict(self._keys(table, partition))
        return [known.get(key) for key in keys]

    def fetch(
        self,
        table: TableDef,
        partition: str,
        seqs: Sequence[int],
        columns: Sequence[str] | None = None,
        *,
        with_seq: bool = False,
    ) -> pa.Table:
        rows = self._all(table, partition)
        places = {seq: place for place, seq in enumerate(rows.column("_seq").to_pylist())}
        names = list(table.arrow_schema.names if columns is None else columns)
        chosen = rows.take(pa.array([places[seq] for seq in seqs], pa.int64()))
        return chosen.select((["_seq"] if with_seq else []) + names)

    def get_row(
        self, table: TableDef, partition: str, key: bytes, columns: Sequence[str] | None = None
    ) -> tuple[int, tuple[object, ...]] | None:
        [seq] = self.find(table, partition, [key])
        if seq is None:
            return None
        row = self.fetch(table, partition, [seq], columns)
        return seq, tuple(_values(column)[0] for column in row.columns)

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
        keys = self._keys(table, partition)
        seqs = [seq for key, seq in keys if (low is None or key >= low) and (high is None or key < high)]
        return (seqs[::-1] if reverse else seqs)[:limit]

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
        assert index_id == 0
        keys = self._keys(table, partition)
        found = [(key, seq) for key, seq in keys if (low is None or key >= low) and (high is None or key < high)]
        return (found[::-1] if reverse else found)[:limit]

    def partitions(self, table: TableDef) -> list[str]:
        return sorted(partition for table_id, partition in self._rows if table_id == table.table_id)

    def count(self, table: TableDef, partition: str) -> int:
        return self._all(table, partition).num_rows

    def get_object(self, kind: str, name: str, type: type[T]) -> T | None:  # noqa: A002
        found = self._objects.get((kind, name))
        return found if isinstance(found, type) else None

    def list_objects(self, kind: str, type: type[T]) -> Iterator[T]:  # noqa: A002
        for (found_kind, _), value in sorted(self._objects.items(), key=lambda item: item[0]):
            if found_kind == kind and isinstance(value, type):
                yield value


def _values(column: pa.ChunkedArray) -> list[object]:
    """Storage values of a column: temporal ones as integers."""
    if pa.types.is_temporal(column.type):
        width = pa.int32() if pa.types.is_date32(column.type) else pa.int64()
        return column.cast(width).to_pylist()
    return column.to_pylist()
