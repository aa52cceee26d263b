"""Random tables, rows and queries for the differential tests. Queries are SQL text with literals or `$n`."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from hypothesis import strategies as st

from storage.types import BIGINT, BOOLEAN, DATE, DOUBLE, INT, SMALLINT, TEXT, TIMESTAMP, UUID, ColumnType, Kind, decimal

MONEY = decimal(10, 2)
TYPES: tuple[ColumnType, ...] = (BIGINT, INT, SMALLINT, DOUBLE, TEXT, BOOLEAN, TIMESTAMP, DATE, UUID, MONEY)
KEY_TYPES = (BIGINT, INT, TEXT, UUID, MONEY, DATE)
EPOCH = datetime.datetime(1970, 1, 1)  # noqa: DTZ001 - a Timestamp has no zone

_TEXTS = st.sampled_from(["", "a", "b", "ab", "A", "é", "z_%", "it's", "10", "aa", "\\", "x\ny"])
_LIKES = st.sampled_from(["LIKE", "ILIKE", "NOT LIKE"])
_PATTERNS = st.sampled_from(["'a%'", "'%'", "'_'", "'%b'", "'A%'"])
_VALUES: dict[Kind, st.SearchStrategy[object]] = {
    Kind.BIGINT: st.one_of(st.integers(-3, 6), st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1])),
    Kind.INT: st.one_of(st.integers(-3, 6), st.sampled_from([2**31 - 1, -(2**31)])),
    Kind.SMALLINT: st.one_of(st.integers(-3, 6), st.sampled_from([2**15 - 1, -(2**15)])),
    Kind.DOUBLE: st.sampled_from([0.0, -0.0, 1.0, -1.5, 0.1, 1e300, 3.0, 2.0**53]),
    Kind.TEXT: _TEXTS,
    Kind.BOOLEAN: st.booleans(),
    Kind.TIMESTAMP: st.sampled_from([0, 1, -1, 86_400_000_000, 1_700_000_000_123_456, -62_135_596_800_000_000]),
    Kind.DATE: st.sampled_from([0, 1, -1, 19_000, -719_162]),
    Kind.UUID: st.integers(0, 4).map(lambda n: uuid.UUID(int=n * 2**126 % 2**128 + n).bytes),
    Kind.DECIMAL: st.integers(-300, 500).map(lambda n: Decimal(n) / 100),
}


@dataclass(frozen=True)
class Column:
    name: str
    type: ColumnType
    key: bool = False


def literal(kind: ColumnType, value: object) -> str:
    """A storage value as SQL text."""
    match kind.kind:
        case Kind.TEXT:
            return "'" + str(value).replace("'", "''") + "'"
        case Kind.BOOLEAN:
            return "TRUE" if value else "FALSE"
        case Kind.TIMESTAMP:
            return f"'{wire(kind, value)}'"
        case Kind.DATE:
            return f"'{wire(kind, value)}'"
        case Kind.UUID:
            return f"'{wire(kind, value)}'"
        case Kind.DOUBLE:
            return f"{value!r}::double" if "e" in repr(value) else repr(value)
        case _:
            return str(value)


def wire(kind: ColumnType, value: object) -> object:
    """A storage value as a JSON parameter."""
    match kind.kind:
        case Kind.TIMESTAMP:
            assert isinstance(value, int)
            return (EPOCH + datetime.timedelta(microseconds=value)).isoformat(sep=" ")
        case Kind.DATE:
            assert isinstance(value, int)
            return (EPOCH.date() + datetime.timedelta(days=value)).isoformat()
        case Kind.UUID:
            assert isinstance(value, bytes)
            return str(uuid.UUID(bytes=value))
        case Kind.DECIMAL:
            return str(value)
        case _:
            return value


@st.composite
def columns(draw: st.DrawFn) -> tuple[Column, ...]:
    """A table's columns: one or two key columns, up to five others."""
    keys = draw(st.lists(st.sampled_from(KEY_TYPES), min_size=1, max_size=2))
    others = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=5))
    return tuple(Column(f"k{i}", t, key=True) for i, t in enumerate(keys)) + tuple(
        Column(f"c{i}", t) for i, t in enumerate(others)
    )


@st.composite
def rows(draw: st.DrawFn, shape: tuple[Column, ...], most: int = 12) -> list[tuple[object, ...]]:
    """Rows with distinct keys; other values may be NULL."""
    parts = [_VALUES[c.type.kind] if c.key else st.none() | _VALUES[c.type.kind] for c in shape]
    keys = sum(c.key for c in shape)
    return draw(st.lists(st.tuples(*parts), max_size=most, unique_by=lambda row: row[:keys]))


@dataclass
class Query:
    """A query with its parameters; `ordered` when its text says the whole order."""

    text: str
    params: list[object]
    ordered: bool


class _Maker:
    def __init__(self, draw: st.DrawFn, shape: tuple[Column, ...]) -> None:
        self.draw = draw
        self.shape = shape
        self.params: list[object] = []

    def pick(self, *options: Callable[[], str]) -> str:
        return self.draw(st.sampled_from(options))()

    def column(self, *kinds: Kind) -> Column | None:
        fitting = [c for c in self.shape if not kinds or c.type.kind in kinds]
        return self.draw(st.sampled_from(fitting)) if fitting else None

    def value(self, kind: ColumnType) -> str:
        value = self.draw(_VALUES[kind.kind])
        if self.draw(st.booleans()):
            self.params.append(wire(kind, value))
            return f"${len(self.params)}"
        return literal(kind, value)

    def predicate(self, prefix: str = "", depth: int = 2) -> str:
        if depth and self.draw(st.integers(0, 3)) == 0:
            word = self.draw(st.sampled_from(["AND", "OR"]))
            return f"({self.predicate(prefix, depth - 1)} {word} {self.predicate(prefix, depth - 1)})"
        if depth and self.draw(st.integers(0, 6)) == 0:
            return f"NOT ({self.predicate(prefix, depth - 1)})"
        column = self.column()
        assert column is not None
        name = prefix + column.name
        text = self.column(Kind.TEXT)
        whole = self.column(Kind.BIGINT, Kind.INT, Kind.SMALLINT)
        options = [
            lambda: f"{name} {self.draw(st.sampled_from(['=', '<>', '<', '<=', '>', '>=']))} {self.value(column.type)}",
            lambda: f"{name} = {self.value(column.type)}",
            lambda: f"{name} IS {self.draw(st.sampled_from(['NULL', 'NOT NULL']))}",
            lambda: f"{name} BETWEEN {self.value(column.type)} AND {self.value(column.type)}",
            lambda: f"{name} IN ({self.value(column.type)}, {self.value(column.type)})",
            lambda: f"{name} IS DISTINCT FROM {self.value(column.type)}",
        ]
        if text is not None:
            options.append(lambda: f"{prefix}{text.name} {self.draw(_LIKES)} {self.draw(_PATTERNS)}")
            options.append(lambda: f"length({prefix}{text.name}) > 1")
        if whole is not None:
            options.append(lambda: f"{prefix}{whole.name} + 1 > {self.draw(st.integers(-2, 4))}")
            options.append(lambda: f"{prefix}{whole.name} % 2 = 0")
        return self.pick(*options)

    def where(self, prefix: str = "") -> str:
        return f" WHERE {self.predicate(prefix)}" if self.draw(st.booleans()) else ""

    def outputs(self) -> str:
        if self.draw(st.integers(0, 2)) == 0:
            return "*"
        chosen = self.draw(st.lists(st.sampled_from([c.name for c in self.shape]), min_size=1, max_size=4))
        return ", ".join(f"{name} AS o{i}" if self.draw(st.booleans()) else name for i, name in enumerate(chosen))

    def computed(self) -> str:
        column = self.column()
        assert column is not None
        whole = self.column(Kind.BIGINT, Kind.INT, Kind.SMALLINT)
        text = self.column(Kind.TEXT)
        options = [
            lambda: f"coalesce({column.name}, {self.value(column.type)})",
            lambda: f"CASE WHEN {self.predicate(depth=1)} THEN {column.name} END",
            lambda: f"{column.name} IS NULL",
            lambda: f"CAST({column.name} AS VARCHAR)",
        ]
        if whole is not None:
            options += [lambda: f"{whole.name} * 2", lambda: f"abs({whole.name})", lambda: f"{whole.name} / 2"]
        if text is not None:
            options += [lambda: f"upper({text.name})", lambda: f"{text.name} || 'x'", lambda: f"length({text.name})"]
        return self.pick(*options)

    def aggregate(self) -> str:
        column = self.column()
        assert column is not None
        whole = self.column(Kind.INT, Kind.SMALLINT, Kind.BIGINT)
        options = [
            lambda: "count(*)",
            lambda: f"count({column.name})",
            lambda: f"min({column.name})",
            lambda: f"max({column.name})",
            lambda: f"count(DISTINCT {column.name})",
        ]
        if whole is not None:
            options.append(lambda: f"sum({whole.name})")
        return self.pick(*options)


def _keys(shape: tuple[Column, ...], prefix: str = "") -> str:
    return ", ".join(f"{prefix}{c.name}" for c in shape if c.key)


@st.composite
def queries(draw: st.DrawFn, shape: tuple[Column, ...]) -> Query:
    """A query over the table `t` of that shape, and sometimes over `t` again."""
    make = _Maker(draw, shape)
    keys = _keys(shape)

    def plain() -> str:
        return f"SELECT {make.outputs()} FROM t{make.where()}"

    form = draw(st.sampled_from([
        "plain", "plain", "plain", "ordered", "limited", "key", "count", "computed", "grouped", "joined", "cte",
        "union", "window", "in", "exists", "scalar", "distinct",
    ]))  # fmt: skip
    ordered = False
    match form:
        case "plain":
            text = plain()
        case "ordered":
            direction = draw(st.sampled_from(["", " DESC"]))
            text = f"{plain()} ORDER BY {', '.join(f't.{c.name}{direction}' for c in shape if c.key)}"
            ordered = True
        case "limited":
            text = f"{plain()} ORDER BY {', '.join(f't.{c.name}' for c in shape if c.key)}"
            text += f" LIMIT {draw(st.integers(0, 5))} OFFSET {draw(st.integers(0, 3))}"
            ordered = True
        case "key":
            terms = " AND ".join(f"t.{c.name} = {make.value(c.type)}" for c in shape if c.key)
            rest = f" AND {make.predicate()}" if draw(st.booleans()) else ""
            text = f"SELECT {make.outputs()} FROM t WHERE {terms}{rest}"
        case "count":
            text = f"SELECT count(*) FROM t{make.where()}"
        case "computed":
            text = f"SELECT {keys}, {make.computed()} FROM t{make.where()}"
        case "grouped":
            column = make.column()
            assert column is not None
            text = f"SELECT {column.name}, {make.aggregate()} FROM t{make.where()} GROUP BY {column.name}"
        case "joined":
            column = make.column()
            assert column is not None
            kind = draw(st.sampled_from(["JOIN", "LEFT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN"]))
            sides = "a" if kind.startswith(("SEMI", "ANTI")) else draw(st.sampled_from(["a", "b"]))
            text = f"SELECT {sides}.* FROM t a {kind} t b ON a.{column.name} = b.{column.name}" + (
                f" WHERE {make.predicate(f'{sides}.')}" if draw(st.booleans()) else ""
            )
        case "cte":
            text = f"WITH x AS (SELECT * FROM t{make.where()}) SELECT * FROM x{make.where()}"
        case "union":
            word = draw(st.sampled_from(["UNION", "UNION ALL", "EXCEPT", "INTERSECT"]))
            text = f"SELECT * FROM t{make.where()} {word} SELECT * FROM t{make.where()}"
        case "window":
            column = make.column()
            assert column is not None
            text = f"SELECT {keys}, row_number() OVER (PARTITION BY {column.name} ORDER BY {keys}) FROM t{make.where()}"
        case "in":
            column = make.column()
            assert column is not None
            text = f"SELECT * FROM t WHERE {column.name} IN (SELECT {column.name} FROM t{make.where()})"
        case "exists":
            column = make.column()
            assert column is not None
            text = f"SELECT * FROM t WHERE EXISTS (SELECT 1 FROM t u WHERE u.{column.name} = t.{column.name})"
        case "scalar":
            text = f"SELECT {keys}, (SELECT {make.aggregate()} FROM t{make.where()}) FROM t"
        case _:
            column = make.column()
            assert column is not None
            text = f"SELECT DISTINCT {column.name} FROM t{make.where()}"
    return Query(text, make.params, ordered)
