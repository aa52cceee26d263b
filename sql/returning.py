"""RETURNING: expressions over the rows that a statement wrote or removed."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
from sqlglot import exp

from sql.errors import InvalidSql, Unsupported
from sql.parser_names import KEPT_NAMES
from sql.plan import HIDDEN_COLUMNS
from sql.result_columns import table_column
from sql.results import ResultColumn, StatementResult
from sql.row_expressions import Binding, RowExpressions, Run, unqualified
from sql.scope import is_star, star_qualifier
from sql.write_targets import located
from storage.catalog import TableDef


class _Output(NamedTuple):
    """One output: a column of the table, or the expression number `slot`."""

    name: str
    column: str | None
    slot: int


class Returning(NamedTuple):
    """A planned RETURNING list."""

    outputs: tuple[_Output, ...]
    expressions: RowExpressions
    table: TableDef

    @property
    def inline(self) -> bool:
        """Whether it needs no query engine."""
        return self.expressions.inline

    @property
    def columns(self) -> tuple[ResultColumn, ...]:
        """The result's columns."""
        return tuple(
            table_column(self.table, output.column, output.name)
            if output.column is not None
            else ResultColumn(output.name, self.expressions.types[output.slot])
            for output in self.outputs
        )

    def result(self, rows: pa.Table, run: Run) -> StatementResult:
        """The result for these rows (all columns of the table, by name)."""
        computed = self.expressions.evaluate(rows, run)
        arrays = [
            rows.column(output.column) if output.column is not None else computed[output.slot]
            for output in self.outputs
        ]
        table = pa.Table.from_arrays(arrays, names=[output.name for output in self.outputs])
        return StatementResult(columns=self.columns, table=table, row_count=rows.num_rows)


def plan_returning(node: exp.Expr | None, table: TableDef, alias: str, binding: Binding) -> Returning | None:
    """Plan a RETURNING clause, if there is one."""
    if node is None:
        return None
    outputs: list[_Output] = []
    nodes: list[exp.Expr] = []
    for item in node.expressions:
        if is_star(item):
            _check_star(item, table, alias)
            outputs += [_Output(column.name, column.name, -1) for column in table.columns]
            continue
        outputs.append(_plan_item(item, table, alias, nodes))
    columns = [(column.name, column.type) for column in table.columns]
    return Returning(tuple(outputs), RowExpressions(nodes, columns, binding, alias=alias).require(), table)


def _plan_item(item: exp.Expr, table: TableDef, alias: str, nodes: list[exp.Expr]) -> _Output:
    inner = item.this if isinstance(item, exp.Alias) else item
    if isinstance(inner, exp.Column):
        name = inner.name.lower()
        if name in HIDDEN_COLUMNS:
            raise located(Unsupported, f"RETURNING {name}: it is not known before the commit", inner)
        if inner.table.lower() in {"", alias, table.name}:
            if name not in table.by_name:
                raise located(InvalidSql, f"Column '{name}' does not exist in table {table.full_name}", inner)
            return _Output(item.alias or name, name, -1)
    nodes.append(unqualified(inner, table, alias))
    return _Output(item.alias or _generated_name(inner), None, len(nodes) - 1)


def _generated_name(node: exp.Expr) -> str:
    """The name of an output without an alias: the function's, or the expression's text."""
    if isinstance(node, exp.Func) and not isinstance(node, (exp.Cast, exp.Binary)):
        name = str(node.name if isinstance(node, exp.Anonymous) else node.sql_name()).lower()
        return name.removeprefix(KEPT_NAMES)
    return node.sql(dialect="duckdb")


def _check_star(item: exp.Expr, table: TableDef, alias: str) -> None:
    star = item if isinstance(item, exp.Star) else item.this
    if any(star.args.get(key) for key in ("except_", "replace", "rename")):
        raise located(Unsupported, "RETURNING takes a plain star", item)
    if star_qualifier(item) not in {"", alias, table.name}:
        raise located(InvalidSql, f"RETURNING {star_qualifier(item)}.*: no such table here", item)


def written(message: str, count: int, rows: pa.Table, returning: Returning | None, run: Run) -> StatementResult:
    """The result of a statement that wrote `rows`."""
    if returning is not None:
        return returning.result(rows, run)
    return StatementResult(row_count=count, message=message)
