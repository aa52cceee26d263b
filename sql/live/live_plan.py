"""The part of a live query that all queries of one shape share: what it shows of which rows, and how to evaluate it.

A condition and outputs that `sql.expressions` covers are evaluated by it, for snapshots and changes alike. For the
others DuckDB runs the query itself, `SELECT outputs, _seq FROM t WHERE condition`, over the partition for a snapshot
and over the changed row versions for a change: `_seq` says which of them it kept. A condition may be covered while
the outputs are not; then DuckDB is asked about the rows that it keeps only.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import pyarrow as pa
from sqlglot import exp

from sql.binder import BindContext, resolve_one_table
from sql.duck_plan import HIDDEN_TYPES
from sql.errors import InvalidSql, Unsupported
from sql.expression_nodes import text_as
from sql.expressions import CompiledExpression, compile_expression
from sql.index_access import scan_indexes
from sql.live.wire_rows import Render, renderer
from sql.native_plan import parameter_types, unknown_column
from sql.outputs import column_flags
from sql.plain import parameter_index, plain_value
from sql.plan import (
    HIDDEN_COLUMNS,
    SEQ,
    ColumnRange,
    IndexAccess,
    KeyAccess,
    Operand,
    Parameter,
    ParameterRef,
    QueryPlan,
    Source,
)
from sql.plan import Constant as ConstantOperand
from sql.pruning import column_ranges
from sql.pushdown import conjuncts, key_access, key_terms, operand
from sql.results import ResultColumn
from sql.scope import TableUse, is_star, position, star_qualifier
from sql.wire import BigintMode
from storage.catalog import TableDef
from storage.layout import layout_of
from storage.types import ColumnType, Kind
from storage.versions import change_columns
from storage.view_definitions import ViewDef

_SUBTLE = frozenset((Kind.FLOAT, Kind.DOUBLE, Kind.DECIMAL, Kind.EMBEDDING))
_INDEXED = frozenset((
    Kind.BOOLEAN, Kind.SMALLINT, Kind.INT, Kind.BIGINT, Kind.TEXT, Kind.UUID, Kind.DATE, Kind.TIME, Kind.TIMESTAMP,
    Kind.DATETIME, Kind.BYTES,
))  # fmt: skip
"""Kinds whose storage values are equal in Python exactly when they are equal in SQL."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output: a column of the table as it is, or an expression."""

    name: str
    column: str | None
    expression: CompiledExpression | None = None


class Shown(NamedTuple):
    """How one column of a row is made: from a stored column or an expression (neither: by DuckDB), then rendered."""

    name: str
    column: str | None
    expression: CompiledExpression | None
    render: Render | None
    is_key: bool


@dataclass(frozen=True)
class LivePlan:
    """What live queries of one shape share. `columns` ends in `_seq` unless the query names it elsewhere.

    `outputs` belong to `columns`; None when DuckDB has to make them. `condition` is None where there is none, and
    where `covers_condition` is False: then DuckDB decides. `engine` is the query on DuckDB's path.
    """

    shape: Hashable
    table: TableDef
    columns: tuple[ResultColumn, ...]
    outputs: tuple[Output, ...] | None
    condition: CompiledExpression | None
    covers_condition: bool
    parameters: tuple[Parameter, ...]
    equality: tuple[str, Operand] | None
    access: KeyAccess | None
    ranges: tuple[ColumnRange, ...]
    indexes: tuple[IndexAccess, ...]
    """Ways to the rows of a snapshot, from when the query was planned: an index may be gone since."""
    types: Mapping[str, ColumnType]
    """The columns that it reads, and their types."""
    bigint: BigintMode
    engine: Callable[[], QueryPlan]
    views: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    """The views that it reads the table through: full name, query and columns of each."""

    @property
    def is_native(self) -> bool:
        """Whether DuckDB is not needed, unless the values ask for it."""
        return self.covers_condition and self.outputs is not None

    @cached_property
    def change_schema(self) -> pa.Schema:
        """What changed rows have while the table is as it was when the query was bound."""
        layout = layout_of(self.table)
        return layout.projection(self.table.schema_version, change_columns(layout), with_seq=True).schema

    @cached_property
    def shown(self) -> tuple[Shown, ...]:
        """How rows are made, in the order of `columns`."""
        outputs = self.outputs or (None,) * len(self.columns)
        return tuple(
            Shown(
                column.name,
                output.column if output is not None else None,
                output.expression if output is not None else None,
                renderer(column, self.bigint),
                column.name in self.key_names,
            )
            for column, output in zip(self.columns, outputs, strict=True)
        )

    @cached_property
    def key_names(self) -> frozenset[str]:
        """What old rows always have: the columns that identify a row, and `_seq`."""
        return frozenset((SEQ, *(column.name for column in self.table.key_columns)))

    @cached_property
    def hidden_keys(self) -> tuple[ResultColumn, ...]:
        """Key columns whose names the rows do not have; only old rows show them."""
        names = {column.name for column in self.columns}
        return tuple(ResultColumn(c.name, c.type) for c in self.table.key_columns if c.name not in names)

    @cached_property
    def shows_key(self) -> bool:
        """Whether the rows have the whole primary key. Where DuckDB makes them nobody looks, and the answer is no."""
        key = {column.name for column in self.table.key_columns}
        return bool(key) and key <= {output.column for output in self.outputs or ()}

    def key_of(self, values: tuple[object, ...]) -> Hashable:
        """The arguments as part of a query's key: equal only when nothing can tell them apart."""
        if not self._plain_arguments:
            return tuple(repr(value) for value in values)
        return values

    @cached_property
    def _plain_arguments(self) -> bool:
        """Whether equal argument values are the same value (0.0 and -0.0 are not), and hashable."""
        return not any(p.is_list or p.type.kind in _SUBTLE for p in self.parameters)


def plan_live(
    ast: exp.Select,
    context: BindContext,
    shape: tuple[Hashable, ...],
    bigint: BigintMode,
    views: tuple[ViewDef, ...] = (),
) -> LivePlan:
    """The plan of a query that `query_form` lets pass, over a table; raises an SqlError that says what is wrong.

    `shape` is what tells it from other plans over the same table, together with the `views` that were merged into it.
    """
    query = with_seq(ast)
    bound = resolve_one_table(query, context)
    use, where = bound.use, bound.tree.args.get("where")
    assert isinstance(use.target, TableDef)
    condition = None if where is None else _unqualified(where.this, use.alias)
    items = [_unqualified(item, use.alias) for item in bound.tree.expressions]
    hidden = {index: HIDDEN_TYPES[source] for source, index in bound.hidden.items()}
    engine: QueryPlan | None = None
    known = parameter_types(bound.tree, use, hidden)
    access_types = known
    if known is None:
        engine = bound.engine()
        known = {p.index: (p.type, p.is_list) for p in engine.parameters}
    sources = {index: source for source, index in bound.hidden.items()}
    parameters = tuple(
        Parameter(index, kind, is_list, sources.get(index, Source.REQUEST))
        for index, (kind, is_list) in sorted(known.items())
    )
    scalars = {index: kind for index, (kind, is_list) in known.items() if not is_list}
    names = _types(use)
    compiled = None if condition is None else compile_expression(condition, names, scalars)
    if compiled is not None and compiled.type.kind is not Kind.BOOLEAN:
        compiled = None
    covers = condition is None or compiled is not None
    shown = _outputs(items, use, scalars)
    if shown is None or not covers:
        engine = engine or bound.engine()
        if engine.volatile:
            raise Unsupported("A function that has another value each time is not supported in a live query.")
    if shown is not None:
        outputs: tuple[Output, ...] | None = tuple(output for output, _ in shown)
        columns = tuple(column for _, column in shown)
        if engine is not None and [c.type for c in engine.columns] != [c.type for c in columns]:
            outputs = None
    else:
        outputs = None
    if outputs is None:
        assert engine is not None
        columns = engine.columns
    _check_names(columns, items, ast)
    terms = key_terms(condition, use, [use], access_types or {}, alone=True)
    through = tuple((view.full_name, view.sql, tuple(column.name for column in view.columns)) for view in views)
    return LivePlan(
        shape=(use.target.table_id, use.target.schema_version, *shape, through),
        table=use.target,
        columns=columns,
        outputs=outputs,
        condition=compiled,
        covers_condition=covers,
        parameters=parameters,
        equality=_equality(condition, names, known),
        access=key_access(use, terms),
        ranges=column_ranges(condition, use, [use], access_types or {}, alone=True),
        indexes=scan_indexes(condition, use, [use], access_types or {}, alone=True),
        types={n: t for n, t in names.items() if n not in HIDDEN_COLUMNS and _reads(use, n)},
        bigint=bigint,
        engine=bound.engine if engine is None else _known(engine),
        views=through,
    )


def with_seq(ast: exp.Select) -> exp.Select:
    """The query with `_seq` as its last output, unless it shows it under that name already."""
    query: exp.Select = ast.copy()
    if not any(_shows(item, SEQ) for item in query.expressions):
        query.append("expressions", exp.column(SEQ, quoted=True))
    return query


def _shows(item: exp.Expr, name: str) -> bool:
    """Whether an output is the column of that name, under that name."""
    node = item.unalias()
    is_column = isinstance(node, exp.Column) and not is_star(node) and node.name.lower() == name
    return is_column and item.alias_or_name == name


def _known(plan: QueryPlan) -> Callable[[], QueryPlan]:
    return lambda: plan


def _reads(use: TableUse, name: str) -> bool:
    return use.whole or name in use.needed


def _types(use: TableUse) -> dict[str, ColumnType]:
    return use.column_types | {name: kind for name in HIDDEN_COLUMNS if (kind := use.type_of(name)) is not None}


def _unqualified(node: exp.Expr, alias: str) -> exp.Expr:
    """A copy in which the table's columns stand without qualifier, so that equal columns have equal keys."""
    copy = node.copy()
    for column in copy.find_all(exp.Column):
        if not is_star(column) and column.table.lower() == alias and not column.args.get("db"):
            column.set("table", None)
    return copy


def _outputs(
    items: list[exp.Expr], use: TableUse, parameters: Mapping[int, ColumnType]
) -> list[tuple[Output, ResultColumn]] | None:
    """The outputs and their columns, or None when DuckDB has to make one."""
    found: list[tuple[Output, ResultColumn]] = []
    types = _types(use)

    def plain(name: str, column: str) -> None:
        flags = column_flags((use, column))
        found.append((Output(name, column), ResultColumn(name, types[column], flags)))

    for item in items:
        if is_star(item):
            star = item if isinstance(item, exp.Star) else item.this
            if any(star.args.values()) or star_qualifier(item) not in {"", use.alias}:
                return None
            for column in use.column_types:
                plain(column, column)
            continue
        node = item.unalias()
        name = item.alias_or_name
        if isinstance(node, exp.Column) and not node.table and not node.args.get("db"):
            column = node.name.lower()
            if column not in types:
                if column == use.alias:
                    return None
                raise unknown_column(node, column, use)
            plain(name, column)
            continue
        compiled = compile_expression(node, types, parameters)
        if compiled is None:
            return None
        found.append((Output(name, None, compiled), ResultColumn(name, compiled.type)))
    return found


def _check_names(columns: tuple[ResultColumn, ...], items: list[exp.Expr], ast: exp.Select) -> None:
    """Rows are objects: every column has a name of its own, and `_seq` and `_deleted` are what they are."""
    seen: set[str] = set()
    for column in columns:
        if column.name in seen:
            line, at = position(ast)
            raise InvalidSql(
                f"Two columns of the live query are called '{column.name}': name one of them with AS.",
                line=line,
                column=at,
            )
        seen.add(column.name)
    for item in items:
        name = item.alias_or_name
        if name in HIDDEN_COLUMNS and not is_star(item) and not _shows(item, name):
            line, at = position(item)
            raise InvalidSql(f"The name {name} is taken in a live query: choose another one.", line=line, column=at)


def _equality(
    condition: exp.Expr | None, types: Mapping[str, ColumnType], parameters: Mapping[int, tuple[ColumnType, bool]]
) -> tuple[str, Operand] | None:
    """One AND term `column = value` that an index can hold; keys of many values first, booleans last."""
    found: list[tuple[str, Operand]] = []
    for term in conjuncts(condition):
        if isinstance(term, exp.In) and len(term.expressions) == 1 and not term.args.get("query"):
            left, right = term.this, term.expressions[0]
        elif isinstance(term, exp.EQ):
            left, right = term.this, term.expression
        else:
            continue
        for column, other in ((left, right), (right, left)):
            side = _indexed(column, other, types, parameters)
            if side is not None:
                found.append(side)
                break
    return min(found, key=lambda side: types[side[0]].kind is Kind.BOOLEAN, default=None)


def _indexed(
    column: exp.Expr,
    other: exp.Expr,
    types: Mapping[str, ColumnType],
    parameters: Mapping[int, tuple[ColumnType, bool]],
) -> tuple[str, Operand] | None:
    column, other = column.unnest(), other.unnest()
    if not isinstance(column, exp.Column) or column.table or column.name.lower() in HIDDEN_COLUMNS:
        return None
    name = column.name.lower()
    kind = types.get(name)
    if kind is None or kind.kind not in _INDEXED:
        return None
    if isinstance(other, exp.Cast) and parameter_index(other.this) is not None and other.to.this in _TEXTS:
        index = parameter_index(other.this) or 0  # CURRENT_USER
        is_text = kind.kind is Kind.TEXT and parameters.get(index) == (kind, False)
        return (name, ParameterRef(index)) if is_text else None
    side = operand(kind, other, parameters)
    if side is not None:
        return name, side
    text = plain_value(other, kind)
    node = text_as(text, kind) if isinstance(text, str) else None
    if node is None or node.row is None:
        return None
    return name, ConstantOperand(node.row({}, ()))


_TEXTS = (exp.DType.VARCHAR, exp.DType.TEXT)
