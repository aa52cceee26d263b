"""Headrace itself, as a user starts it, with the request rate limits lifted."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from benches.load import Load, dumps
from benches.notes import LUA_ROW, arrow_stream, batch
from benches.processes import ServerProcess, descendants, free_port
from benches.web import send, send_json

_TABLE = """
CREATE SHARED TABLE bench.{} (
    id BIGINT PRIMARY KEY, room TEXT NOT NULL, author TEXT NOT NULL, body TEXT NOT NULL, stars INT NOT NULL)
"""
_COLUMNS = "(id, room, author, body, stars)"
_READ = "SELECT id, room, author, body, stars FROM bench.{} WHERE id = $1"
_UPDATE = "UPDATE bench.notes SET stars = $2 WHERE id = $1"
USER, USER_PASSWORD = "bench", "Wheel-and-water-1"
FILL_ROWS = 250_000

# A benchmark asks far more often than a well-behaved user may, and in larger statements; everything else is default.
ENVIRONMENT = {
    "HEADRACE_RATE_LIMIT_MAX_QUERIES_PER_SEC": "0",
    "HEADRACE_EXECUTION_MAX_PARAMETERS": "32767",
    "HEADRACE_RATE_LIMIT_MAX_MESSAGES_PER_SEC": "0",
    "HEADRACE_RATE_LIMIT_MAX_SUBSCRIPTIONS_PER_USER": "0",
}


class _Result(msgspec.Struct):
    rows: list[list[object]]


class _Answer(msgspec.Struct):
    results: list[_Result]


class Headrace:
    """One Headrace server with a SHARED table `bench.notes`."""

    name = "Headrace"
    syncs = "yes"

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.base = ""
        self.headers: dict[str, str] = {}
        self._environment = ENVIRONMENT | dict(environment or {})
        self._server: ServerProcess | None = None

    def start(self, folder: Path) -> None:
        """Start, set up, sign in, create the table."""
        port = free_port()
        self.base = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "headrace", "serve", "--data", str(folder / "headrace"), "--port", str(port)]
        self._server = ServerProcess(command, port, folder / "headrace.log", environment=self._environment)
        self._server.start()
        setup = {"user": USER, "password": USER_PASSWORD, "root_password": USER_PASSWORD}
        send_json("POST", f"{self.base}/v1/api/auth/setup", setup)
        login = send_json("POST", f"{self.base}/v1/api/auth/login", {"user": USER, "password": USER_PASSWORD})
        assert isinstance(login, dict)
        self.headers = {"Authorization": f"Bearer {login['access_token']}", "Content-Type": "application/json"}
        self.sql("CREATE NAMESPACE bench")
        self.create_notes("notes")

    def start_again(self) -> float:
        """Start it on the folder that it had, and the tokens that it gave; the seconds until it listens."""
        assert self._server is not None
        began = time.monotonic()
        self._server.start()
        return time.monotonic() - began

    def stop(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.stop()

    def pids(self) -> list[int]:
        """The server."""
        return descendants(self._server.pid) if self._server else []

    def sql(self, text: str, *params: object) -> object:
        """Run one statement."""
        return send_json("POST", f"{self.base}/v1/api/sql", {"sql": text, "params": list(params)}, self.headers)

    def rows(self, text: str, *params: object) -> list[list[object]]:
        """The rows of one query."""
        answer = msgspec.convert(self.sql(text, *params), _Answer)
        return answer.results[0].rows

    def create_notes(self, table: str) -> None:
        """Create a table of the same columns under another name."""
        self.sql(_TABLE.format(table))

    def fill(self, first: int, count: int, table: str = "notes") -> None:
        """Ingest the rows as Arrow."""
        for start in range(first, first + count, FILL_ROWS):
            rows = batch(start, min(FILL_ROWS, first + count - start))
            self.ingest(f"bench/{table}", arrow_stream(rows), "application/vnd.apache.arrow.stream")

    def ingest(self, table: str, body: bytes, content_type: str) -> None:
        """Send one body to the bulk endpoint."""
        headers = self.headers | {"Content-Type": content_type}
        send("POST", f"{self.base}/v1/api/ingest/{table}", body, headers)

    def point_read(self, rows: int, table: str = "notes") -> Load:
        """SELECT by key with a parameter."""
        return self._statement(_READ.format(table), f"'[%d]', any_id({rows})")

    def insert(self, first: int, table: str = "notes") -> Load:
        """INSERT of one row with five parameters."""
        statement = f"INSERT INTO bench.{table} {_COLUMNS} VALUES ($1, $2, $3, $4, $5)"
        return self._statement(statement, f'\'[%d,"%s","%s","%s",%d]\', note({first} + n)')

    def insert_batch(self, first: int, size: int, *, parameters: bool, table: str = "notes") -> Load:
        """INSERT of `size` rows with 5 x `size` parameters, or with literal values."""
        if parameters:
            row = '%d,"%s","%s","%s",%d'
            places = ", ".join(f"({', '.join(f'${5 * i + j}' for j in range(1, 6))})" for i in range(size))
            head = f'{{"sql":{dumps(f"INSERT INTO bench.{table} {_COLUMNS} VALUES {places}")},"params":['
            tail = "]}"
        else:
            row = "(%d,'%s','%s','%s',%d)"
            head, tail = f'{{"sql":"INSERT INTO bench.{table} {_COLUMNS} VALUES ', '"}'
        body = (
            f"local rows = {{}}\nfor i = 1, {size} do"
            f" rows[i] = string.format([[{row}]], note({first} + n * {size} + i)) end\n"
            f'return "/v1/api/sql", head .. table.concat(rows, ",") .. [[{tail}]]'
        )
        setup = f"{LUA_ROW}\nlocal head = [[{head}]]"
        return Load(self.base, body, setup=setup, headers=self.headers)

    def update(self, rows: int) -> Load:
        """UPDATE by key with two parameters."""
        return self._statement(_UPDATE, f"'[%d,%d]', any_id({rows}), n % 5")

    def query(self, text: str, accept: str = "application/json") -> Load:
        """The same statement in every request."""
        body = f'return "/v1/api/sql", [[{dumps({"sql": text})}]]'
        return Load(self.base, body, headers=self.headers | {"Accept": accept})

    def _statement(self, text: str, params: str) -> Load:
        head = f'{{"sql":{dumps(text)},"params":'
        body = f'return "/v1/api/sql", [[{head}]] .. string.format({params}) .. "}}"'
        return Load(self.base, body, setup=LUA_ROW, headers=self.headers)
