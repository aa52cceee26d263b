"""PostgreSQL with its default durability, behind the same Starlette and uvicorn, through an asyncpg pool."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from benches.load import Load
from benches.notes import LUA_ROW, batch
from benches.peer_echo import uvicorn_command
from benches.peers import Unavailable
from benches.processes import ServerProcess, descendants, free_port

_ROW = '{"id":%d,"room":"%s","author":"%s","body":"%s","stars":%d}'
_JSON = {"Content-Type": "application/json"}


def _programs() -> Path:
    """The folder of Debian's newest PostgreSQL server programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: float(p.parts[-3]))
    if not found:
        message = "PostgreSQL is not installed (apt-get install postgresql)"
        raise Unavailable(message)
    return found[-1].parent


class Postgres:
    """PostgreSQL and the hand-written service in front of it."""

    name = "PostgreSQL + asyncpg"
    syncs = "yes"

    def __init__(self) -> None:
        self.base = ""
        self._port = 0
        self._database: ServerProcess | None = None
        self._service: ServerProcess | None = None

    def start(self, folder: Path) -> None:
        """Start the database and the service."""
        self.start_database(folder)
        port = free_port()
        self.base = f"http://127.0.0.1:{port}"
        self._service = ServerProcess(
            uvicorn_command("benches.postgres_application:application", port),
            port,
            folder / "postgres-service.log",
            environment={"DATABASE_DSN": self.dsn()},
        )
        self._service.start()

    def start_database(self, folder: Path) -> None:
        """Initialise a cluster and start it, as user `postgres` when we are root."""
        programs = _programs()
        user = "postgres" if os.geteuid() == 0 else None
        home = folder / "postgres"
        home.mkdir()
        if user:
            shutil.chown(home, user, user)
        data = home / "data"
        subprocess.run(
            [programs / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"],
            check=True,
            capture_output=True,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            cwd=home,
        )
        self._port = free_port()
        self._database = ServerProcess(
            [str(programs / "postgres"), "-D", str(data), "-p", str(self._port), "-k", str(home), "-h", "127.0.0.1"],
            self._port,
            folder / "postgres.log",
            user=user,
            directory=home,
        )
        self._database.start()

    def stop(self) -> None:
        """End the service, then the database."""
        for server in (self._service, self._database):
            if server is not None:
                server.stop()

    def pids(self) -> list[int]:
        """The postmaster and its backends."""
        return descendants(self._database.pid) if self._database else []

    def fill(self, first: int, count: int) -> None:
        """COPY the rows as CSV."""
        self.copy("notes", batch(first, count))

    def copy(self, table: str, rows: pa.Table) -> None:
        """COPY an Arrow table into a table of the same columns."""
        sink = pa.BufferOutputStream()
        pyarrow.csv.write_csv(rows, sink, pyarrow.csv.WriteOptions(include_header=False))
        self.execute(f"COPY {table} FROM STDIN (FORMAT csv)", sink.getvalue())

    def execute(self, sql: str, data: bytes | pa.Buffer = b"") -> None:
        """Run one statement through psql."""
        command = [str(_programs() / "psql"), self.dsn(), "-q", "-v", "ON_ERROR_STOP=1", "-c", sql]
        subprocess.run(command, input=memoryview(data), check=True, capture_output=True)

    def point_read(self, rows: int) -> Load:
        """GET /notes/{id}."""
        return Load(self.base, f'return "/notes/" .. any_id({rows})', method="GET", setup=LUA_ROW)

    def insert(self, first: int) -> Load:
        """POST /notes with one row."""
        body = f"return \"/notes\", string.format('{_ROW}', note({first} + n))"
        return Load(self.base, body, setup=LUA_ROW, headers=_JSON)

    def insert_batch(self, first: int, size: int, *, parameters: bool) -> Load:
        """POST /notes/many with an array of rows; one INSERT from unnest()."""
        del parameters  # the service always binds
        body = (
            f"local rows = {{}}\nfor i = 1, {size} do rows[i] = string.format('{_ROW}', note({first} + n * {size} + i))"
            ' end\nreturn "/notes/many", "[" .. table.concat(rows, ",") .. "]"'
        )
        return Load(self.base, body, setup=LUA_ROW, headers=_JSON)

    def update(self, rows: int) -> Load:
        """PATCH /notes/{id}."""
        body = f'return "/notes/" .. any_id({rows}), string.format(\'{{"stars":%d}}\', n % 5)'
        return Load(self.base, body, method="PATCH", setup=LUA_ROW, headers=_JSON)

    def dsn(self) -> str:
        """How clients reach the database."""
        return f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
