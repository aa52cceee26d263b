"""Copies of syntax trees. sqlglot's own `copy` deep-copies every node's position, at several times the price."""

from __future__ import annotations

from sqlglot import exp


def copied(node: exp.Expr) -> exp.Expr:
    """The same tree in new nodes; positions are kept, comments are not. Recursive: trees are at most 200 deep."""
    arguments: dict[str, object] = {}
    for key, value in node.args.items():
        if isinstance(value, exp.Expr):
            arguments[key] = copied(value)
        elif type(value) is list:
            arguments[key] = [copied(item) if isinstance(item, exp.Expr) else item for item in value]
        else:
            arguments[key] = value
    new: exp.Expr = type(node)(**arguments)
    if node.meta:
        new.meta.update(node.meta)
    return new
