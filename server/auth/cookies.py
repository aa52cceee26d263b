"""The two cookies of a browser's session, under our names and, when configured, those of the system that we replace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from starlette.responses import Response

from server.auth.options import AuthOptions

ACCESS_COOKIES = ("headrace_auth", "kalamdb_auth")
REFRESH_COOKIES = ("headrace_refresh", "kalamdb_refresh")


class Cookies:
    """Sets, clears and finds the cookies; the first of each pair of names is ours."""

    def __init__(self, options: AuthOptions) -> None:
        count = 2 if options.kalamdb_cookies else 1
        self._access = ACCESS_COOKIES[:count]
        self._refresh = REFRESH_COOKIES[:count]
        self._secure = options.cookie_secure

    def find_access(self, cookies: Mapping[str, str]) -> str | None:
        """The access token of a request's cookies."""
        return next(_present(cookies, self._access), None)

    def find_refresh(self, cookies: Mapping[str, str]) -> str | None:
        """The refresh token of a request's cookies."""
        return next(_present(cookies, self._refresh), None)

    def find_all(self, cookies: Mapping[str, str]) -> list[str]:
        """Every token of a request's cookies."""
        return list(_present(cookies, self._access + self._refresh))

    def put(self, response: Response, tokens: tuple[str, str], expires: tuple[int, int], *, https: bool) -> None:
        """Set the access and refresh token, with their expiry in seconds since the epoch."""
        for names, token, moment in zip((self._access, self._refresh), tokens, expires, strict=True):
            for name in names:
                response.set_cookie(
                    name,
                    token,
                    expires=datetime.fromtimestamp(moment, UTC),
                    path="/",
                    secure=self._secure and https,
                    httponly=True,
                    samesite="strict",
                )

    def clear(self, response: Response, *, https: bool) -> None:
        """Tell the browser to drop them all."""
        for name in self._access + self._refresh:
            response.delete_cookie(name, path="/", secure=self._secure and https, httponly=True, samesite="strict")


def _present(cookies: Mapping[str, str], names: tuple[str, ...]) -> Iterator[str]:
    return (cookies[name] for name in names if cookies.get(name))
