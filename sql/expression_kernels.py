"""What compiled expressions compute: each function builds a node from nodes whose types were already brought together.

Vectorised by `pyarrow.compute`; for one row in plain Python with the same results. NULL is None. In both forms whatever
DuckDB would report as an error, or might compute otherwise, raises NotCovered (Arrow's own errors are turned into it
by the caller).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sql.expression_nodes import Datum, Inputs, Node, NotCovered, Params, Row, RowFunction, boolean, is_float
from sql.values import INT_RANGES
from storage.types import ColumnType, Kind, arrow_type

_VECTOR_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": pc.equal, "<>": pc.not_equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal,
}  # fmt: skip
_ROW_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "<>": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def _all_rows(*nodes: Node) -> list[RowFunction] | None:
    """The row functions of all nodes, None if one has none."""
    rows = [node.row for node in nodes if node.row is not None]
    return rows if len(rows) == len(nodes) else None


def strict(function: Callable[..., object], *nodes: Node) -> RowFunction | None:
    """A row function that is NULL as soon as an operand is."""
    rows = _all_rows(*nodes)
    if rows is None:
        return None
    if len(rows) == 2:
        first, second = rows

        def apply_two(row: Row, params: Params) -> object:
            left, right = first(row, params), second(row, params)
            return None if left is None or right is None else function(left, right)

        return apply_two

    def apply(row: Row, params: Params) -> object:
        values = [each(row, params) for each in rows]
        return None if None in values else function(*values)

    return apply


def comparison(name: str, left: Node, right: Node) -> Node:
    """`left name right`, of one type."""
    compare = _VECTOR_COMPARISONS[name]

    def run(inputs: Inputs) -> Datum:
        return compare(left.run(inputs), right.run(inputs))

    return boolean(run, strict(_ROW_COMPARISONS[name], left, right))


def distinctness(left: Node, right: Node, *, distinct: bool) -> Node:
    """IS [NOT] DISTINCT FROM: NULL equals NULL and nothing else."""

    def run(inputs: Inputs) -> Datum:
        first, second = left.run(inputs), right.run(inputs)
        one_null = pc.xor(pc.is_null(first), pc.is_null(second))
        # Where both are NULL `not_equal` is NULL: not distinct. Where one is, `one_null` decides.
        differ = pc.or_(pc.fill_null(pc.not_equal(first, second), False), one_null)
        return differ if distinct else pc.invert(differ)

    rows = _all_rows(left, right)
    if rows is None:
        return boolean(run)
    first_row, second_row = rows

    def row_run(row: Row, params: Params) -> object:
        return (first_row(row, params) != second_row(row, params)) is distinct

    return boolean(run, row_run)


def null_test(node: Node) -> Node:
    """IS NULL."""
    inner = node.row
    row = None if inner is None else (lambda row, params: inner(row, params) is None)
    return boolean(lambda inputs: pc.is_null(node.run(inputs)), row)


def truth_test(node: Node, *, expected: bool) -> Node:
    """IS TRUE, IS FALSE."""

    def run(inputs: Inputs) -> Datum:
        value = pc.fill_null(node.run(inputs), not expected)
        return value if expected else pc.invert(value)

    inner = node.row
    return boolean(run, None if inner is None else (lambda row, params: inner(row, params) is expected))


def negation(node: Node) -> Node:
    """NOT."""
    return boolean(lambda inputs: pc.invert(node.run(inputs)), strict(operator.not_, node))


def conjunction(nodes: Sequence[Node]) -> Node:
    """AND with three values."""
    return _connective(nodes, pc.and_kleene, decisive=False)


def disjunction(nodes: Sequence[Node]) -> Node:
    """OR with three values."""
    return _connective(nodes, pc.or_kleene, decisive=True)


def _connective(nodes: Sequence[Node], combine: Callable[[Any, Any], Any], *, decisive: bool) -> Node:
    if len(nodes) == 1:
        return nodes[0]

    def run(inputs: Inputs) -> Datum:
        return reduce(combine, (node.run(inputs) for node in nodes))

    rows = _all_rows(*nodes)
    if rows is None:
        return boolean(run)

    def row_run(row: Row, params: Params) -> object:
        result: bool | None = not decisive
        for each in rows:
            value = each(row, params)
            if value is decisive:
                return decisive
            if value is None:
                result = None
        return result

    return boolean(run, row_run)


def membership(value: Node, options: Sequence[Node]) -> Node:
    """`value IN (options)`, all of one type."""
    any_of = disjunction([comparison("=", value, option) for option in options])
    if len(options) < 4:
        return any_of

    def run(inputs: Inputs) -> Datum:
        wanted = [option.run(inputs) for option in options]
        needle = value.run(inputs)
        if not all(isinstance(each, pa.Scalar) for each in wanted) or isinstance(needle, pa.Scalar):
            return any_of.run(inputs)
        valid = [each for each in wanted if each.is_valid]
        if pa.types.is_floating(needle.type) and any(each.as_py() == 0 for each in valid):
            valid += [pa.scalar(zero, needle.type) for zero in (0.0, -0.0)]  # equal, which is_in() does not know
        found = pc.is_in(needle, value_set=pa.array(valid, needle.type))
        if not all(each.is_valid for each in wanted):
            found = pc.if_else(found, True, pa.scalar(None, pa.bool_()))
        return pc.if_else(pc.is_valid(needle), found, pa.scalar(None, pa.bool_())) if needle.null_count else found

    return boolean(run, any_of.row)


def all_true(tested: Datum) -> bool:
    """Whether nothing is false; NULLs count as true."""
    if isinstance(tested, pa.Scalar):
        return tested.as_py() is not False
    return bool(pc.all(tested, min_count=0).as_py())


_VECTOR_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": pc.add_checked,
    "-": pc.subtract_checked,
    "*": pc.multiply_checked,
    "/": pc.divide_checked,
}
_ROW_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
}  # fmt: skip


def arithmetic(name: str, left: Node, right: Node, target: ColumnType) -> Node:
    """`left name right`; operands and result have the type `target`."""
    if name == "%":
        return Node(target, lambda inputs: _remainder(left.run(inputs), right.run(inputs)))
    compute = _VECTOR_ARITHMETIC[name]

    def run(inputs: Inputs) -> Datum:
        return _checked(compute(left.run(inputs), right.run(inputs)), target)

    return Node(target, run, strict(_row_arithmetic(name, target), left, right) if target.kind != Kind.FLOAT else None)


def _row_arithmetic(name: str, target: ColumnType) -> Callable[[Any, Any], object]:
    compute = quotient if name == "/" and target.kind in INT_RANGES else _ROW_ARITHMETIC[name]
    low, high = INT_RANGES.get(target.kind, (-float("inf"), float("inf")))
    integer = target.kind in INT_RANGES

    def apply(left: Any, right: Any) -> object:
        try:
            result = compute(left, right)
        except (ZeroDivisionError, OverflowError):
            raise NotCovered("division by zero") from None
        if low <= result <= high if integer else low < result < high:
            return result
        raise NotCovered("overflow")

    return apply


def quotient(left: int, right: int) -> int:
    """The quotient of integers, cut towards zero (Python's own division rounds down)."""
    cut = abs(left) // abs(right)
    return cut if (left < 0) == (right < 0) else -cut


def _checked(result: Datum, target: ColumnType) -> Datum:
    """The result of a floating-point operation if all of it is finite; integers are checked by Arrow."""
    if is_float(target) and not all_true(pc.is_finite(result)):
        raise NotCovered("not finite")
    return result


def _remainder(left: Any, right: Any) -> Datum:
    """Remainder of integers with the sign of the dividend; Arrow's division truncates."""
    return pc.subtract(left, pc.multiply(pc.divide_checked(left, right), right))


def negative(node: Node) -> Node:
    """Unary minus."""
    return _unary(node, pc.negate_checked, operator.neg)


def absolute(node: Node) -> Node:
    """ABS."""
    return _unary(node, pc.abs_checked, abs)


def _unary(node: Node, vector: Callable[[Any], Datum], scalar: Callable[[Any], Any]) -> Node:
    assert node.type is not None
    low, high = INT_RANGES.get(node.type.kind, (-float("inf"), float("inf")))

    def apply(value: Any) -> object:
        result = scalar(value)
        if low <= result <= high:
            return result
        raise NotCovered("overflow")

    return Node(node.type, lambda inputs: vector(node.run(inputs)), strict(apply, node))


def coalesce(nodes: Sequence[Node], target: ColumnType) -> Node:
    """The first operand that is not NULL; all have the type `target`."""

    def run(inputs: Inputs) -> Datum:
        return pc.coalesce(*(node.run(inputs) for node in nodes))

    rows = _all_rows(*nodes)
    if rows is None:
        return Node(target, run)

    def row_run(row: Row, params: Params) -> object:
        for each in rows:
            value = each(row, params)
            if value is not None:
                return value
        return None

    return Node(target, run, row_run)


def nullif(value: Node, equal: Node) -> Node:
    """NULL where `equal` is true, else `value`."""
    assert value.type is not None
    null = pa.scalar(None, arrow_type(value.type))

    def run(inputs: Inputs) -> Datum:
        return pc.if_else(pc.fill_null(equal.run(inputs), False), null, value.run(inputs))

    rows = _all_rows(value, equal)
    if rows is None:
        return Node(value.type, run)
    value_row, equal_row = rows
    return Node(value.type, run, lambda row, params: None if equal_row(row, params) else value_row(row, params))


def case(conditions: Sequence[Node], results: Sequence[Node], default: Node, target: ColumnType) -> Node:
    """The result of the first condition that is true; results and default have the type `target`.

    Over columns all branches are computed for all rows: an overflow in one that DuckDB would not reach raises
    NotCovered, never a wrong answer.
    """

    def run(inputs: Inputs) -> Datum:
        chosen = default.run(inputs)
        for condition, result in zip(reversed(conditions), reversed(results), strict=True):
            chosen = pc.if_else(pc.fill_null(condition.run(inputs), False), result.run(inputs), chosen)
        return chosen

    condition_rows, result_rows, default_row = _all_rows(*conditions), _all_rows(*results), default.row
    if condition_rows is None or result_rows is None or default_row is None:
        return Node(target, run)
    branches = list(zip(condition_rows, result_rows, strict=True))

    def row_run(row: Row, params: Params) -> object:
        for condition, result in branches:
            if condition(row, params):
                return result(row, params)
        return default_row(row, params)

    return Node(target, run, row_run)
