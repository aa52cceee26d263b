"""What a strict client of the reference checks on every answer, and clients of all four roles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import httpx

from tests.e2e.running import RunningServer

ROLES = ("user", "service", "dba", "system")
PASSWORD = "GoodPass99"
LONGEST = 400
"""Characters of an answer that a failed assertion shows."""


class Failure(NamedTuple):
    """An error answer, its shape checked."""

    status: int
    code: str
    message: str
    details: str | None


def ok(answer: httpx.Response) -> list[dict[str, Any]]:
    """The results of a success, after every field was checked."""
    assert answer.status_code == 200, answer.text[:LONGEST]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Request-ID"]
    body = answer.json()
    assert set(body) == {"status", "results", "took"}
    assert body["status"] == "success"
    _check_took(body["took"])
    results: list[dict[str, Any]] = body["results"]
    for result in results:
        _check_result(result)
    return results


def error(answer: httpx.Response) -> Failure:
    """An error in the SQL shape, after every field was checked."""
    assert answer.status_code >= 400, answer.text[:LONGEST]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Request-ID"]
    body = answer.json()
    assert set(body) == {"status", "results", "took", "error"}, answer.text[:LONGEST]
    assert (body["status"], body["results"]) == ("error", [])
    _check_took(body["took"])
    found = body["error"]
    assert {"code", "message", "details"} <= set(found) <= {"code", "message", "details", "line", "column",
                                                            "statement", "applied"}  # fmt: skip
    assert found["details"] is None or (isinstance(found["details"], str) and found["details"])
    assert isinstance(found["message"], str)
    assert found["message"]
    return Failure(answer.status_code, found["code"], found["message"], found["details"])


def _check_took(took: object) -> None:
    assert isinstance(took, float)
    assert took >= 0
    assert round(took, 3) == took


def _check_result(result: dict[str, Any]) -> None:
    assert set(result) <= {"schema", "rows", "row_count", "message", "as_user"}
    assert isinstance(result["row_count"], int)
    assert isinstance(result["as_user"], str)
    assert ("rows" in result) == ("schema" in result)
    if "rows" not in result:
        assert isinstance(result["message"], str)
        return
    for index, column in enumerate(result["schema"]):
        assert list(column)[:3] == ["name", "data_type", "index"]
        assert set(column) <= {"name", "data_type", "index", "flags"}
        assert column["index"] == index
        assert set(column.get("flags", ["nn"])) <= {"pk", "nn", "uq"}
    assert len(result["rows"]) == result["row_count"]
    assert all(len(row) == len(result["schema"]) for row in result["rows"])


def message(answer: httpx.Response) -> str:
    """The message of one statement without rows."""
    (result,) = ok(answer)
    assert list(result) == ["row_count", "message", "as_user"]
    assert result["row_count"] == 0
    return str(result["message"])


def columns(result: dict[str, Any]) -> list[str]:
    """The names of a result's columns."""
    return [column["name"] for column in result["schema"]]


class Visitor:
    """A client without a token that keeps no cookies; one connection, as each new httpx client costs 50 ms."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30)

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send a request."""
        self._client.cookies.clear()
        return self._client.request(method, path, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        """Send a GET request."""
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        """Send a POST request."""
        return self.request("POST", path, **more)

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()


class Roles:
    """One client for each role: `user` u1, `service` s1, `dba` admin, `system` root."""

    names: ClassVar = {"user": "u1", "service": "s1", "dba": RunningServer.user, "system": "root"}

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        for role in ("user", "service"):
            server.sql(f"CREATE USER '{self.names[role]}' WITH PASSWORD '{PASSWORD}' ROLE {role}")
        passwords = {"dba": server.password, "system": server.root_password}
        self.clients = {
            role: server.client_of(server.login(self.names[role], passwords.get(role, PASSWORD))) for role in ROLES
        }

    def post(self, role: str, sql: str, params: list[Any] | None = None, **more: Any) -> httpx.Response:
        """Send statements in a role."""
        return self.clients[role].post("/v1/api/sql", json={"sql": sql, "params": params, **more})

    def close(self) -> None:
        """Close the connections."""
        for client in self.clients.values():
            client.close()


@contextmanager
def roles_of(server: RunningServer) -> Iterator[Roles]:
    """Make the accounts and sign in."""
    roles = Roles(server)
    try:
        yield roles
    finally:
        roles.close()
