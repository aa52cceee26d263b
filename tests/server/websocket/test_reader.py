"""The frame reader: against the frames of `websockets`, in any pieces, and against its parser on broken input."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol, State

from server.websocket.reader import (
    Binary,
    Closing,
    Event,
    Fragment,
    MessageReader,
    Ping,
    Pong,
    Text,
    TooLarge,
    Violation,
)

LIMIT = 1000
CEILING = 4000
QUIET = logging.getLogger("tests.quiet")
QUIET.setLevel(logging.CRITICAL)


def masked(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    return Frame(Opcode(opcode), payload, fin).serialize(mask=True)


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    points = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(points)]


def read(parts: Iterable[bytes], limit: int = LIMIT, ceiling: int = CEILING) -> tuple[list[Event], int | None]:
    """What the reader finds, without fragments, and the code of the violation that ended it."""
    reader = MessageReader(limit, ceiling)
    found: list[Event] = []
    try:
        for part in parts:
            reader.feed(part)
            while (event := reader.next()) is not None:
                if not isinstance(event, Fragment):
                    found.append(event)
                if isinstance(event, Closing):
                    return found, None
    except Violation as violation:
        return found, violation.code
    return found, None


def split(payload: bytes, cuts: list[int], opcode: int) -> list[bytes]:
    """The frames of a fragmented message."""
    parts = pieces(payload, cuts) or [b""]
    last = len(parts) - 1
    return [masked(opcode if not i else 0, part, fin=i == last) for i, part in enumerate(parts)]


control = st.tuples(st.sampled_from([9, 10]), st.binary(max_size=125))
message = st.one_of(
    st.text(max_size=300).map(lambda text: (1, text.encode())),
    st.binary(max_size=1300).map(lambda data: (2, data)),
    st.integers(0, CEILING).map(lambda size: (1, b"x" * size)),
)
conversation = st.lists(st.tuples(message, st.lists(st.integers(0, 5000), max_size=4), st.lists(control, max_size=3)))


@given(conversation, st.one_of(st.none(), st.lists(st.integers(0, 2**16), max_size=20)))
def test_messages_arrive_however_they_are_cut(
    talk: list[tuple[tuple[int, bytes], list[int], list[tuple[int, bytes]]]], cuts: list[int] | None
) -> None:
    stream = b""
    expected: list[Event] = []
    for (opcode, payload), fragments, controls in talk:
        frames = split(payload, fragments, opcode)
        for i, frame in enumerate(frames):
            stream += frame
            if i < len(controls):
                kind, data = controls[i]
                stream += masked(kind, data)
        between = [Ping(data) if kind == 9 else Pong(data) for kind, data in controls[: len(frames)]]
        late = len(controls) >= len(frames)  # the last control frame follows the message
        last = [between.pop()] if late and between else []
        whole: Event
        if len(payload) > LIMIT:
            whole = TooLarge(len(payload))
        else:
            whole = Text(payload.decode()) if opcode == 1 else Binary(payload)
        expected += [*between, whole, *last]
    parts = [bytes([byte]) for byte in stream] if cuts is None else pieces(stream, cuts)
    assert read(parts) == (expected, None)


def theirs(stream: bytes) -> tuple[list[Event], int | None]:
    """What the parser of `websockets` finds in a stream."""
    protocol = ServerProtocol(state=State.OPEN, max_size=LIMIT, logger=QUIET)
    protocol.receive_data(stream)
    found: list[Event] = []
    text, payload = False, b""
    for frame in protocol.events_received():
        assert isinstance(frame, Frame)
        data = bytes(frame.data)
        if frame.opcode is Opcode.PING:
            found.append(Ping(data))
        elif frame.opcode is Opcode.PONG:
            found.append(Pong(data))
        elif frame.opcode is Opcode.CLOSE:
            assert protocol.close_rcvd is not None
            found.append(Closing(protocol.close_rcvd.code, protocol.close_rcvd.reason, data))
        else:
            if frame.opcode is not Opcode.CONT:
                text, payload = frame.opcode is Opcode.TEXT, b""
            payload += data
            if frame.fin:
                try:
                    found.append(Text(payload.decode()) if text else Binary(payload))
                except UnicodeDecodeError:
                    return found, 1007
    if protocol.parser_exc is None:
        return found, None
    assert protocol.close_sent is not None
    return found, protocol.close_sent.code


any_frame = st.builds(
    lambda head, second, extra, payload: bytes([head, second]) + extra + b"\1\2\3\4" + payload,
    st.integers(0, 255),
    st.integers(0, 255),
    st.sampled_from([b"", b"\0\x05", b"\x03\xe9", b"\0" * 7 + b"\x05", b"\xff" * 8]),
    st.binary(max_size=8),
)
good_frame = st.one_of(
    st.builds(
        lambda opcode, data, fin: masked(opcode, data, fin=fin),
        st.sampled_from([0, 1, 2]),
        st.text(max_size=5).map(str.encode) | st.binary(max_size=5),
        st.booleans(),
    ),
    st.builds(masked, st.sampled_from([8, 9, 10]), st.binary(max_size=5)),
    st.builds(lambda code: masked(8, code.to_bytes(2, "big") + b"bye"), st.integers(0, 5001)),
)


@given(st.lists(st.one_of(good_frame, good_frame, any_frame), max_size=6).map(b"".join), st.lists(st.integers(0, 200)))
def test_broken_streams_fare_as_with_websockets(stream: bytes, cuts: list[int]) -> None:
    ours, our_code = read(pieces(stream, cuts), LIMIT, LIMIT)
    other, other_code = theirs(stream)
    if ours and isinstance(ours[-1], Closing) and (ours[:-1], 1002) == (other, other_code):
        return  # a close frame inside a message is answered, not refused: it says that there will be no more of it
    if our_code is None:
        assert (ours, None) == (other, other_code)
    elif other_code is None:
        assert ours == other[: len(ours)]  # ours sees it before the frame or the message is complete
    else:
        assert ours == other[: len(ours)]
        earlier = {(1002, 1009), (1007, 1002), (1007, 1009)}  # wrong bits before the length, text before its end
        assert our_code == other_code or (our_code, other_code) in earlier


@given(st.binary(max_size=60), st.integers(1, 60))
def test_text_is_refused_at_its_first_wrong_byte(payload: bytes, cut: int) -> None:
    try:
        payload.decode()
        wrong = None
    except UnicodeDecodeError as error:
        wrong = error
    frame = masked(1, payload)
    events, code = read([frame[:cut], frame[cut:]])
    assert (code, len(events)) == ((None, 1) if wrong is None else (1007, 0))
    if wrong is not None and wrong.reason != "unexpected end of data":
        long = masked(1, payload + b"x" * 500)
        head = len(long) - 500 - len(payload)
        assert read([long[: head + wrong.start + 4]])[1] == 1007  # the rest never has to come


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, CEILING])
@pytest.mark.parametrize("opcode", [1, 2])
def test_a_message_above_the_limit_is_swallowed(size: int, opcode: int) -> None:
    stream = masked(opcode, b"a" * size) + masked(1, b"next")
    kept: Event = Text("a" * size) if opcode == 1 else Binary(b"a" * size)
    expected = [kept if size <= LIMIT else TooLarge(size), Text("next")]
    assert read([stream]) == (expected, None)
    fragmented = b"".join(split(b"a" * size, [1, 999, 1001], opcode)) + masked(1, b"next")
    assert read([fragmented]) == (expected, None)


def test_a_swallowed_message_must_be_utf8_too() -> None:
    assert read([masked(1, b"a" * 2000 + b"\xff")]) == ([], 1007)


def test_what_announces_more_than_the_ceiling_ends_it_at_once() -> None:
    header = bytes([0x82, 0xFF]) + (CEILING + 1).to_bytes(8, "big")
    assert read([header]) == ([], 1009)
    assert read([bytes([0x82, 0xFF]) + b"\xff" * 8]) == ([], 1009)
    first = masked(2, b"a" * CEILING, fin=False)
    assert read([first]) == ([], None)
    assert read([first, masked(0, b"b")]) == ([], 1009)


def test_nothing_is_kept_of_what_is_swallowed() -> None:
    reader = MessageReader(LIMIT, 10 * LIMIT)
    frame = masked(2, b"a" * 10 * LIMIT)
    for start in range(0, len(frame) - 100, 100):
        reader.feed(frame[start : start + 100])
        assert reader.next() is None
        assert reader._parts is None
        assert len(reader._data) - reader._position < 14


@pytest.mark.parametrize("start", [b"\x81", b"\x81\xfe\x01", b"\x81\xff\0\0", b"\x81\x85\0\0", b"\x89\x85\0\0\0\0abcd"])
def test_of_much_at_once_only_the_frame_that_is_not_complete_is_kept(start: bytes) -> None:
    reader = MessageReader(LIMIT, CEILING)
    reader.feed(masked(9, b"x" * 100) * 1000 + start)
    for _ in range(1000):
        assert isinstance(reader.next(), Ping)
    assert reader.next() is None
    assert reader._data == start


def test_tiny_fragments_take_no_more_than_their_bytes() -> None:
    reader = MessageReader(LIMIT, CEILING)
    reader.feed(masked(1, b"", fin=False))
    for _ in range(LIMIT):
        assert isinstance(reader.next(), Fragment)
        reader.feed(masked(0, b"x", fin=False) + masked(0, b"", fin=False))
        assert isinstance(reader.next(), Fragment)
    assert reader._parts == bytearray(b"x" * LIMIT)
