"""The seams through which time comes in, so that a simulation can supply its own."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for timestamps, monotonic time for leases and limits."""

    def now_us(self) -> int:
        """Microseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()


class ForwardClock:
    """A clock whose wall time never goes back, however the machine's is set. Thread-safe.

    Snapshots and commits take their time from one of these: what has expired for one reader has expired for every
    later one.
    """

    def __init__(self, clock: Clock, not_before_us: int = 0) -> None:
        self._clock = clock
        self._latest = not_before_us
        self._lock = threading.Lock()

    def now_us(self) -> int:
        """Microseconds since the epoch, not less than at any earlier call."""
        with self._lock:
            self._latest = max(self._latest, self._clock.now_us())
            return self._latest

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return self._clock.monotonic()

    def not_before(self, time_us: int) -> None:
        """A time that was stored: from now on none is earlier."""
        with self._lock:
            self._latest = max(self._latest, time_us)


SYSTEM_CLOCK: Clock = SystemClock()
