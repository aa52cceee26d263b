"""SUBSCRIBE TO, KILL LIVE QUERY and system.live."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sql.database import Database
from sql.dialect import parse_batch
from sql.errors import (
    InvalidInput,
    InvalidParameter,
    InvalidSql,
    PermissionDenied,
    SqlError,
    TableNotFound,
    Unsupported,
)
from sql.identity import Identity, Role
from sql.live.errors import LiveQueryKilled
from sql.live.interface import LiveDelta, LiveSubscription
from sql.live.subscription import LiveOptions, LiveRequest
from sql.live_statements import LiveQueryNotFound
from sql.statements import KillLiveQuery, SubscribeTo
from sql.table_name import TableName
from storage import StorageEngine, StorageOptions

ROOT = Identity("root", Role.SYSTEM)
ANN = Identity("ann", Role.USER)
BOB = Identity("bob", Role.USER)

PARSED = [
    ("SUBSCRIBE TO app.t", "app.t", TableName("app", "t", 1, 14), {}),
    ("subscribe to T", "T", TableName(None, "t", 1, 14), {}),
    ("SUBSCRIBE TO t WHERE a = (1)", "t WHERE a = (1)", TableName(None, "t", 1, 14), {}),
    ("SUBSCRIBE TO t OPTIONS (last_rows = 5)", "t", TableName(None, "t", 1, 14), {"last_rows": 5}),
    ("SUBSCRIBE TO SELECT a FROM t", "SELECT a FROM t", None, {}),
    ("SUBSCRIBE TO SELECT a FROM t WHERE f(a) OPTIONS (from=3)", "SELECT a FROM t WHERE f(a)", None, {"from": 3}),
    ("SUBSCRIBE TO SELECT options FROM t", "SELECT options FROM t", None, {}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "query", "table", "options"), PARSED, ids=[case[0] for case in PARSED])
def test_subscribe_to_is_parsed(text: str, query: str, table: TableName | None, options: dict[str, object]) -> None:
    (parsed,) = parse_batch(text)
    assert parsed.statement == SubscribeTo(query, table, options, 1, 14)


def test_kill_live_query_is_parsed() -> None:
    (parsed,) = parse_batch("KILL LIVE QUERY 'ann-1-x'")
    assert parsed.statement == KillLiveQuery("ann-1-x")


BROKEN = [
    ("SUBSCRIBE", "Expected TO"), ("SUBSCRIBE TO", "Expected a table's name"), ("SUBSCRIBE TO select", "one column"),
    ("SUBSCRIBE TO t x", "Expected WHERE"), ("SUBSCRIBE TO t WHERE", "expression"),
    ("SUBSCRIBE TO t OPTIONS ()", "option's name"), ("SUBSCRIBE TO t OPTIONS (from)", "Expected ="),
    ("SUBSCRIBE TO t OPTIONS (from=1) WHERE a", "Expected WHERE"), ("KILL LIVE", "Expected QUERY"),
    ("KILL LIVE QUERY x", "in quotes"), ("KILL LIVE QUERY 'x' y", "not expected"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BROKEN, ids=[text for text, _ in BROKEN])
def test_what_is_not_parsed(text: str, message: str) -> None:
    with pytest.raises(InvalidSql, match=message):
        parse_batch(text)


class Sink:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []

    def deliver(self, subscription: LiveSubscription, delta: LiveDelta) -> bool:
        return True

    def ended(self, subscription: LiveSubscription, error: Exception) -> None:
        self.errors.append(error)


@asynccontextmanager
async def database(folder: Path) -> AsyncIterator[Database]:
    with StorageEngine.open(folder / "data", StorageOptions(map_start=64 << 20)) as engine:
        found = Database(
            engine, temp_folder=folder / "duck", ws_url=lambda: "wss://db.example.com/v1/ws", last_heard=lambda _: 5
        )
        await found.execute(
            "CREATE NAMESPACE app; CREATE USER TABLE app.t (id BIGINT PRIMARY KEY, v TEXT);"
            'CREATE NAMESPACE "Big"; CREATE USER TABLE "Big".t (id BIGINT PRIMARY KEY)', None, None, ROOT,
        )  # fmt: skip
        try:
            yield found
        finally:
            found.close()


def run(folder: Path, test: Callable[[Database], Awaitable[None]]) -> None:
    async def body() -> None:
        async with database(folder) as found:
            await test(found)

    asyncio.run(body())


async def answer(db: Database, text: str, who: Identity = ANN, params: Any = None, ns: str | None = None) -> list[Any]:
    """The rows of a statement."""
    (result,) = await db.execute(text, params, ns, who)
    assert result.table is not None
    return [list(row.values()) for row in result.table.to_pylist()]


ANSWERS = [
    ("SUBSCRIBE TO app.t", None, None, "SELECT * FROM app.t", {}, {}),
    ("SUBSCRIBE TO t WHERE id > 3", None, "app", "SELECT * FROM app.t WHERE id > 3", {}, {}),
    ("SUBSCRIBE TO t", None, "Big", 'SELECT * FROM "Big".t', {}, {}),
    ("SUBSCRIBE TO app.t WHERE id = $1 OPTIONS (last_rows=2, batch_size=5)", [7], None,
     "SELECT * FROM app.t WHERE id = $1", {"last_rows": 2, "batch_size": 5}, {"params": [7]}),
    ("SUBSCRIBE TO SELECT v FROM app.t OPTIONS (from_seq_id=4)", None, "app", "SELECT v FROM app.t", {"from": 4}, {}),
]  # fmt: skip


def test_subscribe_to_answers_with_what_to_send(tmp_path: Path) -> None:
    async def test(db: Database) -> None:
        for text, params, ns, sql, options, more in ANSWERS:
            ((status, url, subscription, message),) = await answer(db, text, ANN, params, ns)
            assert (status, url) == ("active", "wss://db.example.com/v1/ws")
            assert message == "WebSocket subscription created. Connect to ws_url to receive updates."
            found = json.loads(subscription)
            name = found.pop("id")
            assert name.startswith(f"sub-{'Big' if ns == 'Big' else 'app'}-t-")
            assert len(name.rpartition("-")[2]) == 32
            assert found == {"sql": sql, "options": options} | more
            request = LiveRequest(sql, params or (), found.get("namespace", "default"), ANN, name, "c", LiveOptions())
            (await db.live.subscribe(request, Sink())).close()  # what it answers can be subscribed to

    run(tmp_path, test)


REFUSED: list[tuple[str, Identity, type[SqlError], str]] = [
    ("SUBSCRIBE TO app.nope", ANN, TableNotFound, "nope"),
    ("SUBSCRIBE TO SELECT * FROM t", ANN, InvalidSql, "Query must use namespace.table format"),
    ("SUBSCRIBE TO system.users", ANN, PermissionDenied, ""),
    ("SUBSCRIBE TO app.t WHERE nope = 1", ANN, InvalidSql, "nope"),
    ("SUBSCRIBE TO app.t WHERE id = $1", ANN, InvalidParameter, "$1"),
    ("SUBSCRIBE TO app.t OPTIONS (last_rows=1001)", ANN, Unsupported, "last_rows"),
    ("SUBSCRIBE TO app.t OPTIONS (batch_size=5, last_rows=6)", ANN, Unsupported, "last_rows"),
    ("SUBSCRIBE TO app.t OPTIONS (batch_size=0)", ANN, InvalidSql, "batch_size"),
    ("SUBSCRIBE TO app.t OPTIONS (batch_size=10001)", ANN, InvalidSql, "batch_size"),
    ("SUBSCRIBE TO app.t OPTIONS (last_rows='5')", ANN, InvalidSql, "whole number"),
    ("SUBSCRIBE TO app.t OPTIONS (from=1, from_seq_id=2)", ANN, InvalidSql, "twice"),
    ("SUBSCRIBE TO app.t OPTIONS (speed=1)", ANN, InvalidSql, "not an option"),
    ("EXECUTE AS USER 'bob' (SUBSCRIBE TO app.t)", ROOT, InvalidInput, ""),
    ("EXECUTE AS USER 'bob' (KILL LIVE QUERY 'x')", ROOT, InvalidInput, ""),
]  # fmt: skip


def test_subscribe_to_is_refused_as_subscribing_would_be(tmp_path: Path) -> None:
    async def test(db: Database) -> None:
        for text, who, kind, message in REFUSED:
            with pytest.raises(kind) as caught:
                await db.execute(text, None, None, who)
            assert message in caught.value.message

    run(tmp_path, test)


def test_errors_point_into_the_request(tmp_path: Path) -> None:
    async def test(db: Database) -> None:
        for text, place in (
            ("SELECT 1;\n  SUBSCRIBE TO SELECT nope FROM app.t", (2, 23)),
            ("SUBSCRIBE TO SELECT v\nFROM app.t WHERE nope = 1", (2, 18)),
        ):
            with pytest.raises(InvalidSql) as caught:
                await db.execute(text, None, None, ANN)
            assert (caught.value.line, caught.value.column) == place
            assert caught.value.excerpt is not None
            assert "nope" in caught.value.excerpt

    run(tmp_path, test)


def test_system_live_and_kill(tmp_path: Path) -> None:
    async def test(db: Database) -> None:
        sink = Sink()
        for who, name in ((ANN, "one"), (BOB, "two")):
            request = LiveRequest("SELECT * FROM app.t", (), "default", who, name, "c1", LiveOptions(last_rows=3))
            await db.live.subscribe(request, sink)
        columns = "live_id, namespace_id, table_name, user_id, query, options, status, changes, node_id"
        rows = await answer(db, f"SELECT {columns} FROM system.live ORDER BY 1", ROOT)
        what = ["app", "t", "ann", "SELECT * FROM app.t", '{"last_rows":3}', "snapshot", 0, 1]
        assert rows[0] == ["ann-c1-one", *what]
        assert [row[0] for row in rows] == ["ann-c1-one", "bob-c1-two"]
        with pytest.raises(PermissionDenied):
            await answer(db, "SELECT * FROM system.live", ANN)
        for who, name in ((ANN, "bob-c1-two"), (ANN, "ann-c1-none"), (ROOT, "x")):
            with pytest.raises(LiveQueryNotFound):
                await db.execute(f"KILL LIVE QUERY '{name}'", None, None, who)
        for who, name in ((ANN, "ann-c1-one"), (ROOT, "bob-c1-two")):
            (result,) = await db.execute(f"KILL LIVE QUERY '{name}'", None, None, who)
            assert result.message == f"Live query killed: {name}"
        async with asyncio.timeout(5):
            while len(sink.errors) < 2:
                await asyncio.sleep(0.005)
        assert all(isinstance(error, LiveQueryKilled) for error in sink.errors)
        assert await answer(db, "SELECT * FROM system.live", ROOT) == []

    run(tmp_path, test)
