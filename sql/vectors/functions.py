"""The distance functions in a query: COSINE_DISTANCE, L2_DISTANCE, DOT_DISTANCE, INNER_PRODUCT and the operator `<->`.

They become DuckDB's functions over 64-bit numbers, so that squares of 32-bit numbers cannot overflow and the answer is
that of `sql.vectors.metrics`. Where the dimension is known, by a column or a literal, both sides are arrays of it: then
a parameter has that type, and other lengths are refused before anything runs.

COSINE_DISTANCE is Float, as clients know it, and 1 where a norm is 0; the others are Double. All are NULL for NULL.
That is told apart first: DuckDB's functions trip over the elements of a NULL array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlglot import exp

from sql.errors import InvalidParameter
from sql.generate import text_of
from sql.outputs import sources
from sql.plain import NOT_PLAIN, parameter_index, plain_value
from sql.plan import Constant, Operand, ParameterRef
from sql.rewrite import function_name
from sql.scope import TableUse, invalid, renames_columns
from sql.values import converter
from storage.types import ColumnType, Kind, embedding
from storage.vector_definitions import VectorMetric

DISTANCE: Final = "headrace_distance"
"""Where the metadata of a rewritten node says what it was: a `Distance`."""

_TYPE: Final = "headrace_type"
"""Where the metadata of a parameter that is compared with an embedding says its type."""
_MOST = 8192


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance between a column and one embedding. `similar` tells that more is nearer."""

    use: TableUse
    column: str
    metric: VectorMetric
    vector: Operand
    similar: bool = False


@dataclass(frozen=True, slots=True)
class _Function:
    """What a function is in DuckDB, behind `array_` or `list_`."""

    name: str
    duck: str
    metric: VectorMetric
    similar: bool = False


_FUNCTIONS: Final = {
    "cosine_distance": _Function("COSINE_DISTANCE", "cosine_distance", VectorMetric.COSINE),
    "l2_distance": _Function("L2_DISTANCE", "distance", VectorMetric.L2),
    "dot_distance": _Function("DOT_DISTANCE", "negative_inner_product", VectorMetric.DOT),
    "inner_product": _Function("INNER_PRODUCT", "inner_product", VectorMetric.DOT, similar=True),
}
NAMES: Final = tuple(function.name for function in _FUNCTIONS.values())
"""The functions, as documentation lists them."""


def rewrite_distances(tree: exp.Expr, uses: Sequence[TableUse]) -> exp.Expr:
    """Replace the distance functions; the tables are resolved. Raises InvalidSql for what is no embedding."""
    for node in list(tree.find_all(exp.Func, exp.Distance)):
        name = function_name(node) if isinstance(node, exp.Func) else "l2_distance"  # of the operator <->
        function = _FUNCTIONS.get(name)
        if function is None:
            continue
        arguments = _arguments(node)
        if len(arguments) != 2:
            raise invalid(f"{function.name}(a, b) takes two embeddings.", node)
        replacement = _rewritten(function, arguments, node, uses)
        replacement.meta.update(node.meta)
        if node is tree:
            tree = replacement
        else:
            node.replace(replacement)
    return tree


def embedding_parameters(tree: exp.Expr) -> dict[int, tuple[ColumnType, bool]]:
    """The types of the parameters that are compared with embeddings, as `sql.generate.ParameterTypes`."""
    found: dict[int, tuple[ColumnType, bool]] = {}
    for node in tree.find_all(exp.Placeholder):
        kind, index = node.meta.get(_TYPE) if node.meta else None, parameter_index(node)
        if isinstance(kind, ColumnType) and index is not None and found.setdefault(index, (kind, False))[0] != kind:
            raise invalid(f"${index} is compared with embeddings of {found[index][0]} and of {kind}.", node)
    return found


def _arguments(node: exp.Expr) -> list[exp.Expr]:
    if isinstance(node, exp.Anonymous):
        return list(node.expressions)
    return [part for part in (node.this, node.args.get("expression")) if isinstance(part, exp.Expr)]


def _rewritten(
    function: _Function, arguments: Sequence[exp.Expr], node: exp.Expr, uses: Sequence[TableUse]
) -> exp.Expr:
    columns = [embedding_column(argument, uses) for argument in arguments]
    sizes = [known[0].column_types[known[1]].dimension if known else None for known in columns]
    literals = [None if known else literal_vector(argument) for known, argument in zip(columns, arguments, strict=True)]
    sizes = [
        len(literal) if size is None and literal is not None else size
        for size, literal in zip(sizes, literals, strict=True)
    ]
    given = {size for size in sizes if size is not None}
    if len(given) > 1:
        raise invalid(
            f"{function.name} compares embeddings of the same number of dimensions, not of {sizes[0]} and {sizes[1]}.",
            node,
        )
    dimension = given.pop() if given else None
    array = (
        dimension is not None
        and 0 < dimension <= _MOST
        and all(
            size is not None or parameter_index(argument) is not None
            for size, argument in zip(sizes, arguments, strict=True)
        )
    )
    suffix = f"[{dimension}]" if array else "[]"
    for argument in arguments:
        if array and parameter_index(argument) is not None:
            argument.meta[_TYPE] = embedding(dimension or 0)
    sides = [_as(_as(argument.copy(), f"FLOAT{suffix}"), f"DOUBLE{suffix}") for argument in arguments]
    name = f"{'array' if array else 'list'}_{function.duck}"
    distance: exp.Expr = exp.Anonymous(this=name, expressions=sides)
    null = exp.or_(*(exp.Is(this=argument.copy(), expression=exp.Null()) for argument in arguments))
    cases = [exp.If(this=null, true=exp.Null())]
    if function.metric is VectorMetric.COSINE:
        alone = exp.Anonymous(this="isnan", expressions=[distance.copy()])
        cases.append(exp.If(this=alone, true=exp.Literal.number("1.0")))
    result = exp.cast(
        exp.Case(ifs=cases, default=distance), "FLOAT" if function.metric is VectorMetric.COSINE else "DOUBLE"
    )
    for place, other in ((0, 1), (1, 0)):
        known = columns[place]
        operand = _operand(arguments[other], literals[other])
        if array and known is not None and operand is not None:
            result.meta[DISTANCE] = Distance(known[0], known[1], function.metric, operand, function.similar)
    return result


def _as(node: exp.Expr, kind: str) -> exp.Expr:
    """A cast; `exp.cast` takes one array for the other."""
    return exp.Cast(this=node, to=exp.DataType.build(kind, dialect="duckdb"))


def embedding_column(node: exp.Expr, uses: Sequence[TableUse]) -> tuple[TableUse, str] | None:
    """The table and the name of an EMBEDDING column, where only one can be meant."""
    while isinstance(node, exp.Paren):
        node = node.this
    if not isinstance(node, exp.Column) or node.args.get("catalog") is not None:
        return None
    name, table = node.name.lower(), node.table.lower()
    select = node.find_ancestor(exp.Select)
    if select is None or node.find_ancestor(exp.Lambda) is not None:
        return None
    if not table and not sources(select, uses)[1]:
        return None  # something else than tables stands in FROM, and may have such a column
    of_select = [use for use in uses if use.select is select and not renames_columns(use.node)]
    found = [use for use in of_select if use.type_of(name) is not None and table in {"", use.alias}]
    if len(found) != 1:
        return None
    kind = found[0].type_of(name)
    return (found[0], name) if kind is not None and kind.kind is Kind.EMBEDDING else None


def literal_vector(node: exp.Expr) -> list[float] | None:
    """The numbers of a literal: `'[1, 2]'` or `[1, 2]`, perhaps with a cast to an embedding's type."""
    while isinstance(node, (exp.Paren, exp.Cast)):
        node = node.this
    value: object
    if isinstance(node, exp.Array):
        numbers = [plain_value(item) for item in node.expressions]
        if NOT_PLAIN in numbers or any(isinstance(number, (str, bool)) or number is None for number in numbers):
            return None
        value = [float(str(number)) for number in numbers]
    else:
        value = plain_value(node)
        if not isinstance(value, str):
            return None
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            raise invalid(
                f"An embedding is an array of numbers such as '[0.1, 0.2]', not {text_of(node)[:40]}.", node
            ) from None
    size = len(value) if isinstance(value, list) else 0
    try:
        found = converter(embedding(size), "$1")(value)
    except InvalidParameter:
        raise invalid("An embedding is an array of finite 32-bit numbers such as '[0.1, 0.2]'.", node) from None
    assert isinstance(found, list)
    return found


def _operand(node: exp.Expr, literal: list[float] | None) -> Operand | None:
    index = parameter_index(node)
    if index is not None:
        return ParameterRef(index)
    return None if literal is None else Constant(literal)
