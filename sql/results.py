"""What a statement answers: columns, rows as an Arrow table, counts and messages."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from storage.types import ColumnType


@dataclass(frozen=True, slots=True)
class ResultColumn:
    """One result column; `flags` is a subset of ("pk", "nn", "uq"), in that order."""

    name: str
    type: ColumnType
    flags: tuple[str, ...] = ()


@dataclass(slots=True)
class StatementResult:
    """The result of one statement.

    Row results have `columns` and `table`, whose columns stand in the same order and have the storage
    Arrow types of `columns` (`storage.types.arrow_type`); names in `table` are not significant (they may
    repeat). `table` owns its memory: it never points into an LMDB snapshot.
    Commands have `message` and, for DML, `row_count` (rows affected).
    """

    columns: tuple[ResultColumn, ...] = ()
    table: pa.Table | None = None
    row_count: int = 0
    message: str | None = None
    as_user: str = ""
    rows: list[list[object]] | None = field(default=None)
    """Rows already in wire values, in place of `table` (the point-read fast path)."""
    schema_json: bytes | None = field(default=None)
    """The `schema` array of `columns` as JSON, when it was made before."""
