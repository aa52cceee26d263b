"""PocketBase's realtime: clients hold an event stream and name the topics that they follow. Public rules, no filter."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from benches.live_client import ClientFailed, Receiver, connected, post, receive_until, request_head
from benches.live_peers import note
from benches.peer_pocketbase import PocketBase
from benches.web import send_json


class LivePocketBase:
    """PocketBase and clients of its `/api/realtime`."""

    name = "PocketBase"
    syncs = "no"

    def __init__(self) -> None:
        self._server = PocketBase()
        self.port = 0

    def start(self, folder: Path) -> None:
        """Start the server with its public collection."""
        self._server.start(folder)
        self.port = urlsplit(self._server.base).port or 0

    def stop(self) -> None:
        """End the server."""
        self._server.stop()

    def pids(self) -> list[int]:
        """The server."""
        return self._server.pids()

    def subscribe(self, program: Path, count: int) -> Receiver:
        """Open an event stream, read the client's id from its first event, name the topic for that id."""
        sockets = []
        for _ in range(count):
            connection = connected(self.port)
            connection.sendall(request_head("GET", self.port, "/api/realtime", {"Accept": "text/event-stream"}))
            client = re.search(rb'"clientId":"([^"]+)"', receive_until(connection, b"\n\n", b'"}'))
            if client is None:
                message = "PocketBase's first event carries no client id"
                raise ClientFailed(message)
            topics = {"clientId": client[1].decode(), "subscriptions": ["notes/*"]}
            send_json("POST", f"{self._server.base}/api/realtime", topics)
            sockets.append(connection)
        return Receiver(program, sockets, "stream")

    def insert(self, number: int, marked: str) -> bytes:
        """POST one record."""
        row = note(number, marked) | {"id": f"{number:015d}"}
        return post(self.port, "/api/collections/notes/records", row)
