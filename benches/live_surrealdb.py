"""SurrealDB: its engine embedded in a Node service (`surrealdb/service.mjs`), the way it can be installed from here.

Every client has a LIVE SELECT of its own, with the same filter as Headrace's. The engine evaluates it in Rust; each
notification passes through the JavaScript SDK, which a stand-alone SurrealDB server would spare.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from benches.live_client import Receiver, connected, post, receive_until, upgrade
from benches.live_peers import note
from benches.peers import Unavailable
from benches.processes import ServerProcess, descendants, free_port

SERVICE = Path(__file__).with_name("surrealdb")


class LiveSurrealDB:
    """The service and clients of its WebSockets."""

    name = "SurrealDB (embedded)"
    syncs = "yes"

    def __init__(self) -> None:
        self._service: ServerProcess | None = None
        self.port = 0

    def start(self, folder: Path) -> None:
        """Start the service on an empty folder."""
        node = shutil.which("node")
        if node is None or not (SERVICE / "node_modules").is_dir():
            message = "SurrealDB is not installed (Node and `npm install --prefix benches/surrealdb`)"
            raise Unavailable(message)
        self.port = free_port()
        command = [node, str(SERVICE / "service.mjs"), str(self.port), str(folder / "surrealdb")]
        self._service = ServerProcess(command, self.port, folder / "surrealdb.log")
        self._service.start()

    def stop(self) -> None:
        """End the service."""
        if self._service is not None:
            self._service.stop()

    def pids(self) -> list[int]:
        """The service."""
        return descendants(self._service.pid) if self._service else []

    def subscribe(self, program: Path, count: int) -> Receiver:
        """Open WebSockets; the service runs LIVE SELECT for each."""
        sockets = []
        for _ in range(count):
            connection = connected(self.port)
            connection.sendall(upgrade(self.port, "/follow"))
            receive_until(connection, b"subscribed")
            sockets.append(connection)
        return Receiver(program, sockets, "ws")

    def insert(self, number: int, marked: str) -> bytes:
        """POST /notes with one row."""
        return post(self.port, "/notes", note(number, marked))
