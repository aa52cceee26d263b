"""Statements that run without a worker thread: known shapes that need no query engine.

A statement becomes hot the second time its shape is seen: the first run plans it in a worker thread
and leaves a `Hot…` entry here. An entry is found by the exact text, by the shape of an INSERT
(`templates.scan_insert`), or by the text with its literals lifted out (`templates.lift_literals`). It holds for one
catalog version and one role; users differ only in the partition that is read or written.

Whenever an entry cannot answer exactly as the ordinary way would (a literal that does not fit its column, a schema
that changed meanwhile), it says so with `None` and the request goes the ordinary way.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from sql.cache import PlanCache
from sql.dml import WritePlan
from sql.errors import InvalidParameter, SqlError
from sql.expressions import NotCovered
from sql.hot_insert import HotInsert, hot_insert
from sql.hot_read import HotRead, hot_read
from sql.identity import Identity
from sql.insert import InsertPlan
from sql.parameters import json_kind
from sql.rendering import BigintMode
from sql.results import StatementResult
from sql.services import Services, StatementContext, context_of
from sql.session import numbered
from sql.statements import Delete, Insert, Parsed, Query, Update
from sql.storage_errors import translated
from sql.templates import InsertShape, ParamRef, lift_literals, scan_insert
from sql.workers import Control
from storage.errors import SchemaChanged, StorageError, WriteConflict
from storage.snapshots import Snapshot
from storage.transaction import Transaction
from storage.writer import WriteTransaction

MAX_TEXT = 256 * 1024
"""Longer texts are not scanned on the event loop."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A hot statement and what this request gives it."""

    insert: HotInsert | None = None
    shape: InsertShape | None = None
    write: WritePlan | None = None
    read: HotRead | None = None
    lifted: Sequence[object] = ()


Entry = tuple[HotInsert | None, InsertShape | None, WritePlan | None, HotRead | None, int]
"""insert, its shape when the text alone gives it, write, read, number of request parameters."""


class HotStatements:
    """The hot entries and the way they run. Used on the event loop; `learn` from worker threads too."""

    def __init__(self, services: Services, bigint: BigintMode) -> None:
        self._services = services
        self._bigint = bigint
        self._engine = services.engine
        self._entries: PlanCache[Entry] = PlanCache(services.limits.plan_cache_entries)

    async def run(
        self, sql: str, params: Sequence[object], namespace: str, identity: Identity
    ) -> StatementResult | None:
        """The result, or None when the request must go the ordinary way."""
        if len(sql) > MAX_TEXT:
            return None
        found = self._find(sql, params, namespace, identity)
        if found is None:
            return None
        if found.read is not None:
            return self._read(found.read, [*params, *found.lifted] if found.lifted else params, identity)
        if found.insert is not None and found.shape is not None:
            return await self._insert(found.insert, found.shape, params, identity)
        if found.write is not None:
            return await self._write(found.write, [*params, *found.lifted], namespace, identity)
        return None

    # --- finding -------------------------------------------------------------------------------------------------

    def _find(self, sql: str, params: Sequence[object], namespace: str, identity: Identity) -> _Found | None:
        version = self._engine.catalog.version
        scope = (namespace, identity.role)
        entry = self._entries.get((sql, *scope), version)
        if entry is not None:
            insert, shape, write, read, count = entry
            return _Found(insert, shape, write, read) if count == len(params) else None
        inserted = scan_insert(sql)
        if inserted is not None:
            if _parameters(inserted) != len(params):
                return None
            entry = self._entries.get((inserted.key, "insert", *scope), version)
            if entry is None:
                return None
            if params:
                self._entries.put((sql, *scope), version, (entry[0], inserted, None, None, len(params)))
            return _Found(entry[0], inserted)
        lifted = lift_literals(sql)
        if lifted is None:
            return None
        template, values = lifted
        entry = self._entries.get((template, *map(type, values), *scope), version)
        if entry is None or entry[4] != len(params):
            return None
        return _Found(write=entry[2], read=entry[3], lifted=values)

    # --- learning ------------------------------------------------------------------------------------------------

    def learn(self, sql: str, parsed: Parsed, context: StatementContext) -> None:
        """Remember a request of one statement that has just run without error."""
        if len(sql) > MAX_TEXT or not isinstance(parsed.statement, (Query, Insert, Update, Delete)):
            return
        version = self._engine.catalog.version
        scope = (context.namespace, context.identity.role)
        with self._services.snapshot(context) as view:
            if view.catalog.version != version:
                return
            if isinstance(parsed.statement, Insert):
                shape = scan_insert(sql)
                plan = self._services.plan_write(parsed.statement, parsed, view, context)
                hot = hot_insert(plan) if isinstance(plan, InsertPlan) else None
                if shape is not None and hot is not None:
                    self._entries.put((shape.key, "insert", *scope), version, (hot, None, None, None, 0))
                    return
                if plan.keyed:
                    self._entries.put((sql, *scope), version, (None, None, plan, None, len(context.params)))
                return
            lifted = lift_literals(sql)
            if lifted is not None:
                self._learn_template(*lifted, context, version)
                return
            entry = self._entry(parsed, view, context, len(context.params))
            if entry is not None:
                self._entries.put((sql, *scope), version, entry)

    def _learn_template(
        self, template: str, values: Sequence[object], context: StatementContext, version: int
    ) -> None:
        """Plan the text with its literals lifted; it is hot when the literals are plain values of their columns."""
        from sql.dialect import parse_batch

        wanted = context_of(context.identity, context.namespace, [*context.params, *values], context.control)
        try:
            (parsed,) = parse_batch(template)
            with self._services.snapshot(context) as view:
                entry = self._entry(parsed, view, wanted, len(context.params))
        except SqlError:
            return  # only the original text has its say about what is wrong with it
        if entry is not None:
            key: Hashable = (template, *map(type, values), context.namespace, context.identity.role)
            self._entries.put(key, version, entry)

    def _entry(self, parsed: Parsed, view: Snapshot, context: StatementContext, count: int) -> Entry | None:
        statement = parsed.statement
        if isinstance(statement, Query):
            read = hot_read(self._services.plan_query(statement, parsed, view, context), self._bigint)
            return None if read is None else (None, None, None, read, count)
        if isinstance(statement, (Insert, Update, Delete)):
            write = self._services.plan_write(statement, parsed, view, context)
            return (None, None, write, None, count) if write.keyed else None
        return None

    # --- running -------------------------------------------------------------------------------------------------

    def _read(self, read: HotRead, params: Sequence[object], identity: Identity) -> StatementResult | None:
        try:
            with self._engine.snapshot(purpose="point read") as view:
                return read.run(view, params, identity)
        except InvalidParameter:
            return None
        except StorageError as error:
            raise translated(error) from error

    async def _insert(
        self, insert: HotInsert, shape: InsertShape, params: Sequence[object], identity: Identity
    ) -> StatementResult | None:
        with numbered(0, applied=0):
            columns = insert.columns_of(shape, params, self._services.functions, identity)
            try:
                await self._engine.commit(insert.work(columns, identity), weight=shape.rows)
            except SchemaChanged:
                return None
            except StorageError as error:
                raise translated(error, insert.table) from error
        return insert.result(shape.rows, identity)

    async def _write(
        self, plan: WritePlan, params: Sequence[object], namespace: str, identity: Identity
    ) -> StatementResult | None:
        services = self._services
        control = Control(services.limits.statement_timeout)
        context = StatementContext(identity, namespace, params, control, tuple(map(json_kind, params)))

        def work(writer: WriteTransaction) -> StatementResult:
            transaction = Transaction(writer)
            answer = services.write(plan, transaction, context)
            transaction.apply(writer)
            return answer

        with numbered(0, applied=0):
            try:
                result = await self._engine.commit(work, weight=plan.weight)
            except (SchemaChanged, WriteConflict, InvalidParameter, NotCovered):
                return None
            except StorageError as error:
                raise translated(error, plan.table) from error
        result.as_user = identity.user
        return result


def _parameters(shape: InsertShape) -> int:
    """The highest $n of a shape, when all from $1 on are there; -1 otherwise."""
    numbers = {value.index for column in shape.columns for value in column if type(value) is ParamRef}
    return len(numbers) if not numbers or max(numbers) == len(numbers) else -1
