"""Stand-ins around a session: a connection that records frames, a hub that does as it is told, known tokens."""

from __future__ import annotations

import asyncio
import gzip
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from server.auth.cache import VerifiedToken
from server.errors import AuthError
from server.exchange import Exchange
from server.live.limits import UserSubscriptions
from server.live.messages import Protocol, Serialization
from server.live.service import LiveService, SessionOptions
from server.live.session import Session
from server.live.upgrade import TokenSource, UpgradeRequest
from server.websocket.frames import Opcode
from sql.errors import SqlError
from sql.identity import Identity, Role
from sql.live.interface import ChangeType, LiveChange, LiveDelta, LiveSink
from sql.live.settings import LiveSettings
from sql.live.subscription import Batch, LiveRequest, Subscription, SubscriptionState
from sql.results import ResultColumn
from sql.wire import BigintMode
from storage.types import BIGINT, TEXT
from tests.server.fakes import FakeClock

COLUMNS = (ResultColumn("id", BIGINT, ("pk", "nn", "uq")), ResultColumn("name", TEXT), ResultColumn("_seq", BIGINT))


def decoded(frame: bytes) -> dict[str, Any]:
    """The message in a frame; JSON in text frames, MessagePack or gzip in binary ones."""
    messages = list(messages_in(frame))
    assert len(messages) == 1
    return messages[0]


def messages_in(frames: bytes) -> list[dict[str, Any]]:
    """All messages in frames that stand one behind the other."""
    found = []
    while frames:
        opcode, length, start = frames[0], frames[1], 2
        if length == 126:
            (length,), start = struct.unpack("!H", frames[2:4]), 4
        elif length == 127:
            (length,), start = struct.unpack("!Q", frames[2:10]), 10
        payload, frames = frames[start : start + length], frames[start + length :]
        assert len(payload) == length
        assert opcode in {0x80 | Opcode.TEXT, 0x80 | Opcode.BINARY}
        if payload[:2] == b"\x1f\x8b":
            assert opcode == 0x80 | Opcode.BINARY
            payload = gzip.decompress(payload)
        text = payload[:1] == b"{"
        found.append(msgspec.json.decode(payload) if text else msgspec.msgpack.decode(payload))
    return found


class FakeConnection:
    """A `FrameConnection` without a socket. `full` is set by the test."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.frames: list[bytes] = []
        self.closed_with: tuple[int, str] | None = None
        self.aborted = False
        self.pings = 0
        self.buffered = 0
        self.full = False
        self.last_heard = asyncio.get_running_loop().time()
        self.last_drained = self.last_heard
        self._on_drain: Callable[[], None] | None = None

    def write(self, frame: bytes) -> None:
        if not self.closed:
            self.frames.append(frame)
            self.sent += messages_in(frame)

    def write_many(self, frames: Sequence[bytes]) -> None:
        self.write(b"".join(frames))

    def on_drain(self, callback: Callable[[], None] | None) -> None:
        self._on_drain = callback

    def drain(self) -> None:
        """Let the client read all that waits."""
        self.full = False
        self.buffered = 0
        if self._on_drain is not None:
            self._on_drain()

    def ping(self) -> None:
        self.pings += 1

    def close(self, code: int, reason: str = "") -> None:
        if self.closed_with is None:
            self.closed_with = (code, reason)

    def abort(self) -> None:
        self.aborted = True

    @property
    def closed(self) -> bool:
        return self.closed_with is not None


@dataclass(frozen=True)
class FakeQuery:
    columns: tuple[ResultColumn, ...] = COLUMNS
    table_id: int | None = 1


@dataclass
class Snapshot:
    """What the next subscription finds."""

    batches: list[Batch] = field(default_factory=list)
    resumed: bool = False
    too_old: str | None = None


class FakeSource:
    asked = 0.0

    def close(self) -> None:
        pass


class FakeHub:
    """A `LiveHub` whose snapshots and errors the test gives."""

    def __init__(self) -> None:
        self.settings = LiveSettings()
        self.position = 100
        self.snapshot = Snapshot()
        self.error: Exception | None = None
        self.batch_error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.requests: list[LiveRequest] = []
        self.open: dict[str, Subscription] = {}
        self.left: dict[str, list[Batch]] = {}
        self.drains = 0

    async def subscribe(self, request: LiveRequest, sink: LiveSink) -> Subscription:
        self.requests.append(request)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        found = Subscription(self, request, FakeQuery(), sink, self.position)  # type: ignore[arg-type]
        found.resumed, found.too_old = self.snapshot.resumed, self.snapshot.too_old
        found.fresh = found.too_old is not None
        if self.snapshot.batches:
            found.source = FakeSource()
        found.total_rows = sum(len(batch.rows) for batch in self.snapshot.batches)
        self.left[found.live_id] = list(self.snapshot.batches)
        self.open[found.live_id] = found
        return found

    async def next_batch(self, subscription: Subscription) -> Batch:
        await self.gate.wait()
        if self.batch_error is not None:
            raise self.batch_error
        return self.left[subscription.live_id].pop(0)

    def go_live(self, subscription: Subscription) -> None:
        subscription.move(SubscriptionState.REPLAY)
        subscription.move(SubscriptionState.LIVE)

    def close_one(self, subscription: Subscription) -> None:
        if subscription.state is not SubscriptionState.ENDED:
            subscription.move(SubscriptionState.ENDED)
            self.open.pop(subscription.live_id, None)

    def drained(self, sink: LiveSink) -> None:
        self.drains += 1

    def close_connection(self, connection_id: str) -> None:
        for subscription in list(self.open.values()):
            if subscription.connection_id == connection_id:
                self.close_one(subscription)

    def deliver(self, name: str, delta: LiveDelta) -> bool:
        """Hand a delta to the subscription of that id."""
        found = next(s for s in self.open.values() if s.subscription_id == name)
        return found.sink.deliver(found, delta)

    def end(self, name: str, error: SqlError) -> None:
        """End a subscription against its client's will."""
        found = next(s for s in self.open.values() if s.subscription_id == name)
        self.close_one(found)
        found.sink.ended(found, error)


class FakeVerifier:
    """The token is the user's name, or `<user>/<session>`; `bad` never does. `revoked` tokens do no more."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self.down = False
        self.expires_us = 2**60

    def verify_token(self, token: str, *, local: bool) -> VerifiedToken:
        if self.down:
            raise AuthError(500, "AUTHENTICATION_ERROR", "Authentication failed")
        if token == "bad" or token in self.revoked:
            raise AuthError(401, "INVALID_CREDENTIALS", "Invalid credentials")
        user, _, family = token.partition("/")
        return VerifiedToken(Identity(user, Role.USER), family or "f1", self.expires_us, False, 0)


class FakeSignIns:
    allowed = True

    def allow_sign_in(self, exchange: Exchange) -> bool:
        return self.allowed


class World:
    """A service over fakes, and the sessions that tests open in it."""

    def __init__(self, *, per_user: int = 10, **options: Any) -> None:
        self.hub = FakeHub()
        self.verifier = FakeVerifier()
        self.sign_ins = FakeSignIns()
        self.clock = FakeClock()
        self.service = LiveService(
            hub=self.hub,  # type: ignore[arg-type]
            verifier=self.verifier,
            sign_ins=self.sign_ins,
            upgrades=None,  # type: ignore[arg-type]
            options=SessionOptions(**options),
            users=UserSubscriptions(per_user),
            clock=self.clock,
            bigint=BigintMode.AUTO,
            namespace=lambda name: name or "default",
        )

    def connect(
        self,
        token: str | None = None,
        source: TokenSource | None = TokenSource.HEADER,
        protocol: Protocol | None = None,
        *,
        gzip: bool = True,
    ) -> Client:
        """Open a session."""
        return Client(self, UpgradeRequest(token, source, None, protocol or Protocol(), gzip))

    def signed_in(self, user: str = "ann", protocol: Protocol | None = None) -> Client:
        """Open a session that is signed in; what it was answered is forgotten."""
        client = self.connect(user, protocol=protocol)
        assert client.take()[0]["type"] == "auth_success"
        return client


class Client:
    """One session and the client's end of it."""

    _numbers = iter(range(1_000_000))

    def __init__(self, world: World, upgrade: UpgradeRequest) -> None:
        self.world = world
        self.connection = FakeConnection()
        scope = {"headers": [], "type": "websocket"}
        exchange = Exchange(scope, None, None)  # type: ignore[arg-type]
        self.session = Session(world.service, self.connection, exchange, upgrade, f"c{next(self._numbers)}")
        world.service.enter(self.session)
        self.session.begin()

    def take(self) -> list[dict[str, Any]]:
        """What was sent since the last time."""
        found, self.connection.sent = self.connection.sent, []
        return found

    async def say(self, message: object) -> list[dict[str, Any]]:
        """Send a message as JSON (or a text as it is), let the session work, and take what it answers."""
        text = message if isinstance(message, str) else msgspec.json.encode(message).decode()
        return await self.receive({"type": "websocket.receive", "text": text})

    async def receive(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Hand the session an ASGI message."""
        await self.session.handle(message)
        await settle()
        return self.take()

    async def subscribe(self, name: str = "s1", **fields: Any) -> list[dict[str, Any]]:
        """Send a `subscribe` message."""
        subscription = {"id": name, "sql": "SELECT * FROM app.notes", **fields}
        return await self.say({"type": "subscribe", "subscription": subscription})


async def settle() -> None:
    """Let everything run that can run without more input; threads too, as they end by callbacks."""
    for _ in range(20):
        await asyncio.sleep(0)


def batches(*sizes: int, fresh: bool = False) -> list[Batch]:
    """A snapshot in batches of so many rows."""
    found, row = [], 0
    for number, size in enumerate(sizes):
        rows: list[dict[str, object]] = [{"id": i, "name": f"row {i}", "_seq": i} for i in range(row, row + size)]
        row += size
        found.append(Batch(rows, number, number + 1 < len(sizes), max(row - 1, 0), fresh))
    return found


def inserted(seq: int = 101, text: str = "new") -> LiveDelta:
    """A commit that inserted one row."""
    row: dict[str, object] = {"id": 7, "name": text, "_seq": seq}
    return LiveDelta(seq, [LiveChange(ChangeType.INSERT, [seq], [row], [])])


MSGPACK = Protocol(Serialization.MSGPACK)
