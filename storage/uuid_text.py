"""UUID columns as text and back, a column at a time."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_PLACES: Final = np.array([place for place in range(36) if place not in {8, 13, 18, 23}])
_DIGITS: Final = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), np.uint8).reshape(256, 2)
_VALUES: Final = np.zeros(256, np.uint8)
_VALUES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16, dtype=np.uint8)


def uuid_texts(array: pa.Array) -> pa.Array:
    """Hyphenated lower-case texts of 16-byte values, built as one matrix of 36 ASCII characters a row."""
    count = len(array)
    raw = np.frombuffer(array.buffers()[1], np.uint8)[array.offset * 16 :][: count * 16]
    texts = np.full((count, 36), ord("-"), np.uint8)
    texts[:, _PLACES] = _DIGITS[raw].reshape(count, 32)
    offsets = np.arange(count + 1, dtype=np.int32) * 36
    plain = pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(texts))
    return pc.if_else(array.is_valid(), plain, None) if array.null_count else plain


def uuid_bytes(array: pa.Array) -> pa.Array:
    """The 16-byte values of texts that `uuid_texts` made. Raises ValueError for texts of another length."""
    count = len(array)
    filled = pc.fill_null(array, "00000000-0000-0000-0000-000000000000") if array.null_count else array
    _, offsets, texts = filled.buffers()
    ends = np.frombuffer(offsets, np.int32)[filled.offset :][: count + 1]
    if (np.diff(ends) != 36).any():
        raise ValueError("a UUID does not have 36 characters")
    data = np.frombuffer(texts or b"", np.uint8)[ends[0] : ends[-1]] if count else np.empty(0, np.uint8)
    digits = _VALUES[data.reshape(count, 36)[:, _PLACES]].reshape(count, 16, 2)
    values = (digits[:, :, 0] << 4) | digits[:, :, 1]
    plain = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), count, [None, pa.py_buffer(np.ascontiguousarray(values).tobytes())]
    )
    return pc.if_else(array.is_valid(), plain, None) if array.null_count else plain
