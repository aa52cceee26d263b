"""Who may send requests to topics, and what is none: roles, tokens, malformed bodies. None of it has an effect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conformance import Roles, Visitor, error, roles_of
from tests.e2e.topic_conformance import ACK, CONSUME, PRODUCE, Topics, refusal, short, topic_server

PATHS = [CONSUME, ACK, PRODUCE]
DEEP = 20_000


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topics]:
    with topic_server(tmp_path_factory.mktemp("requests")) as found:
        yield found


@pytest.fixture(scope="module")
def roles(topics: Topics) -> Iterator[Roles]:
    with roles_of(topics.server) as found:
        yield found


def good(topic: str) -> dict[str, dict[str, Any]]:
    """A request for each path that succeeds when the topic holds a message."""
    return {
        CONSUME: {"topic_id": topic, "group_id": "g", "start": "Earliest"},
        ACK: {"topic_id": topic, "group_id": "g", "upto_offset": 0},
        PRODUCE: {"topic_id": topic, "messages": [{"payload": 1}]},
    }


@pytest.fixture(scope="module")
def kept(topics: Topics) -> str:
    """A topic with one message, in which nothing here changes anything."""
    topic = topics.topic()
    topics.fill(topic, 1)
    return topic


@pytest.fixture(autouse=True)
def nothing_changes(topics: Topics, kept: str) -> Iterator[None]:
    """After each test the kept topic is as it was."""
    yield
    assert len(topics.read(kept)) == 1
    assert topics.server.rows("SELECT * FROM system.topic_offsets WHERE topic_id = $1", [kept]) == []


# --- roles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_users_are_refused(topics: Topics, roles: Roles, kept: str, path: str) -> None:
    for body in (good(kept)[path], good("app.nosuch")[path]):
        found = refusal(roles.clients["user"].post(path, json=body))
        assert (found.status, found.code) == (403, "FORBIDDEN")


@pytest.mark.parametrize("role", ["service", "dba", "system"])
def test_those_who_may(topics: Topics, roles: Roles, role: str) -> None:
    topic = topics.topic()
    topics.fill(topic, 1)
    for path in PATHS:
        assert roles.clients[role].post(path, json=good(topic)[path]).status_code == 200
    assert len(topics.read(topic)) == 2
    assert topics.committed(topic, "g") == {0: 0}


# --- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "MISSING_AUTHORIZATION"),
        ({"Cookie": "kalamdb_auth={token}"}, "MISSING_AUTHORIZATION"),
        ({"Authorization": "Basic YWRtaW46QWRtaW5QYXNzMTIzIQ=="}, "INVALID_CREDENTIALS"),
        ({"Authorization": "Bearer"}, "INVALID_CREDENTIALS"),
        ({"Authorization": "Bearer a.b.c"}, "INVALID_CREDENTIALS"),
        ({"Authorization": "Bearer {token}x"}, "INVALID_CREDENTIALS"),
    ],
)
def test_bearer_errors_have_the_shape_of_sql(
    topics: Topics, kept: str, path: str, headers: dict[str, str], code: str
) -> None:
    filled = {name: value.format(token=topics.token) for name, value in headers.items()}
    with Visitor(topics.server.url) as visitor:
        answer = visitor.post(path, json=good(kept)[path], headers=filled)
    found = error(answer)
    assert (found.status, found.code) == (401, code)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_other_methods(topics: Topics, path: str, method: str) -> None:
    answer = topics.client.request(method, path)
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "content",
    [
        b"", b" ", b"{", b"[]", b"null", b"1", b'"x"', b"{}", b"[{}]", b"true", b"\xff\xfe{}", b"\x00", b"{'a':1}",
        b'{"topic_id":"\xff"}', b'{"topic_id":NaN}', b'{"topic_id":"app.t",}', b"[" * DEEP, b'{"a":' * DEEP,
        b'{"x":' + b"[" * DEEP + b"]" * DEEP + b"}",
    ],
    ids=lambda content: repr(content[:20]),
)  # fmt: skip
def test_what_is_no_request(topics: Topics, path: str, content: bytes) -> None:
    found = refusal(topics.client.post(path, content=content, headers={"Content-Type": "application/json"}))
    assert (found.status, found.code) == (400, "INVALID_INPUT")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "wrong",
    [
        "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 400, "-" + "1" * 400, "0x10", "01", "1.", "'x'",
        '"\\ud800"', '"\\x"', "[" * DEEP + "]" * DEEP, "tru",
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_values_that_are_none(topics: Topics, kept: str, path: str, wrong: str) -> None:
    """In place of each field of the request, one after the other."""
    for field in good(kept)[path]:
        body = {**good(kept)[path], field: "PLACE"}
        content = json.dumps(body).replace('"PLACE"', wrong).encode()
        found = refusal(topics.client.post(path, content=content, headers={"Content-Type": "application/json"}))
        assert found.status in {400, 404}, (field, found)
        assert found.code in {"INVALID_INPUT", "NOT_FOUND"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "content_type", ["text/plain", None, "application/x-www-form-urlencoded", "application/msgpack"]
)
def test_other_content_types(topics: Topics, kept: str, path: str, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    found = refusal(topics.client.post(path, content=json.dumps(good(kept)[path]).encode(), headers=headers))
    assert found.status in {400, 415}
    assert found.code == "INVALID_INPUT"


@pytest.mark.parametrize("path", PATHS)
def test_json_content_types_that_clients_send(topics: Topics, path: str) -> None:
    for content_type in ("application/json; charset=utf-8", "Application/JSON"):
        topic = topics.topic()
        topics.fill(topic, 1)
        content = json.dumps(good(topic)[path]).encode()
        assert topics.client.post(path, content=content, headers={"Content-Type": content_type}).status_code == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "name", [None, 1, "", [], {}, True, "x" * 100_000, "app.\x00", "app.ü", 'app."t"', "app.", "."], ids=short
)
def test_names_that_are_no_topic(topics: Topics, path: str, name: Any) -> None:
    found = refusal(topics.client.post(path, json=good(name)[path]))
    assert (found.status, found.code) in {(400, "INVALID_INPUT"), (404, "NOT_FOUND")}
    assert len(found.message) < 1_000
    if not isinstance(name, str):
        assert found.code == "INVALID_INPUT"


def test_a_body_that_is_too_large(topics: Topics, kept: str) -> None:
    body = {"topic_id": kept, "messages": [{"payload": "x" * (33 << 20)}]}
    answer = topics.client.post(PRODUCE, json=body)
    assert answer.status_code == 413
    assert "BODY_TOO_LARGE" in answer.text or "MESSAGE_TOO_LARGE" in answer.text


def test_errors_name_what_is_wrong(topics: Topics, kept: str) -> None:
    wrong: list[tuple[str, dict[str, Any], str]] = [
        (CONSUME, {"limit": "many"}, "limit"),
        (CONSUME, {"limit": 0}, "limit"),
        (CONSUME, {"start": "Sometime"}, "start"),
        (CONSUME, {"partition_id": 9}, "partition"),
        (ACK, {"upto_offset": "x"}, "upto_offset"),
        (ACK, {"partition_id": 9}, "partition"),
        (PRODUCE, {"messages": [{"payload": "!"}]}, "base64"),
        (PRODUCE, {"messages": [{"key": 1, "payload": 1}]}, "key"),
    ]
    for path, change, part in wrong:
        found = refusal(topics.client.post(path, json=good(kept)[path] | change))
        assert (found.status, found.code) == (400, "INVALID_INPUT")
        assert part in found.message, found
