"""The bearer extractor: its codes, what ends a token early, forged tokens, and the cache."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import msgspec
import pytest

from server.auth import errors
from server.auth.authenticator import require_role
from server.auth.cache import TokenCache, VerifiedToken
from server.auth.store import FAMILY_KIND
from server.auth.tokens import Claims, TokenType
from server.errors import AuthError
from server.exchange import Exchange
from sql.identity import Identity, Role
from storage.errors import StorageCorrupt, StorageError
from tests.server.auth_fakes import ROOT_PASSWORD, SECRET, START, World, code_of, run

NOW = START // 1_000_000
DAY = 24 * 3600
REFUSED = (401, "INVALID_CREDENTIALS")


def payload_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def signed(value: object) -> str:
    """Any JSON under our signature."""
    return jwt.api_jws.encode(json.dumps(value).encode(), SECRET, algorithm="HS256")


def test_a_token_opens_the_route_and_claims_what_it_should() -> None:
    async def scenario(world: World) -> None:
        body = await world.login()
        response = await world.whoami(body["access_token"])
        assert (response.status_code, response.text) == (200, "admin dba")
        access, refresh = payload_of(body["access_token"]), payload_of(body["refresh_token"])
        assert {key: access[key] for key in ("sub", "iss", "iat", "exp", "email", "role", "token_type")} == {
            "sub": "admin", "iss": "headrace", "iat": NOW, "exp": NOW + DAY, "email": "admin@example.com",
            "role": "dba", "token_type": "access",
        }  # fmt: skip
        assert (refresh["token_type"], refresh["exp"]) == ("refresh", NOW + 7 * DAY)
        assert access["family"] == refresh["family"]
        assert access["jti"] != refresh["jti"]

    run(scenario)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (401, "MISSING_AUTHORIZATION")),
        ({"Authorization": "Basic YWRtaW46QWRtaW5QYXNzMTIzIQ=="}, REFUSED),
        ({"Authorization": ""}, REFUSED),
        ({"Authorization": "Bearer"}, REFUSED),
        ({"Authorization": "Bearer "}, REFUSED),
        ({"Authorization": "Bearer not-a-token"}, REFUSED),
        ({"Authorization": "Bearer a.b.c"}, REFUSED),
        ({"Authorization": "Bearer " + "x" * 10_000}, REFUSED),
        ({"Authorization": "Bearer \xff\xfe.\x80.\x81"}, REFUSED),
        ({"Authorization": "Digest username=admin"}, REFUSED),
    ],
)
def test_headers_that_are_no_bearer_token(headers: dict[str, str], expected: tuple[int, str]) -> None:
    async def scenario(world: World) -> None:
        async with world.client() as client:
            raw = {name: value.encode("latin-1") for name, value in headers.items()}
            response = await client.get("/whoami", headers=raw)  # type: ignore[arg-type]
        assert code_of(response) == expected
        assert response.headers["www-authenticate"].startswith("Bearer")
        messages = {"MISSING_AUTHORIZATION": "Authentication required", "INVALID_CREDENTIALS": "Invalid credentials"}
        assert response.json()["error"]["message"] == messages[expected[1]]

    run(scenario)


def test_the_scheme_is_read_in_any_case_and_cookies_are_not_read() -> None:
    async def scenario(world: World) -> None:
        token = (await world.login())["access_token"]
        async with world.client() as client:
            response = await client.get("/whoami", headers={"Authorization": f"bearer {token}"})
            assert response.text == "admin dba"
            for name in ("headrace_auth", "kalamdb_auth"):
                client.cookies.set(name, token)
            assert code_of(await client.get("/whoami")) == (401, "MISSING_AUTHORIZATION")

    run(scenario)


def test_a_refresh_token_opens_nothing() -> None:
    async def scenario(world: World) -> None:
        assert code_of(await world.whoami((await world.login())["refresh_token"])) == REFUSED

    run(scenario)


def test_forged_tokens_are_refused() -> None:
    async def scenario(world: World) -> None:
        token = (await world.login())["access_token"]
        claims = payload_of(token)
        head, body, signature = token.split(".")
        forged = {
            "no algorithm": f"{part({'alg': 'none', 'typ': 'JWT'})}.{body}.",
            "no algorithm, signature kept": f"{part({'alg': 'none', 'typ': 'JWT'})}.{body}.{signature}",
            "None spelled otherwise": f"{part({'alg': 'nOnE', 'typ': 'JWT'})}.{body}.",
            "another key": jwt.encode(claims, b"x" * 32, algorithm="HS256"),
            "another algorithm, our key": jwt.encode(claims, SECRET + b"x" * 32, algorithm="HS512"),
            "HS512 with our key": jwt.encode(claims, SECRET.ljust(64, b"0"), algorithm="HS512"),
            "no signature": f"{head}.{body}.",
            "signature of other claims": f"{head}.{part({**claims, 'sub': 'root', 'role': 'system'})}.{signature}",
            "another issuer": jwt.encode({**claims, "iss": "kalamdb"}, SECRET, algorithm="HS256"),
            "a list of issuers": signed({**claims, "iss": ["headrace"]}),
            "a number as name": signed({**claims, "sub": 5}),
            "a number as id": signed({**claims, "jti": 5}),
            "an endless expiry": signed({**claims, "exp": 1e400}),
            "a huge expiry as float": signed({**claims, "exp": 1e300}),
            "a list": signed([claims]),
            "a number": signed(5),
            "nesting": jwt.api_jws.encode(b"[" * 2000, SECRET, algorithm="HS256"),
            "another kind": jwt.encode({**claims, "token_type": "admin"}, SECRET, algorithm="HS256"),
            "a role as number": jwt.encode({**claims, "role": 3}, SECRET, algorithm="HS256"),
            "an expiry as text": jwt.encode({**claims, "exp": str(claims["exp"])}, SECRET, algorithm="HS256"),
            "issued in the future": jwt.encode({**claims, "iat": NOW + 61}, SECRET, algorithm="HS256"),
            "critical header": jwt.encode(claims, SECRET, algorithm="HS256", headers={"crit": ["exp"]}),
            "key in the header": jwt.encode(claims, b"y" * 32, algorithm="HS256", headers={"jwk": {"kty": "oct"}}),
            "cut": token[:-1],
            "two tokens": f"{token} {token}",
        } | {
            f"without {name}": jwt.encode({k: v for k, v in claims.items() if k != name}, SECRET, algorithm="HS256")
            for name in ("sub", "iss", "exp", "iat", "jti", "role", "token_type", "family")
        }
        for what, text in forged.items():
            assert code_of(await world.whoami(text)) == REFUSED, what
        assert (await world.whoami(token)).status_code == 200

    run(scenario)


@pytest.mark.parametrize("cached", [False, True])
def test_expiry_has_a_leeway_of_a_minute(cached: bool) -> None:
    async def scenario(world: World) -> None:
        token = (await world.login())["access_token"]
        if cached:
            assert (await world.whoami(token)).status_code == 200
        world.clock.advance(DAY + 59.999)
        assert (await world.whoami(token)).status_code == 200
        world.clock.advance(0.001)
        assert code_of(await world.whoami(token)) == (401, "TOKEN_EXPIRED")

    run(scenario)


def test_a_clock_that_is_a_little_ahead_is_forgiven() -> None:
    async def scenario(world: World) -> None:
        claims = payload_of((await world.login())["access_token"])
        ahead = jwt.encode({**claims, "iat": NOW + 60}, SECRET, algorithm="HS256")
        assert (await world.whoami(ahead)).status_code == 200

    run(scenario)


CHANGES: dict[str, tuple[dict[str, Any], tuple[int, str]]] = {
    "dropped": ({"deleted_at": START, "password_hash": None}, REFUSED),
    "role lowered": ({"role": "user"}, REFUSED),
    "role raised": ({"role": "system"}, REFUSED),
    "role that is none": ({"role": "emperor"}, REFUSED),
    "new password": ({"password_hash": "$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAA"}, REFUSED),
    "password removed": ({"password_hash": None}, REFUSED),
    "locked": ({"locked_until": START + 60_000_000}, (401, "ACCOUNT_LOCKED")),
}


@pytest.mark.parametrize("what", list(CHANGES))
@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("cached", [False, True])
def test_a_change_of_the_account_counts_at_once(what: str, cached: bool, watched: bool) -> None:
    changes, expected = CHANGES[what]

    async def scenario(world: World) -> None:
        token = (await world.login())["access_token"]
        other = (await world.login("root", ROOT_PASSWORD))["access_token"]
        if cached:
            assert (await world.whoami(token)).status_code == 200
            assert (await world.whoami(other)).status_code == 200
        world.engine.change_user("admin", **changes)
        assert code_of(await world.whoami(token)) == expected
        assert (await world.whoami(other)).status_code == 200

    run(scenario, watched=watched)


def test_changes_that_do_not_concern_the_token_keep_it() -> None:
    async def scenario(world: World) -> None:
        token = (await world.login())["access_token"]
        world.engine.change_user("admin", email="new@example.com", failed_login_attempts=3, locked_until=START)
        assert (await world.whoami(token)).status_code == 200

    run(scenario)


def test_a_user_made_anew_under_an_old_name_does_not_inherit_tokens() -> None:
    async def scenario(world: World) -> None:
        await world.add_user("alice")
        token = (await world.login("alice", "Secret123!"))["access_token"]
        world.engine.change_user("alice", deleted_at=START, password_hash=None)
        await world.add_user("alice")
        assert code_of(await world.whoami(token)) == REFUSED

    run(scenario)


def test_a_token_of_another_users_session_is_refused() -> None:
    async def scenario(world: World) -> None:
        await world.add_user("alice", role="dba")
        claims = payload_of((await world.login())["access_token"])
        mixed = jwt.encode({**claims, "sub": "alice"}, SECRET, algorithm="HS256")
        assert code_of(await world.whoami(mixed)) == REFUSED
        assert code_of(await world.whoami(jwt.encode({**claims, "sub": "x"}, SECRET, algorithm="HS256"))) == REFUSED

    run(scenario)


def test_root_works_from_this_machine_only_also_when_cached() -> None:
    async def scenario(world: World) -> None:
        token = (await world.login("root", ROOT_PASSWORD))["access_token"]
        for _ in range(2):
            denied = await world.whoami(token, "203.0.113.7")
            assert code_of(denied) == (403, "REMOTE_ACCESS_DENIED")
            assert denied.json()["error"]["message"] == "Access denied"
            assert (await world.whoami(token)).text == "root system"
        assert code_of(await world.whoami(token, **{"X-Forwarded-For": "127.0.0.1"})) == (403, "REMOTE_ACCESS_DENIED")
        assert code_of(await world.whoami(token, "10.0.0.1", **{"X-Forwarded-For": "127.0.0.1"})) == (
            403, "REMOTE_ACCESS_DENIED",
        )  # fmt: skip
        admin = (await world.login())["access_token"]
        assert (await world.whoami(admin, "203.0.113.7")).text == "admin dba"

    run(scenario)


def test_root_without_password_needs_the_set_up() -> None:
    async def scenario(world: World) -> None:
        token = (await world.login("root", ROOT_PASSWORD))["access_token"]
        world.engine.change_user("root", password_hash=None)
        assert code_of(await world.whoami(token)) == (401, "SETUP_REQUIRED")

    run(scenario)


def test_a_check_that_fails_is_an_authentication_error() -> None:
    async def scenario(world: World) -> None:
        token = (await world.login())["access_token"]
        world.engine.failure = StorageCorrupt("checksum of /data/secret-place")
        response = await world.whoami(token)
        assert code_of(response) == (500, "AUTHENTICATION_ERROR")
        assert "secret-place" not in response.text

    run(scenario)


def test_a_role_that_is_too_low_is_refused() -> None:
    require_role(Identity("a", Role.SERVICE), Role.SERVICE)
    require_role(Identity("a", Role.SYSTEM), Role.SERVICE)
    with pytest.raises(AuthError) as caught:
        require_role(Identity("a", Role.USER), Role.SERVICE)
    assert (caught.value.status, caught.value.code) == (403, "INSUFFICIENT_PERMISSIONS")


def test_every_bearer_error_has_an_auth_route_form() -> None:
    made = [
        errors.missing_authorization(), errors.invalid_credentials(), errors.token_expired(),
        errors.token_of_locked_account(5), errors.remote_access_denied(), errors.insufficient_permissions(),
        errors.setup_required(), errors.authentication_error(),
    ]  # fmt: skip
    assert [(e.status, e.code, errors.on_auth_route(e).code) for e in made] == [
        (401, "MISSING_AUTHORIZATION", "unauthorized"),
        (401, "INVALID_CREDENTIALS", "unauthorized"),
        (401, "TOKEN_EXPIRED", "unauthorized"),
        (401, "ACCOUNT_LOCKED", "account_locked"),
        (403, "REMOTE_ACCESS_DENIED", "forbidden"),
        (403, "INSUFFICIENT_PERMISSIONS", "forbidden"),
        (401, "SETUP_REQUIRED", "unauthorized"),
        (500, "AUTHENTICATION_ERROR", "internal_error"),
    ]
    assert errors.on_auth_route(StorageError("x")).status == 503


def test_a_cached_token_costs_no_read_and_about_a_microsecond() -> None:
    async def scenario(world: World) -> None:
        token = (await world.login())["access_token"]
        header = f"Bearer {token}".encode()
        exchange = Exchange({"headers": []}, None, None)  # type: ignore[arg-type]
        authenticate = world.context.authenticator.authenticate
        authenticate(header, exchange)
        reads = world.engine.snapshots
        best = min(_time(lambda: authenticate(header, exchange), 2000) for _ in range(5))
        assert world.engine.snapshots == reads
        assert exchange.user == "admin"
        assert best < 20e-6, f"{best * 1e6:.2f} µs"

    run(scenario)


def _time(work: Any, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        work()
    return (time.perf_counter() - start) / count


def entry(user: str, family: str) -> VerifiedToken:
    return VerifiedToken(Identity(user, Role.USER), family, 0, local_only=False, seq=0)


def test_a_token_is_looked_at_again_after_a_commit_when_nobody_watches() -> None:
    async def scenario(world: World) -> None:
        token = (await world.login())["access_token"]
        await world.whoami(token)
        reads = world.engine.snapshots
        await world.whoami(token)
        assert world.engine.snapshots == reads
        world.engine.change_user("root", email="root@example.com")
        await world.whoami(token)
        await world.whoami(token)
        assert world.engine.snapshots == reads + 1

    run(scenario, watched=False)


def test_the_cache_is_bounded_and_forgets_what_was_not_used_longest() -> None:
    cache = TokenCache(3)
    for name in "abc":
        cache.put(name.encode(), entry(name, name), cache.version)
    assert cache.get(b"a")
    cache.put(b"d", entry("d", "d"), cache.version)
    assert cache.get(b"b") is None
    assert len(cache) == 3
    assert cache._by_user.keys() == cache._by_family.keys() == {"a", "c", "d"}


def test_the_cache_forgets_by_user_and_by_family() -> None:
    cache = TokenCache(10)
    for key, user, family in [(b"1", "a", "x"), (b"2", "a", "y"), (b"3", "b", "z")]:
        cache.put(key, entry(user, family), cache.version)
    cache.forget_family("x")
    assert [cache.get(key) is not None for key in (b"1", b"2", b"3")] == [False, True, True]
    cache.forget_user("a")
    assert [cache.get(key) is not None for key in (b"2", b"3")] == [False, True]
    cache.forget_all()
    assert len(cache) == 0
    assert not cache._by_user
    assert not cache._by_family


def test_a_finding_from_before_a_change_is_not_cached() -> None:
    cache = TokenCache(10)
    version = cache.version
    cache.forget_user("a")
    cache.put(b"1", entry("a", "x"), version)
    assert cache.get(b"1") is None


def test_a_cache_of_no_size_keeps_nothing() -> None:
    cache = TokenCache(0)
    cache.put(b"1", entry("a", "x"), cache.version)
    assert len(cache) == 0


@pytest.mark.parametrize("watched", [False, True])
def test_a_change_during_the_verification_wins(watched: bool) -> None:
    """The account is read, then dropped by another thread, then the finding would be stored."""

    async def scenario(world: World) -> None:
        token = (await world.login())["access_token"]
        authenticator: Any = world.context.authenticator
        check = authenticator._check_account

        def drop_meanwhile(*arguments: Any) -> Any:
            account = check(*arguments)
            world.engine.change_user("admin", deleted_at=START)
            return account

        authenticator._check_account = drop_meanwhile
        assert (await world.whoami(token)).status_code == 200  # it was good when it was read
        authenticator._check_account = check
        assert code_of(await world.whoami(token)) == REFUSED

    run(scenario, watched=watched)


@pytest.mark.parametrize("watched", [False, True])
def test_a_token_of_a_session_that_is_gone_is_refused(watched: bool) -> None:
    async def scenario(world: World) -> None:
        token = (await world.login())["access_token"]
        assert (await world.whoami(token)).status_code == 200
        world.engine.commit_now(lambda view: view.delete_object(FAMILY_KIND, payload_of(token)["family"]))
        assert code_of(await world.whoami(token)) == REFUSED

    run(scenario, watched=watched)


def test_claims_round_trip() -> None:
    async def scenario(world: World) -> None:
        claims = Claims(
            sub="ällice",
            role="user",
            token_type=TokenType.ACCESS,
            family="f",
            jti="j",
            iat=NOW,
            exp=NOW + 5,
            email=None,
        )
        assert world.context.tokens.read(world.context.tokens.sign(claims)) == claims
        assert msgspec.to_builtins(claims)["iss"] == "headrace"

    run(scenario, ready=False)
