"""EXPLAIN: how a statement is carried out, as lines of text.

It shows the path, the scans with their columns, key accesses and partitions, and what types the parameters have; of
rows only the caller's own count (with ANALYZE). Values of other users cannot appear: the plan holds none.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

import pyarrow as pa

from sql.binder import BindContext, bind_query
from sql.dml import plan_write
from sql.errors import SqlError, Unsupported
from sql.identity import Identity
from sql.index_explain import describe_indexes, describe_order, operand_text, sign
from sql.index_reads import observing
from sql.plan import SEQ, ColumnRange, KeyAccess, Path, QueryPlan, Scan, Source
from sql.pushdown import seek_columns
from sql.query import Execution, QueryRuntime, run_query
from sql.results import ResultColumn, StatementResult
from sql.rights import partition_of
from sql.statements import Delete, Insert, Query, Statement, Update
from sql.vectors.explanation import describe_vectors
from sql.workers import Control
from storage.types import TEXT
from storage.views import ReadView


class ExplainContext(Protocol):
    """The request of an EXPLAIN."""

    @property
    def identity(self) -> Identity:
        """The caller, or the target of EXECUTE AS USER."""
        ...

    @property
    def params(self) -> Sequence[object]:
        """JSON values, `$1` first."""
        ...

    @property
    def control(self) -> Control:
        """The deadline."""
        ...


ContextT_contra = TypeVar("ContextT_contra", bound=ExplainContext, contravariant=True)


class ExplainServices(Protocol[ContextT_contra]):
    """What EXPLAIN needs of the services that run statements."""

    runtime: QueryRuntime

    def binding(self, view: ReadView, context: ContextT_contra) -> BindContext:
        """What a statement is bound in."""
        ...


def explain(
    statement: Statement,
    analyze: bool,
    view: ReadView,
    context: ContextT_contra,
    services: ExplainServices[ContextT_contra],
) -> StatementResult:
    """The plan of a query or of a statement that writes; with ANALYZE a query runs, too."""
    binding = services.binding(view, context)
    match statement:
        case Query():
            plan = bind_query(statement.ast, binding)
            lines = list(describe_plan(plan, context.identity))
            lines += describe_vectors(plan, view, context.identity, services.runtime.vectors)
            if analyze:
                lines += _analyzed(plan, view, context, services.runtime)
        case Insert() | Update() | Delete():
            if analyze:
                raise Unsupported("EXPLAIN ANALYZE runs queries only: this statement would write.")
            write = plan_write(statement, binding)
            verb = type(statement).__name__.lower()
            where = "inside the writer" if write.keyed else "over a snapshot, then checked and applied by the writer"
            lines = [f"{verb} {write.table.full_name}: {where}"]
            inner = getattr(write, "query", None)
            if isinstance(inner, QueryPlan):
                lines += [f"  {line}" for line in describe_plan(inner, context.identity)]
        case _:
            raise Unsupported("EXPLAIN takes a query, INSERT, UPDATE or DELETE.")
    return StatementResult(
        columns=(ResultColumn("plan", TEXT, ("nn",)),),
        table=pa.table({"plan": pa.array(lines, pa.string())}),
        row_count=len(lines),
    )


def describe_plan(plan: QueryPlan, identity: Identity) -> Iterator[str]:
    """The lines of a query's plan."""
    yield f"path: {_path(plan)}"
    for scan in plan.scans:
        yield f"scan: {_scan(scan, identity)}"
        yield f"  columns: {', '.join(scan.columns)}"
        target = scan.table if scan.table is not None else scan.system
        whole = False
        if scan.key is not None and target is not None:
            names = [column.name for column in seek_columns(target)]
            whole = len(scan.key.prefix) == len(names)
            yield f"  {'key' if whole else 'key range'}: {_access(scan.key, names)}"
        if scan.ranges and not whole:
            yield f"  statistics: {' and '.join(_ranges(scan.ranges))}"
        yield from (f"  {line}" for line in describe_indexes(scan))
        if scan.ordered:
            keys = [column.name for column in scan.table.key_columns] if scan.table is not None else []
            yield f"  order: {', '.join([*keys, SEQ])}"
    yield from _native(plan)
    for parameter in plan.parameters:
        shown = f"{parameter.type}{'[]' if parameter.is_list else ''}"
        origin = "" if parameter.source is Source.REQUEST else f" ({parameter.source.value})"
        yield f"parameter ${parameter.index}: {shown}{origin}"
    yield f"output: {', '.join(f'{column.name} {column.type}' for column in plan.columns)}"


def _path(plan: QueryPlan) -> str:
    if plan.path is Path.NATIVE and plan.scans[0].key is not None:
        return "key range"
    if plan.native is not None and (plan.native.order is not None or plan.scans[0].indexes):
        return "index"
    return plan.path.value


def _scan(scan: Scan, identity: Identity) -> str:
    alias = f" as {scan.alias}" if scan.alias != scan.full_name.rpartition(".")[2] else ""
    if scan.search is not None:
        return f"vector_search of {scan.search.table.full_name}.{scan.search.column}{alias}"
    if scan.system is not None:
        return f"{scan.full_name}{alias} (computed)"
    if scan.table is not None and scan.own_partition:
        return f"{scan.full_name}{alias} (partition of user '{partition_of(scan.table, identity)}')"
    return f"{scan.full_name}{alias} (shared)"


def _access(access: KeyAccess, names: list[str]) -> str:
    terms = [f"{name} = {operand_text(operand)}" for name, operand in zip(names, access.prefix, strict=False)]
    if len(terms) < len(names):
        name = names[len(terms)]
        terms += [f"{name} {sign('>', bound)} {operand_text(bound.operand)}" for bound in (access.low,) if bound]
        terms += [f"{name} {sign('<', bound)} {operand_text(bound.operand)}" for bound in (access.high,) if bound]
    return " and ".join(terms)


def _ranges(ranges: Sequence[ColumnRange]) -> Iterator[str]:
    """What leaves out batches of the cold tier."""
    for one in ranges:
        yield from (f"{one.column} >= {operand_text(side)}" for side in one.low)
        yield from (f"{one.column} <= {operand_text(side)}" for side in one.high)
        if len(one.among) == 1:
            yield f"{one.column} = {operand_text(one.among[0])}"
        elif one.among:
            yield f"{one.column} in ({', '.join(map(operand_text, one.among[:8]))}{', …' if one.among[8:] else ''})"


def _native(plan: QueryPlan) -> Iterator[str]:
    native = plan.native
    if native is None:
        yield "pushed down: the columns and keys above; the rest is DuckDB's"
        return
    if native.counts:
        yield "count: rows" if native.condition is not None else "count: from the table's statistics"
    if native.condition is not None and plan.residual_filter:
        yield f"filter: on {', '.join(sorted(native.condition.columns))}"
    if native.order is not None:
        yield f"order: {describe_order(native.order)}"
    if native.descending:
        yield "descending: by key"
    for word, operand in (("limit", native.limit), ("offset", native.offset)):
        if operand is not None:
            yield f"{word}: {operand_text(operand)}"


def _analyzed(plan: QueryPlan, view: ReadView, context: ExplainContext, runtime: QueryRuntime) -> list[str]:
    """What running the query took."""
    started = time.perf_counter()
    before = view.statistics.counts()
    with observing() as observed:
        try:
            rows = run_query(plan, Execution(view, context.identity, context.control, context.params), runtime).num_rows
        except SqlError as error:
            return [f"failed: {error.message}"]
    lines = [f"fetched: {one.entries} row(s) of {one.table} by index {one.used}" for one in observed]
    lines += [f"rows: {rows}", f"time: {(time.perf_counter() - started) * 1000:.3f} ms"]
    done = view.statistics.counts() - before
    if done.files + done.files_pruned:
        lines.append(
            f"cold: {done.files} files read, {done.files_pruned} pruned; "
            f"{done.row_groups} row groups read, {done.row_groups_pruned} pruned"
        )
    return lines
