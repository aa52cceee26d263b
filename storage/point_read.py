"""One row by its primary key, or a few by an index, without an Arrow table in between: the hot path of reads.

`Reader.fetch` makes tables that own their memory, for any number of rows. For one row it is cheaper to take the
values out of the mapped batch one by one, as storage values (see `storage.types`).
"""

from __future__ import annotations

from collections.abc import Sequence

from storage.catalog import TableDef
from storage.errors import StorageCorrupt
from storage.keys import CUT_LENGTH, index_key_prefix, partition_key, row_key_prefix
from storage.layout import layout_of
from storage.snapshots import Snapshot


class PointReader:
    """Reads the given columns of one table. Holds for one TableDef; any thread may use it."""

    def __init__(self, table: TableDef, columns: Sequence[str]) -> None:
        self.table = table
        self._layout = layout_of(table)
        self._columns = tuple(columns)
        self._prefixes: dict[str, tuple[bytes, bytes]] = {}

    def read(self, snapshot: Snapshot, partition: str, key: bytes) -> list[object] | None:
        """The storage values of the row with that encoded primary key, or None. They own their memory.

        Raises ColdMiss where that would read a file and the snapshot is one of the event loop, which may not wait.
        """
        prefixes = self._prefixes.get(partition)
        if prefixes is None:
            prefixes = self._prefixes_of(partition)
        with snapshot.reading() as reader:
            found = reader.txn.get(prefixes[0] + key, db=reader.dbs.keys)
            if found is None:
                return None
            seq = int.from_bytes(found, "big")
            return list(reader.row(self._layout, prefixes[1], seq, self._columns, StorageCorrupt))

    def _prefixes_of(self, partition: str) -> tuple[bytes, bytes]:
        encoded = partition_key(partition)
        table_id = self.table.table_id
        made = index_key_prefix(table_id, encoded, 0), row_key_prefix(table_id, encoded)
        if len(self._prefixes) >= 1024:
            self._prefixes.clear()
        self._prefixes[partition] = made
        return made


class IndexReader:
    """Reads the given columns of the few rows that entries of one index lead to. Holds for one TableDef."""

    def __init__(self, table: TableDef, index_id: int, columns: Sequence[str]) -> None:
        self.table = table
        self._index_id = index_id
        self._layout = layout_of(table)
        self._columns = tuple(columns)

    def read(
        self, snapshot: Snapshot, partition: str, low: bytes, high: bytes | None, most: int
    ) -> list[list[object]] | None:
        """The rows whose index keys lie from `low` to `high`, which is excluded; None stands for the key `low` alone.

        Storage values that own their memory, in the order of the index. None when there are more than `most`, or when
        `low` was cut, so that keys of other values begin with it. Raises ColdMiss as `PointReader.read`.
        """
        encoded, table_id = partition_key(partition), self.table.table_id
        prefix, rows = index_key_prefix(table_id, encoded, self._index_id), row_key_prefix(table_id, encoded)
        if len(low) >= CUT_LENGTH:
            return None
        with snapshot.reading() as reader:
            if high is None:
                seqs = [seq for seq in reader.find(prefix, [low]) if seq is not None]
            else:
                seqs = [seq for _, seq in reader.find_range(prefix, low, high, limit=most + 1, reverse=False)]
                if len(seqs) > most:
                    return None
            return [list(reader.row(self._layout, rows, seq, self._columns, StorageCorrupt)) for seq in seqs]
