"""The condition of a topic's source: bound when the source is added, asked of every row that is written.

It takes the same way as the condition of a live query (`sql.live.live_plan`): our own evaluator by column where it
covers the condition, DuckDB where not. DuckDB runs on a connection of the router's own then, as it runs inside the
writer: a query that keeps every other connection busy must not hold up writes.

A condition must say the same of a row whenever it is asked and whoever wrote it, so parameters, NOW() and CURRENT_USER
are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
from sqlglot import exp

from sql.binder import BindContext
from sql.dialect import parse_expression
from sql.errors import SqlError, Unsupported
from sql.expressions import NotCovered
from sql.identity import Identity, Role
from sql.live.errors import MustBlock
from sql.live.live_plan import LivePlan, plan_live
from sql.live.selection import Arguments, select_rows
from sql.plan import SEQ, Source
from sql.query import QueryRuntime
from sql.wire import BigintMode
from sql.workers import Control
from storage.catalog import TableDef
from storage.errors import PublishFailed
from storage.topic_publishing import Places, PublishedRows

SECONDS = 5.0
"""How long DuckDB may take for the rows of one commit, for one source."""

_NOBODY = Identity(user="", role=Role.SYSTEM)


def bind_condition(condition: exp.Expr, table: TableDef, context: BindContext) -> LivePlan:
    """The plan of a condition over a table; raises an SqlError that says what is wrong with it and where."""
    query = (
        exp.select(exp.column(SEQ, quoted=True))
        .from_(exp.table_(table.name, db=table.namespace, quoted=True))
        .where(condition.copy(), copy=False)
    )
    whole = replace(context, role=Role.SYSTEM, namespace=table.namespace, parameter_kinds=())
    plan = plan_live(query, whole, (condition.sql(),), bigint=BigintMode.NUMBER)
    for parameter in plan.parameters:
        if parameter.source is not Source.REQUEST:
            name = "NOW()" if parameter.source is Source.NOW else f"CURRENT_{parameter.source.name}"
            raise Unsupported(f"{name} is not supported in the condition of a topic's source: it is no part of a row.")
        raise Unsupported("Parameters are not supported in the condition of a topic's source: write the value.")
    return plan


class Condition:
    """A bound condition. Used in the writer only."""

    def __init__(self, plan: LivePlan, runtime: Callable[[], QueryRuntime]) -> None:
        self._plan = plan
        self._runtime = runtime

    def kept(self, rows: PublishedRows) -> Places:
        """The places of the rows that it keeps, ascending. Raises PublishFailed where it cannot be evaluated."""
        batch = rows.batch
        seqs = batch.column(SEQ).to_numpy()
        order = None
        if len(seqs) > 1 and not (seqs[1:] > seqs[:-1]).all():
            order = np.argsort(seqs)
            batch = batch.take(pa.array(order))
        try:
            places = self._places(batch)
        except (SqlError, NotCovered) as error:
            raise PublishFailed(f"the condition of a topic's source cannot be evaluated: {error}") from error
        return places if order is None else np.sort(order[places])

    def _places(self, batch: pa.RecordBatch) -> Places:
        arguments = Arguments((), (), _NOBODY, 0)
        try:
            return select_rows(self._plan, batch, arguments, None, None).places
        except MustBlock:
            return select_rows(self._plan, batch, arguments, self._runtime(), Control(SECONDS)).places


def compile_condition(
    text: str, table: TableDef, context: BindContext, runtime: Callable[[], QueryRuntime]
) -> Condition:
    """The condition of a stored source."""
    return Condition(bind_condition(parse_expression(text), table, context), runtime)
