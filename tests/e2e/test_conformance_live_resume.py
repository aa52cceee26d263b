"""Resuming: what a client that was away is told, after `kill -9` too, from every cursor that it may have kept."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.live_conformance import MARKS, Live, Socket, number, plain, unlimited_server
from tests.e2e.running import RunningServer

ALL = "SELECT * FROM app.t"
TABLE = "CREATE NAMESPACE app; CREATE USER TABLE app.t (id BIGINT PRIMARY KEY, body TEXT, done BOOLEAN)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with unlimited_server(tmp_path_factory.mktemp("resume")) as running:
        running.sql(TABLE)
        yield running


class Held:
    """What a client holds: rows by key, and the greatest `_seq` that it saw anywhere."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.cursor = 0

    def begin(self, live: Live) -> None:
        """Take the rows of an acknowledged subscription, fetched to the end; the head of a resume upserts."""
        if not live.ack["resumed"]:
            self.rows.clear()
        for row in live.load().rows:
            self._put(row)
        self.cursor = max(self.cursor, live.controls[-1]["last_seq_id"] or 0)

    def take(self, event: dict[str, Any]) -> None:
        """Apply a change."""
        assert event["type"] == "change", event
        assert number(event["seq"]) > self.cursor, "told twice"
        for old in event.get("old_values", []):
            assert number(self.rows.pop(old["id"])["_seq"]) == number(old["_seq"])
        for row in event.get("rows", []):
            assert row["id"] not in self.rows
            self._put(row)
        self.cursor = number(event["seq"])

    def _put(self, row: dict[str, Any]) -> None:
        self.rows[row["id"]] = row
        self.cursor = max(self.cursor, number(row["_seq"]))

    def bodies(self) -> dict[int, str]:
        return {key: row["body"] for key, row in self.rows.items()}


def stored(server: RunningServer, where: str = "true") -> dict[int, str]:
    return {key: body for key, body in server.rows(f"SELECT id, body FROM app.t WHERE {where}")}  # noqa: C416


def meanwhile(server: RunningServer) -> None:
    """Every kind of change to rows 1 to 6 and new ones."""
    server.sql(
        "UPDATE app.t SET body = 'b' WHERE id = 1; INSERT INTO app.t VALUES (7, 'new', false);"
        "UPDATE app.t SET done = true WHERE id = 2; DELETE FROM app.t WHERE id = 3;"
        "DELETE FROM app.t WHERE id = 4; INSERT INTO app.t VALUES (4, 'again', false);"
        "INSERT INTO app.t VALUES (8, 'brief', false); DELETE FROM app.t WHERE id = 8;"
        "UPDATE app.t SET done = false, body = 'came' WHERE id = 6"
    )


def prepare(server: RunningServer) -> None:
    server.sql("DELETE FROM app.t WHERE true")
    server.sql(
        "INSERT INTO app.t VALUES " + ",".join(f"({each}, 'a', {str(each == 6).lower()})" for each in range(1, 7))
    )


@pytest.mark.parametrize("where", ["true", "done = false", "done = false AND body <> 'b'", "id IN (1, 2, 3, 7, 8)"])
@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"batch_size": 2, "last_rows": 1}])
def test_a_client_that_was_away_ends_with_what_is_stored(
    server: RunningServer, where: str, options: dict[str, int]
) -> None:
    prepare(server)
    held = Held()
    sql = f"{ALL} WHERE {where}"
    with Socket(server) as client:
        held.begin(client.subscribe(sql, {}))
        assert held.bodies() == stored(server, where)
    meanwhile(server)
    with Socket(server) as client:
        live = client.subscribe(sql, {"from": held.cursor, **options})
        assert live.ack["resumed"] is True
        held.begin(live)
        for event in client.drain():
            held.take(event)
        assert held.bodies() == stored(server, where)
        server.sql("UPDATE app.t SET body = 'z' WHERE id = 7")  # and it goes on
        held.take(live.next())
        assert held.bodies() == stored(server, where)


@pytest.mark.parametrize("cursor", ["number", "string", "from_seq_id"])
def test_cursors_as_clients_write_them(server: RunningServer, cursor: str) -> None:
    prepare(server)
    with Socket(server) as client:
        live = client.subscribe(ALL, {})
        last = live.controls[-1]["last_seq_id"]
        server.sql("INSERT INTO app.t VALUES (9, 'nine', false)")
        assert live.inserted()
        options = {"number": {"from": last}, "string": {"from": str(last)}, "from_seq_id": {"from_seq_id": str(last)}}
        again = client.subscribe(ALL, options[cursor])
        assert plain(again.load().rows) == [{"id": 9, "body": "nine", "done": False}]
        assert again.ack["resumed"] is True


def test_the_greatest_seq_of_a_row_is_a_cursor_too(server: RunningServer) -> None:
    prepare(server)
    server.sql("INSERT INTO app.t VALUES (20, 'one', false); INSERT INTO app.t VALUES (21, 'two', false)")
    with Socket(server) as client:
        live = client.subscribe(ALL, {})
        greatest = max(number(row["_seq"]) for row in live.rows)
        before = max(number(row["_seq"]) for row in live.rows if row["id"] != 21)
        assert client.subscribe(ALL, {"from": greatest}).rows == []
        assert [row["id"] for row in client.subscribe(ALL, {"from": before}).rows] == [21]
        # Between two rows of one commit.
        first = min(number(row["_seq"]) for row in live.rows)
        assert [row["id"] for row in client.subscribe(ALL, {"from": first}).rows] == [2, 3, 4, 5, 6, 20, 21]


def test_deletes_are_told_and_in_order(server: RunningServer) -> None:
    prepare(server)
    with Socket(server) as client:
        cursor = client.subscribe(ALL, {}).controls[-1]["last_seq_id"]
    server.sql(
        "DELETE FROM app.t WHERE id = 1; INSERT INTO app.t VALUES (1, 'second', false); DELETE FROM app.t WHERE id = 1"
    )
    with Socket(server) as client:
        live = client.subscribe(ALL, {"from": cursor})
        assert live.load().rows == []
        assert live.deleted() == [{"id": 1, "body": "a", "done": False}]
        assert live.inserted() == [{"id": 1, "body": "second", "done": False}]
        assert live.deleted() == [{"id": 1, "body": "second", "done": False}]


def test_a_cursor_beyond_the_newest_commit(server: RunningServer) -> None:
    with Socket(server) as client:
        for cursor in (2**53, str(2**62), client.subscribe(ALL, {}).controls[-1]["last_seq_id"] + 1000):
            code, message = client.refused(ALL, {"from": cursor})
            assert code == "INVALID_CURSOR", message
        assert client.subscribe(ALL, {"from": 0}).ack["resumed"] is False


def test_the_cursor_of_pong_for_a_subscription_that_is_idle(server: RunningServer) -> None:
    prepare(server)
    with Socket(server) as client:
        client.subscribe(f"{ALL} WHERE id = 99", {})
        cursor = client.barrier()["seq"]
    server.sql("INSERT INTO app.t VALUES (99, 'mine', false)")
    with Socket(server) as client:
        live = client.subscribe(f"{ALL} WHERE id = 99", {"from": cursor})
        assert plain(live.rows) == [{"id": 99, "body": "mine", "done": False}]


@pytest.mark.parametrize("kind", ["USER", "SHARED", "STREAM"])
def test_a_table_that_was_made_anew_meanwhile(server: RunningServer, kind: str) -> None:
    options = " WITH (TTL_SECONDS = 3600)" if kind == "STREAM" else ""
    make = f"CREATE {kind} TABLE app.new_{kind} (id INT PRIMARY KEY, body TEXT){options}"
    server.sql(f"{make}; INSERT INTO app.new_{kind} VALUES (1, 'old'), (2, 'old')")
    sql = f"SELECT * FROM app.new_{kind}"
    with Socket(server) as client:
        cursor = client.subscribe(sql, {}).controls[-1]["last_seq_id"]
        assert client.subscribe(sql, {"from": cursor}).ack["resumed"] is True
    server.sql(f"DROP TABLE app.new_{kind}; {make}; INSERT INTO app.new_{kind} VALUES (2, 'new')")
    with Socket(server) as client:
        # Nothing in the log of the new table says that the old rows are gone: the client must begin anew.
        live = client.ask(sql, {"from": cursor})
        assert live.error()[0] == "RESUME_TOO_OLD"
        assert live.acknowledged()["resumed"] is False
        assert plain(live.rows) == [{"id": 2, "body": "new"}]


def test_after_kill_9(serve: Serve) -> None:
    server = serve().set_up()
    server.sql(f"{TABLE};{MARKS}")
    prepare(server)
    held = Held()
    with Socket(server) as client:
        live = client.subscribe(ALL, {"batch_size": 4})
        held.begin(live)
        server.sql("UPDATE app.t SET body = 'seen' WHERE id = 5")
        held.take(live.next())
        meanwhile(server)  # all of it acknowledged over HTTP; whether the socket told it, is not looked at
        server.kill()
    server.restart()
    server.sql("INSERT INTO app.t VALUES (30, 'after', false)")
    with Socket(server) as client:
        live = client.subscribe(ALL, {"from": held.cursor})
        assert live.ack["resumed"] is True
        held.begin(live)
        for event in client.drain():
            held.take(event)
        assert held.bodies() == stored(server)


def test_from_older_than_the_log(serve: Serve) -> None:
    server = serve(HEADRACE_RETENTION_COMMIT_LOG_SECONDS="1").set_up()
    server.sql(TABLE)
    prepare(server)
    with Socket(server) as client:
        old = max(number(row["_seq"]) for row in client.subscribe(ALL, {}).rows) - 5
    deadline = time.monotonic() + 60
    retained = "SELECT metric_value FROM system.stats WHERE metric_name = 'storage_first_retained_seq'"
    while int(server.rows(retained)[0][0]) <= old + 1:  # retention has rounds of its own
        assert time.monotonic() < deadline, "the log never forgets"
        server.sql("UPDATE app.t SET body = body || 'x' WHERE true")
    server.restart()  # what is young enough to be in memory still, is told without the log
    with Socket(server) as client:
        live = client.ask(ALL, {"from": old, "batch_size": 4})
        assert live.error()[0] == "RESUME_TOO_OLD"
        assert live.acknowledged()["resumed"] is False
        live.load()
        assert [control.get("fresh") for control in live.controls] == [True, True]
        assert sorted(row["id"] for row in live.rows) == [1, 2, 3, 4, 5, 6]
        assert live.ack["total_rows"] == 6
        server.sql("UPDATE app.t SET body = 'short', done = NULL WHERE id = 1")
        assert live.updated()[0] == [{"id": 1, "body": "short", "done": None}]
