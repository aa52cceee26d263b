"""The systems of the live benches write the same row, and a bench runs against a real server."""

from __future__ import annotations

import json
import shutil

import pytest

from benches import live_latency
from benches.live_client import marker
from benches.live_notify import LiveNotify
from benches.live_peers import LiveHeadrace, note
from benches.live_pocketbase import LivePocketBase
from benches.live_runs import LIVE_PEERS
from benches.live_surrealdb import LiveSurrealDB
from benches.runner import SYSTEMS, Options

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def body_of(request: bytes) -> dict[str, object]:
    head, _, body = request.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    document: dict[str, object] = json.loads(body)
    return document


def test_every_system_can_be_chosen() -> None:
    assert set(LIVE_PEERS) <= set(SYSTEMS)


@pytest.mark.parametrize("peer", [LiveNotify(), LiveSurrealDB(), LivePocketBase()])
def test_every_peer_inserts_the_same_row(peer: LiveNotify | LiveSurrealDB | LivePocketBase) -> None:
    document = body_of(peer.insert(7, marker(5)))
    assert document | {"id": int(str(document["id"]))} == note(7, "@0000000000000005")


def test_headrace_inserts_it_with_parameters() -> None:
    peer = LiveHeadrace()
    peer.server.headers = {"Authorization": "Bearer x"}
    document = body_of(peer.insert(7, marker(5)))
    assert document["params"] == list(note(7, "@0000000000000005").values())


@needs_gcc
def test_every_change_reaches_its_client() -> None:
    [report] = live_latency.run(Options(rounds=1, seconds=0.1))
    answered, received, difference = report.rows
    assert answered.figure > 0
    assert received.figure > 0
    assert difference.figure < received.figure
    assert "aim: received less answered: at most 2" in str(report)
