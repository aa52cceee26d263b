"""SET column = expression, …: planned once, evaluated over old rows, giving new rows and which of them differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from sql.assignment import assign
from sql.defaults import Default, constant_array, fitting_generator, stored_default
from sql.errors import ExecutionError, InvalidSql
from sql.plain import NOT_PLAIN, is_default_keyword, parameter, parameter_index, plain_value
from sql.row_expressions import Binding, RowExpressions, Run
from sql.values import Converter, converter
from sql.write_targets import located
from storage.catalog import ColumnDef, TableDef
from storage.contiguous import one_array
from storage.types import ColumnType, Kind, arrow_type


class ConstantValue(NamedTuple):
    """A literal, as a storage value."""

    value: object


class ParameterValue(NamedTuple):
    """`$number`."""

    number: int
    convert: Converter


class ComputedValue(NamedTuple):
    """The expression number `number`."""

    number: int


class Assignments(NamedTuple):
    """The planned SET list. `expressions` holds those that have to be evaluated."""

    columns: tuple[ColumnDef, ...]
    values: tuple[ConstantValue | ParameterValue | Default | ComputedValue | None, ...]
    nodes: tuple[exp.Expr, ...]
    expressions: RowExpressions

    @property
    def inline(self) -> bool:
        """Whether the new values need no query engine."""
        return self.expressions.inline

    def new_rows(
        self, rows: pa.Table, run: Run, computed: Sequence[tuple[pa.ChunkedArray | pa.Array, ColumnType]] | None = None
    ) -> dict[str, pa.Array]:
        """The new values of the assigned columns for `rows`, the old ones.

        `computed` are the results of `nodes` when the query has evaluated them already.
        """
        count = rows.num_rows
        if computed is None:
            computed = list(zip(self.expressions.evaluate(rows, run), self.expressions.types, strict=True))
        return {
            column.name: self._array(column, value, count, run, computed)
            for column, value in zip(self.columns, self.values, strict=True)
        }

    @staticmethod
    def _array(
        column: ColumnDef,
        value: ConstantValue | ParameterValue | Default | ComputedValue | None,
        count: int,
        run: Run,
        computed: Sequence[tuple[pa.ChunkedArray | pa.Array, ColumnType]],
    ) -> pa.Array:
        if isinstance(value, ComputedValue):
            array, source = computed[value.number]
            return assign(array, source, column.type, column.name)
        if isinstance(value, Default):
            return value.array(count, run.sources)
        if isinstance(value, ParameterValue):
            return constant_array(column.type, value.convert(parameter(run.params, value.number)), count)
        if value is None or value.value is None:
            return pa.nulls(count, arrow_type(column.type))
        return constant_array(column.type, value.value, count)


def plan_assignments(
    items: Sequence[exp.Expr],
    table: TableDef,
    columns: Sequence[tuple[str, ColumnType]],
    binding: Binding,
    alias: str,
) -> Assignments:
    """Plan a SET list; `columns` are what its expressions may name."""
    targets: list[ColumnDef] = []
    values: list[ConstantValue | ParameterValue | Default | ComputedValue | None] = []
    nodes: list[exp.Expr] = []
    for item in items:
        if not isinstance(item, exp.EQ) or not isinstance(item.this, exp.Column):
            raise located(InvalidSql, "SET takes column = expression", item)
        column = _target(item.this, table)
        if column.always_generated and not is_default_keyword(item.expression):
            raise located(
                ExecutionError,
                f"Constraint violation: column '{column.name}' is GENERATED ALWAYS AS IDENTITY; SET takes DEFAULT only",
                item,
            )
        if column in targets:
            raise located(InvalidSql, f"SET assigns column '{column.name}' twice", item)
        targets.append(column)
        values.append(_plan_value(item.expression, column, nodes))
    return Assignments(
        tuple(targets), tuple(values), tuple(nodes), RowExpressions(nodes, columns, binding, alias=alias)
    )


def differs(old: pa.Array | pa.ChunkedArray, new: pa.Array, column_type: ColumnType) -> pa.Array:
    """Where a column changes, as booleans without NULL."""
    old = one_array(old)
    if column_type.kind is Kind.EMBEDDING:
        pairs = zip(old.to_pylist(), new.to_pylist(), strict=True)
        return pa.array([before != after for before, after in pairs], pa.bool_())
    unequal: Any = pc.fill_null(pc.not_equal(old, new), False)
    return pc.or_(unequal, pc.not_equal(pc.is_null(old), pc.is_null(new)))


def _target(node: exp.Column, table: TableDef) -> ColumnDef:
    column = table.by_name.get(node.name.lower())
    if column is None:
        raise located(InvalidSql, f"Column '{node.name}' does not exist in table {table.full_name}", node)
    if column.column_id in table.primary_key:
        raise located(
            ExecutionError, f"Invalid operation: UPDATE cannot modify primary key column '{column.name}'", node
        )
    return column


def _plan_value(
    node: exp.Expr, column: ColumnDef, nodes: list[exp.Expr]
) -> ConstantValue | ParameterValue | Default | ComputedValue | None:
    value = plain_value(node, column.type)
    if value is not NOT_PLAIN:
        return ConstantValue(None if value is None else converter(column.type, column.name, ExecutionError)(value))
    index = parameter_index(node)
    if index is not None:
        return ParameterValue(index, converter(column.type, f"${index}"))
    if is_default_keyword(node):
        return stored_default(column)
    if (generator := fitting_generator(node, column.type)) is not None:
        return generator
    nodes.append(node)
    return ComputedValue(len(nodes) - 1)
