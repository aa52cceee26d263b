"""The rows of INSERT … VALUES as columns, without a query: literals, parameters, DEFAULT and generated values.

Literals become storage values when the statement is planned; a parameter has a converter ready. Expressions that
have to be evaluated (`1 + 1`, `upper($1)`, a subquery) are gathered over all rows and evaluated together, as the one
row of one query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
from sqlglot import exp

from sql.assignment import assign
from sql.defaults import Default, ValueSources, fitting_generator, stored_default
from sql.errors import ExecutionError, InvalidSql
from sql.plain import NOT_PLAIN, is_default_keyword, parameter, parameter_index, plain_value
from sql.values import Converter, converter
from sql.write_targets import located
from storage.catalog import ColumnDef
from storage.types import ColumnType, arrow_type


class ParameterCell(NamedTuple):
    """`$number`, to be converted for its column."""

    number: int
    convert: Converter


class GeneratedCell(NamedTuple):
    """A value that a function makes when the statement runs."""

    default: Default


class ComputedCell(NamedTuple):
    """The result of the expression number `slot`."""

    slot: int


@dataclass(slots=True)
class ValueColumn:
    """One target column: a storage value or a cell for each row. `constant` when there are no cells."""

    column: ColumnDef
    cells: list[object]
    constant: bool


@dataclass(slots=True)
class ValueRows:
    """The planned rows. `computed` are the expressions behind the ComputedCells, `targets` their columns."""

    count: int
    columns: list[ValueColumn] = field(default_factory=list)
    computed: list[exp.Expr] = field(default_factory=list)
    targets: list[ColumnDef] = field(default_factory=list)

    def arrays(
        self,
        params: Sequence[object],
        sources: ValueSources,
        computed: Sequence[tuple[pa.Array, ColumnType]],
    ) -> list[pa.Array]:
        """The columns' values. `computed` has a one-row array and its type for each expression."""
        results = [
            assign(array, source, target.type, target.name)
            for (array, source), target in zip(computed, self.targets, strict=True)
        ]
        return [self._array(column, params, sources, results) for column in self.columns]

    def _array(
        self, column: ValueColumn, params: Sequence[object], sources: ValueSources, results: Sequence[pa.Array]
    ) -> pa.Array:
        storage = arrow_type(column.column.type)
        cells = column.cells
        if column.constant:
            return pa.array(cells, storage)
        first = cells[0]
        if isinstance(first, GeneratedCell) and all(cell is first for cell in cells):
            return first.default.array(self.count, sources)
        computed = any(type(cell) is ComputedCell for cell in cells)
        values = [None if type(cell) is ComputedCell else _resolve(cell, params, sources) for cell in cells]
        plain = pa.array(values, storage)
        return plain if not computed else _with_computed(plain, cells, results)


def plan_values(rows: Sequence[exp.Expr], columns: Sequence[ColumnDef]) -> ValueRows:
    """Plan VALUES for these target columns; raises InvalidSql when a row has another number of values."""
    width = len(columns)
    by_row: list[Sequence[exp.Expr]] = []
    for number, row in enumerate(rows, start=1):
        cells = row.expressions if isinstance(row, exp.Tuple) else [row.this if isinstance(row, exp.Paren) else row]
        if len(cells) != width:
            raise located(
                InvalidSql, f"INSERT has {width} target column(s) but row {number} has {len(cells)} value(s)", row
            )
        by_row.append(cells)
    plan = ValueRows(len(by_row))
    for place, column in enumerate(columns):
        plan.columns.append(_plan_column(column, [cells[place] for cells in by_row], plan))
    return plan


def _plan_column(column: ColumnDef, nodes: Sequence[exp.Expr], plan: ValueRows) -> ValueColumn:
    literal = converter(column.type, column.name, ExecutionError)
    default = stored_default(column)
    keyword: object = None if default is None else GeneratedCell(default)
    generators: dict[str, GeneratedCell] = {}
    cells: list[object] = []
    constant = True
    for node in nodes:
        value = plain_value(node, column.type)
        if value is not NOT_PLAIN:
            cells.append(None if value is None else literal(value))
            continue
        cell: object
        if (index := parameter_index(node)) is not None:
            cell = ParameterCell(index, converter(column.type, f"${index}"))
        elif is_default_keyword(node):
            cell = keyword
        elif (generated := fitting_generator(node, column.type)) is not None:
            cell = generators.setdefault(generated.function or "", GeneratedCell(generated))
        else:
            cell = ComputedCell(len(plan.computed))
            plan.computed.append(node)
            plan.targets.append(column)
        constant = constant and cell is None
        cells.append(cell)
    return ValueColumn(column, cells, constant)


def _resolve(cell: object, params: Sequence[object], sources: ValueSources) -> object:
    if type(cell) is ParameterCell:
        return cell.convert(parameter(params, cell.number))
    if type(cell) is GeneratedCell:
        return cell.default.scalar(sources)
    return cell


def _with_computed(plain: pa.Array, cells: Sequence[object], results: Sequence[pa.Array]) -> pa.Array:
    """The column with its computed values in their places."""
    pieces: list[pa.Array] = []
    start = 0
    for place, cell in enumerate(cells):
        if type(cell) is ComputedCell:
            pieces += [plain.slice(start, place - start), results[cell.slot]]
            start = place + 1
    return pa.concat_arrays([*pieces, plain.slice(start)])
