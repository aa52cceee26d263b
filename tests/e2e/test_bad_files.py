"""Hostile uploads: each gets its code, and leaves no row, nothing in staging and nothing in the store."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.conftest import Serve
from tests.e2e.files_support import (
    FileUser,
    code_of,
    raw_connection,
    raw_form,
    raw_part,
    staged_files,
    staged_handles,
    stored_files,
    until,
)
from tests.e2e.running import RunningServer

SQL = b"INSERT INTO app.docs (id, f) VALUES ('1', FILE('a'))"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
HEADERS = {"Content-Type": "multipart/form-data; boundary=xyz"}
LIMITS = {
    "HEADRACE_FILES_MAX_SIZE_BYTES": "200000",
    "HEADRACE_FILES_MAX_REQUEST_BYTES": "500000",
    "HEADRACE_FILES_MAX_FILES_PER_REQUEST": "3",
    "HEADRACE_FILES_ALLOWED_MIME_TYPES": "image/*,application/pdf,text/plain,application/x-own",
    "HEADRACE_LIMITS_MAX_BODY_BYTES": "100000",
    "HEADRACE_PERFORMANCE_REQUEST_TIMEOUT": "1.5",
}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with small limits."""
    running = RunningServer(tmp_path_factory.mktemp("strict") / "data", changes=LIMITS)
    try:
        running.start().set_up()
        running.sql("CREATE NAMESPACE app; CREATE USER TABLE app.docs (id TEXT PRIMARY KEY, f FILE)")
        yield running
        assert "Traceback" not in running.log()
        assert running.stop() == 0
    finally:
        running.kill()


@pytest.fixture
def user(strict: RunningServer) -> Iterator[FileUser]:
    """The dba; after each test nothing may be left."""
    found = FileUser(strict, strict.token)
    found.sql("DELETE FROM app.docs WHERE true")
    try:
        yield found
        assert found.rows("SELECT id FROM app.docs") == []
        assert stored_files(strict.data) == []
        until(lambda: staged_handles(strict) == 0)
        assert staged_files(strict.data) == []
    finally:
        found.http.close()


def post(user: FileUser, *parts: bytes, body: bytes | None = None) -> httpx.Response:
    """Send raw parts."""
    return user.http.post("/v1/api/sql", content=raw_form(list(parts)) if body is None else body, headers=HEADERS)


def part(content: bytes = b"hello", filename: bytes = b"a.txt", headers: bytes = b"", name: bytes = b"file:a") -> bytes:
    return raw_part(name, content, b'; filename="' + filename + b'"', headers)


def text(name: bytes, content: bytes) -> bytes:
    return raw_part(name, content)


def test_the_good_form_is_good(strict: RunningServer) -> None:
    """What the others break is otherwise accepted."""
    user = FileUser(strict, strict.token)
    assert post(user, text(b"sql", SQL), part()).status_code == 200
    assert user.sql("DELETE FROM app.docs WHERE true").is_success
    until(lambda: stored_files(strict.data) == [])
    user.http.close()


@pytest.mark.parametrize(
    "name",
    [
        b"../../etc/passwd", b"..", b".", b"/etc/passwd", b"a/b", b"a\\b", b"..\\..\\x", b"a\x00.txt", b"a\x07",
        b"\x7f",
        b"n" * 4_000, b"n" * 256, "evil\u202egnp.exe".encode(), "a\u2066b".encode(), b"\xff\xfe", b"  ", b"a\xc2\x85b",
        "\u00e4".encode() * 1_500, "a\u2028b".encode(),
    ],
    ids=range(19),
)  # fmt: skip
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_names(user: FileUser, name: bytes, first: bool) -> None:
    parts = [text(b"sql", SQL), part(filename=name)]
    assert code_of(post(user, *(parts if first else reversed(parts)))) == (400, "INVALID_INPUT")


@pytest.mark.parametrize("name", [b'a"; filename="b', b"a\r\nX-Evil: 1", b"a\nb", b"a\rb"])
def test_names_that_break_the_header(user: FileUser, name: bytes) -> None:
    answer = post(user, text(b"sql", SQL), part(filename=name))
    assert answer.status_code in {200, 400}
    if answer.status_code == 200:  # the header that the name began is one of the part, and nothing else
        ref = user.ref("SELECT f FROM app.docs")
        got = user.get("app.docs", ref)
        assert "x-evil" not in got.headers
        assert not {"\r", "\n"} & set(got.headers["content-disposition"])
        assert user.sql("DELETE FROM app.docs WHERE true").is_success
        until(lambda: stored_files(user.server.data) == [])


def test_sizes_and_numbers(user: FileUser) -> None:
    most = part(b"x" * 200_001)
    assert code_of(post(user, text(b"sql", SQL), most)) == (413, "FILE_TOO_LARGE")
    together = [part(b"x" * 170_000, name=b"file:" + name) for name in (b"a", b"b", b"c")]
    assert code_of(post(user, text(b"sql", SQL), *together)) == (413, "FILE_TOO_LARGE")
    many = [part(name=b"file:" + name) for name in (b"a", b"b", b"c", b"d")]
    assert code_of(post(user, text(b"sql", SQL), *many)) == (400, "TOO_MANY_FILES")
    assert code_of(post(user, text(b"sql", SQL), part(), part())) == (400, "INVALID_INPUT")
    assert code_of(post(user, text(b"sql", SQL), text(b"sql", SQL), part())) == (400, "INVALID_INPUT")
    assert code_of(post(user, text(b"sql", SQL), part(), *[text(b"x%d" % n, b"") for n in range(10_000)])) == (
        400, "INVALID_INPUT",
    )  # fmt: skip
    assert code_of(post(user, text(b"sql", SQL), part(), text(b"other", b"x" * 100_001))) == (413, "BODY_TOO_LARGE")
    assert code_of(post(user, text(b"sql", SQL), part(headers=b"X-Long: " + b"x" * 5_000 + b"\r\n"))) == (
        400, "INVALID_INPUT",
    )  # fmt: skip
    many_headers = b"".join(b"X-%d: 1\r\n" % n for n in range(50))
    assert code_of(post(user, text(b"sql", SQL), part(headers=many_headers))) == (400, "INVALID_INPUT")
    assert code_of(post(user, text(b"sql", SQL), part(name=b"file:" + b"n" * 300))) == (400, "INVALID_INPUT")
    assert code_of(post(user, body=b"x" * 900_000))[0] in {400, 413}
    assert code_of(post(user, body=raw_form([text(b"sql", SQL), part()]) + b"x" * 900_000)) == (413, "BODY_TOO_LARGE")


@pytest.mark.parametrize(
    "body",
    [
        raw_form([text(b"sql", SQL), part()])[:-6],
        raw_form([text(b"sql", SQL), part()])[:-40],
        raw_form([text(b"sql", SQL), b'Content-Disposition: attachment; filename="a"\r\n\r\nx']),
        raw_form([text(b"sql", SQL), b"\r\nx"]),
        raw_form([text(b"sql", SQL), part(headers=b"Content-Disposition: form-data; name=x\r\n")]),
        raw_form([text(b"sql", b"\xff"), part()]),
        raw_form([text(b"sql", SQL), text(b"params", b"\xff"), part()]),
        raw_form([text(b"sql", SQL), part(headers=b"Content-Digest: sha-256=:!!!!:\r\n")]),
        raw_form([text(b"sql", SQL), part(headers=b"Content-Digest: sha-256=:AAAA:\r\n")]),
    ],
)
def test_malformed(user: FileUser, body: bytes) -> None:
    assert code_of(post(user, body=body)) == (400, "INVALID_INPUT")


def test_without_sql(user: FileUser) -> None:
    assert code_of(post(user, part())) == (400, "EMPTY_SQL")
    assert code_of(post(user, text(b"sql", SQL), text(b"params", b"{}"), part())) == (400, "INVALID_PARAMETER")


@pytest.mark.parametrize(
    ("content", "declared", "name"),
    [
        (b"MZ" + b"\0" * 200, b"application/x-msdownload", b"a.exe"),
        (b"<html><script>alert(1)</script></html>", b"text/html", b"a.html"),
        (b"<!DOCTYPE html><html></html>", b"image/png", b"a.png"),
        (b"<?xml version=\"1.0\"?><svg xmlns='http://www.w3.org/2000/svg'/>", b"text/plain", b"a.txt"),
        (b"PK\x03\x04" + b"\0" * 200, b"image/png", b"a.png"),
        (b"just text", b"image/png", b"a.png"),
        (b"\x00\x01\x02\x03" * 100, b"application/pdf", b"a.pdf"),
        (b"\x00\x01\x02\x03" * 100, b"text/plain", b"a.txt"),
        (b"PK\x03\x04" + b"\0" * 200, b"", b"a.zip"),
        (b"x", b"not a type", b"a"),
        (b"x", b"text/plain\xff", b"a"),
        (b"x", b"/", b"a"),
        (b"x", b"text/" + b"x" * 200, b"a"),
    ],
)
def test_types(user: FileUser, content: bytes, declared: bytes, name: bytes) -> None:
    headers = b"Content-Type: " + declared + b"\r\n" if declared else b""
    answer = post(user, text(b"sql", SQL), part(content, name, headers))
    assert code_of(answer) == (415, "INVALID_MIME_TYPE")


@pytest.mark.parametrize(
    ("content", "declared", "kept"),
    [
        (PNG, "image/png", "image/png"),
        (PNG, "", "image/png"),
        (b"%PDF-1.7\n", "application/pdf", "application/pdf"),
        (b"%PDF-1.7\n", "", "application/pdf"),
        ("plain \u00e4".encode(), "", "text/plain"),
        (b"plain", "text/plain; charset=utf-8", "text/plain"),
        (b"\x00\x01own", "application/x-own", "application/x-own"),
        (PNG, "IMAGE/PNG", "image/png"),
    ],
)
def test_types_that_may(user: FileUser, content: bytes, declared: str, kept: str) -> None:
    headers = f"Content-Type: {declared}\r\n".encode() if declared else b""
    answer = post(user, text(b"sql", SQL), part(content, b"a", headers))
    assert answer.status_code == 200, answer.text
    assert user.ref("SELECT f FROM app.docs")["mime"] == kept
    assert user.sql("DELETE FROM app.docs WHERE true").is_success
    until(lambda: stored_files(user.server.data) == [])


def test_digests(user: FileUser) -> None:
    def header(content: bytes) -> bytes:
        return b"Content-Digest: sha-256=:" + base64.b64encode(hashlib.sha256(content).digest()) + b":\r\n"

    content = b"abc" * 30_000
    assert code_of(post(user, text(b"sql", SQL), part(content, headers=header(b"abd")))) == (400, "DIGEST_MISMATCH")
    assert post(user, text(b"sql", SQL), part(content, headers=header(content))).status_code == 200
    assert user.sql("DELETE FROM app.docs WHERE true").is_success
    until(lambda: stored_files(user.server.data) == [])


def test_a_failing_statement(user: FileUser) -> None:
    for sql in (
        b"INSERT INTO app.docs (id, f) VALUES (NULL, FILE('a'))",
        b"INSERT INTO app.no VALUES (FILE('a'))",
        b"x FILE('a')",
    ):
        assert post(user, text(b"sql", sql), part()).status_code in {400, 404}


def test_broken_off_half_way(user: FileUser, strict: RunningServer) -> None:
    body = raw_form([text(b"sql", SQL), part(b"x" * 150_000)])
    for share in (0.01, 0.5, 0.99):
        with raw_connection(strict, strict.token, len(body)) as sock:
            sock.sendall(body[: int(len(body) * share)])


def test_a_body_that_says_to_be_longer(user: FileUser, strict: RunningServer) -> None:
    """A refused upload is answered before the rest of its body is there."""
    with raw_connection(strict, strict.token, 400_000) as sock:
        sock.sendall(raw_form([text(b"sql", SQL), part(b"x" * 250_000)])[:-20])
        answer = sock.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"FILE_TOO_LARGE" in answer


def test_a_trickle(user: FileUser, strict: RunningServer) -> None:
    """A client that always sends a little has no more time than the slowest rate gives."""
    with raw_connection(strict, strict.token, 100_000) as sock:
        sock.sendall(raw_form([text(b"sql", SQL), part(b"x" * 1_000)])[:-20])
        sock.settimeout(0.2)
        answer = b""
        for _ in range(100):
            try:
                if not answer:
                    sock.sendall(b"x")
                answer += sock.recv(65536)
                if b"}" in answer:
                    break
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                break
        assert b"408" in answer[:20]
        assert b"REQUEST_TIMEOUT" in answer


def test_a_silent_client(user: FileUser, strict: RunningServer) -> None:
    with raw_connection(strict, strict.token, 100_000) as sock:
        sock.sendall(raw_form([text(b"sql", SQL), part(b"x" * 1_000)])[:-20])
        received = sock.recv(65536)
    assert received == b"" or received.startswith(b"HTTP/1.1 408")


def test_without_a_token_nothing_is_received(user: FileUser, strict: RunningServer) -> None:
    with raw_connection(strict, "x.y.z", 400_000) as sock:
        assert sock.recv(65536).startswith(b"HTTP/1.1 401")


def test_no_files_allowed(serve: Serve) -> None:
    running = serve(HEADRACE_FILES_MAX_FILES_PER_REQUEST="0").set_up()
    running.sql("CREATE NAMESPACE app; CREATE USER TABLE app.docs (id TEXT PRIMARY KEY, f FILE)")
    user = FileUser(running, running.token)
    assert code_of(post(user, text(b"sql", SQL), part())) == (400, "TOO_MANY_FILES")
    user.http.close()


def test_the_json_limit_stays(user: FileUser) -> None:
    answer = user.http.post("/v1/api/sql", json={"sql": "SELECT 1 -- " + "x" * 100_000})
    assert code_of(answer) == (413, "BODY_TOO_LARGE")


def test_sockets_are_used(user: FileUser) -> None:
    """Many broken uploads at once leave nothing either."""
    body = raw_form([text(b"sql", SQL), part(b"x" * 150_000)])
    socks: list[socket.socket] = []
    for _ in range(20):
        sock = raw_connection(user.server, user.server.token, len(body))
        sock.sendall(body[:100_000])
        socks.append(sock)
    for sock in socks:
        sock.close()
