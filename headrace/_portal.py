"""An event loop in a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from headrace._exceptions import ClientClosed

T = TypeVar("T")


class Portal:
    """The thread starts with the object and ends with `close`. As a daemon it holds no program up that forgets it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="headrace-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for what it returns or raises.

        When the wait is interrupted (Ctrl-C) the coroutine is cancelled. Raises ClientClosed after `close`.
        """
        if self._loop.is_closed() or not self._thread.is_alive():
            work.close()
            raise ClientClosed("the client is closed")
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a callback runs on the client's own thread and may not wait for it; use AsyncClient")
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call(self, function: Callable[[], T]) -> T:
        """Call a function on the loop and wait for what it returns or raises."""

        async def work() -> T:
            return function()

        return self.run(work())

    def post(self, work: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine on the loop without waiting for it; it is dropped after `close`. From any thread."""
        if self._loop.is_closed() or not self._thread.is_alive():
            work.close()
        else:
            asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Stop the loop and wait for the thread; may be called again."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            loop.close()
