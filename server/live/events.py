"""`GET /v1/api/live`: one live query as server-sent events, for `curl`, browsers' `EventSource` and everything simple.

    event: ack      what the query is                    as `subscription_ack`
    event: rows     a batch of the snapshot              as `initial_data_batch`
    event: change   rows that came, changed or left      as `change`
    event: error    why the stream ends, or begins anew  as `error`

The data are those of the WebSocket's messages without `type` and `subscription_id`. Each event's `id` is the cursor
after it; whoever comes back with `Last-Event-ID` gets what it missed. A comment every 15 seconds keeps the connection
open and the cursor fresh. What is wrong with the request is an ordinary answer, before the stream begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from server.auth import errors
from server.auth.cache import VerifiedToken
from server.errors import AuthError, ClientGone, HttpError
from server.exchange import Exchange, exchange_of
from server.live.client_subscription import control_of
from server.live.failures import Code, Told, told
from server.live.messages import (
    BatchControl,
    BatchStatus,
    Compression,
    Protocol,
    Serialization,
    SnapshotOptions,
    SubscriptionRequest,
)
from server.live.options import OptionRefused
from server.live.service import LiveService, new_connection_id, shutting_down
from server.live.upgrade import Upgrades
from server.middleware.rate_limit import RateLimits
from sql.errors import InvalidInput, InvalidParameter, SqlError
from sql.live.interface import LiveDelta, LiveSubscription
from sql.live.subscription import LiveRequest, Subscription
from sql.rendering import wire_schema

EVENTS_PATH = "/v1/api/live"
HEARTBEAT_SECONDS = 15.0
RETRY_MILLISECONDS = 2_000

_log = logging.getLogger(__name__)

_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
_JSON = Protocol(Serialization.JSON, Compression.NONE)
_ROWS_ON_THE_LOOP = 200
_MOST_FIELDS = 16
_NAMES = frozenset({
    "sql", "params", "namespace", "snapshot", "last_rows", "batch_size", "from", "from_seq_id",
})  # fmt: skip

_encode = msgspec.json.Encoder().encode
_decode_params = msgspec.json.Decoder(list[Any]).decode


class _Ack(msgspec.Struct):
    total_rows: int
    batch_control: BatchControl
    schema: list[dict[str, object]]
    resumed: bool


class _Rows(msgspec.Struct):
    rows: list[dict[str, object]]
    batch_control: BatchControl


class _Failure(msgspec.Struct):
    code: str
    message: str


def routes(service: LiveService, upgrades: Upgrades, limits: RateLimits) -> list[Route]:
    """The route of event streams."""
    return [Route(EVENTS_PATH, EventsRoute(service, upgrades, limits), methods=["GET"])]


class EventsRoute:
    """The ASGI application of the route."""

    def __init__(self, service: LiveService, upgrades: Upgrades, limits: RateLimits) -> None:
        self._service = service
        self._upgrades = upgrades
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one stream to its end."""
        if scope["method"] != "GET":
            raise HTTPException(405, headers={"Allow": "GET"})
        exchange = exchange_of(scope)
        service = self._service
        if service.stopping:
            raise shutting_down()
        text = self._token(exchange)
        token = service.verify(text, local=exchange.loopback)
        identity = token.identity
        exchange.user = identity.user
        self._limits.check_query(identity.user)
        stream = EventStream(service, exchange, token, text)
        request = _request_of(scope, exchange, service, token, stream.connection_id)
        if not service.users.acquire(identity.user):
            raise HttpError(429, Code.SUBSCRIPTION_LIMIT_EXCEEDED, "Maximum subscriptions reached", sql_shape=True)
        service.enter(stream)
        service.joined(stream)
        release = service.on_stop(stream.stop)
        try:
            await stream.run(request, receive)
        finally:
            release()
            service.left(stream)
            service.leave(stream)
            service.users.release(identity.user)

    def _token(self, exchange: Exchange) -> str:
        header = exchange.headers.get(b"authorization")
        if header is not None:
            scheme, _, token = header.decode("latin-1").partition(" ")
            if scheme.lower() != "bearer":
                raise errors.invalid_credentials()
            return token.strip()
        cookie = self._upgrades.cookie_of_page(exchange)
        if cookie is None:
            raise errors.missing_authorization()
        return cookie


def _request_of(
    scope: Scope, exchange: Exchange, service: LiveService, token: VerifiedToken, connection_id: str
) -> LiveRequest:
    """What the query string asks for; raises SqlErrors."""
    try:
        found = parse_qs(
            scope["query_string"].decode("latin-1"),
            keep_blank_values=True,
            max_num_fields=_MOST_FIELDS,
            errors="strict",
        )
    except (ValueError, UnicodeError):
        raise InvalidInput("The query string cannot be read: UTF-8, at most 16 parameters.") from None
    fields = {name: values[-1] for name, values in found.items()}
    unknown = sorted(fields.keys() - _NAMES)
    if unknown:
        raise InvalidInput(f"Unknown query parameter {unknown[0]!r}: there are {', '.join(sorted(_NAMES))}.")
    sql = fields.get("sql", "")
    if not sql.strip():
        raise InvalidInput("The query parameter sql is missing: the live query, as text.")
    wanted = SubscriptionRequest(
        id="events",
        sql=sql,
        options=_options(fields, exchange, service.hub.settings.max_batch_size),
        params=_params(fields.get("params")),
        namespace=fields.get("namespace"),
    )
    try:
        return service.request_of(wanted, token.identity, connection_id)
    except OptionRefused as refused:
        raise InvalidInput(str(refused)) from None


def _params(text: str | None) -> list[Any]:
    if not text:
        return []
    try:
        return _decode_params(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidParameter(f"The query parameter params must be a JSON array: {error}") from None


def _options(fields: Mapping[str, str], exchange: Exchange, largest_batch: int) -> SnapshotOptions | None:
    """The options of the query string: all rows, unless it says otherwise. `Last-Event-ID` comes before `from`.

    The newest rows come as one batch, so that may be as large as batches get, if the client does not say.
    """
    cursor = exchange.headers.get(b"last-event-id", b"").decode("latin-1").strip()
    start = cursor or fields.get("from") or fields.get("from_seq_id") or None
    snapshot = fields.get("snapshot", "all")
    if snapshot not in {"all", "none"}:
        raise InvalidInput("The query parameter snapshot is all or none.")
    last_rows, batch_size = fields.get("last_rows") or None, fields.get("batch_size") or None
    if snapshot == "none" and start is None:
        if last_rows is not None:
            raise InvalidInput("The query parameters snapshot=none and last_rows exclude each other.")
        return None
    if last_rows is not None and batch_size is None:
        batch_size = str(largest_batch)
    return SnapshotOptions(batch_size=batch_size, last_rows=last_rows, from_=start)


class EventStream:
    """One stream (a `LiveSink`). What cannot be sent at once waits in a bounded queue; beyond that, in the log."""

    def __init__(self, service: LiveService, exchange: Exchange, token: VerifiedToken, token_text: str) -> None:
        self.token: VerifiedToken | None = token
        self.connection_id = new_connection_id()
        self._service = service
        self._exchange = exchange
        self._token_text = token_text
        self._unchecked = False
        self._codec = service.codecs[_JSON]
        self._loop = asyncio.get_running_loop()
        self._queue: list[bytes] = []
        self._size = 0
        self._refused = False
        self._wake = asyncio.Event()
        self._end: Told | None = None
        self._over = False
        self._live: Subscription | None = None
        self._heard = self._loop.time()

    # --- the stream -----------------------------------------------------------------------------------------------

    async def run(self, request: LiveRequest, receive: Receive) -> None:
        """Subscribe, then send events until the client goes, the server stops or the query ends."""
        live = self._live = await self._service.hub.subscribe(request, self)
        watcher = self._loop.create_task(self._watch(receive))
        try:
            await self._snapshot(live)
            if self._end is None:
                live.go_live()
            await self._follow(live)
            await self._send(b"", more=False)
        finally:
            live.close()
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher

    async def _snapshot(self, live: Subscription) -> None:
        batch = await live.next_batch() if live.has_snapshot else None
        ready = BatchControl(0, has_more=False, status=BatchStatus.READY, last_seq_id=live.seq)
        control = ready if batch is None else control_of(batch)
        await self._exchange.send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        head = b"retry: %d\n\n" % RETRY_MILLISECONDS
        if live.too_old is not None:
            head += event(b"error", _Failure(Code.RESUME_TOO_OLD, live.too_old))
        ack = _Ack(live.total_rows, control, wire_schema(live.columns), live.resumed)
        await self._send(head + event(b"ack", ack, None if batch is not None else live.seq))
        while batch is not None and not self._over and self._end is None:
            message = _Rows(batch.rows, control_of(batch))
            if len(batch.rows) > _ROWS_ON_THE_LOOP:
                data = await asyncio.to_thread(event, b"rows", message, batch.last_seq)
            else:
                data = event(b"rows", message, batch.last_seq)
            await self._send(data)
            try:
                batch = await live.next_batch() if batch.has_more else None
            except SqlError as error:  # the answer has begun: this is its end
                self._finish(told(error, started=True))
                return

    async def _follow(self, live: Subscription) -> None:
        while not self._over:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                self._queue.append(b": still here\nid: %d\n\n" % live.seq)
            self._wake.clear()
            waiting, self._queue, self._size = self._queue, [], 0
            if waiting:
                await self._send(b"".join(waiting))
            if self._refused:
                self._refused = False
                self._service.hub.drained(self)
            if self._end is not None and not self._queue:
                await self._send(event(b"error", _Failure(*self._end)))
                break

    async def _send(self, data: bytes, *, more: bool = True) -> None:
        """Send, for as long as the client takes to make room; one that never does is cut off."""
        message: Message = {"type": "http.response.body", "body": data, "more_body": more}
        try:
            async with asyncio.timeout(self._service.options.slow_consumer_timeout_secs):
                await self._exchange.send(message)
        except TimeoutError:
            raise ClientGone from None
        self._heard = self._loop.time()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.stop()

    def stop(self) -> None:
        """End the stream in good order; the client may come back."""
        self._over = True
        self._wake.set()

    # --- sink of the hub ------------------------------------------------------------------------------------------

    def deliver(self, subscription: LiveSubscription, delta: LiveDelta) -> bool:
        """Queue the changes; False when too much waits already."""
        if self._end is not None:
            return True  # nothing follows the reason why it ends
        if self._size >= self._service.options.send_buffer_bytes:
            self._refused = True
            return False
        try:
            tails = self._codec.tails(delta)
        except Exception as error:  # noqa: BLE001  the hub must go on with the others
            _log.exception("a change cannot be written")
            self._finish(Told(Code.CONVERSION_ERROR, f"A row cannot be written: {type(error).__name__}"))
            return True
        for tail, change in zip(tails, delta.changes, strict=True):
            data = b"event: change\nid: %d\ndata: %b%b\n\n" % (change.seq, tail.head, tail.plain)
            self._queue.append(data)
            self._size += len(data)
        self._wake.set()
        return True

    def ended(self, subscription: LiveSubscription, error: Exception) -> None:
        """Tell the client why the query has ended, behind what waits already."""
        self._finish(told(error, started=True))

    def _finish(self, why: Told) -> None:
        if self._end is None:
            self._end = why
            self._wake.set()

    # --- member of the service ------------------------------------------------------------------------------------

    @property
    def exchange(self) -> Exchange:
        """The request that it began with."""
        return self._exchange

    @property
    def last_heard(self) -> float:
        """`loop.time()` when the client last took something."""
        return self._heard

    def beat(self, now: float, now_us: int) -> None:
        """Look whether the token has expired."""
        if self.token is not None and (self._unchecked or self.token.expires_us <= now_us):
            self.recheck()

    def recheck(self) -> None:
        """Look at the token again; one that holds no more ends the stream."""
        try:
            self.token = self._service.verify(self._token_text, local=self._exchange.loopback)
            self._unchecked = False
        except AuthError as error:
            self._unchecked = error.status >= 500  # it could not be checked: the next heartbeat tries again
            if not self._unchecked:
                self._finish(Told(Code.UNAUTHORIZED, error.message))


def event(name: bytes, data: object, cursor: int | None = None) -> bytes:
    """One event; JSON has no line breaks, so its data is one line."""
    lines = b"event: %b\n" % name if cursor is None else b"event: %b\nid: %d\n" % (name, cursor)
    return b"%bdata: %b\n\n" % (lines, _encode(data))
