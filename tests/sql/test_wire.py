"""Values on their way out: columns give what single values give, and the text of each type is as specified."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from sql.errors import ExecutionError
from sql.values import from_json
from sql.wire import LARGEST_SAFE, BigintMode, storage_values, to_wire, wire_values
from storage.types import (
    BIGINT,
    BOOLEAN,
    BYTES,
    DATE,
    DATETIME,
    DOUBLE,
    FLOAT,
    INT,
    JSON,
    SMALLINT,
    TEXT,
    TIME,
    TIMESTAMP,
    UUID,
    ColumnType,
    arrow_type,
    decimal,
    embedding,
)

FLOATS32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
STORED: dict[ColumnType, st.SearchStrategy[Any]] = {
    BOOLEAN: st.booleans(),
    SMALLINT: st.integers(-(2**15), 2**15 - 1),
    INT: st.integers(-(2**31), 2**31 - 1),
    BIGINT: st.integers(-(2**63), 2**63 - 1) | st.integers(LARGEST_SAFE - 2, LARGEST_SAFE + 2),
    FLOAT: FLOATS32,
    DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    TEXT: st.text(max_size=10),
    TIMESTAMP: st.integers(-9_223_372_022_400_000_000, 2**63 - 2),
    DATETIME: st.integers(-9_223_372_022_400_000_000, 2**63 - 2),
    DATE: st.integers(-(2**31) + 2, 2**31 - 2),
    TIME: st.integers(0, 86_399_999_999),
    JSON: st.just('{"a":1}'),
    BYTES: st.binary(max_size=5),
    UUID: st.binary(min_size=16, max_size=16),
    decimal(38, 10): st.integers(-(10**38) + 1, 10**38 - 1).map(lambda n: Decimal(f"{n}E-10")),
    decimal(4, 0): st.integers(-9999, 9999).map(Decimal),
    embedding(2): st.lists(FLOATS32, min_size=2, max_size=2),
}


@st.composite
def columns(draw: st.DrawFn) -> tuple[ColumnType, list[Any]]:
    column_type = draw(st.sampled_from(list(STORED)))
    return column_type, draw(st.lists(st.none() | STORED[column_type], max_size=8))


@given(columns(), st.sampled_from(BigintMode), st.integers(0, 2))
def test_columns_give_what_single_values_give(
    case: tuple[ColumnType, list[Any]], mode: BigintMode, skipped: int
) -> None:
    column_type, stored = case
    array = pa.array(stored, arrow_type(column_type))
    expected = [to_wire(value, column_type, mode) for value in stored]
    assert wire_values(array, column_type, mode, "c") == expected
    assert storage_values(array, column_type) == stored
    assert wire_values(array.slice(skipped), column_type, mode, "c") == expected[skipped:]
    in_two = pa.chunked_array([array.slice(0, skipped), array.slice(skipped)])
    assert wire_values(in_two, column_type, mode, "c") == expected
    assert storage_values(in_two, column_type) == stored


@given(columns(), st.sampled_from(BigintMode))
def test_what_goes_out_comes_back_in(case: tuple[ColumnType, list[Any]], mode: BigintMode) -> None:
    column_type, stored = case
    for value in stored:
        text = msgspec.json.encode(to_wire(value, column_type, mode))
        assert from_json(msgspec.json.decode(text), column_type, "c") == value


@pytest.mark.parametrize(
    ("mode", "written"),
    [
        (BigintMode.AUTO, [LARGEST_SAFE, -LARGEST_SAFE, str(LARGEST_SAFE + 1), str(-LARGEST_SAFE - 1), None]),
        (BigintMode.NUMBER, [LARGEST_SAFE, -LARGEST_SAFE, LARGEST_SAFE + 1, -LARGEST_SAFE - 1, None]),
        (
            BigintMode.STRING,
            [str(LARGEST_SAFE), str(-LARGEST_SAFE), str(LARGEST_SAFE + 1), str(-LARGEST_SAFE - 1), None],
        ),
    ],
)
def test_bigint_modes(mode: BigintMode, written: list[object]) -> None:
    values: list[int | None] = [LARGEST_SAFE, -LARGEST_SAFE, LARGEST_SAFE + 1, -LARGEST_SAFE - 1, None]
    assert wire_values(pa.array(values), BIGINT, mode, "c") == written
    assert wire_values(pa.array(values * 20), BIGINT, mode, "c") == written * 20
    assert wire_values(pa.array([1, None] * 50), BIGINT, BigintMode.AUTO, "c") == [1, None] * 50


def test_texts() -> None:
    assert to_wire(Decimal("0E-10"), decimal(38, 10)) == "0.0000000000"
    assert wire_values(pa.array([Decimal("0E-10")]), decimal(38, 10), BigintMode.AUTO, "c") == ["0.0000000000"]
    assert to_wire(bytes(range(16)), UUID) == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert to_wire(b"\x00\xff", BYTES) == [0, 255]
    assert to_wire(float(np.float32(0.1)), FLOAT) == 0.1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_carry_is_refused(bad: float) -> None:
    for column_type in (FLOAT, DOUBLE):
        with pytest.raises(ExecutionError, match=r"column 'c' .* NaN"):
            wire_values(pa.array([1.0, bad], arrow_type(column_type)), column_type, BigintMode.AUTO, "c")
        with pytest.raises(ExecutionError, match=r"column 'c' .* NaN"):
            to_wire(bad, column_type, BigintMode.AUTO, "c")
    with pytest.raises(ExecutionError, match=r"column 'c' .* NaN"):
        wire_values(pa.array([[1.0, bad]], pa.list_(pa.float32(), 2)), embedding(2), BigintMode.AUTO, "c")
