"""Files against a made-up server: forms that go out, downloads that break off, lie, or are sent as a whole again."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import tracemalloc
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import Any

import httpx
import pytest

import headrace
from headrace import AsyncClient, Client, FileRef, RetryPolicy

SOON = RetryPolicy(attempts=3, base_seconds=0.001, max_seconds=0.002)
DATA = bytes(range(256)) * 1000
SUCCESS = {"status": "success", "results": [{"row_count": 1, "message": "done", "as_user": "ann"}], "took": 1.0}


def ref_of(data: bytes, **changes: Any) -> FileRef:
    fields = {"id": "123", "sub": "f0001", "name": "a.bin", "size": len(data), "mime": "application/octet-stream"}
    return FileRef(**{**fields, "sha256": hashlib.sha256(data).hexdigest(), **changes})  # type: ignore[arg-type]


def run(handler: Any, test: Callable[[AsyncClient], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        transport = httpx.MockTransport(handler)
        async with asyncio.timeout(30), AsyncClient("http://db", transport=transport, token="token") as client:
            await test(client)

    asyncio.run(main())


# --- FileRef ----------------------------------------------------------------------------------------------------------


def test_refs_are_read_from_whatever_a_row_holds() -> None:
    ref = ref_of(DATA)
    fields = {name: getattr(ref, name) for name in ("id", "sub", "name", "size", "mime", "sha256")}
    for held in (ref, fields, json.dumps(fields), json.dumps(fields).encode(), fields | {"more": 1}):
        assert FileRef.parse(held) == ref
    assert FileRef.parse(fields | {"shard": 3}).shard == 3
    assert ref.path("app", "a/b") == "/v1/files/app/a%2Fb/f0001/123"
    for wrong in ("", "{}", {"id": 1}, {}, "null"):
        with pytest.raises(ValueError, match="is no FileRef"):
            FileRef.parse(wrong)


# --- upload -----------------------------------------------------------------------------------------------------------


class Forms:
    """Takes forms; the parts of each by name. Refuses the first ones where it is told to."""

    def __init__(self, *refusals: httpx.Response) -> None:
        self.forms: list[dict[str, Any]] = []
        self.headers: list[httpx.Headers] = []
        self.refusals = deque(refusals)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        self.headers.append(request.headers)
        if "Content-Length" in request.headers:
            assert int(request.headers["Content-Length"]) == len(body)
        head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
        message = BytesParser(policy=HTTP).parsebytes(head + body)
        self.forms.append({part.get_param("name", header="content-disposition"): part for part in message.iter_parts()})
        return self.refusals.popleft() if self.refusals else httpx.Response(200, json=SUCCESS)


def test_a_form_has_the_statement_and_its_files(tmp_path: Path) -> None:
    server = Forms()
    path = tmp_path / "Größe.pdf"
    path.write_bytes(DATA)

    async def test(client: AsyncClient) -> None:
        with path.open("rb") as opened:
            files: Any = {
                "path": path,
                "text": str(path),
                "bytes": b"abc",
                "open": opened,
                "memory": io.BytesIO(b"def"),
                "named": ("x.png", b"png"),
                "typed": ("y", path, "text/x-thing"),
            }
            result = await client.query("INSERT", [1, "a"], namespace="app", files=files)
        assert result.message == "done"

    run(server, test)
    (form,) = server.forms
    assert list(form)[:3] == ["sql", "params", "namespace_id"]
    assert [form[name].get_payload(decode=True) for name in ("sql", "params", "namespace_id")] == [
        b"INSERT", b'[1,"a"]', b"app"
    ]  # fmt: skip
    found = {
        name.removeprefix("file:"): (part.get_filename(), part.get("Content-Type", ""), part.get_payload(decode=True))
        for name, part in form.items()
        if name.startswith("file:")
    }
    pdf = ("Größe.pdf", "application/pdf", DATA)
    assert found == {
        "path": pdf,
        "text": pdf,
        "bytes": ("bytes", "", b"abc"),
        "open": pdf,
        "memory": ("memory", "", b"def"),
        "named": ("x.png", "image/png", b"png"),
        "typed": ("y", "text/x-thing", DATA),
    }


def test_a_form_without_parameters_and_with_an_empty_file() -> None:
    server = Forms()

    async def test(client: AsyncClient) -> None:
        await client.execute("INSERT", files={"a": b""})
        await client.execute_as("bob", "INSERT", files={"a": b"x"})

    run(server, test)
    assert list(server.forms[0]) == ["sql", "file:a"]
    assert server.forms[0]["file:a"].get_payload(decode=True) == b""
    assert b"EXECUTE AS USER 'bob'" in server.forms[1]["sql"].get_payload(decode=True)


def test_a_form_is_sent_again_after_a_refusal_if_its_files_can_be(tmp_path: Path) -> None:
    busy = httpx.Response(429, json={"error": "RATE_LIMIT_EXCEEDED"}, headers={"Retry-After": "0.001"})
    path = tmp_path / "a.bin"
    path.write_bytes(DATA)
    source, sink = os.pipe()
    os.write(sink, b"piped")
    os.close(sink)

    async def main(files: Any) -> list[bytes]:
        server = Forms(busy)
        transport = httpx.MockTransport(server)
        async with AsyncClient("http://db", transport=transport, token="t", rate_limit_patience=1) as client:
            try:
                await client.query("INSERT", files=files)
            finally:
                assert server.forms
        return [form["file:a"].get_payload(decode=True) for form in server.forms]

    assert asyncio.run(main({"a": path})) == [DATA, DATA]
    assert asyncio.run(main({"a": io.BytesIO(DATA)})) == [DATA, DATA]
    with os.fdopen(source, "rb") as pipe, pytest.raises(RuntimeError, match="cannot be sent a second time"):
        asyncio.run(main({"a": pipe}))


def test_what_is_no_file(tmp_path: Path) -> None:
    async def test(client: AsyncClient) -> None:
        with pytest.raises(FileNotFoundError):
            await client.query("INSERT", files={"a": tmp_path / "missing"})
        with pytest.raises(TypeError, match="file 'a' is a path, bytes or an open file, not int"):
            await client.query("INSERT", files={"a": 7})  # type: ignore[dict-item]
        with pytest.raises(TypeError, match="binary"):
            await client.query("INSERT", files={"a": io.TextIOWrapper(io.BytesIO(b""))})  # type: ignore[dict-item]

    run(Forms(), test)


@pytest.mark.parametrize(
    "code", ["FILE_TOO_LARGE", "TOO_MANY_FILES", "INVALID_MIME_TYPE", "MISSING_FILE", "EXTRA_FILE"]
)
def test_files_that_are_refused(code: str) -> None:
    body = {"status": "error", "results": [], "took": 1.0, "error": {"code": code, "message": "because", "line": 3}}

    async def test(client: AsyncClient) -> None:
        with pytest.raises(headrace.FileRefused) as caught:
            await client.query("INSERT", files={"a": b"x"})
        assert (caught.value.code, caught.value.line) == (code, 3)

    run(Forms(httpx.Response(413, json=body)), test)


def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    size = 200 << 20
    path = tmp_path / "large.bin"
    with path.open("wb") as large:
        large.truncate(size)
    received = 0

    class Counting(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal received
            assert isinstance(request.stream, httpx.AsyncByteStream)
            async for chunk in request.stream:
                received += len(chunk)
            return httpx.Response(200, json=SUCCESS)

    async def main() -> None:
        async with AsyncClient("http://db", transport=Counting(), token="token") as client:
            await client.query("INSERT", files={"a": path})

    tracemalloc.start()
    try:
        asyncio.run(main())
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert received > size


# --- download ---------------------------------------------------------------------------------------------------------


class Blobs:
    """Serves one file, and breaks each answer off after as many bytes as it is told."""

    def __init__(self, data: bytes, *breaks: int, ranges: bool = True, statuses: tuple[int, ...] = ()) -> None:
        self.data = data
        self.breaks = deque(breaks)
        self.ranges = ranges
        self.statuses = deque(statuses)
        self.requests: list[tuple[str, str | None]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        asked = request.headers.get("Range")
        self.requests.append((request.url.raw_path.decode(), asked))
        if self.statuses:
            return httpx.Response(self.statuses.popleft(), json={"error": "because", "code": "SOME_CODE"})
        first, last, headers, status = 0, len(self.data) - 1, {}, 200
        if asked is not None and self.ranges:
            assert request.headers["If-Range"] == f'"{hashlib.sha256(self.data).hexdigest()}"'
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            headers, status = {"Content-Range": f"bytes {first}-{last}/{len(self.data)}"}, 206
        return httpx.Response(status, headers=headers, content=self._body(self.data[first : last + 1]))

    async def _body(self, data: bytes) -> AsyncIterator[bytes]:
        end = self.breaks.popleft() if self.breaks else len(data)
        for at in range(0, min(end, len(data)), 1000):
            yield data[at : min(at + 1000, end)]
        if end < len(data):
            raise httpx.RemoteProtocolError("cut")


@pytest.mark.parametrize("data", [b"", b"x", DATA])
def test_a_download_to_everywhere(data: bytes, tmp_path: Path) -> None:
    server = Blobs(data)
    path, memory = tmp_path / "there.bin", io.BytesIO()

    async def test(client: AsyncClient) -> None:
        assert await client.download(ref_of(data), table="app.docs") == data
        assert await client.download(ref_of(data), table="app.docs", to=path, user="bob ü") is None
        await client.download(ref_of(data), table="app.docs", to=str(path))
        await client.download(ref_of(data), table="app.docs", to=memory)

    run(server, test)
    assert path.read_bytes() == memory.getvalue() == data
    assert list(tmp_path.iterdir()) == [path]
    where = "/v1/files/app/docs/f0001/123"
    assert [request for request, _ in server.requests] == [where, where + "?user_id=bob%20%C3%BC", where, where]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_breaks_off_goes_on(ranges: bool) -> None:
    server = Blobs(DATA, 5000, 0, 0, 70_123 if ranges else 200_000, 0, ranges=ranges)

    async def test(client: AsyncClient) -> None:
        policy = RetryPolicy(attempts=4, base_seconds=0.001)
        assert await client.download(ref_of(DATA), table="app.docs", retry=policy) == DATA

    run(server, test)
    reached = [5000, 5000, 5000, 75_123 if ranges else 200_000, 75_123 if ranges else 200_000]
    assert [asked for _, asked in server.requests] == [None, *(f"bytes={n}-{len(DATA) - 1}" for n in reached)]


def test_a_download_that_does_not_go_on_is_given_up_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "there.bin"
    path.write_bytes(b"before")
    server = Blobs(DATA, 5000, *[0] * 100)

    async def test(client: AsyncClient) -> None:
        with pytest.raises(headrace.ConnectionFailed):
            await client.download(ref_of(DATA), table="app.docs", to=path, retry=SOON)

    run(server, test)
    assert len(server.requests) == 3
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("changed", [DATA[:-1] + b"\x00", DATA[:-1], DATA + b"x", DATA + DATA, b""])
def test_other_bytes_than_the_ref_names(changed: bytes, tmp_path: Path) -> None:
    async def test(client: AsyncClient) -> None:
        with pytest.raises(headrace.DigestMismatch, match=r"a\.bin"):
            await client.download(ref_of(DATA), table="app.docs", to=tmp_path / "there.bin", retry=SOON)

    run(Blobs(changed), test)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("part", [(0, 10), (5, 5), (100, None), (100, 10**9), (len(DATA), None), (0, None)])
def test_a_part(part: tuple[int, int | None], ranges: bool) -> None:
    server = Blobs(DATA, 3, ranges=ranges)

    async def test(client: AsyncClient) -> None:
        found = await client.download(ref_of(DATA), table="app.docs", byte_range=part, retry=SOON)
        assert found == DATA[part[0] : part[1]]

    run(server, test)


def test_parts_that_are_none() -> None:
    async def test(client: AsyncClient) -> None:
        for part in ((-1, 5), (7, 3), (len(DATA) + 1, None)):
            with pytest.raises(ValueError, match="does not lie in"):
                await client.download(ref_of(DATA), table="app.docs", byte_range=part)

    run(Blobs(DATA), test)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, headrace.PermissionDenied), (404, headrace.FileNotFound), (500, headrace.ServerFault)],
)
def test_a_download_that_is_refused(status: int, kind: type[headrace.HeadraceError]) -> None:
    async def test(client: AsyncClient) -> None:
        with pytest.raises(kind, match="because"):
            await client.download(ref_of(DATA), table="app.docs", retry=SOON)

    server = Blobs(DATA, statuses=(status,))
    run(server, test)
    assert len(server.requests) == 1


def test_an_answer_that_does_not_say_what_it_is() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        headers = {"Content-Range": "bytes 90-99/100"} if "second" in str(request.url) else {}
        return httpx.Response(206, headers=headers, content=b"x" * 10)

    async def test(client: AsyncClient) -> None:
        for table in ("app.first", "app.second"):
            with pytest.raises(headrace.InvalidAnswer):
                await client.download(ref_of(DATA), table=table, byte_range=(5, 15))

    run(handler, test)


def test_code_that_blocks_has_it_too(tmp_path: Path) -> None:
    with Client("http://db", transport=httpx.MockTransport(Blobs(DATA, 5)), token="token", namespace="app") as client:
        assert client.download(ref_of(DATA), table="docs") == DATA
        client.download(ref_of(DATA), table="docs", to=tmp_path / "there.bin")
        with pytest.raises(ValueError, match="is no FileRef"):
            client.download({}, table="docs")
    assert (tmp_path / "there.bin").read_bytes() == DATA
    server = Forms()
    with Client("http://db", transport=httpx.MockTransport(server), token="token") as client:
        client.query("INSERT", files={"a": b"x"})
    assert list(server.forms[0]) == ["sql", "file:a"]
