"""Names to tables, whether the caller may read them, and which rows of them: the one place that decides it.

- A USER or STREAM table is read in the caller's own partition, whatever his role. Every role may.
- A SHARED table by its access level.
- `system.*` only dba and system; `information_schema.*` everyone (its rows show only what he may read).

A caller may know of every USER and STREAM table and of the SHARED tables that he may read. Others exist for him only as
"permission denied" when he names one exactly, never as a suggestion.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from sql.errors import PermissionDenied, TableNotFound
from sql.identity import Identity, Role, may_execute_as, may_read_shared
from sql.system_tables import SYSTEM, SYSTEM_NAMESPACES, SystemTable, SystemTables
from storage.catalog import USER_KIND, Catalog, TableDef, UserDef
from storage.views import ReadView

SHARED_PARTITION = ""


def may_read(role: Role, table: TableDef) -> bool:
    """Whether a role may read a table (its own rows of it, for a USER or STREAM table)."""
    return table.per_user or may_read_shared(role, table.access_level)


def partition_of(table: TableDef, identity: Identity) -> str:
    """The partition that a caller reads and writes: his own of a USER or STREAM table, the only one of a SHARED one."""
    return identity.user if table.per_user else SHARED_PARTITION


def may_impersonate(caller: Identity, user: str, view: ReadView) -> bool:
    """Whether a caller may act as a user, whose account need not exist: what EXECUTE AS USER asks."""
    account = view.get_object(USER_KIND, user, UserDef)
    role = Role.USER if account is None or account.deleted_at is not None else Role(account.role)
    return may_execute_as(caller, user, role)


def readable_tables(role: Role, catalog: Catalog) -> list[TableDef]:
    """The tables that a role may know of, by full name."""
    return [table for table in catalog.tables() if may_read(role, table)]


def resolve_table(
    catalog: Catalog,
    system: SystemTables,
    role: Role,
    namespace: str,
    name: str,
    *,
    line: int | None = None,
    column: int | None = None,
) -> TableDef | SystemTable:
    """The table of that name if the role may read it; raises TableNotFound or PermissionDenied."""
    full_name = f"{namespace}.{name}"
    if namespace in SYSTEM_NAMESPACES:
        provider = system.get(namespace, name)
        if namespace == SYSTEM and not role.is_admin:
            raise PermissionDenied(
                f"Permission denied: system tables are readable with role dba or system, not {role.value}",
                line=line,
                column=column,
            )
        if provider is not None:
            return provider
        known = [t.full_name for t in system if t.namespace == namespace]
        raise TableNotFound(_missing(full_name, known), line=line, column=column)
    table = catalog.table(namespace, name)
    if table is None:
        from sql.views.reading import readable_views  # it asks this module about tables

        known = [t.full_name for t in readable_tables(role, catalog)]
        known += [v.full_name for v in readable_views(role, catalog)]
        raise TableNotFound(_missing(full_name, known), line=line, column=column)
    if not may_read(role, table):
        raise PermissionDenied(
            f"Permission denied: role {role.value} may not read table '{full_name}' "
            f"(access level {table.access_level.value})",
            line=line,
            column=column,
        )
    return table


def _missing(full_name: str, known: Iterable[str]) -> str:
    near = nearest(full_name, known)
    return f"Table not found: '{full_name}'" + (f". Did you mean '{near}'?" if near else "")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The most similar of the known names, if one is similar at all."""
    matches = difflib.get_close_matches(name, [other for other in known if other != name], n=1, cutoff=0.7)
    return matches[0] if matches else None
