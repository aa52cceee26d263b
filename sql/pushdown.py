"""What WHERE says about a primary key, for a scan to read less.

Only top-level AND terms that compare a key column with a literal or parameter of exactly its type count. They stay
in the query; pushing them only leaves out rows that they would reject, also below outer joins, because a comparison
with a value is never true for the NULLs that an outer join fills in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import TypeVar

from sqlglot import exp

from sql.plain import NOT_PLAIN, parameter_index, plain_value
from sql.plan import Bound, Constant, KeyAccess, Operand, ParameterRef
from sql.scope import TableUse
from sql.system_tables import SystemColumn, SystemTable
from sql.values import INT_RANGES
from storage.catalog import ColumnDef, TableDef
from storage.types import ColumnType, Kind

T = TypeVar("T")

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_LOWER = (exp.GT, exp.GTE)
_FLIPPED: dict[type[exp.Expr], type[exp.Expr]] = {
    exp.EQ: exp.EQ,
    exp.GT: exp.LT,
    exp.GTE: exp.LTE,
    exp.LT: exp.GT,
    exp.LTE: exp.GTE,
}
_WIDE = Context(prec=80)
NOT_PUSHED = frozenset((Kind.FLOAT, Kind.DOUBLE))
"""Key types whose equality has exceptions (-0.0 = 0.0)."""


@dataclass(slots=True)
class KeyTerms:
    """The comparisons found, by column; `others` counts the AND terms that are not one of them."""

    equal: dict[str, Operand] = field(default_factory=dict)
    low: dict[str, Bound] = field(default_factory=dict)
    high: dict[str, Bound] = field(default_factory=dict)
    others: int = 0


def conjuncts(node: exp.Expr | None) -> Iterator[exp.Expr]:
    """The terms of an AND chain, left to right."""
    stack = [node] if node is not None else []
    while stack:
        current = stack.pop()
        if isinstance(current, exp.Paren):
            stack.append(current.this)
        elif isinstance(current, exp.And):
            stack += [current.expression, current.this]
        else:
            yield current


def key_terms(
    where: exp.Expr | None,
    use: TableUse,
    siblings: Sequence[TableUse],
    parameters: Mapping[int, tuple[ColumnType, bool]],
    *,
    alone: bool,
) -> KeyTerms:
    """The comparisons of a table's key columns in a condition.

    `siblings` are the tables of the same FROM; `alone` says that nothing else stands there, so that an unqualified
    name of none of their columns but one is that column.
    """
    terms = KeyTerms()
    keys = {column.name: column.type for column in seek_columns(use.target) if column.type.kind not in NOT_PUSHED}
    if not keys:
        return terms
    for term in conjuncts(where):
        found = comparison(term)
        name = column_named(found[0], use, siblings, alone=alone) if found else None
        if found is None or name not in keys:
            terms.others += 1
            continue
        column_type = keys[name]
        _, kind, value = found
        if kind is exp.Between:
            low, high = (operand(column_type, part, parameters) for part in value)
            if low is None or high is None:
                terms.others += 1
            else:
                terms.others += _add(terms.low, name, Bound(low, inclusive=True))
                terms.others += _add(terms.high, name, Bound(high, inclusive=True))
            continue
        side = operand(column_type, value[0], parameters)
        if side is None:
            terms.others += 1
        elif kind is exp.EQ:
            terms.others += _add(terms.equal, name, side)
        else:
            bounds = terms.low if kind in _LOWER else terms.high
            terms.others += _add(bounds, name, Bound(side, inclusive=kind in {exp.GTE, exp.LTE}))
    return terms


def key_access(use: TableUse, terms: KeyTerms) -> KeyAccess | None:
    """The part of a key that the terms pin or bound, if any."""
    prefix: list[Operand] = []
    for column in seek_columns(use.target):
        side = terms.equal.get(column.name)
        if side is None:
            low, high = terms.low.get(column.name), terms.high.get(column.name)
            return KeyAccess(tuple(prefix), low, high) if prefix or low or high else None
        prefix.append(side)
    return KeyAccess(tuple(prefix)) if prefix else None


def seek_columns(table: TableDef | SystemTable) -> Sequence[ColumnDef | SystemColumn]:
    """The columns by which rows are found: the primary key, or those that a computed table names."""
    return table.key_columns if isinstance(table, TableDef) else table.seek_columns


def _add(found: dict[str, T], name: str, value: T) -> int:
    """Keep the first of several terms of one kind; returns 1 for one that is not kept."""
    if name in found:
        return 1
    found[name] = value
    return 0


def comparison(term: exp.Expr) -> tuple[exp.Column, type[exp.Expr], tuple[exp.Expr, ...]] | None:
    """A comparison as column, kind (with the column on the left) and what stands on the right."""
    if isinstance(term, exp.Between) and not term.args.get("symmetric"):
        column = _plain(term.this)
        if isinstance(column, exp.Column):
            return column, exp.Between, (term.args["low"], term.args["high"])
    kind = type(term)
    if kind not in _FLIPPED:
        return None
    left, right = _plain(term.this), _plain(term.expression)
    if isinstance(left, exp.Column) and not isinstance(right, exp.Column):
        return left, kind, (right,)
    if isinstance(right, exp.Column) and not isinstance(left, exp.Column):
        return right, _FLIPPED[kind], (left,)
    return None


def _plain(node: exp.Expr) -> exp.Expr:
    while isinstance(node, exp.Paren):
        node = node.this
    return node


def column_named(column: exp.Column, use: TableUse, siblings: Sequence[TableUse], *, alone: bool) -> str | None:
    """The name of a column of that table, if it is one."""
    name = column.name.lower()
    if column.args.get("db") is not None:
        return None
    if column.table:
        return name if column.table.lower() == use.alias else None
    owners = [sibling for sibling in siblings if sibling.type_of(name) is not None]
    return name if alone and owners == [use] else None


def operand(
    column_type: ColumnType, node: exp.Expr, parameters: Mapping[int, tuple[ColumnType, bool]]
) -> Operand | None:
    """A literal or parameter that means exactly a value of that type, else None."""
    index = parameter_index(node)
    if index is not None:
        return ParameterRef(index) if parameters.get(index) == (column_type, False) else None
    value = plain_value(node)
    if value is NOT_PLAIN or value is None:
        return None
    kind = column_type.kind
    if kind in INT_RANGES:
        low, high = INT_RANGES[kind]
        return Constant(value) if type(value) is int and low <= value <= high else None
    if kind is Kind.TEXT:
        return Constant(value) if isinstance(value, str) else None
    if kind is Kind.BOOLEAN:
        return Constant(value) if isinstance(value, bool) else None
    if kind is Kind.UUID:
        return (
            Constant(bytes.fromhex(value.replace("-", ""))) if isinstance(value, str) and _UUID.match(value) else None
        )
    if kind is Kind.DECIMAL and isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return _decimal(column_type, Decimal(value))
    return None


def _decimal(column_type: ColumnType, value: Decimal) -> Operand | None:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or -exponent > column_type.scale:
        return None
    if value.adjusted() >= column_type.precision - column_type.scale:
        return None
    return Constant(value.quantize(Decimal(1).scaleb(-column_type.scale), context=_WIDE))
