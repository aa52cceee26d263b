"""A real engine, and statements by their text run through DDL, users and DML as the session does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from sql import ddl, dml, users
from sql.binder import BindContext
from sql.dialect import parse_batch
from sql.duck import DuckPool
from sql.functions import FunctionContext
from sql.identity import Identity, Role
from sql.passwords import HashParameters
from sql.plan import JsonKind, QueryPlan
from sql.query import Execution, QueryRuntime, run_query
from sql.results import StatementResult
from sql.row_expressions import Evaluation
from sql.statements import AlterUser, CreateUser, DropUser
from sql.system_tables import SystemTables
from sql.workers import Control
from storage import StorageEngine, StorageOptions, WriteTransaction
from storage.catalog import NamespaceDef, TableDef
from storage.transaction import Transaction
from storage.views import ReadView

QUIET = StorageOptions(map_start=64 << 20, merge=False)
CHEAP = users.PasswordSettings(parameters=HashParameters(memory_kib=8, iterations=1))
ADMIN = Identity("root", Role.SYSTEM)
DBA = Identity("dora", Role.DBA)
SERVICE = Identity("sam", Role.SERVICE)
ALICE = Identity("alice", Role.USER)
BOB = Identity("bob", Role.USER)


@dataclass(frozen=True)
class Context:
    identity: Identity
    namespace: str = "app"


class Database:
    """Runs one definition or account statement at a time."""

    def __init__(self, engine: StorageEngine) -> None:
        self.engine = engine
        for name in ("default", "app", "alice", "sam"):
            self.commit(lambda w, name=name: w.put_namespace(NamespaceDef(name)))

    def commit(self, work, weight: int = 1):
        return self.engine.commit_sync(work, weight=weight)

    def run(self, text: str, identity: Identity = ADMIN, namespace: str = "app") -> str:
        """The message of one definition or account statement."""
        (parsed,) = parse_batch(text)
        statement = parsed.statement
        context = Context(identity, namespace)
        result: StatementResult
        if isinstance(statement, (CreateUser, AlterUser, DropUser)):
            with self.engine.snapshot() as snapshot:
                mutation = users.prepare(statement, snapshot, identity, CHEAP)
            result = self.commit(mutation)
        else:
            result = self.commit(lambda w: ddl.run(statement, w, context, self.evaluation(identity)))
        return result.message or ""

    def evaluation(self, identity: Identity) -> Evaluation | None:
        """Without a query engine, CHECK conditions are limited."""
        return None

    def table(self, name: str, namespace: str = "app") -> TableDef:
        found = self.engine.catalog.table(namespace, name)
        assert found is not None
        return found

    def insert_rows(self, name: str, rows: Sequence[tuple[object, ...]], partition: str = "") -> None:
        """Rows straight into storage."""
        table = self.table(name)

        def work(writer: WriteTransaction) -> None:
            for row in rows:
                writer.insert_row(table, partition, row, None)

        self.commit(work)

    def rows(self, name: str, partition: str = "") -> list[dict[str, object]]:
        with self.engine.snapshot() as snapshot:
            return snapshot.scan(self.table(name), partition).to_pylist()


def json_kind(value: object) -> JsonKind:
    if value is None:
        return JsonKind.NULL
    for kind, types in (
        (JsonKind.BOOLEAN, bool),
        (JsonKind.INTEGER, int),
        (JsonKind.NUMBER, float),
        (JsonKind.STRING, str),
        (JsonKind.ARRAY, list),
    ):
        if isinstance(value, types):
            return kind
    return JsonKind.OBJECT


class Services:
    """What a plan needs to run: generators, time and the query engine."""

    def __init__(self, pool: DuckPool) -> None:
        self.pool = pool
        self.functions = FunctionContext()
        self.now_us = self.functions.now_us()
        self.queries = 0

    def run_query(self, plan: QueryPlan, view: ReadView, params: Sequence[object], identity: Identity) -> pa.Table:
        self.queries += 1
        run = Execution(view, identity, Control(30), params, self.now_us)
        return run_query(plan, run, QueryRuntime(self.pool, self.functions))


class Writer(Database):
    """Runs INSERT, UPDATE and DELETE too."""

    def __init__(self, engine: StorageEngine, pool: DuckPool) -> None:
        super().__init__(engine)
        self.pool = pool
        self.services = Services(pool)

    def evaluation(self, identity: Identity) -> Evaluation:
        binding = BindContext(self.engine.catalog, SystemTables([]), "app", identity.role, self.pool)
        return Evaluation(binding, self.services)

    def plan(self, text: str, params: Sequence[object] = (), identity: Identity = ADMIN, namespace: str = "app"):
        (parsed,) = parse_batch(text)
        kinds = tuple(json_kind(value) for value in params)
        binding = BindContext(
            self.engine.catalog, SystemTables([]), namespace, identity.role, self.pool, parameter_kinds=kinds
        )
        return dml.plan_write(parsed.statement, binding)

    def write(
        self,
        text: str,
        params: Sequence[object] = (),
        identity: Identity = ADMIN,
        *,
        namespace: str = "app",
        inside: bool = False,
    ) -> StatementResult:
        """Run one statement over a snapshot, or inside the writer, and commit it."""
        plan = self.plan(text, params, identity, namespace)
        if inside:

            def work(writer: WriteTransaction) -> StatementResult:
                transaction = Transaction(writer)
                result = plan.run(transaction, params, identity, self.services)
                transaction.apply(writer)
                return result

            return self.commit(work)
        with self.engine.snapshot() as snapshot:
            transaction = Transaction(snapshot)
            result = plan.run(transaction, params, identity, self.services)
            self.commit(transaction.apply)
        return result

    def select(self, text: str, params: Sequence[object] = (), identity: Identity = ADMIN, view=None) -> list[tuple]:
        (parsed,) = parse_batch(text)
        kinds = tuple(json_kind(value) for value in params)
        binding = BindContext(
            self.engine.catalog, SystemTables([]), "app", identity.role, self.pool, parameter_kinds=kinds
        )
        plan = binding.bind(parsed.statement.ast)
        if view is not None:
            table = self.services.run_query(plan, view, params, identity)
        else:
            with self.engine.snapshot() as snapshot:
                table = self.services.run_query(plan, snapshot, params, identity)
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))
