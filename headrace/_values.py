r"""Values between Python and the wire: rows decoded by their schema, parameters encoded the other way round.

====================  ==============================  ===========================
data_type             on the wire                     in Python
====================  ==============================  ===========================
Boolean               true, false                     bool
SmallInt, Int         number                          int
BigInt                number or string of digits      int
Float, Double         number                          float
Text                  string                          str
Timestamp             microseconds since the epoch    datetime without zone
DateTime              microseconds since the epoch    datetime in UTC
Date                  days since the epoch            date
Time                  microseconds since midnight     time
Json, File            string of JSON text             what the JSON holds
Bytes                 array of numbers                bytes
Uuid                  string                          uuid.UUID
Decimal               string                          decimal.Decimal
Embedding             array of numbers                list of float
====================  ==============================  ===========================

NULL is None. Parameters go as ISO 8601 text (dates and times), `\x0aff` (bytes), text (decimals, UUIDs), and as they
are otherwise; the server types them by where they stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

import msgspec

from headrace._exceptions import InvalidAnswer

Decoder: TypeAlias = Callable[[Any], Any]
"""A wire value that is not null -> the Python value."""

Row: TypeAlias = dict[str, Any]
"""A row by column name."""

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (TIMESTAMP has no zone)
_UTC_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1).toordinal()


def _time(microseconds: int) -> time:
    return (_EPOCH + timedelta(microseconds=microseconds)).time()


_DECODERS: dict[str, Decoder] = {
    "BigInt": int,
    "Timestamp": lambda value: _EPOCH + timedelta(microseconds=value),
    "DateTime": lambda value: _UTC_EPOCH + timedelta(microseconds=value),
    "Date": lambda value: date.fromordinal(_EPOCH_DAY + value),
    "Time": _time,
    "Json": msgspec.json.decode,
    "File": msgspec.json.decode,
    "Bytes": bytes,
    "Uuid": UUID,
    "Decimal": Decimal,
}


def type_name(data_type: Any) -> str:
    """The name of a `data_type`, without its parameters: `Decimal` of `{"Decimal": {…}}`."""
    return next(iter(data_type), "") if isinstance(data_type, Mapping) else str(data_type)


def decoder_of(data_type: Any) -> Decoder | None:
    """What decodes values of a `data_type`; None where they are themselves."""
    return _DECODERS.get(type_name(data_type))


def _decoded(decode: Decoder, value: Any, column: str) -> Any:
    if value is None:
        return None
    try:
        return decode(value)
    except (ValueError, TypeError, OverflowError, ArithmeticError) as error:
        message = f"column '{column}' holds {str(value)[:60]!r}, which has no Python value; ask with raw=True"
        raise InvalidAnswer(message) from error


def decode_columns(columns: Iterable[tuple[str, Any]], rows: list[list[Any]]) -> list[tuple[Any, ...]]:
    """Rows of wire values as tuples of Python values; `columns` are names and `data_type`s.

    Raises InvalidAnswer for a value that Python cannot hold (a date beyond the year 9999).
    """
    named = list(columns)
    if not named:
        return [()] * len(rows)
    values: Iterable[Iterable[Any]] = zip(*rows, strict=True) if rows else ([] for _ in named)
    decoded = []
    for (name, data_type), column in zip(named, values, strict=True):
        decode = decoder_of(data_type)
        decoded.append(column if decode is None else [_decoded(decode, value, name) for value in column])
    return list(zip(*decoded, strict=True))


class RowDecoder:
    """Decodes rows that come as objects, in place; columns that the schema does not name stay as they are."""

    def __init__(self, columns: Iterable[tuple[str, Any]]) -> None:
        decoders = {name: decoder_of(data_type) for name, data_type in columns}
        self._decoders = {name: decode for name, decode in decoders.items() if decode is not None}
        self._decoders["_seq"] = int

    def decode(self, rows: list[Row]) -> list[Row]:
        """The same list, its values decoded. Raises InvalidAnswer for a value that Python cannot hold."""
        for name, decode in self._decoders.items():
            for row in rows:
                value = row.get(name)
                if value is not None:
                    row[name] = _decoded(decode, value, name)
        return rows


def encode_value(value: Any) -> Any:
    """A parameter, or a value of a row to be inserted, as the wire takes it.

    Raises ValueError for NaN and infinities, TypeError for types that have no wire form.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        # Beyond 64 bits only DECIMAL can hold it, and that takes text.
        return int(value) if -(2**63) <= value < 2**63 else str(int(value))
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} cannot be sent: SQL values are finite")
        return float(value)
    if isinstance(value, (datetime, date, time)):
        return _iso(value)
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"{value} cannot be sent: SQL values are finite")
        return f"{value:f}"
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "\\x" + bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(name): encode_value(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode_value(each) for each in value]
    return encode_value(_plain(value))


def _iso(value: datetime | date | time) -> str:
    if isinstance(value, time) and value.tzinfo is not None:
        raise ValueError(f"{value} cannot be sent: TIME has no zone")
    return value.isoformat()


def _plain(value: Any) -> Any:
    """The Python value of a numpy array or scalar, without importing numpy."""
    for method in ("tolist", "item"):
        convert = getattr(value, method, None)
        if callable(convert) and (plain := convert()) is not value and type(plain) is not type(value):
            return plain
    raise TypeError(f"a value of type {type(value).__name__} cannot be sent")
