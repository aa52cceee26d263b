"""Sources of topics: from ALTER TOPIC … ADD SOURCE to what the topic keeps, and what ALTER TABLE may do to them.

A condition is kept as canonical SQL text, like a CHECK, and evaluated for ever after without the request that brought
it. So everything that could keep it from being evaluated is refused here: a condition that fails later fails writes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sqlglot import exp

from sql.binder import BindContext
from sql.errors import ExecutionError, InvalidSql, SqlError, Unsupported
from sql.identity import Role
from sql.live.live_plan import plan_live
from sql.live.query_form import VOLATILE
from sql.rewrite import function_name
from sql.rights import nearest
from sql.scope import is_star, position
from sql.stored_text import expression_from_text, expression_to_text
from sql.topic_statements import AddTopicSource, SourceOperation
from sql.topics.conditions import bind_condition
from sql.wire import BigintMode
from storage.catalog import Catalog, ColumnDef, TableDef
from storage.topic_definitions import Operation, PayloadMode, TopicDef, TopicSource
from storage.types import Kind

OPERATIONS: Final[dict[SourceOperation, Operation]] = {
    "insert": Operation.INSERT,
    "update": Operation.UPDATE,
    "delete": Operation.DELETE,
}
_STREAM_REFUSALS: Final = {
    Operation.UPDATE: "its rows are never updated",
    Operation.DELETE: "its rows expire by themselves, which is no message",
}
_REFUSED: Final[tuple[tuple[type[exp.Expr] | tuple[type[exp.Expr], ...], str], ...]] = (
    ((exp.Query, exp.Exists), "A subquery"),
    (exp.Window, "A window function"),
    (exp.AggFunc, "An aggregate function"),
    ((exp.Unnest, exp.Explode), "UNNEST, which makes several rows of one,"),
    ((exp.Star, exp.Columns), "A star"),
)
_PLAIN_QUERY: Final = frozenset(("expressions", "from_", "where"))


def shown_operations(operations: tuple[Operation, ...]) -> str:
    """Operations as messages about sources name them: `Insert, Update`."""
    return ", ".join(operation.name.capitalize() for operation in operations)


def sources_of(
    statement: AddTopicSource, topic: TopicDef, table: TableDef, context: BindContext
) -> tuple[TopicSource, ...]:
    """The sources that the statement adds, one for each operation, with the ids that the topic has next.

    Raises an SqlError that says what is wrong and where.
    """
    operations = tuple(OPERATIONS[name] for name in statement.operations)
    if table.expires:
        for operation in operations:
            if operation in _STREAM_REFUSALS:
                raise Unsupported(
                    f"ON {operation.name} is not supported for the STREAM table {table.full_name}: "
                    f"{_STREAM_REFUSALS[operation]}. It can be a source ON INSERT."
                )
    taken = {source.operation for source in topic.sources if source.table_id == table.table_id}
    if taken.intersection(operations):
        both = tuple(operation for operation in operations if operation in taken)
        raise ExecutionError(
            f"Already exists: Topic '{topic.full_name}' has the source {table.full_name} ON {shown_operations(both)}; "
            "drop it first to replace it"
        )
    payload = PayloadMode[statement.payload.upper()]
    try:
        columns = () if statement.query is None else _projection(statement.query, table)
        condition = None if statement.condition is None else _condition(statement, table, context)
    except SqlError as error:
        if error.line is None:  # what is wrong has no place of its own
            error.line, error.column = statement.table.line, statement.table.column
        raise
    if columns and payload is PayloadMode.KEY:
        raise InvalidSql(
            "A payload of 'key' shows the key columns and nothing else: write SELECT *, or another payload.",
            line=statement.table.line,
            column=statement.table.column,
        )
    return tuple(
        TopicSource(topic.next_source_id + place, table.table_id, operation, payload, condition, columns)
        for place, operation in enumerate(operations)
    )


# --- the query of a source --------------------------------------------------------------------------------------------


def _projection(query: exp.Select, table: TableDef) -> tuple[int, ...]:
    """The ids of the columns that the query shows; none for `*`."""
    for key, clause in query.args.items():
        if clause and key not in _PLAIN_QUERY and key not in {"kind", "hint"}:
            node = clause[0] if isinstance(clause, list) else clause
            name = key.rstrip("_").upper()
            raise _unsupported(
                f"{name} is not supported in a topic's source: it takes columns of one table and a WHERE.",
                node if isinstance(node, exp.Expr) else query,
            )
    source = query.args["from_"].this
    for part in ("joins", "sample", "pivots", "laterals"):
        if source.args.get(part):
            raise _unsupported("A topic's source takes FROM one table as it is.", source)
    alias = _alias(query)
    if isinstance(source.args.get("alias"), exp.TableAlias) and source.args["alias"].columns:
        raise _unsupported("Naming a table's columns anew is not supported in a topic's source.", source)
    items = query.expressions
    if len(items) == 1 and is_star(items[0]):
        star = items[0] if isinstance(items[0], exp.Star) else items[0].this
        if not any(star.args.values()) and (not isinstance(items[0], exp.Column) or items[0].table == alias):
            return ()
    found: dict[int, None] = {}
    for item in items:
        if not isinstance(item, exp.Column) or is_star(item) or item.table not in {"", alias} or item.args.get("db"):
            raise _unsupported(
                "A topic's source shows columns as they are: expressions and other names are not supported.", item
            )
        column = _column(item, table)
        found[column.column_id] = None
    return tuple(found)


def _column(item: exp.Column, table: TableDef) -> ColumnDef:
    column = table.by_name.get(item.name)
    if column is None:
        near = nearest(item.name, table.by_name)
        hint = f". Did you mean '{near}'?" if near else ""
        line, at = position(item)
        raise InvalidSql(f"Column not found: '{item.name}'{hint}", line=line, column=at)
    return column


def _alias(query: exp.Select) -> str:
    """What the query calls its table."""
    name: str = query.args["from_"].this.alias_or_name
    return name


def _unsupported(message: str, node: exp.Expr) -> Unsupported:
    line, column = position(node)
    return Unsupported(message, line=line, column=column)


# --- its condition ----------------------------------------------------------------------------------------------------


def _condition(statement: AddTopicSource, table: TableDef, context: BindContext) -> str:
    """The condition as it is kept: bound, and bound again as it will be read."""
    assert statement.condition is not None
    condition = statement.condition.copy()
    alias = table.name if statement.query is None else _alias(statement.query)
    for column in condition.find_all(exp.Column):
        if column.table == alias and not column.args.get("db"):
            column.set("table", None)
    for node in condition.walk():
        for kinds, what in _REFUSED:
            if isinstance(node, kinds):
                raise _unsupported(f"{what} is not supported in the condition of a topic's source.", node)
        if isinstance(node, exp.Func) and function_name(node) in VOLATILE:
            raise _unsupported(
                f"{function_name(node).upper()}() is not supported in the condition of a topic's source: it has "
                "another value each time.",
                node,
            )
    bind_condition(condition, table, context)
    _require_boolean(condition, table, context)
    text = expression_to_text(condition)
    try:
        bind_condition(expression_from_text(text), table, context)
    except SqlError as error:
        raise _unsupported(f"The condition cannot be kept as SQL text: {error.message}", condition) from error
    return text


def _require_boolean(condition: exp.Expr, table: TableDef, context: BindContext) -> None:
    """What is no condition might be made one by a cast, which fails for some rows."""
    query = (
        exp.select(exp.alias_(condition.copy(), "condition", quoted=True))
        .from_(exp.table_(table.name, db=table.namespace, quoted=True))
    )  # fmt: skip
    whole = replace(context, role=Role.SYSTEM, namespace=table.namespace, parameter_kinds=())
    kind = plan_live(query, whole, (condition.sql(), "type"), bigint=BigintMode.NUMBER).columns[0].type
    if kind.kind is not Kind.BOOLEAN:
        line, column = position(condition)
        raise InvalidSql(f"WHERE takes a condition, not a value of type {kind}.", line=line, column=column)


# --- what ALTER TABLE may do ------------------------------------------------------------------------------------------


def refuse_in_sources(table: TableDef, column: ColumnDef, catalog: Catalog, verb: str, *, shown: bool = True) -> None:
    """Raise ExecutionError when a source's condition, or (with `shown`) the columns that it shows, name the column."""
    for topic, source in catalog.sources_of(table.table_id):
        in_condition = source.condition is not None and column.name in _names(source.condition)
        if in_condition or (shown and column.column_id in source.columns):
            place = "condition" if in_condition else "columns"
            raise ExecutionError(
                f"Invalid operation: Column '{column.name}' is used by the {place} of the source {table.full_name} ON "
                f"{shown_operations((source.operation,))} of topic '{topic.full_name}'; not {verb}"
            )


def check_bound(table: TableDef, catalog: Catalog, context: BindContext) -> None:
    """Raise ExecutionError when a source's condition does not fit the table as it is defined now."""
    for topic, source in catalog.sources_of(table.table_id):
        if source.condition is None:
            continue
        try:
            bind_condition(expression_from_text(source.condition), table, replace(context, catalog=catalog))
        except SqlError as error:
            raise ExecutionError(
                f"Invalid operation: the condition of the source {table.full_name} ON "
                f"{shown_operations((source.operation,))} of topic '{topic.full_name}' would no longer fit the table: "
                f"{error.message}"
            ) from error


def _names(condition: str) -> frozenset[str]:
    """What the columns of a kept condition are spelt with: a qualifier may be a column, too."""
    columns = expression_from_text(condition).find_all(exp.Column)
    return frozenset(part.name for column in columns for part in column.parts)
