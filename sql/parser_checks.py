"""The pass over every syntax tree before it leaves the front end.

It
- refuses what must not reach the binder: statements inside queries, `SELECT INTO`, locks, unknown placeholders
- bounds the tree's depth, so that recursive passes over it are safe (AND and OR chains are rebalanced first)
- folds quoted column and table names to lower case; an output name (`AS "Total"`) and a namespace keep theirs
- copies source positions from identifiers to the columns and tables that they name
- says in DuckDB's words what it has none for: EMBEDDING(n) and FILE in casts, the JSON operator `?`
"""

from __future__ import annotations

from typing import Final

from sqlglot import exp
from sqlglot.tokenizer_core import Token

from sql.diagnostics import Source, shown
from sql.errors import Unsupported
from sql.parser_names import JSON_PATH, KEPT_NAMES
from sql.splitter import MAX_JOINS

MAX_DEPTH: Final = 200
"""How deep a syntax tree may be; a chain `a + a + …` is as deep as it is long."""

_MAX_EMBEDDING: Final = 8_192
_SHORT_CHAIN: Final = 16
_POSITION = ("line", "col", "start", "end")

_FORBIDDEN: dict[type[exp.Expr], str] = {
    exp.Command: "This statement is",
    exp.Connect: "CONNECT BY is",
    exp.Create: "CREATE inside another statement is",
    exp.Delete: "DELETE inside another statement is",
    exp.Describe: "DESCRIBE inside a query is",
    exp.Drop: "DROP inside another statement is",
    exp.Insert: "INSERT inside another statement is",
    exp.Into: "SELECT … INTO is",
    exp.Lock: "FOR UPDATE and FOR SHARE are",
    exp.MatchRecognize: "MATCH_RECOGNIZE is",
    exp.Merge: "MERGE is",
    exp.Pivot: "PIVOT and UNPIVOT are",
    exp.Pragma: "PRAGMA is",
    exp.SessionParameter: "Session variables are",
    exp.Set: "SET is",
    exp.Show: "SHOW inside a query is",
    exp.Summarize: "SUMMARIZE is",
    exp.Update: "UPDATE inside another statement is",
    exp.Use: "USE inside a query is",
}

_KEPT: dict[type[exp.Expr], tuple[str, ...]] = {
    exp.Alias: ("alias",),
    exp.Table: ("db", "catalog"),
    exp.Column: ("db", "catalog"),
    exp.PropertyEQ: ("this",),
}
"""Identifiers that keep the case that they are quoted with: output names, namespaces, keys of structs."""


def check_tree(tree: exp.Expr, source: Source, tokens: list[Token]) -> exp.Expr:
    """The tree after the pass that the module describes, changed in place (its root may be another one)."""
    root = tree
    stack: list[tuple[exp.Expr, int]] = [(tree, 1)]
    push = stack.append
    made: set[int] = set()
    joins = 0
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
        if (kind is exp.And or kind is exp.Or) and id(node) not in made:
            balanced = _balanced(node, made)
            root = balanced if node is root else root
            node = balanced
        elif kind is exp.Column or kind is exp.Table:
            _take_position(node)
        elif kind in _CHECKED:
            node = _check(node, source, tokens)
        elif kind in _FORBIDDEN and node is not tree:
            raise source.error(f"{_FORBIDDEN[kind]} not supported.", offset_of(node, tokens), Unsupported)
        elif kind is exp.Join:  # written as a comma, too: the query engine nests both
            joins += 1
            if joins > MAX_JOINS:
                raise source.error(f"The statement has more than {MAX_JOINS} joins.", tokens[0].start)
        kept = _KEPT.get(kind, ())
        for key, value in node.args.items():
            if isinstance(value, exp.Expr):
                if not (key in kept and isinstance(value, exp.Identifier)):
                    push((value, depth + 1))
            elif type(value) is list:
                for item in value:
                    if isinstance(item, exp.Expr):
                        push((item, depth + 1))
    return root


_CHECKED = frozenset({
    exp.Placeholder, exp.Parameter, exp.Select, exp.Fetch, exp.Cast, exp.TryCast, exp.JSONBContainsTopKey,
    exp.JSONBExtract, exp.JSONBExtractScalar,
})  # fmt: skip


def _check(node: exp.Expr, source: Source, tokens: list[Token]) -> exp.Expr:
    """Checks or replaces one node; returns what stands in its place."""
    if isinstance(node, (exp.Placeholder, exp.Parameter)):
        if isinstance(node, exp.Parameter) or not node.name.isdigit():
            raise source.error("Parameters are numbered: write $1, $2, ….", offset_of(node, tokens))
    elif isinstance(node, exp.Fetch):
        options = node.args.get("limit_options")
        if isinstance(options, exp.LimitOptions) and (options.args.get("with_ties") or options.args.get("percent")):
            message = "FETCH FIRST with PERCENT or WITH TIES is not supported."  # sqlglot would leave them out
            raise source.error(message, offset_of(node, tokens), Unsupported)
    elif isinstance(node, exp.Select):
        if not node.expressions:
            raise source.error("SELECT needs at least one column.", offset_of(node, tokens))
    elif isinstance(node, exp.JSONBContainsTopKey):
        replacement = exp.Anonymous(this=f"{KEPT_NAMES}jsonb_exists", expressions=[node.this, node.expression])
        node.replace(replacement)
        return replacement
    elif isinstance(node, exp.JSONBExtractScalar):
        path = node.expression
        name = "path_text"
        if isinstance(path, exp.Literal) and path.name.startswith(JSON_PATH):
            path.set("this", path.name.removeprefix(JSON_PATH))
            name = "path"
        replacement = exp.Anonymous(this=f"{KEPT_NAMES}{name}", expressions=[node.this, path])
        node.replace(replacement)
        return replacement
    elif isinstance(node, exp.JSONBExtract):  # an arrow that `parser_queries` kept from being a lambda's
        arrow = exp.JSONExtract(this=node.this, expression=node.expression, only_json_types=False)
        node.replace(arrow)
        return arrow
    else:
        _check_cast(node, source, tokens)
    return node


def _check_cast(node: exp.Expr, source: Source, tokens: list[Token]) -> None:
    """Replaces EMBEDDING(n) and FILE; refuses types that nobody knows."""
    target = node.args.get("to")
    if not isinstance(target, exp.DataType) or target.this is not exp.DType.USERDEFINED:
        return
    name = str(target.args.get("kind") or "").lower()
    if name == "file":
        replacement = exp.DataType.build("TEXT", dialect="duckdb")
    elif name == "embedding":
        dimension = target.expressions[0].name if len(target.expressions) == 1 else ""
        if not dimension.isdigit() or not 1 <= int(dimension[:9]) <= _MAX_EMBEDDING:
            message = f"EMBEDDING(n) needs a dimension from 1 to {_MAX_EMBEDDING}."
            raise source.error(message, offset_of(node, tokens))
        replacement = exp.DataType.build(f"FLOAT[{dimension}]", dialect="duckdb")
    else:
        raise source.error(f"There is no type {shown(name.upper())}.", offset_of(node, tokens))
    node.set("to", replacement)
    node.type = replacement


def _balanced(node: exp.Expr, made: set[int]) -> exp.Expr:
    """A long chain of the same connector as a tree of logarithmic depth, in the same order and place.

    The ids of the nodes that it makes go to `made`, so that no part is balanced again.
    """
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
    if len(operands) <= _SHORT_CHAIN:
        return node
    parent, key, index = node.parent, node.arg_key, node.index
    while len(operands) > 1:
        pairs = zip(operands[::2], operands[1::2], strict=False)
        joined: list[exp.Expr] = [kind(this=left, expression=right) for left, right in pairs]
        made.update(map(id, joined))
        operands = joined + operands[len(joined) * 2 :]
    balanced = operands[0]
    if parent is not None and key is not None:
        if index is None:
            parent.set(key, balanced)
        else:
            parent.args[key][index] = balanced
            balanced.parent, balanced.arg_key, balanced.index = parent, key, index
    return balanced


def _take_position(node: exp.Expr) -> None:
    """Gives a node the position of the identifier that names it."""
    named = node.this
    if isinstance(named, exp.Expr):
        meta = named.meta
        if "line" in meta:
            own = node.meta
            for key in _POSITION:
                own[key] = meta[key]


def offset_of(node: exp.Expr, tokens: list[Token]) -> int:
    """Where a node begins: its own position, else that of its first descendant that has one."""
    starts = [start for part in node.walk() if isinstance(start := part.meta.get("start"), int)]
    return min(starts, default=tokens[0].start)
