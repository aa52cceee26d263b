"""Load scripts, run by `wrk` itself: every request is what the bench says, and counters are read back."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benches.load import Load, LoadFailed, first_request, lua_string, measure, script
from benches.notes import BODY, batch
from benches.peer_headrace import Headrace
from benches.peer_pocketbase import PocketBase
from benches.peer_postgres import Postgres
from benches.peers import Peer

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
NOTE_7 = {"id": 7, "room": "room-7", "author": "author-7", "body": BODY, "stars": 2}


class Recorder(BaseHTTPRequestHandler):
    """Keeps the bodies of requests; answers 200, or 500 below /broken."""

    protocol_version = "HTTP/1.1"
    bodies: list[bytes]

    def do_POST(self) -> None:  # the name that http.server calls
        self.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.send_response(500 if self.path == "/broken" else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # as in the base class
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[tuple[str, list[bytes]]]:
    bodies: list[bytes] = []
    handler = type("Handler", (Recorder,), {"bodies": bodies})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}", bodies
        finally:
            running.shutdown()
            thread.join()


@needs_wrk
def test_sends_each_request_once_and_stops_at_the_count(server: tuple[str, list[bytes]]) -> None:
    base, bodies = server
    measured = measure(Load(base, 'return "/x", tostring(n)', count=20), connections=1, seconds=30)
    assert measured.requests == 20
    assert bodies == [str(n).encode() for n in range(20)]
    assert 0 < measured.p50 <= measured.p99 <= measured.longest
    assert measured.seconds < 10


@needs_wrk
def test_errors_are_not_measurements(server: tuple[str, list[bytes]]) -> None:
    base, _ = server
    with pytest.raises(LoadFailed, match="requests failed"):
        measure(Load(base, 'return "/broken", "x"', count=3), connections=1, seconds=5)


@needs_wrk
@pytest.mark.parametrize("peer", [Headrace, Postgres, PocketBase])
def test_every_peer_inserts_the_same_row(peer: type[Peer], server: tuple[str, list[bytes]]) -> None:
    running = peer()
    running.base = server[0]  # type: ignore[attr-defined]
    load = running.insert(7)
    assert load is not None
    _, body = first_request(load)
    document = json.loads(body)
    if peer is Headrace:
        assert document["params"] == list(NOTE_7.values())
    else:
        assert document | {"id": int(document["id"])} == NOTE_7


@needs_wrk
@pytest.mark.parametrize("parameters", [True, False])
def test_a_batch_holds_as_many_rows_as_it_says(parameters: bool, server: tuple[str, list[bytes]]) -> None:
    running = Headrace()
    running.base = server[0]
    _, body = first_request(running.insert_batch(0, 100, parameters=parameters))
    document = json.loads(body)
    if parameters:
        assert len(document["params"]) == 500
        assert "$500)" in document["sql"]
    else:
        assert document["sql"].count(BODY) == 100


def test_rows_are_the_same_from_arrow() -> None:
    assert batch(7, 1).to_pylist() == [NOTE_7]


def test_strings_survive_lua() -> None:
    assert lua_string('a"b\\c\nd') == '"a\\"b\\\\c\\nd"'
    assert '["X-A"] = "1"' in script(Load("http://x", 'return "/"', headers={"X-A": "1"}))
