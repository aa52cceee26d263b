"""information_schema: constraints of the tables that the caller may read, and the columns that they use.

PRIMARY KEY constraints have no name of their own; they are called `<table>_pkey`. That of a STREAM table is declared
and not enforced. There are no foreign keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import sqlglot
from sqlglot import exp

from sql.information_listing import NO, YES, tables_of, texts, yes_or_no
from sql.session_functions import CATALOG_NAME
from sql.system_tables import INFORMATION_SCHEMA, Rows, Sought, SystemContext, SystemTable, by_rows
from storage.catalog import TableDef
from storage.views import ReadView

PRIMARY_KEY = "PRIMARY KEY"
UNIQUE = "UNIQUE"
CHECK = "CHECK"

_TABLE_CONSTRAINTS_COLUMNS = texts(
    "constraint_catalog constraint_schema constraint_name table_catalog table_schema table_name constraint_type "
    "is_deferrable initially_deferred enforced nulls_distinct",
    always="constraint_catalog constraint_schema constraint_name table_catalog table_schema table_name "
    "constraint_type is_deferrable initially_deferred enforced",
)
_KEY_COLUMN_USAGE_COLUMNS = texts(
    "constraint_catalog constraint_schema constraint_name table_catalog table_schema table_name column_name "
    "ordinal_position position_in_unique_constraint",
    always="constraint_catalog constraint_schema constraint_name table_catalog table_schema table_name column_name "
    "ordinal_position",
    numbers="ordinal_position position_in_unique_constraint",
)
_COLUMN_USAGE_COLUMNS = texts(
    "table_catalog table_schema table_name column_name constraint_catalog constraint_schema constraint_name",
    always="table_catalog table_schema table_name column_name constraint_catalog constraint_schema constraint_name",
)
_TABLE_USAGE_COLUMNS = texts(
    "table_catalog table_schema table_name constraint_catalog constraint_schema constraint_name",
    always="table_catalog table_schema table_name constraint_catalog constraint_schema constraint_name",
)
_CHECK_COLUMNS = texts(
    "constraint_catalog constraint_schema constraint_name check_clause",
    always="constraint_catalog constraint_schema constraint_name check_clause",
)
_REFERENTIAL_COLUMNS = texts(
    "constraint_catalog constraint_schema constraint_name unique_constraint_catalog unique_constraint_schema "
    "unique_constraint_name match_option update_rule delete_rule",
    always="constraint_catalog constraint_schema constraint_name match_option update_rule delete_rule",
)


class _Constraint(NamedTuple):
    """A constraint; `columns` in key order, for CHECK empty; `clause` is that of CHECK."""

    table: TableDef
    name: str
    kind: str
    columns: tuple[str, ...] = ()
    clause: str = ""


def primary_key_name(table: TableDef) -> str:
    """What the PRIMARY KEY constraint of a table is called."""
    return f"{table.name}_pkey"


def _constraints(view: ReadView, context: SystemContext, sought: Sought) -> Iterator[_Constraint]:
    for table in tables_of(view, context, sought):
        if table.shown_key:
            names = tuple(table.by_id[column_id].name for column_id in table.shown_key)
            yield _Constraint(table, primary_key_name(table), PRIMARY_KEY, names)
        for unique in table.uniques:
            yield _Constraint(table, unique.name, UNIQUE, tuple(c.name for c in table.unique_columns(unique)))
        for check in table.checks:
            yield _Constraint(table, check.name, CHECK, clause=check.expression)


def _table_constraint_rows(view: ReadView, context: SystemContext, sought: Sought) -> Rows:
    for item in _constraints(view, context, sought):
        space, name = item.table.namespace, item.table.name
        enforced = yes_or_no(item.kind != PRIMARY_KEY or bool(item.table.primary_key))
        distinct = YES if item.kind == UNIQUE else None
        yield (
            CATALOG_NAME, space, item.name, CATALOG_NAME, space, name, item.kind, NO, NO, enforced, distinct,
        )  # fmt: skip


def _key_column_rows(view: ReadView, context: SystemContext, sought: Sought) -> Rows:
    for item in _constraints(view, context, sought):
        space, name = item.table.namespace, item.table.name
        for place, column in enumerate(item.columns, start=1):
            yield CATALOG_NAME, space, item.name, CATALOG_NAME, space, name, column, place, None


def _column_usage_rows(view: ReadView, context: SystemContext, sought: Sought) -> Rows:
    for item in _constraints(view, context, sought):
        space, name = item.table.namespace, item.table.name
        columns = item.columns or _columns_of(item)
        for column in columns:
            yield CATALOG_NAME, space, name, column, CATALOG_NAME, space, item.name


def _columns_of(item: _Constraint) -> tuple[str, ...]:
    """The columns that a CHECK names, in the table's order."""
    clause = sqlglot.parse_one(item.clause, dialect="duckdb")
    mentioned = {column.name.lower() for column in clause.find_all(exp.Column)}
    return tuple(column.name for column in item.table.columns if column.name in mentioned)


def _table_usage_rows(view: ReadView, context: SystemContext, sought: Sought) -> Rows:
    for item in _constraints(view, context, sought):
        yield CATALOG_NAME, item.table.namespace, item.table.name, CATALOG_NAME, item.table.namespace, item.name


def _check_rows(view: ReadView, context: SystemContext, sought: Sought) -> Rows:
    for item in _constraints(view, context, sought):
        if item.kind == CHECK:
            yield CATALOG_NAME, item.table.namespace, item.name, item.clause


def _nothing(view: ReadView, context: SystemContext, sought: Sought) -> Rows:
    return ()


_OF_TABLES = ("table_schema", "table_name")
_OF_SCHEMAS = ("constraint_schema",)

CONSTRAINT_TABLES = tuple(
    SystemTable(INFORMATION_SCHEMA, name, columns, admin_only=False, fill=by_rows(columns, rows), seek=seek)
    for name, columns, rows, seek in (
        ("table_constraints", _TABLE_CONSTRAINTS_COLUMNS, _table_constraint_rows, _OF_TABLES),
        ("key_column_usage", _KEY_COLUMN_USAGE_COLUMNS, _key_column_rows, _OF_TABLES),
        ("constraint_column_usage", _COLUMN_USAGE_COLUMNS, _column_usage_rows, _OF_TABLES),
        ("constraint_table_usage", _TABLE_USAGE_COLUMNS, _table_usage_rows, _OF_TABLES),
        ("check_constraints", _CHECK_COLUMNS, _check_rows, _OF_SCHEMAS),
        ("referential_constraints", _REFERENTIAL_COLUMNS, _nothing, _OF_SCHEMAS),
    )
)
