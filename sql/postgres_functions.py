"""PostgreSQL's functions and operators in a query's syntax tree, put into what DuckDB has or into macros of ours.

What cannot be said exactly is refused rather than answered otherwise. The macros are `sql.postgres_macros`; as they
repeat their arguments, nested calls of them are bounded (`_MOST_COPIES`).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlglot import exp

from sql.parser_names import KEPT_NAMES
from sql.postgres_calls import call, check_count, duck, integer, literal_text, refused
from sql.postgres_formats import format_pieces, similar_pattern, time_format
from sql.postgres_json import (
    aggregated,
    build_object,
    containment,
    extract_path,
    getting,
    has_key,
    hash_arrow,
    json_contains,
    of_json,
)
from sql.postgres_macros import MACROS, MOST_GROUPS, repeats
from sql.postgres_operators import (
    arrow,
    cast,
    count_nulls,
    date_trunc,
    extract_of_zone,
    like,
    overlaps,
    regular_expression,
    sized,
    width_bucket,
)
from sql.postgres_sets import rows, series, unnested
from sql.rewrite import function_name
from sql.scope import invalid

_MOST_COPIES = 4_096
"""How often the innermost argument of nested macros may be repeated."""

_LONGEST_PATTERN = 1_000


def rewrite_postgres(tree: exp.Expr) -> exp.Expr:
    """The tree with PostgreSQL's functions replaced, changed in place (its root may be another one)."""
    nodes: list[exp.Expr] = list(tree.find_all(*_TYPES))
    nodes.reverse()  # inner ones first
    for node in nodes:
        replacement = _replacement(node)
        if replacement is None:
            continue
        replacement.meta.update(node.meta)
        if node is tree:
            tree = replacement
        else:
            node.replace(replacement)
    if nodes:
        _bound_copies(tree)
    return tree


def _bound_copies(tree: exp.Expr) -> None:
    stack: list[tuple[exp.Expr, int]] = [(tree, 1)]
    while stack:
        node, copies = stack.pop()
        if isinstance(node, exp.Anonymous) and node.name in MACROS:
            copies *= repeats(node.name)
            if copies > _MOST_COPIES:
                raise invalid("The functions of this query nest too deeply.", node)
        stack.extend((child, copies) for child in node.iter_expressions())


def _replacement(node: exp.Expr) -> exp.Expr | None:
    handler = _BY_TYPE.get(type(node))
    if handler is not None:
        return handler(node)
    if isinstance(node, exp.Anonymous):
        named = _BY_NAME.get(function_name(node))
        if named is not None and not isinstance(node.parent, exp.Table):
            return named(node, list(node.expressions))
        return rows(node)
    return None


# Text


def _similar(node: exp.Expr) -> exp.Expr | None:
    escape = "\\"
    similar = node
    if isinstance(node, exp.Escape):
        if not isinstance(node.this, exp.SimilarTo):
            return None
        similar = node.this
        escape = literal_text(node.args["expression"]) or ""
    elif isinstance(node.parent, exp.Escape):
        return None
    pattern = similar.args["expression"]
    if isinstance(pattern, exp.Null):
        return exp.Null()
    literal = literal_text(pattern)
    regular = None if literal is None else similar_pattern(literal, escape)
    if regular is None:
        raise refused(node, "SIMILAR TO takes a literal as its pattern.")
    return duck("regexp_full_match", similar.this, regular, "s")


def _matches(node: exp.Expr) -> exp.Expr | None:
    """`~` and `~*`: a point also matches a line's end."""
    if node.args.get("flag") is not None:
        return None
    options = "is" if isinstance(node, exp.RegexpILike) else "s"
    return duck("regexp_matches", node.this, regular_expression(node.args["expression"]), options)


def _groups(node: exp.Expr, pattern: str | None) -> int:
    """How many groups a pattern captures."""
    if pattern is None:
        raise refused(node, "This function takes a literal as its pattern.")
    if len(pattern) > _LONGEST_PATTERN:
        raise refused(node, f"A pattern here has at most {_LONGEST_PATTERN} characters.")
    plain = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "", pattern)
    return len(re.findall(r"\((?!\?)|\(\?P?<(?![=!])", plain))


def _regexp_match(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    check_count(node, arguments, 2, 3)
    flags = literal_text(arguments[2]) if len(arguments) == 3 else ""
    if flags is None or flags not in {"", "i", "s", "is", "si"}:
        raise refused(node, "regexp_match() takes the option i or none.")
    options = "is" if "i" in flags else "s"
    groups = _groups(node, literal_text(arguments[1]))
    if groups > MOST_GROUPS:
        raise refused(node, f"regexp_match() takes at most {MOST_GROUPS} groups.")
    return call(f"regexp_groups_{groups}", arguments[0], arguments[1], options)


def _regexp_substr(node: exp.Expr) -> exp.Expr | None:
    extra = ("position", "occurrence", "parameters", "group")
    if any(node.args.get(key) is not None for key in extra):
        raise refused(node, "regexp_substr() takes a text and a pattern.")
    return call("regexp_whole", node.this, node.args["expression"], "s")


def _regexp_replace(node: exp.Expr) -> exp.Expr | None:
    replacement = node.args.get("replacement")
    literal = literal_text(replacement)
    if literal is not None and "\\&" in literal and replacement is not None:
        replacement.set("this", re.sub(r"(\\\\)|\\&", lambda m: m[1] or "\\0", literal))
    return None


def _substring(node: exp.Expr) -> exp.Expr | None:
    start, length = node.args.get("start"), node.args.get("length")
    pattern = literal_text(start)
    if pattern is not None and length is None:
        return call("regexp_group" if _groups(node, pattern) else "regexp_whole", node.this, pattern, "s")
    if start is None:
        start = exp.convert(1)
    begins, size = integer(start), integer(length)
    if begins is not None and begins > 0 and (length is None or (size is not None and size >= 0)):
        return None
    if length is None:
        return call("substring", node.this, start)
    return call("substring_of", node.this, start, length)


def _encode(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    check_count(node, arguments, 1, 2)
    if len(arguments) == 1:
        return duck("encode", *arguments)
    kind = (literal_text(arguments[1]) or "").lower()
    if kind not in {"hex", "base64"}:
        raise refused(node, "encode() takes 'hex' or 'base64'.")
    return call(f"encode_{kind}", arguments[0])


def _decode(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    check_count(node, arguments, 1, 2)
    if len(arguments) == 1:
        return duck("decode", *arguments)
    kind = (literal_text(arguments[1]) or "").lower()
    if kind not in {"hex", "base64"}:
        raise refused(node, "decode() takes 'hex' or 'base64'.")
    return duck("unhex" if kind == "hex" else "from_base64", arguments[0])


def _format(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    text = literal_text(arguments[0]) if arguments else None
    pieces = None if text is None else format_pieces(text, len(arguments) - 1)
    if pieces is None:
        raise refused(node, "format() takes a literal with %s, %n$s and %%, and each argument once.")
    return duck("concat", "", *(arguments[1 + p] if isinstance(p, int) else p for p in pieces))


# Times


def _extract(node: exp.Expr) -> exp.Expr | None:
    field, value = node.this.name, node.args["expression"]
    return _field(field, value) or extract_of_zone(field, value)


def _field(field: str, value: exp.Expr) -> exp.Expr | None:
    name = field.lower()
    if name in {"second", "seconds", "sec", "s"}:
        return call("second", value)
    return call("millisecond", value) if name in {"milliseconds", "millisecond", "ms"} else None


def _date_part(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr | None:
    field = literal_text(arguments[0]) if len(arguments) == 2 else None
    return None if field is None else _field(field, arguments[1])


def _pattern(node: exp.Expr, text: str | None) -> str:
    found = None if text is None else time_format(text)
    if found is None:
        message = "This format of times is not supported; see strftime() and strptime()."
        raise refused(node, message)
    return found


def _to_char(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    check_count(node, arguments, 1, 2)
    if len(arguments) == 1:
        return exp.cast(arguments[0], "VARCHAR")
    return duck("strftime", arguments[0], _pattern(node, literal_text(arguments[1])))


def _to_timestamp(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    check_count(node, arguments, 1, 2)
    if len(arguments) == 1:
        return duck("to_timestamp", *arguments)
    return duck("timezone", "UTC", _parsed(node, arguments))


def _parsed(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    return duck("strptime", arguments[0], _pattern(node, literal_text(arguments[1])))


def _to_date(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    check_count(node, arguments, 2)
    return exp.cast(_parsed(node, arguments), "DATE")


def _string_to_array(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    check_count(node, arguments, 2, 3)
    if any(isinstance(argument, exp.Null) for argument in arguments[1:2]):
        return duck("string_split", arguments[0], "")
    return call("string_to_array" if len(arguments) == 2 else "string_to_array_of", *arguments)


def _normalize(node: exp.Expr) -> exp.Expr | None:
    return None if node.args.get("form") else duck("nfc_normalize", node.this)


def _quote_nullable(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    check_count(node, arguments, 1)
    return duck("coalesce", call("quote_literal", *arguments), "NULL")


def _bound(value: int) -> Callable[[exp.Anonymous, list[exp.Expr]], exp.Expr]:
    """array_lower and array_upper of the one dimension that lists have."""

    def rewrite(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
        check_count(node, arguments, 2)
        if integer(arguments[1]) != 1:
            raise refused(node, "Arrays have one dimension here.")
        size = duck("nullif", duck("len", arguments[0]), 0)
        return size if value == 0 else duck("least", size, value)

    return rewrite


def _make_interval(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    del arguments
    raise refused(node, "make_interval() is not supported; write INTERVAL '10 days'.")


def _renamed(name: str, least: int, most: int | None = None) -> Callable[[exp.Anonymous, list[exp.Expr]], exp.Expr]:
    def rewrite(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
        check_count(node, arguments, least, most)
        return call(name, *arguments)

    return rewrite


_BY_TYPE: dict[type[exp.Expr], Callable[[exp.Expr], exp.Expr | None]] = {
    exp.Unnest: unnested,
    exp.ArrayContainedBy: containment,
    exp.ArrayContainsAll: containment,
    exp.Escape: _similar,
    exp.Extract: _extract,
    exp.Pad: sized("expression"),
    exp.Repeat: sized("times"),
    exp.RegexpILike: _matches,
    exp.RegexpLike: _matches,
    exp.RegexpReplace: _regexp_replace,
    exp.RegexpSubstr: _regexp_substr,
    exp.SimilarTo: _similar,
    exp.Substring: _substring,
    exp.Cast: cast,
    exp.GenerateSeries: series,
    exp.ILike: like,
    exp.JSONExtract: arrow,
    exp.JSONExtractScalar: arrow,
    exp.Like: like,
    exp.Normalize: _normalize,
    exp.Overlaps: overlaps,
    exp.WidthBucket: width_bucket,
}
_TYPES = (*_BY_TYPE, exp.Anonymous)

_BY_NAME: dict[str, Callable[[exp.Anonymous, list[exp.Expr]], exp.Expr | None]] = {
    "json_get": getting(""),
    "json_get_json": getting(""),
    "json_get_str": getting("json_str"),
    "json_get_int": getting("json_int"),
    "json_get_float": getting("json_float"),
    "json_get_bool": getting("json_bool"),
    "json_as_text": getting("json_text"),
    "json_length": getting("json_length"),
    "json_object_keys": getting("json_object_keys"),
    "json_contains": json_contains,
    "array_lower": _bound(1),
    "array_replace": _renamed("array_replace", 3),
    "array_upper": _bound(0),
    "cardinality": _renamed("cardinality", 1),
    "num_nonnulls": count_nulls(nulls=False),
    "num_nulls": count_nulls(nulls=True),
    "quote_literal": _renamed("quote_literal", 1),
    "quote_nullable": _quote_nullable,
    "date_part": _date_part,
    "octet_length": _renamed("octet_length", 1),
    "btrim": _renamed("trim", 1, 2),
    "every": _renamed("bool_and", 1),
    "regexp_match": _regexp_match,
    "to_date": _to_date,
    f"{KEPT_NAMES}date_trunc": date_trunc,
    f"{KEPT_NAMES}encode": _encode,
    f"{KEPT_NAMES}string_to_array": _string_to_array,
    f"{KEPT_NAMES}jsonb_exists": has_key,
    f"{KEPT_NAMES}path": hash_arrow(text=False),
    f"{KEPT_NAMES}path_text": hash_arrow(text=True),
    f"{KEPT_NAMES}sha256": _renamed("sha256", 1),
    f"{KEPT_NAMES}to_char": _to_char,
    f"{KEPT_NAMES}to_hex": _renamed("to_hex", 1),
    f"{KEPT_NAMES}decode": _decode,
    f"{KEPT_NAMES}format": _format,
    f"{KEPT_NAMES}initcap": _renamed("initcap", 1),
    f"{KEPT_NAMES}div": _renamed("div", 2),
    f"{KEPT_NAMES}make_interval": _make_interval,
    f"{KEPT_NAMES}to_timestamp": _to_timestamp,
}
for _prefix in ("json", "jsonb"):
    _BY_NAME |= {
        f"{KEPT_NAMES}{_prefix}_extract_path": extract_path(text=False),
        f"{KEPT_NAMES}{_prefix}_extract_path_text": extract_path(text=True),
        f"{_prefix}_array_length": of_json("json_array_length"),
        f"{_prefix}_typeof": of_json("json_typeof"),
        f"{_prefix}_build_object": build_object,
        f"{_prefix}_build_array": lambda node, arguments: duck("json_array", *arguments),
        f"{_prefix}_agg": aggregated("list", "json_agg"),
        f"{_prefix}_object_agg": aggregated("json_group_object", "json_object_agg"),
    }
_BY_NAME["to_jsonb"] = _renamed("to_json", 1)
_BY_NAME["jsonb_pretty"] = _renamed("json_pretty", 1)
_BY_NAME["jsonb_strip_nulls"] = _renamed("json_strip_nulls", 1)
