"""Who may open a WebSocket, and who it is already when it does.

A page of another site can make a browser open a WebSocket here, and the browser sends its cookies along. So the
sign-in cookie counts only when the page is our own (its `Origin` is the host that it asks) or one that
`security.cors` names together with `allow_credentials`. Everything else that signs a client in, a foreign page does
not have: a token in `Authorization`, in a subprotocol `headrace.jwt.<token>` (or `kalamdb.jwt.<token>`), or in the
first message.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.requests import cookie_parser
from starlette.types import Scope

from server.auth.cookies import Cookies
from server.config import SecuritySection
from server.errors import HttpError
from server.exchange import Exchange
from server.live.messages import Compression, Protocol, Serialization

TOKEN_PREFIXES = ("headrace.jwt.", "kalamdb.jwt.")
PLAIN_SUBPROTOCOLS = ("headrace", "kalamdb")
"""Offered beside the token, one of them is chosen in its place, so that the answer does not repeat the token."""

_MOST_FIELDS = 16


class TokenSource(enum.Enum):
    """Where the token of an upgrade stood."""

    HEADER = "header"
    SUBPROTOCOL = "subprotocol"
    COOKIE = "cookie"


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """What an upgrade says. `protocol` holds for a client that it signs in; `gzip` is false for `compress=false`."""

    token: str | None
    source: TokenSource | None
    subprotocol: str | None
    protocol: Protocol
    gzip: bool


class Upgrades:
    """Reads upgrade requests."""

    def __init__(self, security: SecuritySection, cookies: Cookies) -> None:
        named = {origin.rstrip("/") for origin in security.cors.allowed_origins}
        self._named = frozenset(named)
        self._any = not named or "*" in named
        self._credentials = security.cors.allow_credentials and not self._any
        self._strict = security.strict_ws_origin_check
        self._cookies = cookies

    def read(self, scope: Scope, exchange: Exchange) -> UpgradeRequest:
        """Read a request; raises HttpError 403 for an origin that may not connect, 400 for a parameter's value."""
        origin = exchange.headers.get(b"origin")
        self._check_origin(origin)
        try:
            fields = parse_qs(scope.get("query_string", b"").decode("latin-1"), max_num_fields=_MOST_FIELDS)
        except ValueError:
            raise HttpError(400, "INVALID_INPUT", f"More than {_MOST_FIELDS} query parameters") from None
        gzip = fields.get("compress", [""])[-1].lower() != "false"
        token, source, subprotocol = self._token(scope.get("subprotocols", ()), exchange, origin)
        protocol = Protocol() if token is None else _protocol(fields)
        if not gzip:
            protocol = Protocol(protocol.serialization, Compression.NONE)
        return UpgradeRequest(token, source, subprotocol, protocol, gzip)

    def cookie_of_page(self, exchange: Exchange) -> str | None:
        """The token in the cookie of an ordinary request, if a page that may use it made the request.

        Browsers leave `Origin` out of a page's requests to its own server, and say so in `Sec-Fetch-Site`.
        """
        headers = exchange.headers
        origin = headers.get(b"origin")
        if origin is None:
            allowed = headers.get(b"sec-fetch-site", b"none") in {b"same-origin", b"none"}
        else:
            allowed = self._may_use_cookie(origin, headers.get(b"host", b""))
        return self._cookie(exchange) if allowed else None

    def _cookie(self, exchange: Exchange) -> str | None:
        return self._cookies.find_access(cookie_parser(exchange.headers.get(b"cookie", b"").decode("latin-1")))

    def _check_origin(self, origin: bytes | None) -> None:
        if origin is None:
            if self._strict:
                raise HttpError(403, "ORIGIN_REQUIRED", "Origin header required")
        elif not self._any and origin.decode("latin-1") not in self._named:
            raise HttpError(403, "ORIGIN_NOT_ALLOWED", "Origin not allowed")

    def _token(
        self, offered: Sequence[str], exchange: Exchange, origin: bytes | None
    ) -> tuple[str | None, TokenSource | None, str | None]:
        """The token, where it stood, and the subprotocol to answer with."""
        plain = next((name for name in offered if name in PLAIN_SUBPROTOCOLS), None)
        with_token = next((name for name in offered if name.startswith(TOKEN_PREFIXES)), None)
        chosen = plain or with_token
        scheme, _, bearer = exchange.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() == "bearer":
            return bearer.strip(), TokenSource.HEADER, chosen
        if with_token is not None:
            return with_token.split(".", 2)[2], TokenSource.SUBPROTOCOL, chosen
        if origin is not None and self._may_use_cookie(origin, exchange.headers.get(b"host", b"")):
            cookie = self._cookie(exchange)
            if cookie is not None:
                return cookie, TokenSource.COOKIE, chosen
        return None, None, chosen

    def _may_use_cookie(self, origin: bytes, host: bytes) -> bool:
        text = origin.decode("latin-1")
        scheme, _, authority = text.partition("://")
        if scheme in {"http", "https"} and authority and authority.lower().encode("latin-1") == host.lower():
            return True
        return self._credentials and text in self._named


def _protocol(fields: dict[str, list[str]]) -> Protocol:
    try:
        return Protocol(
            Serialization(fields.get("serialization", [Serialization.JSON])[-1].lower()),
            Compression(fields.get("compression", [Compression.GZIP])[-1].lower()),
        )
    except ValueError:
        raise HttpError(
            400, "INVALID_INPUT", "Query parameters: serialization is json or msgpack, compression is gzip or none"
        ) from None
