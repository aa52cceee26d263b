"""Another client of the same server: its point reads are answered while somebody attacks, and afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import httpx

from tests.e2e.running import RunningServer

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds until a client gives up: far beyond what a server should need, however busy the machine is."""

LEAKS = ("Traceback", 'File "', ".py", "__s0", "__s1", "__hr", "duckdb", "sqlglot", "pyarrow", "/tmp/", "/proc/")
"""What no answer may hold, unless the request says it itself."""


class Bystander:
    """A client with a table of its own."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self._client = server.client_of(server.token)
        self._client.timeout = httpx.Timeout(PATIENCE)
        server.sql("CREATE TABLE app.calm (id BIGINT PRIMARY KEY, v TEXT) WITH (TYPE='SHARED')")
        server.sql("INSERT INTO app.calm VALUES (1, 'still here')")
        self.read()  # so that the next one is a known statement

    def read(self) -> None:
        """One point read; it must be answered."""
        answer = self._client.post("/v1/api/sql", json={"sql": "SELECT v FROM app.calm WHERE id = 1"})
        assert answer.status_code == 200, answer.text[:500]
        assert answer.json()["results"][0]["rows"] == [["still here"]]

    def query(self) -> None:
        """One query that needs the query engine; it must be answered."""
        answer = self._client.post("/v1/api/sql", json={"sql": "SELECT count(*), min(v || 'x') FROM app.calm"})
        assert answer.status_code == 200, answer.text[:500]
        assert answer.json()["results"][0]["rows"] == [[1, "still herex"]]

    def watch(self, attack: Callable[[], T]) -> T:
        """Run `attack` in a thread, read all the while and once more, and return what it returned."""
        results: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(attack())
            except BaseException as error:  # noqa: BLE001  it is raised again in the other thread
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            while thread.is_alive():
                self.read()
        finally:
            thread.join()
        self.read()
        if errors:
            raise errors[0]
        return results[0]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def failure(answer: httpx.Response, request: str = "") -> tuple[int, str]:
    """Status and code of an answer that says what went wrong, in the shape of failures and without secrets."""
    text = answer.text
    assert len(text) < 4_000, f"{len(text)} characters: {text[:300]}"
    for leak in LEAKS:
        assert leak not in text or leak in request, text[:1_000]
    body = answer.json()
    if isinstance(body["error"], str):
        assert isinstance(body["message"], str)
        return answer.status_code, body["error"]
    assert (body["status"], body["results"]) == ("error", [])
    assert body["took"] >= 0
    assert body["error"]["message"]
    return answer.status_code, body["error"]["code"]
