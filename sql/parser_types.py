"""Type names of CREATE and ALTER TABLE with their parameters, as logical column types."""

from __future__ import annotations

from typing import Final

from sqlglot.tokenizer_core import Token, TokenType

from sql.diagnostics import shown
from sql.errors import SqlError, Unsupported
from sql.parser_cursor import Cursor
from storage.types import (
    BIGINT,
    BOOLEAN,
    BYTES,
    DATE,
    DATETIME,
    DOUBLE,
    FILE,
    FLOAT,
    INT,
    JSON,
    SMALLINT,
    TEXT,
    TIME,
    TIMESTAMP,
    UUID,
    ColumnType,
    decimal,
    embedding,
)

MAX_DECIMAL_PRECISION: Final = 38
MAX_EMBEDDING: Final = 8_192

_PLAIN: dict[str, ColumnType] = {
    **dict.fromkeys(("boolean", "bool"), BOOLEAN),
    **dict.fromkeys(("int16",), SMALLINT),
    **dict.fromkeys(("int32", "signed"), INT),
    **dict.fromkeys(("int64",), BIGINT),
    **dict.fromkeys(("real", "float4", "float32"), FLOAT),
    **dict.fromkeys(("double", "double precision", "float8", "float64"), DOUBLE),
    **dict.fromkeys(("json", "jsonb"), JSON),
    "timestamptz": DATETIME,
    "bytea": BYTES,
    "date": DATE,
    "uuid": UUID,
    "file": FILE,
}

SERIALS: Final = frozenset({"serial", "serial2", "serial4", "serial8", "smallserial", "bigserial"})
"""Types that mean BIGINT with DEFAULT SNOWFLAKE_ID()."""

_DISPLAY_WIDTH: dict[str, ColumnType] = {
    **dict.fromkeys(("smallint", "int2"), SMALLINT),
    **dict.fromkeys(("int", "integer", "int4", "mediumint"), INT),
    **dict.fromkeys(("bigint", "int8"), BIGINT),
}
"""MySQL writes INT(11): the width of a column on paper, which says nothing of its values."""
_TEXT_LENGTH = frozenset({"varchar", "char", "character", "char varying", "character varying", "nvarchar", "nchar",
                          "bpchar", "varchar2", "clob"})  # fmt: skip
_TEXT_ENDINGS = ("text", "string")
_BYTES_LENGTH = frozenset({"bytes", "binary", "varbinary", "blob"})
_WITH_PRECISION = {"timestamp": TIMESTAMP, "datetime": DATETIME, "time": TIME}
_DECIMALS = frozenset({"decimal", "numeric", "dec"})

_HINTS = {
    "tinyint": "use SMALLINT",
    "enum": "write ENUM('a', 'b') in CREATE TABLE or ADD COLUMN, or use TEXT with a CHECK constraint",
    "set": "use JSON",
    "array": "use JSON",
    "struct": "use JSON",
    "map": "use JSON",
    "row": "use JSON",
    "list": "use JSON",
    "interval": "use BIGINT for a number of microseconds",
    "vector": "use EMBEDDING(n)",
    "hugeint": "use DECIMAL(38,0)",
    "int128": "use DECIMAL(38,0)",
    "money": "use DECIMAL",
    "timetz": "use TIME",
    "variant": "use JSON",
    "xml": "use TEXT",
}


def parse_type(cursor: Cursor) -> ColumnType:
    """Takes a type name with its parameters. SERIAL types are BIGINT here: see `SERIALS`."""
    start = cursor.peek()
    if start is None or start.token_type in (TokenType.STRING, TokenType.NUMBER) or not _is_name(start):
        cursor.fail_expected("a type name")
    cursor.index += 1
    column_type = _named(cursor, start, start.text.lower())
    if cursor.word() in ("[", "array"):
        raise _unsupported(cursor, start, "Array types are", "use JSON or EMBEDDING(n)")
    if cursor.word() in ("unsigned", "zerofill"):
        raise _unsupported(
            cursor, start, f"{start.text.upper()} UNSIGNED is", "use a wider type with a CHECK constraint"
        )
    return column_type


def _is_name(token: Token) -> bool:
    return token.text[:1].isalpha()


def _named(cursor: Cursor, start: Token, name: str) -> ColumnType:
    if (plain := _PLAIN.get(name)) is not None:
        _no_parameters(cursor, name)
        return plain
    if name in SERIALS:
        _no_parameters(cursor, name)
        return BIGINT
    if (integer := _DISPLAY_WIDTH.get(name)) is not None:
        _parameters(cursor, name, 1)
        return integer
    is_text = name in _TEXT_LENGTH or name.endswith(_TEXT_ENDINGS)
    if is_text or name in _BYTES_LENGTH:
        for length in _parameters(cursor, name, 1):
            if length < 1:
                cursor.fail(f"{name.upper()} needs a length of at least 1.", start)
        return TEXT if is_text else BYTES
    if name in _WITH_PRECISION:
        return _time(cursor, start, name)
    if name in _DECIMALS:
        return _decimal(cursor, start, name)
    if name == "float":
        bits = _parameters(cursor, name, 1)
        if bits and not 1 <= bits[0] <= 53:
            cursor.fail("FLOAT(n) needs 1 to 53 bits.", start)
        return DOUBLE if bits and bits[0] > 24 else FLOAT
    if name == "embedding":
        dimension = _parameters(cursor, name, 1)
        if not dimension or not 1 <= dimension[0] <= MAX_EMBEDDING:
            cursor.fail(f"EMBEDDING(n) needs a dimension from 1 to {MAX_EMBEDDING}.", start)
        return embedding(dimension[0])
    if name.startswith(("uint", "usmall", "utiny", "ubig", "uhuge")):
        raise _unsupported(cursor, start, f"The type {name.upper()} is", "use a wider signed type")
    raise _unsupported(cursor, start, f"The type {shown(name.upper())[1:-1]} is", _HINTS.get(name))


def _time(cursor: Cursor, start: Token, name: str) -> ColumnType:
    precision = _parameters(cursor, name, 1)
    if precision and precision[0] > 9:
        cursor.fail(f"{name.upper()} has a precision from 0 to 9; values keep microseconds.", start)
    if cursor.accept("with", "time", "zone"):
        if name == "time":
            raise _unsupported(cursor, start, "The type TIME WITH TIME ZONE is", "use TIME")
        return DATETIME
    cursor.accept("without", "time", "zone")
    return _WITH_PRECISION[name]


def _decimal(cursor: Cursor, start: Token, name: str) -> ColumnType:
    parameters = _parameters(cursor, name, 2)
    if not parameters:
        return decimal(MAX_DECIMAL_PRECISION, 10)
    precision = parameters[0]
    scale = parameters[1] if len(parameters) > 1 else 0
    if not 1 <= precision <= MAX_DECIMAL_PRECISION:
        cursor.fail(f"{name.upper()} needs a precision from 1 to {MAX_DECIMAL_PRECISION}, not {precision}.", start)
    if scale > precision:
        cursor.fail(f"The scale {scale} of {name.upper()} may not exceed its precision {precision}.", start)
    return decimal(precision, scale)


def _parameters(cursor: Cursor, name: str, most: int) -> list[int]:
    """Takes `(n, …)` if it is next."""
    if not cursor.accept("("):
        return []
    values = [cursor.integer(f"a whole number for {name.upper()}")]
    while cursor.at(",") and len(values) < most:
        cursor.index += 1
        values.append(cursor.integer(f"a whole number for {name.upper()}"))
    cursor.expect(")")
    return values


def _no_parameters(cursor: Cursor, name: str) -> None:
    if cursor.at("("):
        cursor.fail(f"{name.upper()} takes no parameters.")


def _unsupported(cursor: Cursor, start: Token, what: str, hint: str | None) -> SqlError:
    return cursor.error(f"{what} not supported{'; ' + hint if hint else ''}.", start, Unsupported)
