"""The router of topics: which changes become messages and where they go, by conditions and keys in SQL.

Conditions are compiled when they are first needed and kept while the table keeps its schema version. Whatever goes
wrong in them fails the write that brought the row, and only that one (`storage.committer`).
"""

from __future__ import annotations

from collections.abc import Hashable

from sql.binder import BindContext
from sql.duck import DuckOptions, DuckPool
from sql.errors import SqlError
from sql.identity import Role
from sql.query import QueryRuntime
from sql.services import Services
from sql.topics.conditions import Condition, compile_condition
from sql.topics.keys import row_partitions
from sql.topics.payloads import RunRenderer
from storage.catalog import Catalog, TableDef
from storage.errors import PublishFailed
from storage.reading import Reader
from storage.topic_definitions import TopicDef, TopicSource
from storage.topic_publishing import PublishedRows, Routed
from storage.topic_runs import ProducedRun, RowRun

KEPT = 10_000
"""Compiled conditions that are kept."""
_MEMORY = 128 << 20
"""What DuckDB may use for a condition that it has to evaluate."""


class SqlRouter:
    """Called on the writer's thread."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._conditions: dict[Hashable, Condition] = {}
        self._pool: DuckPool | None = None

    def route(self, topic: TopicDef, source: TopicSource, table: TableDef, rows: PublishedRows) -> Routed:
        """Where the events go. Raises PublishFailed where the condition cannot be evaluated."""
        kept = None
        if source.condition is not None:
            kept = self._condition(topic, source, table).kept(rows)
            if len(kept) == rows.count:
                kept = None
            elif not len(kept):
                return Routed(kept, None)
        if topic.partitions == 1:
            return Routed(kept, None)
        partitions = row_partitions(table, rows, topic.partitions)
        return Routed(kept, partitions if kept is None else partitions[kept])

    def rendered(self, run: RowRun, catalog: Catalog, reader: Reader) -> ProducedRun:
        """The messages of a run with keys and payloads of their own."""
        keys, payloads = RunRenderer(reader, catalog, self._services.bigint).render(run)
        return ProducedRun(run.timestamp_us, run.user, tuple(keys), tuple(payloads), run.operation)

    def close(self) -> None:
        """Give the query engine back, if it was needed."""
        if self._pool is not None:
            self._pool.close()

    def _condition(self, topic: TopicDef, source: TopicSource, table: TableDef) -> Condition:
        key = topic.topic_id, source.source_id, table.schema_version, table.full_name
        found = self._conditions.get(key)
        if found is None:
            if len(self._conditions) >= KEPT:
                self._conditions.clear()
            found = self._conditions[key] = self._compiled(topic, source, table)
        return found

    def _compiled(self, topic: TopicDef, source: TopicSource, table: TableDef) -> Condition:
        services = self._services
        context = BindContext(Catalog(0, (), (table,)), services.system, table.namespace, Role.SYSTEM, services.pool)
        try:
            return compile_condition(source.condition or "", table, context, self._runtime)
        except SqlError as error:
            raise PublishFailed(
                f"the condition of the source {table.full_name} of topic {topic.full_name} no longer fits the table: "
                f"{error.message}"
            ) from error

    def _runtime(self) -> QueryRuntime:
        services = self._services
        if self._pool is None:
            options = DuckOptions(connections=1, threads=1, memory_bytes=_MEMORY, temp_bytes=0)
            self._pool = DuckPool(options, services.functions)
        return QueryRuntime(self._pool, services.functions)
