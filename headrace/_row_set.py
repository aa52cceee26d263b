"""The rows of a live query, kept up to date: events go in, rows by key come out. No input or output."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from headrace._answers import ColumnAnswer
from headrace._live_events import Change, ChangeType, LiveEvent, Ready, Reset, Snapshot
from headrace._values import Row

SEQ = "_seq"
_WHOLE_ROWS = re.compile(r"\s*select\s+\*\s", re.IGNORECASE)


def key_columns(sql: str, schema: Sequence[ColumnAnswer], key: Sequence[str] | None) -> tuple[str, ...]:
    """The columns that tell rows apart: those given, else the primary key, else `_seq`.

    The schema tells which columns belong to a primary key, and which are one alone. Of a key of several columns some
    may be missing from the query; only `SELECT *` is sure to have all.
    """
    if key is not None:
        return tuple(key)
    alone = [column.name for column in schema if {"pk", "uq"} <= set(column.flags)]
    if alone:
        return (alone[0],)
    parts = [column.name for column in schema if "pk" in column.flags]
    return tuple(parts) if parts and _WHOLE_ROWS.match(sql) else (SEQ,)


class RowSet:
    """Rows by key. A snapshot is gathered aside and replaces all rows at once when it is complete.

    A key of one column is that column's value, one of several a tuple of them. Values that cannot be keys of a dict
    (lists, objects) raise TypeError.
    """

    def __init__(self) -> None:
        self._key: tuple[str, ...] = (SEQ,)
        self._rows: dict[Hashable, Row] = {}
        self._gathered: dict[Hashable, Row] = {}
        self._view: Mapping[Any, Row] = MappingProxyType(self._rows)

    @property
    def rows(self) -> Mapping[Any, Row]:
        """The rows now, read-only; a new mapping after each snapshot, the same one, changing, between them."""
        return self._view

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that tell rows apart."""
        return self._key

    def use_key(self, key: tuple[str, ...]) -> None:
        """Tell rows apart by these columns; before the first row, or the same as before."""
        self._key = key

    def apply(self, event: LiveEvent) -> bool:
        """Take the next event; whether `rows` is another now."""
        if isinstance(event, Snapshot):
            for row in event.rows:
                self._gathered[self._key_of(row)] = row
            return False
        if isinstance(event, Reset):
            self._gathered = {}
            return False
        if isinstance(event, Ready):
            self._rows, self._gathered = self._gathered, {}
            self._view = MappingProxyType(self._rows)
            return True
        self._change(event)
        return True

    def _change(self, change: Change) -> None:
        if change.type is ChangeType.DELETE or self._key == (SEQ,):
            for row in change.old_rows:
                self._rows.pop(self._key_of(row), None)
        for row in change.rows:
            self._rows[self._key_of(row)] = row

    def _key_of(self, row: Row) -> Hashable:
        if len(self._key) == 1:
            value: Hashable = row[self._key[0]]
            hash(value)
            return value
        return tuple(row[name] for name in self._key)
