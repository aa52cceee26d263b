"""INSERT: rows from VALUES, a query or defaults; the columns left out filled; constraints; conflicts; RETURNING."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from sql.assignment import assign
from sql.assignments import differs
from sql.checks import CompiledCheck, check_rows, compile_checks
from sql.conflict import ConflictPlan, excluded_name, plan_conflict, split_rows
from sql.defaults import default_array
from sql.errors import ExecutionError, InvalidSql
from sql.identity import Identity
from sql.insert_values import GeneratedCell, ValueRows, plan_values
from sql.plan import QueryPlan
from sql.results import ResultColumn, StatementResult
from sql.returning import Returning, plan_returning, written
from sql.rights import partition_of
from sql.row_expressions import Binding, RowExpressions, Run, WriteServices
from sql.violations import check_not_null, duplicate_violation
from sql.write_targets import located, resolve_target
from sql.writing import RowWriter
from storage.catalog import ColumnDef, TableDef
from storage.errors import DuplicateKey


@dataclass(frozen=True)
class InsertPlan:
    """A planned INSERT. Exactly one of `values` and `query` is set, or neither for DEFAULT VALUES."""

    table: TableDef
    targets: tuple[ColumnDef, ...]
    values: ValueRows | None
    computed: RowExpressions
    query: QueryPlan | None
    conflict: ConflictPlan | None
    returning: Returning | None
    checks: tuple[CompiledCheck, ...]

    @cached_property
    def keyed(self) -> bool:
        """Whether it may run inside the writer."""
        return (
            self.query is None
            and self.computed.inline
            and all(check.expressions.inline for check in self.checks)
            and (self.conflict is None or self.conflict.inline)
            and (self.returning is None or self.returning.inline)
        )

    @property
    def kinds_matter(self) -> bool:
        """Whether the plan holds only for parameters of the same JSON kinds."""
        return (
            (self.query is not None and self.query.kinds_matter)
            or self.computed.kinds_matter
            or (self.conflict is not None and self.conflict.kinds_matter)
            or (self.returning is not None and self.returning.expressions.kinds_matter)
        )

    @property
    def retries_duplicates(self) -> bool:
        """Whether a key that another commit took first means another outcome, not an error."""
        return self.conflict is not None

    @property
    def weight(self) -> int:
        """About how many rows it stages."""
        return 1 if self.values is None else self.values.count

    @property
    def columns(self) -> tuple[ResultColumn, ...]:
        """The columns of RETURNING."""
        return () if self.returning is None else self.returning.columns

    def run(
        self, txn: RowWriter, params: Sequence[object], identity: Identity, services: WriteServices
    ) -> StatementResult:
        """Stage the rows."""
        table = self.table
        txn.expect_schema(table)
        run = Run(txn, params, identity, services)
        rows = self._complete(self._provided(run), run)
        check_not_null(table.columns, rows)
        check_rows(self.checks, rows, run)
        partition = partition_of(table, identity)
        try:
            if self.conflict is not None:
                rows = self._resolve_conflicts(self.conflict, partition, rows, run)
            elif rows.num_rows:
                txn.insert(table, partition, rows)
        except DuplicateKey as error:
            raise duplicate_violation(error, table) from None
        return written(f"Inserted {rows.num_rows} row(s)", rows.num_rows, rows, self.returning, run)

    def _provided(self, run: Run) -> tuple[int, Mapping[str, pa.Array]]:
        """The number of rows and the columns that the statement gives."""
        if self.values is not None:
            results = self.computed.evaluate_once(run)
            arrays = self.values.arrays(run.params, run.sources, results)
            count = self.values.count
        elif self.query is not None:
            result = run.query(self.query)
            count = result.num_rows
            arrays = [
                assign(result.column(place), self.query.columns[place].type, column.type, column.name)
                for place, column in enumerate(self.targets)
            ]
        else:
            return 1, {}
        return count, {column.name: array for column, array in zip(self.targets, arrays, strict=True)}

    def _complete(self, provided: tuple[int, Mapping[str, pa.Array]], run: Run) -> pa.Table:
        """All columns of the table: those given, and defaults or NULL for the others."""
        count, given = provided
        arrays = [
            given[column.name] if column.name in given else default_array(column, count, run.sources)
            for column in self.table.columns
        ]
        return pa.Table.from_arrays(arrays, schema=self.table.arrow_schema)

    def _resolve_conflicts(self, conflict: ConflictPlan, partition: str, rows: pa.Table, run: Run) -> pa.Table:
        """Insert or update each row; gives the rows as they stand afterwards."""
        table = self.table
        split = split_rows(conflict, table, partition, rows, run)
        fresh = rows.take(pa.array(split.insert, pa.int64())) if len(split.insert) < rows.num_rows else rows
        if fresh.num_rows:
            run.txn.insert(table, partition, fresh)
        if not split.update:
            return fresh
        places, updated = self._update(conflict, partition, split.old_seqs, rows.take(pa.array(split.update)), run)
        if not split.insert:
            return updated
        order = split.insert + [split.update[place] for place in places]
        back = sorted(range(len(order)), key=order.__getitem__)
        return pa.concat_tables([fresh, updated]).combine_chunks().take(pa.array(back, pa.int64()))

    def _update(
        self, conflict: ConflictPlan, partition: str, old_seqs: Sequence[int], excluded: pa.Table, run: Run
    ) -> tuple[list[int], pa.Table]:
        """Carry out DO UPDATE: which of the conflicting rows the WHERE takes, and what became of them."""
        table = self.table
        assert conflict.assignments is not None
        old = run.txn.fetch(table, partition, old_seqs, [column.name for column in table.columns])
        both = old
        for column in table.columns:
            both = both.append_column(excluded_name(column.name), excluded.column(column.name))
        places = list(range(len(old_seqs)))
        if conflict.where is not None:
            (chosen,) = conflict.where.evaluate(both, run)
            places = [place for place, yes in enumerate(chosen.to_pylist()) if yes]
            picked = pa.array(places, pa.int64())
            both, old = both.take(picked), old.take(picked)
        if not places:
            return places, old
        assigned = conflict.assignments.new_rows(both, run)
        rows, changed = replaced_rows(table, old, assigned)
        check_not_null(conflict.assignments.columns, rows)
        check_rows(self.checks, rows, run)
        moved = [place for place, differ in enumerate(changed.to_pylist()) if differ]
        if moved:
            seqs = [old_seqs[places[place]] for place in moved]
            run.txn.replace(table, partition, seqs, rows.take(pa.array(moved, pa.int64())))
        return places, rows


def replaced_rows(table: TableDef, old: pa.Table, assigned: Mapping[str, pa.Array]) -> tuple[pa.Table, pa.Array]:
    """The rows after an assignment, and where they differ from the old ones."""
    changed = pa.repeat(pa.scalar(False), old.num_rows)
    arrays = []
    for column in table.columns:
        new = assigned.get(column.name)
        if new is not None:
            changed = pc.or_(changed, differs(old.column(column.name), new, column.type))
        arrays.append(old.column(column.name) if new is None else new)
    return pa.Table.from_arrays(arrays, schema=table.arrow_schema), changed


def plan_insert(ast: exp.Insert, binding: Binding) -> InsertPlan:
    """Plan an INSERT statement."""
    target = ast.this
    table_node = target.this if isinstance(target, exp.Schema) else target
    table = resolve_target(table_node, binding.catalog, binding.system, binding.role, binding.namespace, "insert")
    alias = (table_node.alias or table.name).lower()
    default_values = bool(ast.args.get("default"))
    targets = () if default_values else targets_of(target, table)
    values: ValueRows | None = None
    query: QueryPlan | None = None
    source = ast.expression
    if isinstance(source, exp.Values) and not ast.args.get("with_"):
        values = plan_values(source.expressions, targets)
    elif not default_values:
        query = _plan_query(ast, source, targets, binding)
    _refuse_generated(target, targets, values)
    conflict = ast.args.get("conflict")
    return InsertPlan(
        table=table, targets=targets, values=values,
        computed=RowExpressions(values.computed if values is not None else (), (), binding).require(),
        query=query,
        conflict=None if conflict is None else plan_conflict(conflict, table, alias, binding),
        returning=plan_returning(ast.args.get("returning"), table, alias, binding),
        checks=compile_checks(table, binding),
    )  # fmt: skip


def targets_of(target: exp.Expr, table: TableDef) -> tuple[ColumnDef, ...]:
    """The columns that the statement gives values for, in its order."""
    if not isinstance(target, exp.Schema):
        return table.columns
    chosen: list[ColumnDef] = []
    for identifier in target.expressions:
        column = table.by_name.get(identifier.name.lower())
        if column is None:
            raise located(
                InvalidSql, f"Column '{identifier.name}' does not exist in table {table.full_name}", identifier
            )
        if column in chosen:
            raise located(InvalidSql, f"INSERT names column '{column.name}' twice", identifier)
        chosen.append(column)
    return tuple(chosen)


def _refuse_generated(target: exp.Expr, targets: Sequence[ColumnDef], values: ValueRows | None) -> None:
    """Raise ExecutionError when a GENERATED ALWAYS column is given anything but DEFAULT."""
    for place, column in enumerate(targets):
        if column.always_generated and (
            values is None or not all(isinstance(cell, GeneratedCell) for cell in values.columns[place].cells)
        ):
            raise located(ExecutionError, generated_always(column), target)


def generated_always(column: ColumnDef) -> str:
    """What is wrong with a value for a column that takes none."""
    return (
        f"Constraint violation: column '{column.name}' is GENERATED ALWAYS AS IDENTITY and takes no value; leave it "
        "out or write DEFAULT"
    )


def _plan_query(ast: exp.Insert, source: exp.Expr | None, targets: Sequence[ColumnDef], binding: Binding) -> QueryPlan:
    if isinstance(source, exp.Values):
        source = exp.select("*").from_(source.copy(), copy=False)
    if isinstance(source, exp.Subquery) and source.is_wrapper:
        source = source.unnest()
    if not isinstance(source, exp.Query):
        raise located(InvalidSql, "INSERT needs VALUES, a query or DEFAULT VALUES", ast)
    query = source.copy()
    with_ = ast.args.get("with_")
    if with_ is not None:
        if query.args.get("with_") is not None:
            query = exp.select("*").from_(query.subquery("rows"), copy=False)
        query.set("with_", with_.copy())
    plan = binding.bind(query)
    if len(plan.columns) != len(targets):
        raise located(
            InvalidSql, f"INSERT has {len(targets)} target column(s) but the query gives {len(plan.columns)}", ast
        )
    return plan
