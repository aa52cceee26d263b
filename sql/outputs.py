"""The result columns of a query: which outputs are a table's column as it is, and what flags and types follow."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from sql.plan import SEQ
from sql.result_columns import column_flags as flags_of_table_column
from sql.results import ResultColumn
from sql.scope import TableUse, is_star, renames_columns, star_qualifier
from storage.catalog import TableDef
from storage.types import ColumnType, Kind

Origin = tuple[TableUse, str]
"""A column of a table, by its name."""


def sources(select: exp.Select, uses: Sequence[TableUse]) -> tuple[list[TableUse], bool]:
    """The tables of a SELECT's own FROM in order, and whether nothing else stands there."""
    from_ = select.args.get("from_")
    if not isinstance(from_, exp.From):
        return [], False
    items = [from_.this, *(join.this for join in select.args.get("joins") or ())]
    by_node = {id(use.node): use for use in uses}
    found = [by_node[id(item)] for item in items if id(item) in by_node]
    plain = not any(item.args.get("joins") or item.args.get("sample") for item in items)
    return found, plain and len(found) == len(items) and not select.args.get("laterals")


def origins(tree: exp.Expr, uses: Sequence[TableUse]) -> list[Origin | None] | None:
    """Where each output of the outermost SELECT comes from; None when stars make their number uncertain."""
    if not isinstance(tree, exp.Select):
        return None
    tables, alone = sources(tree, uses)
    if any(renames_columns(use.node) for use in tables):
        return None
    merged = any(join.args.get("using") or join.args.get("method") for join in tree.args.get("joins") or ())
    found: list[Origin | None] = []
    for item in tree.expressions:
        if is_star(item):
            star = item if isinstance(item, exp.Star) else item.this
            if any(star.args.get(key) for key in ("except_", "replace", "rename")):
                return None
            qualifier = star_qualifier(item)
            chosen = [use for use in tables if qualifier in {"", use.alias}]
            if not chosen or (not qualifier and (merged or not alone)):
                return None
            found += [(use, name) for use in chosen for name in use.column_types]
        else:
            found.append(_origin(item.unalias() if isinstance(item, exp.Alias) else item, tables, alone=alone))
    return found


def _origin(item: exp.Expr, tables: Sequence[TableUse], *, alone: bool) -> Origin | None:
    if not isinstance(item, exp.Column) or item.args.get("db") is not None:
        return None
    name = item.name.lower()
    if item.table:
        owners = [use for use in tables if use.alias == item.table.lower() and use.type_of(name) is not None]
    else:
        owners = [use for use in tables if use.type_of(name) is not None] if alone else []
    return (owners[0], name) if len(owners) == 1 else None


def result_columns(
    tree: exp.Expr, found: Sequence[Origin | None] | None, names: Sequence[str], types: Sequence[ColumnType]
) -> tuple[ResultColumn, ...]:
    """The columns with the finer types (FILE rather than JSON) and flags that outputs of plain columns have.

    `found` are the `origins` of the tree.
    """
    if found is None or len(found) != len(names):
        return tuple(ResultColumn(name, kind) for name, kind in zip(names, types, strict=True))
    joins = isinstance(tree, exp.Select) and bool(tree.args.get("joins"))
    nullable = _null_extended(tree) or _grouping_sets(tree)
    columns = []
    for name, kind, origin in zip(names, types, found, strict=True):
        finer = origin[0].type_of(origin[1]) if origin else None
        shown = finer if finer is not None and finer.kind is Kind.FILE else kind
        flags = column_flags(origin) if origin and not nullable else ()
        columns.append(ResultColumn(name, shown, tuple(f for f in flags if f == "nn") if joins else flags))
    return tuple(columns)


def column_flags(origin: Origin) -> tuple[str, ...]:
    """`pk`, `nn`, `uq` of a table's column."""
    use, name = origin
    if not isinstance(use.target, TableDef):
        column = next((c for c in use.target.columns if c.name == name), None)
        return ("nn",) if column is not None and not column.nullable else ()
    if name == SEQ:
        return ("nn", "uq")
    return flags_of_table_column(use.target, name) if name in use.target.by_name else ("nn",)


def _null_extended(tree: exp.Expr) -> bool:
    joins = tree.args.get("joins") or () if isinstance(tree, exp.Select) else ()
    return any(join.side in {"LEFT", "RIGHT", "FULL"} for join in joins)


def _grouping_sets(tree: exp.Expr) -> bool:
    group = tree.args.get("group") if isinstance(tree, exp.Select) else None
    return group is not None and any(group.args.get(key) for key in ("grouping_sets", "cube", "rollup"))
