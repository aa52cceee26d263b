"""Housekeeping: one thread for what the SQL room looks after now and then, where each task takes a moment."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from storage.errors import StorageClosed, StorageError
from storage.seams import SYSTEM_CLOCK, Clock

_log = logging.getLogger("headrace.housekeeping")
_CLOSING = 10.0


class Housekeeping:
    """Calls tasks, each at most every so many seconds, the first time soon after `start`."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._tasks: list[tuple[float, Callable[[], object]]] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, seconds: float, task: Callable[[], object]) -> None:
        """Have a task done, before `start`. It may raise; then it is tried again when it is due the next time."""
        self._tasks.append((seconds, task))

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="headrace_housekeeping", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; a task that runs is waited for."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_CLOSING)

    def _run(self) -> None:
        due = [self._clock.monotonic() + min(seconds, 1.0) for seconds, _ in self._tasks]
        while due and not self._stop.wait(max(0.01, min(due) - self._clock.monotonic())):
            for place, (seconds, task) in enumerate(self._tasks):
                if due[place] <= self._clock.monotonic() and not self._stop.is_set():
                    due[place] = self._clock.monotonic() + seconds
                    _attempt(task)


def _attempt(task: Callable[[], object]) -> None:
    try:
        task()
    except StorageClosed:
        return  # the server ends
    except StorageError as error:
        _log.warning("%s cannot be done now: %s", _name(task), error)
    except Exception:  # noqa: BLE001  the other tasks must go on
        _log.exception("%s failed", _name(task))


def _name(task: Callable[[], object]) -> str:
    return getattr(task, "__qualname__", repr(task))
