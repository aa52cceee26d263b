"""The lexer: request text to sqlglot tokens, with our own lexical rules and exact positions.

sqlglot's tokenizer is lenient where a database must not be (it closes comments at the end of the text, reads
Jinja blocks, and takes the rest of some statements as one string). So this one scan, by one regular expression,
decides what is a string, a name, a comment or a semicolon, and everything after it works on tokens: the
splitter, the depth limits, our statements and sqlglot's parser can never disagree about where a string ends.

Lexical rules:

- whitespace, `-- to the end of the line`, `/* nested /* comments */ */` separate tokens and are dropped
- `'text'` with `''` for a quote; backslashes are ordinary; `E'text'` has the escapes of C
- `X'48ff'` bytes; `B'…'`, `N'…'`, `U&'…'` and `$$…$$` are refused by name
- `"name"` and `` `name` `` with the quote doubled inside; never empty
- words fold to lower case; numbers may have `_` between digits; `1abc` is an error
- `$1` parameters, counted from 1; `?` is the JSON operator, never a parameter
- NUL is refused everywhere

Token positions: `line` and `col` of the first character, from 1; `start` and `end` (inclusive) are offsets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from sqlglot.dialects.duckdb import DuckDB
from sqlglot.tokenizer_core import Token, TokenType

from sql.diagnostics import Source, shown
from sql.errors import BatchParseError, InvalidSql

MAX_PARAMETER: Final = 65_535
MAX_REQUEST_TOKENS: Final = 120_000
"""Lexing more than these would keep a core busy for longer than any sensible request deserves."""
MAX_NUMBER: Final = 1_200
"""Characters of a number: more than any DOUBLE needs when it is written out."""

_DROPPED_WORDS = {
    # Statements that sqlglot would parse on its own; here they are ordinary words, and the
    # statement parsers decide by spelling.
    "attach", "cache", "call", "connect", "copy", "describe", "detach", "disconnect", "explain", "force", "install",
    "kill", "load", "macro", "merge", "optimize", "pragma", "prepare", "reset", "show", "summarize",
    "truncate", "uncache", "vacuum", "execute", "grant", "revoke", "comment", "logical", "pivot_wider",
    "autoincrement", "auto_increment", "lock", "straight_join", "str", "byte", "short", "long",
    "fixed", "number", "regexp", "rlike", "format", "sequence", "trigger", "session", "settings",
    "keep", "object", "ref", "file", "list", "nullable", "index", "volatile", "row",
}  # fmt: skip

_WORDS: dict[str, TokenType] = {
    **{
        keyword.lower(): token_type
        for keyword, token_type in DuckDB.Tokenizer.KEYWORDS.items()
        if keyword.replace("_", "").isalnum() and keyword.lower() not in _DROPPED_WORDS
    },
    "datetime": TokenType.TIMESTAMPTZ,
    "bytes": TokenType.VARBINARY,
    "begin": TokenType.VAR,
    "commit": TokenType.VAR,
    "rollback": TokenType.VAR,
    "use": TokenType.VAR,
}

_PAIRS: dict[tuple[str, str], TokenType] = {
    ("group", "by"): TokenType.GROUP_BY,
    ("order", "by"): TokenType.ORDER_BY,
    ("partition", "by"): TokenType.PARTITION_BY,
    ("grouping", "sets"): TokenType.GROUPING_SETS,
    ("primary", "key"): TokenType.PRIMARY_KEY,
    ("foreign", "key"): TokenType.FOREIGN_KEY,
    ("similar", "to"): TokenType.SIMILAR_TO,
    ("double", "precision"): TokenType.DOUBLE,
    ("char", "varying"): TokenType.VARCHAR,
    ("character", "varying"): TokenType.VARCHAR,
}
_SECOND_WORDS = frozenset(second for _, second in _PAIRS)

_OPERATORS: dict[str, TokenType] = {
    **{
        operator: token_type
        for operator, token_type in {**DuckDB.Tokenizer.SINGLE_TOKENS, **DuckDB.Tokenizer.KEYWORDS}.items()
        if not operator[0].isalpha() and token_type is not TokenType.UNKNOWN
        and not set(operator) & {"{", "}", "$", "'", '"', "`", "\\"}
        and operator not in {"@", "|>", "?::", "??", "-|-", "<<->>", "&<", "&>", "<=>"}
    },
    "{": TokenType.L_BRACE,
    "}": TokenType.R_BRACE,
}  # fmt: skip

_LATE = [operator for operator in _OPERATORS if operator == "." or operator.startswith(("-", "/"))]
"""Operators that are tried only after numbers and comments."""


def _any_of(operators: Iterable[str]) -> str:
    return "|".join(re.escape(operator) for operator in sorted(operators, key=len, reverse=True))


_SINGLE = "'(?:[^']++|'')*+'"
_TOKEN = re.compile(
    rf"""
      (?P<space>[\s\ufeff]++|--[^\n]*+)
    | (?P<word>[^\W\d]\w*+(?!['&]))
    | (?P<operator>{_any_of(_OPERATORS.keys() - set(_LATE))})
    | (?P<number>(?:[0-9]++(?:_[0-9]++)*+(?:\.(?:[0-9]++(?:_[0-9]++)*+)?+)?+|\.[0-9]++(?:_[0-9]++)*+)
                 (?:[eE][+-]?+[0-9]++)?+)
    | (?P<string>{_SINGLE})
    | (?P<parameter>\$[0-9]++)
    | (?P<quoted>"(?:[^"]++|"")*+"|`(?:[^`]++|``)*+`)
    | (?P<escaped>[eE]'(?:[^'\\]++|''|\\.)*+')
    | (?P<hex>[xX]{_SINGLE})
    | (?P<prefixed>(?:[bBnN]|[uU]&){_SINGLE})
    | (?P<word2>[^\W\d]\w*+)
    | (?P<comment>/\*)
    | (?P<operator2>{_any_of(_LATE)})
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_WORD_KINDS = frozenset({"word", "word2"})
_OPERATOR_KINDS = frozenset({"operator", "operator2"})
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_ESCAPE = re.compile(r"''|\\(?:x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|(.))", re.DOTALL)
_SIMPLE_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*")


def tokenize(text: str, source: Source | None = None) -> list[Token]:
    """All tokens of a text, semicolons included; comments and whitespace are dropped."""
    source = source or Source(text)
    nul = text.find("\0")
    if nul >= 0:
        raise source.error("The text holds a NUL character, which SQL text may not.", nul)
    tokens: list[Token] = []
    append = tokens.append
    words = _WORDS
    line, line_start = 1, 0
    position, size = 0, len(text)
    scan = _TOKEN.match
    while position < size:
        if len(tokens) > MAX_REQUEST_TOKENS:
            message = f"The request has more than {MAX_REQUEST_TOKENS:,} words and signs; send values as parameters."
            raise source.error(message, position)
        match = scan(text, position)
        assert match is not None
        kind = match.lastgroup
        value = match[0]
        start, position = position, match.end()
        if kind == "space":
            if "\n" in value:
                line += value.count("\n")
                line_start = start + value.rindex("\n") + 1
        elif kind in _WORD_KINDS:
            value = value.lower()
            token_type = words.get(value, TokenType.VAR)
            if value in _SECOND_WORDS and tokens and (pair := _pair(tokens[-1], value)):
                first = tokens.pop()
                append(Token(pair, f"{first.text} {value}", first.line, first.col, first.start, position - 1))
                continue
            append(Token(token_type, value, line, start - line_start + 1, start, position - 1))
        elif kind in _OPERATOR_KINDS:
            append(Token(_OPERATORS[value], value, line, start - line_start + 1, start, position - 1))
        elif kind == "number":
            if position < size and (text[position] == "_" or text[position].isalnum()):
                raise _junk_after_number(source, start, position)
            if len(value) > MAX_NUMBER:
                raise source.error(f"A number may have at most {MAX_NUMBER:,} characters.", start)
            append(Token(TokenType.NUMBER, value.replace("_", ""), line, start - line_start + 1, start, position - 1))
        elif kind == "comment":
            position = _comment_end(source, start)
            newlines = text.count("\n", start, position)
            if newlines:
                line += newlines
                line_start = text.rindex("\n", start, position) + 1
        elif kind == "parameter":
            if position < size and (text[position] == "_" or text[position].isalnum()):
                raise _junk_after_number(source, start + 1, position)
            append(Token(TokenType.PARAMETER, "$", line, start - line_start + 1, start, start))
            number = _parameter_number(value, source, start)
            append(Token(TokenType.NUMBER, number, line, start - line_start + 2, start + 1, position - 1))
        else:
            append(_quoted_token(kind, value, source, line, start - line_start + 1, start))
            if "\n" in value:
                line += value.count("\n")
                line_start = start + value.rindex("\n") + 1
    return tokens


_QUOTED_TYPES = frozenset({TokenType.IDENTIFIER, TokenType.STRING, TokenType.HEX_STRING})


def _pair(first: Token, second: str) -> TokenType | None:
    """The type of the two-word keyword that `second` completes, if it does."""
    return None if first.token_type in _QUOTED_TYPES else _PAIRS.get((first.text, second))


def _junk_after_number(source: Source, start: int, end: int) -> InvalidSql:
    tail = re.compile(r"\w*").match(source.text, end)
    word = source.text[start : tail.end() if tail else end]
    return source.error(f"{shown(word)} is neither a number nor a name.", start)


def _comment_end(source: Source, start: int) -> int:
    """The offset after the comment that begins at `start`; comments nest."""
    depth = 0
    for edge in _COMMENT_EDGE.finditer(source.text, start):
        depth += 1 if edge[0] == "/*" else -1
        if not depth:
            return edge.end()
    raise source.error("A comment that begins with '/*' is never closed.", start, BatchParseError)


def _parameter_number(value: str, source: Source, start: int) -> str:
    digits = value[1:].lstrip("0")
    if not digits or len(digits) > 5 or int(digits) > MAX_PARAMETER:
        raise source.error(f"{shown(value)} is not a parameter: they are numbered from $1 to ${MAX_PARAMETER}.", start)
    return digits


def _quoted_token(kind: str | None, value: str, source: Source, line: int, column: int, start: int) -> Token:
    """The token of a string, a quoted name, or the error for what is neither."""
    end = start + len(value) - 1
    if kind == "string":
        return Token(TokenType.STRING, value[1:-1].replace("''", "'"), line, column, start, end)
    if kind == "quoted":
        quote = value[0]
        name = value[1:-1].replace(quote + quote, quote)
        if not name:
            raise source.error("A quoted name may not be empty.", start)
        return Token(TokenType.IDENTIFIER, name, line, column, start, end)
    if kind == "escaped":
        return Token(TokenType.STRING, _unescape(value[2:-1], source, start), line, column, start, end)
    if kind == "hex":
        digits = value[2:-1]
        if not _HEX.fullmatch(digits):
            raise source.error("X'…' needs an even number of hexadecimal digits and nothing else.", start)
        return Token(TokenType.HEX_STRING, digits.lower(), line, column, start, end)
    if kind == "prefixed":
        what = {"b": "Bit strings (B'…')", "n": "National strings (N'…')", "u": "Unicode strings (U&'…')"}
        raise source.error(f"{what[value[0].lower()]} are not supported; write '…', E'…' or X'…'.", start)
    raise _unexpected(value, source, start)


def _unescape(body: str, source: Source, start: int) -> str:
    """The text of an E'…' string."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "''":
            return "'"
        digits = match[1] or match[2] or match[3]
        if match[5]:
            return _SIMPLE_ESCAPES.get(match[5], match[5])
        code = int(digits, 16) if digits else int(match[4], 8)
        if not 0 < code <= 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise source.error(f"The escape {shown(match[0])} is not a character that SQL text may hold.", start)
        return chr(code)

    return _ESCAPE.sub(replace, body)


def _unexpected(value: str, source: Source, start: int) -> InvalidSql | BatchParseError:
    """The error for a character that begins no token."""
    if value == "'":
        return source.error("A string that begins with ' is never closed.", start, BatchParseError)
    if value in '"`':
        return source.error(f"A quoted name that begins with {value} is never closed.", start, BatchParseError)
    if value == "$":
        if re.compile(r"\$(?:[^\W\d]\w*)?\$").match(source.text, start):
            return source.error("Dollar-quoted strings ($$…$$) are not supported; write '…'.", start)
        return source.error("Parameters are numbered: write $1, $2, ….", start)
    return source.error(f"The character {shown(value)} is not part of any SQL token.", start)
