"""PostgreSQL's operators, casts and predicates that DuckDB reads otherwise: LIKE, `->`, `::bytea`, OVERLAPS."""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlglot import exp

from sql.postgres_calls import call, duck, integer, literal_text, refused
from sql.postgres_macros import MOST_CHARACTERS

_BYTES = re.compile(r"\\x(?:\s*[0-9a-fA-F]{2})*\s*")
_WORD_EDGES = re.compile(r"\\(\\|[mMy])|\\.", re.DOTALL)


def like(node: exp.Expr) -> exp.Expr | None:
    """LIKE and ILIKE without ESCAPE: the backslash escapes, also in a pattern that is no literal."""
    pattern = node.args["expression"]
    literal = literal_text(pattern)
    if isinstance(node.parent, exp.Escape) or isinstance(pattern, exp.Null):
        return None
    if literal is not None and "\\" not in literal:
        return None
    if isinstance(pattern, (exp.Any, exp.Tuple, exp.Array)):
        return None
    bare = type(node)(**{key: value for key, value in node.args.items() if key != "negate"})
    escaped: exp.Expr = exp.Escape(this=bare, expression=exp.Literal.string("\\"))
    return exp.Not(this=escaped) if node.args.get("negate") else escaped


def arrow(node: exp.Expr) -> exp.Expr | None:
    """`->` and `->>` with a literal key that DuckDB would take for a path: empty, or after `$` or `/`."""
    key = literal_text(node.args["expression"])
    if key is None or "only_json_types" not in node.args or not (key == "" or key[0] in "$/"):
        return None
    path = "/" + key.replace("~", "~0").replace("/", "~1")
    name = "json_extract_string" if isinstance(node, exp.JSONExtractScalar) else "json_extract"
    return duck(name, node.this, path)


def cast(node: exp.Expr) -> exp.Expr | None:
    r"""Casts of literals: `'\xff'::bytea` and `'{1,2}'::int[]`."""
    text = literal_text(node.this)
    target = node.args.get("to")
    if text is None or not isinstance(target, exp.DataType):
        return None
    if target.this in {exp.DType.VARBINARY, exp.DType.BINARY} and text.startswith("\\x"):
        if _BYTES.fullmatch(text) is None:
            raise refused(node, "Bytes are written as pairs of hexadecimal digits after \\x.")
        return duck("unhex", re.sub(r"\s", "", text[2:]))
    if target.this is exp.DType.ARRAY and text.startswith("{"):
        if '"' in text or "\\" in text or "[" in text:
            raise refused(node, "Array literals with quotes are not supported; write ARRAY['…'].")
        node.this.set("this", text.replace("{", "[").replace("}", "]"))
    return None


def regular_expression(pattern: exp.Expr) -> exp.Expr:
    r"""A pattern with PostgreSQL's edges of words (`\m`, `\M`, `\y`) as RE2 writes them, where it is a literal."""
    literal = literal_text(pattern)
    if literal is not None and "\\" in literal:
        pattern.set("this", _WORD_EDGES.sub(_edge, literal))
    return pattern


def _edge(match: re.Match[str]) -> str:
    return "\\b" if match[1] in {"m", "M", "y"} else match[0]


def overlaps(node: exp.Expr) -> exp.Expr | None:
    """`(a, b) OVERLAPS (c, d)`; the second of a pair may be an interval."""
    sides = (node.this, node.args["expression"])
    if not all(isinstance(side, exp.Tuple) and len(side.expressions) == 2 for side in sides):
        raise refused(node, "OVERLAPS takes two pairs: (begin, end) OVERLAPS (begin, end).")
    (one, until), (other, till) = (side.expressions for side in sides)
    kinds = "".join("i" if _is_interval(end) else "t" for end in (until, till))
    return call(f"overlaps_{kinds}", one, until, other, till)


def _is_interval(end: exp.Expr) -> bool:
    end = end.this if isinstance(end, exp.Paren) else end
    return isinstance(end, exp.Interval) or (isinstance(end, exp.Cast) and bool(end.is_type(exp.DType.INTERVAL)))


def extract_of_zone(field: str, value: exp.Expr) -> exp.Expr | None:
    """EXTRACT from a cast to TIMESTAMPTZ, which sqlglot declines to write; the zone is UTC here."""
    if isinstance(value, exp.Cast) and value.is_type(exp.DType.TIMESTAMPTZ):
        return duck("date_part", field, value)
    return None


def date_trunc(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    """date_trunc, with a time zone or without; centuries begin with their year 1."""
    if not 2 <= len(arguments) <= 3:
        raise refused(node, "date_trunc() takes a unit, a time and perhaps a zone.")
    unit, value, *zone = arguments
    name = (literal_text(unit) or "").lower()
    if zone and name not in {"century", "millennium"}:
        return call("date_trunc_in", unit, value, zone[0])
    if zone:
        raise refused(node, "date_trunc() to a century or millennium takes no zone.")
    return call(name, value) if name in {"century", "millennium"} else duck("date_trunc", unit, value)


def width_bucket(node: exp.Expr) -> exp.Expr:
    """width_bucket of bounds and a number, or of an array of lower bounds."""
    bounds = [node.args.get(key) for key in ("min_value", "max_value", "num_buckets")]
    given = [bound for bound in bounds if isinstance(bound, exp.Expr)]
    if len(given) == 3:
        return call("width_bucket", node.this, *given)
    if len(given) != 1:
        raise refused(node, "width_bucket() takes a value, two bounds and a number, or a value and an array.")
    return call("width_bucket_of", node.this, given[0])


def sized(key: str) -> Callable[[exp.Expr], None]:
    """repeat(), lpad() and rpad(): a bound on the number in that argument."""

    def rewrite(node: exp.Expr) -> None:
        size = node.args[key]
        number = integer(size)
        if number is None or number > MOST_CHARACTERS:
            node.set(key, call("size", size))

    return rewrite


def count_nulls(*, nulls: bool) -> Callable[[exp.Anonymous, list[exp.Expr]], exp.Expr]:
    """num_nulls and num_nonnulls."""

    def rewrite(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
        if not arguments:
            raise refused(node, "num_nulls() and num_nonnulls() take at least one value.")
        flags = []
        for argument in arguments:
            is_null: exp.Expr = exp.Is(this=exp.Paren(this=argument), expression=exp.Null())
            flags.append(exp.cast(exp.Paren(this=is_null if nulls else exp.Not(this=is_null)), "INT"))
        return exp.cast(duck("list_sum", exp.Array(expressions=flags)), "INT")

    return rewrite
