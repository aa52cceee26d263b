"""PostgreSQL's functions that DuckDB lacks or means otherwise, as macros of DuckDB under private names.

`sql.postgres_functions` puts their names into a query. A macro is expanded where it is called, with each argument as
often as its body names it: `repeats` tells how often, so that nested calls can be bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import duckdb
import msgspec
import pyarrow as pa
from duckdb.func import ARROW, FunctionNullHandling

_PREFIX = "__hr_"
_CONTAINS = f"{_PREFIX}json_contains"

MOST_CHARACTERS = 100_000_000
"""How often repeat() repeats, and how long lpad() and rpad() make a text: DuckDB cannot be interrupted in them."""

TOO_LONG_TEXT = f"A text is made of at most {MOST_CHARACTERS} repetitions or characters"
"""What a statement is told that asks for more."""

_NUMBERS = "('BIGINT', 'UBIGINT', 'DOUBLE', 'HUGEINT', 'UHUGEINT')"
_BODIES: dict[tuple[str, str], str] = {
    ("json", "j"): "TRY_CAST(j AS JSON)",
    ("json_side", "a"): "CASE WHEN typeof(a) = 'VARCHAR' THEN CAST(CAST(CAST(a AS VARCHAR) AS JSON) AS VARCHAR) "
    "ELSE CAST(to_json(a) AS VARCHAR) END",
    ("json_text", "j"): "json_extract_string(j, '$')",
    ("json_str", "j"): "CASE WHEN json_type(j) = 'VARCHAR' THEN j ->> '$' END",
    ("json_int", "j"): "CASE WHEN json_type(j) IN ('BIGINT', 'UBIGINT') THEN TRY_CAST(j ->> '$' AS BIGINT) END",
    ("json_float", "j"): f"CASE WHEN json_type(j) IN {_NUMBERS} THEN TRY_CAST(j ->> '$' AS DOUBLE) END",
    ("json_bool", "j"): "CASE WHEN json_type(j) = 'BOOLEAN' THEN CAST(j ->> '$' AS BOOLEAN) END",
    ("json_length", "j"): "CASE json_type(j) WHEN 'ARRAY' THEN CAST(json_array_length(j) AS BIGINT) "
    "WHEN 'OBJECT' THEN len(json_keys(j)) END",
    ("json_object_keys", "j"): "CASE WHEN json_type(j) = 'OBJECT' THEN json_keys(j) END",
    ("json_typeof", "j"): "CASE WHEN json_type(j) = 'VARCHAR' THEN 'string' "
    f"WHEN json_type(j) IN {_NUMBERS} THEN 'number' ELSE lower(json_type(j)) END",
    ("json_array_length", "j"): "CASE WHEN j IS NULL THEN NULL WHEN json_type(j) = 'ARRAY' "
    "THEN CAST(json_array_length(j) AS BIGINT) ELSE error('json_array_length() needs an array') END",
    ("json_has", "j, k"): "CASE json_type(j) "
    "WHEN 'ARRAY' THEN list_contains(CAST(json_extract(j, '$[*]') AS JSON[]), to_json(k)) "
    "WHEN 'VARCHAR' THEN (j ->> '$') = k ELSE coalesce(list_contains(json_keys(j), k), j IS NULL AND NULL) END",
    ("json_step", "j, n, p"): "list_transform([j], lambda x: CASE WHEN json_type(x) = 'ARRAY' "
    "THEN json_extract(x, n) ELSE json_extract(x, p) END)[1]",
    ("json_agg", "l"): "CASE WHEN l IS NOT NULL THEN to_json(l) END",
    ("json_object_agg", "m"): "CASE WHEN m <> '{}' THEN m END",
    ("second", "t"): "CAST(date_part('microseconds', t) / 1e6 AS DOUBLE)",
    ("millisecond", "t"): "CAST(date_part('microseconds', t) / 1e3 AS DOUBLE)",
    ("century", "t"): "date_trunc('century', t - INTERVAL 1 YEAR) + INTERVAL 1 YEAR",
    ("millennium", "t"): "date_trunc('millennium', t - INTERVAL 1 YEAR) + INTERVAL 1 YEAR",
    ("quote_literal", "t"): "chr(39) || replace(CAST(t AS VARCHAR), chr(39), chr(39) || chr(39)) || chr(39)",
    ("cardinality", "l"): "CAST(cardinality(l) AS BIGINT)",
    ("array_replace", "l, a, b"): "list_transform(l, lambda x: CASE WHEN x IS NOT DISTINCT FROM a THEN b ELSE x END)",
    ("string_to_array", "t, d"): "list_transform([t], lambda x: CASE WHEN x = '' THEN [] "
    "ELSE string_split(x, d) END)[1]",
    ("string_to_array_of", "t, d, n"): "list_transform(list_transform([t], lambda x: CASE WHEN x = '' THEN [] "
    "ELSE string_split(x, d) END)[1], lambda x: CASE WHEN x = n THEN NULL ELSE x END)",
    ("elements", "j"): "CAST(CASE WHEN j IS NULL THEN NULL WHEN json_type(j) = 'ARRAY' "
    "THEN json_extract(j, '$[*]') ELSE error('json_array_elements() needs an array') END AS JSON[])",
    ("element_texts", "l"): "list_transform(l, lambda x: x ->> '$')",
    ("width_bucket_of", "x, l"): "CASE WHEN x IS NOT NULL THEN len(list_filter(l, lambda t: t <= x)) END",
    ("size", "n"): f"CASE WHEN n > {MOST_CHARACTERS} THEN error('{TOO_LONG_TEXT}') ELSE n END",
    ("date_trunc_in", "u, t, z"): "timezone(z, date_trunc(u, timezone(z, CAST(t AS TIMESTAMPTZ))))",
    ("encode_hex", "b"): "lower(hex(CAST(b AS BLOB)))",
    ("encode_base64", "b"): "rtrim("
    "regexp_replace(to_base64(CAST(b AS BLOB)), '(.{76})', '\\1' || chr(10), 'g'), chr(10))",
    ("octet_length", "t"): "length(hex(t)) // 2",
    ("sha256", "b"): "unhex(sha256(b))",
    ("to_hex", "n"): "lower(to_hex(n))",
    ("div", "a, b"): "CASE WHEN b = 0 THEN error('division by zero') ELSE (a - a % b) // b END",
    ("initcap", "t"): "array_to_string(list_transform(regexp_extract_all(t, '[\\p{L}\\p{N}]+|[^\\p{L}\\p{N}]+'), "
    "lambda w: upper(left(w, 1)) || lower(substring(w, 2))), '')",
    ("width_bucket", "x, a, b, n"): "CASE WHEN n < 1 OR a = b THEN error('width_bucket() needs different bounds and "
    "at least one bucket') WHEN a < b THEN CASE WHEN x < a THEN 0 WHEN x >= b THEN n + 1 "
    "ELSE CAST(floor((x - a) * n / (b - a + 0.0)) AS INT) + 1 END "
    "ELSE CASE WHEN x > a THEN 0 WHEN x <= b THEN n + 1 WHEN x IS NULL THEN NULL "
    "ELSE CAST(floor((a - x) * n / (a - b + 0.0)) AS INT) + 1 END END",
    ("substring", "t, s"): "substring(t, CASE WHEN s < 1 THEN 1 ELSE s END)",
    ("substring_of", "t, s, n"): "CASE WHEN n < 0 THEN error('substring() of a negative length') ELSE substring(t, "
    "CASE WHEN s < 1 THEN 1 ELSE s END, CASE WHEN s >= 1 THEN n WHEN s + n > 1 THEN s + n - 1 ELSE 0 END) END",
    ("regexp_whole", "t, p, o"): "list_transform([t], lambda x: CASE WHEN regexp_matches(x, p, o) "
    "THEN regexp_extract(x, p, 0, o) END)[1]",
    ("regexp_group", "t, p, o"): "list_transform([t], lambda x: CASE WHEN regexp_matches(x, p, o) "
    "THEN regexp_extract(x, p, 1, o) END)[1]",
}  # fmt: skip
"""Bodies by name and parameters."""

MOST_GROUPS = 9
"""How many groups of a regular expression regexp_match() answers."""
for _count in range(MOST_GROUPS + 1):
    _groups = ", ".join(f"regexp_extract(x, p, {n}, o)" for n in (range(1, _count + 1) if _count else (0,)))
    _BODIES[(f"regexp_groups_{_count}", "t, p, o")] = (
        f"list_transform([t], lambda x: CASE WHEN regexp_matches(x, p, o) THEN [{_groups}] END)[1]"
    )
for _kinds in ("tt", "ti", "it", "ii"):
    _ends = [end if kind == "t" else f"({begin} + {end})" for kind, begin, end in zip(_kinds, "ac", "bd", strict=True)]
    _begins, _others = (f"a, {_ends[0]}", f"c, {_ends[1]}")
    _BODIES[(f"overlaps_{_kinds}", "a, b, c, d")] = (
        "CASE WHEN a IS NULL OR b IS NULL OR c IS NULL OR d IS NULL THEN NULL "
        f"WHEN least({_begins}) > least({_others}) THEN least({_begins}) < greatest({_others}) "
        f"WHEN least({_begins}) < least({_others}) THEN least({_others}) < greatest({_begins}) ELSE true END"
    )
_LITERAL = frozenset(("p", "o"))
"""Parameters that are literals wherever the macro is called."""

_MENTIONS = {
    f"{_PREFIX}{name}": max(len(re.findall(rf"\b{p}\b", body)) for p in parameters.split(", ") if p not in _LITERAL)
    for (name, parameters), body in _BODIES.items()
}
MACROS = frozenset(_MENTIONS) | {_CONTAINS}
"""The names that queries call."""


def repeats(macro: str) -> int:
    """How often the expansion of a macro holds its most repeated argument."""
    return _MENTIONS.get(macro, 1)


def add_macros(connection: duckdb.DuckDBPyConnection) -> None:
    """Define them all, in a connection whose configuration is not locked yet."""
    for (name, parameters), body in _BODIES.items():
        connection.execute(f"CREATE MACRO {_PREFIX}{name}({parameters}) AS {body}")
    connection.create_function(
        _CONTAINS, _contains_columns, ["VARCHAR", "VARCHAR"], "BOOLEAN", type=ARROW,
        null_handling=FunctionNullHandling.DEFAULT,
    )  # fmt: skip


_MOST_STEPS = 5_000_000
"""How many pairs of values are compared for one batch of rows: nothing interrupts that."""


def _contains_columns(left: pa.Array, right: pa.Array) -> pa.Array:
    """`left @> right` row by row; each different text is read once."""
    read: dict[str, object] = {}
    rows: Iterable[tuple[str | None, str | None]] = zip(left.to_pylist(), right.to_pylist(), strict=True)
    found: list[bool | None] = []
    containment = Containment(_MOST_STEPS)
    for a, b in rows:
        if a is None or b is None:
            found.append(None)
            continue
        for text in (a, b):
            if text not in read:
                read[text] = msgspec.json.decode(text)
        found.append(containment.holds(read[a], read[b], top=True))
    return pa.array(found, pa.bool_())


class Containment:
    """Whether JSON values contain others, as PostgreSQL's `@>` means it (its documentation, section 8.14.3)."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def holds(self, a: object, b: object, *, top: bool = False) -> bool:
        """Whether `a` contains `b`; ValueError when that takes too many steps.

        Objects by their members, arrays by their elements in any order and number; an array at the top also contains
        a value that is one of its elements.
        """
        self._steps -= 1
        if self._steps < 0:
            raise ValueError("@> has too many JSON values to compare")
        if isinstance(a, dict) and isinstance(b, dict):
            return all(key in a and self.holds(a[key], value) for key, value in b.items())
        if isinstance(a, list) and isinstance(b, list):
            return all(any(self.holds(mine, value) for mine in a) for value in b)
        if isinstance(a, list) and top and not isinstance(b, dict):
            return any(self.holds(mine, b) for mine in a)
        if isinstance(a, bool) or isinstance(b, bool):
            return a is b
        return not isinstance(a, (dict, list)) and not isinstance(b, (dict, list)) and a == b
