"""information_schema: schemata, tables and columns, of the tables that the caller may read."""

from __future__ import annotations

from collections.abc import Iterator

from sql.duck_types import duck_name
from sql.identity import Role
from sql.rights import readable_tables
from sql.system_tables import (
    INFORMATION_SCHEMA,
    SYSTEM,
    Rows,
    SystemColumn,
    SystemContext,
    SystemTable,
    SystemTables,
)
from storage.types import INT, TEXT, ColumnType, Kind
from storage.views import ReadView

CATALOG_NAME = "kalam"

_SCHEMATA_COLUMNS = (
    SystemColumn("catalog_name", TEXT, nullable=False),
    SystemColumn("schema_name", TEXT, nullable=False),
    SystemColumn("schema_owner", TEXT),
    SystemColumn("default_character_set_catalog", TEXT),
    SystemColumn("default_character_set_schema", TEXT),
    SystemColumn("default_character_set_name", TEXT),
    SystemColumn("sql_path", TEXT),
)
_TABLES_COLUMNS = tuple(
    SystemColumn(name, TEXT, nullable=False) for name in ("table_catalog", "table_schema", "table_name", "table_type")
)
_COLUMNS_COLUMNS = (
    SystemColumn("table_catalog", TEXT, nullable=False),
    SystemColumn("table_schema", TEXT, nullable=False),
    SystemColumn("table_name", TEXT, nullable=False),
    SystemColumn("column_name", TEXT, nullable=False),
    SystemColumn("ordinal_position", INT, nullable=False),
    SystemColumn("column_default", TEXT),
    SystemColumn("is_nullable", TEXT, nullable=False),
    SystemColumn("data_type", TEXT, nullable=False),
    SystemColumn("character_maximum_length", INT),
    SystemColumn("character_octet_length", INT),
    SystemColumn("numeric_precision", INT),
    SystemColumn("numeric_precision_radix", INT),
    SystemColumn("numeric_scale", INT),
    SystemColumn("datetime_precision", INT),
    SystemColumn("interval_type", TEXT),
)
_NUMERIC = {
    Kind.SMALLINT: (16, 2, 0),
    Kind.INT: (32, 2, 0),
    Kind.BIGINT: (64, 2, 0),
    Kind.FLOAT: (24, 2, None),
    Kind.DOUBLE: (53, 2, None),
}
_TEMPORAL = frozenset((Kind.TIMESTAMP, Kind.DATETIME, Kind.TIME))


def _system_tables(role: Role) -> Iterator[SystemTable]:
    from sql.system_tables import default_registry

    registry: SystemTables = default_registry()
    return (table for table in registry if role.is_admin or table.namespace != SYSTEM)


def _schemata_rows(view: ReadView, context: SystemContext) -> Rows:
    names = {namespace.name for namespace in view.catalog.namespaces()}
    names |= {table.namespace for table in _system_tables(context.identity.role)}
    return [(CATALOG_NAME, name, None, None, None, None, None) for name in sorted(names)]


def _tables_rows(view: ReadView, context: SystemContext) -> Rows:
    role = context.identity.role
    rows = [(CATALOG_NAME, t.namespace, t.name, "BASE TABLE") for t in readable_tables(role, view.catalog)]
    rows += [(CATALOG_NAME, t.namespace, t.name, "VIEW") for t in _system_tables(role)]
    return sorted(rows)


def _columns_rows(view: ReadView, context: SystemContext) -> Rows:
    role = context.identity.role
    for table in readable_tables(role, view.catalog):
        for place, column in enumerate(table.columns, start=1):
            nullable = column.nullable and column.column_id not in table.shown_key
            yield _column(table.namespace, table.name, place, column.name, column.type, column.default, nullable)
    for system in _system_tables(role):
        for place, shown in enumerate(system.columns, start=1):
            yield _column(system.namespace, system.name, place, shown.name, shown.type, None, shown.nullable)


def _column(
    namespace: str, table: str, place: int, name: str, kind: ColumnType, default: str | None, nullable: bool
) -> tuple[object, ...]:
    precision, radix, scale = _NUMERIC.get(kind.kind, (None, None, None))
    if kind.kind is Kind.DECIMAL:
        precision, radix, scale = kind.precision, 10, kind.scale
    return (
        CATALOG_NAME, namespace, table, name, place, default, "YES" if nullable else "NO", _type_name(kind), None, None,
        precision, radix, scale, 6 if kind.kind in _TEMPORAL else None, None,
    )  # fmt: skip


def _type_name(kind: ColumnType) -> str:
    if kind.kind in {Kind.TEXT, Kind.JSON, Kind.FILE, Kind.EMBEDDING, Kind.BYTES, Kind.DATETIME}:
        return str(kind)
    return duck_name(kind)


INFORMATION_SCHEMA_TABLES = (
    SystemTable(INFORMATION_SCHEMA, "schemata", _SCHEMATA_COLUMNS, _schemata_rows, admin_only=False),
    SystemTable(INFORMATION_SCHEMA, "tables", _TABLES_COLUMNS, _tables_rows, admin_only=False),
    SystemTable(INFORMATION_SCHEMA, "columns", _COLUMNS_COLUMNS, _columns_rows, admin_only=False),
)
