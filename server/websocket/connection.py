"""What a session sees of its WebSocket beside ASGI: ready-made frames out, back-pressure and heartbeat facts.

A session finds its `FrameConnection` in `scope["extensions"]["headrace.frames"]["connection"]`. It may be used from the
event loop's thread only, after `websocket.accept` was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

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
