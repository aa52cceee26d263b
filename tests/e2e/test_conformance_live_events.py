"""Server-sent events at `/v1/api/live`, with `curl` where it is there: framing, cursors, errors and rights."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import pytest

from tests.e2e.live_conformance import member, number, plain, unlimited_server
from tests.e2e.running import RunningServer

ALL = "SELECT * FROM app.t"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with unlimited_server(tmp_path_factory.mktemp("events")) as running:
        running.sql("CREATE NAMESPACE app; CREATE USER TABLE app.t (id BIGINT PRIMARY KEY, body TEXT)")
        yield running


@pytest.fixture(autouse=True)
def rows(server: RunningServer) -> None:
    server.sql("DELETE FROM app.t WHERE true; INSERT INTO app.t VALUES (1, 'a'), (2, 'b'), (3, 'line\nline')")


class Event(NamedTuple):
    """One event of a stream."""

    name: str
    data: dict[str, Any]
    id: int | None


def parse(lines: Iterator[str]) -> Iterator[Event]:
    """Events as the standard says they are read: fields, a blank line, comments."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
            continue
        if "data" in fields:
            last = fields.get("id")
            yield Event(
                fields.get("event", ["message"])[0],
                json.loads("\n".join(fields["data"])),
                int(last[0]) if last else None,
            )
        fields = {}


@contextmanager
def stream(
    server: RunningServer, sql: str = ALL, last: object = None, token: str | None = None, **more: Any
) -> Iterator[Iterator[Event]]:
    """The events of one request."""
    headers = {"Authorization": f"Bearer {token or server.token}"} | (
        {} if last is None else {"Last-Event-ID": str(last)}
    )
    with httpx.stream(
        "GET", f"{server.url}/v1/api/live", params={"sql": sql, **more}, headers=headers, timeout=20
    ) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["Content-Type"].split(";")[0] == "text/event-stream"
        assert "no-" in answer.headers["Cache-Control"]
        yield parse(answer.iter_lines())


def refused(server: RunningServer, **more: Any) -> tuple[int, str]:
    """What a request is answered that is no stream."""
    headers = more.pop("headers", {"Authorization": f"Bearer {server.token}"})
    answer = httpx.get(f"{server.url}/v1/api/live", params=more, headers=headers, timeout=20)
    error = answer.json()["error"]
    return answer.status_code, error["code"] if isinstance(error, dict) else error


def test_rows_then_changes(server: RunningServer) -> None:
    with stream(server) as events:
        ack = next(events)
        assert ack.name == "ack"
        assert set(ack.data) == {"total_rows", "batch_control", "schema", "resumed"}
        assert [column["name"] for column in ack.data["schema"]] == ["id", "body", "_seq"]
        rows = next(events)
        assert (rows.name, ack.data["total_rows"]) == ("rows", 3)
        assert plain(rows.data["rows"]) == [
            {"id": 1, "body": "a"},
            {"id": 2, "body": "b"},
            {"id": 3, "body": "line\nline"},
        ]
        assert rows.data["batch_control"]["status"] == "ready"
        server.sql("UPDATE app.t SET body = 'x\r\ny' WHERE id = 1; DELETE FROM app.t WHERE id = 2")
        update, delete = next(events), next(events)
        assert set(update.data) == {"change_type", "seq", "rows", "old_values"}
        assert plain(update.data["rows"]) == [{"id": 1, "body": "x\r\ny"}]
        assert (update.id, delete.id) == (number(update.data["seq"]), number(delete.data["seq"]))
        assert (delete.name, delete.data["change_type"]) == ("change", "delete")


def test_all_batches_come_unasked(server: RunningServer) -> None:
    with stream(server, batch_size=1) as events:
        next(events)
        batches = [next(events) for _ in range(3)]
        assert [batch.data["batch_control"]["status"] for batch in batches] == ["loading", "loading_batch", "ready"]
        server.sql("DELETE FROM app.t WHERE id = 1")
        assert next(events).data["change_type"] == "delete"


def test_parameters(server: RunningServer) -> None:
    with stream(server, ALL + " WHERE id = $1", params="[2]") as events:
        next(events)
        assert [row["id"] for row in next(events).data["rows"]] == [2]
    with stream(server, last_rows=1) as events:
        next(events)
        assert [row["id"] for row in next(events).data["rows"]] == [3]
    with stream(server, snapshot="none") as events:
        assert next(events).data["total_rows"] == 0
        server.sql("INSERT INTO app.t VALUES (4, 'd')")
        assert plain(next(events).data["rows"]) == [{"id": 4, "body": "d"}]


@pytest.mark.parametrize("way", ["header", "from", "from_seq_id", "both"])
def test_coming_back_with_the_last_id(server: RunningServer, way: str) -> None:
    with stream(server) as events:
        next(events)
        last = next(events).id
    assert last
    server.sql("INSERT INTO app.t VALUES (4, 'd'); DELETE FROM app.t WHERE id = 1")
    more: dict[str, Any] = {"from": last} if way == "from" else {"from_seq_id": last} if way == "from_seq_id" else {}
    more |= {"last": last, "from": 0} if way == "both" else {"last": last} if way == "header" else {}
    with stream(server, **more) as events:
        assert next(events).data["resumed"] is True
        told = [next(events)]
        while told[-1].data.get("change_type") != "delete":
            told.append(next(events))
        found = [row["id"] for event in told for row in event.data.get("rows", [])]
        assert found == [4]
        assert plain(told[-1].data["old_values"]) == [{"id": 1, "body": "a"}]
        ids = [event.id for event in told if event.id]
        assert ids == sorted(ids)
        assert ids[0] > last


def test_what_is_wrong_with_a_request(server: RunningServer) -> None:
    assert refused(server) == (400, refused(server)[1])
    assert refused(server, sql="SELECT * FROM app.nosuch") == (404, "TABLE_NOT_FOUND")
    assert refused(server, sql="SELECT * FROM t")[0] in {400, 404}
    for sql in ("DROP TABLE app.t", ALL + ";" + ALL, ALL + " ORDER BY id", "hello", "\x00"):
        assert refused(server, sql=sql)[0] == 400, sql
    for name, value in (("batch_size", "x"), ("batch_size", "0"), ("last_rows", "-1"), ("from", "1e3"), ("params", "{"),
                        ("params", "{}"), ("snapshot", "some"), ("from", str(2**62))):  # fmt: skip
        assert refused(server, sql=ALL, **{name: value})[0] == 400, (name, value)
    headers = {"Authorization": f"Bearer {server.token}", "Last-Event-ID": "nonsense"}
    assert refused(server, sql=ALL, headers=headers)[0] == 400
    assert refused(server, sql=ALL, headers={})[0] == 401
    assert refused(server, sql=ALL, headers={"Authorization": "Bearer nonsense"})[0] == 401
    assert refused(server, sql="SELECT * FROM system.users",
                   headers={"Authorization": f"Bearer {member(server, 'nobody')}"})[0] in {403, 404}  # fmt: skip
    assert httpx.post(f"{server.url}/v1/api/live", timeout=20).status_code in {404, 405}


def test_why_a_stream_ends(server: RunningServer) -> None:
    server.sql("CREATE USER TABLE app.brief (id INT PRIMARY KEY)")
    token = member(server, "leaver")
    with stream(server, "SELECT * FROM app.brief") as gone, stream(server, token=token) as left:
        assert (next(gone).name, next(left).name) == ("ack", "ack")
        assert (next(gone).name, next(left).name) == ("rows", "rows")
        server.sql("DROP TABLE app.brief; DROP USER 'leaver'")
        end = next(gone)
        assert (end.name, end.data["code"]) == ("error", "NOT_FOUND")
        assert list(gone) == []
        assert [event.name for event in left] in (["error"], [])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_with_curl(server: RunningServer) -> None:
    command = ["curl", "-sN", "--max-time", "20", "-H", f"Authorization: Bearer {server.token}", "-G",
               f"{server.url}/v1/api/live", "--data-urlencode", f"sql={ALL} WHERE body <> 'ä&='"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout is not None
        events = parse(line.rstrip("\n") for line in curl.stdout)
        assert (next(events).name, len(next(events).data["rows"])) == ("ack", 3)
        server.sql("INSERT INTO app.t VALUES (4, 'ä&=') , (5, 'é')")
        assert plain(next(events).data["rows"]) == [{"id": 5, "body": "é"}]
        curl.terminate()
