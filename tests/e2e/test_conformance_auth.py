"""The six auth routes and their cookies as existing clients see them, from the first run on."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from tests.e2e.conformance import LONGEST, PASSWORD, Visitor, error, ok
from tests.e2e.conftest import Serve
from tests.e2e.running import RunningServer

AUTH = "/v1/api/auth"
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
COOKIES = {"headrace_auth", "headrace_refresh", "kalamdb_auth", "kalamdb_refresh"}
SETUP = {
    "user": "admin", "password": "AdminPass123!", "root_password": "RootPass123!", "email": "admin@example.com",
}  # fmt: skip


@pytest.fixture(scope="module")
def visitor(server: RunningServer) -> Iterator[Visitor]:
    with Visitor(server.url) as client:
        yield client


def login(visitor: Visitor, **body: Any) -> httpx.Response:
    return visitor.post(f"{AUTH}/login", json=body)


def admin(visitor: Visitor, **headers: str) -> httpx.Response:
    body = {"user": RunningServer.user, "password": RunningServer.password}
    answer = visitor.post(f"{AUTH}/login", json=body, headers=headers)
    assert answer.status_code == 200, answer.text[:LONGEST]
    return answer


def failure(answer: httpx.Response) -> tuple[int, str, str]:
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error", "message"}, answer.text[:LONGEST]
    return answer.status_code, body["error"], body["message"]


def claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def cookies(answer: httpx.Response) -> dict[str, tuple[str, dict[str, str]]]:
    """Value and attributes of every cookie that an answer sets."""
    found = {}
    for line in answer.headers.get_list("Set-Cookie"):
        first, *rest = line.split("; ")
        name, _, value = first.partition("=")
        attributes = {key.lower(): text for key, _, text in (part.partition("=") for part in rest)}
        found[name] = value, attributes
    return found


def check_profile(user: dict[str, Any], name: str, role: str, email: str | None = None) -> None:
    assert list(user) == ["id", "role", "email", "created_at", "updated_at"]
    assert (user["id"], user["role"], user["email"]) == (name, role, email)
    assert RFC3339.match(user["created_at"])
    assert RFC3339.match(user["updated_at"])


def check_pair(answer: httpx.Response, name: str, role: str) -> dict[str, Any]:
    """The login shape, its tokens and its cookies."""
    assert answer.status_code == 200, answer.text[:LONGEST]
    body: dict[str, Any] = answer.json()
    assert list(body) == [
        "user",
        "admin_ui_access",
        "expires_at",
        "access_token",
        "refresh_token",
        "refresh_expires_at",
    ]
    check_profile(body["user"], name, role)
    assert body["admin_ui_access"] is (role in {"dba", "system"})
    for kind, hours in (("access", 24), ("refresh", 7 * 24)):
        inside = claims(body[f"{kind}_token"])
        assert {"sub", "iss", "exp", "iat", "email", "role", "token_type"} <= set(inside)
        assert (inside["sub"], inside["role"], inside["token_type"]) == (name, role, kind)
        assert inside["exp"] - inside["iat"] == hours * 3600
        told = body["expires_at" if kind == "access" else "refresh_expires_at"]
        assert RFC3339.match(told)
        assert datetime.fromisoformat(told) == datetime.fromtimestamp(inside["exp"], UTC)
    found = cookies(answer)
    assert set(found) == COOKIES
    for cookie, (value, attributes) in found.items():
        kind = "access" if cookie.endswith("_auth") else "refresh"
        assert value == body[f"{kind}_token"]
        assert {key for key in attributes if key != "max-age"} == {"httponly", "samesite", "path", "expires"}
        assert (attributes["samesite"].lower(), attributes["path"]) == ("strict", "/")
        assert parsedate_to_datetime(attributes["expires"]).timestamp() == claims(value)["exp"]
    return body


def test_login(server: RunningServer, visitor: Visitor) -> None:
    body = check_pair(admin(visitor), "admin", "dba")
    with server.client_of(body["access_token"]) as client:
        assert ok(client.post("/v1/api/sql", json={"sql": "SELECT CURRENT_USER()"}))[0]["rows"] == [["admin"]]
    check_pair(login(visitor, username="admin", password=server.password), "admin", "dba")
    check_pair(login(visitor, user="root", password=server.root_password), "root", "system")
    for role in ("user", "service"):
        server.sql(f"CREATE USER 'login_{role}' WITH PASSWORD '{PASSWORD}' ROLE {role}")
        check_pair(login(visitor, user=f"login_{role}", password=PASSWORD), f"login_{role}", role)


def test_cookies_are_secure_behind_https(server: RunningServer, visitor: Visitor) -> None:
    found = cookies(admin(visitor, **{"X-Forwarded-Proto": "https"}))
    assert set(found) == COOKIES
    assert all("secure" in attributes for _, attributes in found.values())


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"user": "admin", "password": "wrong"}, 401, "unauthorized"),
        ({"user": "ADMIN", "password": "AdminPass123!"}, 401, "unauthorized"),
        ({"user": "nobody", "password": "AdminPass123!"}, 401, "unauthorized"),
        ({"user": "nobody", "password": ""}, 401, "unauthorized"),
        ({"user": "root", "password": ""}, 401, "unauthorized"),
        ({"user": "admin", "password": "AdminPass123!", "remember": True}, 400, "invalid_request"),
        ({"user": "admin", "username": "admin", "password": "AdminPass123!"}, 400, "invalid_request"),
        ({"user": "admin"}, 400, "invalid_request"),
        ({"password": "x"}, 400, "invalid_request"),
        ({}, 400, "invalid_request"),
        ({"user": "", "password": "x"}, 400, "invalid_request"),
        ({"user": None, "password": "x"}, 400, "invalid_request"),
        ({"user": 5, "password": "x"}, 400, "invalid_request"),
        ({"user": "a", "password": None}, 400, "invalid_request"),
        ({"user": "a" * 129, "password": "x"}, 400, "invalid_request"),
    ],
    ids=lambda value: repr(value)[:48],
)
def test_login_refusals(visitor: Visitor, body: dict[str, Any], status: int, code: str) -> None:
    answer = login(visitor, **body)
    found = failure(answer)
    assert found[:2] == (status, code)
    assert not cookies(answer)
    if status == 401:
        assert found[2] == "Invalid credentials"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"user=admin"])
@pytest.mark.parametrize("route", ["login", "setup"])
def test_unreadable_bodies(visitor: Visitor, route: str, content: bytes) -> None:
    answer = visitor.post(f"{AUTH}/{route}", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 409}
    plain = visitor.post(f"{AUTH}/{route}", content=content)
    assert plain.status_code in {400, 415}


def test_me(server: RunningServer, visitor: Visitor) -> None:
    token = admin(visitor).json()["access_token"]
    for headers in (
        {"Authorization": f"Bearer {token}"}, {"Cookie": f"kalamdb_auth={token}"}, {"Cookie": f"headrace_auth={token}"},
    ):  # fmt: skip
        body = visitor.get(f"{AUTH}/me", headers=headers).json()
        assert list(body) == ["user", "admin_ui_access"]
        check_profile(body["user"], "admin", "dba")
        assert body["admin_ui_access"] is True


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "Authentication required"),
        ({"Authorization": "Basic YTpi"}, "Invalid credentials"),
        ({"Authorization": "Bearer nonsense"}, "Invalid credentials"),
        ({"Cookie": "kalamdb_auth=nonsense"}, "Invalid credentials"),
        ({"Cookie": "kalamdb_refresh={refresh}"}, "Authentication required"),
        ({"Authorization": "Bearer {refresh}"}, "Invalid credentials"),
    ],
)
def test_me_needs_an_access_token(visitor: Visitor, headers: dict[str, str], message: str) -> None:
    refresh = admin(visitor).json()["refresh_token"]
    sent = {name: value.format(refresh=refresh) for name, value in headers.items()}
    assert failure(visitor.get(f"{AUTH}/me", headers=sent)) == (401, "unauthorized", message)


def test_a_refresh_token_opens_no_other_route(server: RunningServer, visitor: Visitor) -> None:
    token = admin(visitor).json()["refresh_token"]
    answer = visitor.post("/v1/api/sql", json={"sql": "SELECT 1"}, headers={"Authorization": f"Bearer {token}"})
    assert error(answer)[:2] == (401, "INVALID_CREDENTIALS")


@pytest.mark.parametrize("carrier", ["Bearer", "kalamdb_refresh", "headrace_refresh"])
def test_refresh_rotates(server: RunningServer, visitor: Visitor, carrier: str) -> None:
    def refresh(token: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if carrier == "Bearer" else {"Cookie": f"{carrier}={token}"}
        return visitor.post(f"{AUTH}/refresh", headers=headers)

    first = admin(visitor).json()
    second = check_pair(refresh(first["refresh_token"]), "admin", "dba")
    assert second["refresh_token"] != first["refresh_token"]
    assert second["access_token"] != first["access_token"]
    third = check_pair(refresh(second["refresh_token"]), "admin", "dba")
    assert failure(refresh(first["refresh_token"]))[:2] == (401, "unauthorized")
    assert failure(refresh(third["refresh_token"]))[:2] == (401, "unauthorized"), "reuse revokes the family"
    fresh = {"Authorization": f"Bearer {admin(visitor).json()['access_token']}"}
    assert visitor.get(f"{AUTH}/me", headers=fresh).status_code == 200


def test_refresh_takes_the_cookie_first_and_no_access_token(server: RunningServer, visitor: Visitor) -> None:
    body = admin(visitor).json()
    both = {"Cookie": f"kalamdb_refresh={body['refresh_token']}", "Authorization": f"Bearer {body['access_token']}"}
    check_pair(visitor.post(f"{AUTH}/refresh", headers=both), "admin", "dba")
    assert failure(visitor.post(f"{AUTH}/refresh")) == (401, "unauthorized", "Authentication required")
    only = {"Authorization": f"Bearer {admin(visitor).json()['access_token']}"}
    found = failure(visitor.post(f"{AUTH}/refresh", headers=only))
    assert found == (401, "unauthorized", "Refresh endpoint requires a refresh token")


def test_refresh_ends_with_the_role(server: RunningServer, visitor: Visitor) -> None:
    server.sql(f"CREATE USER 'changing' WITH PASSWORD '{PASSWORD}' ROLE user")
    token = login(visitor, user="changing", password=PASSWORD).json()["refresh_token"]
    server.sql("ALTER USER 'changing' SET ROLE service")
    answer = visitor.post(f"{AUTH}/refresh", headers={"Authorization": f"Bearer {token}"})
    assert failure(answer)[:2] == (401, "unauthorized")


def test_logout_clears_all_cookies_and_revokes(server: RunningServer, visitor: Visitor) -> None:
    body = admin(visitor).json()
    sent = {"Cookie": f"kalamdb_auth={body['access_token']}; kalamdb_refresh={body['refresh_token']}"}
    for headers in (sent, {}):
        answer = visitor.post(f"{AUTH}/logout", headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"message": "Logged out successfully"})
        found = cookies(answer)
        assert set(found) == COOKIES
        for value, attributes in found.values():
            assert value.strip('"') == ""
            assert attributes["path"] == "/"
            assert "max-age" not in attributes or attributes["max-age"] == "0"
            assert "expires" in attributes or attributes["max-age"] == "0"
    assert visitor.get(f"{AUTH}/me", headers=sent).status_code == 401
    assert visitor.post(f"{AUTH}/refresh", headers=sent).status_code == 401


def test_wrong_passwords_lock_the_account(server: RunningServer, visitor: Visitor) -> None:
    server.sql(f"CREATE USER 'locked' WITH PASSWORD '{PASSWORD}' ROLE user")
    found = [failure(login(visitor, user="locked", password="wrong"))[:2] for _ in range(5)]
    assert set(found[:4]) == {(401, "unauthorized")}
    status, code, text = failure(login(visitor, user="locked", password=PASSWORD))
    assert (status, code) == (401, "account_locked")
    assert re.search(r"\b1[45] minutes\b", text)
    (row,) = server.rows("SELECT failed_login_attempts, locked_until FROM system.users WHERE user_id = 'locked'")
    assert row[0] >= 5
    assert isinstance(row[1], int)


def test_the_first_run(serve: Serve) -> None:
    running = serve(HEADRACE_COMPAT_KALAMDB_COOKIES="false")
    with Visitor(running.url) as client:
        status = client.get(f"{AUTH}/status")
        assert list(status.json()) == ["needs_setup", "message"]
        assert status.json()["needs_setup"] is True
        assert status.json()["message"].startswith("Server requires initial setup")
        found = failure(client.post(f"{AUTH}/login", json={"user": "root", "password": ""}))
        assert found[:2] == (428, "setup_required")
        assert failure(client.post(f"{AUTH}/login", json={"user": "root", "password": "x"}))[:2] == (
            401,
            "unauthorized",
        )
        refusals: list[tuple[dict[str, Any], int, str]] = [
            ({"password": "short"}, 400, "weak_password"),
            ({"password": "password"}, 400, "weak_password"),
            ({"root_password": "12345678"}, 400, "weak_password"),
            ({"user": "root"}, 400, "invalid_user"),
            ({"user": "a/b"}, 400, "invalid_user"),
            ({"role": "dba"}, 400, "invalid_request"),
            ({"root_password": None}, 400, "invalid_request"),
        ]
        for change, status_code, code in refusals:
            assert failure(client.post(f"{AUTH}/setup", json={**SETUP, **change}))[:2] == (status_code, code), change
        done = client.post(f"{AUTH}/setup", json=SETUP)
        assert done.status_code == 200, done.text[:LONGEST]
        assert list(done.json()) == ["user", "message"]
        check_profile(done.json()["user"], "admin", "dba", "admin@example.com")
        assert not cookies(done)
        assert client.get(f"{AUTH}/status").json()["needs_setup"] is False
        assert failure(client.post(f"{AUTH}/setup", json=SETUP))[:2] == (409, "already_configured")
        for user, password in (("admin", SETUP["password"]), ("root", SETUP["root_password"])):
            answer = login(client, user=user, password=password)
            assert answer.status_code == 200
            assert set(cookies(answer)) == {"headrace_auth", "headrace_refresh"}, "those of the reference are off"
        theirs = {"Cookie": f"kalamdb_auth={answer.json()['access_token']}"}
        assert failure(client.get(f"{AUTH}/me", headers=theirs))[:2] == (401, "unauthorized")
