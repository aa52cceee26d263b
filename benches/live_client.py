"""The client's side of the benches of live queries: `live_client.c`, and single writes from here.

Every row written carries a marker (`marker()`): the nanosecond of its writing. The compiled client notes when each
marker arrives on each socket; both clocks are CLOCK_MONOTONIC, so that arrival less marker is the time from the write
to the change. A marker that does not arrive is a change that was lost.
"""

from __future__ import annotations

import array
import mmap
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from benches.peers import Unavailable

SOURCE = Path(__file__).with_suffix(".c")
BLANK = "@0000000000000000"
"""A marker that `paced` replaces when it sends the request."""
CAPACITY = 4_000_000
_TOTALS = struct.Struct("=4Q")
_RECORD = 24
WAIT_SECONDS = 60.0


class ClientFailed(RuntimeError):
    """The compiled client ended, or what was waited for did not arrive."""


def compiled(folder: Path) -> Path:
    """The client's program, compiled into `folder`; raises Unavailable without gcc."""
    program = folder / "live_client"
    if not program.exists():
        if shutil.which("gcc") is None:
            message = "gcc is not installed (apt-get install gcc libc6-dev)"
            raise Unavailable(message)
        command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(SOURCE)]
        subprocess.run(command, check=True)
    return program


def marker(nanosecond: int | None = None) -> str:
    """The marker of a row that is written now, or at that nanosecond."""
    return f"@{time.monotonic_ns() if nanosecond is None else nanosecond:016d}"


def connected(port: int) -> socket.socket:
    """A connection to a server on this machine that does not wait to fill packets."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def text_frame(text: str) -> bytes:
    """A WebSocket text frame as a client sends it, masked with zeros."""
    payload = text.encode()
    size = len(payload)
    length = struct.pack("!B", 0x80 | size) if size < 126 else struct.pack("!BH", 0x80 | 126, size)
    return b"\x81" + length + b"\0\0\0\0" + payload


def request_head(method: str, port: int, path: str, headers: Mapping[str, str]) -> bytes:
    """Request line and headers of an HTTP/1.1 request to this machine."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def upgrade(port: int, path: str, headers: Mapping[str, str] | None = None) -> bytes:
    """The request that opens a WebSocket."""
    opening = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "aGVhZHJhY2UtYmVuY2hlcw==",
    }
    return request_head("GET", port, path, opening | dict(headers or {}))


def post(port: int, path: str, document: object, headers: Mapping[str, str] | None = None) -> bytes:
    """A POST request with a JSON body."""
    body = msgspec.json.encode(document)
    described = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    return request_head("POST", port, path, dict(headers or {}) | described) + body


def receive_until(connection: socket.socket, *expected: bytes) -> bytes:
    """Read until one of the texts has arrived; raises ClientFailed when the connection ends before."""
    received = b""
    while not any(text in received for text in expected):
        chunk = connection.recv(65536)
        if not chunk:
            message = f"the server ended the connection after {received[-600:]!r}"
            raise ClientFailed(message)
        received += chunk
    return received


class Receiver:
    """Sockets whose incoming markers the compiled client records. The sockets stay usable here for sending."""

    def __init__(self, program: Path, sockets: Sequence[socket.socket], framing: str, needle: str = "") -> None:
        self.sockets = sockets
        memory = os.memfd_create("headrace-bench-records")
        os.ftruncate(memory, _TOTALS.size + CAPACITY * _RECORD)
        self._memory = mmap.mmap(memory, _TOTALS.size + CAPACITY * _RECORD)
        descriptors = [connection.fileno() for connection in sockets]
        self._process = subprocess.Popen(
            [str(program), "receive", str(memory), str(CAPACITY), framing, needle, *map(str, descriptors)],
            stdin=subprocess.PIPE,
            pass_fds=[memory, *descriptors],
        )
        os.close(memory)

    def _totals(self) -> tuple[int, int, int, int]:
        records, needles, ended, size = _TOTALS.unpack_from(self._memory)
        return records, needles, ended, size

    @property
    def count(self) -> int:
        """Markers received so far, on all sockets."""
        return self._totals()[0]

    @property
    def acknowledged(self) -> int:
        """Occurrences of the needle so far."""
        return self._totals()[1]

    def wait(self, count: int, *, acknowledged: bool = False, seconds: float = WAIT_SECONDS) -> None:
        """Return once that many markers (or needles) have arrived; raises ClientFailed when they do not."""
        deadline = time.monotonic() + seconds
        while (arrived := self._totals()[acknowledged]) < count:
            ended = self._totals()[2]
            if ended or self._process.poll() is not None or time.monotonic() > deadline:
                what = "acknowledgements" if acknowledged else "changes"
                message = f"{arrived} of {count} {what} arrived; {ended} of {len(self.sockets)} connections ended"
                raise ClientFailed(message)
            time.sleep(0.0003)

    def records(self, first: int = 0) -> list[tuple[int, int, int]]:
        """(marker, arrival, number of the socket) of each marker from the `first`-th on, in order of arrival."""
        start = _TOTALS.size + first * _RECORD
        content = self._memory[start : _TOTALS.size + self.count * _RECORD]
        values = array.array("Q", content)
        return list(zip(values[0::3], values[1::3], values[2::3], strict=True))

    def close(self) -> None:
        """End the client and close the sockets."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(WAIT_SECONDS)
        self._memory.close()
        for connection in self.sockets:
            connection.close()


class Writer:
    """One keep-alive connection that sends a request and waits for its answer."""

    def __init__(self, port: int) -> None:
        self._connection = connected(port)

    def write(self, request: bytes) -> int:
        """Send the request; the nanosecond at which its answer was whole. Raises ClientFailed unless it is 2xx."""
        self._connection.sendall(request)
        answer = receive_until(self._connection, b"\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 2"):
            message = f"a write failed: {answer[:600]!r}"
            raise ClientFailed(message)
        lowered = head.lower()
        if b"content-length:" in lowered:
            missing = int(lowered.partition(b"content-length:")[2].split(b"\r\n")[0]) - len(body)
            while missing > 0:
                missing -= len(self._connection.recv(65536))
        return time.monotonic_ns()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def paced(
    program: Path, folder: Path, port: int, requests: Sequence[bytes], *, rate: float, connections: int
) -> list[tuple[int, int]]:
    """Send the requests at `rate` a second; (marker, nanosecond of the answer) of each.

    The marker is the time at which the request was due, so that waiting for a free connection counts.
    """
    path = folder / "requests.bin"
    path.write_bytes(b"".join(struct.pack("<I", len(request)) + request for request in requests))
    command = [str(program), "write", str(port), str(connections), str(rate), str(path)]
    finished = subprocess.run(command, capture_output=True, check=False)
    if finished.returncode:
        raise ClientFailed(finished.stderr.decode(errors="replace").strip())
    values = array.array("Q", finished.stdout)
    return list(zip(values[0::2], values[1::2], strict=True))
