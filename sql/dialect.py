"""The SQL front end: request text in, statements out.

`parse_batch` splits a request, recognizes each statement by its first words, and returns the dataclasses of
`sql.statements`. Queries and DML go through sqlglot's parser (`sql.parser_queries`), everything else through small
parsers of our own (`sql.parser_tables`, `sql.parser_topics` and the like). All of them read the tokens of one lexer.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NoReturn

from sqlglot import exp
from sqlglot.tokenizer_core import Token, TokenType

from sql import parser_commands as commands
from sql import parser_live as live
from sql import parser_messages as messages
from sql import parser_tables as tables
from sql import parser_topics as topics
from sql import parser_views as views
from sql.diagnostics import Source, shown
from sql.errors import ClusterUnavailable, EmptySql, InvalidInput, SqlError, Unsupported
from sql.lexer import tokenize
from sql.parser_administration import administration_parser
from sql.parser_cursor import Cursor
from sql.parser_dialect import Headrace
from sql.parser_queries import check_dml, parse_tokens
from sql.parser_queries import parse_expression as parse_expression_tokens
from sql.splitter import MAX_STATEMENTS, check_size, is_execute_as, split
from sql.statements import (
    Begin,
    Commit,
    Delete,
    ExecuteAs,
    Explain,
    Insert,
    Parsed,
    Query,
    Rollback,
    Statement,
    Update,
)
from sql.unsupported import unsupported_statement
from storage.catalog import TableKind


def parse_batch(text: str, *, max_statements: int = MAX_STATEMENTS) -> list[Parsed]:
    """Every statement of a request; raises a `SqlError` with line, column and excerpt if one is malformed."""
    pieces = split(text, max_statements=max_statements)
    if not pieces:
        raise EmptySql("No SQL statements provided")
    batch: list[Parsed] = []
    for piece in pieces:
        try:
            statement = _statement(piece.tokens, piece.source)
        except SqlError as error:
            error.statement = len(batch) + 1
            raise
        batch.append(
            Parsed(
                statement=statement,
                text=piece.text,
                line=piece.tokens[0].line,
                column=piece.tokens[0].col,
                parameters=_parameters(piece.tokens),
            )
        )
    return batch


def parse_expression(text: str) -> exp.Expression:
    """One scalar expression, for instance a stored DEFAULT or CHECK."""
    source = Source(text)
    found = tokenize(text, source)
    check_size(found, source)
    return parse_expression_tokens(found, source, 0)


def _parameters(found: list[Token]) -> frozenset[int]:
    """The numbers of the `$n` among the tokens."""
    return frozenset(
        int(after.text)
        for token, after in pairwise(found)
        if token.token_type is TokenType.PARAMETER and after.token_type is TokenType.NUMBER
    )


def _statement(found: list[Token], source: Source) -> Statement:
    first = found[0]
    if first.token_type in (TokenType.STRING, TokenType.IDENTIFIER, TokenType.NUMBER):
        _refuse(Cursor(found, source))
    if first.text in _QUERY_WORDS:
        return _query(found, source)
    if is_execute_as(found):
        return _execute_as(Cursor(found, source, InvalidInput))
    cursor = Cursor(found, source)
    parser: Callable[[Cursor], Statement] | None = administration_parser(cursor)
    if parser is None:
        parser = _PARSERS.get(first.text)
        cursor.index = 1
    if parser is None:
        _refuse(_rewound(cursor))
    statement = parser(cursor)
    cursor.finish()
    return statement


def _refuse(cursor: Cursor) -> NoReturn:
    """The error for a statement that no parser reads."""
    name = unsupported_statement([cursor.word(ahead) for ahead in range(4)])
    cursor.index = 0
    if cursor.word(0) == "cluster":
        cursor.fail("There is no cluster: Headrace runs as a single node.", kind=ClusterUnavailable)
    if name is not None:
        cursor.fail(f"{name} is not supported.", kind=Unsupported)
    token = cursor.tokens[0]
    cursor.fail(f"{shown(cursor.text(token))} does not begin a statement.")


_QUERY_WORDS = frozenset({"select", "with", "values", "from", "table", "(", "insert", "update", "delete"})


def _query(found: list[Token], source: Source) -> Statement:
    """A query or DML statement."""
    tree = parse_tokens(found, source)
    if isinstance(tree, exp.Values):
        tree = exp.select("*").from_(tree, copy=False)
    if isinstance(tree, exp.Query):
        return Query(tree)
    if isinstance(tree, (exp.Insert, exp.Update, exp.Delete)):
        check_dml(tree, source, found)
        if isinstance(tree, exp.Insert):
            return Insert(tree)
        return Update(tree) if isinstance(tree, exp.Update) else Delete(tree)
    raise source.error("This is not a statement that returns or changes rows.", found[0].start)


def _explain(cursor: Cursor) -> Explain:
    """EXPLAIN [ANALYZE] of a query or DML statement, after the word EXPLAIN."""
    analyze = cursor.accept("analyze")
    if not analyze and cursor.at("(", "analyze", ")"):
        cursor.index += 3
        analyze = True
    if cursor.word() not in _QUERY_WORDS:
        cursor.fail_expected("SELECT, INSERT, UPDATE or DELETE after EXPLAIN")
    inner = _query(cursor.tokens[cursor.index :], cursor.source)
    cursor.index = cursor.end
    return Explain(inner, analyze)


def _execute_as(cursor: Cursor) -> ExecuteAs:
    """EXECUTE AS USER name ( one statement )."""
    cursor.index = 2
    cursor.expect("user")
    start = cursor.peek()
    user = cursor.name_or_string("a user's name after EXECUTE AS USER")
    if not user.strip():
        cursor.fail("EXECUTE AS USER needs a user's name.", start)
    opening = cursor.peek()
    inner = cursor.group()
    cursor.finish()
    while inner and inner[-1].token_type is TokenType.SEMICOLON:
        inner = inner[:-1]
    if not inner:
        cursor.fail("EXECUTE AS USER needs a statement between its parentheses.", opening)
    for token in inner:
        if token.token_type is TokenType.SEMICOLON:
            cursor.fail("EXECUTE AS USER takes exactly one statement.", token)
    if is_execute_as(inner):
        cursor.fail("EXECUTE AS USER may not stand inside another one.", inner[0])
    statement = _statement(inner, cursor.source)
    if isinstance(statement, (Begin, Commit, Rollback)):
        cursor.fail("A transaction is not controlled inside EXECUTE AS USER.", inner[0])
    return ExecuteAs(user, statement)


def _create(cursor: Cursor) -> Statement:
    if cursor.accept("namespace") or cursor.accept("schema"):
        return commands.parse_create_namespace(cursor)
    if cursor.accept("table"):
        return tables.parse_create_table(cursor, None)
    if cursor.word() in set(TableKind) and cursor.word(1) == "table":
        kind = TableKind(cursor.word())
        cursor.index += 2
        return tables.parse_create_table(cursor, kind)
    if cursor.accept("user"):
        return commands.parse_create_user(cursor)
    if cursor.accept("topic"):
        return topics.parse_create_topic(cursor)
    if cursor.accept("view"):
        return views.parse_create_view(cursor, or_replace=False)
    if cursor.accept("or", "replace", "view"):
        return views.parse_create_view(cursor, or_replace=True)
    _refuse(_rewound(cursor))


def _alter(cursor: Cursor) -> Statement:
    if cursor.accept("namespace") or cursor.accept("schema"):
        return commands.parse_alter_namespace(cursor)
    if _accept_table(cursor):
        return tables.parse_alter_table(cursor)
    if cursor.accept("user"):
        return commands.parse_alter_user(cursor)
    if cursor.accept("topic"):
        return topics.parse_alter_topic(cursor)
    _refuse(_rewound(cursor))


def _drop(cursor: Cursor) -> Statement:
    if cursor.accept("namespace") or cursor.accept("schema"):
        return commands.parse_drop_namespace(cursor)
    if _accept_table(cursor):
        return tables.parse_drop_table(cursor)
    if cursor.accept("user"):
        return commands.parse_drop_user(cursor)
    if cursor.accept("topic"):
        return topics.parse_drop_topic(cursor)
    if cursor.accept("view"):
        return views.parse_drop_view(cursor)
    _refuse(_rewound(cursor))


def _accept_table(cursor: Cursor) -> bool:
    """Takes [USER | SHARED | STREAM] TABLE if it is next."""
    return cursor.accept("table") or any(cursor.accept(kind, "table") for kind in TableKind)


def _rewound(cursor: Cursor) -> Cursor:
    cursor.index = 0
    return cursor


def _set(cursor: Cursor) -> Statement:
    if cursor.at("namespace") and cursor.word(1) not in ("=", "to", ""):
        cursor.index += 1
        return commands.parse_use(cursor)
    if cursor.at("namespace"):
        token = cursor.peek(1)
        if token is not None and token.token_type is TokenType.IDENTIFIER:
            cursor.index += 1
            return commands.parse_use(cursor)
    _refuse(_rewound(cursor))


def _reset(cursor: Cursor) -> Statement:
    if cursor.at("consumer"):
        return messages.parse_reset_group(cursor)
    _refuse(_rewound(cursor))


def _begin(cursor: Cursor) -> Statement:
    _accept_transaction(cursor)
    return commands.parse_begin(cursor)


def _start(cursor: Cursor) -> Statement:
    cursor.expect("transaction")
    return commands.parse_begin(cursor)


def _ending(word: str) -> Callable[[Cursor], Statement]:
    def parse(cursor: Cursor) -> Statement:
        _accept_transaction(cursor)
        return commands.parse_transaction_end(cursor, word)

    return parse


def _accept_transaction(cursor: Cursor) -> None:
    if not cursor.accept("transaction"):
        cursor.accept("work")


_PARSERS: dict[str, Callable[[Cursor], Statement]] = {
    "create": _create,
    "alter": _alter,
    "drop": _drop,
    "use": commands.parse_use,
    "set": _set,
    "show": commands.parse_show,
    "describe": commands.parse_describe,
    "desc": commands.parse_describe,
    "explain": _explain,
    "begin": _begin,
    "start": _start,
    "commit": _ending("commit"),
    "end": _ending("end"),
    "rollback": _ending("rollback"),
    "subscribe": live.parse_subscribe,
    "clear": topics.parse_clear_topic,
    "consume": messages.parse_consume,
    "ack": messages.parse_ack,
    "reset": _reset,
    "publish": messages.parse_publish,
}

__all__ = ["Headrace", "parse_batch", "parse_expression"]
