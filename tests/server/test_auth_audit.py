"""What signing in leaves in the audit log: who, from where, and never a password."""

from __future__ import annotations

import json

import pytest

from sql.audit import AUDIT_KIND, AuditEntry
from tests.server.auth_fakes import DBA_PASSWORD, ROOT_PASSWORD, FakeView, World, run

LOGIN = "/v1/api/auth/login"
REMOTE = "192.0.2.9"
WRONG = "Wrong-Guess-5"


def entries(world: World) -> list[AuditEntry]:
    found = list(FakeView(world.engine).list_objects(AUDIT_KIND, AuditEntry))
    for secret in (DBA_PASSWORD, ROOT_PASSWORD, WRONG, "argon2"):
        assert secret not in repr(found)
    return found


def shown(found: list[AuditEntry]) -> list[tuple[str, str, str | None]]:
    return [(entry.actor, entry.action, entry.ip_address) for entry in found]


async def attempt(world: World, user: str, password: str) -> None:
    async with world.client(REMOTE) as client:
        await client.post(LOGIN, json={"user": user, "password": password})


def test_the_set_up_and_logins_of_admins_have_an_entry_and_others_none() -> None:
    async def scenario(world: World) -> None:
        await world.add_user("alice", password=DBA_PASSWORD)
        await world.add_user("robot", "service", password=DBA_PASSWORD)
        assert shown(entries(world)) == [("admin", "SETUP", None)]
        commits = world.engine.commits
        for name in ("alice", "robot", "admin"):
            await attempt(world, name, DBA_PASSWORD)
        assert world.engine.commits == commits + 3  # the entry is in the commit of the login
        (login,) = entries(world)[1:]
        assert (login.actor, login.action, login.target, login.subject) == ("admin", "LOGIN", "admin", "admin")
        assert (login.ip_address, login.details) == (REMOTE, '{"role":"dba"}')

    run(scenario)


def test_wrong_passwords_and_the_lock() -> None:
    async def scenario(world: World) -> None:
        await world.add_user("alice", password=DBA_PASSWORD)
        for _ in range(9):  # four of them while the account is locked
            await attempt(world, "alice", WRONG)
        found = entries(world)[1:]
        assert shown(found) == [*[("alice", "LOGIN_FAILED", REMOTE)] * 5, ("alice", "ACCOUNT_LOCKED", REMOTE)]
        assert json.loads(found[4].details or "") == {"failures": 5}
        assert json.loads(found[5].details or "") == {"seconds": 900}

    run(scenario)


@pytest.mark.parametrize("name", ["nobody", WRONG])
def test_names_of_no_account_are_not_kept(name: str) -> None:
    """People type passwords into the wrong field, and anybody could fill the log."""

    async def scenario(world: World) -> None:
        for _ in range(7):
            await attempt(world, name, WRONG)
        assert shown(entries(world)) == [("admin", "SETUP", None)]

    run(scenario)


def test_an_account_that_is_never_locked_cannot_fill_the_log() -> None:
    async def scenario(world: World) -> None:
        for _ in range(40):
            await attempt(world, "admin", WRONG)
        failures = [json.loads(entry.details or "")["failures"] for entry in entries(world)[1:]]
        assert failures == [*range(1, 11), 16, 32]

    run(scenario, max_failed_logins=0)


def test_a_refresh_token_used_twice() -> None:
    async def scenario(world: World) -> None:
        bearer = {"Authorization": f"Bearer {(await world.login())['refresh_token']}"}
        async with world.client(REMOTE) as client:
            for _ in range(2):
                await client.post("/v1/api/auth/refresh", headers=bearer)
                client.cookies.clear()
                world.clock.advance(60)
        assert shown(entries(world))[-1] == ("admin", "REFRESH_REUSED", REMOTE)

    run(scenario)
