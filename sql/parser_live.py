"""Statements about live queries: SUBSCRIBE TO and KILL LIVE QUERY."""

from __future__ import annotations

from sqlglot.tokenizer_core import Token, TokenType

from sql.parser_cursor import Cursor
from sql.parser_queries import parse_expression, parse_tokens
from sql.statements import KillLiveQuery, SubscribeTo


def parse_subscribe(cursor: Cursor) -> SubscribeTo:
    """SUBSCRIBE TO [ns.]t [WHERE …] | SELECT … [OPTIONS (…)], after the word SUBSCRIBE."""
    cursor.expect("to")
    start = cursor.peek()
    if start is None:
        cursor.fail_expected("a table's name or a SELECT")
    end = _options_start(cursor)
    if cursor.word() in ("select", "with"):
        text = _source(cursor, cursor.index, end)
        parse_tokens(cursor.tokens[cursor.index : end], cursor.source)
        cursor.index = end
        return SubscribeTo(text, None, _options(cursor), start.line, start.col)
    first = cursor.index
    table = cursor.table_name()
    name = _source(cursor, first, cursor.index)
    condition = ""
    if cursor.index < end:
        if not cursor.at("where"):
            cursor.fail_expected("WHERE, OPTIONS or the end")
        condition = _source(cursor, cursor.index, end)
        tokens = cursor.tokens[cursor.index + 1 : end]
        parse_expression(tokens, cursor.source, cursor.tokens[end - 1].end + 1)
        cursor.index = end
    return SubscribeTo(f"{name} {condition}".rstrip(), table, _options(cursor), start.line, start.col)


def parse_kill(cursor: Cursor) -> KillLiveQuery:
    """KILL LIVE QUERY 'id', after the word LIVE."""
    cursor.expect("query")
    return KillLiveQuery(cursor.string("a live query's id in quotes, as system.live shows it"))


def _options_start(cursor: Cursor) -> int:
    """Where OPTIONS (…) begins, if the statement ends with it; otherwise its end."""
    if cursor.end == 0 or cursor.tokens[cursor.end - 1].token_type is not TokenType.R_PAREN:
        return cursor.end
    depth = 0
    for index in range(cursor.end - 1, cursor.index, -1):
        kind = cursor.tokens[index].token_type
        if kind is TokenType.R_PAREN:
            depth += 1
        elif kind is TokenType.L_PAREN:
            depth -= 1
            if not depth:
                return index - 1 if _is_options(cursor.tokens, index, cursor.index) else cursor.end
    return cursor.end


def _is_options(tokens: list[Token], opening: int, start: int) -> bool:
    word = tokens[opening - 1]
    return opening - 1 > start and word.text == "options" and word.token_type is not TokenType.IDENTIFIER


def _options(cursor: Cursor) -> dict[str, object]:
    return cursor.options() if cursor.accept("options") else {}


def _source(cursor: Cursor, start: int, end: int) -> str:
    """The text of tokens as written."""
    if start >= end:
        return ""
    return cursor.source.text[cursor.tokens[start].start : cursor.tokens[end - 1].end + 1]
