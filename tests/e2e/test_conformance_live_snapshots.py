"""Subscribing: options, batches, their control fields, schemas, and the messages about a subscription's life."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.live_conformance import Live, Socket, number, plain, unlimited_server
from tests.e2e.running import RunningServer

ALL = "SELECT * FROM app.nums"
TEN = [{"id": i, "body": f"n{i}"} for i in range(1, 11)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with unlimited_server(tmp_path_factory.mktemp("snapshots")) as running:
        running.sql(
            "CREATE NAMESPACE app; CREATE USER TABLE app.nums (id BIGINT PRIMARY KEY, body TEXT);"
            "CREATE USER TABLE app.empty (id BIGINT PRIMARY KEY);"
            "CREATE USER TABLE app.log (id BIGINT PRIMARY KEY, body TEXT)"
        )
        # Each row in a commit of its own, and not in the order of the key, so that the order of `_seq` is another.
        for row in [3, 1, 2, *range(4, 11)]:
            running.sql("INSERT INTO app.nums VALUES ($1, $2)", [row, f"n{row}"])
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Socket]:
    with Socket(server) as found:
        yield found


ORDER = [3, 1, 2, *range(4, 11)]
"""The keys by `_seq`."""


def ids(live: Live) -> list[int]:
    return [row["id"] for row in live.rows]


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [..., None])
def test_no_options_no_snapshot(client: Socket, server: RunningServer, options: Any) -> None:
    live = client.subscribe("SELECT * FROM app.log", options)
    assert live.ack["resumed"] is False
    assert live.ack["batch_control"]["batch_num"] == 0
    server.sql("INSERT INTO app.log VALUES (1, 'x')")
    assert live.inserted() == [{"id": 1, "body": "x"}]
    server.sql("DELETE FROM app.log WHERE true")


@pytest.mark.parametrize(
    "options",
    [
        {}, {"batch_size": None, "last_rows": None, "from": None}, {"batch_size": 10}, {"batch_size": 11},
        {"batch_size": "10"}, {"from": 0}, {"from": "0"}, {"from_seq_id": 0}, {"last_rows": 10}, {"last_rows": 1000},
        {"last_rows": "11"}, {"from": 0, "last_rows": 2}, {"unknown": True, "snapshot": "none"},
    ],
)  # fmt: skip
def test_a_whole_snapshot_in_one_batch(client: Socket, options: dict[str, Any]) -> None:
    live = client.subscribe(ALL, options)
    assert ids(live) == ORDER
    assert sorted(plain(live.rows), key=lambda row: row["id"]) == TEN
    assert live.ack["total_rows"] == 10
    assert live.ack["resumed"] is False
    (control,) = live.controls
    assert (control["batch_num"], control["has_more"], control["status"]) == (0, False, "ready")
    # The cursor that a client takes from the last batch: nothing that the batch has lies behind it.
    assert control["last_seq_id"] >= max(number(row["_seq"]) for row in live.rows)
    assert [number(row["_seq"]) for row in live.rows] == sorted(number(row["_seq"]) for row in live.rows)


@pytest.mark.parametrize("size", [1, 3, "4", 5, 9])
def test_batches_come_when_they_are_asked_for(client: Socket, size: Any) -> None:
    live = client.subscribe(ALL, {"batch_size": size})
    assert live.ack["batch_control"] == live.controls[0]
    assert len(live.rows) == int(size)
    client.barrier()
    assert client.waiting() == []  # and not before
    live.load()
    count = -(-10 // int(size))
    assert [control["batch_num"] for control in live.controls] == list(range(count))
    assert [control["status"] for control in live.controls] == ["loading", *["loading_batch"] * (count - 2), "ready"]
    assert ids(live) == ORDER
    assert live.ack["total_rows"] == 10


@pytest.mark.parametrize("cursor", [..., None, 0, "0", -1, 2**63 - 1, "junk"])
def test_what_next_batch_says_of_its_cursor_is_not_needed(client: Socket, cursor: Any) -> None:
    live = client.subscribe(ALL, {"batch_size": 6})
    client.send("next_batch", subscription_id=live.name, **({} if cursor is ... else {"last_seq_id": cursor}))
    assert [row["id"] for row in live.next()["rows"]] == ORDER[6:]


def test_last_rows(client: Socket) -> None:
    for last, found in ((1, [10]), (3, [8, 9, 10]), ("2", [9, 10])):
        live = client.subscribe(ALL, {"last_rows": last})
        assert ids(live) == found
        assert live.controls[0]["has_more"] is False
        assert live.ack["total_rows"] == len(found)
    assert ids(client.subscribe(ALL + " WHERE id < 4", {"last_rows": 2})) == [1, 2]
    assert client.refused(ALL, {"last_rows": 5, "batch_size": 4})[0] == "UNSUPPORTED"
    assert client.refused(ALL, {"last_rows": 1001})[0] == "UNSUPPORTED"
    assert ids(client.subscribe(ALL, {"last_rows": 4, "batch_size": 4})) == [7, 8, 9, 10]


def test_last_rows_0_is_no_row(client: Socket) -> None:
    live = client.subscribe(ALL, {"last_rows": 0})
    assert (live.rows, live.ack["total_rows"], live.controls[0]["status"]) == ([], 0, "ready")


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0}, {"batch_size": -1}, {"batch_size": 2**40}, {"last_rows": -1}, {"from": -1},
        {"from": "abc"}, {"from": ""}, {"from": 2**63 - 1}, {"from": 2**64}, {"from": "9" * 400}, {"last_rows": "٣"},
    ],
)  # fmt: skip
def test_options_that_cannot_be(client: Socket, options: dict[str, Any]) -> None:
    code, message = client.refused(ALL, options)
    assert code in {"INVALID_OPTION", "INVALID_CURSOR", "UNSUPPORTED"}
    assert any(name in message for name in options), message
    assert ids(client.subscribe(ALL, {})) == ORDER  # the connection stays


def test_an_empty_table(client: Socket, server: RunningServer) -> None:
    for options in ({}, {"last_rows": 5}, {"from": 0}, {"batch_size": 1}):
        live = client.subscribe("SELECT * FROM app.empty", options)
        assert (live.rows, live.ack["total_rows"]) == ([], 0)
        assert (live.controls[0]["status"], live.controls[0]["batch_num"]) == ("ready", 0)


# --- the schema, and which SQL ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("select", "names"),
    [
        ("*", ["id", "body", "_seq"]),
        ("body", ["body", "_seq"]),
        ("body, id", ["body", "id", "_seq"]),
        ("id, _seq", ["id", "_seq"]),
        ("id AS key, upper(body) AS loud", ["key", "loud", "_seq"]),
        ("nums.id, n.body", None),
        ('"id", "body" AS "Body Text"', ["id", "Body Text", "_seq"]),
        ("*, id * 2 AS twice", ["id", "body", "twice", "_seq"]),
    ],
)
def test_schema_and_rows_have_the_same_columns(client: Socket, select: str, names: list[str] | None) -> None:
    sql = f"SELECT {select} FROM app.nums"
    if names is None:
        assert client.refused(sql)[0] == "INVALID_SQL"
        return
    live = client.subscribe(sql, {})
    assert live.columns == names
    assert all(list(row) == names for row in live.rows)
    types = {column["name"]: column["data_type"] for column in live.ack["schema"]}
    assert types["_seq"] == "BigInt"
    assert types.get("id", "BigInt") == "BigInt"
    assert types.get("body", "Text") == "Text"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM app.nums;",
        "  select id,body from APP.NUMS -- all of it\n",
        "/* the numbers */ SELECT * FROM app.nums /* end */ ;  ",
        'SELECT * FROM "app"."nums"',
        "SELECT n.* FROM app.nums AS n",
        "SELECT n.id, n.body FROM app.nums n WHERE n.id > 0",
        "SELECT\n\t*\nFROM app.nums\nWHERE 1 = 1",
        "SELECT * FROM app.nums WHERE true",
    ],
)
def test_ways_to_write_it(client: Socket, sql: str) -> None:
    assert ids(client.subscribe(sql, {})) == ORDER


@pytest.mark.parametrize(
    ("sql", "codes"),
    [
        ("SELECT * FROM nums", {"INVALID_SQL"}),
        ("SELECT * FROM app.nosuch", {"NOT_FOUND"}),
        ("SELECT * FROM nosuch.nums", {"NOT_FOUND"}),
        ("SELECT * FROM a.app.nums", {"INVALID_SQL", "NOT_FOUND"}),
        ("SELECT nosuch FROM app.nums", {"INVALID_SQL"}),
        ("SELECT * FROM app.nums WHERE nosuch = 1", {"INVALID_SQL"}),
        ("SELECT 1", {"INVALID_SQL"}),
        ("", {"INVALID_SQL"}),
        ("   ", {"INVALID_SQL"}),
        ("-- nothing", {"INVALID_SQL"}),
        ("hello", {"INVALID_SQL"}),
        ("SELECT * FROM app.nums WHERE", {"INVALID_SQL"}),
        ("SELECT * FROM app.nums WHERE id = 'x", {"INVALID_SQL"}),
        ("SELECT * FROM app.nums; SELECT * FROM app.nums", {"INVALID_SQL"}),
        ("SELECT * FROM app.nums; DROP TABLE app.nums", {"INVALID_SQL"}),
        ("SELECT * FROM app.nums WHERE id = 1; DELETE FROM app.nums WHERE true", {"INVALID_SQL"}),
        ("DROP TABLE app.nums", {"INVALID_SQL"}),
        ("DELETE FROM app.nums WHERE true", {"INVALID_SQL"}),
        ("INSERT INTO app.nums VALUES (99, 'x')", {"INVALID_SQL"}),
        ("UPDATE app.nums SET body = 'x' WHERE true", {"INVALID_SQL"}),
        ("CREATE NAMESPACE live", {"INVALID_SQL"}),
        ("SHOW TABLES", {"INVALID_SQL"}),
        ("EXPLAIN SELECT * FROM app.nums", {"INVALID_SQL"}),
        ("SUBSCRIBE TO app.nums", {"INVALID_SQL"}),
        ("BEGIN", {"INVALID_SQL"}),
        ("EXECUTE AS USER 'bob' (SELECT * FROM app.nums)", {"INVALID_SQL"}),
        ("WITH a AS (SELECT * FROM app.nums) SELECT * FROM a", {"INVALID_SQL", "UNSUPPORTED"}),
        ("SELECT * FROM app.nums a JOIN app.nums b ON a.id = b.id", {"INVALID_SQL", "UNSUPPORTED"}),
        ("SELECT * FROM app.nums, app.empty", {"INVALID_SQL", "UNSUPPORTED"}),
        ("SELECT * FROM app.nums ORDER BY id", {"INVALID_SQL", "UNSUPPORTED"}),
        ("SELECT * FROM app.nums LIMIT 1", {"INVALID_SQL", "UNSUPPORTED"}),
        ("SELECT * FROM app.nums OFFSET 1", {"INVALID_SQL", "UNSUPPORTED"}),
        ("SELECT body, count(*) FROM app.nums GROUP BY body", {"INVALID_SQL", "UNSUPPORTED"}),
        ("SELECT count(*) FROM app.nums", {"INVALID_SQL", "UNSUPPORTED"}),
        ("SELECT id FROM app.nums HAVING id > 1", {"INVALID_SQL", "UNSUPPORTED"}),
        ("SELECT DISTINCT body FROM app.nums", {"INVALID_SQL", "UNSUPPORTED"}),
        ("SELECT id, row_number() OVER () FROM app.nums", {"INVALID_SQL", "UNSUPPORTED"}),
        ("SELECT * FROM app.nums UNION SELECT * FROM app.nums", {"INVALID_SQL", "UNSUPPORTED"}),
        ("SELECT * FROM app.nums WHERE id IN (SELECT id FROM app.empty)", {"INVALID_SQL", "UNSUPPORTED"}),
        ("SELECT * FROM (SELECT * FROM app.nums) t", {"INVALID_SQL", "UNSUPPORTED"}),
        ("SELECT * FROM app.nums WHERE random() < 0.5", {"INVALID_SQL", "UNSUPPORTED"}),
        ("SELECT * FROM read_csv('/etc/passwd')", {"INVALID_SQL", "UNSUPPORTED", "NOT_FOUND"}),
        ("SELECT * FROM '/etc/passwd'", {"INVALID_SQL", "UNSUPPORTED", "NOT_FOUND"}),
        ("SELECT id AS a, body AS a FROM app.nums", {"INVALID_SQL"}),
        ("SELECT * FROM app.nums WHERE id = 'not a number'", {"INVALID_SQL", "SUBSCRIPTION_FAILED"}),
        ("SELECT * FROM app.nums\x00", {"INVALID_SQL"}),
        ("SELECT * FROM app.nums WHERE body = '\x00'", {"INVALID_SQL"}),
        ("SELECT * FROM app.nums WHERE " + "(" * 3000 + "true" + ")" * 3000, {"INVALID_SQL", "UNSUPPORTED"}),
        ("SELECT * FROM app.nums WHERE id = 1" + " OR id = 1" * 50_000, {"INVALID_SQL", "UNSUPPORTED"}),
    ],
)
def test_sql_that_cannot_be_live(client: Socket, server: RunningServer, sql: str, codes: set[str]) -> None:
    code, message = client.refused(sql, {})
    assert code in codes, message
    assert len(message) < 2000
    assert server.rows("SELECT count(*) FROM app.nums") == [[10]]


def test_an_unqualified_table_is_told_how_to_be_qualified(client: Socket) -> None:
    for more in ({}, {"namespace": "app"}, {"namespace_id": "app"}):
        answer = client.ask("SELECT * FROM nums", {}, **more).next()
        if answer["type"] == "error":
            assert answer["code"] == "INVALID_SQL"
            assert "namespace.table" in answer["message"]
        else:
            assert more  # a server may take the namespace that a client names, as it does over HTTP


def test_params(client: Socket, server: RunningServer) -> None:
    live = client.subscribe("SELECT * FROM app.nums WHERE id > $1 AND body <> $2", {}, params=[7, "n9"])
    assert ids(live) == [8, 10]
    server.sql("INSERT INTO app.nums VALUES (11, 'n11'), (0, 'n0')")
    assert live.inserted() == [{"id": 11, "body": "n11"}]
    server.sql("DELETE FROM app.nums WHERE id IN (0, 11)")
    assert live.deleted() == [{"id": 11, "body": "n11"}]
    for params in ([7], [], None, [7, "x", "y"]):
        code, _ = client.refused("SELECT * FROM app.nums WHERE id > $1 AND body <> $2", {}, params=params)
        assert code in {"INVALID_PARAMETER", "INVALID_SQL"}
    assert client.subscribe(ALL, {}, params=None).rows
    assert client.subscribe(ALL, {}, params=[]).rows
    assert client.subscribe("SELECT * FROM app.nums WHERE id = $1", {}, params=["3"]).rows[0]["body"] == "n3"
    # What would be an injection in the text is only a value.
    evil = "'; DROP TABLE app.nums; --"
    assert client.subscribe("SELECT * FROM app.nums WHERE body = $1", {}, params=[evil]).rows == []


# --- the life of subscriptions ----------------------------------------------------------------------------------------


def test_ids(client: Socket) -> None:
    for name in ("a", "sub-1", "0", "ä 漢字 🦆", 'x"; DROP', "x" * 128, "../..", "a\nb", "\u202e"):
        assert client.subscribe(ALL, {}, name).ack["subscription_id"] == name
    for name in ("", "x" * 100_000):
        client.ask(ALL, {}, name)
        assert client.next("invalid_subscription")["code"] == "INVALID_SUBSCRIPTION_ID"


def test_an_id_used_again_replaces_the_subscription(client: Socket, server: RunningServer) -> None:
    client.subscribe("SELECT * FROM app.log", {}, "same")
    live = client.subscribe("SELECT id FROM app.log WHERE id > 5", {}, "same")
    server.sql("INSERT INTO app.log VALUES (1, 'a'), (6, 'b')")
    assert live.inserted() == [{"id": 6}]
    server.sql("DELETE FROM app.log WHERE true")
    assert live.change("delete")["old_values"][0]["id"] == 6
    client.barrier()
    assert client.waiting() == []


def test_unsubscribe_is_silent(client: Socket, server: RunningServer) -> None:
    gone, kept = client.subscribe("SELECT * FROM app.log"), client.subscribe("SELECT * FROM app.log")
    client.send("unsubscribe", subscription_id=gone.name)
    client.send("unsubscribe", subscription_id=gone.name)
    client.send("unsubscribe", subscription_id="nobody")
    client.send("ping")
    client.barrier()
    server.sql("INSERT INTO app.log VALUES (1, 'a')")
    assert kept.inserted()
    client.barrier()
    assert client.waiting() == []
    client.send("unsubscribe", subscription_id=kept.name, ack=True)
    assert client.next(kept.name) == {"type": "unsubscribed", "subscription_id": kept.name}
    again = client.subscribe("SELECT * FROM app.log", {}, gone.name)
    assert plain(again.rows) == [{"id": 1, "body": "a"}]
    server.sql("DELETE FROM app.log WHERE true")


def test_next_batch_too_often_or_for_nobody(client: Socket, server: RunningServer) -> None:
    live = client.subscribe("SELECT * FROM app.log", {})
    client.send("next_batch", subscription_id=live.name)
    assert live.error()[0] == "BATCH_FETCH_FAILED"
    client.send("next_batch", subscription_id="nobody")
    assert client.next("nobody")["code"] in {"BATCH_FETCH_FAILED", "NOT_FOUND"}
    server.sql("INSERT INTO app.log VALUES (1, 'a')")
    assert live.inserted() == [{"id": 1, "body": "a"}]  # it goes on
    server.sql("DELETE FROM app.log WHERE true")


def test_changes_while_a_snapshot_loads_come_after_it(client: Socket, server: RunningServer) -> None:
    server.sql("INSERT INTO app.log VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    live = client.subscribe("SELECT * FROM app.log", {"batch_size": 1})
    server.sql("UPDATE app.log SET body = 'B' WHERE id = 2; DELETE FROM app.log WHERE id = 3")
    for row in range(2000):  # more than the 1024 that the reference keeps
        if row % 500 == 0:
            values = ",".join(f"({100 + each}, 'x')" for each in range(row, row + 500))
            server.sql(f"INSERT INTO app.log VALUES {values}")
    live.load()
    assert plain(live.rows) == [{"id": 1, "body": "a"}, {"id": 2, "body": "b"}, {"id": 3, "body": "c"}]
    assert live.updated() == ([{"id": 2, "body": "B"}], [{"id": 2, "body": "b"}])
    assert live.deleted() == [{"id": 3, "body": "c"}]
    found: list[int] = []
    while len(found) < 2000:
        found += [row["id"] for row in live.inserted()]
    assert found == list(range(100, 2100))
    server.sql("DELETE FROM app.log WHERE true")


def test_many_subscriptions_on_one_connection(client: Socket, server: RunningServer) -> None:
    lives = [client.subscribe(f"SELECT * FROM app.log WHERE id % 50 = {rest}", {}) for rest in range(50)]
    values = ",".join(f"({each}, 'x')" for each in range(100))
    server.sql(f"INSERT INTO app.log VALUES {values}")
    for rest, live in enumerate(lives):
        assert [row["id"] for row in live.inserted()] == [rest, rest + 50]
    server.sql("DELETE FROM app.log WHERE true")
    for rest, live in enumerate(lives):
        assert [row["id"] for row in live.deleted()] == [rest, rest + 50]
    client.barrier()
    assert client.waiting() == []


def test_fields_that_are_missing_or_wrong_close_with_1011(server: RunningServer) -> None:
    for kind, fields in (
        ("subscribe", {}),
        ("subscribe", {"subscription": None}),
        ("subscribe", {"subscription": "s1"}),
        ("subscribe", {"subscription": {"id": "s1"}}),
        ("subscribe", {"subscription": {"sql": ALL}}),
        ("subscribe", {"subscription": {"id": 1, "sql": ALL}}),
        ("subscribe", {"subscription": {"id": "s1", "sql": 7}}),
        ("subscribe", {"id": "s1", "sql": ALL}),
        ("subscribe", {"subscription": {"id": "s1", "sql": ALL, "options": {"batch_size": 1.5}}}),
        ("subscribe", {"subscription": {"id": "s1", "sql": ALL, "options": {"last_rows": [1]}}}),
        ("subscribe", {"subscription": {"id": "s1", "sql": ALL, "options": "all"}}),
        ("next_batch", {}),
        ("unsubscribe", {"subscription_id": None}),
        ("SUBSCRIBE", {"subscription": {"id": "s1", "sql": ALL}}),
        ("change", {}),
    ):
        with Socket(server) as client:
            client.send(kind, **fields)
            assert client.closed()[0] == 1011, (kind, fields)


def test_unknown_fields_are_no_matter(client: Socket) -> None:
    live = client.subscribe(ALL, {"batch_size": 5, "future": [1]}, color="red", subscription_id="other")
    client.send("next_batch", subscription_id=live.name, last_seq_id=None, more={"a": 1})
    assert live.next()["batch_control"]["status"] == "ready"
