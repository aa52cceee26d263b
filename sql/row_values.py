"""Comparisons of row values, `(a, b) = (c, d)`, spelled out column by column.

DuckDB compares them as structs, where NULL is a value like others: `(1, NULL) = (1, NULL)` is true there. In the SQL
standard and in PostgreSQL it is NULL, and so it is here. Spelled out, they also reach the primary key and hash joins as
any comparison of columns does.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

_STRICT: dict[type[exp.Expr], type[exp.Binary]] = {exp.LT: exp.LT, exp.LTE: exp.LT, exp.GT: exp.GT, exp.GTE: exp.GT}


def spell_out_rows(tree: exp.Expr) -> exp.Expr:
    """Replace comparisons and IN lists of row values of the same length in a tree, which is changed."""
    for node in reversed(list(tree.find_all(exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.In))):
        replacement = _spelled_out(node)
        if replacement is None:
            continue
        if node is tree:
            tree = replacement
        else:
            node.replace(replacement)
    return tree


def _spelled_out(node: exp.Expr) -> exp.Expr | None:
    left = _row(node.this)
    if left is None:
        return None
    if isinstance(node, exp.In):
        rows = [_row(item) for item in node.expressions]
        if not rows or any(row is None or len(row) != len(left) for row in rows):
            return None
        return _joined(exp.Or, [_equal(left, row) for row in rows if row is not None])
    right = _row(node.expression)
    if right is None or len(right) != len(left):
        return None
    if isinstance(node, exp.EQ):
        return _equal(left, right)
    if isinstance(node, exp.NEQ):
        pairs = zip(left, right, strict=True)
        return _joined(exp.Or, [exp.NEQ(this=one.copy(), expression=other.copy()) for one, other in pairs])
    return _ordered(type(node), left, right)


def _row(node: exp.Expr | None) -> Sequence[exp.Expr] | None:
    """The parts of a row value of two or more."""
    return node.expressions if isinstance(node, exp.Tuple) and len(node.expressions) > 1 else None


def _equal(left: Sequence[exp.Expr], right: Sequence[exp.Expr]) -> exp.Expr:
    pairs = zip(left, right, strict=True)
    return _joined(exp.And, [exp.EQ(this=one.copy(), expression=other.copy()) for one, other in pairs])


def _ordered(kind: type[exp.Expr], left: Sequence[exp.Expr], right: Sequence[exp.Expr]) -> exp.Expr:
    """`a < c OR (a = c AND (b < d))`: the first parts that differ decide, or are NULL and leave it unknown."""
    one, other = left[0], right[0]
    if len(left) == 1:
        last: exp.Expr = kind(this=one.copy(), expression=other.copy())
        return last
    strict = _STRICT[kind](this=one.copy(), expression=other.copy())
    equal = exp.EQ(this=one.copy(), expression=other.copy())
    rest = exp.Paren(this=exp.And(this=equal, expression=_ordered(kind, left[1:], right[1:])))
    return exp.Paren(this=exp.Or(this=strict, expression=rest))


def _joined(word: type[exp.Connector], terms: Sequence[exp.Expr]) -> exp.Expr:
    """Terms under AND or OR, as a tree that is not deep however many they are."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return exp.Paren(this=word(this=_joined(word, terms[:middle]), expression=_joined(word, terms[middle:])))
