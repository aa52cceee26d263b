"""UPDATE: the rows that WHERE finds, their new values, and those that really change written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from sql.assignments import Assignments, plan_assignments
from sql.checks import CompiledCheck, check_rows, compile_checks
from sql.errors import Unsupported
from sql.identity import Identity
from sql.insert import replaced_rows
from sql.plan import Path, QueryPlan
from sql.results import ResultColumn, StatementResult
from sql.returning import Returning, plan_returning, written
from sql.rights import partition_of
from sql.row_expressions import Binding, Run, WriteServices, unqualified
from sql.row_query import found_rows, rows_query
from sql.violations import check_not_null, duplicate_violation
from sql.write_targets import located, resolve_target
from sql.writing import RowWriter
from storage.catalog import TableDef
from storage.errors import DuplicateKey


@dataclass(frozen=True)
class UpdatePlan:
    """A planned UPDATE.

    `query` gives `_seq` and all columns of the rows, then the values of `assignments.nodes` when `computed_by_query`.
    """

    table: TableDef
    query: QueryPlan
    assignments: Assignments
    computed_by_query: bool
    returning: Returning | None
    checks: tuple[CompiledCheck, ...]
    weight: int = 1
    retries_duplicates: bool = False

    @cached_property
    def keyed(self) -> bool:
        """Whether it may run inside the writer."""
        return (
            self.query.path is Path.POINT
            and not self.computed_by_query
            and all(check.expressions.inline for check in self.checks)
            and (self.returning is None or self.returning.inline)
        )

    @property
    def kinds_matter(self) -> bool:
        """Whether the plan holds only for parameters of the same JSON kinds."""
        return (
            self.query.kinds_matter
            or (not self.computed_by_query and self.assignments.expressions.kinds_matter)
            or (self.returning is not None and self.returning.expressions.kinds_matter)
        )

    @property
    def columns(self) -> tuple[ResultColumn, ...]:
        """The columns of RETURNING."""
        return () if self.returning is None else self.returning.columns

    def run(
        self, txn: RowWriter, params: Sequence[object], identity: Identity, services: WriteServices
    ) -> StatementResult:
        """Stage the new versions."""
        table = self.table
        txn.expect_schema(table)
        run = Run(txn, params, identity, services)
        found = found_rows(run.query(self.query))
        width = len(table.columns) + 1
        old = pa.Table.from_arrays(found.columns[1:width], schema=table.arrow_schema)
        computed = None
        if self.computed_by_query:
            computed = [
                (found.column(place), self.query.columns[place].type) for place in range(width, found.num_columns)
            ]
        rows, changed = replaced_rows(table, old, self.assignments.new_rows(old, run, computed))
        seqs = found.column(0)
        if rows.num_rows and not pc.all(changed).as_py():
            rows, seqs = rows.filter(changed), seqs.filter(changed)
        if rows.num_rows:
            check_not_null(self.assignments.columns, rows)
            check_rows(self.checks, rows, run)
            try:
                txn.replace(table, partition_of(table, identity), seqs.to_pylist(), rows)
            except DuplicateKey as error:
                raise duplicate_violation(error, table) from None
        return written(f"Updated {rows.num_rows} row(s)", rows.num_rows, rows, self.returning, run)


def plan_update(ast: exp.Update, binding: Binding) -> UpdatePlan:
    """Plan an UPDATE statement."""
    table = resolve_target(ast.this, binding.catalog, binding.system, binding.role, binding.namespace, "update")
    if table.expires:
        raise located(Unsupported, f"UPDATE not supported for STREAM tables (table '{table.full_name}')", ast)
    alias = (ast.this.alias or table.name).lower()
    from_ = ast.args.get("from_")
    items = ast.expressions if from_ is not None else [unqualified(item, table, alias) for item in ast.expressions]
    columns = [(column.name, column.type) for column in table.columns]
    assignments = plan_assignments(items, table, columns, binding, alias)
    by_query = not assignments.inline or (from_ is not None and bool(assignments.nodes))
    query = rows_query(
        ast, table, alias, "UPDATE", [column.name for column in table.columns],
        assignments.nodes if by_query else (), from_,
    )  # fmt: skip
    return UpdatePlan(
        table=table, query=binding.bind(query), assignments=assignments, computed_by_query=by_query,
        returning=plan_returning(ast.args.get("returning"), table, alias, binding),
        checks=compile_checks(table, binding),
    )  # fmt: skip
