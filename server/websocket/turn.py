"""How long the present turn of the event loop has taken: the share of each among many busy connections.

A connection with many messages handles them in a row, which is cheap, but a thousand such connections would hold the
loop for seconds. So they ask here, and once the turn has taken its time each goes on in the next one.
"""

from __future__ import annotations

import asyncio
import time

TURN_SECONDS = 0.01
"""How long a turn may take before those with more to do wait for the next."""


class LoopTurn:
    """The turns of one event loop, as far as those who ask can tell: a turn begins when the first one asks."""

    __slots__ = ("_ends", "_scheduled")

    def __init__(self) -> None:
        self._ends = 0.0
        self._scheduled = False

    def is_over(self) -> bool:
        """Whether the turn has taken its time."""
        now = time.monotonic()
        if not self._scheduled:
            self._scheduled = True
            self._ends = now + TURN_SECONDS
            asyncio.get_running_loop().call_soon(self._next)
        return now >= self._ends

    def _next(self) -> None:
        self._scheduled = False
