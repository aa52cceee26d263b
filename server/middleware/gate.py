"""The one layer around all routes.

It is on the way of every request, so it does its work in one pass:

1. make the `Exchange`: request id, client address, headers that every answer carries (id, nosniff, CORS);
2. refuse what no route should see: banned or too fast addresses (429), bodies that are too large (413), preflights;
3. hand over to the route: hot paths by a dictionary look-up, all others through Starlette's router;
4. turn whatever was raised into an answer (`errors.answer_to`) and log the request.

Upgrades to WebSocket go the same way, to the application of their path: what is refused or raised before they were
accepted is the answer to the upgrade, later it closes the WebSocket with 1011. The log tells both ends.

A body without `Content-Length` is counted while it is received. Once an answer has begun, an error can only cut it
off: the server closes the connection of an answer that was not completed, so no client takes a part for the whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.utils import ClientDisconnected

from server.config import Config
from server.errors import BodyTooLarge, ClientGone, HttpError
from server.exchange import Exchange, current_exchange
from server.logging import RequestLog
from server.middleware.client_address import ClientAddresses
from server.middleware.cors import Cors
from server.middleware.errors import JSON, answer_to, sql_failure
from server.middleware.rate_limit import RateLimits
from server.middleware.request_id import RequestIds
from server.websocket.connection import EXTENSION
from server.websocket.exchange import UpgradeExchange

_NOSNIFF = (b"x-content-type-options", b"nosniff")
_INGEST_PREFIX = "/v1/api/ingest/"
_SQL_PATH = "/v1/api/sql"
_CLIENT_CLOSED = 499
_SWITCHED = 101


class Gate:
    """The ASGI application that the server runs.

    `hot` maps paths to endpoints that need no router, `websockets` paths to the applications of WebSockets.
    """

    def __init__(
        self,
        app: ASGIApp,
        hot: Mapping[str, ASGIApp],
        config: Config,
        limits: RateLimits,
        websockets: Mapping[str, ASGIApp] = MappingProxyType({}),
    ) -> None:
        self._app = app
        self._hot = dict(hot)
        self._websockets = dict(websockets)
        self._origin_required = config.security.strict_ws_origin_check
        self._limits = limits
        self._addresses = ClientAddresses(config.security.trusted_proxy_ranges)
        self._cors = Cors(config.security.cors)
        self._ids = RequestIds()
        self._log = RequestLog()
        self._max_body = config.limits.max_body_bytes
        self._max_ingest = config.limits.max_ingest_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or pass the server's lifespan on."""
        if scope["type"] == "websocket":
            await self._upgrade(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send)
        scope["exchange"] = exchange
        current_exchange.set(exchange)
        try:
            self._identify(exchange)
            self._limits.check_request(exchange)
            if not await self._preflight(exchange):
                receive = self._limit_body(exchange, receive)
                await self._hot.get(scope["path"], self._app)(scope, receive, exchange.send)
        except (ClientGone, ClientDisconnect):
            exchange.status = exchange.status or _CLIENT_CLOSED
        except asyncio.CancelledError:
            await self._cancelled(exchange)
        except Exception as error:  # noqa: BLE001  the last one to see it
            await self._failed(error, exchange)
        finally:
            self._log.finished(exchange)
            del scope["exchange"]  # they hold each other: without this, every request waits for the garbage collector

    async def _upgrade(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket from its upgrade request to its end."""
        exchange = UpgradeExchange(scope, receive, send, self._log.finished)
        scope["exchange"] = exchange
        current_exchange.set(exchange)
        try:
            self._identify(exchange)
            self._limits.check_request(exchange)
            self._check_upgrade(exchange)
            await self._websockets[scope["path"]](scope, receive, exchange.send)
        except (ClientDisconnected, ClientDisconnect, ClientGone):
            exchange.status = exchange.status or _CLIENT_CLOSED
        except Exception as error:  # noqa: BLE001  the last one to see it
            await self._upgrade_failed(error, exchange)
        finally:
            if exchange.status == _SWITCHED:
                self._log.ended(exchange)
            else:
                self._log.finished(exchange)
            del scope["exchange"]

    def _check_upgrade(self, exchange: Exchange) -> None:
        """Refuse an upgrade that the server itself found wrong, of a foreign origin, or to nowhere."""
        refused: HttpError | None = exchange.scope["extensions"][EXTENSION]["refused"]
        if refused is not None:
            raise refused
        origin = exchange.headers.get(b"origin")
        if origin is None and self._origin_required:
            raise HttpError(403, "ORIGIN_REQUIRED", "Origin header required")
        if origin is not None and not self._cors.allows(origin):
            raise HttpError(403, "ORIGIN_NOT_ALLOWED", "Origin not allowed")
        if exchange.scope["path"] not in self._websockets:
            raise HTTPException(404)

    async def _upgrade_failed(self, error: Exception, exchange: Exchange) -> None:
        status, headers, body = answer_to(error, exchange)
        if status == 500 and not isinstance(error, HttpError):
            self._log.failed(error, exchange)
        try:
            if not exchange.status:
                await exchange.respond(status, headers, body)
            elif exchange.status == _SWITCHED:
                await exchange.send({"type": "websocket.close", "code": 1011, "reason": "Internal error"})
        except ClientDisconnected:
            exchange.status = exchange.status or _CLIENT_CLOSED

    def _identify(self, exchange: Exchange) -> None:
        headers = exchange.headers
        peer = exchange.scope["client"]
        exchange.client, exchange.loopback = self._addresses.resolve(peer[0] if peer else "", headers)
        request_id = exchange.request_id = self._ids.choose(headers.get(b"x-request-id"))
        exchange.extra_headers = [(b"x-request-id", request_id.encode()), _NOSNIFF]
        origin = headers.get(b"origin")
        if origin is not None:
            exchange.extra_headers += self._cors.headers(origin)

    async def _preflight(self, exchange: Exchange) -> bool:
        """Answer a CORS preflight; False if the request is none."""
        headers = exchange.headers
        if exchange.scope["method"] != "OPTIONS" or b"access-control-request-method" not in headers:
            return False
        exchange.extra_headers = exchange.extra_headers[:2]
        await exchange.respond(204, self._cors.preflight(headers, headers.get(b"origin", b"")), b"")
        return True

    def _limit_body(self, exchange: Exchange, receive: Receive) -> Receive:
        """Refuse a body that announces to be too large; count one that does not say."""
        headers = exchange.headers
        length = headers.get(b"content-length")
        if length is None and b"transfer-encoding" not in headers:
            return receive
        if exchange.scope["path"] == _SQL_PATH and headers.get(b"content-type", b"")[:10].lower() == b"multipart/":
            return receive  # may bring files: `server/routes/multipart.py` has limits of its own for each part
        maximum = self._max_ingest if exchange.scope["path"].startswith(_INGEST_PREFIX) else self._max_body
        if length is None:
            return counting(receive, maximum)
        if int(length) > maximum:
            raise BodyTooLarge(int(length), maximum)
        return receive

    async def _failed(self, error: Exception, exchange: Exchange) -> None:
        status, headers, body = answer_to(error, exchange)
        if status == 500 and not isinstance(error, HttpError):
            self._log.failed(error, exchange)
        if exchange.status:
            self._log.cut(error, exchange)
        else:
            await exchange.respond(status, headers, body)

    async def _cancelled(self, exchange: Exchange) -> None:
        """The server stops and this request took longer than it may."""
        if not exchange.status:
            body = sql_failure("SERVER_SHUTTING_DOWN", "The server is shutting down", exchange.took_ms)
            await exchange.respond(503, [JSON, (b"retry-after", b"5"), (b"connection", b"close")], body)


def counting(receive: Receive, maximum: int) -> Receive:
    """Wrap `receive` so that it raises BodyTooLarge once more than `maximum` bytes came."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > maximum:
            raise BodyTooLarge(size, maximum)
        return message

    return counted
