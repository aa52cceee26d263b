"""UPDATE, DELETE and upserts of one row by its key, as row tuples inside the writer.

A `HotChange` is made from a plan that changes exactly the row with a given primary key and needs neither the query
engine nor CHECK, UNIQUE or RETURNING. What it reads and writes is the writer's own state, so no other commit can
come between: a thousand clients that add one to the same row count correctly, without a retry.

Values are computed by `CompiledExpression.evaluate_row`. When one cannot be computed so (`NotCovered`), the work raises
it and the statement goes the ordinary way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sql.assignment import INTEGERS
from sql.assignments import Assignments, ComputedValue, ConstantValue, ParameterValue
from sql.conflict import EXCLUDED
from sql.defaults import Default, ValueSources
from sql.delete import DeletePlan
from sql.dml import WritePlan
from sql.errors import ExecutionError
from sql.expressions import CompiledExpression
from sql.functions import FunctionContext
from sql.hot_insert import HotInsert
from sql.identity import Identity
from sql.insert import InsertPlan
from sql.plain import parameter
from sql.plan import Constant, Operand, Path, QueryPlan
from sql.results import StatementResult
from sql.rights import partition_of
from sql.templates import InsertShape
from sql.update import UpdatePlan
from sql.values import Converter, converter
from sql.violations import not_null_violation
from storage.catalog import ColumnDef, TableDef
from storage.keys import encode_key
from storage.row_writes import delete_row, read_row, replace_row, takes_row_writes
from storage.types import ColumnType
from storage.writer import WriteTransaction

Work = Callable[[WriteTransaction], int]
Setter = Callable[[dict[str, object], Sequence[object], ValueSources], object]


class HotChange(Protocol):
    """A change of one row by key. `verb` is Updated, Deleted or Inserted, for the answer."""

    table: TableDef
    verb: str

    def work(self, params: Sequence[object], identity: Identity, functions: FunctionContext) -> Work:
        """The work for these JSON parameters; it returns the number of rows. Raises SqlError for a bad value."""
        ...


def answer(change: HotChange, count: int, identity: Identity) -> StatementResult:
    """The result of a change."""
    return StatementResult(row_count=count, message=f"{change.verb} {count} row(s)", as_user=identity.user)


class _KeyOf:
    """Encodes the key that WHERE pins."""

    def __init__(self, table: TableDef, operands: Sequence[Operand]) -> None:
        self._types = tuple(column.type for column in table.key_columns)
        self._parts: tuple[tuple[object, Converter | None, int], ...] = tuple(
            (operand.value, None, 0)
            if isinstance(operand, Constant)
            else (None, converter(column.type, f"${operand.index}"), operand.index)
            for operand, column in zip(operands, table.key_columns, strict=True)
        )

    def __call__(self, params: Sequence[object]) -> bytes | None:
        """The encoded key; None when a part is NULL, which no row has."""
        values = [
            value if convert is None else convert(parameter(params, index)) for value, convert, index in self._parts
        ]
        return None if None in values else encode_key(self._types, values)


class _Setters:
    """The SET list for one row. `covered` is false when an item needs more than `evaluate_row`."""

    def __init__(self, assignments: Assignments, table: TableDef) -> None:
        self._table = table
        self._places = tuple(table.columns.index(column) for column in assignments.columns)
        self._columns = assignments.columns
        self._expressions = assignments.expressions.compiled or ()
        self._parameter_types = assignments.expressions.parameters
        setters = [
            self._setter(column, value) for column, value in zip(assignments.columns, assignments.values, strict=True)
        ]
        self.covered = assignments.inline and None not in setters
        self._setters: tuple[Setter, ...] = tuple(setter for setter in setters if setter is not None)

    def values(self, params: Sequence[object]) -> list[object]:
        """The storage values of the parameters that expressions read, `$1` first; None in unread places."""
        result: list[object] = [None] * max(self._parameter_types, default=0)
        for index, kind in self._parameter_types.items():
            result[index - 1] = converter(kind, f"${index}")(parameter(params, index))
        return result

    def new_row(
        self,
        old: tuple[object, ...],
        names: dict[str, object],
        values: Sequence[object],
        sources: ValueSources,
        setters: Sequence[Setter],
    ) -> tuple[object, ...]:
        """The row after the assignments. Raises SqlError or NotCovered."""
        row = list(old)
        for place, column, setter in zip(self._places, self._columns, setters, strict=True):
            value = setter(names, values, sources)
            if value is None and not column.nullable:
                raise not_null_violation(column.name, 1)
            row[place] = value
        return tuple(row)

    def for_request(self, params: Sequence[object]) -> tuple[Setter, ...]:
        """Setters with the request's parameters converted."""
        return tuple(s.bind(params) if isinstance(s, _ParameterSetter) else s for s in self._setters)

    def _setter(
        self, column: ColumnDef, value: ConstantValue | ParameterValue | Default | ComputedValue | None
    ) -> Setter | None:
        if value is None:
            return lambda *_: None
        if isinstance(value, ConstantValue):
            constant = value.value
            return lambda *_: constant
        if isinstance(value, Default):
            return lambda _row, _values, sources: value.scalar(sources)
        if isinstance(value, ParameterValue):
            return _ParameterSetter(value)
        expression = self._expressions[value.number] if value.number < len(self._expressions) else None
        return None if expression is None else _computed(expression, column.type, column.name)


class _ParameterSetter:
    """`column = $n`."""

    def __init__(self, value: ParameterValue) -> None:
        self._value = value

    def bind(self, params: Sequence[object]) -> Setter:
        """The setter for one request."""
        converted = self._value.convert(parameter(params, self._value.number))
        return lambda *_: converted

    def __call__(self, row: dict[str, object], values: Sequence[object], sources: ValueSources) -> object:
        """Never called unbound."""
        raise AssertionError("a parameter was not bound")


def _computed(expression: CompiledExpression, target: ColumnType, name: str) -> Setter | None:
    """A setter for an expression whose result the column takes without a cast that could differ from Arrow's."""
    source = expression.type
    if source == target:
        return lambda row, values, _: expression.evaluate_row(row, values)
    if source.kind in INTEGERS and target.kind in INTEGERS:
        convert = converter(target, name, ExecutionError)
        return lambda row, values, _: convert(expression.evaluate_row(row, values))
    return None


class _HotUpdate:
    verb = "Updated"

    def __init__(self, plan: UpdatePlan, key: _KeyOf, setters: _Setters) -> None:
        self.table = plan.table
        self._key = key
        self._setters = setters
        self._names = tuple(column.name for column in plan.table.columns)

    def work(self, params: Sequence[object], identity: Identity, functions: FunctionContext) -> Work:
        table, names = self.table, self._names
        key = self._key(params)
        partition = partition_of(table, identity)
        sources = ValueSources(functions, functions.now_us(), identity.user)
        assign = _Bound(self._setters, params, sources)

        def update(writer: WriteTransaction) -> int:
            current = writer.expect_schema(table)
            found = None if key is None else read_row(writer, current, partition, key)
            if key is None or found is None:
                return 0
            row = assign(found.row, dict(zip(names, found.row, strict=True)))
            if row == found.row:
                return 0
            replace_row(writer, current, partition, key, found, row)
            return 1

        return update


class _HotDelete:
    verb = "Deleted"

    def __init__(self, plan: DeletePlan, key: _KeyOf) -> None:
        self.table = plan.table
        self._key = key

    def work(self, params: Sequence[object], identity: Identity, functions: FunctionContext) -> Work:
        table = self.table
        key = self._key(params)
        partition = partition_of(table, identity)

        def delete(writer: WriteTransaction) -> int:
            current = writer.expect_schema(table)
            found = None if key is None else read_row(writer, current, partition, key)
            if key is None or found is None:
                return 0
            delete_row(writer, current, partition, key, found)
            return 1

        return delete


class HotUpsert:
    """INSERT of one row of plain values … ON CONFLICT (primary key) DO NOTHING | DO UPDATE SET …."""

    verb = "Inserted"

    def __init__(self, insert: HotInsert, setters: _Setters | None) -> None:
        self.table = insert.table
        self._insert = insert
        self._setters = setters
        self._names = tuple(column.name for column in self.table.columns)

    def work(
        self, shape: InsertShape, params: Sequence[object], identity: Identity, functions: FunctionContext
    ) -> Work:
        """The work for a shape of one row."""
        table, names = self.table, self._names
        columns = self._insert.columns_of(shape, params, functions, identity)
        new = tuple(values[0] for values in columns)
        key = self._insert.keys_of(columns)[0]
        assert key is not None
        partition = partition_of(table, identity)
        sources = ValueSources(functions, functions.now_us(), identity.user)
        assign = None if self._setters is None else _Bound(self._setters, params, sources)
        excluded = {f"{EXCLUDED}.{name}": value for name, value in zip(names, new, strict=True)}

        def upsert(writer: WriteTransaction) -> int:
            current = writer.expect_schema(table)
            found = read_row(writer, current, partition, key)
            if found is None:
                writer.insert_row(current, partition, new, key)
                return 1
            if assign is None:
                return 0
            row = assign(found.row, dict(zip(names, found.row, strict=True)) | excluded)
            if row != found.row:
                replace_row(writer, current, partition, key, found, row)
            return 1

        return upsert


class _Bound:
    """The SET list with one request's parameters."""

    def __init__(self, setters: _Setters, params: Sequence[object], sources: ValueSources) -> None:
        self._setters = setters
        self._values = setters.values(params)
        self._bound = setters.for_request(params)
        self._sources = sources

    def __call__(self, old: tuple[object, ...], names: dict[str, object]) -> tuple[object, ...]:
        """The new row."""
        return self._setters.new_row(old, names, self._values, self._sources, self._bound)


def hot_change(plan: WritePlan) -> HotChange | None:
    """The hot form of an UPDATE or DELETE, or None when it needs more."""
    if not isinstance(plan, (UpdatePlan, DeletePlan)) or plan.returning is not None:
        return None
    key = _pinned(plan.query, plan.table)
    if key is None:
        return None
    if isinstance(plan, DeletePlan):
        return _HotDelete(plan, key)
    if plan.checks or plan.computed_by_query:
        return None
    setters = _Setters(plan.assignments, plan.table)
    return _HotUpdate(plan, key, setters) if setters.covered else None


def hot_upsert(plan: InsertPlan) -> HotUpsert | None:
    """The hot form of an upsert by primary key, or None when it needs more."""
    conflict = plan.conflict
    if (
        conflict is None
        or plan.values is None
        or plan.values.computed
        or plan.returning is not None
        or plan.checks
        or any(column.always_generated for column in plan.targets)
        or conflict.where is not None
        or not takes_row_writes(plan.table)
        or [index.index_id for index in conflict.indexes] != [0]
    ):
        return None
    insert = HotInsert(plan.table, plan.targets)
    if conflict.assignments is None:
        return HotUpsert(insert, None)
    setters = _Setters(conflict.assignments, plan.table)
    return HotUpsert(insert, setters) if setters.covered else None


def _pinned(query: QueryPlan, table: TableDef) -> _KeyOf | None:
    """The key that a plan's WHERE pins, when it says nothing else."""
    if (
        query.path is not Path.POINT
        or query.point_key is None
        or query.residual_filter
        or query.kinds_matter
        or query.native is None
        or query.native.limit is not None
        or query.native.offset is not None
        or not takes_row_writes(table)
    ):
        return None
    return _KeyOf(table, query.point_key)
