"""Random tables and rows under a seed: all types, NULLs, keys of one or two columns or none, USER and SHARED tables."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

NUMBERS = ("SMALLINT", "INT", "BIGINT", "DECIMAL(9,2)", "DECIMAL(38,10)", "FLOAT", "DOUBLE")
WHOLE = ("SMALLINT", "INT", "BIGINT")
TIMES = ("DATE", "TIME", "TIMESTAMP", "DATETIME")
TYPES = ("BOOLEAN", *NUMBERS, "TEXT", *TIMES, "UUID", "BYTES", "JSON", "EMBEDDING(2)")
KEYS = tuple(kind for kind in TYPES if not kind.startswith(("JSON", "EMBEDDING", "FLOAT", "DOUBLE")))

VALUES: dict[str, tuple[str, ...]] = {
    "BOOLEAN": ("TRUE", "FALSE"),
    "SMALLINT": ("0", "1", "-1", "2", "3", "7", "-32768", "32767"),
    "INT": ("0", "1", "-1", "2", "3", "7", "-2147483648", "2147483647"),
    "BIGINT": ("0", "1", "-1", "2", "3", "7", "-9223372036854775808", "9223372036854775807", "9007199254740993"),
    "DECIMAL(9,2)": ("0.00", "1.00", "-1.50", "2.50", "3.00", "0.01", "9999999.99", "-9999999.99"),
    "DECIMAL(38,10)": ("0.0000000000", "1.0000000000", "-1.5000000000", "2.5000000000", "0.0000000001"),
    "FLOAT": ("0.0", "1.0", "-1.5", "0.1", "2.5", "3e38", "1e-40", "16777217.0"),
    "DOUBLE": ("0.0", "-0.0", "1.0", "-1.5", "0.1", "2.5", "1e300", "9007199254740992.0"),
    "TEXT": ("''", "' '", "'a'", "'A'", "'ab'", "'a%'", "'_'", "'ä'", "'z'", "'10'", "'\\'", "'it''s'", "'NULL'"),
    "DATE": ("'1970-01-01'", "'1969-12-31'", "'2024-02-29'", "'0001-01-01'", "'9999-12-31'"),
    "TIME": ("'00:00:00'", "'23:59:59.999999'", "'12:30:00'", "'00:00:00.000001'"),
    "TIMESTAMP": ("'1970-01-01 00:00:00'", "'1969-12-31 23:59:59.999999'", "'2024-02-29 12:00:00'",
                  "'0001-01-01 00:00:00'", "'2024-03-10 02:30:00'"),
    "DATETIME": ("'1970-01-01 00:00:00Z'", "'2024-02-29 12:00:00Z'", "'2024-02-29 12:00:00+02:00'",
                 "'1969-12-31 23:59:59.999999Z'"),
    "UUID": ("'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
             "'7fffffff-0000-0000-0000-000000000001'", "'80000000-0000-0000-0000-000000000001'"),
    "BYTES": ("X''", "X'00'", "X'00FF'", "X'61'", "X'FF'"),
    "JSON": ("'{}'", "'[1, 2]'", "'{\"a\": 1}'", "'null'", "'\"x\"'"),
    "EMBEDDING(2)": ("'[0, 0]'", "'[1.5, -2]'"),
}  # fmt: skip
"""Values of each type as SQL writes them: extremes, neighbours, and few enough to meet again."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column; `source` is the name of the table or alias in a query."""

    name: str
    type: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its rows as SQL texts; `others` are rows of another user's, where it is a USER table."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    shared: bool
    rows: tuple[tuple[str, ...], ...]
    others: tuple[tuple[str, ...], ...]

    @property
    def definition(self) -> str:
        """Its CREATE statement."""
        parts = [f"{column.name} {column.type}" for column in self.columns]
        if self.key:
            parts.append(f"PRIMARY KEY ({', '.join(self.key)})")
        return f"CREATE {'SHARED' if self.shared else 'USER'} TABLE {self.name} ({', '.join(parts)})"

    def insert(self, rows: Sequence[Sequence[str]]) -> str:
        """The statement that inserts rows."""
        values = ", ".join("(" + ", ".join(row) + ")" for row in rows)
        return f"INSERT INTO {self.name} VALUES {values}"


def tables(rng: random.Random, most_rows: int = 14) -> tuple[Table, ...]:
    """Two or three tables; the first columns are of all types in turn."""
    return tuple(_table(rng, f"t{number}", most_rows) for number in range(rng.choice((2, 2, 3))))


def _table(rng: random.Random, name: str, most_rows: int) -> Table:
    keys = [rng.choice(KEYS) for _ in range(rng.choice((0, 1, 1, 2)))]
    kinds = keys + [rng.choice(TYPES) for _ in range(rng.randint(2, 6))]
    columns = tuple(Column(f"c{place}", kind) for place, kind in enumerate(kinds))
    key = tuple(column.name for column in columns[: len(keys)])
    return Table(
        name,
        columns,
        key,
        rng.random() < 0.5,
        _rows(rng, columns, len(keys), rng.randint(0, most_rows)),
        _rows(rng, columns, len(keys), 3),
    )


def _rows(rng: random.Random, columns: Sequence[Column], keys: int, number: int) -> tuple[tuple[str, ...], ...]:
    found: dict[tuple[str, ...], tuple[str, ...]] = {}
    for place in range(number):
        row = tuple(
            "NULL" if at >= keys and rng.random() < 0.25 else rng.choice(VALUES[column.type])
            for at, column in enumerate(columns)
        )
        found[row[:keys] or (str(place),)] = row
    return tuple(_distinct(found, keys, columns).values())


def _distinct(
    rows: dict[tuple[str, ...], tuple[str, ...]], keys: int, columns: Sequence[Column]
) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Without keys that are written otherwise and mean the same moment."""
    moments = {"'2024-02-29 12:00:00+02:00'": "'2024-02-29 10:00:00Z'"}
    kinds = [column.type for column in columns[:keys]]
    return {
        tuple(moments.get(text, text) if kind == "DATETIME" else text for text, kind in zip(key, kinds, strict=True))
        if keys
        else key: row
        for key, row in rows.items()
    }
