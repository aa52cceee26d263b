"""PostgreSQL's and DataFusion's functions and operators of JSON, said in DuckDB's functions and our macros."""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlglot import exp

from sql.postgres_calls import call, check_count, duck, integer, literal_text, refused
from sql.postgres_formats import json_key, text_array
from sql.rewrite import function_name
from sql.scope import invalid


def _as_json(value: exp.Expr) -> exp.Expr:
    """An operand of a JSON operator: a literal or parameter is JSON text."""
    return exp.cast(value, "JSON") if literal_text(value) is not None or isinstance(value, exp.Placeholder) else value


def _step(value: exp.Expr, key: exp.Expr) -> exp.Expr:
    """One key or index of json_get."""
    text, number = literal_text(key), integer(key)
    path: exp.Expr | str | int = json_key(text) if text is not None else key if number is None else number
    return duck("json_extract", value, path)


def _path(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    """What the keys and indexes of a json_get function lead to; NULL for what is not JSON."""
    if not arguments:
        raise invalid(f"{function_name(node)}() needs a JSON value.", node)
    value: exp.Expr = call("json", arguments[0])
    for key in arguments[1:]:
        value = _step(value, key)
    return value


def getting(macro: str) -> Callable[[exp.Anonymous, list[exp.Expr]], exp.Expr]:
    """A function of the json_get family; the macro brings what it finds to a type."""

    def rewrite(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
        value = _path(node, arguments)
        return call(macro, value) if macro else value

    return rewrite


def json_contains(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    """json_contains: whether keys and indexes lead to something."""
    return exp.Not(this=exp.Is(this=_path(node, arguments), expression=exp.Null()))


def _text_step(value: exp.Expr, key: str) -> exp.Expr:
    """One element of a PostgreSQL path: of an array an index, else a key."""
    if re.fullmatch(r"-?\d{1,9}", key):
        return call("json_step", value, exp.Literal.number(key), json_key(key))
    return duck("json_extract", value, json_key(key))


def extract_path(*, text: bool) -> Callable[[exp.Anonymous, list[exp.Expr]], exp.Expr]:
    """json_extract_path and json_extract_path_text."""

    def rewrite(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
        check_count(node, arguments, 2, 64)
        keys = [literal_text(key) for key in arguments[1:]]
        return _steps(node, _as_json(arguments[0]), keys, text=text)

    return rewrite


def _steps(node: exp.Expr, value: exp.Expr, keys: list[str] | list[str | None], *, text: bool) -> exp.Expr:
    for key in keys:
        if key is None:
            raise refused(node, "The steps of a JSON path are written as literals; use -> for others.")
        value = _text_step(value, key)
    return call("json_text", value) if text else value


def hash_arrow(*, text: bool) -> Callable[[exp.Anonymous, list[exp.Expr]], exp.Expr]:
    """`#>` and `#>>`."""

    def rewrite(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
        check_count(node, arguments, 2)
        value, path = arguments
        literal = literal_text(path)
        keys: list[str] | list[str | None] | None
        if literal is not None:
            keys = text_array(literal)
        else:
            keys = [literal_text(item) for item in path.expressions] if isinstance(path, exp.Array) else None
        if keys is None:
            raise refused(node, "#> and #>> are not supported with other than a literal path such as '{a,0}'.")
        return _steps(node, _as_json(value), keys, text=text)

    return rewrite


def containment(node: exp.Expr) -> exp.Expr:
    """`@>` and `<@`."""
    sides = [_as_json(node.this), _as_json(node.args["expression"])]
    if isinstance(node, exp.ArrayContainedBy):
        sides.reverse()
    return duck("__hr_json_contains", *(call("json_side", side) for side in sides))


def has_key(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    """`?`."""
    check_count(node, arguments, 2)
    return call("json_has", _as_json(arguments[0]), exp.cast(arguments[1], "VARCHAR"))


def build_object(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    """json_build_object."""
    if len(arguments) % 2:
        raise invalid(f"{function_name(node)}() takes keys and values in pairs.", node)
    keyed = [exp.cast(a, "VARCHAR") if place % 2 == 0 else a for place, a in enumerate(arguments)]
    return duck("json_object", *keyed)


def aggregated(name: str, macro: str) -> Callable[[exp.Anonymous, list[exp.Expr]], exp.Expr | None]:
    """An aggregate of DuckDB with a macro around it, outside of FILTER and OVER."""

    def rewrite(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr | None:
        top: exp.Expr = node
        while isinstance(top.parent, (exp.Filter, exp.Window)) and top.arg_key == "this":
            top = top.parent
        inner = duck(name, *arguments)
        inner.meta.update(node.meta)
        if top is node:
            return call(macro, inner)
        node.replace(inner)
        wrapper = call(macro)
        top.replace(wrapper)
        wrapper.append("expressions", top)
        return None

    return rewrite


def of_json(name: str) -> Callable[[exp.Anonymous, list[exp.Expr]], exp.Expr | None]:
    """A function of one JSON value that is a macro."""

    def rewrite(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr | None:
        if name == "json_array_length" and len(arguments) == 2:  # DuckDB's own, with a path
            return None
        check_count(node, arguments, 1)
        return call(name, exp.cast(arguments[0], "JSON"))

    return rewrite
