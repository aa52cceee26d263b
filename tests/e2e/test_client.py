"""The Python client against a real server: queries, types, errors, loads, streams, sign-in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pyarrow as pa
import pytest

import headrace
from headrace import AsyncClient, Client
from tests.e2e.running import RunningServer

TYPES = """
CREATE TABLE app.types (
    id BIGINT PRIMARY KEY, flag BOOLEAN, small SMALLINT, n INT, single FLOAT, real DOUBLE, name TEXT,
    at TIMESTAMP, moment DATETIME, day DATE, clock TIME, doc JSON, data BYTES, tag UUID, price DECIMAL(12, 3),
    vector EMBEDDING(3)
)
"""
ROW: dict[str, Any] = {
    "id": 2**63 - 1,
    "flag": True,
    "small": -32768,
    "n": 7,
    "single": 0.5,
    "real": 1e300,
    "name": "Ünïcödé ' \" \\ 🙂",
    "at": datetime(2024, 2, 29, 23, 59, 59, 999999),  # noqa: DTZ001 (TIMESTAMP has no zone)
    "moment": datetime(1969, 12, 31, 12, 0, tzinfo=UTC),
    "day": date(1, 1, 1),
    "clock": time(23, 59, 59, 1),
    "doc": {"a": [1, None, {"b": "c"}]},
    "data": bytes(range(256)),
    "tag": UUID(int=5),
    "price": Decimal("-123456789.001"),
    "vector": [0.5, -1.25, 2.0],
}
COLUMNS = ", ".join(ROW)
PLACES = ", ".join(f"${number}" for number in range(1, len(ROW) + 1))


@pytest.fixture(scope="module")
def db(server: RunningServer) -> Iterator[Client]:
    with headrace.connect(server.url, user=server.user, password=server.password, namespace="app") as client:
        client.execute("CREATE NAMESPACE app")
        client.execute(TYPES)
        client.execute("CREATE TABLE app.items (id BIGINT PRIMARY KEY, name TEXT NOT NULL, price DECIMAL(10, 2))")
        yield client


@pytest.fixture
def items(db: Client) -> Client:
    db.execute("DELETE FROM app.items WHERE true")
    return db


def test_every_type_goes_there_and_back(db: Client) -> None:
    db.execute("DELETE FROM types WHERE true")
    (inserted,) = db.execute(f"INSERT INTO types ({COLUMNS}) VALUES ({PLACES})", list(ROW.values()))
    assert (inserted.row_count, inserted.message) == (1, "Inserted 1 row(s)")
    result = db.query(f"SELECT {COLUMNS} FROM types")
    assert result.one() == ROW
    assert result.tuples() == [tuple(ROW.values())]
    assert [type(value) for value in result.tuples()[0]] == [type(value) for value in ROW.values()]
    assert result.columns[0].flags == ("pk", "nn", "uq")
    assert result.as_user == "admin"


def test_every_type_in_an_insert_and_in_arrow(db: Client) -> None:
    db.execute("DELETE FROM types WHERE true")
    assert db.insert("types", [ROW, {"id": 1}]) == 2
    sql = f"SELECT {COLUMNS} FROM types ORDER BY id"
    result = db.query(sql)
    assert result.rows == [dict.fromkeys(ROW) | {"id": 1}, ROW]
    table = db.query_arrow(sql)
    assert result.arrow().equals(table)
    assert db.query(sql, raw=True).arrow().schema.equals(table.schema)
    assert table.schema.field("price").type == pa.decimal128(12, 3)
    db.execute("DELETE FROM types WHERE true")
    assert db.insert("app.types", table) == 2
    assert db.query(sql).rows == result.rows


def test_raw_values_are_those_of_the_wire(db: Client) -> None:
    db.execute("DELETE FROM types WHERE true")
    db.insert("types", [ROW])
    row = db.query("SELECT id, day, tag, price FROM types", raw=True).one()
    assert row == {"id": str(2**63 - 1), "day": -719162, "tag": str(ROW["tag"]), "price": "-123456789.001"}


def test_results(items: Client) -> None:
    items.insert("items", [{"id": n, "name": f"n{n}"} for n in range(3)])
    result = items.query("SELECT id, name FROM items WHERE id > $1", [0])
    assert len(result) == 2
    assert list(result) == result.rows == [{"id": 1, "name": "n1"}, {"id": 2, "name": "n2"}]
    assert items.query("SELECT count(*) FROM items").scalar() == 3
    assert items.query("SELECT id FROM items WHERE id = 9").one_or_none() is None
    with pytest.raises(headrace.UnexpectedRows, match="one row was expected, the result has 2"):
        result.one()
    with pytest.raises(headrace.UnexpectedRows, match="one column"):
        items.query("SELECT id, name FROM items LIMIT 1").scalar()
    assert items.query("SELECT id FROM items WHERE id = 9").arrow().num_rows == 0


def test_several_statements(items: Client) -> None:
    results = items.execute("INSERT INTO items VALUES (1, 'a', NULL); UPDATE items SET name = 'b' WHERE true; SELECT 7")
    assert [result.row_count for result in results] == [1, 1, 1]
    assert results[1].message == "Updated 1 row(s)"
    assert items.query("SELECT 1; SELECT 2 AS x").scalar() == 2


def test_errors_say_what_and_where(items: Client) -> None:
    with pytest.raises(headrace.InvalidSql) as caught:
        items.query("SELECT *\nFROM items WHERE nonsense = 1")
    error = caught.value
    assert (error.code, error.status, error.line) == ("INVALID_SQL", 400, 2)
    assert error.column is not None
    assert error.details
    assert "^" in error.details
    assert error.request_id
    with pytest.raises(headrace.TableNotFound, match="Did you mean"):
        items.query("SELECT * FROM app.itemz")
    with pytest.raises(headrace.InvalidParameter):
        items.query("SELECT * FROM items WHERE id = $1", ["x"])
    with pytest.raises(headrace.ExecutionFailed) as failed:
        items.execute("INSERT INTO items VALUES (1, 'a', 1); INSERT INTO items VALUES (1, 'a', 1)")
    assert (failed.value.statement, failed.value.applied) == (2, 1)
    with pytest.raises(headrace.SqlError, match="line 2") as bad_row:
        items.insert("items", [{"id": 5, "name": "x"}, {"id": "x", "name": "y"}])
    assert bad_row.value.line == 2
    with pytest.raises(headrace.SqlError, match="no column 'surplus'"):
        items.insert("items", [{"id": 5, "name": "x", "surplus": 1}])
    with pytest.raises(headrace.TableNotFound):
        items.insert("nowhere.items", [{"id": 5}])


def test_values_that_cannot_be_sent(items: Client) -> None:
    with pytest.raises(ValueError, match="finite"):
        items.query("SELECT $1", [float("nan")])
    with pytest.raises(TypeError, match="type object"):
        items.query("SELECT $1", [object()])
    with pytest.raises(TypeError, match=r"list of the values of \$1"):
        items.query("SELECT $1", {"a": 1})
    with pytest.raises(TypeError, match="many dicts"):
        items.insert("items", {"id": 1})
    nowhere = Client(items.url)
    with pytest.raises(ValueError, match="needs a namespace"):
        nowhere.insert("items", [])
    nowhere.close()


def test_inserting_from_generators(items: Client, server: RunningServer) -> None:
    assert items.insert("items", ({"id": n, "name": "x"} for n in range(2500))) == 2500

    async def rows() -> AsyncIterator[dict[str, Any]]:
        for n in range(2500, 5000):
            yield {"id": n, "name": "y", "price": Decimal(n) / 100}

    async def main() -> int:
        async with AsyncClient(server.url, token=server.token) as client:
            return await client.insert("app.items", rows())

    assert asyncio.run(main()) == 2500
    assert items.query("SELECT count(*), sum(price) FROM items").tuples() == [(5000, Decimal("93737.50"))]


def test_streams_have_no_cap(items: Client) -> None:
    items.insert("items", [{"id": n, "name": "x" * 100} for n in range(110_000)])
    sql = "SELECT id, name FROM items ORDER BY id"
    with pytest.raises(headrace.LimitExceeded):
        items.query(sql)
    assert all(row["id"] == index for index, row in enumerate(items.stream(sql)))
    batches = list(items.stream_arrow(sql))
    assert sum(batch.num_rows for batch in batches) == 110_000
    assert len(batches) > 1
    assert items.query_arrow(sql).num_rows == 110_000
    assert items.query_arrow("SELECT id FROM items WHERE id < 0").num_rows == 0
    assert list(items.stream_arrow("SELECT id FROM items WHERE id < 0")) == []


def test_a_stream_may_be_left_early(items: Client) -> None:
    items.insert("items", [{"id": n, "name": "x"} for n in range(50_000)])
    parts = items.stream_parts("SELECT id FROM items ORDER BY id")
    assert next(parts)[0] == {"id": 0}
    parts.close()  # type: ignore[attr-defined]
    with pytest.raises(headrace.InvalidSql):
        next(items.stream("SELECT FROM WHERE"))
    assert items.query("SELECT 1").scalar() == 1


def test_executing_as_another_user(items: Client) -> None:
    items.execute(
        "CREATE USER TABLE app.notes (id INT PRIMARY KEY); CREATE USER o WITH PASSWORD 'Passw0rd!x' ROLE user"
    )
    items.execute_as("o'x", "INSERT INTO app.notes VALUES ($1); -- done", [1])
    result = items.execute_as("o'x", "SELECT id FROM app.notes")
    assert (result.rows, result.as_user) == ([{"id": 1}], "o'x")
    assert items.query("SELECT id FROM app.notes").rows == []


def test_sign_in(server: RunningServer) -> None:
    with headrace.connect(server.url, user=server.user, password=server.password) as client:
        me = client.me()
        assert (me.id, me.role) == ("admin", "dba")
        token = client._client._session._access
        client.logout()
        with pytest.raises(headrace.AuthenticationFailed):
            client.query("SELECT 1")
        with headrace.Client(server.url, token=token) as other, pytest.raises(headrace.AuthenticationFailed) as caught:
            other.query("SELECT 1")
        assert caught.value.status == 401
        assert client.login(server.user, server.password).id == "admin"
        assert client.query("SELECT 1").scalar() == 1
    with pytest.raises(headrace.AuthenticationFailed):
        headrace.connect(server.url, user=server.user, password="wrong")
    with pytest.raises(headrace.ClientClosed):
        client.query("SELECT 1")
    client.close()


def test_a_token_that_ended_is_renewed_once_for_all_who_wait(server: RunningServer) -> None:
    seen: list[str] = []

    class Watching(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            seen.append(request.url.path)
            return await super().handle_async_request(request)

    async def main() -> None:
        options = {"user": server.user, "password": server.password, "transport": Watching()}
        async with AsyncClient(server.url, **options) as client:
            session = client._session
            session._access = "x.y.z"  # what a server with another key, or after a new password, would refuse
            results = await asyncio.gather(*(client.query("SELECT 1") for _ in range(8)))
            assert [result.scalar() for result in results] == [1] * 8
            assert (seen.count("/v1/api/auth/refresh"), seen.count("/v1/api/auth/login")) == (1, 1)
            session._renew_at = 0.0  # about to end
            seen.clear()
            await asyncio.gather(*(client.query("SELECT 1") for _ in range(8)))
            assert seen == ["/v1/api/auth/refresh"] + ["/v1/api/sql"] * 8
            session._access, session._refresh = "x.y.z", "x.y.z"
            assert (await client.query("SELECT 1")).scalar() == 1
            assert seen[-4:] == ["/v1/api/sql", "/v1/api/auth/refresh", "/v1/api/auth/login", "/v1/api/sql"]

    asyncio.run(main())


def test_nobody_listens() -> None:
    with pytest.raises(headrace.ConnectionFailed):
        headrace.connect("http://127.0.0.1:9", user="a", password="b")
    with pytest.raises(ValueError, match="not the address of a server"):
        headrace.connect("localhost:2900")


def test_threads_share_a_client_and_none_is_left(items: Client, server: RunningServer) -> None:
    found: list[int] = []
    with headrace.Client(server.url, token=server.token) as client:
        threads = [
            threading.Thread(target=lambda n=n: found.append(client.query("SELECT $1 + 0", [n]).scalar()))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(found) == list(range(8))
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("headrace-client") <= 1  # that of the fixture


def test_pandas(items: Client) -> None:
    pandas = pytest.importorskip("pandas")
    items.insert("items", pandas.DataFrame({"id": [1, 2], "name": ["a", "b"]}))
    frame = items.query_pandas("SELECT id, name FROM items ORDER BY id")
    assert frame["name"].tolist() == ["a", "b"]
    assert items.query("SELECT id FROM items").pandas().shape == (2, 1)
