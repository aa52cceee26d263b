"""Running queries over a FakeView: a small world of tables and the shortest way to a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from sql.binder import BindContext, bind_query
from sql.dialect import parse_batch
from sql.duck import DuckOptions, DuckPool
from sql.functions import FunctionContext
from sql.identity import Identity, Role
from sql.parameters import json_kind
from sql.plan import QueryPlan
from sql.query import Execution, QueryRuntime, run_query
from sql.statements import Query
from sql.system_tables import SystemTables, default_registry
from sql.workers import Control
from storage.catalog import AccessLevel, ColumnDef, TableDef, TableKind
from storage.types import ColumnType
from tests.sql.fake_view import FakeView

ALICE = Identity("alice", Role.USER)
BOB = Identity("bob", Role.USER)
SERVICE = Identity("svc", Role.SERVICE)
DBA = Identity("dba", Role.DBA)
ROOT = Identity("root", Role.SYSTEM)


def table(
    table_id: int,
    name: str,
    columns: Sequence[tuple[str, ColumnType]],
    *,
    key: Sequence[str] = ("id",),
    kind: TableKind = TableKind.USER,
    access: AccessLevel = AccessLevel.PRIVATE,
    namespace: str = "default",
) -> TableDef:
    """A table whose key columns are NOT NULL and all others nullable."""
    ids = {column: place for place, (column, _) in enumerate(columns, start=1)}
    return TableDef(
        table_id=table_id,
        namespace=namespace,
        name=name,
        kind=kind,
        columns=tuple(ColumnDef(ids[c], c, t, nullable=c not in key) for c, t in columns),
        primary_key=tuple(ids[c] for c in key),
        access_level=access,
    )


@dataclass
class World:
    """A view and what queries run with."""

    view: FakeView
    pool: DuckPool = field(default_factory=lambda: DuckPool(DuckOptions(memory_bytes=256 << 20, threads=2)))
    system: SystemTables = field(default_factory=default_registry)

    def __post_init__(self) -> None:
        self.runtime = QueryRuntime(self.pool, FunctionContext())

    def bind(self, text: str, params: Sequence[object] = (), identity: Identity = ALICE) -> QueryPlan:
        """The plan of one query."""
        [parsed] = parse_batch(text)
        assert isinstance(parsed.statement, Query), text
        kinds = tuple(map(json_kind, params))
        context = BindContext(self.view.catalog, self.system, "default", identity.role, self.pool, kinds)
        return bind_query(parsed.statement.ast, context)

    def run(
        self,
        text: str,
        *params: object,
        identity: Identity = ALICE,
        max_rows: int | None = 1_000,
        timeout: float = 20.0,
        duckdb: bool = False,
    ) -> pa.Table:
        """The result of one query; with `duckdb` on DuckDB's path even where another is possible."""
        plan = self.bind(text, params, identity)
        if duckdb:
            plan = plan.for_duckdb()
        execution = Execution(self.view, identity, Control(timeout), params)
        return run_query(plan, execution, self.runtime, max_rows=max_rows)

    def rows(self, text: str, *params: object, **options: object) -> list[tuple[object, ...]]:
        """The result as tuples."""
        return rows_of(self.run(text, *params, **options))  # type: ignore[arg-type]


def rows_of(result: pa.Table) -> list[tuple[object, ...]]:
    """A table as tuples, whatever its column names."""
    return list(zip(*(column.to_pylist() for column in result.columns), strict=True))
