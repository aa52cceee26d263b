"""Errors, limits and bad input: what ends a message, a subscription or a connection, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count

import pytest

from tests.e2e.live_conformance import Socket, member, unlimited_server
from tests.e2e.running import RunningServer

ACCOUNTS = count(1)
NOTES = "SELECT * FROM app.notes"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    changes = {"HEADRACE_RATE_LIMIT_MAX_MESSAGES_PER_SEC": "50", "HEADRACE_RATE_LIMIT_MAX_SUBSCRIPTIONS_PER_USER": "10",
               "HEADRACE_SECURITY_MAX_WS_MESSAGE_SIZE": "4096",
               "HEADRACE_WEBSOCKET_MAX_SUBSCRIPTIONS_PER_CONNECTION": "8"}  # fmt: skip
    with unlimited_server(tmp_path_factory.mktemp("limits"), **changes) as running:
        running.sql("CREATE NAMESPACE app; CREATE USER TABLE app.notes (id INT PRIMARY KEY, body TEXT)")
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Socket]:
    """One of a user of its own, whose limits are its own."""
    with Socket(server, member(server, f"u{next(ACCOUNTS)}")) as found:
        yield found


# --- limits -----------------------------------------------------------------------------------------------------------


def test_subscriptions_of_a_user_over_all_connections(server: RunningServer) -> None:
    token = member(server, "many")
    with Socket(server, token) as first, Socket(server, token) as second:
        for name in range(8):
            first.subscribe(NOTES, {}, f"a{name}")
        code, message = first.refused(NOTES, {}, "a8")  # of the connection
        assert code == "SUBSCRIPTION_LIMIT_EXCEEDED"
        assert "Maximum subscriptions reached" in message
        first.subscribe(NOTES, {}, "a0")  # in the place of another
        second.subscribe(NOTES)
        kept = second.subscribe(NOTES)
        assert second.refused(NOTES)[0] == "SUBSCRIPTION_LIMIT_EXCEEDED"  # of the user
        second.send("unsubscribe", subscription_id=kept.name)
        second.subscribe(NOTES)
        assert second.refused(NOTES)[0] == "SUBSCRIPTION_LIMIT_EXCEEDED"
    with Socket(server, token) as third:
        # A connection that ended gives its share back, as soon as the server has seen its end.
        while third.ask(NOTES, {}, "again").next()["type"] == "error":
            third.barrier()


def test_a_subscription_that_is_refused_counts_for_nothing(client: Socket) -> None:
    for _ in range(12):
        assert client.refused("SELECT * FROM app.nosuch")[0] == "NOT_FOUND"
    assert client.subscribe(NOTES, {}).rows == []


def test_a_message_that_is_too_large(client: Socket) -> None:
    client.subscribe(NOTES, {})
    for text in ("x" * 4097, json.dumps({"type": "ping", "id": "y" * 40_000}), "é" * 2049):
        client.wire.send(text)
        assert client.next("protocol")["code"] == "MESSAGE_TOO_LARGE"
    client.wire.send(json.dumps({"type": "ping", "id": 1}).ljust(4096))  # just fits
    assert client.next()["type"] == "pong"
    assert client.subscribe(NOTES, {}).rows == []


def test_a_flood_is_refused_and_the_connection_stays(server: RunningServer) -> None:
    token = member(server, "flood")
    with Socket(server, token) as client:
        client.subscribe(NOTES, {}, "kept")
        for number in range(200):
            client.send("ping", id=number)
        answered = 0
        while True:
            message = client.receive()
            if message["type"] == "error":
                break
            assert message == {"type": "pong", "id": answered, "seq": message["seq"]}
            answered += 1
        assert (message["subscription_id"], message["code"]) == ("rate_limit", "RATE_LIMIT_EXCEEDED")
        assert message["message"] == "Too many messages"
        assert 40 <= answered <= 200
        with server.client_of(token) as http:
            assert http.post("/v1/api/sql", json={"sql": "INSERT INTO app.notes VALUES (1, 'x')"}).status_code == 200
        while client.receive()["type"] != "change":
            pass


def test_batches_that_are_due_are_no_flood(server: RunningServer) -> None:
    token = member(server, "reader")
    with server.client_of(token) as http:
        rows = ",".join(f"({each}, 'x')" for each in range(150))
        assert http.post("/v1/api/sql", json={"sql": f"INSERT INTO app.notes VALUES {rows}"}).status_code == 200
    with Socket(server, token) as client:
        assert len(client.subscribe(NOTES, {"batch_size": 1}).load().rows) == 150


# --- bad messages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "", "hello", "{", "[]", "null", "1", '"subscribe"', "{}", '{"type":null}', '{"type":"nosuch"}', '{"type":1}',
        '{"type":"Ping"}', '{"type":"subscribe"', '{"type":"ping"}{"type":"ping"}', "{'type':'ping'}",
        '{"type":"ping","id":NaN}', "[" * 2000, '{"type":' * 500, '{"a":' * 400 + "1" + "}" * 400,
        '{"type":"ping","id":"\x01"}', "\ufeff" + '{"type":"ping"}', '{"type":"auth_success"}',
        '{"type":"subscribe","subscription":{"id":"\\ud800","sql":"SELECT 1"}}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("signed_in", [True, False])
def test_what_is_no_message_closes_with_1011(server: RunningServer, text: str, signed_in: bool) -> None:
    with Socket(server, sign_in=signed_in) as client:
        client.wire.send(text)
        code, reason = client.closed()
        assert (code, "Traceback" in reason) == (1011, False)


def test_a_type_that_comes_twice_or_late_is_no_matter(client: Socket) -> None:
    client.wire.send('  {"id": 1, "extra": {"deep": [[[]]]}, "type": "ping"}\n')
    assert client.next() | {"seq": 0} == {"type": "pong", "id": 1, "seq": 0}


def test_binary_in_json_mode(client: Socket) -> None:
    for data in (b"", b"\x00\xff", json.dumps({"type": "ping", "id": 1}).encode(), b"\x81\xa4type\xa4ping"):
        client.wire.send(data)
        error = client.next("protocol")
        assert (error["code"], error["message"]) == ("UNSUPPORTED_DATA", "Binary not supported")
    assert client.subscribe(NOTES, {}).rows == []


def test_bad_msgpack_in_msgpack_mode(server: RunningServer) -> None:
    with Socket(server, sign_in=False, query="?serialization=msgpack",
                headers={"Authorization": f"Bearer {server.token}"}) as client:  # fmt: skip
        client.binary = True
        assert client.receive()["type"] == "auth_success"
        for data in (b"\xc1", b"\x81\xa4type", b"\x82\xa4type\xa4ping\xa2id", b""):
            client.wire.send(data)
            assert client.next("protocol")["code"] == "UNSUPPORTED_DATA", data
        assert client.subscribe(NOTES, {}).rows == []  # text is JSON, and it goes on


def test_ids_of_pings_come_back_as_they_were(client: Socket) -> None:
    for value in (0, -1, 2**53 + 1, 2**63, "abc", "", "ä\n"):
        client.send("ping", id=value)
        message = client.receive()
        assert (message["type"], message.get("id")) == ("pong", value), value
    client.send("ping")
    client.send("ping", id=None)
    client.send("ping", id="last")
    while client.receive()["id"] != "last":  # null may be an id or none
        pass


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM app.notes WHERE body = '\ud800'", "SELECT * FROM app.notes WHERE body = '\x07'",
        "SELECT * FROM app.notes WHERE body = '🦆'", "SELECT * FROM app.\u202enotes", "SELECT * FROM app.notes\u00a0",
        "SELECT * FROM app.notes WHERE body = 'x' OR '1'='1'", "SELECT * FROM app.notes WHERE 1=1; --",
    ],
)  # fmt: skip
def test_odd_characters_in_sql_break_nothing(server: RunningServer, sql: str) -> None:
    with Socket(server) as client:
        client.ask(sql, {}, "odd")
        try:
            sql.encode()
        except UnicodeEncodeError:  # a lone surrogate is no JSON text
            assert client.closed()[0] == 1011
            return
        assert client.next("odd")["type"] in {"subscription_ack", "error"}
        client.barrier()


def test_an_error_of_one_subscription_leaves_the_others(client: Socket) -> None:
    kept = client.subscribe(NOTES, {})
    assert client.refused("SELECT nosuch FROM app.notes", {}, "bad")[0] == "INVALID_SQL"
    assert client.refused(NOTES, {"from": 2**62}, "future")[0] == "INVALID_CURSOR"
    client.barrier()
    assert client.waiting() == []
    assert client.subscribe(NOTES, {}, "bad").rows == kept.rows


def test_an_id_whose_new_query_is_refused(client: Socket, server: RunningServer) -> None:
    # It named a subscription; now it names none, and both sides know: errors end the subscription that they name.
    client.subscribe(NOTES, {}, "same")
    assert client.refused("SELECT nosuch FROM app.notes", {}, "same")[0] == "INVALID_SQL"
    client.send("unsubscribe", subscription_id="same")
    client.barrier()
    assert client.waiting() == []
