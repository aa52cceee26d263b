"""Stand-ins for the rooms below the server, and the smallest application over them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import pyarrow as pa
from starlette.types import ASGIApp

from server.active import ActiveRequests
from server.app import create_app
from server.config import Config
from server.errors import AuthError
from server.exchange import Exchange
from server.middleware.rate_limit import RateLimits
from server.state import AppState
from sql.errors import FileNotFound
from sql.files.downloads import FileRequest, StoredFile
from sql.files.references import UploadedFile
from sql.identity import Identity, Role
from sql.results import ResultColumn, StatementResult
from sql.topics.messages import Batch, ConsumeRequest
from sql.topics.settings import TopicSettings
from storage.blobs import BlobReader
from storage.topic_groups import IsGone
from storage.topic_writes import Placed, Produced
from storage.types import BIGINT, TEXT

T = TypeVar("T")

BEARER = {"Authorization": "Bearer alice"}
COLUMNS = (ResultColumn("id", BIGINT, ("pk", "nn", "uq")), ResultColumn("name", TEXT))
LOOPBACK = ("127.0.0.1", 50000)
REMOTE = ("203.0.113.9", 50000)


class FakeClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def now_us(self) -> int:
        return int(self.seconds * 1_000_000)

    def monotonic(self) -> float:
        return self.seconds


class FakeAuthenticator:
    """The token is the user's name; the names of roles have them."""

    def authenticate(self, authorization: bytes | None, exchange: Exchange) -> Identity:
        if authorization is None:
            raise AuthError(401, "MISSING_AUTHORIZATION", "Authentication required")
        scheme, _, token = authorization.partition(b" ")
        if scheme != b"Bearer":
            raise AuthError(401, "INVALID_CREDENTIALS", "Invalid credentials")
        user = token.decode()
        return Identity(user, Role(user) if user in set(Role) else Role.USER)

    def needs_setup(self) -> bool:
        return False


class FakeEngine:
    last_seq = 7

    def close(self) -> None:
        pass


def rows(*values: tuple[int, str | None]) -> pa.Table:
    return pa.table({"id": pa.array([v[0] for v in values], pa.int64()), "name": pa.array([v[1] for v in values])})


class FakeStream:
    def __init__(self, batches: Sequence[pa.RecordBatch], error: Exception | None) -> None:
        self.columns = COLUMNS
        self._batches = batches
        self._error = error
        self.closed = False

    @property
    def batches(self) -> AsyncIterator[pa.RecordBatch]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[pa.RecordBatch]:
        try:
            for batch in self._batches:
                yield batch
            if self._error is not None:
                raise self._error
        finally:
            self.closed = True


@dataclass
class FakeTopics:
    """Answers every consumer with `batch`, or raises `error`; remembers what it was asked."""

    batch: Batch = field(default_factory=lambda: Batch((), False, {0: 0}))
    error: Exception | None = None
    calls: list[tuple[object, ...]] = field(default_factory=list)
    settings: TopicSettings = field(default_factory=TopicSettings)

    async def consume(self, request: ConsumeRequest) -> Batch:
        return self._answer((request,), self.batch)

    async def produce(self, namespace: str, topic: str, messages: Sequence[Produced], user: str) -> list[Placed]:
        placed = [Placed(0, offset) for offset in range(len(messages))]
        return self._answer((namespace, topic, list(messages), user), placed)

    async def acknowledge(
        self,
        namespace: str,
        topic: str,
        group: str,
        partition: int | None,
        upto: int | None,
        holder: str,
        *,
        back: bool,
        is_gone: IsGone,
    ) -> int:
        return self._answer((namespace, topic, group, partition, upto, holder, back), -1 if upto is None else upto)

    def _answer(self, call: tuple[object, ...], answer: T) -> T:
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        return answer


@dataclass
class FakeDatabase:
    """Answers every statement with `table`, or raises `error`; remembers what it was asked."""

    table: pa.Table = field(default_factory=lambda: rows((1, "one"), (2, None)))
    error: Exception | None = None
    stream_error: Exception | None = None
    calls: list[tuple[object, ...]] = field(default_factory=list)
    before: Callable[[], object] | None = None
    topics: FakeTopics = field(default_factory=FakeTopics)

    def scope(self, namespace: str | None) -> str:
        return namespace or "default"

    async def execute(
        self, sql: str, params: list[object] | None, namespace: str | None, identity: Identity
    ) -> list[StatementResult]:
        self.calls.append((sql, params, namespace, identity.user))
        if self.before is not None:
            await self.before()  # type: ignore[misc]
        if self.error is not None:
            raise self.error
        return [StatementResult(columns=COLUMNS, table=self.table, as_user=identity.user)]

    async def stream(
        self, sql: str, params: list[object] | None, namespace: str | None, identity: Identity
    ) -> FakeStream:
        if self.error is not None:
            raise self.error
        self.last_stream = FakeStream(self.table.to_batches(), self.stream_error)
        return self.last_stream

    async def execute_with_files(
        self,
        sql: str,
        params: list[object] | None,
        namespace: str | None,
        identity: Identity,
        uploads: Mapping[str, UploadedFile],
    ) -> list[StatementResult]:
        contents = {name: (file.name, file.mime, os.pread(file.staged, 1_000, 0)) for name, file in uploads.items()}
        self.calls.append((sql, params, namespace, identity.user, contents))
        if self.error is not None:
            raise self.error
        return [StatementResult(row_count=1, message="Inserted 1 row(s)", as_user=identity.user)]

    async def open_file(self, request: FileRequest, identity: Identity) -> tuple[StoredFile, BlobReader]:
        raise FileNotFound("File not found")

    async def find_export(self, user: str, export_id: str, identity: Identity) -> Path:
        raise FileNotFound("Export not found")

    async def ingest(self, namespace: str, table: str, file: Path, content_type: str, identity: Identity) -> int:
        data = file.read_bytes()
        self.calls.append((namespace, table, data, content_type, identity.user))
        if self.error is not None:
            raise self.error
        return data.count(b"\n")


def configured(changes: Mapping[str, Mapping[str, object]] | None = None) -> Config:
    """The defaults, with some keys of some sections changed."""
    config = Config()
    for section, values in (changes or {}).items():
        changed = msgspec.structs.replace(getattr(config, section), **values)
        config = msgspec.structs.replace(config, **{section: changed})
    return config


@dataclass
class Setting:
    """An application over fakes, and the fakes."""

    app: ASGIApp
    state: AppState
    database: FakeDatabase
    clock: FakeClock
    active: ActiveRequests

    def request(self, method: str, path: str, *, peer: tuple[str, int] = LOOPBACK, **options: Any) -> httpx.Response:
        """Send one request to the application, on an event loop of its own."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=peer)
            async with httpx.AsyncClient(transport=transport, base_url="http://headrace") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def sql(self, body: object = None, *, headers: Mapping[str, str] | None = None, **options: Any) -> httpx.Response:
        """Send an SQL request as alice: a struct as JSON, or bytes as they are, said to be JSON."""
        sent = {"Content-Type": "application/json", **BEARER, **(headers or {})}
        content = body if isinstance(body, bytes) else msgspec.json.encode(body or {"sql": "SELECT 1"})
        return self.request("POST", "/v1/api/sql", content=content, headers=sent, **options)


def make(folder: Path, changes: Mapping[str, Mapping[str, object]] | None = None, **database: object) -> Setting:
    config = configured(changes)
    clock = FakeClock()
    fake = FakeDatabase(**database)  # type: ignore[arg-type]
    state = AppState(
        config=config,
        engine=FakeEngine(),
        database=fake,
        authenticator=FakeAuthenticator(),
        limits=RateLimits(config.rate_limit, clock),
        clock=clock,
        data_path=folder,
    )
    active = ActiveRequests()
    return Setting(create_app(state, active=active), state, fake, clock, active)
