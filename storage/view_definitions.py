"""Views: a query under a name, kept as text. What it reads is decided when it is used."""

from __future__ import annotations

from functools import cached_property

import msgspec

from storage.types import ColumnType


class ViewColumn(msgspec.Struct, frozen=True):
    """One column of a view: its name for good, its type as of the last time that the view was defined."""

    name: str
    type: ColumnType


class ViewDef(msgspec.Struct, frozen=True, dict=True):
    """A view. `sql` is its SELECT, in which stars stand no more; names without namespace in it mean `scope`'s.

    `reads` are the tables and views that it names, as (namespace, name). Times are microseconds since the epoch.
    """

    namespace: str
    name: str
    columns: tuple[ViewColumn, ...]
    sql: str
    scope: str = "default"
    reads: tuple[tuple[str, str], ...] = ()
    owner: str = ""
    created_at: int = 0
    updated_at: int = 0

    @cached_property
    def full_name(self) -> str:
        """`namespace.name`."""
        return f"{self.namespace}.{self.name}"
