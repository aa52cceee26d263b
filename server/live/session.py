"""One WebSocket from its acceptance to its end: sign-in, messages, subscriptions, heartbeat.

    AUTHENTICATING ──token accepted──▶ OPEN ──refused, silent, too slow, shutdown──▶ CLOSING ──gone──▶ CLOSED
           └──────────── refused, or nothing came in time ─────────────────────────────▲

The session is the sink of its live queries: the hub hands it deltas, and it writes them as long as the connection's
buffer has room. When it is full it refuses, the hub falls back to the log, and `_drained` tells it to go on. Messages
are handled one after the other and at once; only the steps of a subscription that wait are tasks of their own.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from typing import TYPE_CHECKING

from starlette.types import Message

from server.auth.cache import VerifiedToken
from server.errors import AuthError
from server.live.client_subscription import ClientSubscription, Stage, nothing_to_fetch
from server.live.failures import Code, Told, told
from server.live.heartbeat import Heartbeat, Sign
from server.live.limits import LOADING_AT_ONCE, MAX_SUBSCRIPTION_ID, MessageRate, is_sound_id
from server.live.messages import (
    Authenticate,
    AuthFailure,
    AuthSuccess,
    ClientMessage,
    Compression,
    Failure,
    MalformedBinary,
    MalformedMessage,
    NextBatch,
    Ping,
    Pong,
    Protocol,
    Serialization,
    ServerMessage,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    Unsubscribed,
    read_binary,
    read_text,
)
from server.live.options import OptionRefused
from server.live.upgrade import TokenSource, UpgradeRequest
from server.websocket.connection import TOO_LARGE, FrameConnection
from sql.errors import SqlError
from sql.identity import Identity
from sql.live.interface import LiveDelta, LiveSubscription
from sql.wire import to_wire
from storage.types import BIGINT

if TYPE_CHECKING:
    from server.exchange import Exchange
    from server.live.service import LiveService

_log = logging.getLogger(__name__)

NORMAL = 1000
POLICY_VIOLATION = 1008
INTERNAL_ERROR = 1011

_PLAIN = Protocol(Serialization.JSON, Compression.NONE)
_LONGEST_REASON = 110
_LATE_SECONDS = 0.5
"""A timer that runs later than this says more about the server than about the client."""


class SessionState(enum.Enum):
    """Where a session stands; see the picture above."""

    AUTHENTICATING = "authenticating"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


_State = SessionState
_NEXT = {
    _State.AUTHENTICATING: frozenset({_State.OPEN, _State.CLOSING, _State.CLOSED}),
    _State.OPEN: frozenset({_State.CLOSING, _State.CLOSED}),
    _State.CLOSING: frozenset({_State.CLOSED}),
    _State.CLOSED: frozenset[_State](),
}


class Session:
    """One socket (a `LiveSink`). Use it on the event loop."""

    __slots__ = (
        "_auth_timer",
        "_codec",
        "_exchange",
        "_heartbeat",
        "_rate",
        "_room",
        "_service",
        "_subscriptions",
        "_token_text",
        "_unchecked",
        "_upgrade",
        "connection",
        "connection_id",
        "hub",
        "loading",
        "loop",
        "state",
        "tasks",
        "token",
    )

    def __init__(
        self,
        service: LiveService,
        connection: FrameConnection,
        exchange: Exchange,
        upgrade: UpgradeRequest,
        connection_id: str,
    ) -> None:
        self._service = service
        self._exchange = exchange
        self._upgrade = upgrade
        self.connection = connection
        self.connection_id = connection_id
        self.hub = service.hub
        self.loop = asyncio.get_running_loop()
        self.loading = asyncio.Semaphore(LOADING_AT_ONCE)
        self.tasks: set[asyncio.Task[None]] = set()
        self.state = SessionState.AUTHENTICATING
        self.token: VerifiedToken | None = None
        """Who the client is; None until it has signed in."""
        self._token_text = ""
        self._unchecked = False
        self._codec = service.codecs[upgrade.protocol]
        self._subscriptions: dict[str, ClientSubscription] = {}
        self._room = asyncio.Event()
        self._rate = MessageRate(service.options.max_messages_per_sec, self.loop.time())
        self._heartbeat = Heartbeat(
            connection,
            self.loop.time(),
            beat_seconds=service.options.beat_seconds,
            longest_silence=service.options.client_timeout_secs,
            longest_stall=service.options.slow_consumer_timeout_secs,
        )
        self._auth_timer: asyncio.TimerHandle | None = None

    # --- life -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Sign the client in with what its upgrade brought, or begin to wait for its `authenticate`."""
        self.connection.on_drain(self._drained)
        self._await_sign_in(self._service.options.auth_timeout_secs)
        if self._upgrade.token is not None:
            is_cookie = self._upgrade.source is TokenSource.COOKIE
            self._sign_in(self._upgrade.token, self._upgrade.protocol, required=not is_cookie)

    def end(self) -> None:
        """Free everything: the connection is gone."""
        self._free()
        if self.state is not SessionState.CLOSED:
            self._move(SessionState.CLOSED)
        self.connection.on_drain(None)

    def close(self, code: int, reason: str) -> None:
        """Begin to close the connection; nothing is sent any more."""
        if self.state in {SessionState.CLOSING, SessionState.CLOSED}:
            return
        self._move(SessionState.CLOSING)
        self.connection.close(code, reason)
        self._free()

    def _move(self, state: SessionState) -> None:
        if state not in _NEXT[self.state]:
            raise RuntimeError(f"a session cannot go from {self.state.value} to {state.value}")
        self.state = state

    def _free(self) -> None:
        if self._auth_timer is not None:
            self._auth_timer.cancel()
            self._auth_timer = None
        for subscription in list(self._subscriptions.values()):
            self._remove(subscription)
        self._service.left(self)
        self._room.set()

    # --- sending --------------------------------------------------------------------------------------------------

    def send(self, message: ServerMessage) -> None:
        """Write a message, however full the buffer is; for few and short ones."""
        self.connection.write(self._codec.encode(message))

    async def writable(self) -> None:
        """Wait until the buffer has room; returns at once when the session is closing."""
        while self.connection.full and self.state not in {SessionState.CLOSING, SessionState.CLOSED}:
            self._room.clear()
            await self._room.wait()

    def _drained(self) -> None:
        self._room.set()
        if self.state is SessionState.OPEN:
            self.hub.drained(self)

    # --- sink of the hub ------------------------------------------------------------------------------------------

    def deliver(self, subscription: LiveSubscription, delta: LiveDelta) -> bool:
        """Write the changes of a subscription; False when the client must first read what waits for it."""
        found = self._subscriptions.get(subscription.subscription_id)
        if found is None or found.live is not subscription:
            return True  # it is being closed
        if self.connection.full:
            return False
        try:
            self.connection.write(self._codec.changes(delta, found.id, found.prefix))
        except Exception as error:  # noqa: BLE001  the hub must go on with the others
            _log.exception("a change cannot be written")
            self.fail(found, Told(Code.CONVERSION_ERROR, f"A row cannot be written: {type(error).__name__}"))
        return True

    def ended(self, subscription: LiveSubscription, error: Exception) -> None:
        """Tell the client that a subscription has ended, and why."""
        found = self._subscriptions.get(subscription.subscription_id)
        if found is not None and (found.live is subscription or found.live is None):
            self.fail(found, told(error, started=found.stage is not Stage.STARTING))

    def fail(self, subscription: ClientSubscription, why: Told) -> None:
        """End a subscription and tell the client."""
        if self._subscriptions.get(subscription.id) is subscription:
            self._remove(subscription)
            self.send(Failure(subscription.id, why.code, why.message))

    def _remove(self, subscription: ClientSubscription) -> None:
        del self._subscriptions[subscription.id]
        subscription.close()
        self._service.users.release(self.identity.user)

    # --- messages -------------------------------------------------------------------------------------------------

    async def handle(self, message: Message) -> None:
        """Handle a message of the client; waits first when the client does not read what it is answered."""
        if self.connection.full:
            await self.writable()
        if self.state in {SessionState.CLOSING, SessionState.CLOSED}:
            return
        if TOO_LARGE in message:
            limit = self._service.options.max_message_size
            self.send(
                Failure(
                    "protocol",
                    Code.MESSAGE_TOO_LARGE,
                    f"The message is larger than {limit} bytes: {message[TOO_LARGE]}",
                )
            )
            return
        within = self._rate.take(self.loop.time())
        try:
            read = self._read(message)
        except MalformedMessage as error:
            self.close(INTERNAL_ERROR, str(error)[:_LONGEST_REASON])
            return
        except MalformedBinary as error:
            self.send(Failure("protocol", Code.UNSUPPORTED_DATA, str(error)))
            return
        if within or self._is_awaited(read):
            self._dispatch(read)
        else:
            self.send(Failure("rate_limit", Code.RATE_LIMIT_EXCEEDED, "Too many messages"))

    def _read(self, message: Message) -> ClientMessage:
        text = message.get("text")
        if text is not None:
            return read_text(text)
        if self._codec.protocol.serialization is not Serialization.MSGPACK or self.token is None:
            raise MalformedBinary("Binary not supported")
        return read_binary(message["bytes"])

    def _is_awaited(self, message: ClientMessage) -> bool:
        """Whether a message only follows our own pace: it asks for the batch after the one that was just sent."""
        if not isinstance(message, NextBatch):
            return False
        found = self._subscriptions.get(message.subscription_id)
        return found is not None and found.stage is Stage.LOADING

    def _dispatch(self, message: ClientMessage) -> None:
        if isinstance(message, Authenticate):
            self._authenticate(message)
        elif isinstance(message, Ping):
            if message.id is not None:
                self.send(Pong(message.id, self._delivered()))
        elif self.token is None:
            self.send(Failure(_name_of(message), Code.AUTH_REQUIRED, "Authentication required before this message"))
        elif isinstance(message, Subscribe):
            self._subscribe(message.subscription)
        elif isinstance(message, NextBatch):
            found = self._subscriptions.get(message.subscription_id)
            if found is None:
                why = "There is no subscription of this id"
                self.send(Failure(message.subscription_id, Code.BATCH_FETCH_FAILED, why))
            elif not found.ask():
                self.send(nothing_to_fetch(found.id))
        else:
            self._unsubscribe(message)

    def _unsubscribe(self, message: Unsubscribe) -> None:
        found = self._subscriptions.get(message.subscription_id)
        if found is not None:
            self._remove(found)
        if message.ack:
            self.send(Unsubscribed(message.subscription_id))

    def _delivered(self) -> object:
        """The `_seq` up to which the client has got everything; None while a snapshot is under way."""
        if self.token is None:
            return None
        seq = self.hub.position
        for subscription in self._subscriptions.values():
            if subscription.stage is not Stage.LIVE or subscription.live is None:
                return None
            seq = min(seq, subscription.live.seq)
        return to_wire(seq, BIGINT, self._codec.bigint)

    def _subscribe(self, request: SubscriptionRequest) -> None:
        name = request.id
        if not is_sound_id(name):
            why = (
                f"A subscription's id has 1 to {MAX_SUBSCRIPTION_ID} bytes"
                if name
                else "Subscription ID cannot be empty"
            )
            self.send(Failure("invalid_subscription", Code.INVALID_SUBSCRIPTION_ID, why))
            return
        former = self._subscriptions.get(name)
        if former is not None:
            self._remove(former)
        try:
            live_request = self._service.request_of(request, self.identity, self.connection_id)
        except (OptionRefused, SqlError) as refused:
            why_not = refused.told if isinstance(refused, OptionRefused) else told(refused, started=False)
            self.send(Failure(name, *why_not))
            return
        most = self._service.options.max_subscriptions_per_connection
        if len(self._subscriptions) >= most or not self._service.users.acquire(self.identity.user):
            self.send(Failure(name, Code.SUBSCRIPTION_LIMIT_EXCEEDED, "Maximum subscriptions reached"))
            return
        subscription = self._subscriptions[name] = ClientSubscription(self, live_request, self._codec)
        subscription.start()

    # --- who it is ------------------------------------------------------------------------------------------------

    @property
    def identity(self) -> Identity:
        """The client; only after it has signed in."""
        if self.token is None:
            raise RuntimeError("nobody has signed in")
        return self.token.identity

    def _authenticate(self, message: Authenticate) -> None:
        protocol = message.protocol or Protocol()
        if not self._upgrade.gzip:
            protocol = Protocol(protocol.serialization, Compression.NONE)
        self._sign_in(message.token, protocol, required=True)

    def _sign_in(self, token: str, protocol: Protocol, *, required: bool) -> None:
        """Check a token. One that does not do ends the session, unless another may still come (not `required`).

        Later tokens must be of the same user; they prolong the session, and change nothing else.
        """
        if not self._service.allow_sign_in(self._exchange):
            self.refuse("Too many authentication attempts from your IP address")
            return
        try:
            found = self._service.verify(token, local=self._exchange.loopback)
        except AuthError as error:
            if required:
                self.refuse(error.message)
            return
        if self.token is None:
            self._codec = self._service.codecs[protocol]
            self._move(SessionState.OPEN)
            if self._auth_timer is not None:
                self._auth_timer.cancel()
                self._auth_timer = None
        elif found.identity != self.token.identity:
            self.refuse("This connection is signed in as another user")
            return
        else:
            self._service.left(self)
        self.token = found
        self._token_text = token
        self._exchange.user = found.identity.user
        self._service.joined(self)
        identity = found.identity
        answer = AuthSuccess(identity.user, identity.user, identity.role.value, self._codec.protocol)
        self.connection.write(self._service.codecs[_PLAIN].encode(answer))

    def refuse(self, why: str) -> None:
        """Say that the client is not, or no longer, signed in, and close."""
        self.connection.write(self._service.codecs[_PLAIN].encode(AuthFailure(why)))
        self.close(POLICY_VIOLATION, why)

    def recheck(self) -> None:
        """Look whether the token still holds, because its account, its session or the time has moved on."""
        if self.token is None or self.state is not SessionState.OPEN:
            return
        try:
            self.token = self._service.verify(self._token_text, local=self._exchange.loopback)
            self._unchecked = False
        except AuthError as error:
            self._unchecked = error.status >= 500  # it could not be checked: the next heartbeat tries again
            if not self._unchecked:
                self.refuse(error.message)

    def _await_sign_in(self, seconds: float) -> None:
        self._auth_timer = self.loop.call_later(seconds, self._auth_overdue, self.loop.time() + seconds)

    def _auth_overdue(self, due: float) -> None:
        """Nobody has signed in; a server that comes late was busy, and may not have read what the client sent."""
        self._auth_timer = None
        if self.loop.time() - due > _LATE_SECONDS:
            self._await_sign_in(_LATE_SECONDS)
            return
        seconds = self._service.options.auth_timeout_secs
        message = f"Authentication timeout - no auth message received within {seconds:g} seconds"
        self.connection.write(self._service.codecs[_PLAIN].encode(AuthFailure(message)))
        self.close(POLICY_VIOLATION, "Authentication timeout")

    # --- heartbeat ------------------------------------------------------------------------------------------------

    @property
    def exchange(self) -> Exchange:
        """The request that it began with."""
        return self._exchange

    @property
    def last_heard(self) -> float:
        """`loop.time()` of the client's last sign of life."""
        return self.connection.last_heard

    def beat(self, now: float, now_us: int) -> None:
        """Look whether the client lives, takes what it is sent, and may still be here; ping it if it is silent."""
        if self.state in {SessionState.CLOSING, SessionState.CLOSED}:
            return
        if self.token is not None and (self._unchecked or self.token.expires_us <= now_us):
            self.recheck()
            return
        sign = self._heartbeat.look(now)
        if sign is Sign.QUIET:
            self.connection.ping()
        elif sign is Sign.SILENT:
            self.close(NORMAL, "Heartbeat timeout")
        elif sign is Sign.STUCK:
            self.send(Failure("protocol", Code.SLOW_CONSUMER, "The client does not take what it is sent"))
            self.close(POLICY_VIOLATION, "Slow consumer")
            self.connection.abort()


def _name_of(message: ClientMessage) -> str:
    """What an answer names that concerns a message before the sign-in."""
    return {Subscribe: "subscribe", NextBatch: "next_batch", Unsubscribe: "unsubscribe"}.get(type(message), "protocol")
