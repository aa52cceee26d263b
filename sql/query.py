"""Running bound queries: to a table, or as a stream of batches.

A plan runs on its own path; a native plan that meets values which only DuckDB decides runs again on DuckDB's. Both
ways give the columns of `plan.columns` in their storage types, in memory of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import pyarrow as pa

from sql.duck import DuckPool, translated
from sql.duck_plan import scan_types
from sql.duck_results import result_batch, result_schema
from sql.duck_types import to_duck_column
from sql.errors import MemoryLimitExceeded, ProcessMemoryExceeded, QueryTimeout
from sql.expressions import NotCovered
from sql.functions import FunctionContext
from sql.generate import duck_value
from sql.identity import Identity
from sql.native import refuse_beyond, run_native
from sql.parameters import plan_values
from sql.plan import QueryPlan
from sql.scanning import read_scan, select
from sql.streamed_scan import DuckStream, open_scan
from sql.system_tables import SystemContext
from sql.vectors.indexes import VectorIndexes
from sql.vectors.nearest import nearest_scan, run_nearest
from sql.vectors.search_function import search_rows
from sql.workers import Control
from storage.types import ColumnType
from storage.views import ReadView

BATCH_ROWS = 65_536
STREAM_ROWS = 16_384
_PATIENCE = 5.0
"""Seconds that a query waits for the end of others that have the process's memory."""


@dataclass(frozen=True)
class QueryRuntime:
    """What queries run with. `system_context` is what system tables see for a caller."""

    pool: DuckPool
    functions: FunctionContext
    system_context: Callable[[Identity], SystemContext] = field(default=SystemContext)
    vectors: VectorIndexes = field(default_factory=VectorIndexes)


@dataclass(frozen=True)
class Execution:
    """One execution of a plan. `params` are JSON values, `$1` first; `now_us` is the statement's time."""

    view: ReadView
    identity: Identity
    control: Control
    params: Sequence[object] = ()
    now_us: int | None = None


def run_query(
    plan: QueryPlan,
    run: Execution,
    runtime: QueryRuntime,
    *,
    max_rows: int | None = None,
    max_bytes: int | None = None,
) -> pa.Table:
    """The whole result; raises ResultTooLarge beyond `max_rows`, MemoryLimitExceeded beyond `max_bytes`.

    A query that finds no memory in the process because others have it runs again when they are over.
    """
    run.control.check()
    values = _values(plan, run, runtime)
    if plan.native is not None:
        try:
            rows = run_native(plan, run.view, run.identity, values, max_rows)
            return pa.Table.from_arrays(rows.columns, schema=result_schema(plan.columns))
        except NotCovered:
            plan = plan.for_duckdb()
            values = _values(plan, run, runtime)
    near = _near(plan, run, runtime, values)
    if near is not None:
        return near
    guests = runtime.pool.guests()
    try:
        return _collected(plan, run, runtime, values, max_rows, max_bytes)
    except ProcessMemoryExceeded:
        if not runtime.pool.wait_for_others(guests, min(run.control.remaining, _PATIENCE)):
            raise
    return _collected(plan, run, runtime, values, max_rows, max_bytes)


def _collected(
    plan: QueryPlan,
    run: Execution,
    runtime: QueryRuntime,
    values: dict[int, object],
    max_rows: int | None,
    max_bytes: int | None,
) -> pa.Table:
    """The whole result of a query on DuckDB's path; raises as `run_query` does."""
    schema = result_schema(plan.columns)
    batches: list[pa.RecordBatch] = []
    count = size = 0
    with contextlib.closing(_duck_batches(plan, run, runtime, values, BATCH_ROWS)) as produced:
        for batch in produced:
            count += batch.num_rows
            refuse_beyond(max_rows, count)
            if max_bytes is not None:
                size += batch.nbytes
                if size > max_bytes:
                    raise MemoryLimitExceeded(
                        f"The query gives more than {max_bytes} bytes to be written by one statement. Write them "
                        "in several steps."
                    )
            batches.append(batch)
    return pa.Table.from_batches(batches, schema=schema)


def run_over(
    plan: QueryPlan, rows: pa.Table, values: Mapping[int, object], control: Control, runtime: QueryRuntime
) -> pa.Table:
    """The answer of a plan on DuckDB's path, as if its one table had just these rows (with `_seq`)."""
    [scan] = plan.scans
    arguments = [duck_value(p.type, values[p.index], p.is_list) for p in plan.parameters]
    known = {column.name for table in plan.tables for column in table.columns}
    schema = result_schema(plan.columns)
    with (
        translated(positions=plan.positions, columns=known, scans={scan.name: scan.alias}, control=control),
        runtime.pool.lease(control) as session,
    ):
        session.register(scan.name, _shown(select(rows, scan.columns), scan_types(scan)))
        answer = session.collect(plan.sql, arguments, BATCH_ROWS)
        control.check()
        batches = [result_batch(batch, plan.columns, schema) for batch in answer.to_batches()]
    return pa.Table.from_batches(batches, schema=schema)


def stream_query(plan: QueryPlan, run: Execution, runtime: QueryRuntime) -> Iterator[pa.RecordBatch]:
    """The result in batches of at most a few ten thousand rows, as they are made; no limit on their number.

    The view is in use until the iterator is used up or closed; every batch owns its memory.
    """
    run.control.check()
    plan = plan if plan.native is not None and plan.point_key is not None else plan.for_duckdb()
    if plan.native is not None:
        yield from run_query(plan, run, runtime).to_batches(max_chunksize=STREAM_ROWS)
        return
    values = _values(plan, run, runtime)
    near = _near(plan, run, runtime, values)
    if near is not None:
        yield from near.to_batches(max_chunksize=STREAM_ROWS)
        return
    yield from _duck_batches(plan, run, runtime, values, STREAM_ROWS)


def _near(plan: QueryPlan, run: Execution, runtime: QueryRuntime, values: dict[int, object]) -> pa.Table | None:
    """The answer from the nearest rows alone, where they suffice."""
    scan = nearest_scan(plan)
    if scan is None:
        return None

    def evaluate(rows: pa.Table) -> pa.Table:
        run.control.check()
        batches = list(_duck_batches(plan, run, runtime, values, BATCH_ROWS, {scan.name: rows}))
        return pa.Table.from_batches(batches, schema=result_schema(plan.columns))

    with _pinned(run.view):
        near = run_nearest(scan, run.view, run.identity, values, runtime.vectors, evaluate, plan)
    return None if near is None else pa.Table.from_arrays(near.columns, schema=result_schema(plan.columns))


def _values(plan: QueryPlan, run: Execution, runtime: QueryRuntime) -> dict[int, object]:
    now_us = runtime.functions.now_us() if run.now_us is None else run.now_us
    return plan_values(plan, run.params, run.identity, now_us)


def _duck_batches(
    plan: QueryPlan,
    run: Execution,
    runtime: QueryRuntime,
    values: dict[int, object],
    batch_rows: int,
    given: Mapping[str, pa.Table] = MappingProxyType({}),
) -> Generator[pa.RecordBatch, None, None]:
    """The batches that DuckDB makes, converted. `given` are the rows of scans that were read already, by name."""
    schema = result_schema(plan.columns)
    arguments = [duck_value(p.type, values[p.index], p.is_list) for p in plan.parameters]
    names = {scan.name: scan.alias for scan in plan.scans}
    known = {column.name for table in plan.tables for column in table.columns}
    with (
        _pinned(run.view),
        translated(positions=plan.positions, columns=known, scans=names, control=run.control),
        runtime.pool.lease(run.control) as session,
    ):
        _stop_with_lease(run.view, run.control)
        system = runtime.system_context(run.identity)
        streamed: DuckStream | None = None
        for scan in plan.scans:
            if scan.search is not None:
                found = search_rows(scan.search, run.view, run.identity, run.params, runtime.vectors)
                rows = found.select(list(scan.columns))
            elif scan.name in given:
                rows = given[scan.name]
            elif len(plan.scans) == 1:
                opened = open_scan(scan, run.view, run.identity, values, system)
                if isinstance(opened, DuckStream):
                    streamed = opened
                    session.register(scan.name, streamed)
                    continue
                rows = opened
            else:
                rows = read_scan(scan, run.view, run.identity, values, system)
            session.register(scan.name, _shown(rows, scan_types(scan)))
        try:
            with contextlib.closing(session.stream(plan.sql, arguments, batch_rows)) as reader:
                for batch in reader:
                    yield result_batch(batch, plan.columns, schema)
                run.control.check()
        except Exception as error:
            if streamed is not None and streamed.error is not None:
                raise streamed.error from error
            raise


def _shown(rows: pa.Table, types: Mapping[str, ColumnType]) -> pa.Table:
    """The rows with the Arrow types that DuckDB reads as ours."""
    return pa.table(
        [to_duck_column(kind, rows.column(name)) for name, kind in types.items()],
        names=list(types),
    )


def _pinned(view: ReadView) -> contextlib.AbstractContextManager[object]:
    """Keep a snapshot's pages in place; other views live as long as their caller."""
    pin = getattr(view, "pin", None)
    return pin() if pin is not None else contextlib.nullcontext()


def _stop_with_lease(view: ReadView, control: Control) -> None:
    """Let the end of the snapshot's lease stop what runs under the control."""
    on_expire = getattr(view, "on_expire", None)
    if on_expire is not None:
        on_expire(lambda: control.stop(QueryTimeout("The statement held its snapshot longer than the lease allows.")))
