"""INSERT … VALUES of plain values without a parser: the hot path of small writes.

A `HotInsert` is made once for a shape (`sql.templates.InsertShape`) from its `InsertPlan`; running it turns the shape's
values into storage rows on the event loop and hands the writer a work that only stages them. It covers what most
applications send: plain tables without CHECK and UNIQUE, no ON CONFLICT, no RETURNING. The rest goes the ordinary way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from sql.defaults import Default, ValueSources, default_array, stored_default
from sql.errors import ExecutionError, InvalidParameter
from sql.functions import FunctionContext
from sql.identity import Identity
from sql.insert import InsertPlan
from sql.results import StatementResult
from sql.rights import partition_of
from sql.templates import DEFAULT, InsertShape, ParamRef, Value
from sql.value_columns import column_of
from sql.values import Converter, converter
from sql.violations import check_not_null, not_null_violation
from storage.catalog import ColumnDef, TableDef
from storage.keys import encode_key
from storage.types import arrow_type
from storage.writer import WriteTransaction

ROWS_AS_TUPLES = 24
"""Statements of more rows are handed over as Arrow columns."""


class HotInsert:
    """A planned insert of plain values, for every user of a role."""

    __slots__ = ("_default_of", "_given", "_key_places", "_key_types", "_literal", "_parameter", "_required", "table")

    def __init__(self, table: TableDef, targets: Sequence[ColumnDef]) -> None:
        self.table = table
        places = {column.name: place for place, column in enumerate(targets)}
        self._given = tuple(places.get(column.name) for column in table.columns)
        self._default_of: tuple[Default | None, ...] = tuple(stored_default(column) for column in table.columns)
        self._literal: tuple[Converter, ...] = tuple(converter(c.type, c.name, ExecutionError) for c in table.columns)
        self._parameter: tuple[dict[int, Converter], ...] = tuple({} for _ in table.columns)
        self._required = tuple(i for i, column in enumerate(table.columns) if not column.nullable)
        order = {column.column_id: place for place, column in enumerate(table.columns)}
        self._key_places = tuple(order[column_id] for column_id in table.primary_key)
        self._key_types = tuple(column.type for column in table.key_columns)

    def insertion(
        self, shape: InsertShape, params: Sequence[object], functions: FunctionContext, identity: Identity
    ) -> Callable[[WriteTransaction], None]:
        """The work that stages a shape's rows. Raises SqlError naming the column or parameter.

        DuplicateKey and SchemaChanged reach whoever waits for the commit.
        """
        partition = partition_of(self.table, identity)
        if shape.rows > ROWS_AS_TUPLES:
            return _table_work(self.table, partition, self._arrays(shape, params, functions, identity))
        columns = self.columns_of(shape, params, functions, identity)
        return _rows_work(self.table, partition, columns, self.keys_of(columns))

    def columns_of(
        self, shape: InsertShape, params: Sequence[object], functions: FunctionContext, identity: Identity
    ) -> list[list[object]]:
        """Storage values of every table column, for all rows. Raises SqlError naming the column or parameter."""
        count = shape.rows
        sources = ValueSources(functions, functions.now_us(), identity.user)
        columns = [
            self._generated(index, count, sources)
            if place is None
            else self._column(index, shape.columns[place], params, sources)
            for index, place in enumerate(self._given)
        ]
        for index in self._required:
            if None in columns[index]:
                raise not_null_violation(self.table.columns[index].name, columns[index].index(None) + 1)
        return columns

    def _arrays(
        self, shape: InsertShape, params: Sequence[object], functions: FunctionContext, identity: Identity
    ) -> pa.Table:
        """The same as an Arrow table, column by column where the values allow it."""
        sources = ValueSources(functions, functions.now_us(), identity.user)
        arrays = []
        for index, (place, column) in enumerate(zip(self._given, self.table.columns, strict=True)):
            if place is None:
                arrays.append(default_array(column, shape.rows, sources))
                continue
            cells = shape.columns[place]
            values = cells if not params else _values_of(cells, params)
            array = None if values is None else column_of(values, column.type)
            if array is None:
                array = pa.array(self._column(index, cells, params, sources), arrow_type(column.type))
            arrays.append(array)
        rows = pa.Table.from_arrays(arrays, schema=self.table.arrow_schema)
        check_not_null(self.table.columns, rows)
        return rows

    def keys_of(self, columns: list[list[object]]) -> list[bytes | None]:
        """The encoded primary keys of rows given as columns; None for a table with a hidden row id."""
        if not self._key_places:
            return [None] * len(columns[0])
        types = self._key_types
        if len(types) == 1:
            return [encode_key(types, (value,)) for value in columns[self._key_places[0]]]
        keyed = zip(*(columns[place] for place in self._key_places), strict=True)
        return [encode_key(types, values) for values in keyed]

    def result(self, count: int, identity: Identity) -> StatementResult:
        """The answer for `count` inserted rows."""
        return StatementResult(row_count=count, message=f"Inserted {count} row(s)", as_user=identity.user)

    def _generated(self, index: int, count: int, sources: ValueSources) -> list[object]:
        default = self._default_of[index]
        if default is None:
            return [None] * count
        return [default.scalar(sources) for _ in range(count)]

    def _column(self, index: int, values: list[Value], params: Sequence[object], sources: ValueSources) -> list[object]:
        literal = self._literal[index]
        if not params and DEFAULT not in values:
            return [literal(value) for value in values]
        result: list[object] = []
        for value in values:
            if type(value) is ParamRef:
                result.append(self._parameter_converter(index, value.index)(_parameter(params, value.index)))
            elif value is DEFAULT:
                default = self._default_of[index]
                result.append(None if default is None else default.scalar(sources))
            else:
                result.append(literal(value))
        return result

    def _parameter_converter(self, index: int, number: int) -> Converter:
        """The converter of `$number` for a column; errors name the parameter."""
        made = self._parameter[index].get(number)
        if made is None:
            made = converter(self.table.columns[index].type, f"${number}")
            self._parameter[index][number] = made
        return made


def _table_work(table: TableDef, partition: str, rows: pa.Table) -> Callable[[WriteTransaction], None]:
    def insert_table(writer: WriteTransaction) -> None:
        writer.insert(writer.expect_schema(table), partition, rows)

    return insert_table


def _rows_work(
    table: TableDef, partition: str, columns: list[list[object]], keys: list[bytes | None]
) -> Callable[[WriteTransaction], None]:
    if len(keys) == 1:
        row, key = tuple(values[0] for values in columns), keys[0]

        def insert_row(writer: WriteTransaction) -> None:
            writer.insert_row(writer.expect_schema(table), partition, row, key)

        return insert_row
    rows = list(zip(*columns, strict=True))

    def insert_rows(writer: WriteTransaction) -> None:
        current = writer.expect_schema(table)
        for one, its_key in zip(rows, keys, strict=True):
            writer.insert_row(current, partition, one, its_key)

    return insert_rows


def _values_of(cells: Sequence[object], params: Sequence[object]) -> Sequence[object] | None:
    """The parameters that a column's cells name, when all of them do; the literals, when none does."""
    types = set(map(type, cells))
    if ParamRef not in types:
        return cells
    if len(types) > 1:
        return None
    places = [cell.index - 1 for cell in cells]  # type: ignore[attr-defined]
    return [params[place] for place in places]


def hot_insert(plan: InsertPlan) -> HotInsert | None:
    """The hot form of a plan, or None when it needs more than staging rows."""
    plain = (
        plan.values is not None
        and not plan.values.computed
        and plan.conflict is None
        and plan.returning is None
        and not plan.checks
        and not plan.table.refuses_duplicates
        and not any(column.always_generated for column in plan.targets)
    )
    return HotInsert(plan.table, plan.targets) if plain else None


def _parameter(params: Sequence[object], index: int) -> object:
    if index > len(params):
        raise InvalidParameter(f"Parameter ${index} is missing: the request has {len(params)} parameter(s)")
    return params[index - 1]
