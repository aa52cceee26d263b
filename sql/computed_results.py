"""Results whose rows a statement computes itself, such as those of SHOW STORAGES."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from sql.results import ResultColumn, StatementResult
from sql.system_tables import SystemColumn
from storage.types import arrow_type


def result_of(columns: Sequence[SystemColumn], rows: Iterable[Sequence[object]]) -> StatementResult:
    """A result of storage values in the order of the columns."""
    found = list(rows)
    arrays = [pa.array([row[i] for row in found], arrow_type(c.type)) for i, c in enumerate(columns)]
    return StatementResult(
        columns=tuple(ResultColumn(c.name, c.type, () if c.nullable else ("nn",)) for c in columns),
        table=pa.table(arrays, names=[c.name for c in columns]),
        row_count=len(found),
    )
