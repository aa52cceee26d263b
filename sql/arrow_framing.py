"""The frames of an Arrow IPC stream, checked before Arrow decodes them.

No message may claim more than the body has, and no compressed batch may unpack to more than a limit.

A message is FF FF FF FF, the length of its metadata (i32), the metadata (a flatbuffer) and a body of buffers. In a
compressed batch each buffer begins with its unpacked length (i64, -1 = stored as it is). Flatbuffer tables are read as
far as needed: a table starts with the (negative) way to its vtable, which lists where each field lies, 0 for absent.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from sql.errors import InvalidInput

MAX_UNPACKED_BYTES = 512 << 20
"""The most that one compressed batch may unpack to."""
MAX_METADATA_BYTES = 16 << 20
"""The longest metadata of a message."""

_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_ALIGNMENT = 8


def check_frames(file: BinaryIO) -> None:
    """Check the stream that begins at the file's position, and return there.

    Raises InvalidInput for frames that do not fit the file and for batches that unpack to too much. Whatever
    else is wrong with the stream is found by its reader.
    """
    start = file.tell()
    end = file.seek(0, os.SEEK_END)
    at = start
    try:
        while at < end:
            file.seek(at)
            following = _check_message(file, end)
            if following is None:
                break
            at = following
    except struct.error:
        raise InvalidInput("The body is not a valid Arrow IPC stream: a message's metadata is damaged") from None
    finally:
        file.seek(start)


def _check_message(file: BinaryIO, end: int) -> int | None:
    """Check the message at the file's position; where the next one begins, None at the end of the stream."""
    marker, length = struct.unpack("<Ii", file.read(8))
    if marker != 0xFFFFFFFF:
        raise InvalidInput("The body is not an Arrow IPC stream (the file format is not accepted)")
    if length == 0:
        if file.tell() < end:
            raise InvalidInput("The body has more after the end of its Arrow IPC stream; send one stream a request")
        return None
    body = file.tell() + length
    if not 0 < length <= MAX_METADATA_BYTES or body > end:
        raise InvalidInput("The body is not a valid Arrow IPC stream: it ends inside a message, or is damaged")
    metadata = file.read(length)
    message = _Table(metadata, struct.unpack_from("<I", metadata)[0])
    body_length = message.number(3, "<q")
    following: int = body + body_length
    if body_length < 0 or following > end:
        raise InvalidInput("The body is not a valid Arrow IPC stream: it ends inside a batch, or is damaged")
    kind = message.number(1, "<B")
    batch = message.table(2) if kind in (_DICTIONARY_BATCH, _RECORD_BATCH) else None
    if batch is not None and kind == _DICTIONARY_BATCH:
        batch = batch.table(1)
    if batch is not None and batch.table(3) is not None:
        _check_unpacked(file, body, body_length, batch.buffers(2))
    return following


def _check_unpacked(file: BinaryIO, body: int, body_length: int, buffers: list[tuple[int, int]]) -> None:
    total = 0
    for offset, length in buffers:
        if offset < 0 or length < 0 or offset + length > body_length:
            raise InvalidInput("The body is not a valid Arrow IPC stream: a batch's buffers lie outside it")
        if length < _ALIGNMENT:
            continue
        file.seek(body + offset)
        (unpacked,) = struct.unpack("<q", file.read(8))
        total += length if unpacked < 0 else unpacked
        if total > MAX_UNPACKED_BYTES:
            raise InvalidInput(f"A batch unpacks to more than {MAX_UNPACKED_BYTES} bytes; write smaller batches")


class _Table:
    """A flatbuffer table; struct.error when a field lies outside the data."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        self._vtable = at - struct.unpack_from("<i", data, at)[0]
        if self._vtable < 0:
            raise struct.error
        (self._size,) = struct.unpack_from("<H", data, self._vtable)

    def _field(self, index: int) -> int:
        """Where a field lies, 0 when it is absent."""
        slot = 4 + 2 * index
        if slot + 2 > self._size:
            return 0
        (offset,) = struct.unpack_from("<H", self._data, self._vtable + slot)
        return self._at + offset if offset else 0

    def number(self, index: int, layout: str) -> int:
        """A number field; absent ones are 0."""
        at = self._field(index)
        value: int = struct.unpack_from(layout, self._data, at)[0] if at else 0
        return value

    def table(self, index: int) -> _Table | None:
        """A field that is a table, None when it is absent."""
        at = self._field(index)
        return _Table(self._data, at + struct.unpack_from("<I", self._data, at)[0]) if at else None

    def buffers(self, index: int) -> list[tuple[int, int]]:
        """A field that is a vector of (offset, length) pairs."""
        at = self._field(index)
        if not at:
            return []
        at += struct.unpack_from("<I", self._data, at)[0]
        (count,) = struct.unpack_from("<I", self._data, at)
        if at + 4 + count * 16 > len(self._data):
            raise struct.error
        return [struct.unpack_from("<qq", self._data, at + 4 + i * 16) for i in range(count)]
