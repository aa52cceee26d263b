"""Compiled pieces of an expression: how a node is typed, evaluated over columns, and evaluated for one row.

A node's `run` gives an Arrow array, chunked array or scalar of the node's storage type; `row`, where there is one,
gives the storage value for a single row without building arrays. Whatever might come out otherwise than in DuckDB
raises NotCovered while it runs, and the caller hands the statement to DuckDB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sql.iso_times import date_days, time_microseconds, timestamp_microseconds
from sql.values import DATE_RANGE, INT_RANGES, TIME_RANGE, TIMESTAMP_RANGE
from storage.types import BIGINT, BOOLEAN, INT, TEXT, ColumnType, Kind, arrow_type, decimal

Datum: TypeAlias = pa.Array | pa.ChunkedArray | pa.Scalar
Row: TypeAlias = Mapping[str, object]
Params: TypeAlias = Sequence[object]
RowFunction: TypeAlias = Callable[[Row, Params], Any]


class NotCovered(Exception):
    """The values met while evaluating need DuckDB: an overflow, a division by zero, text beyond ASCII."""


class _NoLiteral:
    """The type of NO_LITERAL."""

    __slots__ = ()


NO_LITERAL: Final = _NoLiteral()


@dataclass(frozen=True, slots=True)
class Inputs:
    """What an expression is evaluated over: columns by the caller's keys, parameters ($1 first), rows in all."""

    columns: Mapping[str, pa.Array | pa.ChunkedArray]
    params: Params
    length: int


@dataclass(frozen=True, slots=True)
class Node:
    """A compiled expression. `type` is None for the bare NULL.

    `literal` is the value (int, Decimal or str) of a literal, which adapts to the type of its neighbours.
    """

    type: ColumnType | None
    run: Callable[[Inputs], Datum]
    row: RowFunction | None = None
    literal: object = NO_LITERAL

    @property
    def is_literal(self) -> bool:
        """Whether the node is a number or text literal."""
        return self.literal is not NO_LITERAL


def constant(value: object, column_type: ColumnType) -> Node:
    """A node that is one storage value."""
    if column_type.kind is Kind.FLOAT and isinstance(value, float):
        value = float(np.float32(value))
    scalar = pa.scalar(value, arrow_type(column_type))
    return Node(column_type, lambda inputs: scalar, lambda row, params: value)


def null_of(column_type: ColumnType) -> Node:
    """NULL with a type."""
    return constant(None, column_type)


UNTYPED_NULL = Node(None, lambda inputs: pa.scalar(None, pa.null()), lambda row, params: None)


def column(key: str, column_type: ColumnType) -> Node:
    """A column, under the caller's key."""
    return Node(column_type, lambda inputs: inputs.columns[key], lambda row, params: row[key])


def parameter(index: int, column_type: ColumnType) -> Node:
    """`$index`; its value is a storage value of the type."""
    storage = arrow_type(column_type)
    return Node(
        column_type,
        lambda inputs: pa.scalar(inputs.params[index - 1], storage),
        lambda row, params: params[index - 1],
    )


def integer_literal(value: int) -> Node | None:
    """A whole number as DuckDB types it: INTEGER or BIGINT; None beyond."""
    for column_type in (INT, BIGINT):
        low, high = INT_RANGES[column_type.kind]
        if low <= value <= high:
            return replace(constant(value, column_type), literal=value)
    return None


def decimal_literal(text: str, *, negated: bool = False) -> Node | None:
    """A number with a point: DECIMAL with a digit for each that is written; None beyond 18."""
    digits = len(text) - 1
    if digits > 18:
        return None
    value = Decimal(text).copy_negate() if negated else Decimal(text)
    return replace(constant(value, decimal(digits, digits - text.index("."))), literal=value)


def text_literal(value: str) -> Node | None:
    """A quoted text; None when it is not Unicode."""
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        return None
    return replace(constant(value, TEXT), literal=value)


def text_as(text: str, target: ColumnType) -> Node | None:
    """A text literal read as another type, where every reader agrees on what it means; else None."""
    kind = target.kind
    if kind is Kind.TEXT:
        return constant(text, target)
    value: object = None
    try:
        if kind in INT_RANGES:
            if text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 20:
                value = in_range(int(text), INT_RANGES[kind])
        elif kind is Kind.UUID:
            hyphens = [i for i, character in enumerate(text) if character == "-"]
            if hyphens == [8, 13, 18, 23] and len(text) == 36 and text.isascii():
                value = bytes.fromhex(text.replace("-", ""))
                value = value if len(value) == 16 else None
        else:
            value = _temporal(text, kind)
    except ValueError:
        return None
    return None if value is None else constant(value, target)


def _temporal(text: str, kind: Kind) -> int | None:
    if kind is Kind.DATE:
        return in_range(date_days(text), DATE_RANGE)
    if kind is Kind.TIME and len(text) >= 8:
        return in_range(time_microseconds(text), TIME_RANGE)
    if "," in text or "t" in text:
        return None
    has_offset = len(text) > 10 and any(sign in text[10:] for sign in "Zz+-")
    if kind is Kind.TIMESTAMP and not has_offset:
        return in_range(timestamp_microseconds(text, zoned=False), TIMESTAMP_RANGE)
    if kind is Kind.DATETIME and has_offset:
        return in_range(timestamp_microseconds(text, zoned=True), TIMESTAMP_RANGE)
    return None


def in_range(value: int | None, bounds: tuple[int, int]) -> int | None:
    """The value if it lies within the bounds."""
    return value if value is not None and bounds[0] <= value <= bounds[1] else None


_RANKS = {Kind.SMALLINT: 0, Kind.INT: 1, Kind.BIGINT: 2}
_INT_DIGITS = {Kind.SMALLINT: 5, Kind.INT: 10, Kind.BIGINT: 19}


def is_integer(column_type: ColumnType | None) -> bool:
    """SMALLINT, INT or BIGINT."""
    return column_type is not None and column_type.kind in _RANKS


def is_float(column_type: ColumnType | None) -> bool:
    """FLOAT or DOUBLE."""
    return column_type is not None and column_type.kind in (Kind.FLOAT, Kind.DOUBLE)


def _as_decimal_type(column_type: ColumnType) -> ColumnType | None:
    if column_type.kind is Kind.DECIMAL:
        return column_type
    digits = _INT_DIGITS.get(column_type.kind)
    return None if digits is None else decimal(digits, 0)


def wider(left: ColumnType, right: ColumnType) -> ColumnType | None:
    """The type that DuckDB compares and merges two typed operands in; None where we leave it to DuckDB."""
    if left == right:
        return left
    if is_integer(left) and is_integer(right):
        return max(left, right, key=lambda t: _RANKS[t.kind])
    if (is_float(left) and (is_float(right) or is_integer(right))) or (is_float(right) and is_integer(left)):
        kinds = (left.kind, right.kind)
        return ColumnType(Kind.DOUBLE if Kind.DOUBLE in kinds else Kind.FLOAT)
    first, second = _as_decimal_type(left), _as_decimal_type(right)
    if first is None or second is None:
        return None
    scale = max(first.scale, second.scale)
    precision = scale + max(first.precision - first.scale, second.precision - second.scale)
    return decimal(precision, scale) if precision <= 38 else None


def cast_to(node: Node, target: ColumnType) -> Node | None:
    """The node with its values widened to `target` (a type that `wider` gave), or a literal read as it."""
    if node.type is None:
        return null_of(target)
    if node.type == target and not node.is_literal:
        return node
    if node.is_literal:
        return _literal_as(node, target)
    storage = arrow_type(target)

    def run(inputs: Inputs) -> Datum:
        return pc.cast(node.run(inputs), storage, safe=False)

    return Node(target, run, _row_cast(node.row, target))


def _row_cast(row: RowFunction | None, target: ColumnType) -> RowFunction | None:
    if row is None or target.kind is Kind.FLOAT or target.kind is Kind.DECIMAL:
        return None
    if target.kind is not Kind.DOUBLE:
        return row

    def as_double(values: Row, params: Params) -> object:
        value = row(values, params)
        return None if value is None else float(value)

    return as_double


def _literal_as(node: Node, target: ColumnType) -> Node | None:
    value = node.literal
    if isinstance(value, str):
        return text_as(value, target)
    assert isinstance(value, (int, Decimal))
    if target.kind in INT_RANGES:
        low, high = INT_RANGES[target.kind]
        return constant(value, target) if isinstance(value, int) and low <= value <= high else None
    exact = Decimal(value).as_tuple()
    assert isinstance(exact.exponent, int)
    if target.kind is Kind.DECIMAL:
        fits = -exact.exponent <= target.scale and len(exact.digits) + exact.exponent <= target.precision - target.scale
        return constant(Decimal(value), target) if fits else None
    # Divisions of integers that floats hold exactly: DuckDB's result and Python's are the correctly rounded one.
    digits, scale = (15, 22) if target.kind is Kind.DOUBLE else (7, 10)
    if not is_float(target) or len(exact.digits) > digits or -exact.exponent > scale:
        return None
    return constant(float(value), target)


def common(nodes: Sequence[Node], *, for_result: bool = False) -> tuple[list[Node], ColumnType] | None:
    """Operands brought to the one type that DuckDB merges them in, and that type; None where it is not certain.

    With `for_result` that type is what the expression returns, so it must be DuckDB's exactly.
    """
    found = _common_type(nodes, for_result=for_result)
    if found is None:
        return None
    cast = [cast_to(node, found) for node in nodes]
    done = [node for node in cast if node is not None]
    return (done, found) if len(done) == len(nodes) else None


def _common_type(nodes: Sequence[Node], *, for_result: bool) -> ColumnType | None:
    target: ColumnType | None = None
    for node in nodes:
        if node.type is not None and not node.is_literal:
            target = node.type if target is None else wider(target, node.type)
            if target is None:
                return None
    literals = [node for node in nodes if node.is_literal]
    if target is None:
        types = {node.type for node in literals}
        if types <= {INT, BIGINT}:
            return (BIGINT if BIGINT in types else INT) if types else None
        return TEXT if types == {TEXT} else None
    alone = len(literals) == 1 and all(node.type is not None for node in nodes)
    if for_result and literals and not alone and not _settles(target, literals):
        return None
    for node in literals:
        assert node.type is not None
        if isinstance(node.literal, str) or is_float(target):
            continue
        if isinstance(node.literal, int) and is_integer(target):
            low, high = INT_RANGES[target.kind]
            if low <= node.literal <= high:
                continue
        if for_result and target.kind is Kind.DECIMAL:
            return None
        target = wider(target, node.type)
        if target is None:
            return None
    return target


def _settles(target: ColumnType, literals: Sequence[Node]) -> bool:
    """Whether literals that meet NULL or each other first, and so lose their adaptability, still become `target`."""
    texts = any(isinstance(node.literal, str) for node in literals)
    return target == TEXT if texts else target.kind is not Kind.SMALLINT


def boolean(run: Callable[[Inputs], Datum], row: RowFunction | None = None) -> Node:
    """A node of type BOOLEAN."""
    return Node(BOOLEAN, run, row)
