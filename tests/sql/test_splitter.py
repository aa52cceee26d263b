"""The lexer and the splitter: quotes, comments, semicolons, limits; and that any text at all is answered in time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlglot.tokenizer_core import TokenType

from sql.dialect import parse_batch
from sql.errors import InvalidSql, SqlError
from sql.lexer import tokenize
from sql.splitter import MAX_JOINS, MAX_NESTING, MAX_TOKENS, split

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)

PIECES = st.one_of(
    st.builds(lambda s: "'" + s.replace("'", "''") + "'", TEXT),
    st.builds(lambda s: '"' + s.replace('"', '""') + '"', TEXT.filter(bool)),
    st.builds(lambda s: "`" + s.replace("`", "``") + "`", TEXT.filter(bool)),
    st.builds(lambda s: "/*" + s.replace("*", "+").replace("/", "+") + "*/", TEXT),
    st.just("/* a /* ';\" */ b */"),
    st.builds(lambda s: "--" + s.replace("\n", " ") + "\n", TEXT),
    st.sampled_from(["a", "b1", "1.5", "$1", "(", ")", ",", "=", "::", "->>", "||", "select", "from", "group by"]),
)
STATEMENTS = st.lists(PIECES, min_size=1, max_size=8).map(lambda pieces: " ".join(["x", *pieces, "y"]))


@given(st.lists(STATEMENTS, max_size=6), st.sampled_from([";", " ; ", ";;", ";\n", "; -- ;'\n", ";/*;*/"]))
@settings(max_examples=300, deadline=None)
def test_a_join_of_statements_splits_into_them(statements: list[str], separator: str) -> None:
    text = separator.join(statements)
    assert [piece.text for piece in split(text)] == statements


@given(STATEMENTS)
@settings(max_examples=200, deadline=None)
def test_positions_point_at_the_tokens(text: str) -> None:
    lines = text.split("\n")
    for token in tokenize(text):
        source = text[token.start : token.end + 1]
        assert lines[token.line - 1][token.col - 1] == source[0]
        if token.token_type is TokenType.STRING:
            assert source[1:-1].replace("''", "'") == token.text
        elif token.token_type is TokenType.IDENTIFIER:
            assert source[1:-1].replace(source[0] * 2, source[0]) == token.text


def kinds(text: str) -> list[tuple[str, str]]:
    """Type and text of each token."""
    return [(token.token_type.name, token.text) for token in tokenize(text)]


def test_two_word_keywords_join_over_comments() -> None:
    assert kinds("GROUP /* x */\n BY a") == [("GROUP_BY", "group by"), ("VAR", "a")]
    assert kinds('"group" by') == [("IDENTIFIER", "group"), ("VAR", "by")]


def test_operators_and_numbers() -> None:
    assert [text for _, text in kinds("a->>'x'-1--c\n+.5e-3*1.//2<=b!=c::d")] == [
        "a", "->>", "x", "-", "1", "+", ".5e-3", "*", "1.", "//", "2", "<=", "b", "!=", "c", "::", "d",
    ]  # fmt: skip


def test_backslashes_are_ordinary_in_plain_strings() -> None:
    assert kinds(r"'a\' 'b'") == [("STRING", "a\\"), ("STRING", "b")]


def test_jinja_is_not_special() -> None:
    assert [text for _, text in kinds("{# a; #} b")] == ["{", "#", "a", ";", "#", "}", "b"]


def test_semicolons_inside_execute_as_user_stay() -> None:
    assert len(split("EXECUTE AS USER 'a' (SELECT 1; SELECT 2); SELECT 3")) == 2
    assert len(split("SELECT (1; SELECT 2)")) == 2


BOMBS = {
    "parentheses": "SELECT " + "(" * 10_000 + "1" + ")" * 10_000,
    "open parentheses": "SELECT " + "(" * 10_000,
    "not": "SELECT " + "NOT " * 10_000 + "true",
    "minus": "SELECT " + "- " * 10_000 + "1",
    "case": "SELECT " + "CASE WHEN a THEN " * 10_000 + "1" + " END" * 10_000,
    "selects": "SELECT * FROM " + "(SELECT * FROM " * 10_000 + "t" + ")" * 10_000,
    "parenthesized selects": "(" * 10_000 + "SELECT 1" + ")" * 10_000,
    "sums": "SELECT 1" + "+a" * 10_000,
    "long sums": "SELECT 1" + "+a" * 30_000,
    "concatenations": "SELECT a" + "||a" * 10_000,
    "unions": "SELECT 1" + " UNION SELECT 1" * 10_000,
    "casts": "SELECT a" + "::int" * 10_000,
    "cast calls": "SELECT " + "CAST(" * 10_000 + "1" + " AS INT)" * 10_000,
    "calls": "SELECT " + "f(" * 10_000 + "1" + ")" * 10_000,
    "arrays": "SELECT " + "ARRAY[" * 60 + "1" + "]" * 60,
    "rows": "SELECT " + "ROW(" * 60 + "1" + ")" * 60,
    "structs": "SELECT " + "STRUCT(" * 60 + "1" + ")" * 60,
    "brackets": "SELECT " + "[" * 10_000,
    "subscripts": "SELECT a" + "[1]" * 10_000,
    "dots": "SELECT a" + ".b" * 10_000,
    "arrows": "SELECT a" + "->'b'" * 10_000,
    "joins": "SELECT * FROM a" + " JOIN b" * 10_000,
    "many joins": "SELECT * FROM a" + " JOIN b" * 24_000,
    "lambdas": "SELECT f(" + "x -> " * 10_000 + "1)",
    "ifs": "SELECT " + "IF " * 10_000 + "1",
    "intervals": "SELECT " + "INTERVAL " * 10_000 + "'1' DAY",
    "withs": "WITH a AS (" * 10_000 + "SELECT 1",
    "comments": "/*" * 250_000 + "*/" * 250_000,
    "semicolons": ";" * 100_000,
    "quotes": "'" * 999_999,
    "defaults": "CREATE TABLE t (a INT DEFAULT " + "(" * 10_000 + "1" + ")" * 10_000 + ")",
    "checks": "CREATE TABLE t (a INT CHECK (" + "NOT " * 10_000 + "a))",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_answered_quickly(name: str) -> None:
    start = time.perf_counter()
    error = _answered(BOMBS[name])
    assert time.perf_counter() - start < 20
    if error is not None:
        assert len(error.message) < 200
        assert len(error.excerpt or "") < 400


def test_what_is_allowed_is_not_refused() -> None:
    deep = MAX_NESTING - 1
    parse_batch("SELECT " + "(" * deep + "1" + ")" * deep)
    parse_batch("SELECT a" + " + a" * 190)
    parse_batch("SELECT 1 WHERE a" + " OR a" * 5_000)
    parse_batch("SELECT 1 WHERE a IN (" + ", ".join(map(str, range(20_000))) + ")")
    parse_batch("SELECT * FROM a" + " CROSS JOIN b" * MAX_JOINS)
    parse_batch("INSERT INTO t VALUES " + ", ".join(f"({i}, f({i}))" for i in range(8_000)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT " + "(" * MAX_NESTING + "1" + ")" * MAX_NESTING, None),
        ("SELECT " + "(" * (MAX_NESTING + 1), "nests deeper than 64 levels"),
        ("SELECT 1" + "+a" * 300, "nests deeper than 200 levels"),
        ("SELECT * FROM a" + " CROSS JOIN b" * (MAX_JOINS + 1), "more than 200 joins"),
        ("SELECT " + "a, " * MAX_TOKENS + "a", "more than 50,000 words and signs"),
    ],
)
def test_limits_are_named(text: str, message: str | None) -> None:
    if message is None:
        parse_batch(text)
        return
    with pytest.raises(InvalidSql, match=message):
        parse_batch(text)


_WORDS = """
    select from where group by order limit insert into values update set delete create table drop alter user
    shared namespace if not exists primary key unique check constraint default null and or in is like between case when
    then else end cast as with recursive union all except intersect join left on using over partition rows filter
    explain analyze show describe use begin commit rollback execute array row struct map interval date timestamp
    int text decimal bytes uuid a b t x1 1 2.5 'x' "q" `r` $1 $2 ( ) [ ] { } , . ; : :: -> ->> || + - * / % = < > <> !=
    ? ~ ! # @ & | ^ E'\\n' X'ab' -- /* */ lateral unnest returning conflict do nothing excluded distinct any some every
    grouping sets rollup cube pivot unpivot qualify window exclude replace columns fetch offset for of tablesample asof
    positional semi anti natural cross full outer collate at time zone
"""
WORDS = st.sampled_from(_WORDS.split())
STARTS = st.sampled_from(
    ["SELECT ", "CREATE TABLE t (a ", "INSERT INTO t VALUES (", "ALTER TABLE t ", "UPDATE t SET a = "]
)


@given(st.lists(WORDS, max_size=40).map(" ".join))
@settings(max_examples=1_500, deadline=None)
def test_any_words_are_answered(text: str) -> None:
    _answered(text)


@given(STARTS, st.lists(WORDS, max_size=20).map(" ".join))
@settings(max_examples=1_000, deadline=None)
def test_any_ending_is_answered(start: str, end: str) -> None:
    _answered(start + end)


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60).map(lambda data: data.decode("latin-1"))))
@settings(max_examples=1_000, deadline=None)
def test_any_text_is_answered(text: str) -> None:
    _answered(text)


def _answered(text: str) -> SqlError | None:
    """The error for a text, if it has one: of our own kinds, with a place in the text, and soon."""
    start = time.perf_counter()
    try:
        parsed = parse_batch(text)
    except SqlError as caught:
        error = caught
    else:
        assert all(item.text in text for item in parsed)
        return None
    assert time.perf_counter() - start < 20
    if error.line is not None:
        assert 1 <= error.line <= text.count("\n") + 1
        assert error.excerpt is not None
    return error
