"""What the sign-in flows share, put together once for each server."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from server.auth.authenticator import Authenticator
from server.auth.cache import TokenCache
from server.auth.cookies import Cookies
from server.auth.hashing import PasswordThreads
from server.auth.lockout import Strangers
from server.auth.options import AuthOptions
from server.auth.store import Store
from server.auth.tokens import Tokens
from server.exchange import Exchange
from storage.seams import Clock

_log = logging.getLogger(__name__)


class SignInLimit(Protocol):
    """How often one address may use the sign-in routes (`server.middleware.rate_limit.RateLimits`)."""

    def allow_sign_in(self, exchange: Exchange) -> bool:
        """Count a request; False if the address has used up its limit."""
        ...


@dataclass(slots=True)
class AuthContext:
    """The parts of authentication; `server.auth.service.build` makes one."""

    options: AuthOptions
    store: Store
    clock: Clock
    tokens: Tokens
    authenticator: Authenticator
    threads: PasswordThreads
    strangers: Strangers
    cookies: Cookies
    limit: SignInLimit
    cache: TokenCache
    random_bytes: Callable[[int], bytes] = secrets.token_bytes
    last_purge: float | None = None
    stop_watching: Callable[[], None] | None = None
    _background: set[asyncio.Task[None]] = field(default_factory=set)

    def new_id(self) -> str:
        """A token or session id that nobody can guess."""
        return self.random_bytes(16).hex()

    def in_background(self, work: Coroutine[Any, Any, object], what: str) -> None:
        """Do something after the answer; a failure is logged."""

        async def run() -> None:
            try:
                await work
            except Exception:  # noqa: BLE001  nobody else would hear of it
                _log.exception("%s failed", what)

        task = asyncio.get_running_loop().create_task(run())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def settle(self) -> None:
        """Wait for everything that was put into the background."""
        while self._background:
            await asyncio.gather(*self._background)

    async def close(self) -> None:
        """Finish the background work and end the threads; call it before the engine is closed."""
        await self.settle()
        if self.stop_watching is not None:
            self.stop_watching()
        self.threads.close()
