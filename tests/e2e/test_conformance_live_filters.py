"""Filters: whatever WHERE says over HTTP, the snapshot and the changes say too; rows that enter and leave."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.live_conformance import Live, Row, Socket, plain, unlimited_server
from tests.e2e.running import RunningServer

COLUMNS = "id, body, n, price, ok, day, at, doc, big"
ROWS = [
    "(1, 'apple', 1, 1.50, true, DATE '2024-01-01', TIMESTAMP '2024-01-01 10:00:00', '{\"a\": 1}', 9007199254740993)",
    "(2, 'Banana', 2, 2.50, false, DATE '2024-06-30', TIMESTAMP '2024-06-30 23:59:59', '{\"a\": [2]}', -5)",
    "(3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    "(4, 'it''s 100%', -4, -0.01, true, DATE '1969-12-31', TIMESTAMP '1969-12-31 00:00:00.000001', '[]', 0)",
    "(5, '', 0, 0, false, DATE '2024-02-29', TIMESTAMP '2024-02-29 00:00:00', 'null', 9223372036854775807)",
    "(6, 'ünïcödé_漢', 6, 99999.99, true, DATE '9999-12-31', TIMESTAMP '2100-01-01 00:00:00', '\"x\"', 6)",
    "(7, 'alice', 7, 7.00, NULL, DATE '2024-01-01', NULL, NULL, 7)",
]
FILTERS = [
    "id = 3", "id <> 3", "id != 3", "id > 2 AND id <= 5", "n < 0 OR n > 5", "NOT (n = 1)", "NOT n IS NULL",
    "n IS NULL", "body IS NOT NULL AND ok IS NOT TRUE", "n BETWEEN 0 AND 6", "n NOT BETWEEN 0 AND 6",
    "id IN (1, 3, 5)", "id NOT IN (1, 3, 5)", "n IN (1, NULL)", "n NOT IN (1, NULL)", "body IN ('apple', 'x')",
    "body LIKE 'a%'", "body LIKE '%an_na'", "body NOT LIKE '%a%'", "body ILIKE 'B%'", "body NOT ILIKE '%A%'",
    "body LIKE '%100\\%' ESCAPE '\\'", "body = ''", "body = 'it''s 100%'", "body > 'B'", "lower(body) = 'banana'",
    "length(body) > 5", "substr(body, 1, 2) = 'ap'", "coalesce(n, 100) > 6", "n + id > 7", "n % 2 = 0", "-n = 4",
    "abs(n) = 4", "price = 2.5", "price < 0", "price >= 7", "CAST(price AS INT) = 7", "n / 2 > 1", "n * 1.5 > 3",
    "ok", "NOT ok", "ok = true", "ok IS FALSE", "ok IS NULL", "day = DATE '2024-01-01'", "day = '2024-01-01'",
    "day > '2024-02-01' AND day < '2025-01-01'", "at < TIMESTAMP '2024-02-01 00:00:00'", "at >= '2024-06-30'",
    "extract(year FROM day) = 2024", "at < NOW()", "day <= CURRENT_DATE", "big > 9007199254740992",
    "big = 9223372036854775807", "big = '9007199254740993'", "big < 0", "CASE WHEN n > 1 THEN true ELSE false END",
    "body || 'x' = 'applex'", "n IS DISTINCT FROM 1", "n IS NOT DISTINCT FROM NULL", "body = CURRENT_USER()",
    "body <> CURRENT_USER", "CURRENT_ROLE() = 'dba'", "1 = 1",
    "1 = 0", "NULL", "(((id = 1)))", '"id" = 1 AND "body" = \'x\'',
    "id = 1 -- OR true", "id /* = 2 */ = 1", "greatest(n, id) = 7", "body ~ '^a.*e$'", "nullif(n, 0) IS NULL",
    "id = 1 OR (id = 2 AND (n = 2 OR body IS NULL)) OR NOT (id < 7)", "_seq > 0",
    "_deleted = false", "trim(body) = body",
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with unlimited_server(tmp_path_factory.mktemp("filters")) as running:
        running.sql(
            "CREATE NAMESPACE app; CREATE USER TABLE app.t (id INT PRIMARY KEY, body TEXT, n INT, price DECIMAL(10,2),"
            " ok BOOLEAN, day DATE, at TIMESTAMP, doc JSON, big BIGINT);"
            "CREATE USER TABLE app.todo (id INT PRIMARY KEY, title TEXT, done BOOLEAN, rank INT)"
        )
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[Socket]:
    with Socket(server) as found:
        yield found


def by_http(server: RunningServer, where: str) -> list[int]:
    return sorted(row[0] for row in server.rows(f"SELECT id FROM app.t WHERE {where}\n"))


class Copy:
    """The rows that a client holds who does what it is told, by key; it is strict about what can be told."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.rows: dict[int, Row] = {}
        for row in live.rows:
            self.take(row)

    def take(self, row: Row) -> None:
        assert row["id"] not in self.rows, "inserted twice"
        self.rows[row["id"]] = row

    def apply(self, event: dict[str, object]) -> None:
        assert event["type"] == "change", event
        for old in event.get("old_values", []):  # type: ignore[attr-defined]
            held = self.rows.pop(old["id"])
            assert held["_seq"] == old["_seq"]
            assert {name: held[name] for name in old} == old
        for row in event.get("rows", []):  # type: ignore[attr-defined]
            self.take(row)


def test_every_filter_agrees_with_http_and_live_with_the_snapshot(server: RunningServer) -> None:
    with Socket(server) as client:
        copies = {where: Copy(client.subscribe(f"SELECT * FROM app.t WHERE {where}\n", {})) for where in FILTERS}
        for row in ROWS:
            server.sql(f"INSERT INTO app.t ({COLUMNS}) VALUES {row}")
        server.sql(
            "UPDATE app.t SET n = coalesce(n, 0) + 3, body = NULL, ok = NOT coalesce(ok, false) WHERE id IN (1, 3, 6);"
            "UPDATE app.t SET price = -price, day = DATE '2024-01-01', big = id WHERE id IN (2, 5);"
            "UPDATE app.t SET body = 'admin', at = TIMESTAMP '2024-05-05 05:05:05' WHERE id = 7;"
            "DELETE FROM app.t WHERE id = 4"
        )
        for event in sorted(client.drain(), key=lambda found: int(found["seq"])):
            where = [*copies][int(event["subscription_id"][1:]) - 1]
            copies[where].apply(event)
        every = {tuple(row[:1]): row for row in server.rows(f"SELECT {COLUMNS} FROM app.t")}
        for where, copy in copies.items():
            assert sorted(copy.rows) == by_http(server, where), where
            snapshot = client.subscribe(f"SELECT * FROM app.t WHERE {where}\n", {}, copy.live.name)
            assert {row["id"]: row for row in snapshot.rows} == copy.rows, where
            for row in plain(snapshot.rows):
                assert [*row.values()] == every[row["id"],], where
        assert any(copy.rows for copy in copies.values())


def test_a_row_that_leaves_and_enters_the_filter(client: Socket, server: RunningServer) -> None:
    live = client.subscribe("SELECT id, title FROM app.todo WHERE done = false", {})
    server.sql("INSERT INTO app.todo VALUES (1, 'x', false, 1), (2, 'y', true, 1)")
    assert live.inserted() == [{"id": 1, "title": "x"}]
    server.sql("UPDATE app.todo SET title = 'yy' WHERE id = 2")  # never matched
    server.sql("UPDATE app.todo SET done = true WHERE id = 1")
    assert live.deleted() == [{"id": 1, "title": "x"}]
    server.sql("DELETE FROM app.todo WHERE id = 1")  # left already
    server.sql("UPDATE app.todo SET done = false WHERE id = 2")
    assert live.inserted() == [{"id": 2, "title": "yy"}]
    server.sql("UPDATE app.todo SET done = NULL WHERE id = 2")  # NULL matches nothing
    assert live.deleted() == [{"id": 2, "title": "yy"}]
    server.sql("DELETE FROM app.todo WHERE true")
    client.barrier()
    assert client.waiting() == []


def test_one_statement_that_moves_rows_in_out_and_along(client: Socket, server: RunningServer) -> None:
    server.sql("INSERT INTO app.todo VALUES (1, 'in', false, 0), (2, 'stays', false, 5), (3, 'out', false, 9)")
    copy = Copy(client.subscribe("SELECT * FROM app.todo WHERE rank >= 5", {}))
    assert sorted(copy.rows) == [2, 3]
    server.sql("UPDATE app.todo SET rank = CASE id WHEN 1 THEN 7 WHEN 2 THEN 6 ELSE 1 END WHERE true")
    while sorted(copy.rows) != [1, 2] or copy.rows[2]["rank"] != 6:
        copy.apply(copy.live.next())
    server.sql("DELETE FROM app.todo WHERE true")


def test_the_filter_is_fixed_when_the_subscription_is_made(client: Socket, server: RunningServer) -> None:
    server.sql("INSERT INTO app.todo VALUES (1, 'x', false, 0)")
    past = client.subscribe("SELECT id FROM app.todo WHERE NOW() > TIMESTAMP '2020-01-01 00:00:00'", {})
    never = client.subscribe("SELECT id FROM app.todo WHERE NOW() < TIMESTAMP '2020-01-01 00:00:00'", {})
    assert (plain(past.rows), never.rows) == ([{"id": 1}], [])
    server.sql("INSERT INTO app.todo VALUES (2, 'x', false, 0); DELETE FROM app.todo WHERE true")
    assert past.inserted() == [{"id": 2}]
    assert sorted(row["id"] for row in past.deleted()) == [1, 2]
    client.barrier()
    assert client.waiting() == []


def test_an_evaluation_that_fails_on_one_row_ends_that_subscription_alone(
    client: Socket, server: RunningServer
) -> None:
    bad = client.subscribe("SELECT id FROM app.todo WHERE CAST(title AS INT) > 0", {})
    good = client.subscribe("SELECT id FROM app.todo", {})
    server.sql("INSERT INTO app.todo VALUES (1, '12', false, 0)")
    assert (bad.inserted(), good.inserted()) == ([{"id": 1}], [{"id": 1}])
    server.sql("INSERT INTO app.todo VALUES (2, 'not a number', false, 0)")
    assert good.inserted() == [{"id": 2}]
    code, message = bad.error()
    assert code in {"CONVERSION_ERROR", "SUBSCRIPTION_FAILED"}, message
    server.sql("DELETE FROM app.todo WHERE true")
    assert len(good.deleted()) == 2
