"""CHECK constraints: what they may say, and whether rows keep them.

A check is a condition over the columns of its own table, the same for ever for the same row: no subqueries,
no aggregates, no parameters, no clock, no caller, no randomness. A row violates it when it is FALSE; NULL passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from sql.allowed_functions import VOLATILE_FUNCTIONS
from sql.errors import ExecutionError, SqlError
from sql.row_expressions import Binding, RowExpressions, Run
from sql.stored_text import expression_from_text, expression_to_text
from storage.catalog import ColumnDef, TableDef
from storage.types import Kind

_CHANGING = frozenset(VOLATILE_FUNCTIONS) | {
    "now", "current_timestamp", "current_date", "current_time", "current_user", "current_role", "session_user",
    "snowflake_id", "uuid_v7", "ulid", "today", "get_current_timestamp", "transaction_timestamp",
    "localtime", "localtimestamp", "age",
}  # fmt: skip
_REFUSED: tuple[tuple[type[exp.Expr] | tuple[type[exp.Expr], ...], str], ...] = (
    ((exp.Query, exp.Exists), "a subquery"),
    (exp.AggFunc, "an aggregate function"),
    (exp.Window, "a window function"),
    ((exp.Parameter, exp.Placeholder), "a parameter"),
    (exp.Star, "a star"),
    (
        (exp.CurrentTimestamp, exp.CurrentDate, exp.CurrentTime, exp.CurrentDatetime, exp.CurrentUser, exp.Rand,
         exp.Uuid),
        "a function that does not always give the same answer",
    ),
)  # fmt: skip


class CompiledCheck(NamedTuple):
    """A check, ready to be evaluated. `columns` are those that it reads."""

    name: str
    columns: tuple[str, ...]
    expressions: RowExpressions


def canonical_check(expression: exp.Expr) -> str:
    """The text of a check as the catalog keeps it."""
    return expression_to_text(expression)


def columns_of_check(text: str) -> frozenset[str]:
    """The columns that a stored check reads."""
    return frozenset(_columns(expression_from_text(text)))


def rename_in_check(text: str, old: str, new: str) -> str:
    """The stored check after a column was renamed."""
    expression = expression_from_text(text)
    for column in expression.find_all(exp.Column):
        if column.name == old:
            column.set("this", exp.to_identifier(new, quoted=True))
    return expression_to_text(expression)


def validate_check(expression: exp.Expr, columns: Sequence[ColumnDef], binding: Binding | None) -> None:
    """Raise ExecutionError unless the condition may be a check of a table with these columns."""
    text = expression_to_text(expression)
    for node in expression.walk():
        for kinds, what in _REFUSED:
            if isinstance(node, kinds):
                raise ExecutionError(f"Invalid operation: CHECK ({text}) contains {what}")
        if isinstance(node, exp.Func) and _function_name(node) in _CHANGING:
            raise ExecutionError(
                f"Invalid operation: CHECK ({text}) contains a function that does not always give the same answer"
            )
    known = {column.name for column in columns}
    used = _columns(expression)
    for name in used:
        if name not in known:
            raise ExecutionError(f"Invalid operation: CHECK ({text}) names '{name}', which is no column of the table")
    for column in expression.find_all(exp.Column):
        if column.table:
            raise ExecutionError(f"Invalid operation: CHECK ({text}) must name its columns without a table name")
    chosen = [column for column in columns if column.name in used]
    try:
        compiled = RowExpressions([expression], [(column.name, column.type) for column in chosen], binding).require()
    except SqlError as error:
        raise ExecutionError(f"Invalid operation: CHECK ({text}): {error.message}") from None
    if compiled.types[0].kind is not Kind.BOOLEAN:
        raise ExecutionError(f"Invalid operation: CHECK ({text}) is {compiled.types[0]}, not a condition")


def compile_checks(table: TableDef, binding: Binding | None) -> tuple[CompiledCheck, ...]:
    """The checks of a table."""
    compiled = []
    for check in table.checks:
        expression = expression_from_text(check.expression)
        used = _columns(expression)
        types = [(column.name, column.type) for column in table.columns if column.name in used]
        compiled.append(CompiledCheck(check.name, used, RowExpressions([expression], types, binding).require()))
    return tuple(compiled)


def check_rows(checks: Iterable[CompiledCheck], rows: pa.Table, run: Run) -> None:
    """Raise ExecutionError for the first row that violates a check. `rows` has the table's columns by name."""
    for check in checks:
        (kept,) = check.expressions.evaluate(rows, run)
        if pc.all(kept, skip_nulls=True, min_count=0).as_py():
            continue
        number = pc.index(kept, pa.scalar(False)).as_py() + 1
        raise check_violation(check.name, number)


def check_violation(name: str, row: int) -> ExecutionError:
    """The error for row `row` (from 1)."""
    return ExecutionError(f"Constraint violation: CHECK constraint violation: row {row} violates constraint '{name}'")


def _columns(expression: exp.Expr) -> tuple[str, ...]:
    return tuple(dict.fromkeys(column.name for column in expression.find_all(exp.Column)))


def _function_name(node: exp.Func) -> str:
    name = node.this if isinstance(node, exp.Anonymous) else node.sql_name()
    return str(name).lower()
