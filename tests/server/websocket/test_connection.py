"""The sending half, over a transport that takes bytes when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import pytest

from server.websocket.connection import FLUSHES, Connection, FrameConnection, Outbox
from server.websocket.frames import close_frame, text_frame

HIGH = 1000


class FakeLoop:
    """Time in the test's hands."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[FakeTimer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> FakeTimer:
        self.timers.append(FakeTimer(self, self.now + delay, callback))
        return self.timers[-1]

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for timer in list(self.timers):
            if timer.when <= self.now:
                timer.cancel()
                timer.callback()


class FakeTimer:
    def __init__(self, loop: FakeLoop, when: float, callback: Callable[[], None]) -> None:
        self.loop, self.when, self.callback = loop, when, callback

    def cancel(self) -> None:
        if self in self.loop.timers:
            self.loop.timers.remove(self)


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.waiting = bytearray()
        self.sent = b""
        self.ended = self.aborted = False
        self.limits = (0, 0)
        self.paused = False
        self.connection: Connection | None = None
        self.writes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended
        self.writes += 1
        self.waiting += data
        self.flush(0)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return len(self.waiting)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high or 0, low or 0)

    def flush(self, size: int) -> None:
        """The socket takes some bytes; then the transport pauses or resumes its protocol."""
        assert self.connection is not None
        self.sent += bytes(self.waiting[:size])
        del self.waiting[:size]
        if not self.paused and len(self.waiting) > self.limits[0]:
            self.paused = True
            self.connection.pause()
        elif self.paused and len(self.waiting) <= self.limits[1]:
            self.paused = False
            self.connection.resume()

    def is_closing(self) -> bool:
        return self.aborted

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.aborted = True


class FakeOutbox(Outbox):
    """Flushes when the test says so."""

    def add(self, connection: Connection) -> None:
        self._waiting.append(connection)

    def turn(self) -> None:
        self._flush()


class Setting:
    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.transport = FakeTransport()
        self.closings: list[tuple[int, str]] = []
        self.outbox = FakeOutbox()
        self.connection = Connection(self.transport, self.loop, HIGH, self.outbox, self.note)  # type: ignore[arg-type]
        self.transport.connection = self.connection
        self.drains = 0
        self.connection.on_drain(self.drain)

    def note(self, code: int, reason: str) -> None:
        self.closings.append((code, reason))

    def drain(self) -> None:
        self.drains += 1


@pytest.fixture
def opened() -> Setting:
    setting = Setting()
    setting.connection.accepted()
    return setting


def test_frames_go_out_as_they_are_and_only_while_it_is_open(opened: Setting) -> None:
    connection: FrameConnection = opened.connection
    connection.write(b"one")
    connection.write_many([b"two", b"three"])
    connection.write_many([])
    connection.ping()
    assert connection.buffered == 13
    assert opened.transport.waiting == b""
    opened.outbox.turn()
    assert bytes(opened.transport.waiting) == b"onetwothree\x89\x00"
    assert (opened.transport.writes, connection.buffered) == (1, 13)
    connection.write(b"last")
    connection.close(1001, "bye")
    sent = bytes(opened.transport.waiting)
    assert sent.endswith(b"last" + close_frame(1001, "bye"))
    connection.write(b"x")
    connection.write_many([b"x"])
    connection.ping()
    connection.close(1000)
    opened.outbox.turn()
    assert bytes(opened.transport.waiting) == sent
    assert opened.closings == [(1001, "bye")]


def test_nothing_is_written_before_it_is_accepted() -> None:
    setting = Setting()
    setting.connection.write(b"x")
    setting.connection.close(1000)
    assert (setting.connection.closed, setting.connection.buffered) == (True, 0)


def test_what_was_written_is_dropped_with_the_connection(opened: Setting) -> None:
    opened.connection.write(b"x")
    opened.connection.abort()
    opened.outbox.turn()
    assert (opened.connection.buffered, opened.transport.aborted) == (0, True)


def test_it_is_full_above_the_mark_until_the_transport_drains(opened: Setting) -> None:
    connection, transport = opened.connection, opened.transport
    assert transport.limits == (HIGH, HIGH // 4)
    connection.write(b"x" * HIGH)
    opened.outbox.turn()
    assert not connection.full
    connection.write(b"x")
    opened.outbox.turn()
    assert connection.full
    transport.flush(HIGH // 2)
    assert connection.full
    transport.flush(HIGH // 4 + 1)
    assert not connection.full
    assert opened.drains == 1


def test_much_in_one_turn_is_handed_over_at_once(opened: Setting) -> None:
    for _ in range(3):
        opened.connection.write(b"x" * (HIGH // 2))
    assert opened.connection.full  # whoever writes in a loop sees it in time
    assert len(opened.transport.waiting) == 3 * (HIGH // 2)


def test_the_callback_may_write_and_be_taken_back(opened: Setting) -> None:
    def refill() -> None:
        opened.drains += 1
        opened.connection.write(b"x" * 2 * HIGH)

    opened.connection.on_drain(refill)
    opened.connection.write(b"x" * 2 * HIGH)
    for _ in range(3):
        opened.transport.flush(10 * HIGH)
    assert opened.drains == 3
    opened.connection.on_drain(None)
    opened.transport.flush(10 * HIGH)
    assert (opened.drains, opened.connection.full) == (3, False)


def test_the_progress_of_a_slow_reader_is_seen(opened: Setting) -> None:
    connection, transport, loop = opened.connection, opened.transport, opened.loop
    loop.now = 200.0
    assert connection.last_drained == 200.0  # nothing waits
    connection.write(b"x" * 3 * HIGH)
    loop.now = 230.0
    assert connection.last_drained == 200.0
    connection.write(b"more")
    opened.outbox.turn()
    assert connection.last_drained == 200.0
    transport.flush(10)
    loop.now = 231.0
    assert connection.last_drained == 231.0
    loop.now = 260.0
    assert connection.last_drained == 231.0


def test_while_it_is_full_only_the_newest_pong_waits(opened: Setting) -> None:
    opened.connection.write(b"x" * 2 * HIGH)
    for payload in (b"1", b"2", b"3"):
        opened.connection.answer_ping(payload)
    assert opened.connection.buffered == 2 * HIGH
    opened.transport.flush(2 * HIGH)
    opened.connection.answer_ping(b"4")
    opened.outbox.turn()
    assert bytes(opened.transport.waiting) == b"\x8a\x013\x8a\x014"


def test_last_heard_is_now_while_the_client_is_kept_waiting(opened: Setting) -> None:
    opened.loop.now = 150.0
    assert opened.connection.last_heard == 100.0
    opened.connection.heard()
    opened.loop.now = 160.0
    assert opened.connection.last_heard == 150.0
    opened.connection.reading = False
    assert opened.connection.last_heard == 160.0


def test_a_close_frame_is_echoed_and_the_stream_ended(opened: Setting) -> None:
    opened.connection.answer_close(b"\x03\xe8bye")
    assert bytes(opened.transport.waiting) == b"\x88\x05\x03\xe8bye"
    assert opened.transport.ended
    assert opened.closings == []


def test_the_answer_to_our_close_frame_is_not_echoed(opened: Setting) -> None:
    opened.connection.close(1000)
    assert not opened.transport.ended
    opened.connection.answer_close(b"\x03\xe8")
    assert bytes(opened.transport.waiting) == close_frame(1000)
    assert opened.transport.ended


@pytest.mark.parametrize("begin", ["close", "fail", "answer_close", "finish"])
def test_a_client_that_does_not_end_its_side_is_dropped_in_time(opened: Setting, begin: str) -> None:
    arguments = {"close": (1000,), "fail": (1002, "wrong"), "answer_close": (b"",), "finish": ()}[begin]
    getattr(opened.connection, begin)(*arguments)
    opened.loop.advance(4.9)
    assert not opened.transport.aborted
    opened.loop.advance(0.1)
    assert opened.transport.aborted


def test_nothing_is_left_behind_when_it_is_lost(opened: Setting) -> None:
    opened.connection.close(1000)
    opened.connection.lost()
    assert opened.loop.timers == []
    opened.connection.write(text_frame(b"x"))
    assert bytes(opened.transport.waiting) == close_frame(1000)
    opened.loop.advance(10)
    assert not opened.transport.aborted


def test_whoever_waits_for_room_goes_on_when_there_is_some_or_never_will_be() -> None:
    async def scenario(*, lost: bool) -> None:
        transport = FakeTransport()
        connection = Connection(transport, asyncio.get_running_loop(), HIGH, Outbox(), lambda code, reason: None)
        transport.connection = connection
        connection.accepted()
        await connection.drained()
        connection.write(b"x" * 2 * HIGH)
        waiting = [asyncio.create_task(connection.drained()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        assert not waiting[1].done()
        if lost:
            connection.lost()
        else:
            transport.flush(2 * HIGH)
        await waiting[1]
        assert waiting[0].cancelled()

    for lost in (False, True):
        asyncio.run(scenario(lost=lost))


def test_an_outbox_gives_others_their_turn_and_survives_a_failure() -> None:
    class Flushed:
        def __init__(self, number: int) -> None:
            self.number = number

        def flush(self) -> None:
            order.append(self.number)
            if self.number == 3:
                raise RuntimeError("the transport is gone")

    order: list[int] = []
    problems: list[object] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: problems.append(context["exception"]))
        outbox = Outbox()
        for number in range(3 * FLUSHES):
            outbox.add(Flushed(number))  # type: ignore[arg-type]
        loop.call_soon(order.append, -1)
        while len(order) <= 3 * FLUSHES:
            await asyncio.sleep(0)

    asyncio.run(scenario())
    assert order.index(-1) <= FLUSHES
    assert [number for number in order if number >= 0] == list(range(3 * FLUSHES))
    assert [str(problem) for problem in problems] == ["the transport is gone"]
