"""ReadView: what every reader of the database offers, be it a snapshot, the writer's state or a transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

import pyarrow as pa

from storage.catalog import Catalog, TableDef
from storage.cold_segments import Segment
from storage.cold_statistics import Bounds
from storage.scan_statistics import ScanStatistics
from storage.topic_positions import GroupPosition

T = TypeVar("T")


class ReadView(Protocol):
    """One consistent state of the database."""

    @property
    def catalog(self) -> Catalog:
        """Namespaces and tables of this state."""

    @property
    def seq(self) -> int:
        """The last `_seq` of this state."""

    def expired_through(self, table: TableDef) -> int:
        """Rows of a STREAM table with a `_seq` up to this one have expired in this view; 0 for other tables.

        No method of the view shows an expired row, or says that it is there.
        """

    @property
    def statistics(self) -> ScanStatistics:
        """What the scans of this view have read and left out."""

    def scan(
        self,
        table: TableDef,
        partition: str,
        columns: Sequence[str] | None = None,
        *,
        with_seq: bool = False,
        bounds: Mapping[str, Bounds] | None = None,
    ) -> pa.Table:
        """Live rows in `_seq` order; columns by name in the order asked (None = all), `_seq` first when `with_seq`.

        `_seq` and (for tables without a primary key) `_row_id` may be named in `columns` too. `columns=[]` would
        lose the number of rows: use `count`. `bounds` by column name (`_seq` too) let a scan leave out rows that do
        not satisfy them; it may give such rows all the same.
        """

    def find(self, table: TableDef, partition: str, keys: Sequence[bytes], index_id: int = 0) -> list[int | None]:
        """The current `_seq` of each encoded key, None where there is none."""

    def fetch(
        self,
        table: TableDef,
        partition: str,
        seqs: Sequence[int],
        columns: Sequence[str] | None = None,
        *,
        with_seq: bool = False,
    ) -> pa.Table:
        """The rows of those current `_seq`s, in that order. The result owns its memory."""

    def get_row(
        self, table: TableDef, partition: str, key: bytes, columns: Sequence[str] | None = None
    ) -> tuple[int, tuple[object, ...]] | None:
        """The row of an encoded primary key: its `_seq` and storage values. The cheapest read of one row."""

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
        """Current `_seq`s of primary keys from `low` (a prefix, included) to `high` (excluded), in key order."""

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
        """(key, current `_seq`) of any index from `low` (a prefix, included) to `high` (excluded), in key order."""

    def partitions(self, table: TableDef) -> list[str]:
        """The partitions (user ids, or "") that hold or held rows."""

    def count(self, table: TableDef, partition: str) -> int:
        """The number of live rows, without reading them."""

    def stored_bytes(self, table: TableDef, partition: str) -> int:
        """Bytes that the rows of a partition take, superseded ones included; as committed, without reading them."""

    def topic_groups(self) -> Sequence[GroupPosition]:
        """Where the consumer groups of topics stand, by topic id, partition and name.

        As committed: neither what a transaction has staged for topics nor the present group of works is seen.
        """

    def segments(self, table_id: int | None = None, user: str | None = None) -> Sequence[Segment]:
        """The records of cold files of a table, or of its partition of `user`, or all. Committed ones come first.

        As committed: what a transaction has staged moves no rows.
        """

    def get_object(self, kind: str, name: str, type: type[T]) -> T | None:  # noqa: A002
        """A definition by kind and name."""

    def list_objects(self, kind: str, type: type[T]) -> Iterator[T]:  # noqa: A002
        """All definitions of a kind, by name."""


class Base(ReadView, Protocol):
    """A ReadView that changes can be staged over."""

    def find_full(self, keys: Sequence[bytes]) -> list[int | None]:
        """The current `_seq` of each whole `keys` key."""

    def row_at(self, table: TableDef, partition: str, seq: int, columns: Sequence[str] | None) -> tuple[object, ...]:
        """The storage values of the row with that `_seq`."""

    def find_range_full(
        self, prefix: bytes, low: bytes | None, high: bytes | None, limit: int | None, reverse: bool
    ) -> list[tuple[bytes, int]]:
        """(whole key, `_seq`) of one index in key order."""

    def live(self, table: TableDef, partition: str, seqs: Sequence[int]) -> list[bool]:
        """Whether each row is a current version."""

    def scan_live(
        self,
        table: TableDef,
        partition: str,
        columns: Sequence[str] | None,
        with_seq: bool,
        superseded: pa.Array | None,
        bounds: Mapping[str, Bounds] | None = None,
    ) -> tuple[pa.Schema, list[pa.RecordBatch]]:
        """`scan` as batches, without the rows of `superseded` (ascending `_seq`s)."""

    def object_bytes(self, kind: str, name: str) -> bytes | None:
        """A definition as stored."""

    def object_items(self, kind: str) -> dict[bytes, bytes]:
        """All definitions of a kind as stored, by `catalog` key."""
