"""A real engine with what live queries are bound in, and clients that apply what they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sql.binder import BindContext, bind_query
from sql.dialect import parse_batch
from sql.duck import DuckOptions, DuckPool
from sql.functions import FunctionContext
from sql.identity import Identity, Role
from sql.limits import SqlLimits
from sql.live.binding import bind_live
from sql.live.changed_rows import ChangedRows
from sql.live.interface import ChangeType, LiveDelta, LiveQuery, WireRow
from sql.live.wire_rows import table_rows
from sql.parameters import json_kind
from sql.passwords import HashParameters
from sql.query import Execution, QueryRuntime, run_query
from sql.services import Services
from sql.statements import Query
from sql.system_tables import default_registry
from sql.users import PasswordSettings
from sql.workers import Control
from storage import StorageEngine, StorageOptions, WriteTransaction
from storage.catalog import AccessLevel, ColumnDef, NamespaceDef, TableDef, TableKind
from storage.changes import ChangeSet
from storage.types import ColumnType
from storage.views import ReadView

ALICE = Identity("alice", Role.USER)
BOB = Identity("bob", Role.USER)
SERVICE = Identity("svc", Role.SERVICE)
DBA = Identity("dba", Role.DBA)


class World:
    """An engine and its services; commits are read from the feed as they come."""

    def __init__(self, folder: Path) -> None:
        self.engine = StorageEngine.open(folder, StorageOptions(map_start=64 << 20, merge=False))
        functions = FunctionContext()
        self.pool = DuckPool(DuckOptions(memory_bytes=256 << 20, threads=1, connections=1), functions)
        self.services = Services(
            self.engine,
            SqlLimits(),
            self.pool,
            functions,
            default_registry(),
            QueryRuntime(self.pool, functions),
            PasswordSettings(parameters=HashParameters(memory_kib=8, iterations=1)),
        )
        self.commit(lambda writer: writer.put_namespace(NamespaceDef("app")))

    def close(self) -> None:
        self.pool.close()
        self.engine.close()

    def commit(self, work: Callable[[WriteTransaction], Any]) -> Any:
        return self.engine.commit_sync(work)

    def table(
        self,
        name: str,
        columns: Sequence[tuple[str, ColumnType]],
        *,
        key: Sequence[str] = ("id",),
        kind: TableKind = TableKind.USER,
        access: AccessLevel = AccessLevel.PUBLIC,
        table_id: int | None = None,
        ttl_seconds: int = 0,
    ) -> TableDef:
        """A new table, or the next version of one that there is."""
        ids = {column: place for place, (column, _) in enumerate(columns, start=1)}

        def work(writer: WriteTransaction) -> TableDef:
            made = TableDef(
                table_id=table_id or writer.allocate_table_id(),
                namespace="app",
                name=name,
                kind=kind,
                columns=tuple(ColumnDef(ids[c], c, t, nullable=c not in key) for c, t in columns),
                primary_key=tuple(ids[c] for c in key),
                next_column_id=len(ids) + 1,
                access_level=access,
                ttl_seconds=ttl_seconds,
            )
            writer.put_table(made)
            return made

        made: TableDef = self.commit(work)
        return made

    def bind(self, text: str, *params: object, identity: Identity = ALICE) -> LiveQuery:
        with self.engine.snapshot() as view:
            return bind_live(text, params, "app", identity, self.services, view)

    def changes_after(self, position: int) -> list[ChangeSet]:
        return self.engine.feed.after(position, 10_000)

    def deltas(self, query: LiveQuery, position: int) -> list[LiveDelta]:
        """What the commits after a position change in a query's answer."""
        found = []
        for commit in self.changes_after(position):
            for change in commit.tables:
                if change.table.table_id == query.table_id and change.partition == query.partition:
                    delta = query.delta(commit, ChangedRows(change), blocking=True)
                    found += [delta] if delta is not None else []
        return found

    def select(self, text: str, params: Sequence[object], view: ReadView, identity: Identity = ALICE) -> list[WireRow]:
        """The wire rows of an ordinary query, through the ordinary path."""
        [parsed] = parse_batch(text)
        assert isinstance(parsed.statement, Query)
        kinds = tuple(map(json_kind, params))
        context = BindContext(view.catalog, self.services.system, "app", identity.role, self.pool, kinds)
        plan = bind_query(parsed.statement.ast, context)
        result = run_query(plan, Execution(view, identity, Control(20.0), params), self.services.runtime)
        return table_rows(result, plan.columns, self.services.bigint)


@contextmanager
def opened(folder: Path) -> Iterator[World]:
    world = World(folder)
    try:
        yield world
    finally:
        world.close()


class Client:
    """A client's copy of an answer, by `_seq`. It refuses whatever does not follow from what it was told before."""

    def __init__(self, rows: Sequence[WireRow], key: Sequence[str]) -> None:
        self.rows = {row["_seq"]: row for row in rows}
        self.key = key
        self.seq = 0

    def by_key(self) -> dict[tuple[object, ...], WireRow]:
        found = {tuple(row[name] for name in self.key): row for row in self.rows.values()}
        assert len(found) == len(self.rows)
        return found

    def apply(self, delta: LiveDelta) -> None:
        for change in delta.changes:
            assert len(change.seqs) <= 1_000
            assert len(change.rows) == (0 if change.type is ChangeType.DELETE else len(change.seqs))
            assert len(change.old_rows) == (0 if change.type is ChangeType.INSERT else len(change.seqs))
            for place, seq in enumerate(change.seqs):
                assert seq > self.seq
                self.seq = seq
                if change.type is ChangeType.DELETE:
                    self._remove(change.old_rows[place], whole=True)
                elif change.type is ChangeType.UPDATE:
                    self._update(change.rows[place], change.old_rows[place])
                else:
                    self._insert(change.rows[place])
                if change.rows:
                    assert change.rows[place]["_seq"] == seq
        assert delta.seq >= self.seq

    def _insert(self, row: WireRow) -> None:
        assert row["_seq"] not in self.rows
        self.rows[row["_seq"]] = row

    def _remove(self, old: WireRow, *, whole: bool) -> WireRow:
        known = self.rows.pop(old["_seq"])
        shown = {name: value for name, value in old.items() if name in known}
        assert shown == (known if whole else {name: known[name] for name in shown})
        return known

    def _update(self, row: WireRow, old: WireRow) -> None:
        known = self._remove(old, whole=False)
        changed = {name for name in row if row[name] != known[name]}
        assert changed <= old.keys()
        assert {name for name in old if name in row} <= changed | set(self.key)
        self._insert(row)
