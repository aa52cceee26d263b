"""A client that asks for a stream and then does not read: it loses its stream, nobody else loses anything."""

from __future__ import annotations

import itertools
import json
import socket
import time
from urllib.parse import urlsplit

from tests.e2e.conftest import Serve
from tests.e2e.running import RunningServer

GIVE_UP = 60.0


def open_snapshots(server: RunningServer) -> int:
    sql = "SELECT metric_value FROM system.stats WHERE metric_name = 'storage_open_snapshots'"
    return int(server.rows(sql)[0][0])


def stalled(server: RunningServer) -> socket.socket:
    """Ask for many rows and read only the beginning of the answer."""
    parts = urlsplit(server.url)
    connection = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=GIVE_UP)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    body = json.dumps({"sql": "SELECT * FROM app.wide"}).encode()
    head = (
        f"POST /v1/api/sql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
        f"Accept: application/x-ndjson\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    assert connection.recv(15).startswith(b"HTTP/1.1 200")
    return connection


def test_a_stream_that_nobody_reads_gives_its_snapshot_back(serve: Serve) -> None:
    server = serve(HEADRACE_EXECUTION_STREAM_TIMEOUT_SECONDS="1").set_up()
    server.sql("CREATE NAMESPACE app; CREATE TABLE app.wide (id BIGINT PRIMARY KEY, pad TEXT)")
    server.sql("INSERT INTO app.wide SELECT range, repeat('x', 500) FROM range(60000)")
    with stalled(server):
        assert open_snapshots(server) == 2
        limit = time.monotonic() + GIVE_UP
        for number in itertools.count():
            server.sql("INSERT INTO app.wide VALUES ($1, 'y')", [100_000 + number])
            if open_snapshots(server) == 1:
                break
            assert time.monotonic() < limit, "the stalled stream still holds its snapshot"
    assert server.rows("SELECT COUNT(*) FROM app.wide WHERE pad = 'y'") == [[number + 1]]
    assert server.stop() == 0, server.log()[-2000:]
    assert "Traceback" not in server.log()
