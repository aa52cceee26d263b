"""Splitting a request into statements, and the limits that keep parsing bounded.

A semicolon ends a statement; empty statements are skipped. Inside EXECUTE AS USER the semicolons between the
parentheses stay, so that its parser can say that exactly one statement belongs there.

Nesting is counted here, on tokens, because sqlglot's parser is recursive and compiled: 10,000 opening
parentheses must be a sentence, not a crash.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sqlglot.tokenizer_core import Token, TokenType

from sql.diagnostics import Source
from sql.errors import InvalidSql
from sql.lexer import tokenize

MAX_STATEMENTS: Final = 1_000
MAX_NESTING: Final = 64
MAX_SUBSCRIPTS: Final = 16
MAX_JOINS: Final = 200
MAX_TOKENS: Final = 50_000
MAX_INSERT_TOKENS: Final = 100_000
"""sqlglot's compiled parser holds the interpreter while it runs: a longer statement would stop the server. Long
INSERTs of plain values do not come here (`sql.templates.scan_insert`)."""

_OPENING = frozenset({TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE, TokenType.CASE})
_CLOSING = frozenset({TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE, TokenType.END})
_PREFIX = frozenset({
    TokenType.NOT, TokenType.DASH, TokenType.PLUS, TokenType.TILDE, TokenType.INTERVAL, TokenType.ANY, TokenType.ALL,
    TokenType.SOME, TokenType.FROM,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Piece:
    """The tokens of one statement, without its semicolon."""

    tokens: list[Token]
    source: Source

    @property
    def text(self) -> str:
        """The statement as written, from its first to its last token."""
        return self.source.text[self.tokens[0].start : self.tokens[-1].end + 1]


def split(text: str, *, max_statements: int = MAX_STATEMENTS) -> list[Piece]:
    """The statements of a request; BatchParseError for an unclosed quote or comment."""
    source = Source(text)
    pieces: list[Piece] = []
    for tokens in _statements(tokenize(text, source)):
        if len(pieces) == max_statements:
            message = f"A request may hold at most {max_statements:,} statements."
            raise source.error(message, tokens[0].start)
        check_size(tokens, source)
        pieces.append(Piece(tokens, source))
    return pieces


def _statements(tokens: list[Token]) -> Iterator[list[Token]]:
    current: list[Token] = []
    depth = 0
    for token in tokens:
        kind = token.token_type
        if kind is TokenType.SEMICOLON and not (depth > 0 and is_execute_as(current)):
            if current:
                yield current
                current = []
            depth = 0
            continue
        if kind is TokenType.L_PAREN:
            depth += 1
        elif kind is TokenType.R_PAREN:
            depth -= 1
        current.append(token)
    if current:
        yield current


def is_execute_as(tokens: list[Token]) -> bool:
    """Whether a statement begins with EXECUTE AS."""
    return (
        len(tokens) > 1
        and tokens[0].token_type is TokenType.VAR
        and tokens[0].text == "execute"
        and tokens[1].token_type is TokenType.ALIAS
    )


def check_size(tokens: list[Token], source: Source) -> None:
    """InvalidSql when a statement is longer or nests deeper than the parsers should follow."""
    if len(tokens) > MAX_TOKENS:
        most = MAX_INSERT_TOKENS if tokens[0].token_type is TokenType.INSERT else MAX_TOKENS
        if len(tokens) > most:
            message = f"The statement has more than {most:,} words and signs; send values as parameters or in parts."
            raise source.error(message, tokens[0].start)
    _check_nesting(tokens, source)


def _check_nesting(tokens: list[Token], source: Source) -> None:
    """InvalidSql when brackets, CASE, prefix operators or joins nest too deeply."""
    depth = run = subscripts = joins = 0
    previous: TokenType | None = None
    for token in tokens:
        kind = token.token_type
        if kind in _OPENING:
            depth += 1
            if kind is TokenType.L_BRACKET:
                subscripts = subscripts + 1 if previous is TokenType.R_BRACKET else 0
                if subscripts > MAX_SUBSCRIPTS:
                    raise _too_deep(token, source)
        elif kind in _CLOSING:
            depth = max(0, depth - 1)
        elif kind in _PREFIX:
            run += 1
        else:
            run = 0
            if kind is TokenType.JOIN:
                joins += 1
                if joins > MAX_JOINS:
                    raise source.error(f"The statement has more than {MAX_JOINS} joins.", token.start)
        if depth + run > MAX_NESTING:
            raise _too_deep(token, source)
        previous = kind


def _too_deep(token: Token, source: Source) -> InvalidSql:
    return source.error(f"The statement nests deeper than {MAX_NESTING} levels here.", token.start)
