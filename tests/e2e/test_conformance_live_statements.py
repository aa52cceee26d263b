"""SUBSCRIBE TO, KILL LIVE QUERY, system.live and system.stats: what SQL over HTTP knows of live queries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conformance import columns, error, ok
from tests.e2e.live_conformance import Socket, member, plain, unlimited_server
from tests.e2e.running import RunningServer

LIVE_COLUMNS = [
    "live_id", "connection_id", "subscription_id", "namespace_id", "table_name", "user_id", "query", "options",
    "status", "created_at", "last_update", "changes", "node_id", "last_ping_at",
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with unlimited_server(tmp_path_factory.mktemp("statements")) as running:
        running.sql(
            "CREATE NAMESPACE app; CREATE USER TABLE app.t (id INT PRIMARY KEY, body TEXT);"
            "CREATE SHARED TABLE app.staff (id INT PRIMARY KEY) WITH (ACCESS_LEVEL = 'dba');"
            "INSERT INTO app.t VALUES (1, 'a'), (2, 'b'), (3, 'c')"
        )
        yield running


def listed(server: RunningServer, where: str) -> list[dict[str, Any]]:
    (result,) = ok(server.post(f"SELECT * FROM system.live WHERE {where}"))
    assert columns(result) == LIVE_COLUMNS
    return [dict(zip(LIVE_COLUMNS, row, strict=True)) for row in result["rows"]]


# --- SUBSCRIBE TO -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SUBSCRIBE TO app.t", [1, 2, 3]),
        ("subscribe to app.t;", [1, 2, 3]),
        ("SUBSCRIBE TO app.t WHERE id > 1", [2, 3]),
        ("SUBSCRIBE TO app.t WHERE body IN ('a', 'OPTIONS') OPTIONS (last_rows=1)", [1]),
        ("SUBSCRIBE TO app.t OPTIONS (last_rows = 2)", [2, 3]),
        ("SUBSCRIBE TO app.t OPTIONS (last_rows=2, batch_size=5)", [2, 3]),
        ("SUBSCRIBE TO app.t OPTIONS (from=0)", [1, 2, 3]),
        ("SUBSCRIBE TO app.t OPTIONS (FROM_SEQ_ID=0)", [1, 2, 3]),
        ("SUBSCRIBE TO SELECT id FROM app.t WHERE body <> 'b' OPTIONS (batch_size=10)", [1, 3]),
    ],
)
def test_what_it_answers_can_be_sent_as_it_is(server: RunningServer, sql: str, found: list[int]) -> None:
    (result,) = ok(server.post(sql))
    assert columns(result) == ["status", "ws_url", "subscription", "message"]
    ((status, ws_url, subscription, message),) = result["rows"]
    assert status == "active"
    assert ws_url == server.url.replace("http", "ws", 1) + "/v1/ws"
    assert message.startswith("WebSocket subscription created. Connect to ws_url")
    asked = json.loads(subscription)
    assert asked["id"].startswith("sub-app-t-")
    with Socket(server) as client:
        live = client.subscribe(asked["sql"], asked.get("options") or {}, asked["id"])
        assert [row["id"] for row in live.rows] == found


def test_it_registers_nothing(server: RunningServer) -> None:
    (_, _, first, _), (_, _, second, _) = (server.rows("SUBSCRIBE TO app.t")[0] for _ in range(2))
    ids = {json.loads(first)["id"], json.loads(second)["id"]}
    assert len(ids) == 2
    assert not ids & {row["subscription_id"] for row in listed(server, "true")}
    ((_, _, named, _),) = server.rows("SUBSCRIBE TO t", namespace_id="app")
    assert "app.t" in json.loads(named)["sql"].replace('"', "")


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SUBSCRIBE TO app.nosuch", 404, "TABLE_NOT_FOUND"),
        ("SUBSCRIBE TO", 400, "INVALID_SQL"),
        ("SUBSCRIBE app.t", 400, "INVALID_SQL"),
        ("SUBSCRIBE TO app.t WHERE nosuch = 1", 400, "INVALID_SQL"),
        ("SUBSCRIBE TO app.t OPTIONS (nosuch=1)", 400, "INVALID_SQL"),
        ("SUBSCRIBE TO app.t OPTIONS (last_rows='x')", 400, "INVALID_SQL"),
        ("SUBSCRIBE TO app.t OPTIONS (last_rows=-1)", 400, "INVALID_SQL"),
        ("SUBSCRIBE TO app.t OPTIONS (last_rows=1", 400, None),
        ("SUBSCRIBE TO SELECT * FROM app.t ORDER BY id", 400, None),
        ("SUBSCRIBE TO SELECT count(*) FROM app.t", 400, None),
        ("SUBSCRIBE TO DELETE FROM app.t WHERE true", 400, "INVALID_SQL"),
    ],
)
def test_what_cannot_be_subscribed_to(server: RunningServer, sql: str, status: int, code: str | None) -> None:
    found = error(server.post(sql))
    assert found.status == status, found
    assert found.code == code or code is None or found.code == "INVALID_OPTION", found
    assert server.rows("SELECT count(*) FROM app.t") == [[3]]


# --- system.live ------------------------------------------------------------------------------------------------------


def test_system_live_shows_what_is_subscribed(server: RunningServer) -> None:
    token = member(server, "ann")
    with Socket(server, token) as client:
        client.subscribe("SELECT * FROM app.t WHERE id > 5", {"batch_size": 7}, "mine")
        (row,) = listed(server, "user_id = 'ann'")
        assert row["live_id"] == f"ann-{row['connection_id']}-mine"
        assert (row["namespace_id"], row["table_name"], row["subscription_id"]) == ("app", "t", "mine")
        assert row["query"] == "SELECT * FROM app.t WHERE id > 5"
        assert json.loads(row["options"]) == {"batch_size": 7}
        assert row["changes"] == 0
        assert row["created_at"] > 1_600_000_000_000_000  # microseconds
        with server.client_of(token) as http:
            ok(http.post("/v1/api/sql", json={"sql": "INSERT INTO app.t VALUES (9, 'x'), (10, 'y')"}))
            assert error(http.post("/v1/api/sql", json={"sql": "SELECT * FROM system.live"})).status in {403, 404}
        client.next("mine")
        client.barrier()
        (after,) = listed(server, "user_id = 'ann'")
        assert after["changes"] == 2
        assert after["last_update"] >= row["created_at"]
        client.send("unsubscribe", subscription_id="mine")
        client.barrier()
        assert listed(server, "user_id = 'ann'") == []


def test_system_tables_live(server: RunningServer) -> None:
    with Socket(server) as client:
        live = client.subscribe("SELECT user_id, role FROM system.users WHERE role = 'service'", {})
        assert live.rows == []
        member(server, "worker", "service")
        assert plain(live.change("insert")["rows"]) == [{"user_id": "worker", "role": "service"}]
        server.sql("ALTER USER 'worker' SET ROLE user")
        assert live.change("delete")["old_values"][0]["user_id"] == "worker"


# --- KILL LIVE QUERY --------------------------------------------------------------------------------------------------


def test_kill(server: RunningServer) -> None:
    bob, eve = member(server, "bob"), member(server, "eve")
    with Socket(server, bob) as client, server.client_of(bob) as own, server.client_of(eve) as other:
        first, second = client.subscribe("SELECT * FROM app.t", {}), client.subscribe("SELECT * FROM app.t", {})
        ids = {row["subscription_id"]: row["live_id"] for row in listed(server, "user_id = 'bob'")}
        sql = f"KILL LIVE QUERY '{ids[first.name]}'"
        assert error(other.post("/v1/api/sql", json={"sql": sql})).status in {403, 404}
        (result,) = ok(own.post("/v1/api/sql", json={"sql": sql}))
        assert result["message"] == f"Live query killed: {ids[first.name]}"
        assert first.error()[0] == "LIVE_QUERY_KILLED"
        assert error(own.post("/v1/api/sql", json={"sql": sql})).code == "LIVE_QUERY_NOT_FOUND"
        (result,) = ok(server.post(f"KILL LIVE QUERY '{ids[second.name]}'"))
        assert second.error()[0] == "LIVE_QUERY_KILLED"
        assert listed(server, "user_id = 'bob'") == []
        client.barrier()
        assert client.waiting() == []  # the connection goes on
        assert client.subscribe("SELECT * FROM app.t", {}, first.name).rows == []
    for bad in ("KILL LIVE QUERY 'nobody-1-x'", "KILL LIVE QUERY ''"):
        assert error(server.post(bad)).status in {400, 404}
    for bad in ("KILL LIVE QUERY", "KILL LIVE QUERY 5 6", "KILL LIVE 'x'"):
        assert error(server.post(bad)).code == "INVALID_SQL"


# --- system.stats -----------------------------------------------------------------------------------------------------


def test_the_numbers_of_live_queries_in_system_stats(server: RunningServer) -> None:
    names = {"total_live_queries", "active_connections", "active_connections_peak", "active_subscriptions",
             "active_subscriptions_peak", "websocket_sessions", "websocket_sessions_peak"}  # fmt: skip

    def stats() -> dict[str, int]:
        found = dict(server.rows("SELECT metric_name, metric_value FROM system.stats"))
        assert names <= set(found), names - set(found)
        return {name: int(found[name]) for name in names}

    with Socket(server) as client:
        before = stats()
        assert before["websocket_sessions"] >= 1
        for name in ("a", "b"):
            client.subscribe("SELECT * FROM app.t", {}, name)
        after = stats()
        for name in ("total_live_queries", "active_subscriptions"):
            assert after[name] == before[name] + 2
            assert after["active_subscriptions_peak"] >= after["active_subscriptions"]
        assert after["active_connections"] >= after["websocket_sessions"] >= 1
        client.send("unsubscribe", subscription_id="a")
        client.barrier()
        assert stats()["active_subscriptions"] == before["active_subscriptions"] + 1
