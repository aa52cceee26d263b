"""WebSockets under good and bad use: a server with an echo at /ws, clients of `websockets` and bytes sent by hand."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

import server.websocket.connection
from server.websocket.connection import EXTENSION
from server.websocket.frames import binary_frame, frame_header, text_frame
from server.websocket.protocol import WebSocketProtocol
from tests.server.websocket.serving import UPGRADE, Session, run, serving, until

SMALL = {"security": {"max_ws_message_size": 2000}}


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def nothing_left() -> bool:
    gc.collect()
    return not any(isinstance(found, WebSocketProtocol) for found in gc.get_objects())


def test_messages_come_back_as_they_were(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, Session()) as site, site.connect(max_size=None) as client:
            whole = ("", "x", "€" * 1000, b"", b"\xff\x00", b"y" * 2**20, "z" * 2**20)
            for message in whole:
                await client.send(message)
                assert await client.recv() == message
            await client.send(["a", "", "€"])
            assert await client.recv() == "a€"
            await client.send([b"a", b"b"])
            assert await client.recv() == b"ab"
            assert await (await client.ping(b"data")) >= 0
            await client.close(3000, "done")
            assert (client.close_code, client.close_reason) == (3000, "done")

    run(scenario())


def test_the_application_hears_how_it_ended(tmp_path: Path) -> None:
    async def scenario() -> None:
        session = Session()
        async with serving(tmp_path, session) as site:
            raw = await site.upgraded()
            raw.frame(8, b"\x0f\xa0bye")
            assert await raw.closing() == (4000, "bye")
            await until(lambda: session.messages)
            assert session.messages.pop() == {"type": "websocket.disconnect", "code": 4000, "reason": "bye"}
            raw = await site.upgraded()
            raw.frame(8, b"")
            assert await raw.read() == (8, b"")
            await until(lambda: session.messages)
            assert session.messages.pop()["code"] == 1005
            raw = await site.upgraded()
            raw.send(b"\x81\xfe\x10\x00 the rest of it never comes")
            raw.reset()
            await until(lambda: session.messages)
            assert session.messages.pop()["code"] == 1006
            assert all(connection.closed for connection in session.connections)

    run(scenario())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x02hi", 1002),  # not masked
        (b"\xc1\x80\0\0\0\0", 1002),  # a reserved bit
        (b"\x83\x80\0\0\0\0", 1002),  # an unknown opcode
        (b"\x8b\x80\0\0\0\0", 1002),
        (b"\x80\x80\0\0\0\0", 1002),  # goes on with nothing
        (b"\x01\x80\0\0\0\0\x81\x80\0\0\0\0", 1002),  # a message inside another
        (b"\x09\x80\0\0\0\0", 1002),  # a fragmented ping
        (b"\x89\xfe\x00\x7e\0\0\0\0", 1002),  # a long ping
        (b"\x88\x81\0\0\0\0a", 1002),  # half a close code
        (b"\x88\x82\0\0\0\0\x03\xed", 1002),  # 1005 must not be sent
        (b"\x88\x83\0\0\0\0\x03\xe8\xff", 1007),
        (b"\x81\x81\0\0\0\0\xff", 1007),
        (b"\x01\x81\0\0\0\0\xe2\x80\x81\0\0\0\0x", 1007),
        (b"\x81\xff\0\0\0\0\0\0\x7d\x01", 1009),  # announces more than the ceiling
        (b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff", 1009),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1002),
    ],
)
def test_whoever_breaks_the_protocol_is_told_and_closed(tmp_path: Path, data: bytes, code: int) -> None:
    async def scenario() -> None:
        session = Session()
        async with serving(tmp_path, session, SMALL) as site:
            raw = await site.upgraded()
            raw.frame(1, b"before")
            raw.send(data)
            assert await raw.read() == (1, b"before")
            assert (await raw.closing())[0] == code
            await raw.close()
            await until(lambda: not session.running)
            assert session.messages[-1]["code"] == code
            await until(lambda: not site.server.server_state.connections)

    run(scenario())


def test_a_message_that_is_too_large_is_told_of_and_the_next_is_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        session = Session()
        async with serving(tmp_path, session, SMALL) as site, site.connect() as client:
            for message in ("a" * 2001, b"a" * 32_000, ["a" * 1500, "b" * 1500]):
                await client.send(message)
                await client.send("next")
                assert await client.recv() == "next"
            found = [message["headrace.too_large"] for message in session.messages if message["text"] is None]
            assert found == [2001, 32_000, 3000]
            await client.send(b"a" * 32_001)
            with pytest.raises(ConnectionClosedError) as caught:
                await client.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1009

    run(scenario())


def test_ready_made_frames_are_read_as_messages(tmp_path: Path) -> None:
    async def scenario() -> None:
        session = Session()
        async with serving(tmp_path, session) as site, site.connect() as client:
            await until(lambda: session.connections)
            (connection,) = session.connections
            shared = b"shared tail"
            connection.write(text_frame("€".encode()))
            connection.write_many([frame_header(2, 5 + len(shared)) + b"head ", shared, binary_frame(b"2")])
            assert [await client.recv() for _ in range(3)] == ["€", b"head shared tail", b"2"]
            heard = connection.last_heard
            await until(lambda: asyncio.get_running_loop().time() > heard)
            connection.ping()
            await until(lambda: connection.last_heard > heard)
            connection.close(4001, "enough")
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert (client.close_code, client.close_reason) == (4001, "enough")
            await until(lambda: not session.running)
            assert session.messages == [{"type": "websocket.disconnect", "code": 4001, "reason": "enough"}]

    run(scenario())


def test_a_client_that_stops_reading_is_noticed_and_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        session = Session()
        changes = {"websocket": {"send_buffer_bytes": 65_536}}
        async with serving(tmp_path, session, changes) as site:
            raw = await site.upgraded(receive_buffer=4096)
            raw.writer.transport.pause_reading()
            await until(lambda: session.connections)
            (connection,) = session.connections
            drained = asyncio.Event()
            connection.on_drain(drained.set)
            frame = text_frame(b"x" * 10_000)
            written = 0
            while not (connection.full and connection.buffered > 65_536 + len(frame)):
                connection.write(frame)
                written += 1
                if not written % 100:
                    drained.clear()
                    await asyncio.sleep(0)  # let the kernel have what it takes
            assert connection.full
            stuck = connection.last_drained
            heard = connection.last_heard
            await until(lambda: asyncio.get_running_loop().time() > heard)
            raw.frame(9, b"old")
            raw.frame(9, b"new")
            await until(lambda: connection.last_heard > heard)  # it is slow, not gone
            drained.clear()
            raw.writer.transport.resume_reading()
            frames = [await raw.read() for _ in range(written + 1)]
            assert frames.count((1, b"x" * 10_000)) == written
            assert (10, b"new") in frames
            await asyncio.wait_for(drained.wait(), 10)
            assert not connection.full
            assert connection.last_drained >= stuck
            assert connection.buffered == 0
            await raw.close()

    run(scenario())


def test_a_flood_waits_in_the_socket(tmp_path: Path) -> None:
    async def scenario() -> None:
        session = Session()
        session.free.clear()
        async with serving(tmp_path, session) as site:
            raw = await site.upgraded()
            await until(lambda: session.connections)
            (protocol,) = site.server.server_state.connections
            assert isinstance(protocol, WebSocketProtocol)
            raw.writer.transport.set_write_buffer_limits(0)
            flood = b"\x81\x81\0\0\0\0x" * 10_000
            sent = 0
            while True:
                raw.send(flood)
                sent += 10_000
                try:
                    await asyncio.wait_for(raw.writer.drain(), 1.0)
                except TimeoutError:
                    break
                assert sent < 100_000_000 / 7
            assert len(protocol._reader._data) <= 2 * 2**18 + 14
            (connection,) = session.connections
            assert connection.last_heard == pytest.approx(asyncio.get_running_loop().time(), abs=1.0)
            session.free.set()
            reading = asyncio.create_task(raw.reader.read(2**16))
            await asyncio.wait_for(reading, 10)
            raw.reset()
            await until(lambda: not session.running)

    run(scenario())


def test_whoever_pings_without_reading_fills_no_memory(tmp_path: Path) -> None:
    async def scenario() -> None:
        session = Session()
        changes = {"websocket": {"send_buffer_bytes": 65_536}}
        async with serving(tmp_path, session, changes) as site:
            raw = await site.upgraded(receive_buffer=4096)
            raw.writer.transport.pause_reading()
            await until(lambda: session.connections)
            (connection,) = session.connections
            pings = (b"\x89\xfd\0\0\0\0" + b"p" * 125) * 1000
            for _ in range(100):
                raw.send(pings)
                await raw.writer.drain()
            raw.frame(1, b"last")
            await until(lambda: session.messages)
            assert connection.full
            assert connection.buffered < 2 * 65_536  # the mark, and the pongs of one turn
            raw.reset()
            await until(lambda: not session.running)

    run(scenario())


def test_a_thousand_connections_come_and_go_without_a_trace(tmp_path: Path) -> None:
    async def scenario() -> None:
        session = Session()
        async with serving(tmp_path, session) as site:
            await (await site.upgraded()).close()
            await until(lambda: not session.running and not site.server.server_state.connections)
            session.connections.clear()
            before = (descriptors(), len(asyncio.all_tasks()))
            opened = [await site.upgraded() for _ in range(1000)]
            assert session.running == 1000
            for number, raw in enumerate(opened):
                if number % 4 == 1:
                    raw.frame(1, b"half", fin=False)
                elif number % 4 == 2:
                    raw.send(b"\x81")
                elif number % 4 == 3:
                    raw.frame(1, b"whole")
                raw.reset()
            opened.clear()
            await until(lambda: not session.running and not site.server.server_state.connections)
            session.connections.clear()
            session.messages.clear()
            await until(lambda: (descriptors(), len(asyncio.all_tasks())) == before)
            await until(nothing_left)

    run(scenario())


def test_a_client_that_ignores_the_close_frame_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.websocket.connection, "CLOSE_SECONDS", 0.2)

    async def scenario() -> None:
        session = Session()
        async with serving(tmp_path, session) as site:
            raw = await site.upgraded()
            stalled = await site.upgraded(receive_buffer=4096)
            stalled.writer.transport.pause_reading()
            await until(lambda: len(session.connections) == 2)
            for connection in session.connections:
                connection.write(text_frame(b"x" * 5_000_000))
                connection.close(1000)
            assert [await raw.read() for _ in range(2)] == [(1, b"x" * 5_000_000), (8, b"\x03\xe8")]
            await until(lambda: not site.server.server_state.connections)
            await raw.close()
            stalled.reset()

    run(scenario())


def test_a_stopping_server_says_so(tmp_path: Path) -> None:
    waiting = asyncio.Event()

    async def hesitate(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if b"wait" in scope["query_string"]:
            waiting.set()
        else:
            await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"

    async def scenario() -> None:
        async with serving(tmp_path, hesitate) as site:
            open_one = await site.upgraded()
            connecting = await site.raw()
            connecting.send(f"{UPGRADE.replace('/ws', '/ws?wait')}\r\n".encode())
            await waiting.wait()
            site.server.should_exit = True
            assert await open_one.read() == (8, b"\x03\xe9Server shutting down")
            head, body = await connecting.answer()
            assert head.startswith("HTTP/1.1 503 ")
            assert b"SERVER_SHUTTING_DOWN" in body
            open_one.frame(8, b"\x03\xe9")
            await open_one.close()
            await connecting.close()

    run(scenario())


def test_an_application_that_fails_is_not_heard_of_in_detail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["query_string"] == b"none":
            return
        if scope["query_string"] == b"close":
            await send({"type": "websocket.close"})
        if scope["query_string"] == b"late":
            await send({"type": "websocket.accept"})
        raise RuntimeError("secret")

    async def scenario() -> None:
        async with serving(tmp_path, fail) as site:
            for query, status in [("none", 500), ("close", 403), ("early", 500)]:
                raw = await site.raw()
                raw.send(f"{UPGRADE.replace('/ws', f'/ws?{query}')}\r\n".encode())
                head, body = await raw.answer()
                assert head.startswith(f"HTTP/1.1 {status} ")
                assert b"secret" not in body
                await raw.close()
            raw = await site.raw()
            raw.send(f"{UPGRADE.replace('/ws', '/ws?late')}\r\n".encode())
            await raw.head()
            assert await raw.read() == (8, b"\x03\xf3Internal error")
            raw.frame(8, b"\x03\xf3")
            assert await raw.rest() == b""
            await raw.close()

    run(scenario())
    assert "secret" in caplog.text


def test_whoever_sends_to_a_client_that_left_is_told(tmp_path: Path) -> None:
    ended: list[BaseException] = []

    async def talk(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 100_000})
        except BaseException as error:
            ended.append(error)
            assert scope["extensions"][EXTENSION]["connection"].closed
            raise

    async def scenario() -> None:
        async with serving(tmp_path, talk) as site:
            raw = await site.upgraded(receive_buffer=4096)
            raw.reset()
            await until(lambda: ended)
            assert isinstance(ended[0], OSError)

    run(scenario())
