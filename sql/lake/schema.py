"""A table's schema and its files' statistics as Delta Lake has them; which files do not fit the schema any more.

Delta Lake has neither TIME nor UUID: both are text, in the files too. A column that was added reads NULL in older
files; Delta Lake knows no other value for them, and few readers know changed types. So a file that lacks a column
whose older rows have a value, or has a column of another type, is rewritten before the table is published (`fits`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from storage.catalog import ColumnDef, TableDef
from storage.cold_segments import ColumnStats, Segment
from storage.layout import layout_of
from storage.physical_names import physical_names, user_column
from storage.types import ColumnType, Kind

MAPPING: Final = "columnMapping"
NTZ: Final = "timestampNtz"
_TYPES: Final = {
    Kind.BOOLEAN: "boolean", Kind.SMALLINT: "short", Kind.INT: "integer", Kind.BIGINT: "long", Kind.FLOAT: "float",
    Kind.DOUBLE: "double", Kind.TEXT: "string", Kind.JSON: "string", Kind.FILE: "string", Kind.UUID: "string",
    Kind.TIME: "string", Kind.BYTES: "binary", Kind.DATE: "date", Kind.TIMESTAMP: "timestamp_ntz",
    Kind.DATETIME: "timestamp",
}  # fmt: skip
_NUMBERS: Final = frozenset({Kind.SMALLINT, Kind.INT, Kind.BIGINT, Kind.FLOAT, Kind.DOUBLE, Kind.DECIMAL})
_UNSUITABLE: Final = re.compile(r"[ ,;{}()\n\t=]")
"""What Delta Lake refuses in names without column mapping."""
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  of both kinds
_SEQ: Final = "_seq"
_FIRST_ID: Final = 1_000_000_001


def delta_type(column: ColumnType) -> str | dict[str, object]:
    """The name, or the object, of a type."""
    if column.kind is Kind.DECIMAL:
        return f"decimal({column.precision},{column.scale})"
    if column.kind is Kind.EMBEDDING:
        return {"type": "array", "elementType": "float", "containsNull": True}
    return _TYPES[column.kind]


def features_of(table: TableDef) -> frozenset[str]:
    """What readers must know because of the schema."""
    named = physical_names(table)
    mapped = any(named[c.column_id] != c.name or _UNSUITABLE.search(c.name) for c in table.columns)
    zoneless = any(column.type.kind is Kind.TIMESTAMP for column in table.columns)
    return frozenset([MAPPING] * mapped + [NTZ] * zoneless)


def schema_json(table: TableDef, *, mapped: bool, partitioned: bool) -> str:
    """The schema: `_seq`, the columns, and where users are partitions whose row it is."""
    named = physical_names(table)
    fields = [_field(_SEQ, "long", _FIRST_ID, _SEQ, None, mapped)]
    fields += [
        _field(c.name, delta_type(c.type), c.column_id, named[c.column_id], c.comment, mapped) for c in table.columns
    ]
    if partitioned:
        user = user_column(table)
        fields.append(_field(user, "string", _FIRST_ID + 2, user, None, mapped))
    return msgspec.json.encode({"type": "struct", "fields": fields}).decode()


def mapping_options() -> dict[str, str]:
    """The table's settings that go with column mapping."""
    return {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": str(_FIRST_ID + 2)}


def _field(
    name: str, kind: object, column_id: int, physical: str, comment: str | None, mapped: bool
) -> dict[str, object]:
    metadata: dict[str, object] = {}
    if comment:
        metadata["comment"] = comment
    if mapped:
        metadata |= {"delta.columnMapping.id": column_id, "delta.columnMapping.physicalName": physical}
    return {"name": name, "type": kind, "nullable": True, "metadata": metadata}


def fits(table: TableDef, version: int) -> bool:
    """Whether files of a schema version read right under the present schema."""
    written = {column.column_id: column for column in layout_of(table).columns_at(version)}
    return all(_fits(written.get(column.column_id), column) for column in table.columns)


def _fits(written: ColumnDef | None, column: ColumnDef) -> bool:
    if written is None:
        return column.initial is None
    return delta_type(written.type) == delta_type(column.type)


def stats_json(table: TableDef, segment: Segment, *, tight: bool) -> str:
    """The statistics of a file; `tight` unless rows of it are dead."""
    named = physical_names(table)
    low: dict[str, object] = {_SEQ: segment.min_seq}
    high: dict[str, object] = {_SEQ: segment.max_seq}
    nulls: dict[str, int] = {_SEQ: 0}
    for column in layout_of(table).columns_at(segment.schema_version):
        stats = segment.column_stats.get(column.column_id)
        if stats is None or column.column_id not in table.by_id:
            continue
        name = named[column.column_id]
        nulls[name] = stats.null_count
        bounds = _bounds(column, stats)
        if bounds is not None:
            low[name], high[name] = bounds
    found: Mapping[str, object] = {
        "numRecords": segment.rows, "minValues": low, "maxValues": high, "nullCount": nulls, "tightBounds": tight,
    }  # fmt: skip
    return msgspec.json.encode(found).decode()


def _bounds(column: ColumnDef, stats: ColumnStats) -> tuple[object, object] | None:
    if not stats.bounded or stats.low is None or stats.high is None:
        return None
    kind = column.type.kind
    if kind in {Kind.BOOLEAN, Kind.BYTES, Kind.UUID, Kind.JSON, Kind.FILE, Kind.EMBEDDING}:
        return None
    try:
        return _value(kind, stats.low), _value(kind, stats.high)
    except OverflowError:
        return None  # a day that the log's form of dates does not reach


def _value(kind: Kind, value: Any) -> object:
    if kind is Kind.DECIMAL:
        return msgspec.Raw(format(Decimal(value), "f").encode())
    if kind in _NUMBERS or kind is Kind.TEXT:
        return value
    if kind is Kind.DATE:
        return (date(1970, 1, 1) + timedelta(days=value)).isoformat()
    if kind is Kind.TIME:
        return time.isoformat((_EPOCH + timedelta(microseconds=value)).time(), "microseconds")
    moment = (_EPOCH + timedelta(microseconds=value)).isoformat(timespec="microseconds")
    return moment + "Z" if kind is Kind.DATETIME else moment
