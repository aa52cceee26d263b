"""Who the client is: sign-in, the tokens, and their renewal before and after their end.

Whoever needs a token asks `bearer()`. It renews one that is about to end; a request that is refused all the same renews
with `renew(the token that was refused)`, once. Renewal is single-flight: all who wait share one request, as a
refresh token counts only once. What cannot be refreshed is replaced by a new login where the password is known.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import msgspec

from headrace._answers import MeAnswer, TokenAnswer, User, parse
from headrace._exceptions import AuthenticationFailed
from headrace._http import HttpConnection

AHEAD_SECONDS = 60.0
"""A token is renewed this long before its end, or after nine tenths of its life if that comes later."""


class Session:
    """The tokens of one account. `clock` gives seconds that only move forward."""

    def __init__(
        self,
        http: HttpConnection,
        *,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        refresh_token: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._user = user
        self._password = password
        self._access = token
        self._refresh = refresh_token
        self._renew_at: float | None = None
        self._clock = clock
        self._lock = asyncio.Lock()

    @property
    def can_renew(self) -> bool:
        """Whether there is a refresh token or a password."""
        return self._refresh is not None or self._password is not None

    async def bearer(self) -> str:
        """An access token that is not about to end; signs in first where needed.

        Raises AuthenticationFailed, and whatever a request raises.
        """
        token = self._access
        if token is not None and (self._renew_at is None or self._clock() < self._renew_at):
            return token
        return await self.renew(token)

    async def renew(self, used: str | None) -> str:
        """Another access token than `used`, by whoever comes first. Raises AuthenticationFailed if there is no way."""
        async with self._lock:
            if self._access is not None and self._access != used:
                return self._access
            return await self._refreshed() or await self._logged_in()

    async def login(self, user: str | None = None, password: str | None = None) -> User:
        """Sign in, as somebody else where given. Raises AuthenticationFailed, RateLimited."""
        async with self._lock:
            if user is not None:
                self._user, self._password = user, password
            await self._logged_in()
        return await self.me()

    async def logout(self) -> None:
        """End the session of the tokens on the server and forget them, and the password."""
        async with self._lock:
            token = self._refresh or self._access
            self._access = self._refresh = self._password = self._renew_at = None
        if token is not None:
            await self._http.request("POST", "/v1/api/auth/logout", headers=authorization(token))

    async def me(self) -> User:
        """The account that is signed in."""
        headers = authorization(await self.bearer())
        return parse(await self._http.request("GET", "/v1/api/auth/me", headers=headers), MeAnswer).user

    async def _refreshed(self) -> str | None:
        """A token for the refresh token; None without one, or where it does not count any more."""
        token, self._refresh = self._refresh, None
        if token is None:
            return None
        try:
            return self._take(await self._http.request("POST", "/v1/api/auth/refresh", headers=authorization(token)))
        except AuthenticationFailed:
            if self._password is None:
                raise
            return None
        except BaseException:
            # Not refused: it may still count. If the server did take it, that shows the next time.
            self._refresh = token
            raise

    async def _logged_in(self) -> str:
        if self._user is None or self._password is None:
            raise AuthenticationFailed("the token has ended, or there is none, and no password to sign in with")
        body = msgspec.json.encode({"user": self._user, "password": self._password})
        headers = {"Content-Type": "application/json"}
        return self._take(await self._http.request("POST", "/v1/api/auth/login", content=body, headers=headers))

    def _take(self, response: httpx.Response) -> str:
        answer = parse(response, TokenAnswer)
        life = (answer.expires_at - _server_time(response)).total_seconds()
        self._renew_at = self._clock() + max(life - AHEAD_SECONDS, life * 0.9)
        self._access, self._refresh = answer.access_token, answer.refresh_token
        return answer.access_token


def authorization(token: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


def _server_time(response: httpx.Response) -> datetime:
    """What the server's clock shows: the lives of tokens are counted on it, and ours may differ."""
    try:
        return parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)
    except (KeyError, TypeError, ValueError):
        return datetime.now(UTC)
