"""What the rewriting refuses, what it leaves as written, and the little languages that it translates."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sql.dialect import parse_expression
from sql.duck import DuckOptions, DuckPool
from sql.errors import InvalidSql, SqlError, Unsupported
from sql.postgres_formats import format_pieces, similar_pattern, text_array, time_format
from sql.postgres_macros import Containment
from sql.stored_text import expression_from_text, expression_to_text
from tests.sql.fake_view import FakeView
from tests.sql.query_support import World


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    pool = DuckPool(DuckOptions(memory_bytes=256 << 20, threads=1, connections=1))
    yield World(FakeView([]), pool)
    pool.close()


@pytest.mark.parametrize(
    "expression",
    [
        "encode('a', 'escape')", "decode('a', concat('hex', ''))", "'a' SIMILAR TO concat('a', '')",
        "format('%I', 'a')", "format('%1$s%1$s', 'a')", "to_char(now(), 'Q')", "to_char(now(), concat('Y', ''))",
        "make_interval(days => 1)",
        "json_extract_path('{}', concat('a', ''))", "regexp_match('a', concat('a', ''))",
        "'{}'::json #>> concat('{', '}')",
        f"regexp_match('a', '{'[' * 1001}')",
    ],
)  # fmt: skip
def test_what_cannot_be_exact_is_refused(world: World, expression: str) -> None:
    with pytest.raises(Unsupported):
        world.rows(f"SELECT {expression}")


@pytest.mark.parametrize(
    "expression", ["encode('a', 'hex', 'b')", "json_get()", "json_build_object('a')", "__hr_json('1')", "div(1)"]
)
def test_what_is_wrong_is_said(world: World, expression: str) -> None:
    with pytest.raises(InvalidSql):
        world.rows(f"SELECT {expression}")


def test_nested_macros_are_bounded(world: World) -> None:
    deep = "1"
    for _ in range(30):
        deep = f"div({deep}, 2)"
    with pytest.raises(SqlError, match="nest too deeply"):
        world.rows(f"SELECT {deep}")
    assert world.rows("SELECT div(div(div(99, 2), 2), 2)") == [(12,)]


@pytest.mark.parametrize(
    "expression",
    [
        "j ? 'k'", "j #> '{a,0}'", "j #>> '{a,0}'", "j @> '{}'", "encode(b, 'hex')", "decode(x, 'base64')", "sha256(b)",
        "to_hex(n)", "to_char(t, 'YYYY')", "div(n, 2)", "initcap(x)", "json_extract_path_text(j, 'a')",
        "to_timestamp(x, 'YYYY')", "format('%s', x)", "CAST(CAST('2024-01-01 10:00' AS TIMESTAMP) AS DATE)",
        "timestamp '2024-01-01 10:00'::date",
    ],
)  # fmt: skip
def test_stored_texts_mean_the_same_when_they_are_read_again(expression: str) -> None:
    parsed = parse_expression(expression)
    again = expression_from_text(expression_to_text(parsed))
    assert expression_to_text(again) == expression_to_text(parsed)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("json_get('nope', 'a'), json_contains('nope', 'a'), json_length('3')", (None, False, None)),
        ("""json_get_str('{"a":1}', 'a'), json_get_int('{"a":"1"}', 'a'), json_get_int('[1.5]', 0)""", (None,) * 3),
        ("""json_get_float('[1]', 0), json_get_bool('[true]', 0), json_as_text('[null]', 0)""", (1.0, True, None)),
        ("""json_get('{"$.a":1,"/b":2,"":3}', '$.a'), json_get('{"/b":2}', '/b'), json_get('{"":3}', '')""",
         ("1", "2", "3")),
        ("""json_contains('{"a":null}', 'a'), json_contains('[1]', -1), json_contains('[1]', 1)""",
         (True, True, False)),
    ],
)  # fmt: skip
def test_the_json_get_family(world: World, query: str, expected: tuple[object, ...]) -> None:
    assert world.rows(f"SELECT {query}") == [expected]


def test_containment_reads_texts_and_parameters(world: World) -> None:
    query = "SELECT x::JSON @> $1, x @> '{\"a\":[1]}', $1 <@ x, x @> NULL FROM (VALUES ('{\"a\":[1,2]}')) v(x)"
    assert world.rows(query, '{"a":[2]}') == [(True, True, True, None)]
    with pytest.raises(SqlError):
        world.rows("SELECT concat('no', 'pe') @> '{}'")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=12,
)


@given(VALUES)
def test_every_value_contains_itself_and_less_of_itself(value: object) -> None:
    assert Containment(10**6).holds(value, value, top=True)
    if isinstance(value, dict):
        assert all(Containment(10**6).holds(value, {key: item}, top=True) for key, item in value.items())
    if isinstance(value, list):
        assert all(Containment(10**6).holds(value, [item], top=True) for item in value)


def test_containment_ends_when_it_takes_too_long() -> None:
    with pytest.raises(ValueError, match="too many"):
        Containment(100).holds(list(range(50)), list(range(50)))


@given(st.text(alphabet="ab.^$%_", max_size=8), st.text(alphabet="ab.^$", max_size=8))
def test_similar_patterns_without_other_signs_are_like_patterns(pattern: str, text: str) -> None:
    found = similar_pattern(pattern)
    assert found is not None
    like = "".join({"%": ".*", "_": "."}.get(sign, re.escape(sign)) for sign in pattern)
    assert (re.fullmatch(found, text) is None) == (re.fullmatch(like, text) is None)


@given(st.lists(st.text(min_size=1, max_size=5), max_size=4))
def test_quoted_array_literals_keep_their_elements(keys: list[str]) -> None:
    quoted = ",".join('"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"' for key in keys)
    assert text_array("{" + quoted + "}") == keys


def test_formats() -> None:
    assert time_format('YYYY-MM-DD"T"HH24:MI:SS.US') == "%Y-%m-%dT%H:%M:%S.%f"
    assert [time_format(text) for text in ("Q", "Day", "MON", "am", "YYYYx", '"open')] == [None] * 6
    assert format_pieces("%s-%2$s 100%%", 2) == [0, "-", 1, " 100", "%"]
    assert format_pieces("%s", 0) is None
    assert json.dumps(text_array("{a, 0,-1}")) == '["a", "0", "-1"]'
