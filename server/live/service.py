"""All live clients of a server: who is connected, one heartbeat for all of them, and what reaches them from outside.

The application of `/v1/ws` and the event streams register here. A commit that changes an account or a sign-in session
makes those concerned look at their token again; so does the time, at the heartbeat.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import msgspec
from starlette.types import Receive, Scope, Send

from server.auth.cache import VerifiedToken
from server.auth.store import FAMILY_KIND
from server.config import Config
from server.errors import HttpError
from server.exchange import Exchange
from server.live.encoding import Codecs
from server.live.failures import Code
from server.live.limits import UserSubscriptions
from server.live.messages import SubscriptionRequest
from server.live.options import OptionRefused, checked
from server.live.session import Session
from server.live.upgrade import Upgrades
from server.websocket.connection import EXTENSION, FrameConnection
from sql.identity import Identity
from sql.live.hub import LiveHub
from sql.live.subscription import LiveRequest
from sql.wire import BigintMode
from storage.catalog import USER_KIND
from storage.seams import Clock

if TYPE_CHECKING:
    from server.auth.context import SignInLimit

_log = logging.getLogger(__name__)

_SLICE = 256
"""Clients that are looked at before other work of the event loop gets its turn."""


class Verifier(Protocol):
    """Who a token speaks for (`server.auth.authenticator.Authenticator`)."""

    def verify_token(self, token: str, *, local: bool) -> VerifiedToken:
        """What an access token stands for; raises AuthError."""
        ...


class Member(Protocol):
    """A connected client that has signed in: a socket's session or an event stream."""

    @property
    def token(self) -> VerifiedToken | None:
        """Who it is."""
        ...

    @property
    def connection_id(self) -> str:
        """Its name, unique in the server."""
        ...

    @property
    def exchange(self) -> Exchange:
        """The request that it began with."""
        ...

    @property
    def last_heard(self) -> float:
        """`loop.time()` of its last sign of life."""
        ...

    def beat(self, now: float, now_us: int) -> None:
        """Look whether it is still there; `now` is `loop.time()`, `now_us` the time of day in microseconds."""
        ...

    def recheck(self) -> None:
        """Look at its token again."""
        ...


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What sessions need to know of the configuration; sizes are bytes, times seconds."""

    auth_timeout_secs: float = 3.0
    client_timeout_secs: float = 10.0
    heartbeat_interval_secs: float = 5.0
    slow_consumer_timeout_secs: float = 60.0
    max_subscriptions_per_connection: int = 100
    max_messages_per_sec: int = 50
    max_message_size: int = 1 << 20
    send_buffer_bytes: int = 1 << 20
    max_sql_bytes: int = 1 << 20
    max_parameters: int = 32_767

    @property
    def beat_seconds(self) -> float:
        """Time between two heartbeats; twice within the client's time, so that a ping comes before its end."""
        return min(self.heartbeat_interval_secs, self.client_timeout_secs / 2)


def session_options(config: Config) -> SessionOptions:
    """The options that a configuration means."""
    websocket = config.websocket
    return SessionOptions(
        auth_timeout_secs=websocket.auth_timeout_secs,
        client_timeout_secs=websocket.client_timeout_secs,
        heartbeat_interval_secs=websocket.heartbeat_interval_secs,
        slow_consumer_timeout_secs=websocket.slow_consumer_timeout_secs,
        max_subscriptions_per_connection=websocket.max_subscriptions_per_connection,
        max_messages_per_sec=config.rate_limit.max_messages_per_sec,
        max_message_size=config.security.max_ws_message_size,
        send_buffer_bytes=websocket.send_buffer_bytes,
        max_sql_bytes=config.limits.max_sql_bytes,
        max_parameters=config.execution.max_parameters,
    )


class LiveService:
    """The live clients of one server. Used on the event loop, except `accounts_changed` and `figures`."""

    def __init__(
        self,
        hub: LiveHub,
        verifier: Verifier,
        sign_ins: SignInLimit,
        upgrades: Upgrades,
        options: SessionOptions,
        users: UserSubscriptions,
        clock: Clock,
        bigint: BigintMode,
        namespace: Callable[[str | None], str],
    ) -> None:
        self.hub = hub
        self.namespace = namespace
        """What a client's name of a namespace means; raises SqlError."""
        self.options = options
        self.codecs = Codecs(bigint)
        self.users = users
        self.stopping = False
        self.peak = 0
        self._verifier = verifier
        self._sign_ins = sign_ins
        self._upgrades = upgrades
        self._clock = clock
        self._members: dict[str, Member] = {}
        self._by_account: dict[tuple[str, str], set[Member]] = {}
        self._stops: set[Callable[[], None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heartbeat: asyncio.Task[None] | None = None

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin the heartbeat; call it on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._heartbeat = self._loop.create_task(self._beat())

    def stop(self) -> None:
        """Refuse new clients and let event streams end; sockets are closed by their transport (1001)."""
        self.stopping = True
        for stop in list(self._stops):
            stop()

    async def close(self) -> None:
        """End the heartbeat, after all clients have gone."""
        self.stop()
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            with suppress(asyncio.CancelledError):
                await self._heartbeat

    def on_stop(self, stop: Callable[[], None]) -> Callable[[], None]:
        """Have a function called when the server begins to stop; returns what takes it back."""
        self._stops.add(stop)
        return lambda: self._stops.discard(stop)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.options.beat_seconds)
            members = list(self._members.values())
            for start in range(0, len(members), _SLICE):
                now, now_us = asyncio.get_running_loop().time(), self._clock.now_us()
                for member in members[start : start + _SLICE]:
                    try:
                        member.beat(now, now_us)
                    except Exception:  # noqa: BLE001  the others must have their heartbeat
                        _log.exception("the heartbeat of a client failed")
                await asyncio.sleep(0)

    # --- the application of /v1/ws --------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket."""
        exchange: Exchange = scope["exchange"]
        if self.stopping:
            raise shutting_down()
        upgrade = self._upgrades.read(scope, exchange)
        await receive()
        await send({"type": "websocket.accept", "subprotocol": upgrade.subprotocol})
        connection: FrameConnection = scope["extensions"][EXTENSION]["connection"]
        session = Session(self, connection, exchange, upgrade, new_connection_id())
        self.enter(session)
        try:
            session.begin()
            while (message := await receive())["type"] == "websocket.receive":
                await session.handle(message)
        finally:
            session.end()
            self.leave(session)

    # --- who is there ---------------------------------------------------------------------------------------------

    def enter(self, member: Member) -> None:
        """Note a client, signed in or not."""
        self._members[member.connection_id] = member
        self.peak = max(self.peak, len(self._members))

    def leave(self, member: Member) -> None:
        """Forget a client."""
        self._members.pop(member.connection_id, None)
        self.hub.close_connection(member.connection_id)

    def joined(self, member: Member) -> None:
        """Note who a client is, after its sign-in."""
        for key in _accounts_of(member):
            self._by_account.setdefault(key, set()).add(member)

    def left(self, member: Member) -> None:
        """Forget who a client is, before its token changes and when it goes."""
        for key in _accounts_of(member):
            members = self._by_account.get(key)
            if members is not None:
                members.discard(member)
                if not members:
                    del self._by_account[key]

    def __len__(self) -> int:
        return len(self._members)

    def members(self) -> list[Member]:
        """Who is there, signed in or not. Any thread."""
        return list(self._members.values())

    def time(self) -> float:
        """The clock of `Member.last_heard`. Any thread."""
        return 0.0 if self._loop is None else self._loop.time()

    def last_heard_us(self, connection_id: str) -> int | None:
        """The time of day of a client's last sign of life, in microseconds; None if it is not there. Any thread."""
        member = self._members.get(connection_id)
        if member is None or self._loop is None:
            return None
        return self._clock.now_us() - int((self._loop.time() - member.last_heard) * 1_000_000)

    def figures(self) -> dict[str, int]:
        """What `system.stats` shows of live clients. Any thread."""
        return {
            "total_live_queries": self.users.total,
            "websocket_sessions": len(self._members),
            "websocket_sessions_peak": self.peak,
        }

    # --- what clients ask -----------------------------------------------------------------------------------------

    def allow_sign_in(self, exchange: Exchange) -> bool:
        """Count an attempt to sign in; False if the address has used up its limit."""
        return self._sign_ins.allow_sign_in(exchange)

    def verify(self, token: str, *, local: bool) -> VerifiedToken:
        """What a token stands for; raises AuthError."""
        return self._verifier.verify_token(token, local=local)

    def check_size(self, sql: str, params: Sequence[object] | None) -> None:
        """Check the size of a subscription's text and parameters; raises OptionRefused."""
        if len(sql) > self.options.max_sql_bytes:
            raise OptionRefused(
                Code.INVALID_SQL,
                f"SQL query too long: {len(sql)} characters (maximum {self.options.max_sql_bytes} bytes)",
            )
        if params and len(params) > self.options.max_parameters:
            raise OptionRefused(Code.INVALID_SQL, f"More than {self.options.max_parameters} parameters")

    def request_of(self, request: SubscriptionRequest, identity: Identity, connection_id: str) -> LiveRequest:
        """What a `subscribe` message asks the hub for; raises OptionRefused and SqlError."""
        options = checked(request.options, self.hub.settings)
        self.check_size(request.sql, request.params)
        return LiveRequest(
            sql=request.sql,
            params=request.params or (),
            namespace=self.namespace(request.namespace),
            identity=identity,
            subscription_id=request.id,
            connection_id=connection_id,
            options=options,
        )

    # --- what changes accounts ------------------------------------------------------------------------------------

    def accounts_changed(self, objects: Iterable[tuple[str, str]]) -> None:
        """Have the clients of changed accounts and sign-in sessions look at their tokens. Any thread."""
        keys = [key for key in objects if key[0] in {USER_KIND, FAMILY_KIND}]  # who joins just now is found by then
        if keys and self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended, and its clients with it
                self._loop.call_soon_threadsafe(self._recheck, keys)

    def _recheck(self, keys: Iterable[tuple[str, str]]) -> None:
        for key in keys:
            for member in list(self._by_account.get(key, ())):
                member.recheck()


def _accounts_of(member: Member) -> list[tuple[str, str]]:
    token = member.token
    return [] if token is None else [(USER_KIND, token.identity.user), (FAMILY_KIND, token.family)]


def new_connection_id() -> str:
    """A name for a connection that nobody can guess."""
    return secrets.token_hex(8)


def shutting_down() -> HttpError:
    """The answer to a client that comes while the server stops."""
    return HttpError(503, "SERVER_SHUTTING_DOWN", "The server is shutting down", headers={"Retry-After": "5"})
