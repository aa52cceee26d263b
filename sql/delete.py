"""DELETE: the rows that WHERE finds, removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from sqlglot import exp

from sql.identity import Identity
from sql.plan import Path, QueryPlan
from sql.results import ResultColumn, StatementResult
from sql.returning import Returning, plan_returning, written
from sql.rights import partition_of
from sql.row_expressions import Binding, Run, WriteServices
from sql.row_query import found_rows, rows_query
from sql.write_targets import resolve_target
from sql.writing import RowWriter
from storage.catalog import TableDef


@dataclass(frozen=True)
class DeletePlan:
    """A planned DELETE. `query` gives `_seq`, and all columns when RETURNING needs them."""

    table: TableDef
    query: QueryPlan
    returning: Returning | None
    weight: int = 1
    retries_duplicates: bool = False

    @property
    def keyed(self) -> bool:
        """Whether it may run inside the writer."""
        return self.query.path is Path.POINT and (self.returning is None or self.returning.inline)

    @property
    def kinds_matter(self) -> bool:
        """Whether the plan holds only for parameters of the same JSON kinds."""
        return self.query.kinds_matter or (self.returning is not None and self.returning.expressions.kinds_matter)

    @property
    def columns(self) -> tuple[ResultColumn, ...]:
        """The columns of RETURNING."""
        return () if self.returning is None else self.returning.columns

    def run(
        self, txn: RowWriter, params: Sequence[object], identity: Identity, services: WriteServices
    ) -> StatementResult:
        """Stage the removal."""
        table = self.table
        txn.expect_schema(table)
        run = Run(txn, params, identity, services)
        found = found_rows(run.query(self.query))
        rows = found
        if self.returning is not None:
            rows = pa.Table.from_arrays(found.columns[1:], schema=table.arrow_schema)
        if found.num_rows:
            txn.delete(table, partition_of(table, identity), found.column(0).to_pylist())
        return written(f"Deleted {found.num_rows} row(s)", found.num_rows, rows, self.returning, run)


def plan_delete(ast: exp.Delete, binding: Binding) -> DeletePlan:
    """Plan a DELETE statement."""
    table = resolve_target(ast.this, binding.catalog, binding.system, binding.role, binding.namespace, "delete")
    alias = (ast.this.alias or table.name).lower()
    returning = plan_returning(ast.args.get("returning"), table, alias, binding)
    names = [column.name for column in table.columns] if returning is not None else []
    query = rows_query(ast, table, alias, "DELETE", names, (), ast.args.get("using"))
    return DeletePlan(table=table, query=binding.bind(query), returning=returning)
