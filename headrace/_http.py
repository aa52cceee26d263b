"""Requests over one pool of connections, with every failure as an exception of ours."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import urlsplit

import httpx

from headrace._answers import error_of
from headrace._exceptions import ClientClosed, ConnectionFailed, RequestTimedOut

DEFAULT_URL = "http://127.0.0.1:2900"
CONNECT_SECONDS = 10.0
"""Longest wait for a connection."""


class HttpConnection:
    """The server's HTTP side, without sign-in."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float | None,
        verify: ssl.SSLContext | bool,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        self._timeout = httpx.Timeout(timeout, connect=CONNECT_SECONDS)
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=self._timeout,
            verify=verify,
            transport=transport,
            headers={"User-Agent": "headrace-python", "Accept": "application/json"},
        )
        # The refresh route prefers a cookie to the token that is sent; so keep none.
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    async def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | AsyncIterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        patience: float = 0.0,
    ) -> httpx.Response:
        """Send a request and read its answer; `patience`: seconds that the server was asked to wait with it.

        Raises ResponseError, ConnectionFailed.
        """
        self._check_open()
        timeout = self._timeout
        if patience and timeout.read is not None:
            read = timeout.read + patience
            timeout = httpx.Timeout(connect=timeout.connect, read=read, write=timeout.write, pool=timeout.pool)
        with _failures(method, path):
            response = await self._client.request(method, path, content=content, headers=headers, timeout=timeout)
        if response.is_error:
            raise error_of(response)
        return response

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, *, content: bytes | None, headers: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """Send a request; its answer, to be read bit by bit. Raises ResponseError before that, ConnectionFailed."""
        self._check_open()
        with _failures(method, path):
            async with self._client.stream(method, path, content=content, headers=headers) as response:
                if response.is_error:
                    await response.aread()
                    raise error_of(response)
                yield response

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _check_open(self) -> None:
        if self._client.is_closed:
            raise ClientClosed("the client is closed")


def checked_url(url: str) -> str:
    """The address of a server. Raises ValueError for what is none."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"'{url}' is not the address of a server; write it as {DEFAULT_URL}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("the address of a server has no user, query or fragment; pass user= and password=")
    return url.rstrip("/")


@contextmanager
def _failures(method: str, path: str) -> Iterator[None]:
    """Failures of the transport as ours."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise RequestTimedOut(f"no answer to {method} {path} in time: {_reason(error)}") from error
    except httpx.TransportError as error:
        raise ConnectionFailed(f"no answer to {method} {path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
