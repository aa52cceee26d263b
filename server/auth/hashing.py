"""The threads that check and hash passwords: two by default, with a bounded queue.

An argon2id hash takes tens of milliseconds and 19 MiB by design. Its threads are few so that logins cannot take the
machine from everybody else, and the queue is short so that nobody waits for long: what does not fit is turned away.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from server.auth.errors import overloaded
from server.auth.options import AuthOptions
from sql.passwords import hash_password, needs_rehash, prepare_stand_in, rehash_password, verify_password

T = TypeVar("T")


class PasswordThreads:
    """Runs the functions of `sql.passwords` off the event loop."""

    def __init__(self, options: AuthOptions) -> None:
        self._parameters = options.parameters
        self._executor = ThreadPoolExecutor(options.hash_threads, thread_name_prefix="argon2")
        self._room = threading.Semaphore(options.hash_threads + options.hash_queue)

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password belongs to the hash; None is never right."""
        return await self._run(lambda: verify_password(password_hash, password, self._parameters))

    async def hash_all(self, passwords: list[str]) -> list[str]:
        """Hash new passwords."""
        return await self._run(lambda: [hash_password(password, self._parameters) for password in passwords])

    async def renew(self, password_hash: str, password: str) -> str:
        """The hash to store after a login: the same one, unless it was made with other parameters."""
        if not needs_rehash(password_hash, self._parameters):
            return password_hash
        return await self._run(lambda: rehash_password(password_hash, password, self._parameters))

    def warm_up(self) -> None:
        """Make the stand-in hash in the background, so that the first unknown user takes no longer than a known one."""
        self._executor.submit(prepare_stand_in, self._parameters)

    def close(self) -> None:
        """Drop what waits and end the threads."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if not self._room.acquire(blocking=False):
            raise overloaded()
        try:
            future = self._executor.submit(work)
        except RuntimeError:
            self._room.release()
            raise
        future.add_done_callback(lambda _: self._room.release())
        return await asyncio.wrap_future(future)
