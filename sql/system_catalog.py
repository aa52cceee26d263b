"""System tables over the catalog: namespaces, tables, columns, schemas, users, datatypes."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from sql.duck_types import duck_name
from sql.system_tables import SYSTEM, Rows, Sought, SystemColumn, SystemContext, SystemTable, by_rows
from storage.catalog import USER_KIND, NamespaceDef, SchemaVersion, TableDef, UserDef
from storage.types import (
    BIGINT,
    BOOLEAN,
    INT,
    JSON,
    TEXT,
    TIMESTAMP,
    ColumnType,
    Kind,
    arrow_type,
    decimal,
    embedding,
)
from storage.view_definitions import ViewDef
from storage.views import ReadView

MASKED = "***"
"""What stands in place of a password hash: nobody reads it over SQL."""

STORAGE_ID = "local"
VIEW = "view"
"""The type of views among tables."""


def table_id(table: TableDef) -> str:
    """A table's id as the wire shows it: `namespace:name`."""
    return f"{table.namespace}:{table.name}"


def options_text(table: TableDef) -> str:
    """The options of a table as JSON text, its kind and access level included."""
    shown: dict[str, object] = {"TABLE_TYPE": table.kind.value, **table.options}
    if not table.per_user:
        shown["ACCESS_LEVEL"] = table.access_level.value
    if table.expires:
        shown["TTL_SECONDS"] = table.ttl_seconds
    return _json(shown)


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()


def data_type(column_type: ColumnType) -> str:
    """A column's type as text: the SQL spelling."""
    return str(column_type)


# namespaces ----------------------------------------------------------------------------------------------------------

NAMESPACE_COLUMNS = (
    SystemColumn("namespace_id", TEXT, nullable=False),
    SystemColumn("name", TEXT, nullable=False),
    SystemColumn("created_at", TIMESTAMP, nullable=False),
    SystemColumn("options", JSON),
    SystemColumn("table_count", INT, nullable=False),
)


def namespace_rows(view: ReadView, context: SystemContext) -> Rows:
    """One row for each namespace, `system` among them: it is as old as the oldest."""
    from sql.system_tables import own_tables

    own = sum(table.namespace == SYSTEM for table in own_tables())
    known = list(view.catalog.namespaces())
    oldest = min((namespace.created_at for namespace in known), default=0)
    for namespace in sorted([*known, NamespaceDef(SYSTEM, oldest)], key=lambda namespace: namespace.name):
        name = namespace.name
        count = own if name == SYSTEM else view.catalog.table_count(name)
        yield name, name, namespace.created_at, _json(namespace.options), count


# tables and schemas --------------------------------------------------------------------------------------------------

TABLE_COLUMNS = (
    SystemColumn("namespace_id", TEXT, nullable=False),
    SystemColumn("table_name", TEXT, nullable=False),
    SystemColumn("table_type", TEXT, nullable=False),
    SystemColumn("storage_id", TEXT),
    SystemColumn("version", INT, nullable=False),
    SystemColumn("options", JSON),
    SystemColumn("comment", TEXT),
    SystemColumn("updated_at", TIMESTAMP, nullable=False),
    SystemColumn("created_at", TIMESTAMP, nullable=False),
)


def table_rows(view: ReadView, context: SystemContext) -> Rows:
    """One row for each table and each view."""
    for table in view.catalog.tables():
        yield (
            table.namespace, table.name, table.kind.value, STORAGE_ID, table.schema_version, options_text(table),
            table.comment, table.updated_at, table.created_at,
        )  # fmt: skip
    for found in view.catalog.views():
        yield found.namespace, found.name, VIEW, None, 1, None, None, found.updated_at, found.created_at


SCHEMA_COLUMNS = (
    SystemColumn("table_id", TEXT, nullable=False),
    SystemColumn("table_name", TEXT, nullable=False),
    SystemColumn("namespace_id", TEXT, nullable=False),
    SystemColumn("table_type", TEXT, nullable=False),
    SystemColumn("created_at", TIMESTAMP, nullable=False),
    SystemColumn("schema_version", INT, nullable=False),
    SystemColumn("columns", JSON, nullable=False),
    SystemColumn("table_comment", TEXT),
    SystemColumn("updated_at", TIMESTAMP, nullable=False),
    SystemColumn("options", JSON),
    SystemColumn("access_level", TEXT),
    SystemColumn("is_latest", BOOLEAN, nullable=False),
    SystemColumn("storage_id", TEXT),
    SystemColumn("use_user_storage", BOOLEAN),
)


def _wire_type(column_type: ColumnType) -> Kind | str | dict[str, object]:
    """What is written as `ColumnType.wire_name`: a kind is its name, without asking the enum for it."""
    kind = column_type.kind
    return column_type.wire_name() if kind is Kind.DECIMAL or kind is Kind.EMBEDDING else kind


class _ShownColumn(msgspec.Struct, gc=False):
    """A column in the JSON of system.schemas, its fields by name."""

    column_comment: str | None
    column_id: int
    column_name: str
    data_type: Kind | str | dict[str, object]
    default_value: str | None
    is_nullable: bool
    is_primary_key: bool
    ordinal_position: int


def schema_row(table: TableDef, version: SchemaVersion, *, latest: bool) -> tuple[object, ...]:
    """The row of one schema version: `created_at` is when the version was made."""
    key = table.shown_key
    columns = [
        _ShownColumn(
            column.comment, column.column_id, column.name, _wire_type(column.type), column.default, column.nullable,
            column.column_id in key, place,
        )
        for place, column in enumerate(version.columns, start=1)
    ]  # fmt: skip
    shared = not table.per_user
    made = version.created_at or table.created_at
    return (
        table_id(table), table.name, table.namespace, table.kind.value, made, version.version,
        _json(columns), table.comment, table.updated_at if latest else made, options_text(table),
        table.access_level.value if shared else None, latest, STORAGE_ID, False,
    )  # fmt: skip


def view_row(view: ViewDef) -> tuple[object, ...]:
    """The row of a view: it has one version, and neither keys nor storage of its own."""
    columns = [
        _ShownColumn(None, place, column.name, _wire_type(column.type), None, True, False, place)
        for place, column in enumerate(view.columns, start=1)
    ]
    return (
        f"{view.namespace}:{view.name}", view.name, view.namespace, VIEW, view.created_at, 1, _json(columns), None,
        view.updated_at, _json({"TABLE_TYPE": VIEW, "DEFINITION": view.sql}), None, True, None, None,
    )  # fmt: skip


def schema_versions(table: TableDef) -> Iterator[tuple[SchemaVersion, bool]]:
    """The schema versions of a table, the first one first, and whether each is the latest."""
    for version in table.history:
        if version.version < table.schema_version:
            yield version, False
    yield SchemaVersion(table.schema_version, table.columns, table.versioned_at), True


def _schema_rows(view: ReadView, context: SystemContext, sought: Sought) -> Rows:
    for table in _tables_sought(view, sought):
        for version, latest in schema_versions(table):
            yield schema_row(table, version, latest=latest)
    for found in view.catalog.views():
        if sought.admits(found.namespace, found.name):
            yield view_row(found)


def _tables_sought(view: ReadView, sought: Sought) -> Iterator[TableDef]:
    """The tables that may be asked for, by namespace and name."""
    match sought.equal:
        case (str(namespace), str(name), *_):
            table = view.catalog.table(namespace, name)
            return iter(() if table is None else (table,))
        case (str(namespace),):
            return view.catalog.tables(namespace)
        case ():
            return view.catalog.tables()
        case _:
            return iter(())  # compared with NULL


# columns -------------------------------------------------------------------------------------------------------------

COLUMN_COLUMNS = (
    SystemColumn("namespace_id", TEXT, nullable=False),
    SystemColumn("table_name", TEXT, nullable=False),
    SystemColumn("version", INT, nullable=False),
    SystemColumn("column_id", BIGINT, nullable=False),
    SystemColumn("column_name", TEXT, nullable=False),
    SystemColumn("comment", TEXT),
    SystemColumn("data_type", TEXT, nullable=False),
    SystemColumn("default_value", TEXT),
    SystemColumn("ordinal", INT, nullable=False),
    SystemColumn("nullable", BOOLEAN, nullable=False),
    SystemColumn("primary_key", BOOLEAN, nullable=False),
    SystemColumn("primary_key_pos", INT),
)


def _column_rows(view: ReadView, context: SystemContext, sought: Sought) -> Rows:
    for table in _tables_sought(view, sought):
        places = {column_id: place for place, column_id in enumerate(table.shown_key, start=1)}
        for ordinal, column in enumerate(table.columns, start=1):
            place = places.get(column.column_id)
            yield (
                table.namespace, table.name, table.schema_version, column.column_id, column.name, column.comment,
                data_type(column.type), column.default, ordinal, column.nullable, place is not None, place,
            )  # fmt: skip
    for found in view.catalog.views():
        if not sought.admits(found.namespace, found.name):
            continue
        for ordinal, shown in enumerate(found.columns, start=1):
            yield (
                found.namespace, found.name, 1, ordinal, shown.name, None, data_type(shown.type), None, ordinal, True,
                False, None,
            )  # fmt: skip


# users ---------------------------------------------------------------------------------------------------------------

_USER_COLUMNS = (
    SystemColumn("user_id", TEXT, nullable=False),
    SystemColumn("password_hash", TEXT),
    SystemColumn("role", TEXT, nullable=False),
    SystemColumn("email", TEXT),
    SystemColumn("auth_type", TEXT, nullable=False),
    SystemColumn("auth_data", JSON),
    SystemColumn("storage_mode", TEXT),
    SystemColumn("storage_id", TEXT),
    SystemColumn("failed_login_attempts", INT, nullable=False),
    SystemColumn("locked_until", TIMESTAMP),
    SystemColumn("last_login_at", TIMESTAMP),
    SystemColumn("created_at", TIMESTAMP, nullable=False),
    SystemColumn("updated_at", TIMESTAMP, nullable=False),
    SystemColumn("last_seen", TIMESTAMP),
    SystemColumn("deleted_at", TIMESTAMP),
)


def _user_rows(view: ReadView, context: SystemContext) -> Rows:
    for user in view.list_objects(USER_KIND, UserDef):
        yield (
            user.user_id, None if user.password_hash is None else MASKED, user.role, user.email, user.auth_type,
            user.auth_data, "table", STORAGE_ID, user.failed_login_attempts, user.locked_until, user.last_login_at,
            user.created_at, user.updated_at, user.last_login_at, user.deleted_at,
        )  # fmt: skip


# datatypes -----------------------------------------------------------------------------------------------------------

_DATATYPE_COLUMNS = tuple(
    SystemColumn(name, TEXT, nullable=False) for name in ("arrow_type", "kalam_type", "sql_name", "description")
)
_DESCRIPTIONS = {
    Kind.BOOLEAN: "True or false",
    Kind.SMALLINT: "Integer of 16 bits",
    Kind.INT: "Integer of 32 bits",
    Kind.BIGINT: "Integer of 64 bits",
    Kind.FLOAT: "Floating point number of 32 bits",
    Kind.DOUBLE: "Floating point number of 64 bits",
    Kind.TEXT: "Unicode text",
    Kind.TIMESTAMP: "Date and time without zone, in microseconds",
    Kind.DATETIME: "Date and time in UTC, in microseconds",
    Kind.DATE: "Date, in days",
    Kind.TIME: "Time of day, in microseconds",
    Kind.JSON: "JSON text",
    Kind.BYTES: "Bytes",
    Kind.UUID: "UUID of 128 bits",
    Kind.DECIMAL: "Exact decimal number with precision and scale",
    Kind.EMBEDDING: "Vector of 32-bit floating point numbers",
    Kind.FILE: "Reference to a stored file",
}


def _datatype_rows(view: ReadView, context: SystemContext) -> Rows:
    examples = {Kind.DECIMAL: decimal(38, 10), Kind.EMBEDDING: embedding(384)}
    for kind in Kind:
        column_type = examples.get(kind) or ColumnType(kind)
        name = str(column_type) if kind in examples else _sql_name(column_type)
        yield str(arrow_type(column_type)), kind.value, name, _DESCRIPTIONS[kind]


def _sql_name(column_type: ColumnType) -> str:
    name = duck_name(column_type)
    return {"VARCHAR": "TEXT", "BLOB": "BYTES", "TIMESTAMPTZ": "DATETIME"}.get(name, str(column_type))


_NAMED = ("namespace_id", "table_name")

CATALOG_TABLES = (
    SystemTable(SYSTEM, "namespaces", NAMESPACE_COLUMNS, namespace_rows, key=("namespace_id",)),
    SystemTable(SYSTEM, "tables", TABLE_COLUMNS, table_rows, key=("namespace_id", "table_name")),
    SystemTable(SYSTEM, "columns", COLUMN_COLUMNS, key=("namespace_id", "table_name", "ordinal"),
                fill=by_rows(COLUMN_COLUMNS, _column_rows), seek=_NAMED),
    SystemTable(SYSTEM, "schemas", SCHEMA_COLUMNS, key=("table_id", "schema_version"),
                fill=by_rows(SCHEMA_COLUMNS, _schema_rows), seek=_NAMED),
    SystemTable(SYSTEM, "users", _USER_COLUMNS, _user_rows, key=("user_id",)),
    SystemTable(SYSTEM, "datatypes", _DATATYPE_COLUMNS, _datatype_rows, key=("kalam_type",)),
)  # fmt: skip
