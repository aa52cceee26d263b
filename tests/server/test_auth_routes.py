"""The six auth routes: shapes of requests and answers, and every error id."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta

import pytest

from server.auth.messages import rfc3339
from server.config import RateLimitSection
from sql.passwords import PolicyOptions
from storage.errors import StorageClosed, StorageFull
from tests.server.auth_fakes import DBA_PASSWORD, ROOT_PASSWORD, START, World, code_of, id_of, run

AUTH = "/v1/api/auth"
LOGIN = f"{AUTH}/login"
ADMIN = {"user": "admin", "password": DBA_PASSWORD}
SETUP = {"user": "boss", "password": "Secret123!", "root_password": ROOT_PASSWORD}


def test_login_answers_the_account_and_two_tokens() -> None:
    async def scenario(world: World) -> None:
        async with world.client() as client:
            response = await client.post(LOGIN, json=ADMIN)
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        assert response.headers["cache-control"] == "no-store"
        body = response.json()
        assert list(body) == [
            "user", "admin_ui_access", "expires_at", "access_token", "refresh_token", "refresh_expires_at",
        ]  # fmt: skip
        started = rfc3339(START)
        assert body["user"] == {
            "id": "admin", "role": "dba", "email": "admin@example.com", "created_at": started, "updated_at": started,
        }  # fmt: skip
        assert body["admin_ui_access"] is True
        start = datetime.fromtimestamp(START // 1_000_000, UTC)
        assert datetime.fromisoformat(body["expires_at"]) == start + timedelta(hours=24)
        assert datetime.fromisoformat(body["refresh_expires_at"]) == start + timedelta(hours=7 * 24)
        assert body["expires_at"].endswith("Z")
        assert (await world.whoami(body["access_token"])).text == "admin dba"

    run(scenario)


def test_login_accepts_username_in_place_of_user() -> None:
    async def scenario(world: World) -> None:
        async with world.client() as client:
            response = await client.post(LOGIN, json={"username": "admin", "password": DBA_PASSWORD})
        assert response.status_code == 200

    run(scenario)


def test_an_ordinary_user_has_no_admin_page_and_no_email_is_null() -> None:
    async def scenario(world: World) -> None:
        await world.add_user("alice")
        body = await world.login("alice", "Secret123!")
        assert body["admin_ui_access"] is False
        assert body["user"]["email"] is None

    run(scenario)


@pytest.mark.parametrize(
    ("content", "status", "error", "sentence"),
    [
        (b'{"user":"admin"}', 400, "invalid_request", "missing required field `password`"),
        (b'{"password":"x"}', 400, "invalid_request", "`user` is required"),
        (b'{"user":"","password":"x"}', 400, "invalid_request", "`user` is required"),
        (b'{"user":"a","username":"a","password":"x"}', 400, "invalid_request", "give one of them"),
        (b'{"user":"a","password":"x","otp":"1"}', 400, "invalid_request", "unknown field `otp`"),
        (b'{"user":1,"password":"x"}', 400, "invalid_request", "Expected `str | null`, got `int`"),
        (b'{"user":"a","password":null}', 400, "invalid_request", "Expected `str`, got `null`"),
        (b'{"user":"%s","password":"x"}' % (b"a" * 129), 400, "invalid_request", "length <= 128"),
        (b'{"user":"a","password":"%s"}' % (b"x" * 4097), 400, "invalid_request", "length <= 4096"),
        (b"[]", 400, "invalid_request", "Expected `object`, got `array`"),
        (b"", 400, "invalid_request", "Invalid JSON"),
        (b'{"user":"a",', 400, "invalid_request", "Invalid JSON"),
        (b'{"user":"\xff","password":"x"}', 400, "invalid_request", "Invalid JSON"),
        (b"[" * 60_000, 400, "invalid_request", "Invalid"),
        (b" " * 70_000, 413, "body_too_large", "65536 bytes"),
    ],
)
def test_a_bad_body_is_named(content: bytes, status: int, error: str, sentence: str) -> None:
    async def scenario(world: World) -> None:
        async with world.client() as client:
            response = await client.post(LOGIN, content=content, headers={"Content-Type": "application/json"})
        assert id_of(response) == (status, error)
        assert sentence in response.json()["message"]

    run(scenario, ready=False)


def test_another_content_type_is_refused() -> None:
    async def scenario(world: World) -> None:
        async with world.client() as client:
            for headers in ({"Content-Type": "text/plain"}, {}):
                response = await client.post(LOGIN, content=b'{"user":"a","password":"b"}', headers=headers)
                assert id_of(response) == (415, "unsupported_media_type")
            ok = await client.post(
                LOGIN,
                content=b'{"user":"a","password":"b"}',
                headers={"Content-Type": "application/json; charset=utf-8"},
            )
            assert id_of(ok) == (401, "unauthorized")

    run(scenario, ready=False)


def test_wrong_password_and_unknown_user_answer_the_same() -> None:
    async def scenario(world: World) -> None:
        await world.add_user("gone", deleted_at=START)
        await world.add_user("machine", auth_type="internal")
        world.engine.change_user("machine", password_hash=None)
        async with world.client() as client:
            answers = [
                await client.post(LOGIN, json={"user": user, "password": password})
                for user, password in [
                    ("admin", "wrong"), ("admin", ""), ("nobody", "wrong"), ("gone", "Secret123!"),
                    ("machine", "Secret123!"), ("machine", ""), ("Admin", DBA_PASSWORD), ("admin", "x" * 2000),
                ]
            ]  # fmt: skip
        assert {id_of(answer) for answer in answers} == {(401, "unauthorized")}
        assert {answer.json()["message"] for answer in answers} == {"Invalid credentials"}
        assert all(answer.headers["www-authenticate"].startswith("Bearer") for answer in answers)

    run(scenario)


def test_root_without_password_asks_for_the_set_up() -> None:
    async def scenario(world: World) -> None:
        from server.auth.bootstrap import bootstrap

        await bootstrap(world.engine, world.context.options)
        async with world.client() as client:
            response = await client.post(LOGIN, json={"user": "root", "password": ""})
            assert id_of(response) == (428, "setup_required")
            assert "/v1/api/auth/setup" in response.json()["message"]
            assert id_of(await client.post(LOGIN, json={"user": "root", "password": "guess"})) == (401, "unauthorized")

    run(scenario, ready=False)


def test_every_password_that_may_be_set_can_be_used() -> None:
    async def scenario(world: World) -> None:
        password = "ü🌊" * 512
        await world.add_user("alice", password=password)
        await world.login("alice", password)

    run(scenario)


def test_me_reads_the_header_or_the_cookie() -> None:
    async def scenario(world: World) -> None:
        token = (await world.login())["access_token"]
        async with world.client() as client:
            assert id_of(await client.get(f"{AUTH}/me")) == (401, "unauthorized")
            by_header = await client.get(f"{AUTH}/me", headers={"Authorization": f"Bearer {token}"})
            for name in ("headrace_auth", "kalamdb_auth"):
                client.cookies.set(name, token)
                by_cookie = await client.get(f"{AUTH}/me")
                assert by_cookie.json() == by_header.json()
                bad = await client.get(f"{AUTH}/me", headers={"Authorization": "Bearer nonsense"})
                assert id_of(bad) == (401, "unauthorized")
                client.cookies.clear()
        assert list(by_header.json()) == ["user", "admin_ui_access"]
        assert by_header.json()["user"]["id"] == "admin"

    run(scenario)


def test_me_has_its_own_shape_for_every_refusal() -> None:
    async def scenario(world: World) -> None:
        token = (await world.login())["access_token"]
        root = (await world.login("root", ROOT_PASSWORD))["access_token"]
        async with world.client() as client, world.client("203.0.113.7") as remote:

            async def me(value: str) -> tuple[int, str]:
                return id_of(await client.get(f"{AUTH}/me", headers={"Authorization": value}))

            denied = await remote.get(f"{AUTH}/me", headers={"Authorization": f"Bearer {root}"})
            assert id_of(denied) == (403, "forbidden")
            assert await me("Basic YWRtaW46eA==") == (401, "unauthorized")
            world.engine.change_user("admin", locked_until=world.clock.us + 1_000_000)
            assert await me(f"Bearer {token}") == (401, "account_locked")
            world.engine.change_user("root", password_hash=None)
            assert await me(f"Bearer {root}") == (401, "unauthorized")
            world.engine.failure = StorageClosed("closed")
            assert await me(f"Bearer {token}") == (500, "internal_error")

    run(scenario)


def test_status_tells_whether_the_set_up_is_needed() -> None:
    async def scenario(world: World) -> None:
        async with world.client() as client:
            before = await client.get(f"{AUTH}/status")
            assert before.json()["needs_setup"] is True
            assert before.json()["message"].startswith("Server requires initial setup")
            await world.set_up()
            after = await client.get(f"{AUTH}/status")
            assert after.json() == {"needs_setup": False, "message": "Server is configured."}

    run(scenario, ready=False)


def test_set_up_makes_a_dba_and_gives_root_its_password() -> None:
    async def scenario(world: World) -> None:
        async with world.client() as client:
            response = await client.post(f"{AUTH}/setup", json={**SETUP, "email": "boss@example.com"})
            assert response.status_code == 200
            body = response.json()
            assert list(body) == ["user", "message"]
            assert (body["user"]["id"], body["user"]["role"]) == ("boss", "dba")
            assert body["user"]["email"] == "boss@example.com"
            assert "set-cookie" not in response.headers
            assert world.engine.commits == 1
        assert (await world.login("boss", "Secret123!"))["admin_ui_access"]
        assert (await world.login("root", ROOT_PASSWORD))["user"]["role"] == "system"

    run(scenario, ready=False)


@pytest.mark.parametrize(
    ("change", "status", "error", "sentence"),
    [
        ({"user": "root"}, 400, "invalid_user", "root"),
        ({"user": "Root"}, 400, "invalid_user", "root"),
        ({"user": "a/b"}, 400, "invalid_user", "must not contain"),
        ({"user": "a\x00b"}, 400, "invalid_user", "must not contain"),
        ({"user": " boss"}, 400, "invalid_user", "white space"),
        ({"password": "short"}, 400, "weak_password", "password: The password must have at least 8"),
        ({"password": "password1"}, 400, "weak_password", "most common"),
        ({"root_password": "12345678"}, 400, "weak_password", "root_password: The password is among"),
        ({"user": "bossboss", "password": "BossBoss"}, 400, "weak_password", "user name"),
        ({"email": "nobody"}, 400, "invalid_request", "e-mail"),
        ({"email": "a b@c"}, 400, "invalid_request", "e-mail"),
        ({"role": "system"}, 400, "invalid_request", "unknown field `role`"),
        ({"root_password": None}, 400, "invalid_request", "root_password"),
        ({"user": None}, 400, "invalid_request", "`user` is required"),
    ],
)
def test_a_refused_set_up_changes_nothing(change: dict[str, object], status: int, error: str, sentence: str) -> None:
    async def scenario(world: World) -> None:
        async with world.client() as client:
            response = await client.post(f"{AUTH}/setup", json={**SETUP, **change})
        assert id_of(response) == (status, error)
        assert sentence in response.json()["message"]
        assert world.engine.commits == 0

    run(scenario, ready=False)


def test_the_set_up_happens_once() -> None:
    async def scenario(world: World) -> None:
        async with world.client() as client:
            first, second = await asyncio.gather(
                client.post(f"{AUTH}/setup", json=SETUP), client.post(f"{AUTH}/setup", json={**SETUP, "user": "other"})
            )
            assert sorted([first.status_code, second.status_code]) == [200, 409]
            again = await client.post(f"{AUTH}/setup", json=SETUP)
            assert id_of(again) == (409, "already_configured")

    run(scenario, ready=False)


def test_set_up_refuses_a_name_that_is_taken() -> None:
    async def scenario(world: World) -> None:
        await world.add_user("boss")
        async with world.client() as client:
            assert id_of(await client.post(f"{AUTH}/setup", json=SETUP)) == (409, "user_exists")

    run(scenario, ready=False)


def test_set_up_obeys_the_configured_policy() -> None:
    async def scenario(world: World) -> None:
        async with world.client() as client:
            response = await client.post(f"{AUTH}/setup", json={**SETUP, "password": "lower-case-only"})
        assert id_of(response) == (400, "weak_password")

    run(scenario, ready=False, policy=PolicyOptions(require_complexity=True))


FORWARDED = [
    ("203.0.113.7", {}),
    ("203.0.113.7", {"X-Forwarded-For": "127.0.0.1"}),
    ("203.0.113.7", {"X-Real-IP": "::1"}),
    ("127.0.0.1", {"X-Forwarded-For": "203.0.113.7"}),
    ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}),
    ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1, 203.0.113.7"}),
    ("127.0.0.1", {"X-Real-IP": "203.0.113.7"}),
    ("::ffff:203.0.113.7", {}),
]


@pytest.mark.parametrize(("peer", "headers"), FORWARDED)
def test_set_up_and_status_answer_this_machine_only(peer: str, headers: dict[str, str]) -> None:
    async def scenario(world: World) -> None:
        async with world.client(peer) as client:
            assert id_of(await client.get(f"{AUTH}/status", headers=headers)) == (403, "forbidden")
            assert id_of(await client.post(f"{AUTH}/setup", json=SETUP, headers=headers)) == (403, "forbidden")
        assert world.engine.commits == 0

    run(scenario, ready=False)


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_addresses_are_this_machine(peer: str) -> None:
    async def scenario(world: World) -> None:
        async with world.client(peer) as client:
            assert (await client.get(f"{AUTH}/status")).status_code == 200

    run(scenario, ready=False)


def test_remote_set_up_can_be_allowed() -> None:
    async def scenario(world: World) -> None:
        async with world.client("203.0.113.7") as client:
            assert (await client.get(f"{AUTH}/status")).status_code == 200
            assert (await client.post(f"{AUTH}/setup", json=SETUP)).status_code == 200

    run(scenario, ready=False, allow_remote_setup=True)


@pytest.mark.parametrize(("peer", "headers"), FORWARDED)
def test_root_and_system_accounts_sign_in_from_this_machine_only(peer: str, headers: dict[str, str]) -> None:
    async def scenario(world: World) -> None:
        await world.add_user("keeper", role="system")
        async with world.client(peer) as client:
            for user, password in [("root", ROOT_PASSWORD), ("root", "wrong"), ("keeper", "Secret123!")]:
                response = await client.post(LOGIN, json={"user": user, "password": password}, headers=headers)
                assert id_of(response) == (403, "forbidden")
            wrong = await client.post(LOGIN, json={"user": "keeper", "password": "wrong"}, headers=headers)
            assert id_of(wrong) == (401, "unauthorized")
            assert (await client.post(LOGIN, json=ADMIN, headers=headers)).status_code == 200
        assert world.engine.user("root").failed_login_attempts == 0

    run(scenario)


def test_remote_root_can_be_allowed() -> None:
    async def scenario(world: World) -> None:
        async with world.client("203.0.113.7") as client:
            response = await client.post(LOGIN, json={"user": "root", "password": ROOT_PASSWORD})
            assert response.status_code == 200
        assert (await world.whoami(response.json()["access_token"], "203.0.113.7")).text == "root system"

    run(scenario, allow_remote_root=True)


def test_sign_in_requests_of_an_address_are_limited() -> None:
    async def scenario(world: World) -> None:
        async with world.client("203.0.113.7") as client:
            for _ in range(3):
                assert (await client.post(LOGIN, json=ADMIN)).status_code == 200
            for path in ("login", "refresh"):
                response = await client.post(f"{AUTH}/{path}", json=ADMIN)
                assert id_of(response) == (429, "rate_limited")
                assert response.headers["retry-after"] == "1"
            async with world.client("203.0.113.8") as other:
                assert (await other.post(LOGIN, json=ADMIN)).status_code == 200
            world.clock.advance(1)
            assert (await client.post(LOGIN, json=ADMIN)).status_code == 200

    run(scenario, limits=RateLimitSection(max_auth_requests_per_ip_per_sec=3))


def test_storage_errors_have_the_shape_of_the_auth_routes() -> None:
    async def scenario(world: World) -> None:
        async with world.client() as client:
            world.engine.failure = StorageFull("full")
            assert id_of(await client.post(LOGIN, json=ADMIN)) == (507, "storage_full")
            world.engine.failure = StorageClosed("closed")
            assert id_of(await client.post(LOGIN, json=ADMIN)) == (503, "storage_unavailable")
            world.engine.failure = RuntimeError("a secret detail")
            response = await client.post(LOGIN, json=ADMIN)
            assert response.status_code == 500
            assert response.json()["error"] == "internal_error"
            assert "secret" not in response.text
            world.engine.failure = None

    run(scenario)


def test_logins_of_admins_are_audited(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: World) -> None:
        await world.add_user("alice")
        await world.login("alice", "Secret123!")
        assert not caplog.records
        await world.login()
        assert [record.message for record in caplog.records] == ["LOGIN admin (dba)"]

    with caplog.at_level("INFO", logger="headrace.audit"):
        run(scenario)


def test_times_are_rfc_3339() -> None:
    pattern = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")
    assert rfc3339(0) == "1970-01-01T00:00:00Z"
    for moment in (0, 1, START, START + 1, -1, 253402300799999999):
        assert pattern.fullmatch(rfc3339(moment))


def test_bearer_shape_is_not_used_on_auth_routes_and_the_reverse() -> None:
    async def scenario(world: World) -> None:
        async with world.client() as client:
            assert code_of(await client.get("/whoami")) == (401, "MISSING_AUTHORIZATION")
            assert id_of(await client.get(f"{AUTH}/me")) == (401, "unauthorized")

    run(scenario)
