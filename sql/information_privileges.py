"""information_schema: what the caller, by their role, may do with tables and columns. Rights are never grantable.

The rules are those of `sql.rights` and `sql.identity`; a USER or STREAM table is everybody's, each for their own rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from sql.information_listing import NO, YES, Listed, listed, repeated, texts
from sql.session_functions import CATALOG_NAME
from sql.system_tables import INFORMATION_SCHEMA, Sought, SystemContext, SystemTable
from storage.views import ReadView

SELECT = "SELECT"
INSERT = "INSERT"
UPDATE = "UPDATE"
DELETE = "DELETE"

_ON_TABLES = (
    "grantor grantee table_catalog table_schema table_name privilege_type is_grantable with_hierarchy",
    "grantee table_catalog table_schema table_name privilege_type is_grantable with_hierarchy",
)
_ON_COLUMNS = (
    "grantor grantee table_catalog table_schema table_name column_name privilege_type is_grantable",
    "grantee table_catalog table_schema table_name column_name privilege_type is_grantable",
)


def privileges(item: Listed) -> tuple[str, ...]:
    """What the caller may do with the rows of a table that they may read."""
    if not item.writable:
        return (SELECT,)
    if item.table is not None and item.table.expires:
        return (DELETE, INSERT, SELECT)
    return (DELETE, INSERT, SELECT, UPDATE)


def _tables(view: ReadView, context: SystemContext, sought: Sought, wanted: frozenset[str]) -> Mapping[str, pa.Array]:
    items = [(item, privileges(item)) for item in listed(view, context, sought)]
    kinds = [kind for _, held in items for kind in held]
    reads = {SELECT: YES, INSERT: NO, UPDATE: NO, DELETE: NO}
    return {
        "grantor": repeated(None, len(kinds)),
        "grantee": repeated(context.identity.user, len(kinds)),
        "table_catalog": repeated(CATALOG_NAME, len(kinds)),
        "table_schema": pa.array([item.namespace for item, held in items for _ in held], pa.string()),
        "table_name": pa.array([item.name for item, held in items for _ in held], pa.string()),
        "privilege_type": pa.array(kinds, pa.string()),
        "is_grantable": repeated(NO, len(kinds)),
        "with_hierarchy": pa.array([reads[kind] for kind in kinds], pa.string()),
    }


def _columns(view: ReadView, context: SystemContext, sought: Sought, wanted: frozenset[str]) -> Mapping[str, pa.Array]:
    """DELETE is of whole rows, so it is none of a column."""
    items = [(item, _of_columns(item)) for item in listed(view, context, sought)]
    rows = sum(len(item.columns) * len(held) for item, held in items)
    filled = {
        "grantor": repeated(None, rows),
        "grantee": repeated(context.identity.user, rows),
        "table_catalog": repeated(CATALOG_NAME, rows),
        "is_grantable": repeated(NO, rows),
    }
    if "table_schema" in wanted:
        filled["table_schema"] = _repeated_for(items, [item.namespace for item, _ in items])
    if "table_name" in wanted:
        filled["table_name"] = _repeated_for(items, [item.name for item, _ in items])
    if "column_name" in wanted:
        names = [column.name for item, held in items for column in item.columns for _ in held]
        filled["column_name"] = pa.array(names, pa.string())
    if "privilege_type" in wanted:
        kinds = [kind for item, held in items for kind in held * len(item.columns)]
        filled["privilege_type"] = pa.array(kinds, pa.string())
    return filled


def _of_columns(item: Listed) -> tuple[str, ...]:
    return tuple(privilege for privilege in privileges(item) if privilege != DELETE)


def _repeated_for(items: list[tuple[Listed, tuple[str, ...]]], values: list[str]) -> pa.Array:
    """The value of each table, once for each privilege of each of its columns."""
    counts = [len(item.columns) * len(held) for item, held in items]
    places = np.repeat(np.arange(len(items)), counts)
    return pa.array(values, pa.string()).take(pa.array(places))


def _role_rows(view: ReadView, context: SystemContext) -> Iterator[tuple[str]]:
    yield (context.identity.role.value,)


def _applicable_rows(view: ReadView, context: SystemContext) -> Iterator[tuple[str, str, str]]:
    yield context.identity.user, context.identity.role.value, NO


_KEY = ("table_schema", "table_name")

PRIVILEGE_TABLES = (
    *(
        SystemTable(
            INFORMATION_SCHEMA, name, texts(_ON_TABLES[0], always=_ON_TABLES[1]), admin_only=False, fill=_tables,
            seek=_KEY,
        )
        for name in ("table_privileges", "role_table_grants")
    ),
    *(
        SystemTable(
            INFORMATION_SCHEMA, name, texts(_ON_COLUMNS[0], always=_ON_COLUMNS[1]), admin_only=False, fill=_columns,
            seek=_KEY,
        )
        for name in ("column_privileges", "role_column_grants")
    ),
    SystemTable(INFORMATION_SCHEMA, "enabled_roles", texts("role_name", always="role_name"), _role_rows,
                admin_only=False),
    SystemTable(INFORMATION_SCHEMA, "applicable_roles", texts("grantee role_name is_grantable",
                always="grantee role_name is_grantable"), _applicable_rows, admin_only=False),
)  # fmt: skip
