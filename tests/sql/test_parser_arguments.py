"""No function loses arguments: sqlglot is asked for each, and what it leaves out is refused before."""

from __future__ import annotations

import logging

import pytest
import sqlglot
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ErrorLevel, SqlglotError

from sql.allowed_functions import ALLOWED_FUNCTIONS
from sql.dialect import parse_batch
from sql.errors import InvalidSql
from sql.parser_arguments import MOST_ARGUMENTS
from sql.parser_names import _KEPT

UNITS = {"date_trunc", "datetrunc", "datediff", "date_diff"}
"""Their first argument is a unit."""
CHANGED = {"date_bin", "time_bucket"}
"""Written in capitals, not left out."""
NAMES = sorted(name for name in ALLOWED_FUNCTIONS if name.isidentifier() and name not in _KEPT)


def left_out(name: str, count: int) -> bool:
    """Whether sqlglot's text of a call lacks one of its arguments; a call that it refuses lacks none."""
    arguments = [f"mark{number}" for number in range(count)]
    if name in UNITS and arguments:
        arguments[0] = "'day'"
    try:
        tree = sqlglot.parse_one(f"SELECT {name}({', '.join(arguments)})", dialect=DuckDB)
        text = tree.sql(dialect=DuckDB, unsupported_level=ErrorLevel.RAISE).lower()
    except SqlglotError:
        return False
    return not all(argument.strip("'") in text for argument in arguments)


def test_what_sqlglot_leaves_out_is_in_the_table(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="sqlglot")
    missing = [
        (name, count)
        for name in NAMES
        for count in range(1, 8)
        if left_out(name, count) and count <= MOST_ARGUMENTS.get(name, 99)
    ]
    assert missing == []


def test_nothing_is_refused_that_sqlglot_keeps(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="sqlglot")
    listed = [name for name in MOST_ARGUMENTS if name in ALLOWED_FUNCTIONS and name not in CHANGED]
    assert [n for n in listed if not left_out(n, MOST_ARGUMENTS[n] + 1)] == []


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ("left('abc', 1, 2)", "left() takes at most 2 arguments."),
        ("length('abc', 1)", "length() takes at most 1 argument."),
        ("uuid(1)", "uuid() takes no argument."),
        ("array_position([1, 2], 1, 2)", "array_position() takes at most 2 arguments."),
        ("coalesce(round(1.25, 1, 2, 3), (1))", "round() takes at most 3 arguments."),
    ],
)
def test_too_many_arguments_are_refused(call: str, sentence: str) -> None:
    with pytest.raises(InvalidSql) as caught:
        parse_batch(f"SELECT 1,\n {call}")
    assert sentence in str(caught.value)
    assert caught.value.line == 2


@pytest.mark.parametrize(
    "query",
    [
        "SELECT left('abc', (SELECT max(x) FROM (VALUES (1, 2, 3)) v(x, y, z)))",
        "SELECT string_agg(x, ',' ORDER BY x, y, z) FROM t",
        "SELECT uuid(), gen_random_uuid()",
        "WITH json(a, b, c) AS (SELECT 1, 2, 3) SELECT * FROM json",
        "WITH a AS (SELECT 1), date(a, b, c) AS (SELECT 1, 2, 3) SELECT * FROM date",
        "SELECT * FROM (VALUES (1, 2, 3)) AS map(a, b, c)",
        "SELECT * FROM (VALUES (1, 2, 3)) map(a, b, c)",
        "INSERT INTO json (a, b, c) VALUES (1, 2, 3)",
        "INSERT INTO app.date (a, b, c) VALUES (1, 2, 3)",
        "SELECT a FROM t WHERE left IN (1, 2, 3)",
    ],
)
def test_other_lists_in_parentheses_are_none(query: str) -> None:
    assert len(parse_batch(query)) == 1
