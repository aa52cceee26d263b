"""The table that a statement writes, and whether the caller may: the write side of `sql.rights`.

A USER or STREAM table is written in the caller's own partition, whatever his role; a SHARED table as its access level
says; system tables never.
"""

from __future__ import annotations

from typing import TypeVar

from sqlglot import exp

from sql.errors import InvalidSql, PermissionDenied, SqlError, Unsupported
from sql.identity import Role, may_write_shared
from sql.rights import resolve_table
from sql.scope import position
from sql.system_tables import SYSTEM_NAMESPACES, SystemTables
from sql.views.reading import tables_of
from storage.catalog import Catalog, TableDef

ErrorT = TypeVar("ErrorT", bound=SqlError)


def resolve_target(
    node: exp.Expr, catalog: Catalog, system: SystemTables, role: Role, namespace: str, verb: str
) -> TableDef:
    """The table that `node` names; `verb` is insert, update or delete. Raises TableNotFound or PermissionDenied."""
    if not isinstance(node, exp.Table) or not isinstance(node.this, exp.Identifier):
        raise located(InvalidSql, f"{verb.upper()} needs the name of a table", node)
    written = node.db or namespace
    if written in SYSTEM_NAMESPACES:
        raise located(PermissionDenied, f"Permission denied: Cannot {verb} system table '{written}.{node.name}'", node)
    if catalog.view(written, node.name) is not None:
        raise located(
            Unsupported,
            f"Cannot {verb} rows of view '{written}.{node.name}': views are read only. Write to the table itself.",
            node,
        )
    line, column = position(node)
    table = resolve_table(catalog, system, role, written, node.name, line=line, column=column)
    assert isinstance(table, TableDef)
    if not table.per_user and not may_write_shared(role, table.access_level):
        raise located(
            PermissionDenied,
            f"Permission denied: role {role.value} may not write SHARED table '{table.full_name}' "
            f"(access level {table.access_level.value})",
            node,
        )
    return table


def named_table(ast: exp.Insert | exp.Update | exp.Delete, catalog: Catalog, namespace: str) -> TableDef | None:
    """The table that a statement means to write, whoever asks; None if there is no such table."""
    target = ast.this
    node = target.this if isinstance(target, exp.Schema) else target
    return catalog.table(node.db or namespace, node.name) if isinstance(node, exp.Table) else None


def refuse_streams(ast: exp.Expr, catalog: Catalog, namespace: str) -> None:
    """Raise Unsupported when a statement inside BEGIN … COMMIT names a STREAM table, to read or to write it."""
    local = {cte.alias for cte in ast.find_all(exp.CTE)}
    for node in ast.find_all(exp.Table):
        if not node.db and node.name in local:
            continue
        name = (node.db or namespace, node.name)
        view, table = catalog.view(*name), catalog.table(*name)
        for read in (table,) if view is None else tables_of(view, catalog):
            if read is not None and read.expires:
                raise located(
                    Unsupported,
                    f"STREAM tables cannot be used inside BEGIN … COMMIT (table '{read.full_name}'); run the "
                    "statement outside of it.",
                    node,
                )


def located(kind: type[ErrorT], message: str, node: exp.Expr) -> ErrorT:
    """An error that points at a node."""
    line, column = position(node)
    return kind(message, line=line, column=column)
