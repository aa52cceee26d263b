"""Which secondary indexes a condition can be answered with: equalities on the first columns, a range on the next.

As with the primary key (`sql.pushdown`), only top-level AND terms count that compare a column with a literal or a
parameter of exactly its type; the condition itself stays in the query, so an index only leaves out rows that it would
reject. Beside comparisons, `IN (…)`, `= ANY ($n)` and `IS NULL` are equalities.

Which index is used, if any, is decided when the statement runs, by counting entries (`sql.index_reads`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from sqlglot import exp

from sql.expression_nodes import text_as
from sql.plain import NOT_PLAIN, parameter_index, plain_value
from sql.plan import Bound, Constant, IndexAccess, ListRef, Operand
from sql.pushdown import _plain, column_named, comparison, conjuncts, operand
from sql.scope import TableUse
from storage.catalog import IndexState, TableDef
from storage.types import ColumnType, Kind

MAX_IN = 1_000
"""Longer lists of IN are not looked up."""
_EXACT_DOUBLE = 2**53
_TEMPORAL = frozenset((Kind.TIMESTAMP, Kind.DATETIME, Kind.DATE, Kind.TIME))
_LOWER = (exp.GT, exp.GTE)
EXACT = frozenset((
    Kind.BOOLEAN, Kind.SMALLINT, Kind.INT, Kind.BIGINT, Kind.TEXT, Kind.UUID, Kind.DATE, Kind.TIME, Kind.TIMESTAMP,
    Kind.DATETIME,
))  # fmt: skip
"""Kinds whose keys, unless they are cut, are equal exactly when the values are, and sort as the values do."""

Parameters = Mapping[int, tuple[ColumnType, bool]]
Choices = tuple[Operand | ListRef, ...]


@dataclass(slots=True)
class ColumnTerms:
    """What the condition says about columns. `terms` counts its AND terms, `whole` those that an equality says."""

    equal: dict[str, Choices] = field(default_factory=dict)
    low: dict[str, Bound] = field(default_factory=dict)
    high: dict[str, Bound] = field(default_factory=dict)
    terms: int = 0
    whole: set[str] = field(default_factory=set)


def indexed_columns(table: TableDef) -> dict[str, ColumnType]:
    """The columns that some index begins with or goes on with, and their types."""
    ids = {
        column_id
        for column_ids in (*(u.column_ids for u in table.uniques), *(i.column_ids for i in table.indexes))
        for column_id in column_ids
        if table.by_id[column_id].type.kind is not Kind.FLOAT
    }
    return {column.name: column.type for column in table.columns if column.column_id in ids}


def column_terms(
    where: exp.Expr | None, use: TableUse, siblings: Sequence[TableUse], parameters: Parameters, *, alone: bool
) -> ColumnTerms:
    """The comparisons of a table's indexed columns in a condition; arguments as for `sql.pushdown.key_terms`."""
    terms = ColumnTerms()
    if not isinstance(use.target, TableDef):
        return terms
    types = indexed_columns(use.target)
    if not types:
        return terms
    for term in conjuncts(where):
        terms.terms += 1
        found = _equality(term, parameters, types, use, siblings, alone=alone)
        if found is not None:
            if found[0] not in terms.equal:
                terms.equal[found[0]] = found[1]
                terms.whole.add(found[0])
            continue
        _note_range(terms, term, parameters, types, use, siblings, alone=alone)
    return terms


def _equality(
    term: exp.Expr,
    parameters: Parameters,
    types: Mapping[str, ColumnType],
    use: TableUse,
    siblings: Sequence[TableUse],
    *,
    alone: bool,
) -> tuple[str, Choices] | None:
    """(column, values) of `=`, IN, `= ANY ($n)` and IS NULL."""
    node: exp.Expr | None = None
    values: Sequence[exp.Expr] = ()
    if isinstance(term, exp.In) and not any(term.args.get(k) for k in ("query", "unnest", "field", "is_global")):
        node, values = _plain(term.this), term.expressions
    elif isinstance(term, exp.Is) and isinstance(_plain(term.expression), exp.Null):
        node = _plain(term.this)
        if not isinstance(node, exp.Column):
            return None
        name = column_named(node, use, siblings, alone=alone)
        return None if name is None or name not in types else (name, (Constant(None),))
    elif isinstance(term, exp.EQ) and isinstance(_plain(term.expression), exp.Any):
        node = _plain(term.this)
        index = parameter_index(_plain(term.expression).this)
        name = column_named(node, use, siblings, alone=alone) if isinstance(node, exp.Column) else None
        if index is None or name is None or name not in types or parameters.get(index) != (types[name], True):
            return None
        return name, (ListRef(index),)
    elif isinstance(term, exp.EQ):
        found = comparison(term)
        if found is None:
            return None
        node, values = found[0], found[2]
    if not isinstance(node, exp.Column) or not values or len(values) > MAX_IN:
        return None
    name = column_named(node, use, siblings, alone=alone)
    if name is None or name not in types:
        return None
    choices = [index_operand(types[name], value, parameters) for value in values]
    return None if None in choices else (name, tuple(choice for choice in choices if choice is not None))


def _note_range(
    terms: ColumnTerms,
    term: exp.Expr,
    parameters: Parameters,
    types: Mapping[str, ColumnType],
    use: TableUse,
    siblings: Sequence[TableUse],
    *,
    alone: bool,
) -> None:
    found = comparison(term)
    name = column_named(found[0], use, siblings, alone=alone) if found else None
    if found is None or name is None or name not in types:
        return
    _, kind, values = found
    sides: list[tuple[dict[str, Bound], exp.Expr, bool, int]] = []
    if kind in (exp.Between, exp.EQ):
        sides = [(terms.low, values[0], True, -1), (terms.high, values[-1], True, 1)]
    elif kind in _LOWER:
        sides = [(terms.low, values[0], kind is exp.GTE, -1)]
    else:
        sides = [(terms.high, values[0], kind is exp.LTE, 1)]
    for bounds, value, inclusive, outwards in sides:
        side = index_operand(types[name], value, parameters, outwards)
        if side is not None and name not in bounds:
            bounds[name] = Bound(side, inclusive)


def index_operand(column_type: ColumnType, node: exp.Expr, parameters: Parameters, outwards: int = 0) -> Operand | None:
    """A literal or parameter as a value of the column's type, else None.

    A decimal literal may not be a DOUBLE exactly: as the end of a range (`outwards` is -1 or 1) it becomes the
    next DOUBLE beyond it.
    """
    found = operand(column_type, node, parameters)
    if found is not None or parameter_index(node) is not None:
        return found
    value = plain_value(node, column_type)
    if value is NOT_PLAIN or value is None or isinstance(value, bool):
        return None
    if column_type.kind is Kind.DOUBLE and isinstance(value, (int, float, Decimal)):
        number = float(value)
        if isinstance(value, int) and abs(value) <= _EXACT_DOUBLE:
            return Constant(number)
        beyond = math.nextafter(number, math.inf * outwards) if outwards else math.inf
        return Constant(beyond) if math.isfinite(beyond) else None
    if column_type.kind in _TEMPORAL and isinstance(value, str):
        read = text_as(value, column_type)
        return None if read is None or read.row is None else Constant(read.row({}, ()))
    return None


def index_accesses(table: TableDef, terms: ColumnTerms) -> tuple[IndexAccess, ...]:
    """The indexes that the terms lead to rows by, the most promising first."""
    found = [access for access in _accesses(table, terms) if access is not None]
    return tuple(sorted(found, key=_rank))


def _accesses(table: TableDef, terms: ColumnTerms) -> Iterator[IndexAccess | None]:
    if not terms.equal and not terms.low and not terms.high:
        return
    for index in table.indexes:
        if index.state is IndexState.READY:
            names = [table.by_id[column_id].name for column_id in index.column_ids]
            yield index_access(index.index_id, index.name, names, terms, marked=True, unique=index.unique)
    for unique in table.uniques:
        columns = table.unique_columns(unique)
        names = [column.name for column in columns]
        access = index_access(unique.index_id, unique.name, names, terms, marked=False, unique=True)
        if access is None or any(Constant(None) in choices for choices in access.equal):
            continue
        depth = len(access.equal) + (access.low is not None or access.high is not None)
        if not any(column.nullable for column in columns[depth:]):  # rows with NULL are not in it
            yield access


def index_access(
    index_id: int, name: str, names: Sequence[str], terms: ColumnTerms, *, marked: bool, unique: bool
) -> IndexAccess | None:
    """The part of one index that the terms lead to, if any."""
    equal: list[Choices] = []
    for column in names:
        choices = terms.equal.get(column)
        if choices is None:
            low, high = terms.low.get(column), terms.high.get(column)
            if not equal and low is None and high is None:
                return None
            return IndexAccess(index_id, name, tuple(names), tuple(equal), low, high, marked=marked, unique=unique)
        equal.append(choices)
    return IndexAccess(index_id, name, tuple(names), tuple(equal), None, None, marked=marked, unique=unique)


def _rank(access: IndexAccess) -> tuple[bool, int, int, int]:
    whole = access.unique and len(access.equal) == len(access.columns)
    bounds = (access.low is not None) + (access.high is not None)
    return not whole, -len(access.equal), -bounds, access.index_id


def scan_indexes(
    where: exp.Expr | None, use: TableUse, siblings: Sequence[TableUse], parameters: Parameters, *, alone: bool
) -> tuple[IndexAccess, ...]:
    """The indexes that a condition leads to rows of one scan by."""
    if not isinstance(use.target, TableDef) or not (use.target.indexes or use.target.uniques):
        return ()
    return index_accesses(use.target, column_terms(where, use, siblings, parameters, alone=alone))


def exact_access(
    where: exp.Expr | None, use: TableUse, siblings: Sequence[TableUse], parameters: Parameters, *, alone: bool
) -> IndexAccess | None:
    """An index that says all that the condition says: each term pins one of its first columns to one value."""
    table = use.target
    if not isinstance(table, TableDef) or not (table.indexes or table.uniques):
        return None
    terms = column_terms(where, use, siblings, parameters, alone=alone)
    for access in index_accesses(table, terms):
        pinned = access.columns[: len(access.equal)]
        if (
            access.low is None
            and access.high is None
            and len(pinned) == terms.terms
            and terms.whole == set(pinned)
            and all(table.by_name[name].type.kind in EXACT for name in pinned)
            and all(_is_one_value(choices) for choices in access.equal)
        ):
            return access
    return None


def _is_one_value(choices: Choices) -> bool:
    return len(choices) == 1 and not isinstance(choices[0], ListRef) and choices[0] != Constant(None)
