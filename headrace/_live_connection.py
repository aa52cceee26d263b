"""The one WebSocket that all live queries of a client share: opened for the first, and again whenever it is cut.

Three tasks work while it is open: this module's reader takes messages and hands them to their subscriptions without
ever waiting for one; a sender paces what goes out below the server's limit of messages a second; a pinger asks every
few seconds how far the connection has come, which is also how a dead connection is noticed.

The loop that opens it again is ours: that of `websockets` (`async for … in connect`) begins anew with each connection
that is accepted, however soon it is cut, and keeps the headers, and so the token, of the first one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket

from headrace._backoff import delays
from headrace._exceptions import AuthenticationFailed, ClientClosed, HeadraceError, LiveError
from headrace._live_failures import failures, is_worth_reconnecting, unauthenticated
from headrace._live_messages import (
    Authenticate,
    ClientMessage,
    Codec,
    Compression,
    NextBatch,
    Ping,
    Serialization,
    ServerMessage,
    Subscribe,
    Unsubscribe,
    integer,
)
from headrace._live_settings import ConnectionState, LiveSettings
from headrace._live_state import Phase
from headrace._live_subscription import Subscription
from headrace._session import Session, authorization

BURST, MESSAGES_PER_SECOND = 8, 40
"""How fast messages may go out: in any second at most 48, where the server takes 50 unless configured otherwise."""
CLOSE_SECONDS = 2.0
"""Longest wait for the server's part in closing."""
POLICY_VIOLATION = 1008
"""The close code behind a refused sign-in."""
RATE_LIMIT_SECONDS = 1.0
"""How long to be silent after the server said that messages came too fast."""


class LiveConnection:
    """The shared connection and its subscriptions. Belongs to one event loop."""

    def __init__(
        self,
        url: str,
        session: Session,
        settings: LiveSettings,
        *,
        ssl_context: ssl.SSLContext | None = None,
        on_connect: Callable[[], object] | None = None,
        on_disconnect: Callable[[HeadraceError], object] | None = None,
    ) -> None:
        query = [f"serialization={settings.serialization}"] if settings.serialization is Serialization.MSGPACK else []
        query += ["compress=false"] if settings.compression is Compression.NONE else []
        self._url = "ws" + url.removeprefix("http") + "/v1/ws" + ("?" + "&".join(query) if query else "")
        self._session = session
        self._settings = settings
        self._ssl = ssl_context
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect
        self._codec = Codec(settings.serialization, settings.compression, settings.max_message_bytes)
        self._known: dict[Subscription, None] = {}  # all that have not ended, those that are parked included
        self._wanted: dict[Subscription, None] = {}
        self._by_id: dict[str, Subscription] = {}
        self._ids = 0
        self._pings = 0
        self._outbox: deque[tuple[Subscription | None, ClientMessage]] = deque()
        self._posted = asyncio.Event()
        self._silent_until = 0.0
        self._heard = False
        self._task: asyncio.Task[None] | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._was_connected = False
        self._token = ""
        self.state = ConnectionState.IDLE

    # --- what subscriptions call --------------------------------------------------------------------------------------

    def attach(self, subscription: Subscription) -> None:
        """Subscribe as soon as there is a connection. Raises ClientClosed."""
        if self.state is ConnectionState.CLOSED:
            raise ClientClosed("the client is closed")
        self._known[subscription] = self._wanted[subscription] = None
        if self.state is ConnectionState.CONNECTED:
            self._subscribe(subscription)
        elif self._task is None or self._task.done():
            self.state = ConnectionState.CONNECTING
            self._task = asyncio.create_task(self._run(), name="headrace-live")
            self._task.add_done_callback(self._stopped)

    def detach(self, subscription: Subscription) -> None:
        """Tell the server to forget it; it is not subscribed again unless it is attached."""
        self._wanted.pop(subscription, None)
        if self._by_id.pop(subscription.wire_id, None) is not None:
            self._post(None, Unsubscribe(subscription.wire_id))

    def forget(self, subscription: Subscription) -> None:
        """It has ended: detach it for good."""
        self.detach(subscription)
        self._known.pop(subscription, None)

    def retry_later(self, subscription: Subscription) -> None:
        """Attach again: at once where nothing failed, else after a while."""
        refusals = subscription.state.failures
        if refusals == 0:
            self.attach(subscription)
            return
        delay = next(islice(self._delays(), refusals + 1, None))
        self._later(delay, lambda: self._attach_idle(subscription))

    def post(self, message: NextBatch) -> None:
        """Send a message of an attached subscription."""
        subscription = self._by_id.get(message.subscription_id)
        if subscription is not None:
            self._post(subscription, message)

    async def aclose(self) -> None:
        """End all subscriptions and close the connection; may be called again."""
        self.state = ConnectionState.CLOSED
        for timer in self._timers:
            timer.cancel()
        for subscription in list(self._known):
            subscription.fail(ClientClosed("the client was closed"))
        self._known.clear()
        self._wanted.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # --- the task -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        waits = self._delays()
        renewed = False
        while True:
            failure = await self._serve_one_connection()
            if self._disconnected(failure):
                waits, renewed = self._delays(), False
            if isinstance(failure, AuthenticationFailed) and not renewed and self._session.can_renew:
                # Once until a connection works: if another token is refused as well, none will do.
                renewed = True
                try:
                    await self._session.renew(self._token)
                    continue
                except HeadraceError as error:
                    failure = error
            if not self._was_connected or not is_worth_reconnecting(failure):
                self._fail_all(failure)
                return
            wait = getattr(failure, "retry_after", None) or 0.0
            await asyncio.sleep(max(next(waits), wait))

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """The task has ended; if that was by a defect of ours, nobody must wait for ever."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            failure = HeadraceError(f"the live connection failed: {error!r}")
            failure.__cause__ = error
            self._fail_all(failure)

    async def _serve_one_connection(self) -> HeadraceError:
        """Open a connection and work on it until it ends; why it did."""
        try:
            with failures():
                await self._serve()
        except HeadraceError as error:
            return error
        raise AssertionError("a connection ends with an exception")

    async def _serve(self) -> None:
        settings = self._settings
        token = self._token = await self._session.bearer()
        in_header = settings.sign_in == "header"
        more: dict[str, Any] = {"ssl": self._ssl} if self._ssl is not None else {}
        async with open_websocket(
            self._url,
            additional_headers=authorization(token) if in_header else None,
            compression=None,
            open_timeout=settings.open_seconds,
            ping_interval=None,
            close_timeout=CLOSE_SECONDS,
            max_size=settings.max_message_bytes,
            **more,
        ) as websocket:
            async with asyncio.timeout(settings.open_seconds):
                if not in_header:
                    protocol = {"serialization": str(settings.serialization), "compression": str(settings.compression)}
                    await websocket.send(self._codec.encode(Authenticate(token, protocol)))
                await self._signed_in(websocket)
            self._connected()
            workers = [
                asyncio.create_task(self._send_all(websocket), name="headrace-live-sender"),
                asyncio.create_task(self._ping_all(websocket), name="headrace-live-pinger"),
            ]
            try:
                while True:
                    self._receive(self._codec.decode(await websocket.recv()))
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _signed_in(self, websocket: ClientConnection) -> None:
        """Wait until the server says who we are. Raises AuthenticationFailed."""
        while True:
            try:
                message = self._codec.decode(await websocket.recv())
            except websockets.ConnectionClosed as error:
                if error.rcvd is not None and error.rcvd.code == POLICY_VIOLATION:
                    raise unauthenticated(error.rcvd.reason) from error
                raise
            if message.type == "auth_success":
                return
            if message.type == "auth_error":
                raise unauthenticated(message.message)

    def _connected(self) -> None:
        self.state = ConnectionState.CONNECTED
        self._was_connected = True
        self._outbox.clear()
        self._by_id.clear()
        for subscription in list(self._wanted):
            if subscription.state.phase is Phase.IDLE:
                self._subscribe(subscription)
        if self._on_connect is not None:
            self._tell(self._on_connect)

    def _disconnected(self, error: HeadraceError) -> bool:
        """Note that there is no connection; whether there was one."""
        was_open = self.state is ConnectionState.CONNECTED
        self._by_id.clear()
        self._outbox.clear()
        self.state = ConnectionState.RECONNECTING if self._was_connected else ConnectionState.CONNECTING
        for subscription in list(self._wanted):
            subscription.lost()
        if was_open and self._on_disconnect is not None:
            self._tell(self._on_disconnect, error)
        return was_open

    def _fail_all(self, error: HeadraceError) -> None:
        """End all subscriptions; a later one begins with a new attempt."""
        self.state = ConnectionState.IDLE
        self._was_connected = False
        for subscription in list(self._wanted):
            subscription.fail(error)
        self._wanted.clear()

    def _delays(self) -> Iterator[float]:
        return delays(self._settings.first_delay, self._settings.max_delay)

    @staticmethod
    def _tell(callback: Callable[..., object], *arguments: object) -> None:
        """Call back what the user gave; an exception in it is reported as asyncio reports those of callbacks."""
        asyncio.get_running_loop().call_soon(callback, *arguments)

    # --- messages -----------------------------------------------------------------------------------------------------

    def _receive(self, message: ServerMessage) -> None:
        self._heard = True
        if message.type == "auth_error":
            raise unauthenticated(message.message)
        if message.type == "pong":
            seq = integer(message.seq)
            if seq is not None:
                for each in self._by_id.values():
                    each.state.caught_up(seq)
            return
        subscription = self._by_id.get(message.subscription_id)
        if subscription is not None:
            subscription.receive(message)
        elif message.type == "error":
            self._refused(message)

    def _refused(self, message: ServerMessage) -> None:
        """An error that names no live query of ours: it is about the connection, or about one that is gone."""
        if message.code == "RATE_LIMIT_EXCEEDED":
            # It does not say which message was dropped: all that is unanswered goes out again, after a while.
            self._silent_until = asyncio.get_running_loop().time() + RATE_LIMIT_SECONDS
            for subscription in list(self._by_id.values()):
                if subscription.state.phase is Phase.SUBSCRIBING:
                    self.detach(subscription)
                    subscription.lost()
                    self.attach(subscription)
                else:
                    subscription.ask_again()
        elif message.code == "AUTH_REQUIRED":
            raise AuthenticationFailed(message.message, code=message.code)
        elif message.code in {"MESSAGE_TOO_LARGE", "UNSUPPORTED_DATA", "PROTOCOL", "INVALID_SUBSCRIPTION_ID"}:
            error = LiveError(message.message, code=message.code)
            for subscription in list(self._by_id.values()):
                if subscription.state.phase is Phase.SUBSCRIBING:
                    self.detach(subscription)
                    subscription.fail(error)

    def _subscribe(self, subscription: Subscription) -> None:
        self._ids += 1
        request = subscription.request(f"live-{self._ids}")
        self._by_id[request.id] = subscription
        self._post(subscription, Subscribe(request))

    def _attach_idle(self, subscription: Subscription) -> None:
        if subscription.state.phase is Phase.IDLE and self.state is not ConnectionState.CLOSED:
            self.attach(subscription)

    def _later(self, delay: float, call: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            call()

        timer = asyncio.get_running_loop().call_later(delay, run)
        self._timers.add(timer)

    def _post(self, subscription: Subscription | None, message: ClientMessage) -> None:
        if self.state is ConnectionState.CONNECTED:
            self._outbox.append((subscription, message))
            self._posted.set()

    async def _send_all(self, websocket: ClientConnection) -> None:
        """Send what is posted, paced. Ends when the connection does; the reader then knows why."""
        loop = asyncio.get_running_loop()
        allowance, counted = float(BURST), loop.time()
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                while not self._outbox:
                    self._posted.clear()
                    await self._posted.wait()
                now = loop.time()
                allowance = min(float(BURST), allowance + (now - counted) * MESSAGES_PER_SECOND)
                counted = now
                wait = max(self._silent_until - now, (1 - allowance) / MESSAGES_PER_SECOND)
                if wait > 0:
                    await asyncio.sleep(wait)
                    continue
                owner, message = self._outbox.popleft()
                if owner is None or self._is_current(owner, message):
                    allowance -= 1
                    await websocket.send(self._codec.encode(message))

    def _is_current(self, subscription: Subscription, message: ClientMessage) -> bool:
        """Whether a message of a subscription still makes sense: it may have ended while the message waited."""
        wire_id = message.subscription.id if isinstance(message, Subscribe) else subscription.wire_id
        return self._by_id.get(wire_id) is subscription

    async def _ping_all(self, websocket: ClientConnection) -> None:
        """Ask in regular intervals, and drop a connection on which nothing came for two of them."""
        while True:
            self._pings += 1
            self._post(None, Ping(self._pings))
            self._heard = False
            await asyncio.sleep(self._settings.ping_seconds)
            if not self._heard:
                await asyncio.sleep(self._settings.ping_seconds)
                if not self._heard:
                    websocket.transport.abort()
                    return
