"""`GET /v1/api/live`: one live query as server-sent events."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e.running import RunningServer

PATH = "/v1/api/live"


@dataclass(frozen=True)
class Event:
    """One event of a stream."""

    name: str
    id: str | None
    data: Any


class Stream:
    """A stream that is being read."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.iter_lines()

    def next(self) -> Event | None:
        """The next event; None at the stream's end."""
        fields: dict[str, str] = {}
        for line in self._lines:
            if not line and "data" in fields:
                return Event(fields["event"], fields.get("id"), json.loads(fields["data"]))
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
        return None

    def take(self, name: str) -> Event:
        """The next event, which has that name."""
        found = self.next()
        assert found is not None
        assert found.name == name, found
        return found


@contextmanager
def follow(server: RunningServer, sql: str, headers: dict[str, str] | None = None, **fields: str) -> Iterator[Stream]:
    """Open a stream."""
    more = {"Authorization": f"Bearer {server.token}"} if headers is None else headers
    with httpx.stream("GET", server.url + PATH, params={"sql": sql} | fields, headers=more, timeout=30) as answer:
        yield Stream(answer)


@pytest.fixture(autouse=True)
def notes(server: RunningServer) -> None:
    """A table with two rows."""
    server.sql(
        "CREATE NAMESPACE IF NOT EXISTS app; DROP TABLE IF EXISTS app.notes;"
        "CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY, body TEXT);"
        "INSERT INTO app.notes VALUES (1, 'one'), (2, 'two')"
    )


def ids(event: Event) -> list[int]:
    return [row["id"] for row in event.data["rows"]]


def test_all_rows_come_first_then_changes(server: RunningServer) -> None:
    with follow(server, "SELECT * FROM app.notes") as stream:
        assert stream.answer.headers["content-type"] == "text/event-stream"
        assert stream.answer.headers["cache-control"] == "no-store"
        ack = stream.take("ack")
        assert set(ack.data) == {"total_rows", "batch_control", "schema", "resumed"}
        assert ack.data["total_rows"] == 2
        rows = stream.take("rows")
        assert ids(rows) == [1, 2]
        assert rows.id == str(rows.data["batch_control"]["last_seq_id"])
        server.sql("INSERT INTO app.notes VALUES (3, 'three'); DELETE FROM app.notes WHERE id = 1")
        inserted = stream.take("change")
        assert set(inserted.data) == {"change_type", "seq", "rows"}
        assert inserted.id == str(inserted.data["seq"])
        assert stream.take("change").data["old_values"][0]["id"] == 1
        ((count,),) = server.rows("SELECT count(*) FROM system.live WHERE status = 'live'")
        assert count == 1


def test_batches_come_without_being_asked_for(server: RunningServer) -> None:
    with follow(server, "SELECT * FROM app.notes", batch_size="1") as stream:
        assert stream.take("ack").data["batch_control"]["has_more"] is True
        statuses = [stream.take("rows").data["batch_control"]["status"] for _ in range(2)]
        assert statuses == ["loading", "ready"]


def test_what_the_query_string_says(server: RunningServer) -> None:
    text = "SELECT * FROM app.notes WHERE id >= $1"
    with follow(server, text, params="[2]") as stream:
        stream.take("ack")
        assert ids(stream.take("rows")) == [2]
    with follow(server, "SELECT * FROM app.notes", last_rows="1") as stream:
        stream.take("ack")
        assert ids(stream.take("rows")) == [2]
    with follow(server, "SELECT * FROM app.notes", snapshot="none") as stream:
        ack = stream.take("ack")
        assert ack.id == str(ack.data["batch_control"]["last_seq_id"])
        server.sql("INSERT INTO app.notes VALUES (9, 'nine')")
        assert ids(stream.take("change")) == [9]


def test_last_event_id_resumes_without_gap_or_repetition(server: RunningServer) -> None:
    with follow(server, "SELECT * FROM app.notes") as stream:
        stream.take("ack")
        cursor = stream.take("rows").id
        assert cursor is not None
    server.sql("DELETE FROM app.notes WHERE id = 2; INSERT INTO app.notes VALUES (5, 'five')")
    headers = {"Authorization": f"Bearer {server.token}", "Last-Event-ID": cursor}
    with follow(server, "SELECT * FROM app.notes", headers, **{"from": "0"}) as stream:
        assert stream.take("ack").data["resumed"] is True
        first = stream.next()
        while first is not None and first.name == "rows" and not first.data["rows"]:
            first = stream.next()
        assert first is not None
        assert (first.data["change_type"], first.data["old_values"][0]["id"]) == ("delete", 2)
        assert ids(stream.take("change")) == [5]


REFUSED = [
    ({}, 400, "INVALID_INPUT"),
    ({"sql": ""}, 400, "INVALID_INPUT"),
    ({"sql": "SELEC"}, 400, "INVALID_SQL"),
    ({"sql": "SELECT * FROM app.nope"}, 404, "TABLE_NOT_FOUND"),
    ({"sql": "SELECT * FROM app.notes", "params": "{"}, 400, "INVALID_PARAMETER"),
    ({"sql": "SELECT * FROM app.notes", "params": "{}"}, 400, "INVALID_PARAMETER"),
    ({"sql": "SELECT * FROM app.notes", "params": "[1]"}, 400, "INVALID_PARAMETER"),
    ({"sql": "SELECT * FROM app.notes", "last_rows": "x"}, 400, "INVALID_INPUT"),
    ({"sql": "SELECT * FROM app.notes", "snapshot": "some"}, 400, "INVALID_INPUT"),
    ({"sql": "SELECT * FROM app.notes", "snapshot": "none", "last_rows": "1"}, 400, "INVALID_INPUT"),
    ({"sql": "SELECT * FROM app.notes", "from": str(2**62)}, 400, "INVALID_CURSOR"),
    ({"sql": "SELECT * FROM app.notes", "speed": "1"}, 400, "INVALID_INPUT"),
    ({str(number): "1" for number in range(20)}, 400, "INVALID_INPUT"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "status", "code"), REFUSED, ids=[repr(case[0])[:70] for case in REFUSED])
def test_a_wrong_request_is_an_ordinary_answer(
    server: RunningServer, fields: dict[str, str], status: int, code: str
) -> None:
    answer = server.client.get(PATH, params=fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_who_may(server: RunningServer) -> None:
    fields = {"sql": "SELECT * FROM app.notes"}
    for headers, code in (
        ({}, "MISSING_AUTHORIZATION"),
        ({"Authorization": "Bearer x"}, "INVALID_CREDENTIALS"),
        ({"Authorization": "Basic eDp5"}, "INVALID_CREDENTIALS"),
        ({"Cookie": f"headrace_auth={server.token}", "Origin": "https://evil.example.com"}, "MISSING_AUTHORIZATION"),
        ({"Cookie": f"headrace_auth={server.token}", "Sec-Fetch-Site": "cross-site"}, "MISSING_AUTHORIZATION"),
    ):
        answer = httpx.get(server.url + PATH, params=fields, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
    own = {"Cookie": f"headrace_auth={server.token}", "Sec-Fetch-Site": "same-origin"}
    with follow(server, fields["sql"], own) as stream:
        stream.take("ack")
    assert server.client.head(PATH, params=fields).status_code == 405
    assert server.client.post(PATH, params=fields).status_code == 405


def test_cors_holds(server: RunningServer) -> None:
    headers = {"Authorization": f"Bearer {server.token}", "Origin": "https://app.example.com"}
    with follow(server, "SELECT * FROM app.notes", headers) as stream:
        assert stream.answer.headers["access-control-allow-origin"] == "*"


def test_an_error_ends_the_stream(server: RunningServer) -> None:
    with follow(server, "SELECT * FROM app.notes") as stream:
        stream.take("ack")
        stream.take("rows")
        ((live_id,),) = server.rows("SELECT live_id FROM system.live")
        server.sql(f"KILL LIVE QUERY '{live_id}'")
        assert stream.take("error").data["code"] == "LIVE_QUERY_KILLED"
        assert stream.next() is None


def test_a_logout_ends_the_stream(server: RunningServer) -> None:
    token = server.login(server.user, server.password)
    headers = {"Authorization": f"Bearer {token}"}
    with follow(server, "SELECT * FROM app.notes", headers) as stream:
        stream.take("ack")
        stream.take("rows")
        httpx.post(f"{server.url}/v1/api/auth/logout", headers=headers)
        assert stream.take("error").data["code"] == "UNAUTHORIZED"
        assert stream.next() is None


def test_streams_count_as_subscriptions_and_end_with_the_server(serve: Any) -> None:
    running: RunningServer = serve(HEADRACE_RATE_LIMIT_MAX_SUBSCRIPTIONS_PER_USER="1")
    running.set_up().sql("CREATE NAMESPACE app; CREATE USER TABLE app.notes (id BIGINT PRIMARY KEY)")
    with follow(running, "SELECT * FROM app.notes") as stream:
        stream.take("ack")
        answer = running.client.get(PATH, params={"sql": "SELECT * FROM app.notes"})
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "SUBSCRIPTION_LIMIT_EXCEEDED"
        assert running.process is not None
        running.process.send_signal(signal.SIGTERM)
        stream.take("rows")
        assert stream.next() is None
    assert running.wait() == 0
    assert "ERROR" not in running.log()


@pytest.mark.parametrize("last_rows", ["-3", "x", "10001"])
def test_a_wrong_number_of_rows_is_named(server: RunningServer, last_rows: str) -> None:
    answer = server.client.get("/v1/api/live", params={"sql": "SELECT * FROM a.b", "last_rows": last_rows})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("last_rows ")
