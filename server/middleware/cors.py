"""Cross-origin requests (section `security.cors`): the answer to preflights, and headers on all other answers."""

from __future__ import annotations

from collections.abc import Mapping

from server.config import CorsSection

Headers = list[tuple[bytes, bytes]]


class Cors:
    """Decides from the `Origin` header; requests without one are not concerned."""

    def __init__(self, config: CorsSection) -> None:
        self._any = not config.allowed_origins or "*" in config.allowed_origins
        self._origins = frozenset(origin.rstrip("/").encode() for origin in config.allowed_origins)
        self._methods = ", ".join(config.allowed_methods).encode()
        self._headers = ", ".join(config.allowed_headers).encode()
        self._expose = ", ".join(config.expose_headers).encode()
        self._credentials = config.allow_credentials
        self._max_age = b"%d" % config.max_age
        self._private_network = config.allow_private_network

    def allows(self, origin: bytes) -> bool:
        """Whether pages of that origin may open WebSockets, which no browser asks for beforehand."""
        return self._any or origin in self._origins

    def headers(self, origin: bytes) -> Headers:
        """Return the headers of any answer to that origin; only `Vary` for one that is not allowed."""
        if self._any:
            found: Headers = [(b"access-control-allow-origin", b"*")]
        elif origin in self._origins:
            found = [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]
        else:
            return [(b"vary", b"Origin")]
        if self._credentials:
            found.append((b"access-control-allow-credentials", b"true"))
        if self._expose:
            found.append((b"access-control-expose-headers", self._expose))
        return found

    def preflight(self, request_headers: Mapping[bytes, bytes], origin: bytes) -> Headers:
        """Return the headers of the answer to a preflight."""
        found = self.headers(origin)
        if not found[0][0].startswith(b"access"):
            return found
        found += [
            (b"access-control-allow-methods", self._methods),
            (b"access-control-allow-headers", self._headers),
            (b"access-control-max-age", self._max_age),
        ]
        if self._private_network and request_headers.get(b"access-control-request-private-network") == b"true":
            found.append((b"access-control-allow-private-network", b"true"))
        return found
