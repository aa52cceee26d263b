"""What is not quite HTTP, or never ends: each connection is answered or closed, and others are served meanwhile."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from tests.e2e.bystander import PATIENCE, Bystander
from tests.e2e.running import RunningServer

SMALL = {
    "HEADRACE_LIMITS_MAX_BODY_BYTES": "1048576",
    "HEADRACE_LIMITS_MAX_INGEST_BYTES": "2097152",
    "HEADRACE_PERFORMANCE_CLIENT_REQUEST_TIMEOUT": "1",
    "HEADRACE_PERFORMANCE_REQUEST_TIMEOUT": "1",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("http") / "data", (), SMALL)
    try:
        running.start().set_up().sql(
            "CREATE NAMESPACE app; CREATE TABLE app.items (id BIGINT PRIMARY KEY, name TEXT) WITH (TYPE='SHARED')"
        )
        yield running
        assert running.stop() == 0, running.log()[-4_000:]
        assert "Traceback" not in running.log(), running.log()[-4_000:]
    finally:
        running.kill()


@pytest.fixture(scope="module")
def other(server: RunningServer) -> Iterator[Bystander]:
    bystander = Bystander(server)
    yield bystander
    bystander.close()


@contextlib.contextmanager
def connected(server: RunningServer) -> Iterator[socket.socket]:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=PATIENCE) as connection:
        yield connection


def exchange(server: RunningServer, *parts: bytes) -> bytes:
    """Send all parts, then read until the server closes the connection, which it must; what it answered."""
    received = b""
    with connected(server) as connection, contextlib.suppress(ConnectionError):
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
        while chunk := connection.recv(65_536):
            received += chunk
    assert b"Traceback" not in received
    return received


def status_of(received: bytes) -> int:
    """The status of the last answer; 0 if there is none."""
    found = re.findall(rb"^HTTP/1\.1 (\d+) ", received, re.MULTILINE)
    return int(found[-1]) if found else 0


def request(
    server: RunningServer,
    body: bytes = b'{"sql": "SELECT 1"}',
    *,
    path: str = "/v1/api/sql",
    close: bool = True,
    length: str | None = None,
    more: bytes = b"",
) -> bytes:
    """A request as bytes; `length` is what it claims."""
    claims = str(len(body)) if length is None else length
    return b"".join([
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n".encode(),
        b"Content-Type: application/json\r\n",
        f"Content-Length: {claims}\r\n".encode() if claims else b"",
        b"Connection: close\r\n" if close else b"",
        more, b"\r\n", body,
    ])  # fmt: skip


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 1_000,
        b"\xff" * 1_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x55" * 500,
        b"GARBAGE\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1 more\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHo st: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\n: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: \0x\r\n\r\n",
        b"POST /v1/api/sql HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/api/sql HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n",
        b"POST /v1/api/sql HTTP/1.1\r\nHost: x\r\nContent-Length: 1,2\r\n\r\n",
        b"POST /v1/api/sql HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /v1/api/sql HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /v1/api/sql HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/api/sql HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/api/sql HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
        b"POST /v1/api/sql HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n",
    ],
    ids=lambda value: repr(value)[:60],
)  # fmt: skip
def test_garbage_is_answered_or_closed(server: RunningServer, other: Bystander, garbage: bytes) -> None:
    assert status_of(exchange(server, garbage)) in {0, 400}
    other.read()


@pytest.mark.parametrize(
    "parts",
    [
        [b"GET /health HTTP/1.1\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n"],
        [b"GET /health HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(50_000)) + b"\r\n"],
        [b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\n\r\n"],
        [b"G" * 1_000_000],
        [b"GET /health HTTP/1.1\r\n"] + [b"X-Y: z\r\n"] * 50_000,
        [b"GET /health HTTP/1.1\r\nX: "] + [b"x" * 100] * 10_000,
        [b"GET /health HTTP/1.1\r\n", b" folded\r\n" * 50_000],
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_head_without_end_is_cut(server: RunningServer, other: Bystander, parts: list[bytes]) -> None:
    received = other.watch(lambda: exchange(server, *parts))
    assert status_of(received) in {0, 400, 431}, received[:200]


def test_slow_heads_and_bodies_are_given_up(server: RunningServer, other: Bystander) -> None:
    """The server closes each of these by itself: the client only waits."""
    whole = request(server)
    chunked = request(server, b"", length="", more=b"Transfer-Encoding: chunked\r\n")
    begun = [
        b"",
        b"G",
        b"GET /health HTTP/1.1\r\nHost: x\r\n",
        whole[:-10],
        request(server, b'{"sql": ', length="1000"),
        request(server, b'{"sql": "SELECT 1"}', length="20"),
        chunked + b"5\r\n{",
        chunked + b"1;" + b"x" * 10_000,
        request(server, b"x", length="1000", path="/v1/api/ingest/app/items").replace(b"application/json", b"text/csv"),
        request(server, close=False) + b"POST /v1/api/sql HTT",
    ]
    with ThreadPoolExecutor(len(begun)) as pool:
        answers = other.watch(lambda: list(pool.map(lambda part: exchange(server, part), begun)))
    for received in answers:
        assert status_of(received) in {0, 200, 400, 408}, received[:300]


def test_a_body_beyond_the_limit_is_refused_however_it_comes(server: RunningServer, other: Bystander) -> None:
    announced = exchange(server, request(server, b"", length=str(1 << 40)))
    assert status_of(announced) == 413
    assert b"BODY_TOO_LARGE" in announced
    block = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    chunked = request(server, b"", length="", more=b"Transfer-Encoding: chunked\r\n")
    received = other.watch(lambda: exchange(server, chunked, *[block] * 400))
    assert status_of(received) in {0, 413}, received[:300]
    tiny = other.watch(lambda: exchange(server, chunked, b"1\r\n \r\n" * 100_000, b"0\r\n\r\n"))
    assert status_of(tiny) == 400, tiny[:300]
    path = "/v1/api/ingest/app/items"
    sent = request(server, b"", path=path, length="", more=b"Transfer-Encoding: chunked\r\n")
    sent = sent.replace(b"application/json", b"text/csv")
    received = other.watch(lambda: exchange(server, sent, *[block] * 400))
    assert status_of(received) in {0, 413}, received[:300]


def test_what_follows_a_short_length_is_no_request(server: RunningServer, other: Bystander) -> None:
    body = b'{"sql": "SELECT 1"}'
    received = exchange(server, request(server, body + b"DELETE everything", length=str(len(body)), close=False))
    assert received.startswith(b"HTTP/1.1 200 ")
    assert status_of(received) in {200, 400}
    other.read()


def test_pipelined_requests_are_answered_in_order(server: RunningServer) -> None:
    bodies = [json.dumps({"sql": f"SELECT {n} AS v"}).encode() for n in range(100)]
    received = exchange(server, b"".join(request(server, body, close=body is bodies[-1]) for body in bodies))
    assert [int(v) for v in re.findall(rb'"rows":\[\[(\d+)\]\]', received)] == list(range(100))


def test_pipelining_garbage_does_not_hurt_the_answers_before(server: RunningServer) -> None:
    received = exchange(server, request(server, close=False) + b"\0\1\2\3 nonsense\r\n\r\n" * 1_000)
    assert status_of(received) in {0, 200, 400}


@pytest.mark.parametrize(
    ("line", "statuses"),
    [
        ("BREW /v1/api/sql", {400, 405, 501}),
        ("TRACE /v1/api/sql", {400, 405}),
        ("CONNECT example.com:443", {400, 404, 405}),
        ("OPTIONS *", {400, 404, 405}),
        ("GET /v1/api/sql", {405}),
        ("GET /../../etc/passwd", {400, 404}),
        ("GET /docs/..%2f..%2f..%2fetc/passwd", {400, 404}),
        ("GET /%00", {400, 404}),
        ("GET /%zz%", {400, 404}),
        ("GET /%ff%fe", {400, 404}),
        ("GET http://example.com/", {400, 404}),
        ("GET //example.com/health", {400, 404}),
        ("GET /" + "a/" * 4_000, {400, 404}),
        ("POST /v1/api/ingest/%00/x", {400, 401, 404}),
        ("POST /v1/api/ingest/..%2f..%2fetc/passwd", {400, 401, 404}),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_odd_methods_and_paths_have_a_status(
    server: RunningServer, other: Bystander, line: str, statuses: set[int]
) -> None:
    received = exchange(server, f"{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert status_of(received) in statuses, received[:300]
    assert b"root:" not in received
    other.read()


@pytest.mark.parametrize(
    "header",
    [
        "Authorization: Bearer " + "x" * 10_000,
        "Authorization: Bearer \xff\xfe",
        "Authorization: Basic cm9vdDpyb290",
        "Authorization:",
        "Authorization: Bearer a.b.c",
        "Authorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.",
        "Cookie: " + "a=b; " * 2_000,
        "Cookie: headrace_auth=\xff",
    ],
    ids=lambda value: repr(value)[:60],
)
def test_odd_credentials_are_refused(server: RunningServer, header: str) -> None:
    head = f"POST /v1/api/sql HTTP/1.1\r\nHost: x\r\n{header}\r\nContent-Type: application/json\r\n"
    received = exchange(
        server, head.encode("latin-1") + b'Connection: close\r\nContent-Length: 19\r\n\r\n{"sql": "SELECT 1"}'
    )
    assert status_of(received) == 401, received[:300]


@pytest.mark.parametrize(
    "header",
    [
        "X-Request-ID: " + "x" * 10_000,
        "X-Request-ID: a\tb",
        "X-Request-ID: \xff\xfe",
        "Accept: " + "a/b;q=0.5," * 1_000,
        "Accept: ;;;,,,q=\xff",
        "Accept: */*;q=1e400",
        "Origin: \xff://x",
        "X-Forwarded-For: " + "1.2.3.4," * 1_000,
        "X-Forwarded-For: '; DROP TABLE x; --",
        "X-Real-IP: ::::::",
        "Expect: 100-continue",
        "Expect: something",
        "Upgrade: h2c",
        "Upgrade: websocket",
        "Range: bytes=0-99999999999999999999",
    ],
    ids=lambda value: repr(value)[:60],
)
def test_odd_headers_change_nothing(server: RunningServer, header: str) -> None:
    received = exchange(server, request(server, more=f"{header}\r\n".encode("latin-1")))
    assert b'"rows":[[1]]' in received, received[:300]
    head = received.partition(b"\r\n\r\n")[0]
    assert len(head) < 2_000


def test_many_idle_connections_disturb_nobody(server: RunningServer, other: Bystander) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connected(server))
        for _ in range(20):
            other.read()
    other.read()
