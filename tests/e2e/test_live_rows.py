"""What live queries show over a real socket: snapshots, resumes, changes and filters (reference tables 6.5 to 6.7)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.live_socket import EMPTY, filled, live_server, play, signed_in, sql
from tests.e2e.running import RunningServer


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with tables and users."""
    with live_server(tmp_path_factory.mktemp("live")) as running:
        yield running


@pytest.fixture(autouse=True)
def empty(live: RunningServer) -> None:
    """Tables without rows."""
    live.sql(EMPTY)


def without(message: dict[str, Any], *names: str) -> dict[str, Any]:
    """A message without some fields, which must be there."""
    assert set(names) <= set(message)
    return {name: value for name, value in message.items() if name not in names}


# --- 6.5 snapshots ----------------------------------------------------------------------------------------------------


def test_without_options_there_is_no_snapshot(live: RunningServer) -> None:
    async def scene() -> None:
        await filled(live, 3)
        async with signed_in(live) as socket:
            answer = await socket.subscribe("SELECT * FROM app.notes")
            assert answer["batch_control"]["status"] == "ready"
            assert answer["batch_control"]["has_more"] is False
            assert answer["total_rows"] == 0
            assert await socket.settled() == []
            await sql(live, "INSERT INTO app.notes VALUES (9, 'new', true)")
            assert (await socket.take())["rows"][0]["id"] == 9

    play(scene)


def test_a_snapshot_in_batches_and_changes_meanwhile(live: RunningServer) -> None:
    async def scene() -> None:
        await filled(live, 5)
        async with signed_in(live) as socket:
            ack = await socket.subscribe("SELECT * FROM app.notes", options={"batch_size": 2})
            assert ack["total_rows"] == 5
            assert [column["name"] for column in ack["schema"]] == ["id", "body", "done", "_seq"]
            assert [column["data_type"] for column in ack["schema"]] == ["BigInt", "Text", "Boolean", "BigInt"]
            first = await socket.take()
            assert first["batch_control"] == ack["batch_control"]
            await sql(live, "UPDATE app.notes SET body = 'changed' WHERE id = 5; DELETE FROM app.notes WHERE id = 1")
            second = await socket.say({"type": "next_batch", "subscription_id": "s1"})
            third = await socket.say({"type": "next_batch", "subscription_id": "s1", "last_seq_id": "1"})
            batches = [first, second, third]
            assert [batch["batch_control"]["status"] for batch in batches] == ["loading", "loading_batch", "ready"]
            assert [batch["batch_control"]["batch_num"] for batch in batches] == [0, 1, 2]
            assert [row["id"] for batch in batches for row in batch["rows"]] == [1, 2, 3, 4, 5]
            assert third["rows"][0]["body"] == "note 5"  # as of the commit at which it was subscribed to
            kinds = [(await socket.take())["change_type"], (await socket.take())["change_type"]]
            assert kinds == ["update", "delete"]
            answer = await socket.say({"type": "next_batch", "subscription_id": "s1"})
            assert answer["code"] == "BATCH_FETCH_FAILED"

    play(scene)


def test_last_rows_and_from(live: RunningServer) -> None:
    async def scene() -> None:
        await filled(live, 5)
        async with signed_in(live) as socket:
            ack = await socket.subscribe("SELECT id FROM app.notes", options={"last_rows": 2})
            rows = (await socket.take())["rows"]
            assert ack["batch_control"]["has_more"] is False
            assert [row["id"] for row in rows] == [4, 5]
            refusal = await socket.subscribe("SELECT id FROM app.notes", options={"last_rows": 3, "batch_size": 2})
            assert refusal["code"] == "UNSUPPORTED"
            cursor = rows[0]["_seq"]
            resumed = await socket.subscribe("SELECT id FROM app.notes", options={"from": cursor})
            assert resumed["resumed"] is True
            assert [row["id"] for row in (await socket.take())["rows"]] == [5]
            await sql(live, "DELETE FROM app.notes WHERE id = 5")
            assert (await socket.take())["change_type"] == "delete"
            beyond = await socket.subscribe("SELECT id FROM app.notes", options={"from": 2**62})
            assert beyond["code"] == "INVALID_CURSOR"

    play(scene)


def test_deletes_during_an_absence_are_told(live: RunningServer) -> None:
    async def scene() -> None:
        await filled(live, 2)
        async with signed_in(live) as socket:
            await socket.subscribe("SELECT * FROM app.notes", options={})
            cursor = (await socket.take())["batch_control"]["last_seq_id"]
        await sql(live, "DELETE FROM app.notes WHERE id = 1; INSERT INTO app.notes VALUES (7, 'new', true)")
        async with signed_in(live) as socket:
            ack = await socket.subscribe("SELECT * FROM app.notes", options={"from_seq_id": str(cursor)})
            assert ack["resumed"] is True
            found = await socket.settled()
            changes = [m["change_type"] for m in found if m["type"] == "change"]
            assert changes == ["delete", "insert"]

    play(scene)


# --- 6.6 changes, 6.7 filters -----------------------------------------------------------------------------------------


def test_changes(live: RunningServer) -> None:
    async def scene() -> None:
        async with signed_in(live) as socket:
            await socket.subscribe("SELECT id, body FROM app.notes WHERE done = false")
            await sql(live, "INSERT INTO app.notes VALUES (1, 'a', false), (2, 'b', true)")
            message = await socket.take()
            (row,) = message["rows"]
            seq = message["seq"]
            assert without(row, "_seq") == {"id": 1, "body": "a"}
            assert without(message, "rows", "seq") == {
                "type": "change", "subscription_id": "s1", "change_type": "insert",
            }  # fmt: skip
            await sql(live, "UPDATE app.notes SET body = NULL WHERE id = 1")
            message = await socket.take()
            assert message["change_type"] == "update"
            assert without(message["rows"][0], "_seq") == {"id": 1, "body": None}
            assert message["old_values"] == [{"id": 1, "body": "a", "_seq": row["_seq"]}]
            assert message["seq"] > seq
            await sql(live, "UPDATE app.notes SET done = true WHERE id = 1")  # it leaves the filter
            message = await socket.take()
            assert message["change_type"] == "delete"
            assert "rows" not in message
            assert without(message["old_values"][0], "_seq") == {"id": 1, "body": None}
            await sql(live, "UPDATE app.notes SET done = false WHERE id = 2")  # it enters the filter
            assert (await socket.take())["change_type"] == "insert"
            await sql(live, "DELETE FROM app.notes WHERE id = 2")
            assert (await socket.take())["change_type"] == "delete"

    play(scene)


FILTERS = [
    "id IN (2, 3)", "body IS NOT NULL AND id > 1", "id BETWEEN 2 AND 3", "lower(body) LIKE 'note%' AND NOT done",
    "body ILIKE 'NOTE 2'", "(id = 2 OR id = 4) AND coalesce(done, false)", "id % 2 = 0", "length(body) > 3",
]  # fmt: skip


@pytest.mark.parametrize("condition", FILTERS)
def test_a_snapshot_and_changes_agree(live: RunningServer, condition: str) -> None:
    async def scene() -> None:
        async with signed_in(live) as socket:
            text = f"SELECT id FROM app.notes WHERE {condition}"
            await socket.subscribe(text)
            await filled(live, 4)
            arrived = [row["id"] for message in await socket.settled() for row in message["rows"]]
            expected = [row[0] for row in await sql(live, f"{text} ORDER BY id")]
            assert arrived == expected
            await socket.subscribe(text, "s2", options={})
            assert [row["id"] for row in (await socket.take())["rows"]] == expected

    play(scene)
