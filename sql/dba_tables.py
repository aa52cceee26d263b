"""The namespace `dba`: notifications for everyone, and samples of the server's figures for dba and system.

They are ordinary SHARED tables, made when they are missing. Samples are written and pruned by works of the one writer;
where somebody has given `dba.stats` other columns, nothing is written to it.

The id of a sample is its time in milliseconds (13 digits), the node and the metric, with colons between: samples lie in
the order of time, so that pruning reads the beginning of the key index and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import pyarrow as pa

from sql.system_rows import NODE_ID
from storage.catalog import AccessLevel, Catalog, ColumnDef, NamespaceDef, TableDef, TableKind
from storage.keys import encode_prefix
from storage.types import BIGINT, BOOLEAN, DOUBLE, TEXT, TIMESTAMP, ColumnType
from storage.writer import WriteTransaction

DBA: Final = "dba"
NOTIFICATIONS: Final = "notifications"
STATS: Final = "stats"
PRUNED_AT_ONCE: Final = 2_000
"""Samples that one work of the writer deletes."""

_UNITS = {"_seconds": "seconds", "_bytes": "bytes", "_mb": "megabytes", "_percent": "percent"}


def _table(name: str, access: AccessLevel, columns: Sequence[tuple[str, ColumnType, bool, str | None]]) -> TableDef:
    """A definition without id and times; the first column is the key."""
    return TableDef(
        table_id=0,
        namespace=DBA,
        name=name,
        kind=TableKind.SHARED,
        columns=tuple(
            ColumnDef(number, column, kind, nullable, default)
            for number, (column, kind, nullable, default) in enumerate(columns, start=1)
        ),
        primary_key=(1,),
        next_column_id=len(columns) + 1,
        access_level=access,
        owner="root",
    )


NOTIFICATIONS_TABLE = _table(
    NOTIFICATIONS,
    AccessLevel.PUBLIC,
    (
        ("id", TEXT, False, "ULID()"),
        ("user_id", TEXT, True, None),
        ("title", TEXT, False, None),
        ("body", TEXT, True, None),
        ("is_read", BOOLEAN, False, "FALSE"),
        ("created_at", TIMESTAMP, False, "NOW()"),
        ("updated_at", TIMESTAMP, False, "NOW()"),
    ),
)
STATS_TABLE = _table(
    STATS,
    AccessLevel.DBA,
    (
        ("id", TEXT, False, None),
        ("node_id", BIGINT, False, None),
        ("metric_name", TEXT, False, None),
        ("metric_value", DOUBLE, False, None),
        ("metric_unit", TEXT, False, None),
        ("sampled_at", TIMESTAMP, False, None),
    ),
)


class UnusableTable(Exception):
    """`dba.stats` is not there, or has other columns."""


def are_there(catalog: Catalog) -> bool:
    """Whether nothing of the namespace is missing."""
    return all(catalog.table(DBA, name) is not None for name in (NOTIFICATIONS, STATS))


def create_missing(wtxn: WriteTransaction) -> None:
    """Make the namespace and its tables, those that are missing."""
    now = wtxn.now_us()
    if wtxn.catalog.namespace(DBA) is None:
        wtxn.put_namespace(NamespaceDef(DBA, created_at=now))
    for table in (NOTIFICATIONS_TABLE, STATS_TABLE):
        if wtxn.catalog.table(DBA, table.name) is None:
            made = msgspec.structs.replace(
                table, table_id=wtxn.allocate_table_id(), created_at=now, updated_at=now
            )  # fmt: skip
            wtxn.put_table(made)


def unit_of(metric: str) -> str:
    """What the values of a metric count."""
    return next((unit for ending, unit in _UNITS.items() if metric.endswith(ending)), "count")


def samples(figures: Mapping[str, float], now_us: int) -> pa.Table:
    """The rows of one sample, one for each figure."""
    names = sorted(figures)
    milliseconds = now_us // 1000
    columns = [
        pa.array([f"{milliseconds:013d}:{NODE_ID}:{name}" for name in names], pa.string()),
        pa.array([NODE_ID] * len(names), pa.int64()),
        pa.array(names, pa.string()),
        pa.array([float(figures[name]) for name in names], pa.float64()),
        pa.array([unit_of(name) for name in names], pa.string()),
        pa.array([now_us] * len(names), STATS_TABLE.arrow_schema.field("sampled_at").type),
    ]
    return pa.Table.from_arrays(columns, schema=STATS_TABLE.arrow_schema)


def add_samples(wtxn: WriteTransaction, rows: pa.Table) -> None:
    """Write a sample. Raises UnusableTable."""
    wtxn.insert(_stats_table(wtxn.catalog), "", rows)


def prune(wtxn: WriteTransaction, before_us: int) -> int:
    """Delete the oldest samples of before a time, at most PRUNED_AT_ONCE; how many. Raises UnusableTable."""
    table = _stats_table(wtxn.catalog)
    end = encode_prefix([TEXT], [f"{before_us // 1000:013d}"])
    seqs = wtxn.find_range(table, "", None, end, limit=PRUNED_AT_ONCE)
    if seqs:
        wtxn.delete(table, "", seqs)
    return len(seqs)


def _stats_table(catalog: Catalog) -> TableDef:
    table = catalog.table(DBA, STATS)
    if table is None:
        raise UnusableTable("there is no table dba.stats: it is made again when the server starts")
    if table.per_user or table.arrow_schema != STATS_TABLE.arrow_schema or len(table.primary_key) != 1:
        raise UnusableTable("the table dba.stats has other columns than the server writes")
    return table
