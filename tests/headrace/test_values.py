"""Values between Python and the wire."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import InvalidAnswer
from headrace._values import RowDecoder, decode_columns, encode_value


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (2**63 - 1, 2**63 - 1),
        (10**30, "1" + "0" * 30),
        (1.5, 1.5),
        ("text", "text"),
        (datetime.fromisoformat("2024-01-02T03:04:05.000006"), "2024-01-02T03:04:05.000006"),
        (datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02T00:00:00+00:00"),
        (datetime(2024, 1, 2, tzinfo=timezone(timedelta(hours=5, minutes=30))), "2024-01-02T00:00:00+05:30"),
        (date(2024, 1, 2), "2024-01-02"),
        (time(1, 2, 3), "01:02:03"),
        (Decimal("1E-10"), "0.0000000001"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"\x00\xff", "\\x00ff"),
        (bytearray(b"\x01"), "\\x01"),
        ([1, Decimal(2)], [1, "2"]),
        ({"a": (date(2024, 1, 2), {"b": None})}, {"a": ["2024-01-02", {"b": None}]}),
        (np.int32(5), 5),
        (np.float32(0.5), 0.5),
        (np.array([1.0, 2.0]), [1.0, 2.0]),
    ],
)
def test_encoding(value: Any, wire: Any) -> None:
    encoded = encode_value(value)
    assert encoded == wire
    assert type(encoded) is type(wire)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), Decimal("NaN"), time(1, tzinfo=UTC), [float("inf")]])
def test_values_without_a_wire_form(value: Any) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        encode_value(value)


def test_types_without_a_wire_form() -> None:
    with pytest.raises(TypeError, match="type set cannot be sent"):
        encode_value({1, 2})


EPOCH = datetime.fromisoformat("1970-01-01")


@given(st.datetimes(), st.dates(), st.times(), st.integers(-(2**63), 2**63 - 1), st.uuids(), st.binary())
def test_decoding(moment: datetime, day: date, clock: time, number: int, tag: UUID, data: bytes) -> None:
    microsecond = timedelta(microseconds=1)
    wire = [
        (moment - EPOCH) // microsecond,
        (moment - EPOCH) // microsecond,
        day.toordinal() - EPOCH.toordinal(),
        (datetime.combine(EPOCH, clock) - EPOCH) // microsecond,
        str(number),
        str(tag),
        list(data),
    ]
    types = ["Timestamp", "DateTime", "Date", "Time", "BigInt", "Uuid", "Bytes"]
    columns = [(f"c{index}", name) for index, name in enumerate(types)]
    expected = (moment, moment.replace(tzinfo=UTC), day, clock, number, tag, data)
    assert decode_columns(columns, [wire, [None] * 7]) == [expected, (None,) * 7]
    row = dict(zip([name for name, _ in columns], wire, strict=True)) | {"_seq": "5", "other": "5"}
    (decoded,) = RowDecoder(columns).decode([row])
    assert tuple(decoded.values()) == (*expected, 5, "5")


def test_a_value_that_python_cannot_hold_is_named() -> None:
    with pytest.raises(InvalidAnswer, match=r"column 'day' holds '99999999'.*raw=True"):
        decode_columns([("day", "Date")], [[99_999_999]])


def test_rows_without_columns() -> None:
    assert decode_columns([], [[], []]) == [(), ()]
    assert decode_columns([("a", "Int")], []) == []
