"""Keys of values: encoding one key at a time, and reading it back. `storage.keys` describes the bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from storage.types import KEY_KINDS, ColumnType, Kind

MAX_KEY = 400
"""Length of a cut key; whole encodings are shorter."""
CUT_LENGTH = MAX_KEY - 32
"""How many bytes of its encoding a cut key keeps."""

_SIGN64 = 1 << 63
_SIGN128 = 1 << 127
_DOUBLE = struct.Struct(">d")
_SINGLE = struct.Struct(">f")
_EXACT = Context(prec=60, traps=[Inexact, InvalidOperation])

Encoder = Callable[[Sequence[object]], bytes]
"""Encodes the values of one key, in key order; raises ValueError for NULL or a value outside its type."""


def digest(data: bytes) -> bytes:
    """The blake2b-256 digest that stands for what a key had to leave out."""
    return blake2b(data, digest_size=32).digest()


def cut(encoding: bytes) -> bytes:
    """The key of an encoding: itself, or its first bytes and its digest when it is too long."""
    if len(encoding) < MAX_KEY:
        return encoding
    return encoding[:CUT_LENGTH] + digest(encoding)


def is_cut(key: bytes) -> bool:
    """Whether a key ends in a digest, so that its values cannot be read back from it."""
    return len(key) == MAX_KEY


def escape(data: bytes) -> bytes:
    """Text or binary data with 00 and 01 escaped and the terminator."""
    if b"\x00" in data or b"\x01" in data:
        data = data.replace(b"\x01", b"\x01\x02").replace(b"\x00", b"\x01\x01")
    return data + b"\x00"


def unescape(data: bytes) -> bytes:
    """The reverse of `escape`, without the terminator."""
    return data.replace(b"\x01\x01", b"\x00").replace(b"\x01\x02", b"\x01") if b"\x01" in data else data


def _encode_int(value: Any) -> bytes:
    return int.to_bytes(value + _SIGN64, 8, "big")


def _encode_bool(value: Any) -> bytes:
    if value is None:
        raise TypeError("NULL")
    return b"\x01" if value else b"\x00"


def _encode_double(value: Any) -> bytes:
    (bits,) = struct.unpack(">Q", _DOUBLE.pack(value + 0.0))
    if bits & 0x7FF0000000000000 == 0x7FF0000000000000:
        raise ValueError("NaN and infinities cannot be in a key")
    return int.to_bytes(bits ^ (0xFFFFFFFFFFFFFFFF if bits & _SIGN64 else _SIGN64), 8, "big")


def _encode_float(value: Any) -> bytes:
    (rounded,) = _SINGLE.unpack(_SINGLE.pack(value))
    return _encode_double(rounded)


def _encode_text(value: Any) -> bytes:
    return escape(str.encode(value))


def _encode_bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("not bytes")
    return escape(value)


def _encode_uuid(value: Any) -> bytes:
    if not isinstance(value, bytes) or len(value) != 16:
        raise TypeError("not a UUID of 16 bytes")
    return value


def _decimal_encoder(scale: int) -> Callable[[Any], bytes]:
    def encode(value: Any) -> bytes:
        unscaled = int(_EXACT.quantize(value.scaleb(scale, _EXACT), Decimal(1)))
        return (unscaled + _SIGN128).to_bytes(16, "big")

    return encode


_SCALAR: dict[Kind, Callable[[Any], bytes]] = {
    Kind.BOOLEAN: _encode_bool,
    Kind.FLOAT: _encode_float,
    Kind.DOUBLE: _encode_double,
    Kind.TEXT: _encode_text,
    Kind.BYTES: _encode_bytes,
    Kind.UUID: _encode_uuid,
}


def check_key_types(types: Sequence[ColumnType]) -> None:
    """Raise ValueError unless there is at least one type and each may be in a key."""
    if not types:
        raise ValueError("a key has at least one column")
    for column_type in types:
        if column_type.kind not in KEY_KINDS:
            raise ValueError(f"{column_type} cannot be in a key")


def _column_encoder(column_type: ColumnType) -> Callable[[Any], bytes]:
    if column_type.kind is Kind.DECIMAL:
        return _decimal_encoder(column_type.scale)
    return _SCALAR.get(column_type.kind, _encode_int)


_REFUSALS = (TypeError, AttributeError, ArithmeticError, struct.error, ValueError)


def _bad_value(types: Sequence[ColumnType], values: Sequence[object], cause: Exception) -> ValueError:
    for column_type, value in zip(types, values, strict=True):
        if value is None:
            return ValueError(f"a key of ({', '.join(map(str, types))}) cannot hold NULL")
        try:
            _column_encoder(column_type)(value)
        except _REFUSALS as error:
            return ValueError(f"not a key value of {column_type}: {error}")
    return ValueError(str(cause))


@lru_cache(maxsize=4096)
def _raw_encoder(types: tuple[ColumnType, ...]) -> Encoder:
    check_key_types(types)
    columns = tuple(map(_column_encoder, types))
    count = len(columns)
    first = columns[0]

    def encode_one(values: Sequence[object]) -> bytes:
        try:
            (value,) = values
            encoding = first(value)
        except _REFUSALS as error:
            raise _bad_value(types, values, error) from None
        return encoding

    def encode_many(values: Sequence[object]) -> bytes:
        if len(values) != count:
            raise ValueError(f"a key of {count} columns got {len(values)} values")
        try:
            return b"".join([column(value) for column, value in zip(columns, values, strict=True)])
        except _REFUSALS as error:
            raise _bad_value(types, values, error) from None

    return encode_one if count == 1 else encode_many


@lru_cache(maxsize=4096)
def key_encoder(types: tuple[ColumnType, ...]) -> Encoder:
    """The compiled encoder of a key's types, for hot paths: values in key order -> key."""
    raw = _raw_encoder(types)

    def encode(values: Sequence[object]) -> bytes:
        encoding = raw(values)
        return encoding if len(encoding) < MAX_KEY else cut(encoding)

    return encode


NOT_NULL_MARK = b"\x01"
NULL_MARK = b"\x02"
"""What stands before each column of a secondary index's key; NULLs sort behind all values."""


def _marked(types: tuple[ColumnType, ...]) -> Encoder:
    """The uncut encoding of leading columns that may hold NULL."""
    check_key_types(types)
    columns = tuple(map(_column_encoder, types))

    def encode(values: Sequence[object]) -> bytes:
        try:
            return b"".join([
                NULL_MARK if value is None else NOT_NULL_MARK + column(value)
                for column, value in zip(columns, values, strict=True)
            ])  # fmt: skip
        except _REFUSALS as error:
            raise ValueError(f"not a key of ({', '.join(map(str, types))}): {error}") from None

    return encode


_raw_marked = lru_cache(maxsize=4096)(_marked)


@lru_cache(maxsize=4096)
def marked_encoder(types: tuple[ColumnType, ...]) -> Encoder:
    """The encoder of a secondary index's keys: as `key_encoder`, and a value may be None for NULL."""
    raw = _raw_marked(types)

    def encode(values: Sequence[object]) -> bytes:
        encoding = raw(values)
        return encoding if len(encoding) < MAX_KEY else cut(encoding)

    return encode


def marked_prefix(types: Sequence[ColumnType], values: Sequence[object]) -> bytes:
    """`encode_prefix` for the keys of a secondary index; a value may be None for NULL."""
    return _raw_marked(tuple(types))(values)[:CUT_LENGTH] if types else b""


def encode_key(types: Sequence[ColumnType], values: Sequence[object]) -> bytes:
    """The key of storage values, one for each type, in key order.

    Raises ValueError for a NULL, a value outside its type, or a type that keys may not have.
    """
    return key_encoder(tuple(types))(values)


def encode_prefix(types: Sequence[ColumnType], values: Sequence[object]) -> bytes:
    """A prefix of every key whose leading columns have these values; at most CUT_LENGTH bytes.

    `types` are those of the leading columns given; none gives b"". When the result has CUT_LENGTH bytes,
    other values may share it: the caller compares the rows it finds.
    """
    return _raw_encoder(tuple(types))(values)[:CUT_LENGTH] if types else b""


def prefix_end(prefix: bytes) -> bytes | None:
    """The least byte string above everything that begins with `prefix`; None when there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def _unescaped_end(encoding: bytes, start: int) -> int:
    end = encoding.find(b"\x00", start)
    if end < 0:
        raise ValueError("a text or bytes column of a key has no terminator")
    return end


def _decode_double(data: bytes) -> float:
    bits = int.from_bytes(data, "big")
    bits ^= _SIGN64 if bits & _SIGN64 else 0xFFFFFFFFFFFFFFFF
    value: float = _DOUBLE.unpack(bits.to_bytes(8, "big"))[0]
    return value


def _decode_fixed(column_type: ColumnType, data: bytes) -> object:
    kind = column_type.kind
    if kind is Kind.BOOLEAN:
        return data != b"\x00"
    if kind in (Kind.FLOAT, Kind.DOUBLE):
        return _decode_double(data)
    if kind is Kind.UUID:
        return data
    if kind is Kind.DECIMAL:
        return Decimal(int.from_bytes(data, "big") - _SIGN128).scaleb(-column_type.scale, _EXACT)
    return int.from_bytes(data, "big") - _SIGN64


_WIDTHS = {Kind.BOOLEAN: 1, Kind.UUID: 16, Kind.DECIMAL: 16}


def decode_key(types: Sequence[ColumnType], key: bytes) -> tuple[object, ...] | None:
    """The storage values of a key, or None when it is cut. Raises ValueError for malformed bytes."""
    if is_cut(key):
        return None
    values: list[object] = []
    at = 0
    for column_type in types:
        if column_type.kind in (Kind.TEXT, Kind.BYTES):
            end = _unescaped_end(key, at)
            data = unescape(key[at:end])
            values.append(data.decode() if column_type.kind is Kind.TEXT else data)
            at = end + 1
            continue
        width = _WIDTHS.get(column_type.kind, 8)
        if at + width > len(key):
            raise ValueError(f"a key ends inside its {column_type} column")
        values.append(_decode_fixed(column_type, key[at : at + width]))
        at += width
    if at != len(key):
        raise ValueError(f"{len(key) - at} surplus bytes after a key")
    return tuple(values)
