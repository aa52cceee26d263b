"""Bodies of bulk loads to Arrow tables typed by a table: Arrow IPC streams, Parquet, NDJSON and CSV.

`read_body` yields one table for each block of the body, with the columns that the body has, in their storage Arrow
types. Columns that it leaves out are the caller's to fill (DEFAULT or NULL), and so are NOT NULL checks and keys.
Values follow the rules of `sql.values`; in CSV an empty field without quotes is NULL.

Bodies are hostile until proven otherwise: memory is bounded by block sizes, Arrow data is fully validated before
anything computes on it, and whatever a reader throws becomes InvalidInput. Bad rows are named, up to 10 of a block: by
line for NDJSON and CSV (there blank lines are not counted), by row for the binary formats.
"""

from __future__ import annotations

import csv
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc

from sql.arrow_framing import check_frames
from sql.errors import InvalidInput, Unsupported
from sql.ingest_columns import BadRow, BadRowsFound, convert_columns, resolve_columns
from sql.ingest_ndjson import bad_lines, read_ndjson
from storage.catalog import ColumnDef, TableDef

if TYPE_CHECKING:
    import pyarrow.parquet as pq

BATCH_ROWS = 65_536
"""Rows of a Parquet batch; batches of an Arrow stream come as they are, in slices of at most this many."""
PARQUET_BATCH_BYTES = 32 << 20
"""About how much of a Parquet file is decoded at once."""
CSV_BLOCK_BYTES = 16 << 20
"""How much of a CSV body is parsed at once, and so the longest row."""
MAX_HEADER_BYTES = 1 << 20
"""The longest CSV header."""
MAX_ROW_GROUP_BYTES = 512 << 20
"""The largest Parquet row group that is accepted, unpacked."""
MAX_DECODED_BYTES = 4 << 30
"""The most that the tables of one body may take together, unless the caller says otherwise."""
_SPOOL_BYTES = 16 << 20


def read_body(
    file: BinaryIO, content_type: str, table: TableDef, *, max_bytes: int = MAX_DECODED_BYTES
) -> Iterator[pa.Table]:
    """The tables of a body, read from its present position as they are asked for; together at most `max_bytes`.

    Raises Unsupported for a content type that is none of `CONTENT_TYPES`, InvalidInput for everything wrong with
    the body, also after some tables were yielded: the caller must apply all or nothing.
    """
    media_type, _, parameters = content_type.partition(";")
    read = CONTENT_TYPES.get(media_type.strip().lower())
    if read is None:
        names = ", ".join(CONTENT_TYPES)
        raise Unsupported(f"Content type '{media_type.strip()[:100]}' cannot be ingested; use one of {names}")
    charset = parameters.lower().replace(" ", "").replace('"', "").partition("charset=")[2].partition(";")[0]
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise Unsupported(f"Charset '{charset[:40]}' cannot be ingested; use UTF-8")
    return _guarded(read(file, table), media_type.strip().lower(), max_bytes)


_READER_ERRORS = (
    pa.ArrowException, OSError, MemoryError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError,
)  # fmt: skip


def _guarded(parts: Iterator[pa.Table], media_type: str, max_bytes: int) -> Iterator[pa.Table]:
    total = 0
    try:
        for part in parts:
            total += part.nbytes
            if total > max_bytes:
                raise InvalidInput(f"The body holds more than {max_bytes} bytes of values; send it in parts")
            yield part
    except _READER_ERRORS as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InvalidInput(f"The body is not valid {media_type}: {why}") from None


def _converted(batch: pa.RecordBatch, columns: list[ColumnDef], first_row: int) -> pa.Table:
    try:
        return convert_columns(batch.columns, columns)
    except BadRowsFound as found:
        rows = [BadRow(first_row + bad.row, bad.message) for bad in found.rows]
        raise bad_lines(rows, "row") from None


def _read_arrow(file: BinaryIO, table: TableDef) -> Iterator[pa.Table]:
    with _seekable(file) as source:
        check_frames(source)
        with pa.ipc.open_stream(source, options=pa.ipc.IpcReadOptions(use_threads=False)) as reader:
            columns = resolve_columns(reader.schema.names, table)
            row = 1
            for batch in reader:
                batch.validate(full=True)
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    yield _converted(batch.slice(start, BATCH_ROWS), columns, row + start)
                row += batch.num_rows


def _read_parquet(file: BinaryIO, table: TableDef) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq  # 5 MB that a server needs only when such a body comes

    with _seekable(file) as source:
        parquet = pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
        columns = resolve_columns(parquet.schema_arrow.names, table)
        _check_row_groups(parquet.metadata)
        row = 1
        for batch in parquet.iter_batches(_parquet_batch_rows(parquet.metadata), use_threads=False):
            batch.validate(full=True)
            yield _converted(batch, columns, row)
            row += batch.num_rows


def _check_row_groups(metadata: pq.FileMetaData) -> None:
    """Only sizes of whole row groups are asked for: pyarrow aborts the process over damaged metadata of a column."""
    for group in range(metadata.num_row_groups):
        if metadata.row_group(group).total_byte_size > MAX_ROW_GROUP_BYTES:
            raise InvalidInput(f"Row group {group + 1} holds more than {MAX_ROW_GROUP_BYTES} bytes; write smaller ones")


def _parquet_batch_rows(metadata: pq.FileMetaData) -> int:
    """So many rows that a batch of average rows takes about PARQUET_BATCH_BYTES."""
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    widest = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
    return max(1, min(BATCH_ROWS, PARQUET_BATCH_BYTES // max(widest, 1)))


@contextmanager
def _seekable(file: BinaryIO) -> Iterator[BinaryIO]:
    """The file itself if it can seek, else a copy of the rest of it, on disk when it is large."""
    if file.seekable():
        yield file
        return
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
        while chunk := file.read(1 << 20):
            spool.write(chunk)
        spool.seek(0)
        yield cast("BinaryIO", spool)


def _read_csv(file: BinaryIO, table: TableDef) -> Iterator[pa.Table]:
    with _seekable(file) as source:
        columns = resolve_columns(_csv_header(source), table)
        start = source.tell()
        if not source.read(1):
            return
        source.seek(start)
        line = 2
        last: str | None = None
        try:
            for batch in _csv_batches(source, [column.name for column in columns]):
                yield _csv_converted(batch, columns, line)
                line += batch.num_rows + _line_breaks(batch)
                last = batch.column(batch.num_columns - 1)[batch.num_rows - 1].as_py() if batch.num_rows else last
            _check_last_quote(source, last)
        except pa.ArrowInvalid as error:
            if "straddling" in str(error):
                raise InvalidInput(f"A row after line {line - 1} is longer than {CSV_BLOCK_BYTES} bytes") from None
            if uneven := _UNEVEN_ROW.search(str(error)):
                source.seek(start)
                place = _line_of(source, uneven[3]) or f"after line {line - 1}"
                why = f"{uneven[2]} fields instead of {uneven[1]}: '{uneven[3][:60]}'"
                raise InvalidInput(f"Nothing was written, the row {place} has {why}") from None
            raise


def _check_last_quote(file: BinaryIO, last: str | None) -> None:
    """Refuse a body that ends inside a quoted field, as one does that was cut off; Arrow takes it as it is.

    `last` is the last field of the body: if no quote closes it, the body ends with a quote and the field.
    """
    if last is None:
        return
    field = b'"' + last.replace('"', '""').encode()
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - len(field) - 3))
    tail = file.read()
    closed = tail.removesuffix(b"\n").removesuffix(b"\r").endswith(field + b'"')
    if tail.endswith(field) and not closed:
        raise InvalidInput("The CSV body ends inside a quoted field; nothing was written")


_UNEVEN_ROW = re.compile(r"Expected (\d+) columns, got (\d+): (.*)")


def _line_of(file: BinaryIO, text: str) -> str | None:
    """Where the body has this line, after its header; None when it has not (the row spans lines)."""
    wanted = text.encode()
    number = 2
    while found := file.readline(CSV_BLOCK_BYTES):
        if found.rstrip(b"\r\n") == wanted:
            return f"in line {number}"
        number += 1
    return None


def _csv_batches(file: BinaryIO, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Batches of text columns; an empty field without quotes is NULL."""
    import pyarrow.csv as pa_csv

    with pa_csv.open_csv(
        file,
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES, column_names=names),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    ) as reader:
        yield from reader


def _csv_header(file: BinaryIO) -> list[str]:
    line = file.readline(MAX_HEADER_BYTES + 1)
    if len(line) > MAX_HEADER_BYTES:
        raise InvalidInput(f"The first line of the CSV body, its header, is longer than {MAX_HEADER_BYTES} bytes")
    try:
        names = next(csv.reader([line.decode("utf-8-sig")]), [])
    except csv.Error as error:
        raise InvalidInput(f"The first line of the CSV body names no columns: {error}") from None
    if not names:
        raise InvalidInput("The CSV body has no header: its first line must name the columns")
    return [name.strip() for name in names]


def _line_breaks(batch: pa.RecordBatch) -> int:
    """Line breaks within the fields, which make lines more than rows."""
    counts = [pc.sum(pc.count_substring(column, "\n")).as_py() for column in batch.columns]
    return sum(count or 0 for count in counts)


def _csv_converted(batch: pa.RecordBatch, columns: list[ColumnDef], line: int) -> pa.Table:
    try:
        return convert_columns(batch.columns, columns)
    except BadRowsFound as found:
        rows = [BadRow(line + bad.row + _line_breaks(batch.slice(0, bad.row)), bad.message) for bad in found.rows]
        raise bad_lines(rows) from None


CONTENT_TYPES: dict[str, Callable[[BinaryIO, TableDef], Iterator[pa.Table]]] = {
    "application/vnd.apache.arrow.stream": _read_arrow,
    "application/vnd.apache.parquet": _read_parquet,
    "application/x-parquet": _read_parquet,
    "application/x-ndjson": read_ndjson,
    "application/jsonl": read_ndjson,
    "text/csv": _read_csv,
}
"""Readers by media type."""
