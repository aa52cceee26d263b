"""Results as bytes: the JSON response of `POST /v1/api/sql`, NDJSON and Arrow IPC streams.

Columns become lists of wire values (`sql.wire`) and rows are zipped from them, so that no Python code runs for
each value but where a type needs it (strings of decimals, UUIDs).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from sql.errors import SqlError
from sql.results import ResultColumn, StatementResult
from sql.wire import BigintMode, to_wire, wire_values
from storage.types import arrow_type

__all__ = [
    "BigintMode",
    "arrow_chunks",
    "encode_error",
    "encode_success",
    "json_rows",
    "ndjson_chunks",
    "to_wire",
    "wire_schema",
]

_encode = msgspec.json.Encoder().encode

NDJSON_ROWS = 16_384
"""Rows in one chunk of NDJSON; bounds the memory of a streamed result."""

_LONGEST_MESSAGE = 2_000
"""Characters of an error's message at most."""


class _StatementBody(msgspec.Struct, omit_defaults=True):
    """One entry of `results`, in the order of the wire format; schema, rows and message are left out when absent."""

    schema: list[dict[str, object]] | msgspec.Raw | None = None
    rows: Sequence[Sequence[object]] | None = None
    row_count: int = -1
    message: str | None = None
    as_user: str | None = None


def wire_schema(columns: Iterable[ResultColumn]) -> list[dict[str, object]]:
    """The `schema` array: `{name, data_type, index, flags?}` for each column."""
    entries: list[dict[str, object]] = []
    for index, column in enumerate(columns):
        entry: dict[str, object] = {"name": column.name, "data_type": column.type.wire_name(), "index": index}
        if column.flags:
            entry["flags"] = column.flags
        entries.append(entry)
    return entries


def json_rows(
    table: pa.Table | pa.RecordBatch, columns: Sequence[ResultColumn], mode: BigintMode
) -> list[tuple[object, ...]]:
    """Rows of wire values; column i of `table` has the storage Arrow type of `columns[i]`.

    Raises ExecutionError naming the column for NaN and infinities.
    """
    if not columns:
        return [()] * table.num_rows
    lists = [
        wire_values(values, column.type, mode, column.name)
        for values, column in zip(table.columns, columns, strict=True)
    ]
    return list(zip(*lists, strict=True))


def _statement_body(result: StatementResult, mode: BigintMode) -> _StatementBody:
    body = _StatementBody(row_count=result.row_count, message=result.message, as_user=result.as_user)
    if result.schema_json is not None:
        body.schema = msgspec.Raw(result.schema_json)
    elif result.columns:
        body.schema = wire_schema(result.columns)
    if result.rows is not None:
        body.rows = result.rows
    elif result.table is not None:
        body.rows = json_rows(result.table, result.columns, mode)
    if body.rows is not None and result.message is None:
        body.row_count = len(body.rows)
    return body


def encode_success(results: Iterable[StatementResult], took_ms: float, mode: BigintMode = BigintMode.AUTO) -> bytes:
    """The response body of a request that succeeded; `took_ms` gets 3 decimals.

    `row_count` is the number of rows where rows are sent, and the affected rows of a DML statement.
    Raises ExecutionError for values that JSON cannot carry.
    """
    bodies = [_statement_body(result, mode) for result in results]
    return b'{"status":"success","results":%b,"took":%b}' % (_encode(bodies), _encode(round(took_ms, 3)))


def error_details(error: SqlError) -> str | None:
    """The `details` text: place and excerpt in the SQL text, and what took effect before; None without any."""
    parts = []
    if error.line is not None and error.column is not None:
        parts.append(f"line {error.line}, column {error.column}")
    if error.excerpt:
        parts.append(error.excerpt)
    if error.applied:
        plural = "statement" if error.applied == 1 else "statements"
        parts.append(f"{error.applied} {plural} before it took effect")
    return "\n".join(parts) or None


def encode_error(error: SqlError, took_ms: float) -> bytes:
    """The response body of a request that failed.

    Beside `code`, `message` and `details` stand `line`, `column`, `statement` and `applied` where they are known.
    """
    entry: dict[str, object] = {"code": error.code, "message": _cut(error.message), "details": error_details(error)}
    known = {"line": error.line, "column": error.column, "statement": error.statement}
    entry |= {name: value for name, value in known.items() if value is not None}
    if error.statement is not None:
        entry["applied"] = error.applied
    body = {"status": "error", "results": (), "took": round(took_ms, 3), "error": entry}
    try:
        return _encode(body)
    except UnicodeEncodeError:
        # A message that quotes a lone surrogate: escape it.
        return json.dumps(body, separators=(",", ":")).encode()


def _cut(message: str) -> str:
    """A message that quotes a name or a value from the request says where, it does not carry all of it."""
    if len(message) <= _LONGEST_MESSAGE:
        return message
    return f"{message[: _LONGEST_MESSAGE // 2]} … {message[-_LONGEST_MESSAGE // 4 :]}"


def ndjson_chunks(
    batches: Iterable[pa.RecordBatch], columns: Sequence[ResultColumn], mode: BigintMode = BigintMode.AUTO
) -> Iterator[bytes]:
    """One JSON object a line, column name -> wire value; a chunk holds at most NDJSON_ROWS lines.

    Where names repeat, the last column of that name wins. Raises ExecutionError for NaN and infinities.
    """
    encoder = msgspec.json.Encoder()
    names = [column.name for column in columns]
    for batch in batches:
        for start in range(0, batch.num_rows, NDJSON_ROWS):
            rows = json_rows(batch.slice(start, NDJSON_ROWS), columns, mode)
            objects: list[Any] = [dict(zip(names, row, strict=True)) for row in rows]
            yield encoder.encode_lines(objects)


def arrow_schema(columns: Iterable[ResultColumn]) -> pa.Schema:
    """The schema of an Arrow stream; each field's metadata `headrace.type` is the wire's `data_type` as JSON."""
    return pa.schema(
        pa.field(c.name, arrow_type(c.type), metadata={"headrace.type": _encode(c.type.wire_name())}) for c in columns
    )


_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def arrow_chunks(batches: Iterable[pa.RecordBatch], columns: Sequence[ResultColumn]) -> Iterator[bytes | memoryview]:
    """An Arrow IPC stream: a chunk for the schema, one for each batch, one for the end; nothing is copied twice.

    Column i of each batch has the storage Arrow type of `columns[i]`; names come from `columns`.
    """
    schema = arrow_schema(columns)
    yield memoryview(schema.serialize())
    for batch in batches:
        yield memoryview(pa.RecordBatch.from_arrays(batch.columns, schema=schema).serialize())
    yield _END_OF_STREAM
