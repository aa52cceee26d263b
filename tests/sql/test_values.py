"""Values on their way in: exact, or refused with a sentence that names the column."""

from __future__ import annotations

import struct
import uuid
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import msgspec
import pyarrow as pa
import pytest
from hypothesis import given

from sql.errors import ExecutionError, InvalidParameter, SqlError
from sql.values import converter, from_json, from_literal, list_from_json
from storage.types import (
    BIGINT,
    BOOLEAN,
    BYTES,
    DATE,
    DATETIME,
    DOUBLE,
    FILE,
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

FILE_REF = {
    "id": "1", "sub": "f0001", "name": "a.pdf", "size": 3, "mime": "application/pdf", "sha256": "0" * 64,
}  # fmt: skip

ACCEPTED: list[tuple[ColumnType, Any, Any]] = [
    (BOOLEAN, True, True),
    (BOOLEAN, 0, False),
    (BOOLEAN, "TRUE", True),
    (BOOLEAN, "f", False),
    (SMALLINT, -32768, -32768),
    (INT, "2147483647", 2**31 - 1),
    (BIGINT, "-9223372036854775808", -(2**63)),
    (BIGINT, 5.0, 5),
    (BIGINT, Decimal("5.00"), 5),
    (FLOAT, 0.1, struct.unpack("f", struct.pack("f", 0.1))[0]),
    (DOUBLE, 3, 3.0),
    (DOUBLE, "-1.5e3", -1500.0),
    (decimal(38, 10), "1234567890123456789012345678.0123456789", Decimal("1234567890123456789012345678.0123456789")),
    (decimal(5, 2), 0.1, Decimal("0.10")),
    (decimal(5, 2), 7, Decimal("7.00")),
    (decimal(5, 2), "-0.00", Decimal("0.00")),
    (decimal(5, 2), "1.500", Decimal("1.50")),
    (TEXT, "", ""),
    (TEXT, "h\u00e9 \x00 \U0001f600", "h\u00e9 \x00 \U0001f600"),
    (TEXT, 12, "12"),
    (TEXT, False, "false"),
    (TIMESTAMP, "1969-12-31T23:59:59.999999", -1),
    (TIMESTAMP, "1970-01-01 00:00", 0),
    (TIMESTAMP, "1970-01-02", 86_400_000_000),
    (TIMESTAMP, "1970-01-01T00:00:00.5Z", 500_000),
    (TIMESTAMP, "1970-01-01T00:00:00.000001000+00:00", 1),
    (TIMESTAMP, -9223372022400000000, -9223372022400000000),
    (DATETIME, "1970-01-01T05:30:00+05:30", 0),
    (DATETIME, "1969-12-31t19:00:00-0500", 0),
    (DATETIME, "1970-01-01T00:00:00", 0),
    (DATE, "1969-12-31", -1),
    (DATE, 2147483646, 2147483646),
    (TIME, "23:59:59.999999", 86_399_999_999),
    (TIME, "00:01", 60_000_000),
    (TIME, 0, 0),
    (JSON, ' {"a": [1, 2]} ', ' {"a": [1, 2]} '),
    (JSON, {"a": [1, {"b": None}], "c": "\u00e9"}, '{"a":[1,{"b":null}],"c":"\u00e9"}'),
    (JSON, [2**70], f"[{2**70}]"),
    (JSON, 1.5, "1.5"),
    (JSON, True, "true"),
    (BYTES, [0, 255], b"\x00\xff"),
    (BYTES, r"\x00fF", b"\x00\xff"),
    (BYTES, r"\x", b""),
    (BYTES, b"raw", b"raw"),
    (UUID, "0189F7EA-AE2C-7809-8AEB-B819CF5E9E7F", bytes.fromhex("0189f7eaae2c78098aebb819cf5e9e7f")),
    (UUID, "{0189f7eaae2c78098aebb819cf5e9e7f}", bytes.fromhex("0189f7eaae2c78098aebb819cf5e9e7f")),
    (UUID, b"0123456789abcdef", b"0123456789abcdef"),
    (embedding(3), [1, 2.5, -0.5], [1.0, 2.5, -0.5]),
    (embedding(2), "[1, 2]", [1.0, 2.0]),
    (FILE, FILE_REF, msgspec.json.encode(FILE_REF).decode()),
]

REFUSED: list[tuple[ColumnType, Any, str]] = [
    (BOOLEAN, 2, "not a boolean"),
    (BOOLEAN, "maybe", "not a boolean"),
    (SMALLINT, 32768, "the range is -32768 to 32767"),
    (INT, 1.5, "not an integer"),
    (INT, "1.0", "not an integer"),
    (INT, " 1", "not an integer"),
    (INT, "\u0661", "not an integer"),
    (INT, True, "cannot take true: not an integer"),
    (INT, [1], "cannot take an array"),
    (BIGINT, 2**63, "the range is"),
    (BIGINT, 10**5000, "an integer of 16610 bits"),
    (BIGINT, 2.0**60, "not an integer"),
    (BIGINT, Decimal("1e999999"), "not an integer"),
    (FLOAT, 1e39, "not a finite number"),
    (FLOAT, float("nan"), "not a finite number"),
    (DOUBLE, "Infinity", "not a number"),
    (DOUBLE, "1e999", "not a finite number"),
    (DOUBLE, 10**400, "not a finite number"),
    (DOUBLE, True, "not a number"),
    (decimal(5, 2), "1.005", "more than 2 decimals"),
    (decimal(5, 2), "1000", "more than 3 digits before the point"),
    (decimal(5, 2), "1e999999", "more than 3 digits before the point"),
    (decimal(5, 2), "NaN", "not a number"),
    (decimal(5, 2), float("inf"), "not a number"),
    (decimal(38, 18), 0.1 + 0.2, "only 15 digits"),
    (decimal(5, 2), "1" * 1000, "not a number"),
    (TEXT, "ab\ud800", "lone surrogate .at character 3"),
    (TEXT, {}, "cannot take an object: not text"),
    (TEXT, b"x", "cannot take 1 bytes: not text"),
    (TEXT, 10**5000, "not text"),
    (TIMESTAMP, "2024-02-30", "day"),
    (TIMESTAMP, "20240101", "not an ISO 8601 timestamp"),
    (TIMESTAMP, "2024-01-01T25:00", "hour"),
    (TIMESTAMP, "2024-01-01T00:00+05:30", "has no zone"),
    (TIMESTAMP, "2024-01-01T00:00:00.0000001", "finer than a microsecond"),
    (TIMESTAMP, 2**63 - 1, "the range is"),
    (TIMESTAMP, 1.5, "not an ISO 8601 timestamp"),
    (DATETIME, "now", "not an ISO 8601 timestamp"),
    (DATETIME, "2024-01-01T00:00+25:00", "offset"),
    (DATE, "2024-01-01T00:00", "not an ISO 8601 date"),
    (DATE, 2**31 - 1, "the range is"),
    (TIME, "24:00", "hour"),
    (TIME, 86_400_000_000, "the range is"),
    (TIME, "12:00Z", "not an ISO 8601 time"),
    (JSON, "{'a': 1}", "malformed"),
    (JSON, "", "truncated"),
    (JSON, "NaN", "malformed"),
    (JSON, "[" * 100_000 + "]" * 100_000, "nested too deeply"),
    (JSON, "\ud800", "surrogate"),
    (JSON, b"1", "not a JSON value|cannot"),
    (BYTES, "abc", "not of the form"),
    (BYTES, r"\x0", "not of the form"),
    (BYTES, [256], "numbers from 0 to 255"),
    (BYTES, [True], "numbers from 0 to 255"),
    (BYTES, ["a"], "numbers from 0 to 255"),
    (BYTES, 3, "numbers from 0 to 255"),
    (UUID, "0189f7ea-ae2c7809-8aeb-b819cf5e9e7f", "not a UUID"),
    (UUID, "g" * 32, "not a UUID"),
    (UUID, b"short", "not a UUID"),
    (embedding(2), [1.0], "takes 2 numbers, not 1"),
    (embedding(1), ["1"], "not an array of numbers"),
    (embedding(1), [True], "not an array of numbers"),
    (embedding(1), [1e39], "not finite"),
    (embedding(1), "[1", "not an array of numbers"),
    (FILE, "{}", "not a FileRef"),
    (FILE, 1, "not a FileRef"),
    (FILE, FILE_REF | {"sha256": "x"}, "not a FileRef"),
    (FILE, FILE_REF | {"sub": "../../etc"}, "not a FileRef"),
]


@pytest.mark.parametrize(("column_type", "value", "stored"), ACCEPTED, ids=range(len(ACCEPTED)))
def test_accepted(column_type: ColumnType, value: Any, stored: Any) -> None:
    found = from_json(value, column_type, "c")
    assert found == stored
    assert type(found) is type(stored)
    pa.array([found], arrow_type(column_type)).validate(full=True)


@pytest.mark.parametrize(("column_type", "value", "why"), REFUSED, ids=range(len(REFUSED)))
def test_refused(column_type: ColumnType, value: Any, why: str) -> None:
    with pytest.raises(InvalidParameter, match=why) as caught:
        from_json(value, column_type, "age")
    assert caught.value.message.startswith(f"column 'age' ({column_type}) ")
    assert len(caught.value.message) < 250


@pytest.mark.parametrize("column_type", dict.fromkeys(case[0] for case in ACCEPTED), ids=str)
def test_null_passes(column_type: ColumnType) -> None:
    assert from_json(None, column_type, "c") is None


@given(st.sampled_from(ACCEPTED), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.decimals(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
))  # fmt: skip
def test_anything_is_stored_or_refused(case: tuple[ColumnType, Any, Any], value: object) -> None:
    column_type = case[0]
    try:
        stored = from_json(value, column_type, "c")
    except SqlError:
        return
    pa.array([stored], arrow_type(column_type)).validate(full=True)
    assert from_json(stored, column_type, "c") == stored


@given(st.integers(-(10**38) + 1, 10**38 - 1), st.integers(0, 38))
def test_decimals_keep_every_digit(unscaled: int, scale: int) -> None:
    exact = Decimal(f"{unscaled}E-{scale}")
    column_type = decimal(38, scale)
    assert from_json(f"{exact:f}", column_type, "c") == exact
    assert from_literal(f"{exact.copy_abs():f}", column_type, "c", number=True) == exact.copy_abs()


@given(st.decimals(-(10**9), 10**9, places=4))
def test_a_json_number_gives_the_decimal_that_was_written(number: Decimal) -> None:
    decoded = msgspec.json.decode(f"{number:f}")
    assert from_json(decoded, decimal(20, 4), "c") == number


@given(st.datetimes(), st.integers(-14 * 60, 14 * 60))
def test_timestamps_by_text(moment: datetime, offset_minutes: int) -> None:
    epoch = datetime(1970, 1, 1)  # noqa: DTZ001
    expected = (moment - epoch) // timedelta(microseconds=1)
    assert from_json(moment.isoformat(), TIMESTAMP, "c") == expected
    assert from_json(moment.isoformat(" ") + "Z", DATETIME, "c") == expected
    sign, minutes = "-" if offset_minutes < 0 else "+", abs(offset_minutes)
    zoned = f"{moment.isoformat()}{sign}{minutes // 60:02}:{minutes % 60:02}"
    assert from_json(zoned, DATETIME, "c") == expected - offset_minutes * 60_000_000


@given(st.dates(), st.times(), st.uuids())
def test_dates_times_and_uuids_by_text(day: date, clock: time, unique: uuid.UUID) -> None:
    assert from_json(day.isoformat(), DATE, "c") == (day - date(1970, 1, 1)).days
    since_midnight = datetime.combine(day, clock) - datetime.combine(day, time.min)
    assert from_json(clock.isoformat(), TIME, "c") == since_midnight // timedelta(microseconds=1)
    assert from_json(str(unique), UUID, "c") == unique.bytes


def test_lists_for_any() -> None:
    assert list_from_json([1, "2", None], INT, "$1") == [1, 2, None]
    with pytest.raises(InvalidParameter, match=r"parameter \$1 \(INT\) takes an array here, not 'x'"):
        list_from_json("x", INT, "$1")
    with pytest.raises(InvalidParameter, match=r"parameter \$1 \(INT\) cannot take 'x': not an integer"):
        list_from_json(["x"], INT, "$1")


def test_literals() -> None:
    assert from_literal("1.50", decimal(5, 2), "c", number=True) == Decimal("1.50")
    assert from_literal("12", INT, "c", number=True) == 12
    assert from_literal("1e3", DOUBLE, "c", number=True) == 1000.0
    assert from_literal("2024-01-01", DATE, "c", number=False) == 19723
    assert from_literal(b"\x00", BYTES, "c", number=False) == b"\x00"
    assert from_literal(None, INT, "c", number=False) is None
    with pytest.raises(ExecutionError, match=r"column 'c' \(INT\) cannot take 1.5: not an integer"):
        from_literal("1.5", INT, "c", number=True)
    with pytest.raises(ExecutionError, match="not a number"):
        from_literal("9" * 500, INT, "c", number=True)


def test_converters_are_compiled_once() -> None:
    assert converter(INT, "c") is converter(INT, "c")
