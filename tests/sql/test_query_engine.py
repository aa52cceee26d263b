"""Queries over the real storage engine: snapshots, streams, leases, transactions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sql.binder import BindContext, bind_query
from sql.dialect import parse_batch
from sql.duck import DuckOptions, DuckPool
from sql.errors import QueryTimeout, SqlError
from sql.explain import explain
from sql.functions import FunctionContext
from sql.identity import Identity, Role
from sql.parameters import json_kind
from sql.plan import Path as PlanPath
from sql.plan import QueryPlan
from sql.query import Execution, QueryRuntime, run_query, stream_query
from sql.scanning import in_key_order
from sql.statements import Explain
from sql.system_tables import default_registry
from sql.workers import Control
from storage.catalog import NamespaceDef
from storage.engine import StorageEngine
from storage.errors import SnapshotExpired
from storage.transaction import Transaction
from storage.types import BIGINT, DOUBLE, TEXT
from storage.views import ReadView
from tests.sql.query_support import ALICE, BOB, rows_of, table

ROWS = 200_000


class Server:
    """An engine with one table and what queries run with."""

    def __init__(self, folder: Path) -> None:
        self.engine = StorageEngine.open(folder)
        self.pool = DuckPool(DuckOptions(memory_bytes=256 << 20, threads=2, connections=1))
        self.runtime = QueryRuntime(self.pool, FunctionContext())
        table_id = self.engine.commit_sync(lambda writer: writer.allocate_table_id())
        self.table = table(table_id, "t", [("id", BIGINT), ("name", TEXT), ("x", DOUBLE)])
        self.engine.commit_sync(self._create)
        ids = np.random.default_rng(1).permutation(ROWS)
        rows = pa.table({"id": ids, "name": [f"n{i % 7}" for i in ids], "x": ids / 2})
        self.engine.commit_sync(lambda writer: writer.insert(self.table, "alice", rows), weight=ROWS)

    def _create(self, writer: object) -> None:
        writer.put_namespace(NamespaceDef("default"))  # type: ignore[attr-defined]
        writer.put_table(self.table)  # type: ignore[attr-defined]

    def binding(self, view: ReadView, params: tuple[object, ...] = ()) -> BindContext:
        return BindContext(
            view.catalog, default_registry(), "default", Role.USER, self.pool, tuple(map(json_kind, params))
        )

    def bind(self, text: str, view: ReadView, *params: object) -> QueryPlan:
        statement = parse_batch(text)[0].statement
        return bind_query(statement.ast, self.binding(view, params))  # type: ignore[union-attr]

    def run(self, text: str, view: ReadView, *params: object, identity: Identity = ALICE, **options: int) -> pa.Table:
        plan = self.bind(text, view, *params)
        return run_query(plan, Execution(view, identity, Control(20), params), self.runtime, **options)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("engine"))
    yield server
    server.pool.close()
    server.engine.close()


def test_results_outlive_the_snapshot(server: Server) -> None:
    with server.engine.snapshot() as view:
        results = [
            server.run(text, view)
            for text in [
                "select * from t limit 70000", "select name from t where id = 5", "select * from t where x < 10",
                "select * from t order by id desc limit 10", "select id, upper(name) from t where id < 5",
            ]
        ]  # fmt: skip
    assert [result.num_rows for result in results] == [70_000, 1, 20, 10, 5]
    for result in results:
        result.validate(full=True)
    assert results[0].column(0).to_pylist() == list(range(70_000))
    assert results[3].column(0).to_pylist() == list(range(ROWS - 1, ROWS - 11, -1))


def test_a_snapshot_is_one_state(server: Server) -> None:
    with server.engine.snapshot() as before:
        one = pa.table({"id": [ROWS], "name": ["new"], "x": [0.0]})
        first, _ = server.engine.commit_sync(lambda writer: writer.insert(server.table, "alice", one))
        with server.engine.snapshot() as after:
            count = "select count(*) from t"
            assert rows_of(server.run(count, before)) == [(ROWS,)]
            assert rows_of(server.run(count, after)) == [(ROWS + 1,)]
            assert rows_of(server.run("select max(id) from t", before)) == [(ROWS - 1,)]
            assert rows_of(server.run("select id from t where _seq = $1", after, first)) == [(ROWS,)]
            assert rows_of(server.run(count, after, identity=BOB)) == [(0,)]
    server.engine.commit_sync(lambda writer: writer.delete(server.table, "alice", [first]))


def test_a_stream_is_ordered_and_owns_its_memory(server: Server) -> None:
    with server.engine.snapshot() as view:
        for text in [
            "select id, name from t",
            "select id from t where upper(name) = 'N3'",
            "select id from t order by id desc",
        ]:
            batches = list(stream_query(server.bind(text, view), Execution(view, ALICE, Control(20)), server.runtime))
            ids = np.concatenate([batch.column(0).to_numpy() for batch in batches])
            steps = np.diff(ids)
            assert (steps < 0).all() if "desc" in text else (steps > 0).all()
            assert len(batches) > 1
            assert all(batch.num_rows < 70_000 for batch in batches)


def test_a_lease_that_ends_ends_the_query(server: Server) -> None:
    started = time.monotonic()
    with server.engine.snapshot(lease=0.3) as view, pytest.raises((QueryTimeout, SnapshotExpired)):
        server.run("select count(*) from t a, t b where a.x + b.x < 0", view)
    assert time.monotonic() - started < 10
    with server.engine.snapshot() as view:
        assert rows_of(server.run("select 1", view)) == [(1,)]


def test_queries_see_what_a_transaction_staged(server: Server) -> None:
    with server.engine.snapshot() as view:
        transaction = Transaction(view)
        transaction.insert(server.table, "alice", pa.table({"id": [-1], "name": ["staged"], "x": [0.5]}))
        for text in [
            "select name from t where id = -1",
            "select upper(name) from t where id < 0",
            "select name from t limit 1",
        ]:
            assert rows_of(server.run(text, transaction))[0][0] in {"staged", "STAGED"}
        assert rows_of(server.run("select count(*) from t", transaction)) == [(ROWS + 1,)]


def test_explain(server: Server) -> None:
    class Context:
        identity = ALICE
        params = (7,)
        control = Control(10)

    class Services:
        runtime = server.runtime

        def binding(self, view: ReadView, context: object) -> BindContext:
            return server.binding(view, (7,))

    def lines(text: str) -> str:
        statement = parse_batch(text)[0].statement
        assert isinstance(statement, Explain)
        with server.engine.snapshot() as view:
            result = explain(statement.inner, statement.analyze, view, Context(), Services())
        assert [column.name for column in result.columns] == ["plan"]
        assert result.table is not None
        return "\n".join(result.table.column("plan").to_pylist())

    point = lines("explain select name from t where id = $1")
    assert "path: point read" in point
    assert "key: id = $1" in point
    assert "parameter $1: BIGINT" in point
    assert "partition of user 'alice'" in point
    ranged = lines("explain analyze select name from t where id > 10 and id <= 20 and name like 'n%'")
    assert "path: key range" in ranged
    assert "key range: id > 10 and id <= 20" in ranged
    assert "rows: 10" in ranged
    engine = lines("explain select name, count(*) from t group by name having now() > '2020-01-01'")
    assert "path: duckdb" in engine
    assert "columns: name" in engine
    assert "(now)" in engine
    assert "path: native scan" in lines("explain select name from t where x > 1")


@pytest.mark.parametrize(
    "values",
    [
        [3, 1, 2], ["b", "a", "é"], [b"\x02" * 16, b"\x01" * 16], [Decimal("2.50"), Decimal("-1.00")], [True, False],
        [2.5, -1.0, 0.0],
    ],
)  # fmt: skip
@pytest.mark.parametrize("chunks", [1, 2])
def test_key_order_of_every_kind(values: list[object], chunks: int) -> None:
    kind = pa.binary(16) if isinstance(values[0], bytes) else None
    arrays = [pa.array(values, kind)] if chunks == 1 else [pa.array(values[:1], kind), pa.array(values[1:], kind)]
    rows = pa.table({"k": pa.chunked_array(arrays), "_seq": list(range(len(values)))})
    ordered = in_key_order(rows, ["k"])
    assert ordered.column("k").to_pylist() == sorted(values)  # type: ignore[type-var]
    assert in_key_order(ordered, ["k"]) is ordered


def test_composite_key_order() -> None:
    rows = pa.table({"a": ["b", "a", "a"], "n": [1, 2, 1]})
    ordered = in_key_order(rows, ["a", "n"])
    assert rows_of(ordered) == [("a", 1), ("a", 2), ("b", 1)]
    assert in_key_order(ordered, ["a", "n"]) is ordered


def test_errors_of_values_fall_back_to_duckdb(server: Server) -> None:
    with server.engine.snapshot() as view:
        plan = server.bind("select id from t where id + 9223372036854775807 > x", view)
        assert plan.path in {PlanPath.NATIVE, PlanPath.DUCKDB}
        with pytest.raises(SqlError, match=r"[Oo]verflow"):
            server.run("select id from t where id + 9223372036854775807 > x", view)
