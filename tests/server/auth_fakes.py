"""A storage engine, a clock and an application that are just enough for authentication, without threads or files."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import httpx
import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router

from server.auth.bootstrap import bootstrap, set_up
from server.auth.options import AuthOptions
from server.auth.routes import routes
from server.auth.service import build, forget_changed
from server.auth.store import USER_KIND
from server.config import Config, RateLimitSection, SecuritySection
from server.exchange import Exchange
from server.middleware.gate import Gate
from server.middleware.rate_limit import RateLimits
from sql.passwords import HashParameters, PolicyOptions
from storage.catalog import Catalog, NamespaceDef, UserDef
from storage.submission import Commit

T = TypeVar("T")
CHEAP = HashParameters(memory_kib=8, iterations=1)
SECRET = b"a-random-key-of-the-tests-3f9c1d7e5b"
START = 1_800_000_000_000_000
ROOT_PASSWORD = "RootPass123!"
DBA_PASSWORD = "AdminPass123!"


class FakeClock:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.us = START

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.us / 1_000_000

    def advance(self, seconds: float) -> None:
        self.us += round(seconds * 1_000_000)


class FakeView:
    """One state, and inside a mutation what it stages."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self.objects = dict(engine.objects)
        self.namespaces = dict(engine.namespaces)
        self.changed: list[tuple[str, str]] = []

    @property
    def catalog(self) -> Catalog:
        return Catalog(1, self.namespaces.values(), ())

    def get_object(self, kind: str, name: str, type: type[T]) -> T | None:  # noqa: A002
        value = self.objects.get((kind, name))
        return None if value is None else msgspec.msgpack.decode(value, type=type)

    def list_objects(self, kind: str, type: type[T]) -> Iterator[T]:  # noqa: A002
        return (msgspec.msgpack.decode(v, type=type) for (k, _), v in sorted(self.objects.items()) if k == kind)

    def put_object(self, kind: str, name: str, value: msgspec.Struct) -> None:
        self.objects[kind, name] = msgspec.msgpack.encode(value)
        self.changed.append((kind, name))

    def delete_object(self, kind: str, name: str) -> None:
        self.objects.pop((kind, name), None)
        self.changed.append((kind, name))

    def put_namespace(self, namespace: NamespaceDef) -> None:
        self.namespaces[namespace.name] = namespace

    def now_us(self) -> int:
        return self._engine.clock.now_us()


class FakeEngine:
    """Commits one mutation after another; `failure` is raised in place of the next reads and writes."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.objects: dict[tuple[str, str], bytes] = {}
        self.namespaces: dict[str, NamespaceDef] = {}
        self.listeners: list[Callable[[list[tuple[str, str]]], None]] = []
        self.failure: Exception | None = None
        self.commits = 0
        self.snapshots = 0

    @contextmanager
    def snapshot(self) -> Iterator[FakeView]:
        if self.failure is not None:
            raise self.failure
        self.snapshots += 1
        yield FakeView(self)

    def submit(self, work: Callable[[FakeView], T], *, on_done: Callable[[Commit[T]], None] | None = None) -> Commit[T]:
        commit: Commit[T] = Commit(on_done)
        try:
            commit.resolve(self.commit_now(work), None)
        except Exception as error:  # noqa: BLE001
            commit.resolve(None, error)
        return commit

    async def commit(self, work: Callable[[FakeView], T]) -> T:
        commit = self.submit(work)
        await asyncio.sleep(0)
        return commit.result()

    def commit_now(self, work: Callable[[FakeView], T]) -> T:
        if self.failure is not None:
            raise self.failure
        view = FakeView(self)
        result = work(view)
        self.objects, self.namespaces = view.objects, view.namespaces
        self.commits += 1
        for listener in self.listeners:
            listener(view.changed)
        return result

    @property
    def last_seq(self) -> int:
        return self.commits

    def put(self, kind: str, name: str, value: msgspec.Struct) -> None:
        self.commit_now(lambda view: view.put_object(kind, name, value))

    def change_user(self, user_id: str, **changes: Any) -> None:
        """What ALTER USER and DROP USER do."""
        user = FakeView(self).get_object(USER_KIND, user_id, UserDef)
        assert user is not None
        self.put(USER_KIND, user_id, msgspec.structs.replace(user, **changes))

    def user(self, user_id: str) -> UserDef:
        user = FakeView(self).get_object(USER_KIND, user_id, UserDef)
        assert user is not None
        return user


class World:
    """A server with nothing but authentication, and clients of it at chosen addresses."""

    def __init__(
        self, options: AuthOptions, limits: RateLimitSection, security: SecuritySection, watched: bool
    ) -> None:
        self.clock = FakeClock()
        self.engine = FakeEngine(self.clock)
        self._limits = RateLimits(limits, self.clock)
        self.context = build(options, self.engine, SECRET, self._limits, self.clock)
        self.context.cache.watched = watched
        if watched:
            self.engine.listeners.append(partial(forget_changed, self.context.cache))
        config = Config(rate_limit=limits, security=security)
        whoami = Route("/whoami", self._whoami, methods=["GET"])
        self.app = Gate(Router(routes=[*routes(self.context), whoami]), {}, config, self._limits)

    async def _whoami(self, request: Request) -> Response:
        """A bearer route."""
        exchange: Exchange = request.scope["exchange"]
        identity = self.context.authenticator.authenticate(exchange.headers.get(b"authorization"), exchange)
        return PlainTextResponse(f"{identity.user} {identity.role}")

    def client(self, address: str = "127.0.0.1", base: str = "http://headrace.test") -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.app, client=(address, 50000))
        return httpx.AsyncClient(transport=transport, base_url=base)

    async def set_up(self) -> None:
        """root and the dba `admin` with their passwords."""
        await bootstrap(self.engine, self.context.options)
        await set_up(self.context, "admin", DBA_PASSWORD, ROOT_PASSWORD, "admin@example.com")

    async def add_user(self, name: str, role: str = "user", password: str = "Secret123!", **more: Any) -> None:
        (password_hash,) = await self.context.threads.hash_all([password])
        now = self.clock.now_us()
        user = UserDef(user_id=name, role=role, password_hash=password_hash, created_at=now, updated_at=now, **more)
        self.engine.put(USER_KIND, name, user)

    async def login(self, name: str = "admin", password: str = DBA_PASSWORD) -> dict[str, Any]:
        """The body of a successful login, without cookies kept."""
        async with self.client() as client:
            response = await client.post("/v1/api/auth/login", json={"user": name, "password": password})
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    async def whoami(self, token: str, address: str = "127.0.0.1", **headers: str) -> httpx.Response:
        """Ask the bearer route."""
        async with self.client(address) as client:
            return await client.get("/whoami", headers={"Authorization": f"Bearer {token}", **headers})


def run(
    scenario: Callable[[World], Awaitable[None]],
    *,
    limits: RateLimitSection | None = None,
    security: SecuritySection | None = None,
    ready: bool = True,
    watched: bool = True,
    **options: Any,
) -> None:
    """Run a scenario in a fresh world; with `ready`, after the set-up."""

    async def main() -> None:
        world = World(
            AuthOptions(**{"parameters": CHEAP, "policy": PolicyOptions(), **options}),
            limits or RateLimitSection(max_auth_requests_per_ip_per_sec=0),
            security or SecuritySection(),
            watched=watched,
        )
        try:
            if ready:
                await world.set_up()
            await scenario(world)
        finally:
            await world.context.close()

    asyncio.run(main())


def code_of(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a bearer route's error, whose whole shape is checked."""
    body = response.json()
    assert set(body) >= {"status", "error", "results", "took"}
    assert body["status"] == "error"
    assert body["results"] == []
    assert body["took"] >= 0
    return response.status_code, body["error"]["code"]


def id_of(response: httpx.Response) -> tuple[int, str]:
    """Status and id of an auth route's error, whose whole shape is checked."""
    body = response.json()
    assert set(body) == {"error", "message"}
    assert body["message"]
    return response.status_code, body["error"]
