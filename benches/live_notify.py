"""The floor of the benches of live queries: `notify_application` over a PostgreSQL with its default durability."""

from __future__ import annotations

from pathlib import Path

from benches.live_client import Receiver, connected, post, receive_until, upgrade
from benches.live_peers import note
from benches.peer_echo import uvicorn_command
from benches.peer_postgres import Postgres
from benches.processes import ServerProcess, descendants, free_port


class LiveNotify:
    """PostgreSQL and the hand-written service that broadcasts its notifications."""

    name = "Starlette + LISTEN/NOTIFY"
    syncs = "yes"

    def __init__(self) -> None:
        self._database = Postgres()
        self._service: ServerProcess | None = None
        self.port = 0

    def start(self, folder: Path) -> None:
        """Start the database, then the service that listens."""
        self._database.start_database(folder)
        self.port = free_port()
        self._service = ServerProcess(
            uvicorn_command("benches.notify_application:application", self.port),
            self.port,
            folder / "notify-service.log",
            environment={"DATABASE_DSN": self._database.dsn()},
        )
        self._service.start()

    def stop(self) -> None:
        """End the service, then the database."""
        if self._service is not None:
            self._service.stop()
        self._database.stop()

    def pids(self) -> list[int]:
        """The service, then the postmaster and its backends."""
        return [*(descendants(self._service.pid) if self._service else []), *self._database.pids()]

    def subscribe(self, program: Path, count: int) -> Receiver:
        """Open WebSockets; every one gets every row."""
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
