"""Connections as they arrive: slow, large, many, pipelined. A real server on a socket, and bytes sent by hand."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop

from server.listener import ListenError, bind, make_server, url_of
from server.protocol import make_protocol
from tests.server.fakes import Setting, make

QUICK = {"performance": {"client_request_timeout": 0.3, "request_timeout": 0.3, "keepalive_timeout": 30}}
BODY = b'{"sql":"x"}'
SQL = (
    b"POST /v1/api/sql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
)


class Strangers:
    """Addresses of which none is trusted, so that loopback counts as any other."""

    def is_trusted(self, peer: str) -> bool:
        return False


@contextmanager
def serving(setting: Setting, *, strangers: bool = False) -> Iterator[int]:
    """Serve in a thread; the port."""
    listening = threading.Event()
    server = make_server(setting.app, setting.state.config, setting.state.limits, listening.set)
    if strangers:
        server.config.http = make_protocol(setting.state.config.performance, setting.state.limits, Strangers())  # type: ignore[arg-type]
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]

        def run() -> None:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(server.serve([listener]))

        thread = threading.Thread(target=run)
        thread.start()
        assert listening.wait(10)
        try:
            yield port
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[[], socket.socket]]:
    with serving(make(tmp_path, QUICK)) as port:
        opened: list[socket.socket] = []

        def open_one() -> socket.socket:
            opened.append(socket.create_connection(("127.0.0.1", port), timeout=10))
            return opened[-1]

        yield open_one
        for connection in opened:
            connection.close()


def read_to_end(connection: socket.socket) -> bytes:
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def read_answer(connection: socket.socket) -> tuple[bytes, bytes]:
    """The head and the body of one answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(1)
        assert part, data
        data += part
    head = data.lower()
    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return data, body


def test_answers_come_in_order_on_one_connection(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    for _ in range(3):
        connection.sendall(SQL + BODY)
        head, body = read_answer(connection)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body.startswith(b'{"status":"success"')
    connection.sendall((SQL + BODY) * 5 + b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
    answers = [read_answer(connection)[0].split(b"\r\n")[0] for _ in range(6)]
    assert answers == [b"HTTP/1.1 200 OK"] * 5 + [b"HTTP/1.1 404 Not Found"]


def test_the_body_may_come_in_pieces_and_be_waited_for(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    connection.sendall(SQL.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    for byte in BODY:
        connection.sendall(bytes([byte]))
    assert read_answer(connection)[0].startswith(b"HTTP/1.1 200 OK")


def test_old_http_closes(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    connection.sendall(SQL.replace(b"HTTP/1.1", b"HTTP/1.0") + BODY)
    answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in answer


def test_what_is_not_http_is_refused(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
    assert read_to_end(connection).startswith(b"HTTP/1.1 400 ")


def test_an_endless_head_is_refused(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    connection.sendall(b"GET / HTTP/1.1\r\nX-Long: ")
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        connection.sendall(b"a" * 50_000_000)
    connection = connect()
    connection.sendall(b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 20_000)
    assert read_to_end(connection).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("head", [b"X-Long: " + b"a" * 17_000, b"\r\n".join([b"X-A: b"] * 3000)])
def test_a_large_head_is_refused_even_in_one_piece(connect: Callable[[], socket.socket], head: bytes) -> None:
    connection = connect()
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
    answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"HEADERS_TOO_LARGE" in answer


def test_a_large_body_does_not_count_as_head(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    body = b'{"sql":"' + b"x" * 100_000 + b'"}'
    for _ in range(2):
        connection.sendall(SQL.replace(b": %d\r\n" % len(BODY), b": %d\r\n" % len(body)) + body)
        assert read_answer(connection)[0].startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HT", b"POST /v1/api/sql HTTP/1.1\r\nHost: x\r\n", SQL, SQL + BODY[:-1]],
    ids=["nothing", "a line", "half a head", "no body", "half a body"],
)
def test_whoever_stalls_is_disconnected(connect: Callable[[], socket.socket], sent: bytes) -> None:
    connection = connect()
    connection.sendall(sent)
    answer = read_to_end(connection)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")


def test_a_second_request_may_not_stall_either(connect: Callable[[], socket.socket]) -> None:
    for sent in (b"\r\n", b"GET /", SQL):
        connection = connect()
        connection.sendall(SQL + BODY)
        read_answer(connection)
        connection.sendall(sent)
        assert read_to_end(connection) == b""


def test_a_slow_answer_is_not_a_stalled_request(tmp_path: Path) -> None:
    async def slowly() -> None:
        await asyncio.sleep(0.5)

    with (
        serving(make(tmp_path, QUICK, before=slowly)) as port,
        socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
    ):
        connection.sendall(SQL + BODY)
        assert read_answer(connection)[0].startswith(b"HTTP/1.1 200 OK")


def test_connections_of_an_address_are_limited(tmp_path: Path) -> None:
    setting = make(tmp_path, {"rate_limit": {"max_connections_per_ip": 2}})
    with serving(setting, strangers=True) as port:
        first = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(2)]
        for connection in first:
            connection.sendall(SQL + BODY)
            read_answer(connection)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as third:
            third.sendall(SQL + BODY)
            answer = read_to_end(third)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 5" in answer
        assert b'"error":"TOO_MANY_CONNECTIONS"' in answer
        assert b'"current":3,"max":2' in answer
        for connection in first:
            connection.close()
        for _ in range(1000):
            if setting.state.limits.connections("127.0.0.1")[0] == 0:
                break
            with socket.create_connection(("127.0.0.1", port), timeout=10) as other:
                other.sendall(b"x\r\n\r\n")
                read_to_end(other)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as again:
            again.sendall(SQL + BODY)
            assert read_answer(again)[0].startswith(b"HTTP/1.1 200 ")


def test_a_taken_port_and_a_foreign_address_are_sentences() -> None:
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        assert url_of(listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(ListenError, match=rf"^Port {port} on 127\.0\.0\.1 is taken by another process"):
            bind("127.0.0.1", port)
    with pytest.raises(ListenError, match=r"^Cannot listen on .*\.$"):
        bind("192.0.2.1", 0)
    with pytest.raises(ListenError, match=r"^Cannot listen on no such host"):
        bind("no such host", 0)


def test_an_answer_that_fails_midway_is_visibly_cut_off(tmp_path: Path) -> None:
    with serving(make(tmp_path, stream_error=RuntimeError("disk"))) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(SQL.replace(b"Host: x", b"Host: x\r\nAccept: application/x-ndjson") + BODY)
            answer = read_to_end(connection)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b'{"id":1,"name":"one"}' in answer
        assert not answer.endswith(b"0\r\n\r\n")
