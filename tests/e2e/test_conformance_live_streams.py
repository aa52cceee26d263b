"""Live queries on STREAM tables: own rows, expiry and DELETE as events, and coming back after rows are gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.live_conformance import Socket, member, number, plain, unlimited_server
from tests.e2e.running import RunningServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    changes = {"HEADRACE_STREAM_EVICTION_INTERVAL_SECONDS": "0.1"}
    with unlimited_server(tmp_path_factory.mktemp("streams"), **changes) as running:
        running.sql(
            "CREATE NAMESPACE app;"
            "CREATE STREAM TABLE app.long (id TEXT PRIMARY KEY, kind TEXT) WITH (TTL_SECONDS = 3600);"
            "CREATE STREAM TABLE app.bare (kind TEXT, n INT) WITH (TTL_SECONDS = 3600);"
            "CREATE TABLE app.short (id TEXT, n INT) WITH (TYPE = 'STREAM', TTL_SECONDS = 1)"
        )
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Socket]:
    with Socket(server) as found:
        yield found


def test_inserts_and_hard_deletes(client: Socket, server: RunningServer) -> None:
    live = client.subscribe("SELECT * FROM app.long", {})
    server.sql("INSERT INTO app.long VALUES ('a', 'typing'), ('b', 'seen')")
    insert = live.change("insert")
    assert plain(insert["rows"]) == [{"id": "a", "kind": "typing"}, {"id": "b", "kind": "seen"}]
    server.sql("DELETE FROM app.long WHERE id = 'a'")
    delete = live.change("delete")
    # What the reference sends, `row_id`, and what its clients would like to have.
    seq = insert["rows"][0]["_seq"]
    assert delete["old_values"] == [{"id": "a", "kind": "typing", "_seq": seq, "row_id": f"admin:{seq}"}]
    assert number(delete["seq"]) > number(insert["seq"])
    assert server.post("UPDATE app.long SET kind = 'x' WHERE id = 'b'").status_code == 400
    server.sql("DELETE FROM app.long WHERE true")
    assert [old["id"] for old in live.change("delete")["old_values"]] == ["b"]


def test_snapshots_options_and_filters_are_those_of_other_tables(client: Socket, server: RunningServer) -> None:
    for n in range(5):
        server.sql(f"INSERT INTO app.bare VALUES ('k{n % 2}', {n})")
    assert [row["n"] for row in client.subscribe("SELECT * FROM app.bare", {"batch_size": 2}).load().rows] == [
        *range(5)
    ]
    assert [row["n"] for row in client.subscribe("SELECT n FROM app.bare", {"last_rows": 2}).rows] == [3, 4]
    assert [row["n"] for row in client.subscribe("SELECT n FROM app.bare WHERE kind = 'k1'", {}).rows] == [1, 3]
    live = client.subscribe("SELECT n + 1 AS m FROM app.bare WHERE n IN (7, 8)")
    server.sql("INSERT INTO app.bare VALUES ('x', 6), ('x', 7)")
    assert live.inserted() == [{"m": 8}]
    server.sql("DELETE FROM app.bare WHERE true")
    (old,) = live.change("delete")["old_values"]
    assert (old["m"], old["row_id"]) == (8, f"admin:{old['_seq']}")


def test_own_rows_alone(client: Socket, server: RunningServer) -> None:
    token = member(server, "ann")
    mine = client.subscribe("SELECT * FROM app.long", {})
    with Socket(server, token) as other, server.client_of(token) as http:
        theirs = other.subscribe("SELECT * FROM app.long", {})
        assert http.post("/v1/api/sql", json={"sql": "INSERT INTO app.long VALUES ('hers', 'x')"}).status_code == 200
        assert theirs.inserted() == [{"id": "hers", "kind": "x"}]
        server.sql("INSERT INTO app.long VALUES ('his', 'x')")
        assert mine.inserted() == [{"id": "his", "kind": "x"}]
        other.barrier()
        assert other.waiting() == []
    server.sql("DELETE FROM app.long WHERE true")


def test_rows_whose_time_is_over_are_told_and_gone(client: Socket, server: RunningServer) -> None:
    live = client.subscribe("SELECT * FROM app.short", {})
    server.sql("INSERT INTO app.short VALUES ('a', 1)")
    insert = live.change("insert")
    seq = insert["rows"][0]["_seq"]
    delete = live.change("delete")
    assert delete["old_values"] == [{"id": "a", "n": 1, "_seq": seq, "row_id": f"admin:{seq}"}]
    assert server.rows("SELECT * FROM app.short") == []
    assert client.subscribe("SELECT * FROM app.short", {}).rows == []
    # A client that was away since then is told the same by the log.
    behind = client.subscribe("SELECT * FROM app.short", {"from": number(seq) - 1})
    told = [row["id"] for row in behind.rows]
    while not told:
        told += [row["id"] for row in behind.change("insert")["rows"]]
    assert told == ["a"]
    assert plain(behind.change("delete")["old_values"])[0]["id"] == "a"
    after = client.subscribe("SELECT * FROM app.short", {"from": delete["seq"]})
    assert after.rows == []
    client.barrier()
    assert client.waiting() == []
