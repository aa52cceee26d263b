"""NDJSON bodies: one JSON object a line, column name -> value, in blocks of whole lines.

A block goes through Arrow's JSON reader with the schema that its first line suggests. When that fails, or would not
show a difference that matters, the block is read line by line with the rules of `sql.values`, and bad lines are named.

A key that a line leaves out takes the column's DEFAULT, an explicit null is NULL. Each table that comes out holds the
columns that its lines have; lines that differ in which columns with a DEFAULT they leave out come in different tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from io import BytesIO
from itertools import groupby
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.json as pj

from sql.errors import InvalidInput, SqlError
from sql.ingest_columns import MAX_REPORTED, BadRow, BadRowsFound, convert_columns, from_python
from sql.values import converter
from storage.catalog import ColumnDef, TableDef
from storage.types import Kind

BLOCK_BYTES = 4 << 20
"""How much of a body is read at once."""
MAX_LINE_BYTES = 32 << 20
"""The longest line that is accepted."""

_Line = dict[str, msgspec.Raw]
_LINES = msgspec.json.Decoder(_Line)
_PLAIN = msgspec.json.Decoder()
_EXACT = msgspec.json.Decoder(float_hook=Decimal)
_INEXACT_KINDS = frozenset({Kind.FLOAT, Kind.DOUBLE, Kind.EMBEDDING})
_NATIVE: dict[Kind, pa.DataType] = {
    Kind.BOOLEAN: pa.bool_(), Kind.SMALLINT: pa.int64(), Kind.INT: pa.int64(), Kind.BIGINT: pa.int64(),
    Kind.FLOAT: pa.float64(), Kind.DOUBLE: pa.float64(), Kind.TEXT: pa.string(),
    Kind.EMBEDDING: pa.list_(pa.float64()),
}  # fmt: skip


def read_ndjson(file: BinaryIO, table: TableDef) -> Iterator[pa.Table]:
    """Tables of the lines, in order; raises InvalidInput that names up to 10 bad lines of a block."""
    reader = _Reader(table)
    for block, first_line in _blocks(file):
        try:
            yield from reader.read(block)
        except BadRowsFound as found:
            raise bad_lines([BadRow(first_line + bad.row, bad.message) for bad in found.rows]) from None


def bad_lines(rows: list[BadRow], what: str = "line") -> InvalidInput:
    """The error that names bad rows, counted from 1."""
    listed = "; ".join(f"{what} {bad.row}: {bad.message}" for bad in rows)
    more = " (and perhaps more)" if len(rows) == MAX_REPORTED else ""
    return InvalidInput(f"Nothing was written, {listed}{more}", line=rows[0].row if what == "line" else None)


def _blocks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Blocks that end with a line's end, each with the number of its first line."""
    line, rest = 1, b""
    while chunk := file.read(BLOCK_BYTES):
        end = chunk.rfind(b"\n") + 1
        if end:
            block = rest + chunk[:end]
            yield block, line
            line += block.count(b"\n")
            rest = chunk[end:]
        else:
            rest += chunk
        if len(rest) > MAX_LINE_BYTES:
            raise InvalidInput(f"Line {line} is longer than {MAX_LINE_BYTES} bytes", line=line)
    if rest:
        yield rest, line


class _Reader:
    """Reads blocks into tables of one table's columns."""

    def __init__(self, table: TableDef) -> None:
        self._table = table
        self._defaulted = frozenset(c.name for c in table.columns if c.default is not None)
        self._converters = {c.name: _line_converter(c) for c in table.columns}

    def read(self, block: bytes) -> Iterator[pa.Table]:
        """The block's tables. Raises BadRowsFound with lines from 0."""
        found = self._read_by_arrow(block)
        if found is None:
            yield from self._read_by_line(block)
        elif found.num_rows:
            yield found

    def _read_by_arrow(self, block: bytes) -> pa.Table | None:
        """The block as one table, or None where it has to be read line by line."""
        schema = self._schema(block)
        if schema is None:
            return None
        try:
            parsed = pj.read_json(
                BytesIO(block),
                read_options=pj.ReadOptions(use_threads=False, block_size=len(block) + 1),
                parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
            ).combine_chunks()
            parsed.validate(full=True)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return None
        columns, arrays = [], []
        for column in self._table.columns:
            array = parsed[column.name]
            if array.null_count == parsed.num_rows and f'"{column.name}"'.encode() not in block:
                continue
            if array.null_count and column.name in self._defaulted:
                return None
            columns.append(column)
            arrays.append(array.chunk(0) if array.num_chunks == 1 else array.combine_chunks())
        if not columns and parsed.num_rows:
            return None
        try:
            return convert_columns(arrays, columns)
        except (BadRowsFound, InvalidInput):
            return None

    def _schema(self, block: bytes) -> pa.Schema | None:
        """How Arrow should read the block, judged by its first line."""
        try:
            first = _LINES.decode(block[: block.find(b"\n") + 1 or len(block)])
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return None
        fields = []
        for column in self._table.columns:
            raw = bytes(first[column.name]) if column.name in first else b"null"
            found = _read_as(column, raw[:1])
            if found is None:
                return None
            fields.append(pa.field(column.name, found))
        return pa.schema(fields)

    def _read_by_line(self, block: bytes) -> Iterator[pa.Table]:
        rows: list[dict[str, Any]] = []
        bad: list[BadRow] = []
        for number, line in enumerate(block.split(b"\n")):
            if not line.strip():
                continue
            try:
                rows.append(self._row(line))
            except SqlError as error:
                bad.append(BadRow(number, error.message))
                if len(bad) == MAX_REPORTED:
                    break
        if bad:
            raise BadRowsFound(bad)
        for _, run in groupby(rows, key=lambda row: self._defaulted & row.keys()):
            yield self._table_of(list(run))

    def _row(self, line: bytes) -> dict[str, Any]:
        """A line as storage values by column name. Raises SqlError with a sentence."""
        try:
            fields = _LINES.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidInput(f"not a JSON object ({error})") from None
        except RecursionError:
            raise InvalidInput("not a JSON object (nested too deeply)") from None
        row = {}
        for key, raw in fields.items():
            name = key if key in self._converters else key.lower()
            convert = self._converters.get(name)
            if convert is None:
                raise InvalidInput(f"table {self._table.full_name} has no column '{key[:100]}'")
            if name in row:
                raise InvalidInput(f"column '{name}' is there twice")
            row[name] = convert(raw)
        return row

    def _table_of(self, rows: list[dict[str, Any]]) -> pa.Table:
        present = set().union(*rows)
        columns = [column for column in self._table.columns if column.name in present]
        if not columns:
            raise InvalidInput("Nothing was written, there are lines that name no column at all")
        arrays = [from_python([row.get(column.name) for row in rows], column) for column in columns]
        return pa.table(arrays, names=[column.name for column in columns])


def _read_as(column: ColumnDef, first: bytes) -> pa.DataType | None:
    """The Arrow type to read a column as whose first value begins with this character; None for line by line."""
    kind = column.type.kind
    if first == b'"' and kind not in (Kind.DECIMAL, Kind.TEXT):
        return pa.string()
    if kind is Kind.DECIMAL:
        return pa.decimal128(column.type.precision, column.type.scale)
    if kind in _NATIVE:
        return _NATIVE[kind]
    if first == b"n":
        return pa.string()
    return pa.int64() if kind in (Kind.TIMESTAMP, Kind.DATETIME, Kind.DATE, Kind.TIME) else None


def _line_converter(column: ColumnDef) -> Any:
    convert = converter(column.type, column.name, InvalidInput)
    decode = _PLAIN.decode if column.type.kind in _INEXACT_KINDS else _EXACT.decode

    def from_raw(raw: msgspec.Raw) -> object:
        try:
            return convert(decode(raw))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"column '{column.name}' ({column.type}) cannot be read: {error}") from None

    def json_from_raw(raw: msgspec.Raw) -> object:
        text = bytes(raw)
        if text == b"null" or text[:1] == b'"':
            return from_raw(raw)
        return convert(msgspec.json.format(text, indent=-1).decode())

    return json_from_raw if column.type.kind in (Kind.JSON, Kind.FILE) else from_raw
