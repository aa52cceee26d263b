"""information_schema: schemata, tables, views and columns, of what the caller may read.

Columns are those of PostgreSQL in its order, so that what was written for it finds them; `column_comment` is last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import NamedTuple

import pyarrow as pa

from sql.duck_types import duck_name
from sql.information_listing import (
    BASE_TABLE,
    NO,
    Listed,
    listed,
    namespaces_of,
    repeated,
    texts,
    views_of,
    yes_or_no,
)
from sql.session_functions import CATALOG_NAME
from sql.system_tables import INFORMATION_SCHEMA, Rows, Sought, SystemContext, SystemTable, by_rows
from storage.types import ColumnType, Kind, arrow_type
from storage.views import ReadView

_SCHEMATA_COLUMNS = texts(
    "catalog_name schema_name schema_owner default_character_set_catalog default_character_set_schema "
    "default_character_set_name sql_path",
    always="catalog_name schema_name",
)
_TABLES_COLUMNS = texts(
    "table_catalog table_schema table_name table_type self_referencing_column_name reference_generation "
    "user_defined_type_catalog user_defined_type_schema user_defined_type_name is_insertable_into is_typed "
    "commit_action",
    always="table_catalog table_schema table_name table_type is_insertable_into is_typed",
)
_VIEWS_COLUMNS = texts(
    "table_catalog table_schema table_name view_definition check_option is_updatable is_insertable_into "
    "is_trigger_updatable is_trigger_deletable is_trigger_insertable_into",
    always="table_catalog table_schema table_name check_option is_updatable is_insertable_into",
)
_VIEW_USAGE_COLUMNS = texts(
    "view_catalog view_schema view_name table_catalog table_schema table_name",
    always="view_catalog view_schema view_name table_catalog table_schema table_name",
)
_COLUMNS_COLUMNS = texts(
    "table_catalog table_schema table_name column_name ordinal_position column_default is_nullable data_type "
    "character_maximum_length character_octet_length numeric_precision numeric_precision_radix numeric_scale "
    "datetime_precision interval_type interval_precision character_set_catalog character_set_schema "
    "character_set_name collation_catalog collation_schema collation_name domain_catalog domain_schema domain_name "
    "udt_catalog udt_schema udt_name scope_catalog scope_schema scope_name maximum_cardinality dtd_identifier "
    "is_self_referencing is_identity identity_generation identity_start identity_increment identity_maximum "
    "identity_minimum identity_cycle is_generated generation_expression is_updatable column_comment",
    always="table_catalog table_schema table_name column_name ordinal_position is_nullable data_type udt_catalog "
    "udt_schema udt_name dtd_identifier is_self_referencing is_identity identity_cycle is_generated is_updatable",
    numbers="ordinal_position character_maximum_length character_octet_length numeric_precision "
    "numeric_precision_radix numeric_scale datetime_precision interval_precision maximum_cardinality",
)
_NUMERIC = {
    Kind.SMALLINT: (16, 2, 0),
    Kind.INT: (32, 2, 0),
    Kind.BIGINT: (64, 2, 0),
    Kind.FLOAT: (24, 2, None),
    Kind.DOUBLE: (53, 2, None),
}
_TEMPORAL = frozenset((Kind.TIMESTAMP, Kind.DATETIME, Kind.TIME))
_UDT_NAMES = {
    Kind.BOOLEAN: "bool",
    Kind.SMALLINT: "int2",
    Kind.INT: "int4",
    Kind.BIGINT: "int8",
    Kind.FLOAT: "float4",
    Kind.DOUBLE: "float8",
    Kind.TEXT: "text",
    Kind.TIMESTAMP: "timestamp",
    Kind.DATETIME: "timestamptz",
    Kind.DATE: "date",
    Kind.TIME: "time",
    Kind.JSON: "json",
    Kind.BYTES: "bytea",
    Kind.UUID: "uuid",
    Kind.DECIMAL: "numeric",
    Kind.EMBEDDING: "_float4",
    Kind.FILE: "json",
}
"""What PostgreSQL calls the type that holds the same values."""
_OUR_SPELLING = frozenset((Kind.TEXT, Kind.JSON, Kind.FILE, Kind.EMBEDDING, Kind.BYTES, Kind.DATETIME))


class _Spelled(NamedTuple):
    """A type as the columns of information_schema spell it."""

    name: str
    udt_name: str
    precision: int | None
    radix: int | None
    scale: int | None
    datetime_precision: int | None


def _spelled(kind: ColumnType) -> _Spelled:
    precision, radix, scale = _NUMERIC.get(kind.kind, (None, None, None))
    if kind.kind is Kind.DECIMAL:
        precision, radix, scale = kind.precision, 10, kind.scale
    name = str(kind) if kind.kind in _OUR_SPELLING else duck_name(kind)
    temporal = 6 if kind.kind in _TEMPORAL else 0 if kind.kind is Kind.DATE else None
    return _Spelled(name, _UDT_NAMES[kind.kind], precision, radix, scale, temporal)


def _schemata_rows(view: ReadView, context: SystemContext) -> Rows:
    return [(CATALOG_NAME, name, None, None, None, None, None) for name in namespaces_of(view, context)]


def _tables(view: ReadView, context: SystemContext, sought: Sought, wanted: frozenset[str]) -> Mapping[str, pa.Array]:
    items = list(listed(view, context, sought))
    rows = len(items)
    columns: dict[str, pa.Array] = {name: repeated(None, rows) for name in wanted}
    columns |= {"table_catalog": repeated(CATALOG_NAME, rows), "is_typed": repeated(NO, rows)}
    columns["table_schema"] = pa.array([item.namespace for item in items], pa.string())
    columns["table_name"] = pa.array([item.name for item in items], pa.string())
    columns["table_type"] = pa.array([item.kind for item in items], pa.string())
    columns["is_insertable_into"] = pa.array([yes_or_no(item.writable) for item in items], pa.string())
    return columns


def _view_rows(view: ReadView, context: SystemContext, sought: Sought) -> Rows:
    """Views; those of the server itself have no definition in SQL."""
    for item in listed(view, context, sought):
        if item.kind != BASE_TABLE:
            yield CATALOG_NAME, item.namespace, item.name, item.definition, "NONE", NO, NO, NO, NO, NO


def _view_usage_rows(view: ReadView, context: SystemContext) -> Rows:
    """What views name in their query: tables, and other views."""
    for found in views_of(view, context):
        for namespace, name in sorted(found.reads):
            yield CATALOG_NAME, found.namespace, found.name, CATALOG_NAME, namespace, name


class _Flat:
    """The columns of some tables, one behind the other; their types are spelled when somebody asks."""

    def __init__(self, items: list[Listed]) -> None:
        self.items = items
        self.columns = [column for item in items for column in item.columns]

    @cached_property
    def types(self) -> list[_Spelled]:
        """The spelled type of each column."""
        known: dict[ColumnType, _Spelled] = {}
        return [known.get(c.type) or known.setdefault(c.type, _spelled(c.type)) for c in self.columns]

    @cached_property
    def places(self) -> list[int]:
        """The place of each column in its table, from 1."""
        return [place for item in self.items for place in range(1, len(item.columns) + 1)]

    def of_items(self, values: Iterable[str]) -> pa.Array:
        """A column of values that belong to tables."""
        pairs = zip(values, self.items, strict=True)
        return pa.array([v for value, item in pairs for v in [value] * len(item.columns)], pa.string())


_Read = Callable[[_Flat], pa.Array]


def _constant(value: str) -> _Read:
    return lambda flat: repeated(value, len(flat.columns))


def _number(read: Callable[[_Spelled], int | None]) -> _Read:
    return lambda flat: pa.array([read(kind) for kind in flat.types], pa.int32())


def _joined(read: Callable[[Listed], Iterable[str | None]]) -> _Read:
    return lambda flat: pa.array([value for item in flat.items for value in read(item)], pa.string())


_READERS: dict[str, _Read] = {
    "table_catalog": _constant(CATALOG_NAME),
    "table_schema": lambda flat: flat.of_items(item.namespace for item in flat.items),
    "table_name": lambda flat: flat.of_items(item.name for item in flat.items),
    "column_name": lambda flat: pa.array([column.name for column in flat.columns], pa.string()),
    "ordinal_position": lambda flat: pa.array(flat.places, pa.int32()),
    "column_default": _joined(lambda item: item.defaults()),
    "is_nullable": _joined(lambda item: map(yes_or_no, item.nullable())),
    "data_type": lambda flat: pa.array([kind.name for kind in flat.types], pa.string()),
    "numeric_precision": _number(lambda kind: kind.precision),
    "numeric_precision_radix": _number(lambda kind: kind.radix),
    "numeric_scale": _number(lambda kind: kind.scale),
    "datetime_precision": _number(lambda kind: kind.datetime_precision),
    "udt_catalog": _constant(CATALOG_NAME),
    "udt_schema": _constant("pg_catalog"),
    "udt_name": lambda flat: pa.array([kind.udt_name for kind in flat.types], pa.string()),
    "dtd_identifier": lambda flat: pa.array(list(map(str, flat.places)), pa.string()),
    "is_self_referencing": _constant(NO),
    "is_identity": _constant(NO),
    "identity_cycle": _constant(NO),
    "is_generated": _constant("NEVER"),
    "is_updatable": lambda flat: flat.of_items(yes_or_no(item.writable) for item in flat.items),
    "column_comment": _joined(lambda item: item.comments()),
}
"""How a column of information_schema.columns is filled; those that are not named are NULL."""
_ARROW_TYPES = {column.name: arrow_type(column.type) for column in _COLUMNS_COLUMNS}


def _columns(view: ReadView, context: SystemContext, sought: Sought, wanted: frozenset[str]) -> Mapping[str, pa.Array]:
    flat = _Flat(list(listed(view, context, sought)))
    return {
        name: _READERS[name](flat) if name in _READERS else pa.nulls(len(flat.columns), _ARROW_TYPES[name])
        for name in wanted
    }


_KEY = ("table_schema", "table_name")

RELATION_TABLES = (
    SystemTable(INFORMATION_SCHEMA, "schemata", _SCHEMATA_COLUMNS, _schemata_rows, admin_only=False),
    SystemTable(INFORMATION_SCHEMA, "tables", _TABLES_COLUMNS, admin_only=False, fill=_tables, seek=_KEY),
    SystemTable(
        INFORMATION_SCHEMA,
        "views",
        _VIEWS_COLUMNS,
        admin_only=False,
        fill=by_rows(_VIEWS_COLUMNS, _view_rows),
        seek=_KEY,
    ),
    SystemTable(INFORMATION_SCHEMA, "view_table_usage", _VIEW_USAGE_COLUMNS, _view_usage_rows, admin_only=False),
    SystemTable(INFORMATION_SCHEMA, "columns", _COLUMNS_COLUMNS, admin_only=False, fill=_columns, seek=_KEY),
)
