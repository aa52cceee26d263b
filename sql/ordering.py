"""The order of rows that a query does not ask for: by primary key, then `_seq`, so that pages are stable.

It holds for a query of one table without ORDER BY, aggregates, DISTINCT and set operations. The scan is then read in
that order. DuckDB keeps the order of a scan through filters, projections and LIMIT; where a query has windows or
subqueries, too, the order is written into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot import exp

from sql.outputs import sources
from sql.plan import SEQ
from sql.scope import TableUse, renames_columns
from storage.catalog import TableDef

_REORDERING = ("group", "having", "distinct", "order", "cluster", "sort", "sample", "laterals", "pivots")


@dataclass(frozen=True, slots=True)
class DefaultOrder:
    """The table whose scan is ordered, and whether the query has to say it, too."""

    use: TableUse
    written: bool


def default_order(tree: exp.Expr, uses: Sequence[TableUse]) -> DefaultOrder | None:
    """The default order of a query, if it has one."""
    if not isinstance(tree, exp.Select) or any(tree.args.get(key) for key in _REORDERING):
        return None
    found, alone = sources(tree, uses)
    if not alone or len(found) != 1 or not isinstance(found[0].target, TableDef) or renames_columns(found[0].node):
        return None
    own = [node for node in tree.walk() if node.parent_select is tree]
    if any(isinstance(node, exp.AggFunc) and not isinstance(node.parent, exp.Window) for node in own):
        return None
    moves = tree.args.get("qualify") or any(isinstance(node, (exp.Window, exp.Query)) for node in own)
    unknown = any(isinstance(node, (exp.Anonymous, exp.AnonymousAggFunc)) for node in own)
    return DefaultOrder(found[0], bool(moves) and not unknown)


def write_order(tree: exp.Expr, order: DefaultOrder) -> None:
    """Add the ORDER BY clause, and note the columns that it needs."""
    assert isinstance(tree, exp.Select)
    assert isinstance(order.use.target, TableDef)
    names = [*(column.name for column in order.use.target.key_columns), SEQ]
    order.use.needed.update(names)
    terms = [exp.Ordered(this=exp.column(name, table=order.use.alias, quoted=True)) for name in names]
    tree.set("order", exp.Order(expressions=terms))
