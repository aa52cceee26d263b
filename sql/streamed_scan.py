"""Scans that DuckDB reads while their rows are decoded: of tables whose rows are mostly cold.

A table of all rows would first have to be decoded as a whole, into memory or a file. DuckDB does not know how many rows
a stream has, so only a query of one scan reads one; the order of joins stays as good as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from sql.duck_plan import scan_types
from sql.duck_types import to_duck_column
from sql.identity import Identity
from sql.plan import HIDDEN_COLUMNS, Scan
from sql.pruning import bounds_of
from sql.rights import partition_of
from sql.scanning import chosen_seqs, read_scan, select
from sql.system_tables import SystemContext
from storage.cold_streaming import RowStream
from storage.stored_view import StoredView
from storage.types import Kind
from storage.views import ReadView


def open_scan(
    scan: Scan, view: ReadView, identity: Identity, values: Mapping[int, object], system: SystemContext
) -> pa.Table | DuckStream:
    """The rows of the only scan of a query: as `read_scan` gives them, or as a stream where some are cold."""
    table = scan.table
    if table is None or scan.ordered or not isinstance(view, StoredView):
        return read_scan(scan, view, identity, values, system)
    partition = partition_of(table, identity)
    columns = [name for name in scan.columns if name not in HIDDEN_COLUMNS]
    seqs = chosen_seqs(table, partition, view, scan.key, values, scan.indexes)
    if seqs is not None:
        return select(view.fetch(table, partition, seqs, columns, with_seq=True), scan.columns)
    texts = [column.name for column in table.columns if column.type.kind is Kind.TEXT]
    bounds = bounds_of(scan.ranges, table, values)
    rows = view.stream(table, partition, columns, bounds=bounds, encodable=texts)
    return DuckStream(rows, scan) if isinstance(rows, RowStream) else select(rows, scan.columns)


class DuckStream:
    """A stream as DuckDB reads it: by the Arrow C stream interface, anew for each time that the query scans it."""

    def __init__(self, rows: RowStream, scan: Scan) -> None:
        self._rows = rows
        self._scan = scan
        self._types = scan_types(scan)
        self._schema = self._shown(rows.schema.empty_table()).schema
        self.error: Exception | None = None
        """What ended a reading; DuckDB tells its text only."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """See the Arrow PyCapsule interface."""
        reader = pa.RecordBatchReader.from_batches(self._schema, self._batches())
        return reader.__arrow_c_stream__(requested_schema)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._rows.batches():
                yield from self._shown(pa.Table.from_batches([batch])).to_batches()
        except Exception as error:
            self.error = error
            raise

    def _shown(self, rows: pa.Table) -> pa.Table:
        rows = select(rows, self._scan.columns)
        return pa.table(
            [to_duck_column(kind, rows.column(name)) for name, kind in self._types.items()], names=list(self._types)
        )
