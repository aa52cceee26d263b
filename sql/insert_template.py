"""INSERT … VALUES of plain values without a plan run: values straight to row tuples or columns.

The session's hot path reads the values of such a statement without a parser (`sql.templates.scan_insert`). What it
needs to know of the statement's shape stands here: where each column's value comes from, how it is converted, what
fills the columns left out, and how the key is encoded. Checks that have to be made on the rows are made here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pyarrow as pa

from sql.checks import CompiledCheck, check_rows, check_violation
from sql.defaults import Default, ValueSources, default_array, stored_default
from sql.errors import ExecutionError
from sql.insert import InsertPlan
from sql.plain import parameter
from sql.row_expressions import Run
from sql.templates import DefaultKeyword, ParamRef
from sql.values import Converter, converter
from sql.violations import check_not_null, not_null_violation
from storage.catalog import ColumnDef, TableDef
from storage.key_encoding import key_encoder
from storage.types import arrow_type


class TemplateColumn(NamedTuple):
    """One column of the table. `source` is its place among the statement's values, None when it is left out."""

    column: ColumnDef
    source: int | None
    convert: Converter
    default: Default | None
    not_null: bool


class InsertTemplate:
    """An INSERT … VALUES whose rows can be built without evaluating anything."""

    __slots__ = ("_encode", "checks", "columns", "key_positions", "table", "width")

    def __init__(self, plan: InsertPlan) -> None:
        table = plan.table
        places = {column.name: place for place, column in enumerate(plan.targets)}
        self.table: TableDef = table
        self.width = len(plan.targets)
        """How many values a row of the statement has."""
        self.columns = tuple(
            TemplateColumn(
                column,
                places.get(column.name),
                converter(column.type, column.name, ExecutionError),
                stored_default(column),
                not column.nullable,
            )
            for column in table.columns
        )
        ids = [column.column_id for column in table.columns]
        self.key_positions = tuple(ids.index(column_id) for column_id in table.primary_key)
        self.checks: tuple[CompiledCheck, ...] = plan.checks
        self._encode: Callable[[Sequence[object]], bytes] | None = None
        if table.primary_key:
            self._encode = key_encoder(tuple(column.type for column in table.key_columns))

    def row(self, values: Sequence[object], params: Sequence[object], sources: ValueSources) -> tuple[object, ...]:
        """The row of storage values for one row of the statement; all constraints but the unique ones are checked.

        `values` are literals as `sql.templates` reads them. Raises NotCovered when a CHECK needs the query engine.
        """
        row = []
        for column in self.columns:
            if column.source is None:
                value = None if column.default is None else column.default.scalar(sources)
            else:
                value = _value(column, values[column.source], params, sources)
            if value is None and column.not_null:
                raise not_null_violation(column.column.name, 1)
            row.append(value)
        if self.checks:
            self._check(row)
        return tuple(row)

    def key(self, row: Sequence[object]) -> bytes | None:
        """The encoded primary key of a row; None for a table without one."""
        if self._encode is None:
            return None
        return self._encode([row[position] for position in self.key_positions])

    def rows(self, values: Sequence[Sequence[object]], params: Sequence[object], run: Run) -> pa.Table:
        """The rows as columns; `values` are the statement's values, one sequence for each target column."""
        count = len(values[0])
        sources = run.sources
        arrays = []
        for column in self.columns:
            if column.source is None:
                arrays.append(default_array(column.column, count, sources))
                continue
            given = values[column.source]
            convert = column.convert
            stored = [
                convert(value)
                if type(value) is not ParamRef and type(value) is not DefaultKeyword
                else _value(column, value, params, sources)
                for value in given
            ]
            arrays.append(pa.array(stored, arrow_type(column.column.type)))
        table = pa.Table.from_arrays(arrays, schema=self.table.arrow_schema)
        check_not_null(self.table.columns, table)
        check_rows(self.checks, table, run)
        return table

    def _check(self, row: Sequence[object]) -> None:
        named = {column.column.name: value for column, value in zip(self.columns, row, strict=True)}
        for check in self.checks:
            if check.expressions.evaluate_row(named) is False:
                raise check_violation(check.name, 1)


def insert_template(plan: object) -> InsertTemplate | None:
    """The template of a planned INSERT, when there is nothing in it but plain values and constraints."""
    if not isinstance(plan, InsertPlan) or plan.values is None or plan.conflict or plan.returning:
        return None
    if plan.values.computed or not all(check.expressions.inline for check in plan.checks):
        return None
    return InsertTemplate(plan)


def _value(column: TemplateColumn, value: object, params: Sequence[object], sources: ValueSources) -> object:
    if type(value) is ParamRef:
        return converter(column.column.type, f"${value.index}")(parameter(params, value.index))
    if type(value) is DefaultKeyword:
        return None if column.default is None else column.default.scalar(sources)
    return column.convert(value)
