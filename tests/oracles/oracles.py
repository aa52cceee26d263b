"""Two ways of asking the same thing: what must agree, whatever the right answer is.

- NoREC (Rigger and Su, ESEC/FSE 2020): a condition in WHERE selects as many rows as it is true for in the select list.
- Ternary logic partitioning (Rigger and Su, OOPSLA 2020): the rows for which a condition is true, false and unknown
  are all rows, once; likewise for DISTINCT, aggregates, groups and HAVING.
- Pivoted query synthesis (Rigger and Su, OSDI 2020), with the server as the interpreter of constants: a row that is
  there is found by a condition that is true of its values.
- Paths: the same query by whichever path the planner takes, by DuckDB alone (a stream), and once more (by its shape).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sqlglot import exp

from tests.oracles.expressions import Expressions, negated, reference, text, unknown
from tests.oracles.worlds import NUMBERS, WHOLE, Column, Table

Rows = list[tuple[object, ...]]


class Refused(Exception):
    """A query that cannot be answered: a value out of range, a type that does not fit."""


class Mismatch(Exception):
    """Two ways of asking gave two answers."""


class Asks(Protocol):
    """Answers queries. Raises Refused."""

    def rows(self, sql: str) -> Rows:
        """The rows of a query, by the ordinary way."""

    def streamed(self, sql: str) -> Rows:
        """The rows of a query, by DuckDB."""


@dataclass
class Source:
    """What stands after FROM, with the columns that it shows."""

    sql: str
    columns: Sequence[Column]
    tables: Sequence[Table] = field(default_factory=list)


def bag(rows: Rows) -> Counter[str]:
    """Rows without their order; 0.0 and -0.0 are one value, and a float is what it reads as."""
    return Counter(repr(tuple(_plain(value) for value in row)) for row in rows)


def _plain(value: object) -> object:
    return value + 0.0 if isinstance(value, float) else value


def source(rng: random.Random, tables: Sequence[Table], *, alone: bool = False) -> Source:
    """One table, a join of two, a derived table or a common table expression."""
    first, second = rng.choice(tables), rng.choice(tables)
    form = "one" if alone else rng.choice(("one", "one", "join", "join", "comma", "derived", "lateral"))
    if form == "one":
        name = first.name if rng.random() < 0.5 else f"{first.name} AS a"
        shown = "" if rng.random() < 0.5 else name.rpartition(" ")[2]
        return Source(name, [Column(c.name, c.type, shown) for c in first.columns], [first])
    left = [Column(c.name, c.type, "a") for c in first.columns]
    right = [Column(c.name, c.type, "b") for c in second.columns]
    if form == "derived":
        condition = text(Expressions(rng, [Column(c.name, c.type) for c in first.columns]).predicate(1))
        return Source(f"(SELECT * FROM {first.name} WHERE {condition}) AS a", left, [first])
    if form == "comma":
        return Source(f"{first.name} AS a, {second.name} AS b", [*left, *right], [first, second])
    kind = rng.choice(("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN"))
    joined = f"{first.name} AS a {kind} {second.name} AS b"
    if form == "lateral" and kind in ("JOIN", "LEFT JOIN"):
        joined = f"{first.name} AS a {kind} (SELECT * FROM {second.name}) AS b"
    if kind != "CROSS JOIN":
        pairs = [(one, other) for one in left for other in right if one.type == other.type and one.type != "JSON"]
        pairs = [(one, other) for one, other in pairs if not one.type.startswith("EMBEDDING")]
        if pairs and rng.random() < 0.8:
            one, other = rng.choice(pairs)
            joined += f" ON {text(exp.EQ(this=reference(one), expression=reference(other)))}"
        else:
            joined += f" ON {text(Expressions(rng, [*left, *right]).predicate(0))}"
    return Source(joined, [*left, *right], [first, second])


class Oracles:
    """Checks one world. Each method draws a query and raises Mismatch, or Refused when it has no answer."""

    def __init__(self, rng: random.Random, tables: Sequence[Table], asks: Asks) -> None:
        self._rng = rng
        self._tables = tables
        self._asks = asks

    def all(self) -> Sequence[str]:
        """The names of the checks."""
        return (
            "norec", "where", "where_in_one", "distinct", "aggregate", "groups", "having", "pivot", "paths", "paths",
            "order",
        )  # fmt: skip

    def run(self, name: str) -> None:
        """Draw and check once."""
        getattr(self, f"_{name}")()

    def _draw(self, *, alone: bool = False) -> tuple[Source, Expressions]:
        found = source(self._rng, self._tables, alone=alone)
        return found, Expressions(self._rng, found.columns, self._tables)

    def _norec(self) -> None:
        found, expressions = self._draw(alone=self._rng.random() < 0.5)
        condition = text(expressions.predicate())
        fast = f"SELECT count(*) FROM {found.sql} WHERE {condition}"
        slow = f"SELECT CAST(coalesce(sum(CASE WHEN {condition} THEN 1 ELSE 0 END), 0) AS BIGINT) FROM {found.sql}"
        self._agree(slow, self._asks.rows(slow), fast, self._asks.rows(fast))

    def _parts(self, predicate: exp.Expr) -> list[str]:
        return [text(predicate), text(negated(predicate)), text(unknown(predicate))]

    def _where(self) -> None:
        found, expressions = self._draw(alone=self._rng.random() < 0.6)
        outputs = ", ".join(text(expressions.output()) for _ in range(self._rng.randint(1, 3)))
        parts = self._parts(expressions.predicate())
        whole = f"SELECT {outputs} FROM {found.sql}"
        queries = [f"{whole} WHERE {part}" for part in parts]
        rows = [row for query in queries for row in self._asks.rows(query)]
        self._agree(whole, self._asks.rows(whole), "\n  plus ".join(queries), rows)

    def _where_in_one(self) -> None:
        found, expressions = self._draw()
        whole = f"SELECT {text(expressions.output())} FROM {found.sql}"
        union = " UNION ALL ".join(f"{whole} WHERE {part}" for part in self._parts(expressions.predicate()))
        self._agree(whole, self._asks.rows(whole), union, self._asks.rows(union))

    def _distinct(self) -> None:
        found, expressions = self._draw()
        whole = f"SELECT DISTINCT {text(expressions.output())} FROM {found.sql}"
        parts = self._parts(expressions.predicate())
        union = " UNION ".join(f"{whole} WHERE {part}" for part in parts)
        self._agree(whole, self._asks.rows(whole), union, self._asks.rows(union))

    def _aggregate(self) -> None:
        found, expressions = self._draw()
        rng = self._rng
        numbers = [column for column in found.columns if column.type in WHOLE or column.type.startswith("DECIMAL")]
        ordered = [column for column in found.columns if not column.type.startswith(("JSON", "EMBEDDING"))]
        name = rng.choice(("min", "max", "count", "sum", "bool_and", "bool_or"))
        again = "sum" if name == "count" else name
        if name == "sum" and numbers:
            argument = text(reference(rng.choice(numbers)))
        elif name in ("min", "max") and ordered:
            argument = text(reference(rng.choice(ordered)))
        elif name.startswith("bool"):
            argument = f"({text(expressions.predicate(0))})"
        else:
            name, again, argument = "count", "sum", text(expressions.output())
        whole = f"SELECT {name}({argument}) FROM {found.sql}"
        parts = self._parts(expressions.predicate())
        union = " UNION ALL ".join(f"SELECT {name}({argument}) AS x FROM {found.sql} WHERE {part}" for part in parts)
        summed = f"SELECT {again}(x) FROM ({union}) AS parts"
        self._agree(whole, self._asks.rows(whole), summed, self._asks.rows(summed))

    def _groups(self) -> None:
        found, expressions = self._draw()
        outputs = text(expressions.output())
        whole = f"SELECT {outputs} AS g FROM {found.sql} GROUP BY g"
        parts = self._parts(expressions.predicate())
        inner = " UNION ALL ".join(f"SELECT {outputs} AS g FROM {found.sql} WHERE {part} GROUP BY g" for part in parts)
        union = f"SELECT g FROM ({inner}) AS parts GROUP BY g"
        self._agree(whole, self._asks.rows(whole), union, self._asks.rows(union))

    def _having(self) -> None:
        found, _ = self._draw()
        rng = self._rng
        ordered = [column for column in found.columns if not column.type.startswith(("JSON", "EMBEDDING"))]
        if not ordered:
            raise Refused("nothing to group by")
        group, other = rng.choice(ordered), rng.choice(ordered)
        name = rng.choice(("min", "max"))
        inner = Expressions(rng, [Column("h", other.type)]).predicate(1)
        condition = inner.transform(
            lambda node: exp.Anonymous(this=name, expressions=[reference(other)])
            if isinstance(node, exp.Column) and node.name == "h" else node
        )  # fmt: skip
        whole = f"SELECT {text(reference(group))} AS g, count(*) FROM {found.sql} GROUP BY g"
        queries = [f"{whole} HAVING {part}" for part in self._parts(condition)]
        rows = [row for query in queries for row in self._asks.rows(query)]
        self._agree(whole, self._asks.rows(whole), "\n  plus ".join(queries), rows)

    def _pivot(self) -> None:
        """A row is found by a condition that is true of its values, made true by what constants say."""
        tables = [table for table in self._tables if table.rows]
        if not tables:
            raise Refused("no rows")
        table = self._rng.choice(tables)
        row = self._rng.choice(table.rows)
        columns = table.columns
        predicate = Expressions(self._rng, columns).predicate()
        values = {c.name: f"CAST({value} AS {c.type})" for c, value in zip(columns, row, strict=True)}
        constant = predicate.transform(
            lambda node: exp.Var(this=values[node.name]) if isinstance(node, exp.Column) else node
        )
        asked = f"SELECT {text(constant)} AS truth"
        truth = self._asks.rows(asked)[0][0]
        condition = text(predicate) if truth else text(unknown(predicate) if truth is None else negated(predicate))
        same = " AND ".join(f"{c.name} IS NOT DISTINCT FROM {values[c.name]}" for c in columns)
        found = f"SELECT count(*) > 0 FROM (SELECT * FROM {table.name} WHERE {condition}) AS x WHERE {same}"
        self._agree(f"{asked} is {truth}, so the row is there", [(True,)], found, self._asks.rows(found))

    def _paths(self) -> None:
        found, expressions = self._draw(alone=self._rng.random() < 0.8)
        outputs = "*" if self._rng.random() < 0.4 else ", ".join(
            text(reference(self._rng.choice(found.columns))) for _ in range(self._rng.randint(1, 3))
        )  # fmt: skip
        query = f"SELECT {outputs} FROM {found.sql} WHERE {text(expressions.predicate(self._rng.choice((0, 0, 1))))}"
        try:
            first = self._asks.rows(query)
        except Refused as error:
            try:
                rows = self._asks.streamed(query)
            except Refused:
                raise error from None
            raise Mismatch(f"{query}\n  is refused ({error}), streamed it gives {rows[:10]}") from None
        self._agree(query, first, f"streamed: {query}", self._asks.streamed(query))
        self._agree(query, first, f"again: {query}", self._asks.rows(query))

    def _order(self) -> None:
        """ORDER BY with LIMIT and OFFSET is a piece of the whole order."""
        found, expressions = self._draw(alone=True)
        (table,) = found.tables
        if not table.key:
            raise Refused("no key to order by")
        direction = self._rng.choice(("", " DESC"))
        first = text(reference(self._rng.choice(found.columns)))
        nulls = self._rng.choice(("", " NULLS FIRST", " NULLS LAST"))
        shown = {column.name: text(reference(column)) for column in found.columns}
        keys = ", ".join(f"{shown[name]}{direction}" for name in table.key)
        order = keys if self._rng.random() < 0.5 else f"{first}{nulls}, {keys}"
        whole = f"SELECT * FROM {found.sql} WHERE {text(expressions.predicate(0))} ORDER BY {order}"
        limit, offset = self._rng.randint(0, 6), self._rng.randint(0, 4)
        piece = f"{whole} LIMIT {limit} OFFSET {offset}"
        rows = self._asks.rows(whole)
        if [repr(row) for row in self._asks.rows(piece)] != [repr(row) for row in rows[offset : offset + limit]]:
            raise Mismatch(f"{piece}\n  is no piece of {rows}")
        if [repr(row) for row in self._asks.streamed(whole)] != [repr(row) for row in rows]:
            raise Mismatch(f"{whole}\n  has another order when streamed")

    def _agree(self, one: str, rows: Rows, other: str, others: Rows) -> None:
        if bag(rows) != bag(others):
            more, less = bag(rows) - bag(others), bag(others) - bag(rows)
            raise Mismatch(f"{one}\n  gives more {dict(more)}\n{other}\n  gives more {dict(less)}")


__all__ = ["NUMBERS", "Asks", "Mismatch", "Oracles", "Refused", "Source", "bag", "source"]
