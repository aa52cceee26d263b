"""A query in which views stand, as a query over tables: the first thing that the binder does with it.

Only the syntax tree of a view's query enters the tree of the caller's. So all that follows (rights, the user's scope,
types, the guard) sees tables and nothing else, and sees them for the caller: **a view has the rights of whoever uses
it**. It opens no table that he may not read, and USER tables in it show him his own rows. A view with its owner's
rights would be a way around both, and rights would have to be decided in two places.

A simple view is merged into the SELECT that reads it (`sql.views.merging`); any other one becomes a subquery. What
comes out of a view's text has no place in the caller's: its nodes carry the place where the caller names the view.

Views may stand in views. Their depth, their number and the size of what comes out are bounded, because two lines
doubled sixteen times are more than any parser should see.
"""

from __future__ import annotations

from typing import Final

from sqlglot import exp

from sql.dialect import parse_batch
from sql.output_names import WRITTEN
from sql.parser_checks import MAX_DEPTH
from sql.scope import invalid, named_tables, position
from sql.splitter import MAX_JOINS
from sql.statements import Query
from sql.system_tables import SYSTEM_NAMESPACES
from sql.views.errors import OF_VIEW
from sql.views.merging import merge
from storage.catalog import Catalog
from storage.view_definitions import ViewDef

MAX_NESTED: Final = 16
"""How deep views may stand in views."""
MAX_PLACES: Final = 100
"""How many places of a query may name views, counted with those inside of views."""
MAX_TEXT: Final = 64 * 1024
"""Characters of a view's query."""
MAX_TEXTS: Final = 512 * 1024
"""Characters of all queries of views that one query takes in."""

_CLAUSES: Final = ("when", "version", "partition", "changes", "rows_from")


def expand_views(tree: exp.Expr, catalog: Catalog, namespace: str) -> tuple[ViewDef, ...]:
    """Put the queries of views into `tree`, in place; the views that it took in, inner ones first.

    Outputs of the tree have their names already (`sql.rewrite.name_outputs`). Raises InvalidSql.
    """
    if not catalog.has_views:
        return ()
    expansion = _Expansion(catalog)
    expansion.expand(tree, namespace, ())
    if expansion.used:
        _check_size(tree, tree)
    return tuple(expansion.used)


def view_at(node: exp.Table, catalog: Catalog, namespace: str) -> ViewDef | None:
    """The view that a table's node names, if it names one."""
    space = node.db or namespace
    return None if space in SYSTEM_NAMESPACES else catalog.view(space, node.name.lower())


def view_query(view: ViewDef) -> exp.Query:
    """The syntax tree of a view's query, new at each call, with all names qualified."""
    [parsed] = parse_batch(view.sql)
    assert isinstance(parsed.statement, Query)
    query = parsed.statement.ast
    for node in named_tables(query):
        if not node.db:
            node.set("db", exp.to_identifier(view.scope, quoted=True))
    return query


class _Expansion:
    """One query on its way."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._places = 0
        self._length = 0
        self.used: list[ViewDef] = []

    def expand(self, tree: exp.Expr, namespace: str, path: tuple[ViewDef, ...]) -> None:
        """Replace the names of views in a tree; `path` are the views that it stands in."""
        for node in list(named_tables(tree)):
            view = view_at(node, self._catalog, namespace)
            if view is not None:
                self._replace(tree, node, view, path)

    def _replace(self, tree: exp.Expr, node: exp.Table, view: ViewDef, path: tuple[ViewDef, ...]) -> None:
        if node.args.get("catalog") is not None:
            raise invalid("A table is named by a namespace and a name, nothing more.", node)
        if any(node.args.get(clause) for clause in _CLAUSES):
            raise invalid("This clause after a view's name is not supported.", node)
        self._count(node, view, path)
        body = view_query(view)
        _place_at(body, node, view)
        self.expand(body, view.scope, (*path, view))
        _check_size(body, node)
        if view not in self.used:
            self.used.append(view)
        if not node.alias:
            _unqualify(tree, view)
        if not merge(node, view, body, self._catalog):
            node.replace(_subquery(node, view, body))

    def _count(self, node: exp.Table, view: ViewDef, path: tuple[ViewDef, ...]) -> None:
        if view in path:
            raise invalid(f"The view '{view.full_name}' reads itself.", node)
        if len(path) >= MAX_NESTED:
            raise invalid(f"Views stand in views more than {MAX_NESTED} deep.", node)
        self._places += 1
        self._length += len(view.sql)
        if self._places > MAX_PLACES:
            raise invalid(f"The query names views in more than {MAX_PLACES} places, those in views counted.", node)
        if self._length > MAX_TEXTS:
            raise invalid(f"The views of the query have more than {MAX_TEXTS:,} characters together.", node)


def _place_at(body: exp.Expr, node: exp.Table, view: ViewDef) -> None:
    """Give every node of a view's query the place where the view is named, and its tables the view's name."""
    line, column = position(node)
    for part in body.walk():
        written = part.meta.get(WRITTEN)
        part.meta.clear()
        if written is not None:
            part.meta[WRITTEN] = written
        if line is not None and isinstance(part, (exp.Identifier, exp.Column, exp.Table, exp.Func)):
            part.meta["line"], part.meta["col"] = line, column
        if isinstance(part, exp.Table):
            part.meta[OF_VIEW] = view.full_name


def _unqualify(tree: exp.Expr, view: ViewDef) -> None:
    """`namespace.view.column` becomes `view.column`: what stands in the view's place has no namespace."""
    for column in tree.find_all(exp.Column):
        if column.table == view.name and column.db == view.namespace:
            column.set("db", None)


def _subquery(node: exp.Table, view: ViewDef, body: exp.Query) -> exp.Subquery:
    """`(query) AS name(columns)` with whatever else stood at the view's name."""
    given = node.args.get("alias")
    renamed = given.columns if isinstance(given, exp.TableAlias) else []
    kept = [exp.to_identifier(column.name, quoted=True) for column in view.columns[len(renamed) :]]
    alias = exp.TableAlias(
        this=exp.to_identifier((node.alias or view.name).lower(), quoted=True), columns=[*renamed, *kept]
    )
    found = exp.Subquery(this=body, alias=alias)
    for key, value in node.args.items():
        if value and key not in {"this", "db", "catalog", "alias"}:
            found.set(key, value)
    return found


def _check_size(tree: exp.Expr, place: exp.Expr) -> None:
    """What a query may be as a text it may be with its views, at each step: what is done with trees is recursive."""
    joins = 0
    stack = [(tree, 1)]
    while stack:
        node, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise invalid(f"The query nests deeper than {MAX_DEPTH} levels with the queries of its views.", place)
        if isinstance(node, exp.Join):
            joins += 1
            if joins > MAX_JOINS:
                raise invalid(f"The query has more than {MAX_JOINS} joins with those of its views.", place)
        stack += [(child, depth + 1) for child in node.iter_expressions()]
