"""PostgreSQL's functions and operators in a query's syntax tree, put into what DuckDB has or into macros of ours.

What cannot be said exactly is refused rather than answered otherwise. The macros are `sql.postgres_macros`; as they
repeat their arguments, nested calls of them are bounded (`_MOST_COPIES`).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlglot import exp

from sql.errors import Unsupported
from sql.parser_names import KEPT_NAMES
from sql.postgres_formats import format_pieces, json_key, similar_pattern, text_array, time_format
from sql.postgres_macros import MACROS, MOST_GROUPS, repeats
from sql.rewrite import function_name
from sql.scope import invalid, position

_MOST_COPIES = 4_096
"""How often the innermost argument of nested macros may be repeated."""

_LONGEST_PATTERN = 1_000


def rewrite_postgres(tree: exp.Expr) -> exp.Expr:
    """The tree with PostgreSQL's functions replaced, changed in place (its root may be another one)."""
    nodes: list[exp.Expr] = list(tree.find_all(*_TYPES))
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


def _call(name: str, *arguments: exp.Expr | str | int) -> exp.Anonymous:
    """A call of a function of DuckDB, or of a macro by its short name."""
    made = [exp.convert(a) if isinstance(a, (str, int)) else a for a in arguments]
    macro = f"__hr_{name}"
    return exp.Anonymous(this=macro if macro in MACROS else name, expressions=made)


def _duck(name: str, *arguments: exp.Expr | str | int) -> exp.Anonymous:
    made = [exp.convert(a) if isinstance(a, (str, int)) else a for a in arguments]
    return exp.Anonymous(this=name, expressions=made)


def _refused(node: exp.Expr, what: str) -> Unsupported:
    line, column = position(node)
    return Unsupported(what, line=line, column=column)


def _replacement(node: exp.Expr) -> exp.Expr | None:
    handler = _BY_TYPE.get(type(node))
    if handler is not None:
        return handler(node)
    if isinstance(node, exp.Anonymous):
        named = _BY_NAME.get(function_name(node))
        if named is not None:
            return named(node, list(node.expressions))
    return None


def _literal(node: exp.Expr | None) -> str | None:
    """The text of a string literal."""
    return node.name if isinstance(node, exp.Literal) and node.is_string else None


def _integer(node: exp.Expr | None) -> int | None:
    """The value of an integer literal."""
    negative = isinstance(node, exp.Neg)
    inner = node.this if isinstance(node, exp.Neg) else node
    if not isinstance(inner, exp.Literal) or inner.is_string or not inner.name.isdigit():
        return None
    return -int(inner.name) if negative else int(inner.name)


def _count(node: exp.Anonymous, arguments: list[exp.Expr], least: int, most: int | None = None) -> None:
    most = least if most is None else most
    if not least <= len(arguments) <= most:
        name = function_name(node).removeprefix(KEPT_NAMES)
        raise invalid(f"{name}() does not take {len(arguments)} arguments.", node)


# JSON


def _as_json(value: exp.Expr) -> exp.Expr:
    """An operand of a JSON operator: a literal is JSON text."""
    return exp.cast(value, "JSON") if _literal(value) is not None else value


def _step(value: exp.Expr, key: exp.Expr) -> exp.Expr:
    """One key or index of json_get."""
    text, number = _literal(key), _integer(key)
    path: exp.Expr | str | int = json_key(text) if text is not None else key if number is None else number
    return _duck("json_extract", value, path)


def _path(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    """What the keys and indexes of a json_get function lead to; NULL for what is not JSON."""
    if not arguments:
        raise invalid(f"{function_name(node)}() needs a JSON value.", node)
    value: exp.Expr = _call("json", arguments[0])
    for key in arguments[1:]:
        value = _step(value, key)
    return value


def _getting(macro: str) -> Callable[[exp.Anonymous, list[exp.Expr]], exp.Expr]:
    def rewrite(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
        value = _path(node, arguments)
        return _call(macro, value) if macro else value

    return rewrite


def _json_contains(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    return exp.Not(this=exp.Is(this=_path(node, arguments), expression=exp.Null()))


def _text_step(value: exp.Expr, key: str) -> exp.Expr:
    """One element of a PostgreSQL path: of an array an index, else a key."""
    if re.fullmatch(r"-?\d{1,9}", key):
        return _call("json_step", value, exp.Literal.number(key), json_key(key))
    return _duck("json_extract", value, json_key(key))


def _extract_path(*, text: bool) -> Callable[[exp.Anonymous, list[exp.Expr]], exp.Expr]:
    def rewrite(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
        _count(node, arguments, 2, 64)
        keys = [_literal(key) for key in arguments[1:]]
        return _steps(node, _as_json(arguments[0]), keys, text=text)

    return rewrite


def _steps(node: exp.Expr, value: exp.Expr, keys: list[str] | list[str | None], *, text: bool) -> exp.Expr:
    for key in keys:
        if key is None:
            raise _refused(node, "The steps of a JSON path are written as literals; use -> for others.")
        value = _text_step(value, key)
    return _call("json_text", value) if text else value


def _hash_arrow(*, text: bool) -> Callable[[exp.Anonymous, list[exp.Expr]], exp.Expr]:
    """`#>` and `#>>`."""

    def rewrite(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
        _count(node, arguments, 2)
        value, path = arguments
        literal = _literal(path)
        keys: list[str] | list[str | None] | None
        if literal is not None:
            keys = text_array(literal)
        else:
            keys = [_literal(item) for item in path.expressions] if isinstance(path, exp.Array) else None
        if keys is None:
            raise _refused(node, "#> and #>> are not supported with other than a literal path such as '{a,0}'.")
        return _steps(node, _as_json(value), keys, text=text)

    return rewrite


def _containment(node: exp.Expr) -> exp.Expr:
    sides = [_as_json(node.this), _as_json(node.args["expression"])]
    if isinstance(node, exp.ArrayContainedBy):
        sides.reverse()
    return _duck("__hr_json_contains", *(exp.cast(_duck("to_json", side), "VARCHAR") for side in sides))


def _has_key(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    _count(node, arguments, 2)
    return _call("json_has", _as_json(arguments[0]), exp.cast(arguments[1], "VARCHAR"))


def _build_object(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    if len(arguments) % 2:
        raise invalid(f"{function_name(node)}() takes keys and values in pairs.", node)
    keyed = [exp.cast(a, "VARCHAR") if place % 2 == 0 else a for place, a in enumerate(arguments)]
    return _duck("json_object", *keyed)


def _aggregated(name: str, macro: str) -> Callable[[exp.Anonymous, list[exp.Expr]], exp.Expr | None]:
    """An aggregate of DuckDB with a macro around it, outside of FILTER and OVER."""

    def rewrite(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr | None:
        top: exp.Expr = node
        while isinstance(top.parent, (exp.Filter, exp.Window)) and top.arg_key == "this":
            top = top.parent
        inner = _duck(name, *arguments)
        inner.meta.update(node.meta)
        if top is node:
            return _call(macro, inner)
        node.replace(inner)
        wrapper = _call(macro)
        top.replace(wrapper)
        wrapper.append("expressions", top)
        return None

    return rewrite


# Text


def _similar(node: exp.Expr) -> exp.Expr | None:
    escape = "\\"
    similar = node
    if isinstance(node, exp.Escape):
        if not isinstance(node.this, exp.SimilarTo):
            return None
        similar = node.this
        escape = _literal(node.args["expression"]) or ""
    elif isinstance(node.parent, exp.Escape):
        return None
    pattern = similar.args["expression"]
    if isinstance(pattern, exp.Null):
        return exp.Null()
    literal = _literal(pattern)
    regular = None if literal is None else similar_pattern(literal, escape)
    if regular is None:
        raise _refused(node, "SIMILAR TO takes a literal as its pattern.")
    return _duck("regexp_full_match", similar.this, regular, "s")


def _matches(node: exp.Expr) -> exp.Expr | None:
    """`~` and `~*`: a point also matches a line's end."""
    if node.args.get("flag") is not None:
        return None
    options = "is" if isinstance(node, exp.RegexpILike) else "s"
    return _duck("regexp_matches", node.this, node.args["expression"], options)


def _groups(node: exp.Expr, pattern: str | None) -> int:
    """How many groups a pattern captures."""
    if pattern is None:
        raise _refused(node, "This function takes a literal as its pattern.")
    if len(pattern) > _LONGEST_PATTERN:
        raise _refused(node, f"A pattern here has at most {_LONGEST_PATTERN} characters.")
    plain = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "", pattern)
    return len(re.findall(r"\((?!\?)|\(\?P?<(?![=!])", plain))


def _regexp_match(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    _count(node, arguments, 2, 3)
    flags = _literal(arguments[2]) if len(arguments) == 3 else ""
    if flags is None or flags not in {"", "i", "s", "is", "si"}:
        raise _refused(node, "regexp_match() takes the option i or none.")
    options = "is" if "i" in flags else "s"
    groups = _groups(node, _literal(arguments[1]))
    if groups > MOST_GROUPS:
        raise _refused(node, f"regexp_match() takes at most {MOST_GROUPS} groups.")
    return _call(f"regexp_groups_{groups}", arguments[0], arguments[1], options)


def _regexp_substr(node: exp.Expr) -> exp.Expr | None:
    extra = ("position", "occurrence", "parameters", "group")
    if any(node.args.get(key) is not None for key in extra):
        raise _refused(node, "regexp_substr() takes a text and a pattern.")
    return _call("regexp_whole", node.this, node.args["expression"], "s")


def _regexp_replace(node: exp.Expr) -> exp.Expr | None:
    replacement = node.args.get("replacement")
    literal = _literal(replacement)
    if literal is not None and "\\&" in literal and replacement is not None:
        replacement.set("this", re.sub(r"(\\\\)|\\&", lambda m: m[1] or "\\0", literal))
    return None


def _substring(node: exp.Expr) -> exp.Expr | None:
    start, length = node.args.get("start"), node.args.get("length")
    pattern = _literal(start)
    if pattern is not None and length is None:
        return _call("regexp_group" if _groups(node, pattern) else "regexp_whole", node.this, pattern, "s")
    if start is None:
        start = exp.convert(1)
    begins, size = _integer(start), _integer(length)
    if begins is not None and begins > 0 and (length is None or (size is not None and size >= 0)):
        return None
    if length is None:
        return _call("substring", node.this, start)
    return _call("substring_of", node.this, start, length)


def _encode(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    _count(node, arguments, 1, 2)
    if len(arguments) == 1:
        return _duck("encode", *arguments)
    kind = (_literal(arguments[1]) or "").lower()
    if kind not in {"hex", "base64"}:
        raise _refused(node, "encode() takes 'hex' or 'base64'.")
    return _call(f"encode_{kind}", arguments[0])


def _decode(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    _count(node, arguments, 1, 2)
    if len(arguments) == 1:
        return _duck("decode", *arguments)
    kind = (_literal(arguments[1]) or "").lower()
    if kind not in {"hex", "base64"}:
        raise _refused(node, "decode() takes 'hex' or 'base64'.")
    return _duck("unhex" if kind == "hex" else "from_base64", arguments[0])


def _format(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    text = _literal(arguments[0]) if arguments else None
    pieces = None if text is None else format_pieces(text, len(arguments) - 1)
    if pieces is None:
        raise _refused(node, "format() takes a literal with %s, %n$s and %%, and each argument once.")
    return _duck("concat", "", *(arguments[1 + p] if isinstance(p, int) else p for p in pieces))


# Times


def _extract(node: exp.Expr) -> exp.Expr | None:
    return _field(node.this.name, node.args["expression"])


def _field(field: str, value: exp.Expr) -> exp.Expr | None:
    name = field.lower()
    if name in {"second", "seconds", "sec", "s"}:
        return _call("second", value)
    return _call("millisecond", value) if name in {"milliseconds", "millisecond", "ms"} else None


def _date_part(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr | None:
    field = _literal(arguments[0]) if len(arguments) == 2 else None
    return None if field is None else _field(field, arguments[1])


def _date_trunc(node: exp.Expr) -> exp.Expr | None:
    unit = node.args.get("unit")
    name = unit.name.lower() if isinstance(unit, exp.Expr) else ""
    return _call(name, node.this) if name in {"century", "millennium"} else None


def _pattern(node: exp.Expr, text: str | None) -> str:
    found = None if text is None else time_format(text)
    if found is None:
        message = "This format of times is not supported; see strftime() and strptime()."
        raise _refused(node, message)
    return found


def _to_char(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    _count(node, arguments, 1, 2)
    if len(arguments) == 1:
        return exp.cast(arguments[0], "VARCHAR")
    return _duck("strftime", arguments[0], _pattern(node, _literal(arguments[1])))


def _to_timestamp(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    _count(node, arguments, 1, 2)
    if len(arguments) == 1:
        return _duck("to_timestamp", *arguments)
    return _duck("strptime", arguments[0], _pattern(node, _literal(arguments[1])))


def _to_date(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    _count(node, arguments, 2)
    return exp.cast(_to_timestamp(node, arguments), "DATE")


def _make_interval(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
    del arguments
    raise _refused(node, "make_interval() is not supported; write INTERVAL '10 days'.")


def _renamed(name: str, least: int, most: int | None = None) -> Callable[[exp.Anonymous, list[exp.Expr]], exp.Expr]:
    def rewrite(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr:
        _count(node, arguments, least, most)
        return _call(name, *arguments)

    return rewrite


def _of_json(name: str) -> Callable[[exp.Anonymous, list[exp.Expr]], exp.Expr | None]:
    def rewrite(node: exp.Anonymous, arguments: list[exp.Expr]) -> exp.Expr | None:
        if name == "json_array_length" and len(arguments) == 2:  # DuckDB's own, with a path
            return None
        _count(node, arguments, 1)
        return _call(name, exp.cast(arguments[0], "JSON"))

    return rewrite


_BY_TYPE: dict[type[exp.Expr], Callable[[exp.Expr], exp.Expr | None]] = {
    exp.ArrayContainedBy: _containment,
    exp.ArrayContainsAll: _containment,
    exp.Escape: _similar,
    exp.Extract: _extract,
    exp.RegexpILike: _matches,
    exp.RegexpLike: _matches,
    exp.RegexpReplace: _regexp_replace,
    exp.RegexpSubstr: _regexp_substr,
    exp.SimilarTo: _similar,
    exp.Substring: _substring,
    exp.TimestampTrunc: _date_trunc,
    exp.DateTrunc: _date_trunc,
    exp.WidthBucket: lambda node: _call(
        "width_bucket", node.this, *(node.args[key] for key in ("min_value", "max_value", "num_buckets"))
    ),
}
_TYPES = (*_BY_TYPE, exp.Anonymous)

_BY_NAME: dict[str, Callable[[exp.Anonymous, list[exp.Expr]], exp.Expr | None]] = {
    "json_get": _getting(""),
    "json_get_json": _getting(""),
    "json_get_str": _getting("json_str"),
    "json_get_int": _getting("json_int"),
    "json_get_float": _getting("json_float"),
    "json_get_bool": _getting("json_bool"),
    "json_as_text": _getting("json_text"),
    "json_length": _getting("json_length"),
    "json_object_keys": _getting("json_object_keys"),
    "json_contains": _json_contains,
    "date_part": _date_part,
    "octet_length": _renamed("octet_length", 1),
    "btrim": _renamed("trim", 1, 2),
    "every": _renamed("bool_and", 1),
    "regexp_match": _regexp_match,
    "to_date": _to_date,
    f"{KEPT_NAMES}encode": _encode,
    f"{KEPT_NAMES}jsonb_exists": _has_key,
    f"{KEPT_NAMES}path": _hash_arrow(text=False),
    f"{KEPT_NAMES}path_text": _hash_arrow(text=True),
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
        f"{KEPT_NAMES}{_prefix}_extract_path": _extract_path(text=False),
        f"{KEPT_NAMES}{_prefix}_extract_path_text": _extract_path(text=True),
        f"{_prefix}_array_length": _of_json("json_array_length"),
        f"{_prefix}_typeof": _of_json("json_typeof"),
        f"{_prefix}_build_object": _build_object,
        f"{_prefix}_build_array": lambda node, arguments: _duck("json_array", *arguments),
        f"{_prefix}_agg": _aggregated("list", "json_agg"),
        f"{_prefix}_object_agg": _aggregated("json_group_object", "json_object_agg"),
    }
_BY_NAME["to_jsonb"] = _renamed("to_json", 1)
_BY_NAME["jsonb_pretty"] = _renamed("json_pretty", 1)
_BY_NAME["jsonb_strip_nulls"] = _renamed("json_strip_nulls", 1)
