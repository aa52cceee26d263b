"""Stars of a view's query, replaced by the columns that they stand for when the view is made.

So a column that a table gets later does not change the view. What a star stands for is asked of the binder, with the
FROM of its SELECT and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from sql.errors import SqlError, Unsupported
from sql.plan import QueryPlan
from sql.scope import is_star, position, shows_several, star_qualifier
from sql.syntax import copied

Bind = Callable[[exp.Query], QueryPlan]

_SOURCES = ("from_", "joins", "laterals")


def fix_stars(tree: exp.Query, bind: Bind) -> bool:
    """Replace the stars of a bound query in place, and tell whether there were any; raises Unsupported."""
    found = False
    for select in list(tree.find_all(exp.Select)):
        if not any(shows_several(item) or item.find(exp.Columns) for item in select.expressions):
            continue
        if isinstance(select.parent, exp.Exists):
            continue  # what it shows does not matter
        found = True
        items: list[exp.Expr] = []
        for item in select.expressions:
            items += _columns(item, select, bind) if is_star(item) else [_no_star(item)]
        select.set("expressions", items)
    return found


def _columns(item: exp.Expr, select: exp.Select, bind: Bind) -> list[exp.Expr]:
    star = item if isinstance(item, exp.Star) else item.this
    if star.args.get("rename"):
        raise _refusal("* RENAME", item)
    probe = exp.Select(expressions=[copied(item)], limit=exp.Limit(expression=exp.Literal.number(0)))
    for clause in _SOURCES:
        value = select.args.get(clause)
        if value:
            probe.set(clause, [copied(part) for part in value] if isinstance(value, list) else copied(value))
    with_ = _visible_with(select)
    if with_ is not None:
        probe.set("with_", with_)
    try:
        names = [column.name for column in bind(probe).columns]
    except SqlError as error:
        raise _refusal("*", item) from error
    replaced = {part.alias.lower(): part for part in star.args.get("replace") or () if isinstance(part, exp.Alias)}
    qualifier = star_qualifier(item)
    if not qualifier and len({name.lower() for name in names}) < len(names):
        raise _refusal("*, which stands for two columns of one name here,", item)
    columns: list[exp.Expr] = []
    for name in names:
        new = replaced.get(name.lower())
        columns.append(copied(new) if new is not None else exp.column(name, table=qualifier or None, quoted=True))
    return columns


def _visible_with(select: exp.Select) -> exp.With | None:
    """The common table expressions around a SELECT, inner ones instead of outer ones of the same name."""
    found: dict[str, exp.Expr] = {}
    recursive = False
    node: exp.Expr | None = select
    while node is not None:
        with_ = node if isinstance(node, exp.With) else node.args.get("with_")
        if isinstance(with_, exp.With):
            recursive = recursive or bool(with_.args.get("recursive"))
            inner = {cte.alias.lower(): cte for cte in with_.expressions}
            found = {**inner, **found}
        node = node.parent
    return exp.With(expressions=[copied(cte) for cte in found.values()], recursive=recursive) if found else None


def _no_star(item: exp.Expr) -> exp.Expr:
    if shows_several(item) or item.find(exp.Columns):
        raise _refusal("COLUMNS(…)", item)
    return item


def _refusal(what: str, node: exp.Expr) -> Unsupported:
    line, column = position(node)
    return Unsupported(f"{what} cannot be fixed in a view: name the columns.", line=line, column=column)
