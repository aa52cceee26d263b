"""The WebSocket protocol against a running server, row by row of the reference's tables; decisions override some."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from tests.e2e.live_socket import EMPTY, connected, filled, live_server, play, signed_in, sql
from tests.e2e.running import RunningServer


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with tables and users."""
    with live_server(tmp_path_factory.mktemp("live")) as running:
        yield running


@pytest.fixture(scope="module")
def ann(live: RunningServer) -> str:
    """The token of an ordinary user."""
    return live.login("ann", "AnnPass123!")


@pytest.fixture(autouse=True)
def empty(live: RunningServer) -> None:
    """Tables without rows."""
    live.sql(EMPTY)


def refused(live: RunningServer, query: str = "", **options: Any) -> tuple[int, dict[str, Any]]:
    """Status and body of an upgrade that is refused."""
    found: list[tuple[int, dict[str, Any]]] = []

    async def scene() -> None:
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with connected(live, query, **options):
                pass
        found.append((caught.value.response.status_code, json.loads(caught.value.response.body)))

    play(scene)
    return found[0]


# --- 6.1 upgrade, 6.2 and 6.3 sign-in ---------------------------------------------------------------------------------


def test_sign_in_in_band(live: RunningServer, ann: str) -> None:
    async def scene() -> None:
        for protocol in ({}, {"serialization": "json", "compression": "none"}):
            async with connected(live) as socket:
                answer = await socket.authenticate(ann, **protocol)
                agreed = protocol or {"serialization": "json", "compression": "gzip"}
                assert answer == {
                    "type": "auth_success", "user": "ann", "user_id": "ann", "role": "user", "protocol": agreed,
                }  # fmt: skip
                assert await socket.authenticate(ann, **protocol) == answer

    play(scene)


def test_sign_in_on_the_upgrade(live: RunningServer, ann: str) -> None:
    async def scene() -> None:
        query = "?serialization=msgpack&compression=none"
        bearer = {"additional_headers": {"Authorization": f"Bearer {ann}"}}
        async with connected(live, query, **bearer) as socket:
            answer = await socket.take()
            assert isinstance(socket.raw[0], str)
            assert answer["protocol"] == {"serialization": "msgpack", "compression": "none"}
            assert (await socket.say(b"\x82\xa4type\xa4ping\xa2id\x07"))["type"] == "pong"
            assert isinstance(socket.raw[1], bytes)
        name = f"kalamdb.jwt.{ann}"
        async with connected(live, subprotocols=[name]) as socket:
            assert socket.connection.subprotocol == name
            assert (await socket.take())["user"] == "ann"
        async with connected(live, "?compress=false") as socket:
            agreed = (await socket.authenticate(ann))["protocol"]
            assert agreed == {"serialization": "json", "compression": "none"}

    play(scene)


def test_a_cookie_signs_in_the_servers_own_pages_only(live: RunningServer, ann: str) -> None:
    async def scene() -> None:
        cookie = {"additional_headers": {"Cookie": f"headrace_auth={ann}"}}
        async with connected(live, origin=live.url, **cookie) as socket:
            assert (await socket.take())["user"] == "ann"
        async with connected(live, origin="https://evil.example.com", **cookie) as socket:
            assert (await socket.subscribe("SELECT * FROM app.notes"))["code"] == "AUTH_REQUIRED"

    play(scene)


@pytest.mark.parametrize("token", ["", "x", "a.b.c"])
def test_a_bad_token_closes(live: RunningServer, token: str) -> None:
    async def scene() -> None:
        async with connected(live) as socket:
            answer = await socket.authenticate(token)
            assert answer == {"type": "auth_error", "message": "Invalid credentials"}
            assert await socket.closed() == (1008, "Invalid credentials")

    play(scene)


def test_nobody_waits_for_ever(live: RunningServer) -> None:
    async def scene() -> None:
        async with connected(live) as socket:
            message = "Authentication timeout - no auth message received within 1 seconds"
            assert await socket.take() == {"type": "auth_error", "message": message}
            assert await socket.closed() == (1008, "Authentication timeout")

    play(scene)


def test_origins_and_plain_requests(serve: Any, live: RunningServer) -> None:
    strict: RunningServer = serve(
        HEADRACE_SECURITY_CORS_ALLOWED_ORIGINS="https://app.example.com",
        HEADRACE_SECURITY_STRICT_WS_ORIGIN_CHECK="true",
    )
    assert refused(strict)[0] == 403
    assert refused(strict)[1]["message"] == "Origin header required"
    status, body = refused(strict, origin="https://evil.example.com")
    assert (status, body["message"]) == (403, "Origin not allowed")

    async def scene() -> None:
        async with connected(strict, origin="https://app.example.com") as socket:
            assert (await socket.authenticate("x"))["type"] == "auth_error"

    play(scene)
    assert httpx.get(f"{live.url}/v1/ws").status_code == 426


# --- 6.4 subscription SQL ---------------------------------------------------------------------------------------------

SQL = [
    ("SELECT * FROM app.nope", "NOT_FOUND"),
    ("SELECT * FROM notes", "INVALID_SQL"),
    ("SELEC * FROM app.notes", "INVALID_SQL"),
    ("SELECT nope FROM app.notes", "INVALID_SQL"),
    ("DELETE FROM app.notes WHERE true", "INVALID_SQL"),
    ("SELECT * FROM app.staff", "NOT_FOUND UNAUTHORIZED"),
    ("SELECT * FROM system.users", "NOT_FOUND UNAUTHORIZED"),
    ("SELECT count(*) FROM app.notes", "UNSUPPORTED INVALID_SQL"),
    ("SELECT * FROM app.notes ORDER BY id", "UNSUPPORTED INVALID_SQL"),
    ("SELECT * FROM app.notes LIMIT 1", "UNSUPPORTED INVALID_SQL"),
    ("SELECT * FROM app.notes JOIN app.news USING (id)", "UNSUPPORTED INVALID_SQL"),
    ("SELECT * FROM app.notes WHERE id = $1", "INVALID_PARAMETER"),
    ("", "INVALID_SQL"),
]  # fmt: skip


def test_what_cannot_be_live(live: RunningServer, ann: str) -> None:
    async def scene() -> None:
        async with signed_in(live, ann) as socket:
            for text, codes in SQL:
                answer = await socket.subscribe(text)
                assert answer["type"] == "error", text
                assert answer["subscription_id"] == "s1"
                assert answer["code"] in codes.split(), (text, answer)
            assert await socket.settled() == []
            assert (await socket.subscribe("SELECT * FROM app.notes"))["type"] == "subscription_ack"

    play(scene)


def test_user_tables_show_ones_own_rows_and_shared_tables_all(live: RunningServer, ann: str) -> None:
    async def scene() -> None:
        async with signed_in(live, ann) as socket:
            await socket.subscribe("SELECT * FROM app.notes", "own")
            await socket.subscribe("SELECT * FROM app.news", "all")
            await sql(
                live, "INSERT INTO app.notes VALUES (1, 'of the admin', false); INSERT INTO app.news VALUES (1, 'x')"
            )
            message = await socket.take()
            assert (message["subscription_id"], message["rows"][0]["body"]) == ("all", "x")
            assert await socket.settled() == []

    play(scene)


# --- 6.8 errors, closes, limits ---------------------------------------------------------------------------------------


def test_errors_that_leave_the_connection_open(live: RunningServer) -> None:
    async def scene() -> None:
        async with connected(live) as socket:
            answer = await socket.subscribe("SELECT * FROM app.notes")
            assert (answer["subscription_id"], answer["code"]) == ("subscribe", "AUTH_REQUIRED")
            await socket.authenticate(live.token)
            answer = await socket.subscribe("SELECT * FROM app.notes", "")
            assert (answer["subscription_id"], answer["code"]) == ("invalid_subscription", "INVALID_SUBSCRIPTION_ID")
            answer = await socket.say(b"\x00")
            assert (answer["subscription_id"], answer["code"]) == ("protocol", "UNSUPPORTED_DATA")
            assert answer["message"] == "Binary not supported"
            answer = await socket.say(" " * 5000)
            assert (answer["subscription_id"], answer["code"]) == ("protocol", "MESSAGE_TOO_LARGE")
            answer = await socket.say({"type": "next_batch", "subscription_id": "none"})
            assert (answer["subscription_id"], answer["code"]) == ("none", "BATCH_FETCH_FAILED")
            for number in range(5):
                assert (await socket.subscribe("SELECT * FROM app.notes", f"n{number}"))["type"] == "subscription_ack"
            answer = await socket.subscribe("SELECT * FROM app.notes", "n5")
            assert answer == {
                "type": "error", "subscription_id": "n5", "code": "SUBSCRIPTION_LIMIT_EXCEEDED",
                "message": "Maximum subscriptions reached",
            }  # fmt: skip
            for _ in range(70):
                await socket.send({"type": "ping"})
            answer = await socket.take()
            assert (answer["subscription_id"], answer["code"]) == ("rate_limit", "RATE_LIMIT_EXCEEDED")
            assert answer["message"] == "Too many messages"

    play(scene)


@pytest.mark.parametrize("text", ["{", "[]", '{"type":"nope"}', '{"type":"subscribe"}'])
def test_malformed_messages_close(live: RunningServer, text: str) -> None:
    async def scene() -> None:
        async with signed_in(live) as socket:
            await socket.send(text)
            assert (await socket.closed())[0] == 1011

    play(scene)


def test_unsubscribing_and_reusing_an_id(live: RunningServer) -> None:
    async def scene() -> None:
        async with signed_in(live) as socket:
            await socket.subscribe("SELECT * FROM app.notes")
            await socket.subscribe("SELECT * FROM app.news")
            await sql(live, "INSERT INTO app.notes VALUES (1, 'a', true); INSERT INTO app.news VALUES (1, 'n')")
            (message,) = await socket.settled()
            assert message["rows"][0]["body"] == "n"
            await socket.send({"type": "unsubscribe", "subscription_id": "s1"})
            assert await socket.settled() == []
            await sql(live, "INSERT INTO app.news VALUES (2, 'n')")
            assert await socket.settled() == []
            answer = await socket.say({"type": "unsubscribe", "subscription_id": "s1", "ack": True})
            assert answer == {"type": "unsubscribed", "subscription_id": "s1"}
            assert await sql(live, "SELECT * FROM system.live") == []

    play(scene)


def test_long_messages_are_compressed_and_msgpack_is_msgpack(live: RunningServer) -> None:
    async def scene() -> None:
        text = "a long text, " * 100
        for number, (protocol, magic) in enumerate(
            (
                ({"serialization": "json", "compression": "gzip"}, b"\x1f\x8b"),
                ({"serialization": "msgpack", "compression": "gzip"}, b"\x1f\x8b"),
                ({"serialization": "msgpack", "compression": "none"}, b"\x85\xa4"),
            )
        ):
            async with signed_in(live, **protocol) as socket:
                await socket.subscribe("SELECT * FROM app.notes")
                await sql(live, "INSERT INTO app.notes VALUES ($1, $2, true)", [number, text])
                assert (await socket.take())["rows"][0]["body"] == text
                raw = socket.raw[-1]
                assert isinstance(raw, bytes)
                assert raw[:2] == magic

    play(scene)


# --- what ends a session or a subscription ----------------------------------------------------------------------------


def test_a_password_change_and_a_logout_end_connections(live: RunningServer) -> None:
    async def scene() -> None:
        token = await asyncio.to_thread(live.login, "bob", "BobPass123!")
        async with signed_in(live, token) as socket:
            await asyncio.to_thread(
                httpx.post, f"{live.url}/v1/api/auth/logout", headers={"Authorization": f"Bearer {token}"}
            )
            assert (await socket.take())["type"] == "auth_error"
            assert (await socket.closed())[0] == 1008
        token = await asyncio.to_thread(live.login, "bob", "BobPass123!")
        async with signed_in(live, token) as socket:
            await sql(live, "ALTER USER bob SET PASSWORD 'BobPass456!'; ALTER USER bob SET PASSWORD 'BobPass123!'")
            assert (await socket.take())["type"] == "auth_error"
            assert (await socket.closed())[0] == 1008

    play(scene)


def test_lost_tables_and_rights_and_killing_end_subscriptions(live: RunningServer, ann: str) -> None:
    async def scene() -> None:
        await sql(live, "CREATE TABLE app.gone (id BIGINT PRIMARY KEY) WITH (TYPE = 'SHARED', ACCESS_LEVEL = 'PUBLIC')")
        async with signed_in(live, ann) as socket:
            await socket.subscribe("SELECT * FROM app.gone")
            await sql(live, "ALTER TABLE app.gone SET TBLPROPERTIES (ACCESS_LEVEL = 'DBA')")
            assert (await socket.take())["code"] in {"UNAUTHORIZED", "NOT_FOUND"}
            await sql(live, "ALTER TABLE app.gone SET TBLPROPERTIES (ACCESS_LEVEL = 'PUBLIC')")
            await socket.subscribe("SELECT * FROM app.gone")
            await sql(live, "DROP TABLE app.gone")
            assert (await socket.take())["code"] == "NOT_FOUND"
            await socket.subscribe("SELECT * FROM app.notes", "mine")
            ((live_id,),) = await sql(live, "SELECT live_id FROM system.live")
            assert live_id.startswith("ann-")
            assert live_id.endswith("-mine")
            with live.client_of(ann) as client:
                answer = client.post("/v1/api/sql", json={"sql": f"KILL LIVE QUERY '{live_id}'"})
            assert answer.json()["results"][0]["message"] == f"Live query killed: {live_id}"
            assert (await socket.take())["code"] == "LIVE_QUERY_KILLED"
            assert await socket.settled() == []

    play(scene)


def test_subscribe_to_names_the_url_that_its_client_used(live: RunningServer) -> None:
    async def scene() -> None:
        ((status, url, subscription, _),) = await sql(live, "SUBSCRIBE TO app.notes OPTIONS (last_rows = 1)")
        assert (status, url) == ("active", live.url.replace("http", "ws", 1) + "/v1/ws")
        await filled(live, 2)
        async with signed_in(live) as socket:
            await socket.send({"type": "subscribe", "subscription": json.loads(subscription)})
            assert (await socket.take())["type"] == "subscription_ack"
            assert [row["id"] for row in (await socket.take())["rows"]] == [2]

    play(scene)
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "db.example.com"}
    answer = live.post("SUBSCRIBE TO app.notes", headers=forwarded).json()
    assert answer["results"][0]["rows"][0][1] == "wss://db.example.com/v1/ws"


def test_heartbeat_and_shutdown(serve: Any, tmp_path: Path) -> None:
    running: RunningServer = serve(
        data=tmp_path / "beating", HEADRACE_WEBSOCKET_CLIENT_TIMEOUT_SECS="0.6",
        HEADRACE_WEBSOCKET_HEARTBEAT_INTERVAL_SECS="0.2",
    )  # fmt: skip
    running.set_up()

    async def scene() -> None:
        async with signed_in(running) as silent, signed_in(running) as alive:
            silent.connection.transport.pause_reading()
            for _ in range(8):
                await asyncio.sleep(0.2)  # its library answers pings meanwhile
            assert await alive.settled() == []
            silent.connection.transport.resume_reading()
            assert await silent.closed() == (1000, "Heartbeat timeout")
            stopping = asyncio.create_task(asyncio.to_thread(running.stop))
            assert await alive.closed() == (1001, "Server shutting down")
            assert await stopping == 0

    play(scene)
