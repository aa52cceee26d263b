"""Works on their way to the writer: the bounded queue, and how their submitters learn the outcome."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from storage.errors import QueueFull, StorageError

if TYPE_CHECKING:
    from storage.writer import WriteTransaction

T = TypeVar("T")
log = logging.getLogger("headrace.storage")

Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]

_WOKEN_AT_ONCE = 8


class Commit(Generic[T]):
    """The outcome of a work, for threads."""

    __slots__ = ("_callback", "_done", "_error", "_result")

    def __init__(self, callback: Callable[[Commit[T]], None] | None = None) -> None:
        self._done = threading.Event()
        self._callback = callback
        self._result: T | None = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Whether the work is committed or has failed."""
        return self._done.is_set()

    def result(self, timeout: float | None = None) -> T:
        """What the work returned, once it is durable; or its error."""
        if not self._done.wait(timeout):
            raise TimeoutError("the commit did not finish in time")
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error of the work, if it failed; waits until it is finished."""
        if not self._done.wait(timeout):
            raise TimeoutError("the commit did not finish in time")
        return self._error

    def resolve(self, result: Any, error: BaseException | None) -> None:
        """Called once, by the writer."""
        self._result, self._error = result, error
        self._done.set()
        if self._callback is not None:
            self._callback(self)


class Submission:
    """One work in the queue. Exactly one of `future` (with its loop) and `commit` waits for it, until it is settled."""

    __slots__ = ("commit", "error", "exclusive", "future", "loop", "misses", "result", "settled", "weight", "work")

    def __init__(
        self,
        work: Callable[[WriteTransaction], Any],
        weight: int,
        *,
        exclusive: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
        future: asyncio.Future[Any] | None = None,
        commit: Commit[Any] | None = None,
    ) -> None:
        self.work = work
        self.weight = weight
        self.exclusive = exclusive
        self.loop = loop
        self.future = future
        self.commit = commit
        self.result: Any = None
        self.error: BaseException | None = None
        self.settled = False
        self.misses = 0
        """How often it was put off until a cold row group was loaded."""


class SubmitExclusive(Protocol):
    """Runs a work of the engine itself alone in the writer."""

    def __call__(self, work: Callable[[WriteTransaction], T]) -> Commit[T]:
        """Queue the work."""


class WorkQueue:
    """A bounded queue with one consumer."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._items: deque[Submission] = deque()
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._waiting_for = 0
        self._refusal: StorageError | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, submission: Submission) -> None:
        """Queue a work. Raises QueueFull at the bound, or the refusal of a closed or poisoned engine.

        Works of the engine itself pass the bound, and so do works that were in the queue before.
        """
        with self._lock:
            if self._refusal is not None:
                raise type(self._refusal)(*self._refusal.args)
            if len(self._items) >= self._bound and not submission.exclusive and not submission.misses:
                raise QueueFull(f"{self._bound} works wait for the writer already")
            self._items.append(submission)
            if self._waiting_for and len(self._items) >= self._waiting_for:
                self._filled.notify()

    def refuse(self, error: StorageError | None) -> None:
        """Refuse new works with `error` (None: accept again), and wake the writer."""
        with self._lock:
            self._refusal = error
            self._filled.notify()

    @property
    def refusal(self) -> StorageError | None:
        """Why new works are refused, if they are."""
        return self._refusal

    def take(self, works: int, rows: int, direct_rows: int, *, expected: int, wait_seconds: float) -> list[Submission]:
        """The next group, waiting for a first work; empty when the queue is refused and drained.

        When `expected` works came last time, the submitters that were woken then are likely on their way: wait
        up to `wait_seconds` for as many.
        """
        with self._lock:
            while not self._items:
                if self._refusal is not None:
                    return []
                self._wait_for(1, None)
            if expected > 1 and len(self._items) < expected and self._refusal is None:
                limit = time.monotonic() + wait_seconds
                while len(self._items) < expected and (left := limit - time.monotonic()) > 0:
                    self._wait_for(expected, left)
            group = [self._items.popleft()]
            weight = group[0].weight
            if group[0].exclusive or weight > direct_rows:
                return group
            while self._items and len(group) < works:
                following = self._items[0]
                weight += following.weight
                if weight > rows or following.exclusive or following.weight > direct_rows:
                    break
                group.append(self._items.popleft())
            return group

    def drain(self) -> list[Submission]:
        """Everything that waits."""
        with self._lock:
            items = list(self._items)
            self._items.clear()
            return items

    def _wait_for(self, count: int, timeout: float | None) -> None:
        self._waiting_for = count
        self._filled.wait(timeout)
        self._waiting_for = 0


def settle(submissions: Iterable[Submission]) -> None:
    """Tell the submitters, each one once: one call into each event loop, whatever the number of works."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
    for submission in submissions:
        if submission.settled:
            continue
        submission.settled = True
        if submission.future is not None and submission.loop is not None:
            by_loop.setdefault(submission.loop, []).append((submission.future, submission.result, submission.error))
        elif submission.commit is not None:
            try:
                submission.commit.resolve(submission.result, submission.error)
            except Exception:
                log.exception("an on_done callback failed")
        submission.future = submission.commit = None
    for loop, outcomes in by_loop.items():
        try:
            loop.call_soon_threadsafe(_wake, loop, outcomes, 0)
        except RuntimeError:
            continue  # the loop is closed: nobody waits any more


def _wake(loop: asyncio.AbstractEventLoop, outcomes: list[Outcome], start: int) -> None:
    """Wake a few waiters, then let the loop look at its sockets before the next few.

    All waiters of a large group would answer and send their next write in one turn of the loop, and whoever reads
    would wait for all of that.
    """
    end = start + _WOKEN_AT_ONCE
    for future, result, error in outcomes[start:end]:
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
    if end < len(outcomes):
        loop.call_soon(_wake, loop, outcomes, end)
