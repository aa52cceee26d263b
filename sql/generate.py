"""DuckDB's text of a bound syntax tree, with the source position of every name in it.

Positions travel inside quoted identifiers as a marker that no request's text contains, and are taken out of the
finished text again. They serve error messages only.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping

from sqlglot import ErrorLevel, exp
from sqlglot.dialects.duckdb import DuckDB

from sql.duck_types import duck_name
from sql.parser_names import KEPT_NAMES
from sql.scope import position
from sql.syntax import copied
from storage.types import ColumnType, Kind

Positions = tuple[tuple[int, int, int], ...]
Places = Mapping[str, tuple[int | None, int | None]]
"""Line and column of the first call of each function, by its name in lower case."""
ParameterTypes = dict[int, tuple[ColumnType, bool]]
"""The type of each `$n`, and whether it is a list of such values."""

_DIALECT = DuckDB()
_KEPT_NAME = re.compile(rf"\b{KEPT_NAMES}(?=\w+\()")
_OPEN, _CLOSE = "\x01", "\x02"
_MARKER = re.compile("\x01(\\d+):(\\d+)\x02")


def quote_and_mark(tree: exp.Expr) -> bool:
    """Quote every name and put its position into it; false if the text itself holds marker characters."""
    marks = not any(_OPEN in str(node.this) for node in tree.find_all(exp.Identifier, exp.Literal))
    for identifier in tree.find_all(exp.Identifier):
        if not isinstance(identifier.this, str):
            continue
        identifier.set("quoted", True)
        if marks and isinstance(identifier.parent, exp.Column):
            line, column = position(identifier)
            if line is not None:
                identifier.set("this", f"{_OPEN}{line}:{column}{_CLOSE}{identifier.this}")
    return marks


def generate(
    tree: exp.Expr, parameters: Mapping[int, tuple[ColumnType, bool]], *, marked: bool, as_nulls: bool = False
) -> tuple[str, Positions]:
    """The text, with parameters as typed expressions where their type is known, and the positions in it.

    When all are known, they are numbered without gaps, in the order of their indexes. With `as_nulls` a typed NULL
    stands for each. Raises sqlglot's UnsupportedError where the text would leave out something that the tree says.
    """
    if parameters:
        tree = copied(tree)
        nodes = list(tree.find_all(exp.Placeholder))
        places = {index: index for index in parameters}
        if all(int(node.name) in parameters for node in nodes):
            places = {index: place for place, index in enumerate(sorted(parameters), start=1)}
        for node in nodes:
            known = parameters.get(int(node.name))
            if known is not None:
                typed = _raw(_null_sql(*known) if as_nulls else parameter_sql(places[int(node.name)], *known))
                if node is tree:
                    tree = typed
                else:
                    node.replace(typed)
    else:
        tree = copied(tree)
    text = _DIALECT.generate(tree, copy=False, comments=False, unsupported_level=ErrorLevel.RAISE)
    return _without_markers(text) if marked else (text, ())


def text_of(node: exp.Expr) -> str:
    """An expression as text for the name of an output column: functions in lower case."""
    text = _DIALECT.generate(copied(node), copy=False, comments=False, normalize_functions="lower")
    return _KEPT_NAME.sub("", text)


def _raw(text: str) -> exp.Expr:
    """A piece of DuckDB's text that we wrote, as a node."""
    return exp.Var(this=text)


def _without_markers(text: str) -> tuple[str, Positions]:
    parts: list[str] = []
    positions: list[tuple[int, int, int]] = []
    offset = last = 0
    for match in _MARKER.finditer(text):
        piece = text[last : match.start()]
        parts.append(piece)
        offset += len(piece.encode())
        positions.append((offset, int(match[1]), int(match[2])))
        last = match.end()
    parts.append(text[last:])
    return "".join(parts), tuple(positions)


def source_position(positions: Positions, offset: int) -> tuple[int | None, int | None]:
    """Line and column of the name nearest to a byte offset of the text: the next within 200 bytes, else the last."""
    at = bisect_left(positions, (offset - 1, 0, 0))
    if at < len(positions) and positions[at][0] - offset < 200:
        return positions[at][1], positions[at][2]
    if at:
        return positions[at - 1][1], positions[at - 1][2]
    return None, None


def parameter_sql(index: int, column_type: ColumnType, is_list: bool = False) -> str:
    """`$index` as DuckDB's expression of a type, from the value that `duck_value` gives."""
    if is_list:
        element = parameter_sql(0, column_type).replace("$0", "x")
        carrier = _carrier(column_type)
        return f"list_transform(CAST(${index} AS {carrier}[]), lambda x: {element})"
    name = f"${index}"
    match column_type.kind:
        case Kind.TIMESTAMP:
            return f"make_timestamp(CAST({name} AS BIGINT))"
        case Kind.DATETIME:
            return f"make_timestamptz(CAST({name} AS BIGINT))"
        case Kind.DATE:
            return f"(DATE '1970-01-01' + CAST({name} AS INTEGER))"
        case Kind.TIME:
            return f"CAST(make_timestamp(CAST({name} AS BIGINT)) AS TIME)"
        case _:
            return f"CAST({name} AS {duck_name(column_type)})"


def _null_sql(column_type: ColumnType, is_list: bool = False) -> str:
    return f"CAST(NULL AS {duck_name(column_type)}{'[]' * is_list})"


def _carrier(column_type: ColumnType) -> str:
    match column_type.kind:
        case Kind.TIMESTAMP | Kind.DATETIME | Kind.TIME | Kind.DATE:
            return "BIGINT"
        case Kind.DECIMAL | Kind.UUID:
            return "VARCHAR"
        case _:
            return duck_name(column_type)


def duck_value(column_type: ColumnType, value: object, is_list: bool = False) -> object:
    """A storage value as the Python value that `parameter_sql` expects."""
    if value is None:
        return None
    if is_list:
        assert isinstance(value, (list, tuple))
        return [duck_value(column_type, item) for item in value]
    if column_type.kind is Kind.UUID:
        assert isinstance(value, bytes)
        return value.hex()
    if column_type.kind is Kind.DECIMAL:
        return format(value, "f")
    return value
