"""The HTTP face as existing clients see it: bodies, methods, headers, bearer rules, multipart, CORS, raw HTTP/1.1."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.conformance import LONGEST, Visitor, error, ok
from tests.e2e.running import RunningServer

SQL = "/v1/api/sql"
ORIGIN = {"Origin": "https://app.example"}


@pytest.fixture(scope="module")
def visitor(server: RunningServer) -> Iterator[Visitor]:
    with Visitor(server.url) as client:
        yield client


def send(server: RunningServer, content: bytes, content_type: str | None) -> httpx.Response:
    headers = {} if content_type is None else {"Content-Type": content_type}
    return server.client.post(SQL, content=content, headers=headers)


@pytest.mark.parametrize(
    "body",
    [
        {"sql": "SELECT 1"},
        {"sql": "SELECT 1", "params": None, "namespace_id": None},
        {"sql": "SELECT 1", "params": [], "namespace_id": ""},
        {"sql": "SELECT $1", "params": [1], "namespace_id": "default", "timeout": 5, "x": {"y": [1]}},
        {"namespace_id": "nowhere", "sql": "\n\tselect 1 ;\n"},
    ],
)
def test_bodies_that_clients_send(server: RunningServer, body: dict[str, Any]) -> None:
    (result,) = ok(server.client.post(SQL, json=body))
    assert result["rows"] == [[1]]


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8", "Application/JSON",
     "application/json ; charset=utf-8"],
)  # fmt: skip
def test_json_content_types(server: RunningServer, content_type: str) -> None:
    assert ok(send(server, b'{"sql":"SELECT 1"}', content_type))[0]["rows"] == [[1]]


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b'{"sql":"SELECT 1"}', "text/plain"),
        (b'{"sql":"SELECT 1"}', None),
        (b"sql=SELECT+1", "application/x-www-form-urlencoded"),
        (b"SELECT 1", "application/sql"),
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"{}", "application/json"),
        (b"null", "application/json"),
        (b'"SELECT 1"', "application/json"),
        (b'{"sql":null}', "application/json"),
        (b'{"sql":1}', "application/json"),
        (b'{"sql":["SELECT 1"]}', "application/json"),
        (b'{"query":"SELECT 1"}', "application/json"),
        (b'{"sql":"SELECT 1","params":{}}', "application/json"),
        (b'{"sql":"SELECT 1","params":"1"}', "application/json"),
        (b'{"sql":"SELECT 1","namespace_id":5}', "application/json"),
        (b'{"sql":"SELECT 1"} trailing', "application/json"),
        (b"{'sql':'SELECT 1'}", "application/json"),
        (b"\xff\xfe{}", "application/json"),
        (b'{"sql":"\xff"}', "application/json"),
        (b'{"sql":NaN}', "application/json"),
    ],
)
def test_unreadable_payloads(server: RunningServer, content: bytes, content_type: str | None) -> None:
    found = error(send(server, content, content_type))
    assert (found.status, found.code) == (400, "INVALID_INPUT")
    assert found.message.startswith("Invalid JSON payload: ")
    assert found.details is None


@pytest.mark.parametrize(
    ("headers", "code", "message"),
    [
        ({}, "MISSING_AUTHORIZATION", "Authentication required"),
        ({"Cookie": "kalamdb_auth={token}"}, "MISSING_AUTHORIZATION", "Authentication required"),
        ({"Cookie": "headrace_auth={token}"}, "MISSING_AUTHORIZATION", "Authentication required"),
        ({"Authorization": "Basic YWRtaW46QWRtaW5QYXNzMTIzIQ=="}, "INVALID_CREDENTIALS", "Invalid credentials"),
        ({"Authorization": "Bearer"}, "INVALID_CREDENTIALS", "Invalid credentials"),
        ({"Authorization": "Bearer a.b.c"}, "INVALID_CREDENTIALS", "Invalid credentials"),
        ({"Authorization": "{token}"}, "INVALID_CREDENTIALS", "Invalid credentials"),
        ({"Authorization": "Bearer {token}x"}, "INVALID_CREDENTIALS", "Invalid credentials"),
    ],
)
def test_bearer_errors(
    server: RunningServer, visitor: Visitor, headers: dict[str, str], code: str, message: str
) -> None:
    filled = {name: value.format(token=server.token) for name, value in headers.items()}
    answer = visitor.post(SQL, json={"sql": "SELECT 1"}, headers=filled)
    found = error(answer)
    assert found == (401, code, message, None)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("scheme", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer  {}"])
def test_the_scheme_is_case_insensitive(server: RunningServer, visitor: Visitor, scheme: str) -> None:
    headers = {"Authorization": scheme.format(server.token)}
    assert ok(visitor.post(SQL, json={"sql": "SELECT 1"}, headers=headers))


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (SQL, {"POST"}),
        ("/v1/api/auth/login", {"POST"}),
        ("/v1/api/auth/refresh", {"POST"}),
        ("/v1/api/auth/logout", {"POST"}),
        ("/v1/api/auth/setup", {"POST"}),
        ("/v1/api/auth/me", {"GET", "HEAD"}),
        ("/v1/api/auth/status", {"GET", "HEAD"}),
        ("/health", {"GET", "HEAD"}),
        ("/v1/api/healthcheck", {"GET", "HEAD"}),
        ("/v1/api/cluster/health", {"GET", "HEAD"}),
    ],
)
def test_methods(visitor: Visitor, path: str, allowed: set[str]) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = visitor.request(method, path)
        assert answer.headers["X-Request-ID"]
        if method in allowed:
            assert answer.status_code != 405, method
            continue
        assert answer.status_code == 405, method
        assert {word.strip() for word in answer.headers["Allow"].split(",")} == allowed
        if method != "HEAD":
            assert set(answer.json()) == {"error", "message"}
            assert answer.json()["error"] == "METHOD_NOT_ALLOWED"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{SQL}/"), ("POST", f"/{SQL}"), ("POST", "/v1/api/SQL"), ("POST", "/v1/api/auth/login/"),
        ("GET", "/health/"), ("GET", "/"), ("GET", "/v1"), ("GET", "/v1/api"), ("GET", "/healthz"), ("GET", "/readyz"),
        ("GET", "/v2/api/sql"), ("GET", "/v1/ws/"), ("GET", "/ui"), ("GET", "/ui/index.html"),
        ("POST", "/v1/api/topics"), ("POST", "/v1/api/topics/consume/"), ("POST", "/v1/api/topics/nack"),
    ],
)  # fmt: skip
def test_routes_that_are_not_there(server: RunningServer, method: str, path: str) -> None:
    answer = server.client.request(method, server.url + path, json={"sql": "SELECT 1"} if method == "POST" else None)
    assert answer.status_code == 404
    assert set(answer.json()) == {"error", "message"}
    assert answer.json()["error"] == "NOT_FOUND"
    assert answer.headers["X-Request-ID"]


def test_every_answer_carries_the_request_id(server: RunningServer, visitor: Visitor) -> None:
    mine = {"X-Request-ID": "client-7"}
    answers = [
        server.client.post(SQL, json={"sql": "SELECT 1"}, headers=mine),
        server.client.post(SQL, json={"sql": "SELEC"}, headers=mine),
        visitor.post(SQL, json={"sql": "SELECT 1"}, headers=mine),
        server.client.get("/nowhere", headers=mine),
        server.client.get(SQL, headers=mine),
        server.client.get("/health", headers=mine),
        server.client.post("/v1/api/auth/login", json={}, headers=mine),
        server.client.options(SQL, headers={**mine, **ORIGIN, "Access-Control-Request-Method": "POST"}),
    ]
    assert [answer.status_code for answer in answers] == [200, 400, 401, 404, 405, 200, 400, 204]
    assert {answer.headers["X-Request-ID"] for answer in answers} == {"client-7"}
    assert {answer.headers["X-Content-Type-Options"] for answer in answers} == {"nosniff"}
    own = [server.client.get("/health").headers["X-Request-ID"] for _ in range(3)]
    assert len(set(own)) == 3


def test_a_preflight_lets_browsers_send_what_they_need(visitor: Visitor) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    for path in (SQL, "/v1/api/auth/login", "/v1/api/topics/consume"):
        answer = visitor.request("OPTIONS", path, headers={**ORIGIN, **asked})
        assert answer.status_code == 204
        assert answer.content == b""
        assert answer.headers["Access-Control-Allow-Origin"] in {"*", ORIGIN["Origin"]}
        assert "POST" in answer.headers["Access-Control-Allow-Methods"].split(", ")
        allowed = {name.lower() for name in answer.headers["Access-Control-Allow-Headers"].split(", ")}
        assert {"authorization", "content-type", "accept", "origin", "x-requested-with"} <= allowed
        assert answer.headers["Access-Control-Max-Age"] == "3600"


def test_answers_to_other_origins_can_be_read(server: RunningServer, visitor: Visitor) -> None:
    answers = [
        server.client.post(SQL, json={"sql": "SELECT 1"}, headers=ORIGIN),
        server.client.post(SQL, json={"sql": "SELEC"}, headers=ORIGIN),
        visitor.post(SQL, json={"sql": "SELECT 1"}, headers=ORIGIN),
        server.client.get("/nowhere", headers=ORIGIN),
    ]
    assert all(answer.headers["Access-Control-Allow-Origin"] in {"*", ORIGIN["Origin"]} for answer in answers)
    assert "Access-Control-Allow-Origin" not in server.client.get("/health").headers


@pytest.mark.parametrize(
    "accept",
    ["*/*", "application/json", "application/json, text/plain, */*", "text/html,application/xhtml+xml,*/*;q=0.8", ""],
)
def test_accept_headers_of_clients(server: RunningServer, accept: str) -> None:
    assert ok(server.client.post(SQL, json={"sql": "SELECT 1"}, headers={"Accept": accept}))


@pytest.mark.parametrize("encoding", ["gzip", "gzip, deflate, br, zstd", "identity", "*"])
def test_accepted_encodings(server: RunningServer, encoding: str) -> None:
    sql = "SELECT repeat('x', 100000) AS v"
    (result,) = ok(server.client.post(SQL, json={"sql": sql}, headers={"Accept-Encoding": encoding}))
    assert len(result["rows"][0][0]) == 100_000


def parts(**fields: str) -> dict[str, tuple[None, str]]:
    return {name: (None, value) for name, value in fields.items()}


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ({"sql": "SELECT 1"}, [[1]]),
        ({"sql": "SELECT $1, $2", "params": '[5, "a"]'}, [[5, "a"]]),
        ({"sql": "SELECT 1", "params": ""}, [[1]]),
        ({"sql": "SELECT 1", "params": "null"}, [[1]]),
        ({"sql": "SELECT 1", "namespace_id": ""}, [[1]]),
        ({"sql": "SELECT count(*) FROM users WHERE user_id = 'admin'", "namespace_id": "system"}, [[1]]),
        ({"note": "ignored", "sql": "SELECT 1"}, [[1]]),
    ],
)
def test_multipart(server: RunningServer, fields: dict[str, str], rows: list[Any]) -> None:
    assert ok(server.client.post(SQL, files=parts(**fields)))[0]["rows"] == rows


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({"params": "[1]"}, "EMPTY_SQL", "SQL statement is required"),
        ({"sql": ""}, "EMPTY_SQL", "No SQL statements provided"),
        ({"sql": "SELECT $1", "params": "[1"}, "INVALID_PARAMETER", "Invalid params JSON: "),
        ({"sql": "SELECT $1", "params": '{"a":1}'}, "INVALID_PARAMETER", "Params must be a JSON array"),
        ({"sql": "SELECT $1", "params": "5"}, "INVALID_PARAMETER", "Params must be a JSON array"),
        ({"sql": "SELECT 1", "file:doc": "x"}, "EXTRA_FILE", "Part 'file:doc'"),
    ],
)
def test_multipart_mistakes(server: RunningServer, fields: dict[str, str], code: str, message: str) -> None:
    found = error(server.client.post(SQL, files=parts(**fields)))
    assert (found.status, found.code) == (400, code)
    assert found.message.startswith(message)


@pytest.mark.parametrize("path", ["/health", "/v1/api/healthcheck"])
def test_health(visitor: Visitor, path: str) -> None:
    answer = visitor.get(path)
    assert answer.headers["Content-Type"] == "application/json"
    assert list(answer.json()) == ["status", "version", "api_version", "build_date"]
    assert all(isinstance(value, str) for value in answer.json().values())
    assert visitor.request("HEAD", path).content == b""


def test_cluster_health(visitor: Visitor) -> None:
    body = visitor.get("/v1/api/cluster/health").json()
    numbers = ("total_groups", "groups_leading", "current_term", "last_applied", "millis_since_quorum_ack")
    assert {"status", "version", "build_date", "is_cluster_mode", "cluster_id", "node_id", "is_leader", "nodes",
            *numbers} <= set(body)  # fmt: skip
    assert (body["status"], body["is_cluster_mode"], body["is_leader"]) == ("healthy", False, True)
    assert all(isinstance(body[name], int) for name in numbers)
    (node,) = body["nodes"]
    assert {"node_id", "role", "status", "api_addr", "is_self", "is_leader", "replication_lag", "catchup_progress_pct",
            "hostname", "memory_usage_mb", "cpu_usage_percent", "uptime_seconds",
            "uptime_human"} <= set(node)  # fmt: skip
    assert (node["is_self"], node["is_leader"], node["node_id"]) == (True, True, body["node_id"])


# --- HTTP/1.1 by hand -------------------------------------------------------------------------------------------------


class Wire:
    """A connection that sends bytes and reads whole answers."""

    def __init__(self, server: RunningServer) -> None:
        url = urlsplit(server.url)
        assert url.hostname
        assert url.port
        self.host = url.netloc
        self.token = server.token
        self.socket = socket.create_connection((url.hostname, url.port), timeout=20)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def head(self, *more: str, version: str = "1.1") -> bytes:
        lines = [f"POST {SQL} HTTP/{version}", f"Host: {self.host}", "User-Agent: curl/8.5.0", "Accept: */*",
                 f"Authorization: Bearer {self.token}", "Content-Type: application/json", *more]  # fmt: skip
        return "\r\n".join([*lines, "", ""]).encode()

    def read(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self.file.readline().split()[1])
        headers: dict[str, str] = {}
        while (line := self.file.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, self.file.read(int(headers.get("content-length", 0)))


BODY = b'{"sql":"SELECT 1 AS one"}'


def test_expect_100_continue(server: RunningServer) -> None:
    with Wire(server) as wire:
        wire.socket.sendall(wire.head(f"Content-Length: {len(BODY)}", "Expect: 100-continue"))
        assert wire.read()[0] == 100
        wire.socket.sendall(BODY)
        status, _, body = wire.read()
        assert (status, json.loads(body)["results"][0]["rows"]) == (200, [[1]])


def test_a_body_that_announces_too_much_is_refused_at_once(server: RunningServer) -> None:
    with Wire(server) as wire:
        wire.socket.sendall(wire.head(f"Content-Length: {1 << 40}", "Expect: 100-continue", "X-Request-ID: client-8"))
        status, headers, content = wire.read()
    assert (status, headers["x-request-id"]) == (413, "client-8")
    body = json.loads(content)
    assert (body.pop("size_bytes"), body.pop("max_bytes")) == (1 << 40, 33_554_432)
    assert body == {"error": "BODY_TOO_LARGE", "message": "Request body exceeds maximum allowed size"}


def test_one_connection_serves_many_requests_whatever_their_outcome(server: RunningServer) -> None:
    with Wire(server) as wire:
        for content, expected in ((BODY, 200), (b'{"sql":"SELEC"}', 400), (b"{", 400), (BODY, 200)) * 3:
            wire.socket.sendall(wire.head(f"Content-Length: {len(content)}") + content)
            status, headers, _ = wire.read()
            assert status == expected
            assert headers.get("connection", "keep-alive") == "keep-alive"


def test_pipelined_requests_are_answered_in_order(server: RunningServer) -> None:
    bodies = [json.dumps({"sql": f"SELECT {number}"}).encode() for number in range(8)]
    with Wire(server) as wire:
        wire.socket.sendall(b"".join(wire.head(f"Content-Length: {len(body)}") + body for body in bodies))
        rows = [json.loads(wire.read()[2])["results"][0]["rows"] for _ in bodies]
        assert rows == [[[number]] for number in range(8)]


def test_chunked_bodies_old_clients_and_closing(server: RunningServer) -> None:
    with Wire(server) as wire:
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:])) + b"0\r\n\r\n"
        wire.socket.sendall(wire.head("Transfer-Encoding: chunked") + chunks)
        assert wire.read()[0] == 200
        wire.socket.sendall(wire.head(f"Content-Length: {len(BODY)}", "Connection: close") + BODY)
        assert wire.read()[0] == 200
        assert wire.file.read() == b""
    with Wire(server) as wire:
        wire.socket.sendall(wire.head(f"Content-Length: {len(BODY)}", version="1.0") + BODY)
        assert wire.read()[0] == 200
        assert wire.file.read() == b""


def test_a_browser_request(server: RunningServer) -> None:
    headers = {
        **ORIGIN, "Content-Type": "application/json;charset=UTF-8", "Referer": "https://app.example/", "DNT": "1",
        "Accept-Language": "en", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "cross-site", "Cookie": "a=b; c=",
    }  # fmt: skip
    answer = server.client.post(SQL, content='{"sql":"SELECT \'é\' AS v"}'.encode(), headers=headers)
    assert ok(answer)[0]["rows"] == [["é"]], answer.text[:LONGEST]
