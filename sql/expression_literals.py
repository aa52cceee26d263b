"""Literals of SQL text as compiled nodes, and the types that a CAST may name."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from sqlglot import exp

from sql.expression_nodes import Node, constant, decimal_literal, integer_literal, text_literal
from storage.types import (
    BIGINT,
    BOOLEAN,
    BYTES,
    DATE,
    DATETIME,
    DOUBLE,
    FLOAT,
    INT,
    SMALLINT,
    TEXT,
    TIME,
    TIMESTAMP,
    UUID,
    ColumnType,
)

CAST_TARGETS: dict[exp.DType, ColumnType] = {
    exp.DType.BOOLEAN: BOOLEAN,
    exp.DType.SMALLINT: SMALLINT,
    exp.DType.INT: INT,
    exp.DType.BIGINT: BIGINT,
    exp.DType.FLOAT: FLOAT,
    exp.DType.DOUBLE: DOUBLE,
    exp.DType.TEXT: TEXT,
    exp.DType.VARCHAR: TEXT,
    exp.DType.DATE: DATE,
    exp.DType.TIME: TIME,
    exp.DType.TIMESTAMP: TIMESTAMP,
    exp.DType.TIMESTAMPNTZ: TIMESTAMP,
    exp.DType.TIMESTAMPTZ: DATETIME,
    exp.DType.UUID: UUID,
    exp.DType.VARBINARY: BYTES,
}
"""Types without parameters that an expression may be cast to."""


def literal(ast: exp.Literal) -> Node | None:
    """A number or a text as written."""
    text: str = ast.this
    if ast.is_string:
        return text_literal(text)
    if len(text) > 40:
        return None
    if text.isdecimal():
        return integer_literal(int(text))
    if "e" in text.lower():
        return constant(float(text), DOUBLE)
    return decimal_literal(text)


def negative_literal(ast: exp.Literal) -> Node | None:
    """A number with a minus in front, which DuckDB reads as one literal."""
    positive = literal(ast)
    if positive is None or positive.type is None:
        return None
    if isinstance(positive.literal, int):
        value = -positive.literal
        return replace(constant(value, positive.type), literal=value)  # -2147483648 is BIGINT, as without its sign
    if isinstance(positive.literal, Decimal):
        return decimal_literal(ast.this, negated=True)
    return constant(-float(ast.this), DOUBLE)
