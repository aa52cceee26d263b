"""LIKE, arrows, casts, sets of rows and OVERLAPS: on both paths, nested, and with hostile inputs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sql.dialect import parse_expression
from sql.duck import DuckOptions, DuckPool
from sql.errors import ExecutionError, InvalidSql, MemoryLimitExceeded, SqlError, Unsupported
from sql.stored_text import expression_from_text, expression_to_text
from storage.types import BIGINT, JSON, TEXT
from tests.sql.fake_view import FakeView
from tests.sql.query_support import World, table

TEXTS = ["a%", "ab", "a\\b", "a\\", "", "%", "_", "\\%"]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    pool = DuckPool(DuckOptions(memory_bytes=256 << 20, threads=1, connections=1))
    notes = table(1, "notes", [("id", BIGINT), ("t", TEXT), ("j", JSON)])
    view = FakeView([notes])
    view.put(notes, "alice", [(n, text, '{"list": [1, 2]}') for n, text in enumerate(TEXTS)])
    yield World(view, pool)
    pool.close()


def like(pattern: str, text: str) -> bool:
    """PostgreSQL's LIKE, by a table of what each rest of the pattern matches."""
    if not pattern:
        return not text
    sign, rest = pattern[0], pattern[1:]
    if sign == "%":
        return any(like(rest, text[n:]) for n in range(len(text) + 1))
    if sign == "\\":
        sign, rest = rest[0], rest[1:]
    elif sign == "_":
        return bool(text) and like(rest, text[1:])
    return text[:1] == sign and like(rest, text[1:])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(["a", "b", "%", "_", "\\%", "\\_", "\\\\", "\\a"]), max_size=5))
def test_like_is_the_same_on_both_paths_and_in_a_parameter(world: World, pieces: list[str]) -> None:
    pattern = "".join(pieces)
    expected = [n for n, text in enumerate(TEXTS) if like(pattern, text)]
    query = f"SELECT id FROM notes WHERE t LIKE '{pattern}' ORDER BY id"
    assert [n for (n,) in world.rows(query)] == expected
    assert [n for (n,) in world.rows(query, duckdb=True)] == expected
    assert [n for (n,) in world.rows("SELECT id FROM notes WHERE t LIKE $1 ORDER BY id", pattern)] == expected
    unlike = f"SELECT count(*) FROM notes WHERE t NOT LIKE '{pattern}'"
    assert world.rows(unlike) == [(len(TEXTS) - len(expected),)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT DISTINCT e FROM notes, jsonb_array_elements(j -> 'list') AS x(e) ORDER BY e", [("1",), ("2",)]),
        (
            "SELECT id, e FROM (SELECT 1 AS id, '[7,8,9]' AS j) AS t, jsonb_array_elements(j) AS e WHERE e::INT > 8",
            [(1, "9")],
        ),
        ("SELECT e ->> 'a' AS a, e.value FROM jsonb_array_elements('[{\"a\":5}]') AS e", [("5", '{"a":5}')]),
        (
            "SELECT id, v FROM (SELECT 1 AS id, ['c', 'b', 'a'] AS l) AS t, unnest(l) AS v",
            [(1, "c"), (1, "b"), (1, "a")],
        ),
        ("SELECT count(e), max(e) FROM unnest([1, 2]) AS e", [(2, 2)]),
        ("SELECT x FROM unnest([1, 2]) AS x(v)", [(1,), (2,)]),
        (
            "SELECT e.v FROM (SELECT '[7]'::JSON AS j) AS t LEFT JOIN LATERAL jsonb_array_elements(j) AS e(v) ON true",
            [("7",)],
        ),
        ("SELECT jsonb_each.key FROM jsonb_each('{\"a\":5}')", [("a",)]),
        ("SELECT id, key, value FROM (SELECT 1 AS id) AS t, jsonb_each('{\"a\":5}')", [(1, "a", "5")]),
        ("SELECT n, e FROM json_array_elements('[4,5]') WITH ORDINALITY AS x(e, n) ORDER BY n", [(1, "4"), (2, "5")]),
        ("SELECT value FROM json_array_elements_text('[\"a\",null]') ORDER BY value", [("a",), (None,)]),
        ("SELECT x.value FROM json_array_elements('[3]') AS x", [("3",)]),
        ("SELECT json_object_keys FROM json_object_keys('{\"k\":1}')", [("k",)]),
        ("SELECT k FROM json_object_keys('{\"k\":1}') AS k", [("k",)]),
        ("SELECT regexp_split_to_table AS w FROM regexp_split_to_table('a b', ' ')", [("a",), ("b",)]),
        ("SELECT generate_series(1, 2) AS n, 'x' AS c", [(1, "x"), (2, "x")]),
        ("SELECT len(generate_series(1, 3)) AS n", [(3,)]),
        ("SELECT max(n) FROM (SELECT generate_series(1, div(9, 2)) AS n) AS s", [(4,)]),
    ],
)
def test_sets_of_rows(world: World, query: str, expected: list[tuple[object, ...]]) -> None:
    assert world.rows(query) == expected


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("'\\x0'::bytea", Unsupported),
        ("'{\"a\"}'::text[]", Unsupported),
        ("1 OVERLAPS 2", SqlError),
        ("(1, 2, 3) OVERLAPS (1, 2)", SqlError),
        ("date_trunc('day')", Unsupported),
        ("date_trunc('century', now(), 'UTC')", Unsupported),
        ("width_bucket(1, 2, 3)", Unsupported),
        ("num_nulls()", Unsupported),
        ("array_upper([1], 2)", Unsupported),
        ("jsonb_array_elements('{}')", ExecutionError),
        ("jsonb_array_elements()", InvalidSql),
        ("string_to_array('a')", InvalidSql),
    ],
)
def test_what_is_wrong_is_an_error(world: World, expression: str, error: type[SqlError]) -> None:
    with pytest.raises(error):
        world.rows(f"SELECT {expression}")


def test_inner_functions_are_rewritten_inside_of_others(world: World) -> None:
    inner = "date_trunc('day', timestamptz '2024-01-01 23:00+00', 'UTC')"
    assert world.rows(f"SELECT ({inner}, interval '1 day') OVERLAPS ({inner}, interval '2 hours') AS v") == [(True,)]
    assert world.rows("SELECT '{\"a\":[1]}'::json #>> '{a,0}' LIKE '\\1' AS v") == [(True,)]
    assert world.rows("SELECT array_to_string(string_to_array(encode('ab', 'hex'), '1'), '\\') AS v") == [("6\\62",)]


@pytest.mark.parametrize(
    "wrap",
    [
        "CASE WHEN (DATE '2024-01-01', interval '1 day') OVERLAPS ({}, interval '1 day') THEN DATE '2024-01-01' END",
        "date_trunc('day', timestamptz '2024-01-01', concat({}, ''))",
        "quote_literal({})", "width_bucket({}, [1, 2])",
    ],
)  # fmt: skip
def test_nesting_does_not_explode(world: World, wrap: str) -> None:
    deep = "NULL"
    for _ in range(25):
        deep = wrap.format(deep)
    try:
        world.rows(f"SELECT {deep} AS v")
    except SqlError as error:
        assert error.status < 500  # noqa: PT017 - some nest too deeply, others are answered


@pytest.mark.parametrize(
    "expression",
    [
        "repeat('x', 2000000000)", "lpad('x', 2000000000)", "rpad('x', 2000000000, 'yz')",
        "repeat('x', length('ab') * 100000000)", "repeat('x', 9223372036854775807)",
    ],
)  # fmt: skip
def test_huge_texts_are_an_error_at_once(world: World, expression: str) -> None:
    with pytest.raises(MemoryLimitExceeded, match="at most 100000000"):
        world.rows(f"SELECT {expression} AS v")


def test_catastrophic_patterns_end(world: World) -> None:
    assert world.rows("SELECT repeat('a', 5000) || 'b' ~ '^(a+)+$' AS v") == [(False,)]
    assert world.rows("SELECT repeat('a', 5000) SIMILAR TO '(a*)*c' AS v") == [(False,)]


def test_deep_json_is_read_or_refused(world: World) -> None:
    for depth in (500, 100_000):
        text = "[" * depth + "]" * depth
        for query in ("SELECT $1::json @> '[]'", "SELECT json_typeof($1::json)", "SELECT $1::json #>> '{0,0}'"):
            try:
                world.rows(query, text)
            except SqlError as error:
                assert error.status < 500  # noqa: PT017
    assert world.rows("SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    "expression",
    [
        "date_trunc('day', t, 'UTC')", "string_to_array(x, ',', '')", "interval '1 day 02:03:04'", "x LIKE 'a\\%'",
        "j -> '$.a'", "num_nulls(a, b)", "'\\x41'::bytea", "(a, b) OVERLAPS (c, d)", "array_upper(a, 1)",
        "interval '2 days'::text",
    ],
)  # fmt: skip
def test_stored_texts_mean_the_same_when_they_are_read_again(expression: str) -> None:
    parsed = parse_expression(expression)
    again = expression_from_text(expression_to_text(parsed))
    assert expression_to_text(again) == expression_to_text(parsed)


def test_outputs_of_subqueries_have_the_names_that_were_written(world: World) -> None:
    found = world.bind("SELECT * FROM (SELECT date_trunc('day', now()), div(7, 2)) AS s")
    assert [column.name for column in found.columns][1] == "div(7, 2)"
    assert found.columns[0].name.startswith("date_trunc('day'")
