"""information_schema: what the caller, by their role, may do with tables and columns. Rights are never grantable.

The rules are those of `sql.rights` and `sql.identity`; a USER or STREAM table is everybody's, each for their own rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from sql.information_listing import NO, YES, Listed, listed, repeated, texts
from sql.session_functions import CATALOG_NAME
from sql.system_tables import EVERYTHING, INFORMATION_SCHEMA, Rows, Sought, SystemContext, SystemTable
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


def _table_rows(view: ReadView, context: SystemContext) -> Rows:
    grantee = context.identity.user
    for item in listed(view, context, EVERYTHING):
        for privilege in privileges(item):
            reads = YES if privilege == SELECT else NO
            yield None, grantee, CATALOG_NAME, item.namespace, item.name, privilege, NO, reads


def _columns(view: ReadView, context: SystemContext, sought: Sought, wanted: frozenset[str]) -> Mapping[str, pa.Array]:
    """DELETE is of whole rows, so it is none of a column."""
    spaces: list[str] = []
    tables: list[str] = []
    columns: list[str] = []
    kinds: list[str] = []
    for item in listed(view, context, sought):
        held = [privilege for privilege in privileges(item) if privilege != DELETE]
        count = len(held) * len(item.columns)
        spaces += [item.namespace] * count
        tables += [item.name] * count
        for column in item.columns:
            columns += [column.name] * len(held)
        kinds += held * len(item.columns)
    rows = len(kinds)
    return {
        "grantor": repeated(None, rows),
        "grantee": repeated(context.identity.user, rows),
        "table_catalog": repeated(CATALOG_NAME, rows),
        "table_schema": pa.array(spaces, pa.string()),
        "table_name": pa.array(tables, pa.string()),
        "column_name": pa.array(columns, pa.string()),
        "privilege_type": pa.array(kinds, pa.string()),
        "is_grantable": repeated(NO, rows),
    }


def _role_rows(view: ReadView, context: SystemContext) -> Iterator[tuple[str]]:
    yield (context.identity.role.value,)


def _applicable_rows(view: ReadView, context: SystemContext) -> Iterator[tuple[str, str, str]]:
    yield context.identity.user, context.identity.role.value, NO


_KEY = ("table_schema", "table_name")

PRIVILEGE_TABLES = (
    *(
        SystemTable(INFORMATION_SCHEMA, name, texts(_ON_TABLES[0], always=_ON_TABLES[1]), _table_rows, admin_only=False)
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
