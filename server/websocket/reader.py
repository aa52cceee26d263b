"""From the bytes of a client to its messages, in bounded memory (RFC 6455, sections 5 and 8.1).

The reader of `websockets` holds a frame until it is whole and gives up on one that is too large. This one

* decodes while bytes arrive: text that is not UTF-8 is found at its first wrong byte;
* swallows a message above `limit` and goes on after it, keeping nothing of it; above `ceiling` it gives up;
* stops after each frame, so that one who reads messages one at a time lets no others pile up.

What it holds at most: `limit` bytes of a message, and what was fed and not yet asked for. Masking and close frames are
those of `websockets`, with which the tests compare it.
"""

from __future__ import annotations

import codecs
import struct

import msgspec
from websockets.exceptions import ProtocolError
from websockets.frames import Close
from websockets.speedups import apply_mask

from server.websocket.frames import MAX_CONTROL_PAYLOAD, Opcode

PROTOCOL_ERROR = 1002
INVALID_DATA = 1007
MESSAGE_TOO_BIG = 1009

_CONTINUATION = int(Opcode.CONTINUATION)  # plain integers: a member of an enum is slow to look up
_TEXT = int(Opcode.TEXT)
_BINARY = int(Opcode.BINARY)
_CLOSE = int(Opcode.CLOSE)
_PING = int(Opcode.PING)
_PONG = int(Opcode.PONG)

_make_decoder = codecs.getincrementaldecoder("utf-8")


class Text(msgspec.Struct, frozen=True, gc=False):
    """A text message."""

    text: str


class Binary(msgspec.Struct, frozen=True, gc=False):
    """A binary message."""

    data: bytes


class TooLarge(msgspec.Struct, frozen=True, gc=False):
    """The end of a message above the limit; nothing of it was kept."""

    size: int


class Fragment(msgspec.Struct, frozen=True, gc=False):
    """A frame of a message that goes on in another."""


class Ping(msgspec.Struct, frozen=True, gc=False):
    """A ping, to be answered with its payload."""

    payload: bytes


class Pong(msgspec.Struct, frozen=True, gc=False):
    """A pong, asked for or not."""

    payload: bytes


class Closing(msgspec.Struct, frozen=True, gc=False):
    """A close frame; 1005 if it names no code."""

    code: int
    reason: str
    payload: bytes


Event = Text | Binary | TooLarge | Fragment | Ping | Pong | Closing

_FRAGMENT = Fragment()


class Violation(Exception):
    """The client broke the protocol; the connection has to be closed with `code` and `reason`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class MessageReader:
    """Reads one client's frames: `feed` bytes, then `next` until it returns None. It ends with a Violation."""

    __slots__ = (
        "_ceiling",
        "_data",
        "_decoder",
        "_final",
        "_in_payload",
        "_limit",
        "_mask",
        "_opcode",
        "_parts",
        "_position",
        "_remaining",
        "_size",
    )

    def __init__(self, limit: int, ceiling: int) -> None:
        self._limit = limit
        self._ceiling = ceiling
        self._data = b""
        self._position = 0
        self._opcode = 0  # of the message that is under way; 0 between messages
        self._size = 0  # of the message, as far as its frames announced it
        self._parts: bytearray | None = None  # its payload; None if it is swallowed
        self._decoder: codecs.IncrementalDecoder | None = None
        self._in_payload = False
        self._final = False
        self._remaining = 0  # of the frame's payload
        self._mask = b""

    def feed(self, data: bytes) -> None:
        """Take what the socket gave."""
        if self._position < len(self._data):
            self._data = self._data[self._position :] + data
        else:
            self._data = data
        self._position = 0

    def discard(self) -> None:
        """Forget what was fed and what is under way; nothing may be asked for afterwards."""
        self._data = b""
        self._position = 0
        self._parts = self._decoder = None

    def next(self) -> Event | None:
        """Return what the next complete frame brings, or None if it is not there yet; raises Violation."""
        if not self._in_payload:
            data = self._data
            position = self._position
            available = len(data) - position
            if available < 2:
                self._wait()
                return None
            first = data[position]
            second = data[position + 1]
            opcode = first & 0x0F
            length = second & 0x7F
            if first & 0x70:
                raise Violation(PROTOCOL_ERROR, "Reserved bits must be 0")
            if not second & 0x80:
                raise Violation(PROTOCOL_ERROR, "Frames of a client must be masked")
            if opcode >= _CLOSE:
                return self._control(opcode, first >= 0x80, length, available)
            if opcode > _BINARY:
                raise Violation(PROTOCOL_ERROR, f"Unknown opcode {opcode}")
            if (opcode == _CONTINUATION) != bool(self._opcode):
                expected = "Expected a continuation frame" if self._opcode else "Unexpected continuation frame"
                raise Violation(PROTOCOL_ERROR, expected)
            start = position + 2
            if length == 126:
                start += 2
            elif length == 127:
                start += 8
            if len(data) < start:
                self._wait()
                return None
            if length == 126:
                length = data[start - 2] << 8 | data[start - 1]
            elif length == 127:
                (length,) = struct.unpack_from("!Q", data, start - 8)
            size = self._size + length
            if size > self._ceiling:
                raise Violation(MESSAGE_TOO_BIG, f"Message of more than {self._ceiling} bytes")
            start += 4
            if len(data) < start:
                self._wait()
                return None
            self._mask = data[start - 4 : start]
            if opcode and first >= 0x80 and size <= self._limit and len(data) >= start + length:
                self._position = start + length
                return _whole(opcode, apply_mask(data[start : start + length], self._mask))
            self._begin(opcode, first >= 0x80, length, size)
            self._position = start
        return self._payload()

    def _wait(self) -> None:
        """Keep the beginning of a frame only: what the socket gave at once may be much, and the rest may never come."""
        if self._position:
            self._data = self._data[self._position :]
            self._position = 0

    def _control(self, opcode: int, final: bool, length: int, available: int) -> Event | None:
        if opcode > _PONG:
            raise Violation(PROTOCOL_ERROR, f"Unknown opcode {opcode}")
        if not final:
            raise Violation(PROTOCOL_ERROR, "Control frames must not be fragmented")
        if length > MAX_CONTROL_PAYLOAD:
            raise Violation(PROTOCOL_ERROR, f"Control frames hold {MAX_CONTROL_PAYLOAD} bytes at most")
        if available < 6 + length:
            self._wait()
            return None
        start = self._position + 6
        payload = apply_mask(self._data[start : start + length], self._data[start - 4 : start])
        self._position = start + length
        if opcode == _PING:
            return Ping(payload)
        if opcode == _PONG:
            return Pong(payload)
        try:
            close = Close.parse(payload)
        except ProtocolError as error:
            raise Violation(PROTOCOL_ERROR, str(error)) from error
        except UnicodeDecodeError as error:
            raise Violation(INVALID_DATA, "The reason of a close frame is not UTF-8") from error
        return Closing(int(close.code), close.reason, payload)

    def _begin(self, opcode: int, final: bool, length: int, size: int) -> None:
        """Note a data frame whose payload is to be read."""
        if opcode:
            self._opcode = opcode
            self._parts = bytearray()
            self._decoder = _make_decoder() if opcode == _TEXT else None
        if size > self._limit:
            self._parts = None
        self._size = size
        self._final = final
        self._remaining = length
        self._in_payload = True

    def _payload(self) -> Event | None:
        """Read as much of a data frame's payload as there is."""
        start = self._position
        end = min(start + self._remaining, len(self._data))
        taken = end - start
        if taken:
            part = apply_mask(self._data[start:end], self._mask)
            turn = taken % 4
            if turn:
                self._mask = self._mask[turn:] + self._mask[:turn]
            self._position = end
            self._remaining -= taken
            if self._parts is not None:
                self._parts += part
            if self._decoder is not None:
                self._check(self._decoder, part, final=False)
        if self._remaining:
            self._wait()
            return None
        self._in_payload = False
        return self._finish() if self._final else _FRAGMENT

    def _finish(self) -> Event:
        """Return the message whose last frame was read."""
        decoder, parts, size, opcode = self._decoder, self._parts, self._size, self._opcode
        self._decoder = self._parts = None
        self._size = self._opcode = 0
        if decoder is not None:
            self._check(decoder, b"", final=True)
        if parts is None:
            return TooLarge(size)
        return Text(parts.decode()) if opcode == _TEXT else Binary(bytes(parts))

    @staticmethod
    def _check(decoder: codecs.IncrementalDecoder, part: bytes, *, final: bool) -> None:
        try:
            decoder.decode(part, final)
        except UnicodeDecodeError as error:
            raise Violation(INVALID_DATA, "Text is not UTF-8") from error


def _whole(opcode: int, payload: bytes) -> Event:
    """Return the message of an unfragmented frame that is there in one piece."""
    if opcode == _BINARY:
        return Binary(payload)
    try:
        return Text(payload.decode())
    except UnicodeDecodeError as error:
        raise Violation(INVALID_DATA, "Text is not UTF-8") from error
