"""The topic routes over a stand-in for the hub: what they make of requests, and how they answer."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest

from sql.errors import Overloaded
from sql.topics.messages import Batch, ConsumeRequest, Message
from storage.errors import OffsetOutOfRange, UnknownPartition, UnknownTopic
from storage.topic_definitions import Operation
from storage.topic_runs import Origin
from storage.topic_writes import Produced
from tests.server.fakes import Setting, make

PATH = "/v1/api/topics/"
CONSUME: dict[str, Any] = {"topic_id": "app.orders", "group_id": "g"}
ACK: dict[str, Any] = {"topic_id": "app.orders", "group_id": "g", "partition_id": 2, "upto_offset": 7}
PRODUCE: dict[str, Any] = {"topic_id": "app.orders", "messages": [{"payload": 1}]}
BODIES = {"consume": CONSUME, "ack": ACK, "produce": PRODUCE}


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return make(tmp_path)


def post(setting: Setting, route: str, body: object, token: str = "service", **headers: str) -> httpx.Response:
    sent = {"Content-Type": "application/json", "Authorization": f"Bearer {token}", **headers}
    if isinstance(body, bytes):
        return setting.request("POST", PATH + route, content=body, headers=sent)
    return setting.request("POST", PATH + route, json=body, headers=sent)


def asked(setting: Setting) -> ConsumeRequest:
    (request,) = setting.database.topics.calls[-1]
    assert isinstance(request, ConsumeRequest)
    return request


# --- what all routes do -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", BODIES)
def test_who_may(setting: Setting, route: str) -> None:
    answer = setting.request("POST", PATH + route, json=BODIES[route])
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "MISSING_AUTHORIZATION")
    answer = post(setting, route, BODIES[route], "user")
    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
    assert isinstance(answer.json()["error"], str)
    for role in ("service", "dba", "system"):
        assert post(setting, route, BODIES[route], role).status_code == 200
    assert setting.request("GET", PATH + route).status_code == 405


@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"topic_id": 1}', b"\xff", b"[" * 100_000, b'{"group_id": "g", "upto_offset": 1}'],
    ids=["empty", "broken", "array", "null", "number", "not UTF-8", "deep", "no topic"],
)
def test_broken_bodies(setting: Setting, route: str, body: bytes) -> None:
    answer = post(setting, route, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_INPUT"), answer.text
    assert setting.database.topics.calls == []


@pytest.mark.parametrize("route", BODIES)
def test_the_content_type_is_json(setting: Setting, route: str) -> None:
    headers = {"Content-Type": "text/plain", "Authorization": "Bearer service"}
    answer = setting.request("POST", PATH + route, content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_INPUT")


@pytest.mark.parametrize("name", ["", ".", "app.", ".orders", "x" * 300])
@pytest.mark.parametrize("route", BODIES)
def test_names_that_are_none(setting: Setting, route: str, name: str) -> None:
    answer = post(setting, route, {**BODIES[route], "topic_id": name})
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_INPUT")


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (UnknownTopic("Topic 'app.orders' does not exist"), 404,
         {"error": "Topic 'app.orders' does not exist", "code": "NOT_FOUND"}),
        (UnknownPartition("no partition 5"), 400, {"error": "no partition 5", "code": "INVALID_INPUT"}),
        (OffsetOutOfRange("gone", partition=1, first=5, following=9), 410,
         {"error": "gone", "code": "OFFSET_OUT_OF_RANGE", "partition_id": 1, "first_offset": 5, "next_offset": 9}),
        (Overloaded("busy"), 503, {"error": "busy", "code": "SERVER_OVERLOADED"}),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@pytest.mark.parametrize("route", BODIES)
def test_errors(setting: Setting, route: str, error: Exception, status: int, body: dict[str, object]) -> None:
    setting.database.topics.error = error
    answer = post(setting, route, BODIES[route])
    assert (answer.status_code, answer.json()) == (status, body)


@pytest.mark.parametrize("route", BODIES)
def test_a_defect_says_its_request_id_and_nothing_else(setting: Setting, route: str) -> None:
    setting.database.topics.error = ZeroDivisionError("secret")
    answer = post(setting, route, BODIES[route], **{"X-Request-ID": "abc"})
    assert answer.status_code == 500
    assert answer.json()["code"] == "INTERNAL_ERROR"
    assert answer.json()["request_id"] == "abc"
    assert "secret" not in answer.text


# --- consume ----------------------------------------------------------------------------------------------------------


def test_what_a_consumer_gets(setting: Setting) -> None:
    messages = [
        Message(0, 17, "42", b'{"id":42}', 1_767_225_600_123_456, "alice", Operation.INSERT, 1, None),
        Message(1, 3, None, b"\x00\xff", 5_000, "", Operation.DELETE, 0, Origin("app.other", 2, 9, 3)),
    ]
    setting.database.topics.batch = Batch(messages, True, {0: 18, 1: 4})
    assert post(setting, "consume", CONSUME).json() == {
        "messages": [
            {
                "topic_id": "app.orders", "partition_id": 0, "offset": 17,
                "payload": base64.b64encode(b'{"id":42}').decode(), "key": "42", "timestamp_ms": 1_767_225_600_123,
                "user": "alice", "op": "Insert", "delivery_count": 1,
            },
            {
                "topic_id": "app.orders", "partition_id": 1, "offset": 3, "payload": "AP8=", "key": None,
                "timestamp_ms": 5, "op": "Delete",
                "origin": {"topic_id": "app.other", "partition_id": 2, "offset": 9, "delivery_count": 3},
            },
        ],
        "next_offset": 4,
        "has_more": True,
        "positions": [{"partition_id": 0, "next_offset": 18}, {"partition_id": 1, "next_offset": 4}],
    }  # fmt: skip


def test_what_a_consumer_asks_by_default(setting: Setting) -> None:
    post(setting, "consume", {"topic_id": "Orders"})
    request = asked(setting)
    assert (request.namespace, request.topic, request.group) == ("default", "orders", None)
    assert (request.start, request.limit, request.partition, request.timeout) == (None, 100, None, 0.0)
    assert (request.max_bytes, request.visibility, request.ordered) == (8 << 20, 60.0, False)


@pytest.mark.parametrize(
    ("start", "meant"),
    [("Latest", "latest"), ("EARLIEST", "earliest"), ({"Offset": 3}, 3), ({"offset": 0}, 0), (None, None)],
)
def test_where_a_group_begins(setting: Setting, start: object, meant: object) -> None:
    assert post(setting, "consume", {**CONSUME, "start": start}).status_code == 200
    assert asked(setting).start == meant


@pytest.mark.parametrize(
    "change",
    [
        {"start": "middle"}, {"start": {"Offset": -1}}, {"start": {"Offset": 1, "offset": 2}}, {"start": {"at": 1}},
        {"start": {}}, {"start": {"Offset": "1"}}, {"start": {"Offset": 2**63}}, {"start": 5},
        {"limit": 0}, {"limit": -1}, {"limit": 10_001}, {"limit": "10"}, {"limit": 1.5}, {"limit": None},
        {"partition_id": -1}, {"partition_id": 2**40}, {"partition_id": "0"},
        {"timeout_seconds": -1}, {"timeout_seconds": "10"},
        {"visibility_timeout_seconds": -1}, {"visibility_timeout_seconds": 1e9},
        {"max_bytes": 0}, {"max_bytes": 2**40}, {"ordered": "yes"}, {"consumer_id": ""}, {"consumer_id": "x" * 300},
        {"group_id": ""}, {"group_id": "x" * 256}, {"group_id": 5}, {"group_id": "a\u0000b"},
    ],
    ids=str,
)  # fmt: skip
def test_what_a_consumer_may_not_ask(setting: Setting, change: dict[str, object]) -> None:
    answer = post(setting, "consume", {**CONSUME, **change})
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_INPUT"), answer.text
    assert setting.database.topics.calls == []


def test_a_wait_is_cut_to_the_longest(setting: Setting) -> None:
    post(setting, "consume", {**CONSUME, "timeout_seconds": 1e6})
    assert asked(setting).timeout == 60.0


def test_whose_claims_they_are(setting: Setting) -> None:
    post(setting, "consume", {**CONSUME, "consumer_id": "a"})
    named = asked(setting).holder
    post(setting, "ack", {**ACK, "consumer_id": "a"})
    assert setting.database.topics.calls[-1][5] == named
    post(setting, "consume", {**CONSUME, "consumer_id": "a"}, "dba")
    assert asked(setting).holder != named
    post(setting, "consume", CONSUME)
    connection = asked(setting).holder
    assert connection != named
    post(setting, "ack", ACK)
    assert setting.database.topics.calls[-1][5] == connection


# --- ack --------------------------------------------------------------------------------------------------------------


def test_acknowledging(setting: Setting) -> None:
    assert post(setting, "ack", ACK).json() == {"success": True, "acknowledged_offset": 7}
    call = setting.database.topics.calls[-1]
    assert (call[:5], call[6]) == (("app", "orders", "g", 2, 7), False)
    body = {"topic_id": "app.orders", "group_id": "g", "release": True}
    assert post(setting, "ack", body).json() == {"success": True, "acknowledged_offset": None}
    call = setting.database.topics.calls[-1]
    assert (call[:5], call[6]) == (("app", "orders", "g", 0, None), True)
    post(setting, "ack", {**body, "partition_id": None})
    call = setting.database.topics.calls[-1]
    assert (call[:5], call[6]) == (("app", "orders", "g", None, None), True)


@pytest.mark.parametrize(
    "change",
    [{"upto_offset": None}, {"upto_offset": -1}, {"upto_offset": "7"}, {"upto_offset": 2**64}, {"upto_offset": 1.5},
     {"partition_id": -1}, {"partition_id": None}, {"group_id": ""}, {"group_id": None}],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_acknowledged(setting: Setting, change: dict[str, object]) -> None:
    answer = post(setting, "ack", {**ACK, **change})
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_INPUT"), answer.text


# --- produce ----------------------------------------------------------------------------------------------------------


def test_producing(setting: Setting) -> None:
    body = b"""{"topic_id": "app.orders", "messages": [
        {"payload": "aGk=", "key": "k"}, {"payload": {"a": [1, null]}, "partition_id": 3}, {"payload": 1.50},
        {"payload": null}, {"payload": ""}]}"""
    answer = post(setting, "produce", body)
    results = [{"partition_id": 0, "offset": offset} for offset in range(5)]
    assert answer.json() == {"success": True, "count": 5, "results": results}
    assert setting.database.topics.calls[-1] == (
        "app", "orders",
        [Produced(b"hi", "k"), Produced(b'{"a":[1,null]}', None, 3), Produced(b"1.50"), Produced(b"null"),
         Produced(b"")],
        "service",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("messages", "status", "code"),
    [
        ([], 400, "INVALID_INPUT"),
        ([{"key": "k"}], 400, "INVALID_INPUT"),
        ([{"payload": "not base64!"}], 400, "INVALID_INPUT"),
        ([{"payload": 1, "key": 5}], 400, "INVALID_INPUT"),
        ([{"payload": 1, "partition_id": -1}], 400, "INVALID_INPUT"),
        ([{"payload": 1}, {"payload": "x" * 2_000_000}], 413, "MESSAGE_TOO_LARGE"),
        ([{"payload": [0] * 600_000}], 413, "MESSAGE_TOO_LARGE"),
        ([{"payload": 1, "key": "é" * 3_000}], 413, "MESSAGE_TOO_LARGE"),
        ([{"payload": 1}] * 10_001, 400, "INVALID_INPUT"),
    ],
    ids=["none", "no payload", "not base64", "key", "partition", "large", "large JSON", "long key", "too many"],
)
def test_what_cannot_be_produced(setting: Setting, messages: list[object], status: int, code: str) -> None:
    answer = post(setting, "produce", {"topic_id": "app.orders", "messages": messages})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text[:300]
    assert setting.database.topics.calls == []
