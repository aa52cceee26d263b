"""Names of unnamed outputs: the text as written, with functions in lower case (`COUNT(*)` is `count(*)`).

The syntax tree no longer knows how an expression was written (`list(x)` and `array_agg(x)` are one to it), so the
names of the outermost SELECT are read from the tokens. Where its items cannot be told apart there, nothing is noted,
and the binder writes the name from the tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlglot import exp
from sqlglot.tokenizer_core import Token, TokenType

WRITTEN = "written"
"""The key in a node's `meta` under which its text as written stands."""

MAX_LENGTH = 200

_OPENING = frozenset({TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE})
_CLOSING = frozenset({TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE})
_ENDS = frozenset({"from", "where", "having", "window", "qualify", "union", "except", "intersect", "limit", "offset"})
_ENDS_WITH_BY = frozenset({"group", "order"})
_QUOTED = frozenset({TokenType.STRING, TokenType.IDENTIFIER})
_NO_FUNCTIONS = frozenset({"all", "and", "any", "as", "between", "by", "case", "distinct", "else", "exists", "filter",
    "in", "is", "like", "ilike", "not", "or", "over", "select", "some", "then", "values", "when", "cast", "try_cast",
    "group"})  # fmt: skip


def note_names(tree: exp.Expr, tokens: Sequence[Token], text: str) -> None:
    """Note on each item of the outermost SELECT how it was written."""
    select = tree
    while isinstance(select, exp.SetOperation):
        select = select.this
    if not isinstance(select, exp.Select):
        return
    pieces = list(_pieces(tokens))
    if len(pieces) == len(select.expressions):
        for item, piece in zip(select.expressions, pieces, strict=True):
            if piece and not isinstance(item, (exp.Alias, exp.Column, exp.Star)):
                item.meta[WRITTEN] = _written(piece, text)[:MAX_LENGTH]


def _pieces(tokens: Sequence[Token]) -> Iterator[Sequence[Token]]:
    """The tokens of each item of the first SELECT that stands in no parentheses."""
    depth = 0
    start = None
    for place, token in enumerate(tokens):
        kind = token.token_type
        if kind in _OPENING:
            depth += 1
        elif kind in _CLOSING:
            depth -= 1
        elif depth:
            continue
        elif start is None:
            if kind is TokenType.SELECT:
                start = _after_distinct(tokens, place + 1)
        elif place >= start and kind is TokenType.COMMA:
            yield tokens[start:place]
            start = place + 1
        elif place >= start and _ends(tokens, place):
            yield tokens[start:place]
            return
    if start is not None:
        yield tokens[start:]


def _after_distinct(tokens: Sequence[Token], place: int) -> int:
    if place < len(tokens) and tokens[place].text in ("distinct", "all"):
        place += 1
        if place + 1 < len(tokens) and tokens[place].text == "on":
            depth = 0
            while place < len(tokens):
                place += 1
                kind = tokens[place].token_type if place < len(tokens) else None
                depth += (kind in _OPENING) - (kind in _CLOSING)
                if depth == 0:
                    return place + 1
    return place


def _ends(tokens: Sequence[Token], place: int) -> bool:
    """Whether the list of items ends before a token that stands in no parentheses."""
    token = tokens[place]
    if token.token_type in _QUOTED:
        return False
    if token.text == "from":
        return tokens[place - 1].text != "distinct"
    if token.text in _ENDS_WITH_BY:
        return place + 1 < len(tokens) and tokens[place + 1].text == "by"
    return token.text in _ENDS or token.token_type in (TokenType.GROUP_BY, TokenType.ORDER_BY)


def _written(piece: Sequence[Token], text: str) -> str:
    parts: list[str] = []
    for place, token in enumerate(piece):
        part = text[token.start : token.end + 1]
        after = piece[place + 1] if place + 1 < len(piece) else None
        if (
            after is not None
            and after.token_type is TokenType.L_PAREN
            and after.start == token.end + 1
            and token.token_type not in _QUOTED
            and token.text not in _NO_FUNCTIONS
        ):
            part = part.lower()
        if place and token.start > piece[place - 1].end + 1:
            parts.append(" ")
        parts.append(part)
    return "".join(parts)
