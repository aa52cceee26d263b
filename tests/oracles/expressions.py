"""Random typed expressions over the columns of a query, as sqlglot trees."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from sqlglot import exp

from tests.oracles.worlds import NUMBERS, TIMES, VALUES, WHOLE, Column, Table

COMPARISONS: tuple[type[exp.Binary], ...] = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE)
DISTINCTIONS: tuple[type[exp.Binary], ...] = (exp.NullSafeEQ, exp.NullSafeNEQ)
PATTERNS = ("'%'", "'a%'", "'%b'", "'_'", "'A_'", "''", "'a\\%'", "'%ä%'", "NULL")
COMPARABLE = frozenset(VALUES) - {"JSON", "EMBEDDING(2)"}


def text(tree: exp.Expr) -> str:
    """A tree as our SQL."""
    return tree.sql(dialect="duckdb")


def raw(sql: str) -> exp.Expr:
    """A piece of SQL as a node."""
    return exp.Var(this=sql)


def reference(column: Column) -> exp.Expr:
    """A column, with the name of its source."""
    return exp.column(column.name, table=column.source or None)


def negated(tree: exp.Expr) -> exp.Expr:
    """`NOT (…)`."""
    return exp.Not(this=exp.Paren(this=tree.copy()))


def unknown(tree: exp.Expr) -> exp.Expr:
    """`(…) IS NULL`."""
    return exp.Is(this=exp.Paren(this=tree.copy()), expression=exp.Null())


class Expressions:
    """Makes expressions over columns. `tables` are those that subqueries may read."""

    def __init__(self, rng: random.Random, columns: Sequence[Column], tables: Sequence[Table] = ()) -> None:
        self._rng = rng
        self._columns = [*columns]
        self._tables = tables
        self._aliases = 0

    def predicate(self, depth: int = 2) -> exp.Expr:
        """A condition. Without depth it is one that may be answered without DuckDB."""
        rng = self._rng
        if depth and rng.random() < 0.45:
            form = rng.random()
            if form < 0.35:
                return exp.Not(this=exp.Paren(this=self.predicate(depth - 1)))
            if form < 0.9:
                word = exp.And if rng.random() < 0.5 else exp.Or
                return exp.Paren(this=word(this=self.predicate(depth - 1), expression=self.predicate(depth - 1)))
            return exp.Is(this=exp.Paren(this=self.predicate(depth - 1)), expression=self._truth())
        makers: list[Callable[[], exp.Expr]] = [
            self._comparison, self._comparison, self._comparison, self._null_test, self._in_list, self._between,
            self._like, self._boolean, self._distinction,
        ]  # fmt: skip
        if depth:
            makers += [self._computed, self._computed, self._case]
            if self._tables:
                makers += [self._in_query, self._exists, self._scalar]
        return rng.choice(makers)()

    def value(self, kind: str, depth: int = 1) -> exp.Expr:
        """An expression of a type, or of one that compares with it."""
        rng = self._rng
        fitting = [column for column in self._columns if column.type == kind]
        roll = rng.random()
        if fitting and roll < 0.45:
            return reference(rng.choice(fitting))
        if depth and roll < 0.75:
            return self._function(kind, depth)
        return self._typed(kind)

    def output(self) -> exp.Expr:
        """A column, or something computed."""
        if self._rng.random() < 0.7:
            return reference(self._rng.choice(self._columns))
        kind = self._rng.choice(self._columns).type
        return self.value(kind if kind in COMPARABLE else "INT")

    # --- parts ---------------------------------------------------------------------------------------------------

    def _pick(self, kinds: Sequence[str] | frozenset[str] = COMPARABLE) -> Column | None:
        fitting = [column for column in self._columns if column.type in kinds]
        return self._rng.choice(fitting) if fitting else None

    def _literal(self, kind: str) -> exp.Expr:
        """A literal as people write it beside a column of a type: sometimes NULL, or a number of another type."""
        rng = self._rng
        if rng.random() < 0.08:
            return exp.Null()
        if kind in NUMBERS and rng.random() < 0.3:
            other = rng.choice(("0", "1.5", "-1", "100000", "2.0", "1e0", "0.1", "3000000000", "99999999999999999999"))
            return raw(other)
        return raw(rng.choice(VALUES[kind]))

    def _typed(self, kind: str) -> exp.Expr:
        """A literal that has its type."""
        if self._rng.random() < 0.08:
            return raw(f"CAST(NULL AS {kind})")
        return raw(f"CAST({self._rng.choice(VALUES[kind])} AS {kind})")

    def _truth(self) -> exp.Expr:
        return self._rng.choice((exp.true(), exp.false(), exp.Null()))

    def _comparison(self) -> exp.Expr:
        return self._compared(self._rng.choice(COMPARISONS))

    def _distinction(self) -> exp.Expr:
        return self._compared(self._rng.choice(DISTINCTIONS))

    def _compared(self, kind: type[exp.Binary]) -> exp.Expr:
        column = self._pick()
        if column is None:
            return self._truth_test()
        left, right = reference(column), self._beside(column)
        if self._rng.random() < 0.2:
            left, right = right, left
        return kind(this=left, expression=right)

    def _beside(self, column: Column) -> exp.Expr:
        rng = self._rng
        kinds = NUMBERS if column.type in NUMBERS else (column.type,)
        others = [other for other in self._columns if other.type in kinds and other is not column]
        return reference(rng.choice(others)) if others and rng.random() < 0.3 else self._literal(column.type)

    def _truth_test(self) -> exp.Expr:
        return exp.Is(this=reference(self._rng.choice(self._columns)), expression=exp.Null())

    def _null_test(self) -> exp.Expr:
        test = self._truth_test()
        return exp.Not(this=test) if self._rng.random() < 0.5 else test

    def _in_list(self) -> exp.Expr:
        column = self._pick()
        if column is None:
            return self._truth_test()
        items = [self._literal(column.type) for _ in range(self._rng.randint(1, 4))]
        found = exp.In(this=reference(column), expressions=items)
        return exp.Not(this=found) if self._rng.random() < 0.35 else found

    def _between(self) -> exp.Expr:
        column = self._pick()
        if column is None:
            return self._truth_test()
        low, high = self._literal(column.type), self._literal(column.type)
        found = exp.Between(this=reference(column), low=low, high=high)
        return exp.Not(this=found) if self._rng.random() < 0.3 else found

    def _like(self) -> exp.Expr:
        column = self._pick(("TEXT",))
        if column is None:
            return self._comparison()
        kind = exp.Like if self._rng.random() < 0.6 else exp.ILike
        found = kind(this=reference(column), expression=raw(self._rng.choice(PATTERNS)))
        return exp.Not(this=found) if self._rng.random() < 0.3 else found

    def _boolean(self) -> exp.Expr:
        column = self._pick(("BOOLEAN",))
        return self._comparison() if column is None else reference(column)

    def _computed(self) -> exp.Expr:
        kind = self._rng.choice([column.type for column in self._columns if column.type in COMPARABLE] or ["INT"])
        left, right = self.value(kind), self.value(kind)
        return self._rng.choice((*COMPARISONS, *DISTINCTIONS))(this=left, expression=right)

    def _case(self) -> exp.Expr:
        return exp.Case(
            ifs=[exp.If(this=self.predicate(0), true=self.predicate(0))],
            default=self.predicate(0) if self._rng.random() < 0.7 else None,
        )

    def _function(self, kind: str, depth: int) -> exp.Expr:
        rng = self._rng

        def operand() -> exp.Expr:
            return self.value(kind, depth - 1)

        makers: list[Callable[[], exp.Expr]] = [
            lambda: exp.Coalesce(this=operand(), expressions=[operand()]),
            lambda: exp.Nullif(this=operand(), expression=operand()),
            lambda: exp.Case(ifs=[exp.If(this=self.predicate(0), true=operand())], default=operand()),
            lambda: exp.Greatest(this=operand(), expressions=[operand()], ignore_nulls=False),
        ]
        if kind in NUMBERS:
            operation = rng.choice((exp.Add, exp.Sub, exp.Mul))
            makers += [
                lambda: exp.Paren(this=operation(this=operand(), expression=raw(rng.choice(("0", "1", "2"))))),
                lambda: exp.Abs(this=operand()),
                lambda: exp.Neg(this=exp.Paren(this=operand())),
            ]
        if kind in WHOLE:
            makers.append(lambda: exp.Paren(this=exp.Mod(this=operand(), expression=raw(rng.choice(("2", "3", "-2"))))))
            makers.append(lambda: exp.Paren(this=exp.Div(this=operand(), expression=raw(rng.choice(("2", "-3"))))))
        if kind == "TEXT":
            makers += [
                lambda: exp.Upper(this=operand()),
                lambda: exp.Lower(this=operand()),
                lambda: exp.DPipe(this=operand(), expression=operand()),
                lambda: exp.Substring(this=operand(), start=raw("1"), length=raw("1")),
                lambda: exp.Trim(this=operand()),
            ]
        if kind == "BIGINT":
            makers.append(lambda: exp.Length(this=self.value("TEXT", depth - 1)))
        if kind == "DATE":
            makers.append(lambda: exp.cast(self.value("TIMESTAMP", depth - 1), "DATE"))
        if kind in TIMES[2:]:
            makers.append(lambda: exp.cast(operand(), kind))
        return rng.choice(makers)()

    def _inner(self) -> tuple[Table, str]:
        self._aliases += 1
        return self._rng.choice(self._tables), f"u{self._aliases}"

    def _in_query(self) -> exp.Expr:
        table, alias = self._inner()
        pairs = [(mine, other) for mine in self._columns for other in table.columns
                 if mine.type == other.type and mine.type in COMPARABLE]  # fmt: skip
        if not pairs:
            return self._exists()
        mine, other = self._rng.choice(pairs)
        query = exp.select(exp.column(other.name, table=alias)).from_(exp.to_table(table.name).as_(alias))
        if self._rng.random() < 0.5:
            query = query.where(self._condition_of(table, alias))
        found = exp.In(this=reference(mine), query=exp.Subquery(this=query))
        return exp.Not(this=found) if self._rng.random() < 0.4 else found

    def _exists(self) -> exp.Expr:
        """EXISTS, correlated where the outer columns have a name that the inner table cannot take."""
        table, alias = self._inner()
        query = exp.select("1").from_(exp.to_table(table.name).as_(alias)).where(self._condition_of(table, alias))
        pairs = [(mine, other) for mine in self._columns for other in table.columns
                 if mine.source and mine.type == other.type and mine.type in COMPARABLE]  # fmt: skip
        if pairs and self._rng.random() < 0.7:
            mine, other = self._rng.choice(pairs)
            kind = self._rng.choice((exp.EQ, exp.NullSafeEQ, exp.LT))
            query = query.where(kind(this=exp.column(other.name, table=alias), expression=reference(mine)))
        return exp.Exists(this=query)

    def _scalar(self) -> exp.Expr:
        table, alias = self._inner()
        pairs = [(mine, other) for mine in self._columns for other in table.columns
                 if mine.type == other.type and mine.type in COMPARABLE and mine.type != "BOOLEAN"]  # fmt: skip
        if not pairs:
            return self._exists()
        mine, other = self._rng.choice(pairs)
        aggregate = self._rng.choice((exp.Min, exp.Max))(this=exp.column(other.name, table=alias))
        query = exp.select(aggregate).from_(exp.to_table(table.name).as_(alias))
        if self._rng.random() < 0.5:
            query = query.where(self._condition_of(table, alias))
        return self._rng.choice(COMPARISONS)(this=reference(mine), expression=exp.Subquery(this=query))

    def _condition_of(self, table: Table, alias: str) -> exp.Expr:
        columns = [Column(column.name, column.type, alias) for column in table.columns]
        return Expressions(self._rng, columns).predicate(0)
