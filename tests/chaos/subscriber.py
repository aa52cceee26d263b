"""A client of the live protocol that shares no code with Headrace's own: it connects again whenever it is cut off.

It speaks through `websockets` alone, in any of the wire formats, and checks every message that it gets.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from tests.chaos.rowset import Violation, require
from tests.chaos.subscription import Message, State, Subscription

SILENCE = 5.0
"""Seconds without any message, pings unanswered, until the client believes that the connection is dead."""

FORBIDDEN_CLOSES = {1002, 1003, 1007, 1009, 1010, 1011}
"""Close codes that say that one side broke the protocol."""

LOST = (OSError, ConnectionClosed, TimeoutError, InvalidMessage, EOFError)
QUIET = logging.getLogger("tests.chaos.websockets")
QUIET.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Manners:
    """How often, per message or so, a client does odd things."""

    abort: float = 0.0
    """It drops its connection without a word."""
    leave: float = 0.0
    """It closes its connection politely."""
    replace: float = 0.0
    """It subscribes again under the same id."""
    unsubscribe: float = 0.0
    """It unsubscribes, and subscribes again."""
    dawdle: float = 0.0
    """It does not read for a while."""
    ping: float = 0.0


WELL_BEHAVED = Manners(ping=0.01)
RESTLESS = Manners(abort=0.004, leave=0.002, replace=0.004, unsubscribe=0.004, dawdle=0.01, ping=0.02)


class Wire:
    """A wire format and a way to sign in."""

    def __init__(self, chance: random.Random) -> None:
        self.msgpack = chance.random() < 0.4
        self.gzip = chance.random() < 0.5
        self.way = chance.choice(["message", "message", "header", "subprotocol"])
        if self.way == "subprotocol":
            self.msgpack, self.gzip = False, True
        self.compressed = 0

    @property
    def protocol(self) -> Message:
        """What is agreed on."""
        return {
            "serialization": "msgpack" if self.msgpack else "json",
            "compression": "gzip" if self.gzip else "none",
        }

    def address(self, port: int) -> str:
        """Where to connect."""
        query = ""
        if self.way == "header":
            query = "?" + "&".join(f"{name}={value}" for name, value in self.protocol.items())
        return f"ws://127.0.0.1:{port}/v1/ws{query}"

    def encode(self, message: Message) -> str | bytes:
        """A message of the client."""
        return msgspec.msgpack.encode(message) if self.msgpack else msgspec.json.encode(message).decode()

    def decode(self, raw: str | bytes) -> Message:
        """A message of the server, whose frame must be what was agreed on."""
        if isinstance(raw, bytes) and raw[:2] == b"\x1f\x8b":
            require(self.gzip, "a compressed message that nobody agreed to", raw[:100])
            plain = gzip.decompress(raw)
            require(len(plain) >= 512 and len(raw) < len(plain), "compressed for nothing", len(raw), len(plain))
            self.compressed += 1
        else:
            require(isinstance(raw, bytes) == self.msgpack, "the wrong kind of frame", raw[:100])
            plain = raw if isinstance(raw, bytes) else raw.encode()
        message: Message = msgspec.msgpack.decode(plain) if self.msgpack else msgspec.json.decode(plain)
        return message


class Subscriber:
    """One client with some subscriptions; `run` keeps it going until it is cancelled or lied to."""

    def __init__(
        self,
        name: str,
        port: int,
        token: Callable[[], str],
        subscriptions: Sequence[Subscription],
        chance: random.Random,
        manners: Manners = WELL_BEHAVED,
    ) -> None:
        self.name = name
        self.port = port
        self.subscriptions = {subscription.name: subscription for subscription in subscriptions}
        self.manners = manners
        self.counts: Counter[str] = Counter()
        self.rest = 0.3
        """Most seconds that it stays away."""
        self.away = False
        """Whether it stays away until this is false again."""
        self.delivered = 0
        """What the last pong said while all subscriptions were live."""
        self._token = token
        self._chance = chance
        self._pings = 0

    async def run(self) -> None:
        """Connect, and connect again, for ever; raises Violation."""
        while True:
            wire = Wire(self._chance)
            try:
                await self._connection(wire)
            except InvalidStatus as error:
                require(error.response.status_code == 503, "an upgrade refused", error.response)
                self.counts["refused"] += 1
            except LOST as error:
                self._check_end(error)
                self.counts["lost"] += 1
            except InvalidHandshake as error:
                raise Violation(f"a broken handshake: {error!r}") from error
            except Violation as error:
                stories = [subscription.story() for subscription in self.subscriptions.values()]
                error.add_note("\n".join([f"{self.name} {wire.protocol} {wire.way}", *stories]))
                raise
            finally:
                self.counts["compressed"] += wire.compressed
                for subscription in self.subscriptions.values():
                    subscription.lost()
            await asyncio.sleep(self._chance.uniform(0.0, self.rest))
            while self.away:
                await asyncio.sleep(0.05)

    async def _connection(self, wire: Wire) -> None:
        token = self._token()
        async with connect(
            wire.address(self.port),
            additional_headers={"Authorization": f"Bearer {token}"} if wire.way == "header" else None,
            subprotocols=[f"kalamdb.jwt.{token}"] if wire.way == "subprotocol" else None,  # type: ignore[list-item]
            compression=self._chance.choice([None, "deflate"]),
            open_timeout=SILENCE,
            close_timeout=0.5,
            ping_interval=None,
            max_size=1 << 26,
            proxy=None,
            logger=QUIET,
        ) as socket:
            self.counts["connected"] += 1
            try:
                await self._sign_in(socket, wire, token)
                for subscription in self.subscriptions.values():
                    await self._send(socket, wire, subscription.request())
                await self._talk(socket, wire)
            finally:
                # `websockets` would wait for a close frame behind messages that nobody reads any more.
                socket.transport.abort()

    async def _sign_in(self, socket: ClientConnection, wire: Wire, token: str) -> None:
        if wire.way == "message":
            message: Message = {"type": "authenticate", "method": "jwt", "token": token, "protocol": wire.protocol}
            await socket.send(msgspec.json.encode(message).decode())
        async with asyncio.timeout(SILENCE):
            answer = await socket.recv()
        require(isinstance(answer, str), "auth_success that is no text", answer)
        success = msgspec.json.decode(answer)
        require(success["type"] == "auth_success", "no auth_success", success)
        require(success["protocol"] == wire.protocol, "another protocol than asked for", wire.protocol, success)

    async def _talk(self, socket: ClientConnection, wire: Wire) -> None:
        clock = asyncio.get_running_loop().time
        heard = clock()
        while True:
            await self._misbehave(socket, wire)
            try:
                async with asyncio.timeout(0.3):
                    raw = await socket.recv()
            except TimeoutError:
                if clock() - heard > SILENCE:
                    self.counts["silent"] += 1
                    raise
                await self._ping(socket, wire)
                continue
            heard = clock()
            message = wire.decode(raw)
            if message["type"] == "pong":
                self._pong(message)
                continue
            if message["type"] == "unsubscribed":
                continue
            if message["type"] == "error" and message["code"] == "SLOW_CONSUMER":
                self.counts["slow"] += 1
                await socket.close()
                return
            subscription = self.subscriptions.get(message.get("subscription_id", ""))
            if subscription is None:
                raise Violation(f"a message about nothing of ours: {message}")
            if subscription.state is State.IDLE:
                continue  # it was on its way when the subscription was given up
            answer = subscription.receive(message)
            self.counts[message.get("change_type") or message.get("code") or message["type"]] += 1
            if answer is not None:
                await self._send(socket, wire, answer)

    def _pong(self, message: Message) -> None:
        require(message["id"] <= self._pings, "a pong of no ping", message)
        if message.get("seq") is None:
            return
        seq = int(message["seq"])
        for subscription in self.subscriptions.values():
            subscription.delivered(seq)
        if all(subscription.state is State.LIVE for subscription in self.subscriptions.values()):
            self.delivered = max(self.delivered, seq)

    async def _misbehave(self, socket: ClientConnection, wire: Wire) -> None:
        manners, chance = self.manners, self._chance
        if self.away or chance.random() < manners.abort:
            self.counts["aborted"] += 1
            socket.transport.abort()
        if chance.random() < manners.leave:
            self.counts["left"] += 1
            await socket.close()
        if chance.random() < manners.dawdle:
            await asyncio.sleep(chance.uniform(0.0, 0.5))
        if chance.random() < manners.ping:
            await self._ping(socket, wire)
        replace, unsubscribe = chance.random() < manners.replace, chance.random() < manners.unsubscribe
        if not (replace or unsubscribe):
            return
        subscription = chance.choice(list(self.subscriptions.values()))
        if subscription.state not in {State.LOADING, State.LIVE}:
            return  # two acknowledgements on their way could not be told apart
        if replace:
            self.counts["replaced"] += 1
            await self._send(socket, wire, subscription.request())
        else:
            self.counts["unsubscribed"] += 1
            message: Message = {"type": "unsubscribe", "subscription_id": subscription.name}
            await self._send(socket, wire, message | ({"ack": True} if chance.random() < 0.5 else {}))
            await self._send(socket, wire, subscription.request())

    async def _ping(self, socket: ClientConnection, wire: Wire) -> None:
        self._pings += 1
        await self._send(socket, wire, {"type": "ping", "id": self._pings})

    @staticmethod
    async def _send(socket: ClientConnection, wire: Wire, message: Message) -> None:
        async with asyncio.timeout(SILENCE):
            await socket.send(wire.encode(message))

    def _check_end(self, error: BaseException) -> None:
        if isinstance(error, ConnectionClosed):
            for close in (error.rcvd, error.sent):
                require(close is None or close.code not in FORBIDDEN_CLOSES, "closed as broken", self.name, error)
            self.counts[f"closed {error.rcvd.code if error.rcvd else 'without a word'}"] += 1


def describe(subscribers: Sequence[Subscriber]) -> dict[str, Any]:
    """What happened to all of them, added up."""
    total: Counter[str] = Counter()
    for subscriber in subscribers:
        total += subscriber.counts
        for subscription in subscriber.subscriptions.values():
            total["loads"] += subscription.loads
            total["resumes"] += subscription.resumes
            total["too old"] += subscription.too_old
            total["events"] += subscription.rowset.events
    return dict(sorted(total.items()))
