"""Upgrade requests on a running server: limits, refusals, and what else may stand where an upgrade could."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

import msgspec
import pytest
from starlette.types import Receive, Scope, Send
from websockets.exceptions import InvalidStatus

from server.config import CorsSection
from tests.server.websocket.serving import UPGRADE, Raw, Session, Site, run, serving, until

REMOTE = "X-Forwarded-For: 203.0.113.9\r\n"


async def refused(site: Site, request: str) -> tuple[int, str, dict[str, object]]:
    """Status, head and JSON body of the answer to a request."""
    raw = await site.raw()
    raw.send(f"{request}\r\n".encode())
    head, body = await raw.answer()
    await raw.close()
    return int(head.split()[1]), head.lower(), msgspec.json.decode(body)


def without(header: str) -> str:
    return "".join(line for line in UPGRADE.splitlines(keepends=True) if not line.startswith(header))


@pytest.mark.parametrize(
    ("request_head", "status", "code"),
    [
        (UPGRADE.replace("/ws", "/nowhere"), 404, "NOT_FOUND"),
        (UPGRADE.replace("/ws", "/health"), 404, "NOT_FOUND"),
        (UPGRADE.replace("/ws", "/ws/"), 404, "NOT_FOUND"),
        (without("Sec-WebSocket-Key"), 400, "INVALID_UPGRADE"),
        (without("Sec-WebSocket-Version"), 400, "INVALID_UPGRADE"),
        (UPGRADE.replace(": 13", ": 7"), 426, "UPGRADE_REQUIRED"),
        (UPGRADE.replace("HTTP/1.1", "HTTP/1.0"), 400, "INVALID_UPGRADE"),
        (UPGRADE.replace(": websocket", ": h3, websocket"), 400, "INVALID_UPGRADE"),
    ],
)
def test_what_is_refused_is_refused_in_json(tmp_path: Path, request_head: str, status: int, code: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, Session()) as site:
            found, head, body = await refused(site, request_head)
            assert (found, body["error"]) == (status, code)
            assert "content-type: application/json\r\n" in head
            assert "x-request-id: " in head
            assert "connection: close\r\n" in head

    run(scenario())


def test_a_request_id_and_a_subprotocol_are_answered(tmp_path: Path) -> None:
    async def pick(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][1], "headers": [(b"x-a", b"b")]})
        await send({"type": "websocket.send", "text": scope["query_string"].decode()})

    async def scenario() -> None:
        async with serving(tmp_path, pick) as site:
            headers = {"X-Request-ID": "find-me"}
            async with site.connect(
                "/ws?compress=false", subprotocols=["a", "b"], additional_headers=headers
            ) as client:
                assert client.subprotocol == "b"
                assert client.response is not None
                assert client.response.headers["X-Request-ID"] == "find-me"
                assert client.response.headers["X-A"] == "b"
                assert await client.recv() == "compress=false"
                await client.wait_closed()
                assert client.close_code == 1000

    run(scenario())


def test_a_path_may_be_quoted_and_absolute(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, Session()) as site:
            for target in ("/%77s", "http://x/ws", "//x/../ws"):
                raw = await site.raw()
                raw.send(f"{UPGRADE.replace('/ws', target)}\r\n".encode())
                assert (await raw.head()).startswith("HTTP/1.1 404" if ".." in target else "HTTP/1.1 101")
                await raw.close()

    run(scenario())


def test_requests_that_do_not_upgrade_are_told_to(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, Session()) as site:
            for head in (without("Upgrade"), without("Connection"), UPGRADE.replace("GET", "POST")):
                raw = await site.raw()
                raw.send(f"{head}\r\n".encode())
                assert (await raw.head()).startswith("HTTP/1.1 426 ")
                await raw.close()

    run(scenario())


def test_other_requests_may_ask_for_an_upgrade_and_are_answered_as_without(tmp_path: Path) -> None:
    body = '{"sql":"x"}'
    sql = (
        "POST /v1/api/sql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\nContent-Type: application/json\r\n"
        f"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    plain = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"

    async def scenario() -> None:
        async with serving(tmp_path, Session()) as site:
            raw = await site.raw()
            raw.send((plain + sql + plain).encode())
            for _ in range(3):
                head = await raw.head()
                assert head.startswith("HTTP/1.1 200 OK\r\n")
                length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
                await raw.reader.readexactly(length)
            await raw.close()

    run(scenario())


@pytest.mark.parametrize("more", ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"])
def test_an_upgrade_has_no_body(tmp_path: Path, more: str) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, Session()) as site:
            raw = await site.raw()
            raw.send((UPGRADE + more).encode())
            assert (await raw.head()).startswith("HTTP/1.1 400 ")
            await raw.close()

    run(scenario())


def test_frames_may_follow_without_waiting_for_the_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, Session()) as site:
            raw = await site.raw()
            raw.send(f"{UPGRADE}\r\n".encode() + bytes([0x81, 0x82, 0, 0, 0, 0]) + b"hi")
            assert (await raw.head()).startswith("HTTP/1.1 101 ")
            assert await raw.read() == (1, b"hi")
            await raw.close()

    run(scenario())


def test_an_upgrade_may_follow_an_answer_but_not_overtake_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, Session()) as site:
            raw = await site.raw()
            health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
            raw.send(health)
            length = int((await raw.head()).lower().split("content-length: ")[1].split("\r\n")[0])
            await raw.reader.readexactly(length)
            raw.send(f"{UPGRADE}\r\n".encode())
            assert (await raw.head()).startswith("HTTP/1.1 101 ")
            await raw.close()
            raw = await site.raw()
            raw.send(health + health + f"{UPGRADE}\r\n".encode() + b"\0" * 100)
            answers = await raw.rest()
            assert answers.count(b"HTTP/1.1 200 OK") == 2
            assert b" 101 " not in answers
            await raw.close()

    run(scenario())


def test_slow_and_large_heads_are_refused_as_for_requests(tmp_path: Path) -> None:
    async def scenario() -> None:
        changes = {"performance": {"client_request_timeout": 0.4}}
        async with serving(tmp_path, Session(), changes) as site:
            raw = await site.raw()

            async def drip() -> None:
                for byte in f"{UPGRADE}\r\n".encode():
                    raw.send(bytes([byte]))
                    await asyncio.sleep(0.05)

            dripping = asyncio.create_task(drip())
            with contextlib.suppress(ConnectionResetError):  # where a byte came when the server had closed already
                assert await raw.rest() == b""
            dripping.cancel()
            await raw.close()
            raw = await site.raw()
            raw.send(f"{UPGRADE}X-Long: {'a' * 17_000}\r\n\r\n".encode())
            assert (await raw.head()).startswith("HTTP/1.1 431 ")
            await raw.close()

    run(scenario())


def test_origins_are_checked(tmp_path: Path) -> None:
    async def scenario() -> None:
        changes = {
            "security": {"strict_ws_origin_check": True, "cors": CorsSection(allowed_origins=("https://a.example",))},
        }
        async with serving(tmp_path, Session(), changes) as site:
            assert (await refused(site, UPGRADE))[2] == {
                "error": "ORIGIN_REQUIRED",
                "message": "Origin header required",
            }
            status, _, body = await refused(site, f"{UPGRADE}Origin: https://b.example\r\n")
            assert (status, body["error"]) == (403, "ORIGIN_NOT_ALLOWED")
            async with site.connect(origin="https://a.example") as client:  # type: ignore[arg-type]
                await client.send("x")
                assert await client.recv() == "x"

    run(scenario())


def test_the_limits_of_an_address_hold(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, Session(), {"rate_limit": {"max_requests_per_ip_per_sec": 2}}) as site:
            for _ in range(2):
                raw = await site.raw()
                raw.send(f"{UPGRADE}{REMOTE}\r\n".encode())
                assert (await raw.head()).startswith("HTTP/1.1 101 ")
                await raw.close()
            status, head, body = await refused(site, f"{UPGRADE}{REMOTE}")
            assert (status, body["error"]) == (429, "RATE_LIMIT_EXCEEDED")
            assert "retry-after: 1\r\n" in head
            for _ in range(9):
                status, _, body = await refused(site, f"{without('Sec-WebSocket-Key')}{REMOTE}")
                assert status == 429
            assert (await refused(site, f"{UPGRADE}{REMOTE}"))[2]["error"] == "IP_BANNED"

    run(scenario())


def test_a_websocket_stays_counted_until_it_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        changes = {"rate_limit": {"max_connections_per_ip": 3}}
        async with serving(tmp_path, Session(), changes, strangers=True) as site:
            limits = site.setting.state.limits
            opened = [await site.upgraded() for _ in range(3)]
            assert limits.connections("127.0.0.1") == (3, 3)
            status, head, body = await refused(site, UPGRADE)
            assert (status, body["error"], body["current"], body["max"]) == (503, "TOO_MANY_CONNECTIONS", 4, 3)
            assert "retry-after: 5\r\n" in head
            await until(lambda: limits.connections("127.0.0.1")[0] == 3)
            opened[0].reset()
            opened[1].frame(8, b"")
            await opened[1].rest()
            await opened[1].close()
            await until(lambda: limits.connections("127.0.0.1")[0] == 1)
            again = await site.upgraded()
            assert limits.connections("127.0.0.1")[0] == 2
            for raw in (opened[2], again):
                await raw.close()
            await until(lambda: limits.connections("127.0.0.1")[0] == 0)

    run(scenario())


def test_no_more_than_all_connections(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, Session(), {"performance": {"max_connections": 3}}) as site:
            opened: list[Raw] = [await site.upgraded() for _ in range(2)]
            status, _, body = await refused(site, UPGRADE)
            assert (status, body["error"]) == (503, "SERVER_OVERLOADED")
            for raw in opened:
                await raw.close()
            await until(lambda: not site.server.server_state.connections)
            await (await site.upgraded()).close()

    run(scenario())


def test_the_log_tells_the_acceptance_and_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "headrace.request")

    async def scenario() -> None:
        session = Session()
        async with serving(tmp_path, session) as site:
            async with site.connect() as client:
                await client.send("x")
                await client.recv()
            await until(lambda: not session.running)
            with pytest.raises(InvalidStatus):
                await site.connect("/nowhere")

    run(scenario())
    lines = [record.getMessage() for record in caplog.records if record.name == "headrace.request"]
    assert lines == ["GET '/ws' 101", "WebSocket '/ws' ended", "GET '/nowhere' 404"]
