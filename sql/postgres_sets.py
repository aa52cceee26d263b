"""PostgreSQL's functions that give several rows, in SELECT and in FROM, as DuckDB's unnest of a list."""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from sql.parser_names import KEPT_NAMES
from sql.postgres_calls import call, duck, invalid_count
from sql.rewrite import function_name


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


def rows(node: exp.Anonymous) -> exp.Expr | None:
    """The call as unnest(), with PostgreSQL's name of the column in FROM; None for other functions."""
    name = function_name(node).removeprefix(KEPT_NAMES)
    table = node.parent if isinstance(node.parent, exp.Table) and node.arg_key == "this" else None
    if name == "jsonb_each" and table is not None:
        return duck("json_each", exp.cast(node.expressions[0], "JSON"))
    if name not in _LISTS or (table is None and name in _LISTS_IN_SELECT):
        return None
    column, count, made = _LISTS[name]
    arguments = list(node.expressions)
    if len(arguments) != count:
        raise invalid_count(node, len(arguments))
    if table is not None:
        alias = table.args.get("alias")
        if not isinstance(alias, exp.TableAlias):
            alias = exp.TableAlias(this=exp.to_identifier(name))
            table.set("alias", alias)
        if not alias.args.get("columns"):
            alias.set("columns", [exp.to_identifier(column if column == "value" else alias.name)])
    return duck("unnest", made(arguments))


def series(node: exp.Expr) -> exp.Expr | None:
    """generate_series as an item of SELECT gives rows; elsewhere it is the list that DuckDB makes of it."""
    item = node.parent if isinstance(node.parent, exp.Alias) else node
    if isinstance(item.parent, exp.Select) and item.arg_key == "expressions":
        wrapper = duck("unnest")
        node.replace(wrapper)
        wrapper.append("expressions", node)
    return None
