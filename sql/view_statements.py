"""Statements about views as the dialect hands them on."""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from sql.table_name import TableName


@dataclass(frozen=True, slots=True)
class CreateView:
    """CREATE [OR REPLACE] VIEW [IF NOT EXISTS] v [(columns)] AS query; `text` is the query as written."""

    view: TableName
    query: exp.Query
    text: str
    columns: tuple[str, ...] = ()
    or_replace: bool = False
    if_not_exists: bool = False


@dataclass(frozen=True, slots=True)
class DropView:
    """DROP VIEW [IF EXISTS] v."""

    view: TableName
    if_exists: bool = False
