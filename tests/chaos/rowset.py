"""The rows that a subscriber holds, and what every message must be true to: each change once, in order, and of a row
that the subscriber knows.

Rows are found by `_seq`, as `old_values` name them; a primary key that is among the columns must be unique, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


class Violation(AssertionError):
    """A message that the server must not send."""


@dataclass(frozen=True, slots=True)
class LiveSelect:
    """A live query, and what we know of its answer by ourselves."""

    table: str
    columns: tuple[str, ...]
    """The projected columns, in order."""
    condition: str
    """After WHERE; empty: none."""
    matches: Callable[[Row], bool]
    """Whether a row is one of the answer; given the projected columns only, so it lets pass what it cannot tell."""
    key: tuple[str, ...]
    """The primary key, if all of it is projected."""
    star: bool
    """Whether the text says `*`."""
    expires: bool = False
    """Whether rows go by themselves."""

    @property
    def sql(self) -> str:
        """The text to subscribe to."""
        return f"SELECT {'*' if self.star else ', '.join(self.columns)} FROM {self.table}{self._where}"

    @property
    def check(self) -> str:
        """The text that gives the answer over HTTP: the columns and `_seq`."""
        return f"SELECT {', '.join([*self.columns, '_seq'])} FROM {self.table}{self._where}"

    @property
    def _where(self) -> str:
        return f" WHERE {self.condition}" if self.condition else ""


def require(holds: bool, what: str, *about: Any) -> None:
    """Raise a Violation unless something holds."""
    if not holds:
        raise Violation(f"{what}: {', '.join(repr(thing) for thing in about)}"[:2_000])


class RowSet:
    """What one subscriber holds of one live query."""

    def __init__(self, select: LiveSelect) -> None:
        self.select = select
        self.rows: dict[int, Row] = {}
        """By `_seq`, without it."""
        self.cursor = 0
        """Everything up to here was seen, once the snapshot is complete."""
        self.events = 0
        self.resumed = False
        """Whether it was taken up again since the snapshot."""
        self._keys: dict[tuple[Any, ...], int] = {}
        self._integers: frozenset[str] = frozenset()

    def describe(self, schema: Sequence[Mapping[str, Any]]) -> None:
        """Take the schema of an acknowledgement."""
        names = [column["name"] for column in schema if column["name"] != "_seq"]
        require(names == list(self.select.columns), "other columns than projected", names, self.select.columns)
        require([column["index"] for column in schema] == list(range(len(schema))), "wrong indexes", schema)
        self._integers = frozenset(column["name"] for column in schema if column["data_type"] == "BigInt")

    def clear(self) -> None:
        """Forget everything: a snapshot follows."""
        self.rows.clear()
        self.resumed = False
        self._keys.clear()
        self.cursor = 0

    # --- messages ----------------------------------------------------------------------------------------------

    def load(self, rows: Sequence[Row]) -> None:
        """Take rows of a snapshot, which come by `_seq`."""
        for raw in rows:
            seq, row = self._new(raw)
            require(seq > self.cursor, "a snapshot out of order", seq, self.cursor, raw)
            self._add(seq, row)
            self.cursor = seq

    def resume(self, rows: Sequence[Row]) -> None:
        """Take the head of what was missed: rows that are new or replace the one of the same key."""
        for raw in rows:
            seq, row = self._new(raw)
            require(seq > self.cursor, "a resumed row that was seen before", seq, self.cursor, raw)
            known = self._keys.get(self._key(row)) if self.select.key else None
            if known is not None:
                self._remove(known)
            self._add(seq, row)
            self.cursor = seq

    def change(self, message: Mapping[str, Any]) -> None:
        """Take a `change`."""
        kind, seq = message["change_type"], int(message["seq"])
        rows, old_rows = message.get("rows", []), message.get("old_values", [])
        require(seq > self.cursor, "a change that was seen before", seq, self.cursor, message)
        if kind == "insert":
            require(bool(rows) and not old_rows, "an insert without rows or with old values", message)
            self._check_order(rows, seq)
            for raw in rows:
                self._add(*self._new(raw))
        elif kind == "update":
            require(len(rows) == len(old_rows) > 0, "an update that is not parallel", message)
            self._check_order(rows, seq)
            for raw, old in zip(rows, old_rows, strict=True):
                self._update(raw, old)
        else:
            require(kind == "delete" and bool(old_rows) and not rows, "neither insert, update nor delete", message)
            for old in old_rows:
                self._delete(old)
        self.events += max(len(rows), len(old_rows))
        self.cursor = seq

    def advance(self, seq: int) -> None:
        """Nothing up to `seq` is missing."""
        self.cursor = max(self.cursor, seq)

    # --- rows --------------------------------------------------------------------------------------------------

    def _check_order(self, rows: Sequence[Row], last: int) -> None:
        seqs = [int(row["_seq"]) for row in rows]
        require(seqs == sorted(set(seqs)), "events out of order", seqs)
        require(seqs[0] > self.cursor, "an event that was seen before", seqs[0], self.cursor)
        require(seqs[-1] == last, "a message whose seq is not its last event's", seqs, last)

    def _new(self, raw: Row) -> tuple[int, Row]:
        require(list(raw) == [*self.select.columns, "_seq"], "a row with other columns", list(raw))
        row = self._values(raw)
        seq = row.pop("_seq")
        require(self.select.matches(row), "a row that does not match", self.select.sql, raw)
        return seq, row

    def _values(self, raw: Row) -> Row:
        return {
            name: int(value) if value is not None and (name == "_seq" or name in self._integers) else value
            for name, value in raw.items()
        }

    def _key(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.select.key)

    def _add(self, seq: int, row: Row) -> None:
        require(seq not in self.rows, "a row version that is known", seq, row)
        if self.select.key:
            key = self._key(row)
            require(key not in self._keys, "a row whose key is known", key, seq, self._keys.get(key))
            self._keys[key] = seq
        self.rows[seq] = row

    def _remove(self, seq: int) -> Row:
        require(seq in self.rows, "a change of a row that is unknown", seq)
        row = self.rows.pop(seq)
        if self.select.key:
            del self._keys[self._key(row)]
        return row

    def _update(self, raw: Row, old: Row) -> None:
        seq, row = self._new(raw)
        before = self._values(old)
        held = self._remove(before.pop("_seq"))
        for name in row:
            if name in before:
                require(before[name] == held[name], "an old value that was another", name, before, held)
            else:
                require(row[name] == held[name], "a changed column without its old value", name, row, held)
            if name not in self.select.key:
                unchanged = name in before and row[name] == held[name]
                require(not unchanged or not self.select.key, "an unchanged column among the old values", name, old)
        self._add(seq, row)

    def _delete(self, old: Row) -> None:
        before = self._values(old)
        before.pop("row_id", None)
        seq = before.pop("_seq")
        if self.select.expires and self.resumed and seq not in self.rows:
            # It had expired when the snapshot was read, and was evicted during the absence: the log tells everybody.
            return
        held = self._remove(seq)
        for name, value in held.items():
            require(name in before, "a deleted row without a projected column", name, old)
            require(before[name] == value, "a deleted row that was another", name, before, held)
