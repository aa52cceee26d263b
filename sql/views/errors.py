"""Errors of what stands in views: they say in which view, and point at the place that names it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from sqlglot import exp

from sql.errors import InvalidSql, SqlError, TableNotFound
from storage.view_definitions import ViewDef

OF_VIEW: Final = "view"
"""The key in the `meta` of a table's node under which the full name of the view stands that names the table."""


@contextmanager
def of_view(node: exp.Table) -> Iterator[None]:
    """Say of errors about a table in which view it stands, if in one; they stay of their kind."""
    try:
        yield
    except SqlError as error:
        view = node.meta.get(OF_VIEW)
        if view is not None:
            _say(error, view)
        raise


@contextmanager
def blaming_views(views: Sequence[ViewDef], check: Callable[[ViewDef], None]) -> Iterator[None]:
    """Say of an error that comes from a view in which one it is. `views` has inner ones first.

    Which view an error comes from is found by binding each alone: that costs something only where one is broken.
    """
    try:
        yield
    except InvalidSql as error:
        for view in views:
            try:
                check(view)
            except InvalidSql as own:
                error.message = own.message
                _say(error, view.full_name)
                break
        raise


def _say(error: SqlError, view: str) -> None:
    if "(in view " not in error.message:
        error.message = f"{error.message.removesuffix('.')} (in view '{view}')"
        error.args = (error.message,)


def missing_view(full_name: str, hint: str, line: int | None, column: int | None) -> TableNotFound:
    """The error for a view that does not exist."""
    return TableNotFound(f"View not found: '{full_name}'{hint}", line=line, column=column)
