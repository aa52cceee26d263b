"""LiveQuery of one table: its snapshot, and what a commit changes in its answer.

Every event of a commit (`changed_rows`) is classified by whether the condition keeps the old and the new version:

    old  new
     -   yes   insert: the row is new, or enters the filter
    yes  yes   update
    yes   -    delete: the row is gone (`seq` is that of its deletion) or leaves the filter (that of its new version)

Changes of few rows are evaluated row by row on decoded values; all others by column. Both take the same compiled
expressions that a snapshot takes, and DuckDB where it takes DuckDB.
"""

from __future__ import annotations

from collections.abc import Hashable

import pyarrow as pa

from sql.errors import MemoryLimitExceeded
from sql.expressions import NotCovered
from sql.identity import Identity
from sql.live.changed_rows import ChangedRows
from sql.live.changes_by_column import changes_by_column
from sql.live.changes_by_row import changes_by_row, keeps_any
from sql.live.interface import Equality, LiveDelta
from sql.live.live_plan import LivePlan
from sql.live.selection import (
    Arguments,
    by_name,
    check_columns,
    engine_on_view,
    in_seq_order,
    matching,
    shown,
)
from sql.parameters import parameter_values
from sql.plan import IndexAccess
from sql.results import ResultColumn
from sql.rights import partition_of
from sql.scanning import read_rows, value_of
from sql.services import Services
from sql.workers import Control
from storage.changes import ChangeSet
from storage.types import arrow_type
from storage.views import ReadView

CHUNK_ROWS = 65_536
"""Rows of a snapshot that are evaluated at a time."""


class TableQuery:
    """A plan with its arguments and its caller's scope. Immutable; safe from any thread."""

    __slots__ = ("_arguments", "_values", "identity", "namespace", "now_us", "params", "plan", "services", "sql")

    def __init__(
        self,
        plan: LivePlan,
        services: Services,
        sql: str,
        params: tuple[object, ...],
        arguments: tuple[object, ...],
        namespace: str,
        identity: Identity,
        now_us: int,
    ) -> None:
        """`params` are the request's JSON values; `arguments` those and the literals that were lifted out of `sql`.

        Raises InvalidParameter for one that does not fit its type.
        """
        self.plan = plan
        self.services = services
        self.sql = sql
        self.params = params
        self.namespace = namespace
        self.identity = identity
        self.now_us = now_us
        self._arguments = arguments
        self._values = tuple(parameter_values(plan.parameters, arguments, identity, now_us).values())

    @property
    def key(self) -> Hashable:
        """See LiveQuery."""
        return self.plan.shape, self.partition, self.plan.key_of(self._values)

    @property
    def columns(self) -> tuple[ResultColumn, ...]:
        """See LiveQuery."""
        return self.plan.columns

    @property
    def table_id(self) -> int:
        """The table whose commits concern it."""
        return self.plan.table.table_id

    @property
    def partition(self) -> str:
        """The partition whose commits concern it."""
        return partition_of(self.plan.table, self.identity)

    @property
    def equality(self) -> Equality | None:
        """See LiveQuery."""
        if self.plan.equality is None:
            return None
        column, operand = self.plan.equality
        return Equality(column, value_of(operand, self._by_index))

    @property
    def is_blocking(self) -> bool:
        """True when DuckDB decides which rows it keeps."""
        return not self.plan.covers_condition

    @property
    def is_resumable(self) -> bool:
        """The log tells what changed."""
        return True

    @property
    def shows_key(self) -> bool:
        """Whether rows have the whole primary key."""
        return self.plan.shows_key

    @property
    def _by_index(self) -> dict[int, object]:
        return dict(enumerate(self._values, start=1))

    @property
    def arguments(self) -> Arguments:
        """What the plan is evaluated with."""
        return Arguments(self._values, self._arguments, self.identity, self.now_us)

    # --- snapshots -----------------------------------------------------------------------------------------------

    def snapshot(self, view: ReadView, *, last_rows: int | None = None, control: Control | None = None) -> pa.Table:
        """See LiveQuery. Raises MemoryLimitExceeded when the answer takes more than the query engine may use."""
        control = control or Control(self.services.limits.statement_timeout)
        if self.plan.is_native:
            try:
                return self._native_snapshot(view, last_rows, control)
            except NotCovered:
                pass
        limit = self.services.pool.options.memory_bytes
        rows = engine_on_view(self.plan, view, self.arguments, self.services.runtime, control, limit)
        return rows if last_rows is None else rows.slice(max(0, rows.num_rows - last_rows))

    def _native_snapshot(self, view: ReadView, last_rows: int | None, control: Control) -> pa.Table:
        """By our evaluator, chunk by chunk; from the end when only the newest rows are wanted."""
        plan = self.plan
        names = [column.name for column in plan.table.columns if column.name in plan.types]
        rows = in_seq_order(
            read_rows(
                plan.table,
                self.partition,
                view,
                names,
                plan.access,
                self._by_index,
                plan.ranges,
                self._usable_indexes(view),
            )
        )
        chunks = rows.to_batches(max_chunksize=CHUNK_ROWS)
        schema = pa.schema([pa.field(column.name, arrow_type(column.type)) for column in plan.columns])
        arguments, limit = self.arguments, self.services.pool.options.memory_bytes
        found: list[pa.RecordBatch] = []
        wanted = last_rows if last_rows is not None else rows.num_rows
        size = 0
        for chunk in chunks if last_rows is None else reversed(chunks):
            if wanted <= 0:
                break
            control.check()
            columns = by_name(chunk)
            kept = matching(plan, columns, chunk.num_rows, arguments)
            assert kept is not None
            if not len(kept):
                continue
            kept = kept[-wanted:]
            wanted -= len(kept)
            arrays = shown(plan, columns, kept, chunk.num_rows, arguments, copy=True)
            found.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
            size += found[-1].nbytes
            if size > limit:
                raise MemoryLimitExceeded(
                    f"The snapshot of the live query takes more than {limit} bytes. Narrow its WHERE clause, or ask "
                    "for the newest rows only (last_rows)."
                )
        return pa.Table.from_batches(found if last_rows is None else found[::-1], schema)

    def _usable_indexes(self, view: ReadView) -> tuple[IndexAccess, ...]:
        """Those of the plan that the view still has."""
        table = view.catalog.table_by_id(self.table_id)
        if table is None or not self.plan.indexes:
            return ()
        there = {unique.index_id for unique in table.uniques} | {index.index_id for index in table.indexes}
        return tuple(access for access in self.plan.indexes if access.index_id in there)

    # --- changes -------------------------------------------------------------------------------------------------

    def delta(self, commit: ChangeSet, rows: ChangedRows | None, *, blocking: bool = False) -> LiveDelta | None:
        """See LiveQuery."""
        if rows is None:
            return None
        check_columns(self.plan, rows.added.schema)
        changes = None
        if rows.is_small and self.plan.covers_condition:
            try:
                if self.plan.is_native:
                    changes = changes_by_row(self.plan, rows, self._values)
                elif not keeps_any(self.plan, rows, self._values):
                    return None
            except NotCovered:
                changes = None
        if changes is None:
            control = Control(self.services.limits.statement_timeout) if blocking else None
            changes = changes_by_column(self.plan, rows, self.arguments, self.services.runtime, control)
        return LiveDelta(commit.last_seq, changes) if changes else None
