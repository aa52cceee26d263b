"""An upgrade to WebSocket as an `Exchange`: the answer is an acceptance or a refusal, and the exchange lasts on."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Message, Receive, Scope, Send

from server.errors import HttpError
from server.exchange import Exchange

Headers = list[tuple[bytes, bytes]]


class UpgradeExchange(Exchange):
    """A WebSocket from its upgrade request to its end; `status` is 101 once it was accepted."""

    __slots__ = ("_on_accept",)

    def __init__(self, scope: Scope, receive: Receive, send: Send, on_accept: Callable[[Exchange], None]) -> None:
        super().__init__(scope, receive, send)
        self._on_accept = on_accept

    async def send(self, message: Message) -> None:
        """Pass a message on; the one that answers the upgrade gets the headers that every answer carries."""
        kind = message["type"]
        if kind == "websocket.accept":
            message["headers"] = [*message.get("headers", ()), *self.extra_headers]
            await self._send(message)
            self.status = 101
            self._on_accept(self)
            return
        if kind == "websocket.http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self.extra_headers]
        elif kind == "websocket.close" and not self.status:
            raise HttpError(403, "FORBIDDEN", "The WebSocket was refused")
        await self._send(message)

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Refuse the upgrade with a whole answer."""
        self.status = status
        everything = [*headers, *self.extra_headers]
        await self._send({"type": "websocket.http.response.start", "status": status, "headers": everything})
        await self._send({"type": "websocket.http.response.body", "body": body})
