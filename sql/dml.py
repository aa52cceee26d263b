"""INSERT, UPDATE and DELETE: planned once for a text, run on a transaction as often as it takes.

A plan names no user and holds no state: every caller of a role shares it, as long as the catalog does not change.
`run` stages its changes in the transaction and answers; it either does all of it or raises, and then the caller
rolls the transaction back to where it was.

`plan.keyed` says that a run needs no query engine and reads only rows that it names by key: quick enough to be run
inside the writer, where no conflict is possible. Everything else runs over a snapshot, and its transaction is
applied afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sql.delete import plan_delete
from sql.identity import Identity
from sql.insert import plan_insert
from sql.results import ResultColumn, StatementResult
from sql.row_expressions import Binding, WriteServices
from sql.statements import Delete, Insert, Update
from sql.update import plan_update
from sql.writing import RowWriter
from storage.catalog import TableDef


class WritePlan(Protocol):
    """A planned statement that changes rows."""

    @property
    def table(self) -> TableDef:
        """The table that is written."""
        ...

    @property
    def keyed(self) -> bool:
        """Whether it may run inside the writer."""
        ...

    @property
    def kinds_matter(self) -> bool:
        """Whether the plan holds only for parameters of the same JSON kinds (as `QueryPlan.kinds_matter`)."""
        ...

    @property
    def retries_duplicates(self) -> bool:
        """Whether a key that another commit took first means another outcome (ON CONFLICT), not an error."""
        ...

    @property
    def weight(self) -> int:
        """About how many rows it stages, as far as the text tells."""
        ...

    @property
    def columns(self) -> tuple[ResultColumn, ...]:
        """The columns of its RETURNING clause; empty without one."""
        ...

    def run(
        self, txn: RowWriter, params: Sequence[object], identity: Identity, services: WriteServices
    ) -> StatementResult:
        """Stage the changes and answer."""
        ...


def plan_write(statement: Insert | Update | Delete, binding: Binding) -> WritePlan:
    """Plan a statement; raises an SqlError that says what is wrong and where."""
    if isinstance(statement, Insert):
        return plan_insert(statement.ast, binding)
    if isinstance(statement, Update):
        return plan_update(statement.ast, binding)
    return plan_delete(statement.ast, binding)
