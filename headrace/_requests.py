"""Requests of somebody who is signed in: with a token, once more after a 401, and after a rate limit if wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import httpx

from headrace._exceptions import AuthenticationFailed, RateLimited, Unavailable
from headrace._http import HttpConnection
from headrace._session import Session, authorization

RENEWABLE = frozenset({"TOKEN_EXPIRED", "INVALID_CREDENTIALS"})
"""Codes of a 401 that another token may cure."""


class Requests:
    """Requests with the tokens of a session.

    A request that is refused with 429 or 503 is sent again after its `Retry-After`, as long as all its waits together
    stay within `patience` seconds; 0 raises at once. Both answers say that nothing was done.
    """

    def __init__(self, http: HttpConnection, session: Session, patience: float) -> None:
        self._http = http
        self._session = session
        self._patience = patience

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | Callable[[], AsyncIterable[bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
        patience: float = 0.0,
    ) -> httpx.Response:
        """Send a request and read its answer; `body` is bytes, or makes the parts of the body each time it is called.

        `patience`: seconds that the server was asked to wait with its answer. Raises ResponseError, ConnectionFailed.
        """
        token = await self._session.bearer()
        attempt = _Attempt(self._session, token, self._patience)
        while True:
            content = body() if callable(body) else body
            try:
                return await self._http.request(
                    method,
                    path,
                    content=content,
                    headers={**(headers or {}), **authorization(attempt.token)},
                    patience=patience,
                )
            except (AuthenticationFailed, RateLimited, Unavailable) as error:
                await attempt.prepare_next(error)

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """Send a request; its answer, to be read bit by bit. Raises as `send` does."""
        attempt = _Attempt(self._session, await self._session.bearer(), self._patience)
        async with AsyncExitStack() as stack:
            while True:
                answer = self._http.stream(
                    method, path, content=body, headers={**headers, **authorization(attempt.token)}
                )
                try:
                    response = await stack.enter_async_context(answer)
                    break
                except (AuthenticationFailed, RateLimited, Unavailable) as error:
                    await attempt.prepare_next(error)
            yield response


class _Attempt:
    """What is left to try for one request."""

    def __init__(self, session: Session, token: str, patience: float) -> None:
        self.token = token
        self._session = session
        self._patience = patience
        self._renewed = False

    async def prepare_next(self, error: AuthenticationFailed | RateLimited | Unavailable) -> None:
        """Get ready for another attempt, or raise the error of the last one."""
        if isinstance(error, AuthenticationFailed):
            if self._renewed or error.code not in RENEWABLE or not self._session.can_renew:
                raise error
            self._renewed = True
            self.token = await self._session.renew(self.token)
            return
        wait = error.retry_after
        if wait is None or wait > self._patience:
            raise error
        wait = max(wait, 0.1)
        self._patience -= wait
        await asyncio.sleep(wait)
