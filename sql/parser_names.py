"""Tokens changed before sqlglot's parser, so that it keeps what PostgreSQL's functions and operators say.

sqlglot knows some functions by name and drops or reorders their arguments: `encode(x, 'hex')` loses the 'hex'. Under
another name they stay as they are written, also in a text that is made of the tree, such as that of a stored CHECK.
"""

from __future__ import annotations

from sqlglot.tokenizer_core import Token, TokenType

from sql.diagnostics import Source
from sql.errors import Unsupported

KEPT_NAMES = "postgres_"
"""What stands before the name of a function whose arguments are kept."""

JSON_PATH = "\0"
"""What stands before the path of `#>`, which is passed on as `#>>`; `parser_checks` takes it away."""

_KEPT = frozenset({
    "encode", "decode", "format", "initcap", "div", "make_interval", "to_timestamp", "json_extract_path",
    "json_extract_path_text", "jsonb_exists", "jsonb_extract_path", "jsonb_extract_path_text",
    "sha256", "to_char", "to_hex",
})  # fmt: skip
_TYPED = frozenset({
    TokenType.TIMESTAMP, TokenType.TIMESTAMPTZ, TokenType.DATE, TokenType.TIME, TokenType.TIMESTAMPNTZ,
    TokenType.TIMESTAMPLTZ,
})  # fmt: skip


def keep_meanings(tokens: list[Token], source: Source) -> list[Token]:
    """The tokens with those functions renamed, `#>` read, and `timestamp '…'::date` grouped as PostgreSQL does."""
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
        else:
            kept.append(token)
    return kept


def _like(token: Token, kind: TokenType, text: str) -> Token:
    return Token(kind, text, token.line, token.col, token.start, token.end)
