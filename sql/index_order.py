"""ORDER BY … LIMIT in the order of a secondary index: the first rows are read, the others are not sorted.

The columns of ORDER BY stand in the index one after the other, behind columns that WHERE pins to one value, all in one
direction and with NULLs where the index has them (last when ascending), as is the default. What else WHERE says is
evaluated over the rows as they are read; when too few of the first MOST_FETCHED pass, DuckDB does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
from sqlglot import exp

from sql.expressions import NotCovered
from sql.index_access import Parameters, column_terms
from sql.index_reads import MOST_FETCHED, first_seqs, observe
from sql.plan import IndexAccess, IndexOrder, ListRef
from sql.scope import TableUse
from storage.catalog import IndexState, TableDef
from storage.types import Kind
from storage.views import ReadView

_FIRST_READ = 64


def index_order(tree: exp.Select, use: TableUse, parameters: Parameters) -> IndexOrder | None:
    """The index that gives rows in the order that a query asks for, if there is one."""
    table, order = use.target, tree.args.get("order")
    if order is None or not isinstance(table, TableDef) or not table.indexes:
        return None
    wanted = _wanted(tree, order.expressions, use)
    if wanted is None:
        return None
    names, descending = wanted
    where = tree.args.get("where")
    terms = column_terms(where.this if where else None, use, [use], parameters, alone=True)
    best: IndexOrder | None = None
    for index in table.indexes:
        columns = [table.by_id[column_id].name for column_id in index.column_ids]
        pinned = 0
        while columns[pinned : pinned + len(names)] != names and pinned < len(columns):
            choices = terms.equal.get(columns[pinned], ())
            if len(choices) != 1 or isinstance(choices[0], ListRef):
                break
            pinned += 1
        if index.state is not IndexState.READY or columns[pinned : pinned + len(names)] != names:
            continue
        equal = tuple(terms.equal[name] for name in columns[:pinned])
        access = IndexAccess(
            index.index_id, index.name, tuple(columns), equal, terms.low.get(names[0]), terms.high.get(names[0]),
            marked=True, unique=index.unique,
        )  # fmt: skip
        if best is None or pinned > len(best.access.equal):
            best = IndexOrder(access, tuple(names), descending)
    return best


def _wanted(tree: exp.Select, items: Sequence[exp.Expr], use: TableUse) -> tuple[list[str], bool] | None:
    """The columns of ORDER BY and whether they descend."""
    assert isinstance(use.target, TableDef)
    aliases = {item.alias.lower() for item in tree.expressions if isinstance(item, exp.Alias)}
    names: list[str] = []
    directions: set[bool] = set()
    for item in items:
        if not isinstance(item, exp.Ordered) or item.args.get("with_fill"):
            return None
        node, descending = item.this, bool(item.args.get("desc"))
        if not isinstance(node, exp.Column) or node.args.get("db"):
            return None
        name = node.name.lower()
        column = use.target.by_name.get(name)
        foreign = node.table and node.table.lower() != use.alias
        if column is None or foreign or (not node.table and name in aliases) or column.type.kind is Kind.FLOAT:
            return None
        if bool(item.args.get("nulls_first")) != descending and column.nullable:
            return None
        names.append(name)
        directions.add(descending)
    return (names, directions.pop()) if names and len(directions) == 1 else None


def read_in_order(
    order: IndexOrder,
    table: TableDef,
    partition: str,
    view: ReadView,
    columns: Sequence[str],
    values: Mapping[int, object],
    wanted: int,
    keep: Callable[[pa.Table], pa.Table] | None,
) -> pa.Table:
    """The first `wanted` rows that `keep` keeps, `_seq` first. Raises NotCovered when another way is better."""
    most = wanted if keep is None else max(4 * wanted, _FIRST_READ)
    while wanted <= MOST_FETCHED:
        most = min(most, MOST_FETCHED)
        seqs = first_seqs(table, partition, view, order.access, values, most, reverse=order.descending)
        if seqs is None:
            break
        rows = view.fetch(table, partition, seqs, columns, with_seq=True)
        if keep is not None:
            rows = keep(rows)
        if rows.num_rows >= wanted or len(seqs) < most:
            observe(table, order.access.name, len(seqs))
            return rows.slice(0, wanted)
        if most == MOST_FETCHED:
            break
        most *= 8
    raise NotCovered("the rows in front are not found by the index")
