"""PostgreSQL's functions that give several rows, in SELECT and in FROM, as DuckDB's unnest of a list."""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from sql.parser_names import KEPT_NAMES
from sql.postgres_calls import call, duck, invalid_count
from sql.rewrite import function_name
from sql.scope import TableUse


def _elements(arguments: list[exp.Expr]) -> exp.Expr:
    return call("elements", exp.cast(arguments[0], "JSON"))


def _texts(arguments: list[exp.Expr]) -> exp.Expr:
    return call("element_texts", _elements(arguments))


def _keys(arguments: list[exp.Expr]) -> exp.Expr:
    return call("json_object_keys", exp.cast(arguments[0], "JSON"))


def _split(arguments: list[exp.Expr]) -> exp.Expr:
    return duck("regexp_split_to_array", *arguments)


def _parts(arguments: list[exp.Expr]) -> exp.Expr:
    return call("string_to_array", *arguments)


_LISTS: dict[str, tuple[str, int, Callable[[list[exp.Expr]], exp.Expr]]] = {
    "json_array_elements": ("value", 1, _elements),
    "jsonb_array_elements": ("value", 1, _elements),
    "json_array_elements_text": ("value", 1, _texts),
    "jsonb_array_elements_text": ("value", 1, _texts),
    "jsonb_object_keys": ("jsonb_object_keys", 1, _keys),
    "json_object_keys": ("json_object_keys", 1, _keys),
    "regexp_split_to_table": ("regexp_split_to_table", 2, _split),
    "string_to_table": ("string_to_table", 2, _parts),
}
"""By name: what PostgreSQL calls the column, how many arguments there are, and the list of the values."""

_LISTS_IN_SELECT = frozenset({"json_object_keys", "regexp_split_to_table"})
"""Names that have another meaning in SELECT: DataFusion's list, DuckDB's own function."""

_SCALAR = "headrace_scalar"
"""In `meta` of an item of FROM: the name of its only column, which is what the item's own name stands for."""


def rows(node: exp.Anonymous) -> exp.Expr | None:
    """The call as unnest(), with PostgreSQL's name of the column in FROM; None for other functions."""
    name = function_name(node).removeprefix(KEPT_NAMES)
    item = node.parent if isinstance(node.parent, (exp.Table, exp.Lateral)) and node.arg_key == "this" else None
    if name == "jsonb_each" and item is not None:
        pairs = duck("json_each", exp.cast(node.expressions[0], "JSON"))
        columns = [exp.column("key"), exp.column("value")]
        _name_item(item, name)
        return _in_from(item, exp.Select(expressions=columns).from_(exp.Table(this=pairs)), "key", "value")
    if name not in _LISTS or (item is None and name in _LISTS_IN_SELECT):
        return None
    column, count, made = _LISTS[name]
    arguments = list(node.expressions)
    if len(arguments) != count:
        raise invalid_count(node, len(arguments))
    if item is None:
        return duck("unnest", made(arguments))
    _name_item(item, name)
    if item.args.get("ordinality"):
        return duck("unnest", made(arguments))
    written = column if column == "value" else item.alias
    return _in_from(item, exp.Select(expressions=[duck("unnest", made(arguments))]), written)


def unnested(node: exp.Expr) -> exp.Expr | None:
    """unnest() of one list in FROM."""
    assert isinstance(node, exp.Unnest)
    item: exp.Expr = node.parent if isinstance(node.parent, exp.Lateral) else node
    plain = len(node.expressions) == 1 and not node.args.get("offset") and not item.args.get("ordinality")
    if not plain or not isinstance(item.parent, (exp.From, exp.Join)):
        return None
    _name_item(item, "unnest")
    return _in_from(item, exp.Select(expressions=[duck("unnest", node.expressions[0])]), item.alias)


def _name_item(item: exp.Expr, name: str) -> None:
    if not isinstance(item.args.get("alias"), exp.TableAlias):
        item.set("alias", exp.TableAlias(this=exp.to_identifier(name)))


def _in_from(item: exp.Expr, select: exp.Select, *columns: str) -> exp.Expr | None:
    """Put the SELECT in the place of an item of FROM; returns what replaces the call, None where nothing is left to do.

    Without ORDER BY no order is promised. But DuckDB mostly gives the values of a list in their order where unnest()
    stands in a SELECT, and backwards where it stands in FROM and the list is of another table's row.
    """
    alias = item.args["alias"]
    if not alias.args.get("columns"):
        alias.set("columns", [exp.to_identifier(column) for column in columns])
    only = alias.args["columns"][0].name if len(columns) == 1 else None
    subquery = exp.Subquery(this=select)
    if isinstance(item, exp.Lateral):
        item.meta[_SCALAR] = only
        return subquery
    for name, value in item.args.items():
        if name not in {"this", "expressions", "offset"}:
            subquery.set(name, value)
    subquery.meta.update(item.meta)
    subquery.meta[_SCALAR] = only
    if isinstance(item, exp.Unnest):
        return subquery
    item.replace(subquery)
    return None


def name_values(tree: exp.Expr, uses: list[TableUse]) -> None:
    """Let the name of an item that gives plain values stand for the value: `FROM jsonb_array_elements(j) AS e`."""
    scalars = {
        item.alias.lower(): item.meta[_SCALAR]
        for item in tree.find_all(exp.Subquery, exp.Lateral)
        if item.meta.get(_SCALAR) not in (None, item.alias)
    }
    if not scalars:
        return
    for column in list(tree.find_all(exp.Column)):
        name = column.name.lower()
        if len(column.parts) > 1 or name not in scalars or any(use.type_of(name) for use in uses):
            continue
        value: exp.Expr = exp.column(scalars[name], table=column.this.copy())
        value.meta.update(column.meta)
        if isinstance(column.parent, exp.Select) and column.arg_key == "expressions":
            value = exp.alias_(value, column.name, quoted=True, copy=False)
        column.replace(value)


def series(node: exp.Expr) -> exp.Expr | None:
    """generate_series as an item of SELECT gives rows; elsewhere it is the list that DuckDB makes of it."""
    item = node.parent if isinstance(node.parent, exp.Alias) else node
    if isinstance(item.parent, exp.Select) and item.arg_key == "expressions":
        wrapper = duck("unnest")
        node.replace(wrapper)
        wrapper.append("expressions", node)
    return None
