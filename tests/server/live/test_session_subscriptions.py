"""Subscriptions of a session: acks, batches, changes, limits, errors, and that nothing of them stays behind."""

from __future__ import annotations

from typing import Any

import pytest

from sql.errors import (
    BatchParseError,
    EmptySql,
    ExecutionError,
    InvalidParameter,
    InvalidSql,
    Overloaded,
    PermissionDenied,
    SqlError,
    TableNotFound,
    Unsupported,
)
from sql.live.errors import InvalidCursor, LiveQueryKilled, SlowConsumer, SubscriptionEnded
from sql.live.interface import LiveDelta
from sql.live.subscription import LiveOptions
from storage.errors import StorageFull
from tests.server.live.fakes import World, batches, inserted, settle
from tests.server.live.test_session_messages import error, run, shown

SCHEMA = [
    {"name": "id", "data_type": "BigInt", "index": 0, "flags": ["pk", "nn", "uq"]},
    {"name": "name", "data_type": "Text", "index": 1},
    {"name": "_seq", "data_type": "BigInt", "index": 2},
]


def control(number: int, status: str, last: int, **more: object) -> dict[str, Any]:
    """A `batch_control`."""
    return {"batch_num": number, "has_more": status != "ready", "status": status, "last_seq_id": last} | more


def ack(name: str, total: int, at: dict[str, Any], *, resumed: bool = False) -> dict[str, Any]:
    """A `subscription_ack`."""
    return {
        "type": "subscription_ack", "subscription_id": name, "total_rows": total, "batch_control": at,
        "schema": SCHEMA, "resumed": resumed,
    }  # fmt: skip


def test_without_options_there_is_no_snapshot() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        assert await client.subscribe() == [ack("s1", 0, control(0, "ready", 100))]
        assert world.hub.requests[0].options is None
        assert world.hub.deliver("s1", inserted())

    run(test)


def test_a_snapshot_comes_in_batches_as_it_is_asked_for_then_changes() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        world.hub.snapshot.batches = batches(2, 2, 1)
        first_ack, first = await client.subscribe(options={"batch_size": 2})
        assert first_ack == ack("s1", 5, control(0, "loading", 1))
        assert first == {
            "type": "initial_data_batch", "subscription_id": "s1", "batch_control": control(0, "loading", 1),
            "rows": [{"id": 0, "name": "row 0", "_seq": 0}, {"id": 1, "name": "row 1", "_seq": 1}],
        }  # fmt: skip
        (pong,) = await client.say({"type": "ping", "id": 1})
        assert "seq" not in pong  # a snapshot is under way
        (second,) = await client.say({"type": "next_batch", "subscription_id": "s1", "last_seq_id": 1})
        assert second["batch_control"] == control(1, "loading_batch", 3)
        (last,) = await client.say({"type": "next_batch", "subscription_id": "s1", "last_seq_id": "3"})
        assert last["batch_control"] == control(2, "ready", 4)
        answer = await client.say({"type": "next_batch", "subscription_id": "s1"})
        assert shown(answer[0]) == error("s1", "BATCH_FETCH_FAILED")
        assert world.hub.deliver("s1", inserted(101, "x"))
        assert client.take() == [{
            "type": "change", "subscription_id": "s1", "change_type": "insert", "seq": 101,
            "rows": [{"id": 7, "name": "x", "_seq": 101}],
        }]  # fmt: skip
        assert (await client.say({"type": "ping", "id": 1})) == [{"type": "pong", "id": 1, "seq": 100}]

    run(test)


def test_batches_that_are_asked_for_ahead_come_in_order_and_no_more() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        world.hub.snapshot.batches = batches(1, 1, 1)
        world.hub.gate.clear()
        assert await client.subscribe(options={}) == []
        for _ in range(3):
            assert await client.say({"type": "next_batch", "subscription_id": "s1"}) == []
        world.hub.gate.set()
        await settle()
        found = client.take()
        numbers = [message["batch_control"]["batch_num"] for message in found if "rows" in message]
        assert numbers == [0, 1, 2]
        assert shown(found[-1]) == error("s1", "BATCH_FETCH_FAILED")

    run(test)


def test_asking_ahead_without_end_is_refused() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        world.hub.gate.clear()
        await client.subscribe(options={})
        for _ in range(16):
            assert await client.say({"type": "next_batch", "subscription_id": "s1"}) == []
        (answer,) = await client.say({"type": "next_batch", "subscription_id": "s1"})
        assert shown(answer) == error("s1", "BATCH_FETCH_FAILED")

    run(test)


def test_a_resume_says_so_and_one_that_is_too_old_begins_anew() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        world.hub.snapshot.batches, world.hub.snapshot.resumed = batches(1), True
        first_ack, _ = await client.subscribe(options={"from": 50})
        assert first_ack == ack("s1", 1, control(0, "ready", 0), resumed=True)
        world.hub.snapshot.batches, world.hub.snapshot.resumed = batches(1, fresh=True), False
        world.hub.snapshot.too_old = "The log begins later."
        told, second_ack, rows = await client.subscribe("s2", options={"from": 1})
        assert told == error("s2", "RESUME_TOO_OLD") | {"message": "The log begins later."}
        assert second_ack == ack("s2", 1, control(0, "ready", 0, fresh=True))
        assert rows["batch_control"] == control(0, "ready", 0, fresh=True)

    run(test)


OPTIONS = [
    ({}, LiveOptions()),
    ({"more": 1}, LiveOptions()),
    ({"batch_size": 7}, LiveOptions(batch_size=7)),
    ({"batch_size": "7", "last_rows": "5"}, LiveOptions(batch_size=7, last_rows=5)),
    ({"last_rows": 0}, LiveOptions(last_rows=0)),
    ({"last_rows": 1000}, LiveOptions(last_rows=1000)),
    ({"from": 12}, LiveOptions(from_=12)),
    ({"from_seq_id": "12"}, LiveOptions(from_=12)),
    ({"from": 12, "from_seq_id": 13}, LiveOptions(from_=12)),
    ({"from": str(2**63 - 1)}, LiveOptions(from_=2**63 - 1)),
    ({"from": 3, "last_rows": 5000}, LiveOptions(last_rows=5000, from_=3)),
    ({"from": None, "batch_size": None}, LiveOptions()),
]  # fmt: skip
REFUSED = [
    ({"last_rows": 1001}, "UNSUPPORTED"),
    ({"batch_size": 10, "last_rows": 11}, "UNSUPPORTED"),
    ({"batch_size": 0}, "INVALID_OPTION"),
    ({"batch_size": 10_001}, "INVALID_OPTION"),
    ({"batch_size": "ten"}, "INVALID_OPTION"),
    ({"last_rows": -1}, "INVALID_OPTION"),
    ({"from": -1}, "INVALID_OPTION"),
    ({"from": "-1"}, "INVALID_OPTION"),
    ({"from": 2**63}, "INVALID_OPTION"),
    ({"from": "9" * 20}, "INVALID_OPTION"),
    ({"from": "1" * 5000}, "INVALID_OPTION"),
    ({"from": "²"}, "INVALID_OPTION"),
    ({"from": ""}, "INVALID_OPTION"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "expected"), OPTIONS, ids=repr)
def test_options(options: dict[str, Any], expected: LiveOptions) -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        assert (await client.subscribe(options=options))[0]["type"] == "subscription_ack"
        assert world.hub.requests[0].options == expected

    run(test)


@pytest.mark.parametrize(("options", "code"), REFUSED, ids=[repr(case[0])[:60] for case in REFUSED])
def test_options_that_cannot_be(options: dict[str, Any], code: str) -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        assert list(map(shown, await client.subscribe(options=options))) == [error("s1", code)]
        assert not world.hub.requests
        assert not client.connection.closed

    run(test)


def test_what_the_hub_is_asked() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        await client.subscribe("a/b", sql="SELECT 1", params=["x", 2], namespace="app")
        request = world.hub.requests[0]
        assert (request.sql, list(request.params), request.namespace) == ("SELECT 1", ["x", 2], "app")
        assert request.live_id == f"ann-{client.session.connection_id}-a/b"
        await client.subscribe("c")
        assert world.hub.requests[1].namespace == "default"

    run(test)


@pytest.mark.parametrize("name", ["", "x" * 257, "ü" * 129])
def test_an_id_that_is_none(name: str) -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        answer = error("invalid_subscription", "INVALID_SUBSCRIPTION_ID")
        assert list(map(shown, await client.subscribe(name))) == [answer]

    run(test)


def test_an_id_of_the_greatest_length() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        assert (await client.subscribe("ü" * 128))[0]["type"] == "subscription_ack"

    run(test)


def test_a_text_that_is_too_long() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        assert shown((await client.subscribe(sql="x" * 101))[0]) == error("s1", "INVALID_SQL")
        assert shown((await client.subscribe(params=[1, 2, 3]))[0]) == error("s1", "INVALID_SQL")

    run(test, max_sql_bytes=100, max_parameters=2)


AT_SUBSCRIBE = [
    (TableNotFound("x"), "NOT_FOUND"), (PermissionDenied("x"), "UNAUTHORIZED"), (InvalidSql("x"), "INVALID_SQL"),
    (BatchParseError("x"), "INVALID_SQL"), (EmptySql("x"), "INVALID_SQL"), (Unsupported("x"), "UNSUPPORTED"),
    (InvalidParameter("x"), "INVALID_PARAMETER"), (InvalidCursor("x"), "INVALID_CURSOR"),
    (Overloaded("x"), "SERVER_OVERLOADED"), (ExecutionError("x"), "SUBSCRIPTION_FAILED"),
    (StorageFull("x"), "STORAGE_FULL"), (MemoryError(), "MEMORY_LIMIT_EXCEEDED"),
    (RuntimeError("secret"), "SUBSCRIPTION_FAILED"),
]  # fmt: skip


@pytest.mark.parametrize(("failure", "code"), AT_SUBSCRIBE, ids=[code for _, code in AT_SUBSCRIBE])
def test_errors_of_subscribing(failure: Exception, code: str) -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        world.hub.error = failure
        (answer,) = await client.subscribe()
        assert shown(answer) == error("s1", code)
        assert "secret" not in answer["message"]
        assert world.service.users.total == 0

    run(test)


def test_an_error_tells_its_place() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        world.hub.error = InvalidSql("No.", line=2, column=5)
        assert (await client.subscribe())[0]["message"] == "No. (line 2, column 5)"

    run(test)


LATER = [
    (ExecutionError("x"), "CONVERSION_ERROR"), (SubscriptionEnded("x"), "BATCH_FETCH_FAILED"),
    (SlowConsumer("x"), "SLOW_CONSUMER"), (RuntimeError("x"), "SUBSCRIPTION_FAILED"),
]  # fmt: skip


@pytest.mark.parametrize(("failure", "code"), LATER, ids=[code for _, code in LATER])
def test_errors_of_a_later_batch_end_the_subscription(failure: Exception, code: str) -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        world.hub.snapshot.batches = batches(1, 1)
        await client.subscribe(options={})
        world.hub.batch_error = failure
        (answer,) = await client.say({"type": "next_batch", "subscription_id": "s1"})
        assert shown(answer) == error("s1", code)
        assert not world.hub.open

    run(test)


ENDED: list[tuple[SqlError, str]] = [
    (TableNotFound("x"), "NOT_FOUND"), (PermissionDenied("x"), "UNAUTHORIZED"), (InvalidSql("x"), "INVALID_SQL"),
    (LiveQueryKilled("x"), "LIVE_QUERY_KILLED"), (ExecutionError("x"), "CONVERSION_ERROR"),
]  # fmt: skip


@pytest.mark.parametrize(("failure", "code"), ENDED, ids=[code for _, code in ENDED])
def test_the_hub_ends_a_subscription(failure: SqlError, code: str) -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        await client.subscribe()
        world.hub.end("s1", failure)
        assert list(map(shown, client.take())) == [error("s1", code)]
        assert world.service.users.total == 0
        assert not client.connection.closed

    run(test)


def test_a_change_that_cannot_be_written_ends_the_subscription_alone() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        await client.subscribe()
        delta = inserted()
        delta.changes[0].rows[0]["name"] = object()
        assert world.hub.deliver("s1", delta)
        assert list(map(shown, client.take())) == [error("s1", "CONVERSION_ERROR")]

    run(test)


def test_a_full_buffer_refuses_and_asks_for_more_when_it_drains() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        await client.subscribe()
        client.connection.full = True
        assert world.hub.deliver("s1", inserted()) is False
        assert client.take() == []
        client.connection.drain()
        assert world.hub.drains == 1
        assert world.hub.deliver("s1", inserted())
        assert len(client.take()) == 1

    run(test)


def test_a_batch_waits_until_the_client_reads() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        world.hub.snapshot.batches = batches(1)
        world.hub.gate.clear()
        await client.subscribe(options={})
        client.connection.full = True
        world.hub.gate.set()
        await settle()
        assert client.take() == []
        client.connection.drain()
        await settle()
        assert [message["type"] for message in client.take()] == ["subscription_ack", "initial_data_batch"]

    run(test)


def test_a_reused_id_replaces_the_former_subscription() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        await client.subscribe()
        former = next(iter(world.hub.open.values()))
        await client.subscribe()
        assert former not in world.hub.open.values()
        assert former.sink.deliver(former, inserted())
        assert client.take() == []
        assert world.service.users.total == 1
        world.hub.gate.clear()  # one that is still being made is replaced too
        await client.subscribe()
        await client.subscribe()
        world.hub.gate.set()
        await settle()
        assert [message["type"] for message in client.take()] == ["subscription_ack"]

    run(test)


def test_subscriptions_of_a_user_are_limited_over_connections() -> None:
    async def test(world: World) -> None:
        first, second = world.signed_in(), world.signed_in()
        assert (await first.subscribe("a"))[0]["type"] == "subscription_ack"
        assert (await second.subscribe("b"))[0]["type"] == "subscription_ack"
        (answer,) = await second.subscribe("c")
        assert answer == error("c", "SUBSCRIPTION_LIMIT_EXCEEDED") | {"message": "Maximum subscriptions reached"}
        assert (await second.subscribe("b"))[0]["type"] == "subscription_ack"
        assert (await world.signed_in("bob").subscribe("c"))[0]["type"] == "subscription_ack"
        await first.say({"type": "unsubscribe", "subscription_id": "a"})
        assert (await second.subscribe("c"))[0]["type"] == "subscription_ack"

    run(test, per_user=2)


def test_subscriptions_of_a_connection_are_limited() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        for name in "ab":
            assert (await client.subscribe(name))[0]["type"] == "subscription_ack"
        (answer,) = await client.subscribe("c")
        assert answer == error("c", "SUBSCRIPTION_LIMIT_EXCEEDED") | {"message": "Maximum subscriptions reached"}

    run(test, per_user=0, max_subscriptions_per_connection=2)


def test_unsubscribing_ends_what_is_under_way() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        world.hub.gate.clear()
        await client.subscribe()
        answer = await client.say({"type": "unsubscribe", "subscription_id": "s1", "ack": True})
        assert answer == [{"type": "unsubscribed", "subscription_id": "s1"}]
        world.hub.gate.set()
        await settle()
        assert client.take() == []
        assert not client.session.tasks

    run(test)


def test_a_closed_session_frees_everything() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        world.hub.snapshot.batches = batches(1, 1)
        await client.subscribe("a", options={})
        world.hub.gate.clear()
        await client.subscribe("b", options={})
        client.session.close(1001, "Server shutting down")
        await settle()
        assert not client.session.tasks
        assert not world.hub.open
        assert world.service.users.total == 0

    run(test)


def test_many_snapshots_are_read_a_few_at_a_time() -> None:
    async def test(world: World) -> None:
        client = world.signed_in()
        world.hub.gate.clear()
        for number in range(10):
            await client.subscribe(f"s{number}")
        assert len(world.hub.requests) == 4
        world.hub.gate.set()
        await settle()
        assert len(client.take()) == 10

    run(test)


def test_one_delta_is_rendered_once_for_all() -> None:
    async def test(world: World) -> None:
        first, second = world.signed_in(), world.signed_in("bob")
        await first.subscribe("s1")
        await second.subscribe("s1")
        delta: LiveDelta = inserted()
        for subscription in list(world.hub.open.values()):
            assert subscription.sink.deliver(subscription, delta)
        assert first.take() == second.take()
        assert first.connection.frames[-1] is second.connection.frames[-1]

    run(test)
