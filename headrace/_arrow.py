"""Arrow: tables of results, and an Arrow IPC stream taken apart as its bytes come. The only module that needs pyarrow.

A message of the stream is FF FF FF FF, the length of its metadata (i32), the metadata (a flatbuffer, which says how
long the body is) and the body; a length of 0 ends the stream. pyarrow decodes messages; it has no reader that can be
fed.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import pyarrow as pa
import pyarrow.ipc

from headrace._exceptions import ConnectionFailed, InvalidAnswer
from headrace._values import type_name

if TYPE_CHECKING:
    from headrace._result import Column

_MARKER = 0xFFFFFFFF
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_BODY_LENGTH_FIELD = 3
_TYPES: dict[str, pa.DataType] = {
    "Boolean": pa.bool_(),
    "SmallInt": pa.int16(),
    "Int": pa.int32(),
    "BigInt": pa.int64(),
    "Float": pa.float32(),
    "Double": pa.float64(),
    "Text": pa.string(),
    "Timestamp": pa.timestamp("us"),
    "DateTime": pa.timestamp("us", "UTC"),
    "Date": pa.date32(),
    "Time": pa.time64("us"),
    "Json": pa.string(),
    "File": pa.string(),
    "Bytes": pa.binary(),
    "Uuid": pa.binary(16),
}
_PLAIN: dict[str, Callable[[Any], Any]] = {
    "BigInt": int,
    "Json": lambda value: value if isinstance(value, str) else msgspec.json.encode(value).decode(),
    "File": lambda value: value if isinstance(value, str) else msgspec.json.encode(value).decode(),
    "Bytes": bytes,
    "Uuid": lambda value: value.bytes if isinstance(value, UUID) else UUID(value).bytes,
}
"""Python or wire values to what pyarrow takes, where that differs."""


def arrow_type(data_type: Any) -> pa.DataType:
    """The Arrow type that the server's own Arrow streams have for a `data_type`."""
    name = type_name(data_type)
    if name == "Decimal":
        return pa.decimal128(data_type[name]["precision"], data_type[name]["scale"])
    if name == "Embedding":
        return pa.list_(pa.float32(), data_type[name])
    return _TYPES[name]


def table_of(columns: Sequence[Column], rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Rows as an Arrow table. Raises InvalidAnswer for a type that is not known here."""
    values: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else ([] for _ in columns)
    arrays = []
    for column, cells in zip(columns, values, strict=True):
        name = type_name(column.data_type)
        if name not in _TYPES and name not in {"Decimal", "Embedding"}:
            raise InvalidAnswer(f"column '{column.name}' has the unknown type {name!r}")
        arrays.append(_array(name, arrow_type(column.data_type), cells))
    return pa.Table.from_arrays(arrays, names=[column.name for column in columns])


def _array(name: str, target: pa.DataType, cells: Sequence[Any]) -> pa.Array:
    plain = _PLAIN.get(name)
    if plain is not None:
        cells = [None if cell is None else plain(cell) for cell in cells]
    elif name == "Decimal":
        return (
            pa.array(cells, pa.string()).cast(target)
            if any(isinstance(c, str) for c in cells)
            else pa.array(cells, target)
        )
    return pa.array(cells, target)


def table_from_stream(body: bytes) -> pa.Table:
    """The table of a whole stream. Raises InvalidAnswer when it is none, or has no end."""
    if not body.endswith(_END):
        raise InvalidAnswer("the answer is not an Arrow stream, or was cut")
    try:
        with pa.ipc.open_stream(body) as reader:
            return reader.read_all()
    except (pa.ArrowException, OSError) as error:
        raise InvalidAnswer(f"the answer is not an Arrow stream: {error}") from error


async def batches_from_stream(chunks: AsyncIterator[bytes]) -> AsyncGenerator[pa.RecordBatch]:
    """The record batches of a stream, each as soon as it is there.

    Raises InvalidAnswer when it is none, ConnectionFailed when it ends before its end.
    """
    schema: pa.Schema | None = None
    try:
        async for message in _messages(chunks):
            if schema is None:
                schema = pa.ipc.read_schema(pa.py_buffer(message))
            else:
                yield pa.ipc.read_record_batch(pa.py_buffer(message), schema)
    except (pa.ArrowException, OSError, struct.error) as error:
        raise InvalidAnswer(f"the answer is not an Arrow stream: {error}") from error


async def _messages(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    waiting = bytearray()
    async for chunk in chunks:
        waiting += chunk
        while (length := _message_length(waiting)) is not None and len(waiting) >= length:
            if length == 8:
                return
            yield bytes(memoryview(waiting)[:length])
            del waiting[:length]
    raise ConnectionFailed("the answer ended before its end; the server's log says why")


def _message_length(data: bytearray) -> int | None:
    """Bytes of the message that begins the data; None until enough of it is there to know."""
    if len(data) < 8:
        return None
    marker, metadata = struct.unpack_from("<Ii", data)
    if marker != _MARKER or metadata < 0:
        raise InvalidAnswer("the answer is not an Arrow stream")
    if metadata == 0:
        return 8
    if len(data) < 8 + metadata:
        return None
    following: int = metadata + _body_length(memoryview(data)[8 : 8 + metadata])
    return 8 + following


def _body_length(metadata: memoryview) -> int:
    """The body's length in a message's flatbuffer: the table's field of that number, 0 when it is left out."""
    (table,) = struct.unpack_from("<I", metadata)
    (way,) = struct.unpack_from("<i", metadata, table)
    (size,) = struct.unpack_from("<H", metadata, table - way)
    entry = 4 + 2 * _BODY_LENGTH_FIELD
    (offset,) = struct.unpack_from("<H", metadata, table - way + entry) if entry < size else (0,)
    (length,) = struct.unpack_from("<q", metadata, table + offset) if offset else (0,)
    return int(length)
