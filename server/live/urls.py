"""Where the client of a request would open a WebSocket: the address that it used itself."""

from __future__ import annotations

import re

from server.exchange import Exchange, current_exchange
from server.middleware.client_address import ClientAddresses

WS_PATH = "/v1/ws"

_HOST = re.compile(r"[A-Za-z0-9._~\-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.%]+\](?::[0-9]{1,5})?")


class WebSocketUrls:
    """Makes URLs from the headers of requests; what proxies say counts if they are trusted."""

    def __init__(self, addresses: ClientAddresses) -> None:
        self._addresses = addresses

    def of_current(self) -> str:
        """The URL for the request that is being answered; empty outside of one."""
        exchange = current_exchange.get()
        return "" if exchange is None else self.of(exchange)

    def of(self, exchange: Exchange) -> str:
        """The URL for a request."""
        scope, headers = exchange.scope, exchange.headers
        is_tls = scope.get("scheme") in {"https", "wss"}
        host = headers.get(b"host", b"")
        peer = scope.get("client")
        if peer is not None and self._addresses.is_trusted(peer[0]):
            forwarded = headers.get(b"x-forwarded-proto", b"").partition(b",")[0].strip().lower()
            is_tls = is_tls if not forwarded else forwarded in {b"https", b"wss"}
            host = headers.get(b"x-forwarded-host", host).partition(b",")[0].strip()
        text = host.decode("latin-1")
        if not _HOST.fullmatch(text):
            address, port = scope.get("server") or ("localhost", None)
            text = f"[{address}]" if ":" in address else address
            text += f":{port}" if port is not None else ""
        return f"{'wss' if is_tls else 'ws'}://{text}{WS_PATH}"
