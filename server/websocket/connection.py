"""The sending half of a WebSocket, as its session sees it: ready-made frames, back-pressure, heartbeat facts.

A session finds its `FrameConnection` in `scope["extensions"]["headrace.frames"]["connection"]`. It may be used from the
event loop's thread only, after `websocket.accept` was sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from server.websocket.frames import Opcode, close_frame, control_frame

CLOSE_SECONDS = 5.0
"""How long a client may take to answer a close frame, and to close its side afterwards."""

FLUSHES = 128
"""Connections that are written to before the event loop gets its turn: a write costs a system call."""

_PING = control_frame(Opcode.PING)

EXTENSION = "headrace.frames"
"""The name under which a WebSocket's scope carries its connection."""

TOO_LARGE = "headrace.too_large"
"""Key of a `websocket.receive` message without text and bytes: the size of a message above `max_ws_message_size`."""


class FrameConnection(Protocol):
    """An accepted WebSocket as its session sees it."""

    def write(self, frame: bytes) -> None:
        """Hand a complete frame over (`frames.text_frame`, `frames.binary_frame`); dropped once closing has begun."""

    def write_many(self, frames: Sequence[bytes]) -> None:
        """Hand several complete frames over; also parts of frames, if together they are complete."""

    @property
    def buffered(self) -> int:
        """Bytes that were handed over and that the socket has not taken yet."""

    @property
    def full(self) -> bool:
        """Whether `buffered` is above the high-water mark. Writing is still possible but should stop."""

    def on_drain(self, callback: Callable[[], None] | None) -> None:
        """Have a function called on the event loop whenever `full` turns false; None takes it back."""

    def ping(self) -> None:
        """Send a ping; the client's pong moves `last_heard`."""

    @property
    def last_heard(self) -> float:
        """`loop.time()` of the last complete frame of any kind from the client.

        While a message waits for the session's `receive`, nothing is read: then this is the present.
        """

    @property
    def last_drained(self) -> float:
        """`loop.time()` when the socket was last seen to take bytes that had been waiting: a slow reader's progress.

        Noticed by looking: at writes, when it drains, and here. While nothing waits, this is the present.
        """

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake, which has a time limit; the transport is closed after it."""

    def abort(self) -> None:
        """Drop the connection at once, with what waits to be written."""

    @property
    def closed(self) -> bool:
        """Whether closing has begun, by either side, or the connection is lost: frames are dropped from then on."""


class Outbox:
    """The connections of one event loop that have frames to hand to their transports at the end of the turn.

    Transports make a system call for each write, which costs far more than all else. So what is written to a connection
    in one turn of the loop, such as the changes of several commits, goes out together.
    """

    __slots__ = ("_scheduled", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[Connection] = deque()
        self._scheduled = False

    def add(self, connection: Connection) -> None:
        """Have a connection flushed."""
        self._waiting.append(connection)
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        waiting = self._waiting
        try:
            for _ in range(min(FLUSHES, len(waiting))):
                waiting.popleft().flush()
        finally:
            if waiting and not self._scheduled:
                self._schedule()


class Connection:
    """The sending half of a WebSocket: writes, water marks, the closing handshake. It is a `FrameConnection`.

    The socket protocol (`server/websocket/protocol.py`) tells it what the transport and the client do.
    """

    __slots__ = (
        "_close_timer",
        "_closing",
        "_drained",
        "_handed",
        "_heard",
        "_high",
        "_loop",
        "_on_drain",
        "_open",
        "_outbox",
        "_pong",
        "_queue",
        "_queued",
        "_size",
        "_taken",
        "_transport",
        "_waiters",
        "_write",
        "_writelines",
        "full",
        "reading",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        high: int,
        outbox: Outbox,
        closing: Callable[[int, str], None],
    ) -> None:
        """`closing` is called, with code and reason, when this side begins the closing handshake."""
        self._outbox = outbox
        self._queue: list[bytes] = []
        self._queued = 0
        self._transport = transport
        self._loop = loop
        self._high = high
        self._closing: Callable[[int, str], None] | None = closing
        self._write = transport.write
        self._writelines = transport.writelines
        self._size = transport.get_write_buffer_size
        self._open = False
        self.full = False
        self.reading = True  # False while the session keeps the client waiting
        self._handed = 0
        self._taken = 0
        self._heard = self._drained = loop.time()
        self._on_drain: Callable[[], None] | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._pong: bytes | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        transport.set_write_buffer_limits(high, high // 4)

    # What sessions use

    def write(self, frame: bytes) -> None:
        """Hand a complete frame over; dropped once closing has begun."""
        if self._open:
            if not self._queue:
                self._outbox.add(self)
            self._queue.append(frame)
            self._queued += len(frame)
            if self._queued > self._high:
                self.flush()

    def write_many(self, frames: Sequence[bytes]) -> None:
        """Hand several complete frames over; also parts of frames, if together they are complete."""
        if self._open and frames:
            if not self._queue:
                self._outbox.add(self)
            self._queue += frames
            self._queued += sum(map(len, frames))
            if self._queued > self._high:
                self.flush()

    @property
    def buffered(self) -> int:
        """Bytes that were handed over and that the socket has not taken yet."""
        return self._queued + self._size()

    def on_drain(self, callback: Callable[[], None] | None) -> None:
        """Have a function called on the event loop whenever `full` turns false; None takes it back."""
        self._on_drain = callback

    def ping(self) -> None:
        """Send a ping; nothing if closing has begun."""
        self.write(_PING)

    @property
    def last_heard(self) -> float:
        """When the last complete frame came; the present while the client is kept waiting."""
        return self._heard if self.reading else self._loop.time()

    @property
    def last_drained(self) -> float:
        """When the socket was last seen to take bytes; the present while none wait."""
        self._look()
        return self._drained

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake; nothing if it has begun."""
        if not self._open:
            return
        self.write(close_frame(code, reason))
        self.flush()
        self._open = False
        self._arm()
        if self._closing is not None:
            self._closing(code, reason)

    def abort(self) -> None:
        """Drop the connection at once."""
        self._open = False
        self._drop()
        self._transport.abort()

    @property
    def closed(self) -> bool:
        """Whether closing has begun or the connection is lost."""
        return not self._open

    # What the socket protocol tells

    def accepted(self) -> None:
        """The handshake is complete: frames may be written."""
        self._open = True
        self._heard = self._loop.time()

    def heard(self) -> None:
        """A complete frame came."""
        self._heard = self._loop.time()

    def answer_ping(self, payload: bytes) -> None:
        """Send a pong; of those that cannot be sent while the buffer is full, the newest (RFC 6455, 5.5.3)."""
        if self.full:
            self._pong = payload
        else:
            self.write(control_frame(Opcode.PONG, payload))

    def answer_close(self, payload: bytes) -> None:
        """The client's close frame came: answer it unless it was an answer, and close."""
        self.write(control_frame(Opcode.CLOSE, payload))
        self.finish()

    def fail(self, code: int, reason: str) -> None:
        """Send a close frame unless one was sent, and close without waiting for an answer."""
        self.write(close_frame(code, reason))
        self.finish()

    def finish(self) -> None:
        """End this side of the stream and wait for the client to end its own: a reset could eat the last frame."""
        self.flush()
        self._open = False
        self._arm()
        if not self._transport.is_closing() and self._transport.can_write_eof():
            self._transport.write_eof()

    def lost(self) -> None:
        """The transport is closed: let go of everything."""
        self._open = False
        self._drop()
        self._disarm()
        self._closing = self._on_drain = None
        self._wake()

    def pause(self) -> None:
        """The transport could not send and holds more than the high-water mark."""
        self.full = True
        self._look()

    def resume(self) -> None:
        """The transport holds less than the low-water mark."""
        self.full = False
        self._look()
        pong, self._pong = self._pong, None
        if pong is not None:
            self.write(control_frame(Opcode.PONG, pong))
        self._wake()
        if self._on_drain is not None and self._open:
            self._on_drain()

    def flush(self) -> None:
        """Hand what was written to the transport, which tries to send it at once and tells if it is full."""
        queue = self._queue
        if not queue:
            return
        self._queue = []
        self._handed += self._queued
        self._queued = 0
        if len(queue) == 1:
            self._write(queue[0])
        else:
            self._writelines(queue)

    async def drained(self) -> None:
        """Wait until the buffer is not full, or the connection is lost."""
        if self.full and not self._transport.is_closing():
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    # Inside

    def _drop(self) -> None:
        self._queue = []
        self._queued = 0

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _look(self) -> None:
        """Compare what the socket has taken with the last look."""
        waiting = self._size()
        taken = self._handed - waiting
        if not waiting or taken > self._taken:
            self._taken = taken
            self._drained = self._loop.time()

    def _arm(self) -> None:
        self._disarm()
        self._close_timer = self._loop.call_later(CLOSE_SECONDS, self._transport.abort)

    def _disarm(self) -> None:
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
