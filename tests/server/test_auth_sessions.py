"""Refresh with rotation, reuse detection, logout, cookies and the purge."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from email.utils import parsedate_to_datetime
from http.cookies import Morsel, SimpleCookie
from typing import Any

import httpx
import jwt
import pytest

from server.auth.sessions import PURGE_SLICE, RefreshFamily, digest, open_family, password_stamp
from server.auth.sign_in import PURGE_INTERVAL_SECONDS, purge_sessions
from server.auth.store import FAMILY_KIND
from sql.passwords import HashParameters, hash_password, needs_rehash, rehash_password
from storage.catalog import UserDef
from tests.server.auth_fakes import (
    CHEAP,
    DBA_PASSWORD,
    ROOT_PASSWORD,
    START,
    FakeView,
    World,
    code_of,
    id_of,
    run,
)

REFRESH = "/v1/api/auth/refresh"
LOGOUT = "/v1/api/auth/logout"
DAY = 24 * 3600
REFUSED = (401, "INVALID_CREDENTIALS")


async def refresh(world: World, token: str, address: str = "127.0.0.1") -> httpx.Response:
    async with world.client(address) as client:
        return await client.post(REFRESH, headers={"Authorization": f"Bearer {token}"})


def families(world: World) -> list[RefreshFamily]:
    return list(FakeView(world.engine).list_objects(FAMILY_KIND, RefreshFamily))


def cookies_of(response: httpx.Response) -> dict[str, Morsel[str]]:
    jar: dict[str, Morsel[str]] = {}
    for line in response.headers.get_list("set-cookie"):
        jar.update(SimpleCookie(line))
    return jar


def test_refresh_answers_a_new_pair_and_login_shape() -> None:
    async def scenario(world: World) -> None:
        first = await world.login()
        world.clock.advance(3600)
        response = await refresh(world, first["refresh_token"])
        assert response.status_code == 200
        second = response.json()
        assert list(second) == list(first)
        assert second["user"] == first["user"]
        assert second["access_token"] != first["access_token"]
        assert second["refresh_token"] != first["refresh_token"]
        assert second["expires_at"] > first["expires_at"]
        assert (await world.whoami(second["access_token"])).text == "admin dba"
        assert (await world.whoami(first["access_token"])).text == "admin dba"  # good until it expires
        assert len(families(world)) == 1

    run(scenario)


def test_a_session_lives_as_long_as_it_is_refreshed() -> None:
    async def scenario(world: World) -> None:
        token = (await world.login())["refresh_token"]
        for _ in range(5):
            world.clock.advance(6 * DAY)
            response = await refresh(world, token)
            assert response.status_code == 200
            token = response.json()["refresh_token"]
        world.clock.advance(7 * DAY + 60)
        assert id_of(await refresh(world, token)) == (401, "unauthorized")

    run(scenario)


def test_what_refresh_refuses() -> None:
    async def scenario(world: World) -> None:
        body = await world.login()
        async with world.client() as client:
            assert id_of(await client.post(REFRESH)) == (401, "unauthorized")
            basic = await client.post(REFRESH, headers={"Authorization": "Basic YTpi"})
            assert id_of(basic) == (401, "unauthorized")
        access = await refresh(world, body["access_token"])
        assert id_of(access) == (401, "unauthorized")
        assert access.json()["message"] == "Refresh endpoint requires a refresh token"
        assert id_of(await refresh(world, "nonsense")) == (401, "unauthorized")
        forged = jwt.encode(
            jwt.decode(body["refresh_token"], options={"verify_signature": False}), b"z" * 32, algorithm="HS256"
        )
        assert id_of(await refresh(world, forged)) == (401, "unauthorized")
        assert (await refresh(world, body["refresh_token"])).status_code == 200  # none of it did harm

    run(scenario)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"role": "user"}, (401, "unauthorized")),
        ({"deleted_at": START, "password_hash": None}, (401, "unauthorized")),
        ({"password_hash": "$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAA"}, (401, "unauthorized")),
        ({"locked_until": START + 60_000_000}, (401, "account_locked")),
    ],
)
def test_a_changed_account_cannot_refresh(changes: dict[str, Any], expected: tuple[int, str]) -> None:
    async def scenario(world: World) -> None:
        token = (await world.login())["refresh_token"]
        world.engine.change_user("admin", **changes)
        assert id_of(await refresh(world, token)) == expected

    run(scenario)


def test_root_refreshes_from_this_machine_only() -> None:
    async def scenario(world: World) -> None:
        token = (await world.login("root", ROOT_PASSWORD))["refresh_token"]
        assert id_of(await refresh(world, token, "203.0.113.7")) == (403, "forbidden")
        assert (await refresh(world, token)).status_code == 200  # and the refusal did not use it up

    run(scenario)


def test_an_old_refresh_token_revokes_its_session() -> None:
    async def scenario(world: World) -> None:
        other = await world.login()
        first = await world.login()
        second = (await refresh(world, first["refresh_token"])).json()
        assert (await world.whoami(second["access_token"])).status_code == 200
        world.clock.advance(10)
        reused = await refresh(world, first["refresh_token"])
        assert id_of(reused) == (401, "unauthorized")
        assert "used before" in reused.json()["message"]
        assert id_of(await refresh(world, second["refresh_token"])) == (401, "unauthorized")
        for token in (first["access_token"], second["access_token"]):
            assert code_of(await world.whoami(token)) == REFUSED
        assert (await world.whoami(other["access_token"])).status_code == 200  # another session of the same user
        assert (await refresh(world, other["refresh_token"])).status_code == 200

    run(scenario)


def test_the_previous_token_is_only_refused_for_ten_seconds() -> None:
    async def scenario(world: World) -> None:
        first = await world.login()
        second = (await refresh(world, first["refresh_token"])).json()
        world.clock.advance(9.999)
        early = await refresh(world, first["refresh_token"])
        assert id_of(early) == (401, "unauthorized")
        assert "access_token" not in early.text
        third = await refresh(world, second["refresh_token"])
        assert third.status_code == 200
        world.clock.advance(1)
        oldest = await refresh(world, first["refresh_token"])  # not the previous one: no grace
        assert id_of(oldest) == (401, "unauthorized")
        assert families(world) == []

    run(scenario)


def test_without_grace_the_previous_token_revokes_too() -> None:
    async def scenario(world: World) -> None:
        first = await world.login()
        await refresh(world, first["refresh_token"])
        await refresh(world, first["refresh_token"])
        assert families(world) == []

    run(scenario, refresh_grace_seconds=0)


def test_of_refreshes_at_the_same_time_exactly_one_wins() -> None:
    async def scenario(world: World) -> None:
        token = (await world.login())["refresh_token"]
        answers = await asyncio.gather(*(refresh(world, token) for _ in range(10)))
        assert Counter(answer.status_code for answer in answers) == {200: 1, 401: 9}
        winner = next(answer.json() for answer in answers if answer.status_code == 200)
        assert (await world.whoami(winner["access_token"])).status_code == 200
        assert (await refresh(world, winner["refresh_token"])).status_code == 200

    run(scenario)


def test_the_folder_holds_no_usable_token() -> None:
    async def scenario(world: World) -> None:
        body = await world.login()
        claims = jwt.decode(body["refresh_token"], options={"verify_signature": False})
        stored = b"".join(world.engine.objects.values())
        assert claims["jti"].encode() not in stored
        assert digest(claims["jti"]).encode() in stored
        assert body["refresh_token"].encode() not in stored

    run(scenario)


def test_logout_ends_the_session_of_every_token_it_gets() -> None:
    async def scenario(world: World) -> None:
        by_header, by_cookie, kept = await world.login(), await world.login(), await world.login()
        for body in (by_header, by_cookie, kept):
            assert (await world.whoami(body["access_token"])).status_code == 200
        async with world.client() as client:
            client.cookies.set("headrace_refresh", by_cookie["refresh_token"])
            response = await client.post(LOGOUT, headers={"Authorization": f"Bearer {by_header['access_token']}"})
        assert response.json() == {"message": "Logged out successfully"}
        for body in (by_header, by_cookie):
            assert code_of(await world.whoami(body["access_token"])) == REFUSED
            assert id_of(await refresh(world, body["refresh_token"])) == (401, "unauthorized")
        assert (await world.whoami(kept["access_token"])).status_code == 200

    run(scenario)


def test_logout_needs_no_valid_token() -> None:
    async def scenario(world: World) -> None:
        body = await world.login()
        commits = world.engine.commits
        async with world.client() as client:
            for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic YTpi"}):
                response = await client.post(LOGOUT, headers=headers)
                assert response.status_code == 200
                assert set(cookies_of(response)) == {
                    "headrace_auth", "headrace_refresh", "kalamdb_auth", "kalamdb_refresh",
                }  # fmt: skip
            assert world.engine.commits == commits
            world.clock.advance(2 * DAY)  # the access token is over, its session is not
            await client.post(LOGOUT, headers={"Authorization": f"Bearer {body['access_token']}"})
        assert families(world) == []

    run(scenario)


def test_cookies_have_their_flags_and_both_names() -> None:
    async def scenario(world: World) -> None:
        async with world.client() as client:
            response = await client.post("/v1/api/auth/login", json={"user": "admin", "password": DBA_PASSWORD})
        body, jar = response.json(), cookies_of(response)
        for prefix in ("headrace", "kalamdb"):
            for name, key, lifetime in [("auth", "access_token", DAY), ("refresh", "refresh_token", 7 * DAY)]:
                cookie = jar[f"{prefix}_{name}"]
                assert cookie.value == body[key]
                assert cookie["httponly"] is True
                assert cookie["samesite"].lower() == "strict"
                assert cookie["path"] == "/"
                assert not cookie["secure"]
                assert not cookie["domain"]
                assert parsedate_to_datetime(cookie["expires"]).timestamp() == START / 1_000_000 + lifetime

    run(scenario)


@pytest.mark.parametrize(
    ("base", "headers", "cookie_secure", "expected"),
    [
        ("http://headrace.test", {}, True, False),
        ("https://headrace.test", {}, True, True),
        ("https://headrace.test", {}, False, False),
        ("http://headrace.test", {"X-Forwarded-Proto": "https"}, True, True),
        ("http://headrace.test", {"X-Forwarded-Proto": "http"}, True, False),
    ],
)
def test_cookies_are_secure_over_https(base: str, headers: dict[str, str], cookie_secure: bool, expected: bool) -> None:
    async def scenario(world: World) -> None:
        async with world.client(base=base) as client:
            body = {"user": "admin", "password": DBA_PASSWORD}
            login = await client.post("/v1/api/auth/login", json=body, headers=headers)
            logout = await client.post(LOGOUT, headers=headers)
        assert {bool(cookie["secure"]) for cookie in cookies_of(login).values()} == {expected}
        assert {bool(cookie["secure"]) for cookie in cookies_of(logout).values()} == {expected}

    run(scenario, cookie_secure=cookie_secure)


def test_without_compatibility_only_our_names_are_set_and_read() -> None:
    async def scenario(world: World) -> None:
        async with world.client() as client:
            response = await client.post("/v1/api/auth/login", json={"user": "admin", "password": DBA_PASSWORD})
            assert set(cookies_of(response)) == {"headrace_auth", "headrace_refresh"}
            client.cookies.clear()
            client.cookies.set("kalamdb_refresh", response.json()["refresh_token"])
            assert id_of(await client.post(REFRESH)) == (401, "unauthorized")

    run(scenario, kalamdb_cookies=False)


def test_logout_clears_the_cookies() -> None:
    async def scenario(world: World) -> None:
        async with world.client() as client:
            await client.post("/v1/api/auth/login", json={"user": "admin", "password": DBA_PASSWORD})
            assert len(client.cookies) == 4
            response = await client.post(LOGOUT)
            for cookie in cookies_of(response).values():
                assert cookie.value == ""
                assert cookie["max-age"] == "0"
                assert cookie["path"] == "/"
            assert families(world) == []

    run(scenario)


def test_refresh_reads_the_cookie_before_the_header_and_sets_new_ones() -> None:
    async def scenario(world: World) -> None:
        one, two = await world.login(), await world.login()
        for name in ("headrace_refresh", "kalamdb_refresh"):
            async with world.client() as client:
                client.cookies.set(name, one["refresh_token"])
                headers = {"Authorization": f"Bearer {two['refresh_token']}"}
                response = await client.post(REFRESH, headers=headers)
            assert response.status_code == 200
            assert cookies_of(response)["headrace_refresh"].value == response.json()["refresh_token"]
            one = response.json()
        assert (await refresh(world, two["refresh_token"])).status_code == 200

    run(scenario)


def test_sessions_that_are_over_are_purged_in_slices() -> None:
    async def scenario(world: World) -> None:
        admin = world.engine.user("admin")
        count = PURGE_SLICE + 20

        def open_many(view: FakeView) -> None:
            for number in range(count):
                open_family(view, admin, f"old{number:05}", "jti", START, START + 7 * DAY * 1_000_000)

        world.engine.commit_now(open_many)
        world.clock.advance(7 * DAY)
        fresh = await world.login()
        await world.context.settle()
        assert len(families(world)) == count + 1  # still within the leeway
        world.clock.advance(60)
        commits = world.engine.commits
        assert await purge_sessions(world.context) == count
        assert world.engine.commits == commits + 2
        assert [family.user for family in families(world)] == ["admin"]
        assert (await refresh(world, fresh["refresh_token"])).status_code == 200

    run(scenario)


def test_a_login_purges_at_most_once_an_hour() -> None:
    async def scenario(world: World) -> None:
        async def old() -> None:
            admin = world.engine.user("admin")
            world.engine.commit_now(lambda view: open_family(view, admin, "old", "jti", 0, 1))

        await old()
        await world.login()
        await world.context.settle()
        assert "old" not in [f.family for f in families(world)]
        await old()
        world.clock.advance(PURGE_INTERVAL_SECONDS - 1)
        await world.login()
        await world.context.settle()
        assert "old" in [f.family for f in families(world)]
        world.clock.advance(1)
        await world.login()
        await world.context.settle()
        assert "old" not in [f.family for f in families(world)]

    run(scenario)


def test_the_stamp_is_that_of_the_password_not_of_the_parameters() -> None:
    hashed = hash_password("Secret123!", CHEAP)
    renewed = rehash_password(hashed, "Secret123!", HashParameters(memory_kib=16, iterations=1))
    assert password_stamp(renewed) == password_stamp(hashed) != ""
    assert password_stamp(hash_password("Secret123!", CHEAP)) != password_stamp(hashed)
    assert password_stamp(None) == ""
    assert password_stamp("something else") != password_stamp("another thing")


def test_a_login_renews_an_outdated_hash_and_keeps_other_sessions() -> None:
    async def scenario(world: World) -> None:
        old = hash_password("Secret123!", HashParameters(memory_kib=16, iterations=1))
        world.engine.put("user", "alice", UserDef(user_id="alice", role="user", password_hash=old))
        # a session that was opened under the old hash
        token = (await world.login("alice", "Secret123!"))["access_token"]
        renewed = world.engine.user("alice").password_hash
        assert renewed is not None
        assert not needs_rehash(renewed, CHEAP)
        world.engine.change_user("alice", password_hash=old)
        assert (await world.whoami(token)).status_code == 200
        await world.login("alice", "Secret123!")
        assert (await world.whoami(token)).status_code == 200
        assert world.engine.user("alice").last_login_at == START

    run(scenario)


def test_passwords_are_not_checked_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def verify(stored: str | None, password: str, parameters: HashParameters) -> bool:
        seen.append(threading.current_thread().name)
        return True

    monkeypatch.setattr("server.auth.hashing.verify_password", verify)

    async def scenario(world: World) -> None:
        await world.login()
        assert len(seen) == 1
        assert seen[0].startswith("argon2")

    run(scenario)
