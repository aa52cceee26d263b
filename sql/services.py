"""What statements run with: the engine, the query engine, generators, caches; and the context of one request."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from sql.audit import Trail
from sql.audit_log import AuditLog
from sql.binder import BindContext, bind_query
from sql.cache import PlanCache
from sql.dml import WritePlan, plan_write
from sql.duck import DuckPool
from sql.explain import explain
from sql.functions import FunctionContext
from sql.identity import Identity
from sql.limits import SqlLimits
from sql.live.settings import LiveSettings
from sql.live_statements import LiveQueries, NoLiveQueries
from sql.parameters import json_kind
from sql.plan import JsonKind, QueryPlan
from sql.query import Execution, QueryRuntime, run_query
from sql.results import StatementResult
from sql.running_transactions import RunningTransactions
from sql.show import describe, show
from sql.statements import Delete, Describe, Insert, Parsed, Query, Show, Statement, Update
from sql.system_tables import SystemTables
from sql.users import PasswordSettings
from sql.wire import BigintMode
from sql.workers import Control
from storage.engine import StorageEngine
from storage.file_store import FileStore
from storage.snapshots import Snapshot
from storage.transaction import Transaction
from storage.views import ReadView

if TYPE_CHECKING:
    from sql.exports.definitions import ExportSettings
    from sql.jobs.service import JobService
    from sql.lake.publishing import LakePublisher
    from sql.live.live_plan import LivePlan
    from sql.storages.registry import StorageRegistry
    from sql.topics.hub import TopicHub
    from sql.vectors.upkeep import VectorUpkeep

_LEASE_SLACK = 5.0
"""Seconds that a snapshot's lease outlives the deadline of the statement that reads it."""


@dataclass(frozen=True, slots=True)
class StatementContext:
    """What a statement needs to know of its request. `params` are JSON values, `$1` first."""

    identity: Identity
    namespace: str
    params: Sequence[object]
    control: Control
    kinds: tuple[JsonKind, ...] = field(default=())
    ws_url: str = ""
    """Where the client of the request would open a WebSocket."""
    client_ip: str = ""
    """The address of the client, as limits count it."""
    caller: str = ""
    """Who signed in, where `identity` is the target of EXECUTE AS USER."""
    trail: Trail | None = None
    """Hears of entries in the audit log while a command runs."""

    @property
    def actor(self) -> str:
        """Who signed in."""
        return self.caller or self.identity.user

    @property
    def subject(self) -> str | None:
        """The target of EXECUTE AS USER, if it is somebody else."""
        return None if self.actor == self.identity.user else self.identity.user

    def as_user(self, identity: Identity) -> StatementContext:
        """The same request in another user's name."""
        return replace(self, identity=identity, caller=self.actor)


def context_of(
    identity: Identity,
    namespace: str,
    params: Sequence[object],
    control: Control,
    ws_url: str = "",
    client_ip: str = "",
) -> StatementContext:
    """The context of a request."""
    return StatementContext(identity, namespace, params, control, tuple(map(json_kind, params)), ws_url, client_ip)


@dataclass(frozen=True, slots=True)
class _RunningWrite:
    """What a plan that writes asks for while it runs (`sql.row_expressions.WriteServices`)."""

    services: Services
    control: Control
    now_us: int

    @property
    def functions(self) -> FunctionContext:
        """The identifier generators."""
        return self.services.functions

    def run_query(self, plan: QueryPlan, view: ReadView, params: Sequence[object], identity: Identity) -> pa.Table:
        """The whole result of a plan, over the state that the statement writes to."""
        execution = Execution(view, identity, self.control, params, self.now_us)
        limit = self.services.pool.options.memory_bytes
        return run_query(plan, execution, self.services.runtime, max_bytes=limit)


def running_write(services: Services, context: StatementContext) -> _RunningWrite:
    """What expressions of a statement that writes ask for while they run."""
    return _RunningWrite(services, context.control, services.functions.now_us())


class Services:
    """Shared by all requests. Safe from any thread."""

    def __init__(
        self,
        engine: StorageEngine,
        limits: SqlLimits,
        pool: DuckPool,
        functions: FunctionContext,
        system: SystemTables,
        runtime: QueryRuntime,
        passwords: PasswordSettings,
        *,
        bigint: BigintMode = BigintMode.AUTO,
    ) -> None:
        self.engine = engine
        self.limits = limits
        self.pool = pool
        self.functions = functions
        self.system = system
        self.runtime = runtime
        self.passwords = passwords
        self.bigint = bigint
        self.live: LiveQueries = NoLiveQueries(LiveSettings())
        self.topics: TopicHub
        """Set by `sql.database.Database` before any statement runs."""
        self.jobs: JobService
        """Set likewise."""
        self.storages: StorageRegistry
        self.lake: LakePublisher
        """Set likewise."""
        self.audit: AuditLog
        """Set likewise."""
        self.files: FileStore | None = None
        """Where files are stored; None where there are none."""
        self.exports: ExportSettings | None = None
        """Where exports lie; None where there are none."""
        self.vectors: VectorUpkeep
        """What builds vector indexes and keeps them; set by `sql.database.Database`."""
        self.live_plans: PlanCache[LivePlan] = PlanCache(limits.plan_cache_entries)
        """Plans of live queries, by `sql.live.binding`."""
        self.transactions = RunningTransactions()
        """The BEGIN … COMMIT batches that run."""
        self._queries: PlanCache[QueryPlan] = PlanCache(limits.plan_cache_entries)
        self._writes: PlanCache[WritePlan] = PlanCache(limits.plan_cache_entries)

    @property
    def cached_plans(self) -> int:
        """Plans that are remembered: of queries, writes and live queries."""
        return len(self._queries) + len(self._writes) + len(self.live_plans)

    def snapshot(self, context: StatementContext) -> Snapshot:
        """A snapshot that outlives the request's deadline by little."""
        return self.engine.snapshot(lease=context.control.remaining + _LEASE_SLACK, purpose="statement")

    def binding(self, view: ReadView, context: StatementContext) -> BindContext:
        """What a statement is bound in."""
        return BindContext(
            catalog=view.catalog,
            system=self.system,
            namespace=context.namespace,
            role=context.identity.role,
            pool=self.pool,
            parameter_kinds=context.kinds,
        )

    # --- queries -------------------------------------------------------------------------------------------------

    def plan_query(self, query: Query, parsed: Parsed, view: ReadView, context: StatementContext) -> QueryPlan:
        """The plan of a query, from the cache when it is there."""
        version = view.catalog.version
        key = _key(parsed, context)
        plan = self._queries.get(key, version) or self._queries.get((*key, context.kinds), version)
        if plan is None:
            plan = bind_query(query.ast, self.binding(view, context))
            self._queries.put((*key, context.kinds) if plan.kinds_matter else key, version, plan)
        return plan

    def query(self, query: Query, parsed: Parsed, view: ReadView, context: StatementContext) -> StatementResult:
        """Run a query to its end."""
        plan = self.plan_query(query, parsed, view, context)
        execution = Execution(view, context.identity, context.control, context.params)
        table = run_query(plan, execution, self.runtime, max_rows=self.limits.max_result_rows)
        return StatementResult(columns=plan.columns, table=table, row_count=table.num_rows)

    # --- writes --------------------------------------------------------------------------------------------------

    def plan_write(
        self, statement: Insert | Update | Delete, parsed: Parsed, view: ReadView, context: StatementContext
    ) -> WritePlan:
        """The plan of a statement that writes, from the cache when it is there."""
        version = view.catalog.version
        key = (*_key(parsed, context), context.kinds)
        plan = self._writes.get(key, version)
        if plan is None:
            plan = plan_write(statement, self.binding(view, context))
            self._writes.put(key, version, plan)
        return plan

    def write(self, plan: WritePlan, writer: Transaction, context: StatementContext) -> StatementResult:
        """Run a plan; when it fails, nothing of it stays staged."""
        running = running_write(self, context)
        mark = writer.savepoint()
        try:
            return plan.run(writer, context.params, context.identity, running)
        except BaseException:
            writer.rollback_to(mark)
            raise

    # --- commands ------------------------------------------------------------------------------------------------

    def show(self, statement: Show | Describe, view: ReadView, context: StatementContext) -> StatementResult:
        """SHOW and DESCRIBE."""
        if isinstance(statement, Describe):
            return describe(statement, view, context, self.system)
        return show(statement, view, context, self.system, self.live.subscriptions)

    def explain(
        self, statement: Statement, analyze: bool, view: ReadView, context: StatementContext
    ) -> StatementResult:
        """EXPLAIN [ANALYZE]."""
        return explain(statement, analyze, view, context, self)


def _key(parsed: Parsed, context: StatementContext) -> tuple[Hashable, ...]:
    """What a plan depends on beside the catalog; positions too, because its errors name them."""
    return parsed.text, parsed.line, parsed.column, context.namespace, context.identity.role
