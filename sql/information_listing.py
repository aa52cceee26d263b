"""What information_schema lists for a caller: tables, views and system tables that they may know of, with columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from sql.identity import Role, may_write_shared
from sql.rights import may_read, readable_tables
from sql.system_tables import SYSTEM, Sought, SystemColumn, SystemContext, SystemTable, own_tables
from sql.views.reading import readable_views
from storage.catalog import ColumnDef, TableDef
from storage.types import INT, TEXT
from storage.view_definitions import ViewColumn, ViewDef
from storage.views import ReadView

BASE_TABLE = "BASE TABLE"
VIEW = "VIEW"
YES = "YES"
NO = "NO"


class Listed(NamedTuple):
    """A table or view that the caller may read; `table` is None for what is no stored table."""

    namespace: str
    name: str
    kind: str
    columns: Sequence[ColumnDef | ViewColumn | SystemColumn]
    writable: bool
    table: TableDef | None = None
    definition: str | None = None

    def nullable(self) -> list[bool]:
        """Whether each column may be NULL; columns of a key may not, declared or enforced."""
        if self.table is None:
            return [getattr(column, "nullable", True) for column in self.columns]
        key = self.table.shown_key
        return [column.nullable and column.column_id not in key for column in self.table.columns]

    def defaults(self) -> list[str | None]:
        """The DEFAULT of each column."""
        return [c.default for c in self.table.columns] if self.table is not None else [None] * len(self.columns)

    def comments(self) -> list[str | None]:
        """The comment of each column."""
        return [c.comment for c in self.table.columns] if self.table is not None else [None] * len(self.columns)


def yes_or_no(flag: bool) -> str:
    """A truth value as the standard spells it."""
    return YES if flag else NO


def may_write(role: Role, table: TableDef) -> bool:
    """Whether a role may insert rows into a table (of its own, for a USER or STREAM table)."""
    return table.per_user or may_write_shared(role, table.access_level)


def listed(view: ReadView, context: SystemContext, sought: Sought) -> Iterator[Listed]:
    """Everything that the caller may read, by namespace and name; `sought` begins with those two."""
    role = context.identity.role
    stored = (_stored(table, role) for table in tables_of(view, context, sought))
    defined = (_defined(found) for found in views_of(view, context) if sought.admits(found.namespace, found.name))
    computed = (_computed(t) for t in _system_tables(role) if sought.admits(t.namespace, t.name))
    return iter(sorted((*stored, *defined, *computed), key=lambda item: (item.namespace, item.name)))


def tables_of(view: ReadView, context: SystemContext, sought: Sought) -> Iterable[TableDef]:
    """The stored tables that the caller may read, by full name; `sought` begins with namespace and name."""
    role, catalog = context.identity.role, view.catalog
    match sought.equal:
        case (str(namespace), str(name), *_):
            table = catalog.table(namespace, name)
            return [table] if table is not None and may_read(role, table) else []
        case (str(namespace),):
            return [table for table in catalog.tables(namespace) if may_read(role, table)]
        case ():
            return readable_tables(role, catalog)
        case _:
            return []  # compared with NULL


def views_of(view: ReadView, context: SystemContext) -> list[ViewDef]:
    """The views that the caller may know of, by full name."""
    return readable_views(context.identity.role, view.catalog)


def namespaces_of(view: ReadView, context: SystemContext) -> list[str]:
    """All namespaces, and those of system tables that the caller may read."""
    names = {namespace.name for namespace in view.catalog.namespaces()}
    return sorted(names | {table.namespace for table in _system_tables(context.identity.role)})


def _system_tables(role: Role) -> Iterator[SystemTable]:
    return (table for table in own_tables() if role.is_admin or table.namespace != SYSTEM)


def _stored(table: TableDef, role: Role) -> Listed:
    return Listed(table.namespace, table.name, BASE_TABLE, table.columns, may_write(role, table), table)


def _defined(view: ViewDef) -> Listed:
    return Listed(view.namespace, view.name, VIEW, view.columns, writable=False, definition=view.sql)


def _computed(table: SystemTable) -> Listed:
    return Listed(table.namespace, table.name, VIEW, table.columns, writable=False)


# columns of information_schema's own tables --------------------------------------------------------------------------


def texts(names: str, *, always: str = "", numbers: str = "") -> tuple[SystemColumn, ...]:
    """Columns by name, TEXT but for `numbers` (INT); nullable but for `always`."""
    never_null, whole = frozenset(always.split()), frozenset(numbers.split())
    return tuple(SystemColumn(n, INT if n in whole else TEXT, nullable=n not in never_null) for n in names.split())


def repeated(value: str | None, rows: int) -> pa.Array:
    """A column of one value."""
    return pa.nulls(rows, pa.string()) if value is None else pa.repeat(pa.scalar(value, pa.string()), rows)
