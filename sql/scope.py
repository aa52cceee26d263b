"""What a query's syntax tree reads: its tables, which columns of each may be needed, and where stars stand.

Columns are found by name only. A column that no identifier of the whole query spells, and that no star, row
reference or COLUMNS() can reach, is not needed; every other column is passed to DuckDB, which resolves names by
its own rules. So this page over-approximates and never decides what a name means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlglot import exp

from sql.errors import InvalidSql
from sql.plan import HIDDEN_COLUMNS, Nearest, Scan, VectorSearch
from sql.system_tables import SystemTable
from storage.catalog import TableDef
from storage.types import BIGINT, BOOLEAN, ColumnType


@dataclass(slots=True)
class TableUse:
    """One place where a query names a table of ours."""

    node: exp.Table
    alias: str
    target: TableDef | SystemTable
    select: exp.Select | None
    scan_name: str = ""
    needed: set[str] = field(default_factory=set)
    whole: bool = False
    nearest: Nearest | None = None
    search: VectorSearch | None = None

    @property
    def column_types(self) -> dict[str, ColumnType]:
        """User columns in declared order."""
        return {c.name: c.type for c in self.target.columns}

    @property
    def has_hidden(self) -> bool:
        """Whether the table has `_seq` and `_deleted`."""
        return isinstance(self.target, TableDef)

    def type_of(self, column: str) -> ColumnType | None:
        """The type of a column, hidden ones included."""
        if self.has_hidden and column in HIDDEN_COLUMNS:
            return BIGINT if column == HIDDEN_COLUMNS[0] else BOOLEAN
        return self.column_types.get(column)

    def scan(self) -> Scan:
        """The scan of the columns that are needed."""
        names = [c for c in self.column_types if self.whole or c in self.needed]
        names += [c for c in HIDDEN_COLUMNS if self.has_hidden and c in self.needed]
        if not names:
            names = [HIDDEN_COLUMNS[0]] if self.has_hidden else [next(iter(self.column_types))]
        table, system = (self.target, None) if isinstance(self.target, TableDef) else (None, self.target)
        return Scan(self.scan_name, self.alias, table, system, tuple(names), nearest=self.nearest, search=self.search)


def position(node: exp.Expr) -> tuple[int | None, int | None]:
    """Line and column of a node: its own, else those of its first descendant that has them."""
    for part in node.walk():
        line, column = part.meta.get("line"), part.meta.get("col")
        if isinstance(line, int) and isinstance(column, int):
            return line, column
    return None, None


def invalid(message: str, node: exp.Expr) -> InvalidSql:
    """An InvalidSql that points at a node."""
    line, column = position(node)
    return InvalidSql(message, line=line, column=column)


def named_tables(tree: exp.Expr) -> Iterator[exp.Table]:
    """The places that name a table, other than common table expressions in their scope."""
    for table in list(tree.find_all(exp.Table)):
        if isinstance(table.this, exp.Identifier) and not _names_cte(table):
            yield table


def _names_cte(table: exp.Table) -> bool:
    """Whether an unqualified name is that of a common table expression whose scope it is in."""
    if table.args.get("db") is not None or table.args.get("catalog") is not None:
        return False
    name = table.name.lower()
    child: exp.Expr = table
    while (node := child.parent) is not None:
        if isinstance(node, exp.With):
            siblings: list[exp.CTE] = node.expressions
            before = next(i for i, cte in enumerate(siblings) if cte is child)
            if _named(siblings[: before + 1] if node.args.get("recursive") else siblings[:before], name):
                return True
            child = node.parent or node
            continue
        with_ = node.args.get("with_")
        if isinstance(with_, exp.With) and _named(with_.expressions, name):
            return True
        child = node
    return False


def _named(ctes: list[exp.CTE], name: str) -> bool:
    return any(cte.alias.lower() == name for cte in ctes)


def owning_select(node: exp.Expr) -> exp.Select | None:
    """The SELECT whose FROM a table stands in."""
    return node.find_ancestor(exp.Select)


def mark_needed(tree: exp.Expr, uses: list[TableUse]) -> None:
    """Fill in which columns of each table may be needed."""
    mentioned = {identifier.name.lower() for identifier in tree.find_all(exp.Identifier)}
    aliases = {column.name.lower() for column in tree.find_all(exp.Column) if not column.args.get("table")}
    everything = tree.find(exp.Columns) is not None or any(
        join.args.get("method") == "NATURAL" for join in tree.find_all(exp.Join)
    )
    starred = {id(select): qualifiers for select, qualifiers in _stars(tree)}
    for use in uses:
        use.needed = {c for c in (*use.column_types, *HIDDEN_COLUMNS) if c in mentioned}
        qualifiers = starred.get(id(use.select), frozenset())
        use.whole = (
            everything
            or use.select is None
            or renames_columns(use.node)
            or use.alias in aliases
            or "" in qualifiers
            or use.alias in qualifiers
        )


def _stars(tree: exp.Expr) -> Iterator[tuple[exp.Select, frozenset[str]]]:
    """Every SELECT with stars in its list, with their qualifiers ("" for a bare star)."""
    found: dict[int, tuple[exp.Select, set[str]]] = {}
    for star in tree.find_all(exp.Star):
        select = star.find_ancestor(exp.Select)
        if select is not None and not isinstance(star.parent, exp.Count):
            qualifier = star_qualifier(star.parent) if isinstance(star.parent, exp.Column) else ""
            found.setdefault(id(select), (select, set()))[1].add(qualifier)
    for select, qualifiers in found.values():
        yield select, frozenset(qualifiers)


def shows_several(item: exp.Expr) -> bool:
    """Whether a SELECT item holds a star that stands for columns (COUNT(*) does not)."""
    return any(not isinstance(star.parent, exp.Count) for star in item.find_all(exp.Star))


def renames_columns(node: exp.Table) -> bool:
    """Whether a table's alias names its columns anew: `t AS x(a, b)`."""
    alias = node.args.get("alias")
    return isinstance(alias, exp.TableAlias) and bool(alias.columns)


def is_star(item: exp.Expr) -> bool:
    """Whether a SELECT item is `*` or `t.*`."""
    return isinstance(item, exp.Star) or (isinstance(item, exp.Column) and isinstance(item.this, exp.Star))


def star_qualifier(item: exp.Expr) -> str:
    """`t` of `t.*`, "" of `*`."""
    return item.table.lower() if isinstance(item, exp.Column) else ""


def hide_from_stars(uses: list[TableUse]) -> None:
    """Keep hidden columns that the query names elsewhere out of the stars that would show them."""
    by_select: dict[int, list[TableUse]] = {}
    for use in uses:
        if use.has_hidden and use.select is not None and use.needed & set(HIDDEN_COLUMNS):
            by_select.setdefault(id(use.select), []).append(use)
    for group in by_select.values():
        select = group[0].select
        assert select is not None
        for join in select.args.get("joins") or ():
            if join.args.get("method") == "NATURAL":
                raise invalid("NATURAL JOIN cannot stand beside _seq or _deleted: name the columns with USING.", join)
        for item in select.expressions:
            if not is_star(item):
                continue
            star = item if isinstance(item, exp.Star) else item.this
            qualifier = star_qualifier(item)
            hidden = [
                exp.column(name, table=use.alias, quoted=True) if not qualifier else exp.column(name, quoted=True)
                for use in group
                if qualifier in {"", use.alias}
                for name in HIDDEN_COLUMNS
                if name in use.needed
            ]
            if hidden:
                star.set("except_", [*(star.args.get("except_") or ()), *hidden])
