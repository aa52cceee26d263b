"""CREATE and DROP VIEW."""

from __future__ import annotations

from sqlglot import exp

from sql.errors import Unsupported
from sql.parser_cursor import Cursor
from sql.parser_queries import parse_tokens
from sql.view_statements import CreateView, DropView


def parse_create_view(cursor: Cursor, *, or_replace: bool) -> CreateView:
    """CREATE [OR REPLACE] VIEW, after the word VIEW."""
    start = cursor.peek()
    if_not_exists = cursor.if_not_exists()
    if if_not_exists and or_replace:
        cursor.fail("OR REPLACE and IF NOT EXISTS contradict.", start)
    view = cursor.table_name()
    columns = cursor.name_list() if cursor.at("(") else ()
    if cursor.at("with"):
        cursor.fail("Options of a view are not supported.", kind=Unsupported)
    cursor.expect("as")
    first = cursor.peek()
    tokens = cursor.tokens[cursor.index : cursor.end]
    if first is None or cursor.word() not in ("select", "with", "values", "from", "("):
        cursor.fail_expected("SELECT")
    tree = parse_tokens(tokens, cursor.source)
    if isinstance(tree, exp.Values):
        tree = exp.select("*").from_(tree, copy=False)
    if not isinstance(tree, exp.Query):
        cursor.fail("A view is a query: CREATE VIEW … AS SELECT ….", first)
    cursor.index = cursor.end
    text = cursor.source.text[tokens[0].start : tokens[-1].end + 1]
    return CreateView(view, tree, text, columns, or_replace, if_not_exists)


def parse_drop_view(cursor: Cursor) -> DropView:
    """DROP VIEW, after the word VIEW."""
    if_exists = cursor.if_exists()
    view = cursor.table_name()
    if cursor.at(","):
        cursor.fail("DROP VIEW takes one view.")
    if not cursor.accept("cascade"):
        cursor.accept("restrict")
    return DropView(view, if_exists)
