"""The last look at a query before DuckDB runs it: DuckDB's own parse tree, against lists of what is allowed.

sqlglot and DuckDB may read a text differently. So what is checked here is not our syntax tree but DuckDB's,
serialized by DuckDB itself: every kind of node, every table (a scan of ours, or a common table expression in its
scope), every function. What is not on a list is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from sql.allowed_functions import ALLOWED_FUNCTIONS, ALLOWED_TABLE_FUNCTIONS, VOLATILE_FUNCTIONS
from sql.errors import InvalidSql, SqlError, Unsupported
from sql.generate import Places, Positions, source_position

_QUERY_NODES = frozenset(("SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"))
_TABLE_REFS = frozenset(("BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "COLUMN_DATA"))
_EXPRESSIONS = frozenset((
    "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "DEFAULT",
    "FUNCTION", "LAMBDA", "LAMBDA_REF", "OPERATOR", "PARAMETER", "POSITIONAL_REFERENCE", "STAR", "SUBQUERY",
    "TYPE", "WINDOW",
))  # fmt: skip
_VALUE_FUNCTIONS = frozenset((
    "current_catalog", "current_database", "current_date", "current_role", "current_schema", "current_time",
    "current_timestamp", "current_user", "localtime", "localtimestamp", "session_user", "user",
))  # fmt: skip
"""Names that DuckDB takes for functions when no column has them."""
_MODIFIERS = frozenset(("ORDER_MODIFIER", "LIMIT_MODIFIER", "DISTINCT_MODIFIER", "LIMIT_PERCENT_MODIFIER"))


class _Check:
    def __init__(
        self,
        scans: frozenset[str],
        private: frozenset[str],
        columns: frozenset[str],
        positions: Positions,
        places: Places,
    ) -> None:
        self.scans = scans
        self.private = private
        self.columns = columns
        self.positions = positions
        self.places = places
        self.functions: set[str] = set()

    def fail(self, message: str, node: dict[str, Any], kind: type[SqlError] = InvalidSql) -> SqlError:
        offset = node.get("query_location", 0)
        known = isinstance(offset, int) and offset < 2**40
        line, column = source_position(self.positions, offset) if known else (None, None)
        return kind(message, line=line, column=column)

    def no_function(self, what: str, name: str, node: dict[str, Any]) -> SqlError:
        error = self.fail(f"There is no {what} {name}().", node)
        error.line, error.column = self.places.get(name, (error.line, error.column))
        return error

    def walk(self, value: Any, ctes: frozenset[str]) -> None:
        if isinstance(value, list):
            for item in value:
                self.walk(item, ctes)
        elif isinstance(value, dict):
            if "class" in value:
                self.expression(value)
            elif isinstance(value.get("type"), str):
                if "cte_map" in value:
                    ctes = self.query(value, ctes)
                elif "alias" in value and "sample" in value:
                    self.table_ref(value, ctes)
                elif value["type"].endswith("_MODIFIER") and value["type"] not in _MODIFIERS:
                    raise self.fail("This clause is not supported.", value, Unsupported)
            for key, item in value.items():
                if key != "cte_map" and isinstance(item, (dict, list)):
                    self.walk(item, ctes)

    def query(self, node: dict[str, Any], ctes: frozenset[str]) -> frozenset[str]:
        if node["type"] not in _QUERY_NODES:
            raise self.fail("Only queries are allowed here.", node, Unsupported)
        if node["type"] == "RECURSIVE_CTE_NODE":
            ctes |= {str(node["cte_name"]).lower()}
        for entry in node["cte_map"]["map"]:
            inner = entry["value"].get("query_node") or entry["value"].get("query")
            self.walk(inner, ctes)
            ctes |= {str(entry["key"]).lower()}
        return ctes

    def table_ref(self, node: dict[str, Any], ctes: frozenset[str]) -> None:
        kind = node["type"]
        if kind not in _TABLE_REFS:
            raise self.fail("This form of FROM is not supported.", node, Unsupported)
        if kind == "BASE_TABLE":
            name = str(node["table_name"])
            plain = not node.get("schema_name") and not node.get("catalog_name") and not node.get("at_clause")
            if not plain or (name not in self.scans and name.lower() not in ctes):
                raise self.fail("This form of a table's name is not supported.", node, Unsupported)
        elif kind == "TABLE_FUNCTION":
            function = node["function"]
            name = str(function.get("function_name", "")).lower()
            if name not in ALLOWED_TABLE_FUNCTIONS or not _unqualified(function):
                raise self.no_function("table function", name, node)

    def expression(self, node: dict[str, Any]) -> None:
        kind = node["class"]
        if kind not in _EXPRESSIONS:
            raise self.fail("This expression is not supported.", node, Unsupported)
        if kind in {"FUNCTION", "WINDOW"}:
            name = str(node.get("function_name", "")).lower()
            known = name in ALLOWED_FUNCTIONS or name.upper() in ALLOWED_FUNCTIONS or name in ALLOWED_TABLE_FUNCTIONS
            if not (known or name in self.private) or not _unqualified(node):
                raise self.no_function("function", name, node)
            if node.get("export_state"):
                raise self.fail("EXPORT_STATE is not supported.", node, Unsupported)
            self.functions.add(name)
        elif kind == "COLUMN_REF":
            names = node.get("column_names", [])
            if len(names) == 1 and names[0].lower() in _VALUE_FUNCTIONS - self.columns:
                raise self.fail(f"Column not found: '{names[0]}'", node)


def _unqualified(function: dict[str, Any]) -> bool:
    return not function.get("schema") and not function.get("catalog")


def check(
    serialize: Callable[[str], str],
    text: str,
    positions: Positions,
    scans: Iterable[str],
    private_functions: frozenset[str],
    columns: Iterable[str],
    places: Places,
) -> bool:
    """Raise unless DuckDB reads the text as one query over the scans; true when it calls volatile functions.

    `serialize` is DuckDB's json_serialize_sql; `columns` are the names that mean columns in this query,
    `places` where functions are called in the request's text.
    """
    try:
        answer = msgspec.json.decode(serialize(text))
    except RecursionError:
        raise InvalidSql("The query nests too deeply.") from None
    if answer.get("error"):
        message = str(answer.get("error_message", ""))
        if "Only SELECT" in message:
            raise Unsupported("This form of query is not supported.")
        offset = int(answer.get("position") or 0)
        line, column = source_position(positions, offset)
        raise InvalidSql(f"The query is not valid: {message}", line=line, column=column)
    statements = answer["statements"]
    if len(statements) != 1:
        raise InvalidSql("One query at a time.")
    checker = _Check(frozenset(scans), private_functions, frozenset(columns), positions, places)
    checker.walk(statements[0]["node"], frozenset())
    return bool(checker.functions & VOLATILE_FUNCTIONS)
