"""Rows as bodies of the ingest route: NDJSON of dicts, Arrow IPC streams of anything that pyarrow or pandas made."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from itertools import islice
from typing import Any, TypeAlias

import msgspec

from headrace._values import encode_value

NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"

ROWS_PER_PART = 1000
"""Rows that are encoded at a time."""

Rows: TypeAlias = Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]] | Any
"""What can be inserted: dicts, also from a generator, or a table or batches of Arrow, or a DataFrame."""


def ingest_body(rows: Rows) -> tuple[str, Callable[[], AsyncIterable[bytes]] | bytes]:
    """The content type and the body, or what makes the body's parts.

    A generator of rows is read once and cannot be sent again. Raises TypeError for what are no rows.
    """
    if hasattr(rows, "__arrow_c_stream__") or hasattr(rows, "__arrow_c_array__"):
        return ARROW, _arrow_body(rows)
    if isinstance(rows, (Mapping, str, bytes)):
        raise TypeError(f"rows must be many dicts, not one {type(rows).__name__}")
    if isinstance(rows, AsyncIterable):
        return NDJSON, _once(_encode_async(rows))
    if not isinstance(rows, Iterable):
        raise TypeError(f"a value of type {type(rows).__name__} holds no rows")
    if iter(rows) is rows:
        return NDJSON, _once(_encode(rows))
    return NDJSON, lambda: _encode(rows)


def _once(parts: AsyncIterator[bytes]) -> Callable[[], AsyncIterable[bytes]]:
    waiting = [parts]

    def make() -> AsyncIterable[bytes]:
        if not waiting:
            raise RuntimeError("the rows came from a generator, which cannot be sent a second time; pass a list")
        return waiting.pop()

    return make


async def _encode(rows: Iterable[Mapping[str, Any]]) -> AsyncIterator[bytes]:
    source = iter(rows)
    while part := list(islice(source, ROWS_PER_PART)):
        yield _lines(part)


async def _encode_async(rows: AsyncIterable[Mapping[str, Any]]) -> AsyncIterator[bytes]:
    part: list[Mapping[str, Any]] = []
    async for row in rows:
        part.append(row)
        if len(part) == ROWS_PER_PART:
            yield _lines(part)
            part = []
    if part:
        yield _lines(part)


def _lines(rows: list[Mapping[str, Any]]) -> bytes:
    return msgspec.json.Encoder().encode_lines([encode_value(row) for row in rows])


def _arrow_body(data: Any) -> bytes:
    """The IPC stream of whatever can be exported as Arrow: tables, batches, readers, DataFrames."""
    import pyarrow as pa
    import pyarrow.ipc

    if hasattr(data, "__arrow_c_stream__"):
        reader = pa.RecordBatchReader.from_stream(data)
    else:
        batch = pa.record_batch(data)
        reader = pa.RecordBatchReader.from_batches(batch.schema, [batch])
    sink = pa.BufferOutputStream()
    with reader, pa.ipc.new_stream(sink, reader.schema) as writer:
        for each in reader:
            writer.write_batch(each)
    body: bytes = sink.getvalue().to_pybytes()
    return body
