"""DuckDB's result columns as storage Arrow types (see `sql.duck_types` for what becomes what)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sql.errors import ExecutionError
from sql.results import ResultColumn
from storage.types import arrow_type


def result_schema(columns: Sequence[ResultColumn]) -> pa.Schema:
    """The schema of a result; names may repeat."""
    return pa.schema([pa.field(column.name, arrow_type(column.type)) for column in columns])


def result_batch(batch: pa.RecordBatch, columns: Sequence[ResultColumn], schema: pa.Schema) -> pa.RecordBatch:
    """One batch with the types of the schema; owns its memory as DuckDB's batches do."""
    arrays = [
        stored(array, field.type, column.name)
        for array, field, column in zip(batch.columns, schema, columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def stored(array: pa.Array, target: pa.DataType, name: str) -> pa.Array:
    """An array of DuckDB's as an array of a storage type."""
    if isinstance(array, pa.ExtensionArray):
        opaque = getattr(array.type, "type_name", "")
        array = _huge_integers(array.storage, name) if opaque == "hugeint" else array.storage
    if array.type == target:
        return array
    if pa.types.is_fixed_size_list(target) and pa.types.is_fixed_size_list(array.type):
        return pa.Array.from_buffers(target, len(array), array.buffers()[:1], offset=array.offset, children=[
            array.values
        ]) if array.type.value_type == target.value_type else array.cast(target)  # fmt: skip
    try:
        return array.cast(target, safe=not pa.types.is_timestamp(target))
    except pa.ArrowInvalid as error:
        raise ExecutionError(f"Out of range: column '{name}' has a value that does not fit: {error}") from None


def _huge_integers(storage: pa.Array, name: str) -> pa.Array:
    """128-bit integers (little-endian) as 64-bit ones, or an error when one does not fit."""
    valid = storage.is_valid().to_numpy(zero_copy_only=False)
    raw = np.frombuffer(storage.buffers()[1], dtype="<i8")
    halves = raw[2 * storage.offset : 2 * (storage.offset + len(storage))].reshape(-1, 2)
    low, high = halves[:, 0], halves[:, 1]
    if bool((valid & (high != low >> 63)).any()):
        raise ExecutionError(f"Out of range: column '{name}' has a value that does not fit BIGINT.")
    return pa.array(low, pa.int64(), mask=~valid)
