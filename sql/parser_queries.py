"""Queries, DML and expressions: sqlglot's parser run on our tokens, its errors in our words."""

from __future__ import annotations

import logging
from itertools import pairwise

from sqlglot import exp
from sqlglot.errors import ErrorLevel, ParseError
from sqlglot.tokenizer_core import Token, TokenType

from sql.diagnostics import Source, explain_parse_error
from sql.errors import SqlError, Unsupported
from sql.output_names import note_names
from sql.parser_checks import check_tree, offset_of
from sql.parser_dialect import Headrace
from sql.parser_names import keep_meanings

logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it warns about what clients write

_DIALECT = Headrace()


def parse_tokens(tokens: list[Token], source: Source) -> exp.Expr:
    """The checked syntax tree of a query or DML statement."""
    tree = check_tree(_parse(tokens, source, None), source, tokens)
    note_names(tree, tokens, source.text)
    return tree


def parse_expression(tokens: list[Token], source: Source, end: int) -> exp.Expression:
    """The checked syntax tree of one scalar expression; `end` is where an error points if there is none."""
    if not tokens:
        raise source.error("Expected an expression here.", end)
    tree = check_tree(_parse(tokens, source, exp.Condition), source, tokens)
    if isinstance(tree, (exp.Star, exp.Alias)) or not isinstance(tree, exp.Expression):
        raise source.error("Expected one value here.", tokens[0].start)
    return tree


def _parse(tokens: list[Token], source: Source, into: type[exp.Expr] | None) -> exp.Expr:
    tokens = _prepared(tokens, source)
    parser = _DIALECT.parser(error_level=ErrorLevel.IMMEDIATE, max_nodes=200 + 30 * len(tokens))
    try:
        trees = parser.parse_into(into, tokens, source.text) if into else parser.parse(tokens, source.text)
    except ParseError as error:
        raise _translated(error, tokens, source) from None
    except RecursionError:
        raise source.error("The statement nests too deeply.", tokens[0].start) from None
    except (ValueError, TypeError, AttributeError, IndexError, KeyError, AssertionError):
        # sqlglot trips over some malformed texts with whatever error its code runs into.
        raise source.error("The statement is not valid SQL.", tokens[0].start) from None
    tree = trees[0] if len(trees) == 1 else None
    if tree is None:
        raise source.error("The statement is not valid SQL.", tokens[0].start)
    return tree


def _prepared(tokens: list[Token], source: Source) -> list[Token]:
    """The tokens with what sqlglot reads otherwise than we mean replaced.

    `ARRAY[…]` is `[…]`, because sqlglot would try each nesting of it twice; a bare DECIMAL in a cast is
    DECIMAL(38,10) as in a table, where DuckDB's is DECIMAL(18,3); `->` is an operator on JSON also where a function's
    argument begins with it, unless the function takes lambdas.
    """
    kinds = {token.token_type for token in tokens}
    tokens = keep_meanings(tokens, source)
    if TokenType.ARROW in kinds:
        tokens = _with_json_arrows(tokens)
    if TokenType.ARRAY in kinds:
        tokens = [token for token, after in pairwise([*tokens, tokens[-1]]) if not _is_array_word(token, after)]
    if TokenType.DECIMAL not in kinds:
        return tokens
    prepared: list[Token] = []
    casts: list[bool] = []
    for index, token in enumerate(tokens):
        prepared.append(token)
        kind = token.token_type
        if kind is TokenType.L_PAREN:
            casts.append(index > 0 and tokens[index - 1].text in _CASTS)
        elif kind is TokenType.R_PAREN:
            del casts[-1:]
        elif kind is TokenType.DECIMAL and index:
            before = tokens[index - 1].token_type
            after = tokens[index + 1].token_type if index + 1 < len(tokens) else None
            in_cast = before is TokenType.ALIAS and casts[-1:] == [True] and after is TokenType.R_PAREN
            if in_cast or (before is TokenType.DCOLON and after is not TokenType.L_PAREN):
                prepared.extend(
                    Token(kind, text, token.line, token.col, token.start, token.end) for kind, text in _DECIMAL
                )
    return prepared


_CASTS = frozenset({"cast", "try_cast"})
_DECIMAL = (
    (TokenType.L_PAREN, "("),
    (TokenType.NUMBER, "38"),
    (TokenType.COMMA, ","),
    (TokenType.NUMBER, "10"),
    (TokenType.R_PAREN, ")"),
)


def _with_json_arrows(tokens: list[Token]) -> list[Token]:
    """The tokens with every arrow that sqlglot would take for a lambda's, and that is none, as another operator.

    sqlglot reads `f(x -> 'k')` as a lambda whatever f is. `check_tree` turns the other operator into the arrow's.
    """
    prepared = list(tokens)
    lambdas: list[bool] = []
    for index, token in enumerate(tokens):
        kind = token.token_type
        if kind in _OPENING:
            lambdas.append(kind is TokenType.L_PAREN and index > 0 and tokens[index - 1].text in _WITH_LAMBDAS)
        elif kind in _CLOSING:
            del lambdas[-1:]
        elif (
            kind is TokenType.ARROW
            and lambdas[-1:] == [False]
            and (tokens[index - 2].token_type in _BEFORE_ARGUMENT or tokens[index - 1].token_type in _CLOSING)
        ):
            prepared[index] = Token(TokenType.HASH_ARROW, "->", token.line, token.col, token.start, token.end)
    return prepared


_OPENING = frozenset({TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE})
_CLOSING = frozenset({TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE})
_BEFORE_ARGUMENT = frozenset({*_OPENING, TokenType.COMMA})
_WITH_LAMBDAS = frozenset(
    f"{prefix}{name}"
    for name in ("apply", "transform", "filter", "reduce")
    for prefix in ("", "list_", "array_")
)  # fmt: skip


def _is_array_word(token: Token, after: Token) -> bool:
    return token.token_type is TokenType.ARRAY and after.token_type is TokenType.L_BRACKET


def _translated(error: ParseError, tokens: list[Token], source: Source) -> SqlError:
    """Sqlglot's error as ours."""
    details = error.errors[0] if error.errors else {}
    if "Maximum number of AST nodes" in str(details.get("description")):
        return source.error("The statement is too complex.", tokens[0].start)
    place = (details.get("line"), details.get("col"))
    token = next((t for t in tokens if (t.line, t.col) == place), None)
    if token is None or (token is tokens[0] and len(tokens) > 1):  # sqlglot went back to the start before giving up
        return source.error("The statement is not valid SQL.", tokens[0].start)
    at_end = token is tokens[-1] and not _is_unexpected(error)
    found = None if at_end else source.text[token.start : token.end + 1]
    return source.error(explain_parse_error(error, found), token.end + 1 if at_end else token.start)


def _is_unexpected(error: ParseError) -> bool:
    return "Unexpected token" in str(error.errors[0].get("description"))


def check_dml(tree: exp.Expr, source: Source, tokens: list[Token]) -> None:
    """Refuses clauses of INSERT, UPDATE and DELETE that sqlglot reads and we do not have."""
    start = tokens[0].start
    for key, clause in _DML_CLAUSES.get(type(tree), {}).items():
        if tree.args.get(key):
            raise source.error(f"{clause} is not supported.", start, Unsupported)
    if isinstance(tree, exp.Insert):
        conflict = tree.args.get("conflict")
        if conflict is not None and conflict.args.get("constraint"):
            raise source.error("ON CONFLICT ON CONSTRAINT is not supported; name the columns.", start, Unsupported)
        if conflict is not None and conflict.args.get("duplicate"):
            raise source.error("ON DUPLICATE KEY is not supported; write ON CONFLICT.", start, Unsupported)
        if tree.expression is None and not tree.args.get("default"):
            raise source.error("INSERT needs VALUES, a query or DEFAULT VALUES.", start)
    if isinstance(tree, exp.Update):
        _check_assignments(tree, source, tokens)
    target = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    if not isinstance(target, exp.Table) or not isinstance(target.this, exp.Identifier):
        raise source.error(f"{tree.key.upper()} needs a table's name.", start)


def _check_assignments(tree: exp.Update, source: Source, tokens: list[Token]) -> None:
    """Refuses what is not `column = value` or `(columns) = value` after SET."""
    if not tree.expressions:
        raise source.error("UPDATE needs SET column = value.", tokens[-1].end + 1)
    for assignment in tree.expressions:
        if not isinstance(assignment, exp.EQ) or not isinstance(assignment.this, (exp.Column, exp.Tuple)):
            raise source.error("SET takes column = value.", offset_of(assignment, tokens))


_DML_CLAUSES: dict[type[exp.Expr], dict[str, str]] = {
    exp.Insert: {
        "overwrite": "INSERT OVERWRITE",
        "alternative": "INSERT OR …",
        "ignore": "INSERT IGNORE",
        "by_name": "INSERT … BY NAME",
        "partition": "INSERT … PARTITION",
        "settings": "INSERT … SETTINGS",
        "where": "INSERT … REPLACE WHERE",
        "exists": "INSERT … IF EXISTS",
        "is_function": "INSERT INTO FUNCTION",
        "stored": "INSERT … STORED",
        "source": "INSERT … SOURCE",
    },
    exp.Update: {"order": "UPDATE … ORDER BY", "limit": "UPDATE … LIMIT"},
    exp.Delete: {
        "order": "DELETE … ORDER BY",
        "limit": "DELETE … LIMIT",
        "tables": "DELETE from several tables",
        "cluster": "DELETE … ON CLUSTER",
    },
}
