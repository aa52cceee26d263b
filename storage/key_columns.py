"""Keys of whole columns: the encoding of `storage.keys`, byte for byte, vectorised over Arrow arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage.key_encoding import MAX_KEY, NOT_NULL_MARK, NULL_MARK, check_key_types, cut
from storage.types import ColumnType, Kind

Column: TypeAlias = pa.Array | pa.ChunkedArray
Matrix = npt.NDArray[np.uint8]
"""One row of bytes for each value of a fixed-width column."""

_SIGN64 = np.uint64(1 << 63)
_TERMINATOR = pa.scalar(b"\x00", pa.binary())
_NOTHING = pa.scalar(b"", pa.binary())


def encode_columns(types: Sequence[ColumnType], arrays: Sequence[Column]) -> list[bytes]:
    """The keys of all rows: one array for each type, in key order, with the Arrow types of `arrow_type`.

    Gives what `encode_key` gives row by row. Raises ValueError for a NULL (names the column's position from 1),
    for NaN or infinities, and for arrays of unequal length.
    """
    check_key_types(types)
    if len(types) != len(arrays) or len({len(array) for array in arrays}) != 1:
        raise ValueError("a key needs one array of the same length for each of its columns")
    for position, array in enumerate(arrays, 1):
        if array.null_count:
            raise ValueError(f"column {position} of the key holds NULL")
    if not any(isinstance(array, pa.ChunkedArray) for array in arrays):
        return _encode(types, arrays)
    keys: list[bytes] = []
    for batch in pa.table(list(arrays), names=[str(i) for i in range(len(arrays))]).to_batches():
        keys += _encode(types, batch.columns)
    return keys


def _encode(types: Sequence[ColumnType], arrays: Sequence[pa.Array]) -> list[bytes]:
    if not len(arrays[0]):
        return []
    if all(t.kind not in _VARIABLE for t in types):
        parts = [_matrix(t, array) for t, array in zip(types, arrays, strict=True)]
        return _rows(parts[0] if len(parts) == 1 else np.hstack(parts))
    columns: list[Any] = []
    for column_type, array in zip(types, arrays, strict=True):
        if column_type.kind in _VARIABLE:
            columns += [_escaped(array), _TERMINATOR]
        else:
            columns.append(_as_binary(_matrix(column_type, array)))
    joined = pc.binary_join_element_wise(*columns, _NOTHING)
    keys: list[bytes] = joined.to_pylist()
    if pc.max(pc.binary_length(joined)).as_py() >= MAX_KEY:
        return [cut(key) for key in keys]
    return keys


def encode_marked_columns(types: Sequence[ColumnType], arrays: Sequence[pa.Array]) -> list[bytes]:
    """The keys of all rows in a secondary index, as `marked_encoder` makes them; NULL is a value like others.

    Raises ValueError for NaN or infinities.
    """
    check_key_types(types)
    if not len(arrays[0]):
        return []
    fixed = all(t.kind not in _VARIABLE for t in types)
    if fixed and not any(array.null_count for array in arrays):
        mark = np.ones((len(arrays[0]), 1), dtype=np.uint8)
        parts = [part for t, array in zip(types, arrays, strict=True) for part in (mark, _matrix(t, array))]
        return _rows(np.hstack(parts))
    columns: list[Any] = []
    for column_type, array in zip(types, arrays, strict=True):
        columns += _marked_column(column_type, array)
    joined = pc.binary_join_element_wise(*columns, _NOTHING)
    keys: list[bytes] = joined.to_pylist()
    if pc.max(pc.binary_length(joined)).as_py() >= MAX_KEY:
        return [cut(key) for key in keys]
    return keys


def _marked_column(column_type: ColumnType, array: pa.Array) -> list[Any]:
    """The pieces that stand for one column in each key."""
    if array.null_count == len(array):
        return [pa.repeat(_NULL_MARK, len(array))]
    values = array.drop_null() if array.null_count else array
    if column_type.kind in _VARIABLE:
        pieces = [_NOT_NULL_MARK, _escaped(values), _TERMINATOR]
    else:
        pieces = [_NOT_NULL_MARK, _as_binary(_matrix(column_type, values))]
    if not array.null_count:
        return pieces
    present = pc.binary_join_element_wise(*pieces, _NOTHING)
    return [pc.replace_with_mask(pa.repeat(_NULL_MARK, len(array)), array.is_valid(), present)]


_NOT_NULL_MARK = pa.scalar(NOT_NULL_MARK, pa.binary())
_NULL_MARK = pa.scalar(NULL_MARK, pa.binary())
_VARIABLE = (Kind.TEXT, Kind.BYTES)


def _rows(matrix: Matrix) -> list[bytes]:
    """Rows of a byte matrix as bytes objects; `V` keeps trailing zeros, unlike `S`."""
    rows = np.ascontiguousarray(matrix).view(f"V{matrix.shape[1]}").ravel()
    return cast("list[bytes]", rows.tolist())


def _as_binary(matrix: Matrix) -> pa.Array:
    count, width = matrix.shape
    data = pa.py_buffer(np.ascontiguousarray(matrix))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), count, [None, data]).cast(pa.binary())


def _escaped(array: pa.Array) -> pa.Array:
    data = array.cast(pa.binary())
    _, offsets, payload = data.buffers()
    bounds = np.frombuffer(offsets, np.int32)[data.offset : data.offset + len(data) + 1]
    raw = np.frombuffer(payload, np.uint8)[bounds[0] : bounds[-1]] if payload is not None else np.empty(0, np.uint8)
    if raw.size and raw.min() < 2:
        data = pc.replace_substring(data, pattern=b"\x01", replacement=b"\x01\x02")
        data = pc.replace_substring(data, pattern=b"\x00", replacement=b"\x01\x01")
    return data


def _values(array: pa.Array, dtype: npt.DTypeLike, per_row: int = 1) -> npt.NDArray[Any]:
    """The values buffer of an array without NULLs, without copying."""
    values = np.frombuffer(array.buffers()[1], dtype)
    return values[array.offset * per_row : (array.offset + len(array)) * per_row]


def _big_endian(values: npt.NDArray[Any]) -> Matrix:
    return values.astype(">u8").view(np.uint8).reshape(len(values), 8)


def _from_ints(array: pa.Array) -> Matrix:
    width = array.type.bit_width // 8
    values = _values(array, f"<i{width}").astype(np.int64)
    return _big_endian(values.view(np.uint64) ^ _SIGN64)


def _from_floats(array: pa.Array) -> Matrix:
    width = array.type.bit_width // 8
    values = _values(array, f"<f{width}").astype(np.float64) + 0.0
    if not np.isfinite(values).all():
        raise ValueError("NaN and infinities cannot be in a key")
    bits = values.view(np.uint64)
    return _big_endian(np.where(bits & _SIGN64, ~bits, bits ^ _SIGN64))


def _from_bools(array: pa.Array) -> Matrix:
    return cast("Matrix", array.cast(pa.uint8()).to_numpy()).reshape(len(array), 1)


def _from_uuids(array: pa.Array) -> Matrix:
    return _values(array, np.uint8, 16).reshape(len(array), 16)


def _from_decimals(array: pa.Array) -> Matrix:
    halves = _values(array, "<u8", 2).reshape(len(array), 2)
    swapped = np.empty((len(array), 2), ">u8")
    swapped[:, 0] = halves[:, 1] ^ _SIGN64
    swapped[:, 1] = halves[:, 0]
    return swapped.view(np.uint8)


_MATRICES: dict[Kind, Callable[[pa.Array], Matrix]] = {
    Kind.BOOLEAN: _from_bools,
    Kind.FLOAT: _from_floats,
    Kind.DOUBLE: _from_floats,
    Kind.UUID: _from_uuids,
    Kind.DECIMAL: _from_decimals,
}


def _matrix(column_type: ColumnType, array: pa.Array) -> Matrix:
    return _MATRICES.get(column_type.kind, _from_ints)(array)
