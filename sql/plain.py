"""Plain values in SQL: literals that need no evaluation, as the Python values that `sql.values` converts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from sqlglot import exp

from sql.errors import InvalidParameter
from storage.types import ColumnType, Kind

LONGEST_NUMBER = 400
"""Digits of a number literal; longer ones fit no type."""

_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,6})?", re.ASCII)


class NotPlain:
    """The type of NOT_PLAIN."""

    __slots__ = ()


NOT_PLAIN: Final = NotPlain()
"""What `plain_value` gives for an expression that has to be evaluated."""


_TYPED_TEXTS = {
    exp.DType.DATE: Kind.DATE,
    exp.DType.TIMESTAMP: Kind.TIMESTAMP,
    exp.DType.TIMESTAMPNTZ: Kind.TIMESTAMP,
    exp.DType.TIMESTAMPTZ: Kind.DATETIME,
    exp.DType.TIME: Kind.TIME,
    exp.DType.UUID: Kind.UUID,
    exp.DType.JSON: Kind.JSON,
    exp.DType.TEXT: Kind.TEXT,
    exp.DType.VARCHAR: Kind.TEXT,
}


def plain_value(node: exp.Expr, target: ColumnType | None = None) -> object:
    """The value of a literal (NULL is None), or NOT_PLAIN. Numbers keep every digit: int or Decimal.

    With `target`, a text cast to just that type (`DATE '2025-01-31'`) is plain too: the column reads it alike.
    """
    if isinstance(node, exp.Literal):
        return node.this if node.is_string else _number(node.this)
    if isinstance(node, exp.Null):
        return None
    if isinstance(node, exp.Boolean):
        return bool(node.this)
    if isinstance(node, exp.Neg):
        return _negated(node.this)
    if isinstance(node, exp.Paren):
        return plain_value(node.this, target)
    if isinstance(node, exp.HexString):
        return _bytes(node.this)
    if isinstance(node, exp.Unhex) and isinstance(node.this, exp.Literal) and node.this.is_string:
        return _bytes(node.this.this)
    if isinstance(node, exp.Cast) and target is not None and not isinstance(node, exp.TryCast):
        text = isinstance(node.this, exp.Literal) and node.this.is_string
        return node.this.this if text and _TYPED_TEXTS.get(node.to.this) is target.kind else NOT_PLAIN
    if isinstance(node, exp.Array):
        return _array(node)
    return NOT_PLAIN


def parameter_index(node: exp.Expr) -> int | None:
    """The n of `$n`, None for anything else."""
    if isinstance(node, exp.Paren):
        return parameter_index(node.this)
    if isinstance(node, (exp.Parameter, exp.Placeholder)):
        name = node.this.this if isinstance(node.this, exp.Expr) else node.this
        if isinstance(name, int):
            return name
        if isinstance(name, str) and name.isdecimal() and len(name) < 7:
            return int(name)
    return None


def parameter(params: Sequence[object], index: int) -> object:
    """The value of `$index`."""
    if not 0 < index <= len(params):
        raise InvalidParameter(f"Parameter ${index} is missing: the request has {len(params)} parameter(s)")
    return params[index - 1]


def is_default_keyword(node: exp.Expr) -> bool:
    """Whether an expression is the bare word DEFAULT (a quoted "default" is a column)."""
    if isinstance(node, exp.Column) and len(node.parts) == 1:
        identifier = node.this
        return isinstance(identifier, exp.Identifier) and not identifier.quoted and identifier.name.upper() == "DEFAULT"
    return isinstance(node, exp.Var) and node.name.upper() == "DEFAULT"


def _number(text: str) -> object:
    if len(text) > LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        return NOT_PLAIN
    return int(text) if text.isdecimal() else Decimal(text)


def _negated(node: exp.Expr) -> object:
    if not isinstance(node, exp.Literal) or node.is_string:
        return NOT_PLAIN
    number = _number(node.this)
    if isinstance(number, Decimal):
        return number.copy_negate()  # a minus sign would round to 28 digits
    return -number if isinstance(number, int) else NOT_PLAIN


def _bytes(text: str) -> object:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return NOT_PLAIN


def _array(node: exp.Array) -> object:
    """A list of numbers, as EMBEDDING takes it."""
    values = []
    for element in node.expressions:
        value = plain_value(element)
        if isinstance(value, Decimal):
            value = float(value)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return NOT_PLAIN
        values.append(value)
    return values
