"""The table that a statement writes, and whether the caller may: the write side of `sql.rights`.

A USER table is written in the caller's own partition, whatever his role; a SHARED table as its access level says;
system tables never.
"""

from __future__ import annotations

from typing import TypeVar

from sqlglot import exp

from sql.errors import InvalidSql, PermissionDenied, SqlError
from sql.identity import Role, may_write_shared
from sql.rights import resolve_table
from sql.scope import position
from sql.system_tables import SYSTEM_NAMESPACES, SystemTables
from storage.catalog import Catalog, TableDef, TableKind

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
    line, column = position(node)
    table = resolve_table(catalog, system, role, written, node.name, line=line, column=column)
    assert isinstance(table, TableDef)
    if table.kind is TableKind.SHARED and not may_write_shared(role, table.access_level):
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


def located(kind: type[ErrorT], message: str, node: exp.Expr) -> ErrorT:
    """An error that points at a node."""
    line, column = position(node)
    return kind(message, line=line, column=column)
