"""Files in other places and of other sizes: an object store, a folder elsewhere, two gigabytes in constant memory."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Serve
from tests.e2e.files_support import FileUser, code_of, staged_files, stored_files, until
from tests.e2e.running import RunningServer

CREATE = "CREATE NAMESPACE app; CREATE USER TABLE app.docs (id TEXT PRIMARY KEY, f FILE)"
PUT = "INSERT INTO app.docs (id, f) VALUES ($1, FILE('f'))"
GIB = 1 << 30


@contextmanager
def object_store(folder: Path) -> Iterator[str]:
    """A local S3 server with a bucket; its endpoint."""
    pytest.importorskip("moto.server", reason="the object store of the tests is moto[server], which is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / "moto.log").open("wb")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    endpoint = f"http://127.0.0.1:{port}"
    try:

        def bucket() -> bool:
            assert process.poll() is None, (folder / "moto.log").read_text()
            try:
                return httpx.put(f"{endpoint}/bucket").status_code == 200
            except httpx.TransportError:
                return False

        until(bucket, 60)
        yield endpoint
    finally:
        process.kill()
        process.wait()
        log.close()


def objects(endpoint: str) -> list[str]:
    """The keys of all objects of the bucket, without the empty ones that stand for folders."""
    listing = httpx.get(f"{endpoint}/bucket?list-type=2").text
    keys = [part.partition("</Key>")[0] for part in listing.split("<Key>")[1:]]
    return [key for key in keys if not key.endswith("/")]


def test_an_object_store(serve: Serve, tmp_path: Path) -> None:
    with object_store(tmp_path) as endpoint:
        host = endpoint.removeprefix("http://")
        running = serve(
            HEADRACE_FILES_STORAGE=f"s3://bucket/files?scheme=http&endpoint_override={host}&region=us-east-1",
            AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_EC2_METADATA_DISABLED="true",
        ).set_up()  # fmt: skip
        running.sql(CREATE)
        user = FileUser(running, running.token)
        content = os.urandom(12 << 20)
        assert user.upload(PUT, {"f": ("a.bin", content)}, ["1"]).is_success
        ref = user.ref("SELECT f FROM app.docs")
        assert [key.rpartition("/")[2] for key in objects(endpoint)] == [f"{ref['id']}-a.bin"]
        assert stored_files(running.data) == []
        assert user.get("app.docs", ref).content == content
        part = user.get("app.docs", ref, headers={"Range": "bytes=5000000-5000009"})
        assert (part.status_code, part.content) == (206, content[5_000_000:5_000_010])
        assert user.upload(PUT, {"f": ("a.bin", b"x")}, ["1"]).status_code == 400
        until(lambda: len(objects(endpoint)) == 1)
        user.http.close()
        running.restart()
        user = FileUser(running, running.token)
        assert user.get("app.docs", ref).content == content
        assert user.sql("DELETE FROM app.docs WHERE true").is_success
        until(lambda: objects(endpoint) == [])
        user.http.close()
        assert httpx.post(f"{endpoint}/moto-api/reset").is_success  # the bucket is gone
        user = FileUser(running, running.token)
        answer = user.upload(PUT, {"f": ("a.bin", b"x")}, ["2"])
        assert code_of(answer) == (503, "STORAGE_UNAVAILABLE")
        assert user.rows("SELECT id FROM app.docs") == []
        user.http.close()
        assert running.stop() == 0
        assert "Traceback" not in running.log(), running.log()


def test_a_folder_elsewhere(serve: Serve, tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm") / f"headrace-test-{os.getpid()}"  # another file system: bytes are copied
    try:
        running = serve(HEADRACE_FILES_STORAGE=elsewhere.as_uri()).set_up()
        running.sql(CREATE)
        user = FileUser(running, running.token)
        assert user.upload(PUT, {"f": ("a.bin", b"abc" * 100_000)}, ["1"]).is_success
        assert stored_files(running.data) == []
        assert user.get("app.docs", user.ref("SELECT f FROM app.docs")).content == b"abc" * 100_000
        assert user.sql("DELETE FROM app.docs WHERE true").is_success
        until(lambda: not any(path.is_file() for path in elsewhere.rglob("*")))
        user.http.close()
        assert running.stop() == 0
    finally:
        subprocess.run(["rm", "-rf", elsewhere], check=True)


def test_a_place_that_is_none(tmp_path: Path) -> None:
    server = RunningServer(tmp_path / "data", changes={"HEADRACE_FILES_STORAGE": "nowhere://x"})
    with pytest.raises(
        AssertionError, match=r"section \[files\], key 'storage': 'nowhere://x' names no place for files"
    ):
        server.start()
    server.kill()


@pytest.mark.slow
def test_two_gigabytes_in_constant_memory(serve: Serve) -> None:
    running = serve(
        HEADRACE_FILES_MAX_SIZE_BYTES=str(3 * GIB), HEADRACE_FILES_MAX_REQUEST_BYTES=str(3 * GIB)
    ).set_up()  # fmt: skip
    running.sql(CREATE)
    user = FileUser(running, running.token)
    assert user.upload(PUT, {"f": ("a.bin", b"x" * 1_000_000)}, ["warm"]).is_success
    assert user.get("app.docs", user.ref("SELECT f FROM app.docs")).is_success
    before = running.memory_mb()
    peak = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], running.memory_mb())
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    block = os.urandom(1 << 20)
    digest = hashlib.sha256()

    def body() -> Iterator[bytes]:
        sql = "INSERT INTO app.docs (id, f) VALUES ('big', FILE('f'))"
        yield f'--xyzxyz\r\nContent-Disposition: form-data; name="sql"\r\n\r\n{sql}\r\n'.encode()
        yield b'--xyzxyz\r\nContent-Disposition: form-data; name="file:f"; filename="big.bin"\r\n\r\n'
        for _ in range(2 * GIB // len(block)):
            digest.update(block)
            yield block
        yield b"\r\n--xyzxyz--\r\n"

    try:
        headers = {"Content-Type": "multipart/form-data; boundary=xyzxyz"}
        answer = user.http.post("/v1/api/sql", content=body(), headers=headers, timeout=280)
        assert answer.status_code == 200, answer.text
        ref = user.ref("SELECT f FROM app.docs WHERE id = 'big'")
        assert (ref["size"], ref["sha256"]) == (2 * GIB, digest.hexdigest())
        received = hashlib.sha256()
        with user.http.stream("GET", f"/v1/files/app/docs/{ref['sub']}/{ref['id']}", timeout=280) as got:
            for piece in got.iter_raw():
                received.update(piece)
        assert received.hexdigest() == ref["sha256"]
    finally:
        done.set()
        watcher.join()
    assert peak[0] - before < 64, (before, peak[0])
    assert user.sql("DELETE FROM app.docs WHERE true").is_success
    until(lambda: stored_files(running.data) == [])
    assert staged_files(running.data) == []
    user.http.close()
    assert running.stop() == 0
