"""Changes to a query's syntax tree on its way to DuckDB: our functions, hidden parameters, names of outputs.

NOW() and its relatives, CURRENT_USER and CURRENT_ROLE become hidden parameters, so that a cached plan holds for
every moment and every user. SNOWFLAKE_ID(), UUID_V7() and ULID() become calls of functions that the connection
pool registers; RANDOM() is their argument only to make DuckDB call them once for every row.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from sql.output_names import WRITTEN
from sql.plan import Source
from sql.scope import TableUse, invalid, shows_several

PRIVATE_PREFIX = "__hr_"
"""Functions of ours inside DuckDB; a query that names one is refused."""

SNOWFLAKE_FUNCTION = f"{PRIVATE_PREFIX}snowflake_id"
UUID_FUNCTION = f"{PRIVATE_PREFIX}uuid_v7"
ULID_FUNCTION = f"{PRIVATE_PREFIX}ulid"
PRIVATE_FUNCTIONS = frozenset((SNOWFLAKE_FUNCTION, UUID_FUNCTION, ULID_FUNCTION))

_GENERATORS = {"snowflake_id": SNOWFLAKE_FUNCTION, "uuid_v7": UUID_FUNCTION, "ulid": ULID_FUNCTION}
_NOW = {"now", "current_timestamp", "get_current_timestamp", "transaction_timestamp", "localtimestamp"}
_TODAY = {"today", "current_date"}
_TIME = {"get_current_time", "current_time", "localtime", "current_localtime"}
_USER = {"current_user", "session_user", "user"}


class HiddenParameters:
    """Gives each source of hidden values a parameter index behind those of the request."""

    def __init__(self, request_parameters: int) -> None:
        self._next = request_parameters + 1
        self.indexes: dict[Source, int] = {}

    def placeholder(self, source: Source) -> exp.Placeholder:
        """A reference to the hidden parameter of that source."""
        if source not in self.indexes:
            self.indexes[source] = self._next
            self._next += 1
        return exp.Placeholder(this=str(self.indexes[source]))


def rewrite_functions(tree: exp.Expr, hidden: HiddenParameters) -> tuple[exp.Expr, bool]:
    """Replace the functions that Headrace defines; also tells whether one of them is volatile."""
    volatile = False
    for node in list(tree.find_all(exp.Func)):
        name = function_name(node)
        if name.startswith(PRIVATE_PREFIX):
            raise invalid(f"There is no function {name}().", node)
        replacement = _replacement(node, name, hidden)
        if replacement is None:
            continue
        volatile = volatile or name in _GENERATORS
        replacement.meta.update(node.meta)
        if node is tree:
            tree = replacement
        else:
            node.replace(replacement)
    return tree, volatile


def rewrite_bare_functions(tree: exp.Expr, uses: list[TableUse], hidden: HiddenParameters) -> None:
    """Replace the functions that are written as names, such as CURRENT_ROLE, where no column has that name."""
    for column in list(tree.find_all(exp.Column)):
        if _is_bare_function(column, uses):
            replacement = _replacement(exp.Anonymous(this=column.name), column.name.lower(), hidden)
            if replacement is not None:
                if isinstance(column.parent, exp.Select) and column.arg_key == "expressions":
                    replacement = exp.alias_(replacement, column.name, quoted=True, copy=False)
                column.replace(replacement)


def _is_bare_function(column: exp.Column, uses: list[TableUse]) -> bool:
    """Whether a name is one of the functions that are written without parentheses, and no column's."""
    name = column.name.lower()
    plain = len(column.parts) == 1 and isinstance(column.this, exp.Identifier) and not column.this.quoted
    bare = name == "current_role" or name in _USER or name in {"localtimestamp", "localtime"}
    return plain and bare and all(use.type_of(name) is None for use in uses)


def function_name(node: exp.Func) -> str:
    """A function's name in lower case, as written where sqlglot keeps it."""
    if isinstance(node, (exp.Anonymous, exp.AnonymousAggFunc)):
        name = node.this
        return (name if isinstance(name, str) else name.name).lower()
    return node.sql_name().lower()


def _replacement(node: exp.Func, name: str, hidden: HiddenParameters) -> exp.Expr | None:
    arguments = node.expressions if isinstance(node, exp.Anonymous) else []
    if name in _GENERATORS:
        _takes_nothing(node, name, arguments)
        return exp.Anonymous(this=_GENERATORS[name], expressions=[exp.Rand()])
    if name in _NOW:
        return _timestamp(hidden)
    if name in _TODAY:
        return exp.cast(_timestamp(hidden), "DATE")
    if name in _TIME:
        return exp.cast(_timestamp(hidden), "TIME")
    if name in _USER:
        return exp.cast(hidden.placeholder(Source.USER), "VARCHAR")
    if name == "current_role":
        return exp.cast(hidden.placeholder(Source.ROLE), "VARCHAR")
    if name == "age" and len(arguments) == 1:
        return exp.Anonymous(this="age", expressions=[exp.cast(_timestamp(hidden), "DATE"), arguments[0]])
    return None


def _timestamp(hidden: HiddenParameters) -> exp.Expr:
    return exp.Paren(this=hidden.placeholder(Source.NOW))


def _takes_nothing(node: exp.Func, name: str, arguments: list[exp.Expr]) -> None:
    if arguments:
        raise invalid(f"{name.upper()}() takes no argument.", node)


def name_outputs(tree: exp.Expr, text_of: Callable[[exp.Expr], str]) -> None:
    """Give every unnamed SELECT item the name that its text is, before rewriting changes the text."""
    for select in tree.find_all(exp.Select):
        items = select.expressions
        named = [_named(item, text_of) for item in items]
        if any(new is not old for new, old in zip(named, items, strict=True)):
            select.set("expressions", named)


def _named(item: exp.Expr, text_of: Callable[[exp.Expr], str]) -> exp.Expr:
    if isinstance(item, (exp.Alias, exp.Aliases, exp.Column)) or shows_several(item):
        return item
    if item.find(exp.Columns, exp.Unnest, exp.Explode):
        return item
    name = item.meta.get(WRITTEN) or text_of(item)
    return exp.Alias(this=item, alias=exp.to_identifier(name, quoted=True))


def point_at_scans(uses: list[TableUse]) -> None:
    """Replace the names of tables by their scans, keeping what the query calls them."""
    for use in uses:
        node = use.node
        node.set("this", exp.to_identifier(use.scan_name, quoted=True))
        node.set("db", None)
        node.set("catalog", None)
        alias = node.args.get("alias")
        if isinstance(alias, exp.TableAlias):
            if alias.this is None:
                alias.set("this", exp.to_identifier(use.alias, quoted=True))
        else:
            node.set("alias", exp.TableAlias(this=exp.to_identifier(use.alias, quoted=True)))


def unqualify_columns(tree: exp.Expr, uses: list[TableUse]) -> None:
    """`namespace.table.column` becomes `table.column` where the table is one that the query reads unaliased."""
    named = {(use.target.namespace, use.alias) for use in uses}
    for column in tree.find_all(exp.Column):
        db = column.args.get("db")
        if isinstance(db, exp.Identifier) and (db.name, column.table) in named:
            column.set("db", None)
            column.set("catalog", None)
