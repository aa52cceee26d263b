"""Opening `/v1/ws`, signing in, staying signed in, and the closes of a connection."""

from __future__ import annotations

import base64
import os
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import jwt
import pytest

from tests.e2e.conftest import Serve
from tests.e2e.live_conformance import PASSWORD, Socket, member, unlimited_server
from tests.e2e.running import RunningServer

SECRET = "a secret of forty characters, made for tests"
JSON = {"serialization": "json", "compression": "gzip"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    changes = {"HEADRACE_AUTH_JWT_SECRET": SECRET, "HEADRACE_WEBSOCKET_AUTH_TIMEOUT_SECS": "0.5",
               "HEADRACE_WEBSOCKET_CLIENT_TIMEOUT_SECS": "0.6",
               "HEADRACE_WEBSOCKET_HEARTBEAT_INTERVAL_SECS": "0.2"}  # fmt: skip
    with unlimited_server(tmp_path_factory.mktemp("upgrade"), **changes) as running:
        running.sql(
            "CREATE NAMESPACE app; CREATE USER TABLE app.notes (id INT PRIMARY KEY, body TEXT);"
            "INSERT INTO app.notes VALUES (1, 'a')"
        )
        yield running


def success(protocol: dict[str, str], user: str = "admin", role: str = "dba") -> dict[str, object]:
    return {"type": "auth_success", "user": user, "user_id": user, "role": role, "protocol": protocol}


def refused(server: RunningServer, **headers: str) -> httpx.Response:
    """What a raw upgrade with these headers is answered."""
    key = base64.b64encode(os.urandom(16)).decode()
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key}
    return httpx.get(f"{server.url}/v1/ws", headers=upgrade | headers, timeout=20)


# --- signing in by message --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "held"),
    [
        (..., JSON),
        (None, JSON),
        ({}, JSON),
        (JSON, JSON),
        ({"serialization": "json", "compression": "none"}, {"serialization": "json", "compression": "none"}),
        ({"compression": "none"}, {"serialization": "json", "compression": "none"}),
        ({"serialization": "msgpack"}, {"serialization": "msgpack", "compression": "gzip"}),
        ({"serialization": "msgpack", "compression": "none"}, {"serialization": "msgpack", "compression": "none"}),
    ],
)
def test_authenticate_by_message(server: RunningServer, protocol: object, held: dict[str, str]) -> None:
    with Socket(server, sign_in=False) as client:
        more = {} if protocol is ... else {"protocol": protocol}
        client.send("authenticate", method="jwt", token=server.token, client="an unknown field", **more)
        assert client.next() == success(held)


def test_authenticate_again_repeats_the_success_and_keeps_the_subscriptions(server: RunningServer) -> None:
    with Socket(server) as client:
        live = client.subscribe("SELECT * FROM app.notes")
        client.send("authenticate", method="jwt", token=server.login(server.user, server.password))
        assert client.next() == success(JSON)
        server.sql("INSERT INTO app.notes VALUES (2, 'b')")
        assert live.inserted() == [{"id": 2, "body": "b"}]
        server.sql("DELETE FROM app.notes WHERE id = 2")


def test_compress_false_in_the_query_holds_whatever_the_message_says(server: RunningServer) -> None:
    with Socket(server, query="?compress=false", sign_in=False) as client:
        client.send("authenticate", method="jwt", token=server.token, protocol=JSON)
        assert client.next()["type"] == "auth_success"
        client.subscribe(f"SELECT * FROM app.notes WHERE body <> '{'x' * 600}'", {})
        assert not any(zipped for zipped, _ in client.frames)


def _forged(server: RunningServer, secret: str = SECRET, **claims: object) -> str:
    real = jwt.decode(server.token, options={"verify_signature": False})
    return jwt.encode(real | claims, secret, algorithm="HS256")


def test_bad_tokens_get_auth_error_and_1008(server: RunningServer) -> None:
    refresh = httpx.post(
        f"{server.url}/v1/api/auth/login", json={"user": server.user, "password": server.password}, timeout=20
    ).json()["refresh_token"]
    gone = member(server, "gone")
    server.sql("DROP USER 'gone'")
    for token in (
        "", "nonsense", "a.b.c", server.token + "x", "\x00", "é" * 40, "x" * 20_000, refresh, gone,
        _forged(server, "another secret of more than forty characters"), _forged(server, exp=int(time.time()) - 100),
        _forged(server, role="system"), _forged(server, sub="nobody"), _forged(server, iss="evil"),
    ):  # fmt: skip
        with Socket(server, sign_in=False) as client:
            client.send("authenticate", method="jwt", token=token)
            error = client.next()
            assert error["type"] == "auth_error", token[:40]
            assert error["message"]
            assert client.closed()[0] == 1008, token[:40]


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "jwt"},
        {"method": "basic", "username": "admin", "password": "AdminPass123!"},
        {"method": "JWT", "token": "TOKEN"},
        {"method": "jwt", "token": None},
        {"method": "jwt", "token": 7},
        {"method": "jwt", "token": "TOKEN", "protocol": {"serialization": "xml"}},
        {"method": "jwt", "token": "TOKEN", "protocol": {"compression": "br"}},
        {"method": "jwt", "token": "TOKEN", "protocol": "json"},
    ],
)
def test_a_malformed_authenticate_closes_with_1011(server: RunningServer, fields: dict[str, object]) -> None:
    with Socket(server, sign_in=False) as client:
        client.send("authenticate", **{k: server.token if v == "TOKEN" else v for k, v in fields.items()})
        assert client.closed()[0] == 1011
        assert not any(message["type"] == "auth_success" for message in client.waiting())


def test_before_signing_in_nothing_is_served(server: RunningServer) -> None:
    with Socket(server, sign_in=False) as client:
        client.ask("SELECT * FROM app.notes", {}, "mine")
        error = client.next("subscribe")
        assert (error["type"], error["code"]) == ("error", "AUTH_REQUIRED")
        client.send("authenticate", method="jwt", token=server.token)
        assert client.next()["type"] == "auth_success"
        assert client.subscribe("SELECT * FROM app.notes", {}).rows


def test_a_client_that_never_signs_in(server: RunningServer) -> None:
    with Socket(server, sign_in=False) as client:
        error = client.next()
        assert error["type"] == "auth_error"
        assert error["message"].startswith("Authentication timeout - no auth message received within ")
        assert client.closed() == (1008, "Authentication timeout")


# --- signing in by the upgrade ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "held"),
    [
        ("", JSON),
        ("?compress=false", {"serialization": "json", "compression": "none"}),
        ("?compression=none", {"serialization": "json", "compression": "none"}),
        ("?serialization=msgpack", {"serialization": "msgpack", "compression": "gzip"}),
        ("?serialization=msgpack&compression=none", {"serialization": "msgpack", "compression": "none"}),
        ("?serialization=json&compress=true&x=1", JSON),
    ],
)
def test_bearer_on_the_upgrade(server: RunningServer, query: str, held: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {server.token}"}
    with Socket(server, query=query, sign_in=False, headers=headers) as client:
        assert client.next() == success(held)
        client.binary = held["serialization"] == "msgpack"
        assert client.subscribe("SELECT * FROM app.notes", {}).rows[0]["body"] == "a"


def test_bearer_and_then_authenticate_too(server: RunningServer) -> None:
    # A hand-written client that does both is told twice.
    with Socket(server, sign_in=False, headers={"authorization": f"bearer {server.token}"}) as client:
        assert client.next()["type"] == "auth_success"
        client.send("authenticate", method="jwt", token=server.token, protocol=JSON)
        assert client.next() == success(JSON)


@pytest.mark.parametrize("scheme", ["Basic YWRtaW46QWRtaW5QYXNzMTIzIQ==", "Bearer nonsense", "Bearer", "Nonsense"])
def test_an_upgrade_with_wrong_credentials(server: RunningServer, scheme: str) -> None:
    with Socket(server, sign_in=False, headers={"Authorization": scheme}) as client:
        assert client.next()["type"] == "auth_error"
        assert client.closed()[0] == 1008


@pytest.mark.parametrize("offer", [["kalamdb.jwt.TOKEN"], ["kalamdb", "kalamdb.jwt.TOKEN"], ["headrace.jwt.TOKEN"]])
def test_the_token_as_subprotocol(server: RunningServer, offer: list[str]) -> None:
    offered = [name.replace("TOKEN", server.token) for name in offer]
    with Socket(server, sign_in=False, subprotocols=offered) as client:
        assert client.next() == success(JSON)
        # Browsers end a connection whose server picked none of what they offered.
        assert client.wire.subprotocol in offered


@pytest.mark.parametrize("cookie", ["headrace_auth", "kalamdb_auth"])
def test_the_cookie_of_the_same_origin_alone(server: RunningServer, cookie: str) -> None:
    host = urlsplit(server.url).netloc
    own = {"Cookie": f"{cookie}={server.token}", "Origin": f"http://{host}"}
    with Socket(server, sign_in=False, headers=own) as client:
        assert client.next() == success(JSON)
    with Socket(server, sign_in=False, headers=own | {"Origin": "http://evil.example"}) as client:
        client.send("subscribe", subscription={"id": "s", "sql": "SELECT * FROM app.notes"})
        assert client.next("subscribe")["code"] == "AUTH_REQUIRED"


def test_what_is_no_upgrade(server: RunningServer) -> None:
    answer = httpx.get(f"{server.url}/v1/ws", timeout=20)
    assert 400 <= answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text
    for headers in ({"Sec-WebSocket-Version": "8"}, {"Sec-WebSocket-Key": "short"}):
        assert 400 <= refused(server, **headers).status_code < 500


def test_origins(serve: Serve) -> None:
    server = serve(
        HEADRACE_SECURITY_CORS_ALLOWED_ORIGINS="https://app.example,https://b.example:8443",
        HEADRACE_SECURITY_STRICT_WS_ORIGIN_CHECK="true",
        HEADRACE_WEBSOCKET_AUTH_TIMEOUT_SECS="0.1",
    )
    for origin in ("https://evil.example", "https://app.example.evil", "http://app.example", "https://app.example:1",
                   "https://app.example/", "null", "", "HTTPS://APP.EXAMPLE"):  # fmt: skip
        answer = refused(server, Origin=origin)
        assert (answer.status_code, "Origin not allowed" in answer.text or not origin) == (403, True), origin
    answer = refused(server)
    assert answer.status_code == 403
    assert "Origin header required" in answer.text
    for origin in ("https://app.example", "https://b.example:8443"):
        with Socket(server, sign_in=False, headers={"Origin": origin}) as client:
            assert client.next()["type"] == "auth_error"  # it came in, and signs in too late


# --- the end of a session ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        "ALTER USER '{}' SET PASSWORD 'OtherPass77'",
        "ALTER USER '{}' SET ROLE service",
        "DROP USER '{}'",
        "logout",
    ],
)
def test_what_ends_a_session(server: RunningServer, end: str) -> None:
    name = "-".join(["ended", *end.replace("'{}'", "").lower().split()[:4]]).replace("'", "")
    token = member(server, name)
    with Socket(server, token) as client:
        client.subscribe("SELECT * FROM app.notes", {})
        if end == "logout":
            answer = httpx.post(
                f"{server.url}/v1/api/auth/logout", headers={"Authorization": f"Bearer {token}"}, timeout=20
            )
            assert answer.status_code == 200
        else:
            server.sql(end.format(name))
        assert client.next()["type"] == "auth_error"
        assert client.closed()[0] == 1008


def test_a_token_that_expires_ends_the_session_unless_it_is_renewed(server: RunningServer) -> None:
    # 60 s of leeway, as on HTTP.
    short = _forged(server, exp=int(time.time()) - 58)
    with Socket(server, short) as renewed, Socket(server, short) as left:
        live = renewed.subscribe("SELECT * FROM app.notes")
        left.subscribe("SELECT * FROM app.notes")
        renewed.send("authenticate", method="jwt", token=server.token)
        assert renewed.next()["type"] == "auth_success"
        assert left.next()["type"] == "auth_error"
        assert left.closed()[0] == 1008
        server.sql("INSERT INTO app.notes VALUES (3, 'c')")
        assert live.inserted() == [{"id": 3, "body": "c"}]
        server.sql("DELETE FROM app.notes WHERE id = 3")


def test_another_user_cannot_take_over_a_connection(server: RunningServer) -> None:
    token = member(server, "eve")
    with Socket(server) as client:
        client.send("authenticate", method="jwt", token=token)
        assert client.next()["type"] == "auth_error"
        assert client.closed()[0] == 1008


def test_a_dead_peer_is_dropped_and_a_silent_one_is_not(server: RunningServer) -> None:
    address = urlsplit(server.url)
    with Socket(server) as alive, socket.create_connection((address.hostname, address.port), timeout=20) as raw:
        raw.sendall(
            f"GET /v1/ws HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Authorization: Bearer {server.token}\r\n\r\n".encode()
        )
        data = b""
        while b"timeout" not in data:  # nothing is answered, no ping and no close
            part = raw.recv(65536)
            assert part, data
            data += part
        # RFC 6455, section 1.3, has this key and this answer.
        assert data.startswith(b"HTTP/1.1 101")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in data
        assert b"\x89\x00" in data or b"\x89\x04" in data, "no ping"
        assert data.endswith(b"\x88\x13\x03\xe8Heartbeat timeout")
        assert alive.barrier()["id"] == 1


def test_a_server_that_stops_says_so(serve: Serve) -> None:
    server = serve().set_up()
    with Socket(server) as signed_in, Socket(server, sign_in=False) as waiting:
        assert server.process is not None
        server.process.terminate()
        assert signed_in.closed() == (1001, "Server shutting down")
        assert waiting.closed() == (1001, "Server shutting down")
    assert server.wait() == 0, server.log()


def test_the_password_for_a_new_session_is_what_logs_in(server: RunningServer) -> None:
    # The whole of a client's way: login, socket, subscription.
    member(server, "whole")
    body = {"user": "whole", "password": PASSWORD}
    token = httpx.post(f"{server.url}/v1/api/auth/login", json=body, timeout=20).json()["access_token"]
    with Socket(server, sign_in=False) as client:
        client.send("authenticate", method="jwt", token=token, protocol=JSON)
        assert client.next() == success(JSON, "whole", "user")
        assert client.subscribe("SELECT * FROM app.notes", {}).rows == []
