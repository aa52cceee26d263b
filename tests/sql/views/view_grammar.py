"""Random views over two tables, and random queries over a view, made so that names can be mistaken for others.

A column of a view may be called like another column of its table, an output of a query like a column of the view or of
the table that the view does not show.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from storage.types import DOUBLE, INT, TEXT
from tests.sql.query_support import table

T = table(1, "t", [("id", INT), ("a", INT), ("b", TEXT), ("c", INT), ("d", DOUBLE)])
U = table(2, "u", [("id", INT), ("a", INT), ("e", TEXT)])
T_ROWS = [(n, n % 3 or None, "xyz"[n % 3], n % 2, n / 2) for n in range(9)]
U_ROWS = [(n, n % 2, "pq"[n % 2]) for n in range(5)]

NAMES = ("id", "a", "b", "c", "d", "x", "y")
INTS = ("id", "a", "c")

_CONDITIONS = ("a > 1", "a IS NULL", "b = 'x'", "c = 0 OR id > 5", "id < 7", "b LIKE '%'", "d >= 1.5", "NOT (a = 2)")
_EXPRESSIONS = ("a + 1", "upper(b)", "1", "NULL", "id * 2 - c", "coalesce(a, 0)", "a > 1", "'id'")


@dataclass(frozen=True)
class View:
    """A view's query, its columns, and the list of names that it is given, if it is."""

    sql: str
    columns: tuple[str, ...]
    named: bool = False

    @property
    def head(self) -> str:
        return f" ({', '.join(self.columns)})" if self.named else ""

    def inlined(self, alias: str) -> str:
        """The view as a subquery in FROM."""
        return f"({self.sql}) AS {alias}({', '.join(self.columns)})"


@st.composite
def simple(draw: st.DrawFn, source: str = "t", known: tuple[str, ...] = T.arrow_schema.names) -> View:
    """Columns and expressions of one source with a condition or without."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    plain = draw(st.booleans())
    items = []
    for name in names:
        choices = [st.sampled_from(known)]
        if not plain and set(known) == set(T.arrow_schema.names):
            choices.append(st.sampled_from(_EXPRESSIONS))
        what = draw(st.one_of(choices))
        items.append(f"{what} AS {name}")
    if draw(st.integers(0, 5)) == 0:
        items, names = ["*"], list(known)
    usable = [c for c in _CONDITIONS if set(known) >= set(T.arrow_schema.names)]
    where = draw(st.sampled_from(["", *(f" WHERE {c}" for c in usable)])) if usable else ""
    alias = draw(st.sampled_from(["", " AS q"]))
    named = draw(st.integers(0, 3)) == 0
    if named:
        names = draw(st.lists(st.sampled_from(NAMES), min_size=len(names), max_size=len(names), unique=True))
    return View(f"SELECT {', '.join(items)} FROM {source}{alias}{where}", tuple(names), named)


_COMPLEX = (
    View("SELECT b AS x, count(*) AS a, sum(id) AS y FROM t GROUP BY b", ("x", "a", "y")),
    View("SELECT DISTINCT a, c FROM t", ("a", "c")),
    View("SELECT id, a FROM t UNION ALL SELECT * EXCLUDE (e) FROM u", ("id", "a")),
    View("SELECT t.id, u.e AS b, t.a FROM t JOIN u ON t.a = u.a", ("id", "b", "a")),
    View("SELECT *, row_number() OVER (ORDER BY id DESC) AS x FROM t", ("id", "a", "b", "c", "d", "x")),
    View("SELECT * FROM t ORDER BY id LIMIT 4", ("id", "a", "b", "c", "d")),
    View("WITH v AS (SELECT * FROM t WHERE a = 1) SELECT id, b FROM v", ("id", "b")),
    View("SELECT * FROM t WHERE id IN (SELECT a FROM u)", ("id", "a", "b", "c", "d")),
    View("SELECT * FROM (SELECT id AS a, * EXCLUDE (id, a) FROM t)", ("a", "b", "c", "d")),
    View("SELECT * FROM t JOIN u USING (id, a)", ("id", "a", "b", "c", "d", "e")),
    View("SELECT * FROM (VALUES (1, 'x'), (2, 'y')) AS w(id, b)", ("id", "b")),
    View("SELECT t.*, e AS x FROM t, u WHERE t.id = u.id", ("id", "a", "b", "c", "d", "x")),
)  # fmt: skip


def views() -> st.SearchStrategy[View]:
    """Views over tables."""
    return st.one_of(simple(), simple(), st.sampled_from(_COMPLEX))


@st.composite
def queries(draw: st.DrawFn, columns: tuple[str, ...]) -> str:
    """A query with `{v}` where FROM names the view, `{q}` where a column is qualified with what it is called."""
    pick = st.sampled_from([*columns, *NAMES]) if draw(st.integers(0, 3)) == 0 else st.sampled_from(columns)

    def column() -> str:
        return f"{draw(st.sampled_from(['', '{q}.']))}{draw(pick)}"

    def alias() -> str:
        return f" AS {draw(st.sampled_from(NAMES))}" if draw(st.booleans()) else ""

    items = [f"{column()}{alias()}" for _ in range(draw(st.integers(1, 3)))]
    kind = draw(st.integers(0, 11))
    if kind == 0:
        items = ["*"]
    elif kind == 1:
        items = ["{q}.*", f"{column()} IS NULL{alias()}"]
    elif kind == 2:
        items = [f"* EXCLUDE ({columns[0]})", "count(*) OVER () AS n"]
    elif kind == 3:
        items.append(f"coalesce({column()}::TEXT, '-'){alias()}")
    where = draw(st.sampled_from([
        "", f" WHERE {column()} IS NOT NULL", f" WHERE {column()}::TEXT <> 'x'", f" WHERE {column()} = {column()}",
        f" WHERE {column()}::TEXT IN ('1', '2', 'y') OR {column()} IS NULL", " WHERE id = 3",
        f" WHERE EXISTS (SELECT * FROM u WHERE u.a::TEXT = {column()}::TEXT)",
        f" WHERE {column()} IS NULL OR id IN (SELECT a FROM t)",
    ]))  # fmt: skip
    if kind in (4, 5):
        key = column()
        having = draw(st.sampled_from(["", " HAVING count(*) > 1", f" HAVING max({column()}) IS NOT NULL"]))
        order = draw(st.sampled_from(["", f" ORDER BY {key}", " ORDER BY 1, 2"]))
        return f"SELECT {key}{alias()}, count(*) AS n FROM {{v}}{where} GROUP BY {key}{having}{order}"
    if kind == 6:
        return f"SELECT count(*), min({column()}) FROM {{v}}{where}"
    if kind == 7:
        return f"SELECT DISTINCT {', '.join(items)} FROM {{v}}{where}"
    if kind == 8:
        return f"SELECT {column()}, u.e FROM {{v}} JOIN u ON {{q}}.{columns[0]}::TEXT = u.a::TEXT{where}"
    if kind == 9:
        return f"WITH w AS (SELECT {', '.join(items)} FROM {{v}}{where}) SELECT * FROM w UNION ALL SELECT * FROM w"
    if kind == 10:
        return f"SELECT (SELECT count(*) FROM {{v}}{where}) AS n, {{q}}.* FROM {{v}}"
    order = draw(st.sampled_from(["", f" ORDER BY {column()}", " ORDER BY 1", " ORDER BY a"]))
    return f"SELECT {', '.join(items)} FROM {{v}}{where}{order}"
