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

THREADS = "sql"
"""What the names of the threads begin with."""
CLOSING = 3.0
"""Seconds that closing waits for calls that were told to stop."""

GRACE = 3.0
"""Seconds after its deadline in which a statement should have stopped."""


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
        self.may_be_left = False
        """Set when the request only reads: its client need not wait for a thread that does not stop in time."""
        self.request_id = ""
        """Which request it is, for those who look on."""
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
            raise self.overdue()

    def overdue(self) -> QueryTimeout:
        """The error of a statement whose time is over."""
        return QueryTimeout(f"The statement took longer than {self.timeout:g} seconds and was stopped.")


class Workers:
    """A pool of `threads` threads with at most `waiting` calls in its queue."""

    def __init__(self, threads: int, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=THREADS)
        self._bound = threads + waiting
        self._busy = 0
        self._controls: set[Control] = set()

    @property
    def busy(self) -> int:
        """Calls that run or wait."""
        return self._busy

    async def run(self, call: Callable[[], T], control: Control) -> T:
        """Run `call` on a thread. Raises Overloaded when too many calls wait.

        When the awaiting task is cancelled, the control is stopped and the thread's end awaited, so that nothing of
        the request goes on after it was answered. A request that only reads is left behind some time after its
        deadline: DuckDB cannot be interrupted inside one call of a function.
        """
        if self._busy >= self._bound:
            raise Overloaded(f"{self._busy} statements are running or waiting; try again in a moment.")
        future = self._begin(call, control)
        try:
            await asyncio.wait([future], timeout=control.remaining + GRACE)
            if not future.done():
                if control.may_be_left:
                    control.stop(control.overdue())
                    raise control.overdue()
                await asyncio.wait([future])
            return future.result()
        except asyncio.CancelledError:
            control.stop(Cancelled("The request was given up before the statement was done."))
            if not control.may_be_left:
                await asyncio.wait([future])
            raise
        finally:
            del future  # it holds what it raised, and that this frame: together they would keep the rows of a query

    def _begin(self, call: Callable[[], T], control: Control) -> asyncio.Future[T]:
        """Hand the call to a thread. It is counted until it has ended, also when nobody waits for it any more."""

        def begin() -> T:
            control.check()
            try:
                return call()
            except Exception as error:
                # Whoever keeps the error of a call that was stopped (the control itself does) would keep its frames,
                # and so its rows and its snapshot, until a garbage collection.
                if control.stopped is not None:
                    error.__context__ = None
                    error.__traceback__ = None
                raise

        try:
            future = asyncio.get_running_loop().run_in_executor(self._pool, begin)
        except (RuntimeError, MemoryError) as error:
            # No memory for another thread; the call is queued already, so it must do nothing when its turn comes.
            control.stop(Overloaded("The server has no memory for another statement; try again in a moment."))
            assert control.stopped is not None
            raise control.stopped from error
        self._busy += 1
        self._controls.add(control)

        def ended(done: asyncio.Future[T]) -> None:
            self._busy -= 1
            self._controls.discard(control)
            if not done.cancelled():
                done.exception()  # seen, if nobody waited for it

        future.add_done_callback(ended)
        return future

    def stop(self, reason: SqlError) -> None:
        """Stop everything that runs, for shutting down."""
        for control in tuple(self._controls):
            control.stop(reason)

    def close(self, seconds: float = CLOSING) -> None:
        """Wait for running calls and end the threads; one that cannot be stopped is not waited for any longer."""
        self._pool.shutdown(wait=False)
        limit = time.monotonic() + seconds
        for thread in left_behind():
            thread.join(max(0.0, limit - time.monotonic()))


def left_behind() -> list[threading.Thread]:
    """The threads of pools that were closed and still run: the interpreter would wait for them at its end."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(f"{THREADS}_")]
