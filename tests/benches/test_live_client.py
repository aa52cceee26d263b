"""The compiled client of the live benches: it finds every marker, answers pings, and writes when it should."""

from __future__ import annotations

import itertools
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benches.live_client import (
    BLANK,
    ClientFailed,
    Receiver,
    Writer,
    compiled,
    marker,
    paced,
    post,
    text_frame,
)

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("client"))


def server_frame(payload: bytes, opcode: int = 1) -> bytes:
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + payload


def received(framing: str, program: Path, chunks: list[bytes], count: int) -> list[int]:
    """Send the chunks, one `send` each, and return the markers that the client noted."""
    ours, theirs = socket.socketpair()
    receiver = Receiver(program, [theirs], framing, "subscription_ack")
    try:
        for chunk in chunks:
            ours.sendall(chunk)
        receiver.wait(count)
        return [stamp for stamp, _, _ in receiver.records()]
    finally:
        receiver.close()
        ours.close()


@pytest.mark.parametrize("framing", ["ws", "stream"])
def test_a_marker_may_be_cut_anywhere(framing: str, program: Path) -> None:
    text = b"".join(server_frame(b'{"body":"water %s"}' % marker(stamp).encode()) for stamp in (1, 22, 333))
    for size in (1, 5, 17, 40, len(text)):
        chunks = [text[start : start + size] for start in range(0, len(text), size)]
        assert received(framing, program, chunks, 3) == [1, 22, 333]


def test_what_only_looks_like_a_marker_is_none(program: Path) -> None:
    text = b"@ @12 a@example @00000000000000x1 " + marker(7).encode()
    assert received("stream", program, [text], 1) == [7]


@pytest.mark.parametrize("payload", [b"", b"beat", b"p" * 125])
def test_pings_are_answered_between_frames(payload: bytes, program: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    receiver = Receiver(program, [theirs], "ws")
    try:
        long = server_frame(b"x" * 5000 + marker(5).encode())
        ours.sendall(long + server_frame(payload, 9) + server_frame(marker(6).encode()))
        pong = b""
        while len(pong) < 6 + len(payload):
            pong += ours.recv(200)
        assert pong == bytes([0x8A, 0x80 | len(payload)]) + b"\0\0\0\0" + payload
        receiver.wait(2)
        assert [(stamp, number) for stamp, _, number in receiver.records()] == [(5, 0), (6, 0)]
        assert receiver.records(1)[0][1] <= time.monotonic_ns()
    finally:
        receiver.close()
        ours.close()


def test_acknowledgements_are_counted_once(program: Path) -> None:
    ours, theirs = socket.socketpair()
    receiver = Receiver(program, [theirs], "ws", "subscription_ack")
    try:
        frames = server_frame(b'{"type":"subscription_ack"}') * 50
        for start in range(0, len(frames), 7):
            ours.sendall(frames[start : start + 7])
        receiver.wait(50, acknowledged=True)
        assert receiver.acknowledged == 50
    finally:
        receiver.close()
        ours.close()


def test_a_connection_that_ends_is_told(program: Path) -> None:
    ours, theirs = socket.socketpair()
    receiver = Receiver(program, [theirs], "ws")
    try:
        ours.close()
        with pytest.raises(ClientFailed, match="0 of 1 changes arrived; 1 of 1 connections ended"):
            receiver.wait(1)
    finally:
        receiver.close()


def test_text_frames_are_what_a_server_reads() -> None:
    assert text_frame("ab") == b"\x81\x82\0\0\0\0ab"
    assert text_frame("a" * 300) == b"\x81\xfe\x01\x2c\0\0\0\0" + b"a" * 300


class Recorder(BaseHTTPRequestHandler):
    """Keeps the bodies of requests; answers 200, or 500 below /broken."""

    protocol_version = "HTTP/1.1"
    bodies: list[bytes]

    def do_POST(self) -> None:  # the name that http.server calls
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(500 if self.path == "/broken" else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # as in the base class
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[tuple[int, list[bytes]]]:
    bodies: list[bytes] = []
    handler = type("Handler", (Recorder,), {"bodies": bodies})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield running.server_port, bodies
        finally:
            running.shutdown()
            thread.join()


def test_paced_writes_carry_the_time_at_which_they_were_due(
    program: Path, tmp_path: Path, server: tuple[int, list[bytes]]
) -> None:
    port, bodies = server
    began = time.monotonic_ns()
    requests = [post(port, "/", {"id": i, "body": BLANK}) for i in range(30)]
    answers = paced(program, tmp_path, port, requests, rate=300, connections=4)
    stamps = sorted(stamp for stamp, _ in answers)
    assert len(bodies) == 30
    assert all(any(marker(stamp).encode() in body for body in bodies) for stamp in stamps)
    assert began < stamps[0]
    assert {round((later - stamp) / 1e6) for stamp, later in itertools.pairwise(stamps)} == {3}
    assert all(answered > stamp for stamp, answered in answers)


def test_a_refused_write_is_not_a_measurement(program: Path, tmp_path: Path, server: tuple[int, list[bytes]]) -> None:
    port, _ = server
    with pytest.raises(ClientFailed, match="500"):
        paced(program, tmp_path, port, [post(port, "/broken", [BLANK])], rate=100, connections=1)
    writer = Writer(port)
    assert writer.write(post(port, "/", [1])) <= time.monotonic_ns()
    with pytest.raises(ClientFailed, match="500"):
        writer.write(post(port, "/broken", [1]))
    writer.close()
