"""Which queries need no DuckDB: one table, plain columns, a condition that `sql.expressions` covers, LIMIT.

Parameters are typed by the column that they are compared with, as DuckDB would; a parameter anywhere else makes the
query DuckDB's. ORDER BY is native only when it is the primary key's own order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from sqlglot import exp

from sql.expressions import CompiledExpression, compile_expression
from sql.generate import ParameterTypes
from sql.index_order import index_order
from sql.outputs import column_flags, sources
from sql.plain import parameter_index, plain_value
from sql.plan import Constant, NativePlan, Operand, ParameterRef
from sql.results import ResultColumn
from sql.rights import nearest
from sql.scope import TableUse, invalid, is_star, renames_columns, star_qualifier
from storage.catalog import TableDef
from storage.types import BIGINT, TEXT, ColumnType, Kind

_CLAUSES = frozenset(("expressions", "from_", "where", "order", "limit", "offset", "kind", "hint"))
_COMPARISONS = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.NullSafeEQ, exp.NullSafeNEQ)


def plan_native(
    tree: exp.Expr, uses: Sequence[TableUse]
) -> tuple[NativePlan, tuple[ResultColumn, ...], ParameterTypes] | None:
    """The native plan with its result columns and parameter types, or None."""
    if not isinstance(tree, exp.Select) or len(uses) != 1 or uses[0].select is not tree:
        return None
    if any(value and key not in _CLAUSES for key, value in tree.args.items()) or tree.args.get("kind"):
        return None
    use = uses[0]
    found, alone = sources(tree, uses)
    if not isinstance(use.target, TableDef) or not alone or found != [use] or not _plain_table(use.node):
        return None
    counts = _counts_rows(tree)
    outputs = [] if counts else plain_outputs(tree, use)
    if outputs is None:
        return None
    parameters = parameter_types(tree, use)
    if parameters is None:
        return None
    where = tree.args.get("where")
    condition = None if where is None else compile_condition(where, use, parameters)
    if where is not None and condition is None:
        return None
    direction = _key_order(tree, use)
    limit, offset = _count(tree, "limit", exp.Limit), _count(tree, "offset", exp.Offset)
    if isinstance(limit, bool) or isinstance(offset, bool) or (counts and (limit or offset)):
        return None
    order = None
    if direction is None:
        order = index_order(tree, use, parameters) if limit is not None and not counts else None
        if order is None:
            return None
    plan = NativePlan(
        projection=tuple(name for _, name in outputs),
        condition=condition,
        descending=direction is not None and direction < 0,
        limit=limit,
        offset=offset,
        counts=counts,
        order=order,
    )
    if counts:
        name = tree.expressions[0].alias_or_name
        return plan, (ResultColumn(name, BIGINT),), parameters
    columns = tuple(
        ResultColumn(shown, use.type_of(name) or TEXT, column_flags((use, name))) for shown, name in outputs
    )
    return plan, columns, parameters


def _plain_table(node: exp.Table) -> bool:
    return not renames_columns(node) and not any(
        value for key, value in node.args.items() if key not in {"this", "db", "catalog", "alias"}
    )


def _counts_rows(tree: exp.Select) -> bool:
    """`SELECT COUNT(*)` and nothing else."""
    if len(tree.expressions) != 1 or tree.args.get("order"):
        return False
    item = tree.expressions[0].unalias()
    return isinstance(item, exp.Count) and isinstance(item.this, exp.Star) and not item.this.args.get("except_")


def compile_condition(where: exp.Where, use: TableUse, parameters: ParameterTypes) -> CompiledExpression | None:
    """The condition of a WHERE over one table, or None where only DuckDB knows it."""
    types = use.column_types | {name: kind for name in ("_seq", "_deleted") if (kind := use.type_of(name))}
    spelled = {**types, **{f"{use.alias}.{name}": kind for name, kind in types.items()}}
    condition = compile_expression(where.this, spelled, {n: kind for n, (kind, _) in parameters.items()})
    return None if condition is None or condition.type.kind is not Kind.BOOLEAN else condition


def plain_outputs(tree: exp.Select, use: TableUse) -> list[tuple[str, str]] | None:
    """(shown name, column) of each output when all are plain columns."""
    found: list[tuple[str, str]] = []
    for item in tree.expressions:
        if is_star(item):
            star = item if isinstance(item, exp.Star) else item.this
            if any(star.args.values()) or star_qualifier(item) not in {"", use.alias}:
                return None
            found += [(name, name) for name in use.column_types]
            continue
        column = item.unalias()
        if not isinstance(column, exp.Column) or column.args.get("db"):
            return None
        name = column.name.lower()
        if column.table and column.table.lower() != use.alias:
            return None
        if use.type_of(name) is None:
            if not column.table and name == use.alias:
                return None
            raise unknown_column(column, name, use)
        found.append((item.alias if isinstance(item, exp.Alias) else name, name))
    return found


def unknown_column(node: exp.Expr, name: str, use: TableUse) -> Exception:
    """The error for a name that is no column of the table."""
    near = nearest(name, use.column_types)
    return invalid(f"Column not found: '{name}'" + (f". Did you mean '{near}'?" if near else ""), node)


def parameter_types(
    tree: exp.Select, use: TableUse, known: Mapping[int, ColumnType] = MappingProxyType({})
) -> ParameterTypes | None:
    """The type of every parameter, or None when one stands where no column types it, or in two types.

    `known` are the types of parameters that have one of their own.
    """
    found: ParameterTypes = {}
    for node in tree.find_all(exp.Placeholder):
        index = parameter_index(node)
        kind = known.get(index or 0) or _context_type(node, use)
        if kind is None or index is None or found.get(index, (kind, False)) != (kind, False):
            return None
        found[index] = (kind, False)
    return found


def _context_type(node: exp.Expr, use: TableUse) -> ColumnType | None:
    parent = node.parent
    while isinstance(parent, exp.Paren):
        node, parent = parent, parent.parent
    if isinstance(parent, (exp.Limit, exp.Offset)):
        return BIGINT
    if isinstance(parent, _COMPARISONS):
        return _column_type(parent.expression if node is parent.this else parent.this, use)
    if isinstance(parent, (exp.In, exp.Between)) and node is not parent.this:
        return _column_type(parent.this, use)
    if isinstance(parent, (exp.Like, exp.ILike)) and node is not parent.this:
        kind = _column_type(parent.this, use)
        return kind if kind is not None and kind.kind is Kind.TEXT else None
    return None


def _column_type(node: exp.Expr, use: TableUse) -> ColumnType | None:
    while isinstance(node, exp.Paren):
        node = node.this
    if not isinstance(node, exp.Column) or (node.table and node.table.lower() != use.alias) or node.args.get("db"):
        return None
    return use.type_of(node.name.lower())


def _key_order(tree: exp.Select, use: TableUse) -> int | None:
    """1 for no ORDER BY or the key's own order, -1 for its reverse, None for another order."""
    order = tree.args.get("order")
    if order is None:
        return 1
    keys = use.target.key_columns if isinstance(use.target, TableDef) else ()
    items = order.expressions
    if not keys or len(items) != len(keys):
        return None
    aliases = {item.alias.lower() for item in tree.expressions if isinstance(item, exp.Alias)}
    directions = set()
    for item, column in zip(items, keys, strict=True):
        node = item.this
        named = isinstance(node, exp.Column) and _column_type(node, use) is not None
        if not named or node.name.lower() != column.name or (not node.table and column.name in aliases):
            return None
        if column.type.kind in {Kind.FLOAT, Kind.DOUBLE}:
            return None
        directions.add(-1 if item.args.get("desc") else 1)
    return directions.pop() if len(directions) == 1 else None


def _count(tree: exp.Select, key: str, kind: type[exp.Expr]) -> Operand | bool | None:
    """The operand of LIMIT or OFFSET; None without one, False when it is computed."""
    clause = tree.args.get(key)
    if clause is None:
        return None
    if type(clause) is not kind:
        return False
    node = clause.expression
    index = parameter_index(node)
    if index is not None:
        return ParameterRef(index)
    value = plain_value(node)
    return Constant(value) if type(value) is int and 0 <= value < 2**63 else False
