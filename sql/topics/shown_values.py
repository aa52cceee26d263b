"""Values of columns as keys and payloads of messages show them: those of SQL rows, whatever they are.

NaN and the infinities, which SQL rows refuse (`sql.wire`), are strings here: a message that cannot be shown would hold
up its consumers for ever, and a key that has no text would keep its row from being written.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from sql.errors import ExecutionError
from sql.wire import BigintMode, to_wire, wire_values
from storage.catalog import ColumnDef
from storage.types import FLOAT, Kind


def shown_values(values: pa.Array, column: ColumnDef, bigint: BigintMode) -> list[object]:
    """The JSON values of a column."""
    try:
        return wire_values(values, column.type, bigint, column.name)
    except ExecutionError:
        return [_shown(value, column, bigint) for value in values.to_pylist()]


def _shown(value: object, column: ColumnDef, bigint: BigintMode) -> object:
    """A value of a floating-point column, whatever it is."""
    if column.type.kind is Kind.EMBEDDING and isinstance(value, list):
        return [_shown_number(number, column, bigint) for number in value]
    return _shown_number(value, column, bigint)


def _shown_number(value: object, column: ColumnDef, bigint: BigintMode) -> object:
    if isinstance(value, float) and not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    kind = column.type if column.type.kind is not Kind.EMBEDDING else FLOAT
    return to_wire(value, kind, bigint, column.name)
