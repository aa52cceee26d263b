"""Expressions that the catalog keeps as text (DEFAULT, CHECK): one canonical spelling, written and read back here."""

from __future__ import annotations

from sqlglot import exp

from sql.dialect import parse_expression

_GENERATED = "duckdb"


def expression_to_text(expression: exp.Expr) -> str:
    """The canonical SQL text of an expression."""
    return expression.sql(dialect=_GENERATED)


def expression_from_text(text: str) -> exp.Expression:
    """The expression of a canonical text."""
    return parse_expression(text)
