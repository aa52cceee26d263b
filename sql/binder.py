"""From a query's syntax tree to a plan: tables, rights, user scope, parameters and types. The one place for all of it.

0. Views become the queries that they are (`sql.views.expansion`).
1. Every table name becomes a table that the caller may read, or an error (`sql.rights`). USER tables are read in the
   partition of whoever runs the plan; no query can say otherwise, because partitions have no name in SQL.
2. Functions of ours are rewritten (`sql.rewrite`), columns that may be needed are noted (`sql.scope`).
3. A query that pyarrow can answer gets a native plan (`sql.native_plan`), with the primary key access that WHERE
   allows (`sql.pushdown`). It never meets DuckDB, unless its values do.
4. All others become DuckDB's text over private scans. `sql.guard` checks DuckDB's own parse of it; DuckDB's binder
   then says which columns and functions do not exist and what types parameters and outputs have. A parameter that
   its context leaves open takes the type of its JSON value.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from sqlglot import exp

from sql.duck import DuckPool
from sql.duck_plan import plan_for_duckdb
from sql.generate import text_of
from sql.identity import Role
from sql.index_access import exact_access, scan_indexes
from sql.native_plan import plan_native
from sql.plain import parameter_index
from sql.plan import JsonKind, Operand, Parameter, Path, QueryPlan, Source
from sql.postgres_functions import rewrite_postgres
from sql.postgres_sets import name_values
from sql.pruning import column_ranges
from sql.pushdown import key_access, key_terms
from sql.rewrite import HiddenParameters, name_outputs, rewrite_bare_functions, rewrite_functions, unqualify_columns
from sql.rights import resolve_table
from sql.row_values import spell_out_rows
from sql.scope import TableUse, invalid, mark_needed, named_tables, owning_select, position
from sql.session_functions import leave_out_catalog, rewrite_bare_session_functions, rewrite_session_functions
from sql.syntax import copied
from sql.system_tables import SystemTables
from sql.vectors.functions import rewrite_distances
from sql.vectors.nearest import note_nearest
from sql.vectors.search_function import RESULT, place_searches
from sql.views.errors import blaming_views, of_view
from sql.views.expansion import expand_views, view_query
from storage.catalog import Catalog, TableDef
from storage.view_definitions import ViewDef


@dataclass(frozen=True)
class BindContext:
    """What a query is bound in. `parameter_kinds` are the JSON kinds of the request's parameters, `$1` first."""

    catalog: Catalog
    system: SystemTables
    namespace: str
    role: Role
    pool: DuckPool
    parameter_kinds: tuple[JsonKind, ...] = ()

    def bind(self, query: exp.Query, catalog: Catalog | None = None) -> QueryPlan:
        """The plan of a query, over other definitions if they are given."""
        return bind_query(query, self if catalog is None else replace(self, catalog=catalog))

    def check_view(self, view: ViewDef) -> None:
        """Raise the SqlError that keeps a view from being used."""
        _Binder(view_query(view), replace(self, namespace=view.scope)).plan_alone()


def bind_query(ast: exp.Query, context: BindContext) -> QueryPlan:
    """The plan of a query; raises an SqlError that says what is wrong and where. `ast` is left as it is."""
    return _Binder(ast, context).plan()


@dataclass(frozen=True, slots=True)
class OneTable:
    """A query of one table with its names resolved and our functions rewritten, before it is planned.

    `hidden` are the parameters behind those of the request, by source. `engine` binds it for DuckDB; it uses `tree`
    up, so copy what is needed of it before.
    """

    tree: exp.Select
    use: TableUse
    hidden: Mapping[Source, int]
    volatile: bool
    engine: Callable[[], QueryPlan]


def resolve_one_table(ast: exp.Select, context: BindContext) -> OneTable:
    """The query with its table, which the caller may read; raises an SqlError as `bind_query` does."""
    return _Binder(ast, context).one_table()


class _Binder:
    """One query on its way to a plan."""

    def __init__(self, ast: exp.Query, context: BindContext) -> None:
        self.context = context
        self.tree = copied(ast)
        indexes = [parameter_index(node) or 0 for node in self.tree.find_all(exp.Placeholder)]
        self.hidden = HiddenParameters(max([len(context.parameter_kinds), *indexes]))
        name_outputs(self.tree, text_of)
        leave_out_catalog(self.tree)
        self.views = expand_views(self.tree, context.catalog, context.namespace)
        self.tree = rewrite_session_functions(self.tree, context.namespace)
        self.tree = spell_out_rows(self.tree)
        self.tree, self.volatile = rewrite_functions(self.tree, self.hidden)
        self.tree = rewrite_postgres(self.tree)
        self.uses = self._resolve()
        rewrite_bare_functions(self.tree, self.uses, self.hidden)
        name_values(self.tree, self.uses)
        rewrite_bare_session_functions(self.tree, self.uses, context.namespace)
        self.tree = rewrite_distances(self.tree, self.uses)

    # Names

    def _resolve(self) -> list[TableUse]:
        searches = place_searches(self.tree, self.context)
        prefix = "__s"
        taken = {identifier.name.lower() for identifier in self.tree.find_all(exp.Identifier)}
        while any(name.startswith(prefix) for name in taken):
            prefix = f"_{prefix}"
        uses = []
        for number, node in enumerate(named_tables(self.tree)):
            if node.args.get("catalog") is not None:
                raise invalid("A table is named by a namespace and a name, nothing more.", node)
            for clause in ("when", "version", "partition", "changes", "rows_from"):
                if node.args.get(clause):
                    raise invalid("This clause after a table's name is not supported.", node)
            alias = (node.alias or node.name).lower()
            scan_name = f"{prefix}{number}"
            if (search := searches.get(id(node))) is not None:
                select = owning_select(node)
                uses.append(TableUse(node, alias, RESULT, select, scan_name, search=search))
                continue
            line, column = position(node)
            namespace = node.db or self.context.namespace
            with of_view(node):
                target = resolve_table(
                    self.context.catalog,
                    self.context.system,
                    self.context.role,
                    namespace,
                    node.name.lower(),
                    line=line,
                    column=column,
                )
            uses.append(TableUse(node, alias, target, owning_select(node), scan_name))
        return uses

    # Plans

    def one_table(self) -> OneTable:
        """The resolved query; it has one table."""
        unqualify_columns(self.tree, self.uses)
        mark_needed(self.tree, self.uses)
        [use] = self.uses
        assert isinstance(self.tree, exp.Select)
        return OneTable(self.tree, use, self.hidden.indexes, self.volatile, _Once(self._engine()))

    def _engine(self) -> Callable[[], QueryPlan]:
        return partial(
            plan_for_duckdb,
            self.tree,
            self.uses,
            self.hidden,
            self.context.pool,
            self.context.parameter_kinds,
            volatile=self.volatile,
        )

    def plan(self) -> QueryPlan:
        """The plan of the query."""
        with blaming_views(self.views, self.context.check_view):
            return self.plan_alone()

    def plan_alone(self) -> QueryPlan:
        """The plan; an error does not say from which view it comes."""
        unqualify_columns(self.tree, self.uses)
        mark_needed(self.tree, self.uses)
        native = None if self.hidden.indexes else plan_native(self.tree, self.uses)
        if native is None:
            note_nearest(self.tree, self.uses)
        engine = self._engine()
        if native is None:
            return engine()
        plan, columns, types = native
        use = self.uses[0]
        where = self.tree.args.get("where")
        terms = key_terms(where.this if where else None, use, self.uses, types, alone=True)
        access = key_access(use, terms)
        ranges = column_ranges(where.this if where else None, use, self.uses, types, alone=True)
        keys = use.target.key_columns if isinstance(use.target, TableDef) else ()
        point: tuple[Operand, ...] | None = None
        if access is not None and keys and len(access.prefix) == len(keys) and not plan.counts:
            point = access.prefix
        indexes = () if point else scan_indexes(where.this if where else None, use, self.uses, types, alone=True)
        return QueryPlan(
            columns=columns,
            scans=(replace(use.scan(), key=access, ordered=plan.order is None, ranges=ranges, indexes=indexes),),
            parameters=tuple(Parameter(index, kind) for index, (kind, _) in sorted(types.items())),
            path=Path.NATIVE if point is None else Path.POINT,
            sql="",
            native=plan,
            point_key=point,
            projection=None if plan.counts else plan.projection,
            residual_filter=point is None or terms.others > 0,
            exact_index=exact_access(where.this if where else None, use, self.uses, types, alone=True)
            if indexes
            else None,
            engine_plan=_Once(engine),
        )


class _Once:
    """Calls a function when first asked and keeps the answer; safe from any thread."""

    def __init__(self, make: Callable[[], QueryPlan]) -> None:
        self._make: Callable[[], QueryPlan] | None = make
        self._lock = threading.Lock()
        self._plan: QueryPlan | None = None

    def __call__(self) -> QueryPlan:
        """The plan."""
        with self._lock:
            if self._plan is None:
                assert self._make is not None
                self._plan = self._make()
                self._make = None
            return self._plan
