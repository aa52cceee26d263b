"""Uploads and downloads against a running server, and what lies in its folder."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from storage.blobs import FolderBlobs
from storage.engine import StorageEngine
from storage.file_records import every_record, path_of
from storage.file_references import file_columns
from storage.options import StorageOptions
from tests.e2e.running import RunningServer

Files = Mapping[
    str, tuple[str | None, bytes] | tuple[str | None, bytes, str] | tuple[str | None, bytes, str, dict[str, str]]
]


class FileUser:
    """One signed-in user of a server."""

    def __init__(self, server: RunningServer, token: str) -> None:
        self.server = server
        self.http = server.client_of(token)

    def upload(self, sql: str, files: Files, params: list[Any] | None = None) -> httpx.Response:
        """Send a statement with files, by the name of their placeholder."""
        parts: dict[str, Any] = {f"file:{name}": file for name, file in files.items()}
        parts["sql"] = (None, sql)
        if params is not None:
            parts["params"] = (None, json.dumps(params))
        return self.http.post("/v1/api/sql", files=parts)

    def sql(self, text: str, params: list[Any] | None = None) -> httpx.Response:
        """Send statements as JSON."""
        return self.http.post("/v1/api/sql", json={"sql": text, "params": params})

    def rows(self, text: str) -> list[list[Any]]:
        """The rows of a query."""
        answer = self.sql(text)
        assert answer.status_code == 200, answer.text
        return answer.json()["results"][0].get("rows", [])  # type: ignore[no-any-return]

    def ref(self, query: str) -> dict[str, Any]:
        """The FileRef that a query gives."""
        ((text,),) = self.rows(query)
        return json.loads(text) if isinstance(text, str) else text  # type: ignore[no-any-return]

    def get(self, table: str, ref: Mapping[str, Any], *, name: str | None = None, **more: Any) -> httpx.Response:
        """Download by id, or by `name`."""
        namespace, _, short = table.partition(".")
        return self.http.get(f"/v1/files/{namespace}/{short}/{ref['sub']}/{name or ref['id']}", **more)


def code_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a failure, in either shape."""
    body = answer.json()
    error = body["error"]
    return answer.status_code, error["code"] if isinstance(error, dict) else body.get("code", error)


def stored_files(folder: Path) -> list[str]:
    """What lies in the store of a data folder."""
    return sorted(FolderBlobs(folder / "files").list())


def staged_files(folder: Path) -> list[str]:
    """What lies in staging under a name."""
    return sorted(path.name for path in (folder / "tmp").glob("*")) if (folder / "tmp").exists() else []


def staged_handles(server: RunningServer) -> int:
    """How many staged files without a name the server has open."""
    assert server.process is not None
    count = 0
    for link in Path(f"/proc/{server.process.pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        count += f"{server.data}/tmp/" in target
    return count


def until(question: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for what happens in the background."""
    end = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def check_closed_folder(folder: Path) -> tuple[set[str], set[str]]:
    """(paths that live rows refer to, paths that lie in the store) of a folder that no server has open.

    Also holds the records against the rows.
    """
    with StorageEngine.open(folder, StorageOptions(merge=False)) as engine:
        problems = engine.check()
        assert problems == []
        catalog = engine.catalog
        with engine.snapshot() as snapshot, snapshot.reading() as reader:
            live = set()
            for key, record in every_record(reader):
                table = catalog.table_by_id(key[0])
                if table is not None and record.is_live(file_columns(table)):
                    live.add(path_of(key, record))
    return live, set(stored_files(folder))


def raw_form(parts: Iterator[bytes] | list[bytes], boundary: bytes = b"xyz") -> bytes:
    """A form of raw parts (head, blank line, content)."""
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"


def raw_part(name: bytes, content: bytes, more: bytes = b"", headers: bytes = b"") -> bytes:
    """One raw part."""
    return b'Content-Disposition: form-data; name="' + name + b'"' + more + b"\r\n" + headers + b"\r\n" + content


def raw_connection(server: RunningServer, token: str, length: int, boundary: str = "xyz") -> socket.socket:
    """A connection on which the head of an upload was sent."""
    url = urlsplit(server.url)
    sock = socket.create_connection((url.hostname or "", url.port or 0), timeout=30)
    head = (
        f"POST /v1/api/sql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\nContent-Length: {length}\r\n\r\n"
    )
    sock.sendall(head.encode())
    return sock
