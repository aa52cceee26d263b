"""Random live queries: conditions in SQL beside the same conditions in Python, with NULL as SQL has it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.rowset import LiveSelect, Row

Truth = bool | None
GROUPS = 8
LARGEST = 1_000
WORDS = ("apple", "Apple", "ant", "bee", "cat_1", "cat%2", "", "o'hara", "Ünïcödé", "zebra crossing", "аб", "\n")
OWNERS = ("admin", "ann", "bob")
HUGE = 9_007_199_254_740_993
"""2^53 + 1: the first integer that a double cannot hold."""


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table of the test as subscribers see it."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...] = ()
    expires: bool = False
    """Whether rows go by themselves within the test."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One truth in two languages."""

    sql: str
    columns: frozenset[str]
    test: Callable[[Row], Truth]


def _on(column: str, sql: str, test: Callable[[Any], bool]) -> Condition:
    """A condition over one column that is NULL where the column is."""
    return Condition(sql, frozenset([column]), lambda row: None if row[column] is None else test(row[column]))


def _like(pattern: str, flags: int = 0) -> Callable[[str], bool]:
    regex = "".join({"%": ".*", "_": "."}.get(sign, re.escape(sign)) for sign in pattern)
    compiled = re.compile(regex, flags | re.DOTALL)
    return lambda text: compiled.fullmatch(text) is not None


def quoted(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("'", "''") + "'"


def _atom(chance: random.Random) -> Condition:
    group, low = chance.randrange(GROUPS), chance.randrange(LARGEST)
    high = min(LARGEST, low + chance.randrange(1, 500))
    some = sorted(chance.sample(range(GROUPS), 3))
    word, pattern = chance.choice(WORDS), chance.choice(["a%", "%e", "%a%", "_a%", "A%", "%", "___"])
    words = chance.sample(WORDS, 3)
    owner = chance.choice(OWNERS)
    atoms = [
        _on("grp", f"grp = {group}", lambda value: value == group),
        _on("grp", f"grp = {group}", lambda value: value == group),
        _on("grp", f"grp <> {group}", lambda value: value != group),
        _on("grp", f"grp IN ({', '.join(map(str, some))})", lambda value: value in some),
        _on("n", f"n BETWEEN {low} AND {high}", lambda value: low <= value <= high),
        _on("n", f"n >= {low}", lambda value: value >= low),
        _on("n", f"{low} > n", lambda value: value < low),
        Condition("n IS NULL", frozenset(["n"]), lambda row: row["n"] is None),
        Condition("n IS NOT NULL", frozenset(["n"]), lambda row: row["n"] is not None),
        _on("name", f"name = {quoted(word)}", lambda value: value == word),
        _on("name", f"name IN ({', '.join(map(quoted, words))})", lambda value: value in words),
        _on("name", f"name LIKE {quoted(pattern)}", _like(pattern)),
        _on("name", f"name ILIKE {quoted(pattern)}", _like(pattern, re.IGNORECASE)),
        _on("owner", f"owner = {quoted(owner)}", lambda value: value == owner),
        _on("ok", "ok", bool),
        _on("ok", "NOT ok", lambda value: not value),
        _on("big", f"big > {HUGE}", lambda value: value > HUGE),
        _on("big", f"big = {HUGE}", lambda value: value == HUGE),
        # What needs the query engine.
        _on("name", "length(name) > 4", lambda value: len(value) > 4),
        _on("name", f"lower(name) = {quoted(word.lower())}", lambda value: value.lower() == word.lower()),
        _on("n", "n % 7 = 3", lambda value: value % 7 == 3),
        _on("n", f"abs(n - {low}) < 100", lambda value: abs(value - low) < 100),
        Condition(
            f"coalesce(n, {high}) > {low}", frozenset(["n"]), lambda row: (high if row["n"] is None else row["n"]) > low
        ),
        _on("name", "name ~ '^[a-c]'", lambda value: re.match("[a-c]", value) is not None),
    ]
    return chance.choice(atoms)


def _and(left: Truth, right: Truth) -> Truth:
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def _not(truth: Truth) -> Truth:
    return None if truth is None else not truth


def condition(chance: random.Random, depth: int = 2) -> Condition:
    """A random condition."""
    chosen = chance.random()
    if depth == 0 or chosen < 0.5:
        return _atom(chance)
    left = condition(chance, depth - 1)
    if chosen < 0.6:
        return Condition(f"NOT ({left.sql})", left.columns, lambda row: _not(left.test(row)))
    right = condition(chance, depth - 1)
    columns = left.columns | right.columns
    if chosen < 0.8:
        return Condition(f"({left.sql} AND {right.sql})", columns, lambda row: _and(left.test(row), right.test(row)))
    return Condition(
        f"({left.sql} OR {right.sql})", columns, lambda row: _not(_and(_not(left.test(row)), _not(right.test(row))))
    )


def live_select(chance: random.Random, tables: Sequence[TableShape]) -> LiveSelect:
    """A random live query over one of the tables."""
    table = chance.choice(tables)
    star = chance.random() < 0.5
    chosen = [name for name in table.columns if chance.random() < 0.6] or [table.columns[0]]
    if chance.random() < 0.3:
        chance.shuffle(chosen)
    columns = table.columns if star else tuple(chosen)
    where = condition(chance) if chance.random() < 0.85 else None

    def matches(row: Row) -> bool:
        return where is None or not where.columns <= row.keys() or where.test(row) is True

    return LiveSelect(
        table=table.name,
        columns=columns,
        condition=where.sql if where else "",
        matches=matches,
        key=table.key if set(table.key) <= set(columns) else (),
        star=star,
        expires=table.expires,
    )
