"""SHOW and DESCRIBE: definitions that the caller may know, as rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from sql.errors import InvalidSql, PermissionDenied
from sql.identity import Identity
from sql.results import ResultColumn, StatementResult
from sql.rights import partition_of, readable_tables, resolve_table
from sql.statements import Describe, Show
from sql.system_catalog import (
    NAMESPACE_COLUMNS,
    SCHEMA_COLUMNS,
    data_type,
    namespace_rows,
    schema_row,
    schema_versions,
    view_row,
)
from sql.system_tables import SystemColumn, SystemContext, SystemTable, SystemTables
from sql.table_name import TableName
from sql.views.reading import may_know, readable_views
from storage.catalog import TableDef
from storage.cold_segments import SegmentStatus
from storage.types import BIGINT, BOOLEAN, INT, TEXT, arrow_type
from storage.view_definitions import ViewDef
from storage.views import ReadView

if TYPE_CHECKING:
    from sql.live.subscription import Subscription as Followed


class Caller(Protocol):
    """Who asks, and which namespace unqualified names mean."""

    @property
    def identity(self) -> Identity:
        """The caller, or the target of EXECUTE AS USER."""
        ...

    @property
    def namespace(self) -> str:
        """The namespace of the request."""
        ...


DESCRIBE_COLUMNS = (
    SystemColumn("column_name", TEXT, nullable=False),
    SystemColumn("ordinal_position", INT, nullable=False),
    SystemColumn("column_id", BIGINT, nullable=False),
    SystemColumn("data_type", TEXT, nullable=False),
    SystemColumn("is_nullable", BOOLEAN, nullable=False),
    SystemColumn("is_primary_key", BOOLEAN, nullable=False),
    SystemColumn("column_default", TEXT),
    SystemColumn("column_comment", TEXT),
    SystemColumn("schema_version", INT, nullable=False),
)
STATS_COLUMNS = (
    SystemColumn("table_name", TEXT, nullable=False),
    SystemColumn("namespace", TEXT, nullable=False),
    SystemColumn("schema_version", INT, nullable=False),
    SystemColumn("logical_rows", BIGINT, nullable=False),
    SystemColumn("flushed_segments", BIGINT, nullable=False),
    SystemColumn("active_streams", BIGINT, nullable=False),
    SystemColumn("memory_bytes", BIGINT, nullable=False),
)


def show(
    statement: Show,
    view: ReadView,
    caller: Caller,
    system: SystemTables,
    live: Callable[[], Sequence[Followed]] = tuple,
) -> StatementResult:
    """SHOW NAMESPACES | TABLES | COLUMNS FROM t | STATS FOR TABLE t."""
    match statement.what:
        case "namespaces":
            return result_of(NAMESPACE_COLUMNS, _namespaces(view, caller))
        case "tables":
            return result_of(SCHEMA_COLUMNS, _tables(statement.namespace, view, caller))
        case "columns" if statement.table is not None:
            return describe(Describe(statement.table), view, caller, system)
        case "stats" if statement.table is not None:
            return _stats(statement.table, view, caller, system, live)
        case _:
            raise InvalidSql(f"SHOW {statement.what.upper()} is not known.")


def describe(statement: Describe, view: ReadView, caller: Caller, system: SystemTables) -> StatementResult:
    """DESCRIBE TABLE: the user columns; with HISTORY those of every schema version, the first one first."""
    rows: list[tuple[object, ...]] = []
    found = _view(statement.table, view, caller)
    if found is not None:
        for place, part in enumerate(found.columns, start=1):
            rows.append((part.name, place, place, data_type(part.type), True, False, None, None, 1))
        return result_of(DESCRIBE_COLUMNS, rows)
    table = _table(statement.table, view, caller, system)
    if isinstance(table, SystemTable):
        for place, shown in enumerate(table.columns, start=1):
            kind = data_type(shown.type)
            rows.append((shown.name, place, place, kind, shown.nullable, shown.name in table.key, None, None, 1))
        return result_of(DESCRIBE_COLUMNS, rows)
    for version, latest in schema_versions(table):
        if not (latest or statement.history):
            continue
        for place, column in enumerate(version.columns, start=1):
            is_key = column.column_id in table.shown_key
            rows.append((
                column.name, place, column.column_id, data_type(column.type), column.nullable and not is_key, is_key,
                column.default, column.comment, version.version,
            ))  # fmt: skip
    return result_of(DESCRIBE_COLUMNS, rows)


def _namespaces(view: ReadView, caller: Caller) -> Iterable[Sequence[object]]:
    """All namespaces; tables are counted that the caller may know of."""
    if caller.identity.role.is_admin:
        yield from namespace_rows(view, SystemContext(caller.identity))
        return
    known: dict[str, int] = {}
    for table in readable_tables(caller.identity.role, view.catalog):
        known[table.namespace] = known.get(table.namespace, 0) + 1
    for row in namespace_rows(view, SystemContext(caller.identity)):
        yield (*row[:-1], known.get(str(row[0]), 0))


def _tables(namespace: str | None, view: ReadView, caller: Caller) -> Iterable[Sequence[object]]:
    for table in readable_tables(caller.identity.role, view.catalog):
        if namespace is None or table.namespace == namespace:
            for version, latest in schema_versions(table):
                if latest:
                    yield schema_row(table, version, latest=True)
    for found in readable_views(caller.identity.role, view.catalog):
        if namespace is None or found.namespace == namespace:
            yield view_row(found)


def _stats(
    name: TableName,
    view: ReadView,
    caller: Caller,
    system: SystemTables,
    live: Callable[[], Sequence[Followed]],
) -> StatementResult:
    """Of a USER or STREAM table rows and bytes are those of the caller's own partition, and so are live queries."""
    found = _view(name, view, caller)
    if found is not None:
        raise InvalidSql(f"'{found.full_name}' is a view and has no statistics.", line=name.line, column=name.column)
    table = _table(name, view, caller, system)
    if isinstance(table, SystemTable):
        raise InvalidSql(
            f"'{table.full_name}' is a system table and has no statistics.", line=name.line, column=name.column
        )
    partition = partition_of(table, caller.identity)
    rows, size = view.count(table, partition), view.stored_bytes(table, partition)
    streams = sum(
        s.query.table_id == table.table_id and (not table.per_user or s.request.identity.user == caller.identity.user)
        for s in live()
    )
    cold = sum(s.status is SegmentStatus.COMMITTED for s in view.segments(table.table_id, partition))
    row = (table.name, table.namespace, table.schema_version, rows, cold, streams, size)
    return result_of(STATS_COLUMNS, [row])


def _view(name: TableName, view: ReadView, caller: Caller) -> ViewDef | None:
    """The view of that name, if there is one; raises PermissionDenied for one that the caller may not know of."""
    found = view.catalog.view(name.namespace or caller.namespace, name.name)
    role = caller.identity.role
    if found is not None and not may_know(role, found, view.catalog):
        raise PermissionDenied(
            f"Permission denied: role {role.value} may not read all that view '{found.full_name}' reads",
            line=name.line, column=name.column,
        )  # fmt: skip
    return found


def _table(name: TableName, view: ReadView, caller: Caller, system: SystemTables) -> TableDef | SystemTable:
    return resolve_table(
        view.catalog, system, caller.identity.role, name.namespace or caller.namespace, name.name,
        line=name.line, column=name.column,
    )  # fmt: skip


def result_of(columns: Sequence[SystemColumn], rows: Iterable[Sequence[object]]) -> StatementResult:
    """Rows of storage values as a result."""
    found = list(rows)
    arrays = [pa.array([row[i] for row in found], arrow_type(c.type)) for i, c in enumerate(columns)]
    return StatementResult(
        columns=tuple(ResultColumn(c.name, c.type, () if c.nullable else ("nn",)) for c in columns),
        table=pa.table(arrays, names=[c.name for c in columns]),
        row_count=len(found),
    )
