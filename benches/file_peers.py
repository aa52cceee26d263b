"""Uploads and downloads of one file: Headrace, and bare Starlette under the same uvicorn.

The client is a blocking socket: what it does for each megabyte is one system call, from memory that is there before the
time begins.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from benches.live_client import ClientFailed, connected, receive_until, request_head
from benches.long_polls import whole_body
from benches.peer_echo import uvicorn_command
from benches.peer_headrace import Headrace
from benches.processes import ServerProcess, free_port

BOUNDARY = "headrace-bench-boundary"
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
BUFFER = 1 << 20
LARGEST = 1 << 30

# The default limits are those of attachments, smaller than what is measured here.
FILE_ENVIRONMENT = {
    "HEADRACE_FILES_MAX_SIZE_BYTES": str(LARGEST),
    "HEADRACE_FILES_MAX_REQUEST_BYTES": str(LARGEST),
}


def upload(
    port: int, path: str, headers: Mapping[str, str], parts: Sequence[bytes | memoryview]
) -> tuple[float, bytes]:
    """Send a POST whose body is these parts: the seconds until its answer is whole, and the answer's body.

    Raises ClientFailed when the answer is not 2xx.
    """
    size = sum(len(part) for part in parts)
    head = request_head("POST", port, path, {**headers, "Content-Length": str(size)})
    with connected(port) as connection:
        began = time.perf_counter()
        for part in (head, *parts):
            connection.sendall(part)
        answer = receive_until(connection, b"\r\n\r\n")
        while (body := whole_body(answer)) is None:
            chunk = connection.recv(BUFFER)
            if not chunk:
                message = f"the server ended the connection after {answer[:600]!r}"
                raise ClientFailed(message)
            answer += chunk
        return time.perf_counter() - began, body


def download(port: int, path: str, headers: Mapping[str, str], target: bytearray) -> float:
    """GET a file into memory of its length; the seconds until the last byte. Raises ClientFailed when it differs."""
    with connected(port) as connection:
        began = time.perf_counter()
        connection.sendall(request_head("GET", port, path, headers))
        answer = receive_until(connection, b"\r\n\r\n")
        head, _, start = answer.partition(b"\r\n\r\n")
        if (
            not head.startswith(b"HTTP/1.1 200")
            or b"content-length: %d\r\n" % len(target) not in head.lower() + b"\r\n"
        ):
            message = f"a download failed: {answer[:600]!r}"
            raise ClientFailed(message)
        view = memoryview(target)
        view[: len(start)] = start
        place = len(start)
        while place < len(target):
            received = connection.recv_into(view[place : place + BUFFER])
            if not received:
                message = f"the server ended the connection after {place:,} of {len(target):,} bytes"
                raise ClientFailed(message)
            place += received
        return time.perf_counter() - began


def form(fields: Mapping[str, str], name: str, content: memoryview) -> list[bytes | memoryview]:
    """The parts of a multipart body: text fields, then one file."""
    texts = "".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{text}\r\n'
        for field, text in fields.items()
    )
    opening = (
        f'{texts}--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="bench.bin"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return [opening.encode(), content, f"\r\n--{BOUNDARY}--\r\n".encode()]


class BareFiles:
    """The application of `benches.file_application`."""

    def __init__(self) -> None:
        self.port = 0
        self._folder = Path()
        self._server: ServerProcess | None = None

    def start(self, folder: Path) -> None:
        """Start it on an empty folder."""
        self._folder = folder / "bare-files"
        self._folder.mkdir()
        self.port = free_port()
        self._server = ServerProcess(
            uvicorn_command("benches.file_application:application", self.port),
            self.port,
            folder / "bare-files.log",
            environment={"FILES_FOLDER": str(self._folder)},
        )
        self._server.start()

    def stop(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.stop()

    def upload(self, route: str, number: int, content: memoryview) -> float:
        """Seconds of an upload by `stream`, `durable` or `form`."""
        name = f"{number}.bin"
        if route == "form":
            parts, kind = form({}, "file", content), FORM_TYPE
        else:
            parts, kind = [content], "application/octet-stream"
        seconds, answer = upload(self.port, f"/{route}/{name}", {"Content-Type": kind}, parts)
        assert msgspec.json.decode(answer)["size"] == len(content)
        return seconds

    def download(self, number: int, target: bytearray) -> float:
        """Seconds of a download."""
        return download(self.port, f"/files/{number}.bin", {}, target)

    def remove(self, number: int) -> None:
        """Give the disk space back."""
        (self._folder / f"{number}.bin").unlink()


class HeadraceFiles:
    """Headrace with a table that has a FILE column."""

    def __init__(self) -> None:
        self.server = Headrace(FILE_ENVIRONMENT)

    def start(self, folder: Path) -> None:
        """Start it, create the table."""
        self.server.start(folder)
        self.server.sql("CREATE SHARED TABLE bench.documents (id BIGINT PRIMARY KEY, content FILE)")

    def stop(self) -> None:
        """End the server."""
        self.server.stop()

    @property
    def port(self) -> int:
        """Where it listens."""
        return urlsplit(self.server.base).port or 0

    def upload(self, number: int, content: memoryview) -> float:
        """Seconds of an INSERT with the file."""
        statement = "INSERT INTO bench.documents (id, content) VALUES ($1, FILE('content'))"
        parts = form({"sql": statement, "params": f"[{number}]"}, "file:content", content)
        headers = {"Authorization": self.server.headers["Authorization"], "Content-Type": FORM_TYPE}
        seconds, _ = upload(self.port, "/v1/api/sql", headers, parts)
        return seconds

    def path(self, number: int) -> str:
        """Where the file of that row is downloaded."""
        [[value]] = self.server.rows("SELECT content FROM bench.documents WHERE id = $1", number)
        reference = msgspec.json.decode(str(value))
        return f"/v1/files/bench/documents/{reference['sub']}/{reference['id']}"

    def download(self, number: int, target: bytearray) -> float:
        """Seconds of a download; the path is looked up before."""
        return download(self.port, self.path(number), {"Authorization": self.server.headers["Authorization"]}, target)

    def remove(self, number: int) -> None:
        """Delete the row, and with it the file."""
        self.server.sql("DELETE FROM bench.documents WHERE id = $1", number)
