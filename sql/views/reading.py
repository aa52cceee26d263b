"""What views read, through other views too; and who may know of a view: whoever may read all that it reads."""

from __future__ import annotations

from collections.abc import Iterator

from sql.identity import Role
from sql.rights import may_read
from sql.system_tables import SYSTEM
from storage.catalog import Catalog, TableDef
from storage.view_definitions import ViewDef


def tables_of(view: ViewDef, catalog: Catalog) -> Iterator[TableDef]:
    """The tables that a view reads, directly or through others; those that are gone are left out."""
    for name in names_of(view, catalog):
        table = catalog.table(*name)
        if table is not None:
            yield table


def names_of(view: ViewDef, catalog: Catalog) -> set[tuple[str, str]]:
    """The names of all tables and views that a view reads, directly or through others."""
    found: set[tuple[str, str]] = set()
    waiting = list(view.reads)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            inner = catalog.view(*name)
            waiting += inner.reads if inner is not None else ()
    return found


def views_over(namespace: str, name: str, catalog: Catalog) -> list[ViewDef]:
    """The views that read a table or view, directly or through others, by full name."""
    return [view for view in catalog.views() if (namespace, name) in names_of(view, catalog)]


def may_know(role: Role, view: ViewDef, catalog: Catalog) -> bool:
    """Whether a role may know of a view."""
    if role.is_admin:
        return True
    names = names_of(view, catalog)
    return all(namespace != SYSTEM for namespace, _ in names) and all(
        may_read(role, table) for table in tables_of(view, catalog)
    )


def readable_views(role: Role, catalog: Catalog) -> list[ViewDef]:
    """The views that a role may know of, by full name."""
    return [view for view in catalog.views() if may_know(role, view, catalog)]
