"""Values in live rows: those of SQL over HTTP, in every type, BIGINT mode, serialization and compression."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec.msgpack
import pytest

from tests.e2e.live_conformance import Socket, number, plain, unlimited_server
from tests.e2e.running import RunningServer

COLUMNS = {
    "id": ("BIGINT PRIMARY KEY", ["1", "9007199254740991", "9007199254740992", "9223372036854775807"]),
    "b": ("BOOLEAN", ["true", "false", "NULL", "true"]),
    "s": ("SMALLINT", ["-32768", "32767", "NULL", "0"]),
    "i": ("INT", ["-2147483648", "2147483647", "NULL", "0"]),
    "l": ("BIGINT", ["-9223372036854775808", "-9007199254740992", "NULL", "0"]),
    "f": ("FLOAT", ["0.1", "-3.4e38", "NULL", "1e-7"]),
    "d": ("DOUBLE", ["0.1", "1.7976931348623157e308", "NULL", "12"]),
    "t": ("TEXT", ["'ä 漢 🦆'", "''", "NULL", "'\"quoted\" \\ back'"]),
    "v": ("VARCHAR(8)", ["'abc'", "' x '", "NULL", "'12345678'"]),
    "ts": ("TIMESTAMP", ["TIMESTAMP '2024-02-29 12:34:56.123456'", "'1969-12-31 23:59:59'", "NULL", "'2100-01-01'"]),
    "dt": ("DATETIME", ["'2024-02-29 12:34:56.5'", "'1900-01-01 00:00:00'", "NULL", "'2024-01-01'"]),
    "da": ("DATE", ["DATE '2024-02-29'", "DATE '0001-01-01'", "NULL", "'9999-12-31'"]),
    "tm": ("TIME", ["TIME '23:59:59.999999'", "TIME '00:00:00'", "NULL", "'12:00'"]),
    "j": ("JSON", ['\'{"a": [1, null, "x"]}\'', "'null'", "NULL", "'[]'"]),
    "y": ("BYTES", ["x'00ff10'", "x''", "NULL", "x'7f'"]),
    "u": ("UUID", ["'123E4567-e89b-12d3-a456-426614174000'", "'00000000-0000-0000-0000-000000000000'", "NULL", "NULL"]),
    "n": ("DECIMAL(20, 3)", ["12345678901234567.891", "-0.001", "NULL", "5"]),
    "e": ("EMBEDDING(3)", ["'[1, 0.5, -2]'", "'[0, 0, 0]'", "NULL", "'[1e-3, 2, 3]'"]),
}  # fmt: skip
TABLE = f"CREATE NAMESPACE app; CREATE USER TABLE app.v ({', '.join(f'{n} {t}' for n, (t, _) in COLUMNS.items())})"
ROWS = [f"({', '.join(values[row] for _, values in COLUMNS.values())})" for row in range(4)]
LONG = "CREATE USER TABLE app.long (id INT PRIMARY KEY, body TEXT)"


@pytest.fixture(scope="module", params=["auto", "string", "number"])
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("values")
    with unlimited_server(folder, HEADRACE_WIRE_BIGINT=request.param) as running:
        running.sql(f"{TABLE};{LONG}")
        yield running


def by_http(server: RunningServer) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows with `_seq` by key, and types by name, as SQL over HTTP gives them."""
    (result,) = server.sql("SELECT *, _seq FROM app.v ORDER BY id")
    names = [column["name"] for column in result["schema"]]
    rows = [dict(zip(names, row, strict=True)) for row in result["rows"]]
    return rows, {column["name"]: column["data_type"] for column in result["schema"]}


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Equal, and of equal types: 1 is not 1.0 and not true."""
    assert found == wanted
    for left, right in zip(found, wanted, strict=True):
        assert list(left) == list(right)
        assert {name: type(value) for name, value in left.items()} == {
            name: type(value) for name, value in right.items()
        }


@pytest.mark.parametrize(
    "mode", ["", "?compress=false", "?serialization=msgpack", "?serialization=msgpack&compression=none"]
)
def test_every_type_in_every_mode(server: RunningServer, mode: str) -> None:
    server.sql("DELETE FROM app.v WHERE true")
    headers = {"Authorization": f"Bearer {server.token}"}
    with Socket(server, query=mode, sign_in=False, headers=headers) as client:
        assert client.next()["type"] == "auth_success"
        client.binary = "msgpack" in mode
        live = client.subscribe("SELECT * FROM app.v", {})
        for row in ROWS:  # each alone, then as one
            server.sql(f"INSERT INTO app.v VALUES {row}")
        rows, types = by_http(server)
        same([live.change("insert")["rows"][0] for _ in ROWS], rows)
        assert {column["name"]: column["data_type"] for column in live.ack["schema"]} == types
        same(client.subscribe("SELECT * FROM app.v", {}).rows, rows)
        server.sql("UPDATE app.v SET i = 77 WHERE true")
        update = live.change("update")
        old, rows = rows, by_http(server)[0]
        same(update["rows"], rows)
        same(update["old_values"], [{"id": row["id"], "i": row["i"], "_seq": row["_seq"]} for row in old])
        server.sql("DELETE FROM app.v WHERE true")
        same(live.change("delete")["old_values"], rows)
        assert any(zipped for zipped, _ in client.frames) == ("none" not in mode and "false" not in mode)


def test_bigint_modes_and_the_numbers_of_control_fields(server: RunningServer) -> None:
    mode = {name: value for name, value in server.rows("SELECT name, value FROM system.settings")}["wire.bigint"]  # noqa: C416
    server.sql("DELETE FROM app.v WHERE true; INSERT INTO app.v (id, l) VALUES (7, 9007199254740993)")
    with Socket(server) as client:
        live = client.subscribe("SELECT id, l FROM app.v", {})
        (row,) = live.rows
        assert row["id"] == ("7" if mode == "string" else 7)
        assert row["l"] == (9007199254740993 if mode == "number" else "9007199254740993")
        assert type(row["_seq"]) is (str if mode == "string" else int)
        # Control fields are numbers whatever rows say, and what a client read from a row may be sent back.
        assert type(live.controls[0]["last_seq_id"]) is int
        assert client.subscribe("SELECT id FROM app.v", {"from": row["_seq"]}).ack["resumed"] is True
        assert client.subscribe("SELECT id FROM app.v WHERE l = $1", {}, params=[row["l"]]).rows


def test_what_is_compressed(server: RunningServer) -> None:
    server.sql("DELETE FROM app.long WHERE true")
    for protocol, may in (({"serialization": "json", "compression": "gzip"}, True),
                          ({"serialization": "json", "compression": "none"}, False)):  # fmt: skip
        with Socket(server, protocol=protocol) as client:
            live = client.subscribe("SELECT * FROM app.long")
            for size in (1, 300, 2000, 300_000):
                server.sql("INSERT INTO app.long VALUES (1, $1)", ["x" * size])
                assert plain(live.change("insert")["rows"]) == [{"id": 1, "body": "x" * size}]
                zipped, length = client.frames[-1]
                assert zipped == (may and length >= 512), (size, length)
                server.sql("DELETE FROM app.long WHERE true")
                assert number(live.change("delete")["seq"])


def test_messages_of_the_client_in_msgpack(server: RunningServer) -> None:
    headers = {"Authorization": f"Bearer {server.token}"}
    with Socket(server, query="?serialization=msgpack", sign_in=False, headers=headers) as client:
        assert client.next()["type"] == "auth_success"
        client.binary = True
        subscription = {"id": "m", "sql": "SELECT * FROM app.long", "options": {"batch_size": 5}}
        client.wire.send(msgspec.msgpack.encode({"type": "subscribe", "subscription": subscription}))
        assert [client.next("m")["type"] for _ in range(2)] == ["subscription_ack", "initial_data_batch"]
        client.wire.send(msgspec.msgpack.encode({"type": "ping", "id": 3}))
        assert client.receive()["id"] == 3


def test_a_value_that_json_cannot_write(server: RunningServer) -> None:
    server.sql("DELETE FROM app.v WHERE true")
    with Socket(server) as client:
        live, other = client.subscribe("SELECT id, d FROM app.v"), client.subscribe("SELECT id FROM app.v")
        if server.post("INSERT INTO app.v (id, d) VALUES (1, CAST('NaN' AS DOUBLE))").status_code == 200:
            assert live.error()[0] == "CONVERSION_ERROR"
            assert [number(row["id"]) for row in other.change("insert")["rows"]] == [1]
