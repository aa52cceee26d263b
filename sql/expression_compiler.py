"""From sqlglot's syntax tree to compiled nodes: one function for each kind of expression, None for the rest.

A compiler accepts only the arguments that it knows; a node that carries any other one (ESCAPE, SYMMETRIC, an
ORDER BY within a function) is not covered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlglot import exp

from sql import expression_kernels as kernels
from sql import expression_texts as texts
from sql.expression_literals import CAST_TARGETS, literal, negative_literal
from sql.expression_nodes import (
    UNTYPED_NULL,
    Node,
    cast_to,
    column,
    common,
    constant,
    is_float,
    is_integer,
    parameter,
    text_as,
    wider,
)
from storage.types import (
    BOOLEAN,
    TEXT,
    ColumnType,
    Kind,
)

MAX_DEPTH = 100
"""Nesting beyond which an expression is left to DuckDB."""


class Scope:
    """What names mean while compiling; `used` collects the keys of the columns that were named."""

    def __init__(self, columns: Mapping[str, ColumnType], parameters: Mapping[int, ColumnType]) -> None:
        self.columns = columns
        self.parameters = parameters
        self.used: set[str] = set()
        self.depth = 0


def compile_node(ast: exp.Expr, scope: Scope) -> Node | None:
    """The compiled form of any expression, None where it is not covered."""
    compiler = _COMPILERS.get(type(ast))
    if compiler is None or scope.depth >= MAX_DEPTH:
        return None
    scope.depth += 1
    try:
        return compiler(ast, scope)
    finally:
        scope.depth -= 1


def _operands(asts: Sequence[exp.Expr], scope: Scope) -> list[Node] | None:
    nodes = []
    for ast in asts:
        node = compile_node(ast, scope)
        if node is None:
            return None
        nodes.append(node)
    return nodes


def _plain(ast: exp.Expr, *known: str) -> bool:
    """Whether the node has no arguments but the known ones; `safe` and the like carry no meaning for us."""
    ignored = ("safe", "coalesce", "return_zero_if_null", "_type")
    return all(name in known or name in ignored or value in (None, False, []) for name, value in ast.args.items())


def _column(ast: exp.Column, scope: Scope) -> Node | None:
    if not _plain(ast, "this", "table") or not isinstance(ast.this, exp.Identifier):
        return None
    key = f"{ast.table}.{ast.name}" if ast.table else ast.name
    column_type = scope.columns.get(key)
    if column_type is None:
        return None
    scope.used.add(key)
    return column(key, column_type)


def _parameter(ast: exp.Expr, scope: Scope) -> Node | None:
    index = int(ast.name) if ast.name.isdecimal() else 0
    column_type = scope.parameters.get(index)
    return None if column_type is None else parameter(index, column_type)


def _boolean(ast: exp.Boolean, scope: Scope) -> Node | None:
    return constant(bool(ast.this), BOOLEAN)


def _null(ast: exp.Null, scope: Scope) -> Node | None:
    return UNTYPED_NULL


def _paren(ast: exp.Paren, scope: Scope) -> Node | None:
    return compile_node(ast.this, scope)


def _logical(combine: Callable[[Sequence[Node]], Node]) -> Callable[[exp.Expr, Scope], Node | None]:
    def compile_logical(ast: exp.Expr, scope: Scope) -> Node | None:
        assert isinstance(ast, (exp.And, exp.Or))
        operands = [_condition(operand, scope) for operand in ast.flatten()]
        known = [node for node in operands if node is not None]
        return combine(known) if len(known) == len(operands) else None

    return compile_logical


def _condition(ast: exp.Expr, scope: Scope) -> Node | None:
    """An operand that has to be BOOLEAN (NULL counts as one)."""
    node = compile_node(ast, scope)
    if node is None or (node.type is not None and node.type.kind is not Kind.BOOLEAN):
        return None
    return cast_to(node, BOOLEAN)


def _not(ast: exp.Not, scope: Scope) -> Node | None:
    node = _condition(ast.this, scope)
    return None if node is None else kernels.negation(node)


def _is(ast: exp.Is, scope: Scope) -> Node | None:
    if not _plain(ast, "this", "expression"):
        return None
    if isinstance(ast.expression, exp.Null):
        node = compile_node(ast.this, scope)
        return None if node is None else kernels.null_test(node)
    if isinstance(ast.expression, exp.Boolean):
        node = _condition(ast.this, scope)
        return None if node is None else kernels.truth_test(node, expected=bool(ast.expression.this))
    return None


_NOT_COMPARED = frozenset({Kind.JSON, Kind.FILE, Kind.EMBEDDING})


def _compared(asts: Sequence[exp.Expr], scope: Scope) -> list[Node] | None:
    """Operands in the type in which DuckDB compares them."""
    nodes = _operands(asts, scope)
    merged = None if nodes is None else common(nodes)
    if merged is None or merged[1].kind in _NOT_COMPARED:
        return None
    return merged[0]


def _comparison(operator: str) -> Callable[[exp.Expr, Scope], Node | None]:
    def compile_comparison(ast: exp.Expr, scope: Scope) -> Node | None:
        nodes = _compared([ast.this, ast.expression], scope) if _plain(ast, "this", "expression") else None
        return None if nodes is None else kernels.comparison(operator, *nodes)

    return compile_comparison


def _distinctness(*, distinct: bool) -> Callable[[exp.Expr, Scope], Node | None]:
    def compile_distinctness(ast: exp.Expr, scope: Scope) -> Node | None:
        nodes = _compared([ast.this, ast.expression], scope) if _plain(ast, "this", "expression") else None
        return None if nodes is None else kernels.distinctness(*nodes, distinct=distinct)

    return compile_distinctness


def _negated(ast: exp.Expr, node: Node) -> Node:
    return kernels.negation(node) if ast.args.get("negate") else node


def _between(ast: exp.Between, scope: Scope) -> Node | None:
    if not _plain(ast, "this", "low", "high", "negate"):
        return None
    nodes = _compared([ast.this, ast.args["low"], ast.args["high"]], scope)
    if nodes is None:
        return None
    value, low, high = nodes
    both = kernels.conjunction([kernels.comparison(">=", value, low), kernels.comparison("<=", value, high)])
    return _negated(ast, both)


def _in(ast: exp.In, scope: Scope) -> Node | None:
    if not _plain(ast, "this", "expressions", "negate") or not ast.expressions:
        return None
    nodes = _compared([ast.this, *ast.expressions], scope)
    return None if nodes is None else _negated(ast, kernels.membership(nodes[0], nodes[1:]))


def _like(*, folded: bool) -> Callable[[exp.Expr, Scope], Node | None]:
    def compile_like(ast: exp.Expr, scope: Scope) -> Node | None:
        if not _plain(ast, "this", "expression", "negate"):
            return None
        nodes = _operands([ast.this, ast.expression], scope)
        if nodes is None or any(node.type != TEXT for node in nodes) or isinstance(ast.expression, exp.Column):
            return None
        return _negated(ast, texts.like(nodes[0], nodes[1], folded=folded))

    return compile_like


def _arithmetic(operator: str) -> Callable[[exp.Expr, Scope], Node | None]:
    def compile_arithmetic(ast: exp.Expr, scope: Scope) -> Node | None:
        nodes = _operands([ast.this, ast.expression], scope) if _plain(ast, "this", "expression") else None
        if nodes is None or any(node.type is None or isinstance(node.literal, str) for node in nodes):
            return None
        merged = common(nodes, for_result=True)
        if merged is None:
            return None
        (left, right), target = merged
        if is_integer(target) or (is_float(target) and operator != "%"):
            return kernels.arithmetic(operator, left, right, target)
        return None

    return compile_arithmetic


def _negative(ast: exp.Neg, scope: Scope) -> Node | None:
    inner = ast.this
    if isinstance(inner, exp.Literal) and not inner.is_string:
        return negative_literal(inner)
    node = compile_node(inner, scope)
    if node is None or node.is_literal or not (is_integer(node.type) or is_float(node.type)):
        return None
    return kernels.negative(node)


def _absolute(ast: exp.Abs, scope: Scope) -> Node | None:
    node = compile_node(ast.this, scope) if _plain(ast, "this") else None
    if node is None or node.is_literal or not (is_integer(node.type) or is_float(node.type)):
        return None
    return kernels.absolute(node)


def _concatenation(ast: exp.DPipe, scope: Scope) -> Node | None:
    nodes = _operands([ast.this, ast.expression], scope) if _plain(ast, "this", "expression") else None
    if nodes is None or not any(node.type == TEXT for node in nodes):
        return None
    left, right = map(_as_text, nodes)
    return None if left is None or right is None else texts.concatenation(left, right)


def _as_text(node: Node) -> Node | None:
    if node.type == TEXT:
        return node
    return texts.integer_text(node) if is_integer(node.type) else None


def _text_function(build: Callable[[Node], Node]) -> Callable[[exp.Expr, Scope], Node | None]:
    def compile_text_function(ast: exp.Expr, scope: Scope) -> Node | None:
        node = compile_node(ast.this, scope) if _plain(ast, "this") else None
        return build(node) if node is not None and node.type == TEXT else None

    return compile_text_function


def _coalesce(ast: exp.Coalesce, scope: Scope) -> Node | None:
    nodes = _operands([ast.this, *ast.expressions], scope) if _plain(ast, "this", "expressions") else None
    merged = None if nodes is None else common(nodes, for_result=True)
    return None if merged is None else kernels.coalesce(*merged)


def _nullif(ast: exp.Nullif, scope: Scope) -> Node | None:
    nodes = _operands([ast.this, ast.expression], scope) if _plain(ast, "this", "expression") else None
    merged = None if nodes is None else common(nodes)
    if nodes is None or merged is None or merged[1].kind in _NOT_COMPARED or nodes[0].is_literal:
        return None
    (left, right), _ = merged
    return None if nodes[0].type is None else kernels.nullif(nodes[0], kernels.comparison("=", left, right))


def _case(ast: exp.Case, scope: Scope) -> Node | None:
    if not _plain(ast, "this", "ifs", "default"):
        return None
    branches = ast.args["ifs"]
    conditions = [_when(ast.this, branch.this, scope) for branch in branches]
    results = _operands([branch.args["true"] for branch in branches], scope)
    default = compile_node(ast.args["default"], scope) if ast.args.get("default") is not None else UNTYPED_NULL
    if results is None or default is None:
        return None
    merged = common([*results, default], for_result=True)
    tests = [condition for condition in conditions if condition is not None]
    if merged is None or len(tests) < len(conditions):
        return None
    values, target = merged
    return kernels.case(tests, values[:-1], values[-1], target)


def _when(operand: exp.Expr | None, test: exp.Expr, scope: Scope) -> Node | None:
    if operand is None:
        return _condition(test, scope)
    nodes = _compared([operand, test], scope)
    return None if nodes is None else kernels.comparison("=", *nodes)


def _if(ast: exp.If, scope: Scope) -> Node | None:
    return _case(exp.Case(ifs=[ast.copy()], default=ast.args.get("false")), scope)


def _cast(ast: exp.Cast, scope: Scope) -> Node | None:
    to = ast.args["to"]
    target = CAST_TARGETS.get(to.this) if not to.expressions else None
    node = compile_node(ast.this, scope) if _plain(ast, "this", "to") else None
    if node is None or target is None:
        return None
    if isinstance(node.literal, str):
        return text_as(node.literal, target)
    if node.type is None or node.type == target or (_is_number(node.type) and wider(node.type, target) == target):
        return cast_to(node, target)
    return texts.integer_text(node) if target == TEXT and is_integer(node.type) else None


def _is_number(column_type: ColumnType) -> bool:
    return is_integer(column_type) or is_float(column_type)


_COMPILERS: dict[type[exp.Expr], Callable[[Any, Scope], Node | None]] = {
    exp.Column: _column,
    exp.Placeholder: _parameter,
    exp.Literal: lambda ast, scope: literal(ast),
    exp.Boolean: _boolean,
    exp.Null: _null,
    exp.Paren: _paren,
    exp.And: _logical(kernels.conjunction),
    exp.Or: _logical(kernels.disjunction),
    exp.Not: _not,
    exp.Is: _is,
    exp.EQ: _comparison("="),
    exp.NEQ: _comparison("<>"),
    exp.LT: _comparison("<"),
    exp.LTE: _comparison("<="),
    exp.GT: _comparison(">"),
    exp.GTE: _comparison(">="),
    exp.NullSafeEQ: _distinctness(distinct=False),
    exp.NullSafeNEQ: _distinctness(distinct=True),
    exp.Between: _between,
    exp.In: _in,
    exp.Like: _like(folded=False),
    exp.ILike: _like(folded=True),
    exp.Add: _arithmetic("+"),
    exp.Sub: _arithmetic("-"),
    exp.Mul: _arithmetic("*"),
    exp.Div: _arithmetic("/"),
    exp.Mod: _arithmetic("%"),
    exp.Neg: _negative,
    exp.Abs: _absolute,
    exp.DPipe: _concatenation,
    exp.Lower: _text_function(texts.lower),
    exp.Upper: _text_function(texts.upper),
    exp.Length: _text_function(texts.length),
    exp.Coalesce: _coalesce,
    exp.Nullif: _nullif,
    exp.Case: _case,
    exp.If: _if,
    exp.Cast: _cast,
}
