"""Frames that the server sends, compared with those of `websockets`."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Close, Frame
from websockets.frames import Opcode as Theirs

from server.websocket.frames import (
    Opcode,
    binary_frame,
    close_frame,
    control_frame,
    frame_header,
    text_frame,
)

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 70000]


@pytest.mark.parametrize("size", SIZES)
def test_data_frames_are_those_of_websockets(size: int) -> None:
    payload = b"\xe2\x82\xac" * (size // 3) + b"x" * (size % 3)
    assert text_frame(payload) == Frame(Theirs.TEXT, payload).serialize(mask=False)
    assert binary_frame(payload) == Frame(Theirs.BINARY, payload).serialize(mask=False)
    assert frame_header(Opcode.TEXT, size) + payload == text_frame(payload)


def test_a_header_can_announce_more_than_is_there() -> None:
    assert frame_header(Opcode.BINARY, 2**40) == b"\x82\x7f" + (2**40).to_bytes(8, "big")


@given(st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125))
def test_control_frames_are_those_of_websockets(opcode: Opcode, payload: bytes) -> None:
    assert control_frame(opcode, payload) == Frame(Theirs(opcode), payload).serialize(mask=False)


def test_a_control_frame_is_short() -> None:
    with pytest.raises(ValueError, match="125 bytes at most, not 126"):
        control_frame(Opcode.PING, b"x" * 126)


@given(st.sampled_from([1000, 1001, 1008, 1011, 3000, 4999]), st.text(max_size=200))
@example(1000, "")
@example(1008, "€" * 41)
@example(1008, "€" * 42)
def test_a_close_frame_holds_as_much_of_the_reason_as_fits(code: int, reason: str) -> None:
    frame = close_frame(code, reason)
    assert frame[0] == 0x88
    assert len(frame) == 2 + frame[1] <= 127
    close = Close.parse(frame[2:])
    assert close.code == code
    assert reason.startswith(close.reason)
    if len(reason.encode()) <= 123:
        assert close.reason == reason
    else:
        assert len(close.reason.encode()) > 123 - 4
