"""One row by its primary key, without an Arrow table in between: the hot path of point reads.

`Reader.fetch` makes tables that own their memory, for any number of rows. For one row it is cheaper to take the
values out of the mapped batch one by one, as storage values (see `storage.types`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from storage.catalog import TableDef
from storage.errors import StorageCorrupt
from storage.keys import index_key_prefix, partition_key, row_key_prefix
from storage.layout import layout_of
from storage.snapshots import Snapshot
from storage.types import Kind

_COUNTED = frozenset({Kind.TIMESTAMP, Kind.DATETIME, Kind.DATE, Kind.TIME})


def _counted(scalar: pa.Scalar) -> object:
    return scalar.value


def _plain(scalar: pa.Scalar) -> object:
    return scalar.as_py()


class PointReader:
    """Reads the given columns of one table. Holds for one TableDef; any thread may use it."""

    def __init__(self, table: TableDef, columns: Sequence[str]) -> None:
        self.table = table
        self._layout = layout_of(table)
        self._columns = tuple(columns)
        self._take: tuple[Callable[[pa.Scalar], object], ...] = tuple(
            _counted if table.by_name[name].type.kind in _COUNTED else _plain for name in columns
        )
        self._prefixes: dict[str, tuple[bytes, bytes]] = {}

    def read(self, snapshot: Snapshot, partition: str, key: bytes) -> list[object] | None:
        """The storage values of the row with that encoded primary key, or None. They own their memory."""
        prefixes = self._prefixes.get(partition)
        if prefixes is None:
            prefixes = self._prefixes_of(partition)
        reader = snapshot.reader()
        found = reader.txn.get(prefixes[0] + key, db=reader.dbs.keys)
        if found is None:
            return None
        seq = int.from_bytes(found, "big")
        place = reader.locate(prefixes[1], seq)
        if place is None:
            raise StorageCorrupt(f"table {self.table.full_name}: the key index names row {seq}, which is not stored")
        batch, position = place
        plan = self._layout.projection(batch.header.schema_version, self._columns)
        arrays = plan.arrays(reader.decode(self._layout, batch, reader))
        return [take(array[position]) for take, array in zip(self._take, arrays, strict=True)]

    def _prefixes_of(self, partition: str) -> tuple[bytes, bytes]:
        encoded = partition_key(partition)
        table_id = self.table.table_id
        made = index_key_prefix(table_id, encoded, 0), row_key_prefix(table_id, encoded)
        if len(self._prefixes) >= 1024:
            self._prefixes.clear()
        self._prefixes[partition] = made
        return made
