"""Columns at once are what the converter makes of each value, or are left to it."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sql.errors import SqlError
from sql.value_columns import column_of
from sql.values import converter
from storage.types import BIGINT, BOOLEAN, DATE, DOUBLE, FLOAT, INT, SMALLINT, TEXT, TIMESTAMP, ColumnType, arrow_type

TYPES = [BIGINT, INT, SMALLINT, DOUBLE, FLOAT, TEXT, BOOLEAN, TIMESTAMP, DATE]
texts = st.one_of(
    st.text(max_size=5),
    st.text(alphabet="\ud800\udfffab", max_size=3),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.datetimes().map(lambda moment: moment.isoformat(" ")),
    st.dates().map(lambda day: day.isoformat()),
    st.from_regex(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,7})?\Z"),
    st.from_regex(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}\Z"),
)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-100, 100),
    st.floats(),
    st.decimals(allow_nan=False, allow_infinity=False),
    texts,
)
columns = st.one_of(
    st.lists(values, max_size=4),
    st.lists(st.one_of(st.none(), st.integers(-(2**64), 2**64)), max_size=4),
    st.lists(st.one_of(st.none(), texts), max_size=3),
    st.lists(st.one_of(st.floats(), st.integers(-(2**60), 2**60)), max_size=4),
    st.lists(st.decimals(allow_nan=False, allow_infinity=False), max_size=3),
)


def one_by_one(found: list[object], column_type: ColumnType) -> pa.Array | None:
    convert = converter(column_type, "c")
    try:
        return pa.array([convert(value) for value in found], arrow_type(column_type))
    except SqlError:
        return None


@pytest.mark.parametrize("column_type", TYPES, ids=str)
@given(found=columns)
def test_at_once_is_as_one_by_one(column_type: ColumnType, found: list[object]) -> None:
    column = column_of(found, column_type)
    if column is not None:
        expected = one_by_one(found, column_type)
        assert expected is not None, found
        assert column.type == expected.type
        assert column.equals(expected), found


@pytest.mark.parametrize(
    ("column_type", "found"),
    [
        (BIGINT, [1, None, -(2**63)]),
        (DOUBLE, [1, 2.5, None]),
        (DOUBLE, [Decimal("1.25"), 3]),
        (TEXT, ["a", "漢", None]),
        (TIMESTAMP, ["2026-01-01T00:00:00", "1969-12-31 23:59:59.999999"]),
        (TIMESTAMP, [0, -1]),
        (DATE, ["2026-01-01", None]),
        (BOOLEAN, [True, False]),
    ],
)
def test_everyday_columns_are_made_at_once(column_type: ColumnType, found: list[object]) -> None:
    column = column_of(found, column_type)
    assert column is not None
    assert column.equals(one_by_one(found, column_type))
