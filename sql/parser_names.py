"""Tokens changed before sqlglot's parser, so that it keeps what PostgreSQL's functions and operators say.

sqlglot knows some functions by name and drops or reorders their arguments: `encode(x, 'hex')` loses the 'hex'. Under
another name they stay as they are written, also in a text that is made of the tree, such as that of a stored CHECK.
"""

from __future__ import annotations

import re

from sqlglot.tokenizer_core import Token, TokenType

from sql.diagnostics import Source
from sql.errors import Unsupported
from sql.parser_arguments import check_arguments

KEPT_NAMES = "postgres_"
"""What stands before the name of a function whose arguments are kept."""

JSON_PATH = "\0"
"""What stands before the path of `#>`, which is passed on as `#>>`; `parser_checks` takes it away."""

_KEPT = frozenset({
    "date_trunc", "encode", "decode", "format", "initcap", "div", "make_interval", "to_timestamp", "json_extract_path",
    "json_extract_path_text", "jsonb_exists", "jsonb_extract_path", "jsonb_extract_path_text",
    "sha256", "string_to_array", "to_char", "to_hex",
})  # fmt: skip
_TYPED = frozenset({
    TokenType.TIMESTAMP, TokenType.TIMESTAMPTZ, TokenType.DATE, TokenType.TIME, TokenType.TIMESTAMPNTZ,
    TokenType.TIMESTAMPLTZ,
})  # fmt: skip


_INTERVAL = re.compile(r"\s*(?:[-+]?\d+(?:\.\d+)?\s*[a-zA-Z]+\s*)+")
"""An interval that sqlglot reads whole; of `1 day 02:03:04` it would keep the day."""


def keep_meanings(tokens: list[Token], source: Source) -> list[Token]:
    """The tokens with those functions renamed, `#>` read, and `timestamp '…'::date` grouped as PostgreSQL does."""
    check_arguments(tokens, source)
    kept: list[Token] = []
    last = len(tokens) - 1
    for index, token in enumerate(tokens):
        kind = token.token_type
        after = tokens[index + 1] if index < last else None
        if kind is TokenType.HASH_ARROW:
            if after is None or after.token_type is not TokenType.STRING:
                message = "The operator #> is not supported with other than a literal path such as '{a,0}'."
                raise source.error(message, token.start, Unsupported)
            kept.append(_like(token, TokenType.DHASH_ARROW, "#>>"))
        elif kind is TokenType.STRING and index and tokens[index - 1].token_type is TokenType.HASH_ARROW:
            kept.append(_like(token, kind, f"{JSON_PATH}{token.text}"))
        elif after is not None and after.token_type is TokenType.L_PAREN and token.text in _KEPT:
            quoted_or_text = kind in {TokenType.IDENTIFIER, TokenType.STRING}
            kept.append(token if quoted_or_text else _like(token, TokenType.VAR, f"{KEPT_NAMES}{token.text}"))
        elif (
            kind is TokenType.STRING
            and kept
            and kept[-1].token_type in _TYPED
            and after is not None
            and after.token_type is TokenType.DCOLON
        ):
            kept[-1:] = [_like(kept[-1], TokenType.L_PAREN, "("), kept[-1], token, _like(token, TokenType.R_PAREN, ")")]
        elif kind is TokenType.STRING and kept and kept[-1].token_type is TokenType.INTERVAL and _is_cast(token, after):
            interval = kept.pop()
            kept += [
                _like(interval, TokenType.L_PAREN, "("), token, _like(token, TokenType.DCOLON, "::"), interval,
                _like(token, TokenType.R_PAREN, ")"),
            ]  # fmt: skip
        else:
            kept.append(token)
    return kept


def _is_cast(text: Token, after: Token | None) -> bool:
    """Whether `INTERVAL 'text'` is to be read by DuckDB: it has no unit behind it, and sqlglot would not keep it."""
    if after is not None and after.token_type is TokenType.DCOLON:
        return True
    unit = after is not None and after.text in _UNITS
    return not unit and _INTERVAL.fullmatch(text.text) is None


_UNITS = frozenset({
    f"{unit}{ending}"
    for unit in ("year", "month", "week", "day", "hour", "minute", "second", "millisecond", "microsecond", "quarter",
        "decade", "century", "millennium")
    for ending in ("", "s")
})  # fmt: skip


def _like(token: Token, kind: TokenType, text: str) -> Token:
    return Token(kind, text, token.line, token.col, token.start, token.end)
