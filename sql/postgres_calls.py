"""What the rewriting of PostgreSQL's functions builds: calls of DuckDB's functions and of our macros, and errors."""

from __future__ import annotations

from sqlglot import exp

from sql.errors import SqlError, Unsupported
from sql.parser_names import KEPT_NAMES
from sql.postgres_macros import MACROS
from sql.rewrite import function_name
from sql.scope import invalid, position


def call(name: str, *arguments: exp.Expr | str | int) -> exp.Anonymous:
    """A call of a function of DuckDB, or of a macro by its short name."""
    made = [exp.convert(a) if isinstance(a, (str, int)) else a for a in arguments]
    macro = f"__hr_{name}"
    return exp.Anonymous(this=macro if macro in MACROS else name, expressions=made)


def duck(name: str, *arguments: exp.Expr | str | int) -> exp.Anonymous:
    """A call of a function of DuckDB."""
    made = [exp.convert(a) if isinstance(a, (str, int)) else a for a in arguments]
    return exp.Anonymous(this=name, expressions=made)


def refused(node: exp.Expr, what: str) -> Unsupported:
    """The error for what has no exact counterpart, at its place."""
    line, column = position(node)
    return Unsupported(what, line=line, column=column)


def literal_text(node: exp.Expr | None) -> str | None:
    """The text of a string literal."""
    return node.name if isinstance(node, exp.Literal) and node.is_string else None


def integer(node: exp.Expr | None) -> int | None:
    """The value of an integer literal."""
    negative = isinstance(node, exp.Neg)
    inner = node.this if isinstance(node, exp.Neg) else node
    if not isinstance(inner, exp.Literal) or inner.is_string or not inner.name.isdigit():
        return None
    return -int(inner.name) if negative else int(inner.name)


def check_count(node: exp.Anonymous, arguments: list[exp.Expr], least: int, most: int | None = None) -> None:
    """Raise unless a call has so many arguments."""
    most = least if most is None else most
    if not least <= len(arguments) <= most:
        raise invalid_count(node, len(arguments))


def invalid_count(node: exp.Anonymous, count: int) -> SqlError:
    """The error for a call with a number of arguments that its function does not take."""
    name = function_name(node).removeprefix(KEPT_NAMES)
    return invalid(f"{name}() does not take {count} arguments.", node)
