"""Authentication over the real storage engine: what must survive a restart, and what must happen exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.account_watch import AccountWatch
from server.auth.bootstrap import bootstrap, set_up
from server.auth.context import AuthContext
from server.auth.lockout import submit_failure
from server.auth.options import AuthOptions
from server.auth.service import build
from server.auth.sign_in import SignedIn, login, logout, purge_sessions, refresh
from server.auth.store import FAMILY_KIND, USER_KIND, Writer, read_account
from server.config import RateLimitSection
from server.errors import HttpError
from server.middleware.rate_limit import RateLimits
from storage.catalog import UserDef
from storage.engine import StorageEngine
from tests.server.auth_fakes import CHEAP, DBA_PASSWORD, ROOT_PASSWORD, SECRET, FakeClock

OPTIONS = AuthOptions(parameters=CHEAP)
CHANGES: list[dict[str, Any]] = [
    {"role": "user"},
    {"deleted_at": 1},
    {"locked_until": 2**62},
    {"password_hash": "$a$b$c$d$e"},
]


@asynccontextmanager
async def opened(path: Path, clock: FakeClock, *, watched: bool = True) -> AsyncIterator[AuthContext]:
    """One run of the server, without the server."""
    with StorageEngine.open(path, clock=clock) as engine:
        await bootstrap(engine, OPTIONS)
        context = build(OPTIONS, engine, SECRET, RateLimits(RateLimitSection(), clock), clock)
        if watched:
            context.stop_watching = AccountWatch(engine, context.cache).close
        try:
            yield context
        finally:
            await context.close()


async def admin(context: AuthContext, password: str = DBA_PASSWORD) -> SignedIn:
    return await login(context, "admin", password, local=True)


async def refused(work: object) -> str:
    with pytest.raises(HttpError) as caught:
        await work  # type: ignore[misc]
    return caught.value.code


def test_accounts_sessions_and_locks_survive_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with opened(tmp_path, clock) as context:
            assert context.authenticator.needs_setup()
            await set_up(context, "admin", DBA_PASSWORD, ROOT_PASSWORD, None)
            kept, closed = await admin(context), await admin(context)
            assert await logout(context, [closed.access_token]) == 1
            renewed = await refresh(context, kept.refresh_token, local=True)
            for _ in range(5):
                assert await refused(login(context, "root", "wrong", local=True)) == "unauthorized"
        async with opened(tmp_path, clock) as context:
            assert not context.authenticator.needs_setup()
            authenticate = context.authenticator.authenticate_token
            assert authenticate(renewed.access_token, local=True).user == "admin"
            with pytest.raises(HttpError, match="Invalid credentials"):
                authenticate(closed.access_token, local=True)
            assert await refused(refresh(context, closed.refresh_token, local=True)) == "unauthorized"
            assert await refused(login(context, "root", ROOT_PASSWORD, local=True)) == "account_locked"
            clock.advance(60)
            assert await refused(refresh(context, kept.refresh_token, local=True)) == "unauthorized"  # reused
            assert await refused(refresh(context, renewed.refresh_token, local=True)) == "unauthorized"
        async with opened(tmp_path, clock) as context:
            with pytest.raises(HttpError, match="Invalid credentials"):
                context.authenticator.authenticate_token(renewed.access_token, local=True)

    asyncio.run(scenario())


def test_one_token_buys_one_pair(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path, FakeClock()) as context:
            await set_up(context, "admin", DBA_PASSWORD, ROOT_PASSWORD, None)
            token = (await admin(context)).refresh_token
            for _ in range(5):
                attempts = [refresh(context, token, local=True) for _ in range(8)]
                answers = await asyncio.gather(*attempts, return_exceptions=True)
                winners = [answer for answer in answers if isinstance(answer, SignedIn)]
                assert len(winners) == 1
                token = winners[0].refresh_token

    asyncio.run(scenario())


def test_failures_stand_in_the_queue_before_a_later_success(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path, FakeClock()) as context:
            await set_up(context, "admin", DBA_PASSWORD, ROOT_PASSWORD, None)
            account = read_account(context.store, "admin")
            assert account is not None
            assert account.password_hash is not None
            right = context.threads.verify
            now = context.clock.now_us()

            async def verify(stored: str | None, password: str) -> bool:
                answer = await right(stored, password)
                for _ in range(5):
                    submit_failure(context.store, "admin", account.password_hash or "", now, OPTIONS)
                return answer

            context.threads.verify = verify  # type: ignore[method-assign, assignment]
            assert await refused(admin(context)) == "account_locked"

    asyncio.run(scenario())


def test_only_one_of_two_set_ups_succeeds(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path, FakeClock()) as context:
            answers = await asyncio.gather(
                *(set_up(context, f"boss{n}", DBA_PASSWORD, ROOT_PASSWORD, None) for n in range(4)),
                return_exceptions=True,
            )
            assert sum(isinstance(answer, UserDef) for answer in answers) == 1
            assert {e.code for e in answers if isinstance(e, HttpError)} == {"already_configured"}
            with context.store.snapshot() as view:
                assert len(list(view.list_objects(USER_KIND, UserDef))) == 2

    asyncio.run(scenario())


def test_old_sessions_are_purged(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        async with opened(tmp_path, clock) as context:
            await set_up(context, "admin", DBA_PASSWORD, ROOT_PASSWORD, None)
            await asyncio.gather(*(admin(context) for _ in range(3)))
            await context.settle()
            clock.advance(8 * 24 * 3600)
            kept = await admin(context)
            await context.settle()
            await purge_sessions(context)
            with context.store.snapshot() as view:
                assert len(list(view.list_objects(FAMILY_KIND, dict))) == 1
            assert context.authenticator.authenticate_token(kept.access_token, local=True).user == "admin"

    asyncio.run(scenario())


@pytest.mark.parametrize("watched", [False, True])
def test_an_acknowledged_change_ends_cached_tokens(tmp_path: Path, watched: bool) -> None:
    """As soon as the commit of a change is acknowledged, not a moment later; other tokens stay in the cache."""

    async def scenario() -> None:
        async with opened(tmp_path, FakeClock(), watched=watched) as context:
            await set_up(context, "admin", DBA_PASSWORD, ROOT_PASSWORD, None)
            authenticate = context.authenticator.authenticate_token
            kept = (await login(context, "root", ROOT_PASSWORD, local=True)).access_token
            authenticate(kept, local=True)
            for change in (
                {"role": "user"},
                {"deleted_at": 1},
                {"locked_until": 2**62},
                {"password_hash": "$a$b$c$d$e"},
            ):
                await renew_admin(context)
                token = (await admin(context)).access_token
                authenticate(token, local=True)

                def apply(writer: Writer, change: dict[str, Any] = change) -> None:
                    account = writer.get_object(USER_KIND, "admin", UserDef)
                    assert account is not None
                    writer.put_object(USER_KIND, "admin", msgspec.structs.replace(account, **change))

                await context.store.commit(apply)
                with pytest.raises(HttpError):
                    authenticate(token, local=True)
                assert authenticate(kept, local=True).user == "root"
            await renew_admin(context)
            signed_in = await admin(context)
            authenticate(signed_in.access_token, local=True)
            await logout(context, [signed_in.refresh_token])
            with pytest.raises(HttpError):
                authenticate(signed_in.access_token, local=True)
            assert len(context.cache) >= 1

    asyncio.run(scenario())


async def renew_admin(context: AuthContext) -> None:
    """The account `admin` as new."""
    (password_hash,) = await context.threads.hash_all([DBA_PASSWORD])
    fresh = UserDef(user_id="admin", role="dba", password_hash=password_hash)
    await context.store.commit(lambda writer: writer.put_object(USER_KIND, "admin", fresh))
