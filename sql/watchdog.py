"""One thread that calls back when a time is over: how a query's deadline reaches DuckDB."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Watchdog:
    """Calls back at deadlines (of time.monotonic). The thread starts with the first one and ends with `close`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int]] = []
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._ids = itertools.count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def watch(self, deadline: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` at the deadline unless the function that this returns is called before."""
        token = next(self._ids)
        with self._changed:
            self._callbacks[token] = callback
            heapq.heappush(self._heap, (deadline, token))
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="sql-watchdog", daemon=True)
                self._thread.start()
            elif self._heap[0][1] == token:
                self._changed.notify()
        return lambda: self._forget(token)

    def _forget(self, token: int) -> None:
        with self._changed:
            self._callbacks.pop(token, None)

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                while self._heap and self._heap[0][1] not in self._callbacks:
                    heapq.heappop(self._heap)
                if not self._heap:
                    self._changed.wait()
                    continue
                wait = self._heap[0][0] - time.monotonic()
                if wait > 0:
                    self._changed.wait(wait)
                    continue
                callback = self._callbacks.pop(heapq.heappop(self._heap)[1], None)
                if callback is not None:
                    self._changed.release()
                    try:
                        callback()
                    except Exception:
                        log.exception("what a deadline calls failed")
                    finally:
                        self._changed.acquire()

    def close(self) -> None:
        """End the thread; deadlines that are left never call."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
