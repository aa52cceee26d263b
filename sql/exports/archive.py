"""The ZIP file of an export: tables as CSV and Parquet, stored files, and what is in it.

    README.txt                        for people
    manifest.json                     for programs: tables, columns, rows, and the commit that all of it is of
    <namespace>/<table>.csv           UTF-8 with a header; NULL is empty, an empty text is ""; BYTES in hexadecimal
    <namespace>/<table>.parquet
    files/<namespace>/<table>/<name>  files of FILE columns, by their stored name

Rows are read in slices of about `SLICE_ROWS` and written on at once, so that memory is bounded however much a user has.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sql.wire import BigintMode, uuid_text, wire_values
from storage.blobs import BlobStore
from storage.catalog import ColumnDef, TableDef
from storage.cold_files import path_name
from storage.cold_statistics import Bounds
from storage.file_records import path_of, records_of
from storage.file_references import file_columns
from storage.keys import partition_key, row_key_prefix
from storage.layout import SEQ
from storage.snapshots import Snapshot
from storage.types import Kind, arrow_type

SLICE_ROWS = 65_536
_BLOCK = 1 << 20

Check = Callable[[], None]

README = """This is what {user} has in this database, as of {created} (UTC).

Each table comes as <table>.csv and <table>.parquet (or one of them) in the folder <namespace>/<table>; files of rows
are in files/<namespace>/<table>. manifest.json lists the tables with their columns and numbers of rows.

CSV is UTF-8 with a header line. NULL is an empty field, an empty text is "". Times with a zone are UTC. BYTES are
hexadecimal, EMBEDDING a JSON array. A FILE column holds a JSON object; its "id" begins the name of the file.
"""


class ExportTooLarge(Exception):
    """An export is larger than it may be."""


class TableEntry(msgspec.Struct, frozen=True):
    """A table in `manifest.json`."""

    table: str
    kind: str
    rows: int
    columns: dict[str, str]
    data: list[str]
    files: list[str]


class ArchiveManifest(msgspec.Struct, frozen=True):
    """`manifest.json`."""

    export_id: str
    user: str
    created_at: str
    seq: int
    tables: list[TableEntry]


class Archive:
    """One ZIP file under way; close it (it is a context manager)."""

    def __init__(self, path: Path, snapshot: Snapshot, user: str, max_bytes: int, check: Check) -> None:
        self._path = path
        self._snapshot = snapshot
        self._user = user
        self._max_bytes = max_bytes
        self._check_stop = check
        self._zip = zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED, allowZip64=True)
        path.chmod(0o600)
        self.tables: list[TableEntry] = []

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def add_table(self, table: TableDef, formats: tuple[str, ...], blobs: BlobStore | None) -> None:
        """Write the user's rows of a table and their files."""
        base = f"{path_name(table.namespace)}/{path_name(table.name)}"
        data = []
        rows = 0
        for form in formats:
            name = f"{base}/{path_name(table.name)}.{form}"
            rows = (self._csv if form == "csv" else self._parquet)(name, table)
            data.append(name)
        columns = {column.name: str(column.type) for column in table.columns}
        files = [] if blobs is None else list(self._files(f"files/{base}", table, blobs))
        self.tables.append(TableEntry(table.full_name, table.kind.value, rows, columns, data, files))

    def finish(self, export_id: str, created: str) -> None:
        """Write what tells of the rest."""
        manifest = ArchiveManifest(export_id, self._user, created, self._snapshot.seq, self.tables)
        self._zip.writestr("manifest.json", msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        self._zip.writestr("README.txt", README.format(user=self._user, created=created))

    def _check(self) -> None:
        self._check_stop()
        if self._path.stat().st_size > self._max_bytes:
            raise ExportTooLarge(f"the export is larger than {self._max_bytes:,} bytes (exports.max_bytes)")

    def _open(self, name: str, *, stored: bool = False) -> IO[bytes]:
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
        info.external_attr = 0o600 << 16
        return self._zip.open(info, "w", force_zip64=True)

    def _csv(self, name: str, table: TableDef) -> int:
        from pyarrow import csv

        rows = 0
        schema = pa.schema([(c.name, _shown_type(c.type.kind, arrow_type(c.type))) for c in table.columns])
        with self._open(name) as entry, csv.CSVWriter(entry, schema) as writer:
            for part in self._slices(table):
                shown = [_shown(part.column(column.name), column) for column in table.columns]
                writer.write_table(pa.table(shown, schema=schema))
                rows += part.num_rows
        return rows

    def _parquet(self, name: str, table: TableDef) -> int:
        from pyarrow import parquet

        rows = 0
        schema = pa.schema([(c.name, _plain_type(c.type.kind, arrow_type(c.type))) for c in table.columns])
        with (
            self._open(name, stored=True) as entry,
            parquet.ParquetWriter(entry, schema, compression="zstd") as writer,
        ):
            for part in self._slices(table):
                plain = [_plain(part.column(c.name), c.type.kind) for c in table.columns]
                writer.write_table(pa.table(plain, schema=schema))
                rows += part.num_rows
        return rows

    def _slices(self, table: TableDef) -> Iterator[pa.Table]:
        """The user's live rows in `_seq` order."""
        prefix = row_key_prefix(table.table_id, partition_key(self._user))
        with self._snapshot.reading() as reader:
            batches = [(b.first_seq, b.header.last_seq, b.header.rows) for b in reader.stored(prefix)]
        while batches:
            low, high, rows = batches[0]
            taken = 1
            while taken < len(batches) and rows + batches[taken][2] <= SLICE_ROWS:
                high, rows = batches[taken][1], rows + batches[taken][2]
                taken += 1
            del batches[:taken]
            self._check()
            found = self._snapshot.scan(table, self._user, with_seq=True, bounds={SEQ: Bounds(low, high)})
            seqs = np.asarray(found.column(SEQ))
            inside = found.filter(pa.array((seqs >= low) & (seqs <= high)))
            if inside.num_rows:
                yield inside

    def _files(self, base: str, table: TableDef, blobs: BlobStore) -> Iterator[str]:
        columns = file_columns(table)
        if not columns:
            return
        with self._snapshot.reading() as reader:
            wanted = [
                (key, record)
                for key, record in records_of(reader, table.table_id)
                if record.user == self._user and record.is_live(columns)
            ]
        for key, record in wanted:
            found = blobs.open(path_of(key, record))
            if found is None:
                raise FileNotFoundError(f"the stored file {path_of(key, record)} is gone")
            name = f"{base}/{record.stored_name}"
            with closing(found), self._open(name, stored=True) as entry:
                for offset in range(0, found.size, _BLOCK):
                    self._check()
                    entry.write(found.read_at(offset, _BLOCK))
            yield name


def _plain_type(kind: Kind, stored: pa.DataType) -> pa.DataType:
    """The Arrow type of a column in Parquet: UUIDs as text, everything else as it is stored."""
    return pa.string() if kind is Kind.UUID else stored


def _plain(column: pa.ChunkedArray, kind: Kind) -> pa.ChunkedArray | pa.Array:
    if kind is not Kind.UUID:
        return column
    return pa.array([None if value is None else uuid_text(value) for value in column.to_pylist()], pa.string())


_AS_TEXT = frozenset({Kind.UUID, Kind.BYTES, Kind.EMBEDDING, Kind.DECIMAL})


def _shown_type(kind: Kind, stored: pa.DataType) -> pa.DataType:
    """The Arrow type of a column on its way to CSV."""
    return pa.string() if kind in _AS_TEXT else stored


def _shown(values: pa.ChunkedArray, column: ColumnDef) -> pa.ChunkedArray | pa.Array:
    kind = column.type.kind
    if kind not in _AS_TEXT:
        return values
    if kind is Kind.BYTES:
        return pa.array([None if value is None else value.hex() for value in values.to_pylist()], pa.string())
    if kind is Kind.DECIMAL:
        return pc.cast(values, pa.string())
    shown = wire_values(values, column.type, BigintMode.AUTO, column.name)
    if kind is Kind.EMBEDDING:
        shown = [None if value is None else msgspec.json.encode(value).decode() for value in shown]
    return pa.array(shown, pa.string())
