"""Statements that run without a worker thread: known shapes that need no query engine.

A statement becomes hot the second time its shape is seen: the first run plans it in a worker thread and leaves an
entry here. An entry is found by the exact text, by the shape of an INSERT (`templates.scan_insert`), or by the text
with its literals lifted out (`templates.lift_literals`). It holds for one catalog version and one role; users differ
only in the partition that is read or written.

Whenever an entry cannot answer exactly as the ordinary way would (a literal that does not fit its column, a schema
that changed meanwhile), it says so with `None` and the request goes the ordinary way.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from sql.cache import PlanCache
from sql.delete import DeletePlan
from sql.dialect import parse_batch
from sql.errors import InvalidParameter, SqlError
from sql.expressions import NotCovered
from sql.hot_change import HotChange, HotUpsert, answer, hot_change, hot_upsert
from sql.hot_insert import HotInsert, hot_insert
from sql.hot_read import HotIndexRead, HotRead, hot_read
from sql.identity import Identity
from sql.insert import InsertPlan
from sql.numbering import numbered
from sql.rendering import BigintMode
from sql.results import StatementResult
from sql.services import Services, StatementContext, context_of
from sql.statements import Delete, Insert, Parsed, Query, Update
from sql.storage_errors import translated
from sql.templates import InsertShape, ParamRef, lift_literals, scan_insert
from sql.update import UpdatePlan
from sql.workers import Control
from storage.errors import ColdMiss, SchemaChanged, StorageError, WriteConflict
from storage.snapshots import Snapshot
from storage.transaction import Transaction
from storage.writer import WriteTransaction

log = logging.getLogger(__name__)

MAX_TEXT = 256 * 1024
"""Longer texts are not scanned on the event loop."""

Plan = InsertPlan | UpdatePlan | DeletePlan
Form = HotInsert | HotUpsert | HotChange | HotRead | HotIndexRead | Plan


@dataclass(frozen=True, slots=True)
class _Entry:
    """A hot statement. `shape` is set when the text alone gives it; `parameters` is how many the request has.

    `form` is None for a statement that has none, so that it is not looked at again.
    """

    form: Form | None
    parameters: int
    shape: InsertShape | None = None


class HotStatements:
    """The hot entries and the way they run. Used on the event loop; `learn` from worker threads too."""

    def __init__(self, services: Services, bigint: BigintMode) -> None:
        self._services = services
        self._bigint = bigint
        self._engine = services.engine
        self._entries: PlanCache[_Entry] = PlanCache(services.limits.plan_cache_entries)

    async def run(
        self, sql: str, params: Sequence[object], namespace: str, identity: Identity
    ) -> StatementResult | None:
        """The result, or None when the request must go the ordinary way."""
        version = self._engine.catalog.version
        entry = self._entries.get((sql, namespace, identity.role), version)
        if entry is not None:
            if entry.form is None or entry.parameters != len(params):
                return None
            return await self._run(entry.form, entry.shape, params, namespace, identity)
        if len(sql) > MAX_TEXT:
            return None
        shape = scan_insert(sql)
        if shape is not None:
            return await self._run_shape(sql, shape, params, namespace, identity, version)
        lifted = lift_literals(sql)
        if lifted is None:
            return None
        template, values = lifted
        entry = self._entries.get((template, *map(type, values), namespace, identity.role), version)
        if entry is None or entry.form is None or entry.parameters != len(params):
            return None
        return await self._run(entry.form, None, [*params, *values], namespace, identity)

    async def _run_shape(
        self, sql: str, shape: InsertShape, params: Sequence[object], namespace: str, identity: Identity, version: int
    ) -> StatementResult | None:
        if _parameters(sql, shape) != len(params):
            return None
        entry = self._entries.get((shape.key, "insert", namespace, identity.role), version)
        if entry is None or entry.form is None or (isinstance(entry.form, HotUpsert) and shape.rows != 1):
            return None
        if params:
            known = _Entry(entry.form, len(params), shape)
            self._entries.put((sql, namespace, identity.role), version, known)
        return await self._run(entry.form, shape, params, namespace, identity)

    def run_long(self, sql: str, context: StatementContext) -> StatementResult | None:
        """A plain INSERT that is too long for the event loop and for the parser, in a worker thread; None otherwise."""
        shape = scan_insert(sql) if len(sql) > MAX_TEXT else None
        if shape is None or _parameters(sql, shape) != len(context.params):
            return None
        scope = (context.namespace, context.identity.role)
        key = (shape.key, "insert", *scope)
        version = self._engine.catalog.version
        entry = self._entries.get(key, version)
        if entry is None:
            try:
                (parsed,) = parse_batch(shape.template)
                self._remember(key, parsed, context, 0, shape)
            except SqlError:
                return None
            entry = self._entries.get(key, version)
        if entry is None or not isinstance(entry.form, HotInsert):
            return None
        form, identity = entry.form, context.identity
        with numbered(0, applied=0):
            try:
                work = form.insertion(shape, context.params, self._services.functions, identity)
                self._engine.commit_sync(work, weight=shape.rows)
            except (SchemaChanged, InvalidParameter):
                return None
            except StorageError as error:
                raise translated(error, form.table) from error
        return form.result(shape.rows, identity)

    # --- learning ------------------------------------------------------------------------------------------------

    def learn(self, sql: str, parsed: Parsed, context: StatementContext) -> None:
        """Remember a request of one statement that has just run. It took effect, so nothing here may fail it."""
        try:
            self._learn(sql, parsed, context)
        except (SqlError, StorageError) as error:
            log.debug("a statement is not remembered: %s", error)

    def _learn(self, sql: str, parsed: Parsed, context: StatementContext) -> None:
        statement = parsed.statement
        if len(sql) > MAX_TEXT or not isinstance(statement, (Query, Insert, Update, Delete)):
            return
        scope = (context.namespace, context.identity.role)
        shape = scan_insert(sql) if isinstance(statement, Insert) else None
        lifted = None if isinstance(statement, Insert) else lift_literals(sql)
        key: Hashable = (sql, *scope)
        if lifted is not None:
            # Plan the text with its literals lifted; only the original text has its say about what is wrong with it.
            template, values = lifted
            key = (template, *map(type, values), *scope)
            count = len(context.params)
            context = context_of(context.identity, context.namespace, [*context.params, *values], context.control)
            (parsed,) = parse_batch(template)
            self._remember(key, parsed, context, count, None)
            return
        self._remember(key, parsed, context, len(context.params), shape)

    def _remember(
        self, key: Hashable, parsed: Parsed, context: StatementContext, count: int, shape: InsertShape | None
    ) -> None:
        known = self._entries.get(key, self._engine.catalog.version)
        if known is not None and known.form is None:
            return
        with self._services.snapshot(context) as view:
            form = self._form(parsed, view, context, shape)
            version = view.catalog.version
        if form is None:
            if isinstance(parsed.statement, Query):  # an INSERT has a text of its own each time
                self._entries.put(key, version, _Entry(None, count))
            return
        if shape is not None and isinstance(form, (HotInsert, HotUpsert)):
            key, count = (shape.key, "insert", context.namespace, context.identity.role), 0
        self._entries.put(key, version, _Entry(form, count))

    def _form(
        self, parsed: Parsed, view: Snapshot, context: StatementContext, shape: InsertShape | None
    ) -> Form | None:
        """The cheapest form that a statement can run in; None when it needs a worker thread."""
        statement = parsed.statement
        if isinstance(statement, Query):
            return hot_read(self._services.plan_query(statement, parsed, view, context), self._bigint)
        if not isinstance(statement, (Insert, Update, Delete)):
            return None
        plan = self._services.plan_write(statement, parsed, view, context)
        if isinstance(plan, InsertPlan):
            form = hot_insert(plan) or hot_upsert(plan)
            if form is not None and shape is not None:
                return form
        change = hot_change(plan)
        if change is not None:
            return change
        if isinstance(plan, (InsertPlan, UpdatePlan, DeletePlan)) and plan.keyed and not plan.kinds_matter:
            return plan
        return None

    # --- running -------------------------------------------------------------------------------------------------

    async def _run(
        self, form: Form, shape: InsertShape | None, params: Sequence[object], namespace: str, identity: Identity
    ) -> StatementResult | None:
        if isinstance(form, (HotRead, HotIndexRead)):
            return self._read(form, params, identity)
        with numbered(0, applied=0):
            try:
                if isinstance(form, HotInsert):
                    return await self._insert(form, shape, params, identity)
                if isinstance(form, HotUpsert):
                    if shape is None:
                        return None
                    upsert = form.work(shape, params, identity, self._services.functions)
                    count = await self._engine.commit(upsert)
                    return StatementResult(row_count=count, message=f"Inserted {count} row(s)", as_user=identity.user)
                if isinstance(form, (InsertPlan, UpdatePlan, DeletePlan)):
                    return await self._write(form, params, namespace, identity)
                work = form.work(params, identity, self._services.functions)
                return answer(form, await self._engine.commit(work), identity)
            except (SchemaChanged, WriteConflict, InvalidParameter, NotCovered):
                return None  # nothing was applied: the ordinary way decides
            except StorageError as error:
                raise translated(error, form.table) from error

    def _read(
        self, read: HotRead | HotIndexRead, params: Sequence[object], identity: Identity
    ) -> StatementResult | None:
        try:
            snapshot = self._engine.snapshot_at_once(purpose="point read")
            if snapshot is None:
                return None  # a worker thread may wait until the storage has moved its map, the event loop may not
            with snapshot as view:
                if view.catalog.table_by_id(read.table.table_id) is not read.table:
                    return None  # altered since the entry was found
                return read.run(view, params, identity)
        except (InvalidParameter, ColdMiss):
            return None  # a worker thread may read files of the cold tier
        except StorageError as error:
            raise translated(error) from error

    async def _insert(
        self, insert: HotInsert, shape: InsertShape | None, params: Sequence[object], identity: Identity
    ) -> StatementResult | None:
        if shape is None:
            return None
        work = insert.insertion(shape, params, self._services.functions, identity)
        await self._engine.commit(work, weight=shape.rows)
        return insert.result(shape.rows, identity)

    async def _write(self, plan: Plan, params: Sequence[object], namespace: str, identity: Identity) -> StatementResult:
        services = self._services
        context = context_of(identity, namespace, params, Control(services.limits.statement_timeout))

        def work(writer: WriteTransaction) -> StatementResult:
            transaction = Transaction(writer)
            answered = services.write(plan, transaction, context)
            transaction.apply(writer)
            return answered

        result = await self._engine.commit(work, weight=plan.weight)
        result.as_user = identity.user
        return result


def _parameters(sql: str, shape: InsertShape) -> int:
    """The highest $n of a shape, when all from $1 on are there; -1 otherwise."""
    if "$" not in sql:
        return 0
    numbers = {value.index for column in shape.columns for value in column if type(value) is ParamRef}
    return len(numbers) if not numbers or max(numbers) == len(numbers) else -1
