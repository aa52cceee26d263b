"""Queries over a view where the query must be one of a table: live queries and sources of topics."""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp

from sql.binder import BindContext, bind_query
from sql.errors import Unsupported
from sql.generate import text_of
from sql.rewrite import name_outputs
from sql.scope import position
from sql.syntax import copied
from sql.table_name import TableName
from sql.topic_statements import AddTopicSource
from sql.views.expansion import expand_views, view_at
from storage.view_definitions import ViewDef


def over_table(ast: exp.Select, context: BindContext, what: str) -> tuple[exp.Select, tuple[ViewDef, ...]]:
    """The query as one of a table, and the views that it went through; `ast` itself where it names no view.

    Its FROM is one name. Raises Unsupported for a view that is not simple (`sql.views.merging`), and what is wrong
    with the query. `what` says what needs it.
    """
    node = ast.args["from_"].this
    view = view_at(node, context.catalog, context.namespace)
    if view is None:
        return ast, ()
    tree = copied(ast)
    assert isinstance(tree, exp.Select)
    name_outputs(tree, text_of)
    views = expand_views(tree, context.catalog, context.namespace)
    if isinstance(tree.args["from_"].this, exp.Table):
        return tree, views
    bind_query(ast, context)
    line, column = position(node)
    raise Unsupported(
        f"The view '{view.full_name}' cannot be read by {what} yet: that takes a view that shows columns of one table, "
        "with a WHERE or without.",
        line=line,
        column=column,
    )


def source_over_table(statement: AddTopicSource, context: BindContext) -> AddTopicSource:
    """A source that names a view as one of the view's table, with its columns and its condition as they are now."""
    name = statement.table
    if context.catalog.view(name.namespace or context.namespace, name.name) is None:
        return statement
    select = statement.query
    if select is None:
        select = exp.select("*").from_(_named(name, context))
        if statement.condition is not None:
            select.set("where", exp.Where(this=statement.condition.copy()))
    merged, _ = over_table(select, replace(context, parameter_kinds=()), "the source of a topic")
    merged.set("expressions", [_as_it_is(item) for item in merged.expressions])
    if statement.payload == "key" and statement.query is None:
        merged.set("expressions", [exp.Star()])
    where = merged.args.get("where")
    return replace(
        statement,
        table=_table_name(merged, name),
        query=merged,
        condition=None if where is None else where.this,
    )


def table_behind(name: TableName, context: BindContext) -> TableName:
    """The table that a simple view shows, by the view's name; any other name as it is."""
    if context.catalog.view(name.namespace or context.namespace, name.name) is None:
        return name
    merged, _ = over_table(exp.select("*").from_(_named(name, context)), context, "the source of a topic")
    return _table_name(merged, name)


def _named(name: TableName, context: BindContext) -> exp.Table:
    node = exp.table_(name.name, db=name.namespace or context.namespace, quoted=True)
    for part in (node, node.this):
        part.meta["line"], part.meta["col"] = name.line, name.column
    return node


def _table_name(merged: exp.Select, written: TableName) -> TableName:
    node = merged.args["from_"].this
    return TableName(node.db, node.name, written.line, written.column)


def _as_it_is(item: exp.Expr) -> exp.Expr:
    """A column without its name where that is its own."""
    same = isinstance(item, exp.Alias) and isinstance(item.this, exp.Column) and item.this.name == item.alias
    return item.this if same else item
