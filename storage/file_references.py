"""What a work does to the files that FILE cells refer to: checked and counted when the work ends, in its own commit.

A FILE cell may get NULL, the very text that the row's cell had before, or the text of a *waiting* record of the same
table and user, which only an upload makes. Anything else would let a caller refer to a file that is not his, and the
work fails with FileRefused. This is the one place where it is decided; every way of writing rows passes it.

Databases without FILE columns pay one look into a cache for each work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from storage.catalog import Catalog, TableDef
from storage.errors import FileRefused
from storage.file_records import FileKey, FileRecord, StagedFiles
from storage.layout import layout_of
from storage.staging import RowSegment, Segment, StagedPartition, Undo
from storage.types import Kind
from storage.views import ReadView

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

Cell = tuple[int, int]
"""(`_seq`, column id)."""


class _Named(msgspec.Struct):
    """The part of a FileRef that finds its record."""

    id: str


_decode = msgspec.json.Decoder(_Named).decode


@lru_cache(maxsize=4)
def file_tables(catalog: Catalog) -> Mapping[int, TableDef]:
    """The tables with FILE columns, by id."""
    return {table.table_id: table for table in catalog.tables() if file_columns(table)}


def file_columns(table: TableDef) -> frozenset[int]:
    """The ids of a table's FILE columns."""
    found = table.__dict__.get("_file_columns")
    if found is None:
        found = frozenset(column.column_id for column in table.columns if column.type.kind is Kind.FILE)
        table.__dict__["_file_columns"] = found
    columns: frozenset[int] = found
    return columns


def note_references(files: StagedFiles, view: ReadView, undo: Undo) -> None:
    """Check and count what the work whose undo this is has added and superseded. Raises FileRefused."""
    tables = file_tables(view.catalog)
    if not tables:
        return
    for staged, position in undo.positions:
        table = tables.get(staged.table_id)
        if table is not None:
            olds = {old: staged.superseded[old] for part, old in undo.superseded if part is staged}
            _note_partition(files, view, table, staged, position, olds)


def note_definitions(files: StagedFiles, before: Catalog, after: Catalog) -> None:
    """Mark the tables whose FILE columns went, wholly or in part."""
    new = file_tables(after)
    for table_id, table in file_tables(before).items():
        kept: AbstractSet[int] = file_columns(new[table_id]) if table_id in new else frozenset()
        if file_columns(table) - kept:
            files.note_changed(table_id)


def _note_partition(
    files: StagedFiles,
    view: ReadView,
    table: TableDef,
    staged: StagedPartition,
    position: tuple[int, int],
    olds: Mapping[int, int],
) -> None:
    added = dict(_added(table, staged, position))
    ended: dict[Cell, str] = {}
    if olds and not table.expires:
        ended = dict(_cells_of(view, table, staged.user, list(olds)))
    replaced = {by: old for old, by in olds.items()}
    touched: set[FileKey] = set()
    for (seq, column), text in added.items():
        before = (replaced.get(seq, -1), column)
        if ended.get(before) == text:
            del ended[before]
            continue
        touched.add(_refer(files, table, staged.user, column, text))
    for (_, column), text in ended.items():
        key = _release(files, table, column, text)
        if key is not None:
            touched.add(key)
    columns = file_columns(table)
    for key in touched:
        record = files.get(key)
        if record is not None and not record.dead and not record.is_live(columns):
            files.put(key, msgspec.structs.replace(record, dead=True))


def _refer(files: StagedFiles, table: TableDef, user: str, column: int, text: str) -> FileKey:
    key = key_of(table, text)
    record = None if key is None else files.get(key)
    if (
        key is None
        or record is None
        or record.user != user
        or record.text != text
        or not (record.waiting or key in files.granted)
    ):
        raise FileRefused(table.by_id[column].name)
    files.granted.add(key)
    _count(files, key, record, column, 1)
    return key


def _release(files: StagedFiles, table: TableDef, column: int, text: str) -> FileKey | None:
    """Count a reference less; None for a text that refers to no stored file (of versions without files)."""
    key = key_of(table, text)
    record = None if key is None else files.get(key)
    if key is None or record is None or record.text != text:
        return None
    _count(files, key, record, column, -1)
    return key


def _count(files: StagedFiles, key: FileKey, record: FileRecord, column: int, step: int) -> None:
    cells = dict(record.cells)
    cells[column] = cells.get(column, 0) + step
    if not cells[column]:
        del cells[column]
    files.put(key, msgspec.structs.replace(record, cells=cells))


def key_of(table: TableDef, text: str) -> FileKey | None:
    """The record that a FILE cell's text names; None when it names none."""
    try:
        number = int(_decode(text).id)
    except (msgspec.MsgspecError, ValueError):
        return None
    return (table.table_id, number) if 0 <= number < 1 << 63 else None


def _added(table: TableDef, staged: StagedPartition, position: tuple[int, int]) -> Iterator[tuple[Cell, str]]:
    count, rows = position
    for number in range(max(count - 1, 0), len(staged.segments)):
        segment = staged.segments[number]
        start = rows if number == count - 1 else 0
        if start < len(segment.seqs):
            yield from _cells_from(table, segment, start)


def _cells_from(table: TableDef, segment: Segment, start: int) -> Iterator[tuple[Cell, str]]:
    """The FILE cells of a segment's rows from `start` on that are not NULL."""
    layout = layout_of(table)
    version = segment.layout.table.schema_version
    columns = [column for column in table.columns if column.type.kind is Kind.FILE]
    seqs = segment.seqs[start:]
    if isinstance(segment, RowSegment) and version == table.schema_version:
        for column in columns:
            place = table.columns.index(column)
            yield from _present(seqs, column.column_id, (row[place] for row in segment.rows[start:]))
        return
    batch = segment.part(range(start, len(segment.seqs))) if isinstance(segment, RowSegment) else segment.batch()
    names = [column.name for column in columns]
    projected = layout.projection(version, names).arrays(batch)
    for column, array in zip(columns, projected, strict=True):
        values = array if isinstance(segment, RowSegment) else array.slice(start)
        if values.null_count < len(values):
            yield from _present(seqs, column.column_id, values.to_pylist())


def _cells_of(view: ReadView, table: TableDef, user: str, seqs: Sequence[int]) -> Iterator[tuple[Cell, str]]:
    """The FILE cells of current rows that are not NULL."""
    columns = [column for column in table.columns if column.type.kind is Kind.FILE]
    rows = view.fetch(table, user, seqs, [column.name for column in columns])
    for column, values in zip(columns, rows.columns, strict=True):
        if values.null_count < len(values):
            yield from _present(seqs, column.column_id, values.to_pylist())


def _present(seqs: Iterable[int], column: int, values: Iterable[object]) -> Iterator[tuple[Cell, str]]:
    for seq, value in zip(seqs, values, strict=True):
        if value is not None:
            yield (seq, column), str(value)
