"""Frames as a server sends them: unmasked, never fragmented, never compressed (RFC 6455, section 5.2)."""

from __future__ import annotations

import struct
from enum import IntEnum

MAX_CONTROL_PAYLOAD = 125

_FIN = 0x80
_SHORT = 126
_LONG = 65536


class Opcode(IntEnum):
    """What a frame is."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


def frame_header(opcode: int, length: int) -> bytes:
    """Return the header of a frame whose payload has `length` bytes; the payload may follow in several writes."""
    if length < _SHORT:
        return bytes((_FIN | opcode, length))
    if length < _LONG:
        return struct.pack("!BBH", _FIN | opcode, 126, length)
    return struct.pack("!BBQ", _FIN | opcode, 127, length)


def text_frame(payload: bytes) -> bytes:
    """Return a text frame; the payload must be UTF-8, which is not checked."""
    return frame_header(Opcode.TEXT, len(payload)) + payload


def binary_frame(payload: bytes) -> bytes:
    """Return a binary frame."""
    return frame_header(Opcode.BINARY, len(payload)) + payload


def control_frame(opcode: Opcode, payload: bytes = b"") -> bytes:
    """Return a ping, pong or close frame; raises ValueError for a payload of more than 125 bytes."""
    if len(payload) > MAX_CONTROL_PAYLOAD:
        raise ValueError(f"A control frame holds {MAX_CONTROL_PAYLOAD} bytes at most, not {len(payload)}")
    return frame_header(opcode, len(payload)) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a close frame; a reason that is too long is cut, between characters."""
    text = reason.encode()[: MAX_CONTROL_PAYLOAD - 2].decode(errors="ignore")
    return control_frame(Opcode.CLOSE, struct.pack("!H", code) + text.encode())
