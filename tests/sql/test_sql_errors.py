"""Errors of the front end: their kind, line, column, sentence and caret."""

from __future__ import annotations

import pytest

from sql.diagnostics import Source
from sql.dialect import parse_batch
from sql.errors import BatchParseError, InvalidSql, SqlError

CASES: list[tuple[str, type[SqlError], int, int, str]] = [
    # Lexical errors
    ("SELECT 'abc", BatchParseError, 1, 8, "A string that begins with ' is never closed."),
    ("SELECT 'abc''", BatchParseError, 1, 8, "A string that begins with ' is never closed."),
    ('SELECT 1;\n  SELECT "a', BatchParseError, 2, 10, 'A quoted name that begins with " is never closed.'),
    ("SELECT `a", BatchParseError, 1, 8, "A quoted name that begins with ` is never closed."),
    ("SELECT 1 /* a /* b */", BatchParseError, 1, 10, "A comment that begins with '/*' is never closed."),
    ("SELECT 1\0", InvalidSql, 1, 9, "NUL"),
    ("SELECT '\0'", InvalidSql, 1, 9, "NUL"),
    ("SELECT $$a$$", InvalidSql, 1, 8, "Dollar-quoted strings"),
    ("SELECT $x$a$x$", InvalidSql, 1, 8, "Dollar-quoted strings"),
    ("SELECT $name", InvalidSql, 1, 8, "Parameters are numbered"),
    ("SELECT $0", InvalidSql, 1, 8, "numbered from $1"),
    ("SELECT $65536", InvalidSql, 1, 8, "numbered from $1"),
    ("SELECT a ? 1, ?", InvalidSql, 1, 1, "Parameters are numbered"),
    ("SELECT 1abc", InvalidSql, 1, 8, "'1abc' is neither a number nor a name."),
    ("SELECT 0x1F", InvalidSql, 1, 8, "'0x1F' is neither a number nor a name."),
    ("SELECT X'abc'", InvalidSql, 1, 8, "even number of hexadecimal digits"),
    ("SELECT B'01'", InvalidSql, 1, 8, "Bit strings"),
    ("SELECT U&'a'", InvalidSql, 1, 8, "Unicode strings"),
    ("SELECT N'a'", InvalidSql, 1, 8, "National strings"),
    (r"SELECT E'\0'", InvalidSql, 1, 8, "not a character that SQL text may hold"),
    (r"SELECT E'\ud800'", InvalidSql, 1, 8, "not a character that SQL text may hold"),
    ('SELECT ""', InvalidSql, 1, 8, "A quoted name may not be empty."),
    ("SELECT §", InvalidSql, 1, 8, "'§' is not part of any SQL token."),
    ("SELECT @x", InvalidSql, 1, 8, "'@' is not part of any SQL token."),
    # Queries
    ("SELECT * FROM (SELECT 1", InvalidSql, 1, 24, "Expected a closing parenthesis, but the statement ended."),
    ("SELECT a b c FROM t", InvalidSql, 1, 12, "'c' was not expected here."),
    ("SELECT\n a b\n c FROM t", InvalidSql, 3, 2, "'c' was not expected here."),
    ("SELECT * FROM t WHERE", InvalidSql, 1, 22, "The statement ends too early."),
    ("SELECT CAST(1 AS) FROM t", InvalidSql, 1, 17, "Expected a type name inside CAST, but found ')'."),
    ("SELECT 1::foo", InvalidSql, 1, 8, "There is no type 'FOO'."),
    ("SELECT FROM t", InvalidSql, 1, 13, "SELECT needs at least one column."),
    ("INSERT INTO t VALUES (1, 2", InvalidSql, 1, 27, "Expected a closing parenthesis, but the statement ended."),
    ("UPDATE t SET", InvalidSql, 1, 13, "UPDATE needs SET column = value."),
    ("UPDATE t SET a > 1", InvalidSql, 1, 14, "SET takes column = value"),
    ("UPDATE t SET a = 1, b", InvalidSql, 1, 21, "SET takes column = value"),
    ("INSERT INTO t (a)", InvalidSql, 1, 1, "INSERT needs VALUES"),
    ("INSERT INTO t (a + 1) VALUES (1)", InvalidSql, 1, 18, "Expected a closing parenthesis"),
    ("DELETE FROM (SELECT 1)", InvalidSql, 1, 1, "needs a table's name"),
    # Our own statements
    ("FROBNICATE t", InvalidSql, 1, 1, "'FROBNICATE' does not begin a statement."),
    ("'a'", InvalidSql, 1, 1, "\"'a'\" does not begin a statement."),
    ("1", InvalidSql, 1, 1, "'1' does not begin a statement."),
    ("CREATE", InvalidSql, 1, 1, "does not begin a statement"),
    ("CREATE TABLE t", InvalidSql, 1, 15, "Expected (, but the statement ended."),
    ("CREATE TABLE t ()", InvalidSql, 1, 17, "Expected a column name, but found ')'."),
    ("CREATE TABLE t (a INT,)", InvalidSql, 1, 23, "Expected a column name, but found ')'."),
    ("CREATE TABLE t (PRIMARY KEY (a))", InvalidSql, 1, 32, "A table needs at least one column."),
    ("CREATE TABLE t (a INT NULL NOT NULL)", InvalidSql, 1, 28, "Column 'a' is both NULL and NOT NULL."),
    ("CREATE TABLE t (a INT DEFAULT 1 DEFAULT 2)", InvalidSql, 1, 33, "Column 'a' has two defaults."),
    ("CREATE TABLE t (a INT DEFAULT)", InvalidSql, 1, 30, "Expected an expression here."),
    ("CREATE TABLE t (a INT DEFAULT 1 +)", InvalidSql, 1, 34, "ends too early"),
    ("CREATE TABLE t (a INT PRIMARY KEY, b INT PRIMARY KEY)", InvalidSql, 1, 36, "one primary key"),
    ("CREATE TABLE t (a INT PRIMARY KEY, PRIMARY KEY (a))", InvalidSql, 1, 36, "given twice"),
    ("CREATE TABLE t (a INT, PRIMARY KEY (a), PRIMARY KEY (a))", InvalidSql, 1, 41, "given twice"),
    ("CREATE TABLE a.b.c (x INT)", InvalidSql, 1, 17, "A table is named by a namespace and a name"),
    ("CREATE USER TABLE t (a INT) WITH (TYPE = 'SHARED')", InvalidSql, 1, 1, "contradict"),
    ("CREATE TABLE t (a INT) WITH (TYPE = 'x')", InvalidSql, 1, 1, "TYPE is 'USER', 'SHARED' or 'STREAM'"),
    ("CREATE TABLE t (a INT) WITH (X = 1, x = 2)", InvalidSql, 1, 37, "given twice"),
    ("CREATE TABLE t (a INT) frob", InvalidSql, 1, 24, "'frob' was not expected here."),
    ("ALTER TABLE t DROP a, DROP b", InvalidSql, 1, 21, "one operation"),
    ("ALTER TABLE t FROB", InvalidSql, 1, 15, "Expected ADD, DROP, MODIFY, ALTER, RENAME or SET"),
    ("ALTER TABLE t SET ACCESS LEVEL none", InvalidSql, 1, 32, "'none' is not an access level"),
    ("DROP TABLE a, b", InvalidSql, 1, 13, "one table"),
    ("CREATE USER u ROLE dba", InvalidSql, 1, 23, "needs WITH PASSWORD"),
    ("CREATE USER u WITH PASSWORD 'p' ROLE king", InvalidSql, 1, 38, "'king' is not a role"),
    ("CREATE USER u WITH PASSWORD p", InvalidSql, 1, 29, "Expected a password in quotes, but found 'p'."),
    ("ALTER USER u SET", InvalidSql, 1, 17, "Expected PASSWORD, ROLE or EMAIL, but the statement ended."),
    ("USE a b", InvalidSql, 1, 7, "'b' was not expected here."),
    ("EXPLAIN DROP TABLE t", InvalidSql, 1, 9, "Expected SELECT, INSERT, UPDATE or DELETE after EXPLAIN"),
]


@pytest.mark.parametrize(("text", "kind", "line", "column", "message"), CASES, ids=[repr(case[0]) for case in CASES])
def test_errors(text: str, kind: type[SqlError], line: int, column: int, message: str) -> None:
    with pytest.raises(SqlError) as caught:
        parse_batch(text)
    error = caught.value
    assert type(error) is kind
    assert message in error.message
    assert (error.line, error.column) == (line, column)
    assert error.message.endswith((".", "…"))
    assert "\x1b" not in error.message


def test_the_second_statement_is_checked_too() -> None:
    with pytest.raises(InvalidSql) as caught:
        parse_batch("SELECT 1;\nSELECT 2;\n  SELECT a b c")
    assert (caught.value.line, caught.value.column) == (3, 14)
    assert caught.value.excerpt == "  SELECT a b c\n             ^"


def test_long_lines_are_cut_around_the_column() -> None:
    text = "SELECT " + "x, " * 100 + "a b c" + ", y" * 100
    with pytest.raises(InvalidSql) as caught:
        parse_batch(text)
    assert caught.value.excerpt is not None
    line, caret = caught.value.excerpt.split("\n")
    assert len(line) <= 82
    assert line[0] == line[-1] == "…"
    assert line[caret.index("^")] == "c"


def test_control_characters_do_not_move_the_caret() -> None:
    source = Source("a\tb\x1b[31m c")
    line, caret = source.excerpt(9).split("\n")
    assert "\x1b" not in line
    assert line[caret.index("^")] == "c"


def test_an_error_at_the_end_of_an_empty_last_line() -> None:
    source = Source("SELECT 1\n")
    assert source.position(9) == (2, 1)
    assert source.excerpt(9) == "\n^"
