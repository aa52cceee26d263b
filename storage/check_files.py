"""Checks the records of files against the rows: every reference is counted, and nothing else is."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

from storage.catalog import Catalog, TableDef
from storage.errors import StorageCorrupt, StorageUnavailable
from storage.file_records import FileKey, FileRecord, every_record, left_files
from storage.file_references import file_columns, file_tables, key_of
from storage.keys import partition_key
from storage.layout import layout_of
from storage.reading import Reader
from storage.types import Kind

log = logging.getLogger("headrace.storage")

Found = tuple[str, str, str]
"""Structure, place and sentence of a problem."""


def check_files(reader: Reader, catalog: Catalog) -> Iterator[Found]:
    """The problems of the records of files."""
    tables = file_tables(catalog)
    records: dict[FileKey, FileRecord] = {}
    left = set(left_files(reader))
    for key, record in every_record(reader):
        records[key] = record
        if (key in left) != (record.dead or record.waiting):
            yield "files", _place(key), "is listed among those that no row refers to, or is not, against its record"
        if record.dead and record.is_live(frozenset(record.cells)):
            yield "files", _place(key), "is dead and referred to"
    for key in left - records.keys():
        yield "files", _place(key), "is listed, but has no record"
    counted: dict[FileKey, Counter[int]] = {}
    for table in tables.values():
        if not table.expires:
            yield from _count(reader, table, records, counted)
    for key, record in records.items():
        if key[0] in tables:
            kept = file_columns(tables[key[0]])
            expected = {column: count for column, count in record.cells.items() if column in kept}
            found = dict(counted.get(key, {}))
            if found != expected:
                yield "files", _place(key), f"is counted in the columns {expected}, and rows refer to it in {found}"


def _count(
    reader: Reader, table: TableDef, records: dict[FileKey, FileRecord], counted: dict[FileKey, Counter[int]]
) -> Iterator[Found]:
    columns = [column for column in table.columns if column.type.kind is Kind.FILE]
    names = [column.name for column in columns]
    for partition in reader.partitions(table.table_id):
        try:
            _, parts = reader.scan(layout_of(table), partition, names)
            batches = reader.cold.read_all(parts)
        except StorageCorrupt:
            return  # told by the check of the rows
        except StorageUnavailable as error:
            log.warning("files of table %s were not counted: %s", table.full_name, error)
            return
        for column, text in (
            (column.column_id, text)
            for batch in batches
            for column, array in zip(columns, batch.columns, strict=True)
            for text in array.drop_null().to_pylist()
        ):
            key = key_of(table, text)
            record = None if key is None else records.get(key)
            if key is None or record is None or record.text != text:
                yield "files", table.full_name, f"a row refers to {text[:200]}, of which there is no record"
            elif partition_key(record.user) != partition:
                yield "files", _place(key), "is referred to by a row of another user"
            else:
                counted.setdefault(key, Counter())[column] += 1


def _place(key: FileKey) -> str:
    return f"table {key[0]}, file {key[1]}"
