"""LiveQuery of a system table: read anew after every commit that changes definitions, and compared with before."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
from sqlglot import exp

from sql.binder import BindContext
from sql.errors import InvalidSql, Unsupported
from sql.identity import Identity
from sql.information_schema import INFORMATION_SCHEMA_TABLES
from sql.live.changed_rows import ChangedRows, stored_values
from sql.live.changes_by_row import Messages, differs
from sql.live.interface import ChangeType, Equality, LiveDelta
from sql.live.wire_rows import WireRow, renderer
from sql.plan import SEQ
from sql.query import Execution, run_query
from sql.results import ResultColumn
from sql.services import Services
from sql.storage_errors import storage_errors
from sql.system_catalog import CATALOG_TABLES
from sql.system_topics import TOPICS_TABLE
from sql.workers import Control
from storage.changes import ChangeSet
from storage.contiguous import one_array
from storage.types import BIGINT
from storage.views import ReadView

_FROM_CATALOG = frozenset(t.full_name for t in (*CATALOG_TABLES, TOPICS_TABLE, *INFORMATION_SCHEMA_TABLES))
"""System tables whose rows follow from committed definitions alone."""

_KEY = "__key_"

Values = tuple[object, ...]


class SystemQuery:
    """A query of one system table for one subscription: it remembers the answer that its client has.

    Rows have no `_seq` of their own in the log, so `_seq` is that of the commit as of which they were read. Rows are
    known by the table's key; the events of one commit share its `seq`.
    """

    def __init__(
        self,
        ast: exp.Select,
        binding: BindContext,
        services: Services,
        sql: str,
        params: tuple[object, ...],
        identity: Identity,
        now_us: int,
        view: ReadView,
    ) -> None:
        """Bind the query and remember its answer at the view. Raises an SqlError that says what is wrong."""
        self.services = services
        self.sql = sql
        self.params = params
        self.namespace = binding.namespace
        self.identity = identity
        self.now_us = now_us
        source = ast.args["from_"].this
        table = binding.system.get(source.db, source.name.lower())
        keys = () if table is None else table.key
        query = ast.copy()
        qualifier = source.alias_or_name
        query.set(
            "expressions",
            [
                *query.expressions,
                *(
                    exp.Alias(
                        this=exp.column(name, table=qualifier, quoted=True),
                        alias=exp.to_identifier(f"{_KEY}{place}", quoted=True),
                    )
                    for place, name in enumerate(keys)
                ),
            ],
        )
        plan = binding.bind(query)  # it says, too, who may read which table
        if table is None or table.full_name not in _FROM_CATALOG:
            raise Unsupported(f"{source.db}.{source.name} shows the running server's state: it cannot be a live query.")
        if plan.volatile:
            raise Unsupported("A function that has another value each time is not supported in a live query.")
        self._plan = replace(plan, scans=tuple(replace(scan, ordered=False) for scan in plan.scans))
        shown = plan.columns[: len(plan.columns) - len(keys)]
        names = [column.name for column in shown]
        if SEQ in names or len(set(names)) < len(names):
            raise InvalidSql("The columns of a live query need names of their own, and none may be called _seq.")
        self._keys = [(name, name in names) for name in keys]
        self._key_columns = [
            ResultColumn(name, column.type)
            for name, column in zip(keys, plan.columns[len(shown) :], strict=True)
        ]  # fmt: skip
        self._shown = shown
        self._renders = [renderer(column, services.bigint) for column in shown]
        self._lock = threading.Lock()
        self._seq = 0
        self._known: dict[Hashable, Values] = {}
        self._remember(view)

    @property
    def key(self) -> Hashable:
        """Its own: what is new depends on what this client has."""
        return id(self)

    @property
    def columns(self) -> tuple[ResultColumn, ...]:
        """See LiveQuery."""
        return (*self._shown, ResultColumn(SEQ, BIGINT, ("nn",)))

    @property
    def table_id(self) -> None:
        """Every commit with definitions concerns it."""
        return

    @property
    def partition(self) -> str:
        """System tables have none."""
        return ""

    @property
    def equality(self) -> Equality | None:
        """No index finds it."""
        return None

    @property
    def is_blocking(self) -> bool:
        """It reads the whole table."""
        return True

    @property
    def is_resumable(self) -> bool:
        """The log does not hold its rows."""
        return False

    @property
    def shows_key(self) -> bool:
        """Nothing tells."""
        return False

    def snapshot(self, view: ReadView, *, last_rows: int | None = None, control: Control | None = None) -> pa.Table:
        """See LiveQuery; what it gives is what the client has from now on."""
        rows = self._remember(view, control)
        seqs = pa.chunked_array([pa.repeat(pa.scalar(view.seq, pa.int64()), rows.num_rows)], pa.int64())
        columns = [*rows.columns[: len(self._shown)], seqs]
        table = pa.table(columns, names=[column.name for column in self.columns])
        return table if last_rows is None else table.slice(max(0, table.num_rows - last_rows))

    def delta(self, commit: ChangeSet, rows: ChangedRows | None, *, blocking: bool = False) -> LiveDelta | None:
        """See LiveQuery. Blocks."""
        if not commit.objects:
            return None
        with self._lock:
            if commit.last_seq <= self._seq:
                return None
        with storage_errors(), self.services.engine.snapshot(purpose="live query") as view:
            with self._lock:
                known, seq = self._known, self._seq
            self._remember(view)
        changes = self._changes(known, seq, max(commit.last_seq, view.seq))
        return LiveDelta(commit.last_seq, changes.changes) if changes.changes else None

    def _remember(self, view: ReadView, control: Control | None = None) -> pa.Table:
        """Read the answer at a view and keep it."""
        control = control or Control(self.services.limits.statement_timeout)
        run = Execution(view, self.identity, control, self.params, self.now_us)
        limit = self.services.pool.options.memory_bytes
        rows = run_query(self._plan, run, self.services.runtime, max_bytes=limit)
        columns = [stored_values(one_array(column)) for column in rows.columns]
        width = len(self._shown)
        known: dict[Hashable, Values] = {}
        for row in zip(*columns, strict=True):
            known[row[width:] if self._keys else repr(row)] = row
        with self._lock:
            self._known, self._seq = known, view.seq
        return rows

    def _changes(self, before: Mapping[Hashable, Values], before_seq: int, seq: int) -> Messages:
        messages = Messages()
        after = self._known
        for key, row in after.items():
            old = before.get(key)
            if old is None:
                messages.add(ChangeType.INSERT, seq, self._row(row, seq), None)
            elif any(map(differs, old, row)):
                messages.add(ChangeType.UPDATE, seq, self._row(row, seq), self._old(old, before_seq, row))
        for key, row in before.items():
            if key not in after:
                messages.add(ChangeType.DELETE, seq, None, self._old(row, before_seq, None))
        return messages

    def _row(self, row: Values, seq: int) -> WireRow:
        shown: WireRow = {
            column.name: value if render is None or value is None else render(value)
            for column, render, value in zip(self._shown, self._renders, row, strict=False)
        }
        shown[SEQ] = seq
        return shown

    def _old(self, old: Values, seq: int, new: Sequence[object] | None) -> WireRow:
        """Of a row that changed the key and what changed, of one that went everything."""
        whole = self._row(old, seq)
        keys = {name for name, _ in self._keys}
        row: WireRow = {}
        for place, column in enumerate(self._shown):
            if new is None or column.name in keys or differs(old[place], new[place]):
                row[column.name] = whole[column.name]
        for place, (name, is_shown) in enumerate(self._keys):
            if not is_shown:
                value = old[len(self._shown) + place]
                render = renderer(self._key_columns[place], self.services.bigint)
                row[name] = value if render is None or value is None else render(value)
        row[SEQ] = whole[SEQ]
        return row
