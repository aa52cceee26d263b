"""Which rows of some a live query keeps, and what it shows of them: the one evaluator of snapshots and changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sql.errors import Overloaded, Unsupported
from sql.expressions import NotCovered
from sql.identity import Identity
from sql.live.errors import MustBlock, StaleBinding
from sql.live.live_plan import LivePlan
from sql.parameters import plan_values
from sql.plan import DELETED, SEQ
from sql.query import Execution, QueryRuntime, run_over, run_query
from sql.workers import Control
from storage.contiguous import one_array
from storage.types import arrow_type
from storage.views import ReadView


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a plan is evaluated with: storage values by index for our evaluator, JSON values for DuckDB's path."""

    values: tuple[object, ...]
    params: tuple[object, ...]
    identity: Identity
    now_us: int


@dataclass(frozen=True, slots=True)
class Selection:
    """`places` are the rows kept, ascending; `columns` what is shown of them, as the plan's columns."""

    places: npt.NDArray[np.int64]
    columns: Sequence[pa.Array]


def check_columns(plan: LivePlan, schema: pa.Schema) -> None:
    """Raise StaleBinding unless the rows have the columns that the plan reads, in their types."""
    if schema.equals(plan.change_schema):
        return
    for name, kind in plan.types.items():
        place = schema.get_field_index(name)
        if place < 0 or schema.field(place).type != arrow_type(kind):
            raise StaleBinding(f"Column '{name}' of table '{plan.table.full_name}' is not what it was.")


def select_rows(
    plan: LivePlan, rows: pa.RecordBatch, arguments: Arguments, runtime: QueryRuntime | None, control: Control | None
) -> Selection:
    """What a plan keeps of row versions, which have `_seq` (ascending). Without `control` it may raise MustBlock."""
    columns = by_name(rows)
    try:
        kept = matching(plan, columns, rows.num_rows, arguments)
        if kept is not None and not len(kept):
            return Selection(kept, ())
        if kept is not None and plan.outputs is not None:
            return Selection(kept, shown(plan, columns, kept, rows.num_rows, arguments))
    except NotCovered:
        kept = None
    if control is None or runtime is None:
        raise MustBlock
    asked = rows if kept is None or len(kept) == rows.num_rows else rows.take(pa.array(kept))
    result = engine_on_rows(plan, pa.Table.from_batches([asked]), arguments, runtime, control)
    seqs, found = rows.column(SEQ).to_numpy(), result.column(SEQ).to_numpy()
    return Selection(np.searchsorted(seqs, found), [one_array(column) for column in result.columns])


def by_name(rows: pa.RecordBatch) -> dict[str, pa.Array]:
    """The columns of rows that exist, `_deleted` among them."""
    columns = dict(zip(rows.schema.names, rows.columns, strict=True))
    columns[DELETED] = pa.repeat(pa.scalar(value=False), rows.num_rows)
    return columns


def matching(
    plan: LivePlan, columns: Mapping[str, pa.Array], length: int, arguments: Arguments
) -> npt.NDArray[np.int64] | None:
    """The places of the rows that the condition keeps; None when only DuckDB knows. Raises NotCovered likewise."""
    if not plan.covers_condition:
        return None
    if plan.condition is None:
        return np.arange(length, dtype=np.int64)
    mask = plan.condition.evaluate(columns, arguments.values, length)
    flags = (mask.fill_null(False) if mask.null_count else mask).to_numpy(zero_copy_only=False)
    return np.flatnonzero(flags)


def shown(
    plan: LivePlan,
    columns: Mapping[str, pa.Array],
    kept: npt.NDArray[np.int64],
    length: int,
    arguments: Arguments,
    *,
    copy: bool = False,
) -> list[pa.Array]:
    """The outputs of the rows at `kept`; with `copy` in memory of their own."""
    assert plan.outputs is not None
    places = None if len(kept) == length and not copy else pa.array(kept)
    taken: dict[str, pa.Array] = {}

    def take(name: str) -> pa.Array:
        if name not in taken:
            taken[name] = columns[name] if places is None else columns[name].take(places)
        return taken[name]

    found = []
    for output in plan.outputs:
        if output.column is not None:
            found.append(take(output.column))
        else:
            assert output.expression is not None
            inputs = {name: take(name) for name in output.expression.columns}
            found.append(output.expression.evaluate(inputs, arguments.values, len(kept)))
    return found


def engine_on_rows(
    plan: LivePlan, rows: pa.Table, arguments: Arguments, runtime: QueryRuntime, control: Control
) -> pa.Table:
    """DuckDB's answer over given rows, by `_seq`; waits for a connection as long as the control allows."""
    engine = plan.engine()
    values = plan_values(engine, arguments.params, arguments.identity, arguments.now_us)
    while True:
        try:
            return in_seq_order(run_over(engine, rows, values, control, runtime))
        except Overloaded:
            control.check()


def engine_on_view(
    plan: LivePlan, view: ReadView, arguments: Arguments, runtime: QueryRuntime, control: Control, max_bytes: int
) -> pa.Table:
    """DuckDB's answer over the partition, by `_seq`; raises MemoryLimitExceeded beyond `max_bytes`."""
    engine = plan.engine()
    unordered = replace(engine, scans=tuple(replace(scan, ordered=False) for scan in engine.scans))
    run = Execution(view, arguments.identity, control, arguments.params, arguments.now_us)
    return in_seq_order(run_query(unordered, run, runtime, max_bytes=max_bytes))


def in_seq_order(rows: pa.Table) -> pa.Table:
    """The rows by `_seq`; as they are when they stand so already. Raises Unsupported when one is there twice."""
    if rows.num_rows < 2:
        return rows
    seqs = rows.column(SEQ).to_numpy()
    if bool((seqs[1:] > seqs[:-1]).all()):
        return rows
    order = np.argsort(seqs, kind="stable")
    ordered = seqs[order]
    if bool((ordered[1:] == ordered[:-1]).any()):
        raise Unsupported("A live query cannot make several rows of one.")
    return rows.take(pa.array(order))
