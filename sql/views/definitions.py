"""CREATE and DROP VIEW.

What is kept of a view's query is text: the canonical one of its tree, with namespaces and columns written out. It must
come to the same query for the engine as the tree, to the letter; where it does not, the text as written is kept, with
the namespace that it was written in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
from sqlglot import exp

from sql.binder import BindContext, bind_query
from sql.create_table import MAX_COLUMNS, SYSTEM_NAMESPACES
from sql.dialect import parse_batch
from sql.errors import ExecutionError, InvalidSql, PermissionDenied, SqlError, Unsupported
from sql.generate import text_of
from sql.identity import Identity, Role
from sql.names import check_column_name, check_view_name
from sql.namespaces import require_namespace
from sql.plan import QueryPlan
from sql.results import ResultColumn, StatementResult
from sql.rewrite import name_outputs
from sql.rights import nearest
from sql.scope import invalid, named_tables
from sql.stored_text import expression_to_text
from sql.syntax import copied
from sql.table_name import TableName
from sql.view_statements import CreateView, DropView
from sql.views.errors import missing_view
from sql.views.expansion import MAX_TEXT, view_query
from sql.views.reading import views_over
from sql.views.stars import fix_stars
from sql.writing import DefinitionWriter, StatementContext, time_of
from storage.catalog import TableDef
from storage.view_definitions import ViewColumn, ViewDef
from storage.views import ReadView


@dataclass(frozen=True, slots=True)
class PreparedView:
    """A view that CREATE VIEW makes, or None with what to answer instead; it holds for one version of the catalog."""

    version: int
    view: ViewDef | None
    result: StatementResult


def prepare(statement: CreateView, state: ReadView, context: StatementContext, binding: BindContext) -> PreparedView:
    """Bind the query of a new view, which takes the query engine: before the writer is asked for. Raises SqlError."""
    check_may_define(context.identity)
    namespace, name = _target(statement.view, context)
    full_name = f"{namespace}.{name}"
    require_namespace(state, namespace)
    catalog = state.catalog
    if catalog.table(namespace, name) is not None:
        raise ExecutionError(f"Already exists: Table {full_name} already exists; it is not a view")
    old = catalog.view(namespace, name)
    if old is not None and not statement.or_replace:
        if statement.if_not_exists:
            answer = StatementResult(message=f"View {full_name} already exists (skipped)")
            return PreparedView(catalog.version, None, answer)
        raise ExecutionError(f"Already exists: View {full_name} already exists")
    check_view_name(name)
    view = ViewDef(namespace, name, (), "", owner=context.identity.user)
    if old is not None:
        view = msgspec.structs.replace(view, owner=old.owner, created_at=old.created_at)
    made = define(statement, view, binding)
    return PreparedView(catalog.version, made, StatementResult(message=f"View {full_name} created successfully"))


def create(prepared: PreparedView, txn: DefinitionWriter) -> StatementResult:
    """Store a view in the writer, whose catalog is that of the preparation."""
    view = prepared.view
    if view is not None:
        now = time_of(txn)
        txn.put_view(msgspec.structs.replace(view, created_at=view.created_at or now, updated_at=now))
    return prepared.result


def check_may_define(identity: Identity) -> None:
    """Raise PermissionDenied unless the caller may create and drop views."""
    if not identity.role.is_admin:
        raise PermissionDenied("Permission denied: views are managed by the roles dba and system")


def drop(statement: DropView, txn: DefinitionWriter, context: StatementContext) -> StatementResult:
    """DROP VIEW, in the writer."""
    check_may_define(context.identity)
    namespace, name = _target(statement.view, context)
    full_name = f"{namespace}.{name}"
    if txn.catalog.view(namespace, name) is None:
        if txn.catalog.table(namespace, name) is not None:
            raise ExecutionError(f"Invalid operation: '{full_name}' is a table, not a view; write DROP TABLE")
        if statement.if_exists:
            return StatementResult(message=f"View {full_name} does not exist (skipped)")
        near = nearest(full_name, [view.full_name for view in txn.catalog.views()])
        hint = f". Did you mean '{near}'?" if near else ""
        raise missing_view(full_name, hint, statement.view.line, statement.view.column)
    txn.drop_view(namespace, name)
    return StatementResult(message=f"View {full_name} dropped successfully")


def _target(name: TableName, context: StatementContext) -> tuple[str, str]:
    namespace = name.namespace or context.namespace
    if namespace in SYSTEM_NAMESPACES:
        raise PermissionDenied(f"Permission denied: views cannot be changed in namespace '{namespace}'")
    return namespace, name.name


def refresh_views(table: TableDef, txn: DefinitionWriter, binding: BindContext) -> None:
    """Give the views over a table that was altered the types that their columns have now; broken ones stay."""
    whole = replace(binding, catalog=txn.catalog, role=Role.SYSTEM, parameter_kinds=())
    for view in views_over(table.namespace, table.name, txn.catalog):
        try:
            columns = _columns_of(whole, view)
        except SqlError:
            continue  # it says itself what is missing when it is used
        changed = tuple(ViewColumn(old.name, new.type) for old, new in zip(view.columns, columns, strict=True))
        if changed != view.columns:
            txn.put_view(msgspec.structs.replace(view, columns=changed, updated_at=time_of(txn)))


# --- what is kept -----------------------------------------------------------------------------------------------------


def define(statement: CreateView, view: ViewDef, binding: BindContext) -> ViewDef:
    """The view with its columns, its text and what it reads; raises an SqlError that says what is wrong and where."""
    tree = copied(statement.query)
    for node in tree.find_all(exp.Placeholder):
        raise invalid("A view takes no parameters: it has to mean the same whenever it is used.", node)
    binding = replace(binding, parameter_kinds=())
    name_outputs(tree, text_of)
    reads = _qualify(tree, binding.namespace)
    assert isinstance(tree, exp.Query)
    plan = bind_query(tree, binding)
    columns = tuple(
        ViewColumn(name, column.type)
        for name, column in zip(_names(statement, plan.columns), plan.columns, strict=True)
    )
    starred = fix_stars(tree, lambda query: bind_query(query, binding))
    text = _text(tree, bind_query(tree, binding) if starred else plan, binding)
    if text is None:
        if starred:
            raise Unsupported("The query cannot be kept with its stars written out: name the columns instead of *.")
        text = statement.text
    if len(text) > MAX_TEXT:
        raise ExecutionError(f"Invalid operation: the query of a view has at most {MAX_TEXT:,} characters")
    view = msgspec.structs.replace(view, columns=columns, sql=text, scope=binding.namespace, reads=reads)
    try:
        shown = _columns_of(replace(binding, catalog=binding.catalog.evolve(0, put=[view])), view)
    except SqlError as error:
        error.line, error.column, error.excerpt = statement.view.line, statement.view.column, None
        raise
    if [column.type for column in shown] != [column.type for column in columns]:
        raise Unsupported("The query cannot be kept as text: its columns would be of other types.")
    return view


def _columns_of(binding: BindContext, view: ViewDef) -> tuple[ResultColumn, ...]:
    """The columns of a view as a query sees them."""
    table = exp.table_(view.name, db=view.namespace, quoted=True)
    return bind_query(exp.select("*").from_(table), binding).columns


def _names(statement: CreateView, columns: tuple[ResultColumn, ...]) -> list[str]:
    """The names of the columns: those that were given first, then those of the query."""
    if len(statement.columns) > len(columns):
        raise InvalidSql(
            f"The view is given {len(statement.columns)} columns, but its query has {len(columns)}.",
            line=statement.view.line,
            column=statement.view.column,
        )
    if len(columns) > MAX_COLUMNS:
        raise ExecutionError(f"Invalid operation: a view has at most {MAX_COLUMNS:,} columns, not {len(columns):,}")
    for name in statement.columns:
        check_column_name(name)
    names = [*statement.columns, *(column.name.lower() for column in columns[len(statement.columns) :])]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidSql(
                f"Two columns of the view are called '{name}': name one of them with AS.",
                line=statement.view.line,
                column=statement.view.column,
            )
        seen.add(name)
    return names


def _qualify(tree: exp.Expr, namespace: str) -> tuple[tuple[str, str], ...]:
    """Write the namespace into every table's name; the tables and views that the query names."""
    found: dict[tuple[str, str], None] = {}
    for node in named_tables(tree):
        if not node.db:
            node.set("db", exp.to_identifier(namespace, quoted=True))
        found[node.db, node.name.lower()] = None
    return tuple(found)


def _text(tree: exp.Query, plan: QueryPlan, binding: BindContext) -> str | None:
    """The canonical text, if reading it gives the query of the plan back."""
    wanted = plan.for_duckdb()
    try:
        text = expression_to_text(tree)
        read = parse_batch(text)
        again = bind_query(view_query(ViewDef("", "", (), text)), binding).for_duckdb() if len(read) == 1 else None
    except SqlError:
        return None
    return text if again is not None and (again.sql, again.columns) == (wanted.sql, wanted.columns) else None
