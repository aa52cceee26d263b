"""Queries, DML and expressions: sqlglot's parser run on our tokens, and what we check on its trees.

After parsing, one pass over the tree
- refuses what must not reach the binder (statements inside queries, `SELECT INTO`, locks, unknown placeholders)
- bounds its depth, so that recursive passes over it are safe (AND and OR chains are rebalanced first)
- folds quoted column and table names to lower case (an output name, `AS "Total"`, keeps its case)
- copies source positions from identifiers to the columns and tables that they name
"""

from __future__ import annotations

import logging
from typing import Final

from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ErrorLevel, ParseError
from sqlglot.tokenizer_core import Token, TokenType

from sql.diagnostics import Source, explain_parse_error, shown
from sql.errors import SqlError, Unsupported

logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it warns about what clients write

MAX_DEPTH: Final = 200
"""How deep a syntax tree may be; a chain `a + a + …` is as deep as it is long."""

_DIALECT = DuckDB()
_POSITION = ("line", "col", "start", "end")

_FORBIDDEN: dict[type[exp.Expr], str] = {
    exp.Insert: "INSERT inside another statement",
    exp.Update: "UPDATE inside another statement",
    exp.Delete: "DELETE inside another statement",
    exp.Merge: "MERGE",
    exp.Create: "CREATE inside another statement",
    exp.Drop: "DROP inside another statement",
    exp.Command: "This statement",
    exp.Into: "SELECT … INTO",
    exp.Lock: "FOR UPDATE and FOR SHARE",
    exp.Pivot: "PIVOT and UNPIVOT",
    exp.MatchRecognize: "MATCH_RECOGNIZE",
    exp.Describe: "DESCRIBE inside a query",
    exp.Show: "SHOW inside a query",
    exp.Summarize: "SUMMARIZE",
    exp.Connect: "CONNECT BY",
    exp.SessionParameter: "A session variable",
    exp.Use: "USE inside a query",
    exp.Set: "SET",
    exp.Pragma: "PRAGMA",
}


def parse_tokens(tokens: list[Token], source: Source) -> exp.Expr:
    """The checked syntax tree of a query or DML statement."""
    return _checked(_parse(tokens, source, None), source, tokens)


def parse_expression(tokens: list[Token], source: Source, end: int) -> exp.Expression:
    """The checked syntax tree of one scalar expression; `end` is where an error points if there is none."""
    if not tokens:
        raise source.error("Expected an expression here.", end)
    tree = _checked(_parse(tokens, source, exp.Condition), source, tokens)
    if isinstance(tree, (exp.Star, exp.Alias)) or not isinstance(tree, exp.Expression):
        raise source.error("Expected one value here.", tokens[0].start)
    return tree


def _parse(tokens: list[Token], source: Source, into: type[exp.Expr] | None) -> exp.Expr:
    tokens = _prepared(tokens)
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


def _prepared(tokens: list[Token]) -> list[Token]:
    """The tokens without the word ARRAY before `[…]`: sqlglot would try each nesting of it twice."""
    if not any(token.token_type is TokenType.ARRAY for token in tokens):
        return tokens
    following = [*tokens[1:], tokens[-1]]
    return [
        token
        for token, after in zip(tokens, following, strict=True)
        if not (token.token_type is TokenType.ARRAY and after.token_type is TokenType.L_BRACKET)
    ]


def _translated(error: ParseError, tokens: list[Token], source: Source) -> SqlError:
    """Sqlglot's error as ours."""
    details = error.errors[0] if error.errors else {}
    if "Maximum number of AST nodes" in str(details.get("description")):
        return source.error("The statement is too complex.", tokens[0].start)
    place = (details.get("line"), details.get("col"))
    token = next((t for t in tokens if (t.line, t.col) == place), None)
    if token is None:
        return source.error("The statement is not valid SQL.", tokens[0].start)
    at_end = token is tokens[-1] and not _is_unexpected(error)
    found = None if at_end else source.text[token.start : token.end + 1]
    return source.error(explain_parse_error(error, found), token.end + 1 if at_end else token.start)


def _is_unexpected(error: ParseError) -> bool:
    return "Unexpected token" in str(error.errors[0].get("description"))


def _checked(tree: exp.Expr, source: Source, tokens: list[Token]) -> exp.Expr:
    """The tree after the pass that the module describes."""
    root = tree
    stack: list[tuple[exp.Expr, int]] = [(tree, 1)]
    push = stack.append
    while stack:
        node, depth = stack.pop()
        kind = type(node)
        if kind is exp.Literal:
            continue
        if depth > MAX_DEPTH:
            raise source.error(f"The statement nests deeper than {MAX_DEPTH} levels.", tokens[0].start)
        if kind is exp.Identifier:
            if node.args.get("quoted"):
                node.set("this", node.name.lower())
            continue
        if kind is exp.And or kind is exp.Or:
            node = _balanced(node)
            if not node.parent:
                root = node
        elif kind is exp.Column or kind is exp.Table:
            _take_position(node, node.this)
        elif kind is exp.Placeholder or kind is exp.Parameter:
            if kind is exp.Parameter or not node.name.isdigit():
                raise source.error("Parameters are numbered: write $1, $2, ….", _offset(node, source, tokens))
            continue
        elif kind in _FORBIDDEN and node is not tree:
            message = f"{_FORBIDDEN[kind]} is not supported."
            raise source.error(message, _offset(node, source, tokens), Unsupported)
        for key, value in node.args.items():
            if isinstance(value, exp.Expr):
                if not (key in _KEPT.get(kind, ()) and isinstance(value, exp.Identifier)):
                    push((value, depth + 1))
            elif type(value) is list:
                for item in value:
                    if isinstance(item, exp.Expr):
                        push((item, depth + 1))
    return root


_KEPT: dict[type[exp.Expr], tuple[str, ...]] = {exp.Alias: ("alias",), exp.Table: ("db", "catalog")}
"""Identifiers that keep the case that they are quoted with: output names and namespaces."""


def _balanced(node: exp.Expr) -> exp.Expr:
    """A long chain of the same connector as a tree of logarithmic depth, in the same order and place."""
    kind = type(node)
    operands: list[exp.Expr] = []
    spine: list[exp.Expr] = [node]
    while spine:
        current = spine.pop()
        if type(current) is kind:
            spine.append(current.args["expression"])
            spine.append(current.args["this"])
        else:
            operands.append(current)
    if len(operands) <= 16:
        return node
    parent, key, index = node.parent, node.arg_key, node.index
    while len(operands) > 1:
        pairs = zip(operands[::2], operands[1::2], strict=False)
        joined: list[exp.Expr] = [kind(this=left, expression=right) for left, right in pairs]
        operands = joined + operands[len(joined) * 2 :]
    balanced = operands[0]
    if parent is not None and key is not None:
        if index is None:
            parent.set(key, balanced)
        else:
            parent.args[key][index] = balanced
            balanced.parent, balanced.arg_key, balanced.index = parent, key, index
    return balanced


def _take_position(node: exp.Expr, named: object) -> None:
    """Gives a node the position of the identifier that names it."""
    if isinstance(named, exp.Expr):
        meta = named.meta
        if "line" in meta:
            for key in _POSITION:
                node.meta[key] = meta[key]


def _offset(node: exp.Expr, source: Source, tokens: list[Token]) -> int:
    """Where a node begins: its own position, else that of its first descendant that has one."""
    for part in node.walk():
        start = part.meta.get("start")
        if isinstance(start, int):
            return start
    return tokens[0].start


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
    target = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    if not isinstance(target, exp.Table) or not isinstance(target.this, exp.Identifier):
        raise source.error(f"{shown(tree.key.upper())} needs a table name.", start)


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
