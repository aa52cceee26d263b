"""Functions that tell where a query runs: version(), current_database(), current_schema() and their like.

There is one database, and the namespace of the request is the only schema that is searched. Plans are cached by
namespace, so the values become literals of the query. quote_ident() is here because the same tools call it.
"""

from __future__ import annotations

from functools import cache

from sqlglot import exp

from sql.rewrite import function_name
from sql.scope import TableUse, invalid

CATALOG_NAME = "kalam"
"""What the database is called where SQL wants a name for it."""

_CALLED = {
    "version": "version",
    "current_version": "version",
    "current_database": "database",
    "current_catalog": "database",
    "current_schema": "schema",
    "current_schemas": "schemas",
    "current_setting": "setting",
    "quote_ident": "quote",
}
_BARE = {"current_schema": "schema", "current_catalog": "database"}
_TAKEN = {"schemas": 1, "setting": 1, "quote": 1}


@cache
def server_version() -> str:
    """What version() answers."""
    from importlib import metadata

    try:
        return f"Headrace {metadata.version('headrace')}"
    except metadata.PackageNotFoundError:
        return "Headrace"


def leave_out_catalog(tree: exp.Expr) -> None:
    """Take the name of the database off tables and columns; that of another one stays, for the binder to refuse."""
    for node in tree.find_all(exp.Table, exp.Column):
        catalog = node.args.get("catalog")
        if isinstance(catalog, exp.Identifier) and catalog.name.lower() == CATALOG_NAME:
            node.set("catalog", None)


def rewrite_session_functions(tree: exp.Expr, namespace: str) -> exp.Expr:
    """Replace the calls; raises InvalidSql for wrong arguments."""
    for node in list(tree.find_all(exp.Func)):
        kind = _CALLED.get(function_name(node))
        if kind is None:
            continue
        whole = node.parent if _is_of_pg_catalog(node) else node
        assert isinstance(whole, exp.Expr)
        replacement = _value(kind, node, namespace)
        replacement.meta.update(node.meta)
        if whole is tree:
            tree = replacement
        else:
            whole.replace(replacement)
    return tree


def rewrite_bare_session_functions(tree: exp.Expr, uses: list[TableUse], namespace: str) -> None:
    """Replace CURRENT_SCHEMA and CURRENT_CATALOG without parentheses, where no column has the name."""
    for column in list(tree.find_all(exp.Column)):
        name = column.name.lower()
        plain = len(column.parts) == 1 and isinstance(column.this, exp.Identifier) and not column.this.quoted
        if plain and name in _BARE and all(use.type_of(name) is None for use in uses):
            replacement = _text(namespace if _BARE[name] == "schema" else CATALOG_NAME)
            if isinstance(column.parent, exp.Select) and column.arg_key == "expressions":
                replacement = exp.alias_(replacement, column.name, quoted=True, copy=False)
            column.replace(replacement)


def _is_of_pg_catalog(node: exp.Expr) -> bool:
    """Whether a call is written `pg_catalog.f()`."""
    parent = node.parent
    return isinstance(parent, exp.Dot) and parent.expression is node and parent.this.name.lower() == "pg_catalog"


def _value(kind: str, node: exp.Func, namespace: str) -> exp.Expr:
    arguments = _arguments(node)
    if len(arguments) != _TAKEN.get(kind, 0):
        taken = "one argument" if kind in _TAKEN else "no argument"
        raise invalid(f"{function_name(node).upper()}() takes {taken}.", node)
    match kind:
        case "version":
            return _text(server_version())
        case "database":
            return _text(CATALOG_NAME)
        case "schema":
            return _text(namespace)
        case "schemas":
            return exp.cast(exp.Array(expressions=[_text(namespace)]), "VARCHAR[]")
        case "setting":
            name = arguments[0]
            if isinstance(name, exp.Literal) and name.is_string and name.name.lower() == "search_path":
                return _text(namespace)
            raise invalid("CURRENT_SETTING() tells 'search_path' only; other settings stand in system.settings.", node)
        case _:
            return _quoted(arguments[0])


def _arguments(node: exp.Func) -> list[exp.Expr]:
    if isinstance(node, exp.Anonymous):
        return list(node.expressions)
    return [value for value in node.args.values() if isinstance(value, exp.Expr)]


def _text(value: str) -> exp.Expr:
    return exp.Literal.string(value)


def _quoted(name: exp.Expr) -> exp.Expr:
    """A name in double quotes, unless it is a plain one in small letters."""
    plain = exp.Anonymous(this="regexp_full_match", expressions=[name.copy(), _text("[a-z_][a-z0-9_]*")])
    doubled = exp.Anonymous(this="replace", expressions=[name.copy(), _text('"'), _text('""')])
    return exp.Case(
        ifs=[exp.If(this=plain, true=exp.cast(name.copy(), "VARCHAR"))],
        default=exp.DPipe(this=exp.DPipe(this=_text('"'), expression=doubled), expression=_text('"')),
    )
