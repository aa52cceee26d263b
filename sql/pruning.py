"""What WHERE says about columns that have statistics, for a scan to leave out batches of the cold tier.

Top-level AND terms that compare a column with a literal or parameter of its type count (=, <, <=, >, >=, BETWEEN, IN).
Like key accesses (`sql.pushdown`) they stay in the query and only leave out rows that they would reject.

Bounds are never narrower than the terms: strict ones are taken as inclusive, those of FLOAT and DOUBLE columns are
widened by the smallest step, because a literal may be rounded on its way to the comparison.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from sqlglot import exp

from sql.errors import SqlError
from sql.plain import NOT_PLAIN, parameter_index, plain_value
from sql.plan import HIDDEN_COLUMNS, ColumnRange, Constant, Operand
from sql.pushdown import column_named, comparison, conjuncts, operand
from sql.scope import TableUse
from sql.values import from_literal
from storage.catalog import TableDef
from storage.cold_statistics import Bounds
from storage.types import BIGINT, ColumnType, Kind

_TIMES = frozenset({Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.DATETIME})
_FLOATS = frozenset({Kind.FLOAT, Kind.DOUBLE})
_MOST_VALUES = 256
"""Values of an IN list that are looked at one by one; of longer lists the least and the greatest count."""

Parameters = Mapping[int, tuple[ColumnType, bool]]


def column_ranges(
    where: exp.Expr | None, use: TableUse, siblings: Sequence[TableUse], parameters: Parameters, *, alone: bool
) -> tuple[ColumnRange, ...]:
    """What the terms of a condition say about a table's columns; `siblings` and `alone` as for `key_terms`."""
    if not isinstance(use.target, TableDef):
        return ()
    found = []
    for term in conjuncts(where):
        for name, sides in _term(term):
            column = column_named(name, use, siblings, alone=alone)
            column_type = None if column is None else use.type_of(column)
            if column is None or column_type is None:
                continue
            one = _range(column, column_type, sides, parameters)
            if one is not None:
                found.append(one)
    return tuple(found)


Sides = tuple[Sequence[exp.Expr], Sequence[exp.Expr], Sequence[exp.Expr]]
"""What a term's lower bound, upper bound and list of values are."""


def _term(term: exp.Expr) -> Iterator[tuple[exp.Column, Sides]]:
    if isinstance(term, exp.In):
        listed = term.expressions
        if isinstance(term.this, exp.Column) and listed and term.args.get("query") is None:
            yield term.this, ((), (), listed)
        return
    compared = comparison(term)
    if compared is None:
        return
    column, kind, values = compared
    if kind is exp.Between:
        yield column, (values[:1], values[1:], ())
    elif kind is exp.EQ:
        yield column, ((), (), values)
    elif kind in {exp.GT, exp.GTE}:
        yield column, (values, (), ())
    else:
        yield column, ((), values, ())


def _range(name: str, column_type: ColumnType, sides: Sides, parameters: Parameters) -> ColumnRange | None:
    low, high, among = ([_operand(column_type, node, parameters) for node in side] for side in sides)
    if any(side is None for side in (*low, *high, *among)):
        return None
    return ColumnRange(name, *(tuple(_present(side)) for side in (low, high, among)))


def _present(sides: Iterable[Operand | None]) -> Iterator[Operand]:
    return (side for side in sides if side is not None)


def _operand(column_type: ColumnType, node: exp.Expr, parameters: Parameters) -> Operand | None:
    """As `operand`, for more types: times as text or typed literals, numbers for FLOAT and DOUBLE."""
    found = operand(column_type, node, parameters)
    if found is not None or parameter_index(node) is not None:
        return found
    value = plain_value(node, column_type)
    if value is NOT_PLAIN or value is None:
        return None
    if column_type.kind in _FLOATS and isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        number = float(value)
        return Constant(number) if math.isfinite(number) else None
    if column_type.kind in _TIMES and isinstance(value, str):
        try:
            return Constant(from_literal(value, column_type, "", number=False))
        except SqlError:
            return None  # the query itself says what is wrong with it
    return None


def bounds_of(ranges: Sequence[ColumnRange], table: TableDef, values: Mapping[int, object]) -> dict[str, Bounds] | None:
    """The bounds of a scan with the values of one execution; None when there are none."""
    found: dict[str, Bounds] = {}
    for one in ranges:
        column_type = BIGINT if one.column in HIDDEN_COLUMNS else table.by_name[one.column].type
        before = found.get(one.column, Bounds())
        low = [before.low, *_values(one.low, column_type, values, -math.inf)]
        high = [before.high, *_values(one.high, column_type, values, math.inf)]
        among = before.among
        if one.among:
            least = _values(one.among, column_type, values, -math.inf)
            greatest = _values(one.among, column_type, values, math.inf)
            low += [min(least, default=None)]
            high += [max(greatest, default=None)]
            if before.among is None and column_type.kind not in _FLOATS and 1 < len(least) <= _MOST_VALUES:
                among = least
        found[one.column] = Bounds(
            max((v for v in low if v is not None), default=None),
            min((v for v in high if v is not None), default=None),
            among,
        )
    return found or None


def _values(
    operands: Sequence[Operand], column_type: ColumnType, values: Mapping[int, object], towards: float
) -> list[Any]:
    """The values that are not NULL, those of FLOAT and DOUBLE columns widened."""
    found = [side.value if isinstance(side, Constant) else values[side.index] for side in operands]
    return [_widened(value, column_type.kind, towards) for value in found if value is not None]


def _widened(value: object, kind: Kind, towards: float) -> object:
    if kind not in _FLOATS or not isinstance(value, (int, float)):
        return value
    if kind is Kind.DOUBLE:
        return math.nextafter(value, towards)
    with np.errstate(over="ignore"):
        return float(np.nextafter(np.float32(value), np.float32(towards)))
