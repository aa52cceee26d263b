"""DEFAULT expressions: a literal, or a function that makes a value for each row or for each statement.

A default is checked and compiled when it is declared, so an INSERT never meets a wrong one. Its canonical text is
what the catalog keeps and DESCRIBE shows.

=============================  ==================================  =====================
function                       types of column                     new value for
=============================  ==================================  =====================
NOW(), CURRENT_TIMESTAMP       TIMESTAMP, DATETIME, DATE, TIME     each statement
SNOWFLAKE_ID()                 BIGINT, TEXT                        each row
UUID_V7()                      UUID, TEXT                          each row
ULID()                         TEXT                                each row
CURRENT_USER()                 TEXT                                each statement
=============================  ==================================  =====================
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import pyarrow as pa
from sqlglot import exp

from sql.errors import ExecutionError, SqlError
from sql.functions import FunctionContext
from sql.plain import NOT_PLAIN, plain_value
from sql.stored_text import expression_from_text, expression_to_text
from sql.values import converter
from storage.catalog import ColumnDef
from storage.types import ColumnType, Kind, arrow_type

DAY_US = 86_400_000_000

_FITTING: dict[str, frozenset[Kind]] = {
    "NOW": frozenset({Kind.TIMESTAMP, Kind.DATETIME, Kind.DATE, Kind.TIME}),
    "SNOWFLAKE_ID": frozenset({Kind.BIGINT, Kind.TEXT}),
    "UUID_V7": frozenset({Kind.UUID, Kind.TEXT}),
    "ULID": frozenset({Kind.TEXT}),
    "CURRENT_USER": frozenset({Kind.TEXT}),
}
_ANONYMOUS = {"NOW", "CURRENT_TIMESTAMP", "SNOWFLAKE_ID", "UUID_V7", "UUIDV7", "ULID", "CURRENT_USER"}
_SYNONYMS = {"CURRENT_TIMESTAMP": "NOW", "UUIDV7": "UUID_V7"}


class ValueSources(NamedTuple):
    """Where generated values come from: id generators, the statement's time, the caller."""

    functions: FunctionContext
    now_us: int
    user: str


class Default:
    """A compiled default of one column. `function` is None for a constant."""

    __slots__ = ("_value", "column_type", "expression", "function", "text")

    def __init__(
        self, column_type: ColumnType, expression: exp.Expr, function: str | None, value: object = None
    ) -> None:
        self.column_type = column_type
        self.expression = expression
        self.function = function
        self._value = value
        self.text = f"{function}()" if function is not None else expression_to_text(expression)

    @property
    def volatile(self) -> bool:
        """Whether rows, or users, must not share one value."""
        return self.function not in {None, "NOW"}

    def fixed(self, now_us: int) -> object:
        """The storage value of a default that is not volatile."""
        assert not self.volatile
        return self._now(now_us) if self.function == "NOW" else self._value

    def scalar(self, sources: ValueSources) -> object:
        """One storage value."""
        function = self.function
        if function is None:
            return self._value
        text = self.column_type.kind is Kind.TEXT
        if function == "SNOWFLAKE_ID":
            number = sources.functions.snowflake_id()
            return str(number) if text else number
        if function == "NOW":
            return self._now(sources.now_us)
        if function == "UUID_V7":
            return sources.functions.uuid_v7() if text else sources.functions.uuid_v7_bytes(1).tobytes()
        return sources.functions.ulid() if function == "ULID" else sources.user

    def array(self, count: int, sources: ValueSources) -> pa.Array:
        """A column of `count` values."""
        target = arrow_type(self.column_type)
        functions = sources.functions
        if self.function == "SNOWFLAKE_ID":
            return pa.array(functions.snowflake_ids(count)).cast(target)
        if self.function == "ULID":
            return pa.array(functions.ulids(count), target)
        if self.function == "UUID_V7":
            if self.column_type.kind is Kind.TEXT:
                return pa.array(functions.uuid_v7s(count), target)
            return pa.Array.from_buffers(target, count, [None, pa.py_buffer(functions.uuid_v7_bytes(count).tobytes())])
        return constant_array(self.column_type, self.scalar(sources), count)

    def _now(self, now_us: int) -> int:
        if self.column_type.kind is Kind.DATE:
            return now_us // DAY_US
        return now_us % DAY_US if self.column_type.kind is Kind.TIME else now_us


def fitting_generator(expression: exp.Expr, column_type: ColumnType) -> Default | None:
    """The function as a generator of a column's values, when it is one and the column takes them as they are."""
    function = _function_of(expression)
    if function is None or column_type.kind not in _FITTING[function]:
        return None
    return Default(column_type, expression, function)


def compile_default(expression: exp.Expr, column: str, column_type: ColumnType) -> Default:
    """Check a DEFAULT expression against its column; raises ExecutionError that names the column."""
    if column_type.kind is Kind.FILE and not isinstance(expression, exp.Null):
        raise ExecutionError(f"Invalid operation: column '{column}' is of type FILE and takes no DEFAULT but NULL")
    default = compile_generator(expression, column_type)
    if default is not None:
        return default
    value = plain_value(expression, column_type)
    if value is NOT_PLAIN:
        known = ", ".join(f"{name}()" for name in _FITTING)
        raise ExecutionError(
            f"Invalid operation: DEFAULT {expression_to_text(expression)} of column '{column}' must be a literal or "
            f"one of {known}"
        )
    try:
        stored = None if value is None else converter(column_type, column)(value)
    except SqlError as error:
        raise ExecutionError(f"Invalid operation: DEFAULT of column '{column}': {error.message}") from None
    return Default(column_type, expression, None, stored)


def compile_generator(expression: exp.Expr, column_type: ColumnType) -> Default | None:
    """The default if the expression is one of the functions above; an error if it does not fit the type."""
    function = _function_of(expression)
    if function is None:
        return None
    if column_type.kind not in _FITTING[function]:
        raise ExecutionError(f"Invalid operation: {function}() does not give values of type {column_type}")
    return Default(column_type, expression, function)


def stored_default(column: ColumnDef) -> Default | None:
    """The compiled default of a column of the catalog."""
    return None if column.default is None else _compile_stored(column.default, column.name, column.type)


def default_array(column: ColumnDef, count: int, sources: ValueSources) -> pa.Array:
    """What `count` rows get in a column that a statement leaves out: its default, or NULL."""
    default = stored_default(column)
    if default is None:
        return pa.nulls(count, arrow_type(column.type))
    return default.array(count, sources)


def constant_array(column_type: ColumnType, value: object, count: int) -> pa.Array:
    """A column that holds one storage value `count` times."""
    target = arrow_type(column_type)
    if column_type.kind is Kind.EMBEDDING:
        values: Sequence[object] = [value] * count
        return pa.array(values, target)
    return pa.repeat(pa.array([value], target)[0], count)


@lru_cache(maxsize=4096)
def _compile_stored(text: str, name: str, column_type: ColumnType) -> Default:
    return compile_default(expression_from_text(text), name, column_type)


def _function_of(expression: exp.Expr) -> str | None:
    """The canonical name of a generating function without arguments."""
    if isinstance(expression, exp.Paren):
        return _function_of(expression.this)
    if isinstance(expression, exp.CurrentTimestamp):
        return "NOW" if expression.this is None else None
    if isinstance(expression, exp.CurrentUser):
        return "CURRENT_USER"
    if isinstance(expression, exp.Anonymous) and isinstance(expression.this, str) and not expression.expressions:
        name = expression.this.upper()
        return _SYNONYMS.get(name, name) if name in _ANONYMOUS else None
    return None
