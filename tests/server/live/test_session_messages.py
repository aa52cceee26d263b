"""Every message that a client can send, and what it is answered, row by row."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from server.live.messages import Compression, Protocol, Serialization
from server.live.upgrade import TokenSource
from server.websocket.connection import TOO_LARGE
from tests.server.live.fakes import MSGPACK, World, batches, settle


def run(test: Callable[[World], Awaitable[None]], **options: Any) -> None:
    """Run a test on an event loop, and see that nothing is left of its sessions."""

    async def body() -> None:
        world = World(**options)
        await test(world)
        for member in list(world.service._members.values()):
            member.end()  # type: ignore[attr-defined]
            world.service.leave(member)
        await settle()
        assert not world.hub.open
        assert world.service.users.total == 0
        assert not world.service._by_account
        assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} == set()

    asyncio.run(body())


SUCCESS = {"type": "auth_success", "user": "ann", "user_id": "ann", "role": "user"}
BOTH = {"serialization": "json", "compression": "gzip"}
PLAIN = {"serialization": "json", "compression": "none"}

AUTHENTICATE = [
    ({"token": "ann", "method": "jwt", "protocol": BOTH}, BOTH),
    ({"token": "ann", "method": "jwt"}, BOTH),
    ({"token": "ann"}, BOTH),
    ({"token": "ann", "protocol": None}, BOTH),
    ({"token": "ann", "protocol": {}}, BOTH),
    ({"token": "ann", "protocol": {"compression": "none"}}, PLAIN),
    ({"token": "ann", "protocol": PLAIN, "client": "x"}, PLAIN),
    ({"token": "ann", "protocol": {"serialization": "msgpack"}}, {"serialization": "msgpack", "compression": "gzip"}),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "protocol"), AUTHENTICATE, ids=repr)
def test_authenticate(fields: dict[str, Any], protocol: dict[str, str]) -> None:
    async def test(world: World) -> None:
        client = world.connect()
        assert client.take() == []
        assert await client.say({"type": "authenticate"} | fields) == [SUCCESS | {"protocol": protocol}]
        assert client.connection.frames[-1][0] == 0x81  # always JSON, in a text frame
        assert await client.say({"type": "authenticate"} | fields) == [SUCCESS | {"protocol": protocol}]

    run(test)


def test_compress_false_turns_gzip_off_whatever_the_protocol_says() -> None:
    async def test(world: World) -> None:
        client = world.connect(gzip=False)
        assert await client.say({"type": "authenticate", "token": "ann"}) == [SUCCESS | {"protocol": PLAIN}]

    run(test)


def test_an_upgrade_with_a_token_is_answered_unprompted() -> None:
    async def test(world: World) -> None:
        protocol = Protocol(Serialization.MSGPACK, Compression.NONE)
        client = world.connect("ann", protocol=protocol)
        assert client.take() == [SUCCESS | {"protocol": msgspec.to_builtins(protocol)}]

    run(test)


@pytest.mark.parametrize("source", [TokenSource.HEADER, TokenSource.SUBPROTOCOL])
def test_an_upgrade_with_a_bad_token_is_refused(source: TokenSource) -> None:
    async def test(world: World) -> None:
        client = world.connect("bad", source)
        assert client.take() == [{"type": "auth_error", "message": "Invalid credentials"}]
        assert client.connection.closed_with == (1008, "Invalid credentials")

    run(test)


def test_a_stale_cookie_leaves_the_sign_in_to_the_first_message() -> None:
    async def test(world: World) -> None:
        client = world.connect("bad", TokenSource.COOKIE)
        assert client.take() == []
        assert not client.connection.closed
        assert (await client.say({"type": "authenticate", "token": "ann"}))[0]["type"] == "auth_success"

    run(test)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (None, "bad", "Invalid credentials"),
        ("ann", "bad", "Invalid credentials"),
        ("ann", "bob", "This connection is signed in as another user"),
    ],
)
def test_a_token_that_does_not_do_closes(first: str | None, second: str, message: str) -> None:
    async def test(world: World) -> None:
        client = world.connect(first)
        client.take()
        assert await client.say({"type": "authenticate", "token": second}) == [
            {"type": "auth_error", "message": message}
        ]
        assert client.connection.closed_with == (1008, message)
        assert await client.say({"type": "ping", "id": 1}) == []

    run(test)


def test_attempts_to_sign_in_are_limited() -> None:
    async def test(world: World) -> None:
        client = world.connect()
        world.sign_ins.allowed = False
        (answer,) = await client.say({"type": "authenticate", "token": "ann"})
        assert answer == {"type": "auth_error", "message": "Too many authentication attempts from your IP address"}
        assert client.connection.closed_with is not None
        assert client.connection.closed_with[0] == 1008

    run(test)


MALFORMED = [
    "", "{", "[]", "null", "1", '"x"', "{}", '{"type":"unknown"}', '{"type":1}', '{"type":"authenticate"}',
    '{"type":"authenticate","token":1}', '{"type":"authenticate","token":"ann","method":"basic"}',
    '{"type":"authenticate","token":"ann","protocol":{"serialization":"xml"}}', '{"type":"subscribe"}',
    '{"type":"subscribe","subscription":{"id":"a"}}', '{"type":"subscribe","subscription":{"id":1,"sql":"x"}}',
    '{"type":"subscribe","subscription":{"id":"a","sql":"x","options":[]}}',
    '{"type":"subscribe","subscription":{"id":"a","sql":"x","options":{"from":1.5}}}',
    '{"type":"subscribe","subscription":{"id":"a","sql":"x","params":{}}}', '{"type":"next_batch"}',
    '{"type":"unsubscribe","subscription_id":"a","ack":"yes"}', '{"type":"ping","id":[]}', "[" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED, ids=[text[:60] for text in MALFORMED])
@pytest.mark.parametrize("signed_in", [False, True])
def test_a_malformed_message_closes_with_1011(text: str, signed_in: bool) -> None:
    async def test(world: World) -> None:
        client = world.signed_in() if signed_in else world.connect()
        assert await client.say(text) == []
        assert client.connection.closed_with is not None
        code, reason = client.connection.closed_with
        assert code == 1011
        assert reason.startswith(("Invalid JSON", "Invalid message"))
        assert len(reason.encode()) < 124

    run(test)


def error(name: str, code: str) -> dict[str, str]:
    """An `error` without its sentence."""
    return {"type": "error", "subscription_id": name, "code": code}


BEFORE_SIGN_IN = [
    ({"type": "subscribe", "subscription": {"id": "s1", "sql": "x"}}, error("subscribe", "AUTH_REQUIRED")),
    ({"type": "next_batch", "subscription_id": "s1"}, error("next_batch", "AUTH_REQUIRED")),
    ({"type": "unsubscribe", "subscription_id": "s1", "ack": True}, error("unsubscribe", "AUTH_REQUIRED")),
    ({"type": "ping"}, None),
    ({"type": "ping", "id": 5}, {"type": "pong", "id": 5}),
]
SIGNED_IN = [
    ({"type": "ping"}, None),
    ({"type": "ping", "id": "a"}, {"type": "pong", "id": "a", "seq": 100}),
    ({"type": "ping", "id": 7, "more": 1}, {"type": "pong", "id": 7, "seq": 100}),
    ({"type": "next_batch", "subscription_id": "s1"}, error("s1", "BATCH_FETCH_FAILED")),
    ({"type": "next_batch", "subscription_id": "s1", "last_seq_id": "5"}, error("s1", "BATCH_FETCH_FAILED")),
    ({"type": "unsubscribe", "subscription_id": "s1"}, None),
    ({"type": "unsubscribe", "subscription_id": "s1", "ack": False}, None),
    ({"type": "unsubscribe", "subscription_id": "s1", "ack": True}, {"type": "unsubscribed", "subscription_id": "s1"}),
]  # fmt: skip


def shown(message: dict[str, Any]) -> dict[str, Any]:
    """An answer without the sentence of an error, which must be there."""
    if message["type"] == "error":
        assert message["message"]
        return {name: value for name, value in message.items() if name != "message"}
    return message


@pytest.mark.parametrize(("message", "answer"), BEFORE_SIGN_IN, ids=repr)
def test_before_the_sign_in(message: object, answer: dict[str, Any] | None) -> None:
    async def test(world: World) -> None:
        client = world.connect()
        assert list(map(shown, await client.say(message))) == ([] if answer is None else [answer])
        assert not client.connection.closed

    run(test)


@pytest.mark.parametrize(("message", "answer"), SIGNED_IN, ids=repr)
@pytest.mark.parametrize("protocol", [Protocol(), MSGPACK], ids=["json", "msgpack"])
def test_when_signed_in(message: object, answer: dict[str, Any] | None, protocol: Protocol) -> None:
    async def test(world: World) -> None:
        client = world.signed_in(protocol=protocol)
        expected = [] if answer is None else [answer]
        assert list(map(shown, await client.say(message))) == expected
        if protocol is MSGPACK:
            binary = {"type": "websocket.receive", "bytes": msgspec.msgpack.encode(message)}
            assert list(map(shown, await client.receive(binary))) == expected
        assert not client.connection.closed

    run(test)


BINARY = [
    (Protocol(), b"\x81\xa4type\xa4ping", "Binary not supported"),
    (MSGPACK, b"\xc1", "Invalid MessagePack"),
    (MSGPACK, b"", "Invalid MessagePack"),
]


@pytest.mark.parametrize(("protocol", "data", "message"), BINARY)
def test_binary_that_is_not_supported_leaves_the_connection_open(protocol: Protocol, data: bytes, message: str) -> None:
    async def test(world: World) -> None:
        client = world.signed_in(protocol=protocol)
        (answer,) = await client.receive({"type": "websocket.receive", "bytes": data, "text": None})
        assert shown(answer) == error("protocol", "UNSUPPORTED_DATA")
        assert answer["message"].startswith(message)
        assert not client.connection.closed

    run(test)


def test_a_message_that_is_too_large_leaves_the_connection_open() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        (answer,) = await client.receive({"type": "websocket.receive", "text": None, "bytes": None, TOO_LARGE: 2 << 20})
        assert shown(answer) == error("protocol", "MESSAGE_TOO_LARGE")
        assert not client.connection.closed

    run(test)


def test_messages_a_second_are_limited_but_for_batches_that_we_wait_for() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        world.hub.snapshot.batches = batches(*[1] * 20)
        await client.subscribe(options={})
        for _ in range(49):
            assert await client.say({"type": "ping"}) == []
        assert shown((await client.say({"type": "ping"}))[0]) == error("rate_limit", "RATE_LIMIT_EXCEEDED")
        for _ in range(19):
            (batch,) = await client.say({"type": "next_batch", "subscription_id": "s1"})
            assert batch["type"] == "initial_data_batch"
        answer = await client.say({"type": "next_batch", "subscription_id": "s1"})
        assert shown(answer[0]) == error("rate_limit", "RATE_LIMIT_EXCEEDED")
        assert not client.connection.closed

    run(test, max_messages_per_sec=50)


def test_nothing_is_handled_while_the_client_does_not_read() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        client.connection.full = True
        handling = asyncio.create_task(client.say({"type": "ping", "id": 1}))
        await settle()
        assert not handling.done()
        client.connection.drain()
        assert (await handling)[0]["type"] == "pong"

    run(test)
