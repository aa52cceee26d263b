"""Simple views, merged into the SELECT that reads them, so that it is a query of a table: native, by key, live.

A view is simple when it is `SELECT outputs FROM one table [WHERE condition]` with outputs that are columns of the
table, or expressions of one row that give the same value whenever they are evaluated. The SELECT that reads it must
read nothing else and hold no query of its own. Where a name could mean something else afterwards than before, nothing
is merged: the view becomes a subquery then, which is always right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlglot import exp

from sql.live.query_form import AGGREGATES, SEVERAL, VOLATILE
from sql.rewrite import function_name
from sql.scope import is_star, shows_several, star_qualifier
from sql.syntax import copied
from sql.system_tables import SYSTEM_NAMESPACES
from storage.catalog import Catalog
from storage.view_definitions import ViewDef

MAX_COPIED: Final = 500
"""Nodes of a view's expressions that may be put into one SELECT."""

_BODY: Final = frozenset(("expressions", "from_", "where"))
_READER: Final = frozenset((
    "expressions", "from_", "where", "group", "having", "order", "limit", "offset", "distinct", "qualify", "windows",
))  # fmt: skip
_READER_OF_EXPRESSIONS: Final = frozenset(("expressions", "from_", "where", "limit", "offset"))
"""Elsewhere a literal would be a position (`GROUP BY 1`), and an expression might not be recognized as the same."""
_NAMED: Final = frozenset(("this", "db", "catalog", "alias"))
_HIDDEN: Final = ("_seq", "_deleted")
_REFUSED_FUNCTIONS: Final = AGGREGATES | SEVERAL | VOLATILE
_NOT_OF_ONE_ROW: Final = (
    exp.Query, exp.AggFunc, exp.Window, exp.Star, exp.Columns, exp.Unnest, exp.Explode, exp.Lambda, exp.Placeholder,
)  # fmt: skip


class SimpleView(NamedTuple):
    """What a simple view shows of which rows: columns of its table stand without qualifier."""

    table: exp.Table
    outputs: dict[str, exp.Expr]
    condition: exp.Expr | None
    columns: frozenset[str]
    """All columns of the table, hidden ones included."""

    @property
    def plain(self) -> bool:
        """Whether every output is a column."""
        return all(isinstance(output, exp.Column) for output in self.outputs.values())


def simple_view(view: ViewDef, body: exp.Expr, catalog: Catalog) -> SimpleView | None:
    """The parts of a view whose query is simple; None otherwise. `body` has no views in it any more."""
    if not isinstance(body, exp.Select) or any(value and key not in _BODY for key, value in body.args.items()):
        return None
    from_ = body.args.get("from_")
    node = from_.this if isinstance(from_, exp.From) else None
    if not isinstance(node, exp.Table) or not isinstance(node.this, exp.Identifier) or _decorated(node):
        return None
    table = None if node.db in SYSTEM_NAMESPACES else catalog.table(node.db, node.name.lower())
    if table is None or len(body.expressions) != len(view.columns):
        return None
    columns = frozenset((*table.by_name, *_HIDDEN))
    where = body.args.get("where")
    parts = [item.unalias() for item in body.expressions]
    condition = None if where is None else where.this
    if not all(_of_one_row(part, node, columns) for part in (*parts, *([] if where is None else [condition]))):
        return None
    outputs = {column.name: _bare(part) for column, part in zip(view.columns, parts, strict=True)}
    return SimpleView(node, outputs, None if condition is None else _bare(condition), columns)


def merge(node: exp.Table, view: ViewDef, body: exp.Expr, catalog: Catalog) -> bool:
    """Merge a view into the SELECT whose FROM is `node`, in place; False: nothing was changed."""
    from_ = node.parent
    select = from_.parent if isinstance(from_, exp.From) else None
    if not isinstance(select, exp.Select) or select.args.get("from_") is not from_ or _decorated(node):
        return False
    simple = simple_view(view, body, catalog)
    if simple is None:
        return False
    allowed = _READER if simple.plain else _READER_OF_EXPRESSIONS
    if any(value and key not in allowed for key, value in select.args.items()):
        return False
    alias = (node.alias or view.name).lower()
    columns = _read_columns(select, simple, alias)
    items = None if columns is None else _items(select, simple, alias)
    if columns is None or items is None or _copies(columns, select, simple) > MAX_COPIED:
        return False
    select.set("expressions", items)
    for column in columns:
        column.replace(_qualified(simple.outputs[column.name.lower()], alias))
    if simple.condition is not None:
        _add_condition(select, _qualified(simple.condition, alias))
    base = copied(simple.table)
    base.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
    node.replace(base)
    return True


# --- the view ---------------------------------------------------------------------------------------------------------


def _decorated(node: exp.Table) -> bool:
    """Whether more stands at a table's name than an alias."""
    alias = node.args.get("alias")
    renames = isinstance(alias, exp.TableAlias) and bool(alias.columns)
    return renames or any(value for key, value in node.args.items() if key not in _NAMED)


def _of_one_row(part: exp.Expr, node: exp.Table, columns: frozenset[str]) -> bool:
    """Whether an expression is about one row of the table, and has the same value each time."""
    for inner in part.walk():
        if isinstance(inner, _NOT_OF_ONE_ROW):
            return False
        if isinstance(inner, exp.Func) and function_name(inner) in _REFUSED_FUNCTIONS:
            return False
        if isinstance(inner, exp.Column):
            own = not inner.table or inner.table.lower() == (node.alias or node.name).lower()
            if not own or inner.args.get("catalog") or inner.name.lower() not in columns:
                return False
            if inner.db and (node.alias or inner.db != node.db):
                return False
    return True


def _bare(part: exp.Expr) -> exp.Expr:
    """A copy in which columns stand without qualifier."""
    copy = copied(part)
    for column in copy.find_all(exp.Column):
        column.set("table", None)
        column.set("db", None)
    return copy


# --- the SELECT that reads it -----------------------------------------------------------------------------------------


def _read_columns(select: exp.Select, simple: SimpleView, alias: str) -> list[exp.Column] | None:
    """The places that name columns of the view; None when a name is none, or could mean something else afterwards.

    A name that is none of the view's may be that of an output, if the table has no column of that name. An output that
    has the name of another column of the view is ambiguous: which of both is meant depends on the clause.
    """
    aliases: set[str] = set()
    for item in select.expressions:
        if isinstance(item, exp.Alias):
            name = item.alias.lower()
            same = isinstance(item.this, exp.Column) and item.this.name.lower() == name
            if name in simple.outputs and not same:
                return None
            aliases.add(name)
    found: list[exp.Column] = []
    for node in select.walk():
        if isinstance(node, (exp.Query, exp.Lambda, exp.Columns)) and node is not select:
            return None
        if not isinstance(node, exp.Column) or is_star(node):
            continue
        name, qualifier = node.name.lower(), node.table.lower()
        if node.args.get("db") or qualifier not in {"", alias}:
            return None
        if name in simple.outputs:
            found.append(node)
        elif qualifier or name not in aliases or name in simple.columns:
            return None
    return found


def _copies(columns: Sequence[exp.Column], select: exp.Select, simple: SimpleView) -> int:
    """Nodes of expressions that would be put in the places of columns: doubled in each of many views, it explodes."""
    if simple.plain:
        return 0
    sizes = {
        name: 0 if isinstance(output, exp.Column) else sum(1 for _ in output.walk())
        for name, output in simple.outputs.items()
    }
    stars = sum(is_star(item) for item in select.expressions) * sum(sizes.values())
    return stars + sum(sizes[column.name.lower()] for column in columns)


def _items(select: exp.Select, simple: SimpleView, alias: str) -> list[exp.Expr] | None:
    """The outputs, each with the name that it has over the view; None where a star says more than all columns."""
    items: list[exp.Expr] = []
    for item in select.expressions:
        if is_star(item):
            star = item if isinstance(item, exp.Star) else item.this
            if any(star.args.values()) or star_qualifier(item) not in {"", alias}:
                return None
            items += [_named(_qualified(output, alias), name) for name, output in simple.outputs.items()]
        elif shows_several(item):
            return None
        else:
            items.append(_named(item, item.name) if isinstance(item, exp.Column) else item)
    return items


def _named(output: exp.Expr, name: str) -> exp.Alias:
    return exp.Alias(this=output, alias=exp.to_identifier(name, quoted=True))


def _qualified(part: exp.Expr, alias: str) -> exp.Expr:
    """A copy whose columns are those of the table under its alias: no output's name can take their place."""
    copy = copied(part)
    for column in list(copy.find_all(exp.Column)):
        column.set("table", exp.to_identifier(alias, quoted=True))
    return copy if isinstance(copy, (exp.Column, exp.Literal)) else exp.Paren(this=copy)


def _add_condition(select: exp.Select, condition: exp.Expr) -> None:
    """The view's condition, and the query's if it has one."""
    where = select.args.get("where")
    if where is not None:
        condition = exp.And(this=condition, expression=exp.Paren(this=where.this))
    select.set("where", exp.Where(this=condition))
