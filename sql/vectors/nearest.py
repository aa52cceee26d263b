"""`ORDER BY distance LIMIT k`: which queries need only the nearest rows, and reading just those.

The query itself stays as it is. DuckDB evaluates it, with its condition and its order, over the nearest rows instead of
all; when it gives as many rows as LIMIT wants, no farther row could have been among them. When a condition left too
few, it runs again over more of them, and at last over all. So the condition is always kept exactly, and what an index
may miss is a neighbour, never a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np
import pyarrow as pa
from sqlglot import exp

from sql.expressions import NotCovered
from sql.identity import Identity
from sql.outputs import sources
from sql.plain import parameter_index, plain_value
from sql.plan import HIDDEN_COLUMNS, Constant, Nearest, Operand, ParameterRef, QueryPlan, Scan
from sql.rights import partition_of
from sql.scanning import select, value_of
from sql.scope import TableUse, renames_columns
from sql.vectors.functions import DISTANCE, Distance
from sql.vectors.indexes import VectorIndexes
from sql.vectors.plain_nearest import Wanted, fits, plain_nearest, run_plain
from storage.catalog import TableDef
from storage.views import ReadView

MOST = 1_000
"""A LIMIT (with OFFSET) beyond this reads all rows."""
_MOST_FETCHED = 4_000
"""Rows that are read one by one at most; beyond, a scan is faster."""
_FIRST_FILTERED = 64
_WIDER = 8
_CLAUSES = frozenset(("expressions", "from_", "where", "order", "limit", "offset", "kind", "hint"))


def note_nearest(tree: exp.Expr, uses: Sequence[TableUse]) -> None:
    """Tell the table's use when a query of one table needs its nearest rows only."""
    if not isinstance(tree, exp.Select) or not uses:
        return
    if any(value and key not in _CLAUSES for key, value in tree.args.items()) or tree.args.get("kind"):
        return
    found, alone = sources(tree, uses)
    if not alone or len(found) != 1 or not isinstance(found[0].target, TableDef) or renames_columns(found[0].node):
        return
    if tree.find(exp.Window, exp.Unnest, exp.Explode) is not None or tree.find(exp.AggFunc) is not None:
        return
    distance = _ordering(tree)
    limit, offset = _count(tree, "limit", exp.Limit), _count(tree, "offset", exp.Offset)
    if (
        distance is None
        or distance.use is not found[0]
        or limit is None
        or (tree.args.get("offset") and offset is None)
    ):
        return
    filtered = tree.args.get("where") is not None
    plain = plain_nearest(tree, found[0])
    found[0].nearest = Nearest(distance.column, distance.metric, distance.vector, limit, offset, filtered, plain)


def _ordering(tree: exp.Select) -> Distance | None:
    """The distance that the query is ordered by first, nearest first, with NULLs behind."""
    order = tree.args.get("order")
    if order is None or not order.expressions:
        return None
    term = order.expressions[0]
    if not isinstance(term, exp.Ordered) or term.args.get("with_fill"):
        return None
    node = term.this
    while isinstance(node, exp.Paren):
        node = node.this
    if isinstance(node, exp.Column) and not node.table:
        named = [item for item in tree.expressions if isinstance(item, exp.Alias) and item.alias == node.name]
        node = named[0].this if len(named) == 1 else node
    found = node.meta.get(DISTANCE) if node.meta else None
    if not isinstance(found, Distance) or bool(term.args.get("desc")) is not found.similar:
        return None
    target = found.use.target
    nullable = not isinstance(target, TableDef) or target.by_name[found.column].nullable
    return None if term.args.get("nulls_first") and nullable else found


def _count(tree: exp.Select, key: str, kind: type[exp.Expr]) -> Operand | None:
    clause = tree.args.get(key)
    if type(clause) is not kind:
        return None
    node = clause.expression
    index = parameter_index(node)
    if index is not None:
        return ParameterRef(index)
    value = plain_value(node)
    return Constant(value) if type(value) is int and value >= 0 else None


def nearest_scan(plan: QueryPlan) -> Scan | None:
    """The scan of a plan that the nearest rows may do for."""
    found = [scan for scan in plan.scans if scan.nearest is not None and scan.key is None]
    return found[0] if len(found) == 1 else None


def run_nearest(
    scan: Scan,
    view: ReadView,
    identity: Identity,
    values: Mapping[int, object],
    vectors: VectorIndexes,
    evaluate: Callable[[pa.Table], pa.Table],
    plan: QueryPlan,
) -> pa.Table | None:
    """The answer over the nearest rows of a scan, by `evaluate` where DuckDB is needed; None when all must be read."""
    nearest, table = scan.nearest, scan.table
    assert nearest is not None
    assert table is not None
    vector, limit = value_of(nearest.vector, values), value_of(nearest.limit, values)
    offset = 0 if nearest.offset is None else value_of(nearest.offset, values)
    if vector is None or not isinstance(limit, int) or not isinstance(offset, int) or not 0 < limit + offset <= MOST:
        return None
    if limit <= 0 or offset < 0:
        return None
    partition = partition_of(table, identity)
    if nearest.filtered and vectors.usable(view, table, partition, nearest.column, nearest.metric) is None:
        return None  # all distances have to be looked at anyway, and few rows may fulfil the condition
    if nearest.plain is not None and fits(nearest.plain, plan):
        with suppress(NotCovered):
            wanted = Wanted(np.asarray(vector, dtype=np.float64), limit, offset)
            return run_plain(nearest, table, partition, view, values, vectors, wanted)
    for count in _counts(limit + offset, filtered=nearest.filtered):
        query = np.asarray(vector, dtype=np.float64)
        found = vectors.search(view, table, partition, nearest.column, nearest.metric, query, count)
        answer = evaluate(_rows(scan, table, partition, view, found.seqs.tolist()))
        if answer.num_rows >= limit:
            return answer
        if len(found.seqs) < count:
            return None
    return None


def _counts(wanted: int, *, filtered: bool) -> Iterator[int]:
    """How many of the nearest rows to take, first and then. A few more than wanted, for those at the same distance."""
    if not filtered:
        yield 2 * wanted + 16
        return
    count = max(4 * wanted, _FIRST_FILTERED)
    while count <= _MOST_FETCHED:
        yield count
        count *= _WIDER


def _rows(scan: Scan, table: TableDef, partition: str, view: ReadView, seqs: list[int]) -> pa.Table:
    stored = [name for name in scan.columns if name not in HIDDEN_COLUMNS]
    return select(view.fetch(table, partition, seqs, stored, with_seq=True), scan.columns)
