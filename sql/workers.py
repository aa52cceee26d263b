"""Threads on which statements run that may take longer than the event loop can wait.

A bounded number of threads, a bounded number of statements waiting for one; what comes beyond is refused at
once (SERVER_OVERLOADED) instead of piling up. A `Control` travels with every statement: it carries the
deadline and lets the event loop (client gone) or the storage (snapshot's lease over) stop it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sql.errors import Overloaded, QueryTimeout, SqlError

T = TypeVar("T")


class Cancelled(SqlError):
    """The client went away, or the server is stopping, before the statement was done."""

    code = "CANCELLED"
    status = 503


class Control:
    """The deadline of a request and the way to stop what it runs. Safe from any thread.

    `timeout` is seconds from now. `on_stop` callbacks run at most once each, in the thread that stops.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        self._lock = threading.Lock()
        self._stopped: SqlError | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, not below 0."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def stopped(self) -> SqlError | None:
        """Why the statement must end, if it must."""
        return self._stopped

    def stop(self, reason: SqlError) -> None:
        """End what runs under this control; the first reason counts."""
        with self._lock:
            if self._stopped is not None:
                return
            self._stopped = reason
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_stop(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when the statement is stopped; returns a function that takes it back."""
        with self._lock:
            if self._stopped is None:
                self._callbacks.append(callback)
                return lambda: self._remove(callback)
        callback()
        return lambda: None

    def _remove(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    def check(self) -> None:
        """Raise the reason when the statement was stopped, or QueryTimeout when its time is over."""
        if self._stopped is not None:
            raise self._stopped
        if time.monotonic() >= self.deadline:
            raise QueryTimeout(f"The statement took longer than {self.timeout:g} seconds and was stopped.")


class Workers:
    """A pool of `threads` threads with at most `waiting` calls in its queue."""

    def __init__(self, threads: int, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="sql")
        self._bound = threads + waiting
        self._busy = 0
        self._controls: set[Control] = set()

    async def run(self, call: Callable[[], T], control: Control) -> T:
        """Run `call` on a thread. Raises Overloaded when too many calls wait.

        When the awaiting task is cancelled, the control is stopped and the thread's end awaited, so that nothing of
        the request goes on after it was answered.
        """
        if self._busy >= self._bound:
            raise Overloaded(f"{self._busy} statements are running or waiting; try again in a moment.")
        self._busy += 1
        self._controls.add(control)
        try:
            future = asyncio.get_running_loop().run_in_executor(self._pool, call)
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                control.stop(Cancelled("The request was given up before the statement was done."))
                await asyncio.wait([future])
                if not future.cancelled():
                    future.exception()
                raise
        finally:
            self._busy -= 1
            self._controls.discard(control)

    def stop(self, reason: SqlError) -> None:
        """Stop everything that runs, for shutting down."""
        for control in tuple(self._controls):
            control.stop(reason)

    def close(self) -> None:
        """Wait for running calls and end the threads."""
        self._pool.shutdown(wait=True)
