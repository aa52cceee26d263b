"""Constraint violations in words: NOT NULL, PRIMARY KEY and UNIQUE."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from sql.errors import ExecutionError
from storage.catalog import ColumnDef, TableDef
from storage.errors import DuplicateKey
from storage.types import ColumnType, Kind

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST = 200


def not_null_violation(column: str, row: int) -> ExecutionError:
    """The error for a NULL in row `row` (from 1)."""
    return ExecutionError(
        f"Constraint violation: NOT NULL constraint violation: column '{column}' cannot be NULL (row {row})"
    )


def check_not_null(columns: Iterable[ColumnDef], rows: pa.Table) -> None:
    """Raise for the first NULL in a column that must not have one."""
    for column in columns:
        if column.nullable:
            continue
        data = rows.column(column.name)
        if data.null_count:
            raise not_null_violation(column.name, pc.index(pc.is_null(data), pa.scalar(True)).as_py() + 1)


def duplicate_violation(error: DuplicateKey, table: TableDef) -> ExecutionError:
    """The sentence for a key that would be held twice."""
    types = [table.by_name[name].type for name in error.columns if name in table.by_name]
    shown = ", ".join(value_text(value, column_type) for value, column_type in zip(error.values, types, strict=False))
    names = ", ".join(error.columns)
    what = "Primary key" if error.primary else f"Unique index '{error.index}'" if error.index else "Unique constraint"
    if error.in_batch:
        return ExecutionError(
            f"Constraint violation: {what} violation: value '{shown}' appears multiple times in the insert batch "
            f"for column '{names}'"
        )
    return ExecutionError(f"Constraint violation: {what} violation: value '{shown}' already exists in column '{names}'")


def value_text(value: object, column_type: ColumnType) -> str:
    """A storage value for a message, cut to 200 characters."""
    if value is None:
        return "NULL"
    text = _exact_text(value, column_type.kind)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _exact_text(value: object, kind: Kind) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return str(uuid.UUID(bytes=value)) if kind is Kind.UUID and len(value) == 16 else f"\\x{value[:100].hex()}"
    if isinstance(value, int) and kind in _MOMENTS:
        try:
            return _moment_text(value, kind)
        except OverflowError:
            return str(value)
    return str(value)


_MOMENTS = frozenset({Kind.TIMESTAMP, Kind.DATETIME, Kind.DATE, Kind.TIME})


def _moment_text(value: int, kind: Kind) -> str:
    if kind is Kind.DATE:
        return (_EPOCH + timedelta(days=value)).date().isoformat()
    moment = (_EPOCH + timedelta(microseconds=value)).replace(tzinfo=None)
    return moment.time().isoformat() if kind is Kind.TIME else moment.isoformat(sep=" ")
