r"""Values on their way in: JSON parameters and SQL literals to storage values, exact or refused.

One converter for each type takes every shape that a client or the parser may hand over and gives the storage
value (`storage.types`), or raises an SqlError that names the column (or parameter) and its type. None is NULL
and passes; whether NULL is allowed is checked by the caller.

===================  =============================================================================================
type                 accepted
===================  =============================================================================================
Boolean              true, false, 0, 1; text true, false, t, f, 1, 0 in any case
SmallInt/Int/BigInt  numbers without a fraction, text of decimal digits; in range
Float, Double        numbers and their text; never NaN or infinite
Decimal(p, s)        numbers and their text; at most s decimals. A JSON number with a fraction is taken as the digits
                     that were written when it has at most 15 of them; longer ones must come as text
Text                 text without lone surrogates; numbers and booleans as their SQL text
Timestamp, DateTime  ISO 8601 text (`sql.iso_times`), integer microseconds since the epoch
Date                 ISO 8601 text, integer days since the epoch
Time                 ISO 8601 text, integer microseconds since midnight
Json                 text that is JSON (kept as written), objects, arrays, numbers and booleans (written compactly)
Bytes                X'..' literals, arrays of 0..255, text of the form `\x0aff` (no other text: it is ambiguous)
Uuid                 text of 32 hex digits, with the usual hyphens and braces or without; 16 bytes
Embedding(n)         arrays of n numbers, also as JSON text; each finite as a 32-bit float
File                 FileRef JSON as text or object
===================  =============================================================================================

Ranges of dates and timestamps are DuckDB's: a value outside them must never reach it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache, partial
from typing import Any

import msgspec

from sql.errors import ExecutionError, InvalidParameter, SqlError
from sql.iso_times import date_days, time_microseconds, timestamp_microseconds
from sql.json_text import check_file, check_json, compact_json
from storage.types import ColumnType, Kind

Converter = Callable[[object], object]
"""Any accepted value (None is NULL) -> storage value; raises SqlError."""

TIMESTAMP_RANGE = (-9_223_372_022_400_000_000, 9_223_372_036_854_775_806)
"""Microseconds that DuckDB can hold; beyond lie its infinities and, further, an internal error."""
DATE_RANGE = (-2_147_483_646, 2_147_483_646)
"""Days that DuckDB can hold."""
TIME_RANGE = (0, 86_399_999_999)
"""Microseconds of a day."""
INT_RANGES = {
    Kind.SMALLINT: (-(2**15), 2**15 - 1),
    Kind.INT: (-(2**31), 2**31 - 1),
    Kind.BIGINT: (-(2**63), 2**63 - 1),
}
"""Least and greatest value of the integer types."""

_INTEGER = re.compile(r"[+-]?\d{1,40}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,6})?", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}", re.IGNORECASE)
_HEX = re.compile(r"\\[xX](?:[0-9a-fA-F]{2})*")
_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_SAFE_INTEGER = 2**53
_LONGEST_NUMBER = 400
_FLOAT = struct.Struct("<f")


class _RefusedError(Exception):
    """Why a value does not fit; becomes the SqlError's sentence."""


def _shown(value: object) -> str:
    """A value for a message, cut to 60 characters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        return "an array" if isinstance(value, list) else "an object"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    text = str(value)
    text = f"{text[:57]}..." if len(text) > 60 else text
    return f"'{text}'" if isinstance(value, str) else text


def _no(what: str, value: object) -> _RefusedError:
    return _RefusedError(f"cannot take {_shown(value)}: not {what}")


def _number_text(text: str) -> str:
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        raise _no("a number", text)
    return text


def _integer(value: object, what: str = "an integer") -> int:
    """The integer that a value is, exactly."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) <= _SAFE_INTEGER:
        return int(value)
    if (
        isinstance(value, Decimal)
        and value.is_finite()
        and value.adjusted() < 40
        and value == value.to_integral_value()
    ):
        return int(value)
    raise _no(what, value)


def _ranged(value: int, low: int, high: int) -> int:
    if low <= value <= high:
        return value
    raise _RefusedError(f"cannot hold {_shown(value)}: the range is {low} to {high}")


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        found = _BOOLEANS.get(value.lower())
    else:
        found = _BOOLEANS.get(str(value)) if isinstance(value, int) else None
    if found is None:
        raise _no("a boolean", value)
    return found


def _double(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        raise _no("a number", value)
    try:
        number = float(_number_text(value) if isinstance(value, str) else value)
    except (OverflowError, ValueError):
        number = float("inf")
    if number - number != 0.0:
        raise _no("a finite number of the type's range", value)
    return number


def _single(value: object) -> float:
    number = _double(value)
    try:
        rounded: float = _FLOAT.unpack(_FLOAT.pack(number))[0]
    except OverflowError:
        raise _no("a finite number of the type's range", value) from None
    return rounded


def _as_decimal(value: object) -> Decimal:
    if isinstance(value, Decimal) and value.is_finite():
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    if isinstance(value, str):
        return Decimal(_number_text(value))
    if isinstance(value, float) and value - value == 0.0:
        written = Decimal(repr(value))
        if len(written.as_tuple().digits) <= 15:
            return written
        raise _RefusedError(f"cannot take {value!r}: a JSON number keeps only 15 digits exactly; send it as text")
    raise _no("a number", value)


def _decimal(precision: int, scale: int) -> Callable[[object], Decimal]:
    context = Context(prec=precision, traps=[Inexact, InvalidOperation])
    unit = Decimal(1).scaleb(-scale)
    zero = Decimal(0).quantize(unit)

    def parse(value: object) -> Decimal:
        number = _as_decimal(value)
        try:
            return number.quantize(unit, context=context) or zero
        except Inexact:
            raise _RefusedError(f"cannot hold {_shown(value)}: it has more than {scale} decimals") from None
        except InvalidOperation:
            raise _RefusedError(
                f"cannot hold {_shown(value)}: it has more than {precision - scale} digits before the point"
            ) from None

    return parse


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float, Decimal)):
        if isinstance(value, int) and value.bit_length() > 200:
            raise _no("text", value)
        return str(value)
    if not isinstance(value, str):
        raise _no("text", value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _RefusedError(f"cannot hold text with a lone surrogate (at character {error.start + 1})") from None
    return value


def _temporal(parse_text: Callable[[str], int | None], what: str, bounds: tuple[int, int]) -> Callable[[object], int]:
    low, high = bounds

    def parse(value: object) -> int:
        if isinstance(value, str):
            try:
                found = parse_text(value)
            except ValueError as error:
                raise _RefusedError(f"cannot take {_shown(value)}: {error}") from None
            if found is None:
                raise _no(what, value)
            return _ranged(found, low, high)
        return _ranged(_integer(value, what), low, high)

    return parse


def _json(value: object) -> str:
    try:
        return check_json(_text(value)) if isinstance(value, str) else compact_json(value)
    except ValueError as error:
        raise _RefusedError(f"cannot hold {_shown(value)}: {error}") from None


def _file(value: object) -> str:
    if not isinstance(value, (str, dict)):
        raise _no("a FileRef object", value)
    text = _json(value)
    try:
        return check_file(text)
    except ValueError as error:
        raise _RefusedError(f"cannot hold {_shown(value)}: not a FileRef ({error})") from None


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        if _HEX.fullmatch(value):
            return bytes.fromhex(value[2:])
        raise _no("of the form '\\x0aff' (or X'0aff', or an array of numbers from 0 to 255)", value)
    if isinstance(value, list) and bool not in map(type, value):
        try:
            return bytes(value)
        except (TypeError, ValueError):
            pass
    raise _no("an array of numbers from 0 to 255", value)


def _uuid(value: object) -> bytes:
    if isinstance(value, bytes) and len(value) == 16:
        return value
    if isinstance(value, str):
        bare = value[1:-1] if value[:1] == "{" and value[-1:] == "}" else value
        if _UUID.fullmatch(bare):
            return bytes.fromhex(bare.replace("-", ""))
    raise _no("a UUID", value)


def _embedding(dimension: int) -> Callable[[object], list[float]]:
    packed = struct.Struct(f"<{dimension}f")

    def parse(value: object) -> list[float]:
        if isinstance(value, str):
            try:
                value = msgspec.json.decode(value)
            except (ValueError, RecursionError):
                raise _no("an array of numbers", value) from None
        if not isinstance(value, list) or not set(map(type, value)) <= {int, float}:
            raise _no("an array of numbers", value)
        if len(value) != dimension:
            raise _RefusedError(f"takes {dimension} numbers, not {len(value)}")
        try:
            return list(packed.unpack(packed.pack(*value)))
        except OverflowError:
            raise _RefusedError("cannot hold a number that is not finite as a 32-bit float") from None

    return parse


_PARSERS: dict[Kind, Callable[[Any], object]] = {
    Kind.BOOLEAN: _boolean,
    Kind.FLOAT: _single,
    Kind.DOUBLE: _double,
    Kind.TEXT: _text,
    Kind.TIMESTAMP: _temporal(partial(timestamp_microseconds, zoned=False), "an ISO 8601 timestamp", TIMESTAMP_RANGE),
    Kind.DATETIME: _temporal(partial(timestamp_microseconds, zoned=True), "an ISO 8601 timestamp", TIMESTAMP_RANGE),
    Kind.DATE: _temporal(date_days, "an ISO 8601 date", DATE_RANGE),
    Kind.TIME: _temporal(time_microseconds, "an ISO 8601 time of day", TIME_RANGE),
    Kind.JSON: _json,
    Kind.BYTES: _bytes,
    Kind.UUID: _uuid,
    Kind.FILE: _file,
}


def _parser(column_type: ColumnType) -> Callable[[Any], object]:
    if column_type.kind is Kind.DECIMAL:
        return _decimal(column_type.precision, column_type.scale)
    if column_type.kind is Kind.EMBEDDING:
        return _embedding(column_type.dimension)
    if column_type.kind in INT_RANGES:
        low, high = INT_RANGES[column_type.kind]
        return lambda value: _ranged(_integer(value), low, high)
    return _PARSERS[column_type.kind]


def place_name(column: str, column_type: ColumnType) -> str:
    """How messages name a target: `column 'age' (INT)`, or `parameter $1 (INT)` when it begins with `$`."""
    return f"parameter {column} ({column_type})" if column.startswith("$") else f"column '{column}' ({column_type})"


@lru_cache(maxsize=8192)
def converter(column_type: ColumnType, column: str, error: type[SqlError] = InvalidParameter) -> Converter:
    """The compiled converter of a type, for hot paths. `column` is named in errors, or a parameter as `$1`."""
    parse = _parser(column_type)
    place = place_name(column, column_type)

    def convert(value: object) -> object:
        if value is None:
            return None
        try:
            return parse(value)
        except _RefusedError as refused:
            raise error(f"{place} {refused}") from None

    if column_type.kind in INT_RANGES:
        return _with_fast_integers(convert, *INT_RANGES[column_type.kind])
    if column_type.kind is Kind.TEXT:
        return _with_fast_text(convert)
    return convert


def _with_fast_integers(convert: Converter, low: int, high: int) -> Converter:
    def convert_integer(value: Any) -> object:
        if type(value) is int and low <= value <= high:
            return value
        return convert(value)

    return convert_integer


def _with_fast_text(convert: Converter) -> Converter:
    def convert_text(value: Any) -> object:
        if type(value) is str and value.isascii():
            return value
        return convert(value)

    return convert_text


def from_json(value: object, column_type: ColumnType, column: str) -> object:
    """The storage value of a decoded JSON value. Raises InvalidParameter naming `column` (or `$n`)."""
    return converter(column_type, column)(value)


def list_from_json(value: object, column_type: ColumnType, column: str) -> list[object]:
    """The storage values of a JSON array, for `= ANY($n)`; elements may be NULL. Raises InvalidParameter."""
    if not isinstance(value, list):
        raise InvalidParameter(f"{place_name(column, column_type)} takes an array here, not {_shown(value)}")
    return list(map(converter(column_type, column), value))


def from_literal(value: str | bytes | bool | None, column_type: ColumnType, column: str, *, number: bool) -> object:
    """The storage value of an SQL literal. Raises ExecutionError naming `column`.

    `value` is the literal's text (without quotes), bytes for X'..', a bool, or None; `number` tells
    `1.50` from `'1.50'`. Numbers keep every digit.
    """
    if number and isinstance(value, str):
        convert = converter(column_type, column, ExecutionError)
        if len(value) <= _LONGEST_NUMBER and _NUMBER.fullmatch(value):
            return convert(int(value) if value.isdecimal() else Decimal(value))
        raise ExecutionError(f"{place_name(column, column_type)} cannot take {_shown(value)}: not a number")
    return converter(column_type, column, ExecutionError)(value)
