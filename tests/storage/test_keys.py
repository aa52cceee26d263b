"""The encoding of keys: byte order is value order, vectorised equals scalar, nothing collides."""

from __future__ import annotations

import contextlib
import string
import struct
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given

from storage import keys
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
    KEY_KINDS,
    SMALLINT,
    TEXT,
    TIME,
    TIMESTAMP,
    UUID,
    ColumnType,
    arrow_type,
    decimal,
)


def signed(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    limit = 10**precision - 1
    return st.integers(-limit, limit).map(lambda unscaled: Decimal(f"{unscaled}E-{scale}"))


TRICKY_TEXT = st.text(
    st.one_of(st.sampled_from("\x00\x01\x02ab\x7f\u00e9\uffff\U0001f600"), st.characters(codec="utf-8")), max_size=8
)
TRICKY_BYTES = st.lists(st.sampled_from([0, 1, 2, 97, 254, 255]), max_size=8).map(bytes)

STRATEGIES: dict[ColumnType, st.SearchStrategy[Any]] = {
    BOOLEAN: st.booleans(),
    SMALLINT: signed(16),
    INT: signed(32),
    BIGINT: signed(64),
    FLOAT: st.floats(width=32, allow_nan=False, allow_infinity=False),
    DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    TEXT: TRICKY_TEXT,
    TIMESTAMP: signed(64),
    DATETIME: signed(64),
    DATE: signed(32),
    TIME: st.integers(0, 86_400_000_000 - 1),
    BYTES: TRICKY_BYTES,
    UUID: st.binary(min_size=16, max_size=16),
    decimal(38, 10): decimals(38, 10),
    decimal(5, 0): decimals(5, 0),
}
TYPES = list(STRATEGIES)


def order(values: Sequence[Any]) -> tuple[Any, ...]:
    """Something that Python compares as SQL compares the values."""
    return tuple(v.encode() if isinstance(v, str) else v for v in values)


@st.composite
def key_rows(draw: st.DrawFn, max_columns: int = 3) -> tuple[tuple[ColumnType, ...], list[tuple[Any, ...]]]:
    types = tuple(draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=max_columns)))
    # A small pool for each column makes rows share their leading columns.
    pools = [draw(st.lists(STRATEGIES[t], min_size=1, max_size=4)) for t in types]
    rows = draw(st.lists(st.tuples(*map(st.sampled_from, pools)), min_size=2, max_size=12))
    return types, rows


def test_every_key_kind_is_covered() -> None:
    assert {t.kind for t in TYPES} == KEY_KINDS


@given(key_rows())
def test_byte_order_is_value_order(case: tuple[tuple[ColumnType, ...], list[tuple[Any, ...]]]) -> None:
    types, rows = case
    encoded = [keys.encode_key(types, row) for row in rows]
    for i, left in enumerate(rows):
        for j, right in enumerate(rows[:i]):
            assert (encoded[i] < encoded[j]) == (order(left) < order(right))
            assert (encoded[i] == encoded[j]) == (order(left) == order(right))


@given(key_rows())
def test_columns_encode_like_rows(case: tuple[tuple[ColumnType, ...], list[tuple[Any, ...]]]) -> None:
    types, rows = case
    arrays = [pa.array([row[i] for row in rows], arrow_type(t)) for i, t in enumerate(types)]
    expected = [keys.encode_key(types, row) for row in rows]
    assert keys.encode_columns(types, arrays) == expected
    assert keys.encode_columns(types, [a.slice(1) for a in arrays]) == expected[1:]
    cut_in_two = [pa.chunked_array([a.slice(0, 1), a.slice(1)]) for a in arrays]
    assert keys.encode_columns(types, cut_in_two) == expected


@given(key_rows())
def test_keys_read_back(case: tuple[tuple[ColumnType, ...], list[tuple[Any, ...]]]) -> None:
    types, rows = case
    for row in rows:
        assert keys.decode_key(types, keys.encode_key(types, row)) == row


@given(key_rows())
def test_leading_columns_give_a_prefix_that_bounds_the_range(
    case: tuple[tuple[ColumnType, ...], list[tuple[Any, ...]]],
) -> None:
    types, rows = case
    prefix = keys.encode_prefix(types[:1], rows[0][:1])
    end = keys.prefix_end(prefix)
    for row in rows:
        key = keys.encode_key(types, row)
        inside = prefix <= key and (end is None or key < end)
        assert inside == key.startswith(prefix) == (order(row[:1]) == order(rows[0][:1]))


def test_prefix_end() -> None:
    assert keys.prefix_end(b"a") == b"b"
    assert keys.prefix_end(b"a\xff\xff") == b"b"
    assert keys.prefix_end(b"\xff") is None
    assert keys.prefix_end(b"") is None
    assert keys.encode_prefix((), ()) == b""


def test_minus_zero_is_zero() -> None:
    for column_type in (FLOAT, DOUBLE):
        assert keys.encode_key([column_type], [-0.0]) == keys.encode_key([column_type], [0.0])
        array = pa.array([-0.0, 0.0], arrow_type(column_type))
        assert len(set(keys.encode_columns([column_type], [array]))) == 1


def test_widening_a_column_keeps_its_keys() -> None:
    assert keys.encode_key([SMALLINT], [-7]) == keys.encode_key([BIGINT], [-7])
    assert keys.encode_key([FLOAT], [1.5]) == keys.encode_key([DOUBLE], [1.5])
    assert keys.encode_key([decimal(5, 2)], [Decimal("1.25")]) == keys.encode_key([decimal(38, 2)], [Decimal("1.25")])


def test_a_float_key_has_the_precision_of_its_column() -> None:
    stored = struct.unpack("f", struct.pack("f", 0.1))[0]
    assert keys.encode_key([FLOAT], [0.1]) == keys.encode_key([FLOAT], [stored])


def test_a_decimal_key_ignores_how_many_zeros_were_written() -> None:
    assert keys.encode_key([decimal(9, 3)], [Decimal("1.5")]) == keys.encode_key([decimal(9, 3)], [Decimal("1.500")])
    assert keys.encode_key([decimal(9, 3)], [Decimal(100)]) == keys.encode_key([decimal(9, 3)], [Decimal("1E+2")])


@pytest.mark.parametrize("column_type", TYPES, ids=str)
def test_null_is_refused(column_type: ColumnType) -> None:
    with pytest.raises(ValueError, match="NULL"):
        keys.encode_key([column_type], [None])
    with pytest.raises(ValueError, match="NULL"):
        keys.encode_key([INT, column_type], [1, None])
    with pytest.raises(ValueError, match="column 1 of the key holds NULL"):
        keys.encode_columns([column_type], [pa.nulls(1, arrow_type(column_type))])


@pytest.mark.parametrize(
    ("column_type", "value"),
    [
        (BIGINT, 2**63),
        (BIGINT, "1"),
        (BIGINT, 1.5),
        (DOUBLE, float("nan")),
        (DOUBLE, float("-inf")),
        (FLOAT, 1e300),
        (TEXT, b"x"),
        (TEXT, "\ud800"),
        (BYTES, "x"),
        (UUID, b"short"),
        (decimal(5, 2), Decimal("1.005")),
        (decimal(5, 2), Decimal("NaN")),
    ],
)
def test_a_value_outside_its_type_is_refused(column_type: ColumnType, value: object) -> None:
    with pytest.raises(ValueError, match="not a key value of"):
        keys.encode_key([column_type], [value])


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="cannot be in a key"):
        keys.encode_key([JSON], ["{}"])
    with pytest.raises(ValueError, match="at least one"):
        keys.encode_key([], [])
    with pytest.raises(ValueError, match="1 values"):
        keys.encode_key([INT, INT], [1])
    with pytest.raises(ValueError, match="same length"):
        keys.encode_columns([INT, INT], [pa.array([1], pa.int32()), pa.array([1, 2], pa.int32())])
    with pytest.raises(ValueError, match="NaN"):
        keys.encode_columns([DOUBLE], [pa.array([float("nan")])])
    assert keys.encode_columns([INT, TEXT], [pa.array([], pa.int32()), pa.array([], pa.string())]) == []


LONG = st.integers(360, 420).flatmap(lambda n: st.sampled_from("a\x01\u00e9").map(lambda c: c * n))


@given(st.lists(st.tuples(LONG, TRICKY_TEXT), min_size=2, max_size=8))
def test_long_keys_are_cut_distinct_and_ordered_by_what_is_kept(rows: list[tuple[str, str]]) -> None:
    types = (TEXT, TEXT)
    encoded = [keys.encode_key(types, row) for row in rows]
    assert keys.encode_columns(types, [pa.array(column) for column in zip(*rows, strict=True)]) == encoded
    assert len(set(encoded)) == len(set(rows))
    for row, key in zip(rows, encoded, strict=True):
        assert len(key) <= keys.MAX_KEY
        assert keys.decode_key(types, key) == (None if keys.is_cut(key) else row)
        assert key.startswith(keys.encode_prefix(types, row)) or not keys.is_cut(key)
        for other_row, other in zip(rows, encoded, strict=True):
            if key[: keys.CUT_LENGTH] != other[: keys.CUT_LENGTH]:
                assert (key < other) == (order(row) < order(other_row))


def test_where_the_cut_begins() -> None:
    whole, too_long = "x" * (keys.MAX_KEY - 2), "x" * (keys.MAX_KEY - 1)
    assert keys.decode_key([TEXT], keys.encode_key([TEXT], [whole])) == (whole,)
    assert keys.is_cut(keys.encode_key([TEXT], [too_long]))


USERS = st.one_of(
    TRICKY_TEXT,
    st.integers(60, 100).flatmap(lambda n: st.sampled_from(["u", "\x00", "\u00e9", "u\x01"]).map(lambda c: c * n)),
    st.text(string.ascii_lowercase, max_size=3).map(lambda end: "v" * 80 + end * 8),
)


@given(st.lists(USERS, min_size=2, max_size=8, unique=True))
def test_no_partition_is_a_prefix_of_another(users: list[str]) -> None:
    partitions = [keys.partition_key(user) for user in users]
    for i, (user, partition) in enumerate(zip(users, partitions, strict=True)):
        assert len(partition) <= 97
        assert keys.parse_partition(partition) in (user, None)
        assert (keys.parse_partition(partition) is None) == (len(partition) == 97)
        for other in partitions[:i]:
            assert not partition.startswith(other)
            assert not other.startswith(partition)


@given(USERS, st.integers(0, 2**32 - 1), st.integers(0, 2**63), st.integers(0, 2**16 - 1), TRICKY_BYTES)
def test_keys_of_sub_databases_read_back(user: str, table_id: int, seq: int, index_id: int, encoded: bytes) -> None:
    partition = keys.partition_key(user)
    row_key = keys.row_key(table_id, partition, seq)
    assert keys.parse_row_key(row_key) == (table_id, partition, seq)
    assert row_key.startswith(keys.row_key_prefix(table_id, partition))
    assert row_key.startswith(keys.table_prefix(table_id))
    index_key = keys.index_key_prefix(table_id, partition, index_id) + encoded
    assert keys.parse_index_key(index_key) == (table_id, partition, index_id, encoded)
    assert keys.parse_seq_key(keys.seq_key(seq)) == seq


def test_the_shared_partition_and_the_length_limit() -> None:
    assert keys.partition_key("") == keys.SHARED_PARTITION == b"\x00"
    longest = keys.index_key_prefix(1, keys.partition_key("u" * 1000), 0) + keys.encode_key([TEXT], ["x" * 1000])
    assert len(longest) <= 511
    assert len(keys.object_key("user", "u" * 5000)) <= 511
    assert keys.object_key("user", "alice").startswith(keys.object_prefix("user"))


@pytest.mark.parametrize("parse", [keys.parse_row_key, keys.parse_index_key, keys.parse_seq_key, keys.parse_partition])
@given(data=st.one_of(st.binary(max_size=120), TRICKY_BYTES))
def test_malformed_keys_raise_value_error_at_most(parse: Any, data: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse(data)


@given(st.lists(st.sampled_from(TYPES), min_size=1, max_size=3), TRICKY_BYTES)
def test_malformed_encodings_raise_value_error_at_most(types: list[ColumnType], data: bytes) -> None:
    with contextlib.suppress(ValueError):
        keys.decode_key(types, data)
